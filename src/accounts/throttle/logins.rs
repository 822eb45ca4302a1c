//! Floor 2. From where people have logged in before the node started, read from the audit trail.
//!
//! Who has done something from an address was logged in there. So who is known at the door does not become a stranger with
//! each restart, when many come at once and everybody's password has to be computed anew.

use std::collections::HashSet;
use std::time::Duration;

use super::attempts::KNOWN_MAX;
use crate::accounts::Accounts;
use crate::domain::access::Actor;
use crate::domain::address::AddressPrefix;
use crate::domain::audit::{Entry, Outcome};
use crate::domain::record::fold_account;
use crate::store::{AuditPage, AuditQuery, Store, StoreError};

/// Entries of the trail that a start waits for, the latest ones.
pub const ENTRIES_AT_START: usize = 5_000;
/// Entries that are read at once.
const PAGE_ENTRIES: usize = 5_000;
/// Older ones are not looked at.
const MEMORY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl Accounts {
    /// Reads who was logged in within the last 30 days and from where, in the latest `entries_max` entries of the trail or
    /// all; returns how many accounts and addresses that are. `now_ms`: milliseconds since 1970.
    ///
    /// A start reads [`ENTRIES_AT_START`], and all of them once it serves: strangers' refusals fill the trail as well.
    pub async fn remember_logins(
        &self,
        store: &Store,
        now_ms: i64,
        entries_max: usize,
    ) -> Result<usize, StoreError> {
        let memory_ms = i64::try_from(MEMORY.as_millis()).unwrap_or(i64::MAX);
        let from_ms = Some(now_ms.saturating_sub(memory_ms));
        let (mut before, mut left, mut logins) = (None, entries_max, Logins::default());
        while left > 0 && logins.latest_first.len() < KNOWN_MAX {
            let limit = left.min(PAGE_ENTRIES);
            let page = read(store, AuditQuery { before, from_ms, limit, ..AuditQuery::default() }).await?;
            left = left.saturating_sub(page.rows.len());
            // One that cannot be read says nothing.
            page.rows.iter().flatten().for_each(|entry| logins.add(entry));
            match page.next {
                // What comes before is older still.
                Some(next) if before != Some(next) && !page.rows.is_empty() => before = Some(next),
                _ => break,
            }
        }
        let of = |(user, client): &(String, AddressPrefix)| self.guess(user, *client, [0; 32]);
        let guesses: Vec<_> = logins.latest_first.iter().map(of).collect();
        let mut known = self.attempts.lock();
        // The latest last: of too many the oldest are forgotten.
        for guess in guesses.iter().rev() {
            known.throttle.remember(guess, (self.clock)());
        }
        Ok(guesses.len())
    }
}

async fn read(store: &Store, query: AuditQuery) -> Result<AuditPage, StoreError> {
    let reading = store.clone();
    let read = tokio::task::spawn_blocking(move || reading.read()?.audit(&query)).await;
    read.map_err(|error| StoreError::Failed(error.to_string()))?
}

/// Folded accounts that were logged in, and from where, each once.
#[derive(Default)]
struct Logins {
    latest_first: Vec<(String, AddressPrefix)>,
    found: HashSet<(String, AddressPrefix)>,
}

impl Logins {
    fn add(&mut self, entry: &Entry) {
        let Some((user, client)) = login_of(entry) else { return };
        let login = (fold_account(&user), client);
        if self.found.insert(login.clone()) {
            self.latest_first.push(login);
        }
    }
}

/// Who was logged in, and where, as this entry shows.
fn login_of(entry: &Entry) -> Option<(String, AddressPrefix)> {
    let event = &entry.event;
    let is_done = event.outcome == Outcome::Ok.name();
    let who = Actor::read(&event.who).filter(|who| is_done && who.has_account())?;
    Some((who.login_name()?, AddressPrefix::read(&event.peer)?))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::super::guess::Rank;
    use super::*;
    use crate::accounts::AccountsSettings;
    use crate::accounts::passwords::BCRYPT_COST_MIN;
    use crate::domain::audit::{Event, What};
    use crate::store::{StoreOptions, Tx};

    #[tokio::test]
    async fn who_has_done_something_from_an_address_is_known_there() {
        let options =
            StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 100, audit_keep_rows: 100, clock: || 0 };
        let store = Store::in_memory(options).unwrap();
        let [home, other]: [IpAddr; 2] = ["192.0.2.1", "2001:db8::7"].map(|text| text.parse().unwrap());
        let ana = || Actor::Person("ANA001".to_owned());
        let write = move |tx: &mut Tx<'_>| -> Result<(), StoreError> {
            tx.audit(Event::new(What::Read, &ana()).at(Some(home)))?;
            tx.audit(Event::new(What::Update, &Actor::Local("tech".to_owned())).at(Some(other)))?;
            tx.audit(Event::by_nobody(What::LoginFailed).at("192.0.2.66".parse().ok()))?;
            tx.audit(Event::new(What::Read, &Actor::Operator(0)).at(None))
        };
        store.transact(write).await.unwrap();
        let rank = async |now_ms: i64| {
            let settings =
                AccountsSettings { bcrypt_cost: BCRYPT_COST_MIN, password_min_chars: 8, bcrypt_threads: 1 };
            let accounts = Accounts::new(settings).unwrap();
            let read = accounts.remember_logins(&store, now_ms, ENTRIES_AT_START).await.unwrap();
            let rank = |user: &str, from: &str| {
                let client = AddressPrefix::of(from.parse().unwrap());
                let guess = accounts.guess(&fold_account(user), client, [0; 32]);
                accounts.attempts.lock().throttle.rank(&guess, (accounts.clock)())
            };
            let seen = [
                ("ana001", "192.0.2.1"),
                ("BOB002", "192.0.2.1"),
                ("tech@local", "2001:db8::99"),
                ("ANA001", "192.0.2.66"),
            ];
            (read, seen.map(|(user, from)| rank(user, from)))
        };
        assert_eq!(rank(0).await, (2, [Rank::Known, Rank::Neighbour, Rank::Known, Rank::Fresh]));
        let later = i64::try_from(MEMORY.as_millis()).unwrap() + 1;
        assert_eq!(rank(later).await, (0, [Rank::Fresh; 4]));
    }

    /// Strangers write into the trail too, and one person more than others.
    #[tokio::test]
    async fn who_was_logged_in_before_a_flood_of_refusals_is_known() {
        const FLOOD: usize = PAGE_ENTRIES + 1_000;
        let options = StoreOptions {
            cache_bytes: 1 << 20,
            journal_keep_rows: 100,
            audit_keep_rows: 100_000,
            clock: || 0,
        };
        let store = Store::in_memory(options).unwrap();
        let home: IpAddr = "192.0.2.1".parse().unwrap();
        let write = move |tx: &mut Tx<'_>| -> Result<(), StoreError> {
            tx.audit(Event::new(What::Read, &Actor::Person("ANA001".to_owned())).at(Some(home)))?;
            for number in 0..FLOOD {
                let from = IpAddr::from([10, 0, (number >> 8) as u8, number as u8]);
                tx.audit(Event::by_nobody(What::LoginFailed).at(Some(from)))?;
            }
            tx.audit(Event::new(What::Read, &Actor::Person("BOB002".to_owned())).at(Some(home)))
        };
        store.transact(write).await.unwrap();
        let settings =
            AccountsSettings { bcrypt_cost: BCRYPT_COST_MIN, password_min_chars: 8, bcrypt_threads: 1 };
        let accounts = Accounts::new(settings).unwrap();
        assert_eq!(accounts.remember_logins(&store, 0, ENTRIES_AT_START).await.unwrap(), 1);
        assert_eq!(accounts.remember_logins(&store, 0, usize::MAX).await.unwrap(), 2);
        let mut known = accounts.attempts.lock();
        for user in ["ANA001", "BOB002"] {
            let guess = accounts.guess(&fold_account(user), AddressPrefix::of(home), [0; 32]);
            assert_eq!(known.throttle.rank(&guess, (accounts.clock)()), Rank::Known, "{user}");
        }
    }
}
