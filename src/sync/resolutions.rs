//! Floor 3. CONFLICTS: what waits for a decision is shown to the federation, and decisions that were written
//! there are carried out here.
//!
//! Of two decisions about one row of `edge_conflicts` the first stands; the other becomes a note on the
//! conflict of the node where it was made, or where it came too late. A decision of the administrator is
//! carried out by the node whose value lost, the one that published the row; a decision that another node has
//! made is an edit by now that travels like any other. Everybody else only closes. Secrets are never taken
//! from a row.

use std::collections::BTreeSet;

use bson::{Bson, Document, doc};

use super::conflicts::{Decision, ResolveError, audit_decision, check_person_may_go, current_value, decided};
use super::round::{Round, RoundError};
use super::step;
use crate::central::{Central, CentralError};
use crate::domain::access::Actor;
use crate::domain::diff;
use crate::domain::record::Kind;
use crate::domain::schema::{Owner, Schema};
use crate::domain::value::{same_document, same_option};
use crate::store::{Conflict, ConflictStatus, Note, StoreError, Tx, stands_name};

/// Conflicts sent to the centre at a time.
const PUBLISH_CONFLICTS_MAX: usize = 100;
/// Open conflicts asked about at a time.
const RESOLUTIONS_IDS_MAX: usize = 500;
/// `status` of a row that is to be open again.
const REOPENED: &str = "reopened";
/// Who decided, if a row does not say.
const ADMINISTRATOR: &str = "the federation's administrator";

impl Round<'_> {
    /// Sends new and changed conflicts to the centre.
    pub(crate) async fn publish_conflicts(
        &mut self,
        central: &mut dyn Central,
        node: &str,
    ) -> Result<(), RoundError> {
        let mut after: Option<String> = None;
        loop {
            let mut conflicts =
                self.store.read()?.unpublished_conflicts(after.as_deref(), PUBLISH_CONFLICTS_MAX)?;
            let Some(last) = conflicts.last() else {
                return Ok(());
            };
            after = Some(last.id.clone());
            let is_open = |conflict: &&Conflict| conflict.status == ConflictStatus::Open;
            let again = conflicts.iter().filter(|conflict| conflict.is_reopened);
            let again = again.map(|conflict| reopened_row(conflict, node)).collect::<Result<_, _>>()?;
            let rest = conflicts.iter().filter(|conflict| !conflict.is_reopened || !is_open(conflict));
            let rest = rest.map(|conflict| central_row(conflict, node)).collect::<Result<_, _>>()?;
            let mut refused = send_rows(central, again).await?;
            refused.extend(send_rows(central, rest).await?);
            conflicts.retain(|conflict| !refused.contains(&conflict.id));
            step("conflicts.published");
            let closed = conflicts.iter().filter(|conflict| !is_open(conflict));
            let closed: Vec<String> = closed.map(|conflict| conflict.id.clone()).collect();
            let standing = if closed.is_empty() { Vec::new() } else { central.resolutions(&closed).await? };
            let node = node.to_owned();
            self.store
                .transact(move |tx| -> Result<(), StoreError> {
                    tx.conflicts_published(&conflicts, &node)?;
                    standing.iter().try_for_each(|row| note_other_decision(tx, row))
                })
                .await?;
        }
    }

    /// Takes over what was decided at the centre about conflicts that are open here.
    pub(crate) async fn pull_resolutions(
        &mut self,
        central: &mut dyn Central,
        node: &str,
    ) -> Result<(), RoundError> {
        let ids = self.store.read()?.published_open_conflicts()?;
        for ids in ids.chunks(RESOLUTIONS_IDS_MAX) {
            let rows = central.resolutions(ids).await?;
            step("resolutions.read");
            if rows.is_empty() {
                continue;
            }
            let node = node.to_owned();
            self.store
                .transact(move |tx| -> Result<(), StoreError> {
                    rows.iter().try_for_each(|row| take_resolution(tx, row, &node))
                })
                .await?;
            step("resolutions.taken");
        }
        Ok(())
    }
}

/// Publishes rows; returns the ids of those that the centre does not take, which must hold up neither the
/// others nor the round.
async fn send_rows(central: &mut dyn Central, rows: Vec<Document>) -> Result<BTreeSet<String>, CentralError> {
    let mut refused = BTreeSet::new();
    if rows.is_empty() {
        return Ok(refused);
    }
    match central.publish_conflicts(&rows).await {
        Err(CentralError::Failed(cause)) => {
            tracing::warn!(%cause, "some conflicts are not accepted by the centre and stay here");
            for row in &rows {
                match central.publish_conflicts(std::slice::from_ref(row)).await {
                    Err(CentralError::Failed(_)) => {
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

/// A conflict that was found again, as one that nobody has decided yet.
fn reopened_row(conflict: &Conflict, node: &str) -> Result<Document, StoreError> {
    let open = Conflict { resolution: None, ..conflict.clone() };
    let mut row = central_row(&open, node)?;
    row.insert("status", REOPENED);
    Ok(row)
}

/// A conflict as the federation sees it; secrets stay on the node.
fn central_row(conflict: &Conflict, node: &str) -> Result<Document, StoreError> {
    let schema = conflict.key.kind.schema();
    let mut row = doc! {
        "_id": &conflict.id,
        "type": conflict.subject.name(),
        "collection": schema.collection,
        "id": &conflict.key.id,
        "path": conflict.path.clone(),
        "status": conflict.status.name(),
        "node": node,
        "author": &conflict.author,
        "found_at": bson::DateTime::from_millis(conflict.found_at_ms),
        "fingerprint": conflict.fingerprint()?,
    };
    if !conflict.is_identity() {
        row.insert("stands", stands_name(conflict.stands));
    }
    let values = [("base", &conflict.base), ("local", &conflict.local), ("central", &conflict.central)];
    for (name, value) in values {
        if let Some(value) = value {
            row.insert(name, shown(conflict, value, node));
        }
    }
    if let Some(resolution) = &conflict.resolution {
        row.insert("resolution", resolution);
        row.insert("resolved_by", conflict.resolved_by.clone().unwrap_or_default());
        row.insert("applied_by", node);
        if let Some(value) = &conflict.value {
            row.insert("value", shown(conflict, value, node));
        }
    }
    if !conflict.notes.is_empty() {
        row.insert(
            "notes",
            conflict.notes.iter().map(|note| note_row(conflict, note, node)).collect::<Vec<_>>(),
        );
    }
    Ok(row)
}

/// A value of a conflict without what is never shown.
fn shown(conflict: &Conflict, value: &Bson, node: &str) -> Bson {
    match value {
        _ if conflict.is_secret() => Bson::from(format!("changed at node {node}")),
        Bson::Document(body) if conflict.path.is_empty() => {
            Bson::Document(conflict.key.kind.schema().without_secrets(body))
        }
        value => value.clone(),
    }
}

fn note_row(conflict: &Conflict, note: &Note, node: &str) -> Document {
    let mut row = doc! {
        "reason": &note.reason, "resolution": &note.resolution, "resolved_by": &note.by,
        "at": bson::DateTime::from_millis(note.at_ms),
    };
    if let Some(value) = &note.value {
        row.insert("value", shown(conflict, value, node));
    }
    row
}

/// What a row of `edge_conflicts` says about a decision.
struct Written<'a> {
    resolution: Option<&'a str>,
    value: Option<&'a Bson>,
    by: &'a str,
    /// The row waits for whoever carries the decision out to close it.
    is_open: bool,
    node: Option<&'a str>,
    /// A node made it, and the edit that follows from it.
    is_applied: bool,
    fingerprint: Option<&'a str>,
}

impl<'a> Written<'a> {
    fn of(row: &'a Document) -> Written<'a> {
        let text = |field: &str| row.get_str(field).ok();
        Written {
            resolution: text("resolution"),
            value: row.get("value"),
            by: text("resolved_by").filter(|by| !by.is_empty()).unwrap_or(ADMINISTRATOR),
            is_open: text("status") == Some(ConflictStatus::Open.name()),
            node: text("node"),
            is_applied: row.contains_key("applied_by"),
            fingerprint: text("fingerprint"),
        }
    }

    fn decision(&self) -> Option<Decision> {
        match (self.resolution?, self.value) {
            ("local", _) => Some(Decision::TakeLocal),
            ("central", _) => Some(Decision::TakeCentral),
            ("value", Some(value)) => Some(Decision::Value(value.clone())),
            _ => None,
        }
    }

    /// The value as far as it is taken from a row: never a secret.
    fn kept_value(&self, conflict: &Conflict) -> Option<Bson> {
        match self.value? {
            _ if conflict.is_secret() => None,
            Bson::Document(body) if conflict.path.is_empty() => {
                Some(Bson::Document(conflict.key.kind.schema().without_secrets(body)))
            }
            value => Some(value.clone()),
        }
    }

    fn note(&self, conflict: &Conflict, reason: &str, at_ms: i64) -> Note {
        Note {
            reason: reason.to_owned(),
            resolution: self.resolution.unwrap_or_default().to_owned(),
            value: self.kept_value(conflict),
            by: self.by.to_owned(),
            at_ms,
        }
    }
}

/// A conflict was closed here, and the row at the centre says how it was closed first.
fn note_other_decision(tx: &mut Tx<'_>, row: &Document) -> Result<(), StoreError> {
    let Some(mut conflict) = tx.conflict(row.get_str("_id").unwrap_or_default())? else {
        return Ok(());
    };
    let written = Written::of(row);
    let value = conflict.value.as_ref().map(|value| shown(&conflict, value, ""));
    let is_same = conflict.resolution.as_deref() == written.resolution
        && (conflict.is_secret() || same_option(value.as_ref(), written.value));
    let note = written.note(&conflict, "this decision came first", tx.now_ms());
    if !is_same && conflict.status == ConflictStatus::Resolved && conflict.note(note) {
        tx.keep_conflict(&conflict)?;
    }
    Ok(())
}

/// Takes over what a row says about a conflict that is open here.
fn take_resolution(tx: &mut Tx<'_>, row: &Document, node: &str) -> Result<(), StoreError> {
    let known = tx.conflict(row.get_str("_id").unwrap_or_default())?;
    let Some(mut conflict) = known.filter(|conflict| conflict.status == ConflictStatus::Open) else {
        return Ok(());
    };
    let written = Written::of(row);
    let is_ours = written.node == Some(conflict.publisher.as_deref().unwrap_or(node));
    let fingerprint = conflict.fingerprint()?;
    if written.fingerprint.is_some_and(|known| known != fingerprint) {
        // The same value lost again, in another clash: what was decided about the old one is not about it.
        if !written.is_open || written.node == Some(node) {
            let reason = "it is about an earlier clash over the same value";
            let note = written.note(&conflict, reason, tx.now_ms());
            conflict.note(note);
            conflict.is_reopened = true;
            tx.put_conflict(&conflict)?;
        }
        return Ok(());
    }
    let outcome = if conflict.is_identity() {
        Err("who a person is, is decided at the node".to_owned())
    } else if written.is_applied {
        Ok(())
    } else {
        match written.decision() {
            None => Err("it is neither local, central, nor value with a value".to_owned()),
            Some(decision) if conflict.is_secret() && decision != Decision::TakeCentral => {
                Err("of this field only the centre's value can be taken here".to_owned())
            }
            Some(decision) if is_ours => carry_out(tx, &conflict, &decision)?,
            Some(_) => Ok(()),
        }
    };
    match outcome {
        Ok(()) => {
            let resolution = written.resolution.unwrap_or_default();
            let value = written.kept_value(&conflict).filter(|_| resolution == "value");
            conflict.resolve(resolution, value, written.by, tx.now_ms());
            let record = tx.document(&conflict.key)?;
            audit_decision(tx, &conflict, record.as_ref(), &Actor::Centre)?;
            // An open row is closed by whoever carries the decision out.
            if written.is_open && is_ours { tx.put_conflict(&conflict) } else { tx.keep_conflict(&conflict) }
        }
        Err(reason) => {
            let note = written.note(&conflict, &reason, tx.now_ms());
            if conflict.note(note) { tx.keep_conflict(&conflict) } else { Ok(()) }
        }
    }
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
        return Ok(Err("the record is gone".to_owned()));
    }
    let schema = conflict.key.kind.schema();
    let mut document = decided(conflict, record.as_ref(), decision);
    if let (true, Some(document)) = (conflict.path.is_empty(), &mut document) {
        keep_secrets(schema, document, record.as_ref());
    }
    let is_there = match (&record, &document) {
        (Some(record), Some(document)) => same_document(record, document),
        (record, document) => record.is_none() && document.is_none(),
    };
    if is_there {
        return Ok(Ok(()));
    }
    if !still_stands(conflict, record.as_ref()) {
        return Ok(Err("the value has changed meanwhile".to_owned()));
    }
    if let Some(reason) = refusal(tx, conflict, record.as_ref(), document.as_ref())? {
        return Ok(Err(reason));
    }
    tx.edit(&conflict.key, document.as_ref(), &Actor::Centre)?;
    Ok(Ok(()))
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
    let (old, new) = match (old, new) {
        (Some(person), None) if key.kind == Kind::Person => {
            return match check_person_may_go(tx, &key.id, person) {
                Err(ResolveError::Store(error)) => Err(error),
                refused => Ok(refused.err().map(|refusal| refusal.to_string())),
            };
        }
        (old, Some(new)) => (old, new),
        (_, None) => return Ok(None),
    };
    if new.get_str("_id").ok() != Some(&key.id) {
        return Ok(Some("it would change the record's id".to_owned()));
    }
    let schema = key.kind.schema();
    if matches!(schema.owner, Owner::Field(_))
        && old.is_some_and(|old| schema.owner_of(old) != schema.owner_of(new))
    {
        return Ok(Some("it would give the record to another person".to_owned()));
    }
    Ok(None)
}
