//! Every row of the reconciliation's own that is read by its fields, and what stands for one that cannot be read.

use std::sync::Arc;

use bson::{Document, doc};

use crate::domain::record::Kind;
use crate::store::{Codec, Store, StoreError, StoreOptions};
use crate::sync::apart::Counted;
use crate::sync::budget::{Allowance, Days};
use crate::sync::deletes::{self, Lately};
use crate::sync::former::TakeOver;
use crate::sync::lease::Known;
use crate::sync::no_feed::NoFeed;
use crate::sync::operator::Pause;
use crate::sync::restore::OlderCentre;
use crate::sync::scan::META_SCAN;
use crate::sync::{SyncSettings, apart, lease, position};

fn listed(field: &str, row: &[u8], decode: fn(&[u8]) -> Result<(), StoreError>) -> Result<(), StoreError> {
    let row = Document::from_reader(row).unwrap();
    decode(&bson_bytes(&doc! {field: [row]}))
}

fn inner(outer: Document, field: &str, row: &[u8]) -> Vec<u8> {
    let mut outer = outer;
    outer.insert(field, Document::from_reader(row).unwrap());
    bson_bytes(&outer)
}

fn bson_bytes(row: &Document) -> Vec<u8> {
    let mut bytes = Vec::new();
    row.to_writer(&mut bytes).unwrap();
    bytes
}

fn codecs() -> Vec<Codec> {
    let lease = doc! {"number": 5_i64, "nonce": "n"};
    let mut counts = Document::new();
    let collections = Kind::ALL.map(|kind| kind.schema().collection);
    counts.extend(collections.map(|collection| (collection.to_owned(), 3_i64.into())));
    vec![
        Codec {
            // Written where the centre holds a lease at all.
            may_lack: &["there"],
            ..Codec::new("an older centre", doc! {"there": 1_i64, "agreed": true, "sent": false}, |row| {
                OlderCentre::decode(row).map(drop)
            })
        },
        Codec {
            // Where the feed is refused it has no position; what goes with seals is written with the first one.
            may_lack: &["token", "sealing", "sealed", "stalled", "refused"],
            ..Codec::new(
                "the position in the feed",
                doc! {"token": {"t": 1}, "sealing": {"t": 1}, "sealed": {"t": 1}, "stalled": 1, "refused": true},
                position::check,
            )
        },
        Codec {
            // Written where the centre has a feed and refuses it.
            may_lack: &["refused"],
            counts: &["bytes", "so_far"],
            ..Codec::new("no feed", doc! {"bytes": 1_i64, "so_far": 1_i64, "refused": 50}, |row| {
                NoFeed::decode(row).map(drop)
            })
        },
        Codec {
            // Collections of which nothing went lately.
            may_lack: Vec::leak(collections.to_vec()),
            counts: Vec::leak(collections.to_vec()),
            ..Codec::new("records that went lately", counts, |row| Lately::decode(row).map(drop))
        },
        Codec {
            counts: &["sequence"],
            ..Codec::new("deletes that were agreed to", doc! {"sequence": 1_i64}, |row| {
                deletes::decode_accepted(row).map(drop)
            })
        },
        Codec {
            // Earlier versions had no seals and counted no rounds; the others are written while they are known.
            may_lack: &["rounds", "confirmed", "proposed", "seal", "process"],
            ..Codec::new(
                "the lease",
                doc! {"node": "n", "rounds": 3_i64, "confirmed": &lease, "proposed": &lease, "seal": &lease, "process": "p"},
                |row| Known::decode(row).map(drop),
            )
        },
        Codec::new("a lease in its row", lease, |row| {
            Known::decode(&inner(doc! {"node": "n"}, "confirmed", row)).map(drop)
        }),
        Codec::new("the pause", doc! {"at": 1_i64, "by": "local:tech"}, |row| Pause::decode(row).map(drop)),
        Codec {
            // Earlier versions did not count errors of other codes.
            may_lack: &["all"],
            ..Codec::new("faults of a record", doc! {"code": 8, "times": 2_i64, "all": 3_i64}, |row| {
                Counted::decode(row).map(drop)
            })
        },
        Codec {
            // Earlier versions left none out; the others say how far it has come.
            may_lack: &["after", "left_out", "damaged"],
            ..Codec::new(
                "conflicts of a former name",
                doc! {"nodes": ["n1"], "after": "c1", "left_out": 1_i64, "damaged": 1_i64},
                |row| TakeOver::decode(row).map(drop),
            )
        },
        Codec::new("former ids", doc! {"ids": ["n1"]}, |row| lease::decode_former(row).map(drop)),
        Codec::new("the bytes of the last days", doc! {"days": []}, |row| Days::decode(row).map(drop)),
        Codec {
            counts: &["bytes"],
            ..Codec::new("the bytes of one day", doc! {"day": 20_000_i64, "bytes": 5_i64}, |row| {
                listed("days", row, |row| Days::decode(row).map(drop))
            })
        },
    ]
}

#[test]
fn a_field_that_cannot_be_read_makes_its_row_unreadable() {
    codecs().iter().for_each(Codec::assert_strict);
}

/// What stands for each of them is the safe answer.
#[tokio::test]
async fn a_row_that_cannot_be_read_begins_anew() {
    const OPTIONS: StoreOptions =
        StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 100, audit_keep_rows: 100, clock: || 0 };
    let store = Store::in_memory(OPTIONS).unwrap();
    let unreadable = doc! {
        "at": 1.5, "by": 1.5, "nodes": 1.5, "people:ANA": 1.5, "there": 1.5, "agreed": true, "token": 1.5, "bytes": 1.5, "people": 1.5, "sequence": 1.5, "node": 1.5, "days": 1.5,
    };
    let rows = Arc::new(unreadable);
    let job = {
        let rows = Arc::clone(&rows);
        move |tx: &mut crate::store::Tx<'_>| -> Result<(), StoreError> {
            for name in [
                "older_centre",
                "feed",
                "no_feed",
                "deleted_since",
                "deletes_accepted",
                "lease",
                "line_bytes",
                "paused",
                "faults",
                "conflicts_to_take_over",
            ] {
                tx.set_meta(name, Some(&rows))?;
            }
            tx.set_meta("former_nodes", Some(&doc! {"ids": ["n1", "n2"]}))?;
            position::mend(tx)
        }
    };
    store.transact(job).await.unwrap();
    let snapshot = store.read().unwrap();
    // Everything is read, and the feed begins anew.
    assert_eq!(snapshot.meta("feed").unwrap(), None);
    assert_eq!(snapshot.meta(META_SCAN).unwrap().unwrap().get_str("reason").ok(), Some("first"));
    // The operator is asked anew.
    assert_eq!(OlderCentre::noted(&snapshot).unwrap(), None);
    // There is no feed; what it takes is counted anew.
    assert_eq!(NoFeed::known(&snapshot).unwrap().map(NoFeed::bytes), Some(None));
    // It stays paused, and says that nobody knows since when.
    let words = Pause::of(&snapshot).unwrap().expect("a pause").words();
    assert!(
        words.contains("by whom and when cannot be read") && words.contains("once it is resumed"),
        "{words}"
    );
    // All conflicts of all former names are looked at.
    let anew = doc! {"nodes": ["n1", "n2"]}.to_vec().unwrap();
    assert_eq!(TakeOver::known(&snapshot).unwrap(), Some(TakeOver::decode(&anew).unwrap()));
    // It enrols anew.
    assert_eq!((lease::node_id(&snapshot).unwrap(), lease::rounds(&snapshot).unwrap()), (None, 0));
    drop(snapshot);
    // What was answered about a record is counted from one.
    let counting = |tx: &mut crate::store::Tx<'_>| -> Result<[bool; 3], StoreError> {
        let mut is_over = [false; 3];
        for over in &mut is_over {
            *over = apart::count(tx, "people:ANA", 8)?.is_some();
        }
        Ok(is_over)
    };
    assert_eq!(store.transact(counting).await.unwrap(), [false, false, true]);
    // Nor do former ids that cannot be read stand for anybody's.
    let job = |tx: &mut crate::store::Tx<'_>| -> Result<bool, StoreError> {
        tx.set_meta("former_nodes", Some(&doc! {"ids": 1.5}))?;
        lease::was_called(tx, "n1")
    };
    assert!(!store.transact(job).await.unwrap());
    let settings = SyncSettings { budget_bytes_per_day: 100 << 20, ..SyncSettings::default() };
    assert!(Allowance::now(&store, &settings).unwrap().scan_bytes > 0);
}
