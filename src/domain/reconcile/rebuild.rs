//! Floor 0. What a node and a centre last agreed on, after the centre was set back to an older copy.
//!
//! The node remembers a newer centre. Where both sides are the same nothing has to be decided. Where they
//! differ, the node knows its own latest writes: if the centre is back at what one of them found there, the
//! write is simply to be repeated. Anything else that differs is older at the centre or newer, nobody knows:
//! then nothing counts as agreed, so that the merge keeps both values.

use std::collections::{HashMap, HashSet};

use bson::{Bson, Document};

use super::diff::{Change, Path, get, is_addressable, is_divisible, is_identity, set};
use super::merge::{REUSED_FIELDS_MIN, conflict_path, identity_differences};
use super::same_meaning::same_edit;
use crate::domain::record::Kind;
use crate::domain::record::schema::{Owner, Schema};
use crate::domain::record::value::{is_same_set, same, same_document, same_option};

/// A write of the node that landed at the newer centre.
#[derive(Debug, Clone, PartialEq)]
pub enum OwnWrite {
    Inserted,
    /// With what was there before, and what was written.
    Updated(Vec<Change>),
    /// What was there before is not known.
    Replaced,
    /// With the body, if that is known.
    Deleted(Option<Document>),
}

/// The version to merge from; `None` for none at all.
///
/// `agreed` is what the newer centre held, `own` are the node's writes that may be missing from it now, oldest
/// first.
pub fn rebuilt_base(
    kind: Kind,
    agreed: Option<&Document>,
    local: Option<&Document>,
    remote: Option<&Document>,
    own: &[OwnWrite],
) -> Option<Document> {
    // What is only here is inserted again.
    let remote = remote?;
    let earlier = earlier_versions(agreed, own);
    let known = || agreed.into_iter().chain(earlier.iter().flatten());
    let Some(local) = local else {
        // A delete is repeated where the centre is back at what was deleted, and else has to be weighed
        // against it.
        return match known().any(|version| same_document(version, remote)) {
            true => Some(remote.clone()),
            false => agreed.cloned(),
        };
    };
    let agreed = agreed?;
    let is_new = earlier.iter().any(Option::is_none);
    let differences = if kind == Kind::Person { identity_differences(local, remote) } else { 0 };
    if differences >= REUSED_FIELDS_MIN || (is_new && differences > 0) {
        // Perhaps somebody else: nothing counts as agreed.
        return None;
    }
    let nothing = Document::new();
    let earlier: Vec<&Document> =
        earlier.iter().map(|version| version.as_ref().unwrap_or(&nothing)).collect();
    let mut rebuilt = rebuilt_document(agreed, remote, &earlier, true);
    agree_by_meaning(kind.schema(), &mut Path::new(), agreed, &mut rebuilt, (local, remote));
    Some(rebuilt)
}

/// Where nothing tells which of two values is the older one, and they mean the same, the one of the node counts as agreed:
/// the centre's stands, and nobody has to decide. The centre may have been filled anew by a program that stores dates
/// differently. What was edited here since the two agreed is newer, and stays an edit.
fn agree_by_meaning(
    schema: &Schema,
    path: &mut Path,
    agreed: &Document,
    rebuilt: &mut Document,
    (local, remote): (&Document, &Document),
) {
    for (key, there) in remote {
        let Some(here) = local.get(key).filter(|here| !same(here, there)) else {
            continue;
        };
        let known = rebuilt.get(key);
        if (path.is_empty() && is_identity(key))
            || known.is_some_and(|known| same(known, here) || same(known, there))
        {
            continue;
        }
        path.push(key.clone());
        let is_edited = !same_option(get(agreed, path), Some(here));
        match (here, there, rebuilt.get_mut(key)) {
            _ if !is_edited && same_edit(schema, path, here, there) => {
                rebuilt.insert(key, here.clone());
            }
            (Bson::Document(here), Bson::Document(there), Some(Bson::Document(known))) => {
                agree_by_meaning(schema, path, agreed, known, (here, there));
            }
            _ => {}
        }
        path.pop();
    }
}

/// Sets (roles) of which nobody knows which is the older one: merged from `rebuilt` they would become one set of both, and give
/// a person what was taken away since. `from` is what the node holds, and may be taken for agreed if it is kept otherwise; `to`
/// is what stands at the centre.
pub fn sets_apart(
    kind: Kind,
    agreed: &Document,
    rebuilt: &Document,
    local: &Document,
    remote: &Document,
) -> Vec<Change> {
    let apart = kind.schema().set_fields.iter().filter(|field| {
        agreed.contains_key(field)
            && !rebuilt.contains_key(field)
            && local.contains_key(field)
            && remote.contains_key(field)
            && !is_same_set(local.get(field), remote.get(field))
    });
    let change = |field: &&str| Change {
        path: vec![(*field).to_owned()],
        from: local.get(field).cloned(),
        to: remote.get(field).cloned(),
    };
    apart.map(change).collect()
}

/// Where somebody has changed at the centre what one of the node's own writes left there: `from` what the node wrote and
/// still holds for agreed, `to` what stands there now.
///
/// A write is carried out as a whole. If a part of it is there, it has not been forgotten, and what differs from it came
/// later.
pub fn later_changes(kind: Kind, agreed: &Document, remote: &Document, own: &[OwnWrite]) -> Vec<Change> {
    let owner = match kind.schema().owner {
        Owner::Field(field) => field,
        Owner::Nobody | Owner::Itself => "",
    };
    let (mut later, mut known) = (Vec::new(), HashSet::new());
    for write in own {
        let written: Vec<Change> = match write {
            OwnWrite::Updated(changes) => changes.clone(),
            OwnWrite::Inserted => {
                let fields = agreed.iter().filter(|(key, _)| !is_identity(key) && *key != owner);
                let insert = |(key, value): (&String, &Bson)| Change {
                    path: vec![key.clone()],
                    from: None,
                    to: Some(value.clone()),
                };
                fields.map(insert).collect()
            }
            OwnWrite::Replaced | OwnWrite::Deleted(_) => continue,
        };
        let stands = |change: &Change| same_option(get(remote, &change.path), change.to.as_ref());
        let is_there = written.iter().any(|change| {
            change.to.is_some() && !same_option(change.from.as_ref(), change.to.as_ref()) && stands(change)
        });
        if !is_there {
            continue;
        }
        for change in written {
            let is_latest = same_option(get(agreed, &change.path), change.to.as_ref());
            let path = conflict_path(kind.schema(), &change.path);
            if is_latest && !stands(&change) && known.insert(path.clone()) {
                let (from, to) = (get(agreed, &path).cloned(), get(remote, &path).cloned());
                later.push(Change { path, from, to });
            }
        }
    }
    later
}

/// Where the centre is back at what one of the node's own writes had replaced: `from` what the node has written last, `to` what
/// is there.
pub fn set_back(remote: &Document, own: &[OwnWrite]) -> Vec<Change> {
    let written = || {
        let changes = own.iter().rev().map(|write| match write {
            OwnWrite::Updated(changes) => changes.as_slice(),
            _ => &[],
        });
        changes.flatten()
    };
    let mut by_path: HashMap<&Path, Vec<&Change>> = HashMap::new();
    let mut latest: Vec<&Change> = Vec::new();
    for change in written() {
        let of_path = by_path.entry(&change.path).or_default();
        if of_path.is_empty() {
            latest.push(change);
        }
        of_path.push(change);
    }
    let is_replaced = |path: &Path, there: Option<&Bson>| {
        by_path[path].iter().any(|change| same_option(there, change.from.as_ref()))
    };
    let back = latest.into_iter().filter_map(|change| {
        let there = get(remote, &change.path);
        let is_back = !same_option(there, change.to.as_ref()) && is_replaced(&change.path, there);
        is_back.then(|| Change { path: change.path.clone(), from: change.to.clone(), to: there.cloned() })
    });
    back.collect()
}

/// Whether the centre is back at what it held before one of the node's own writes.
pub fn is_earlier(agreed: &Document, remote: &Document, own: &[OwnWrite]) -> bool {
    earlier_versions(Some(agreed), own).iter().flatten().any(|version| same_document(version, remote))
}

/// What the centre held after and before each of the node's writes, the latest first, as far as is known.
fn earlier_versions(agreed: Option<&Document>, own: &[OwnWrite]) -> Vec<Option<Document>> {
    let mut version = agreed.cloned();
    let mut versions = Vec::new();
    for write in own.iter().rev() {
        match (write, &mut version) {
            (OwnWrite::Inserted, _) => version = None,
            (OwnWrite::Updated(changes), Some(document)) => {
                // Others may have written to it since.
                for change in changes {
                    set(document, &change.path, change.to.clone());
                }
                versions.push(Some(document.clone()));
                for change in changes {
                    set(document, &change.path, change.from.clone());
                }
            }
            (OwnWrite::Deleted(Some(body)), _) => version = Some(body.clone()),
            (OwnWrite::Updated(_), None) | (OwnWrite::Replaced | OwnWrite::Deleted(None), _) => break,
        }
        versions.push(version.clone());
    }
    versions
}

fn rebuilt_document(agreed: &Document, remote: &Document, earlier: &[&Document], is_top: bool) -> Document {
    let mut rebuilt = Document::new();
    let others = agreed.iter().chain(earlier.iter().flat_map(|version| version.iter()));
    for (key, _) in remote.iter().chain(others) {
        if rebuilt.contains_key(key) {
            continue;
        }
        if is_top && is_identity(key) {
            rebuilt.extend(remote.get(key).map(|value| (key.clone(), value.clone())));
            continue;
        }
        let earlier: Vec<Option<&Bson>> = earlier.iter().map(|version| version.get(key)).collect();
        let value = rebuilt_value(key, agreed.get(key), remote.get(key), &earlier);
        rebuilt.extend(value.map(|value| (key.clone(), value)));
    }
    rebuilt
}

fn rebuilt_value(
    key: &str,
    agreed: Option<&Bson>,
    remote: Option<&Bson>,
    earlier: &[Option<&Bson>],
) -> Option<Bson> {
    if same_option(agreed, remote) {
        return agreed.cloned();
    }
    if let (Some(Bson::Document(agreed)), Some(Bson::Document(remote))) = (agreed, remote)
        && is_addressable(key)
        && is_divisible(agreed)
        && is_divisible(remote)
    {
        let nothing = Document::new();
        let earlier: Vec<&Document> =
            earlier.iter().map(|version| version.and_then(Bson::as_document).unwrap_or(&nothing)).collect();
        return Some(Bson::Document(rebuilt_document(agreed, remote, &earlier, false)));
    }
    if earlier.iter().any(|version| same_option(*version, remote)) {
        return remote.cloned();
    }
    // Written by the node: what it found at first. Otherwise the same as `agreed`, which says nothing.
    let is_own = earlier.iter().any(|version| !same_option(*version, agreed));
    earlier.last().filter(|_| is_own).and_then(|first| first.cloned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::reconcile::merge::merge;
    use bson::{bson, doc};

    fn change(path: &[&str], from: Option<Bson>, to: Option<Bson>) -> Change {
        Change { path: path.iter().map(|key| (*key).to_owned()).collect(), from, to }
    }

    fn set_f(from: &str, to: &str) -> OwnWrite {
        OwnWrite::Updated(vec![change(&["f"], Some(from.into()), Some(to.into()))])
    }

    fn removed_f(from: &str) -> OwnWrite {
        OwnWrite::Updated(vec![change(&["f"], Some(from.into()), None)])
    }

    fn added_f(to: &str) -> OwnWrite {
        OwnWrite::Updated(vec![change(&["f"], None, Some(to.into()))])
    }

    fn f(value: &str) -> Document {
        doc! {"_id": "A", "f": value, "g": 1}
    }

    fn without_f() -> Document {
        doc! {"_id": "A", "g": 1}
    }

    /// The outcome for the record, and the local values that become conflicts.
    fn outcome(
        agreed: Option<Document>,
        local: Option<Document>,
        remote: Option<Document>,
        own: &[OwnWrite],
    ) -> (Option<Document>, Vec<Option<Bson>>) {
        let base = rebuilt_base(Kind::Event, agreed.as_ref(), local.as_ref(), remote.as_ref(), own);
        let schema = Kind::Event.schema();
        let merged = merge(schema, base.as_ref(), local.as_ref(), remote.as_ref());
        (merged.document, merged.clashes.into_iter().map(|clash| clash.local).collect())
    }

    #[test]
    fn a_write_that_is_there_in_part_is_there_and_was_changed_since() {
        let agreed = doc! {"_id": "A", "person": "P", "f": "mine", "g": "mine"};
        let both = OwnWrite::Updated(vec![
            change(&["f"], None, Some("mine".into())),
            change(&["g"], None, Some("mine".into())),
        ]);
        let gone = || vec![change(&["g"], Some("mine".into()), None)];
        let changed = |value: &str| vec![change(&["g"], Some("mine".into()), Some(value.into()))];
        for own in [both, OwnWrite::Inserted] {
            let later =
                |remote: Document| later_changes(Kind::Event, &agreed, &remote, std::slice::from_ref(&own));
            assert_eq!(later(agreed.clone()), []);
            assert_eq!(later(doc! {"_id": "A", "person": "P", "f": "mine"}), gone());
            assert_eq!(
                later(doc! {"_id": "A", "person": "P", "f": "mine", "g": "theirs"}),
                changed("theirs")
            );
            // Nothing of it is there: it may have been forgotten.
            assert_eq!(later(doc! {"_id": "A", "person": "P"}), []);
            assert_eq!(later(doc! {"_id": "A", "person": "P", "g": "theirs"}), []);
        }
    }

    type Case = (&'static str, Document, Document, Document, Vec<OwnWrite>, Document, Vec<Option<Bson>>);

    /// Agreed with the newer centre, local, at the restored centre, own writes; the outcome, and what local
    /// values become conflicts.
    #[test]
    fn own_writes_are_repeated_and_everything_else_is_kept_twice() {
        let lost = |value: &str| vec![Some(Bson::from(value))];
        let cases: Vec<Case> = vec![
            ("both the same", f("a"), f("a"), f("a"), vec![], f("a"), vec![]),
            ("an own write is missing", f("b"), f("b"), f("a"), vec![set_f("a", "b")], f("b"), vec![]),
            ("two of them", f("c"), f("c"), f("a"), vec![set_f("a", "b"), set_f("b", "c")], f("c"), vec![]),
            (
                "the second of two",
                f("c"),
                f("c"),
                f("b"),
                vec![set_f("a", "b"), set_f("b", "c")],
                f("c"),
                vec![],
            ),
            ("another value there", f("b"), f("b"), f("x"), vec![set_f("a", "b")], f("x"), lost("b")),
            ("not written here", f("b"), f("b"), f("a"), vec![], f("a"), lost("b")),
            (
                "somebody else wrote it since",
                f("d"),
                f("d"),
                f("a"),
                vec![set_f("a", "b"), set_f("c", "d")],
                f("d"),
                vec![],
            ),
            (
                "and it is back at what was written here",
                f("c"),
                f("c"),
                f("b"),
                vec![set_f("a", "b")],
                f("c"),
                vec![],
            ),
            ("or at what was before", f("c"), f("c"), f("a"), vec![set_f("a", "b")], f("c"), vec![]),
            ("only here", f("b"), f("b"), without_f(), vec![], f("b"), vec![]),
            ("only there", without_f(), without_f(), f("a"), vec![], f("a"), vec![]),
            ("removed here", without_f(), without_f(), f("a"), vec![removed_f("a")], without_f(), vec![]),
            ("added here", f("b"), f("b"), without_f(), vec![added_f("b")], f("b"), vec![]),
            // Edited since, and not sent yet.
            ("a plain edit", f("b"), f("c"), f("b"), vec![], f("c"), vec![]),
            ("on top of an own write", f("b"), f("c"), f("a"), vec![set_f("a", "b")], f("c"), vec![]),
            ("on top of another's", f("b"), f("c"), f("a"), vec![], f("a"), lost("c")),
            ("an undo of an own write", f("b"), f("a"), f("a"), vec![set_f("a", "b")], f("a"), vec![]),
            ("the same edit", f("b"), f("c"), f("c"), vec![], f("c"), vec![]),
        ];
        for (what, agreed, local, remote, own, expected, conflicts) in cases {
            let found = outcome(Some(agreed), Some(local), Some(remote), &own);
            assert_eq!(found, (Some(expected), conflicts), "{what}");
        }
    }

    #[test]
    fn fields_inside_of_fields_are_decided_one_by_one() {
        let local = doc! {"_id": "A", "v": {"own": "b", "same": 1, "theirs": "b", "here": 1}};
        let remote = doc! {"_id": "A", "v": {"own": "a", "same": 1, "theirs": "a", "there": 1}};
        let own = [OwnWrite::Updated(vec![change(&["v", "own"], Some("a".into()), Some("b".into()))])];
        let (document, conflicts) = outcome(Some(local.clone()), Some(local), Some(remote), &own);
        let expected = doc! {"own": "b", "same": 1, "theirs": "a", "there": 1, "here": 1};
        assert_eq!(document.unwrap().get_document("v").unwrap(), &expected);
        assert_eq!(conflicts, [Some(Bson::from("b"))]);

        // The whole of it was written at once, where something else had been.
        let local = doc! {"_id": "A", "v": {"x": 1}};
        let own = [OwnWrite::Updated(vec![change(&["v"], Some("a".into()), Some(bson!({"x": 1})))])];
        let found =
            outcome(Some(local.clone()), Some(local.clone()), Some(doc! {"_id": "A", "v": "a"}), &own);
        assert_eq!(found, (Some(local.clone()), vec![]));
        let found = outcome(Some(local.clone()), Some(local), Some(doc! {"_id": "A", "v": {"x": 2}}), &own);
        assert_eq!(found, (Some(doc! {"_id": "A", "v": {"x": 2}}), vec![Some(Bson::from(1))]));

        // Keys that no path can lead to make their parent one value.
        let local = doc! {"_id": "A", "v": {"a.b": 2}};
        let own = [OwnWrite::Updated(vec![change(&["v"], Some(bson!({"a.b": 1})), Some(bson!({"a.b": 2})))])];
        let remote = doc! {"_id": "A", "v": {"a.b": 1}};
        assert_eq!(
            outcome(Some(local.clone()), Some(local.clone()), Some(remote), &own),
            (Some(local), vec![])
        );
    }

    #[test]
    fn records_that_one_side_does_not_have() {
        // Only here: inserted again, whoever made it, with the edits of the meantime.
        for own in [vec![], vec![OwnWrite::Inserted], vec![OwnWrite::Replaced]] {
            assert_eq!(outcome(Some(f("a")), Some(f("b")), None, &own), (Some(f("b")), vec![]));
        }
        // Only there: taken, unless it was deleted here as it is there.
        assert_eq!(outcome(None, None, Some(f("a")), &[]), (Some(f("a")), vec![]));
        let deleted = |body: &str| OwnWrite::Deleted(Some(f(body)));
        assert_eq!(outcome(None, None, Some(f("a")), &[deleted("a")]), (None, vec![]));
        assert_eq!(outcome(None, None, Some(f("a")), &[set_f("a", "b"), deleted("b")]), (None, vec![]));
        assert_eq!(outcome(None, None, Some(f("x")), &[deleted("a")]), (Some(f("x")), vec![]));
        assert_eq!(outcome(None, None, Some(f("a")), &[OwnWrite::Deleted(None)]), (Some(f("a")), vec![]));
        // The delete is still to be sent.
        assert_eq!(outcome(Some(f("a")), None, Some(f("a")), &[]), (None, vec![]));
        assert_eq!(outcome(Some(f("b")), None, Some(f("a")), &[set_f("a", "b")]), (None, vec![]));
        assert_eq!(outcome(Some(f("b")), None, Some(f("a")), &[]), (Some(f("a")), vec![None]));
        assert_eq!(outcome(None, None, None, &[deleted("a")]), (None, vec![]));
    }

    #[test]
    fn a_record_made_here_and_again_by_somebody_else_is_one() {
        let own = [OwnWrite::Inserted, set_f("a", "b")];
        let theirs = doc! {"_id": "A", "f": "x", "h": 1};
        let found = outcome(Some(f("b")), Some(f("b")), Some(theirs), &own);
        let union = doc! {"_id": "A", "f": "x", "h": 1, "g": 1};
        assert_eq!(found, (Some(union), vec![Some(Bson::from("b"))]));
        // People with the same account are not always one person.
        let person = |name: &str| doc! {"_id": "A", "name": name};
        let base = |theirs: &str| {
            let (ours, theirs) = (person("Ana"), person(theirs));
            rebuilt_base(Kind::Person, Some(&ours), Some(&ours), Some(&theirs), &own)
        };
        assert_eq!(base("Beatriz"), None);
        assert!(base("ÁNA").is_some());
        // Where it was not made here, it is the same person with another name.
        let (ours, theirs) = (person("Ana"), person("Beatriz"));
        assert!(rebuilt_base(Kind::Person, Some(&ours), Some(&ours), Some(&theirs), &[]).is_some());
    }

    #[test]
    fn what_was_replaced_as_a_whole_is_not_taken_for_known() {
        let own = [set_f("a", "b"), OwnWrite::Replaced, set_f("c", "d")];
        assert_eq!(outcome(Some(f("d")), Some(f("d")), Some(f("c")), &own), (Some(f("d")), vec![]));
        let (document, conflicts) = outcome(Some(f("d")), Some(f("d")), Some(f("a")), &own);
        assert_eq!((document, conflicts), (Some(f("a")), vec![Some(Bson::from("d"))]));
    }
}
