//! The bookkeeping of the store: what is dirty, what is on its way, and which reads are too old.

#![allow(clippy::unwrap_used)]

use bson::{Document, doc};
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::diff::{Diff, diff};
use thalamus_edge::domain::merge::{Clash, Side};
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{
    Base, Intent, IntentWrite, Landing, Store, StoreError, StoreOptions, TrashState, Tx,
};

fn store() -> Store {
    let options =
        StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 1000, audit_keep_rows: 100_000, clock: || 0 };
    Store::in_memory(options).unwrap()
}

fn key() -> RecordKey {
    RecordKey::new(Kind::Person, "ANA")
}

fn ana() -> Document {
    doc! {"_id": "ANA", "f": "old", "g": "old"}
}

fn with(field: &str, value: &str) -> Document {
    let mut document = ana();
    document.insert(field, value);
    document
}

fn actor() -> Actor {
    Actor::Local("tech".to_owned())
}

/// Runs `job` in a transaction; panics in it fail the test.
async fn run<T: Send + 'static>(store: &Store, job: impl FnMut(&mut Tx<'_>) -> T + Send + 'static) -> T {
    let mut job = job;
    store.transact(move |tx| Ok::<_, StoreError>(job(tx))).await.unwrap()
}

/// A store that agrees with the centre on one record.
async fn agreed() -> Store {
    let store = store();
    run(&store, |tx| tx.put(&key(), Some(&ana()), &Base::Document(ana()), &Actor::Centre).unwrap()).await;
    assert_clean(&store);
    store
}

fn assert_clean(store: &Store) {
    let snapshot = store.read().unwrap();
    assert!(snapshot.is_clean(&key()).unwrap());
    assert_eq!(snapshot.base(&key()).unwrap(), None);
    assert_eq!(snapshot.pending_count().unwrap(), 0);
}

fn assert_dirty(store: &Store, base: &Base) {
    let snapshot = store.read().unwrap();
    assert!(!snapshot.is_clean(&key()).unwrap());
    assert_eq!(snapshot.base(&key()).unwrap().as_ref(), Some(base));
    assert_eq!(snapshot.pending_count().unwrap(), 1);
}

async fn edit(store: &Store, new: Option<Document>) {
    run(store, move |tx| tx.edit(&key(), new.as_ref(), &actor()).unwrap()).await;
}

/// Notes that what the record differs in from its base is being sent; the push number.
async fn send(store: &Store) -> u64 {
    run(store, |tx| {
        let number = tx.next_push_number().unwrap();
        let write = match (tx.base(&key()).unwrap(), tx.document(&key()).unwrap()) {
            (Base::Absent, Some(document)) => IntentWrite::Insert(document),
            (Base::Document(_), None) => IntentWrite::Delete { archive: "a".to_owned() },
            (Base::Document(base), Some(document)) => match diff(&base, &document) {
                Diff::Fields(changes) => IntentWrite::Update(changes),
                other => panic!("{other:?}"),
            },
            (Base::Absent, None) => panic!("nothing to send"),
        };
        tx.open_intent(&key(), &Intent { number, after: None, author: actor().to_string(), write }).unwrap();
        number
    })
    .await
}

async fn settle(store: &Store, number: u64, landed: bool) -> bool {
    run(store, move |tx| tx.settle_intent(&key(), number, landed).unwrap().is_some()).await
}

async fn is_stale(store: &Store, read_at: u64) -> bool {
    run(store, move |tx| tx.is_read_stale(&key(), read_at).unwrap()).await
}

async fn touches(store: &Store) -> u64 {
    run(store, |tx| tx.touches()).await
}

#[tokio::test]
async fn an_edit_has_a_base_until_it_is_undone_or_acknowledged() {
    let store = agreed().await;
    edit(&store, Some(with("f", "new"))).await;
    assert_dirty(&store, &Base::Document(ana()));
    edit(&store, Some(with("f", "newer"))).await;
    assert_dirty(&store, &Base::Document(ana()));
    edit(&store, Some(ana())).await;
    assert_clean(&store);
    // Only another order of keys is no edit.
    edit(&store, Some(doc! {"g": "old", "_id": "ANA", "f": "old"})).await;
    assert_clean(&store);
    edit(&store, Some(with("f", "new"))).await;
    let number = send(&store).await;
    assert!(settle(&store, number, true).await);
    assert_clean(&store);
    let stored = run(&store, |tx| tx.document(&key()).unwrap()).await;
    assert_eq!(stored, Some(with("f", "new")));
}

#[tokio::test]
async fn a_write_that_did_not_land_leaves_the_base_as_it_was() {
    let store = agreed().await;
    edit(&store, Some(with("f", "new"))).await;
    let number = send(&store).await;
    assert!(settle(&store, number, false).await);
    assert_dirty(&store, &Base::Document(ana()));
}

#[tokio::test]
async fn an_edit_while_a_write_is_on_its_way_is_still_to_be_pushed() {
    let store = agreed().await;
    edit(&store, Some(with("f", "sent"))).await;
    let number = send(&store).await;
    edit(&store, Some(with("f", "later"))).await;
    assert!(settle(&store, number, true).await);
    // What was sent, not what the record is by now.
    assert_dirty(&store, &Base::Document(with("f", "sent")));
}

#[tokio::test]
async fn an_undo_while_a_write_is_on_its_way_is_still_to_be_pushed() {
    for landed in [true, false] {
        let store = agreed().await;
        edit(&store, Some(with("f", "sent"))).await;
        let number = send(&store).await;
        edit(&store, Some(ana())).await;
        // Equal to the base, but nobody knows what the centre holds.
        assert_dirty(&store, &Base::Document(ana()));
        assert!(settle(&store, number, landed).await);
        if landed {
            assert_dirty(&store, &Base::Document(with("f", "sent")));
        } else {
            assert_clean(&store);
        }
    }
}

#[tokio::test]
async fn an_acknowledgement_of_an_older_push_is_ignored() {
    let store = agreed().await;
    edit(&store, Some(with("f", "first"))).await;
    let first = send(&store).await;
    assert!(settle(&store, first, false).await);
    edit(&store, Some(with("f", "second"))).await;
    let second = send(&store).await;
    assert!(!settle(&store, first, true).await);
    assert_dirty(&store, &Base::Document(ana()));
    assert!(run(&store, |tx| tx.has_intent(&key()).unwrap()).await);
    assert!(settle(&store, second, true).await);
    assert!(!settle(&store, second, true).await);
    assert_clean(&store);
}

/// Also of a write that is acknowledged, and counts with the next seal; the simulation does not meet that.
#[cfg(feature = "failpoints")]
#[tokio::test]
async fn an_unguarded_acknowledgement_is_noticed() {
    use thalamus_edge::flaw::{Flaw, plant};
    for is_planted in [false, true] {
        let store = agreed().await;
        edit(&store, Some(with("f", "first"))).await;
        let first = send(&store).await;
        assert!(settle(&store, first, false).await);
        edit(&store, Some(with("f", "second"))).await;
        send(&store).await;
        let is_noted = run(&store, move |tx| {
            plant(is_planted.then_some(Flaw::UnguardedAck));
            let is_noted = tx.note_landed(&key(), first, Landing::Acknowledged).unwrap();
            plant(None);
            is_noted
        });
        assert_eq!(is_noted.await, is_planted);
    }
}

#[tokio::test]
async fn reads_from_before_a_push_are_too_old() {
    let store = agreed().await;
    let before = touches(&store).await;
    assert!(!is_stale(&store, before).await);
    edit(&store, Some(with("f", "new"))).await;
    // An edit alone makes no read too old: the merge knows its base.
    assert!(!is_stale(&store, before).await);
    let number = send(&store).await;
    assert!(is_stale(&store, before).await);
    // Nor may one be applied while the write is open, however new.
    let meanwhile = touches(&store).await;
    assert!(is_stale(&store, meanwhile).await);
    assert!(settle(&store, number, true).await);
    assert!(is_stale(&store, before).await, "a read from before the push that has settled since");
    assert!(is_stale(&store, meanwhile).await, "a read from while the write was on its way");
    assert!(!is_stale(&store, touches(&store).await).await);
    run(&store, |tx| tx.forget_touched()).await;
    assert!(!is_stale(&store, before).await);
}

#[tokio::test]
async fn a_transaction_that_fails_leaves_nothing() {
    let store = agreed().await;
    let failed: Result<(), StoreError> = store
        .transact(|tx| {
            tx.edit(&key(), Some(&with("f", "new")), &actor())?;
            Err(StoreError::Failed("on purpose".to_owned()))
        })
        .await;
    assert!(failed.is_err());
    assert_clean(&store);
}

fn trash_states(store: &Store) -> Vec<TrashState> {
    store.read().unwrap().trash().unwrap().into_iter().map(|row| row.state).collect()
}

#[tokio::test]
async fn a_deleted_record_can_be_made_again() {
    let store = agreed().await;
    edit(&store, None).await;
    assert_dirty(&store, &Base::Document(ana()));
    assert_eq!(trash_states(&store), [TrashState::Pending]);
    edit(&store, Some(with("f", "again"))).await;
    assert_dirty(&store, &Base::Document(ana()));
    assert_eq!(trash_states(&store), [TrashState::Void]);
    edit(&store, None).await;
    // Made again while the delete is on its way: then the centre has none.
    let number = send(&store).await;
    edit(&store, Some(with("f", "third"))).await;
    assert!(settle(&store, number, true).await);
    assert_dirty(&store, &Base::Absent);
    let number = send(&store).await;
    assert!(settle(&store, number, true).await);
    assert_clean(&store);
}

#[tokio::test]
async fn a_record_that_nobody_else_had_vanishes_without_a_push() {
    let store = store();
    edit(&store, Some(ana())).await;
    assert_dirty(&store, &Base::Absent);
    edit(&store, None).await;
    assert_clean(&store);
    assert_eq!(trash_states(&store), [TrashState::Done]);
    // Not so while it is on its way.
    edit(&store, Some(ana())).await;
    let number = send(&store).await;
    edit(&store, None).await;
    assert_dirty(&store, &Base::Absent);
    assert!(settle(&store, number, true).await);
    assert_dirty(&store, &Base::Document(ana()));
}

#[tokio::test]
async fn deletes_are_pushed_after_edits_and_in_reverse_order() {
    let store = store();
    let page = RecordKey::new(Kind::Page, "p1");
    let unit = RecordKey::new(Kind::DomiciliaryUnit, "u1");
    for key in [page.clone(), key(), unit.clone()] {
        run(&store, move |tx| {
            let document = doc! {"_id": &key.id, "f": 1};
            tx.put(&key, Some(&document), &Base::Document(document.clone()), &Actor::Centre).unwrap();
            tx.edit(&key, Some(&doc! {"_id": &key.id, "f": 2}), &actor()).unwrap();
        })
        .await;
    }
    let order = |store: &Store| -> Vec<String> {
        let pending = store.read().unwrap().pending(None, 10).unwrap();
        pending.into_iter().map(|(.., pending)| pending.key.id).collect()
    };
    assert_eq!(order(&store), ["u1", "ANA", "p1"]);
    for key in [key(), page] {
        run(&store, move |tx| tx.edit(&key, None, &actor()).unwrap()).await;
    }
    assert_eq!(order(&store), ["u1", "p1", "ANA"]);
    // One by one, from where the last one was.
    let (mut after, mut found) = (None, Vec::new());
    loop {
        let from = after.as_ref().map(|(rank, sequence, key)| (*rank, *sequence, key));
        let page = store.read().unwrap().pending(from, 1).unwrap();
        let Some((rank, sequence, pending)) = page.into_iter().next() else { break };
        found.push(pending.key.id.clone());
        after = Some((rank, sequence, pending.key));
    }
    assert_eq!(found, ["u1", "p1", "ANA"]);
}

#[tokio::test]
async fn an_edit_keeps_its_place_in_the_queue_and_its_age() {
    let store = agreed().await;
    let other = RecordKey::new(Kind::Person, "BOB");
    edit(&store, Some(with("f", "1"))).await;
    run(&store, move |tx| tx.edit(&other, Some(&doc! {"_id": "BOB"}), &actor()).unwrap()).await;
    edit(&store, Some(with("f", "2"))).await;
    let pending = store.read().unwrap().pending(None, 10).unwrap();
    let ids: Vec<&str> = pending.iter().map(|(.., pending)| pending.key.id.as_str()).collect();
    assert_eq!(ids, ["ANA", "BOB"]);
}

#[tokio::test]
async fn a_conflict_has_one_row_for_one_losing_value() {
    let store = agreed().await;
    edit(&store, Some(with("f", "mine"))).await;
    let clash = |local: &str, remote: &str| Clash {
        path: vec!["f".to_owned()],
        base: Some("old".into()),
        local: Some(local.into()),
        remote: Some(remote.into()),
        stands: Side::Remote,
    };
    for (local, remote) in [("mine", "theirs"), ("mine", "others'"), ("mine too", "theirs")] {
        let clash = clash(local, remote);
        run(&store, move |tx| tx.add_conflict(&key(), &clash, None).unwrap()).await;
    }
    let snapshot = store.read().unwrap();
    let conflicts = snapshot.conflicts().unwrap();
    assert_eq!(conflicts.len(), 2);
    assert!(conflicts.iter().all(|conflict| conflict.author == actor().to_string()));
    assert_eq!(snapshot.open_conflicts_count().unwrap(), 2);
    let first = snapshot.unpublished_conflicts(None, 1, 1 << 20).unwrap();
    let second = snapshot.unpublished_conflicts(Some(&first[0].id), 10, 1 << 20).unwrap();
    assert_eq!((first.len(), second.len()), (1, 1));
    // What changed while it was being published goes again.
    let (sent, mut changed) = (first[0].clone(), first[0].clone());
    changed.central = Some("changed".into());
    run(&store, move |tx| {
        tx.put_conflict(&changed).unwrap();
        tx.conflicts_published(std::slice::from_ref(&sent), "n1", 1).unwrap();
    })
    .await;
    assert_eq!(store.read().unwrap().unpublished_conflicts(None, 10, 1 << 20).unwrap().len(), 2);
}

#[tokio::test]
async fn what_was_on_its_way_is_known_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let options =
        StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 1000, audit_keep_rows: 100_000, clock: || 0 };
    let number = {
        let store = Store::open(&path, options).unwrap();
        run(&store, |tx| tx.put(&key(), Some(&ana()), &Base::Document(ana()), &Actor::Centre).unwrap()).await;
        edit(&store, Some(with("f", "sent"))).await;
        send(&store).await
    };
    let store = Store::open(&path, options).unwrap();
    let intents = store.read().unwrap().intents().unwrap();
    assert_eq!(intents.len(), 1);
    assert_eq!(intents[0].1.number, number);
    assert!(is_stale(&store, touches(&store).await).await);
    assert_eq!(store.read().unwrap().pending(None, 10).unwrap().len(), 0, "not sent twice");
    assert!(settle(&store, number, true).await);
    assert_clean(&store);
}
