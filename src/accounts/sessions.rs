//! Floor 2. Sessions: who has logged in with a browser, and until when.
//!
//! A session is 32 random bytes that the browser keeps; here only their SHA-256 is kept, in memory, so a restart
//! ends them all. It belongs to the account as it was at the login: with any change of its password, its roles or
//! `active` since then, taken back or not, it is worth nothing. Time is monotonic, whatever the clock of the box does.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::StoredAccount;
use crate::domain::access::{Actor, Principal};

/// A session that nobody uses for this long ends: somebody has left the computer.
pub const SESSION_IDLE_S_MAX: u64 = 15 * 60;
/// A session ends after this long however it is used: a long shift.
pub const SESSION_S_MAX: u64 = 12 * 60 * 60;
/// Sessions of one account; a new one beyond that ends the one that was not used for longest.
pub const SESSIONS_PER_ACCOUNT_MAX: usize = 16;
/// Sessions of all accounts, likewise.
pub const SESSIONS_MAX: usize = 4_096;
const SECRET_BYTES: usize = 32;

/// What a session is known by: the SHA-256 of its secret. Shows itself as hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId([u8; 32]);

impl SessionId {
    /// Of the secret that a browser sent, whatever that is.
    pub fn of(secret: &str) -> SessionId {
        SessionId(Sha256::digest(secret.as_bytes()).into())
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Why a session ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Idle,
    TooOld,
    /// Other password, other roles, closed or gone.
    AccountChanged,
    /// Too many others were begun.
    TooMany,
}

impl Ending {
    pub fn name(self) -> &'static str {
        match self {
            Ending::Idle => "idle",
            Ending::TooOld => "too old",
            Ending::AccountChanged => "the account has changed",
            Ending::TooMany => "too many sessions",
        }
    }
}

/// A session that ended by itself, for the audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub actor: Actor,
    pub why: Ending,
}

struct Session {
    actor: Actor,
    /// [`StoredAccount::rights_count`] at the login.
    rights_count: u64,
    began: Instant,
    used: Instant,
}

impl Session {
    /// Whether this is its account, as it was at the login.
    fn is_of(&self, stored: &StoredAccount) -> bool {
        stored.active && stored.principal.actor == self.actor && stored.rights_count == self.rights_count
    }

    fn ending(&self, now: Instant) -> Option<Ending> {
        let is_over = |since, s_max| now.saturating_duration_since(since) >= Duration::from_secs(s_max);
        if is_over(self.began, SESSION_S_MAX) {
            return Some(Ending::TooOld);
        }
        is_over(self.used, SESSION_IDLE_S_MAX).then_some(Ending::Idle)
    }
}

/// All sessions of this process.
pub struct Sessions {
    known: Mutex<HashMap<SessionId, Session>>,
    clock: fn() -> Instant,
}

impl Sessions {
    pub(super) fn new(clock: fn() -> Instant) -> Sessions {
        Sessions { known: Mutex::default(), clock }
    }

    /// Begins a session of an account whose password was verified just now. The secret that is returned is the
    /// only copy. Fails if the machine gives no randomness.
    pub fn begin(
        &self,
        account: &StoredAccount,
    ) -> Result<(Zeroizing<String>, Vec<Ended>), getrandom::Error> {
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        getrandom::fill(&mut *secret)?;
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(*secret));
        let now = (self.clock)();
        let mut known = self.lock();
        let mut ended = take_old(&mut known, now);
        let actor = account.principal.actor.clone();
        ended.extend(make_room(&mut known, Some(&actor), SESSIONS_PER_ACCOUNT_MAX));
        ended.extend(make_room(&mut known, None, SESSIONS_MAX));
        let session = Session { actor, rights_count: account.rights_count, began: now, used: now };
        known.insert(SessionId::of(&secret), session);
        Ok((secret, ended))
    }

    /// Whose session it is, if it is one. Nobody is let in by this: see [`Sessions::resume`].
    pub fn actor(&self, id: &SessionId) -> Option<Actor> {
        self.lock().get(id).map(|session| session.actor.clone())
    }

    /// Who the session lets in, if its account is, at this moment, what it was at the login.
    ///
    /// `stored` must be read for this very request. Otherwise the session has ended; what is returned then is for
    /// the audit, and nothing if there was no such session.
    pub fn resume(
        &self,
        id: &SessionId,
        stored: Option<&StoredAccount>,
    ) -> Result<Arc<Principal>, Option<Ended>> {
        let now = (self.clock)();
        let mut known = self.lock();
        let session = known.get_mut(id).ok_or(None)?;
        let why = match (session.ending(now), stored.filter(|stored| session.is_of(stored))) {
            (None, Some(stored)) => {
                session.used = now;
                return Ok(stored.principal.clone());
            }
            (Some(why), _) => why,
            (None, None) => Ending::AccountChanged,
        };
        let ended = Ended { actor: session.actor.clone(), why };
        known.remove(id);
        Err(Some(ended))
    }

    /// Whether the session goes on; this is no use of it.
    pub fn is_alive(&self, id: &SessionId) -> bool {
        self.lock().get(id).is_some_and(|session| session.ending((self.clock)()).is_none())
    }

    /// Logs off; whose session it was, if it was one.
    pub fn end(&self, id: &SessionId) -> Option<Actor> {
        self.lock().remove(id).map(|session| session.actor)
    }

    /// Ends those whose time is over, so that nobody has to ask for them first.
    pub fn end_old(&self) -> Vec<Ended> {
        take_old(&mut self.lock(), (self.clock)())
    }

    /// The sessions that there are, by whose they are.
    pub fn by_actor(&self) -> HashMap<Actor, Vec<SessionId>> {
        let mut all: HashMap<Actor, Vec<SessionId>> = HashMap::new();
        for (id, session) in self.lock().iter() {
            all.entry(session.actor.clone()).or_default().push(*id);
        }
        all
    }

    /// Ends those of these whose account is not what it was at the login. `stored` is the account, read after it was asked
    /// which sessions there are: one that is begun meanwhile may be of an account that has changed since it was read.
    pub fn end_changed(&self, of: &[SessionId], stored: Option<&StoredAccount>) -> Vec<Ended> {
        let mut known = self.lock();
        let mut ended = Vec::new();
        for id in of {
            let is_over = |session: &mut Session| !stored.is_some_and(|stored| session.is_of(stored));
            if known.get_mut(id).is_some_and(is_over)
                && let Some(session) = known.remove(id)
            {
                ended.push(Ended { actor: session.actor, why: Ending::AccountChanged });
            }
        }
        ended
    }

    /// Changes under this lock are single calls, so a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Session>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take_old(known: &mut HashMap<SessionId, Session>, now: Instant) -> Vec<Ended> {
    let old = known.extract_if(|_, session| session.ending(now).is_some());
    old.filter_map(|(_, session)| session.ending(now).map(|why| Ended { actor: session.actor, why }))
        .collect()
}

/// Takes the one that was not used for longest, of an account or of all, if there are `max`.
fn make_room(known: &mut HashMap<SessionId, Session>, of: Option<&Actor>, max: usize) -> Option<Ended> {
    let theirs = || known.iter().filter(|(_, session)| of.is_none_or(|actor| *actor == session.actor));
    if theirs().count() < max {
        return None;
    }
    let id = *theirs().min_by_key(|(_, session)| session.used)?.0;
    known.remove(&id).map(|session| Ended { actor: session.actor, why: Ending::TooMany })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::LazyLock;

    use super::*;

    static START: LazyLock<Instant> = LazyLock::new(Instant::now);

    thread_local! {
        static PASSED_S: Cell<u64> = const { Cell::new(0) };
    }

    fn clock() -> Instant {
        *START + Duration::from_secs(PASSED_S.get())
    }

    fn pass(s: u64) {
        PASSED_S.set(PASSED_S.get() + s);
    }

    fn account(id: &str) -> StoredAccount {
        StoredAccount {
            principal: Arc::new(Principal::new(Actor::Person(id.to_owned()), vec!["end_user".to_owned()])),
            password_hash: Some("hash".into()),
            active: true,
            rights_count: 1,
        }
    }

    fn ended(id: &str, why: Ending) -> Ended {
        Ended { actor: Actor::Person(id.to_owned()), why }
    }

    fn begun(sessions: &Sessions, account: &StoredAccount) -> SessionId {
        let (secret, _) = sessions.begin(account).unwrap();
        assert_eq!(secret.len(), 43);
        SessionId::of(&secret)
    }

    #[test]
    fn a_session_ends_when_it_is_idle_and_when_it_is_old() {
        let (sessions, ana) = (Sessions::new(clock), account("ANA"));
        let id = begun(&sessions, &ana);
        for _ in 0..SESSION_S_MAX / (SESSION_IDLE_S_MAX - 1) {
            pass(SESSION_IDLE_S_MAX - 1);
            assert_eq!(sessions.resume(&id, Some(&ana)), Ok(ana.principal.clone()));
        }
        pass(SESSION_S_MAX % (SESSION_IDLE_S_MAX - 1));
        assert!(!sessions.is_alive(&id));
        assert_eq!(sessions.resume(&id, Some(&ana)), Err(Some(ended("ANA", Ending::TooOld))));
        assert_eq!(sessions.resume(&id, Some(&ana)), Err(None), "it is told once");

        let id = begun(&sessions, &ana);
        pass(SESSION_IDLE_S_MAX - 1);
        // Looking is no use.
        assert!(sessions.is_alive(&id) && sessions.end_old().is_empty());
        pass(1);
        assert!(!sessions.is_alive(&id));
        assert_eq!(sessions.end_old(), [ended("ANA", Ending::Idle)]);
        assert_eq!(sessions.actor(&id), None);
    }

    #[test]
    fn a_session_ends_with_whatever_it_was_begun_for() {
        let sessions = Sessions::new(clock);
        let ana = account("ANA");
        let changed: [fn(&mut StoredAccount); 3] = [
            |account| account.rights_count += 1,
            |account| account.active = false,
            |account| Arc::make_mut(&mut account.principal).actor = Actor::Local("ANA".to_owned()),
        ];
        for change in changed {
            let id = begun(&sessions, &ana);
            let mut other = ana.clone();
            change(&mut other);
            assert_eq!(sessions.resume(&id, Some(&other)), Err(Some(ended("ANA", Ending::AccountChanged))));
            // It does not come back with the account.
            assert_eq!(sessions.resume(&id, Some(&ana)), Err(None));
            // The same without anybody who uses it.
            let id = begun(&sessions, &ana);
            let known = sessions.by_actor().remove(&ana.principal.actor).unwrap();
            assert_eq!(known, [id]);
            assert_eq!(sessions.end_changed(&known, Some(&ana)), []);
            // One that is begun with the account as it has become, after it was read as it was.
            let later = begun(&sessions, &other);
            assert_eq!(sessions.end_changed(&known, Some(&ana)), []);
            assert!(sessions.is_alive(&later));
            assert_eq!(sessions.end_changed(&known, Some(&other)), [ended("ANA", Ending::AccountChanged)]);
            assert_eq!(sessions.actor(&id), None);
            assert!(sessions.end(&later).is_some());
        }
        let id = begun(&sessions, &ana);
        assert_eq!(sessions.resume(&id, None), Err(Some(ended("ANA", Ending::AccountChanged))));
        let id = begun(&sessions, &ana);
        assert_eq!(sessions.end(&id), Some(Actor::Person("ANA".to_owned())));
        assert_eq!(sessions.resume(&id, Some(&ana)), Err(None));
    }

    #[test]
    fn the_one_that_was_not_used_for_longest_makes_room() {
        let sessions = Sessions::new(clock);
        let (ana, bob) = (account("ANA"), account("BOB"));
        let of_bob = begun(&sessions, &bob);
        let of_ana: Vec<SessionId> = (0..SESSIONS_PER_ACCOUNT_MAX)
            .map(|_| {
                pass(1);
                begun(&sessions, &ana)
            })
            .collect();
        pass(1);
        sessions.resume(&of_ana[0], Some(&ana)).unwrap();
        let (_, gone) = sessions.begin(&ana).unwrap();
        assert_eq!(gone, [ended("ANA", Ending::TooMany)]);
        assert!(sessions.is_alive(&of_ana[0]) && !sessions.is_alive(&of_ana[1]));
        assert!(sessions.is_alive(&of_bob), "others keep theirs");
        for number in 0..SESSIONS_MAX {
            sessions.begin(&account(&format!("P{number}"))).unwrap();
        }
        assert_eq!(sessions.lock().len(), SESSIONS_MAX);
        assert!(!sessions.is_alive(&of_bob));
    }
}
