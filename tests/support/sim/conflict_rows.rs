//! `edge_conflicts` in memory: what a centre makes of the rows that nodes publish.

use std::collections::BTreeMap;

use bson::{Bson, Document};
use thalamus_edge::central::{ConflictAnswer, Resolutions, WaitingConflicts};
use thalamus_edge::domain::value::same_option;

fn has_status(row: &Document, status: &str) -> bool {
    row.get_str("status").is_ok_and(|found| found == status)
}

fn resolution(row: &Document) -> Option<&Bson> {
    row.get("resolution").filter(|resolution| **resolution != Bson::Null)
}

/// Whether the administrator has decided and no node has carried it out.
pub(crate) fn is_to_carry_out(row: &Document) -> bool {
    has_status(row, "open") && resolution(row).is_some()
}

/// As [`thalamus_edge::central::Central::publish_conflicts`] for one row.
pub(crate) fn publish(rows: &mut BTreeMap<String, Document>, row: &Document) {
    let id = row.get_str("_id").expect("an id").to_owned();
    let Some(known) = rows.get_mut(&id) else {
        let mut row = row.clone();
        if has_status(&row, "reopened") {
            row.insert("status", "open");
        }
        rows.insert(id, row);
        return;
    };
    if has_status(row, "reopened") {
        let is_own = known.get("node") == row.get("node") && resolution(known).is_some();
        if !has_status(known, "open") || is_own {
            *known = row.clone();
            known.insert("status", "open");
        }
    } else if !has_status(row, "open") {
        let is_same = known.get("resolution") == row.get("resolution")
            && (row.get_str("resolution").is_ok_and(|resolution| resolution != "value")
                || same_option(known.get("value"), row.get("value")));
        if !known.contains_key("applied_by") && (resolution(known).is_none() || is_same) {
            known.extend(row.clone());
            for field in ["declined", "declined_fingerprint"] {
                known.remove(field);
            }
        }
    }
}

/// As [`thalamus_edge::central::Central::answer_conflicts`] for one answer.
pub(crate) fn answer(rows: &mut BTreeMap<String, Document>, answer: &ConflictAnswer) {
    let Some(known) = rows.get_mut(&answer.id) else {
        return;
    };
    if answer.seen.iter().all(|(field, value)| same_option(known.get(*field), value.as_ref())) {
        known.extend(answer.set.clone());
        for field in &answer.unset {
            known.remove(field);
        }
    }
}

/// Bytes of decided rows after which the others are left.
const DECIDED_BYTES_MAX: usize = 256 << 10;

/// As [`thalamus_edge::central::Central::resolutions`], with all fields.
pub(crate) fn read(rows: &BTreeMap<String, Document>, ids: &[String]) -> Resolutions {
    let is_decided = |row: &Document| !has_status(row, "open") || resolution(row).is_some();
    let (mut found, mut bytes) = (Resolutions::default(), 0);
    for id in ids {
        match rows.get(id) {
            _ if bytes >= DECIDED_BYTES_MAX => found.left.push(id.clone()),
            None => found.missing.push(id.clone()),
            Some(row) if is_decided(row) => {
                bytes += row.to_vec().expect("a row").len();
                found.decided.push(row.clone());
            }
            Some(_) => {}
        }
    }
    found
}

/// Rows that wait which one answer has.
const WAITING_ROWS_MAX: usize = 3;

/// As [`thalamus_edge::central::Central::waiting_conflicts`].
pub(crate) fn waiting(
    rows: &BTreeMap<String, Document>,
    nodes: &[String],
    after: Option<&str>,
) -> WaitingConflicts {
    let is_theirs = |row: &Document| row.get_str("node").is_ok_and(|node| nodes.iter().any(|id| id == node));
    let waits = |row: &Document| {
        has_status(row, "open") || has_status(row, "declined") || !row.contains_key("applied_by")
    };
    let after = after.unwrap_or_default();
    let later = rows.iter().filter(|(id, row)| id.as_str() > after && is_theirs(row) && waits(row));
    let rows: Vec<Document> = later.map(|(_, row)| row.clone()).take(WAITING_ROWS_MAX).collect();
    let last = rows.last().filter(|_| rows.len() == WAITING_ROWS_MAX);
    WaitingConflicts {
        next: last.map(|row| row.get_str("_id").expect("an id").to_owned()),
        rows,
        unreadable: Vec::new(),
    }
}
