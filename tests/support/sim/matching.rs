//! How MongoDB compares and changes documents, as far as the statements of a node use it.

use bson::{Bson, Document};
use thalamus_edge::central::{Write, Written};
use thalamus_edge::domain::diff::{self, Change, is_addressable};
use thalamus_edge::domain::value::identical;

/// What MongoDB answers to an update that makes no sense.
const BAD_VALUE: i32 = 2;

/// What becomes of a write against what stands there: the document from then on, or why not.
pub(super) fn carry_out(write: &Write, stored: Option<&Document>) -> Result<Option<Document>, Written> {
    let hit = |document| Ok(document);
    match (write, stored) {
        (Write::Insert { key, document }, None) => hit(Some(with_id(&key.id, document))),
        (Write::Update { changes, .. }, _) if !are_addressable(changes) => Err(Written::Refused {
            code: BAD_VALUE,
            message: "the changes cannot be addressed by paths".to_owned(),
        }),
        (Write::Update { changes, .. }, Some(stored)) if holds_all(stored, changes) => {
            hit(Some(updated(stored, changes)))
        }
        (Write::Replace { key, base, document }, Some(stored)) if equals(stored, base) => {
            hit(Some(with_id(&key.id, document)))
        }
        (Write::Delete { base, .. }, Some(stored)) if equals(stored, base) => hit(None),
        _ => Err(Written::Miss),
    }
}

/// `document` with its identifier first, where MongoDB puts it.
pub(super) fn with_id(id: &str, document: &Document) -> Document {
    let mut whole = bson::doc! {"_id": id};
    whole.extend(document.iter().filter(|(key, _)| *key != "_id").map(|(k, v)| (k.clone(), v.clone())));
    whole
}

fn are_addressable(changes: &[Change]) -> bool {
    let addressable =
        |change: &Change| !change.path.is_empty() && change.path.iter().all(|key| is_addressable(key));
    !changes.is_empty() && changes.iter().all(addressable)
}

fn holds_all(stored: &Document, changes: &[Change]) -> bool {
    changes.iter().all(|change| {
        let parent = &change.path[..change.path.len() - 1];
        let is_in_documents =
            parent.is_empty() || matches!(diff::get(stored, parent), Some(Bson::Document(_)));
        is_in_documents && holds(diff::get(stored, &change.path), change.from.as_ref())
    })
}

/// The condition on one value: its type, and equality as MongoDB sees it.
fn holds(stored: Option<&Bson>, expected: Option<&Bson>) -> bool {
    match (stored, expected) {
        (None, None) => true,
        (Some(stored), Some(expected)) => {
            stored.element_type() == expected.element_type() && equal(stored, expected)
        }
        _ => false,
    }
}

/// Whether a document equals `base`: field by field, in any order, and no field more.
fn equals(stored: &Document, base: &Document) -> bool {
    let fields = |document: &Document| document.keys().filter(|key| *key != "_id").count();
    let same = |(key, value): (&String, &Bson)| key == "_id" || holds(stored.get(key), Some(value));
    fields(stored) == fields(base) && base.iter().all(same)
}

/// Equality of values: numbers by what they are worth, documents with the order of their keys.
fn equal(a: &Bson, b: &Bson) -> bool {
    if identical(a, b) {
        return true;
    }
    match (a, b) {
        (Bson::Array(a), Bson::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Bson::Document(a), Bson::Document(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((ka, a), (kb, b))| ka == kb && equal(a, b))
        }
        _ => match (worth(a), worth(b)) {
            (Some(a), Some(b)) => a == b,
            _ => false,
        },
    }
}

/// What a number is worth: sign, digits without zeros at either end, and the power of ten of the last one.
#[derive(PartialEq)]
enum Worth {
    Number { is_negative: bool, digits: String, power: i64 },
    Special(&'static str),
}

fn worth(value: &Bson) -> Option<Worth> {
    let text = match value {
        Bson::Int32(number) => number.to_string(),
        Bson::Int64(number) => number.to_string(),
        // Every digit that a double has.
        Bson::Double(number) => format!("{number:.1100}"),
        Bson::Decimal128(number) => number.to_string(),
        _ => return None,
    };
    let (is_negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest.to_owned()),
        None => (false, text),
    };
    if text.eq_ignore_ascii_case("nan") {
        return Some(Worth::Special("nan"));
    }
    if text.to_ascii_lowercase().starts_with("inf") {
        return Some(Worth::Special(if is_negative { "-inf" } else { "inf" }));
    }
    let (mantissa, exponent) = match text.split_once(['E', 'e']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse().expect("an exponent")),
        None => (text.as_str(), 0_i64),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let digits = all.trim_start_matches('0').trim_end_matches('0').to_owned();
    let zeros = all.len() - all.trim_end_matches('0').len();
    if digits.is_empty() {
        return Some(Worth::Number { is_negative: false, digits, power: 0 });
    }
    let length = |n: usize| i64::try_from(n).expect("a length");
    Some(Worth::Number { is_negative, digits, power: exponent - length(fraction.len()) + length(zeros) })
}

/// What the changes make of the document. MongoDB adds new fields in the order of their paths, whatever the
/// order that they were sent in.
fn updated(stored: &Document, changes: &[Change]) -> Document {
    let mut sorted: Vec<&Change> = changes.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let mut document = stored.clone();
    for change in sorted {
        diff::set(&mut document, &change.path, change.to.clone());
    }
    document
}

/// How the change feed describes an update: what was set and removed, in the order of the paths. A document
/// that had to be made for a path is told as a whole; what was that way already is not told.
pub(super) fn described(
    before: &Document,
    after: &Document,
    paths: &[Vec<String>],
) -> (Vec<(String, Bson)>, Vec<String>) {
    let (mut set, mut unset) = (Vec::new(), Vec::new());
    let mut told: Vec<Vec<String>> = paths.iter().map(|path| existing_part(before, path)).collect();
    told.sort();
    told.dedup();
    for path in told {
        match (diff::get(before, &path), diff::get(after, &path)) {
            (old, Some(new)) if old.is_none_or(|old| !identical(old, new)) => {
                set.push((path.join("."), new.clone()));
            }
            (Some(_), None) => unset.push(path.join(".")),
            _ => {}
        }
    }
    (set, unset)
}

/// The path as far as its parents existed, and one key more.
fn existing_part(before: &Document, path: &[String]) -> Vec<String> {
    let is_there = |length: &usize| matches!(diff::get(before, &path[..*length]), Some(Bson::Document(_)));
    let parents = (1..path.len()).take_while(is_there).count();
    path[..=parents].to_vec()
}
