//! Fetching and scanning.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Timestamp, doc};
use thalamus_edge::central::{Central, Fetched, Written};
use thalamus_edge::domain::record::Kind;

use super::{Behind, insert};

/// Identifiers in the order of their UTF-8 bytes, which is not that of UTF-16 nor of any language.
const ORDERED: [&str; 12] = ["", " ", "A", "B", "a", "b", "z", "ß", "é", "ł", "\u{ffff}", "\u{1f600}"];

pub(crate) async fn scan_all(
    central: &mut dyn Central,
    kind: Kind,
    after: Option<&str>,
    max: usize,
) -> Vec<String> {
    central.scan(kind, after, &[]).await.expect("a scan");
    rest_of_scan(central, max).await
}

async fn rest_of_scan(central: &mut dyn Central, max: usize) -> Vec<String> {
    let mut ids = Vec::new();
    loop {
        let batch = central.scan_next(max).await.expect("a batch");
        assert!(batch.len() <= max, "{} instead of {max}", batch.len());
        if batch.is_empty() {
            return ids;
        }
        ids.extend(batch.iter().map(|fetched| fetched.id().to_owned()));
    }
}

/// Scans in order, resumes after any identifier, passes over those that are no strings and lists them.
pub(crate) async fn order_and_resumption(central: &mut dyn Central, behind: &dyn Behind, kind: Kind) {
    assert_eq!(central.estimated_count(kind).await.expect("a count"), 0);
    assert_eq!(scan_all(central, kind, None, 5).await, Vec::<String>::new());
    for id in ORDERED.iter().rev() {
        behind.put(kind, doc! {"_id": *id}).await;
    }
    // Every type that an identifier can have and that a server of the tests stores as it is.
    let unsupported: [Bson; 14] = [
        Bson::MinKey,
        Bson::Null,
        Bson::Int32(7),
        Bson::Int64(1 << 40),
        Bson::Double(f64::NEG_INFINITY),
        Bson::Decimal128("1.5".parse().expect("a decimal")),
        Bson::Document(doc! {"a": "b"}),
        Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: vec![1] }),
        Bson::ObjectId(ObjectId::from_bytes([1; 12])),
        Bson::Boolean(true),
        Bson::DateTime(DateTime::from_millis(-1)),
        Bson::Timestamp(Timestamp { time: 5, increment: 1 }),
        Bson::JavaScriptCode("x".to_owned()),
        Bson::MaxKey,
    ];
    for id in &unsupported {
        behind.put(kind, doc! {"_id": id}).await;
    }
    for max in [1, 2, 3, 5, 100] {
        assert_eq!(scan_all(central, kind, None, max).await, ORDERED, "{max}");
    }
    for (at, id) in ORDERED.iter().enumerate() {
        assert_eq!(scan_all(central, kind, Some(id), 4).await, ORDERED[at + 1..], "after {id:?}");
    }
    assert_eq!(scan_all(central, kind, Some("aa"), 4).await, ORDERED[5..]);
    let listed = central.unsupported_ids(kind, 100).await.expect("a list");
    let listed: BTreeSet<String> = listed.into_iter().collect();
    let expected = unsupported.iter().map(|id| id.clone().into_relaxed_extjson().to_string());
    assert_eq!(listed, expected.collect());
    assert_eq!(central.unsupported_ids(kind, 2).await.expect("a list").len(), 2);
    assert_eq!(central.unsupported_content_ids(100).await.expect("a list"), [""; 0]);
    behind.put_elsewhere("fs.files", vec![doc! {"_id": "a"}, doc! {"_id": 7}, doc! {"_id": true}]).await;
    let mut listed = central.unsupported_content_ids(100).await.expect("a list");
    listed.sort_unstable();
    assert_eq!(listed, ["7", "true"]);
    assert_eq!(central.unsupported_content_ids(1).await.expect("a list").len(), 1);
    let count = central.estimated_count(kind).await.expect("a count");
    assert_eq!(count, (ORDERED.len() + unsupported.len()) as u64);
    large_documents(central, behind, kind).await;
}

/// Large documents are listed, can be fetched, and a scan can pass over them.
async fn large_documents(central: &mut dyn Central, behind: &dyn Behind, kind: Kind) {
    let large = doc! {"_id": "b large", "text": "x".repeat(300 * 1024)};
    behind.put(kind, large.clone()).await;
    assert_eq!(central.large_ids(kind, None).await.expect("a list"), ["b large"]);
    assert_eq!(central.large_ids(kind, Some("b large")).await.expect("a list"), [""; 0]);
    central.scan(kind, None, &["b large".to_owned()]).await.expect("a scan");
    assert_eq!(rest_of_scan(central, 5).await, ORDERED);
    assert_eq!(scan_all(central, kind, Some("b"), 5).await[0], "b large");
    // Further than one look reaches.
    let many = (0..2_100).map(|n| doc! {"_id": format!("c {n:04}"), "text": "x"});
    behind.put_all(kind, many.collect()).await;
    behind.put(kind, doc! {"_id": "c 1500 large", "text": "x".repeat(300 * 1024)}).await;
    assert_eq!(central.large_ids(kind, None).await.expect("a list"), ["b large", "c 1500 large"]);
    assert_eq!(central.large_ids(kind, Some("c 0999")).await.expect("a list"), ["c 1500 large"]);
    assert_eq!(central.large_ids(kind, Some("c 1501")).await.expect("a list"), [""; 0]);
    let fetched = central.fetch(kind, &["b large".to_owned()]).await.expect("a document");
    assert_eq!(
        fetched,
        [Fetched::Document { id: "b large".to_owned(), document: large.try_into().expect("a document") }]
    );
}

/// Every document once, whatever the sizes of the batches; returns how long it took.
pub(crate) async fn scan_many(
    central: &mut dyn Central,
    behind: &dyn Behind,
    kind: Kind,
    count: usize,
) -> Duration {
    let ids: Vec<String> = (0..count).map(|n| format!("{n:06}")).collect();
    for part in ids.chunks(1000) {
        let documents = part.iter().map(|id| doc! {"_id": id, "text": "x".repeat(100)});
        behind.put_all(kind, documents.collect()).await;
    }
    let started = Instant::now();
    central.scan(kind, None, &[]).await.expect("a scan");
    let mut found = Vec::new();
    let mut max = 50;
    loop {
        let batch = central.scan_next(max).await.expect("a batch");
        if batch.is_empty() {
            break;
        }
        found.extend(batch.iter().map(|fetched| fetched.id().to_owned()));
        max = (max * 2).min(500);
    }
    let took = started.elapsed();
    assert!(found == ids, "{} instead of {count}", found.len());
    took
}

/// People with the fields by which they are told apart, and nothing else of them.
pub(crate) async fn identities(central: &mut dyn Central, behind: &dyn Behind) {
    let ana = doc! {"_id": "ANA", "name": "Ana", "lastname": "Betz", "dob": "1985-10-04", "gender": "f"};
    let mut stored = ana.clone();
    stored.extend(doc! {"password": "x", "roles": ["root"], "phone": "1"});
    behind.put(Kind::Person, stored).await;
    behind.put(Kind::Person, doc! {"_id": "BOB", "name": 5}).await;
    let mut found = central.identities(&["BOB", "none", "ANA"].map(str::to_owned)).await.expect("people");
    found.sort_by_key(|person| person.get_str("_id").expect("an id").to_owned());
    assert_eq!(found, [ana, doc! {"_id": "BOB", "name": 5}]);
}

/// Fetches what exists, each with its bytes.
pub(crate) async fn fetch(central: &mut dyn Central, behind: &dyn Behind, kind: Kind) {
    let stored = [
        doc! {"_id": "f1", "n": {"$numberLong": "5"}, "d": 1.0, "i": 1, "l": 1_i64, "nan": f64::NAN},
        doc! {"_id": "f2", "b": {"a": []}, "a": {"b": null, "$x": 1, "x.y": 2, "": 3}, "z": -0.0},
        doc! {"_id": "f3", "k": Bson::MaxKey, "t": Bson::Timestamp(Timestamp { time: 1, increment: 2 })},
    ];
    for document in &stored {
        behind.put(kind, document.clone()).await;
    }
    let ids = ["f3", "none", "f1", "f2", "f1"].map(str::to_owned);
    let mut found = central.fetch(kind, &ids).await.expect("documents");
    found.sort_by(|a, b| a.id().cmp(b.id()));
    assert_eq!(found.len(), stored.len());
    for (found, stored) in found.iter().zip(&stored) {
        let Fetched::Document { document, .. } = found else {
            panic!("{found:?}");
        };
        assert_eq!(document.bytes().as_bytes(), stored.to_vec().expect("bytes"));
    }
    assert_eq!(central.fetch(kind, &[]).await.expect("nothing"), []);
    let many: Vec<String> = (0..300).map(|n| format!("many {n}")).collect();
    behind.put_all(kind, many.iter().map(|id| doc! {"_id": id}).collect()).await;
    let before = central.traffic().round_trips;
    assert_eq!(central.fetch(kind, &many).await.expect("documents").len(), many.len());
    assert_eq!(central.traffic().round_trips, before + 1);
}

/// Documents that are too much for one answer: each is handed out once, and what does not exist is told in the end.
pub(crate) async fn large_fetch(central: &mut dyn Central, behind: &dyn Behind, kind: Kind) {
    let large: Vec<String> = (0..6).map(|n| format!("heavy {n}")).collect();
    for id in &large {
        behind.put(kind, doc! {"_id": id, "f": "x".repeat(3 << 20)}).await;
    }
    let mut left = [vec!["none".to_owned()], large.clone()].concat();
    let (mut found, mut answers) = (Vec::new(), 0);
    while !left.is_empty() {
        let (rest, read): (Vec<Fetched>, Vec<Fetched>) = central
            .fetch(kind, &left)
            .await
            .expect("documents")
            .into_iter()
            .partition(|fetched| matches!(fetched, Fetched::Deferred { .. }));
        assert!(!read.is_empty() || rest.is_empty(), "nothing of {} was read", left.len());
        found.extend(read.iter().map(|read| read.id().to_owned()));
        left = rest.iter().map(|left| left.id().to_owned()).collect();
        answers += 1;
    }
    found.sort();
    assert_eq!(found, large);
    assert!(answers > 1, "all of it came at once");
}

/// A key and a text that somebody between the centre and the node turns into one twice and an invalid one.
pub(crate) const KEY_TO_REPEAT: (&[u8], &[u8]) = (b"repeat_b", b"repeat_a");
pub(crate) const TEXT_TO_SPOIL: (&[u8], &[u8]) = (b"spoil_~_me", b"spoil_\xff_me");

/// Documents that cannot be kept byte for byte are named and left alone, between others that can.
pub(crate) async fn unreadable(central: &mut dyn Central, behind: &dyn Behind, kind: Kind) {
    behind.put(kind, doc! {"_id": "u1"}).await;
    behind.put(kind, doc! {"_id": "u2", "s": {"repeat_a": 1, "repeat_b": 2}}).await;
    behind.put(kind, doc! {"_id": "u3", "s": ["spoil_~_me"]}).await;
    behind.put(kind, doc! {"_id": "u4"}).await;
    let ids = ["u1", "u2", "u3", "u4"].map(str::to_owned);
    let fetched = central.fetch(kind, &ids).await.expect("documents");
    central.scan(kind, Some("u"), &[]).await.expect("a scan");
    let scanned = central.scan_next(100).await.expect("documents");
    for mut found in [fetched, scanned] {
        found.sort_by(|a, b| a.id().cmp(b.id()));
        let readable = |fetched: &Fetched| matches!(fetched, Fetched::Document { .. });
        let found: Vec<_> = found.iter().map(|found| (found.id(), readable(found))).collect();
        assert_eq!(found, [("u1", true), ("u2", false), ("u3", false), ("u4", true)]);
    }
}

/// Two conversations beside each other: each goes on while the other does, and sees what the other has done.
pub(crate) async fn beside(central: &mut dyn Central) {
    let mut other = central.beside().await.expect("a conversation beside");
    for turn in 0..20 {
        let (here, there) = (format!("here-{turn}"), format!("there-{turn}"));
        let (here_write, there_write) = ([insert(&here, doc! {})], [insert(&there, doc! {})]);
        let written = tokio::join!(central.write(&here_write), other.write(&there_write));
        assert_eq!(
            (written.0.expect("an answer"), written.1.expect("an answer")),
            (vec![Written::Hit], vec![Written::Hit])
        );
        let ids = [here, there];
        let found = tokio::join!(central.fetch(Kind::Person, &ids), other.fetch(Kind::Person, &ids));
        assert_eq!((found.0.expect("both").len(), found.1.expect("both").len()), (2, 2));
    }
    drop(other);
    assert_eq!(central.fetch(Kind::Person, &["here-0".to_owned()]).await.expect("one").len(), 1);
}
