//! An account that one side has closed is opened by no decision about something else, and by no round that meets it first.

use bson::{Document, doc};
use thalamus_edge::domain::active::{ACTIVE, is_active};
use thalamus_edge::domain::record::Kind::Person;
use thalamus_edge::store::{Conflict, ConflictStatus};
use thalamus_edge::sync::conflicts::{Decision, resolve};
use thalamus_edge::sync::identity::Verdict;

use super::{ACCT, Clinic, ana, beatriz, clerk, with};

fn closed(person: Document) -> Document {
    with(person, doc! {"active": false})
}

/// The conflict over the account that waits.
fn over_account(clinic: &Clinic) -> Option<Conflict> {
    let waits = |c: &Conflict| c.path == [ACTIVE] && c.status == ConflictStatus::Open;
    clinic.conflicts().into_iter().find(waits)
}

async fn take(clinic: &Clinic, conflict: &Conflict, decision: Decision) {
    let person = clinic.here(Person, &conflict.key.id);
    let seen = match conflict.path.as_slice() {
        [] => person.map(bson::Bson::Document),
        [field, ..] => person.and_then(|person| person.get(field).cloned()),
    };
    let allow = |_: &_, _: Option<&_>, _: Option<&_>| Ok(());
    resolve(&clinic.store, &conflict.id, decision, seen, clerk(), allow).await.unwrap();
}

/// Whether the account is open here and at the centre.
fn are_open(clinic: &Clinic, id: &str) -> (bool, bool) {
    let open = |person: Option<Document>| is_active(&person.unwrap());
    (open(clinic.here(Person, id)), open(clinic.at_centre(Person, id)))
}

/// Decides that the two are one, and asserts that nobody gets in before the account itself is decided about.
async fn stays_closed_as_the_same(clinic: &Clinic, id: &str, case: &str) {
    clinic.decide(Verdict::Same).await;
    assert!(!is_active(&clinic.here(Person, id).unwrap()), "{case}");
    for _ in 0..2 {
        clinic.round().await;
        assert_eq!(are_open(clinic, id), (false, false), "{case}");
    }
    let conflict = over_account(clinic).unwrap_or_else(|| panic!("{case}: nothing to decide"));
    take(clinic, &conflict, Decision::Value(true.into())).await;
    clinic.round().await;
    assert_eq!(are_open(clinic, id), (true, true), "{case}");
}

#[tokio::test]
async fn a_closing_before_the_two_ever_agreed_stands() {
    for other in [beatriz(), with(beatriz(), doc! {"active": true})] {
        let clinic = Clinic::new();
        clinic.edit(Person, ana()).await;
        clinic.edit(Person, closed(ana())).await;
        clinic.there(Person, other);
        clinic.round().await;
        stays_closed_as_the_same(&clinic, ACCT, "closed here").await;
    }
    let clinic = Clinic::new();
    clinic.edit(Person, ana()).await;
    clinic.there(Person, closed(beatriz()));
    clinic.round().await;
    stays_closed_as_the_same(&clinic, ACCT, "closed there").await;
}

#[tokio::test]
async fn a_closing_in_another_spelling_stands() {
    let clinic = Clinic::new();
    let small = with(ana(), doc! {"_id": "acc01"});
    clinic.edit(Person, small.clone()).await;
    clinic.edit(Person, closed(small)).await;
    clinic.there(Person, ana());
    clinic.round().await;
    stays_closed_as_the_same(&clinic, ACCT, "another spelling").await;
}

/// The centre knew of the closing, and gives the account to somebody with other names: an ordinary opening, but of whom?
#[tokio::test]
async fn a_closing_that_both_had_agreed_on_stands() {
    for is_agreed in [true, false] {
        let clinic = Clinic::new();
        clinic.edit(Person, ana()).await;
        clinic.round().await;
        clinic.edit(Person, closed(ana())).await;
        if is_agreed {
            clinic.round().await;
        }
        clinic.there(Person, with(beatriz(), doc! {"active": true}));
        clinic.round().await;
        stays_closed_as_the_same(&clinic, ACCT, &format!("agreed: {is_agreed}")).await;
    }
}

/// Nobody has decided anything: the same human being was made on both sides, and closed on one.
#[tokio::test]
async fn a_round_does_not_open_what_somebody_closed_before_it() {
    for open in [ana(), with(ana(), doc! {"active": true})] {
        let clinic = Clinic::new();
        clinic.edit(Person, ana()).await;
        clinic.edit(Person, closed(ana())).await;
        clinic.there(Person, open);
        clinic.round().await;
        assert_eq!((clinic.holds(), are_open(&clinic, ACCT)), (0, (false, false)));
        let conflict = over_account(&clinic).unwrap();
        take(&clinic, &conflict, Decision::TakeCentral).await;
        clinic.round().await;
        assert_eq!(are_open(&clinic, ACCT), (true, true));
    }
}

/// Closed and deleted here, edited at the centre meanwhile: the edit brings the person back, not the account.
#[tokio::test]
async fn an_edit_that_beats_a_delete_opens_nothing() {
    let clinic = Clinic::new();
    clinic.edit(Person, ana()).await;
    clinic.round().await;
    clinic.edit(Person, closed(ana())).await;
    clinic.delete(Person, ACCT).await;
    clinic.there(Person, with(ana(), doc! {"phone": "2"}));
    clinic.round().await;
    assert_eq!(clinic.here(Person, ACCT).unwrap().get_str("phone").unwrap(), "2");
    assert!(over_account(&clinic).is_some());
    clinic.round().await;
    assert_eq!(are_open(&clinic, ACCT), (false, false));
    // Deleted again, and made again by a decision for the centre's version.
    clinic.delete(Person, ACCT).await;
    let whole = |c: &Conflict| c.path.is_empty() && c.status == ConflictStatus::Open;
    let conflict = clinic.conflicts().into_iter().find(whole).unwrap();
    take(&clinic, &conflict, Decision::TakeCentral).await;
    assert!(!is_active(&clinic.here(Person, ACCT).unwrap()));
    // Who writes the whole person, and that the account is open, has named it.
    clinic.delete(Person, ACCT).await;
    clinic.there(Person, with(ana(), doc! {"phone": "3"}));
    clinic.round().await;
    clinic.delete(Person, ACCT).await;
    let conflict = clinic.conflicts().into_iter().find(whole).unwrap();
    take(&clinic, &conflict, Decision::Value(with(ana(), doc! {"active": true}).into())).await;
    assert!(is_active(&clinic.here(Person, ACCT).unwrap()));
}

/// Closed here and deleted at the centre: who writes the whole person, and not that the account is open, opens nothing.
#[tokio::test]
async fn a_written_person_is_as_closed_as_they_were() {
    for (fields, is_open) in
        [(doc! {}, false), (doc! {"active": false}, false), (doc! {"active": true}, true)]
    {
        let clinic = Clinic::new();
        clinic.edit(Person, ana()).await;
        clinic.round().await;
        clinic.edit(Person, closed(ana())).await;
        clinic.sim.remove(Person, ACCT);
        clinic.round().await;
        let whole = |c: &Conflict| c.path.is_empty() && c.status == ConflictStatus::Open;
        let conflict = clinic.conflicts().into_iter().find(whole).unwrap();
        take(&clinic, &conflict, Decision::Value(with(ana(), fields).into())).await;
        assert_eq!(is_active(&clinic.here(Person, ACCT).unwrap()), is_open);
    }
}
