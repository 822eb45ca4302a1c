//! Floor 2. Who is asking: passwords checked and made.
//!
//! Hides bcrypt and everything that keeps it from becoming a weapon: a cache of recent verifications, waits
//! for those who guess, one computation for equal attempts, a small fair queue on threads of its own, and
//! the same work for people who do not exist. Only this module sees passwords and hashes together.
//!
//! - `passwords`: what may become a password, and what it costs to compare one
//! - `throttle`: how fast passwords may be guessed
//! - `sessions`: people who have logged in with a browser
//! - `openings`: records that are open in an emergency
//! - `writes`: how many writes and reads accounts have left

mod openings;
mod passwords;
mod sessions;
mod throttle;
mod writes;

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use zeroize::Zeroizing;

use crate::domain::access::Principal;
use crate::domain::address::AddressPrefix;
use crate::domain::record::fold_account;

pub use openings::Openings;
pub use passwords::{
    BCRYPT_COST_DEFAULT, BCRYPT_COST_MAX, BCRYPT_COST_MIN, PASSWORD_BYTES_MAX, PASSWORD_CHARS_MAX,
    PASSWORD_CHARS_MIN_DEFAULT, PUBLIC_PASSWORD_HASHES, canonical, is_acceptable_hash,
};
use passwords::{
    Cache, Costs, Credential, CredentialKey, Full, Pool, check_new, cost_of, dummy_hash, spellings,
};
pub use sessions::{
    Ended, Ending, SESSION_IDLE_S_MAX, SESSION_S_MAX, SESSIONS_MAX, SESSIONS_PER_ACCOUNT_MAX, SessionId,
    Sessions,
};
pub use throttle::ENTRIES_AT_START;
use throttle::{Code, Counted, Guess, Rank, Throttle};
pub use writes::{EVERYBODYS_MIB_MAX, EVERYBODYS_MIB_PER_DAY, OWN_MIB_MAX, OWN_MIB_PER_DAY, Writer, Writes};

/// How long a password keeps its place in the queue after its client last asked: longer than all places take on one core.
const GIVEN_UP_KEPT: Duration = Duration::from_secs(10 * 60);

/// What the configuration says about passwords.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountsSettings {
    /// Of new hashes, and in an empty store of the work done for people who do not exist.
    pub bcrypt_cost: u32,
    pub password_min_chars: usize,
    /// Threads that compute hashes.
    pub bcrypt_threads: usize,
}

impl Default for AccountsSettings {
    fn default() -> AccountsSettings {
        // One core stays free for those who are already in.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        AccountsSettings {
            bcrypt_cost: BCRYPT_COST_DEFAULT,
            password_min_chars: PASSWORD_CHARS_MIN_DEFAULT,
            bcrypt_threads: cores.saturating_sub(1).max(1),
        }
    }
}

/// An account as the store holds it at this moment. Has no `Debug`: it carries the hash.
#[derive(Clone)]
pub struct StoredAccount {
    /// Who the person becomes when the password is right.
    pub principal: Arc<Principal>,
    pub password_hash: Option<Arc<str>>,
    pub active: bool,
    /// How often its rights have changed. Who was let in carries the count of that moment, and is out when it is another.
    pub rights_count: u64,
}

/// Why nobody was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// Wrong, unknown, inactive or unusable: never say which.
    #[error("the account or the password is wrong")]
    Refused,
    /// Nothing was decided; ask again.
    #[error("too many logins at once, try again in {retry_after_s} s")]
    Busy { retry_after_s: u64 },
}

/// Why a password was not hashed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Tell the person, in these words.
    #[error("{0}")]
    Unacceptable(String),
    #[error("too many logins at once, try again in {retry_after_s} s")]
    Busy { retry_after_s: u64 },
    /// The machine has no randomness to give.
    #[error("the password could not be hashed: {0}")]
    Failed(String),
}

impl From<Full> for LoginError {
    fn from(full: Full) -> LoginError {
        let Full { retry_after_s } = full;
        LoginError::Busy { retry_after_s }
    }
}

/// The door: verifies and makes passwords.
pub struct Accounts {
    settings: AccountsSettings,
    key: CredentialKey,
    /// Of hashes that are compared with when there is nothing to compare with, for the same time.
    costs: Costs,
    attempts: Arc<Attempts>,
    pool: Pool,
    openings: Openings,
    sessions: Sessions,
    writes: Writes,
    reads: Writes,
    /// Monotonic time, for the cache, the throttle, sessions and openings.
    clock: fn() -> Instant,
}

/// What the threads and the requests share.
#[derive(Default)]
struct Attempts {
    known: Mutex<Known>,
    bcrypts: AtomicU64,
}

#[derive(Default)]
struct Known {
    verified: Cache,
    /// Computations queued or running, and where their outcome will appear. An entry whose sender is gone
    /// was never computed and counts for nothing.
    in_flight: HashMap<Credential, InFlight>,
    throttle: Throttle,
}

type Outcome = watch::Receiver<Option<bool>>;

struct InFlight {
    outcome: Outcome,
    /// When somebody asked for it last.
    asked: Instant,
}

/// One login, prepared so that every path from here costs the same.
struct Attempt {
    credential: Credential,
    /// Folded.
    account: String,
    /// Who that would be; nobody for attempts that cannot succeed.
    principal: Option<Arc<Principal>>,
    /// In the forms to be tried; what cannot be anybody's password is tried as nothing.
    passwords: Vec<Zeroizing<Vec<u8>>>,
    hash: Arc<str>,
}

impl Accounts {
    /// Fails when the machine gives no randomness or no threads.
    pub fn new(settings: AccountsSettings) -> io::Result<Arc<Accounts>> {
        Accounts::with_clock(settings, Instant::now)
    }

    /// With another idea of time, for tests.
    pub fn with_clock(settings: AccountsSettings, clock: fn() -> Instant) -> io::Result<Arc<Accounts>> {
        let cost = settings.bcrypt_cost.clamp(BCRYPT_COST_MIN, BCRYPT_COST_MAX);
        Ok(Arc::new(Accounts {
            settings: AccountsSettings { bcrypt_cost: cost, ..settings },
            key: CredentialKey::random().map_err(io::Error::other)?,
            costs: Costs::new(cost),
            attempts: Arc::default(),
            pool: Pool::start(settings.bcrypt_threads)?,
            openings: Openings::new(clock),
            sessions: Sessions::new(clock),
            writes: Writes::new(clock),
            reads: Writes::new(clock),
            clock,
        }))
    }

    /// Whether `password` opens the account `user`, which the store holds as `stored`.
    ///
    /// `stored` must be read for this very request: the cache knows of a changed hash, a deactivation or
    /// other roles only through it.
    pub async fn verify(
        &self,
        user: &str,
        password: &[u8],
        peer: IpAddr,
        stored: Option<StoredAccount>,
    ) -> Result<Arc<Principal>, LoginError> {
        let attempt = self.prepare(user, password, peer, stored);
        let principal = attempt.principal.clone();

        // First, what was verified a moment ago: nobody who is in is held up by others at the door.
        if self.remembers(&attempt.credential) {
            return principal.ok_or(LoginError::Refused);
        }

        // Second and third: the wait of those who guess, and one computation.
        let mut outcome = self.compute(attempt, peer)?;
        let matches = match outcome.wait_for(Option::is_some).await {
            Ok(matches) => *matches == Some(true),
            // The computation was lost; nothing is known about the password.
            Err(_) => return Err(LoginError::Busy { retry_after_s: 1 }),
        };
        match principal {
            Some(principal) if matches => Ok(principal),
            _ => Err(LoginError::Refused),
        }
    }

    /// [`Accounts::verify`] as far as it can be said at once: whether the same was verified for this client a moment ago.
    pub fn has_verified(&self, user: &str, password: &[u8], peer: IpAddr, stored: &StoredAccount) -> bool {
        // Nothing else about the attempt has to be looked at: only what could succeed, and did, is remembered.
        let hash = stored.password_hash.as_deref().filter(|_| stored.active);
        let client = AddressPrefix::of(peer);
        hash.is_some_and(|hash| {
            self.remembers(&self.key.credential(&fold_account(user), password, hash, client))
        })
    }

    fn remembers(&self, credential: &Credential) -> bool {
        self.attempts.lock().verified.holds(credential, (self.clock)())
    }

    /// Attempts that cannot succeed become a comparison of nothing with the dummy.
    fn prepare(&self, user: &str, password: &[u8], peer: IpAddr, stored: Option<StoredAccount>) -> Attempt {
        let mut passwords = spellings(password);
        let possible = !passwords.is_empty();
        if !possible {
            passwords.push(Zeroizing::default());
        }
        let account = fold_account(user);
        // An account that is closed, or a password that nobody can have, takes the time of the account.
        let held = stored.as_ref().and_then(|stored| cost_of(stored.password_hash.as_deref()?));
        let usable = stored.filter(|stored| possible && stored.active).and_then(|stored| {
            let hash = stored.password_hash.filter(|hash| is_acceptable_hash(hash))?;
            Some((stored.principal, hash))
        });
        let (principal, hash) = match usable {
            Some((principal, hash)) => (Some(principal), hash),
            None => (None, dummy_hash(held.unwrap_or_else(|| self.costs.of_name(&account))).into()),
        };
        Attempt {
            credential: self.key.credential(&account, password, &hash, AddressPrefix::of(peer)),
            account,
            principal,
            passwords,
            hash,
        }
    }

    /// Who that is for the throttle. `account`: folded.
    fn guess(&self, account: &str, prefix: AddressPrefix, credential: Code) -> Guess {
        let client = prefix.to_string();
        Guess {
            pair: self.key.mac(&[account.as_bytes(), client.as_bytes()]),
            client: self.key.mac(&[client.as_bytes()]),
            site: prefix.site_of_many().map(|site| self.key.mac(&[b"site", &site.octets()])),
            account: self.key.mac(&[b"", account.as_bytes(), b""]),
            credential,
        }
    }

    /// Whether the audit trail says already, by an entry of [`Accounts::note_login`], that somebody has logged in to this
    /// account from there: that is enough for a day.
    pub fn is_login_noted(&self, user: &str, peer: IpAddr) -> bool {
        let pair = self.guess(&fold_account(user), AddressPrefix::of(peer), [0; 32]).pair;
        self.attempts.lock().throttle.is_login_noted(pair, (self.clock)())
    }

    /// The entry is made. Who is known there is so after a restart by what stands in the trail.
    pub fn note_login(&self, user: &str, peer: IpAddr) {
        let pair = self.guess(&fold_account(user), AddressPrefix::of(peer), [0; 32]).pair;
        self.attempts.lock().throttle.note_login(pair, (self.clock)());
    }

    /// Joins the computation for an equal attempt of the same client, or queues one if it is not too early.
    fn compute(&self, attempt: Attempt, peer: IpAddr) -> Result<Outcome, LoginError> {
        let Attempt { credential, account, principal, passwords, hash } = attempt;
        let guess = self.guess(&account, AddressPrefix::of(peer), credential.code());
        let clock = self.clock;
        let mut known = self.attempts.lock();
        if let Some(flight) = known.in_flight.get_mut(&credential)
            && flight.outcome.has_changed().is_ok()
        {
            flight.asked = clock();
            return Ok(flight.outcome.clone());
        }
        if let Some(retry_after_s) = known.throttle.wait_s(&guess, clock()) {
            return Err(LoginError::Busy { retry_after_s });
        }
        let (sender, outcome) = watch::channel(None);
        let rank = known.throttle.rank(&guess, clock());
        let counted = Some(known.throttle.count(&guess, clock()));
        let mut flight = Flight { attempts: Arc::clone(&self.attempts), credential, sender, counted };
        let is_somebody = principal.is_some();
        let job = move || {
            let attempts = Arc::clone(&flight.attempts);
            // Who submits this has the lock until the table has it.
            let known = attempts.lock();
            // One receiver is the table's own. A client whose patience ends before its turn comes again, and would never get
            // in if it began anew each time.
            let asked = known.in_flight.get(&credential).map(|flight| flight.asked);
            let is_given_up = flight.sender.receiver_count() <= 1
                && asked.is_none_or(|asked| clock().saturating_duration_since(asked) >= GIVEN_UP_KEPT);
            drop(known);
            if is_given_up {
                // It has cost its client a place, and counts as one that was looked at.
                flight.counted = None;
                return;
            }
            let matches = passwords.iter().any(|password| {
                attempts.bcrypts.fetch_add(1, Ordering::Relaxed);
                bcrypt::verify(&**password, &hash).unwrap_or(false)
            });
            let mut known = attempts.lock();
            let counted = flight.counted.take();
            let is_right = matches && is_somebody;
            if is_right {
                known.verified.insert(credential, clock());
            }
            match counted {
                Some(counted) if is_right => known.throttle.succeeded(&counted, clock()),
                Some(counted) => known.throttle.failed(&counted, clock()),
                None => {}
            }
            known.in_flight.remove(&credential);
            drop(known);
            // Whoever asked may have gone.
            let _ = flight.sender.send(Some(matches));
        };
        let (queued, unrun) = self.pool.submit(peer, rank, Box::new(job));
        if queued.is_ok() {
            known.in_flight.insert(credential, InFlight { outcome: outcome.clone(), asked: clock() });
        }
        drop(known);
        // Its end takes the lock.
        drop(unrun);
        queued?;
        Ok(outcome)
    }

    /// Hashes a new password of an account, after [`Accounts::check_new_password`].
    pub async fn hash(&self, account: &str, password: &str, peer: IpAddr) -> Result<String, HashError> {
        self.check_new_password(account, password).map_err(HashError::Unacceptable)?;
        let (sender, receiver) = oneshot::channel();
        let attempts = Arc::clone(&self.attempts);
        let password = canonical(password);
        let cost = self.settings.bcrypt_cost;
        let job = move || {
            if sender.is_closed() {
                return;
            }
            attempts.bcrypts.fetch_add(1, Ordering::Relaxed);
            let _ = sender.send(bcrypt::hash(password.as_bytes(), cost));
        };
        // Who asks for this is in.
        let (queued, _unrun) = self.pool.submit(peer, Rank::Known, Box::new(job));
        queued.map_err(|Full { retry_after_s }| HashError::Busy { retry_after_s })?;
        match receiver.await {
            Ok(hash) => hash.map_err(|e| HashError::Failed(e.to_string())),
            Err(_) => Err(HashError::Busy { retry_after_s: 1 }),
        }
    }

    /// Whether a clear password may become somebody's; if not, why, in words for the person.
    pub fn check_new_password(&self, account: &str, password: &str) -> Result<(), String> {
        check_new(account, password, self.settings.password_min_chars)
    }

    /// Who may read whose records in an emergency.
    pub fn openings(&self) -> &Openings {
        &self.openings
    }

    /// How many writes accounts have left.
    pub fn writes(&self) -> &Writes {
        &self.writes
    }

    /// How many reads of other people's records accounts have left, as [`Writer::Reader`].
    pub fn reads(&self) -> &Writes {
        &self.reads
    }

    /// Who has logged in with a browser.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The fewest characters of a new password.
    pub fn password_chars_min(&self) -> usize {
        self.settings.password_min_chars
    }

    /// Computations since the start: logins, hashes and dummies.
    pub fn bcrypts(&self) -> u64 {
        self.attempts.bcrypts.load(Ordering::Relaxed)
    }
}

impl Attempts {
    /// Changes under this lock are single calls, so a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A computation on its way. Dropped without an outcome it takes its entry with it, and, unless its client has gone away,
/// what it counted for as an attempt, so that nothing stays of those that had to make room.
struct Flight {
    attempts: Arc<Attempts>,
    credential: Credential,
    sender: watch::Sender<Option<bool>>,
    /// Until there is an outcome.
    counted: Option<Counted>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut known = self.attempts.lock();
        let is_own = |flight: &InFlight| flight.outcome.same_channel(&self.sender.subscribe());
        let was_given_up = known.in_flight.get(&self.credential).is_some_and(is_own) && {
            // The table's own receiver is the last one.
            known.in_flight.remove(&self.credential);
            self.sender.receiver_count() == 0
        };
        // Who goes away and has a place meanwhile has it no cheaper than who waits.
        if let Some(counted) = self.counted.take().filter(|_| !was_given_up) {
            known.throttle.take_back(&counted);
        }
    }
}

#[cfg(test)]
mod tests;
