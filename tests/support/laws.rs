//! Laws of comparing, diffing and merging that hold for any documents: each a function that panics where one
//! is broken. `tests/merge_laws.rs` feeds them with documents that it makes up, the fuzz target `central` with
//! whatever is BSON.

#![allow(clippy::unwrap_used)]

use bson::{Bson, Document};
use thalamus_edge::domain::diff::{self, Change, Diff, Path, is_addressable, is_identity};
use thalamus_edge::domain::merge::{Clash, Merged, REUSED_FIELDS_MIN, Side, identity_differences, merge};
use thalamus_edge::domain::overwritten::overwritten;
use thalamus_edge::domain::rebuild::rebuilt_base;
use thalamus_edge::domain::record::Kind;
use thalamus_edge::domain::same_meaning::{same_edit, same_meaning};
use thalamus_edge::domain::schema::Schema;
use thalamus_edge::domain::value::{identical, same_document, same_option};

/// Every path of `document` through sub-documents, parents before children.
pub(crate) fn places(document: &Document) -> Vec<Path> {
    let mut found = Vec::new();
    for (key, value) in document {
        found.push(vec![key.clone()]);
        if let Bson::Document(inner) = value {
            found.extend(places(inner).into_iter().map(|below| {
                let mut path = vec![key.clone()];
                path.extend(below);
                path
            }));
        }
    }
    found
}

/// The same fields in reverse order, also in sub-documents outside arrays.
pub(crate) fn reverse(document: &Document) -> Document {
    let mut fields: Vec<(String, Bson)> = document.clone().into_iter().collect();
    for (_, value) in &mut fields {
        if let Bson::Document(inner) = value {
            *inner = reverse(inner);
        }
    }
    fields.into_iter().rev().collect()
}

/// The record and the clashes that a merge of three versions leaves.
pub(crate) fn merge_all(
    schema: &Schema,
    base: &Document,
    local: &Document,
    remote: &Document,
) -> (Document, Vec<Clash>) {
    let Merged { document, clashes } = merge(schema, Some(base), Some(local), Some(remote));
    (document.expect("a record that both sides hold stays"), clashes)
}

/// A document without the fields that identify it: those are the centre's and never merged.
fn described(document: &Document) -> Document {
    document.clone().into_iter().filter(|(key, _)| !is_identity(key)).collect()
}

fn same_bytes(a: &Document, b: &Document) -> bool {
    identical(&Bson::Document(a.clone()), &Bson::Document(b.clone()))
}

/// The leaves that `to` holds and `from` does not, and what `from` holds and `to` removed; found without
/// the diff under test. Descends through every sub-document, addressable or not.
fn leaf_changes(from: &Document, to: &Document) -> Vec<(Path, Option<Bson>)> {
    let (mut found, nothing) = (Vec::new(), Document::new());
    let added = to.keys().filter(|key| !from.contains_key(key.as_str()));
    for key in from.keys().chain(added) {
        match (from.get(key), to.get(key)) {
            (old, new) if same_option(old, new) => {}
            (old, Some(Bson::Document(new))) if !new.is_empty() => {
                let old = old.and_then(Bson::as_document).unwrap_or(&nothing);
                for (below, value) in leaf_changes(old, new) {
                    let mut path = vec![key.clone()];
                    path.extend(below);
                    found.push((path, value));
                }
            }
            (_, new) => found.push((vec![key.clone()], new.cloned())),
        }
    }
    found
}

/// What the documents hold at `path`, also below keys that cannot be addressed.
fn held<'a>(value: Option<&'a Bson>, path: &[String]) -> Option<&'a Bson> {
    path.iter().try_fold(value?, |at, key| at.as_document()?.get(key))
}

/// Whether `value` holds `wanted` at `path`; an emptied sub-document may have been filled by the other side.
fn keeps(value: Option<&Bson>, path: &[String], wanted: Option<&Bson>) -> bool {
    let emptied = matches!(wanted, Some(Bson::Document(d)) if d.is_empty());
    match held(value, path) {
        Some(Bson::Document(_)) if emptied => true,
        found => same_option(found, wanted),
    }
}

/// Whether nothing stands there on either side but who wrote last: no conflict, and the centre's stands.
fn is_ruled(schema: &Schema, path: &[String], local: &Document, remote: &Document) -> bool {
    let is_stamp = |document: &Document| match document.get(&path[0]) {
        None | Some(Bson::Null) => true,
        Some(Bson::Document(stamp)) => {
            stamp.keys().all(|key| ["user", "node", "timestamp"].contains(&key.as_str()))
        }
        Some(_) => false,
    };
    schema.last_writer_fields.contains(&path[0].as_str()) && is_stamp(local) && is_stamp(remote)
}

fn is_set(schema: &Schema, path: &[String]) -> bool {
    path.len() == 1 && schema.set_fields.contains(&path[0].as_str())
}

pub(crate) fn members(value: Option<&Bson>) -> Option<&Vec<Bson>> {
    value.and_then(Bson::as_array)
}

pub(crate) fn is_member(set: Option<&Vec<Bson>>, value: &Bson) -> bool {
    set.is_some_and(|set| set.iter().any(|other| identical(other, value)))
}

/// Whether two sets have the same members; one that is missing has none.
fn holds_the_same(a: Option<&Bson>, b: Option<&Bson>) -> bool {
    let (none, is_odd) = (Vec::new(), |set: Option<&Bson>| set.is_some_and(|set| set.as_array().is_none()));
    if is_odd(a) || is_odd(b) {
        return same_option(a, b);
    }
    let (a, b) = (members(a).unwrap_or(&none), members(b).unwrap_or(&none));
    a.iter().chain(b).all(|member| is_member(Some(a), member) && is_member(Some(b), member))
}

pub(crate) fn sameness_is_an_equivalence(a: &Document, b: &Document, c: &Document) {
    assert!(same_document(a, a));
    assert!(same_document(a, &reverse(a)));
    assert!(same_bytes(a, &a.clone()));
    for (x, y) in [(a, b), (a, c)] {
        assert_eq!(same_document(x, y), same_document(y, x));
        assert_eq!(same_bytes(x, y), same_bytes(y, x));
        assert!(!same_bytes(x, y) || same_document(x, y));
    }
    assert!(!same_document(a, b) || same_document(b, &reverse(a)));
}

pub(crate) fn a_document_does_not_differ_from_itself(a: &Document) {
    assert_eq!(diff::diff(a, a), Diff::Same);
    assert_eq!(diff::diff(a, &reverse(a)), Diff::Same);
}

pub(crate) fn applying_a_difference_leads_there(a: &Document, b: &Document) {
    let difference = diff::diff(a, b);
    let mut carried = a.clone();
    diff::apply(&difference, &mut carried, b);
    assert!(same_document(&described(&carried), &described(b)), "{difference:?} {carried:?}");
    assert_eq!(difference == Diff::Same, same_document(&described(a), &described(b)));
    if difference != Diff::Whole {
        for key in ["_id", "id"] {
            assert!(same_option(carried.get(key), a.get(key)));
        }
    }
}

pub(crate) fn changes_are_disjoint_addressable_and_true(a: &Document, b: &Document) {
    match diff::diff(a, b) {
        Diff::Same => {}
        Diff::Whole => {
            let odd = |key: &&String| !is_addressable(key) && !same_option(a.get(key), b.get(key));
            assert!(a.keys().chain(b.keys()).any(|key| odd(&key)));
        }
        Diff::Fields(changes) => {
            for Change { path, from, to } in &changes {
                assert!(path.iter().all(|key| is_addressable(key)), "{path:?}");
                assert!(!is_identity(&path[0]));
                assert!(!same_option(from.as_ref(), to.as_ref()));
                assert!(diff::holds(a, path, from.as_ref()));
                assert!(diff::holds(b, path, to.as_ref()));
                let same_start = |other: &&Change| other.path.starts_with(path);
                assert_eq!(changes.iter().filter(same_start).count(), 1, "{path:?}");
            }
        }
    }
}

pub(crate) fn what_only_one_side_changed_stands(schema: &Schema, base: &Document, edited: &Document) {
    let (merged, clashes) = merge_all(schema, base, edited, base);
    assert!(clashes.is_empty(), "{clashes:?}");
    assert!(same_document(&described(&merged), &described(edited)), "{merged:?}");

    for unedited in [base.clone(), reverse(base)] {
        let (merged, clashes) = merge_all(schema, base, &unedited, edited);
        assert!(clashes.is_empty(), "{clashes:?}");
        assert!(same_bytes(&merged, edited), "{merged:?}");
    }
}

pub(crate) fn what_both_sides_changed_alike_is_agreed(schema: &Schema, base: &Document, edited: &Document) {
    for remote in [edited.clone(), reverse(edited)] {
        let (merged, clashes) = merge_all(schema, base, edited, &remote);
        assert!(clashes.is_empty(), "{clashes:?}");
        assert!(same_bytes(&merged, &remote), "{merged:?}");
    }
    let created = merge(schema, None, Some(edited), Some(edited));
    assert!(created.clashes.is_empty(), "{:?}", created.clashes);
}

pub(crate) fn a_second_merge_finds_nothing_new(
    schema: &Schema,
    base: &Document,
    local: &Document,
    remote: &Document,
) {
    let (merged, _) = merge_all(schema, base, local, remote);
    let (again, clashes) = merge_all(schema, remote, &merged, remote);
    assert!(clashes.is_empty(), "{clashes:?}");
    assert!(same_bytes(&again, &merged), "{merged:?} {again:?}");
}

pub(crate) fn what_is_pushed_is_a_true_difference(
    schema: &Schema,
    base: &Document,
    local: &Document,
    remote: &Document,
) {
    let (merged, _) = merge_all(schema, base, local, remote);
    let difference = diff::diff(remote, &merged);
    let mut centre = remote.clone();
    diff::apply(&difference, &mut centre, &merged);
    assert!(same_document(&centre, &merged), "{difference:?}");
    for key in ["_id", "id"] {
        assert!(same_option(merged.get(key), remote.get(key)));
    }
}

/// Promise 1 of the reconciliation: every value that this node changed is in the merged record, or in
/// a clash, or gave way to a rule. The same for what the centre changed.
pub(crate) fn no_edit_is_lost(schema: &Schema, base: &Document, local: &Document, remote: &Document) {
    let (merged, clashes) = merge_all(schema, base, local, remote);
    let merged = Bson::Document(merged);
    let (here, there) = (Bson::Document(local.clone()), Bson::Document(remote.clone()));
    for (edited, other, from) in [(&here, &there, local), (&there, &here, remote)] {
        for (path, value) in leaf_changes(base, from) {
            if is_identity(&path[0]) || is_ruled(schema, &path, local, remote) {
                continue;
            }
            let clash = clashes.iter().find(|c| path.starts_with(&c.path));
            match clash {
                Some(clash) => {
                    let kept = if std::ptr::eq(edited, &here) { &clash.local } else { &clash.remote };
                    assert!(same_option(kept.as_ref(), held(Some(edited), &clash.path)));
                }
                None if is_set(schema, &path)
                    && members(held(Some(edited), &path)).is_some()
                    && members(held(Some(other), &path)).is_some() => {}
                None => assert!(keeps(Some(&merged), &path, value.as_ref()), "{path:?}: {merged:?}"),
            }
        }
    }
}

/// At a centre that was set back, a node that knows of no write of its own gives up no value that the centre has
/// not: it is in the record or in a clash, or means the same as what is there.
pub(crate) fn a_restored_centre_takes_nothing(
    schema: &Schema,
    agreed: &Document,
    local: &Document,
    remote: &Document,
) {
    let base = rebuilt_base(schema.kind, Some(agreed), Some(local), Some(remote), &[]);
    let Some(base) = base else {
        // Perhaps two people: they are held, and nothing of either is merged.
        assert!(schema.kind == Kind::Person && identity_differences(local, remote) >= REUSED_FIELDS_MIN);
        return;
    };
    let (merged, clashes) = merge_all(schema, &base, local, remote);
    let merged = Bson::Document(merged);
    for (path, value) in leaf_changes(remote, local) {
        let is_decided = clashes.iter().any(|clash| path.starts_with(&clash.path));
        if value.is_none()
            || is_decided
            || is_identity(&path[0])
            || is_ruled(schema, &path, local, remote)
            || is_set(schema, &path)
        {
            continue;
        }
        // A value that means the same may stand higher up, in an object or an array.
        let is_meant = (1..=path.len()).any(|depth| {
            let above = &path[..depth];
            let (here, stands) = (diff::get(local, above), held(Some(&merged), above));
            matches!((here, stands), (Some(here), Some(stands)) if same_edit(schema, above, here, stands))
        });
        assert!(is_meant || keeps(Some(&merged), &path, value.as_ref()), "{path:?}: {merged:?}");
    }
}

pub(crate) fn nothing_comes_from_nowhere(
    schema: &Schema,
    base: &Document,
    local: &Document,
    remote: &Document,
) {
    let (merged, clashes) = merge_all(schema, base, local, remote);
    let (here, there) = (Bson::Document(local.clone()), Bson::Document(remote.clone()));
    for path in places(&merged) {
        let value = diff::get(&merged, &path);
        if matches!(value, Some(Bson::Document(_)))
            && !matches!(value, Some(Bson::Document(d)) if d.is_empty())
        {
            continue;
        }
        let (own, theirs) = (held(Some(&here), &path), held(Some(&there), &path));
        if same_option(value, own) || same_option(value, theirs) {
            continue;
        }
        if let (true, Some(found)) = (is_set(schema, &path), members(value)) {
            for member in found {
                assert!(is_member(members(own), member) || is_member(members(theirs), member));
            }
            continue;
        }
        // Both sides emptied a sub-document, each of other fields.
        let emptied = matches!((own, theirs), (Some(Bson::Document(_)), Some(Bson::Document(_))));
        assert!(emptied, "{value:?} at {path:?}");
    }
    for clash in &clashes {
        assert!(same_option(clash.base.as_ref(), held(Some(&Bson::Document(base.clone())), &clash.path)));
        assert!(same_option(clash.local.as_ref(), held(Some(&here), &clash.path)));
        assert!(same_option(clash.remote.as_ref(), held(Some(&there), &clash.path)));
    }
}

/// A clash is raised exactly where both sides changed a path, and its winner is in the record.
pub(crate) fn clashes_are_real_and_their_winner_stands(
    schema: &Schema,
    base: &Document,
    local: &Document,
    remote: &Document,
) {
    let (merged, clashes) = merge_all(schema, base, local, remote);
    assert!(clashes.iter().all(|clash| !is_ruled(schema, &clash.path, local, remote)));
    for Clash { path, base, local, remote, stands } in &clashes {
        assert!(!is_identity(&path[0]));
        assert!(path.len() == 1 || path.iter().all(|key| is_addressable(key)), "{path:?}");
        assert!(!same_option(base.as_ref(), local.as_ref()));
        assert!(!same_option(base.as_ref(), remote.as_ref()));
        assert!(!same_option(local.as_ref(), remote.as_ref()));
        let document = |v: &Option<Bson>| matches!(v, Some(Bson::Document(_)));
        let removed_there = remote.is_none() && document(base) && document(local);
        assert_eq!(*stands == Side::Local, removed_there);
        let winner = if *stands == Side::Local { local } else { remote };
        assert!(same_option(diff::get(&merged, path), winner.as_ref()));
        assert_eq!(clashes.iter().filter(|c| c.path.starts_with(path)).count(), 1);
    }
}

pub(crate) fn an_edit_beats_a_delete(schema: &Schema, base: &Document, edited: &Document) {
    let unchanged = same_document(base, edited);
    let kept = merge(schema, Some(base), Some(edited), None);
    let restored = merge(schema, Some(base), None, Some(edited));
    if unchanged {
        assert!(kept.document.is_none() && kept.clashes.is_empty());
        assert!(restored.document.is_none() && restored.clashes.is_empty());
    } else {
        let whole = |d: &Document| Some(Bson::Document(d.clone()));
        assert!(same_bytes(kept.document.as_ref().unwrap(), edited));
        assert_eq!(kept.clashes.len(), 1);
        assert!(kept.clashes[0].path.is_empty() && kept.clashes[0].stands == Side::Local);
        assert!(same_option(kept.clashes[0].local.as_ref(), whole(edited).as_ref()));
        assert!(kept.clashes[0].remote.is_none(), "what lost is the delete");
        assert!(same_bytes(restored.document.as_ref().unwrap(), edited));
        assert_eq!(restored.clashes.len(), 1);
        assert!(restored.clashes[0].path.is_empty() && restored.clashes[0].stands == Side::Remote);
        assert!(restored.clashes[0].local.is_none(), "what lost is the delete");
        assert!(same_option(restored.clashes[0].remote.as_ref(), whole(edited).as_ref()));
    }
}

/// Versions that were never agreed on: a conflict shows what each side has at its path, none is over what both have, and
/// to take the local value of each loses nothing.
pub(crate) fn conflicts_without_a_base_show_what_both_have(
    schema: &Schema,
    local: &Document,
    remote: &Document,
) {
    let united = merge(schema, None, Some(local), Some(remote));
    let (here, there) = (Bson::Document(local.clone()), Bson::Document(remote.clone()));
    let mut taken = united.document.unwrap();
    for clash in &united.clashes {
        assert!(same_option(clash.local.as_ref(), held(Some(&here), &clash.path)), "{clash:?}");
        assert!(same_option(clash.remote.as_ref(), held(Some(&there), &clash.path)), "{clash:?}");
        assert!(!same_option(clash.local.as_ref(), clash.remote.as_ref()), "{clash:?}");
        diff::set(&mut taken, &clash.path, clash.local.clone());
    }
    for clash in &united.clashes {
        assert!(same_option(diff::get(&taken, &clash.path), clash.local.as_ref()), "{clash:?}");
    }
    let taken = Bson::Document(taken);
    for (version, is_local) in [(local, true), (remote, false)] {
        for (path, value) in leaf_changes(&Document::new(), version) {
            let is_decided = united.clashes.iter().any(|clash| path.starts_with(&clash.path));
            let is_same_set =
                is_set(schema, &path) && holds_the_same(local.get(&path[0]), remote.get(&path[0]));
            if (is_decided && !is_local)
                || is_identity(&path[0])
                || is_ruled(schema, &path, local, remote)
                || is_same_set
            {
                continue;
            }
            let is_meant = (1..=path.len()).any(|depth| {
                let above = &path[..depth];
                match (held(Some(&here), above), held(Some(&there), above)) {
                    (Some(here), Some(there)) => same_meaning(schema, above, here, there),
                    _ => false,
                }
            });
            assert!(is_meant || keeps(Some(&taken), &path, value.as_ref()), "{path:?}: {taken:?}");
        }
    }
}

/// Edits of an old image that were delivered: a conflict shows what each side has at its path, and what the image holds of them
/// is in the record, in a conflict, or means what stands there.
pub(crate) fn delivered_edits_are_kept_or_asked_about(
    schema: &Schema,
    (base, delivered): (Option<&Document>, &Document),
    local: &Document,
    remote: &Document,
) {
    let clashes = overwritten(schema, base, Some(delivered), Some(local), Some(remote));
    let (merged, new) = merge_all(schema, delivered, local, remote);
    let (here, merged) = (Bson::Document(local.clone()), Bson::Document(merged));
    let there = Bson::Document(remote.clone());
    for clash in &clashes {
        assert!(same_option(clash.local.as_ref(), held(Some(&here), &clash.path)), "{clash:?}");
        assert!(same_option(clash.remote.as_ref(), held(Some(&there), &clash.path)), "{clash:?}");
        assert!(!same_option(clash.local.as_ref(), clash.remote.as_ref()), "{clash:?}");
        assert!(new.iter().all(|other| !other.path.starts_with(&clash.path)), "{clash:?} {new:?}");
    }
    let nothing = Document::new();
    for (path, value) in leaf_changes(base.unwrap_or(&nothing), delivered) {
        let is_decided = clashes.iter().chain(&new).any(|clash| path.starts_with(&clash.path));
        let is_held = same_option(held(Some(&here), &path), value.as_ref());
        if is_decided
            || !is_held
            || is_identity(&path[0])
            || is_ruled(schema, &path, delivered, remote)
            || is_set(schema, &path)
        {
            continue;
        }
        let is_meant = (1..=path.len()).any(|depth| {
            let above = &path[..depth];
            let (here, stands) = (diff::get(local, above), held(Some(&merged), above));
            matches!((here, stands), (Some(here), Some(stands)) if same_edit(schema, above, here, stands))
        });
        assert!(is_meant || keeps(Some(&merged), &path, value.as_ref()), "{path:?}: {merged:?}");
    }
}

pub(crate) fn records_made_on_both_sides_unite(schema: &Schema, local: &Document, remote: &Document) {
    let united = merge(schema, None, Some(local), Some(remote));
    let document = united.document.unwrap();
    let described = |d: &Document| described(d).keys().cloned().collect::<Vec<_>>();
    for key in described(local).iter().chain(&described(remote)) {
        match is_set(schema, std::slice::from_ref(key)) {
            // Nobody is given a role by it: the centre's stand, and what is more or less than these is a clash.
            true => {
                let (here, there) = (local.get(key), remote.get(key));
                assert!(same_option(document.get(key), there), "{key}");
                let clash = united.clashes.iter().find(|clash| clash.path == [key.as_str()]);
                assert_eq!(clash.is_none(), holds_the_same(here, there), "{key}");
                assert!(clash.is_none_or(|clash| same_option(clash.local.as_ref(), here)), "{key}");
            }
            false => assert!(document.contains_key(key), "{key}"),
        }
    }
}
