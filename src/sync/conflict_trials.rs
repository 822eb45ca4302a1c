//! Floor 3. Decisions about conflicts that are tried one after the other and undone together: to see what many of them would do.
//!
//! One decision may open the way for the next, or bar it: a person goes only once their last record is gone. So all of them
//! share one transaction, which is never committed.

use bson::Bson;

use super::conflicts::{Decision, ResolveError, current_value, decide};
use crate::domain::access::Actor;
use crate::store::{Conflict, Store, StoreError, Tx};

/// A decision that is tried.
#[derive(Debug, Clone)]
pub struct Trial {
    /// Id of the conflict.
    pub conflict: String,
    pub decision: Decision,
}

/// Attempts at most: each reads and decides everything anew, while nobody else writes.
const ATTEMPTS_MAX: usize = 8;

/// Why an attempt ended before its last decision.
enum Stop<A> {
    /// The decision at this place was refused after it had written something: the next attempt leaves it out.
    Refused {
        at: usize,
        answer: A,
        /// The answers to those before it.
        before: Vec<A>,
    },
    Store(StoreError),
}

impl<A> From<StoreError> for Stop<A> {
    fn from(error: StoreError) -> Self {
        Stop::Store(error)
    }
}

/// Says of each decision what [`super::conflicts::resolve`] would say if all before it had been carried out, in the words of `tell`.
/// Nothing is changed. The answers may be fewer than `trials`, but there is one at least, if there is a trial: where too many
/// decisions are refused after they have written something, those behind are not tried.
///
/// `is_seen(n, conflict, current)`: whether the n-th decision was made on what the conflict holds then. `check` may refuse a
/// record as a decision leaves it. Errors are those of the store; a damaged row is an answer.
pub async fn try_in_turn<S, C, T, A>(
    store: &Store,
    trials: Vec<Trial>,
    actor: Actor,
    is_seen: S,
    check: C,
    tell: T,
) -> Result<Vec<A>, StoreError>
where
    S: Fn(usize, &Conflict, Option<&Bson>) -> bool + Clone + Send + 'static,
    C: Fn(&Conflict, Option<&bson::Document>, Option<&bson::Document>) -> Result<(), ResolveError>
        + Clone
        + Send
        + 'static,
    T: Fn(Result<(), ResolveError>) -> A + Clone + Send + 'static,
    A: Clone + Send + 'static,
{
    let mut known: Vec<Option<A>> = vec![None; trials.len()];
    let mut attempt = 0;
    loop {
        attempt += 1;
        let (trials, known_now, actor) = (trials.clone(), known.clone(), actor.clone());
        let (is_seen, check, tell) = (is_seen.clone(), check.clone(), tell.clone());
        let tried = store.try_out(move |tx: &mut Tx<'_>| {
            let mut answers = Vec::with_capacity(trials.len());
            for (at, (trial, known)) in trials.iter().zip(&known_now).enumerate() {
                if let Some(answer) = known {
                    answers.push(answer.clone());
                    continue;
                }
                let before = tx.writes();
                let tried = try_one(tx, trial, &actor, &|conflict, now| is_seen(at, conflict, now), &check);
                let is_refused = tried.is_err();
                let answer = match tried {
                    Err(ResolveError::Store(error)) if !matches!(error, StoreError::DamagedRow(_)) => {
                        return Err(Stop::Store(error));
                    }
                    tried => tell(tried),
                };
                if is_refused && tx.writes() != before {
                    return Err(Stop::Refused { at, answer, before: answers });
                }
                answers.push(answer);
            }
            Ok(answers)
        });
        match tried.await {
            Ok(answers) => return Ok(answers),
            Err(Stop::Store(error)) => return Err(error),
            Err(Stop::Refused { answer, mut before, .. }) if attempt == ATTEMPTS_MAX => {
                before.push(answer);
                return Ok(before);
            }
            Err(Stop::Refused { at, answer, .. }) => {
                if let Some(place) = known.get_mut(at) {
                    *place = Some(answer);
                }
            }
        }
    }
}

fn try_one(
    tx: &mut Tx<'_>,
    trial: &Trial,
    actor: &Actor,
    is_seen: &impl Fn(&Conflict, Option<&Bson>) -> bool,
    check: &impl Fn(&Conflict, Option<&bson::Document>, Option<&bson::Document>) -> Result<(), ResolveError>,
) -> Result<(), ResolveError> {
    let conflict = tx.conflict(&trial.conflict)?.ok_or(ResolveError::Unknown)?;
    let record = tx.document(&conflict.key)?;
    let current = current_value(&conflict, record.as_ref());
    drop(record);
    if !is_seen(&conflict, current.as_ref()) {
        return Err(ResolveError::Moved { conflict: Box::new(conflict), current });
    }
    decide(tx, &trial.conflict, &trial.decision, current.as_ref(), actor, check).map(drop)
}
