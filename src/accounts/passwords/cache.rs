//! Floor 2. Credentials that were verified a moment ago, without the credentials.
//!
//! An entry is an HMAC under a key that never leaves the process and dies with it: memory that leaks
//! tells nothing about passwords, and nobody can compute an entry that collides with another's.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::accounts::throttle::Code;
use crate::domain::address::AddressPrefix;

/// A verification is believed for this long; a changed password ends it at once.
pub(super) const CACHE_TTL_S_MAX: u64 = 5 * 60;
/// Verifications kept; the oldest goes first.
pub(super) const CACHE_ENTRIES_MAX: usize = 4_096;

const KEY_BYTES: usize = 64;

/// Stands for an account name, a password, the hash that it was compared with, and the client that sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Credential(Code);

impl Credential {
    pub(crate) fn code(self) -> Code {
        self.0
    }
}

/// Makes credentials; every process has a key of its own. Keyed once, because every request needs a code.
pub(crate) struct CredentialKey(Hmac<Sha256>);

impl CredentialKey {
    pub(crate) fn random() -> Result<CredentialKey, getrandom::Error> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(&mut *key)?;
        Ok(CredentialKey(<Hmac<Sha256> as KeyInit>::new((&*key).into())))
    }

    /// The stored hash is part of it, so a verification is worth nothing once the hash has changed. So is the client: what
    /// was verified for one is compared with the guesses of no other, which the throttle would not count.
    pub(crate) fn credential(
        &self,
        account: &str,
        password: &[u8],
        hash: &str,
        client: AddressPrefix,
    ) -> Credential {
        Credential(self.mac(&[account.as_bytes(), password, hash.as_bytes(), &client.octets()]))
    }

    /// A code for these texts that nobody else can make.
    pub(crate) fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.0.clone();
        for part in parts {
            // Lengths keep "ab" + "c" apart from "a" + "bc".
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

/// Verified credentials and when they were verified, by the monotonic clock.
#[derive(Default)]
pub(crate) struct Cache {
    entries: HashMap<Credential, Instant>,
    /// In order of time; may still name an entry that was verified again later.
    order: VecDeque<(Credential, Instant)>,
}

impl Cache {
    pub(crate) fn holds(&self, credential: &Credential, now: Instant) -> bool {
        self.entries.get(credential).is_some_and(|at| !is_over(*at, now))
    }

    pub(crate) fn insert(&mut self, credential: Credential, now: Instant) {
        while let Some((oldest, at)) = self.order.front().copied() {
            if self.order.len() < CACHE_ENTRIES_MAX && !is_over(at, now) {
                break;
            }
            self.order.pop_front();
            if self.entries.get(&oldest) == Some(&at) {
                self.entries.remove(&oldest);
            }
        }
        self.entries.insert(credential, now);
        self.order.push_back((credential, now));
    }
}

fn is_over(verified_at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(verified_at) >= Duration::from_secs(CACHE_TTL_S_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(number: usize) -> Credential {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
        Credential(bytes)
    }

    #[test]
    fn an_entry_ends_after_five_minutes_however_often_it_is_used() {
        let (mut cache, start) = (Cache::default(), Instant::now());
        cache.insert(numbered(1), start);
        let just_before = start + Duration::from_secs(CACHE_TTL_S_MAX) - Duration::from_millis(1);
        assert!(cache.holds(&numbered(1), start));
        assert!(cache.holds(&numbered(1), just_before));
        assert!(!cache.holds(&numbered(1), just_before + Duration::from_millis(1)));
        assert!(!cache.holds(&numbered(2), start));
    }

    #[test]
    fn an_entry_verified_again_outlives_its_first_time() {
        let (mut cache, start) = (Cache::default(), Instant::now());
        cache.insert(numbered(1), start);
        cache.insert(numbered(1), start + Duration::from_secs(200));
        cache.insert(numbered(2), start + Duration::from_secs(CACHE_TTL_S_MAX + 1));
        assert!(cache.holds(&numbered(1), start + Duration::from_secs(CACHE_TTL_S_MAX + 1)));
        assert_eq!(cache.order.len(), 2, "the first time of entry 1 is forgotten");
    }

    #[test]
    fn the_oldest_makes_room() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        for number in 0..CACHE_ENTRIES_MAX + 10 {
            cache.insert(numbered(number), now);
        }
        assert_eq!(cache.entries.len(), CACHE_ENTRIES_MAX);
        assert_eq!(cache.order.len(), CACHE_ENTRIES_MAX);
        assert!(!cache.holds(&numbered(9), now));
        assert!(cache.holds(&numbered(10), now));
    }

    #[test]
    fn a_credential_depends_on_every_part_and_on_the_process() {
        let key = CredentialKey::random().unwrap();
        let client = |last: u8| AddressPrefix::of([192, 0, 2, last].into());
        let credential = key.credential("AB", b"c", "h", client(1));
        assert_eq!(credential, key.credential("AB", b"c", "h", client(1)));
        for other in [
            key.credential("A", b"Bc", "h", client(1)),
            key.credential("AB", b"", "ch", client(1)),
            key.credential("AB", b"c", "i", client(1)),
            key.credential("AB", b"c", "h", client(2)),
            CredentialKey::random().unwrap().credential("AB", b"c", "h", client(1)),
        ] {
            assert_ne!(credential, other);
        }
    }
}
