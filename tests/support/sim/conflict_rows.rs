//! `edge_conflicts` in memory: what a centre makes of the rows that nodes publish.

use std::collections::BTreeMap;

use bson::{Bson, Document};

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
    let is_open = has_status(known, "open");
    if has_status(row, "reopened") {
        let is_own = known.get("node") == row.get("node") && resolution(known).is_some();
        if !is_open || is_own {
            *known = row.clone();
            known.insert("status", "open");
        }
    } else if !has_status(row, "open") {
        let is_free = resolution(known).is_none() || known.get("resolution") == row.get("resolution");
        if is_open && is_free {
            known.extend(row.clone());
        }
    }
}

/// As [`thalamus_edge::central::Central::resolutions`], with all fields.
pub(crate) fn resolved(rows: &BTreeMap<String, Document>, ids: &[String]) -> Vec<Document> {
    let is_moved = |row: &&Document| !has_status(row, "open") || resolution(row).is_some();
    ids.iter().filter_map(|id| rows.get(id)).filter(is_moved).cloned().collect()
}
