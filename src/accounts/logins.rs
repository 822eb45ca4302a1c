//! Floor 2. From where people have logged in before the node started, read from the audit trail.
//!
//! Who has done something from an address was logged in there. So who is known at the door does not become a stranger with
//! each restart, when many come at once and everybody's password has to be computed anew.

use std::time::Duration;

use super::{Accounts, AddressPrefix, fold_account};
use crate::domain::access::Actor;
use crate::domain::audit::{Entry, Outcome};
use crate::store::{AuditQuery, Store, StoreError};

/// Entries of the trail that are read, the latest: a start must not wait for more.
const ENTRIES_MAX: usize = 5_000;
/// Older ones are not looked at.
const MEMORY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl Accounts {
    /// Remembers who was logged in lately and from where; returns how many entries of the trail said so. `now_ms`: milliseconds
    /// since 1970.
    pub fn remember_logins(&self, store: &Store, now_ms: i64) -> Result<usize, StoreError> {
        let memory_ms = i64::try_from(MEMORY.as_millis()).unwrap_or(i64::MAX);
        let from_ms = Some(now_ms.saturating_sub(memory_ms));
        let (mut before, mut looked, mut logins) = (None, 0, Vec::new());
        while looked < ENTRIES_MAX {
            let limit = ENTRIES_MAX - looked;
            let page =
                store.read()?.audit(&AuditQuery { before, from_ms, limit, ..AuditQuery::default() })?;
            // One that cannot be read says nothing.
            logins.extend(page.rows.iter().flatten().filter_map(login_of));
            looked += page.rows.len();
            match page.next {
                // What comes before is older still.
                Some(next) if before != Some(next) && !page.rows.is_empty() => before = Some(next),
                _ => break,
            }
        }
        let mut known = self.attempts.lock();
        // The latest last: of too many the oldest are forgotten.
        for (user, client) in logins.iter().rev() {
            let guess = self.guess(&fold_account(user), *client, [0; 32]);
            known.throttle.remember(&guess, (self.clock)());
        }
        Ok(logins.len())
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

    use super::*;
    use crate::accounts::guess::Rank;
    use crate::accounts::{AccountsSettings, BCRYPT_COST_MIN};
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
        let rank = |now_ms: i64| {
            let settings =
                AccountsSettings { bcrypt_cost: BCRYPT_COST_MIN, password_min_chars: 8, bcrypt_threads: 1 };
            let accounts = Accounts::new(settings).unwrap();
            let read = accounts.remember_logins(&store, now_ms).unwrap();
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
        assert_eq!(rank(0), (2, [Rank::Known, Rank::Known, Rank::Known, Rank::Fresh]));
        let later = i64::try_from(MEMORY.as_millis()).unwrap() + 1;
        assert_eq!(rank(later), (0, [Rank::Fresh; 4]));
    }
}
