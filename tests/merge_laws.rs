//! Laws of comparing, diffing and merging that hold for any documents.
//!
//! The generators draw from few keys and few values, so that base, local and remote collide all the time,
//! and among them are the hostile ones: keys that MongoDB cannot address, values that differ only in type
//! or bits, documents that differ only in key order.

#![allow(clippy::unwrap_used)]

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{
    Binary, Bson, DateTime, Decimal128, Document, JavaScriptCodeWithScope, Regex, Timestamp, bson, doc,
};
use proptest::prelude::*;
use thalamus_edge::domain::diff::{self, Change, Diff, Path, is_addressable, is_identity};
use thalamus_edge::domain::merge::{Clash, Merged, Side, merge};
use thalamus_edge::domain::record::Kind;
use thalamus_edge::domain::schema::Schema;
use thalamus_edge::domain::value::{identical, same, same_document, same_option};

const CASES: u32 = 1024;

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: CASES,
        // A failure prints its smallest documents; they belong into merge_cases.rs as a row.
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

// ------------------------------------------------------------------------------------------- generators

/// One of every BSON type, and the pairs that a careless comparison takes for the same.
fn leaves() -> Vec<Bson> {
    let regex = |options: &str| {
        Bson::RegularExpression(Regex {
            pattern: "^a".try_into().unwrap(),
            options: options.try_into().unwrap(),
        })
    };
    let scope = |scope: Document| {
        Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope { code: "f()".into(), scope })
    };
    let decimal = |text: &str| Bson::Decimal128(text.parse::<Decimal128>().unwrap());
    vec![
        Bson::Null,
        Bson::Undefined,
        Bson::Boolean(false),
        Bson::Boolean(true),
        Bson::Int32(1),
        Bson::Int64(1),
        Bson::Double(1.0),
        Bson::Int32(0),
        Bson::Double(0.0),
        Bson::Double(-0.0),
        Bson::Double(f64::NAN),
        Bson::Double(f64::NEG_INFINITY),
        Bson::Int64(i64::MIN),
        decimal("1"),
        decimal("1.0"),
        decimal("NaN"),
        "".into(),
        "1".into(),
        "é\u{200b}".into(),
        Bson::Symbol("1".into()),
        Bson::JavaScriptCode("1".into()),
        scope(doc! {"a": 1, "b": f64::NAN}),
        scope(doc! {"b": f64::NAN, "a": 1}),
        Bson::DateTime(DateTime::from_millis(0)),
        Bson::DateTime(DateTime::from_millis(-1)),
        Bson::DateTime(DateTime::MAX),
        Bson::Timestamp(Timestamp { time: 1, increment: 2 }),
        Bson::ObjectId(ObjectId::from_bytes([1; 12])),
        Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: vec![1, 2] }),
        Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: vec![1, 2] }),
        regex(""),
        regex("i"),
        Bson::MinKey,
        Bson::MaxKey,
        bson!([]),
        bson!([1, 2]),
        bson!([2, 1]),
        bson!([1, 2, 2]),
        bson!([{"a": 1, "b": 2}]),
        bson!([{"b": 2, "a": 1}]),
        bson!({}),
    ]
}

fn leaf() -> impl Strategy<Value = Bson> {
    prop_oneof![
        // Few plain values make most of the collisions.
        3 => prop::sample::select(vec![Bson::Int32(1), Bson::Int32(2), Bson::Int32(3), Bson::Null]),
        2 => prop::sample::select(leaves()),
    ]
}

/// Mostly the same few keys; the last ones cannot be addressed, or have rules of their own.
fn key() -> impl Strategy<Value = String> {
    let some = |keys: &[&str]| prop::sample::select(keys.iter().map(ToString::to_string).collect::<Vec<_>>());
    prop_oneof![
        8 => some(&["a", "b", "s", "t"]),
        1 => some(&["a.b", "$set", "", "0", "12", ".", "a$", "1a", "ключ", "\u{200b}", "a b"]),
        1 => some(&["roles", "modification_info", "id", "_id", "password"]),
    ]
}

fn roles() -> impl Strategy<Value = Bson> {
    let role =
        prop::sample::select(vec![bson!("x"), bson!("y"), bson!("z"), bson!("w"), bson!(1), bson!(1.0)]);
    prop_oneof![
        6 => prop::collection::vec(role, 0..5).prop_map(Bson::Array),
        1 => leaf(),
    ]
}

fn value() -> impl Strategy<Value = Bson> {
    leaf().prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            4 => fields(inner.clone()).prop_map(Bson::Document),
            1 => prop::collection::vec(inner, 0..3).prop_map(Bson::Array),
        ]
    })
}

fn fields(value: impl Strategy<Value = Bson>) -> impl Strategy<Value = Document> {
    prop::collection::vec((key(), value), 0..5).prop_map(|fields| fields.into_iter().collect())
}

fn document() -> impl Strategy<Value = Document> {
    (fields(value()), prop::option::of(roles())).prop_map(|(mut document, roles)| {
        if let Some(roles) = roles {
            document.insert("roles", roles);
        }
        document
    })
}

/// One step of editing; places are chosen modulo what is there.
#[derive(Debug, Clone)]
enum Edit {
    /// Puts a value at a place that exists.
    Change(usize, Bson),
    Remove(usize),
    /// Adds a field to the document at a place.
    Add(usize, String, Bson),
    /// Reverses the key order of the document at a place.
    Reverse(usize),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        4 => (0_usize..20, value()).prop_map(|(at, v)| Edit::Change(at, v)),
        2 => (0_usize..20).prop_map(Edit::Remove),
        3 => (0_usize..20, key(), value()).prop_map(|(at, k, v)| Edit::Add(at, k, v)),
        1 => (0_usize..20).prop_map(Edit::Reverse),
        2 => roles().prop_map(|v| Edit::Add(0, "roles".to_owned(), v)),
    ];
    prop::collection::vec(edit, 0..5)
}

/// Every path of `document` through sub-documents, parents before children.
fn places(document: &Document) -> Vec<Path> {
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

/// The document at `path`, the whole one for the empty path.
fn inner_mut<'a>(document: &'a mut Document, path: &[String]) -> Option<&'a mut Document> {
    path.iter().try_fold(document, |at, key| match at.get_mut(key) {
        Some(Bson::Document(inner)) => Some(inner),
        _ => None,
    })
}

/// The same fields in reverse order, also in sub-documents outside arrays.
fn reverse(document: &Document) -> Document {
    let mut fields: Vec<(String, Bson)> = document.clone().into_iter().collect();
    for (_, value) in &mut fields {
        if let Bson::Document(inner) = value {
            *inner = reverse(inner);
        }
    }
    fields.into_iter().rev().collect()
}

fn edited(document: &Document, edits: &[Edit]) -> Document {
    let mut document = document.clone();
    for edit in edits {
        let mut all = places(&document);
        all.insert(0, Path::new());
        let documents: Vec<Path> =
            all.iter().filter(|p| inner_mut(&mut document, p).is_some()).cloned().collect();
        match edit {
            Edit::Change(at, value) if all.len() > 1 => {
                let path = &all[1 + at % (all.len() - 1)];
                diff::set(&mut document, path, Some(value.clone()));
            }
            Edit::Remove(at) if all.len() > 1 => {
                diff::set(&mut document, &all[1 + at % (all.len() - 1)], None);
            }
            Edit::Change(..) | Edit::Remove(_) => {}
            Edit::Add(at, key, value) => {
                let inner = inner_mut(&mut document, &documents[at % documents.len()]).unwrap();
                inner.insert(key, value.clone());
            }
            Edit::Reverse(at) => {
                let inner = inner_mut(&mut document, &documents[at % documents.len()]).unwrap();
                *inner = reverse(inner);
            }
        }
    }
    document
}

/// A document and a version of it a few edits later.
fn pair() -> impl Strategy<Value = (Document, Document)> {
    (document(), edits()).prop_map(|(a, edits)| (a.clone(), edited(&a, &edits)))
}

/// Base, local and remote: some edits are made on both sides.
fn triple() -> impl Strategy<Value = (Document, Document, Document)> {
    (document(), edits(), edits(), edits()).prop_map(|(base, both, ours, theirs)| {
        let common = edited(&base, &both);
        let (local, remote) = (edited(&common, &ours), edited(&common, &theirs));
        (base, local, remote)
    })
}

fn schema() -> impl Strategy<Value = &'static Schema> {
    prop_oneof![3 => Just(Kind::Person), 1 => Just(Kind::Page)].prop_map(Kind::schema)
}

// ----------------------------------------------------------------------------------------------- helpers

fn merge_all(
    schema: &Schema,
    base: &Document,
    local: &Document,
    remote: &Document,
) -> (Document, Vec<Clash>) {
    let Merged { document, clashes } = merge(schema, Some(base), Some(local), Some(remote), None);
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

fn is_ruled(schema: &Schema, path: &[String]) -> bool {
    schema.last_writer_fields.contains(&path[0].as_str())
}

fn is_set(schema: &Schema, path: &[String]) -> bool {
    path.len() == 1 && schema.set_fields.contains(&path[0].as_str())
}

fn members(value: Option<&Bson>) -> Option<&Vec<Bson>> {
    value.and_then(Bson::as_array)
}

fn is_member(set: Option<&Vec<Bson>>, value: &Bson) -> bool {
    set.is_some_and(|set| set.iter().any(|other| identical(other, value)))
}

// ------------------------------------------------------------------------------------------------- laws

proptest! {
    #![proptest_config(config())]

    #[test]
    fn sameness_is_an_equivalence((a, b) in pair(), c in document()) {
        prop_assert!(same_document(&a, &a));
        prop_assert!(same_document(&a, &reverse(&a)));
        prop_assert!(same_bytes(&a, &a.clone()));
        for (x, y) in [(&a, &b), (&a, &c)] {
            prop_assert_eq!(same_document(x, y), same_document(y, x));
            prop_assert_eq!(same_bytes(x, y), same_bytes(y, x));
            prop_assert!(!same_bytes(x, y) || same_document(x, y));
        }
        prop_assert!(!same_document(&a, &b) || same_document(&b, &reverse(&a)));
    }

    #[test]
    fn every_hostile_value_is_itself_and_no_other(x in 0..leaves().len(), y in 0..leaves().len()) {
        let all = leaves();
        prop_assert_eq!(same(&all[x], &all[y]), x == y, "{:?} {:?}", all[x], all[y]);
        prop_assert_eq!(identical(&all[x], &all[y]), x == y, "{:?} {:?}", all[x], all[y]);
    }

    #[test]
    fn a_document_does_not_differ_from_itself(a in document()) {
        prop_assert_eq!(diff::diff(&a, &a), Diff::Same);
        prop_assert_eq!(diff::diff(&a, &reverse(&a)), Diff::Same);
    }

    #[test]
    fn applying_a_difference_leads_there((a, b) in pair()) {
        let difference = diff::diff(&a, &b);
        let mut carried = a.clone();
        diff::apply(&difference, &mut carried, &b);
        prop_assert!(same_document(&described(&carried), &described(&b)), "{:?} {:?}", difference, carried);
        prop_assert_eq!(difference == Diff::Same, same_document(&described(&a), &described(&b)));
        if difference != Diff::Whole {
            for key in ["_id", "id"] {
                prop_assert!(same_option(carried.get(key), a.get(key)));
            }
        }
    }

    #[test]
    fn changes_are_disjoint_addressable_and_true((a, b) in pair()) {
        match diff::diff(&a, &b) {
            Diff::Same => {}
            Diff::Whole => {
                let odd = |key: &&String| !is_addressable(key) && !same_option(a.get(key), b.get(key));
                prop_assert!(a.keys().chain(b.keys()).any(|key| odd(&key)));
            }
            Diff::Fields(changes) => {
                for Change { path, from, to } in &changes {
                    prop_assert!(path.iter().all(|key| is_addressable(key)), "{:?}", path);
                    prop_assert!(!is_identity(&path[0]));
                    prop_assert!(!same_option(from.as_ref(), to.as_ref()));
                    prop_assert!(diff::holds(&a, path, from.as_ref()));
                    prop_assert!(diff::holds(&b, path, to.as_ref()));
                    let same_start = |other: &&Change| other.path.starts_with(path);
                    prop_assert_eq!(changes.iter().filter(same_start).count(), 1, "{:?}", path);
                }
            }
        }
    }

    #[test]
    fn what_only_one_side_changed_stands(schema in schema(), (base, edited) in pair()) {
        let (merged, clashes) = merge_all(schema, &base, &edited, &base);
        prop_assert!(clashes.is_empty(), "{:?}", clashes);
        prop_assert!(same_document(&described(&merged), &described(&edited)), "{:?}", merged);

        for unedited in [base.clone(), reverse(&base)] {
            let (merged, clashes) = merge_all(schema, &base, &unedited, &edited);
            prop_assert!(clashes.is_empty(), "{:?}", clashes);
            prop_assert!(same_bytes(&merged, &edited), "{:?}", merged);
        }
    }

    #[test]
    fn what_both_sides_changed_alike_is_agreed(schema in schema(), (base, edited) in pair()) {
        for remote in [edited.clone(), reverse(&edited)] {
            let (merged, clashes) = merge_all(schema, &base, &edited, &remote);
            prop_assert!(clashes.is_empty(), "{:?}", clashes);
            prop_assert!(same_bytes(&merged, &remote), "{:?}", merged);
        }
        let created = merge(schema, None, Some(&edited), Some(&edited), None);
        prop_assert!(created.clashes.is_empty(), "{:?}", created.clashes);
    }

    #[test]
    fn a_second_merge_finds_nothing_new(schema in schema(), (base, local, remote) in triple()) {
        let (merged, _) = merge_all(schema, &base, &local, &remote);
        let (again, clashes) = merge_all(schema, &remote, &merged, &remote);
        prop_assert!(clashes.is_empty(), "{:?}", clashes);
        prop_assert!(same_bytes(&again, &merged), "{:?} {:?}", merged, again);
    }

    #[test]
    fn what_is_pushed_is_a_true_difference(schema in schema(), (base, local, remote) in triple()) {
        let (merged, _) = merge_all(schema, &base, &local, &remote);
        let difference = diff::diff(&remote, &merged);
        let mut centre = remote.clone();
        diff::apply(&difference, &mut centre, &merged);
        prop_assert!(same_document(&centre, &merged), "{:?}", difference);
        for key in ["_id", "id"] {
            prop_assert!(same_option(merged.get(key), remote.get(key)));
        }
    }

    /// Promise 1 of the reconciliation: every value that this node changed is in the merged record, or in
    /// a clash, or gave way to a rule. The same for what the centre changed.
    #[test]
    fn no_edit_is_lost(schema in schema(), (base, local, remote) in triple()) {
        let (merged, clashes) = merge_all(schema, &base, &local, &remote);
        let merged = Bson::Document(merged);
        let (here, there) = (Bson::Document(local.clone()), Bson::Document(remote.clone()));
        for (edited, other, from) in [(&here, &there, &local), (&there, &here, &remote)] {
            for (path, value) in leaf_changes(&base, from) {
                if is_identity(&path[0]) || is_ruled(schema, &path) {
                    continue;
                }
                let clash = clashes.iter().find(|c| path.starts_with(&c.path));
                match clash {
                    Some(clash) => {
                        let kept = if std::ptr::eq(edited, &here) { &clash.local } else { &clash.remote };
                        prop_assert!(same_option(kept.as_ref(), held(Some(edited), &clash.path)));
                    }
                    None if is_set(schema, &path)
                        && members(held(Some(edited), &path)).is_some()
                        && members(held(Some(other), &path)).is_some() => {}
                    None => prop_assert!(keeps(Some(&merged), &path, value.as_ref()), "{:?}: {:?}", path, merged),
                }
            }
        }
    }

    #[test]
    fn sets_hold_what_the_formula_says(
        base in prop::option::of(roles()), local in roles(), remote in roles(), reversed in any::<bool>()
    ) {
        let person = |roles: Option<&Bson>| roles.map_or_else(Document::new, |r| doc! {"roles": r.clone()});
        // Key order of the surrounding record must not matter.
        let mut record = person(Some(&local));
        record.insert("a", 1);
        let local_record = if reversed { reverse(&record) } else { record };
        let (merged, clashes) = merge_all(
            Kind::Person.schema(), &person(base.as_ref()), &local_record, &person(Some(&remote)),
        );
        let arrays = (members(Some(&local)), members(Some(&remote)));
        let base_set = members(base.as_ref());
        if let ((Some(local), Some(remote)), true) = (arrays, base.is_none() || base_set.is_some()) {
            prop_assert!(clashes.is_empty(), "{:?}", clashes);
            let found = merged.get_array("roles").unwrap();
            for value in local.iter().chain(remote).chain(base_set.into_iter().flatten()) {
                let (was, here, there) =
                    (is_member(base_set, value), is_member(Some(local), value), is_member(Some(remote), value));
                let (added, removed) = (here && !was, was && !here);
                let expected = (there || added) && !removed;
                prop_assert_eq!(is_member(Some(found), value), expected, "{:?} in {:?}", value, found);
            }
        }
    }

    #[test]
    fn nothing_comes_from_nowhere(schema in schema(), (base, local, remote) in triple()) {
        let (merged, clashes) = merge_all(schema, &base, &local, &remote);
        let (here, there) = (Bson::Document(local.clone()), Bson::Document(remote.clone()));
        for path in places(&merged) {
            let value = diff::get(&merged, &path);
            if matches!(value, Some(Bson::Document(_))) && !matches!(value, Some(Bson::Document(d)) if d.is_empty()) {
                continue;
            }
            let (own, theirs) = (held(Some(&here), &path), held(Some(&there), &path));
            if same_option(value, own) || same_option(value, theirs) {
                continue;
            }
            if let (true, Some(found)) = (is_set(schema, &path), members(value)) {
                for member in found {
                    prop_assert!(is_member(members(own), member) || is_member(members(theirs), member));
                }
                continue;
            }
            // Both sides emptied a sub-document, each of other fields.
            let emptied = matches!((own, theirs), (Some(Bson::Document(_)), Some(Bson::Document(_))));
            prop_assert!(emptied, "{:?} at {:?}", value, path);
        }
        for clash in &clashes {
            prop_assert!(same_option(clash.base.as_ref(), held(Some(&Bson::Document(base.clone())), &clash.path)));
            prop_assert!(same_option(clash.local.as_ref(), held(Some(&here), &clash.path)));
            prop_assert!(same_option(clash.remote.as_ref(), held(Some(&there), &clash.path)));
        }
    }

    /// A clash is raised exactly where both sides changed a path, and its winner is in the record.
    #[test]
    fn clashes_are_real_and_their_winner_stands(schema in schema(), (base, local, remote) in triple()) {
        let (merged, clashes) = merge_all(schema, &base, &local, &remote);
        for Clash { path, base, local, remote, stands } in &clashes {
            prop_assert!(!is_ruled(schema, path) && !is_identity(&path[0]));
            prop_assert!(path.len() == 1 || path.iter().all(|key| is_addressable(key)), "{:?}", path);
            prop_assert!(!same_option(base.as_ref(), local.as_ref()));
            prop_assert!(!same_option(base.as_ref(), remote.as_ref()));
            prop_assert!(!same_option(local.as_ref(), remote.as_ref()));
            let document = |v: &Option<Bson>| matches!(v, Some(Bson::Document(_)));
            let removed_there = remote.is_none() && document(base) && document(local);
            prop_assert_eq!(*stands == Side::Local, removed_there);
            let winner = if *stands == Side::Local { local } else { remote };
            prop_assert!(same_option(diff::get(&merged, path), winner.as_ref()));
            prop_assert_eq!(clashes.iter().filter(|c| c.path.starts_with(path)).count(), 1);
        }
    }

    #[test]
    fn an_edit_beats_a_delete(schema in schema(), (base, edited) in pair(), body in document()) {
        let unchanged = same_document(&base, &edited);
        let kept = merge(schema, Some(&base), Some(&edited), None, None);
        let restored = merge(schema, Some(&base), None, Some(&edited), Some(&body));
        if unchanged {
            prop_assert!(kept.document.is_none() && kept.clashes.is_empty());
            prop_assert!(restored.document.is_none() && restored.clashes.is_empty());
        } else {
            let whole = |d: &Document| Some(Bson::Document(d.clone()));
            prop_assert!(same_bytes(kept.document.as_ref().unwrap(), &edited));
            prop_assert_eq!(kept.clashes.len(), 1);
            prop_assert!(kept.clashes[0].path.is_empty() && kept.clashes[0].stands == Side::Local);
            prop_assert!(same_option(kept.clashes[0].local.as_ref(), whole(&edited).as_ref()));
            prop_assert!(same_bytes(restored.document.as_ref().unwrap(), &edited));
            prop_assert_eq!(restored.clashes.len(), 1);
            prop_assert!(restored.clashes[0].path.is_empty() && restored.clashes[0].stands == Side::Remote);
            prop_assert!(same_option(restored.clashes[0].local.as_ref(), whole(&body).as_ref()));
        }
    }

    #[test]
    fn records_made_on_both_sides_unite(schema in schema(), (local, remote) in pair()) {
        let united = merge(schema, None, Some(&local), Some(&remote), None);
        let document = united.document.unwrap();
        let described = |d: &Document| described(d).keys().cloned().collect::<Vec<_>>();
        for key in described(&local).iter().chain(&described(&remote)) {
            prop_assert!(document.contains_key(key), "{}", key);
        }
    }
}

/// The laws mean something only if the generated documents do collide.
#[test]
fn the_generators_collide() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut clashes, mut nested, mut local_stands, mut whole, mut lifted, mut sets) = (0, 0, 0, 0, 0, 0);
    for _ in 0..CASES {
        let (base, local, remote) = triple().new_tree(&mut runner).unwrap().current();
        let (merged, found) = merge_all(Kind::Person.schema(), &base, &local, &remote);
        clashes += usize::from(!found.is_empty());
        nested += usize::from(found.iter().any(|c| c.path.len() > 1));
        local_stands += usize::from(found.iter().any(|c| c.stands == Side::Local));
        whole += usize::from(diff::diff(&remote, &merged) == Diff::Whole);
        let odd = |v: &Option<Bson>| matches!(v, Some(Bson::Document(d)) if !diff::is_divisible(d));
        lifted += usize::from(found.iter().any(|c| odd(&c.local) || odd(&c.remote)));
        let roles = |d: &Document| members(d.get("roles")).cloned();
        let three = (roles(&base), roles(&local), roles(&remote));
        sets +=
            usize::from(three.0.is_some() && three.1 != three.0 && three.2 != three.0 && three.1 != three.2);
    }
    let seen = [clashes, nested, local_stands, whole, lifted, sets];
    assert!(seen.iter().all(|n| *n >= 5) && clashes >= 100, "{seen:?}");
    println!("{seen:?}");
}
