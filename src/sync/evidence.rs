//! Floor 3. What an event of the change feed proves about a write of this node. Pure.

use bson::{Bson, Document};

use crate::central::Effect;
use crate::domain::diff::{Change, get, holds, is_divisible, set};
use crate::domain::merge::same_identity;
use crate::domain::record::Kind;
use crate::domain::schema::Owner;
use crate::domain::value::{same_document, same_option};
use crate::store::{Base, IntentWrite};

/// What an event says about a write of the same record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// It is this write, or one that did exactly the same.
    Shown,
    /// It is something else.
    Other,
    /// It may be this write, told in another way.
    Unclear,
}

/// Whether `effect` is what `write` did.
///
/// Servers may describe an update by coarser or finer paths than it was sent with; then it is unclear, and
/// the document itself has to tell.
pub(crate) fn shows(write: &IntentWrite, effect: &Effect) -> Evidence {
    use Evidence::{Other, Shown, Unclear};
    let body = |sent: &Document, told: &Option<Document>| match told {
        Some(told) if same_document(sent, told) => Shown,
        Some(_) => Other,
        None => Unclear,
    };
    match (write, effect) {
        (IntentWrite::Delete { .. }, Effect::Deleted) => Shown,
        (IntentWrite::Insert(sent), Effect::Inserted(told))
        | (IntentWrite::Replace(sent), Effect::Replaced(told)) => body(sent, told),
        (IntentWrite::Replace(_), Effect::Updated { .. }) => Unclear,
        (IntentWrite::Update(changes), Effect::Updated { set, unset }) => shows_update(changes, set, unset),
        _ => Other,
    }
}

fn shows_update(changes: &[Change], set: &[(String, Bson)], unset: &[String]) -> Evidence {
    let told = |path: &str| {
        let was_set = set.iter().find(|(told, _)| told == path).map(|(_, value)| Some(value));
        was_set.or_else(|| unset.iter().any(|told| told == path).then_some(None))
    };
    let mut all_told = set.len() + unset.len() == changes.len();
    let mut touches = false;
    for change in changes {
        let path = change.path.join(".");
        match told(&path) {
            Some(value) if same_option(value, change.to.as_ref()) => touches = true,
            // Exactly this path, and another value.
            Some(_) => return Evidence::Other,
            None => {
                all_told = false;
                let mut paths = set.iter().map(|(path, _)| path).chain(unset);
                touches |= paths.any(|told| is_around(told, &path));
            }
        }
    }
    match (all_told, touches) {
        (true, _) => Evidence::Shown,
        // An update of which nothing could be read says nothing.
        (false, true) => Evidence::Unclear,
        (false, false) if set.is_empty() && unset.is_empty() => Evidence::Unclear,
        (false, false) => Evidence::Other,
    }
}

/// Whether one of two dotted paths leads into the other.
fn is_around(a: &str, b: &str) -> bool {
    let into = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'));
    a == b || into(a, b) || into(b, a)
}

/// Whether `effect` is the echo of a write that is known to have landed.
///
/// `sent` comes without bodies, so inserts and replacements are recognized by their kind alone: every write of
/// somebody else has an event of its own.
pub(crate) fn is_echo(sent: &IntentWrite, effect: &Effect) -> bool {
    match (sent, effect) {
        (IntentWrite::Delete { .. }, Effect::Deleted) | (IntentWrite::Insert(_), Effect::Inserted(_)) => true,
        (IntentWrite::Update(changes), Effect::Updated { set, unset }) => {
            shows_update(changes, set, unset) == Evidence::Shown
        }
        (IntentWrite::Replace(_), Effect::Replaced(_)) => true,
        _ => false,
    }
}

/// Whether what a landed write did is still what the node takes for the centre's version. If so, its echo is
/// no reason to read the record.
pub(crate) fn still_stands(sent: &IntentWrite, agreed: Option<&Document>) -> bool {
    match sent {
        IntentWrite::Delete { .. } => agreed.is_none(),
        IntentWrite::Insert(_) => agreed.is_some(),
        IntentWrite::Update(changes) => agreed.is_some_and(|agreed| {
            changes.iter().all(|change| holds(agreed, &change.path, change.to.as_ref()))
        }),
        // A replacement is rare, and reading it once more costs little.
        IntentWrite::Replace(_) => false,
    }
}

/// Whether the centre holds what this write would have left there.
pub(crate) fn landed(write: &IntentWrite, remote: Option<&Document>) -> bool {
    match (write, remote) {
        (IntentWrite::Delete { .. }, None) => true,
        (IntentWrite::Insert(sent) | IntentWrite::Replace(sent), Some(remote)) => same_document(sent, remote),
        (IntentWrite::Update(changes), Some(remote)) => {
            changes.iter().all(|change| holds(remote, &change.path, change.to.as_ref()))
        }
        _ => false,
    }
}

/// The base of a record whose write may have landed and been overwritten since: where the record here has
/// changed as well, what was sent becomes the base, so that an undo or a removal is seen as an edit and not
/// as never having happened. Elsewhere the base stays, and the merge finds the two sides to differ.
pub(crate) fn doubted(
    kind: Kind,
    write: &IntentWrite,
    base: &Base,
    local: Option<&Document>,
    remote: &Document,
) -> Option<Document> {
    match write {
        IntentWrite::Update(changes) => {
            let mut doubted = base.document().cloned().unwrap_or_default();
            for change in changes {
                let (local, remote) =
                    (local.and_then(|local| get(local, &change.path)), get(remote, &change.path));
                let value = doubted_value(change.from.as_ref(), change.to.as_ref(), local, remote);
                set(&mut doubted, &change.path, value);
            }
            Some(doubted)
        }
        // Somebody else's record under the same id says nothing about this one.
        IntentWrite::Insert(sent) if is_about_one(kind, sent, remote) => {
            Some(doubted_document(&Document::new(), sent, local, remote))
        }
        _ => None,
    }
}

/// Whether two records under one id are about the same person.
fn is_about_one(kind: Kind, sent: &Document, remote: &Document) -> bool {
    let schema = kind.schema();
    match schema.owner {
        Owner::Itself => same_identity(sent, remote),
        Owner::Field(_) => schema.owner_of(sent) == schema.owner_of(remote),
        Owner::Nobody => true,
    }
}

/// [`doubted`] for one place that was written. It descends as the merge does: an edit of one field here says
/// nothing about its neighbours.
fn doubted_value(
    from: Option<&Bson>,
    sent: Option<&Bson>,
    local: Option<&Bson>,
    remote: Option<&Bson>,
) -> Option<Bson> {
    if let (Some(Bson::Document(sent)), Some(Bson::Document(local)), Some(Bson::Document(remote))) =
        (sent, local, remote)
        && [sent, local, remote].into_iter().all(is_divisible)
    {
        let nothing = Document::new();
        let from = from.and_then(Bson::as_document).unwrap_or(&nothing);
        return Some(Bson::Document(doubted_document(from, sent, Some(local), remote)));
    }
    let is_as_sent = same_option(remote, sent) || (!same_option(remote, from) && !same_option(local, sent));
    if is_as_sent { sent.cloned() } else { from.cloned() }
}

fn doubted_document(
    from: &Document,
    sent: &Document,
    local: Option<&Document>,
    remote: &Document,
) -> Document {
    let mut doubted = Document::new();
    let removed = from.keys().filter(|key| !sent.contains_key(key.as_str()));
    for key in sent.keys().chain(removed) {
        let local = local.and_then(|local| local.get(key));
        if let Some(value) = doubted_value(from.get(key), sent.get(key), local, remote.get(key)) {
            doubted.insert(key, value);
        }
    }
    doubted
}

/// The base of a record at which a write arrived that had been given up, as far as can be told: somebody may
/// as well have done the same meanwhile. Without a base in those places both sides count as edits, and the
/// one that does not stand is kept as a conflict.
pub(crate) fn haunted(ghost: &IntentWrite, base: &Base) -> Document {
    match ghost {
        IntentWrite::Update(changes) => {
            let mut haunted = base.document().cloned().unwrap_or_default();
            for change in changes {
                set(&mut haunted, &change.path, None);
            }
            haunted
        }
        _ => Document::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{bson, doc};

    fn change(path: &str, to: Option<Bson>) -> Change {
        Change { path: path.split('.').map(str::to_owned).collect(), from: None, to }
    }

    fn updated(set: &[(&str, Bson)], unset: &[&str]) -> Effect {
        Effect::Updated {
            set: set.iter().map(|(path, value)| ((*path).to_owned(), value.clone())).collect(),
            unset: unset.iter().map(|path| (*path).to_owned()).collect(),
        }
    }

    #[test]
    fn an_update_is_shown_by_exactly_its_paths_and_values() {
        let write = IntentWrite::Update(vec![change("a.b", Some(bson!(1))), change("c", None)]);
        let cases = [
            (updated(&[("a.b", bson!(1))], &["c"]), Evidence::Shown),
            (updated(&[("a.b", bson!(2))], &["c"]), Evidence::Other),
            (updated(&[("a.b", bson!(1.0))], &["c"]), Evidence::Other),
            (updated(&[("a.b", bson!(1)), ("d", bson!(1))], &["c"]), Evidence::Unclear),
            (updated(&[("a.b", bson!(1))], &[]), Evidence::Unclear),
            (updated(&[("a", bson!({"b": 1}))], &["c"]), Evidence::Unclear),
            (updated(&[("ab", bson!(1))], &["d"]), Evidence::Other),
            (updated(&[], &[]), Evidence::Unclear),
            (Effect::Deleted, Evidence::Other),
            (Effect::Inserted(None), Evidence::Other),
            (Effect::Replaced(Some(doc! {"a": {"b": 1}})), Evidence::Other),
        ];
        for (effect, expected) in cases {
            assert_eq!(shows(&write, &effect), expected, "{effect:?}");
        }
    }

    #[test]
    fn a_whole_document_is_shown_by_its_body() {
        let sent = doc! {"_id": "a", "f": 1};
        let (same, other) = (Some(doc! {"f": 1, "_id": "a"}), Some(doc! {"_id": "a", "f": 2}));
        let insert = IntentWrite::Insert(sent.clone());
        let replace = IntentWrite::Replace(sent);
        assert_eq!(shows(&insert, &Effect::Inserted(same.clone())), Evidence::Shown);
        assert_eq!(shows(&insert, &Effect::Inserted(other.clone())), Evidence::Other);
        assert_eq!(shows(&insert, &Effect::Inserted(None)), Evidence::Unclear);
        assert_eq!(shows(&replace, &Effect::Replaced(same)), Evidence::Shown);
        assert_eq!(shows(&replace, &Effect::Replaced(other)), Evidence::Other);
        assert_eq!(shows(&replace, &updated(&[("f", bson!(1))], &[])), Evidence::Unclear);
        let delete = IntentWrite::Delete { archive: String::new() };
        assert_eq!(shows(&delete, &Effect::Deleted), Evidence::Shown);
    }

    #[test]
    fn a_write_in_doubt_is_looked_at_field_by_field() {
        let sent = doc! {"_id": "a", "n": {"x": "sent", "y": "sent", "z": "sent"}};
        let remote = doc! {"_id": "a", "n": {"x": "theirs", "y": "theirs", "z": "sent"}};
        let local = doc! {"_id": "a", "n": {"x": "sent", "y": "undone", "z": "sent", "more": 1}};
        // Edited here since, or there: what was sent is what they may have seen. Not edited here: both sides
        // differ, and nobody can tell who saw what.
        let expected = doc! {"y": "sent", "z": "sent"};
        let write = IntentWrite::Insert(sent.clone());
        let base = doubted(Kind::Page, &write, &Base::Absent, Some(&local), &remote).unwrap();
        assert_eq!(base.get_document("n").unwrap(), &expected);
        let to = sent.get("n").cloned();
        let write = IntentWrite::Update(vec![Change { path: vec!["n".to_owned()], from: None, to }]);
        let before = Base::Document(doc! {"_id": "a", "other": 1});
        let base = doubted(Kind::Page, &write, &before, Some(&local), &remote).unwrap();
        assert_eq!(base, doc! {"_id": "a", "other": 1, "n": expected});
    }

    #[test]
    fn an_echo_needs_no_reading_while_its_values_stand() {
        let write = IntentWrite::Update(vec![change("a", Some(bson!("new")))]);
        assert!(is_echo(&write, &updated(&[("a", bson!("new"))], &[])));
        assert!(!is_echo(&write, &updated(&[("a", bson!("new")), ("b", bson!(1))], &[])));
        assert!(still_stands(&write, Some(&doc! {"a": "new", "b": 1})));
        assert!(!still_stands(&write, Some(&doc! {"a": "newer"})));
        assert!(!still_stands(&write, None));
        let insert = IntentWrite::Insert(doc! {});
        assert!(is_echo(&insert, &Effect::Inserted(None)) && !is_echo(&insert, &Effect::Deleted));
        assert!(still_stands(&insert, Some(&doc! {})) && !still_stands(&insert, None));
        let delete = IntentWrite::Delete { archive: String::new() };
        assert!(is_echo(&delete, &Effect::Deleted) && !is_echo(&delete, &Effect::Inserted(None)));
        assert!(still_stands(&delete, None) && !still_stands(&delete, Some(&doc! {})));
        assert!(!still_stands(&IntentWrite::Replace(doc! {}), Some(&doc! {})));
    }
}
