//! The stream of a backup: written beside writers, read again, refused when it is not what was written.

use std::sync::atomic::{AtomicBool, Ordering};

use thalamus_edge::store::{Manifest, StreamError, read_backup, rebuild};

use super::*;

fn backup(store: &Store) -> (Vec<u8>, Manifest) {
    let mut bytes = Vec::new();
    let manifest = store.read().unwrap().write_backup(&about(), &mut bytes).unwrap();
    (bytes, manifest)
}

fn refusal(mut bytes: &[u8]) -> StreamError {
    read_backup(&mut bytes).unwrap_err()
}

#[tokio::test]
async fn what_is_written_comes_back() {
    let store = Store::in_memory(options()).unwrap();
    fill(&store).await;
    let (bytes, manifest) = backup(&store);
    assert_eq!(read_backup(&mut bytes.as_slice()).unwrap(), manifest);
    let summary = &manifest.summary;
    assert_eq!((summary.records["people"], summary.pending, summary.granted_accounts), (49, 49, 1));
    assert_eq!(summary.local_accounts, ["tech"]);
    assert_eq!((manifest.tables["docs"], manifest.tables["journal"]), (49, 51));
    assert!(!manifest.tables.contains_key("conflict"));

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("new");
    assert_eq!(rebuild(&mut bytes.as_slice(), &file, None, &options(), &event()).unwrap(), manifest);
    let again = Store::open(&file, options()).unwrap();
    let (old, new) = (store.read().unwrap(), again.read().unwrap());
    for n in 0..50 {
        let id = format!("P{n:02}");
        let bytes = |snapshot: &thalamus_edge::store::Snapshot| {
            snapshot.record(&key(&id)).unwrap().map(|record| record.document.into_bytes())
        };
        assert_eq!(bytes(&old), bytes(&new), "{id}");
    }
    assert_eq!(old.local_account("tech").unwrap(), new.local_account("tech").unwrap());
    assert_eq!(old.people_named("nunez 33").unwrap(), new.people_named("nunez 33").unwrap());
    assert_eq!(new.summary().unwrap(), manifest.summary);
    // The file has to be new: nothing is written into one that is there.
    rebuild(&mut bytes.as_slice(), &file, None, &options(), &event()).unwrap_err();
}

#[tokio::test]
async fn an_empty_store_has_a_backup_too() {
    let store = Store::in_memory(options()).unwrap();
    let (bytes, manifest) = backup(&store);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("new");
    assert_eq!(rebuild(&mut bytes.as_slice(), &file, None, &options(), &event()).unwrap(), manifest);
    assert!(Store::open(&file, options()).unwrap().read().unwrap().is_empty().unwrap());
}

/// A reader of the change feed must not take new changes for those that it has seen.
#[tokio::test]
async fn the_change_feed_begins_anew() {
    let store = Store::in_memory(options()).unwrap();
    fill(&store).await;
    let (bytes, _) = backup(&store);
    // What only the lost history had.
    edit(&store, "LOST", Some(doc! {"_id": "LOST"})).await;
    let seen = store.read().unwrap().journal(0, 1).unwrap().last;

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("new");
    rebuild(&mut bytes.as_slice(), &file, None, &options(), &event()).unwrap();
    let again = Store::open(&file, options()).unwrap();
    let window = again.read().unwrap().journal(seen, 10).unwrap();
    assert!(window.rows.is_empty() && window.oldest > seen + 1, "{window:?}");
    let start = *again.changes().borrow();
    assert_eq!((window.last, window.oldest), (start, start + 1));
    edit(&again, "NEW", Some(doc! {"_id": "NEW"})).await;
    let window = again.read().unwrap().journal(start, 10).unwrap();
    assert_eq!((window.rows.len(), window.rows[0].sequence, window.oldest), (1, start + 1, start + 1));
    // And it lasts.
    drop(again);
    let again = Store::open(&file, options()).unwrap();
    assert_eq!(*again.changes().borrow(), start + 1);
}

#[tokio::test]
async fn every_changed_byte_and_every_missing_end_is_found() {
    let store = Store::in_memory(options()).unwrap();
    edit(&store, "ANA", Some(doc! {"_id": "ANA", "name": "Ana"})).await;
    let (bytes, _) = backup(&store);
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let refused = refusal(&changed);
        let is_named = match refused {
            StreamError::NotABackup => at < 21,
            StreamError::Damaged(_) => at >= 21,
            _ => false,
        };
        assert!(is_named, "byte {at}: {refused:?}");
        let refused = refusal(&bytes[..at]);
        assert!(matches!(refused, StreamError::NotABackup | StreamError::Damaged(_)), "{at}: {refused:?}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(refusal(&longer).to_string().contains("something follows after its end"));
    assert!(refusal(b"%PDF-1.7 and so on, for long enough").to_string().contains("no backup"));
    // Nothing of it becomes a store.
    let directory = tempfile::tempdir().unwrap();
    let mut changed = bytes.clone();
    let end = changed.len() - 40;
    changed[end] ^= 1;
    let file = directory.path().join("new");
    rebuild(&mut changed.as_slice(), &file, None, &options(), &event()).unwrap_err();
}

/// The sink takes a little at a time while writers go on: the backup holds the moment at which it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_go_on_and_the_backup_holds_one_moment() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store"), options()).unwrap();
    fill(&store).await;
    let snapshot = store.read().unwrap();
    let expected = snapshot.content_sha256().unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let (store, stop) = (store.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    let id = format!("P{:02}", (n * 3 + writer) % 50);
                    edit(&store, &id, Some(doc! {"_id": &id, "n": n})).await;
                    n += 1;
                }
                n
            })
        })
        .collect();
    let (written, store_2) = (Arc::clone(&stop), store.clone());
    let made = tokio::task::spawn_blocking(move || {
        let mut sink = Beside { bytes: Vec::new(), store: store_2, seen: 0, changes: 0 };
        let manifest = snapshot.write_backup(&about(), &mut sink).unwrap();
        written.store(true, Ordering::Relaxed);
        (manifest, sink)
    });
    let (manifest, sink) = made.await.unwrap();
    for writer in writers {
        assert!(writer.await.unwrap() > 0);
    }
    assert!(sink.changes >= 5, "nobody wrote meanwhile");
    assert_eq!(manifest.content_sha256, expected);
    assert_eq!(read_backup(&mut sink.bytes.as_slice()).unwrap().content_sha256, expected);
    assert_ne!(store.read().unwrap().content_sha256().unwrap(), expected);
}

/// Takes bytes, and for the first few of them only after somebody has written something to the store.
struct Beside {
    bytes: Vec<u8>,
    store: Store,
    seen: u64,
    changes: u32,
}

impl std::io::Write for Beside {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        while self.changes < 5 {
            let last = *self.store.changes().borrow();
            if last != self.seen {
                (self.seen, self.changes) = (last, self.changes + 1);
                break;
            }
            std::thread::yield_now();
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
