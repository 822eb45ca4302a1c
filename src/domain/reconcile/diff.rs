//! Floor 0. What an edit changed, as paths that MongoDB can compare and set.
//!
//! A diff descends through sub-documents to leaves; an array is one value. A sub-document that is wholly
//! new, removed or of another type is one path. Keys that MongoDB cannot address inside a dotted path
//! lift the change to their parent, and at the top level to the whole document. What is nested deep, or below long keys,
//! is one value.

use bson::{Bson, Document};

use crate::domain::record::value::{same, same_option};

/// The keys from the top of a document down to one value.
pub type Path = Vec<String>;

/// One changed value; absent is `None`, which is not the same as null.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub path: Path,
    pub from: Option<Bson>,
    pub to: Option<Bson>,
}

/// The difference between two versions of one document.
#[derive(Debug, Clone, PartialEq)]
pub enum Diff {
    Same,
    /// Disjoint paths: none is a prefix of another.
    Fields(Vec<Change>),
    /// A top-level key cannot be addressed: the whole document is compared and replaced.
    Whole,
}

/// So many keys, and bytes of them, may lead to a document that is divided. Each path below it repeats them: without a bound,
/// a record of a megabyte has paths of gigabytes.
const DIVIDED_KEYS_MAX: usize = 8;
const DIVIDED_BYTES_MAX: usize = 256;

/// Keys that identify a record rather than describe it: `_id`, and the `id` that some old documents
/// carry, which is kept as it is and never written.
pub fn is_identity(key: &str) -> bool {
    key == "_id" || key == "id"
}

/// Whether `key` can stand in a dotted path: MongoDB reads dots as steps, digits as array positions and
/// `$` as an operator.
pub fn is_addressable(key: &str) -> bool {
    !key.is_empty() && !key.starts_with('$') && !key.contains('.') && !key.bytes().all(|b| b.is_ascii_digit())
}

/// Whether paths may lead through this one, to what is in a document there.
pub fn may_lead_on(path: &[String]) -> bool {
    path.len() <= DIVIDED_KEYS_MAX
        && path.iter().map(String::len).sum::<usize>() <= DIVIDED_BYTES_MAX
        && path.iter().all(|key| is_addressable(key))
}

/// Whether changes may be described by paths below this document.
pub fn is_divisible(document: &Document) -> bool {
    document.keys().all(|key| is_addressable(key))
}

/// The difference that turns `from` into `to`.
pub fn diff(from: &Document, to: &Document) -> Diff {
    let changes = differences(from, to, &[]);
    if changes.is_empty() {
        Diff::Same
    } else if changes.iter().any(|change| !is_addressable(&change.path[0])) {
        Diff::Whole
    } else {
        Diff::Fields(changes)
    }
}

/// The values in which two versions differ: `from` in the first, `to` in the second. Fields of `whole_fields` are one value
/// each, and so is a top-level field that cannot be addressed. The paths are disjoint.
pub fn differences(from: &Document, to: &Document, whole_fields: &[&str]) -> Vec<Change> {
    let mut changes = Vec::new();
    collect(&mut Path::new(), from, to, whole_fields, &mut changes);
    changes
}

fn collect(
    path: &mut Path,
    from: &Document,
    to: &Document,
    whole_fields: &[&str],
    changes: &mut Vec<Change>,
) {
    let added = to.keys().filter(|key| !from.contains_key(key.as_str()));
    for key in from.keys().chain(added) {
        let (old, new) = (from.get(key), to.get(key));
        if same_option(old, new) || (path.is_empty() && is_identity(key)) {
            continue;
        }
        let is_whole = path.is_empty() && whole_fields.contains(&key.as_str());
        path.push(key.clone());
        match (old, new) {
            (Some(Bson::Document(old)), Some(Bson::Document(new)))
                if !is_whole && may_lead_on(path) && is_divisible(old) && is_divisible(new) =>
            {
                collect(path, old, new, whole_fields, changes);
            }
            _ => changes.push(Change { path: path.clone(), from: old.cloned(), to: new.cloned() }),
        }
        path.pop();
    }
}

/// Carries out `diff` on `document`; `to` is the version that the diff leads to.
pub fn apply(diff: &Diff, document: &mut Document, to: &Document) {
    match diff {
        Diff::Same => {}
        Diff::Whole => *document = to.clone(),
        Diff::Fields(changes) => {
            for change in changes {
                set(document, &change.path, change.to.clone());
            }
        }
    }
}

/// The value at `path`.
pub fn get<'a>(document: &'a Document, path: &[String]) -> Option<&'a Bson> {
    let (last, parents) = path.split_last()?;
    let mut at = document;
    for key in parents {
        at = at.get(key)?.as_document()?;
    }
    at.get(last)
}

/// What [`set`] would replace: the value at `path`, or the parent that is no document.
pub fn standing<'a>(document: &'a Document, path: &[String]) -> Option<&'a Bson> {
    let (first, rest) = path.split_first()?;
    match document.get(first)? {
        Bson::Document(inner) if !rest.is_empty() => standing(inner, rest),
        found => Some(found),
    }
}

/// Puts `value` at `path`, or removes what is there. Missing parents are made; a parent that is not a
/// document gives way.
pub fn set(document: &mut Document, path: &[String], value: Option<Bson>) {
    match path {
        [] => {}
        [last] => match value {
            Some(value) => {
                document.insert(last, value);
            }
            None => {
                document.remove(last);
            }
        },
        [first, rest @ ..] => {
            if !matches!(document.get(first), Some(Bson::Document(_))) {
                if value.is_none() {
                    return;
                }
                document.insert(first, Document::new());
            }
            if let Some(Bson::Document(inner)) = document.get_mut(first) {
                set(inner, rest, value);
            }
        }
    }
}

/// The paths that changed, dotted, for the change feed.
pub fn changed_paths(from: Option<&Document>, to: Option<&Document>) -> Vec<String> {
    match (from, to) {
        (Some(from), Some(to)) => match diff(from, to) {
            Diff::Fields(changes) => changes.iter().map(|c| c.path.join(".")).collect(),
            Diff::Same => Vec::new(),
            Diff::Whole => vec![String::new()],
        },
        _ => vec![String::new()],
    }
}

/// Whether the value at `path` is `expected`.
pub fn holds(document: &Document, path: &[String], expected: Option<&Bson>) -> bool {
    match (get(document, path), expected) {
        (Some(a), Some(b)) => same(a, b),
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    fn paths(from: Document, to: Document) -> Vec<String> {
        match diff(&from, &to) {
            Diff::Fields(changes) => changes.iter().map(|c| c.path.join("/")).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn changes_are_found_at_the_leaves() {
        assert_eq!(
            paths(
                doc! {"_id": 1, "a": {"x": 1, "y": {"z": 1}}, "gone": null, "arr": [1]},
                doc! {"_id": 1, "a": {"x": 1, "y": {"z": 2}}, "new": {"p": 1}, "arr": [1, 2]},
            ),
            ["a/y/z", "gone", "arr", "new"]
        );
    }

    #[test]
    fn what_stands_is_what_would_be_replaced() {
        let document = doc! {"a": {"b": 1}, "c": "text"};
        let path = |path: &str| path.split('.').map(str::to_owned).collect::<Vec<_>>();
        for (at, expected) in [
            ("a.b", Some(Bson::Int32(1))),
            ("a.b.x", Some(Bson::Int32(1))),
            ("c.x.y", Some(Bson::String("text".to_owned()))),
            ("a", Some(doc! {"b": 1}.into())),
            ("a.x", None),
            ("x.y", None),
        ] {
            assert_eq!(standing(&document, &path(at)), expected.as_ref(), "{at}");
        }
    }

    #[test]
    fn keys_that_cannot_be_addressed_lift_to_their_parent() {
        for key in ["a.b", "$x", "", "12"] {
            let from = doc! {"s": {"t": {key: 1}}};
            assert_eq!(paths(from, doc! {"s": {"t": {key: 2}}}), ["s/t"], "{key}");
            assert_eq!(diff(&doc! {key: 1}, &doc! {key: 2}), Diff::Whole, "{key}");
        }
    }

    #[test]
    fn all_paths_of_a_record_are_about_as_long_as_it() {
        let leaves = |value: i32| (0..1000).map(|n| (format!("k{n}"), value.into())).collect::<Document>();
        let below = |keys: &[String], value: i32| {
            keys.iter().rev().fold(leaves(value), |inner, key| doc! {key: inner})
        };
        let long = ["a".repeat(DIVIDED_BYTES_MAX + 1)];
        let deep: Vec<String> = (0..DIVIDED_KEYS_MAX + 1).map(|n| format!("d{n}")).collect();
        for (keys, divided) in [(&long[..], false), (&deep, false), (&deep[1..], true)] {
            let paths = changed_paths(Some(&below(keys, 1)), Some(&below(keys, 2)));
            assert_eq!(paths.len(), if divided { 1000 } else { 1 }, "{keys:?}");
            assert!(paths[0].starts_with(&keys.join(".")));
        }
    }

    #[test]
    fn the_old_id_field_is_never_part_of_an_edit() {
        assert_eq!(diff(&doc! {"_id": 1, "id": 5}, &doc! {"_id": 1}), Diff::Same);
        assert_eq!(diff(&doc! {"id": {"x": 1}}, &doc! {"id": {"x": 2}}), Diff::Same);
    }
}
