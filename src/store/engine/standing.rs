//! Floor 1. Whether the rights of a client still hold in the moment in which its write takes effect.
//!
//! A request is authorized when its head arrives, and its body may take minutes. So the writer asks once more, inside
//! the transaction and before the job: nothing that was committed before can be missed. After the job it asks whether the
//! rights include what was written. There is one place for it (`writer.rs`), which every write passes.

use std::sync::Arc;

use super::transaction::Tx;
use crate::store::error::{Stale, StoreError};

/// What the rights of a client were made from, to be compared with what is stored.
pub trait Standing: Send + Sync {
    /// Compares it with the state that the transaction sees. The inner error refuses the write.
    fn check(&self, tx: &Tx<'_>) -> Result<Result<(), Stale>, StoreError>;

    /// Whether they include what the job has written by now. The inner error undoes it.
    fn check_written(&self, _tx: &Tx<'_>) -> Result<Result<(), Stale>, StoreError> {
        Ok(Ok(()))
    }

    /// The job has written, and all of it is to be committed: what the answer to it goes by from now on. Called again if the
    /// job is run again.
    fn note_written(&self, _tx: &Tx<'_>) -> Result<(), StoreError> {
        Ok(())
    }
}

/// By what right an [`super::Asker`] writes.
#[derive(Clone)]
pub enum Right {
    /// The machine's own: the node itself and the commands of its operator.
    Machine,
    /// A request that only reads. Its writes are refused as a fault of the program.
    ReadOnly,
    /// A client's, for as long as this holds.
    Client(Arc<dyn Standing>),
}

impl Right {
    /// Refuses a write whose right does not hold in this transaction.
    pub(in crate::store) fn check(&self, tx: &Tx<'_>) -> Result<(), StoreError> {
        match self {
            Right::Machine => Ok(()),
            Right::ReadOnly => Err(StoreError::Failed("a request that only reads asked for a write".into())),
            Right::Client(standing) => standing.check(tx)?.map_err(StoreError::Stale),
        }
    }

    /// Refuses what a job has written in this transaction and its right does not include. `is_trial`: it is undone.
    pub(in crate::store) fn check_written(&self, tx: &Tx<'_>, is_trial: bool) -> Result<(), StoreError> {
        match self {
            Right::Machine | Right::ReadOnly => Ok(()),
            Right::Client(standing) => {
                standing.check_written(tx)?.map_err(StoreError::Stale)?;
                if is_trial { Ok(()) } else { standing.note_written(tx) }
            }
        }
    }
}

impl std::fmt::Debug for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What a client's right was made from includes the hash of a password.
        f.write_str(match self {
            Right::Machine => "Machine",
            Right::ReadOnly => "ReadOnly",
            Right::Client(_) => "Client",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use bson::doc;

    use super::*;
    use crate::domain::access::Actor;
    use crate::store::{Asker, Store, StoreOptions, asked_by};

    fn store() -> Store {
        let options = StoreOptions {
            cache_bytes: 1 << 20,
            journal_keep_rows: 1_000,
            audit_keep_rows: 1_000,
            clock: || 0,
        };
        Store::in_memory(options).unwrap()
    }

    /// Holds until the row is there.
    struct UntilRow;

    impl Standing for UntilRow {
        fn check(&self, tx: &Tx<'_>) -> Result<Result<(), Stale>, StoreError> {
            Ok(if tx.meta("closed")?.is_some() { Err(Stale::Account) } else { Ok(()) })
        }
    }

    fn asker(right: Right) -> Asker {
        Asker { who: Actor::Person("ANA001".to_owned()), from: None, right, charge: Default::default() }
    }

    #[tokio::test]
    async fn a_write_is_refused_once_its_right_is_gone_and_does_nothing() {
        let store = store();
        let run = Arc::new(AtomicBool::new(false));
        let write = |right: Right| {
            let (store, run) = (store.clone(), Arc::clone(&run));
            asked_by(asker(right), async move {
                let job = move |tx: &mut Tx<'_>| -> Result<(), StoreError> {
                    run.store(true, Ordering::SeqCst);
                    tx.set_meta("written", Some(&doc! {"n": 1}))
                };
                store.transact(job).await
            })
        };
        write(Right::Client(Arc::new(UntilRow))).await.unwrap();
        assert!(run.swap(false, Ordering::SeqCst));
        let close = |tx: &mut Tx<'_>| -> Result<(), StoreError> { tx.set_meta("closed", Some(&doc! {})) };
        store.transact(close).await.unwrap();

        let refused = write(Right::Client(Arc::new(UntilRow))).await;
        assert!(matches!(refused, Err(StoreError::Stale(Stale::Account))), "{refused:?}");
        let refused = write(Right::ReadOnly).await;
        assert!(matches!(refused, Err(StoreError::Failed(_))), "{refused:?}");
        assert!(!run.load(Ordering::SeqCst), "the job was run");
        write(Right::Machine).await.unwrap();
        assert!(run.load(Ordering::SeqCst));
    }

    /// The state that counts is that of the write's own transaction, which many writes share.
    #[test]
    fn a_change_in_the_same_commit_counts() {
        let directory = tempfile::TempDir::new().unwrap();
        let options = StoreOptions {
            cache_bytes: 1 << 20,
            journal_keep_rows: 1_000,
            audit_keep_rows: 1_000,
            clock: || 0,
        };
        let store = Store::open(&directory.path().join("store.redb"), options).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
        runtime.block_on(async {
            // Keeps the writer busy until both others wait, so that they are of one group.
            let (go, wait) = std::sync::mpsc::channel::<()>();
            let wait = std::sync::Mutex::new(wait);
            let busy = store.transact(move |_: &mut Tx<'_>| -> Result<(), StoreError> {
                let _ = wait.lock().unwrap().recv();
                Ok(())
            });
            let close = store.transact(|tx: &mut Tx<'_>| -> Result<(), StoreError> {
                tx.set_meta("closed", Some(&doc! {}))
            });
            let write = asked_by(
                asker(Right::Client(Arc::new(UntilRow))),
                store.transact(|tx: &mut Tx<'_>| -> Result<(), StoreError> {
                    tx.set_meta("written", Some(&doc! {}))
                }),
            );
            let release = async {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                go.send(()).unwrap();
            };
            let (busy, close, write, ()) = tokio::join!(busy, close, write, release);
            busy.unwrap();
            close.unwrap();
            assert!(matches!(write, Err(StoreError::Stale(Stale::Account))), "{write:?}");
            assert!(store.read().unwrap().meta("written").unwrap().is_none());
        });
    }
}
