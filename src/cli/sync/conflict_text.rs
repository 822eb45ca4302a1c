//! Floor 5. Conflicts as text for people.

use serde_json::Value;

use crate::cli::terminal::show::{cell, facts, plain};

pub(crate) fn record_name(conflict: &Value) -> String {
    format!("{}/{}", cell(&conflict["collection"]), cell(&conflict["record"]))
}

pub(super) fn field_name(conflict: &Value) -> String {
    let steps = conflict["path"].as_array().map_or(&[][..], |steps| steps);
    steps.iter().map(cell).collect::<Vec<_>>().join(".")
}

/// What is to be decided, in place of a field.
pub(super) fn subject_name(conflict: &Value) -> String {
    match (conflict["type"].as_str(), field_name(conflict)) {
        (Some("identity"), _) => "(another person?)".to_owned(),
        (Some("duplicate"), _) => "(two records)".to_owned(),
        (Some("left_behind"), _) => "(deleted, with records)".to_owned(),
        (_, whole) if whole.is_empty() => "(the record)".to_owned(),
        (_, field) => field,
    }
}

pub(super) fn conflict_row(conflict: &Value) -> [String; 7] {
    let [id, stands, status, found] =
        ["id", "stands", "status", "found_at"].map(|name| cell(&conflict[name]));
    [id, record_name(conflict), subject_name(conflict), stands, status, found, changed_by(conflict)]
}

pub(super) fn conflict_text(conflict: &Value) -> String {
    let text = match conflict["type"].as_str() {
        Some("identity") => identity_text(conflict),
        Some("duplicate") => duplicate_text(conflict),
        Some("left_behind") => left_behind_text(conflict),
        _ => value_text(conflict),
    };
    let notes = conflict["notes"].as_array().map_or(&[][..], |notes| notes);
    notes.iter().fold(text, |text, note| format!("{text}\n{}", note_text(note)))
}

fn note_text(note: &Value) -> String {
    let value = note.get("value").map_or_else(String::new, |value| format!(" {}", plain(&value.to_string())));
    format!(
        "note at {}: {} decided {}{value}: {}",
        cell(&note["at"]),
        cell(&note["resolved_by"]),
        cell(&note["resolution"]),
        cell(&note["reason"]),
    )
}

/// How a conflict was resolved, if it was, and its version.
fn resolution_facts(conflict: &Value) -> [(&'static str, String); 4] {
    [
        ("resolution", cell(&conflict["resolution"])),
        ("resolved by", cell(&conflict["resolved_by"])),
        ("resolved", cell(&conflict["resolved_at"])),
        ("etag", cell(&conflict["etag"]).trim_matches('"').to_owned()),
    ]
}

fn value_text(conflict: &Value) -> String {
    let field = match field_name(conflict) {
        whole if whole.is_empty() => "(the record as a whole)".to_owned(),
        field => field,
    };
    // A side without the record has deleted it.
    let is_whole = conflict["type"] == "value" && field_name(conflict).is_empty();
    let is_deleted = |name: &str| is_whole && name != "base" && conflict.get(name).is_none();
    // As JSON, so that text and number can be told apart; what is not there has no value.
    let value = |name: &str| match conflict.get(name) {
        Some(value) => plain(&value.to_string()),
        None if conflict["secret"] == true => "(never shown)".to_owned(),
        None if is_deleted(name) => "(deleted)".to_owned(),
        None => "(absent)".to_owned(),
    };
    let [by, at] = match is_deleted("local") {
        true => ["deleted here by", "deleted here"],
        false => ["edited here by", "edited here"],
    };
    let mut lines = vec![
        ("conflict", cell(&conflict["id"])),
        ("record", record_name(conflict)),
        ("field", field),
        ("status", cell(&conflict["status"])),
        ("found", cell(&conflict["found_at"])),
        (by, author(conflict)),
        (at, cell(&conflict["edited_at"])),
        ("centre's by", conflict.get("central_author").map_or_else(|| "unknown".to_owned(), cell)),
        ("centre's written", cell(&conflict["central_edited_at"])),
        ("before", value("base")),
        ("local", value("local")),
        ("central", value("central")),
        ("stands", cell(&conflict["stands"])),
        ("now", value("current")),
        ("note", notice(conflict).to_owned()),
    ];
    lines.extend(resolution_facts(conflict));
    facts(&lines)
}

/// What helps to decide.
fn notice(conflict: &Value) -> &'static str {
    match (conflict["equal_by_meaning"] == true, conflict["changed_since"] == true) {
        (_, true) => "the record holds something else by now: a decision needs its --etag",
        (true, false) => "both values mean the same",
        (false, false) => "",
    }
}

/// Who changed the value on both sides, for the list.
fn changed_by(conflict: &Value) -> String {
    if conflict["type"] != "value" {
        return cell(&conflict["author"]);
    }
    let side = |by: String, at: &Value| match cell(at) {
        at if at.is_empty() => by,
        at => format!("{by} ({at})"),
    };
    let here = side(author(conflict), &conflict["edited_at"]);
    let there = conflict.get("central_author").map_or_else(|| "unknown".to_owned(), cell);
    format!("{here}; centre: {}", side(there, &conflict["central_edited_at"]))
}

/// Who made the edit of this node.
fn author(conflict: &Value) -> String {
    conflict.get("author").map_or_else(|| "unknown".to_owned(), cell)
}

/// Two people side by side, and what the decision is about.
fn identity_text(conflict: &Value) -> String {
    let why = match conflict["why"].as_str() {
        Some("created") => "both sides made a person under this account, and they differ",
        Some("reused") => "at the centre the account has come to be about somebody else",
        Some("rewritten") => {
            "on this node the person was rewritten into somebody else, which is not sent; if the centre has given the account \
             to another one since, that is asked next"
        }
        Some("departed") => {
            "the one before is gone at the centre, records of theirs are here, and somebody else has the account"
        }
        Some("taken") => "the centre has records under this account, and nobody there who has it",
        Some("spelling") => "the centre has a person whose account differs in spelling only",
        _ => "",
    };
    let mut lines = vec![
        ("conflict", cell(&conflict["id"])),
        ("record", record_name(conflict)),
        ("question", "is the person of this node the one at the centre?".to_owned()),
        ("why", why.to_owned()),
        ("status", cell(&conflict["status"])),
        ("found", cell(&conflict["found_at"])),
        ("edited here by", cell(&conflict["author"])),
        ("this node", plain(&conflict["local"].to_string())),
        ("the centre", plain(&conflict["central"].to_string())),
        ("records that go along", cell(&conflict["own_records"])),
        ("waiting records", cell(&conflict["held_records"])),
        ("new account", cell(&conflict["new_id"])),
    ];
    lines.extend(if_same(conflict).map(|sentence| ("if the same", sentence)));
    lines.extend(resolution_facts(conflict));
    facts(&lines)
}

/// What "same" does to the account, or has done.
pub(super) fn if_same(conflict: &Value) -> impl Iterator<Item = String> {
    conflict["if_same"].as_array().into_iter().flatten().map(cell)
}

fn duplicate_text(conflict: &Value) -> String {
    let mut lines = vec![
        ("record", record_name(conflict)),
        ("question", "two records have this account: correct or delete one of them".to_owned()),
    ];
    let records = conflict["records"].as_array().map_or(&[][..], |records| records);
    lines.extend(records.iter().map(|record| ("one", plain(&record.to_string()))));
    facts(&lines)
}

/// A deleted person whose records are here, with what to do.
fn left_behind_text(conflict: &Value) -> String {
    let account = cell(&conflict["record"]);
    let counts = conflict["counts"].as_object().into_iter().flatten();
    let records: Vec<String> =
        counts.map(|(collection, count)| format!("{} in {collection}", cell(count))).collect();
    facts(&[
        ("record", record_name(conflict)),
        ("question", "the person has been deleted, and records of theirs are here".to_owned()),
        ("records", records.join(", ")),
        (
            "to keep them",
            format!(
                "thalamus-edge trash list --person {account} shows the person; thalamus-edge trash restore NUMBER puts them \
                 back, here and at the centre"
            ),
        ),
        ("to let them go", "delete the records too, here or at the centre".to_owned()),
    ])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_that_are_absent_secret_or_null_are_told_apart() {
        let text = conflict_text(&json!({"path": ["a", "b"], "base": null, "local": "x\u{1b}"}));
        let said = "before          null\nlocal           \"x\\u001b\"\ncentral         (absent)";
        assert!(text.contains(said), "{text}");
        assert!(text.contains("field           a.b\nedited here by  unknown"), "{text}");
        let secret = conflict_text(&json!({"path": ["password"], "secret": true}));
        assert!(secret.contains("local           (never shown)"), "{secret}");
    }

    #[test]
    fn a_side_that_deleted_the_record_says_so() {
        let body = json!({"_id": "p1"});
        let of = |sides: Value| {
            let mut conflict = json!({"type": "value", "path": [], "base": body, "author": "person:ANA"});
            conflict.as_object_mut().unwrap().extend(sides.as_object().unwrap().clone());
            conflict_text(&conflict)
        };
        let here = of(json!({"central": body, "current": body, "stands": "central"}));
        let said = "local            (deleted)\ncentral          {\"_id\":\"p1\"}";
        assert!(here.contains(said) && here.contains("deleted here by  person:ANA"), "{here}");
        let there = of(json!({"local": body, "current": body, "stands": "local"}));
        let said = "local           {\"_id\":\"p1\"}\ncentral         (deleted)";
        assert!(there.contains(said) && there.contains("edited here by  person:ANA"), "{there}");
        let gone = of(json!({"local": body, "stands": "local"}));
        assert!(gone.contains("now             (deleted)"), "{gone}");
        // Two records under one id: none of them was deleted by anybody's edit.
        let record = conflict_text(&json!({"type": "record", "path": [], "local": body}));
        assert!(record.contains("central         (absent)"), "{record}");
    }
}
