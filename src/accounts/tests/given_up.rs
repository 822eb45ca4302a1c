//! Tests of logins whose clients go away.

use super::*;

/// A client sends a password and goes away.
async fn give_up(
    accounts: &Arc<Accounts>,
    password: &'static [u8],
    peer: IpAddr,
    stored: Option<StoredAccount>,
) {
    let gone = tokio::spawn({
        let accounts = Arc::clone(accounts);
        async move { accounts.verify("A", password, peer, stored).await }
    });
    tokio::task::yield_now().await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
}

fn guesser(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    IpAddr::from([10, 9, high, low])
}

/// Two hundred addresses with a guess each stand before a client that goes away after each 30 seconds, and two hundred more
/// come after it: it is in as soon as its first place has its turn.
#[tokio::test]
async fn a_client_that_goes_away_keeps_its_place() {
    static PASSED_S: AtomicU64 = AtomicU64::new(0);
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    let accounts = accounts_with_clock(|| *START + Duration::from_secs(PASSED_S.load(Ordering::Relaxed)));
    let stored = account(&hash_of(PASSWORD));
    let gate = occupy(&accounts);
    let mut guesses = tokio::task::JoinSet::new();
    let mut guess = |number| {
        let accounts = Arc::clone(&accounts);
        guesses.spawn(async move {
            accounts.verify(&format!("N{number}"), b"wrong", guesser(number), None).await
        });
    };
    let until_waiting = async |count| {
        while accounts.attempts.lock().in_flight.len() < count {
            tokio::task::yield_now().await;
        }
    };
    (0..200).for_each(&mut guess);
    until_waiting(200).await;
    give_up(&accounts, PASSWORD, peer(1), Some(stored.clone())).await;
    // Behind its place, what comes later waits here until it is in.
    let (later_gate, later) = mpsc::channel::<()>();
    let block = move || {
        let _ = later.recv();
    };
    accounts.pool.submit(peer(251), Rank::Fresh, Box::new(block)).0.unwrap();
    (200..400).for_each(&mut guess);
    until_waiting(401).await;
    for _ in 0..4 {
        PASSED_S.fetch_add(30, Ordering::Relaxed);
        give_up(&accounts, PASSWORD, peer(1), Some(stored.clone())).await;
        assert_eq!(accounts.attempts.lock().in_flight.len(), 401, "it joins what is on its way");
    }
    let entered = tokio::spawn({
        let (accounts, stored) = (Arc::clone(&accounts), stored.clone());
        async move { accounts.verify("A", PASSWORD, peer(1), Some(stored)).await }
    });
    tokio::task::yield_now().await;
    drop(gate);
    entered.await.unwrap().unwrap();
    assert_eq!(accounts.bcrypts(), 201, "in when its first place had its turn");
    drop(later_gate);
    while guesses.join_next().await.is_some() {}
    assert_eq!(accounts.bcrypts(), 401, "one computation for all its tries");
    accounts.verify("A", PASSWORD, peer(1), Some(stored)).await.unwrap();
    assert_eq!(accounts.bcrypts(), 401);
}

#[tokio::test]
async fn what_is_given_up_is_computed_once_and_remembered() {
    let accounts = accounts();
    let stored = account(&hash_of(PASSWORD));
    let gate = occupy(&accounts);
    give_up(&accounts, PASSWORD, peer(1), Some(stored.clone())).await;
    assert_eq!(accounts.attempts.lock().in_flight.len(), 1);
    drop(gate);
    // Behind it in the queue.
    accounts.verify("B", PASSWORD, peer(1), None).await.unwrap_err();
    assert_eq!(accounts.bcrypts(), 2);
    accounts.verify("A", PASSWORD, peer(1), Some(stored.clone())).await.unwrap();
    assert_eq!(accounts.bcrypts(), 2, "remembered");
    accounts.verify("A", PASSWORD, peer(2), Some(stored)).await.unwrap();
    assert_eq!(accounts.bcrypts(), 3, "for no other client");
}

#[tokio::test]
async fn a_wrong_password_that_is_given_up_counts_and_takes_a_place() {
    let accounts = accounts();
    let stored = account(&hash_of(PASSWORD));
    let gate = occupy(&accounts);
    for wrong in [b"wrong 1", b"wrong 2", b"wrong 3", b"wrong 4", b"wrong 5"] {
        give_up(&accounts, wrong, peer(1), Some(stored.clone())).await;
    }
    for _ in 5..WAITING_PER_PEER_MAX {
        accounts.pool.submit(peer(1), Rank::Fresh, Box::new(|| {})).0.unwrap();
    }
    assert!(
        accounts.pool.submit(peer(1), Rank::Fresh, Box::new(|| {})).0.is_err(),
        "within the places of its client"
    );
    drop(gate);
    let sixth = accounts.verify("A", b"wrong 6", peer(1), Some(stored)).await;
    assert_eq!(sixth, Err(LoginError::Busy { retry_after_s: 1 }));
}

/// Who has sent guesses and gone away has them no cheaper where newcomers take their places.
#[tokio::test]
async fn a_wrong_password_that_is_given_up_counts_also_if_it_loses_its_place() {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    for is_given_up in [true, false] {
        let accounts = accounts_with_clock(|| *START);
        let stored = account(&hash_of(PASSWORD));
        let gate = occupy(&accounts);
        let mut waiting = tokio::task::JoinSet::new();
        for wrong in [b"wrong 1", b"wrong 2", b"wrong 3", b"wrong 4", b"wrong 5"] {
            if is_given_up {
                give_up(&accounts, wrong, peer(1), Some(stored.clone())).await;
            } else {
                let (accounts, stored) = (Arc::clone(&accounts), stored.clone());
                waiting.spawn(async move { accounts.verify("A", wrong, peer(1), Some(stored)).await });
                tokio::task::yield_now().await;
            }
        }
        // All places are taken, and four more come: the latest four of who has most make room.
        for number in 0..WAITING_TOTAL_MAX as u16 - 5 + 4 {
            let (_, displaced) = accounts.pool.submit(guesser(number), Rank::Fresh, Box::new(|| {}));
            drop(displaced);
        }
        assert_eq!(accounts.attempts.lock().in_flight.len(), 1);
        drop(gate);
        while waiting.join_next().await.is_some() {}
        let sixth = accounts.verify("A", b"wrong 6", peer(1), Some(stored)).await;
        let expected = if is_given_up { LoginError::Busy { retry_after_s: 1 } } else { LoginError::Refused };
        assert_eq!(sixth, Err(expected), "given up: {is_given_up}");
    }
}

#[tokio::test]
async fn what_nobody_has_asked_for_in_ten_minutes_is_not_computed() {
    static PASSED_S: AtomicU64 = AtomicU64::new(0);
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    let accounts = accounts_with_clock(|| *START + Duration::from_secs(PASSED_S.load(Ordering::Relaxed)));
    let stored = account(&hash_of(PASSWORD));
    let gate = occupy(&accounts);
    give_up(&accounts, PASSWORD, peer(1), Some(stored.clone())).await;
    PASSED_S.store(GIVEN_UP_KEPT.as_secs(), Ordering::Relaxed);
    drop(gate);
    accounts.verify("B", PASSWORD, peer(1), None).await.unwrap_err();
    assert_eq!(accounts.bcrypts(), 1);
    assert!(accounts.attempts.lock().in_flight.is_empty());
}

#[tokio::test]
async fn a_lost_computation_is_no_verdict_and_can_be_repeated() {
    let accounts = accounts();
    let stored = account(&hash_of(PASSWORD));
    let hash = stored.password_hash.clone().unwrap();
    let credential = accounts.key.credential("A", PASSWORD, &hash, AddressPrefix::of(peer(1)));
    let (sender, outcome) = watch::channel(None);
    let flight = InFlight { outcome, asked: Instant::now() };
    accounts.attempts.lock().in_flight.insert(credential, flight);
    let waiting = tokio::spawn({
        let (accounts, stored) = (Arc::clone(&accounts), stored.clone());
        async move { accounts.verify("A", PASSWORD, peer(1), Some(stored)).await }
    });
    tokio::task::yield_now().await;
    drop(sender);
    assert_eq!(waiting.await.unwrap(), Err(LoginError::Busy { retry_after_s: 1 }));
    accounts.verify("A", PASSWORD, peer(1), Some(stored)).await.unwrap();
}
