//! Who is held, what waits with them, and how a hold ends by itself.

use std::time::Duration;

use bson::{Bson, DateTime, Document, doc};
use thalamus_edge::domain::record::Kind::{self, Encounter, Page, Person, PersonalDocument};
use thalamus_edge::store::{ConflictStatus, HoldReason, Subject};
use thalamus_edge::sync::Outcome;
use thalamus_edge::sync::conflicts::Decision;
use thalamus_edge::sync::identity::Verdict;

use super::support::sim::{Fault, Sim};
use super::{ACCT, Arc, Clinic, Hub, Reconciler, SyncSettings, ana, beatriz, clerk, key, page, with};

// -------------------------------------------------------------------------------------------- who is held

/// What each side does with the account, and what comes of it.
struct Begin {
    what: &'static str,
    /// Agreed on before.
    base: Option<Document>,
    local: Option<Document>,
    remote: Document,
    held: Option<HoldReason>,
}

fn begins() -> Vec<Begin> {
    use HoldReason::{Created, Reused, Spelling};
    let created = |what, remote, held| Begin { what, base: None, local: Some(ana()), remote, held };
    let agreed = |what, local, change, held| Begin {
        what,
        base: Some(ana()),
        local,
        remote: with(ana(), change),
        held,
    };
    let spelled = |local: Document| with(local, doc! {"_id": "acc01"});
    vec![
        created("two people", beatriz(), Some(Created)),
        created("only the birth day differs", with(ana(), doc! {"dob": "1985-10-05"}), Some(Created)),
        created("only the gender differs", with(ana(), doc! {"gender": "m"}), Some(Created)),
        created("one person, made twice", with(ana(), doc! {"phone": "2"}), None),
        created("case and accents", with(ana(), doc! {"name": "ÁNA", "lastname": " betz"}), None),
        created(
            "a date and a string",
            with(ana(), doc! {"dob": DateTime::parse_rfc3339_str("1985-10-04T13:05:00Z").unwrap()}),
            None,
        ),
        created("missing values agree", doc! {"_id": ACCT, "name": "Ana"}, None),
        created("no name to tell them by", doc! {"_id": ACCT, "job": "x"}, Some(Created)),
        created("another spelling of the account, another person", spelled(beatriz()), Some(Spelling)),
        created("another spelling of the account, the same name", spelled(ana()), Some(Spelling)),
        agreed("one field changed", None, doc! {"lastname": "Betz-Cordara"}, None),
        agreed("two fields changed", None, doc! {"name": "Bea", "dob": "1984-10-05"}, Some(Reused)),
        agreed("all changed", None, beatriz(), Some(Reused)),
        agreed("two changed in case only", None, doc! {"name": "ANA", "lastname": "BETZ"}, None),
        agreed("one changed, one emptied", None, doc! {"name": "Bea", "lastname": ""}, None),
        agreed("other fields changed", None, doc! {"phone": "2", "job": "c"}, None),
        agreed(
            "edited here, two fields changed there",
            Some(with(ana(), doc! {"phone": "3"})),
            doc! {"name": "Bea", "dob": "1984-10-05"},
            Some(Reused),
        ),
        agreed(
            "the same two fields changed on both sides",
            Some(with(ana(), doc! {"name": "Bea", "lastname": "Cordara"})),
            doc! {"name": "Bea", "lastname": "Cordara"},
            None,
        ),
        agreed(
            "two fields changed there, one of them so here",
            Some(with(ana(), doc! {"name": "Bea"})),
            doc! {"name": "Bea", "lastname": "Cordara"},
            Some(Reused),
        ),
        Begin { what: "new here", base: None, local: None, remote: beatriz(), held: None },
        Begin {
            what: "two people agreed on, in two spellings",
            base: Some(ana()),
            local: None,
            remote: spelled(beatriz()),
            held: None,
        },
    ]
}

#[tokio::test]
async fn people_are_held_when_they_may_be_two() {
    for Begin { what, base, local, remote, held } in begins() {
        let clinic = Clinic::new();
        if let Some(base) = &base {
            clinic.there(Person, base.clone());
            clinic.round().await;
        }
        if let Some(local) = &local {
            clinic.edit(Person, local.clone()).await;
        }
        let before = clinic.here(Person, ACCT);
        clinic.there(Person, remote.clone());
        let report = clinic.round().await;
        let hold = clinic.store.read().unwrap().hold("acc01").unwrap();
        assert_eq!(hold.as_ref().map(|hold| hold.why), held, "{what}");
        let Some(hold) = hold else {
            assert!(!report.message.contains("Accounts that two people have"), "{what}: {report:?}");
            continue;
        };
        assert_eq!(
            (hold.local.as_str(), hold.remote.as_str()),
            (ACCT, remote.get_str("_id").unwrap()),
            "{what}"
        );
        assert_eq!((report.conflicts, report.pushed), (1, 0), "{what}: {report:?}");
        assert!(report.message.contains("one at the centre: 1."), "{what}: {report:?}");
        assert_eq!(clinic.here(Person, ACCT), before, "{what}: the person here stays");
        assert_eq!(clinic.held(Person, &hold.remote), Some(remote.clone()), "{what}");
        assert_eq!(clinic.at_centre(Person, &hold.remote), Some(remote), "{what}");
        let conflict = clinic.identity();
        assert_eq!((conflict.subject, conflict.status), (Subject::Identity, ConflictStatus::Open), "{what}");
        // Said once.
        let again = clinic.round().await;
        assert_eq!(
            (again.conflicts, again.pulled, again.merged, again.pushed),
            (0, 0, 0, 0),
            "{what}: {again:?}"
        );
    }
}

/// The centre has had both for long: they are served, and listed as what they are.
#[tokio::test]
async fn two_spellings_at_the_centre_are_served_and_listed() {
    let clinic = Clinic::new();
    let lower = with(beatriz(), doc! {"_id": "acc01"});
    clinic.there(Person, ana());
    clinic.there(Person, lower.clone());
    clinic.there(Person, with(beatriz(), doc! {"_id": "other"}));
    clinic.round().await;
    let duplicates = || clinic.store.read().unwrap().duplicates_after("", usize::MAX).unwrap();
    assert_eq!(duplicates(), [(ACCT.to_owned(), vec![ACCT.to_owned(), "acc01".to_owned()])]);
    assert_eq!(clinic.here(Person, "acc01"), Some(lower));
    assert_eq!(clinic.holds(), 0);
    clinic.there(Person, with(beatriz(), doc! {"_id": "Acc01"}));
    clinic.round().await;
    assert_eq!(duplicates()[0].1, [ACCT, "Acc01", "acc01"]);
    for gone in ["Acc01", ACCT] {
        assert_eq!(duplicates().len(), 1);
        clinic.sim.remove(Person, gone);
        clinic.round().await;
    }
    assert_eq!(duplicates(), []);
    clinic.assert_settled().await;
}

/// An account that was refused for another reason, or is found out when it is sent.
#[tokio::test]
async fn an_insert_that_meets_somebody_else_is_held() {
    let clinic = Clinic::new();
    clinic.edit(Person, ana()).await;
    clinic.edit(Page, page("p1", ACCT, "hers")).await;
    let sim = clinic.sim.clone();
    let ahead = async move { sim.put(Person, beatriz()) };
    clinic.sim.state().write_faults.push_back(Fault::Before(Box::pin(ahead)));
    let report = clinic.round().await;
    assert_eq!((report.pushed, clinic.holds()), (0, 1), "{report:?}");
    assert_eq!(clinic.at_centre(Page, "p1"), None);
}

/// The insert's answer was lost, and somebody replaced what it had made.
#[tokio::test]
async fn a_lost_answer_does_not_mix_two_people() {
    let clinic = Clinic::new();
    clinic.edit(Person, ana()).await;
    clinic.sim.state().write_faults.push_back(Fault::LostAnswer);
    clinic.sync.round().await;
    assert!(clinic.at_centre(Person, ACCT).is_some());
    clinic.there(Person, beatriz());
    clinic.round().await;
    assert_eq!((clinic.holds(), clinic.here(Person, ACCT)), (1, Some(ana())));
    assert_eq!(clinic.at_centre(Person, ACCT), Some(beatriz()));
}

/// Who somebody has become at the centre between what was read last and what is sent.
#[tokio::test]
async fn nothing_is_sent_to_whoever_has_the_account_by_then() {
    type Meanwhile = fn(&Sim);
    let cases: [(&str, Meanwhile, [bool; 2], u64); 4] = [
        ("nothing", |_| {}, [true, true], 0),
        ("corrected", |sim| sim.put(Person, with(ana(), doc! {"lastname": "Betz-Cordara"})), [true, true], 0),
        ("another human being", |sim| sim.put(Person, beatriz()), [false, false], 1),
        // The record that is there stays hers; a new one would be nobody's.
        ("deleted", |sim| sim.remove(Person, ACCT), [false, true], 0),
    ];
    for (what, meanwhile, [is_new_sent, is_known_sent], holds) in cases {
        let clinic = Clinic::new();
        clinic.there(Person, ana());
        clinic.there(Page, page("known", ACCT, "agreed"));
        clinic.assert_settled().await;
        clinic.edit(Page, page("new", ACCT, "hers")).await;
        clinic.edit(Page, page("known", ACCT, "edited")).await;
        let sim = clinic.sim.clone();
        let ahead = async move { meanwhile(&sim) };
        clinic.sim.state().identity_faults.push_back(Fault::Before(Box::pin(ahead)));
        clinic.round().await;
        assert_eq!(clinic.at_centre(Page, "new").is_some(), is_new_sent, "{what}");
        let info = clinic.at_centre(Page, "known").unwrap().get_str("info").unwrap().to_owned();
        assert_eq!(info == "edited", is_known_sent, "{what}");
        assert_eq!(clinic.holds(), holds, "{what}");
        let waits = clinic.store.read().unwrap().held_back_count().unwrap();
        assert_eq!(waits > 0, !is_new_sent, "{what}");
    }
}

// ----------------------------------------------------------------------------------------- what waits

/// Names, birth and gender of an agreed person, typed anew at the centre: an edit like any other.
#[tokio::test]
async fn a_person_who_is_typed_anew_is_nobody_else() {
    let midnight = Bson::from(bson::DateTime::from_millis(497_228_400_000));
    let (before, after) = (
        doc! {"_id": ACCT, "name": "Jose\u{301}", "lastname": "O'Brien Weiß", "dob": "1985-10-04", "gender": "f"},
        doc! {"_id": ACCT, "name": "JOSÉ", "lastname": "O’Brien-Weiss", "dob": midnight, "gender": "female"},
    );
    let clinic = Clinic::new();
    clinic.there(Person, before.clone());
    clinic.round().await;
    clinic.edit(Page, page("p1", ACCT, "hers")).await;
    clinic.there(Person, after.clone());
    clinic.round().await;
    assert_eq!(clinic.holds(), 0);
    assert_eq!(clinic.here(Person, ACCT), Some(after.clone()));
    assert!(clinic.at_centre(Page, "p1").is_some(), "her new page travels");

    let made_on_both = Clinic::new();
    made_on_both.edit(Person, before).await;
    made_on_both.there(Person, after.clone());
    made_on_both.round().await;
    assert_eq!((made_on_both.holds(), made_on_both.here(Person, ACCT)), (0, Some(after)));
}

#[tokio::test]
async fn own_records_stay_usable_and_unpushed() {
    let clinic = Clinic::with_hold().await;
    clinic.there(Person, with(ana(), doc! {"_id": "OTHER1"}));
    clinic.round().await;
    clinic.edit(Person, with(ana(), doc! {"phone": "2"})).await;
    clinic.edit(Page, page("p1", ACCT, "hers")).await;
    clinic.edit(Page, page("p2", "acc01", "hers, in another spelling")).await;
    clinic.edit(Encounter, doc! {"_id": "e1", "person": ACCT}).await;
    clinic.edit(PersonalDocument, doc! {"_id": "d1", "fedacct": ACCT}).await;
    clinic.edit(Page, page("q1", "OTHER1", "somebody else's")).await;
    clinic.edit(Page, page("p3", ACCT, "a slip")).await;
    let report = clinic.round().await;
    assert_eq!(report.pushed, 1, "{report:?}");
    clinic.edit(Page, page("p1", ACCT, "hers, edited")).await;
    clinic.delete(Page, "p3").await;
    clinic.round().await;
    let pages: Vec<_> = clinic.sim.state().records.keys().map(|(_, id)| id.clone()).collect();
    assert_eq!(pages, [ACCT, "OTHER1", "q1"]);
    assert_eq!(clinic.at_centre(Person, ACCT), Some(beatriz()));
    assert_eq!(clinic.here(Page, "p1").unwrap().get_str("info").unwrap(), "hers, edited");
    assert_eq!(clinic.here(Page, "p3"), None);
    let snapshot = clinic.store.read().unwrap();
    let own = snapshot.going_along_count(&snapshot.hold(ACCT).unwrap().unwrap()).unwrap();
    drop(snapshot);
    assert_eq!(own, 4);
}

/// Something that happens to a page of the account, and where it is afterwards: (here, waiting).
struct Pulled {
    what: &'static str,
    /// Before Beatriz came.
    before: fn(&Clinic),
    /// Edits here once she is held.
    edit: Option<Document>,
    /// At the centre, one after the other, each followed by a round.
    then: &'static [fn(&Clinic)],
    here: Option<&'static str>,
    waiting: Option<&'static str>,
}

fn nothing(_: &Clinic) {}

fn put_theirs(clinic: &Clinic) {
    clinic.there(Page, page("p1", ACCT, "theirs"));
}

fn put_newer(clinic: &Clinic) {
    clinic.there(Page, page("p1", "acc01", "newer"));
}

fn put_others(clinic: &Clinic) {
    clinic.there(Page, page("p1", "OTHER1", "other's"));
}

fn remove(clinic: &Clinic) {
    clinic.sim.remove(Page, "p1");
}

fn pulled() -> Vec<Pulled> {
    let case = |what, before, then, here, waiting| Pulled { what, before, edit: None, then, here, waiting };
    vec![
        case("written after", nothing, &[put_theirs], None, Some("theirs")),
        case("written after, in another spelling", nothing, &[put_newer], None, Some("newer")),
        case("written after and changed", nothing, &[put_theirs, put_newer], None, Some("newer")),
        case("written after and deleted", nothing, &[put_theirs, remove], None, None),
        case("written after and moved", nothing, &[put_theirs, put_others], Some("other's"), None),
        case("written before", put_theirs, &[nothing], Some("theirs"), None),
        case("written before and changed", put_theirs, &[put_newer], Some("theirs"), Some("newer")),
        case(
            "written before, changed and changed back",
            put_theirs,
            &[put_newer, put_theirs],
            Some("theirs"),
            None,
        ),
        case("written before, changed and deleted", put_theirs, &[put_newer, remove], None, None),
        case(
            "written before, changed and moved",
            put_theirs,
            &[put_newer, put_others],
            Some("other's"),
            None,
        ),
        case("written before and deleted", put_theirs, &[remove], None, None),
        case("written before, deleted, written again", put_theirs, &[remove, put_newer], None, Some("newer")),
        case("another's, moved to them", put_others, &[put_theirs], None, Some("theirs")),
        case("another's, moved there and back", put_others, &[put_theirs, put_others], Some("other's"), None),
        Pulled {
            what: "the id of a page made here",
            before: nothing,
            edit: Some(page("p1", ACCT, "own")),
            then: &[put_theirs, put_newer],
            here: Some("own"),
            waiting: Some("newer"),
        },
        Pulled {
            what: "the id of a page made here, deleted again there",
            before: nothing,
            edit: Some(page("p1", ACCT, "own")),
            then: &[put_theirs, remove],
            here: Some("own"),
            waiting: None,
        },
        Pulled {
            what: "the id of a page made here for another person",
            before: nothing,
            edit: Some(page("p1", "OTHER1", "own")),
            then: &[put_theirs],
            here: Some("own"),
            waiting: Some("theirs"),
        },
        Pulled {
            what: "agreed, edited here, another field changed there",
            before: put_theirs,
            edit: Some(with(page("p1", ACCT, "theirs"), doc! {"own": 1})),
            then: &[put_newer],
            here: Some("theirs"),
            waiting: Some("newer"),
        },
        Pulled {
            what: "another's, edited here, moved to them: the two are kept apart",
            before: put_others,
            edit: Some(with(page("p1", "OTHER1", "other's"), doc! {"own": 1})),
            then: &[put_theirs],
            here: Some("other's"),
            waiting: None,
        },
    ]
}

#[tokio::test]
async fn records_of_the_centres_person_wait_apart() {
    for case in pulled() {
        let what = case.what;
        let clinic = Clinic::new();
        (case.before)(&clinic);
        // A page that the account has before is Ana's: both sides have her.
        let page = clinic.at_centre(Page, "p1");
        let is_agreed = page.is_some_and(|page| page.get_str("book").unwrap() == ACCT);
        if is_agreed {
            clinic.there(Person, ana());
        }
        clinic.round().await;
        if !is_agreed {
            clinic.edit(Person, ana()).await;
        }
        clinic.there(Person, beatriz());
        clinic.round().await;
        if let Some(edit) = case.edit {
            clinic.edit(Page, edit).await;
        }
        for then in case.then {
            then(&clinic);
            clinic.round().await;
        }
        let info = |document: Option<Document>| document.map(|d| d.get_str("info").unwrap().to_owned());
        assert_eq!(info(clinic.here(Page, "p1")).as_deref(), case.here, "{what}: here");
        assert_eq!(info(clinic.held(Page, "p1")).as_deref(), case.waiting, "{what}: waiting");
        assert_eq!(clinic.holds(), 1, "{what}");
        // And in nobody's book but their own.
        let book = clinic.store.read().unwrap().list_of(Page, ACCT, None, 9, 9_999).unwrap().records;
        let is_here = clinic.here(Page, "p1").is_some_and(|page| page.get_str("book").unwrap() != "OTHER1");
        assert_eq!(book.len(), usize::from(is_here), "{what}: the book");
        let again = clinic.round().await;
        assert_eq!((again.pulled, again.merged, again.deleted), (0, 0, 0), "{what}: {again:?}");
        // Once it is over, everything is where the centre has it.
        clinic.there(Person, with(ana(), doc! {"job": "b"}));
        clinic.round().await;
        clinic.decide_record(Decision::TakeCentral).await;
        clinic.assert_settled().await;
        assert_eq!(clinic.identity().resolution.as_deref(), Some("ended"), "{what}");
    }
}

/// What is written there for the centre's person does not come into the book of the other one.
#[tokio::test]
async fn a_changed_record_goes_on_in_both_versions() {
    let clinic = Clinic::new();
    clinic.there(Person, ana());
    for id in ["p1", "p2"] {
        clinic.there(Page, page(id, ACCT, "agreed"));
    }
    clinic.round().await;
    clinic.there(Person, beatriz());
    clinic.round().await;
    clinic.there(Page, page("p1", ACCT, "Beatriz'"));
    clinic.round().await;
    clinic.decide(Verdict::NewId("NEW01".to_owned())).await;
    clinic.assert_settled().await;
    assert_eq!(
        (clinic.book("NEW01"), clinic.book(ACCT)),
        (vec!["agreed".to_owned(); 2], vec!["Beatriz'".to_owned()])
    );
}

/// A record that the centre has is edited and deleted here as ever, and sent when it is clear whose it is.
#[tokio::test]
async fn edits_of_agreed_records_wait_with_the_person() {
    let clinic = Clinic::new();
    clinic.there(Person, ana());
    for id in ["p1", "p2"] {
        clinic.there(Page, page(id, ACCT, "agreed"));
    }
    clinic.round().await;
    clinic.there(Person, beatriz());
    clinic.round().await;
    clinic.edit(Page, page("p1", ACCT, "edited")).await;
    clinic.delete(Page, "p2").await;
    let report = clinic.round().await;
    assert_eq!(report.pushed, 0, "{report:?}");
    assert_eq!(clinic.at_centre(Page, "p1"), Some(page("p1", ACCT, "agreed")));
    assert!(clinic.at_centre(Page, "p2").is_some());
    clinic.there(Person, ana());
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Page, "p1"), Some(page("p1", ACCT, "edited")));
    assert_eq!(clinic.at_centre(Page, "p2"), None);
}

// ------------------------------------------------------------------------------------- how it ends by itself

/// What ends a hold, and what is here and at the centre under the account when all is settled.
struct End {
    what: &'static str,
    is_agreed: bool,
    remote: Document,
    then: fn(&Clinic) -> Option<Document>,
    left: Option<Document>,
    conflicts: usize,
}

fn ends() -> Vec<End> {
    let end =
        |what, is_agreed, then, left| End { what, is_agreed, remote: beatriz(), then, left, conflicts: 0 };
    vec![
        End {
            what: "the centre's person is corrected",
            is_agreed: false,
            remote: with(ana(), doc! {"name": "Enna", "phone": "2"}),
            then: |clinic| {
                clinic.there(Person, with(ana(), doc! {"phone": "2"}));
                None
            },
            left: Some(with(ana(), doc! {"phone": "2"})),
            conflicts: 1,
        },
        end(
            "the account is given back",
            true,
            |clinic| {
                clinic.there(Person, with(ana(), doc! {"job": "x"}));
                None
            },
            Some(with(ana(), doc! {"job": "x"})),
        ),
        // One who was agreed on is another matter if something waits for them: see `taken_over`.
        end("the person here is corrected", false, |_| Some(beatriz()), Some(beatriz())),
    ]
}

#[tokio::test]
async fn a_hold_without_a_reason_ends_and_lets_in_what_waits() {
    for End { what, is_agreed, remote, then, left, conflicts } in ends() {
        let clinic = Clinic::new();
        if is_agreed {
            clinic.there(Person, ana());
            clinic.round().await;
        } else {
            clinic.edit(Person, ana()).await;
        }
        clinic.there(Person, remote);
        clinic.round().await;
        clinic.edit(Page, page("own", ACCT, "hers")).await;
        clinic.there(Page, page("theirs", ACCT, "theirs"));
        clinic.round().await;
        assert!(clinic.holds() == 1 && clinic.held(Page, "theirs").is_some(), "{what}");
        if let Some(edit) = then(&clinic) {
            clinic.edit(Person, edit).await;
        }
        clinic.round().await;
        // Deleted there while a page of theirs has never been sent: that is a question of its own.
        let is_asked = clinic.record_conflict().is_some();
        clinic.decide_record(Decision::TakeLocal).await;
        clinic.assert_settled().await;
        assert_eq!(clinic.here(Person, ACCT), if is_asked { Some(ana()) } else { left }, "{what}");
        for (id, info) in [("own", "hers"), ("theirs", "theirs")] {
            assert_eq!(clinic.at_centre(Page, id), Some(page(id, ACCT, info)), "{what}");
        }
        let identity = clinic.identity();
        assert_eq!(identity.status, ConflictStatus::Resolved, "{what}");
        assert_eq!(identity.resolution.as_deref(), Some("ended"), "{what}");
        assert_eq!(clinic.conflicts().len(), 1 + conflicts + usize::from(is_asked), "{what}");
    }
}

/// The centre's person goes, and their records are still there: they do not become those of the person here.
#[tokio::test]
async fn records_of_a_person_who_came_and_went_stay_apart() {
    for (is_agreed, is_left) in [(false, true), (false, false), (true, true)] {
        let clinic = Clinic::new();
        if is_agreed {
            clinic.there(Person, ana());
            clinic.round().await;
        } else {
            clinic.edit(Person, ana()).await;
        }
        clinic.there(Person, beatriz());
        clinic.round().await;
        clinic.edit(Page, page("own", ACCT, "Ana's")).await;
        clinic.there(Page, page("theirs", ACCT, "Beatriz'"));
        clinic.round().await;
        clinic.sim.remove(Person, ACCT);
        clinic.round().await;
        let hold = clinic.store.read().unwrap().hold(ACCT).unwrap().unwrap();
        assert_eq!(hold.gone.unwrap().get_str("name").unwrap(), "Beatriz");
        assert_eq!((clinic.here(Page, "theirs"), clinic.at_centre(Person, ACCT)), (None, None));
        if is_left {
            clinic.decide(Verdict::NewId("NEW01".to_owned())).await;
        } else {
            clinic.sim.remove(Page, "theirs");
        }
        clinic.assert_settled().await;
        let account = if is_left { "NEW01" } else { ACCT };
        assert_eq!(clinic.at_centre(Page, "own"), Some(page("own", account, "Ana's")));
        assert_eq!(clinic.at_centre(Person, account), Some(with(ana(), doc! {"_id": account})));
        let theirs = is_left.then(|| page("theirs", ACCT, "Beatriz'"));
        assert_eq!(clinic.at_centre(Page, "theirs"), theirs);
    }
}

/// What was agreed before the account was another one's is of the person who leaves, with what was changed or deleted here.
#[tokio::test]
async fn edits_made_while_held_go_with_their_person() {
    let clinic = Clinic::new();
    clinic.there(Person, ana());
    for id in ["p1", "p2", "p3"] {
        clinic.there(Page, page(id, ACCT, "agreed"));
    }
    clinic.assert_settled().await;
    clinic.there(Person, beatriz());
    clinic.round().await;
    clinic.edit(Page, page("p1", ACCT, "Ana's")).await;
    clinic.delete(Page, "p2").await;
    clinic.round().await;
    clinic.decide(Verdict::NewId("NEW01".to_owned())).await;
    clinic.assert_settled().await;
    let hers = vec!["Ana's".to_owned(), "agreed".to_owned()];
    assert_eq!((clinic.book("NEW01"), clinic.book(ACCT)), (hers, Vec::new()));
    // What is in the trash is hers as well.
    let trash = clinic.store.read().unwrap().trash_page(None, 9, |_, _| true, |_| Ok(true)).unwrap().rows;
    let owners: Vec<_> =
        trash.iter().filter(|row| row.key.kind == Page).map(|row| row.owner.clone()).collect();
    assert_eq!(owners, [Some("NEW01".to_owned())]);
}

/// A person who is corrected here ends the hold once everything is read: what waits may be gone at the centre by now.
#[tokio::test]
async fn a_correction_here_waits_for_the_news_of_what_waits() {
    let clinic = Clinic::with_hold().await;
    clinic.there(Page, page("theirs", ACCT, "theirs"));
    clinic.round().await;
    // From now on rounds have no time to look at people.
    clinic.sim.state().scan_delay = Duration::from_millis(300);
    let sim = clinic.sim.clone();
    let hurried = Clinic::with(clinic.store.clone(), &sim, Duration::from_millis(500));
    hurried.edit(Person, beatriz()).await;
    let report = hurried.sync.round().await;
    assert_eq!((report.outcome, hurried.holds()), (Outcome::Partial, 1), "{report:?}");
    assert_eq!(hurried.here(Page, "theirs"), None);
    sim.state().scan_delay = Duration::ZERO;
    clinic.assert_settled().await;
    assert_eq!(clinic.holds(), 0);
    assert_eq!(clinic.here(Page, "theirs"), Some(page("theirs", ACCT, "theirs")));
}

/// The centre's version of the moment counts, however often it changes.
#[tokio::test]
async fn a_held_person_follows_the_centre() {
    let clinic = Clinic::with_hold().await;
    let newer = with(beatriz(), doc! {"job": "c", "name": "Beatrix"});
    clinic.there(Person, newer.clone());
    let report = clinic.round().await;
    assert_eq!((report.pulled, clinic.held(Person, ACCT)), (1, Some(newer)), "{report:?}");
    clinic.there(Person, beatriz());
    clinic.round().await;
    assert_eq!(clinic.held(Person, ACCT), Some(beatriz()));
    assert_eq!(clinic.conflicts().len(), 1);
}

#[tokio::test]
async fn a_hold_over_spelling_ends_when_the_centre_has_both() {
    let lower = with(ana(), doc! {"_id": "acc01"});
    // The same person in the spelling of this node as well: two records of one account.
    let clinic = Clinic::new();
    clinic.edit(Person, ana()).await;
    clinic.edit(Page, page("own", ACCT, "hers")).await;
    clinic.there(Person, lower.clone());
    clinic.round().await;
    clinic.there(Person, with(ana(), doc! {"job": "x"}));
    clinic.assert_settled().await;
    assert_eq!(clinic.here(Person, "acc01"), Some(lower.clone()));
    assert_eq!(clinic.here(Person, ACCT), Some(with(ana(), doc! {"job": "x"})));
    assert_eq!(clinic.store.read().unwrap().duplicates_after("", usize::MAX).unwrap().len(), 1);

    // Somebody else: now it is about them, and the other spelling waits as well.
    let clinic = Clinic::new();
    clinic.edit(Person, ana()).await;
    clinic.there(Person, lower.clone());
    clinic.round().await;
    clinic.there(Person, beatriz());
    clinic.there(Person, with(lower.clone(), doc! {"_id": "Acc01"}));
    clinic.round().await;
    let hold = clinic.store.read().unwrap().hold(ACCT).unwrap().unwrap();
    assert_eq!((hold.why, hold.remote.as_str()), (HoldReason::Created, ACCT));
    for id in ["acc01", "Acc01", ACCT] {
        assert!(clinic.held(Person, id).is_some(), "{id}");
    }
    clinic.sim.remove(Person, "Acc01");
    clinic.round().await;
    assert_eq!(clinic.held(Person, "Acc01"), None);
    // The one that is left is held anew.
    clinic.sim.remove(Person, ACCT);
    clinic.round().await;
    let hold = clinic.store.read().unwrap().hold(ACCT).unwrap().unwrap();
    assert_eq!((hold.why, hold.remote.as_str()), (HoldReason::Spelling, "acc01"));
    clinic.sim.remove(Person, "acc01");
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Person, ACCT), Some(ana()));
}

/// Whatever becomes of the person here by other ways.
#[tokio::test]
async fn a_hold_ends_with_the_person_here() {
    let clinic = Clinic::with_hold().await;
    clinic.run(|tx| tx.edit(&key(Person, ACCT), None, &clerk())).await;
    clinic.assert_settled().await;
    assert_eq!(clinic.here(Person, ACCT), Some(beatriz()));
}

/// A hold is a row of `edge_conflicts` like other conflicts, without secrets, and closed like them.
#[tokio::test]
async fn a_hold_is_shown_to_the_federation() {
    let clinic = Clinic::new();
    clinic.edit(Person, with(ana(), doc! {"password": "$2b$04$own"})).await;
    clinic.there(Person, with(beatriz(), doc! {"password": "$2b$04$theirs"}));
    clinic.round().await;
    let row = |clinic: &Clinic| {
        let rows = clinic.sim.state().conflicts.clone();
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows.into_values().next().unwrap()
    };
    let open = row(&clinic);
    assert_eq!(open.get_str("_id").unwrap(), clinic.identity().id);
    for (field, value) in [("type", "identity"), ("status", "open"), ("collection", "people"), ("id", ACCT)] {
        assert_eq!(open.get_str(field).unwrap(), value);
    }
    assert_eq!(open.get_document("local").unwrap(), &ana());
    assert_eq!(open.get_document("central").unwrap(), &beatriz());
    assert!(!open.to_string().contains("$2b"));
    clinic.sim.remove(Kind::Person, ACCT);
    clinic.round().await;
    let closed = row(&clinic);
    assert_eq!(closed.get_str("status").unwrap(), "resolved");
    assert_eq!(closed.get_str("resolution").unwrap(), "ended");
    assert!(!closed.to_string().contains("$2b"));
    // The same two once more: open again.
    clinic.round().await;
    clinic.sim.remove(Kind::Person, ACCT);
    clinic.round().await;
    clinic.edit(Person, with(ana(), doc! {"password": "$2b$04$own"})).await;
    clinic.there(Person, with(beatriz(), doc! {"password": "$2b$04$theirs"}));
    clinic.round().await;
    assert_eq!((clinic.holds(), row(&clinic).get_str("status").unwrap()), (1, "open"));
}

/// A reading that was cut has not come to the news of what waits: nothing is taken from there before it has.
#[tokio::test]
async fn a_reading_that_was_cut_ends_no_hold() {
    const PIECE: u64 = 20;
    let clinic = Clinic::with_hold().await;
    clinic.there(Page, page("p1", ACCT, "of Beatriz"));
    clinic.round().await;
    assert!(clinic.held(Page, "p1").is_some());
    // The centre is mended: Ana has the account there, and what was Beatriz' is gone.
    clinic.there(Person, ana());
    clinic.sim.remove(Page, "p1");
    for n in 0..5 * PIECE {
        clinic.there(Person, doc! {"_id": format!("P{n:04}"), "name": "x"});
    }
    clinic.sim.state().line_bytes_per_document = 1_000;
    let hub: Arc<dyn Hub> = Arc::new(clinic.sim.clone());
    let settings = SyncSettings { scan_bytes_per_round: PIECE * 1_000, ..SyncSettings::default() };
    let in_pieces = Reconciler::new(clinic.store.clone(), Some(hub), settings);
    let mut cut = 0;
    while in_pieces.round().await.outcome == Outcome::Partial {
        assert_eq!(clinic.holds(), 1, "after {cut} rounds");
        assert_eq!(clinic.book(ACCT), [""; 0]);
        cut += 1;
        assert!(cut < 30);
    }
    assert!(cut > 2, "{cut}");
    assert_eq!(clinic.holds(), 0);
    assert_eq!((clinic.book(ACCT), clinic.held(Page, "p1")), (Vec::new(), None));
}
