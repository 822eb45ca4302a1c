//! Floor 3. CONFLICTS: conflicts are published in `edge_conflicts`, and decisions that were written there are
//! carried out here.
//!
//! A decision of the administrator is carried out by the node whose value lost, the one that published the row.
//! That node answers in the row: `resolved` with its name in `applied_by`, or `declined` with the reason. Other
//! nodes with the same conflict close it once the row has `applied_by`. A decision that a node has made is an edit
//! that travels like any other; of two decisions the one that was carried out first stands, and the other one
//! becomes a note on the conflict and a sentence in the row. Secrets are never taken from a row.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bson::{Bson, Document};

use super::conflict_rows::{Written, central_row, reopened_row, without_dollar_names};
use super::conflicts::{
    Decision, GONE_SINCE, GONE_WITH_FIELD, NOT_HERE, ResolveError, audit_decision, check_person_may_go,
    current_value, decided, is_for_what_stands, is_out_of_reach, refusal_of_owner,
};
use super::identity_answers::{self, Question, open_questions, take_answer};
use super::round::{Round, RoundError};
use super::{lease, made_again, step, undecided};
use crate::central::{Central, CentralError, ConflictAnswer, DOLLAR_NAME_CODE, Resolutions};
use crate::domain::access::Actor;
use crate::domain::diff;
use crate::domain::record::Kind;
use crate::domain::schema::Schema;
use crate::domain::value::{same_document, same_option};
use crate::store::{Conflict, ConflictStatus, StoreError, Subject, Tx};

/// Conflicts sent to the centre at a time.
const PUBLISH_CONFLICTS_MAX: usize = 100;
/// Roughly what conflicts read from the store at a time may take, bytes and values.
const PUBLISH_WEIGHT_MAX: usize = 4 << 20;
/// Rows read at a time.
const RESOLUTIONS_IDS_MAX: usize = 500;
/// Rounds in which the row of a conflict that was closed here is read again. A second decision that is written into
/// it in that time is answered.
const WATCHED_ROUNDS: i64 = 10;

impl Round<'_> {
    fn note_unpublished(&mut self, why: Option<CentralError>) {
        if let Some(error) = why {
            self.note_aside("Conflicts are not written at the centre", &error);
        }
    }

    /// Sends new and changed conflicts to the centre.
    pub(crate) async fn publish_conflicts(
        &mut self,
        central: &mut dyn Central,
        node: &str,
    ) -> Result<(), RoundError> {
        let mut after: Option<String> = None;
        loop {
            let mut conflicts = self.store.read()?.unpublished_conflicts(
                after.as_deref(),
                PUBLISH_CONFLICTS_MAX,
                PUBLISH_WEIGHT_MAX,
            )?;
            let Some(last) = conflicts.last() else {
                return Ok(());
            };
            after = Some(last.id.clone());
            let is_open = |conflict: &&Conflict| conflict.status == ConflictStatus::Open;
            let again = conflicts.iter().filter(|conflict| conflict.is_reopened);
            let again = again.map(|conflict| reopened_row(conflict, node)).collect::<Result<_, _>>()?;
            let rest = conflicts.iter().filter(|conflict| !conflict.is_reopened || !is_open(conflict));
            let rest = rest.map(|conflict| central_row(conflict, node)).collect::<Result<_, _>>()?;
            let mut why = None;
            let mut refused = send_rows(central, again, &mut why).await?;
            refused.extend(send_rows(central, rest, &mut why).await?);
            self.note_unpublished(why);
            refused.extend(self.send_answers(central, &conflicts, node).await?);
            conflicts.retain(|conflict| !refused.contains(&conflict.id));
            step("conflicts.published");
            let closed = conflicts.iter().filter(|conflict| !is_open(conflict));
            let mut to_read: Vec<String> = closed.map(|conflict| conflict.id.clone()).collect();
            let round = lease::rounds(&*self.store.read()?)?;
            loop {
                let found = match to_read.is_empty() {
                    true => Resolutions::default(),
                    false => central.resolutions(&to_read).await?,
                };
                to_read = found.left;
                let standing = found.decided;
                // One whose row was not read yet goes again if the round breaks off here.
                let (rest, published): (Vec<_>, Vec<_>) =
                    conflicts.into_iter().partition(|conflict| to_read.contains(&conflict.id));
                conflicts = rest;
                let name = node.to_owned();
                let answers = self
                    .store
                    .transact(move |tx| -> Result<Vec<ConflictAnswer>, StoreError> {
                        tx.conflicts_published(&published, &name, round)?;
                        take_rows(tx, &standing, &name, Asked::Closing)
                    })
                    .await?;
                answer(central, answers).await?;
                if to_read.is_empty() {
                    break;
                }
            }
        }
    }

    /// Tells other nodes which two people are one; returns the ids of the conflicts whose answers the centre does not
    /// take.
    async fn send_answers(
        &mut self,
        central: &mut dyn Central,
        conflicts: &[Conflict],
        node: &str,
    ) -> Result<BTreeSet<String>, RoundError> {
        let rows = conflicts.iter().map(|conflict| identity_answers::answer_row(conflict, node));
        let rows: Vec<Document> = rows.filter_map(Result::transpose).collect::<Result<_, _>>()?;
        let about = |row: &Document, field: &str| row.get_str(field).unwrap_or_default().to_owned();
        let of: Vec<_> = rows.iter().map(|row| (about(row, "_id"), about(row, "conflict"))).collect();
        let mut why = None;
        let refused = send_rows(central, rows, &mut why).await?;
        self.note_unpublished(why);
        Ok(of.into_iter().filter(|(id, _)| refused.contains(id)).map(|(_, conflict)| conflict).collect())
    }

    /// Carries out decisions that were written at the centre about conflicts that are open here, and answers
    /// those about conflicts that were closed a short time ago. Publishes again what was deleted there.
    pub(crate) async fn pull_resolutions(
        &mut self,
        central: &mut dyn Central,
        node: &str,
    ) -> Result<(), RoundError> {
        let round = lease::rounds(&*self.store.read()?)?;
        let snapshot = self.store.read()?;
        let mut ids = snapshot.conflicts_to_read(round, WATCHED_ROUNDS)?;
        let questions: BTreeMap<String, Question> =
            open_questions(&snapshot)?.into_iter().map(|question| (question.id.clone(), question)).collect();
        // First, so that a question that is answered by now is answered before anything is said about its conflict.
        ids.splice(0..0, questions.keys().cloned());
        let questions = Arc::new(questions);
        let has_forgettable = snapshot.has_forgettable_conflicts(round, WATCHED_ROUNDS)?;
        drop(snapshot);
        if has_forgettable {
            self.store.transact(move |tx| tx.forget_watched_conflicts(round, WATCHED_ROUNDS)).await?;
        }
        while !ids.is_empty() {
            let rest = ids.split_off(ids.len().min(RESOLUTIONS_IDS_MAX));
            let mut found = central.resolutions(&ids).await?;
            ids = std::mem::take(&mut found.left);
            ids.extend(rest);
            found.missing.retain(|id| !questions.contains_key(id));
            step("resolutions.read");
            if found.decided.is_empty() && found.missing.is_empty() {
                continue;
            }
            let (node, questions) = (node.to_owned(), Arc::clone(&questions));
            let answers = self
                .store
                .transact(move |tx| -> Result<Vec<ConflictAnswer>, StoreError> {
                    for row in &found.decided {
                        if let Some(question) = questions.get(row.get_str("_id").unwrap_or_default()) {
                            tx.sparing_conflict(&question.id, |tx| take_answer(tx, question, row))?;
                        }
                    }
                    for id in &found.missing {
                        tx.sparing_conflict(id, |tx| tx.publish_conflict_again(id))?;
                    }
                    take_rows(tx, &found.decided, &node, Asked::Later)
                })
                .await?;
            step("resolutions.taken");
            answer(central, answers).await?;
        }
        Ok(())
    }
}

/// Writes answers into their rows. An answer that the centre does not accept is repeated in the next round.
async fn answer(central: &mut dyn Central, answers: Vec<ConflictAnswer>) -> Result<(), CentralError> {
    if answers.is_empty() {
        return Ok(());
    }
    match central.answer_conflicts(&answers).await {
        Err(error) if is_of_row(&error) => {
            tracing::warn!(%error, "some answers to decisions are not accepted by the centre");
        }
        result => result?,
    }
    step("conflicts.answered");
    Ok(())
}

/// Publishes rows; returns the ids of those that the centre does not take, which must hold up neither the
/// others nor the round. The first reason is left in `why`.
async fn send_rows(
    central: &mut dyn Central,
    rows: Vec<Document>,
    why: &mut Option<CentralError>,
) -> Result<BTreeSet<String>, CentralError> {
    let mut refused = BTreeSet::new();
    if rows.is_empty() {
        return Ok(refused);
    }
    match central.publish_conflicts(&rows).await {
        Err(error) if is_of_row(&error) => {
            tracing::warn!(%error, "some conflicts are not accepted by the centre and stay here");
            for row in &rows {
                match publish_alone(central, row).await {
                    Err(error) if is_of_row(&error) => {
                        why.get_or_insert(error);
                        refused.insert(row.get_str("_id").unwrap_or_default().to_owned());
                    }
                    result => result?,
                }
            }
        }
        result => result?,
    }
    Ok(refused)
}

/// Without the values that a server cannot take because of their names, if it says so.
async fn publish_alone(central: &mut dyn Central, row: &Document) -> Result<(), CentralError> {
    let answer = central.publish_conflicts(std::slice::from_ref(row)).await;
    let is_about_names = answer.as_ref().is_err_and(|error| error.code() == Some(DOLLAR_NAME_CODE));
    // Without its people an answer about two would match nobody's question, and nobody would be told.
    let may_lack = row.get_str("type").ok() != Some("identity_answer");
    match (is_about_names && may_lack).then(|| without_dollar_names(row)).flatten() {
        Some(row) => central.publish_conflicts(&[row]).await,
        None => answer,
    }
}

/// Whether it may be due to a row, so that others are sent without it.
fn is_of_row(error: &CentralError) -> bool {
    error.is_about_call() && !error.is_of_centre()
}

/// When rows were read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// A moment after this node closed them, or tried to.
    Closing,
    Later,
}

/// Takes decisions from rows of `edge_conflicts`. Returns the answers to write there.
fn take_rows(
    tx: &mut Tx<'_>,
    rows: &[Document],
    node: &str,
    asked: Asked,
) -> Result<Vec<ConflictAnswer>, StoreError> {
    let mut answers = Vec::new();
    for row in rows {
        // Nothing is decided about what cannot be read. The row says it in the next round too.
        let id = row.get_str("_id").unwrap_or_default();
        let answer = tx.sparing_conflict(id, |tx| take_row(tx, id, row, node, asked))?;
        answers.extend(answer.flatten());
    }
    Ok(answers)
}

fn take_row(
    tx: &mut Tx<'_>,
    id: &str,
    row: &Document,
    node: &str,
    asked: Asked,
) -> Result<Option<ConflictAnswer>, StoreError> {
    let Some(conflict) = tx.conflict(id)? else {
        return Ok(None);
    };
    if tx.damage(&conflict.key)?.is_some() {
        return Ok(None);
    }
    let written = Written::of(row);
    match conflict.status {
        ConflictStatus::Open if asked == Asked::Later => take_decision(tx, conflict, &written, node),
        ConflictStatus::Resolved => compare_closed(tx, conflict, &written, node, asked),
        ConflictStatus::Open => Ok(None),
    }
}

/// A conflict was closed here. If the row says something else, another node was first, or somebody has decided
/// too late.
fn compare_closed(
    tx: &mut Tx<'_>,
    mut conflict: Conflict,
    written: &Written<'_>,
    node: &str,
    asked: Asked,
) -> Result<Option<ConflictAnswer>, StoreError> {
    let own = [Some(node), conflict.publisher.as_deref()];
    let fingerprint = conflict.fingerprint()?;
    let is_another_clash = written.fingerprint.is_some_and(|known| known != fingerprint);
    let is_another_nodes = written.node.is_some() && !own.contains(&written.node);
    if asked == Asked::Later && (is_another_clash || is_another_nodes) {
        // It was found again since, and the node that found it answers.
        return Ok(None);
    }
    let is_others = written.is_applied() && !own.contains(&written.applied_by);
    let answer = if is_others { None } else { written.closed(&conflict, node) };
    let is_second = !written.is_decided_as(&conflict, node) && written.resolution.is_some();
    if is_second && (is_others || answer.is_some()) && !written.is_declined() {
        let reason = if is_others { "this decision came first" } else { "another decision came first" };
        let note = written.note(&conflict, reason, tx.now_ms());
        if conflict.note(note) {
            tx.keep_conflict(&conflict)?;
        }
    }
    Ok(answer)
}

/// Takes over what a row says about a conflict that is open here.
fn take_decision(
    tx: &mut Tx<'_>,
    mut conflict: Conflict,
    written: &Written<'_>,
    node: &str,
) -> Result<Option<ConflictAnswer>, StoreError> {
    let publisher = conflict.publisher.as_deref().unwrap_or(node);
    // A row without the name of a node is answered by every node that published it.
    // An image that was put back finds conflicts again that it published under its old name. Where the box goes on from
    // which it was copied, that one answers.
    let is_former = match written.node {
        Some(named) if named != publisher && conflict.subject == Subject::Value => {
            lease::was_called(tx, named)?
        }
        _ => false,
    };
    let is_ours = is_former || written.node.is_none_or(|named| named == publisher);
    let fingerprint = conflict.fingerprint()?;
    if written.fingerprint.is_some_and(|known| known != fingerprint) {
        // The same value lost again, in another clash: what was decided about the old one is not about it.
        if !written.is_open() || written.node == Some(node) {
            reopen(tx, conflict, written, "it is about an earlier clash over the same value")?;
        }
        return Ok(None);
    }
    if conflict.subject != Subject::Value && written.is_applied() {
        reopen(tx, conflict, written, "it is not decided on this node")?;
        return Ok(None);
    }
    if !written.is_applied() && (!is_ours || written.is_declined()) {
        // The node that published it answers, or has.
        return Ok(None);
    }
    let outcome = if conflict.is_identity() {
        Err("who a person is, is decided at the node".to_owned())
    } else if written.is_applied() {
        Ok(())
    } else {
        match written.decision() {
            Err(reason) => Err(reason.to_owned()),
            Ok(decision) if conflict.is_secret() && decision != Decision::TakeCentral => {
                Err("of this field only \"central\" can be decided here".to_owned())
            }
            Ok(decision) => carry_out(tx, &conflict, &decision)?,
        }
    };
    match outcome {
        Ok(()) => {
            let resolution = written.resolution.as_deref().unwrap_or_default();
            let value = written.kept_value(&conflict).filter(|_| resolution == "value");
            conflict.resolve(resolution, value, &written.by, tx.now_ms());
            let record = tx.document(&conflict.key)?;
            audit_decision(tx, &conflict, record.as_ref(), &Actor::Centre)?;
            // The row of a decision that was carried out here has to say so.
            if written.is_applied() {
                tx.keep_conflict(&conflict)?
            } else {
                tx.put_conflict(&conflict)?
            }
            Ok(None)
        }
        Err(_) if is_former => Ok(None),
        Err(reason) => {
            let note = written.note(&conflict, &reason, tx.now_ms());
            if conflict.note(note) {
                tx.keep_conflict(&conflict)?;
            }
            Ok(Some(written.declined(&conflict.id, node, &reason)))
        }
    }
}

/// Opens the row of an open conflict again, with the decision in it as a note.
fn reopen(
    tx: &mut Tx<'_>,
    mut conflict: Conflict,
    written: &Written<'_>,
    reason: &str,
) -> Result<(), StoreError> {
    let note = written.note(&conflict, reason, tx.now_ms());
    conflict.note(note);
    conflict.is_reopened = true;
    tx.put_conflict(&conflict)
}

/// Makes the edit that a decision asks for, if the record still holds the value that the decision was made on
/// and not the decided one already; or says why it cannot be done.
fn carry_out(
    tx: &mut Tx<'_>,
    conflict: &Conflict,
    decision: &Decision,
) -> Result<Result<(), String>, StoreError> {
    let record = tx.document(&conflict.key)?;
    if record.is_none() && !conflict.path.is_empty() {
        return Ok(Err(GONE_WITH_FIELD.to_owned()));
    }
    if conflict.subject == Subject::Record {
        return carry_out_about_record(tx, conflict, record.as_ref(), decision);
    }
    if *decision == Decision::NewId {
        return Ok(Err("\"new_id\" is for two records under one id".to_owned()));
    }
    if conflict.path.is_empty() && matches!(decision, Decision::Value(value) if value.as_document().is_none())
    {
        return Ok(Err("for a whole record the value must be the record with its _id".to_owned()));
    }
    if is_out_of_reach(conflict, record.as_ref(), decision) {
        return Ok(Err(NOT_HERE.to_owned()));
    }
    if conflict.is_withheld && is_for_what_stands(conflict, decision) {
        return Ok(Ok(()));
    }
    let schema = conflict.key.kind.schema();
    let mut document = decided(conflict, record.as_ref(), decision);
    if let (true, Decision::Value(_), Some(document)) = (conflict.path.is_empty(), decision, &mut document) {
        keep_secrets(schema, document, record.as_ref());
    }
    let is_there = match (&record, &document) {
        (Some(record), Some(document)) => same_document(record, document),
        (record, document) => record.is_none() && document.is_none(),
    };
    if made_again::is_closing(tx, conflict, record.as_ref(), decision)? {
        return Ok(Ok(()));
    }
    let is_making = document.is_some() && made_again::is_making(tx, conflict, record.as_ref())?;
    if is_there && !is_making {
        return Ok(Ok(()));
    }
    let foreign = refusal_of_owner(tx, conflict, record.as_ref(), document.as_ref())?;
    if foreign.is_some() && is_for_what_stands(conflict, decision) {
        return Ok(Ok(()));
    }
    if !still_stands(conflict, record.as_ref()) {
        let is_gone = conflict.path.is_empty() && record.is_none();
        return Ok(Err(if is_gone { GONE_SINCE } else { "the value has changed meanwhile" }.to_owned()));
    }
    if let Some(reason) = foreign {
        return Ok(Err(reason.to_owned()));
    }
    if let Some(reason) = refusal(tx, conflict, record.as_ref(), document.as_ref())? {
        return Ok(Err(reason));
    }
    match &document {
        Some(body) if is_making => answered(made_again::make(tx, conflict, decision, body, &Actor::Centre)),
        document => {
            tx.edit(&conflict.key, document.as_ref(), &Actor::Centre)?;
            Ok(Ok(()))
        }
    }
}

/// A refusal in words.
fn answered(carried_out: Result<(), ResolveError>) -> Result<Result<(), String>, StoreError> {
    match carried_out {
        Err(ResolveError::Store(error)) => Err(error),
        carried_out => Ok(carried_out.map_err(|refused| refused.to_string())),
    }
}

/// [`carry_out`] of a decision about two records under one id, if the one of this node is still as the row shows it.
fn carry_out_about_record(
    tx: &mut Tx<'_>,
    conflict: &Conflict,
    record: Option<&Document>,
    decision: &Decision,
) -> Result<Result<(), String>, StoreError> {
    let schema = conflict.key.kind.schema();
    let shown = record.map(|record| Bson::Document(schema.without_secrets(record)));
    if !same_option(shown.as_ref(), conflict.local.as_ref()) {
        return Ok(Err("the record has changed meanwhile: decide at the node".to_owned()));
    }
    answered(undecided::carry_out(tx, conflict, decision, &Actor::Centre))
}

/// Whether the record holds the value that was decided on, in its place: something else in place of what the path
/// goes through may look the same.
fn still_stands(conflict: &Conflict, record: Option<&Document>) -> bool {
    let current = current_value(conflict, record);
    let is_replaced = !conflict.path.is_empty()
        && current.is_some()
        && record.is_some_and(|record| diff::get(record, &conflict.path).is_none());
    !is_replaced && same_option(current.as_ref(), conflict.standing())
}

/// A whole record from the centre says nothing about secrets: they stay what they are.
fn keep_secrets(schema: &Schema, document: &mut Document, record: Option<&Document>) {
    for secret in schema.secret_fields {
        match record.and_then(|record| record.get(secret)) {
            Some(kept) => drop(document.insert(*secret, kept.clone())),
            None => drop(document.remove(secret)),
        }
    }
}

/// What speaks against an edit, whoever asks for it.
fn refusal(
    tx: &Tx<'_>,
    conflict: &Conflict,
    old: Option<&Document>,
    new: Option<&Document>,
) -> Result<Option<String>, StoreError> {
    let key = &conflict.key;
    let new = match (old, new) {
        (Some(person), None) if key.kind == Kind::Person => {
            return match check_person_may_go(tx, &key.id, person) {
                Err(ResolveError::Store(error)) => Err(error),
                refused => Ok(refused.err().map(|refusal| refusal.to_string())),
            };
        }
        (_, Some(new)) => new,
        (_, None) => return Ok(None),
    };
    if new.get_str("_id").ok() != Some(&key.id) {
        return Ok(Some("it would change the record's id".to_owned()));
    }
    Ok(None)
}
