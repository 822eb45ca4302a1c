//! Bytes at the centre that are not what their name says: thrown away, told, put right, fetched again.

use bson::{Bson, doc};

use super::support::sim::Sim;
use super::support::sim::content::binary;
use super::{Blob, CHUNK, Node, at_centre, name_of, picture};

/// A holder and one that comes later, with the centre's bytes spoiled in between.
struct Case {
    sim: Sim,
    north: Node,
    south: Node,
    sha256: String,
    bytes: Blob,
}

/// Until the holder has looked for marks of its own accord.
const UNTIL_LOOKED: usize = 11;

impl Case {
    async fn new(chunks: usize) -> Case {
        let sim = Sim::default();
        let (north, south) = (Node::new(&sim), Node::new(&sim));
        let bytes = picture(20, chunks * CHUNK - 9);
        let sha256 = north.upload("d", &bytes).await;
        north.complete().await;
        Case { sim, north, south, sha256, bytes }
    }

    fn fetched(&self) -> usize {
        self.sim.contents().fetched.len()
    }

    /// South finds it wrong and says so; north puts it right; south gets it.
    async fn is_mended(&self) {
        let report = self.south.complete().await;
        assert!(report.message.contains("the centre's bytes of one are not what they should be"));
        assert!(self.sim.contents().is_marked(&self.sha256));
        assert_eq!((self.south.bytes(&self.sha256), self.south.queued()), (None, (1, 0)));
        // The same wrong bytes are not fetched in every round.
        let fetched = self.fetched();
        self.south.rounds(5).await;
        assert_eq!(self.fetched(), fetched);
        self.north.rounds(UNTIL_LOOKED).await;
        assert!(!self.sim.contents().is_marked(&self.sha256));
        assert_eq!(at_centre(&self.sim, &self.sha256), self.bytes);
        self.south.complete().await;
        assert_eq!(self.south.bytes(&self.sha256).as_ref(), Some(&self.bytes));
        assert_eq!(self.south.queued(), (0, 0));
    }
}

#[tokio::test]
async fn a_bad_chunk_is_thrown_away_and_replaced_by_who_has_it() {
    let case = Case::new(6).await;
    case.sim.contents().spoil(&case.sha256, 2, &picture(99, CHUNK));
    case.is_mended().await;
    // Only that one was looked at and sent again.
    assert_eq!(case.sim.contents().replaced, [(case.sha256.clone(), 2)]);
    let fetched = case.sim.contents().fetched.clone();
    assert_eq!(fetched.len(), 6 + 1 + 6, "six wrong, one compared, six right");
    assert_eq!(case.sim.contents().added.len(), 6);
}

#[tokio::test]
async fn chunks_of_the_wrong_length_or_none_are_seen_before_anything_is_fetched() {
    for spoil in [
        |case: &Case| case.sim.contents().spoil(&case.sha256, 1, b"short"),
        |case: &Case| drop(case.sim.contents().chunks.remove(&(case.sha256.clone(), 5))),
        |case: &Case| {
            case.sim.contents().chunks.insert((case.sha256.clone(), 0), Bson::Null);
        },
        |case: &Case| case.sim.contents().spoil(&case.sha256, 5, &picture(20, CHUNK)),
    ] {
        let case = Case::new(6).await;
        spoil(&case);
        case.is_mended().await;
        let fetched = case.fetched();
        assert!(fetched <= 6 + 1, "{fetched}");
        let contents = case.sim.contents();
        assert_eq!(contents.replaced.len() + contents.added.len(), 6 + 1);
    }
}

#[tokio::test]
async fn a_row_with_a_wrong_length_is_put_right() {
    for (length, chunk_bytes) in [
        (Bson::Int64(3 * CHUNK as i64), Bson::Int32(65_536)),
        (Bson::Int64(30 * CHUNK as i64), Bson::Int32(65_536)),
        (Bson::Int64(0), Bson::Int32(65_536)),
        (Bson::Int64(1 << 50), Bson::Int32(65_536)),
        (Bson::String("long".into()), Bson::Int32(65_536)),
        (Bson::Int64(6 * CHUNK as i64 - 9), Bson::Int32(0)),
    ] {
        let case = Case::new(6).await;
        {
            let mut contents = case.sim.contents();
            let row = contents.files.get_mut(&case.sha256).unwrap();
            row.insert("length", length);
            row.insert("chunkSize", chunk_bytes);
        }
        case.is_mended().await;
        let row = case.sim.contents().files[&case.sha256].clone();
        assert_eq!(row.get("length"), Some(&Bson::Int64(case.bytes.len() as i64)));
        assert_eq!(row.get("chunkSize"), Some(&Bson::Int32(65_536)));
        assert_eq!(row.get_document("metadata").unwrap(), &doc! {"contentType": "image/png"});
    }
}

/// What a row says is believed within bounds only: so many chunks would be looked for in memory.
#[tokio::test]
async fn rows_that_cannot_be_are_named_and_the_round_goes_on() {
    for (length, chunk_bytes) in [
        (1_i64 << 30, 1_i64),
        ((1 << 30) + 1, 65_536),
        (i64::MAX, i64::MAX),
        (1 << 30, (1 << 14) - 1),
        (6 * CHUNK as i64 - 9, (16 << 20) + 1),
        (6 * CHUNK as i64 - 9, -1),
        (-1, 65_536),
    ] {
        let case = Case::new(6).await;
        // Another one, in the same round.
        let other = case.north.upload("e", &picture(77, CHUNK)).await;
        case.north.complete().await;
        {
            let mut contents = case.sim.contents();
            let row = contents.files.get_mut(&case.sha256).unwrap();
            row.insert("length", length);
            row.insert("chunkSize", chunk_bytes);
        }
        let report = case.south.complete().await;
        assert!(report.message.contains(&case.sha256), "{}", report.message);
        assert_eq!((case.south.bytes(&case.sha256), case.south.bytes(&other).is_some()), (None, true));
        case.north.rounds(UNTIL_LOOKED).await;
        case.south.complete().await;
        assert_eq!(case.south.bytes(&case.sha256).as_ref(), Some(&case.bytes), "{length} {chunk_bytes}");
    }
}

/// Everything is wrong, and a round may carry little: what was put right stays put right.
#[tokio::test]
async fn garbage_is_replaced_piece_by_piece() {
    let sim = Sim::default();
    let (north, south) = (Node::allowed(&sim, 4 * CHUNK as u64), Node::new(&sim));
    let bytes = picture(21, 12 * CHUNK);
    let sha256 = north.upload("d", &bytes).await;
    north.rounds(4).await;
    assert_eq!(north.queued(), (0, 0));
    for number in 0..12 {
        sim.contents().spoil(&sha256, number, &picture(number as u8 + 50, CHUNK));
    }
    south.complete().await;
    let mut before = 0;
    let mut turns = 0;
    while sim.contents().is_marked(&sha256) {
        north.rounds(10).await;
        let replaced = sim.contents().replaced.len();
        assert!(replaced > before, "no progress");
        before = replaced;
        turns += 1;
    }
    assert_eq!((before, turns), (12, 6), "two chunks, each compared and sent, in a round that looks");
    assert_eq!(at_centre(&sim, &sha256), bytes);
    south.complete().await;
    assert_eq!(south.bytes(&sha256), Some(bytes));
}

/// Nobody has what the name promises.
#[tokio::test]
async fn what_nobody_can_put_right_is_tried_again_after_a_long_time() {
    let case = Case::new(3).await;
    case.sim.contents().spoil(&case.sha256, 0, &picture(99, CHUNK));
    case.south.complete().await;
    let fetched = case.fetched();
    case.south.rounds(98).await;
    assert_eq!(case.fetched(), fetched);
    case.south.rounds(3).await;
    assert_eq!(case.fetched(), fetched + 3);
    assert!(case.sim.contents().is_marked(&case.sha256));
    // A third one does not even begin, until somebody has put it right.
    let east = Node::new(&case.sim);
    east.rounds(3).await;
    assert_eq!((case.fetched(), east.queued()), (fetched + 3, (1, 0)));
    case.north.rounds(UNTIL_LOOKED).await;
    case.south.complete().await;
    east.complete().await;
    for node in [&case.south, &east] {
        assert_eq!(node.bytes(&case.sha256).as_ref(), Some(&case.bytes));
    }
}

/// The marker was wrong: its own memory or disk spoiled what it fetched, say.
#[tokio::test]
async fn a_mark_without_reason_is_removed() {
    let case = Case::new(3).await;
    let mark = doc! {"node": "south", "seen": binary(&[1; 24])};
    case.sim.contents().files.get_mut(&case.sha256).unwrap().insert("metadata", doc! {"suspect": mark});
    case.south.complete().await;
    assert_eq!(case.south.queued(), (1, 0));
    case.north.rounds(UNTIL_LOOKED).await;
    assert!(!case.sim.contents().is_marked(&case.sha256));
    assert!(case.sim.contents().replaced.is_empty());
    case.south.complete().await;
    assert_eq!(case.south.bytes(&case.sha256).as_ref(), Some(&case.bytes));
}

/// Chunks of an upload that was cut off, of another length than they should have.
#[tokio::test]
async fn lengths_are_compared_before_the_row_is_added() {
    let sim = Sim::default();
    let north = Node::new(&sim);
    let bytes = picture(22, 4 * CHUNK);
    let sha256 = name_of(&bytes);
    sim.contents().spoil(&sha256, 1, b"half");
    sim.contents().spoil(&sha256, 3, &picture(22, 4 * CHUNK)[3 * CHUNK..]);
    north.upload("d", &bytes).await;
    north.complete().await;
    assert_eq!(sim.contents().replaced, [(sha256.clone(), 1)]);
    assert_eq!(at_centre(&sim, &sha256), bytes);
    assert!(sim.contents().files.contains_key(&sha256));
    // What has no place in it is not for a node to remove, and no reader would take it.
    let other = picture(23, 2 * CHUNK);
    let other_name = name_of(&other);
    sim.contents().spoil(&other_name, 2, b"beyond the end");
    north.upload("d2", &other).await;
    let report = north.complete().await;
    assert!(report.message.contains("chunks of one that do not belong to it"), "{}", report.message);
    assert!(!sim.contents().files.contains_key(&other_name));
    sim.contents().chunks.remove(&(other_name.clone(), 2));
    north.complete().await;
    assert!(sim.contents().files.contains_key(&other_name));
}

/// Somebody put the file there with another program, which cuts chunks of 255 KiB.
#[tokio::test]
async fn other_programs_cut_other_chunks() {
    let case = Case::new(20).await;
    let unit = 261_120;
    {
        let mut contents = case.sim.contents();
        contents.chunks.clear();
        for (number, chunk) in (0..).zip(case.bytes.chunks(unit)) {
            contents.spoil(&case.sha256, number, chunk);
        }
        let row = doc! {"_id": &case.sha256, "length": case.bytes.len() as i64, "chunkSize": unit as i32};
        contents.files.insert(case.sha256.clone(), row);
    }
    // With so little a round that the places to go on from lie within the centre's chunks.
    let east = Node::allowed(&case.sim, 300_000);
    let mut rounds = 0;
    while east.bytes(&case.sha256).is_none() {
        east.complete().await;
        rounds += 1;
        assert!(rounds < 20);
    }
    assert!(rounds > 3);
    assert_eq!(east.bytes(&case.sha256).as_ref(), Some(&case.bytes));
    case.sim.contents().spoil(&case.sha256, 2, &picture(99, unit));
    case.is_mended().await;
    assert_eq!(case.sim.contents().replaced, [(case.sha256.clone(), 2)]);
}

/// A chunk is spoiled while a download is under way.
#[tokio::test]
async fn a_chunk_that_changes_its_length_meanwhile_is_told_as_well() {
    let case = Case::new(6).await;
    let east = Node::allowed(&case.sim, 2 * CHUNK as u64);
    east.complete().await;
    assert_eq!(east.chunks_here(&case.sha256), 2);
    case.sim.contents().spoil(&case.sha256, 3, b"less");
    east.complete().await;
    assert!(case.sim.contents().is_marked(&case.sha256));
    case.north.rounds(UNTIL_LOOKED).await;
    for _ in 0..3 {
        east.complete().await;
    }
    assert_eq!(east.bytes(&case.sha256).as_ref(), Some(&case.bytes));
}
