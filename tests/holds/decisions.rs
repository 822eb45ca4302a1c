//! What follows from a decision about who somebody is.

use bson::{Bson, doc};
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::merge::{Clash, Side};
use thalamus_edge::domain::record::Kind::{Encounter, Page, Person, PersonalDocument};
use thalamus_edge::store::{Conflict, ConflictStatus, Hold, HoldReason, Stays, StoreError};
use thalamus_edge::sync::conflicts::{Decision, ResolveError, resolve};
use thalamus_edge::sync::identity::{Pair, Verdict, decide};

use super::support::sim::Fault;
use super::{ACCT, Clinic, ana, beatriz, clerk, key, page, with};

const NEW: &str = "NEW01";

fn new_id() -> Verdict {
    Verdict::NewId(NEW.to_owned())
}

/// The values of a person that lost, by field.
fn losers(clinic: &Clinic, id: &str) -> Vec<(String, Option<Bson>)> {
    let open = clinic
        .conflicts()
        .into_iter()
        .filter(|conflict| conflict.status == ConflictStatus::Open && conflict.key == key(Person, id));
    let mut losers: Vec<_> = open.map(|c| (c.path.join("."), c.loser().cloned())).collect();
    losers.sort_by(|a, b| a.0.cmp(&b.0));
    losers
}

/// Beatriz at the centre has a page and an encounter, Ana here a page, a document and an encounter.
async fn with_records(clinic: &Clinic) {
    clinic.there(Page, page("theirs", ACCT, "theirs"));
    clinic.there(Encounter, doc! {"_id": "e-theirs", "person": ACCT});
    clinic.edit(Page, page("own", "acc01", "hers")).await;
    clinic.edit(Encounter, doc! {"_id": "e-own", "person": ACCT}).await;
    clinic.edit(PersonalDocument, doc! {"_id": "d-own", "fedacct": ACCT, "pol": "own"}).await;
    clinic.round().await;
}

#[tokio::test]
async fn the_same_person_has_both_records() {
    let clinic = Clinic::with_hold().await;
    clinic.edit(Person, with(ana(), doc! {"roles": ["end_user", "a"]})).await;
    clinic.there(Person, with(beatriz(), doc! {"roles": ["end_user", "b"]}));
    with_records(&clinic).await;
    clinic.decide(Verdict::Same).await;
    assert_eq!(clinic.here(Page, "theirs"), Some(page("theirs", ACCT, "theirs")), "at once");
    clinic.assert_settled().await;
    let united = with(beatriz(), doc! {"roles": ["end_user", "b"], "phone": "1"});
    assert_eq!(clinic.here(Person, ACCT), Some(united));
    let hers = with(ana(), doc! {"roles": ["end_user", "a"]});
    let lost = |field: &str| hers.get(field).cloned();
    assert_eq!(
        losers(&clinic, ACCT),
        ["dob", "lastname", "name", "roles"].map(|field| (field.to_owned(), lost(field)))
    );
    for id in ["own", "theirs"] {
        assert!(clinic.at_centre(Page, id).is_some(), "{id}");
    }
    let row = clinic.sim.state().conflicts[&clinic.identity().id].clone();
    assert_eq!((row.get_str("status").unwrap(), row.get_str("resolution").unwrap()), ("resolved", "same"));
}

/// What was agreed before is the base: nobody here has a say in what only the centre changed.
#[tokio::test]
async fn the_same_person_under_an_account_that_was_agreed_on() {
    for (local, conflicts) in [(None, 0), (Some(with(ana(), doc! {"name": "Anna", "phone": "2"})), 1)] {
        let clinic = Clinic::new();
        clinic.there(Person, ana());
        clinic.round().await;
        if let Some(local) = &local {
            clinic.edit(Person, local.clone()).await;
        }
        let corrected = with(ana(), doc! {"name": "Anne", "dob": "1985-10-14"});
        clinic.there(Person, corrected.clone());
        clinic.round().await;
        clinic.decide(Verdict::Same).await;
        clinic.assert_settled().await;
        let phone = if local.is_some() { "2" } else { "1" };
        assert_eq!(clinic.here(Person, ACCT), Some(with(corrected, doc! {"phone": phone})));
        assert_eq!(losers(&clinic, ACCT).len(), conflicts);
    }
}

#[tokio::test]
async fn the_same_person_in_two_spellings_is_one_record() {
    let clinic = Clinic::new();
    let lower = with(ana(), doc! {"_id": "acc01", "id": "acc01", "phone": "2"});
    let password = doc! {"password": "$2b$04$own"};
    clinic.edit(Person, with(ana(), password.clone())).await;
    clinic.run(|tx| tx.set_grants(ACCT, &["root".to_owned()], &Actor::Operator(0))).await;
    clinic.edit(Page, page("own", ACCT, "hers")).await;
    clinic.there(Person, with(lower.clone(), password.clone()));
    clinic.there(Page, page("theirs", "acc01", "theirs"));
    clinic.round().await;
    assert_eq!(clinic.here(Person, "acc01"), None);
    clinic.decide(Verdict::Same).await;
    clinic.assert_settled().await;
    let one = with(lower, password);
    assert_eq!((clinic.here(Person, "acc01"), clinic.here(Person, ACCT)), (Some(one.clone()), None));
    assert_eq!(losers(&clinic, "acc01"), [("phone".to_owned(), Some(Bson::from("1")))]);
    let snapshot = clinic.store.read().unwrap();
    assert_eq!(snapshot.duplicates_after("", usize::MAX).unwrap(), []);
    assert_eq!(snapshot.list_of(Page, ACCT, None, 9, 9_999).unwrap().records.len(), 2);
    assert_eq!(
        snapshot.grants("acc01", one.get_str("password").unwrap_or_default()).unwrap().of_record,
        ["root"]
    );
}

#[tokio::test]
async fn a_new_id_takes_the_person_and_what_was_made_here_for_them() {
    let clinic = Clinic::new();
    let secret = doc! {"password": "$2b$04$own", "id": "acc01"};
    let own = with(ana(), secret);
    clinic.edit(Person, own.clone()).await;
    clinic.run(|tx| tx.set_grants(ACCT, &["root".to_owned()], &Actor::Operator(0))).await;
    // The centre had a page of the account before anybody here was held.
    clinic.there(Page, page("agreed", ACCT, "agreed"));
    clinic.sim.state().refused.push(ACCT.to_owned());
    clinic.round().await;
    clinic.there(Person, beatriz());
    clinic.sim.state().refused.clear();
    clinic.round().await;
    with_records(&clinic).await;
    let before = clinic.store.read().unwrap().journal(u64::MAX, 1).unwrap().last;
    clinic.decide(Verdict::NewId("new01".to_owned())).await;

    let renamed = with(own.clone(), doc! {"_id": NEW, "id": NEW});
    assert_eq!(clinic.here(Person, NEW), Some(renamed.clone()));
    assert_eq!(clinic.here(Person, ACCT), Some(beatriz()));
    let snapshot = clinic.store.read().unwrap();
    let book = |account: &str| -> Vec<String> {
        let records = snapshot.list_of(Page, account, None, 9, 9_999).unwrap().records;
        records.into_iter().map(|record| record.id).collect()
    };
    assert_eq!(
        (book(NEW), book(ACCT)),
        (vec!["own".to_owned()], vec!["agreed".to_owned(), "theirs".to_owned()])
    );
    assert_eq!(clinic.here(Page, "own"), Some(page("own", NEW, "hers")));
    assert_eq!(clinic.here(PersonalDocument, "d-own").unwrap().get_str("fedacct").unwrap(), NEW);
    assert_eq!(
        snapshot.grants(NEW, renamed.get_str("password").unwrap_or_default()).unwrap().of_record,
        ["root"]
    );
    assert_eq!(
        snapshot.grants(ACCT, own.get_str("password").unwrap_or_default()).unwrap(),
        thalamus_edge::store::Granted::default()
    );
    assert_eq!(snapshot.people_named("ana").unwrap(), [NEW]);
    assert_eq!(snapshot.people_named("beatriz").unwrap(), [ACCT]);
    let changes = snapshot.journal(before, 99).unwrap().rows;
    let changes: Vec<_> = changes.iter().map(|row| format!("{} {}", row.op, row.key.id)).collect();
    let expected = [
        &format!("delete {ACCT}"),
        &format!("create {NEW}"),
        "update own",
        "update d-own",
        "update e-own",
        &format!("create {ACCT}"),
        "create agreed",
        "create theirs",
        "create e-theirs",
    ];
    assert_eq!(changes, expected);
    drop(snapshot);

    let report = clinic.round().await;
    assert_eq!(report.pushed, 4, "{report:?}");
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Person, ACCT), Some(beatriz()));
    assert_eq!(clinic.at_centre(Person, NEW), Some(renamed));
    assert_eq!(clinic.at_centre(Page, "own"), Some(page("own", NEW, "hers")));
    let identity = clinic.identity();
    assert_eq!((identity.resolution.as_deref(), identity.value), (Some("new_id"), Some(Bson::from(NEW))));
    assert_eq!(clinic.conflicts().len(), 1, "nothing of the two was mixed");
}

/// The centre's page came to have the id of a page made here: both stay what they are.
#[tokio::test]
async fn records_with_one_id_are_kept_apart_or_united() {
    for (verdict, is_same) in [(Verdict::Same, true), (new_id(), false)] {
        let clinic = Clinic::with_hold().await;
        clinic.edit(Page, page("p1", ACCT, "hers")).await;
        clinic.edit(PersonalDocument, doc! {"_id": "d1", "fedacct": ACCT, "pol": "p1"}).await;
        clinic.edit(PersonalDocument, doc! {"_id": "d2", "fedacct": ACCT, "pol": "another"}).await;
        clinic.there(Page, with(page("p1", ACCT, "theirs"), doc! {"more": 1}));
        clinic.round().await;
        clinic.decide(verdict).await;
        clinic.assert_settled().await;
        let theirs = with(page("p1", ACCT, "theirs"), doc! {"more": 1});
        assert_eq!(clinic.here(Page, "p1"), Some(theirs));
        let pages = clinic.store.read().unwrap().list(Page, None, 9, 9_999).unwrap().records;
        let named = |id: &str| clinic.here(PersonalDocument, id).unwrap().get_str("pol").unwrap().to_owned();
        assert_eq!(named("d2"), "another");
        if is_same {
            assert_eq!((pages.len(), named("d1").as_str()), (1, "p1"));
            let lost: Vec<_> = clinic.conflicts().into_iter().filter(|c| c.key.kind == Page).collect();
            assert_eq!((lost.len(), lost[0].loser()), (1, Some(&Bson::from("hers"))));
        } else {
            let moved = named("d1");
            assert_eq!(pages.len(), 2);
            assert_eq!(clinic.here(Page, &moved), Some(page(&moved, NEW, "hers")));
            assert_eq!(clinic.at_centre(Page, &moved), Some(page(&moved, NEW, "hers")));
            assert!(clinic.conflicts().iter().all(|conflict| conflict.key.kind != Page));
        }
    }
}

/// Conflicts about the person of this node must not be decided into somebody else's record.
#[tokio::test]
async fn open_conflicts_go_with_the_person() {
    let clinic = Clinic::new();
    clinic.there(Person, ana());
    clinic.round().await;
    clinic.edit(Person, with(ana(), doc! {"phone": "mine"})).await;
    clinic.there(Person, with(ana(), doc! {"phone": "theirs"}));
    clinic.round().await;
    clinic.there(Person, beatriz());
    clinic.round().await;
    clinic.decide(new_id()).await;
    assert_eq!((losers(&clinic, ACCT), losers(&clinic, NEW).len()), (vec![], 1));
    let conflict = clinic.conflicts().into_iter().find(|c| c.key == key(Person, NEW)).unwrap();
    let (seen, allow) = (Some(Bson::from("theirs")), |_: &_, _: Option<&_>, _: Option<&_>| Ok(()));
    resolve(&clinic.store, &conflict.id, Decision::TakeLocal, seen, clerk(), allow).await.unwrap();
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Person, NEW).unwrap().get_str("phone").unwrap(), "mine");
    assert_eq!(clinic.at_centre(Person, ACCT), Some(beatriz()));
    // The old row is closed, and says why; the new one is another.
    let rows = clinic.sim.state().conflicts.clone();
    let phone = rows.values().filter(|row| row.get_array("path").is_ok_and(|path| path.len() == 1));
    let mut phone: Vec<_> =
        phone.map(|row| (row.get_str("id").unwrap(), row.get_str("resolution").unwrap())).collect();
    phone.sort_unstable();
    assert_eq!(phone, [(ACCT, "new_id"), (NEW, "local")]);
}

/// The new account may be somebody's at the centre too: then it begins again, and nothing is lost.
#[tokio::test]
async fn a_new_id_that_the_centre_knows_is_held_again() {
    let clinic = Clinic::with_hold().await;
    clinic.edit(Page, page("own", ACCT, "hers")).await;
    clinic.decide(new_id()).await;
    clinic.there(Person, doc! {"_id": NEW, "name": "Carla", "lastname": "Diaz", "dob": "1960-01-01"});
    clinic.round().await;
    assert_eq!(clinic.holds(), 1);
    let mine = |id: &str| with(ana(), doc! {"_id": id});
    assert_eq!((clinic.here(Person, NEW), clinic.here(Person, ACCT)), (Some(mine(NEW)), Some(beatriz())));
    let open = clinic.conflicts().into_iter().find(|c| c.status == ConflictStatus::Open).unwrap();
    let snapshot = clinic.store.read().unwrap();
    let (_, pair) = thalamus_edge::sync::identity::hold_of(&snapshot, &open).unwrap().unwrap();
    drop(snapshot);
    let verdict = Verdict::NewId("NEW02".to_owned());
    decide(&clinic.store, &open.id, verdict, pair, clerk()).await.unwrap();
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Person, "NEW02"), Some(mine("NEW02")));
    assert_eq!(clinic.at_centre(Page, "own"), Some(page("own", "NEW02", "hers")));
}

#[tokio::test]
async fn a_new_id_must_be_an_account_that_nobody_has() {
    let clinic = Clinic::with_hold().await;
    clinic.there(Person, doc! {"_id": "taken1", "name": "T"});
    clinic.there(Page, page("p9", "ORPHAN1", "of somebody who is not here"));
    clinic.edit(Person, with(ana(), doc! {"_id": "OTHER1"})).await;
    clinic.there(Person, with(beatriz(), doc! {"_id": "OTHER1"}));
    clinic.round().await;
    let conflict = clinic.conflicts().into_iter().find(|c| c.key == key(Person, ACCT)).unwrap();
    let pair = Pair { local: Some(ana()), central: Some(beatriz()) };
    for (bad, says) in [
        ("", "letters and digits"),
        ("A", "letters and digits"),
        ("NEW 01", "letters and digits"),
        ("NEW<01>", "letters and digits"),
        (ACCT, "exists already"),
        ("acc01", "exists already"),
        ("TAKEN1", "exists already"),
        ("OTHER1", "exists already"),
        ("orphan1", "records of this account"),
    ] {
        let verdict = Verdict::NewId(bad.to_owned());
        let refused = decide(&clinic.store, &conflict.id, verdict, pair.clone(), clerk()).await;
        match refused {
            Err(ResolveError::Invalid { field, message }) => {
                assert!(field == "id" && message.contains(says), "{bad:?}: {message}");
            }
            other => panic!("{bad:?}: {other:?}"),
        }
        assert_eq!((clinic.holds(), clinic.here(Person, ACCT)), (2, Some(ana())), "{bad:?}");
    }
}

/// A decision is made on two people that somebody saw.
#[tokio::test]
async fn a_decision_on_somebody_who_has_changed_is_not_carried_out() {
    let clinic = Clinic::with_hold().await;
    let (conflict, seen) = (clinic.identity(), clinic.pair());
    let stale = async |verdict: Verdict| {
        let refused = decide(&clinic.store, &conflict.id, verdict, seen.clone(), clerk()).await;
        assert!(matches!(refused, Err(ResolveError::Moved { .. })), "{refused:?}");
    };
    clinic.there(Person, with(beatriz(), doc! {"job": "c"}));
    clinic.round().await;
    stale(Verdict::Same).await;
    stale(new_id()).await;
    clinic.there(Person, beatriz());
    clinic.round().await;
    clinic.edit(Person, with(ana(), doc! {"phone": "2"})).await;
    stale(Verdict::Same).await;
    clinic.decide(Verdict::Same).await;
    let again = decide(&clinic.store, &conflict.id, Verdict::Same, seen.clone(), clerk()).await;
    assert!(matches!(again, Err(ResolveError::Resolved(_))), "{again:?}");
    let unknown = decide(&clinic.store, "nothing", Verdict::Same, seen, clerk()).await;
    assert!(matches!(unknown, Err(ResolveError::Unknown)), "{unknown:?}");
    // Nor is a question about a person one about a value.
    let allow = |_: &_, _: Option<&_>, _: Option<&_>| Ok(());
    let wrong =
        resolve(&clinic.store, &conflict.id, Decision::TakeLocal, None, clerk(), allow).await.unwrap_err();
    assert!(matches!(wrong, ResolveError::Unknown), "{wrong:?}");
}

/// Nobody deletes a person about whom something is to be decided, by whatever way.
#[tokio::test]
async fn a_held_person_is_not_deleted() {
    use thalamus_edge::domain::access::{Grant, Verb};
    use thalamus_edge::store::{Edit, EditError};
    let clinic = Clinic::with_hold().await;
    clinic.edit(Person, with(ana(), doc! {"active": false})).await;
    let bytes =
        clinic.store.read().unwrap().record(&key(Person, ACCT)).unwrap().unwrap().document.into_bytes();
    let edit = Edit {
        grant: Grant::operator(0, Verb::Delete, Person),
        id: ACCT.to_owned(),
        expected: Some(bytes),
        document: None,
        requires: Vec::new(),
        grants: None,
        content: None,
        closes: None,
    };
    let refused = clinic.store.edit(edit).await;
    let conflict = clinic.identity().id;
    assert!(
        matches!(&refused, Err(EditError::Stays(Stays::Held { conflict: c })) if *c == conflict),
        "{refused:?}"
    );
    let whole = Clash {
        path: Vec::new(),
        base: None,
        local: None,
        remote: Some(Bson::Document(with(ana(), doc! {"active": false}))),
        stands: Side::Remote,
    };
    clinic
        .run(move |tx| -> Result<(), StoreError> { tx.add_conflict(&key(Person, ACCT), &whole, None) })
        .await;
    let open = clinic.conflicts().into_iter().find(|c| !c.is_identity()).unwrap();
    let seen = clinic.here(Person, ACCT).map(Bson::Document);
    let allow = |_: &_, _: Option<&_>, _: Option<&_>| Ok(());
    let refused = resolve(&clinic.store, &open.id, Decision::TakeLocal, seen, clerk(), allow).await;
    assert!(matches!(&refused, Err(ResolveError::Held { conflict: c }) if *c == conflict), "{refused:?}");
}

/// A page was sent before anybody was held, and its answer was lost: it follows its person all the same.
#[tokio::test]
async fn a_page_on_its_way_follows_its_person() {
    for fault in [Fault::LostAnswer, Fault::LostRequest] {
        let is_there = matches!(fault, Fault::LostAnswer);
        let clinic = Clinic::new();
        clinic.there(Person, ana());
        clinic.round().await;
        clinic.edit(Page, page("own", ACCT, "hers")).await;
        clinic.sim.state().write_faults.push_back(fault);
        clinic.sync.round().await;
        assert_eq!(clinic.at_centre(Page, "own").is_some(), is_there);
        assert_eq!(clinic.store.read().unwrap().intents().unwrap().len(), 1);
        // Held and decided while that write is still open: as a round that stops in between leaves it.
        clinic
            .run(|tx| {
                let hold = Hold {
                    account: ACCT.to_owned(),
                    conflict: "c1".to_owned(),
                    local: ACCT.to_owned(),
                    remote: ACCT.to_owned(),
                    why: HoldReason::Reused,
                    gone: None,
                    since_ms: 0,
                };
                tx.put_hold(&hold)?;
                tx.put_held(&key(Person, ACCT), ACCT, &beatriz())?;
                tx.open_conflict(Conflict::about_identity(&hold, &ana(), &beatriz(), String::new()))
            })
            .await;
        clinic.there(Person, beatriz());
        clinic.decide(new_id()).await;
        clinic.assert_settled().await;
        assert_eq!(clinic.at_centre(Page, "own"), Some(page("own", NEW, "hers")));
    }
}

/// Somebody turns Ana into Beatriz one field at a time, while what was written for Ana waits.
#[tokio::test]
async fn who_becomes_another_one_step_by_step_is_held() {
    for has_waiting in [true, false] {
        let clinic = Clinic::new();
        clinic.there(Person, ana());
        clinic.there(Page, page("p1", ACCT, "agreed"));
        clinic.round().await;
        if has_waiting {
            // A conflict about Ana's page.
            clinic.edit(Page, page("p1", ACCT, "mine")).await;
            clinic.there(Page, page("p1", ACCT, "theirs"));
            clinic.round().await;
            assert_eq!(clinic.conflicts().len(), 1);
        }
        let mut there = ana();
        for field in ["name", "lastname", "dob", "gender"] {
            there.insert(field, beatriz().get(field).unwrap().clone());
            clinic.there(Person, there.clone());
            clinic.round().await;
        }
        assert_eq!(clinic.holds(), u64::from(has_waiting), "{has_waiting}");
        if has_waiting {
            clinic.decide(Verdict::Same).await;
            clinic.round().await;
            assert_eq!(clinic.holds(), 0);
        }
    }
}

/// What was meant for whom is no question once nothing waits.
#[tokio::test]
async fn corrections_with_nothing_between_them_hold_nobody() {
    let clinic = Clinic::new();
    clinic.there(Person, ana());
    clinic.round().await;
    clinic.sim.state().refused.push("p1".to_owned());
    clinic.edit(Page, page("p1", ACCT, "unsent")).await;
    clinic.round().await;
    let mut there = ana();
    there.insert("name", "Anna");
    clinic.there(Person, there.clone());
    clinic.round().await;
    clinic.sim.state().refused.clear();
    clinic.run(|tx| tx.retry_refused()).await;
    clinic.assert_settled().await;
    there.insert("lastname", "Betz-Ruiz");
    clinic.there(Person, there.clone());
    clinic.assert_settled().await;
    assert_eq!((clinic.holds(), clinic.here(Person, ACCT)), (0, Some(there)));
}
