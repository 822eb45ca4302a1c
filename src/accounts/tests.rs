//! Tests of logins and passwords, with the bcrypts counted.

mod given_up;

use super::*;
use std::str::FromStr as _;
use std::sync::mpsc;

use futures_util::future::join_all;
use unicode_normalization::UnicodeNormalization as _;

use super::passwords::{WAITING_PER_PEER_MAX, WAITING_TOTAL_MAX};
use crate::domain::access::Actor;

const PASSWORD: &[u8] = b"correct horse";

fn peer(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn accounts() -> Arc<Accounts> {
    let settings = AccountsSettings { bcrypt_cost: 4, password_min_chars: 8, bcrypt_threads: 1 };
    Accounts::new(settings).unwrap()
}

fn accounts_with_clock(clock: fn() -> Instant) -> Arc<Accounts> {
    let settings = AccountsSettings { bcrypt_cost: 4, password_min_chars: 8, bcrypt_threads: 1 };
    Accounts::with_clock(settings, clock).unwrap()
}

fn account(hash: &str) -> StoredAccount {
    StoredAccount {
        principal: Arc::new(Principal::new(
            Actor::Person("ESPGNU777ORG".to_owned()),
            vec!["end_user".to_owned()],
        )),
        password_hash: Some(hash.into()),
        active: true,
        rights_count: 1,
    }
}

fn hash_of(password: &[u8]) -> String {
    bcrypt::hash(password, 4).unwrap()
}

/// Occupies the only thread until the sender is dropped.
fn occupy(accounts: &Accounts) -> mpsc::Sender<()> {
    let (gate, gated) = mpsc::channel::<()>();
    let (started, running) = mpsc::channel();
    let block = move || {
        started.send(()).unwrap();
        let _ = gated.recv();
    };
    accounts.pool.submit(peer(250), Rank::Fresh, Box::new(block)).0.unwrap();
    running.recv().unwrap();
    gate
}

#[tokio::test]
async fn the_second_login_costs_nothing() {
    let accounts = accounts();
    let stored = account(&hash_of(PASSWORD));
    for _ in 0..3 {
        let who = accounts.verify("espgnu777org", PASSWORD, peer(1), Some(stored.clone())).await;
        assert_eq!(who.unwrap(), stored.principal);
    }
    let other_case = accounts.verify("ESPGNU777ORG", PASSWORD, peer(1), Some(stored)).await;
    assert!(other_case.is_ok());
    assert_eq!(accounts.bcrypts(), 1);
}

/// Else a guesser elsewhere, who has to wait with every computation, would guess as fast as the node answers.
#[tokio::test]
async fn what_was_verified_or_is_on_its_way_for_one_client_is_compared_with_no_other() {
    let accounts = accounts();
    let stored = account(&hash_of(PASSWORD));
    let verify =
        |last: u8, password: &'static [u8]| accounts.verify("A", password, peer(last), Some(stored.clone()));
    for number in 0..6 {
        let wrong = [&b"wrong 0"[..], b"wrong 1", b"wrong 2", b"wrong 3", b"wrong 4", b"wrong 5"][number];
        verify(2, wrong).await.unwrap_err();
    }
    verify(1, PASSWORD).await.unwrap();
    assert!(accounts.has_verified("A", PASSWORD, peer(1), &stored));
    assert!(!accounts.has_verified("A", PASSWORD, peer(2), &stored));
    assert_eq!(verify(2, PASSWORD).await, Err(LoginError::Busy { retry_after_s: 1 }));
    // The owner's address, written otherwise.
    let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
    assert!(accounts.has_verified("A", PASSWORD, mapped, &stored));
    // While it is computed.
    let renewed = account(&hash_of(PASSWORD));
    let gate = occupy(&accounts);
    let release = async {
        tokio::task::yield_now().await;
        drop(gate);
    };
    let owner = accounts.verify("A", PASSWORD, peer(1), Some(renewed.clone()));
    let guesser = accounts.verify("A", PASSWORD, peer(2), Some(renewed.clone()));
    let (owner, guesser, ()) = tokio::join!(owner, guesser, release);
    assert!(owner.is_ok());
    assert_eq!(guesser, Err(LoginError::Busy { retry_after_s: 1 }));
}

#[tokio::test]
async fn a_cached_login_sees_the_account_as_it_is_now() {
    let accounts = accounts();
    let mut stored = account(&hash_of(PASSWORD));
    accounts.verify("A", PASSWORD, peer(1), Some(stored.clone())).await.unwrap();
    Arc::make_mut(&mut stored.principal).roles = vec!["health_professional".to_owned()];
    let who = accounts.verify("A", PASSWORD, peer(1), Some(stored.clone())).await.unwrap();
    assert_eq!(who.roles, ["health_professional"]);
    assert_eq!(accounts.bcrypts(), 1);

    stored.active = false;
    let inactive = accounts.verify("A", PASSWORD, peer(1), Some(stored)).await;
    assert_eq!(inactive, Err(LoginError::Refused));
    assert_eq!(accounts.bcrypts(), 2);
}

#[tokio::test]
async fn a_changed_hash_ends_what_was_verified() {
    let accounts = accounts();
    let stored = account(&hash_of(PASSWORD));
    accounts.verify("A", PASSWORD, peer(1), Some(stored)).await.unwrap();

    let same_password = account(&hash_of(PASSWORD));
    accounts.verify("A", PASSWORD, peer(1), Some(same_password)).await.unwrap();
    assert_eq!(accounts.bcrypts(), 2, "verified against the new hash");

    let changed = account(&hash_of(b"another password"));
    let old = accounts.verify("A", PASSWORD, peer(1), Some(changed)).await;
    assert_eq!(old, Err(LoginError::Refused));
    assert_eq!(accounts.bcrypts(), 3);
}

#[tokio::test]
async fn a_wrong_password_is_computed_every_time() {
    let accounts = accounts();
    let stored = account(&hash_of(PASSWORD));
    for _ in 0..3 {
        let answer = accounts.verify("A", b"wrong", peer(1), Some(stored.clone())).await;
        assert_eq!(answer, Err(LoginError::Refused));
    }
    assert_eq!(accounts.bcrypts(), 3);
}

#[tokio::test]
async fn what_cannot_succeed_costs_one_computation_each_time() {
    let accounts = accounts();
    let other: Vec<u8> = [&[b'x'; 71][..], b"yz"].concat();
    let cost_31 = hash_of(PASSWORD).replacen("$04$", "$31$", 1);
    let cost_3 = hash_of(PASSWORD).replacen("$04$", "$03$", 1);
    let inactive = StoredAccount { active: false, ..account(&hash_of(PASSWORD)) };
    let without = StoredAccount { password_hash: None, ..account("") };
    let cases: Vec<(&str, &[u8], Option<StoredAccount>)> = vec![
        ("unknown", PASSWORD, None),
        ("inactive", PASSWORD, Some(inactive)),
        ("without a hash", PASSWORD, Some(without)),
        ("73 bytes, another 72nd", &other, Some(account(&hash_of(&[b'x'; 72])))),
        ("NUL", b"correct\0horse", Some(account(&hash_of(b"correct\0horse")))),
        ("cost 31", PASSWORD, Some(account(&cost_31))),
        ("cost 3", PASSWORD, Some(account(&cost_3))),
        ("malformed", PASSWORD, Some(account("$2b$oops"))),
        ("empty", b"", Some(account(""))),
        ("clear text", PASSWORD, Some(account("correct horse"))),
    ];
    for (case, password, stored) in cases {
        for _ in 0..2 {
            let before = accounts.bcrypts();
            let answer = accounts.verify(case, password, peer(1), stored.clone()).await;
            assert_eq!(answer, Err(LoginError::Refused), "{case}");
            assert_eq!(accounts.bcrypts(), before + 1, "{case}");
        }
    }
}

#[tokio::test]
async fn a_password_of_72_bytes_is_whole() {
    let accounts = accounts();
    let password = vec![b'x'; 72];
    let stored = account(&hash_of(&password));
    accounts.verify("A", &password, peer(1), Some(stored)).await.unwrap();
}

/// Thalamus hashes with a bcrypt that cuts passwords at 72 bytes, in the middle of a letter too.
#[tokio::test]
async fn a_longer_password_is_compared_as_far_as_other_software_has_hashed_it() {
    let accounts = accounts();
    let cyrillic = "x пароль из очень длинной фразы которую помню только я и никто другой";
    let apart: String = "clé ".repeat(30).nfd().collect();
    for long in ["zebra lamp ".repeat(9).as_str(), cyrillic, "北".repeat(30).as_str(), &apart] {
        assert!(long.len() > PASSWORD_BYTES_MAX, "{long}");
        let stored = account(&hash_of(&long.as_bytes()[..PASSWORD_BYTES_MAX]));
        let composed: String = long.nfc().collect();
        for (sent, from) in [(long, 1), (composed.as_str(), 2)] {
            let verified = accounts.verify("A", sent.as_bytes(), peer(from), Some(stored.clone())).await;
            verified.unwrap_or_else(|error| panic!("{sent}: {error}"));
        }
        let other = long.replacen(|c: char| c.is_alphabetic(), "y", 1);
        assert!(accounts.verify("A", other.as_bytes(), peer(3), Some(stored)).await.is_err());
        assert!(accounts.check_new_password("A", &composed).is_err(), "none is set here");
    }
}

#[tokio::test]
async fn equal_attempts_in_flight_share_one_computation() {
    let accounts = accounts();
    let stored = account(&hash_of(PASSWORD));
    let gate = occupy(&accounts);
    let equal = (0..40).map(|_| accounts.verify("A", PASSWORD, peer(1), Some(stored.clone())));
    let wrong = (0..40).map(|_| accounts.verify("A", b"wrong", peer(1), Some(stored.clone())));
    let unknown = (0..40).map(|_| accounts.verify("B", PASSWORD, peer(1), None));
    let release = async {
        tokio::task::yield_now().await;
        drop(gate);
    };
    let (equal, wrong, unknown, ()) =
        tokio::join!(join_all(equal), join_all(wrong), join_all(unknown), release);
    assert!(equal.iter().all(Result::is_ok));
    for answer in wrong.into_iter().chain(unknown) {
        assert_eq!(answer, Err(LoginError::Refused));
    }
    assert_eq!(accounts.bcrypts(), 3);
    assert!(accounts.attempts.lock().in_flight.is_empty());
}

thread_local! {
    static PASSED: std::cell::Cell<Duration> = const { std::cell::Cell::new(Duration::ZERO) };
    static START: Instant = Instant::now();
}

/// Time that passes only when a test says so. Computations run on other threads, where none passes: their
/// entries in the cache are as old as the test.
fn stopped_clock() -> Instant {
    START.with(|start| *start) + PASSED.get()
}

#[tokio::test]
async fn guessing_is_slowed_down_for_one_name_from_one_address() {
    let settings = AccountsSettings { bcrypt_cost: 4, password_min_chars: 8, bcrypt_threads: 1 };
    let accounts = Accounts::with_clock(settings, stopped_clock).unwrap();
    let stored = account(&hash_of(PASSWORD));
    let guess = |user: &'static str, from: u8, stored: Option<StoredAccount>| {
        let accounts = Arc::clone(&accounts);
        async move { accounts.verify(user, b"wrong", peer(from), stored).await }
    };
    // Somebody who is in stays in, whatever others at their desk do.
    accounts.verify("A", PASSWORD, peer(1), Some(stored.clone())).await.unwrap();
    for (user, stored) in [("A", Some(stored.clone())), ("NOBODY", None)] {
        for _ in 0..5 {
            assert_eq!(guess(user, 1, stored.clone()).await, Err(LoginError::Refused));
        }
        let before = accounts.bcrypts();
        assert_eq!(guess(user, 1, stored.clone()).await, Err(LoginError::Busy { retry_after_s: 1 }));
        assert_eq!(accounts.bcrypts(), before, "{user}: not even computed");
    }
    assert_eq!(guess("a", 1, Some(stored.clone())).await, Err(LoginError::Busy { retry_after_s: 1 }));
    accounts.verify("A", PASSWORD, peer(1), Some(stored.clone())).await.unwrap();
    // Other names from there, and the same name from elsewhere.
    assert_eq!(guess("B", 1, None).await, Err(LoginError::Refused));
    accounts.verify("A", PASSWORD, peer(2), Some(stored.clone())).await.unwrap();
    let renewed = account(&hash_of(PASSWORD));
    let early = accounts.verify("A", PASSWORD, peer(1), Some(renewed.clone())).await;
    assert_eq!(early, Err(LoginError::Busy { retry_after_s: 1 }), "a right one must wait too, if it is new");
    PASSED.set(Duration::from_secs(1));
    assert_eq!(guess("A", 1, Some(renewed.clone())).await, Err(LoginError::Refused));
    assert_eq!(guess("A", 1, Some(renewed.clone())).await, Err(LoginError::Busy { retry_after_s: 3 }));
    PASSED.set(Duration::from_secs(4));
    accounts.verify("A", PASSWORD, peer(1), Some(renewed.clone())).await.unwrap();
    for _ in 0..5 {
        assert_eq!(guess("A", 1, Some(renewed.clone())).await, Err(LoginError::Refused), "success forgets");
    }
}

/// On a node that has just started: nothing was verified yet, and all come from one address.
#[tokio::test]
async fn the_owner_is_let_in_among_guesses_from_the_same_address() {
    let settings = AccountsSettings { bcrypt_cost: 4, password_min_chars: 8, bcrypt_threads: 1 };
    let accounts = Accounts::with_clock(settings, stopped_clock).unwrap();
    let stored = account(&hash_of(PASSWORD));
    let verify = async |password: &[u8]| accounts.verify("A", password, peer(1), Some(stored.clone())).await;
    let came_s = 60;
    let mut due_s = came_s;
    for s in 0.. {
        PASSED.set(Duration::from_secs(s));
        for number in 0..30 {
            verify(format!("guess {s} {number}").as_bytes()).await.unwrap_err();
        }
        if s < due_s {
            continue;
        }
        match verify(PASSWORD).await {
            Ok(_) => break,
            Err(LoginError::Busy { retry_after_s }) => due_s = s + retry_after_s,
            Err(LoginError::Refused) => panic!("the right password"),
        }
        assert!(s < came_s + 15, "not let in");
    }
    assert!(accounts.bcrypts() < 5 + 75 / 5, "{}", accounts.bcrypts());
}

#[tokio::test]
async fn many_guesses_at_once_are_no_more_than_one_after_the_other() {
    let accounts = accounts();
    let stored = account(&hash_of(PASSWORD));
    let guesses: Vec<String> = (0..40).map(|number| format!("guess {number}")).collect();
    let attempts =
        guesses.iter().map(|guess| accounts.verify("A", guess.as_bytes(), peer(1), Some(stored.clone())));
    let answers = join_all(attempts).await;
    let refused = answers.iter().filter(|answer| **answer == Err(LoginError::Refused)).count();
    assert_eq!((refused, accounts.bcrypts()), (5, 5));
}

#[tokio::test]
async fn a_full_queue_says_so_and_leaves_no_trace() {
    let accounts = accounts();
    let stored = account(&hash_of(PASSWORD));
    let gate = occupy(&accounts);
    let attempt = |address: u8, number: usize| {
        let (accounts, stored) = (Arc::clone(&accounts), stored.clone());
        let password = format!("guess {number}");
        // Each under a name of its own: those who guess at one are held up before the queue.
        let user = format!("A{number}");
        async move { accounts.verify(&user, password.as_bytes(), peer(address), Some(stored)).await }
    };
    let mut waiting = Vec::new();
    for address in 0..(WAITING_TOTAL_MAX / WAITING_PER_PEER_MAX) as u8 {
        for number in 0..WAITING_PER_PEER_MAX {
            waiting.push(tokio::spawn(attempt(address, usize::from(address) * 100 + number)));
        }
        tokio::task::yield_now().await;
        if address == 0 {
            let seventeenth = attempt(0, 9_000).await;
            assert!(matches!(seventeenth, Err(LoginError::Busy { retry_after_s: 1.. })));
        }
    }
    // Somebody from elsewhere has a place all the same, and one of those who have most loses theirs.
    let newcomer = tokio::spawn(attempt(99, 9_001));
    tokio::task::yield_now().await;
    let second = attempt(99, 9_002).await;
    assert!(matches!(second, Err(LoginError::Busy { .. })), "a second place only where there is room");
    assert_eq!(
        accounts.attempts.lock().in_flight.len(),
        WAITING_TOTAL_MAX,
        "nothing is left of the displaced"
    );
    drop(gate);
    let mut displaced = 0;
    for attempt in waiting {
        match attempt.await.unwrap() {
            Err(LoginError::Refused) => {}
            answer => {
                assert_eq!(answer, Err(LoginError::Busy { retry_after_s: 1 }));
                displaced += 1;
            }
        }
    }
    assert_eq!(newcomer.await.unwrap(), Err(LoginError::Refused));
    assert_eq!((displaced, accounts.bcrypts()), (1, WAITING_TOTAL_MAX as u64));
}

/// Waits until everything is done that was queued for the first address, behind which this stands.
async fn drained(accounts: &Accounts) {
    loop {
        let (sender, receiver) = oneshot::channel();
        let job = move || {
            let _ = sender.send(());
        };
        if accounts.pool.submit(peer(1), Rank::Fresh, Box::new(job)).0.is_ok() {
            return receiver.await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Who is pushed out of the queue by others, or finds no place, has not guessed.
#[tokio::test]
async fn an_attempt_that_was_not_computed_does_not_count() {
    let accounts = accounts();
    let stored = account(&hash_of(PASSWORD));
    let verify = |user: &'static str, password: &'static [u8]| {
        let (accounts, stored) = (Arc::clone(&accounts), stored.clone());
        tokio::spawn(async move { accounts.verify(user, password, peer(1), Some(stored)).await })
    };
    for _ in 0..30 {
        let gate = occupy(&accounts);
        for _ in 0..WAITING_PER_PEER_MAX {
            accounts.pool.submit(peer(1), Rank::Fresh, Box::new(|| {})).0.unwrap();
        }
        // No place.
        assert!(matches!(verify("A", b"full").await.unwrap(), Err(LoginError::Busy { .. })));
        drop(gate);
        drained(&accounts).await;
        let gate = occupy(&accounts);
        for _ in 1..WAITING_PER_PEER_MAX {
            accounts.pool.submit(peer(1), Rank::Fresh, Box::new(|| {})).0.unwrap();
        }
        let displaced = verify("A", PASSWORD);
        tokio::task::yield_now().await;
        for other in 0..(WAITING_TOTAL_MAX - WAITING_PER_PEER_MAX + 1) as u8 {
            accounts.pool.submit(peer(10 + other), Rank::Fresh, Box::new(|| {})).0.unwrap();
        }
        assert_eq!(displaced.await.unwrap(), Err(LoginError::Busy { retry_after_s: 1 }));
        drop(gate);
        drained(&accounts).await;
    }
    let before = accounts.bcrypts();
    for _ in 0..5 {
        assert_eq!(verify("A", b"wrong").await.unwrap(), Err(LoginError::Refused));
    }
    assert_eq!(verify("A", b"wrong").await.unwrap(), Err(LoginError::Busy { retry_after_s: 1 }));
    assert_eq!(accounts.bcrypts() - before, 5, "all five that are free were left");
}

#[tokio::test]
async fn those_who_are_in_pass_a_full_queue() {
    let accounts = accounts();
    let stored = account(&hash_of(PASSWORD));
    accounts.verify("A", PASSWORD, peer(1), Some(stored.clone())).await.unwrap();
    let _gate = occupy(&accounts);
    for _ in 0..WAITING_PER_PEER_MAX {
        accounts.pool.submit(peer(1), Rank::Fresh, Box::new(|| {})).0.unwrap();
    }
    accounts.verify("A", PASSWORD, peer(1), Some(stored)).await.unwrap();
}

#[tokio::test]
async fn a_new_hash_verifies_and_is_acceptable() {
    let accounts = accounts();
    let hash = accounts.hash("A", "correct horse", peer(1)).await.unwrap();
    assert!(hash.starts_with("$2b$04$") && is_acceptable_hash(&hash), "{hash}");
    accounts.verify("A", PASSWORD, peer(1), Some(account(&hash))).await.unwrap();
    assert_eq!(accounts.bcrypts(), 2);
    let short = accounts.hash("A", "short", peer(1)).await;
    assert_eq!(
        short,
        Err(HashError::Unacceptable("the password must have at least 8 characters".to_owned()))
    );
}

#[test]
fn new_passwords_have_bounds_that_are_explained() {
    let accounts = accounts();
    let refused = |password: &str| accounts.check_new_password("ESGNU777ORG", password).unwrap_err();
    assert!(refused("").contains("at least 8"));
    assert!(refused("éééé777").contains("at least 8"), "characters, not bytes");
    assert!(refused(&"x".repeat(65)).contains("at most 64"));
    assert!(refused(&"é".repeat(37)).contains("72 bytes"));
    assert!(refused("with\0zero").contains("NUL"));
    let guessed_first = [
        "PassWord123",
        "12345678",
        "qwertyuiop",
        "1q2w3e4r5t",
        "p@ssw0rd",
        "iloveyou2",
        "23.11.1987",
        "summer2024",
        "contraseña1",
        "gnuhealth2026",
        "ESGNU777ORG",
        "esgnu777org1",
        "777esgnu777org",
        &"x".repeat(64),
    ];
    for password in guessed_first {
        assert!(refused(password).contains("tried first"), "{password}");
    }
    let of_72_bytes = "мойдядясамыхчестныхправилкогданевшут";
    let of_64_chars = "kxitxvt1ipHbvkhNlqQW5CT1+v4j8mqpGl9R3jgheO9MirvOU44fCxqjTHYM/4mn";
    assert_eq!((of_72_bytes.len(), of_64_chars.len()), (PASSWORD_BYTES_MAX, PASSWORD_CHARS_MAX));
    for fine in ["gnusolidario", "tres tristes tigres", of_72_bytes, of_64_chars] {
        accounts.check_new_password("ESGNU777ORG", fine).unwrap();
    }
}

#[test]
fn only_bearable_bcrypt_hashes_are_acceptable() {
    let real = "$2b$12$Y9rX7PoTHRXhTO1H78Tan.8mVmyayGAUIveiYxu2Qeo0ZDRvJQ8/2";
    for (from, to) in [("$2b$", "$2a$"), ("$2b$", "$2y$"), ("$12$", "$04$"), ("$12$", "$14$")] {
        assert!(is_acceptable_hash(&real.replacen(from, to, 1)), "{to}");
    }
    let unacceptable = [
        real.replacen("$2b$", "$2x$", 1),
        real.replacen("$2b$", "$5b$", 1),
        real.replacen("$12$", "$03$", 1),
        real.replacen("$12$", "$15$", 1),
        real.replacen("$12$", "$31$", 1),
        real.replacen("$12$", "$+4$", 1),
        real.replacen('.', "!", 1),
        real[..59].to_owned(),
        format!("{real}x"),
        "$2b$oops".to_owned(),
        "$2b".to_owned(),
        "é€é€é€".to_owned(),
        String::new(),
    ];
    for hash in unacceptable {
        assert!(!is_acceptable_hash(&hash), "{hash}");
    }
}

/// The cost of what is compared with.
fn cost_at(accounts: &Accounts, user: &str, password: &[u8], stored: Option<StoredAccount>) -> u32 {
    cost_of(&accounts.prepare(user, password, peer(1), stored).hash).unwrap()
}

#[test]
fn whatever_cannot_succeed_costs_what_the_account_does() {
    let accounts = accounts();
    accounts.costs.learn([1; 32], std::collections::BTreeMap::from([(5, 1)]));
    for cost in [4, 6, 7] {
        let stored = account(&bcrypt::hash(PASSWORD, cost).unwrap());
        let closed = StoredAccount { active: false, ..stored.clone() };
        for password in [PASSWORD, b"wrong", b"", b"a\0b", &[b'x'; 100]] {
            assert_eq!(cost_at(&accounts, "ANA", password, Some(stored.clone())), cost);
            assert_eq!(cost_at(&accounts, "ANA", password, Some(closed.clone())), cost, "closed");
        }
    }
    let unusable = ["", "$2b$oops", "$2b$31$zzz", "clear"].map(|hash| Some(account(hash)));
    let without = StoredAccount { password_hash: None, ..account("") };
    for stored in unusable.into_iter().chain([None, Some(without)]) {
        assert_eq!(cost_at(&accounts, "nobody", PASSWORD, stored), 5);
    }
}

/// Hashes of people and technicians, whatever is wrong with others.
#[tokio::test]
async fn the_costs_in_the_store_are_counted() {
    use crate::store::{Store, StoreOptions};

    let options =
        StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 100, audit_keep_rows: 100, clock: || 0 };
    let store = Store::in_memory(options).unwrap();
    let accounts = accounts();
    accounts.learn_costs(&store).await.unwrap();
    assert_eq!(cost_at(&accounts, "nobody", PASSWORD, None), 4, "of the configuration");
    let hash = bcrypt::hash(PASSWORD, 6).unwrap();
    let filled = store.transact(move |tx| -> Result<(), crate::store::StoreError> {
        for (id, password) in [("A1", hash.as_str()), ("A2", "clear"), ("A3", "$2b$31$oops")] {
            let key = crate::domain::record::RecordKey::new(crate::domain::record::Kind::Person, id);
            tx.edit(&key, Some(&bson::doc! {"_id": id, "password": password}), &Actor::Operator(0))?;
        }
        tx.set_local_account("tess", Some(&bson::doc! {"password": &hash}), &Actor::Operator(0))
    });
    filled.await.unwrap();
    accounts.learn_costs(&store).await.unwrap();
    for name in ["nobody", "x", "A2", "a3"] {
        assert_eq!(cost_at(&accounts, name, PASSWORD, None), 6);
    }
    // Names take the same time after a restart.
    let other = self::accounts();
    for accounts in [&accounts, &other] {
        accounts.prepare_costs(&store).await.unwrap();
    }
    let more = bcrypt::hash(PASSWORD, 5).unwrap();
    let added = store.transact(move |tx| -> Result<(), crate::store::StoreError> {
        for name in ["tom", "tim"] {
            tx.set_local_account(name, Some(&bson::doc! {"password": &more}), &Actor::Operator(0))?;
        }
        Ok(())
    });
    added.await.unwrap();
    for accounts in [&accounts, &other] {
        accounts.learn_costs(&store).await.unwrap();
    }
    let costs = |accounts: &Accounts| -> Vec<u32> {
        (0..50).map(|number| cost_at(accounts, &format!("nobody{number}"), PASSWORD, None)).collect()
    };
    assert_eq!(costs(&accounts), costs(&other));
    assert!([5, 6].iter().all(|cost| costs(&accounts).contains(cost)));
}

#[test]
fn the_dummy_costs_what_a_real_hash_costs() {
    for cost in [BCRYPT_COST_MIN, 12, BCRYPT_COST_MAX] {
        let dummy = dummy_hash(cost);
        assert!(is_acceptable_hash(&dummy), "{dummy}");
        assert_eq!(bcrypt::HashParts::from_str(&dummy).unwrap().get_cost(), cost);
    }
}
