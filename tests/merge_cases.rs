//! The merge rules of one record, one annotated row per case.
//!
//! A row reads: base, local, remote => the record from now on, what is left to push, and who lost. The
//! base, local and remote values of a clash are not written out: each must be what the row's documents
//! hold at that path. Results are compared with their key order and BSON types.

#![allow(clippy::unwrap_used)]

use bson::{Bson, DateTime, Document, doc, oid::ObjectId};
use thalamus_edge::domain::dates::date_of;
use thalamus_edge::domain::diff::{Diff, Path, diff, get};
use thalamus_edge::domain::merge::{
    Side, identity_differences, identity_of, is_other_person, merge, same_identity,
};
use thalamus_edge::domain::record::Kind;
use thalamus_edge::domain::same_meaning::same_meaning;
use thalamus_edge::domain::value::identical;

struct Case {
    what: &'static str,
    kind: Kind,
    base: Option<Document>,
    local: Option<Document>,
    remote: Option<Document>,
    merged: Option<Document>,
    push: Push,
    clashes: Vec<(Path, Side)>,
}

/// What is left to write at the centre after a merge.
#[derive(Debug, PartialEq)]
enum Push {
    Nothing,
    Insert,
    Delete,
    Whole,
    Fields(Vec<Path>),
}

fn left_to_push(remote: Option<&Document>, merged: Option<&Document>) -> Push {
    match (remote, merged) {
        (None, None) => Push::Nothing,
        (None, Some(_)) => Push::Insert,
        (Some(_), None) => Push::Delete,
        (Some(remote), Some(merged)) => match diff(remote, merged) {
            Diff::Same => Push::Nothing,
            Diff::Whole => Push::Whole,
            Diff::Fields(changes) => Push::Fields(changes.into_iter().map(|c| c.path).collect()),
        },
    }
}

fn owned(path: &[&str]) -> Path {
    path.iter().map(|key| (*key).to_owned()).collect()
}

fn same_bytes(a: Option<&Document>, b: Option<&Document>) -> bool {
    let whole = |d: &Document| Bson::Document(d.clone());
    match (a, b) {
        (Some(a), Some(b)) => identical(&whole(a), &whole(b)),
        (a, b) => a.is_none() && b.is_none(),
    }
}

/// The value of one side at a clash: the whole record for the empty path.
fn at(document: Option<&Document>, path: &[String]) -> Option<Bson> {
    if path.is_empty() {
        document.cloned().map(Bson::Document)
    } else {
        document.and_then(|d| get(d, path)).cloned()
    }
}

fn same_value(a: Option<&Bson>, b: Option<&Bson>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => identical(a, b),
        (a, b) => a.is_none() && b.is_none(),
    }
}

impl Case {
    fn check(&self) {
        let (base, local, remote) = (self.base.as_ref(), self.local.as_ref(), self.remote.as_ref());
        let merged = merge(self.kind.schema(), base, local, remote);
        let what = self.what;
        assert!(
            same_bytes(merged.document.as_ref(), self.merged.as_ref()),
            "{what}: {:?} instead of {:?}",
            merged.document,
            self.merged
        );
        assert_eq!(left_to_push(remote, merged.document.as_ref()), self.push, "{what}");
        let found: Vec<_> = merged.clashes.iter().map(|c| (c.path.clone(), c.stands)).collect();
        assert_eq!(found, self.clashes, "{what}");
        for clash in &merged.clashes {
            assert!(same_value(clash.base.as_ref(), at(base, &clash.path).as_ref()), "{what}: base");
            assert!(same_value(clash.local.as_ref(), at(local, &clash.path).as_ref()), "{what}: local");
            assert!(same_value(clash.remote.as_ref(), at(remote, &clash.path).as_ref()), "{what}: remote");
        }
    }
}

macro_rules! side {
    (absent) => {
        None
    };
    ({ $($field:tt)* }) => {
        Some(doc! { $($field)* })
    };
}

macro_rules! push {
    (nothing) => {
        Push::Nothing
    };
    (insert) => {
        Push::Insert
    };
    (delete) => {
        Push::Delete
    };
    (whole) => {
        Push::Whole
    };
    ([ $($path:tt),* ]) => {
        Push::Fields(vec![$(owned(&$path)),*])
    };
}

macro_rules! table {
    ($($kind:ident $what:literal: $base:tt, $local:tt, $remote:tt => $merged:tt, push $push:tt
        $(, $stands:ident stands at $path:tt)*;)*) => {
        for case in [$(Case {
            what: $what,
            kind: Kind::$kind,
            base: side!($base),
            local: side!($local),
            remote: side!($remote),
            merged: side!($merged),
            push: push!($push),
            clashes: vec![$((owned(&$path), Side::$stands)),*],
        }),*] {
            case.check();
        }
    };
}

#[test]
fn one_field() {
    table! {
        Page "nobody changed anything: the centre's bytes":
            {"x": 1, "y": 2}, {"y": 2, "x": 1}, {"x": 1, "y": 2} => {"x": 1, "y": 2}, push nothing;
        Page "only the centre changed":
            {"x": 1}, {"x": 1}, {"x": 2} => {"x": 2}, push nothing;
        Page "only the centre added":
            {"x": 1}, {"x": 1}, {"x": 1, "y": 2} => {"x": 1, "y": 2}, push nothing;
        Page "only the centre removed":
            {"x": 1, "y": 2}, {"x": 1, "y": 2}, {"y": 2} => {"y": 2}, push nothing;
        Page "only this node changed":
            {"x": 1}, {"x": 2}, {"x": 1} => {"x": 2}, push [["x"]];
        Page "only this node added: behind what the centre has":
            {"x": 1}, {"new": 2, "x": 1}, {"x": 1} => {"x": 1, "new": 2}, push [["new"]];
        Page "only this node removed":
            {"x": 1, "y": 2}, {"y": 2}, {"x": 1, "y": 2} => {"y": 2}, push [["x"]];
        Page "both changed to the same":
            {"x": 1}, {"x": 2}, {"x": 2} => {"x": 2}, push nothing;
        Page "both added the same":
            {}, {"x": 2}, {"x": 2} => {"x": 2}, push nothing;
        Page "both removed":
            {"x": 1, "y": 1}, {"y": 1}, {"y": 1} => {"y": 1}, push nothing;
        Page "both changed differently":
            {"x": 1}, {"x": 2}, {"x": 3} => {"x": 3}, push nothing, Remote stands at ["x"];
        Page "both added differently":
            {}, {"x": 2}, {"x": 3} => {"x": 3}, push nothing, Remote stands at ["x"];
        Page "removed here, changed there":
            {"x": 1}, {}, {"x": 3} => {"x": 3}, push nothing, Remote stands at ["x"];
        Page "changed here, removed there":
            {"x": 1}, {"x": 2}, {} => {}, push nothing, Remote stands at ["x"];
        Page "different fields meet without a clash":
            {"x": 1, "y": 1}, {"x": 2, "y": 1}, {"x": 1, "y": 3} => {"x": 2, "y": 3}, push [["x"]];
        Page "a clash takes nothing else with it":
            {"x": 1, "y": 1, "z": 1}, {"x": 2, "y": 2}, {"z": 1, "y": 3, "x": 1}
            => {"y": 3, "x": 2}, push [["z"], ["x"]], Remote stands at ["y"];
        Page "undone here while the centre changed: the undo is no change":
            {"x": 1}, {"x": 1}, {"x": 9} => {"x": 9}, push nothing;
    }
}

#[test]
fn types_and_bits() {
    let nan = f64::NAN;
    let date = |ms| DateTime::from_millis(ms);
    table! {
        Page "null is not missing: set to null here":
            {}, {"x": null}, {} => {"x": null}, push [["x"]];
        Page "null is not missing: null here, removed there":
            {"x": 1}, {"x": null}, {} => {}, push nothing, Remote stands at ["x"];
        Page "null is not missing: removed here, null there":
            {"x": 1}, {}, {"x": null} => {"x": null}, push nothing, Remote stands at ["x"];
        Page "null is not missing: a stored null removed there":
            {"x": null}, {"x": null}, {} => {}, push nothing;
        Page "null on both sides":
            {"x": 1}, {"x": null}, {"x": null} => {"x": null}, push nothing;
        Page "1 became 1.0 here":
            {"x": 1}, {"x": 1.0}, {"x": 1} => {"x": 1.0}, push [["x"]];
        Page "1 became 1.0 here and a 64-bit 1 there":
            {"x": 1}, {"x": 1.0}, {"x": 1_i64} => {"x": 1_i64}, push nothing, Remote stands at ["x"];
        Page "the sign of zero counts":
            {"x": 0.0}, {"x": -0.0}, {"x": 0.0} => {"x": -0.0}, push [["x"]];
        Page "not-a-number equals itself":
            {"x": nan, "y": 1}, {"x": nan, "y": 2}, {"x": nan, "y": 1} => {"x": nan, "y": 2}, push [["y"]];
        Page "a date is not its text":
            {"x": date(0)}, {"x": "1970-01-01"}, {"x": date(1)}
            => {"x": date(1)}, push nothing, Remote stands at ["x"];
        Page "an object id is not its hex":
            {"x": 1}, {"x": ObjectId::from_bytes([1; 12])}, {"x": ObjectId::from_bytes([1; 12]).to_hex()}
            => {"x": ObjectId::from_bytes([1; 12]).to_hex()}, push nothing, Remote stands at ["x"];
        Page "an array is one value":
            {"x": [1, 2]}, {"x": [1, 2, 3]}, {"x": [0, 1, 2]}
            => {"x": [0, 1, 2]}, push nothing, Remote stands at ["x"];
        Page "an array is one value also where only one side changed":
            {"x": [1, {"a": 1}]}, {"x": [1, {"a": 2}]}, {"x": [1, {"a": 1}]}
            => {"x": [1, {"a": 2}]}, push [["x"]];
        Page "an array in another order is another value":
            {"x": [1, 2]}, {"x": [2, 1]}, {"x": [1, 2]} => {"x": [2, 1]}, push [["x"]];
        Page "key order counts inside arrays":
            {"x": [{"a": 1, "b": 2}]}, {"x": [{"b": 2, "a": 1}]}, {"x": [{"a": 1, "b": 2}]}
            => {"x": [{"b": 2, "a": 1}]}, push [["x"]];
        Page "key order elsewhere does not: the centre's bytes":
            {"x": {"a": 1, "b": {"c": 1, "d": 1}}}, {"x": {"b": {"d": 1, "c": 1}, "a": 1}},
            {"x": {"a": 1, "b": {"c": 1, "d": 1}}}
            => {"x": {"a": 1, "b": {"c": 1, "d": 1}}}, push nothing;
        Page "key order changed there too":
            {"x": {"a": 1, "b": 2}}, {"x": {"b": 2, "a": 1}}, {"y": 1, "x": {"b": 2, "a": 1}}
            => {"y": 1, "x": {"b": 2, "a": 1}}, push nothing;
        Page "an edit beside a change of key order keeps the centre's order":
            {"x": {"a": 1, "b": 2}}, {"x": {"b": 3, "a": 1}}, {"x": {"a": 1, "b": 2}}
            => {"x": {"b": 3, "a": 1}}, push [["x", "b"]];
    }
}

/// The name of uploaded bytes, their length and their type belong together.
#[test]
fn uploaded_bytes() {
    table! {
        PersonalDocument "uploaded on both sides: not the name of one with the length of the other":
            {"content": {"sha256": "0", "length": 1, "type": "t"}},
            {"content": {"sha256": "a", "length": 2, "type": "t"}},
            {"content": {"sha256": "b", "length": 1, "type": "u"}}
            => {"content": {"sha256": "b", "length": 1, "type": "u"}}, push nothing, Remote stands at ["content"];
        PersonalDocument "uploaded on both sides for the first time":
            {}, {"content": {"sha256": "a", "length": 2}}, {"content": {"sha256": "b", "type": "u"}}
            => {"content": {"sha256": "b", "type": "u"}}, push nothing, Remote stands at ["content"];
        PersonalDocument "the same bytes as another type":
            {}, {"content": {"sha256": "a", "type": "t"}}, {"content": {"sha256": "a", "type": "u"}}
            => {"content": {"sha256": "a", "type": "u"}}, push nothing, Remote stands at ["content"];
        PersonalDocument "uploaded here, the rest edited there":
            {"x": 1}, {"x": 1, "content": {"sha256": "a"}}, {"x": 2}
            => {"x": 2, "content": {"sha256": "a"}}, push [["content"]];
        PersonalDocument "uploaded again here only":
            {"content": {"sha256": "0", "length": 1}}, {"content": {"sha256": "a", "length": 2}},
            {"content": {"sha256": "0", "length": 1}}
            => {"content": {"sha256": "a", "length": 2}}, push [["content", "sha256"], ["content", "length"]];
        PersonalDocument "of other fields the parts are merged":
            {"s": {"x": 1, "y": 1}}, {"s": {"x": 2, "y": 1}}, {"s": {"x": 1, "y": 3}}
            => {"s": {"x": 2, "y": 3}}, push [["s", "x"]];
        Page "elsewhere it is a field like any other":
            {"content": {"x": 1, "y": 1}}, {"content": {"x": 2, "y": 1}}, {"content": {"x": 1, "y": 3}}
            => {"content": {"x": 2, "y": 3}}, push [["content", "x"]];
    }
}

#[test]
fn nested() {
    table! {
        Page "different leaves of one sub-document":
            {"s": {"x": 1, "y": 1}}, {"s": {"x": 2, "y": 1}}, {"s": {"x": 1, "y": 3}}
            => {"s": {"x": 2, "y": 3}}, push [["s", "x"]];
        Page "the same leaf, deep":
            {"s": {"t": {"x": 1, "y": 1}}}, {"s": {"t": {"x": 2, "y": 2}}}, {"s": {"t": {"x": 3, "y": 1}}}
            => {"s": {"t": {"x": 3, "y": 2}}}, push [["s", "t", "y"]], Remote stands at ["s", "t", "x"];
        Page "a leaf removed here, another changed there":
            {"s": {"x": 1, "y": 1}}, {"s": {"y": 1}}, {"s": {"x": 1, "y": 2}}
            => {"s": {"y": 2}}, push [["s", "x"]];
        Page "both made the sub-document: union":
            {}, {"s": {"x": 1, "z": 1}}, {"s": {"y": 2, "z": 3}}
            => {"s": {"y": 2, "z": 3, "x": 1}}, push [["s", "x"]], Remote stands at ["s", "z"];
        Page "both turned a value into a sub-document":
            {"s": 1}, {"s": {"x": 1}}, {"s": {"y": 2}} => {"s": {"y": 2}}, push nothing, Remote stands at ["s"];
        Page "null is a value that a sub-document replaces":
            {"s": null}, {"s": {"x": 1}}, {"s": {"y": 2}} => {"s": {"y": 2}}, push nothing, Remote stands at ["s"];
        Page "sub-document removed here, edited below there: the edit stands":
            {"s": {"x": 1}}, {}, {"s": {"x": 2}} => {"s": {"x": 2}}, push nothing, Remote stands at ["s"];
        Page "edited below here, removed there: the edit stands":
            {"s": {"x": 1}, "k": 1}, {"s": {"x": 2}, "k": 1}, {"k": 1}
            => {"k": 1, "s": {"x": 2}}, push [["s"]], Local stands at ["s"];
        Page "edited deep below here, removed half-way up there":
            {"s": {"t": {"u": {"x": 1}}, "k": 1}}, {"s": {"t": {"u": {"x": 2}}, "k": 1}}, {"s": {"k": 1}}
            => {"s": {"k": 1, "t": {"u": {"x": 2}}}}, push [["s", "t"]], Local stands at ["s", "t"];
        Page "removed half-way up here, edited deep below there":
            {"s": {"t": {"u": {"x": 1}}, "k": 1}}, {"s": {"k": 1}}, {"s": {"t": {"u": {"x": 2}}, "k": 1}}
            => {"s": {"t": {"u": {"x": 2}}, "k": 1}}, push nothing, Remote stands at ["s", "t"];
        Page "sub-document untouched here, removed there":
            {"s": {"x": 1}}, {"s": {"x": 1}}, {} => {}, push nothing;
        Page "sub-document untouched there, removed here":
            {"s": {"x": 1}}, {}, {"s": {"x": 1}} => {}, push [["s"]];
        Page "sub-document turned into a value here, edited below there":
            {"s": {"x": 1}}, {"s": 5}, {"s": {"x": 2}} => {"s": {"x": 2}}, push nothing, Remote stands at ["s"];
        Page "edited below here, turned into a value there":
            {"s": {"x": 1}}, {"s": {"x": 2}}, {"s": 5} => {"s": 5}, push nothing, Remote stands at ["s"];
        Page "turned into a value here, removed there: no edit below":
            {"s": {"x": 1}}, {"s": 5}, {} => {}, push nothing, Remote stands at ["s"];
        Page "an array removed there while it was edited here is a value like any other":
            {"s": [1]}, {"s": [1, 2]}, {} => {}, push nothing, Remote stands at ["s"];
        Page "emptied here, filled there":
            {"s": {"x": 1}}, {"s": {}}, {"s": {"x": 1, "y": 1}} => {"s": {"y": 1}}, push [["s", "x"]];
    }
}

#[test]
fn keys_that_cannot_be_addressed() {
    table! {
        Page "dot, top level, changed here: the whole document is replaced":
            {"a.b": 1}, {"a.b": 2}, {"a.b": 1} => {"a.b": 2}, push whole;
        Page "dollar, top level, changed there":
            {"$x": 1}, {"$x": 1}, {"$x": 2} => {"$x": 2}, push nothing;
        Page "empty, top level, both changed":
            {"": 1}, {"": 2}, {"": 3} => {"": 3}, push nothing, Remote stands at [""];
        Page "digits, top level, added here beside an edit there":
            {"x": 1}, {"x": 1, "12": 1}, {"x": 2} => {"x": 2, "12": 1}, push whole;
        Page "untouched beside an edit: only the edit is pushed":
            {"a.b": 1, "x": 1}, {"a.b": 1, "x": 2}, {"a.b": 1, "x": 1} => {"a.b": 1, "x": 2}, push [["x"]];
        Page "below a top-level dot nothing is merged apart":
            {"a.b": {"x": 1, "y": 1}}, {"a.b": {"x": 2, "y": 1}}, {"a.b": {"x": 1, "y": 2}}
            => {"a.b": {"x": 1, "y": 2}}, push nothing, Remote stands at ["a.b"];
        Page "below: changed here only":
            {"s": {"a.b": 1, "x": 1}}, {"s": {"a.b": 1, "x": 2}}, {"s": {"a.b": 1, "x": 1}}
            => {"s": {"a.b": 1, "x": 2}}, push [["s"]];
        Page "below: changed on both sides, lifted to the parent":
            {"s": {"$x": 1, "y": 1}}, {"s": {"$x": 1, "y": 2}}, {"s": {"$x": 2, "y": 1}}
            => {"s": {"$x": 2, "y": 1}}, push nothing, Remote stands at ["s"];
        Page "below: added here, another leaf changed there":
            {"s": {"x": 1}}, {"s": {"x": 1, "": 2}}, {"s": {"x": 2}}
            => {"s": {"x": 2}}, push nothing, Remote stands at ["s"];
        Page "deeper: only the nearest parent is lifted":
            {"s": {"t": {"12": 1}, "k": 1}}, {"s": {"t": {"12": 2}, "k": 1}}, {"s": {"t": {"12": 3}, "k": 2}}
            => {"s": {"t": {"12": 3}, "k": 2}}, push nothing, Remote stands at ["s", "t"];
        Page "removed there, edited below here":
            {"s": {"a.b": 1}}, {"s": {"a.b": 2}}, {} => {"s": {"a.b": 2}}, push [["s"]], Local stands at ["s"];
        Page "both the same":
            {"s": {"12": 1}}, {"s": {"12": 2}}, {"s": {"12": 2}} => {"s": {"12": 2}}, push nothing;
    }
}

#[test]
fn sets() {
    table! {
        Person "added here":
            {"roles": ["a"]}, {"roles": ["a", "b"]}, {"roles": ["a"]} => {"roles": ["a", "b"]}, push [["roles"]];
        Person "added there":
            {"roles": ["a"]}, {"roles": ["a"]}, {"roles": ["a", "b"]} => {"roles": ["a", "b"]}, push nothing;
        Person "added on both sides: the centre's order, own ones sorted behind":
            {"roles": ["a"]}, {"roles": ["a", "y", "b"]}, {"roles": ["z", "a"]}
            => {"roles": ["z", "a", "b", "y"]}, push [["roles"]];
        Person "the same added on both sides":
            {"roles": ["a"]}, {"roles": ["a", "b"]}, {"roles": ["b", "a"]} => {"roles": ["b", "a"]}, push nothing;
        Person "removed here, added there":
            {"roles": ["a", "b"]}, {"roles": ["a"]}, {"roles": ["a", "b", "c"]}
            => {"roles": ["a", "c"]}, push [["roles"]];
        Person "added here, removed there":
            {"roles": ["a", "b"]}, {"roles": ["a", "b", "c"]}, {"roles": ["a"]}
            => {"roles": ["a", "c"]}, push [["roles"]];
        Person "removed on both sides, different ones":
            {"roles": ["a", "b", "c"]}, {"roles": ["b", "c"]}, {"roles": ["a", "c"]}
            => {"roles": ["c"]}, push [["roles"]];
        Person "emptied here, added there":
            {"roles": ["a"]}, {"roles": []}, {"roles": ["a", "b"]} => {"roles": ["b"]}, push [["roles"]];
        Person "order only, on both sides: the centre's":
            {"roles": ["a", "b", "c"]}, {"roles": ["b", "a", "c"]}, {"roles": ["c", "b", "a"]}
            => {"roles": ["c", "b", "a"]}, push nothing;
        Person "order only, here, beside an addition there":
            {"roles": ["a", "b"]}, {"roles": ["b", "a"]}, {"roles": ["a", "b", "c"]}
            => {"roles": ["a", "b", "c"]}, push nothing;
        Person "order only, here alone: an edit that nobody contests":
            {"roles": ["a", "b"]}, {"roles": ["b", "a"]}, {"roles": ["a", "b"]}
            => {"roles": ["b", "a"]}, push [["roles"]];
        Person "repeated at the centre: kept as it is":
            {"roles": ["a"]}, {"roles": ["a", "b"]}, {"roles": ["a", "a"]}
            => {"roles": ["a", "a", "b"]}, push [["roles"]];
        Person "repeated here: added once":
            {"roles": ["a"]}, {"roles": ["a", "b", "b"]}, {"roles": ["a", "c"]}
            => {"roles": ["a", "c", "b"]}, push [["roles"]];
        Person "members are told apart by type":
            {"roles": [1]}, {"roles": [1, 2.0]}, {"roles": [1, 2]} => {"roles": [1, 2, 2.0]}, push [["roles"]];
        Person "made on both sides":
            {}, {"roles": ["a", "c"]}, {"roles": ["b", "a"]} => {"roles": ["b", "a", "c"]}, push [["roles"]];
        Person "no array there: a value like any other":
            {"roles": ["a"]}, {"roles": ["a", "b"]}, {"roles": "root"}
            => {"roles": "root"}, push nothing, Remote stands at ["roles"];
        Person "no array here":
            {"roles": ["a"]}, {"roles": null}, {"roles": ["a", "b"]}
            => {"roles": ["a", "b"]}, push nothing, Remote stands at ["roles"];
        Person "no array before":
            {"roles": "x"}, {"roles": ["a"]}, {"roles": ["b"]}
            => {"roles": ["b"]}, push nothing, Remote stands at ["roles"];
        Person "removed here, added to there":
            {"roles": ["a"]}, {}, {"roles": ["a", "b"]}
            => {"roles": ["a", "b"]}, push nothing, Remote stands at ["roles"];
        Person "only the field at the top is a set":
            {"s": {"roles": ["a"]}}, {"s": {"roles": ["a", "b"]}}, {"s": {"roles": ["a", "c"]}}
            => {"s": {"roles": ["a", "c"]}}, push nothing, Remote stands at ["s", "roles"];
        Page "roles of anything but a person are no set":
            {"roles": ["a"]}, {"roles": ["a", "b"]}, {"roles": ["a", "c"]}
            => {"roles": ["a", "c"]}, push nothing, Remote stands at ["roles"];
    }
}

#[test]
fn fields_with_rules_of_their_own() {
    table! {
        Page "modification_info changed on both sides: no conflict of its own":
            {"modification_info": {"user": "a"}}, {"modification_info": {"user": "b"}},
            {"modification_info": {"user": "c"}} => {"modification_info": {"user": "c"}}, push nothing;
        Page "modification_info is taken whole":
            {"modification_info": {"user": "a", "node": "n"}}, {"modification_info": {"user": "b", "node": "n"}},
            {"modification_info": {"user": "a", "node": "m"}}
            => {"modification_info": {"user": "a", "node": "m"}}, push nothing;
        Page "modification_info changed here only":
            {"modification_info": 1}, {"modification_info": 2}, {"modification_info": 1}
            => {"modification_info": 2}, push [["modification_info"]];
        Page "modification_info changed here, removed there":
            {"modification_info": {"user": "a"}}, {"modification_info": {"user": "b"}}, {} => {}, push nothing;
        Page "modification_info beside a real clash":
            {"modification_info": {"timestamp": 1}, "x": 1}, {"modification_info": {"timestamp": 2}, "x": 2},
            {"modification_info": {"timestamp": 3}, "x": 3}
            => {"modification_info": {"timestamp": 3}, "x": 3}, push nothing, Remote stands at ["x"];
        Page "what people write into modification_info is a field like any other":
            {"modification_info": {"user": "a", "note": "x"}}, {"modification_info": {"user": "a", "note": "dose 5"}},
            {"modification_info": {"user": "a", "note": "dose 50"}}
            => {"modification_info": {"user": "a", "note": "dose 50"}}, push nothing,
            Remote stands at ["modification_info", "note"];
        Page "a text in modification_info is no stamp":
            {"modification_info": "x"}, {"modification_info": "y"}, {"modification_info": {"user": "a"}}
            => {"modification_info": {"user": "a"}}, push nothing, Remote stands at ["modification_info"];
        Page "modification_info below the top is a field like any other":
            {"s": {"modification_info": 1}}, {"s": {"modification_info": 2}}, {"s": {"modification_info": 3}}
            => {"s": {"modification_info": 3}}, push nothing, Remote stands at ["s", "modification_info"];
        Person "the old id field is the centre's, whatever else happens":
            {"_id": "A", "id": 5, "x": 1}, {"_id": "A", "x": 2}, {"_id": "A", "id": {"n": 6}, "x": 1}
            => {"_id": "A", "id": {"n": 6}, "x": 2}, push [["x"]];
        Person "an old id field that the centre dropped is not brought back":
            {"_id": "A", "id": "a"}, {"_id": "A", "id": "a", "x": 1}, {"_id": "A"}
            => {"_id": "A", "x": 1}, push [["x"]];
        Page "id below the top is a field like any other":
            {"s": {"id": 1, "_id": 1}}, {"s": {"id": 2, "_id": 2}}, {"s": {"id": 1, "_id": 3}}
            => {"s": {"id": 2, "_id": 3}}, push [["s", "id"]], Remote stands at ["s", "_id"];
        Person "a password changed on both sides: the values leave the merge, callers keep them secret":
            {"password": "$2b$12$base"}, {"password": "$2b$12$here"}, {"password": "$2b$12$there"}
            => {"password": "$2b$12$there"}, push nothing, Remote stands at ["password"];
        Person "a password changed here while the name changed there":
            {"password": "p", "name": "Ana"}, {"password": "q", "name": "Ana"}, {"password": "p", "name": "Anna"}
            => {"password": "q", "name": "Anna"}, push [["password"]];
    }
}

#[test]
fn whole_records() {
    table! {
        Page "gone on both sides": {"x": 1}, absent, absent => absent, push nothing;
        Page "never there": absent, absent, absent => absent, push nothing;
        Page "created here": absent, {"x": 1}, absent => {"x": 1}, push insert;
        Page "created there": absent, absent, {"x": 1} => {"x": 1}, push nothing;
        Page "clean here, deleted there": {"x": 1}, {"x": 1}, absent => absent, push nothing;
        Page "only the key order differs here, deleted there":
            {"x": {"a": 1, "b": 1}, "y": 1}, {"y": 1, "x": {"b": 1, "a": 1}}, absent => absent, push nothing;
        Page "edited here, deleted there: the edit wins":
            {"x": 1}, {"x": 2}, absent => {"x": 2}, push insert, Local stands at [];
        Page "a type changed here, deleted there: an edit too":
            {"x": 1}, {"x": 1.0}, absent => {"x": 1.0}, push insert, Local stands at [];
        Page "a field removed here, deleted there: an edit too":
            {"x": 1, "y": 1}, {"y": 1}, absent => {"y": 1}, push insert, Local stands at [];
        Page "deleted here, unchanged there": {"x": 1}, absent, {"x": 1} => absent, push delete;
        Page "deleted here, only the key order changed there":
            {"x": {"a": 1, "b": 1}}, absent, {"x": {"b": 1, "a": 1}}
            => absent, push delete;
        Page "deleted here, edited there: the edit wins":
            {"x": 1}, absent, {"x": 2} => {"x": 2}, push nothing, Remote stands at [];
        Page "deleted here, a field set to null there: an edit":
            {"x": 1}, absent, {"x": 1, "y": null} => {"x": 1, "y": null}, push nothing, Remote stands at [];
        Page "created and deleted here, created there: nothing of this node's contradicts it":
            absent, absent, {"x": 2} => {"x": 2}, push nothing;
        Page "created on both sides: union, scalars of the centre":
            absent, {"_id": "p", "x": 1, "own": 1, "s": {"a": 1}}, {"_id": "p", "x": 2, "theirs": 2, "s": {"b": 1}}
            => {"_id": "p", "x": 2, "theirs": 2, "s": {"b": 1, "a": 1}, "own": 1}, push [["s", "a"], ["own"]],
            Remote stands at ["x"];
        Page "created the same on both sides":
            absent, {"_id": "p", "x": 1}, {"x": 1, "_id": "p"} => {"x": 1, "_id": "p"}, push nothing;
        Person "created on both sides: nobody is given the roles of both":
            absent, {"roles": ["end_user", "b"]}, {"roles": ["end_user", "a"]}
            => {"roles": ["end_user", "a"]}, push nothing, Remote stands at ["roles"];
        Person "created on both sides: more roles here":
            absent, {"roles": ["end_user", "b"]}, {"roles": ["end_user"]}
            => {"roles": ["end_user"]}, push nothing, Remote stands at ["roles"];
        Person "created on both sides: fewer roles here":
            absent, {"roles": ["end_user"]}, {"roles": ["end_user", "b"]}
            => {"roles": ["end_user", "b"]}, push nothing, Remote stands at ["roles"];
        Person "created on both sides: roles only here, and other fields":
            absent, {"roles": ["b"], "phone": "1"}, {"x": 1}
            => {"x": 1, "phone": "1"}, push [["phone"]], Remote stands at ["roles"];
        Person "created on both sides: roles only there":
            absent, {"x": 1}, {"x": 1, "roles": ["b"]}
            => {"x": 1, "roles": ["b"]}, push nothing, Remote stands at ["roles"];
        Person "created on both sides: the same roles in another order, and twice":
            absent, {"roles": ["a", "b", "a"]}, {"roles": ["b", "a"]} => {"roles": ["b", "a"]}, push nothing;
        Person "created on both sides: no roles are no roles":
            absent, {"x": 1, "roles": []}, {"x": 1} => {"x": 1}, push nothing;
        Person "created on both sides: a text is no set of roles":
            absent, {"roles": ["root"]}, {"roles": "root"}
            => {"roles": "root"}, push nothing, Remote stands at ["roles"];
        Person "created on both sides: closed here, and open there, where it says nothing":
            absent, {"active": false}, {"x": 1} => {"x": 1}, push nothing, Remote stands at ["active"];
        Person "created on both sides: open here, where it says nothing, and closed there":
            absent, {"x": 1}, {"x": 1, "active": false}
            => {"x": 1, "active": false}, push nothing, Remote stands at ["active"];
        Person "created on both sides: open on both, and one side says so":
            absent, {"active": true}, {"x": 1} => {"x": 1}, push nothing;
        Person "created on both sides: what is no boolean closes":
            absent, {"x": 1}, {"x": 1, "active": "true"}
            => {"x": 1, "active": "true"}, push nothing, Remote stands at ["active"];
        Person "closed here and opened there: stays closed until somebody decides":
            {"x": 1}, {"x": 1, "active": false}, {"x": 1, "active": true}
            => {"x": 1, "active": false}, push [["active"]], Local stands at ["active"];
        Person "closed here, and there nothing says it any more":
            {"active": true}, {"active": false}, {"x": 1}
            => {"x": 1, "active": false}, push [["active"]], Local stands at ["active"];
        Person "opened here and closed there":
            {"x": 1}, {"x": 1, "active": true}, {"x": 1, "active": false}
            => {"x": 1, "active": false}, push nothing, Remote stands at ["active"];
        Person "closed on both sides, in other words":
            {"active": true}, {"active": false}, {"active": 0}
            => {"active": 0}, push nothing, Remote stands at ["active"];
        Page "created on both sides: active of a page is a field like any other":
            absent, {"active": false}, {"x": 1} => {"x": 1, "active": false}, push [["active"]];
        Page "created on both sides with keys that cannot be addressed":
            absent, {"a.b": 1, "s": {"$x": 1}}, {"a.b": 2, "s": {"y": 1}}
            => {"a.b": 2, "s": {"y": 1}}, push nothing, Remote stands at ["a.b"], Remote stands at ["s"];
    }
}

#[test]
fn two_records_of_one_person_or_of_two() {
    let born = |day: &str| DateTime::parse_rfc3339_str(format!("{day}T13:05:00Z")).unwrap();
    let ana = doc! {"name": "Ana", "lastname": "Betz", "gender": "female", "dob": born("1985-10-04")};
    for (what, agrees, change) in [
        ("the same", true, doc! {}),
        ("case and accents", true, doc! {"name": "ÁNA", "lastname": " betz "}),
        ("the birth day as text", true, doc! {"dob": "1985-10-04"}),
        ("another hour of the day", true, doc! {"dob": DateTime::from_millis(497_232_000_000)}),
        ("a missing value agrees", true, doc! {"dob": null, "gender": "", "name": []}),
        ("a name of another type", false, doc! {"name": 5}),
        ("other fields do not count", true, doc! {"profession": "nurse", "active": false}),
        ("gender as a letter", true, doc! {"gender": "f"}),
        ("gender in Spanish", true, doc! {"gender": "Femenino"}),
        ("an unknown gender", true, doc! {"gender": "Unknown"}),
        ("invisible marks", true, doc! {"name": "\u{200E}A\u{AD}na\u{200C}", "lastname": "Be\u{200D}tz"}),
        ("full width", true, doc! {"name": "Ａｎａ", "lastname": "\u{A0}Betz\u{2009}"}),
        ("a moment as text, in a zone", true, doc! {"dob": "1985-10-04T00:00:00+02:00"}),
        ("the day in Persian digits", true, doc! {"dob": "۱۹۸۵-۱۰-۰۴"}),
        ("another name", false, doc! {"name": "Anna"}),
        ("another lastname", false, doc! {"lastname": "Betz-Cordara"}),
        ("another gender", false, doc! {"gender": "male"}),
        ("another day", false, doc! {"dob": "1985-10-05"}),
        ("another date", false, doc! {"dob": born("1985-10-05")}),
        ("a day that cannot be read: in doubt two people", false, doc! {"dob": "4 October"}),
    ] {
        let mut other = ana.clone();
        other.extend(change);
        assert_eq!(same_identity(&ana, &other), agrees, "{what}");
        assert_eq!(same_identity(&other, &ana), agrees, "{what}, the other way round");
    }
    for (a, b) in [
        (doc! {"name": "Sean", "lastname": "O'Brien"}, doc! {"name": "Seán", "lastname": "O’Brien"}),
        (doc! {"name": "Jan", "lastname": "Weiß"}, doc! {"name": "JAN", "lastname": "WEISS"}),
        (doc! {"name": "Ana", "lastname": "Pérez-Gómez"}, doc! {"name": "Ana", "lastname": "Pérez  Gómez"}),
        (doc! {"name": "علی‌رضا", "lastname": "کریمی"}, doc! {"name": "على رضا", "lastname": "كريمي"}),
        (doc! {"name": "Γιώργος"}, doc! {"name": "ΓΙΩΡΓΟΣ"}),
        (doc! {"name": "İpek", "lastname": "Işık"}, doc! {"name": "ipek", "lastname": "ışık"}),
    ] {
        assert!(same_identity(&a, &b), "{a} {b}");
        assert_eq!(identity_of(&a), identity_of(&b), "they ask the same question");
    }
    for nothing in ["?", "-", "N/A", "unspecified", "desconocido", "non spécifié", ""] {
        assert!(
            same_identity(&doc! {"name": "Ana", "gender": nothing}, &doc! {"name": "Ana", "gender": "f"}),
            "{nothing}"
        );
    }
    assert!(same_identity(&doc! {"gender": "kvinna"}, &doc! {"gender": "F"}));
    // Of other types, as old imports have them.
    let born = |day: Bson| doc! {"name": "Ana", "dob": day};
    assert!(same_identity(
        &born(633_830_400_000_i64.into()),
        &born(DateTime::from_millis(633_830_400_000).into())
    ));
    assert!(!same_identity(&born(633_830_400_000_i64.into()), &born(633_916_800_000_i64.into())));
    assert!(!same_identity(&born(1985.into()), &born(1986.into())));
    assert!(same_identity(&born(Bson::Null), &born(1986.into())));
    assert!(!same_identity(&doc! {"name": ["Ana"]}, &doc! {"name": ["Bea"]}));
    assert!(same_identity(&doc! {"name": []}, &doc! {"name": ["Bea"]}));
    let unread = |day: &str| doc! {"name": "Ana", "dob": day};
    assert!(same_identity(&unread("spring 1985"), &unread("Spring 1985")));
    assert!(!same_identity(&unread("spring 1985"), &unread("spring 1986")));
    assert!(!same_identity(&unread("1/12/1990"), &unread("11/2/1990")));
}

/// Year first there is one meaning, in any typography; day first there are two, and such texts are compared as typed.
#[test]
fn a_day_of_birth_is_one_day_in_any_typography() {
    let born = |day: Bson| doc! {"name": "Ana", "dob": day};
    let midnight = || Bson::DateTime(DateTime::parse_rfc3339_str("1990-02-01T00:00:00Z").unwrap());
    for text in [
        "1990–02–01",
        "1990\u{2011}02\u{2011}01",
        "1990\u{2212}02\u{2212}01",
        "1990/02/01",
        "1990.02.01",
        "1990.02.01.",
        "1990. 2. 1.",
        "1990_02_01",
        "1990-2-1",
        "19900201",
        "1990 02 01",
        "١٩٩٠/٠٢/٠١",
        "۱۹۹۰/۲/۱",
        "1990年2月1日",
        "1990년 2월 1일",
        "1990-02-01Z",
        "1990-02-01+01:00",
        "1990-02-01-08:00",
        "1990-02-01T230000-08:00",
        "633830400000",
        "1990-032",
        "1990-W05-4",
        "1990W054",
        "19900201000000",
        "\u{FEFF}1990-02-01\u{200E}",
        "1 Feb 1990",
    ] {
        for day in [Bson::from("1990-02-01"), midnight()] {
            assert!(same_identity(&born(text.into()), &born(day.clone())), "{text} {day}");
        }
        assert!(!same_identity(&born(text.into()), &born("1990-02-02".into())), "{text}");
        assert!(!same_identity(&born(text.into()), &born("1990-01-02".into())), "{text}");
    }
    for (a, b) in [("01.02.1990", "02.01.1990"), ("1/2/1990", "1990-02-01"), ("01021990", "1990-02-01")] {
        assert!(!same_identity(&born(a.into()), &born(b.into())), "{a} {b}");
    }
    assert!(same_identity(&born("1–2–1990".into()), &born("1-2-1990".into())));
}

/// What a client may write onto a date as a number is that day of birth where people are compared; any other number is no day,
/// and people are kept apart.
#[test]
fn a_number_is_the_day_of_birth_for_which_the_api_takes_it() {
    let born = |day: Bson| doc! {"name": "Ana", "dob": day};
    let at = |ms: i64| born(Bson::DateTime(DateTime::from_millis(ms)));
    for ms in [
        0,
        1990,
        -1,
        19_800_505,
        497_279_100,
        -86_400_000,
        9_999_999_999,
        -9_999_999_999,
        10_000_000_000,
        -10_000_000_000,
        -618_105_600_000,
        497_275_500_000,
        198_510_041_305,
        19_851_004_130_500,
        253_402_300_800_000,
    ] {
        let whole = Bson::Int64(ms);
        for number in [whole.clone(), Bson::Double(ms as f64), doc! {"$date": whole}.into()] {
            let json = number.clone().into_relaxed_extjson();
            let is_taken = date_of(&json).is_some_and(|date| date.timestamp_millis() == ms);
            assert_eq!(same_identity(&born(number.clone()), &at(ms)), is_taken, "{number}");
            let (person, path) = (Kind::Person.schema(), ["dob".to_owned()]);
            let is_same = same_meaning(person, &path, &number, &DateTime::from_millis(ms).into());
            assert_eq!(is_same, is_taken, "{number}");
            // A number is itself, whatever it means.
            assert!(same_identity(&born(number.clone()), &born(number)));
        }
        let is_number_taken = date_of(&ms.into()).is_some();
        let is_long = ms.unsigned_abs() >= 10_000_000_000;
        assert!(is_long || !is_number_taken, "{ms}: fewer than eleven digits");
    }
    assert!(!same_identity(&born(497_275_500_000_i64.into()), &at(497_275_500_000 + 86_400_000)));
}

/// Only what may be a midnight of some zone, as UTC shows it, is the next day. A clock without a zone is one of the day that
/// was written, and of no other.
#[test]
fn a_time_of_birth_is_one_of_its_own_day() {
    let born = |dob: &Bson| doc! {"name": "Ana", "dob": dob.clone()};
    let date = |text: &str| Bson::DateTime(DateTime::parse_rfc3339_str(text).unwrap());
    let (own, next): (Bson, Bson) = ("1985-10-04".into(), "1985-10-05".into());
    for text in [
        "1985-10-04T10:00:00",
        "1985-10-04 13:05",
        "1985-10-04 13:15:00",
        "1985-10-04T18:30:00",
        "1985-10-04T20:00:00",
        "1985-10-04T22:00:00",
        "19851004230000",
        "Fri Oct  4 20:00:00 1985",
        "1985年10月4日 23:45",
        // Neither is a clock with another zone than UTC: it shows the day.
        "1985-10-04T22:00:00+02:00",
        "Fri, 04 Oct 1985 20:00:00 EST",
        // A time that is a midnight nowhere.
        "1985-10-04T13:05:00Z",
        "Fri, 04 Oct 1985 13:15:00 GMT",
        "1985-10-04T19:45:00+00:00",
    ] {
        let text = Bson::from(text);
        assert!(same_identity(&born(&text), &born(&own)), "{text}");
        assert!(!same_identity(&born(&text), &born(&next)), "{text}");
    }
    for text in ["1930-10-04T13:05:00", "1930-10-04 20:00", "1930-10-04 23:40:28"] {
        assert!(!same_identity(&born(&text.into()), &born(&"1930-10-05".into())), "{text}");
    }
    for time in
        ["00:00:00", "05:00:00", "09:45:00", "13:05:00", "13:15:00", "14:45:00", "20:00:01", "20:00:00.5"]
    {
        let moment = date(&format!("1985-10-04T{time}Z"));
        assert!(same_identity(&born(&moment), &born(&own)), "{time}");
        assert!(!same_identity(&born(&moment), &born(&next)), "{time}");
    }
    // Kyiv, Lagos, India, Nepal, Eucla, Nouméa.
    for time in ["22:00:00", "23:00:00", "18:30:00", "18:15:00", "15:15:00", "13:00:00"] {
        let moment = date(&format!("1985-10-04T{time}Z"));
        for day in [&moment, &format!("1985-10-04T{time}.000Z").into()] {
            assert!(same_identity(&born(day), &born(&next)), "{day}");
            assert!(!same_identity(&born(day), &born(&own)), "{day}");
        }
        // Written down without its zone it is the same date all the same.
        let text = Bson::from(format!("1985-10-04 {time}"));
        assert!(same_identity(&born(&text), &born(&moment)), "{time}");
    }
}

/// Apart from midnights on both sides of the date line, a moment is one day: if two agree with a third, they agree.
#[test]
fn a_day_of_birth_agrees_by_way_of_no_third_one() {
    let start = DateTime::parse_rfc3339_str("1990-01-31T00:00:00Z").unwrap().timestamp_millis();
    let is_on_both = |ms: i64| {
        let time = ms.rem_euclid(86_400_000);
        (36_000_000..=43_200_000).contains(&time) && time % 900_000 == 0
    };
    let moments =
        (0..3 * 96).map(|n| start + n * 900_000 + n % 3 / 2 * 300_000).filter(|ms| !is_on_both(*ms));
    let mut births: Vec<Bson> = moments.map(|ms| DateTime::from_millis(ms).into()).collect();
    births.extend(["1990-01-31", "1990-02-01", "1990-02-02", "1990-02-03"].map(Bson::from));
    let people: Vec<Document> = births.into_iter().map(|dob| doc! {"name": "Ana", "dob": dob}).collect();
    let days: std::collections::BTreeSet<String> =
        people.iter().map(|one| identity_of(one).get_str("dob").unwrap().to_owned()).collect();
    assert_eq!(
        days.into_iter().collect::<Vec<_>>(),
        ["1990-01-31", "1990-02-01", "1990-02-02", "1990-02-03"]
    );
    for a in &people {
        for b in &people {
            assert_eq!(same_identity(a, b), identity_of(a) == identity_of(b), "{a} {b}");
        }
    }
}

/// Who has no name may be anybody, until both sides have once agreed about who it is.
#[test]
fn one_without_a_name_is_nobody_in_particular() {
    let rosa = doc! {"name": "Rosa", "lastname": "Cruz", "gender": "f", "dob": "1975-05-05"};
    for nameless in [
        doc! {},
        doc! {"gender": "f"},
        doc! {"name": "", "lastname": " ", "gender": "f"},
        doc! {"name": Bson::Null, "lastname": Bson::Null, "gender": "f", "dob": "1975-05-05"},
    ] {
        assert!(is_other_person(None, &nameless, &rosa), "{nameless}");
        assert!(is_other_person(None, &rosa, &nameless), "{nameless}");
        // A newborn is given a name.
        assert!(!is_other_person(Some(&nameless), &nameless, &rosa), "{nameless}");
        assert!(!is_other_person(None, &nameless, &nameless), "{nameless}");
    }
    assert!(!is_other_person(None, &doc! {"lastname": "CRUZ"}, &rosa));
}

#[test]
fn genders_in_the_words_of_many_languages() {
    let person = |gender: &str| doc! {"name": "Ana", "gender": gender};
    for word in [
        "женщина",
        "Женский",
        "γυναίκα",
        "ΓΥΝΑΙΚΑ",
        "여성",
        "여자",
        "หญิง",
        "perempuan",
        "נקבה",
        "női",
        "žena",
        "donna",
        "nainen",
        "weiblich",
        "kadın",
        "女",
        "أنثى",
        "mujer",
        "féminin",
        "vrouw",
        "nữ",
        "महिला",
        "mwanamke",
    ] {
        assert!(same_identity(&person(word), &person("f")), "{word}");
        assert!(!same_identity(&person(word), &person("m")), "{word}");
    }
    for word in [
        "мужчина",
        "мужской",
        "άνδρας",
        "남성",
        "남자",
        "ชาย",
        "laki-laki",
        "Laki laki",
        "זכר",
        "férfi",
        "muž",
        "uomo",
        "mies",
        "maennlich",
        "männlich",
        "erkek",
        "男",
        "ذكر",
        "hombre",
        "masculin",
        "nam",
        "पुरुष",
        "mwanaume",
        "man",
    ] {
        assert!(same_identity(&person(word), &person("male")), "{word}");
        assert!(!same_identity(&person(word), &person("female")), "{word}");
    }
    for word in ["未知", "неизвестно", "Unknown", "?", "άγνωστο", "n/a", "알 수 없음"]
    {
        assert!(
            same_identity(&person(word), &person("f")) && same_identity(&person(word), &person("m")),
            "{word}"
        );
    }
}

/// A day of birth is stored as text, as midnight UTC, or as midnight where somebody lives.
#[test]
fn a_day_of_birth_is_one_day_in_every_zone() {
    let moment = |text: &str| Bson::DateTime(DateTime::parse_rfc3339_str(text).unwrap());
    let day = |text: &str| Bson::from(text);
    for (a, b, agrees) in [
        (day("1990-02-01"), moment("1990-02-01T00:00:00Z"), true),
        (day("1990-02-01"), moment("1990-01-31T23:00:00Z"), true),
        (day("1990-02-01"), moment("1990-01-31T22:00:00Z"), true),
        // India, Nepal, Newfoundland, New Zealand in summer, Kiribati; the other way Peru and Hawaii.
        (day("1990-02-01"), moment("1990-01-31T18:30:00Z"), true),
        (day("1990-02-01"), moment("1990-01-31T18:15:00Z"), true),
        (day("1990-02-01"), moment("1990-02-01T03:30:00Z"), true),
        (day("1990-02-01"), moment("1990-01-31T11:00:00Z"), true),
        (day("1990-02-01"), moment("1990-01-31T10:00:00Z"), true),
        (day("1990-02-01"), moment("1990-02-01T05:00:00Z"), true),
        (day("1990-02-01"), moment("1990-02-01T10:00:00Z"), true),
        // Amsterdam before it knew of quarters.
        (day("1930-02-01"), moment("1930-01-31T23:40:28Z"), true),
        (day("1990-02-01"), day("1990-02-01T00:00:00+01:00"), true),
        (day("1990-02-01"), day("Thu, 01 Feb 1990 00:00:00 GMT"), true),
        (moment("1990-02-01T00:00:00Z"), moment("1990-01-31T23:00:00Z"), true),
        (moment("1990-01-31T22:00:00Z"), moment("1990-01-31T23:00:00Z"), true),
        (moment("1990-02-01T05:00:00Z"), moment("1990-01-31T23:00:00Z"), true),
        (day("1990-01-31T23:00:00Z"), moment("1990-02-01T00:00:00Z"), true),
        (day("1990-02-01"), day("1990-02-02"), false),
        (day("1990-02-01"), day("1990-01-31"), false),
        (day("1990-02-01"), moment("1990-01-31T00:00:00Z"), false),
        (day("1990-02-01"), moment("1990-01-31T09:00:00Z"), false),
        (day("1990-02-01"), moment("1990-02-02T00:00:00Z"), false),
        (day("1990-02-01"), moment("1990-02-02T05:00:00Z"), false),
        // The last second of a day is no midnight; 23:00 is that of the next day, and of no other.
        (moment("1990-02-01T00:00:00Z"), moment("1990-02-01T23:00:00Z"), false),
        (day("1990-02-01"), moment("1990-02-01T23:00:00Z"), false),
        (day("1990-02-02"), moment("1990-02-01T23:00:00Z"), true),
        (day("1990-02-01"), moment("1990-02-01T23:59:59Z"), true),
        (day("1990-02-02"), moment("1990-02-01T23:59:59Z"), false),
        (day("1990-02-01"), moment("1990-02-01T12:00:00Z"), true),
        (day("1990-02-02"), moment("1990-02-01T12:00:00Z"), true),
        (day("1990-02-01"), moment("1990-02-01T12:30:00Z"), false),
        // UTC+11:45 is nobody's.
        (day("1990-02-01"), moment("1990-02-01T12:15:00Z"), true),
        (day("1990-02-02"), moment("1990-02-01T09:45:00Z"), false),
        (day("1930-01-31"), moment("1930-01-31T23:40:28Z"), true),
        // A clock with its zone shows the day.
        (day("1990-02-01"), day("1990-02-01T23:00:00+05:00"), true),
        (day("1990-02-02"), day("1990-02-01T23:00:00+05:00"), false),
        (day("1990-02-01"), day("1990-01-31T23:00:00Z"), true),
        (day("1990-02-01"), day("633830400000"), true),
        (moment("1990-02-01T00:00:00Z"), day("633826800000"), true),
        // A time of the day that is midnight nowhere.
        (day("1990-02-01"), moment("1990-01-31T13:05:00Z"), false),
        (moment("1990-02-01T00:00:00Z"), moment("1990-02-02T00:00:00Z"), false),
        (moment("1990-01-31T23:00:00Z"), moment("1990-02-01T23:00:00Z"), false),
        (moment("1990-01-31T23:00:00Z"), moment("1990-02-01T22:00:00Z"), false),
    ] {
        let (one, other) = (doc! {"name": "Ana", "dob": a.clone()}, doc! {"name": "Ana", "dob": b.clone()});
        assert_eq!(same_identity(&one, &other), agrees, "{a} {b}");
        assert_eq!(same_identity(&other, &one), agrees, "{b} {a}");
        assert!(same_identity(&one, &one));
        assert!(agrees || identity_of(&one) != identity_of(&other), "{a} {b}: other questions");
    }
}

/// When the centre's record may have come to be about somebody else: after two of four fields have changed.
#[test]
fn an_account_that_was_given_to_somebody_else() {
    let ana = doc! {"name": "Ana", "lastname": "Betz", "gender": "female", "dob": "1985-10-04"};
    let cases = [
        ("nothing", 0, doc! {}),
        ("another field", 0, doc! {"phone": "1"}),
        ("one", 1, doc! {"name": "Anna"}),
        ("one, and another written differently", 1, doc! {"name": "Anna", "lastname": "BETZ"}),
        ("one, and another taken away", 1, doc! {"name": "Anna", "lastname": null}),
        (
            "all, typed anew",
            0,
            doc! {"name": "ÁNA ", "lastname": "Be\u{AD}tz", "gender": "F", "dob": DateTime::from_millis(497_224_800_000)},
        ),
        ("two", 2, doc! {"name": "Bea", "gender": "male"}),
        ("all", 4, doc! {"name": "Bea", "lastname": "Ruiz", "gender": "male", "dob": "1999-01-01"}),
    ];
    for (what, differences, change) in cases {
        let mut there = ana.clone();
        there.extend(change);
        assert_eq!(identity_differences(&ana, &there), differences, "{what}");
        assert_eq!(is_other_person(Some(&ana), &ana, &there), differences >= 2, "{what}, agreed before");
        assert_eq!(is_other_person(None, &ana, &there), differences >= 1, "{what}, made on both sides");
        // Whoever made the same change here means the same person.
        assert!(!is_other_person(Some(&ana), &there, &there), "{what}, changed here too");
    }
    // A missing value agrees with anything, but if nothing else is left that is no agreement.
    let row = doc! {"name": "Bea"};
    assert!(is_other_person(Some(&ana), &ana, &row));
    assert!(!is_other_person(Some(&ana), &ana, &doc! {"name": "Bea", "dob": "1985-10-04"}));
    assert!(!is_other_person(Some(&doc! {"name": "Ana"}), &doc! {"name": "Ana"}, &row), "no more was known");
    assert!(!is_other_person(Some(&ana), &ana, &doc! {"phone": "1"}), "nothing says something else");
}
