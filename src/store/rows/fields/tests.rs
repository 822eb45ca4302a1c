//! Every row that is read by its fields: a field that cannot be read makes it damaged, and no default takes its place.

use bson::{Bson, Document, doc};

use crate::domain::emergency::Emergency;
use crate::domain::moment::Moment;
use crate::domain::record::{Kind, RecordKey};
use crate::store::accounts::Grant;
use crate::store::audit::{Old, marks_in};
use crate::store::holders::{Departed, forgotten_in};
use crate::store::opening::Place;
use crate::store::rows::encoding::{encode, raw};
use crate::store::rows::fields::field_codec::Codec;
use crate::store::sync::{RestoreMode, UnsentVersions, boots_in, decode_intent, is_sealing, own_in};
use crate::store::trash::TrashAge;
use crate::store::{
    BitsPutRight, Conflict, DeadLetter, Delivered, Fields, Held, Hold, Intent, IntentWrite, OpenWrite, Sent,
    StoreError, TrashRow, TrashSummary, Undecided, Waiting,
};

fn page() -> RecordKey {
    RecordKey::new(Kind::Page, "p1")
}

fn write(op: &str) -> Document {
    let mut row = doc! {"number": 1_i64, "op": op};
    row.extend(match op {
        "delete" => doc! {"archive": "a1"},
        "update" => doc! {"changes": [{"path": ["f"], "from": 1, "to": 2}]},
        _ => doc! {"document": {"_id": "p1"}},
    });
    row
}

fn with(mut row: Document, more: Document) -> Document {
    row.extend(more);
    row
}

/// Decodes rows that stand in a list of another one.
fn listed(
    outer: Document,
    field: &str,
    inner: &[u8],
    decode: fn(&[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let inner = Document::try_from(raw(inner)?).unwrap();
    decode(&encode(&with(outer, doc! {field: [inner]}))?)
}

fn conflict() -> Document {
    doc! {"_id": "c1", "kind": 1, "id": "ANA", "path": ["f"], "stands": "local", "status": "open", "author": "",
    "found_at": 1_i64}
}

fn departed() -> Document {
    doc! {"identity": {"_id": "ANA"}, "at": 1_i64}
}

/// What of a conflict is read without its values and notes.
const CONFLICT_MAY_LACK: &[&str] = &[
    // Earlier versions knew one kind of conflict, and did not note whose it was.
    "type",
    "owner",
    "identity",
    "noted_at",
    // Written where they are known, or set.
    "central_identity",
    "edited_at",
    "central_author",
    "central_edited_at",
    "resolution",
    "resolved_by",
    "resolved_at",
    "publisher",
    "row_fingerprint",
    "why",
    "of_another",
    "reopened",
    "withheld",
    "base",
    "local",
    "central",
    "value",
    "notes",
];

fn codecs() -> Vec<Codec> {
    let head = with(
        conflict(),
        doc! {
            "type": "identity", "owner": "ANA", "identity": {"_id": "ANA"}, "central_identity": {"_id": "ANA"},
            "noted_at": 1_i64, "edited_at": 1_i64, "central_author": "x", "central_edited_at": "x", "resolution": "local",
            "resolved_by": "x", "resolved_at": 1_i64, "publisher": "x", "row_fingerprint": "x", "why": "created",
            "of_another": true, "reopened": true, "withheld": true,
        },
    );
    let values = doc! {
        "base": 1, "local": 1, "central": 1, "value": 1,
        "notes": [{"reason": "x", "resolution": "local", "by": "x", "at": 1_i64}],
    };
    let words: &[&str] = &["type", "stands", "status", "why"];
    let mut codecs = vec![
        Codec {
            may_lack: CONFLICT_MAY_LACK,
            words,
            counts: &["noted_at"],
            ..Codec::new("conflict without values", head.clone(), |row| Conflict::head(raw(row)?).map(drop))
        },
        Codec {
            may_lack: CONFLICT_MAY_LACK,
            any_type: &["base", "local", "central", "value"],
            words,
            counts: &["noted_at"],
            ..Codec::new("conflict", with(head, values), |row| Conflict::decode(row).map(drop))
        },
        Codec {
            // No value was written with the decision.
            may_lack: &["value"],
            any_type: &["value"],
            ..Codec::new(
                "note of a conflict",
                doc! {"reason": "x", "resolution": "local", "value": 1, "by": "x", "at": 1_i64},
                |row| listed(conflict(), "notes", row, |row| Conflict::decode(row).map(drop)),
            )
        },
        Codec {
            words: &["direction"],
            ..Codec::new(
                "refused record",
                doc! {"direction": "push", "code": 1, "reason": "no", "at": 1_i64},
                |row| DeadLetter::decode(page(), row).map(drop),
            )
        },
        Codec {
            // Earlier versions did not observe time; the others are written where there is something to say.
            may_lack: &["observed", "identity", "given_at", "held"],
            words: &["state"],
            counts: &["given_at"],
            ..Codec::new(
                "trash",
                doc! {
                    "document": {"_id": "p1", "book": "ANA"}, "actor": "local:tech", "at": 1_i64, "state": "done",
                    "observed": 1_i64, "identity": {"_id": "ANA"}, "given_at": 1_i64, "held": true,
                },
                |row| TrashSummary::decode(page(), 1, row).map(drop),
            )
        },
        Codec {
            may_lack: &["identity", "given_at", "held"],
            words: &["state"],
            counts: &["given_at"],
            ..Codec::new(
                "body in the trash",
                doc! {
                    "document": {"_id": "p1", "book": "ANA"}, "state": "done", "identity": {"_id": "ANA"},
                    "given_at": 1_i64, "held": true,
                },
                |row| TrashRow::decode(page(), 1, row).map(drop),
            )
        },
        Codec {
            // Only where the centre has the other person no longer.
            may_lack: &["gone"],
            words: &["why"],
            ..Codec::new(
                "hold",
                doc! {
                    "conflict": "c1", "local": "ANA", "remote": "ANA", "why": "created", "since": 1_i64,
                    "gone": {"_id": "ANA"},
                },
                |row| Hold::decode("ana", row).map(drop),
            )
        },
        Codec {
            // Only where it is set.
            may_lack: &["agreed"],
            ..Codec::new(
                "held record",
                doc! {"account": "ana", "document": {"_id": "p1"}, "agreed": true},
                |row| Held::decode(row).map(drop),
            )
        },
        Codec {
            // Earlier versions wrote neither `since` nor `succeeded`; the others stand where there is something to say.
            may_lack: &["since", "succeeded", "only_here", "stood", "late"],
            counts: &["since", "at"],
            ..Codec::new(
                "person who is gone",
                with(
                    departed(),
                    doc! {
                        "since": 1_i64, "succeeded": true, "only_here": true, "stood": {"_id": "ANA"},
                        "late": [{"kind": 1, "id": "ANA"}],
                    },
                ),
                |row| Departed::decode(row).map(drop),
            )
        },
        Codec::new("late record", doc! {"kind": 1, "id": "ANA"}, |row| {
            listed(departed(), "late", row, |row| Departed::decode(row).map(drop))
        }),
        Codec {
            counts: &["first"],
            ..Codec::new(
                "versions of an unsent record",
                doc! {"first": 1_i64, "deleted": false, "versions": []},
                |row| UnsentVersions::decode(row).map(drop),
            )
        },
        Codec {
            // A record that was deleted has no document.
            may_lack: &["document"],
            counts: &["changed_by"],
            ..Codec::new(
                "a version of an unsent record",
                doc! {"changed_by": 1_i64, "document": {"_id": "p1"}},
                |row| {
                    let outer = doc! {"first": 1_i64, "deleted": false};
                    listed(outer, "versions", row, |row| UnsentVersions::decode(row).map(drop))
                },
            )
        },
        Codec {
            // A record that was deleted at the centre has no document there. Whose the centre's is, is decided rarely.
            may_lack: &["central", "decided_owner"],
            ..Codec::new(
                "undecided record",
                doc! {"conflict": "c1", "central": {"_id": "p1"}, "decided_owner": {"_id": "ANA"}},
                |row| Undecided::decode(row).map(drop),
            )
        },
        Codec {
            words: &["why"],
            ..Codec::new("waiting record", doc! {"account": "ana", "why": "unsent"}, |row| {
                Waiting::decode(page(), row).map(drop)
            })
        },
        Codec {
            // Earlier versions did not note for whom it was opened.
            may_lack: &["identity"],
            ..Codec::new(
                "emergency",
                doc! {
                    "who": "x", "person": "x", "identity": {"_id": "ANA"}, "reason": "x", "peer": "x", "at": 1_i64,
                    "ended": false,
                },
                |row| Emergency::decode(1, row).map(drop),
            )
        },
        Codec {
            may_lack: &["from", "to"],
            any_type: &["from", "to"],
            ..Codec::new("change of a write", doc! {"path": ["f"], "from": 1, "to": 2}, |row| {
                let outer = doc! {"number": 1_i64, "op": "update"};
                listed(outer, "changes", row, |row| decode_intent(row).map(drop))
            })
        },
        Codec {
            // Early versions bound roles to nothing; such a row grants none.
            may_lack: &["id", "password", "here"],
            ..Codec::new(
                "grants",
                doc! {"roles": ["nurse"], "here": ["nurse"], "id": "ANA", "password": "x"},
                |row| Grant::decode(row).map(drop),
            )
        },
        // What `meta` keeps.
        Codec {
            counts: &["bits", "blocks"],
            ..Codec::new("wrong bits", doc! {"bits": 1_i64, "blocks": 1_i64, "last": 1_i64}, |row| {
                BitsPutRight::decode(row).map(drop)
            })
        },
        Codec {
            // Where a step begins.
            may_lack: &["at"],
            ..Codec::new("owners that are noted", doc! {"boot": "b", "step": 1, "at": {"id": "x"}}, |row| {
                Place::decode(row).map(drop)
            })
        },
        Codec {
            counts: &["next"],
            ..Codec::new("age of the trash", doc! {"observed": 1_i64, "at": 1_i64, "next": 1_i64}, |row| {
                TrashAge::decode(row).map(drop)
            })
        },
        Codec {
            counts: &["seq"],
            ..Codec::new("age of the trail", doc! {"keep": 1_i64, "observed": 1_i64, "seq": 1_i64}, |row| {
                Old::decode(row).map(drop)
            })
        },
        Codec {
            counts: &["seq"],
            ..Codec::new("mark in the trail", doc! {"seq": 1_i64, "observed": 1_i64}, |row| {
                listed(doc! {}, "marks", row, |row| marks_in(row).map(drop))
            })
        },
        Codec::new("all that was taken", doc! {"sealing": true}, |row| is_sealing(row).map(drop)),
        Codec {
            // Only where it is set.
            may_lack: &["partial"],
            ..Codec::new("restore", doc! {"swept": true, "partial": true}, |row| {
                RestoreMode::decode(row).map(drop)
            })
        },
        Codec::new("restored record", doc! {"own": []}, |row| {
            // An empty row is one of a record that was brought together already.
            match own_in(row)? {
                None => Err(StoreError::Damaged(String::new())),
                Some(_) => Ok(()),
            }
        }),
        Codec {
            counts: &["from"],
            ..Codec::new("process that edited", doc! {"name": "b1", "from": 1_i64}, |row| {
                listed(doc! {}, "boots", row, |row| boots_in(row).map(drop))
            })
        },
        Codec {
            counts: &["through"],
            ..Codec::new("forgotten accounts", doc! {"through": 1_i64}, |row| forgotten_in(row).map(drop))
        },
    ];
    for op in ["insert", "replace", "update", "delete"] {
        codecs.push(Codec {
            // Written where they are known; earlier versions noted no author.
            may_lack: &["after", "author"],
            words: &["op"],
            counts: &["number"],
            ..Codec::new("intent", with(write(op), doc! {"after": 1_i64, "author": "x"}), |row| {
                decode_intent(row).map(drop)
            })
        });
        codecs.push(Codec {
            may_lack: &["author"],
            words: &["op"],
            counts: &["number"],
            ..Codec::new(
                "sent write",
                with(write(op), doc! {"kind": 1, "id": "ANA", "lease": 1_i64, "author": "x"}),
                |row| Sent::decode(1, row).map(drop),
            )
        });
        let mut own = write(op);
        own.remove("number");
        codecs.push(Codec {
            words: &["op"],
            ..Codec::new("own write of a restored record", own, |row| {
                listed(doc! {}, "own", row, |row| own_in(row).map(drop))
            })
        });
        let mut open = write(op);
        open.remove("document");
        open.remove("changes");
        codecs.push(Codec {
            words: &["op"],
            counts: &["number"],
            ..Codec::new("open write", open, |row| OpenWrite::decode(row).map(drop))
        });
    }
    codecs
}

#[test]
fn a_field_that_cannot_be_read_makes_its_row_damaged() {
    codecs().iter().for_each(Codec::assert_strict);
}

/// It is the centre's: what cannot be read there says that nothing was delivered.
#[test]
fn a_row_of_the_centre_that_cannot_be_read_delivers_nothing() {
    let row = doc! {"delivered": 5_i64, "undelivered": [4_i64], "boots": {"b1": 1_i64}};
    assert_ne!(Delivered::of_row(&row), Delivered::default());
    for field in row.keys() {
        let (mut lacking, mut other) = (row.clone(), row.clone());
        lacking.remove(field);
        other.insert(field, 1.5);
        for bad in [lacking, other] {
            assert_eq!(Delivered::of_row(&bad), Delivered::default(), "{bad}");
        }
    }
    for bad in [-1_i64, i64::MIN] {
        let row = with(row.clone(), doc! {"undelivered": [4_i64, bad]});
        assert_eq!(Delivered::of_row(&row), Delivered::default());
    }
}

/// Moments of the centre are seconds in the upper half: from 2038 on they are no positive number of 64 bits with a sign.
#[test]
fn an_intent_of_any_moment_is_read_as_it_was() {
    for seconds in [0, 1, i32::MAX as u64, 1 << 31, u64::from(u32::MAX)] {
        let after = Some(Moment(seconds << 32 | 7));
        let intent =
            Intent { number: 1, after, author: String::new(), write: IntentWrite::Insert(doc! {"_id": "a"}) };
        let row = encode(&intent.encode()).unwrap();
        assert_eq!(decode_intent(&row).unwrap(), intent);
    }
}

#[test]
fn null_stands_for_no_text_where_it_is_written_so() {
    let row = encode(&doc! {"none": Bson::Null, "text": "x", "number": 1}).unwrap();
    let fields = Fields::of(&row, "a row").unwrap();
    assert_eq!(fields.text_or_null("none").unwrap(), None);
    assert_eq!(fields.text_or_null("missing").unwrap(), None);
    assert_eq!(fields.text_or_null("text").unwrap(), Some("x"));
    assert!(matches!(fields.text_or_null("number"), Err(StoreError::Damaged(_))));
}
