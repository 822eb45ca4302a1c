//! Floor 4. Accounts that were looked up lately, remembered for as long as nothing is written.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::accounts::StoredAccount;
use crate::store::Snapshot;

/// Accounts as they were in a view of the store, by the names that people gave; also of names that nobody has, which would
/// take longer than others otherwise.
#[derive(Default)]
pub struct KnownAccounts(Mutex<Names>);

#[derive(Default)]
struct Names {
    present: HashMap<String, (Weak<Snapshot>, StoredAccount)>,
    /// Apart, so that no flood of them makes others forgotten.
    absent: HashMap<String, Weak<Snapshot>>,
}

/// Most names that are remembered of either; a clinic has fewer who work at the same time.
const KNOWN_ACCOUNTS_MAX: usize = 256;
/// Longest name that is remembered of nobody.
const ABSENT_NAME_BYTES_MAX: usize = 64;

impl KnownAccounts {
    /// Returns what is known of a name in this view, if anything is: an account, or that there is none.
    pub(crate) fn get(&self, view: &Arc<Snapshot>, name: &str) -> Option<Option<StoredAccount>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(view, name)
    }

    pub(crate) fn insert(&self, view: &Arc<Snapshot>, name: &str, account: Option<&StoredAccount>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(view, name, account);
    }
}

impl Names {
    fn get(&self, view: &Arc<Snapshot>, name: &str) -> Option<Option<StoredAccount>> {
        let is_of_view = |seen_in: &Weak<Snapshot>| std::ptr::eq(seen_in.as_ptr(), Arc::as_ptr(view));
        let present = self.present.get(name).filter(|(seen_in, _)| is_of_view(seen_in));
        let absent = self.absent.get(name).filter(|seen_in| is_of_view(seen_in));
        present.map(|(_, account)| Some(account.clone())).or(absent.map(|_| None))
    }

    fn insert(&mut self, view: &Arc<Snapshot>, name: &str, account: Option<&StoredAccount>) {
        let seen_in = Arc::downgrade(view);
        match account {
            Some(account) => {
                if self.present.len() >= KNOWN_ACCOUNTS_MAX {
                    self.present.clear();
                }
                self.present.insert(name.to_owned(), (seen_in, account.clone()));
            }
            None if name.len() <= ABSENT_NAME_BYTES_MAX => {
                if self.absent.len() >= KNOWN_ACCOUNTS_MAX {
                    self.absent.clear();
                }
                self.absent.insert(name.to_owned(), seen_in);
            }
            None => {}
        }
    }
}
