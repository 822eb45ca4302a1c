//! The writer of a store on a disk: panics, turns, and what stays counted.

use redb::{Database, ReadableDatabase as _, ReadableTableMetadata as _};

use super::*;
use crate::domain::access::Actor;
use crate::store::schema::{JOURNAL, META};
use crate::store::{Charge, FORMAT_VERSION, Right, Store, asked_by};

/// As when redb comes upon a page that makes no sense.
#[tokio::test]
async fn a_panic_in_a_write_is_the_last_thing_that_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let options =
        StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 1_000, audit_keep_rows: 1_000, clock: || 0 };
    let store = Store::open(&path, options).unwrap();
    let seen = store.given_up();
    let mark = |tx: &mut Tx<'_>, name: &str| -> Result<(), StoreError> {
        tx.set_meta(name, Some(&bson::doc! {"n": 1}))
    };
    store.transact(move |tx| mark(tx, "before")).await.unwrap();
    assert!(!store.has_given_up());
    let panicking = |tx: &mut Tx<'_>| -> Result<(), StoreError> {
        tx.set_meta("half", Some(&bson::doc! {"n": 1}))?;
        panic!("a page that makes no sense")
    };
    assert!(matches!(store.transact(panicking).await, Err(StoreError::GivenUp)));
    assert!(store.has_given_up() && *seen.borrow());
    assert!(matches!(store.transact(move |tx| mark(tx, "after")).await, Err(StoreError::GivenUp)));
    assert!(store.read().unwrap().meta("before").unwrap().is_some(), "it is read all the same");
    // As the next process finds the file, which nobody closed.
    let copy = directory.path().join("copy.redb");
    std::fs::copy(&path, &copy).unwrap();
    drop((store, seen));
    let next = Store::open(&copy, options).unwrap();
    let snapshot = next.read().unwrap();
    let is_there = |name| snapshot.meta(name).unwrap().is_some();
    assert_eq!((is_there("before"), is_there("half"), is_there("after")), (true, false, false));
}

/// Where no attempt catches it: an answer that nobody waits for any more is dropped by the writer's thread.
#[tokio::test]
async fn a_panic_between_writes_leaves_nobody_waiting() {
    struct PanicsWhenDropped;
    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic!("dropped")
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let store = on_disk(&directory);
    let go = keep_busy(&store);
    a_moment().await;
    let left = store.transact(|_: &mut Tx<'_>| Ok::<_, StoreError>(PanicsWhenDropped));
    assert!(tokio::time::timeout(Duration::from_millis(50), left).await.is_err());
    let write = |_| {
        let store = store.clone();
        tokio::spawn(async move { store.transact(|_: &mut Tx<'_>| Ok::<(), StoreError>(())).await })
    };
    // More than share a commit, so that some are in the queue and some in the thread's hands.
    let writes: Vec<_> = (0..GROUP_JOBS_MAX * 2).map(write).collect();
    a_moment().await;
    drop(go);
    let limit = Duration::from_secs(10);
    for write in writes {
        let answer = tokio::time::timeout(limit, write).await.expect("an answer").unwrap();
        assert!(matches!(answer, Err(StoreError::GivenUp)), "{answer:?}");
    }
    let later = store.transact(|_: &mut Tx<'_>| Ok::<(), StoreError>(()));
    let later = tokio::time::timeout(limit, later).await.expect("an answer");
    assert!(matches!(later, Err(StoreError::GivenUp)), "{later:?}");
    assert!(store.has_given_up());
    assert!(store.read().unwrap().meta("nothing").unwrap().is_none(), "it is read all the same");
}

fn on_disk(directory: &tempfile::TempDir) -> Store {
    let options =
        StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 1_000, audit_keep_rows: 1_000, clock: || 0 };
    Store::open(&directory.path().join("store.redb"), options).unwrap()
}

/// Keeps the writer busy until something is sent, or the sender is gone.
fn keep_busy(store: &Store) -> std::sync::mpsc::Sender<()> {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (wait, store) = (Mutex::new(wait), store.clone());
    tokio::spawn(async move {
        let busy = store.transact(move |_: &mut Tx<'_>| -> Result<(), StoreError> {
            let _ = wait.lock().unwrap().recv();
            Ok(())
        });
        busy.await
    });
    go
}

fn asker(last: u8, charge: Charge) -> Asker {
    let from = Some(std::net::IpAddr::from([192, 0, 2, last]));
    Asker { who: Actor::Person("ANA001".to_owned()), from, right: Right::Machine, charge }
}

async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// Jobs that wait for the same commit share a transaction.
#[tokio::test]
async fn what_one_job_says_of_its_write_is_said_of_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let store = on_disk(&directory);
    let go = keep_busy(&store);
    a_moment().await;
    let jobs = [true, false].map(|is_given| {
        let store = store.clone();
        let job = move |tx: &mut Tx<'_>| -> Result<(u64, bool), StoreError> {
            if is_given {
                tx.password_is_given();
            }
            Ok((tx.last_sequence(), tx.password_is_given))
        };
        tokio::spawn(async move { store.transact(job).await })
    });
    a_moment().await;
    drop(go);
    for (job, is_given) in jobs.into_iter().zip([true, false]) {
        assert_eq!(job.await.unwrap().unwrap().1, is_given);
    }
}

#[tokio::test]
async fn many_jobs_of_one_client_keep_no_other_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let store = on_disk(&directory);
    let go = keep_busy(&store);
    a_moment().await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let write = |last: u8| {
        let (store, order) = (store.clone(), Arc::clone(&order));
        tokio::spawn(asked_by(asker(last, Charge::default()), async move {
            let noted = store.transact(move |_: &mut Tx<'_>| -> Result<(), StoreError> {
                order.lock().unwrap().push(last);
                Ok(())
            });
            noted.await.unwrap();
        }))
    };
    // More than share a commit.
    let mut writes: Vec<_> = (0..GROUP_JOBS_MAX * 3).map(|_| write(1)).collect();
    a_moment().await;
    writes.push(write(2));
    a_moment().await;
    drop(go);
    for write in writes {
        write.await.unwrap();
    }
    let order = order.lock().unwrap();
    assert_eq!((order.len(), order.iter().position(|last| *last == 2)), (GROUP_JOBS_MAX * 3 + 1, Some(1)));
}

#[tokio::test]
async fn what_is_counted_for_a_write_stays_counted_until_it_is_done() {
    let directory = tempfile::tempdir().unwrap();
    let store = on_disk(&directory);
    let go = keep_busy(&store);
    a_moment().await;
    let counted = Arc::new(());
    let charge = Charge::of(Arc::clone(&counted));
    let write = {
        let store = store.clone();
        tokio::spawn(asked_by(asker(1, charge), async move {
            store.transact(|tx: &mut Tx<'_>| tx.set_meta("written", Some(&bson::doc! {}))).await
        }))
    };
    a_moment().await;
    // As when a client goes away.
    write.abort();
    assert!(write.await.is_err());
    assert!(Arc::strong_count(&counted) > 1, "its job still waits");
    drop(go);
    let done = store.transact(|_: &mut Tx<'_>| -> Result<(), StoreError> { Ok(()) });
    done.await.unwrap();
    assert!(store.read().unwrap().meta("written").unwrap().is_some());
    for _ in 0..100 {
        if Arc::strong_count(&counted) == 1 {
            return;
        }
        a_moment().await;
    }
    panic!("it is given back");
}

#[test]
fn a_store_of_a_later_version_is_refused_untouched() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("store.redb");
    let later = FORMAT_VERSION + 1;
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert("format", later.to_be_bytes().as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(database);

    let options =
        StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 1_000, audit_keep_rows: 1_000, clock: || 0 };
    let error = Store::open(&path, options).map(|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found, known } if (found, known) == (later, FORMAT_VERSION)));
    assert!(error.to_string().contains("install the version that wrote it"), "{error}");

    let database = Database::create(&path).unwrap();
    let transaction = database.begin_read().unwrap();
    assert_eq!(transaction.open_table(META).unwrap().len().unwrap(), 1);
    assert!(transaction.open_table(JOURNAL.raw()).is_err(), "no table of this version was made");
}

/// What is only tried leaves nothing, and does not make those run twice that came with it.
#[tokio::test]
async fn a_trial_is_undone_and_costs_nobody_a_second_run() {
    let directory = tempfile::tempdir().unwrap();
    let store = on_disk(&directory);
    let go = keep_busy(&store);
    a_moment().await;
    let runs = Arc::new(Mutex::new(0));
    let write = |name: &'static str| {
        let (store, runs) = (store.clone(), Arc::clone(&runs));
        tokio::spawn(async move {
            let job = move |tx: &mut Tx<'_>| -> Result<(), StoreError> {
                *runs.lock().unwrap() += 1;
                tx.set_meta(name, Some(&bson::doc! {"n": 1}))
            };
            store.transact(job).await
        })
    };
    let first = write("first");
    let tried = |is_refused: bool| {
        let store = store.clone();
        tokio::spawn(async move {
            let job = move |tx: &mut Tx<'_>| -> Result<bool, StoreError> {
                tx.set_meta("tried", Some(&bson::doc! {"n": 1}))?;
                if is_refused {
                    Err(StoreError::Failed("no".to_owned()))
                } else {
                    Ok(tx.meta("tried")?.is_some())
                }
            };
            store.try_out(job).await
        })
    };
    let (agreed, refused) = (tried(false), tried(true));
    let second = write("second");
    a_moment().await;
    drop(go);
    for write in [first, second] {
        write.await.unwrap().unwrap();
    }
    assert!(agreed.await.unwrap().unwrap(), "it sees what it writes");
    assert!(refused.await.unwrap().is_err());
    assert_eq!(*runs.lock().unwrap(), 2);
    let view = store.read().unwrap();
    let is_there = |name| view.meta(name).unwrap().is_some();
    assert_eq!((is_there("first"), is_there("second"), is_there("tried")), (true, true, false));
}
