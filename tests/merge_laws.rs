//! Laws of comparing, diffing and merging (`support/laws.rs`), held against generated documents.
//!
//! The generators draw from few keys and few values, so that base, local and remote collide all the time,
//! and among them are the hostile ones: keys that MongoDB cannot address, values that differ only in type
//! or bits, documents that differ only in key order.

#![allow(clippy::unwrap_used)]

#[path = "support/laws.rs"]
mod laws;

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{
    Binary, Bson, DateTime, Decimal128, Document, JavaScriptCodeWithScope, Regex, Timestamp, bson, doc,
};
use proptest::prelude::*;
use thalamus_edge::domain::diff::{self, Diff, Path};
use thalamus_edge::domain::merge::Side;
use thalamus_edge::domain::record::Kind;
use thalamus_edge::domain::schema::Schema;
use thalamus_edge::domain::value::{identical, same};

use laws::{is_member, members, merge_all, places, reverse};

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

/// The document at `path`, the whole one for the empty path.
fn inner_mut<'a>(document: &'a mut Document, path: &[String]) -> Option<&'a mut Document> {
    path.iter().try_fold(document, |at, key| match at.get_mut(key) {
        Some(Bson::Document(inner)) => Some(inner),
        _ => None,
    })
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

// ------------------------------------------------------------------------------------------------- laws

proptest! {
    #![proptest_config(config())]

    #[test]
    fn sameness_is_an_equivalence((a, b) in pair(), c in document()) {
        laws::sameness_is_an_equivalence(&a, &b, &c);
    }

    #[test]
    fn every_hostile_value_is_itself_and_no_other(x in 0..leaves().len(), y in 0..leaves().len()) {
        let all = leaves();
        prop_assert_eq!(same(&all[x], &all[y]), x == y, "{:?} {:?}", all[x], all[y]);
        prop_assert_eq!(identical(&all[x], &all[y]), x == y, "{:?} {:?}", all[x], all[y]);
    }

    #[test]
    fn a_document_does_not_differ_from_itself(a in document()) {
        laws::a_document_does_not_differ_from_itself(&a);
    }

    #[test]
    fn applying_a_difference_leads_there((a, b) in pair()) {
        laws::applying_a_difference_leads_there(&a, &b);
    }

    #[test]
    fn changes_are_disjoint_addressable_and_true((a, b) in pair()) {
        laws::changes_are_disjoint_addressable_and_true(&a, &b);
    }

    #[test]
    fn what_only_one_side_changed_stands(schema in schema(), (base, edited) in pair()) {
        laws::what_only_one_side_changed_stands(schema, &base, &edited);
    }

    #[test]
    fn what_both_sides_changed_alike_is_agreed(schema in schema(), (base, edited) in pair()) {
        laws::what_both_sides_changed_alike_is_agreed(schema, &base, &edited);
    }

    #[test]
    fn a_second_merge_finds_nothing_new(schema in schema(), (base, local, remote) in triple()) {
        laws::a_second_merge_finds_nothing_new(schema, &base, &local, &remote);
    }

    #[test]
    fn what_is_pushed_is_a_true_difference(schema in schema(), (base, local, remote) in triple()) {
        laws::what_is_pushed_is_a_true_difference(schema, &base, &local, &remote);
    }

    #[test]
    fn no_edit_is_lost(schema in schema(), (base, local, remote) in triple()) {
        laws::no_edit_is_lost(schema, &base, &local, &remote);
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
        laws::nothing_comes_from_nowhere(schema, &base, &local, &remote);
    }

    #[test]
    fn a_restored_centre_takes_nothing(schema in schema(), (base, local, remote) in triple()) {
        laws::a_restored_centre_takes_nothing(schema, &base, &local, &remote);
    }

    #[test]
    fn clashes_are_real_and_their_winner_stands(schema in schema(), (base, local, remote) in triple()) {
        laws::clashes_are_real_and_their_winner_stands(schema, &base, &local, &remote);
    }

    #[test]
    fn an_edit_beats_a_delete(schema in schema(), (base, edited) in pair()) {
        laws::an_edit_beats_a_delete(schema, &base, &edited);
    }

    #[test]
    fn conflicts_without_a_base_show_what_both_have(schema in schema(), (_, local, remote) in triple()) {
        laws::conflicts_without_a_base_show_what_both_have(schema, &local, &remote);
    }

    #[test]
    fn delivered_edits_are_kept_or_asked_about(
        schema in schema(), has_base in any::<bool>(), (base, delivered, remote) in triple(), since in edits()
    ) {
        let local = edited(&delivered, &since);
        let base = has_base.then_some(&base);
        laws::delivered_edits_are_kept_or_asked_about(schema, (base, &delivered), &local, &remote);
    }

    #[test]
    fn records_made_on_both_sides_unite(schema in schema(), (local, remote) in pair()) {
        laws::records_made_on_both_sides_unite(schema, &local, &remote);
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
