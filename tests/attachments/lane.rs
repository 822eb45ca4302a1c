//! There and back: whole, in pieces, once, and not more than allowed.

use std::collections::BTreeMap;

use bson::{Bson, doc};
use thalamus_edge::domain::content::EMPTY_CONTENT;
use thalamus_edge::domain::record::Kind;
use thalamus_edge::sync::Outcome;

use super::support::sim::Sim;
use super::support::sim::content::Cut;
use super::{Blob, CHUNK, Node, at_centre, centre_with, document, picture, travelled};

#[tokio::test]
async fn bytes_of_any_length_come_to_the_other_side() {
    let sim = Sim::default();
    let (north, south) = (Node::new(&sim), Node::new(&sim));
    for (seed, length) in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 9 * CHUNK + 5].into_iter().enumerate() {
        let bytes = picture(seed as u8, length);
        let sha256 = north.upload("d", &bytes).await;
        assert_eq!(north.queued(), (0, 1));
        let report = north.complete().await;
        assert!(!report.message.contains("Attachments"), "{report:?}");
        assert_eq!(north.queued(), (0, 0));
        assert_eq!(at_centre(&sim, &sha256), bytes);
        let row = sim.contents().files[&sha256].clone();
        assert_eq!(
            (row.get_i64("length").unwrap(), row.get_i32("chunkSize").unwrap()),
            (length as i64, 65_536)
        );
        assert_eq!(row.get_str("filename").unwrap(), sha256);
        assert_eq!(row.get_document("metadata").unwrap(), &doc! {"contentType": "image/png"});
        assert!(sim.contents().added.iter().all(|(_, number)| *number < 10));
        south.complete().await;
        assert_eq!(south.queued(), (0, 0));
        assert_eq!(south.bytes(&sha256), Some(bytes), "{length}");
    }
    // An idle round has nothing to ask.
    south.rounds(2).await;
    let calls = sim.contents().calls;
    south.rounds(8).await;
    assert!(sim.contents().calls <= calls + 1, "marks are looked for in one of ten rounds");
}

#[tokio::test]
async fn nothing_is_served_before_all_is_here() {
    let bytes = picture(1, 5 * CHUNK);
    let (sim, sha256) = centre_with("d", &bytes).await;
    let south = Node::allowed(&sim, 2 * CHUNK as u64);
    for here in [2, 4] {
        let report = south.complete().await;
        assert_eq!((south.chunks_here(&sha256), south.bytes(&sha256)), (here, None));
        let left = (5 - here as usize) * CHUNK / 1000;
        let expected = format!("Attachments still to come: 1 to fetch ({left} KB).");
        assert!(report.message.contains(&expected), "{report:?}");
        assert!(south.status().message.contains(&expected), "{}", south.status().message);
        assert_eq!(south.queued(), (1, 0));
    }
    south.complete().await;
    assert_eq!(south.bytes(&sha256), Some(bytes));
}

/// One chunk a round: each goes on after the last, in both directions, and none travels twice.
#[tokio::test]
async fn every_chunk_is_a_place_to_go_on_from() {
    let sim = Sim::default();
    // Less than a chunk: the smallest allowance leads somewhere.
    let (north, south) = (Node::allowed(&sim, 10), Node::allowed(&sim, CHUNK as u64));
    let bytes = picture(2, 6 * CHUNK + 1);
    let sha256 = north.upload("d", &bytes).await;
    for sent in 1..=7 {
        assert!(sim.contents().files.is_empty(), "the row comes last");
        let report = north.complete().await;
        assert_eq!(sim.contents().added.len(), sent);
        assert_eq!(report.message.contains("1 to send"), sent < 7, "{}", report.message);
        assert!(
            report.message.contains("0.3 MB") == (sent < 7)
                || report.message.contains("393 KB") == (sent < 7)
        );
    }
    for fetched in 1..=7 {
        south.complete().await;
        assert_eq!(sim.contents().fetched.len(), fetched);
    }
    assert_eq!(south.bytes(&sha256), Some(bytes));
}

/// The line is cut at every call of an upload and of a download, before and after it was carried out.
#[tokio::test]
async fn the_line_may_be_cut_anywhere() {
    let bytes = picture(3, 9 * CHUNK + 7);
    for cut in [Cut::Request, Cut::Answer] {
        let mut is_cut = true;
        for at in 0.. {
            let sim = Sim::default();
            let (north, south) = (Node::new(&sim), Node::new(&sim));
            let sha256 = north.upload("d", &bytes).await;
            sim.contents().cut = Some((at, cut));
            let sent = north.sync.round().await;
            let was_cut = sim.contents().cut.is_none();
            assert_eq!(sent.outcome, if was_cut { Outcome::Offline } else { Outcome::Complete });
            north.complete().await;
            assert_eq!(north.queued(), (0, 0), "{cut:?} {at}");
            assert_eq!(at_centre(&sim, &sha256), bytes, "{cut:?} {at}");
            let times = count(&sim.contents().added);
            // A chunk whose request was lost had not arrived.
            let twice = times.values().filter(|times| **times > 1).count();
            assert!(twice == 0 || cut == Cut::Request && was_cut && twice <= 16, "{cut:?} {at}: {times:?}");

            sim.contents().cut = Some((at, cut));
            let fetched = south.sync.round().await;
            let was_fetch_cut = sim.contents().cut.is_none();
            assert_eq!(fetched.outcome, if was_fetch_cut { Outcome::Offline } else { Outcome::Complete });
            sim.contents().cut = None;
            south.complete().await;
            assert_eq!(south.bytes(&sha256).as_ref(), Some(&bytes), "{cut:?} {at}");
            assert_eq!(south.queued(), (0, 0));
            is_cut = was_cut || was_fetch_cut;
            if !is_cut {
                assert!(at > 6, "{at} calls are few for ten chunks");
                break;
            }
        }
        assert!(!is_cut);
    }
}

fn count(chunks: &[(String, u64)]) -> BTreeMap<(String, u64), usize> {
    let mut times = BTreeMap::new();
    for chunk in chunks {
        *times.entry(chunk.clone()).or_default() += 1;
    }
    times
}

#[tokio::test]
async fn equal_bytes_travel_once() {
    let sim = Sim::default();
    let (north, south) = (Node::new(&sim), Node::new(&sim));
    let bytes = picture(4, 3 * CHUNK);
    let sha256 = north.upload("d1", &bytes).await;
    north.upload("d2", &bytes).await;
    north.complete().await;
    assert_eq!(sim.contents().added.len(), 3);
    // The same picture uploaded elsewhere: the centre has it.
    south.upload("d3", &bytes).await;
    south.complete().await;
    assert_eq!(travelled(&sim), (3, 0));
    assert_eq!(south.queued(), (0, 0));
    // And a document from there with bytes that are here already.
    north.complete().await;
    assert_eq!(travelled(&sim), (3, 0));
    assert_eq!(north.queued(), (0, 0));
    assert_eq!((north.bytes(&sha256).as_ref(), south.bytes(&sha256).as_ref()), (Some(&bytes), Some(&bytes)));
}

/// Another node was cut off in the middle of the same upload.
#[tokio::test]
async fn an_upload_goes_on_where_another_node_stopped() {
    let sim = Sim::default();
    let (north, south) = (Node::allowed(&sim, 2 * CHUNK as u64), Node::new(&sim));
    let bytes = picture(5, 5 * CHUNK);
    let sha256 = north.upload("d1", &bytes).await;
    north.complete().await;
    assert_eq!(sim.contents().added.len(), 2);
    // South has the bytes too and sees the document: whoever is on line first sends the rest.
    south.upload("d2", &bytes).await;
    south.complete().await;
    assert_eq!(sim.contents().added.len(), 5);
    assert_eq!(at_centre(&sim, &sha256), bytes);
    north.complete().await;
    assert_eq!((sim.contents().added.len(), north.queued()), (5, (0, 0)));
}

#[tokio::test]
async fn both_directions_get_their_share() {
    let theirs = picture(6, 10 * CHUNK);
    let (sim, fetched) = centre_with("d1", &theirs).await;
    let node = Node::allowed(&sim, 4 * CHUNK as u64);
    let mine = picture(7, 10 * CHUNK);
    let sent = node.upload("d2", &mine).await;
    let mut shares = Vec::new();
    for _ in 0..5 {
        let before = travelled(&sim);
        node.complete().await;
        let after = travelled(&sim);
        shares.push((after.0 - before.0, after.1 - before.1));
    }
    assert_eq!(shares, [(2, 2); 5]);
    assert_eq!((node.bytes(&fetched), at_centre(&sim, &sent)), (Some(theirs), mine));
    // What one does not need the other may have.
    node.upload("d3", &picture(8, 4 * CHUNK)).await;
    node.complete().await;
    assert_eq!((sim.contents().added.len(), node.queued()), (14, (0, 0)));
}

#[tokio::test]
async fn attachments_follow_their_documents() {
    let sim = Sim::default();
    let north = Node::new(&sim);
    sim.state().refused.push("d1".to_owned());
    let bytes = picture(9, CHUNK);
    let sha256 = north.upload("d1", &bytes).await;
    let report = north.complete().await;
    assert_eq!((report.dead, travelled(&sim)), (1, (0, 0)), "nobody there knows of a document");
    assert!(sim.contents().files.is_empty());
    assert_eq!(north.queued(), (0, 1));
    // Replaced before it ever was sent: nobody needs it.
    sim.state().refused.clear();
    let other = north.upload("d1", &picture(10, CHUNK)).await;
    north.complete().await;
    let known: Vec<String> = sim.contents().files.keys().cloned().collect();
    assert_eq!(known, [other]);
    assert_eq!(at_centre(&sim, &sha256), Blob(Vec::new()));
    assert_eq!((north.queued(), north.bytes(&sha256)), ((0, 0), Some(bytes)), "but it is kept here");
}

#[tokio::test]
async fn what_goes_wrong_with_attachments_is_no_matter_of_the_records() {
    let sim = Sim::default();
    let (north, south) = (Node::new(&sim), Node::new(&sim));
    let (bad, good) = (picture(11, 2 * CHUNK), picture(12, 2 * CHUNK));
    let (bad_name, good_name) = (north.upload("d1", &bad).await, north.upload("d2", &good).await);
    // A centre whose role is from an older manual.
    sim.contents().is_refused = true;
    let report = north.complete().await;
    assert!(report.message.contains("2 to send"), "{}", report.message);
    assert!(report.message.contains("Attachments are not exchanged completely: the centre refuses"));
    assert!(sim.get(Kind::PersonalDocument, "d1").is_some());
    // One that is not accepted.
    sim.contents().is_refused = false;
    sim.contents().failing.push(bad_name.clone());
    let report = north.complete().await;
    assert!(report.message.contains("1 to send") && report.message.contains("not exchanged completely"));
    assert_eq!(at_centre(&sim, &good_name), good);
    south.complete().await;
    assert_eq!((south.bytes(&good_name), south.queued()), (Some(good), (1, 0)));
    let waiting = south.complete().await.message;
    assert!(waiting.contains("1 to fetch") && waiting.contains("1 of them have not reached the centre yet"));
    sim.contents().failing.clear();
    north.complete().await;
    south.complete().await;
    assert_eq!(south.bytes(&bad_name), Some(bad));
}

/// The bytes on this node's disk are not what they were.
#[tokio::test]
async fn damaged_bytes_are_not_sent() {
    let sim = Sim::default();
    let north = Node::new(&sim);
    let sha256 = north.upload("d1", &picture(13, 2 * CHUNK)).await;
    let name = sha256.clone();
    let spoiling = north.store.transact(move |tx| tx.put_content(&name, &picture(14, 2 * CHUNK)));
    spoiling.await.unwrap();
    let report = north.complete().await;
    assert!(report.message.contains("the bytes of one here are damaged"), "{}", report.message);
    assert_eq!(travelled(&sim), (0, 0));
    assert!(sim.contents().files.is_empty());
    // Uploaded again they are what their name says.
    north.upload("d1", &picture(13, 2 * CHUNK)).await;
    north.complete().await;
    assert_eq!(at_centre(&sim, &sha256), picture(13, 2 * CHUNK));
}

#[tokio::test]
async fn no_bytes_are_content_too() {
    let sim = Sim::default();
    let (north, south) = (Node::new(&sim), Node::new(&sim));
    assert_eq!(north.upload("d1", b"").await, EMPTY_CONTENT);
    north.complete().await;
    assert_eq!(sim.contents().files[EMPTY_CONTENT].get("length"), Some(&Bson::Int64(0)));
    south.complete().await;
    assert_eq!((south.bytes(EMPTY_CONTENT), south.queued()), (Some(Blob(Vec::new())), (0, 0)));
    // A document that says so of other bytes is not believed.
    let name = "ab".repeat(32);
    sim.put(Kind::PersonalDocument, document("d2", &name, 0));
    south.complete().await;
    assert_eq!((south.bytes(&name), south.queued()), (None, (1, 0)));
}

/// More names than one question carries, and more than a round asks about.
#[tokio::test]
async fn many_are_asked_about_in_turn() {
    let sim = Sim::default();
    let north = Node::new(&sim);
    north.upload_all((0..700_u32).map(|number| number.to_be_bytes().to_vec()).collect()).await;
    let south = Node::new(&sim);
    north.complete().await;
    assert_eq!((north.queued(), sim.contents().files.len()), ((0, 0), 700));
    // Their rows are gone for now: a round asks about some of them only.
    let rows = std::mem::take(&mut sim.contents().files);
    for _ in 0..3 {
        let calls = sim.contents().calls;
        let report = south.complete().await;
        assert!(report.message.contains("700 to fetch"), "{}", report.message);
        assert_eq!(sim.contents().calls - calls, 1, "one question about a hundred names");
    }
    sim.contents().files = rows;
    let mut rounds = 0;
    while south.queued() != (0, 0) {
        south.complete().await;
        rounds += 1;
    }
    assert_eq!(rounds, 1, "all that are there are fetched");
}
