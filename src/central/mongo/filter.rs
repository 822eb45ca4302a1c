//! Floor 2. Compare-and-set in MongoDB's words.
//!
//! Hides how MongoDB's matching differs from equality: a plain `{f: null}` matches a missing field,
//! `{roles: "x"}` matches an element of an array, 1 matches 1.0. Every filter begins with `_id`, names the
//! BSON type of each value it compares, and says that no array stands where none was read.

use bson::spec::ElementType;
use bson::{Bson, Document, doc};

use crate::central::Write;
use crate::domain::diff::{Change, is_addressable};

/// Largest document that MongoDB stores, in bytes.
const DOCUMENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What MongoDB answers to a document over [`DOCUMENT_BYTES_MAX`].
const TOO_LARGE: i32 = 10_334;
/// What MongoDB answers to an update that makes no sense.
const BAD_VALUE: i32 = 2;

const OBJECT: i32 = ElementType::EmbeddedDocument as i32;
const SCHEMA: &str = "$jsonSchema";

const ARRAY: i32 = ElementType::Array as i32;

/// One write as a statement for the server.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Statement {
    Insert(Document),
    /// `$set` and `$unset`.
    Update {
        filter: Document,
        update: Document,
    },
    Replace {
        filter: Document,
        document: Document,
    },
    /// A replacement by pipeline: MongoDB takes `$`-prefixed top-level keys in no other way.
    ReplaceLiterally {
        filter: Document,
        document: Document,
    },
    Delete(Document),
}

/// A write that is not worth sending: the server would refuse it, and with it perhaps its neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unsendable {
    pub(super) code: i32,
    pub(super) message: &'static str,
}

impl Statement {
    /// With schemas, the fields of a whole document are counted by one: servers that know them use the index on `_id` then,
    /// and some read the whole collection for an expression.
    pub(super) fn of(write: &Write, with_schemas: bool) -> Result<Statement, Unsendable> {
        let id = &write.key().id;
        let statement = match write {
            Write::Insert { document, .. } => Statement::Insert(with_id(id, document)),
            Write::Update { changes, .. } => {
                Statement::Update { filter: fields_filter(id, changes)?, update: update(changes) }
            }
            Write::Replace { base, document, .. } => {
                let filter = whole_filter(id, base, with_schemas);
                let document = with_id(id, document);
                if document.keys().any(|key| key.starts_with('$')) {
                    Statement::ReplaceLiterally { filter, document }
                } else {
                    Statement::Replace { filter, document }
                }
            }
            Write::Delete { base, .. } => Statement::Delete(whole_filter(id, base, with_schemas)),
        };
        statement.check_size()?;
        Ok(statement)
    }

    /// Whether a schema is part of what it compares.
    pub(super) fn has_schema(&self) -> bool {
        match self {
            Statement::Insert(_) => false,
            Statement::Update { filter, .. }
            | Statement::Replace { filter, .. }
            | Statement::ReplaceLiterally { filter, .. }
            | Statement::Delete(filter) => filter.contains_key(SCHEMA),
        }
    }

    /// One statement too large would fail the message that carries it, with all its neighbours.
    fn check_size(&self) -> Result<(), Unsendable> {
        let parts: [Option<&Document>; 2] = match self {
            Statement::Insert(document) => [Some(document), None],
            Statement::Update { filter, update } => [Some(filter), Some(update)],
            Statement::Replace { filter, document } | Statement::ReplaceLiterally { filter, document } => {
                [Some(filter), Some(document)]
            }
            Statement::Delete(filter) => [Some(filter), None],
        };
        let mut bytes = 0;
        for part in parts.into_iter().flatten() {
            bytes += match part.to_vec() {
                Ok(encoded) => encoded.len(),
                Err(_) => {
                    return Err(Unsendable {
                        code: BAD_VALUE,
                        message: "the document cannot be written as BSON",
                    });
                }
            };
        }
        if bytes > DOCUMENT_BYTES_MAX {
            return Err(Unsendable {
                code: TOO_LARGE,
                message: "what is compared and written exceeds the 16 MiB of one document",
            });
        }
        Ok(())
    }
}

/// `document` with its identifier first, where MongoDB puts it.
fn with_id(id: &str, document: &Document) -> Document {
    let mut whole = doc! {"_id": id};
    for (key, value) in document {
        if key != "_id" {
            whole.insert(key, value);
        }
    }
    whole
}

/// Matches the document if every changed path holds its `from` and every document above it is one.
fn fields_filter(id: &str, changes: &[Change]) -> Result<Document, Unsendable> {
    let addressable =
        |change: &Change| !change.path.is_empty() && change.path.iter().all(|key| is_addressable(key));
    if changes.is_empty() || !changes.iter().all(addressable) {
        return Err(Unsendable { code: BAD_VALUE, message: "the changes cannot be addressed by paths" });
    }
    let mut filter = doc! {"_id": id};
    for change in changes {
        for above in 1..change.path.len() {
            let ancestor = change.path[..above].join(".");
            filter.insert(ancestor, doc! {"$type": OBJECT, "$not": {"$type": ARRAY}});
        }
        filter.insert(change.path.join("."), holds(change.from.as_ref()));
    }
    Ok(filter)
}

/// Matches the document if it equals `base`: its fields one by one, and no field more. Keys that no filter
/// can name leave only the comparison as a whole, which takes 1 for 1.0 inside the unnamed ones and reads
/// the whole collection on some servers. Text and binary data are compared once then: a document of more than
/// 8 MiB would not fit twice.
fn whole_filter(id: &str, base: &Document, with_schemas: bool) -> Document {
    let mut filter = doc! {"_id": id};
    let nameable = base.keys().all(|key| key == "_id" || is_addressable(key));
    for (key, value) in base.iter().filter(|(key, _)| *key != "_id" && is_addressable(key)) {
        if nameable || !matches!(value, Bson::String(_) | Bson::Binary(_)) {
            filter.insert(key, holds(Some(value)));
        }
    }
    if nameable {
        let fields = i64::try_from(with_id(id, base).len()).unwrap_or(i64::MAX);
        if with_schemas {
            filter.insert(SCHEMA, doc! {"maxProperties": fields});
        } else {
            let count = doc! {"$size": {"$objectToArray": "$$ROOT"}};
            filter.insert("$expr", doc! {"$eq": [count, fields]});
        }
    } else {
        let base = with_id(id, base);
        filter.insert("$expr", doc! {"$eq": ["$$ROOT", {"$literal": base}]});
    }
    filter
}

/// The condition that a field holds exactly this, as far as MongoDB can tell: numbers inside arrays and
/// sub-documents compare by value, so `[1]` is taken for `[1.0]`, as 0.0 is for -0.0.
pub(super) fn holds(value: Option<&Bson>) -> Document {
    let Some(value) = value else {
        return doc! {"$exists": false};
    };
    let kind = type_number(value.element_type());
    match value {
        Bson::Null | Bson::Undefined => doc! {"$type": kind, "$not": {"$type": ARRAY}},
        // `{$eq: [x]}` matches [[x]] too.
        Bson::Array(_) => doc! {
            "$eq": value,
            "$type": kind,
            "$not": {"$elemMatch": {"$eq": value}},
        },
        _ => doc! {"$eq": value, "$type": kind, "$not": {"$type": ARRAY}},
    }
}

/// The number that `$type` knows a type by.
fn type_number(kind: ElementType) -> i32 {
    match kind {
        ElementType::MinKey => -1,
        other => other as i32,
    }
}

fn update(changes: &[Change]) -> Document {
    let (mut set, mut unset) = (Document::new(), Document::new());
    for change in changes {
        let path = change.path.join(".");
        match &change.to {
            Some(value) => set.insert(path, value),
            None => unset.insert(path, ""),
        };
    }
    let mut update = Document::new();
    if !set.is_empty() {
        update.insert("$set", set);
    }
    if !unset.is_empty() {
        update.insert("$unset", unset);
    }
    update
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::record::{Kind, RecordKey};
    use bson::bson;

    fn key() -> RecordKey {
        RecordKey::new(Kind::Person, "a")
    }

    fn change(path: &[&str], from: Option<Bson>, to: Option<Bson>) -> Change {
        Change { path: path.iter().map(|key| (*key).to_owned()).collect(), from, to }
    }

    #[test]
    fn every_path_and_every_document_above_it_is_compared() {
        let changes = vec![
            change(&["a", "b", "c"], Some(bson!(1)), Some(bson!(2))),
            change(&["a", "x"], None, Some(bson!({"$gt": 1}))),
            change(&["n"], Some(Bson::Null), None),
            change(&["r"], Some(bson!(["x"])), Some(bson!([]))),
        ];
        let statement = Statement::of(&Write::Update { key: key(), changes }, true).unwrap();
        let object = bson!({"$type": 3, "$not": {"$type": 4}});
        assert_eq!(
            statement,
            Statement::Update {
                filter: doc! {
                    "_id": "a",
                    "a": object.clone(),
                    "a.b": object,
                    "a.b.c": {"$eq": 1, "$type": 16, "$not": {"$type": 4}},
                    "a.x": {"$exists": false},
                    "n": {"$type": 10, "$not": {"$type": 4}},
                    "r": {"$eq": ["x"], "$type": 4, "$not": {"$elemMatch": {"$eq": ["x"]}}},
                },
                update: doc! {
                    "$set": {"a.b.c": 2, "a.x": {"$gt": 1}, "r": []},
                    "$unset": {"n": ""},
                },
            }
        );
    }

    #[test]
    fn a_document_is_compared_by_its_fields_and_their_number() {
        let base = doc! {"n": 1, "_id": "a"};
        let write = Write::Delete { key: key(), base };
        assert_eq!(
            Statement::of(&write, true).unwrap(),
            Statement::Delete(doc! {
                "_id": "a",
                "n": {"$eq": 1, "$type": 16, "$not": {"$type": 4}},
                "$jsonSchema": {"maxProperties": 2_i64},
            })
        );
        assert_eq!(
            Statement::of(&write, false).unwrap(),
            Statement::Delete(doc! {
                "_id": "a",
                "n": {"$eq": 1, "$type": 16, "$not": {"$type": 4}},
                "$expr": {"$eq": [{"$size": {"$objectToArray": "$$ROOT"}}, 2_i64]},
            })
        );
    }

    #[test]
    fn keys_that_no_filter_can_name_are_compared_as_a_whole() {
        for hostile in ["$x", "a.b", "", "7"] {
            let base = doc! {"_id": "a", hostile: 1};
            let write = Write::Replace { key: key(), document: base.clone(), base: base.clone() };
            let filter = doc! {"_id": "a", "$expr": {"$eq": ["$$ROOT", {"$literal": base.clone()}]}};
            let expected = if hostile.starts_with('$') {
                Statement::ReplaceLiterally { filter, document: base }
            } else {
                Statement::Replace { filter, document: base }
            };
            assert_eq!(Statement::of(&write, true).unwrap(), expected, "{hostile}");
        }
    }

    #[test]
    fn a_large_document_with_a_key_that_no_filter_can_name_is_compared_once() {
        let large = "x".repeat(DOCUMENT_BYTES_MAX - 1_000);
        let base = doc! {"_id": "a", "$x": 1, "n": 1, "text": large};
        let Ok(Statement::Delete(filter)) = Statement::of(&Write::Delete { key: key(), base }, true) else {
            panic!("the delete cannot be sent");
        };
        assert_eq!(filter.keys().collect::<Vec<_>>(), ["_id", "n", "$expr"]);
    }

    #[test]
    fn what_cannot_be_sent_is_refused_beforehand() {
        let code = |write: Write| Statement::of(&write, true).unwrap_err().code;
        let changes = vec![change(&["a.b"], None, Some(bson!(1)))];
        assert_eq!(code(Write::Update { key: key(), changes }), BAD_VALUE);
        let changes = Vec::new();
        assert_eq!(code(Write::Update { key: key(), changes }), BAD_VALUE);
        let document = doc! {"x": "y".repeat(DOCUMENT_BYTES_MAX)};
        assert_eq!(code(Write::Insert { key: key(), document }), TOO_LARGE);
    }
}
