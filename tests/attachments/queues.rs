//! What is to be fetched, sent and let go follows from what the records name.

use bson::{Document, doc};
use redb::{TableDefinition, TableHandle};
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::record::Kind;
use thalamus_edge::store::{Base, StoreError};

use super::support::sim::Sim;
use super::support::sim::content::binary;
use super::{CHUNK, Node, OPTIONS, at_centre, centre_with, document, key, name_of, picture};

fn without_content(id: &str) -> Document {
    doc! {"_id": id}
}

#[tokio::test]
async fn a_want_ends_with_the_last_document_that_names_it() {
    let bytes = picture(30, 4 * CHUNK);
    let (sim, sha256) = centre_with("d1", &bytes).await;
    sim.put(Kind::PersonalDocument, document("d2", &sha256, bytes.len()));
    let south = Node::allowed(&sim, 2 * CHUNK as u64);
    south.complete().await;
    assert_eq!((south.queued(), south.chunks_here(&sha256)), ((1, 0), 2));
    sim.put(Kind::PersonalDocument, without_content("d1"));
    south.complete().await;
    assert_eq!(south.bytes(&sha256).as_ref(), Some(&bytes), "d2 still names it");

    let other = picture(31, 4 * CHUNK);
    let other_name = Node::new(&sim).upload_and_leave("d3", &other).await;
    south.complete().await;
    assert_eq!((south.queued(), south.chunks_here(&other_name)), ((1, 0), 2));
    sim.remove(Kind::PersonalDocument, "d3");
    south.complete().await;
    assert_eq!((south.queued(), south.chunks_here(&other_name)), ((0, 0), 0), "half of it is of no use");
    // Back again, from the beginning.
    sim.put(Kind::PersonalDocument, document("d3", &other_name, other.len()));
    south.rounds(2).await;
    assert_eq!(south.bytes(&other_name), Some(other));
}

#[tokio::test]
async fn bytes_uploaded_here_end_a_want() {
    let bytes = picture(32, 3 * CHUNK);
    let sim = Sim::default();
    sim.put(Kind::PersonalDocument, document("d1", &name_of(&bytes), bytes.len()));
    let south = Node::new(&sim);
    south.complete().await;
    assert_eq!(south.queued(), (1, 0));
    // Equal to what the document names: nothing about the record changes, and still they are sent.
    let sha256 = south.upload("d1", &bytes).await;
    assert_eq!(south.queued(), (0, 1));
    south.complete().await;
    assert_eq!((south.queued(), at_centre(&sim, &sha256)), ((0, 0), bytes));
}

/// The content's loser of a conflict is nowhere but here.
#[tokio::test]
async fn bytes_that_a_conflict_names_stay() {
    let sim = Sim::default();
    let (north, south) = (Node::new(&sim), Node::new(&sim));
    let (old, mine, theirs) = (picture(33, CHUNK), picture(34, CHUNK), picture(35, CHUNK));
    let old_name = north.upload("d", &old).await;
    north.complete().await;
    south.complete().await;
    let my_name = south.upload("d", &mine).await;
    let their_name = north.upload("d", &theirs).await;
    north.complete().await;
    south.complete().await;
    assert_eq!(south.get("d").get_document("content").unwrap().get_str("sha256").unwrap(), their_name);
    assert_eq!(south.store.read().unwrap().open_conflicts_count().unwrap(), 1);
    assert!(!sim.contents().files.contains_key(&my_name), "no document at the centre names it");
    // Even if somebody else had them there.
    sim.contents().files.insert(my_name.clone(), doc! {"_id": &my_name, "length": CHUNK as i64});
    south.rounds(12).await;
    assert_eq!(south.bytes(&their_name), Some(theirs));
    assert_eq!(south.bytes(&my_name).as_ref(), Some(&mine), "a person may still choose it");
    sim.contents().files.remove(&my_name);
    assert!(sim.contents().files.contains_key(&old_name), "nodes delete nothing there");
    // Somebody does, and it goes out.
    south.set("d", Some(document("d", &my_name, mine.len()))).await;
    south.complete().await;
    north.complete().await;
    assert_eq!(north.bytes(&my_name), Some(mine));
}

#[tokio::test]
async fn bytes_are_let_go_once_nothing_names_them_and_the_centre_has_them() {
    let sim = Sim::default();
    let north = Node::new(&sim);
    let (first, second) = (picture(36, 2 * CHUNK), picture(37, 2 * CHUNK));
    let first_name = north.upload("d", &first).await;
    north.complete().await;
    // The centre agreed on the first; until it has the second, that is what the record goes back to.
    sim.state().refused.push("d".to_owned());
    let second_name = north.upload("d", &second).await;
    north.rounds(12).await;
    assert_eq!(north.bytes(&first_name).as_ref(), Some(&first));
    sim.state().refused.clear();
    north.set("d", Some(document("d", &second_name, second.len() + 1))).await;
    north.set("d", Some(document("d", &second_name, second.len()))).await;
    north.rounds(12).await;
    assert_eq!((north.bytes(&first_name), north.chunks_here(&first_name)), (None, 0));
    assert_eq!(north.bytes(&second_name), Some(second));
    assert_eq!(at_centre(&sim, &first_name), first, "there it stays");
    // A document that names it again gets it back.
    north.set("d2", Some(document("d2", &first_name, first.len()))).await;
    north.complete().await;
    assert_eq!(north.bytes(&first_name), Some(first));
}

#[tokio::test]
async fn bytes_of_a_deleted_document_stay_with_its_body_in_the_trash() {
    let sim = Sim::default();
    let north = Node::new(&sim);
    let bytes = picture(38, CHUNK);
    let sha256 = north.upload("d", &bytes).await;
    north.complete().await;
    north.set("d", None).await;
    north.rounds(3).await;
    assert!(sim.get(Kind::PersonalDocument, "d").is_none());
    assert_eq!((north.bytes(&sha256), north.queued()), (Some(bytes), (0, 0)));
}

#[tokio::test]
async fn bytes_that_the_centre_lacks_are_never_let_go() {
    let sim = Sim::default();
    let north = Node::new(&sim);
    let bytes = picture(39, CHUNK);
    let sha256 = north.upload("d", &bytes).await;
    north.complete().await;
    sim.contents().files.clear();
    north.set("d", Some(without_content("d"))).await;
    north.rounds(3).await;
    assert_eq!(north.bytes(&sha256).as_ref(), Some(&bytes));
    // Nor while somebody says that what is there is wrong: that is put right first.
    let mark = doc! {"suspect": {"node": "south", "seen": binary(b"")}};
    sim.contents().files.insert(sha256.clone(), doc! {"_id": &sha256, "length": 1_i64, "metadata": mark});
    north.rounds(11).await;
    assert!(!sim.contents().is_marked(&sha256));
    assert_eq!((at_centre(&sim, &sha256), north.bytes(&sha256)), (bytes.clone(), Some(bytes)));
    north.rounds(100).await;
    assert_eq!(north.bytes(&sha256), None);
}

/// The centre was restored from a copy, or set up anew, without the attachments.
#[tokio::test]
async fn a_centre_that_lost_bytes_gets_them_again() {
    let sim = Sim::default();
    let north = Node::new(&sim);
    let bytes: Vec<Vec<u8>> = (0..250_u8).map(|seed| vec![seed; 10 + usize::from(seed)]).collect();
    north.upload_all(bytes.clone()).await;
    north.complete().await;
    assert_eq!(sim.contents().files.len(), 250);
    sim.contents().files.clear();
    sim.contents().chunks.clear();
    north.complete().await;
    assert!(sim.contents().files.is_empty());
    // A document that is pushed brings its own along.
    let mut edited = north.get("d7");
    edited.insert("note", "seen");
    north.set("d7", Some(edited)).await;
    north.complete().await;
    let known: Vec<String> = sim.contents().files.keys().cloned().collect();
    assert_eq!(known, [name_of(&bytes[7])]);
    // All others are asked about when somebody says so, a hundred a round.
    north.sync.recheck_contents().await.unwrap();
    for found in [100, 200, 250] {
        north.complete().await;
        let there = sim.contents().files.len();
        assert!(there.abs_diff(found) <= 1, "{there}");
    }
    assert_eq!(sim.contents().files.len(), 250);
    let calls = sim.contents().calls;
    north.complete().await;
    assert!(sim.contents().calls <= calls + 1, "once round is enough");
}

#[tokio::test]
async fn it_is_asked_from_time_to_time_by_itself() {
    let sim = Sim::default();
    let north = Node::new(&sim);
    let bytes = picture(40, 100);
    let sha256 = north.upload("d", &bytes).await;
    north.complete().await;
    sim.contents().files.clear();
    north.rounds(11).await;
    assert!(sim.contents().files.is_empty());
    // As if five hundred rounds had gone by.
    let long_ago = doc! {"at": -490_i64};
    north.store.transact(move |tx| tx.set_meta("content_look", Some(&long_ago))).await.unwrap();
    north.complete().await;
    assert!(sim.contents().files.contains_key(&sha256));
}

/// A store of the version before attachments travelled: documents name them, and nothing is queued.
#[tokio::test]
async fn a_store_from_before_is_queued_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let sim = Sim::default();
    let (here, idle) = (picture(41, 3 * CHUNK), picture(42, CHUNK));
    let (here_name, idle_name, away_name) = (name_of(&here), name_of(&idle), "0e".repeat(32));
    {
        let node = Node::on_disk(&path, &sim);
        node.upload("d-here", &here).await;
        let (name, bytes) = (idle_name.clone(), idle.clone());
        node.store.transact(move |tx| tx.put_content(&name, &bytes)).await.unwrap();
        let away = away_name.clone();
        let putting = node.store.transact(move |tx| -> Result<(), StoreError> {
            for number in 0..1200 {
                let id = format!("d-away{number:04}");
                let document = document(&id, &away, 70_000);
                tx.put(&key(&id), Some(&document), &Base::Document(document.clone()), &Actor::Centre)?;
            }
            Ok(())
        });
        putting.await.unwrap();
    }
    forget_queues(&path);
    let node = Node::on_disk(&path, &sim);
    for number in 0..1200 {
        let id = format!("d-away{number:04}");
        sim.put(Kind::PersonalDocument, document(&id, &away_name, 70_000));
    }
    sim.contents().files.insert(idle_name.clone(), doc! {"_id": &idle_name, "length": CHUNK as i64});
    assert_eq!(node.queued(), (0, 0));
    node.complete().await;
    assert_eq!(at_centre(&sim, &here_name), here);
    assert_eq!(node.queued(), (1, 0));
    assert_eq!(node.bytes(&idle_name), None, "no document names it and the centre has it");
    assert_eq!(node.bytes(&here_name), Some(here));
    // Each document counts: the want ends with the last of them.
    let clear = async |numbers: std::ops::Range<usize>| {
        let clearing = node.store.transact(move |tx| -> Result<(), StoreError> {
            for number in numbers.clone() {
                let id = format!("d-away{number:04}");
                tx.edit(&key(&id), Some(&without_content(&id)), &Actor::Centre)?;
            }
            Ok(())
        });
        clearing.await.unwrap();
        node.queued()
    };
    assert_eq!(clear(0..1199).await, (1, 0));
    assert_eq!(clear(1199..1200).await, (0, 0));
    drop(node);
    // And once means once.
    let store = thalamus_edge::store::Store::open(&path, OPTIONS).unwrap();
    assert_eq!(store.read().unwrap().meta("content_queue").unwrap(), Some(doc! {"at": "done"}));
}

fn forget_queues(path: &std::path::Path) {
    let database = redb::Database::open(path).unwrap();
    let writing = database.begin_write().unwrap();
    let before = writing.list_tables().unwrap().filter(|table| table.name().starts_with("content_")).count();
    assert_eq!(before, 4);
    writing.delete_table(TableDefinition::<(&str, u8, &str), ()>::new("content_named")).unwrap();
    writing.delete_table(TableDefinition::<&str, (u64, i64)>::new("content_wanted")).unwrap();
    writing.delete_table(TableDefinition::<&str, (u64, &str)>::new("content_owed")).unwrap();
    writing.delete_table(TableDefinition::<&str, i64>::new("content_idle")).unwrap();
    writing.commit().unwrap();
}
