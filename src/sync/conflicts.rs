//! Floor 3. Deciding conflicts: the chosen value becomes an ordinary edit that travels like any other.

use bson::{Bson, Document};

use super::{made_again, step, undecided};
use crate::domain::access::Actor;
use crate::domain::active::{ACTIVE, is_active};
use crate::domain::audit::{Event, What};
use crate::domain::diff;
use crate::domain::merge::{Side, is_other_person};
use crate::domain::record::{Kind, RecordKey};
use crate::domain::schema::Owner;
use crate::domain::value::same_option;
use crate::store::{Conflict, ConflictStatus, Stays, Store, StoreError, Subject, Tx};

/// What somebody decided.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    TakeLocal,
    TakeCentral,
    /// A value of their own.
    Value(Bson),
    /// The record of this node goes on under an id of its own.
    NewId,
}

impl Decision {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Decision::TakeLocal => "local",
            Decision::TakeCentral => "central",
            Decision::Value(_) => "value",
            Decision::NewId => "new_id",
        }
    }

    /// The value of one's own.
    pub(super) fn value(&self) -> Option<Bson> {
        match self {
            Decision::Value(value) => Some(value.clone()),
            _ => None,
        }
    }
}

/// Why a conflict was not resolved.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("there is no such conflict")]
    Unknown,
    #[error("the conflict has been resolved already")]
    Resolved(Box<Conflict>),
    /// The record no longer holds the value that the decision was made on.
    #[error("the value has changed meanwhile")]
    Moved { conflict: Box<Conflict>, current: Option<Bson> },
    /// A decision about who the person is comes first: the one about this conflict.
    #[error("it is not decided yet who this person is")]
    Held { conflict: String },
    /// The new record would not be acceptable.
    #[error("{message}")]
    Invalid { field: String, message: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a decision writes over: what the record holds at the conflict's path now, or in place of what the path
/// goes through.
pub fn current_value(conflict: &Conflict, record: Option<&Document>) -> Option<Bson> {
    if conflict.path.is_empty() {
        return record.cloned().map(Bson::Document);
    }
    record.and_then(|record| diff::standing(record, &conflict.path)).cloned()
}

/// The record after a decision; `None` deletes it.
pub fn decided(conflict: &Conflict, record: Option<&Document>, decision: &Decision) -> Option<Document> {
    if conflict.subject == Subject::Record {
        return match decision {
            Decision::TakeCentral | Decision::NewId => {
                conflict.central.as_ref().and_then(Bson::as_document).cloned()
            }
            _ => record.cloned(),
        };
    }
    // A whole record: one side had deleted it, and that side's value is that it is gone. The other side's is its body, which
    // may be edited since.
    if conflict.path.is_empty() {
        return match decision {
            _ if record.is_some() && is_for_what_stands(conflict, decision) => record.cloned(),
            Decision::Value(Bson::Document(value)) => Some(as_closed(conflict, record, value)),
            _ => made_again::chosen(conflict, decision).and_then(Bson::as_document).cloned(),
        };
    }
    let value = match decision {
        Decision::TakeLocal => conflict.local.clone(),
        Decision::TakeCentral => conflict.central.clone(),
        Decision::Value(value) => Some(value.clone()),
        Decision::NewId => None,
    };
    let mut document = record?.clone();
    diff::set(&mut document, &conflict.path, value);
    Some(document)
}

/// The body of a person as somebody has written it in a decision, with the account closed if it is closed here or on either side of
/// the conflict, and the body does not say itself what it is to be.
fn as_closed(conflict: &Conflict, record: Option<&Document>, value: &Document) -> Document {
    let mut body = value.clone();
    let sides =
        [conflict.local.as_ref(), conflict.central.as_ref()].map(|side| side.and_then(Bson::as_document));
    let is_closed = record.into_iter().chain(sides.into_iter().flatten()).any(|person| !is_active(person));
    if conflict.key.kind == Kind::Person && is_closed && !body.contains_key(ACTIVE) {
        body.insert(ACTIVE, false);
    }
    body
}

/// Why a value is not put into a record.
pub(super) const OF_ANOTHER: &str = "the record is another person's now, or nobody knows whose it is: take the value that stands, and write the other one where it belongs";

/// Why a body is not taken that names somebody else.
pub(super) const OTHER_OWNER: &str = "it would give the record to another person";

/// As [`OF_ANOTHER`], of a record that is gone.
pub(super) const GONE_OF_ANOTHER: &str = "the record is gone, and its account is another person's now, or nobody knows whose it was: enter it where it belongs. The side that had deleted it closes the conflict and writes nothing; if no side had, and both versions are another one's, \"central\" does";

/// Why a decision in a row is not carried out for a version of a whole record that stood when the conflict was found: the person who
/// deleted the record later may have seen it.
pub(super) const GONE_SINCE: &str = "the record is gone: it was deleted after this conflict was found. To have it again, decide at the node, or take it out of the trash there; the side that had deleted it closes the conflict";

/// Why a field of a record that is gone gets no value.
pub(super) const GONE_WITH_FIELD: &str =
    "the record is gone: take \"central\" at the node, which closes the conflict";

/// Whether a decision is for the side that stands.
pub(super) fn is_for_what_stands(conflict: &Conflict, decision: &Decision) -> bool {
    matches!(
        (decision, conflict.stands),
        (Decision::TakeLocal, Side::Local) | (Decision::TakeCentral, Side::Remote)
    )
}

/// Why a value cannot be taken that stayed on another node.
pub(super) const NOT_HERE: &str =
    "one of the two values is not on this node: take the value that stands, or write another one";

/// Whether a decision is for a value that is not on this node.
pub(super) fn is_out_of_reach(conflict: &Conflict, record: Option<&Document>, decision: &Decision) -> bool {
    if conflict.path.is_empty() && record.is_none() {
        // What stood is nowhere but in the conflict by now.
        let is_side = !matches!(decision, Decision::Value(_));
        return conflict.is_withheld && is_side && made_again::chosen(conflict, decision).is_some();
    }
    conflict.is_withheld && !is_for_what_stands(conflict, decision) && !matches!(decision, Decision::Value(_))
}

/// Why a decision may not change a record, if it may not: the value was another human being's than whose the record is now,
/// it is not known whose it was, or the record would become another one's. A record that is gone has its rule in
/// [`made_again`].
pub(super) fn refusal_of_owner(
    tx: &Tx<'_>,
    conflict: &Conflict,
    record: Option<&Document>,
    decided: Option<&Document>,
) -> Result<Option<&'static str>, StoreError> {
    let Some(record) = record.filter(|record| conflict.subject == Subject::Value && Some(*record) != decided)
    else {
        return Ok(None);
    };
    if !tx.belongs_into(conflict, record)? {
        return Ok(Some(OF_ANOTHER));
    }
    let schema = conflict.key.kind.schema();
    let is_given = decided.is_some_and(|decided| match schema.owner {
        Owner::Nobody => false,
        Owner::Itself => conflict.path.is_empty() && is_other_person(Some(record), record, decided),
        Owner::Field(_) => schema.owner_of(record) != schema.owner_of(decided),
    });
    Ok(is_given.then_some(OTHER_OWNER))
}

/// What lost may come to stand after all: somebody wrote the same, or another node brought it back to a restored
/// centre. Then nobody has to decide any more.
pub(super) fn close_moot(tx: &mut Tx<'_>, key: &RecordKey, record: &Document) -> Result<(), StoreError> {
    for mut conflict in tx.open_conflicts_of(key)? {
        let value = diff::get(record, &conflict.path);
        if conflict.path.is_empty() || !same_option(value, conflict.loser()) {
            continue;
        }
        let stands = match conflict.stands {
            Side::Remote => Decision::TakeLocal,
            Side::Local => Decision::TakeCentral,
        };
        conflict.resolve(stands.name(), None, &Actor::Centre.to_string(), tx.now_ms());
        tx.put_conflict(&conflict)?;
    }
    Ok(())
}

/// A person is deleted by a decision under the same conditions as by a request.
pub(super) fn check_person_may_go(tx: &Tx<'_>, id: &str, person: &Document) -> Result<(), ResolveError> {
    let invalid = |field: &str, message: &str| {
        Err(ResolveError::Invalid { field: field.to_owned(), message: message.to_owned() })
    };
    match tx.why_stays(id, person)? {
        None => Ok(()),
        Some(Stays::Held { conflict }) => Err(ResolveError::Held { conflict }),
        Some(Stays::Rewritten) => {
            invalid("", "The person was made another human being, which the next round asks about.")
        }
        Some(Stays::LogsIn) => invalid("active", "The user is active."),
        Some(Stays::HasRecords) => invalid("", "The user has records of their own."),
    }
}

/// Carries out a decision, if the record still holds `seen` at the conflict's path.
///
/// `check` may refuse the resulting record; it runs in the transaction.
pub async fn resolve<F>(
    store: &Store,
    id: &str,
    decision: Decision,
    seen: Option<Bson>,
    actor: Actor,
    check: F,
) -> Result<Conflict, ResolveError>
where
    F: Fn(&Conflict, Option<&Document>, Option<&Document>) -> Result<(), ResolveError> + Send + 'static,
{
    let id = id.to_owned();
    store
        .transact(move |tx: &mut Tx<'_>| {
            let conflict = decide(tx, &id, &decision, seen.as_ref(), &actor, &check)?;
            step("conflict.deciding");
            Ok(conflict)
        })
        .await
        .inspect(|_| step("conflict.decided"))
}

/// Says what [`resolve`] would say, and changes nothing.
pub async fn try_resolving<F>(
    store: &Store,
    id: &str,
    decision: Decision,
    seen: Option<Bson>,
    actor: Actor,
    check: F,
) -> Result<Conflict, ResolveError>
where
    F: Fn(&Conflict, Option<&Document>, Option<&Document>) -> Result<(), ResolveError> + Send + 'static,
{
    let id = id.to_owned();
    store.try_out(move |tx: &mut Tx<'_>| decide(tx, &id, &decision, seen.as_ref(), &actor, &check)).await
}

pub(super) fn decide(
    tx: &mut Tx<'_>,
    id: &str,
    decision: &Decision,
    seen: Option<&Bson>,
    actor: &Actor,
    check: &impl Fn(&Conflict, Option<&Document>, Option<&Document>) -> Result<(), ResolveError>,
) -> Result<Conflict, ResolveError> {
    let known = tx.conflict(id)?.filter(|conflict| !conflict.is_identity());
    let mut conflict = known.ok_or(ResolveError::Unknown)?;
    if conflict.status == ConflictStatus::Resolved {
        return Err(ResolveError::Resolved(Box::new(conflict)));
    }
    let record = tx.document(&conflict.key)?;
    let current = current_value(&conflict, record.as_ref());
    if !same_option(current.as_ref(), seen) {
        return Err(ResolveError::Moved { conflict: Box::new(conflict), current });
    }
    if record.is_none() && !conflict.path.is_empty() && *decision == Decision::TakeCentral {
        // The record is gone, and this agrees with that.
        conflict.resolve(decision.name(), None, &actor.to_string(), tx.now_ms());
        tx.put_conflict(&conflict)?;
        audit_decision(tx, &conflict, None, actor)?;
        return Ok(conflict);
    }
    if record.is_none() && !conflict.path.is_empty() {
        return Err(ResolveError::Invalid { field: "take".to_owned(), message: GONE_WITH_FIELD.to_owned() });
    }
    if is_out_of_reach(&conflict, record.as_ref(), decision) {
        return Err(ResolveError::Invalid { field: "take".to_owned(), message: NOT_HERE.to_owned() });
    }
    let mut document = decided(&conflict, record.as_ref(), decision);
    if conflict.is_withheld && is_for_what_stands(&conflict, decision) {
        document.clone_from(&record);
    }
    if made_again::is_closing(tx, &conflict, record.as_ref(), decision)? {
        document = None;
    }
    let mut foreign = refusal_of_owner(tx, &conflict, record.as_ref(), document.as_ref())?;
    if foreign.is_some() && is_for_what_stands(&conflict, decision) {
        // Whatever the other person's record holds by now stays.
        (document, foreign) = (record.clone(), None);
    }
    let refused =
        |message: &str| Err(ResolveError::Invalid { field: "take".to_owned(), message: message.to_owned() });
    if let Some(message) = foreign.filter(|message| *message != OTHER_OWNER) {
        return refused(message);
    }
    // Making it again is a right of its own, also where the node has it still.
    let is_making = document.is_some()
        && conflict.subject == Subject::Value
        && made_again::is_making(tx, &conflict, record.as_ref())?;
    check(&conflict, record.as_ref().filter(|_| !is_making), document.as_ref())?;
    // The check names the field.
    if let Some(message) = foreign {
        return refused(message);
    }
    if conflict.subject == Subject::Record {
        undecided::carry_out(tx, &conflict, decision, actor)?;
        conflict.resolve(decision.name(), None, &actor.to_string(), tx.now_ms());
        tx.put_conflict(&conflict)?;
        audit_decision(tx, &conflict, record.as_ref(), actor)?;
        return Ok(conflict);
    }
    if *decision == Decision::NewId {
        let message = "a new id is for two records under one id".to_owned();
        return Err(ResolveError::Invalid { field: "take".to_owned(), message });
    }
    if let (Some(person), None, Kind::Person) = (&record, &document, conflict.key.kind) {
        check_person_may_go(tx, &conflict.key.id, person)?;
    }
    match &document {
        Some(body) if is_making => {
            made_again::make(tx, &conflict, decision, body, actor)?;
        }
        document => drop(tx.edit(&conflict.key, document.as_ref(), actor)?),
    }
    conflict.resolve(decision.name(), decision.value(), &actor.to_string(), tx.now_ms());
    tx.put_conflict(&conflict)?;
    audit_decision(tx, &conflict, record.as_ref().or(document.as_ref()), actor)?;
    Ok(conflict)
}

/// That a conflict was decided, and how; `record` says whose it is.
pub(super) fn audit_decision(
    tx: &mut Tx<'_>,
    conflict: &Conflict,
    record: Option<&Document>,
    actor: &Actor,
) -> Result<(), StoreError> {
    let schema = conflict.key.kind.schema();
    let owner = record.and_then(|record| schema.owner_of(record));
    let event = Event::new(What::Decision, actor).at(tx.asked_from());
    let event = event.about(schema.collection, &conflict.key.id, owner.as_deref());
    tx.audit(
        event.saying(conflict.resolution.as_deref().unwrap_or_default()).changing(&[conflict.path.join(".")]),
    )
}
