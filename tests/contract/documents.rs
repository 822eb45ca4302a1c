//! The cases of paths into documents, of several paths, and of whole documents.

use bson::{Bson, bson, doc};

use super::cases::Answer::{Hit, Miss};
use super::cases::{Attempt, Case, case, set_f, update};

/// A whole sub-document is compared with the order of its keys; a path into it needs documents all the way.
pub(super) fn sub_documents() -> Vec<Case> {
    let whole = || set_f(bson!({"a": 1, "b": {"c": 2}}));
    let into = || update(&[("f/b/c", Some(bson!(2)), Some(bson!(3)))]);
    let add = || update(&[("f/n", None, Some(bson!(3)))]);
    let operator = || set_f(bson!({"$gt": 0}));
    vec![
        case("whole", doc! {"f": {"a": 1, "b": {"c": 2}}}, whole(), Hit),
        case("whole, other order stored", doc! {"f": {"b": {"c": 2}, "a": 1}}, whole(), Miss),
        case("whole, more stored", doc! {"f": {"a": 1, "b": {"c": 2}, "d": 1}}, whole(), Miss),
        case("whole, inside an array", doc! {"f": [{"a": 1, "b": {"c": 2}}]}, whole(), Miss),
        case("empty, empty", doc! {"f": {}}, set_f(doc! {}), Hit),
        case("empty, absent stored", doc! {"x": 1}, set_f(doc! {}), Miss),
        case("empty, [] stored", doc! {"f": []}, set_f(doc! {}), Miss),
        case("like an operator", doc! {"f": {"$gt": 0}}, operator(), Hit),
        case("like an operator that would match", doc! {"f": 5}, operator(), Miss),
        case("into", doc! {"f": {"a": 1, "b": {"c": 2}}}, into(), Hit),
        case("into, others differ", doc! {"f": {"z": 9, "b": {"y": 8, "c": 2}}}, into(), Hit),
        case("into, value differs", doc! {"f": {"b": {"c": 5}}}, into(), Miss),
        case("into, parent is an array", doc! {"f": {"b": [{"c": 2}]}}, into(), Miss),
        case("into, top is an array", doc! {"f": [{"b": {"c": 2}}]}, into(), Miss),
        case("into, parent is a value", doc! {"f": {"b": 2}}, into(), Miss),
        case("into, parent is gone", doc! {"f": {"a": 1}}, into(), Miss),
        case("add", doc! {"f": {"a": 1}}, add(), Hit),
        case("add, there meanwhile", doc! {"f": {"a": 1, "n": null}}, add(), Miss),
        // Without a look at the parent `$exists: false` would match these, and `$set` would fail or make
        // a new parent.
        case("add, parent is gone", doc! {"x": 1}, add(), Miss),
        case("add, parent is an array", doc! {"f": [1]}, add(), Miss),
        case("add, parent is null", doc! {"f": null}, add(), Miss),
        case("add, parent is a value", doc! {"f": "x"}, add(), Miss),
    ]
}

pub(super) fn several_paths() -> Vec<Case> {
    let two = || {
        update(&[
            ("a", Some(bson!(1)), Some(bson!(10))),
            ("s/b", Some(bson!(2)), None),
            ("s/n", None, Some(bson!({"$set": [1, null]}))),
        ])
    };
    vec![
        case("all hold", doc! {"a": 1, "s": {"b": 2}}, two(), Hit),
        case("the first does not", doc! {"a": 9, "s": {"b": 2}}, two(), Miss),
        case("the second does not", doc! {"a": 1, "s": {"b": 9}}, two(), Miss),
        case("the third does not", doc! {"a": 1, "s": {"b": 2, "n": 0}}, two(), Miss),
        case("unset", doc! {"f": 1}, update(&[("f", Some(bson!(1)), None)]), Hit),
        case("unset null", doc! {"f": null}, update(&[("f", Some(Bson::Null), None)]), Hit),
        case("unset, gone already", doc! {"x": 1}, update(&[("f", Some(bson!(1)), None)]), Miss),
        case("set to what it is", doc! {"f": "new"}, set_f("new"), Hit),
        Case { name: "no document", stored: None, attempt: set_f(1), answer: Miss },
        Case {
            name: "no document, absent believed",
            stored: None,
            attempt: update(&[("f", None, Some(bson!(1)))]),
            answer: Miss,
        },
    ]
}

pub(super) fn whole_documents() -> Vec<Case> {
    let base = || doc! {"a": 1, "s": {"b": [2]}, "n": null};
    let new = || doc! {"z": {"y": 1}, "a": 1};
    let replace = || Attempt::Replace(base(), new());
    let delete = || Attempt::Delete(base());
    let more = doc! {"a": 1, "s": {"b": [2]}, "n": null, "extra": 1};
    let fewer = doc! {"a": 1, "s": {"b": [2]}};
    let other_type = doc! {"a": 1_i64, "s": {"b": [2]}, "n": null};
    let reordered = doc! {"n": null, "s": {"b": [2]}, "a": 1};
    vec![
        case("replace", base(), replace(), Hit),
        case("replace, order of fields differs", reordered.clone(), replace(), Hit),
        case("replace, a field more", more.clone(), replace(), Miss),
        case("replace, a field fewer", fewer.clone(), replace(), Miss),
        case("replace, a type differs", other_type.clone(), replace(), Miss),
        case("replace by nothing but _id", base(), Attempt::Replace(base(), doc! {}), Hit),
        case("delete", base(), delete(), Hit),
        case("delete, order of fields differs", reordered, delete(), Hit),
        case("delete, a field more", more, delete(), Miss),
        case("delete, a field fewer", fewer, delete(), Miss),
        case("delete, a type differs", other_type, delete(), Miss),
        case("delete nothing but _id", doc! {}, Attempt::Delete(doc! {}), Hit),
        case("delete, a field in the empty one", doc! {"a": 1}, Attempt::Delete(doc! {}), Miss),
        case(
            "delete with the old field id",
            doc! {"id": "other", "a": 1},
            Attempt::Delete(doc! {"id": "other", "a": 1}),
            Hit,
        ),
        Case { name: "delete what is gone", stored: None, attempt: delete(), answer: Miss },
        Case { name: "replace what is gone", stored: None, attempt: replace(), answer: Miss },
        Case { name: "insert", stored: None, attempt: Attempt::Insert(new()), answer: Hit },
        case("insert, exists", base(), Attempt::Insert(new()), Miss),
        case("insert, exists alike", new(), Attempt::Insert(new()), Miss),
    ]
}

/// Keys that MongoDB reads as operators, steps or positions: the document is compared as a whole.
pub(super) fn hostile_keys() -> Vec<Case> {
    let mut cases = Vec::new();
    for key in ["$x", "a.b", "", "7", "$set"] {
        let base = doc! {"p": 1, key: {"v": 1}};
        let new = doc! {"p": 2, key: [1, {"$y": "$p"}], "w": "$p"};
        let replace = || Attempt::Replace(base.clone(), new.clone());
        let delete = || Attempt::Delete(base.clone());
        let more = doc! {"p": 1, key: {"v": 1}, "extra": 1};
        let differs = doc! {"p": 1, key: {"v": 2}};
        let other_type = doc! {"p": 1.0, key: {"v": 1}};
        cases.extend([
            case("hostile: replace", base.clone(), replace(), Hit),
            case("hostile: replace, a field more", more.clone(), replace(), Miss),
            case("hostile: replace, value differs", differs.clone(), replace(), Miss),
            case("hostile: replace, named field's type differs", other_type, replace(), Miss),
            case("hostile: delete", base.clone(), delete(), Hit),
            case("hostile: delete, a field more", more, delete(), Miss),
            case("hostile: delete, value differs", differs, delete(), Miss),
            case("hostile: removed", base.clone(), Attempt::Replace(base.clone(), doc! {"p": 1}), Hit),
            case("hostile: added", doc! {"p": 1}, Attempt::Replace(doc! {"p": 1}, new.clone()), Hit),
            Case {
                name: "hostile: insert",
                stored: None,
                attempt: Attempt::Insert(new.clone()),
                answer: Hit,
            },
        ]);
    }
    cases
}
