//! Nobody pushes out what is in the trail, nor fills it with what they do to one record of their own.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use bson::doc;
use serde_json::json;
use thalamus_edge::accounts::Writer;
use thalamus_edge::domain::access::{Actor, Grant, Verb};
use thalamus_edge::domain::audit::{Entry, Event, What};
use thalamus_edge::domain::record::Kind;
use thalamus_edge::store::{Asker, Charge, Edit, Right, Store, StoreOptions, Unnoted, asked_by};

use super::support::api::{NOTHING, PASSWORD, TestNode, elapse, now_ms, pass_time};
use super::support::disk::Disk;
use super::{entries, verified};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Changes of one record by one account in a minute that have an entry each, as docs/SECURITY.md says; so are the numbers below.
const REPEATS: usize = 60;
/// Writes of an account without `global`, at once and in a day.
const OWN_WRITES: u32 = 2_000;
const OWN_WRITES_A_DAY: u32 = 5_000;
/// MiB that it sends at once.
const OWN_MIB: u32 = 64;
/// Reads of other people's records by one account, at once.
const READS_OF_OTHERS: u32 = 250_000;
const LATER: Duration = Duration::from_secs(61);
const FEW: StoreOptions =
    StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 1000, audit_keep_rows: 100, clock: now_ms };

/// A change of ANA001's own page by herself.
async fn change(store: &Store, id: &str, n: i32) {
    let expected = store.read().unwrap().find(Kind::Page, id).unwrap();
    let edit = Edit {
        grant: Grant::operator(0, Verb::Post, Kind::Page),
        id: id.to_owned(),
        expected: expected.map(|record| record.document.as_bytes().to_vec()),
        document: Some(doc! {"_id": id, "book": "ANA001", "n": n}),
        requires: Vec::new(),
        grants: None,
        content: None,
        closes: None,
    };
    let who = Actor::Person("ANA001".to_owned());
    let asker = Asker { who, from: None, right: Right::Machine, charge: Charge::default() };
    asked_by(asker, store.edit(edit)).await.unwrap();
}

fn told(entries: &[Entry]) -> Vec<String> {
    let line = |Entry { event: Event { verb, kind, id, .. }, times, .. }: &Entry| {
        format!("{verb} {kind}/{id} x{}", times.count)
    };
    entries.iter().map(line).collect()
}

#[tokio::test]
async fn what_is_young_stays_however_much_comes_after_it() {
    let store = Store::in_memory(FEW).unwrap();
    store.keep_audit_for(400);
    let read =
        Event::new(What::Read, &Actor::Person("NUR005".to_owned())).about("people", "ANA001", Some("ANA001"));
    store.note(read);
    store.flush_notes().await.unwrap();
    for n in 0..300 {
        change(&store, &format!("p{n}"), n).await;
    }
    assert_eq!(told(&entries(&store)[..1]), ["read people/ANA001 x1"]);
    assert_eq!(entries(&store).len(), 301);
    let days = async |days: u32| {
        for day in 0..days {
            pass_time(DAY);
            let read =
                Event::new(What::Read, &Actor::Operator(0)).about("people", &format!("day {day}"), None);
            store.note(read);
            store.flush_notes().await.unwrap();
        }
    };
    days(399).await;
    assert_eq!(entries(&store).len(), 301 + 399);
    // Then by their number, as ever, step by step.
    days(2).await;
    for n in 0..10 {
        change(&store, &format!("q{n}"), n).await;
    }
    assert_eq!(entries(&store)[0].event.id, "day 1", "those that are younger by a day stay");
    assert_eq!(entries(&store).len(), 400 + 10);
    verified(&store, &[]).unwrap();
}

#[tokio::test]
async fn repeated_changes_of_one_record_share_an_entry_that_says_how_many() {
    let node = TestNode::with_people().await;
    let before = entries(node.node.store.unguarded()).len();
    for n in 0..300 {
        let field = if n % 2 == 0 { "even" } else { "odd" };
        node.patch("/people/ANA001", json!({field: n}))
            .by("ANA001")
            .send()
            .await
            .is(200, &["update people/ANA001"]);
    }
    // Others, and other records, have their own.
    node.patch("/people/ANA001", json!({"x": 1})).by("DOC003").send().await;
    node.patch("/people/BOB002", json!({"x": 1})).by("BOB002").send().await;
    assert_eq!(entries(node.node.store.unguarded()).len(), before + REPEATS + 2);
    pass_time(LATER);
    node.node.store.flush_notes().await.unwrap();
    let all = entries(node.node.store.unguarded());
    let last = all.last().unwrap();
    assert_eq!(
        told(&all[before + REPEATS..]),
        [
            "update people/ANA001 x1".to_owned(),
            "update people/BOB002 x1".to_owned(),
            format!("update people/ANA001 x{}", 300 - REPEATS),
        ]
    );
    assert_eq!(
        (last.event.who.ends_with("ANA001"), last.event.detail.as_str()),
        (true, "repeated changes of one record")
    );
    assert_eq!(last.event.paths, ["even", "odd"]);
    assert_eq!(last.event.owner, "ANA001");
    verified(node.node.store.unguarded(), &[]).unwrap();
    // The next minute begins anew.
    node.patch("/people/ANA001", json!({"even": -1}))
        .by("ANA001")
        .send()
        .await
        .is(200, &["update people/ANA001"]);
    assert_eq!(entries(node.node.store.unguarded()).len(), all.len() + 1);
}

/// What shares an entry is on the disk with the change: a node that is killed loses none of it.
#[tokio::test]
async fn what_waits_for_its_entry_outlives_the_process() {
    let disk = Disk::default();
    let store = Store::on_backend(disk.mount(), FEW).unwrap();
    store.keep_audit_for(400);
    for n in 0..100 {
        change(&store, "p1", n).await;
    }
    // The first made it, which is another word.
    assert_eq!(entries(&store).len(), 1 + REPEATS);
    let copy = disk.copy();
    drop(store);
    let store = Store::on_backend(copy.mount(), FEW).unwrap();
    store.keep_audit_for(400);
    store.begin_service("test").await.unwrap();
    let all = entries(&store);
    assert_eq!(
        told(&all[1 + REPEATS..]),
        [format!("update pols/p1 x{}", 99 - REPEATS), "start / x1".to_owned()]
    );
    for n in 200..300 {
        change(&store, "p1", n).await;
    }
    store.end_service().await.unwrap();
    let all = entries(&store);
    assert_eq!(
        told(&all[all.len() - 2..]),
        [format!("update pols/p1 x{}", 100 - REPEATS), "stop / x1".to_owned()]
    );
    let count: u64 = all.iter().filter(|entry| entry.event.id == "p1").map(|entry| entry.times.count).sum();
    assert_eq!(count, 200);
    verified(&store, &[]).unwrap();
}

#[tokio::test]
async fn a_flood_of_writes_waits_and_others_do_not() {
    let node = TestNode::with_people().await;
    let write = |who: &'static str, n: u32| node.patch("/people/ANA001", json!({"n": n})).by(who).send();
    for n in 0..OWN_WRITES {
        assert_eq!(write("ANA001", n).await.status, 200, "{n}");
        // Nothing is changed by these, so they do not count.
        if n < 100 {
            node.patch("/people/BOB002", json!({"n": n})).by("ANA001").send().await.is(403, NOTHING);
        }
    }
    let refused = write("ANA001", 0).await.is(429, NOTHING).has(json!({"code": "too_many_writes"}));
    assert_eq!(refused.header("retry-after"), "18");
    node.get("/people/ANA001").by("ANA001").send().await.is(200, NOTHING);
    assert_eq!(write("DOC003", 1).await.status, 200);
    node.patch("/people/BOB002", json!({"n": 1}))
        .by("BOB002")
        .send()
        .await
        .is(200, &["update people/BOB002"]);
    elapse(DAY / OWN_WRITES_A_DAY + Duration::from_secs(1));
    assert_eq!(write("ANA001", 1).await.status, 200);
    write("ANA001", 2).await.is(429, NOTHING);
    node.node.store.flush_notes().await.unwrap();
    let denied = entries(node.node.store.unguarded());
    assert!(denied.iter().any(|entry| entry.event.outcome == "too_many_attempts"));
}

/// The disk is everybody's, so no account fills it: bytes run out before writes do.
#[tokio::test]
async fn a_flood_of_bytes_waits_and_others_do_not() {
    let node = TestNode::with_people().await;
    let mut sent = 0;
    let mut write = async |who: &'static str, bytes: usize| {
        sent += 1;
        let page = json!({"id": format!("p{sent}"), "note": "x".repeat(bytes)});
        node.post(&format!("/pols/ANA001/p{sent}"), page).by(who).send().await
    };
    let almost_a_mib = (1 << 20) - 4_000;
    // What changes nothing does not count.
    for _ in 0..2 * OWN_MIB {
        let page = json!({"id": "theirs", "note": "x".repeat(almost_a_mib)});
        node.post("/pols/BOB002/theirs", page).by("ANA001").send().await.is(403, NOTHING);
    }
    for n in 0..OWN_MIB {
        assert_eq!(write("ANA001", almost_a_mib).await.status, 201, "{n}");
    }
    let refused = write("ANA001", almost_a_mib).await.is(429, NOTHING).has(json!({"code": "too_many_bytes"}));
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=338).contains(&wait), "{wait}");
    assert!(refused.text().contains("64 MiB at once and 256 MiB a day"), "{}", refused.text());
    // Staff go on, and she reads and writes what is short.
    assert_eq!(write("DOC003", almost_a_mib).await.status, 201);
    assert_eq!(write("ANA001", 10).await.status, 201);
    node.get("/people/ANA001").by("ANA001").send().await.is(200, NOTHING);
    // Packed bytes count as what they become.
    let packed = {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let page = json!({"id": "packed", "note": "x".repeat(almost_a_mib)}).to_string();
        encoder.write_all(page.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let packed = || node.request("POST", "/pols/ANA001/packed").by("ANA001").bytes(packed.clone());
    packed().header("content-encoding", "gzip").send().await.is(429, NOTHING);
    elapse(Duration::from_secs(338));
    assert_eq!(packed().header("content-encoding", "gzip").send().await.status, 201);
    packed().header("content-encoding", "gzip").send().await.is(429, NOTHING);
    node.node.store.flush_notes().await.unwrap();
    let denied = entries(node.node.store.unguarded());
    assert!(denied.iter().any(|entry| entry.event.outcome == "too_many_attempts"));
}

/// A patient who reads page after page of their own does not fill the trail; what others read of them is told one by one.
#[tokio::test]
async fn reads_of_ones_own_are_told_together_from_many_on() {
    let node = TestNode::with_people().await;
    for n in 0..200 {
        node.record(Kind::Page, doc! {"_id": format!("p{n}"), "book": "ANA001"}).await;
    }
    let before = entries(node.node.store.unguarded()).len();
    for n in 0..200 {
        for who in ["ANA001", "DOC003"] {
            node.get(&format!("/pols/ANA001/p{n}")).by(who).send().await.is(200, NOTHING);
        }
    }
    node.node.store.flush_notes().await.unwrap();
    pass_time(LATER);
    node.node.store.flush_notes().await.unwrap();
    let all = entries(node.node.store.unguarded()).split_off(before);
    let of = |who: &str| all.iter().filter(|entry| entry.event.who.ends_with(who)).collect::<Vec<_>>();
    assert_eq!(of("DOC003").len(), 200);
    let own = of("ANA001");
    // 64 with entries of their own, and one for all further ones.
    assert_eq!((own.len(), own.iter().map(|entry| entry.times.count).sum::<u64>()), (65, 200));
    assert!(own.iter().all(|entry| entry.event.owner == "ANA001"));
    assert_eq!(own[64].event.detail, "and others");
    // What is no person's is told together too.
    for n in 0..300 {
        node.record(Kind::Institution, doc! {"_id": format!("i{n}")}).await;
    }
    let before = entries(node.node.store.unguarded()).len();
    for n in 0..300 {
        node.get(&format!("/institutions/i{n}")).by("DOC003").send().await.is(200, NOTHING);
    }
    node.node.store.flush_notes().await.unwrap();
    let told = entries(node.node.store.unguarded()).split_off(before);
    assert_eq!((told.len(), told.iter().map(|entry| entry.times.count).sum::<u64>()), (257, 300));
}

/// One of the addresses of a host, which has all of its /64.
fn address(network: u16, host: u16) -> IpAddr {
    IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host))
}

/// A client has as many addresses as it likes, and its changes are told together all the same; also when it moves.
#[tokio::test]
async fn changes_are_told_together_from_whichever_addresses_they_come() {
    let node = TestNode::with_people().await;
    for (networks, told_peer) in [(1, "2001:db8:0:1::/64"), (300, "")] {
        let before = entries(node.node.store.unguarded()).len();
        for n in 0..300 {
            let call = node.patch("/people/ANA001", json!({"n": n})).by("ANA001");
            call.from(address(1 + n % networks, n)).send().await.is(200, &["update people/ANA001"]);
        }
        pass_time(LATER);
        node.node.store.flush_notes().await.unwrap();
        let all = entries(node.node.store.unguarded()).split_off(before);
        assert_eq!(
            (all.len(), all[REPEATS].times.count),
            (REPEATS + 1, 300 - REPEATS as u64),
            "{networks} networks"
        );
        assert_eq!(all[1].event.peer, address(1 + 1 % networks, 1).to_string(), "each says from where");
        assert_eq!(all[REPEATS].event.peer, told_peer);
    }
}

/// A browser that logs in again and again, from an address of its own each time, leaves few entries, and waits in the end.
#[tokio::test]
async fn logins_are_told_together_and_count_as_writes() {
    let node = TestNode::with_people().await;
    let form = |who: &str| format!("account={who}&password={}", PASSWORD.replace(' ', "+"));
    let log_in = async |who: &str, from: IpAddr| {
        node.request("POST", "/session").bytes(form(who)).from(from).send().await
    };
    let told = async || {
        node.node.store.flush_notes().await.unwrap();
        pass_time(LATER);
        node.node.store.flush_notes().await.unwrap();
        entries(node.node.store.unguarded())
    };
    for networks in [1, 100] {
        let before = told().await.len();
        for n in 0..500 {
            log_in("ANA001", address(1 + n % networks, n)).await.is(303, NOTHING);
        }
        let all = told().await.split_off(before);
        let of = |verb: &str| all.iter().filter(|entry| entry.event.verb == verb).collect::<Vec<_>>();
        let count = |entries: Vec<&Entry>| entries.iter().map(|entry| entry.times.count).sum::<u64>();
        // One at once and one for its repeats, of sixteen clients and of all others.
        println!("{} entries of 500 logins from {networks} networks", all.len());
        assert!(all.len() <= 2 * (16 + 3), "{}", all.len());
        assert_eq!(count(of("login")), 500);
        // Sessions beyond the sixteenth ended by that.
        assert!(count(of("session_end")) >= 484);
    }
    for n in 1000..OWN_WRITES {
        log_in("ANA001", address(1, n as u16)).await.is(303, NOTHING);
    }
    let refused = log_in("ANA001", address(1, 1)).await.is(429, NOTHING);
    assert_eq!(refused.header("retry-after"), "18");
    assert!(refused.text().contains("again in 18 seconds"));
    // Nobody else waits, nor does a password that is wrong take anything from its account.
    for _ in 0..3 {
        node.request("POST", "/session").bytes("account=BOB002&password=wrong").send().await.is(403, NOTHING);
    }
    log_in("BOB002", address(1, 1)).await.is(303, NOTHING);
    let all = told().await;
    assert!(all.iter().any(|entry| entry.event.verb == "throttled" && entry.event.who == "person:ANA001"));
}

/// Who reads a lot between two looks at the disk hides nothing by that, neither their own reads nor those of others.
#[tokio::test]
async fn a_read_waits_until_there_is_room_for_its_entry() {
    let node = TestNode::with_people().await;
    let store = node.node.store.unguarded();
    let before = entries(store).len();
    for n in 0..10_000 {
        let read = Event::new(What::Read, &Actor::Person("ROOT004".to_owned()));
        let read = read.about("people", &format!("P{n}"), Some("BOB002"));
        // As many as fit.
        if store.note_read(read, |_| Ok(())).is_err() {
            break;
        }
    }
    node.get("/people/ANA001").by("DOC003").send().await.is(200, NOTHING);
    node.get("/people").by("DOC003").send().await.is(200, NOTHING);
    store.flush_notes().await.unwrap();
    let all = entries(store).split_off(before);
    let of = |who: &str| all.iter().filter(|entry| entry.event.who.ends_with(who)).count();
    assert_eq!((of("ROOT004"), of("DOC003")), (8192, 2));
    assert!(all.iter().all(|entry| entry.event.verb != "gap"));
}

/// An account that reads everybody's records once a minute would fill the disk with that.
#[tokio::test]
async fn reads_of_others_wait_when_they_are_too_many() {
    let node = TestNode::with_people().await;
    let read = |path: &'static str, who: &'static str| node.get(path).by(who).send();
    read("/people/ANA001", "DOC003").await.is(200, NOTHING);
    for _ in 1..READS_OF_OTHERS {
        node.node.accounts.reads().take("person:DOC003", Writer::Reader).unwrap();
    }
    for path in ["/people/BOB002", "/people"] {
        let refused = read(path, "DOC003").await.is(429, NOTHING).has(json!({"code": "too_many_reads"}));
        assert_eq!(refused.header("retry-after"), "1");
    }
    // What has an entry in this minute, what is one's own and what is nobody's needs none; and others have their own.
    read("/people/ANA001", "DOC003").await.is(200, NOTHING);
    read("/people/DOC003", "DOC003").await.is(200, NOTHING);
    read("/institutions", "DOC003").await.is(200, NOTHING);
    read("/people/BOB002", "ROOT004").await.is(200, NOTHING);
    read("/people/BOB002", "BOB002").await.is(200, NOTHING);
    elapse(Duration::from_secs(1));
    read("/people/BOB002", "DOC003").await.is(200, NOTHING);
    node.node.store.flush_notes().await.unwrap();
    let all = entries(node.node.store.unguarded());
    let denied = all.iter().filter(|entry| entry.event.verb == "denied").map(|entry| &*entry.event.outcome);
    assert_eq!(denied.collect::<Vec<_>>(), ["too_many_attempts"; 2]);
}

/// Nobody is kept from reading by a disk that takes nothing.
#[tokio::test]
async fn a_read_does_not_wait_for_a_disk_that_is_full() {
    let disk = Disk::default();
    let store = Store::on_backend(disk.mount(), FEW).unwrap();
    store.keep_audit_for(400);
    let read = |n: u32| {
        let read = Event::new(What::Read, &Actor::Person("DOC003".to_owned()));
        read.about("people", &format!("P{n}"), Some("BOB002"))
    };
    disk.set_full(true);
    for n in 0..20_000 {
        if let Err(Unnoted::Full(event)) = store.note_read(read(n), |_| Ok(())) {
            store.note_read_in_time(event, |_| Ok(())).await.unwrap();
        }
    }
    store.flush_notes().await.unwrap_err();
}
