//! Floor 2. What a login costs for a name that nobody has: as much as it costs for those who are there.
//!
//! Accounts that came from elsewhere keep hashes of other costs, and each step of cost doubles the time. If every unknown
//! name took the time of this node's own cost, accounts with another cost would be known by theirs. So an unknown name
//! has a cost too: one of those in the store, as often as the store has it, and always the same one for a name.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

use bson::spec::BinarySubtype;
use bson::{Binary, doc};
use sha2::{Digest as _, Sha256};

use super::rules::cost_of;
use crate::accounts::Accounts;
use crate::domain::record::Kind;
use crate::store::{Store, StoreError, Tx};

/// A random text that chooses the cost of a name; kept, because a name whose cost changes with a restart is nobody's.
const META_SEED: &str = "login_costs";
const SEED_BYTES: usize = 32;
const BATCH_PEOPLE_MAX: usize = 500;
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// The costs that hashes have, and how often.
pub(crate) struct Costs {
    /// Of this node's own hashes: what counts in a store without any.
    default: u32,
    learned: RwLock<Learned>,
}

#[derive(Default)]
struct Learned {
    seed: [u8; SEED_BYTES],
    counts: BTreeMap<u32, u64>,
}

impl Costs {
    pub(crate) fn new(default: u32) -> Costs {
        Costs { default, learned: RwLock::default() }
    }

    fn learned(&self) -> RwLockWriteGuard<'_, Learned> {
        self.learned.write().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn learn(&self, seed: [u8; SEED_BYTES], counts: BTreeMap<u32, u64>) {
        *self.learned() = Learned { seed, counts };
    }

    /// The cost of a folded name that has no usable hash.
    pub(crate) fn of_name(&self, account: &str) -> u32 {
        let learned = self.learned.read().unwrap_or_else(PoisonError::into_inner);
        let total: u64 = learned.counts.values().sum();
        let digest = Sha256::new().chain_update(learned.seed).chain_update(account).finalize();
        let number = digest.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let mut left = number.checked_rem(total).unwrap_or_default();
        for (cost, count) in &learned.counts {
            match left.checked_sub(*count) {
                Some(rest) => left = rest,
                None => return *cost,
            }
        }
        self.default
    }
}

impl Accounts {
    /// Looks at which costs the hashes in the store have; at the start, and now and then. Reads all people.
    pub async fn learn_costs(&self, store: &Store) -> Result<(), StoreError> {
        let reading = store.clone();
        let counted = tokio::task::spawn_blocking(move || count(&reading)).await;
        let counts = counted.map_err(|error| StoreError::Failed(error.to_string()))??;
        self.costs.learned().counts = counts;
        Ok(())
    }

    /// Reads what chooses the cost of an unknown name, or makes it in a store that has none; before anybody asks.
    pub async fn prepare_costs(&self, store: &Store) -> Result<(), StoreError> {
        let kept = seed_in(store.read()?.meta(META_SEED)?);
        let seed = match kept {
            Some(seed) => seed,
            None => new_seed(store).await,
        };
        self.costs.learned().seed = seed;
        Ok(())
    }
}

fn seed_in(row: Option<bson::Document>) -> Option<[u8; SEED_BYTES]> {
    row?.get_binary_generic("seed").ok()?.as_slice().try_into().ok()
}

/// Another seed; where it cannot be written, on a full disk, it is good for this process.
async fn new_seed(store: &Store) -> [u8; SEED_BYTES] {
    let mut seed = [0; SEED_BYTES];
    if getrandom::fill(&mut seed).is_err() {
        return seed;
    }
    let row = doc! {"seed": Binary { subtype: BinarySubtype::Generic, bytes: seed.to_vec() }};
    let write = move |tx: &mut Tx<'_>| -> Result<(), StoreError> {
        tx.set_meta(META_SEED, Some(&row))?;
        Ok(())
    };
    if let Err(error) = store.transact(write).await {
        tracing::debug!(%error, "the seed of login costs is not kept");
    }
    seed
}

fn count(store: &Store) -> Result<BTreeMap<u32, u64>, StoreError> {
    let mut counts = BTreeMap::new();
    let mut add = |hash: Option<&str>| {
        if let Some(cost) = hash.and_then(cost_of) {
            *counts.entry(cost).or_default() += 1;
        }
    };
    for (_, account) in store.read()?.local_accounts()? {
        add(account.get_str("password").ok());
    }
    let mut after: Option<String> = None;
    loop {
        let page = store.read()?.list(Kind::Person, after.as_deref(), BATCH_PEOPLE_MAX, BATCH_BYTES_MAX)?;
        for person in &page.records {
            add(person.document.get_str("password").ok());
        }
        after = page.next_after().map(str::to_owned);
        if after.is_none() {
            return Ok(counts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_cost_what_the_store_holds_as_often_and_always_the_same() {
        let costs = Costs::new(12);
        assert_eq!(costs.of_name("ANA"), 12, "nothing is known yet");
        costs.learn([7; SEED_BYTES], BTreeMap::from([(4, 300), (6, 100)]));
        let names: Vec<String> = (0..4_000).map(|number| format!("NOBODY{number}")).collect();
        let dear = names.iter().filter(|name| costs.of_name(name) == 6).count();
        assert!((900..1_100).contains(&dear), "{dear} of 4,000");
        assert!(names.iter().all(|name| [4, 6].contains(&costs.of_name(name))));
        let again = Costs::new(10);
        again.learn([7; SEED_BYTES], BTreeMap::from([(4, 300), (6, 100)]));
        assert!(names.iter().all(|name| costs.of_name(name) == again.of_name(name)), "after a restart");
        // Nobody can tell without the seed which names cost what.
        again.learn([8; SEED_BYTES], BTreeMap::from([(4, 300), (6, 100)]));
        let same = names.iter().filter(|name| costs.of_name(name) == again.of_name(name)).count();
        assert!((2_300..2_700).contains(&same), "{same} of 4,000");
        costs.learn([7; SEED_BYTES], BTreeMap::new());
        assert_eq!(costs.of_name("ANA"), 12);
    }
}
