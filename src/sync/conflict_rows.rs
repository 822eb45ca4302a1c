//! Floor 3. The rows of `edge_conflicts`: how a conflict is written into one, and what a row says about a
//! decision.

use bson::{Bson, Document, doc};
use sha2::{Digest, Sha256};

use super::conflicts::Decision;
use super::identity_answers::question_of;
use crate::central::ConflictAnswer;
use crate::domain::value::{has_dollar_name, same_option};
use crate::store::{Conflict, ConflictStatus, Note, StoreError, stands_name};

/// `status` of a row that is to be open again.
const REOPENED: &str = "reopened";
/// `status` of a row whose decision was not carried out.
const DECLINED: &str = "declined";
/// Name of the decider if a row has none.
const ADMINISTRATOR: &str = "the federation's administrator";
/// What stands around the name of a decider that a row brought: `centre (Head office)`. A row may say any name, also one that
/// reads like an actor of this node, `local:admin`.
const FROM_CENTRE: (&str, &str) = ("centre (", ")");
/// Largest value in a row, in bytes of BSON. A larger one stays on the node: a row must stay far below the 16 MiB of a
/// MongoDB document, and listing rows reads all of their values.
const ROW_VALUE_BYTES_MAX: usize = 256 * 1024;
/// The field of a row that names those of its values that stayed on the node.
pub(super) const CLIPPED: &str = "truncated";
/// The field of a row that has what was decided before, and was not carried out.
const NOTES: &str = "notes";
/// Bytes of a BSON document with one field without a name, before and after the value.
const WRAPPER_BYTES: (usize, usize) = (6, 1);
/// Fields of a row that a node compares before it answers.
const COMPARED: [&str; 5] = ["status", "resolution", "value", "resolved_by", "applied_by"];

/// The row of a conflict that was found again, as one that nobody has decided yet.
pub(super) fn reopened_row(conflict: &Conflict, node: &str) -> Result<Document, StoreError> {
    let open = Conflict { resolution: None, ..conflict.clone() };
    let mut row = central_row(&open, node)?;
    row.insert("status", REOPENED);
    Ok(row)
}

/// The row of a conflict. Secrets stay on the node.
pub(super) fn central_row(conflict: &Conflict, node: &str) -> Result<Document, StoreError> {
    let schema = conflict.key.kind.schema();
    let mut row = doc! {
        "_id": &conflict.id,
        "type": conflict.subject.name(),
        "collection": schema.collection,
        "id": &conflict.key.id,
        "path": conflict.path.clone(),
        "status": conflict.status.name(),
        "node": node,
        "found_at": bson::DateTime::from_millis(conflict.found_at_ms),
        "fingerprint": conflict.fingerprint()?,
    };
    // For a node that takes the row over: a value of one person's goes into no other one's record.
    row.extend(conflict.owner.clone().map(|owner| ("owner".to_owned(), owner.into())));
    row.extend(conflict.person_mark()?.map(|person| ("person".to_owned(), person.into())));
    if !conflict.author.is_empty() {
        row.insert("author", &conflict.author);
    }
    let edited_at = conflict.edited_at_ms.map(|ms| Bson::DateTime(bson::DateTime::from_millis(ms)));
    let by_centre =
        [("central_author", &conflict.central_author), ("central_edited_at", &conflict.central_edited_at)];
    row.extend(edited_at.map(|at| ("edited_at".to_owned(), at)));
    row.extend(
        by_centre.into_iter().filter_map(|(field, text)| Some((field.to_owned(), text.clone()?.into()))),
    );
    if conflict.is_identity() {
        // Where the answer is found, if the two people turn out to be one.
        row.extend(question_of(conflict)?.map(|question| ("question".to_owned(), Bson::String(question))));
    } else {
        row.insert("stands", stands_name(conflict.stands));
    }
    let mut truncated = Vec::new();
    let mut insert = |row: &mut Document, name: &'static str, value: &Option<Bson>| {
        if let Some(value) = value {
            let is_here = !(conflict.is_withheld && is_marker(value));
            let (value, fits) = fitted(shown(conflict, value, node), node);
            let is_whole = is_here && fits;
            row.insert(name, value);
            truncated.extend((!is_whole).then_some(name));
        }
    };
    insert(&mut row, "base", &conflict.base);
    insert(&mut row, "local", &conflict.local);
    insert(&mut row, "central", &conflict.central);
    if let Some(resolution) = &conflict.resolution {
        row.insert("resolution", resolution);
        row.insert("resolved_by", in_row(conflict.resolved_by.as_deref().unwrap_or_default()));
        row.insert("applied_by", node);
        insert(&mut row, "value", &conflict.value);
    }
    if !truncated.is_empty() {
        row.insert(CLIPPED, truncated);
    }
    if !conflict.notes.is_empty() {
        row.insert(
            NOTES,
            conflict.notes.iter().map(|note| note_row(conflict, note, node)).collect::<Vec<_>>(),
        );
    }
    Ok(row)
}

/// The value as a row holds it, and whether that is the whole value. A large one is replaced by its type, size and
/// SHA-256, and the node that has it.
fn fitted(value: Bson, node: &str) -> (Bson, bool) {
    let mut wrapper = doc! {"": value};
    let bytes = wrapper.to_vec().unwrap_or_default();
    if bytes.len() > ROW_VALUE_BYTES_MAX {
        return (Bson::Document(doc! {"truncated": marker(&bytes, wrapper.get(""), node)}), false);
    }
    (wrapper.remove("").unwrap_or(Bson::Null), true)
}

/// Whether this is what is said in the place of a value that stayed on a node.
pub(super) fn is_marker(value: &Bson) -> bool {
    let marker = value.as_document().filter(|value| value.len() == 1);
    let marker = marker.and_then(|value| value.get_document("truncated").ok());
    marker.is_some_and(|marker| marker.contains_key("sha256") && marker.contains_key("node"))
}

fn marker_of(value: &Bson, node: &str) -> Document {
    let wrapper = doc! {"": value.clone()};
    marker(&wrapper.to_vec().unwrap_or_default(), wrapper.get(""), node)
}

/// What is said in the place of a value that stays on the node; `wrapper` is the BSON document that holds it in a
/// field without a name.
fn marker(wrapper: &[u8], value: Option<&Bson>, node: &str) -> Document {
    let kind = value.map_or("null", |value| match value {
        Bson::String(_) => "string",
        Bson::Document(_) => "object",
        Bson::Array(_) => "array",
        Bson::Binary(_) => "binData",
        _ => "other",
    });
    let (before, after) = WRAPPER_BYTES;
    let bytes = wrapper.get(before..wrapper.len().saturating_sub(after)).unwrap_or_default();
    doc! {
        "type": kind, "bytes": bytes.len() as i64, "sha256": hex::encode(Sha256::digest(bytes)), "node": node,
    }
}

/// The row without values under names that begin with `$`, which servers before MongoDB 5.0 take in no update: they stay on
/// the node. Nothing if there are none.
pub(super) fn without_dollar_names(row: &Document) -> Option<Document> {
    if !has_dollar_name(row) {
        return None;
    }
    let node = row.get_str("node").unwrap_or_default();
    let is_kept = |value: &Bson| !has_dollar_name(&doc! {"": value.clone()});
    let marked = |value: &Bson| Bson::Document(doc! {"truncated": marker_of(value, node)});
    let mut shorter = row.clone();
    let mut left_out: Vec<Bson> = Vec::new();
    for (name, value) in row {
        match value {
            value if is_kept(value) => {}
            Bson::Array(notes) if name == NOTES => {
                let notes = notes.iter().map(|note| match note {
                    Bson::Document(note) => {
                        let fields = note.iter().map(|(name, value)| match is_kept(value) {
                            true => (name.clone(), value.clone()),
                            false => (name.clone(), marked(value)),
                        });
                        Bson::Document(fields.collect())
                    }
                    other => other.clone(),
                });
                shorter.insert(NOTES, notes.collect::<Vec<_>>());
            }
            value => {
                shorter.insert(name, marked(value));
                left_out.push(name.as_str().into());
            }
        }
    }
    let before = row.get_array(CLIPPED).map_or(&[][..], Vec::as_slice);
    shorter.insert(CLIPPED, [before, &left_out].concat());
    Some(shorter)
}

/// The row of `edge_trash` without the body, which stays on the node.
pub(super) fn without_body(row: &Document, node: &str) -> Document {
    let mut row = row.clone();
    if let Some(body) = row.remove("document") {
        row.insert("truncated", marker_of(&body, node));
    }
    row
}

/// A value of a conflict without the secrets in it.
pub(super) fn shown(conflict: &Conflict, value: &Bson, node: &str) -> Bson {
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
        "reason": &note.reason, "resolution": &note.resolution, "resolved_by": in_row(&note.by),
        "at": bson::DateTime::from_millis(note.at_ms),
    };
    if let Some(value) = &note.value {
        row.insert("value", fitted(shown(conflict, value, node), node).0);
    }
    row
}

/// Who decided according to a row, as this node keeps and shows it.
pub(super) fn from_centre(by: &str) -> String {
    let (before, after) = FROM_CENTRE;
    format!("{before}{by}{after}")
}

/// A decider as rows have it: an actor of this node, or the name that came from the centre.
pub(super) fn in_row(by: &str) -> &str {
    let (before, after) = FROM_CENTRE;
    by.strip_prefix(before).and_then(|by| by.strip_suffix(after)).unwrap_or(by)
}

/// What a row of `edge_conflicts` says about a decision.
pub(super) struct Written<'a> {
    row: &'a Document,
    /// Without blanks around it and in lower case: `local`, `central` and `value` have meaning.
    pub(super) resolution: Option<String>,
    pub(super) value: Option<&'a Bson>,
    /// Who made it, see [`from_centre`].
    pub(super) by: String,
    /// The node that published the conflict.
    pub(super) node: Option<&'a str>,
    /// The node that made the decision, or carried it out.
    pub(super) applied_by: Option<&'a str>,
    pub(super) fingerprint: Option<&'a str>,
}

impl<'a> Written<'a> {
    pub(super) fn of(row: &'a Document) -> Written<'a> {
        let text = |field: &str| row.get_str(field).ok();
        let resolution = text("resolution").map(|text| text.trim().to_lowercase());
        Written {
            row,
            resolution: resolution.filter(|text| !text.is_empty()),
            value: row.get("value"),
            by: from_centre(text("resolved_by").filter(|by| !by.trim().is_empty()).unwrap_or(ADMINISTRATOR)),
            node: text("node"),
            applied_by: text("applied_by"),
            fingerprint: text("fingerprint"),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.has_status(ConflictStatus::Open.name())
    }

    pub(super) fn has_status(&self, status: &str) -> bool {
        self.holds("status", status)
    }

    fn holds(&self, field: &str, text: &str) -> bool {
        self.row.get_str(field).is_ok_and(|found| found == text)
    }

    /// Whether a node has made this decision, or carried it out.
    pub(super) fn is_applied(&self) -> bool {
        self.applied_by.is_some() && self.resolution.is_some()
    }

    /// The decision, or what is wrong with it.
    pub(super) fn decision(&self) -> Result<Decision, &'static str> {
        match (self.resolution.as_deref(), self.value) {
            (Some("local"), _) => Ok(Decision::TakeLocal),
            (Some("central"), _) => Ok(Decision::TakeCentral),
            (Some("value"), Some(value)) => Ok(Decision::Value(value.clone())),
            (Some("new_id"), _) => Ok(Decision::NewId),
            (Some("value"), None) => Err("the resolution \"value\" needs the field \"value\""),
            _ => Err("the resolution must be \"local\", \"central\", or \"value\" with the field \"value\""),
        }
    }

    /// The resolution as it was written; empty if it is no text.
    fn asked(&self) -> &'a str {
        self.row.get_str("resolution").unwrap_or_default()
    }

    /// The value as a node keeps it: without secrets.
    pub(super) fn kept_value(&self, conflict: &Conflict) -> Option<Bson> {
        match self.value? {
            _ if conflict.is_secret() => None,
            value => Some(shown(conflict, value, "")),
        }
    }

    pub(super) fn note(&self, conflict: &Conflict, reason: &str, at_ms: i64) -> Note {
        Note {
            reason: reason.to_owned(),
            resolution: self.asked().to_owned(),
            value: self.kept_value(conflict),
            by: self.by.clone(),
            at_ms,
        }
    }

    /// Whether the conflict was closed with the decision in this row.
    pub(super) fn is_decided_as(&self, conflict: &Conflict, node: &str) -> bool {
        let is_same_value = || {
            let value = conflict.value.as_ref().map(|value| shown(conflict, value, node));
            let kept = self.kept_value(conflict);
            conflict.is_secret()
                || same_option(value.as_ref(), kept.as_ref())
                || same_option(value.map(|value| fitted(value, node).0).as_ref(), kept.as_ref())
        };
        // Only `value` and a new id have a value; whatever stands beside another resolution means nothing.
        self.resolution == conflict.resolution && (conflict.value.is_none() || is_same_value())
    }

    /// Identifies the decision in the row: what it is, and who made it.
    fn decision_fingerprint(&self) -> String {
        let mut decision = Document::new();
        for field in ["resolution", "value", "resolved_by"] {
            if let Some(value) = self.row.get(field) {
                decision.insert(field, value.clone());
            }
        }
        hex::encode(&Sha256::digest(decision.to_vec().unwrap_or_default())[..16])
    }

    /// Whether a node has declined exactly this decision.
    pub(super) fn is_declined(&self) -> bool {
        self.has_status(DECLINED) && self.holds("declined_fingerprint", &self.decision_fingerprint())
    }

    /// The answer to a decision that is not carried out.
    pub(super) fn declined(&self, id: &str, node: &str, reason: &str) -> ConflictAnswer {
        let set = doc! {
            "status": DECLINED,
            "declined": format!("Not carried out: {reason}. The conflict is still open on node {node}."),
            "declined_fingerprint": self.decision_fingerprint(),
        };
        self.answer(id, set, Vec::new())
    }

    /// The answer that makes the row say how the conflict was closed; `None` if it says so.
    pub(super) fn closed(&self, conflict: &Conflict, node: &str) -> Option<ConflictAnswer> {
        let (resolution, by) = (conflict.resolution.as_deref()?, in_row(conflict.resolved_by.as_deref()?));
        let is_same = self.is_decided_as(conflict, node);
        let is_closed = self.has_status(conflict.status.name());
        if is_same && is_closed && self.is_applied() && self.holds("resolved_by", by) {
            return None;
        }
        let mut set = doc! {
            "status": conflict.status.name(), "node": node,
            "resolution": resolution, "resolved_by": by, "applied_by": node,
        };
        let mut unset = vec!["declined_fingerprint"];
        match &conflict.value {
            // A whole value is kept that is as it was decided, and has no secret in it.
            Some(value) => {
                let value = shown(conflict, value, node);
                if !same_option(Some(&value), self.value) {
                    set.insert("value", fitted(value, node).0);
                }
            }
            None => unset.push("value"),
        }
        if is_same {
            unset.push("declined");
            return Some(self.answer(&conflict.id, set, unset));
        }
        let mut asked = Document::new();
        for field in ["status", "resolution", "resolved_by"] {
            if let Some(value) = self.row.get(field) {
                asked.insert(field, fitted(value.clone(), node).0);
            }
        }
        if let Some(value) = self.kept_value(conflict) {
            asked.insert("value", fitted(value, node).0);
        }
        set.insert("declined_decision", asked);
        if !self.has_status(DECLINED) {
            let sentence = format!(
                "Not carried out: the conflict was decided before on node {node}. The decision \"{resolution}\" \
                 by {by} stands."
            );
            set.insert("declined", sentence);
        }
        Some(self.answer(&conflict.id, set, unset))
    }

    fn answer(&self, id: &str, set: Document, unset: Vec<&'static str>) -> ConflictAnswer {
        let seen = COMPARED.iter().map(|field| (*field, self.row.get(field).cloned()));
        // A large value would be as large in the comparison, and what it belongs to is compared all the same.
        let seen = seen.filter(|(_, value)| value.as_ref().is_none_or(|value| fitted(value.clone(), "").1));
        ConflictAnswer { id: id.to_owned(), seen: seen.collect(), set, unset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_under_names_that_begin_with_a_dollar_sign_stay_on_the_node() {
        let odd = doc! {"a": [{"$x": 1}]};
        let row = doc! {
            "_id": "c", "node": "n1", "base": 1, "local": odd.clone(), "central": "theirs", "truncated": ["base"],
            "notes": [{"reason": "r", "value": odd.clone()}, {"reason": "s", "value": 2}],
        };
        let marked = Bson::Document(doc! {"truncated": marker_of(&odd.clone().into(), "n1")});
        assert!(is_marker(&marked));
        let expected = doc! {
            "_id": "c", "node": "n1", "base": 1, "local": marked.clone(), "central": "theirs",
            "truncated": ["base", "local"],
            "notes": [{"reason": "r", "value": marked}, {"reason": "s", "value": 2}],
        };
        let shorter = without_dollar_names(&row).unwrap();
        assert!(crate::domain::value::same_document(&shorter, &expected), "{shorter}");
        assert_eq!(without_dollar_names(&shorter), None, "nothing more to leave out");
    }

    #[test]
    fn a_decider_of_a_row_is_never_an_actor_of_this_node() {
        for by in ["Head office", "local:admin", "centre (x)", "", ")", "operator:0", "centre"] {
            let kept = from_centre(by);
            assert_eq!(crate::domain::access::Actor::read(&kept), None, "{kept}");
            assert_eq!(in_row(&kept), by, "rows go on saying what they said");
        }
        for own in ["local:admin", "person:DOC003", "operator:0", "centre", "office"] {
            assert_eq!(in_row(own), own);
        }
    }
}
