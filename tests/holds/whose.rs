//! What lost in a conflict, or lies in the trash, goes back into a record of the same human being only.

use super::*;
use thalamus_edge::domain::access::{Grant, Verb};
use thalamus_edge::store::UndeleteError;
use thalamus_edge::sync::conflicts::{ResolveError, current_value};

fn clara() -> Document {
    doc! {"_id": "CLARA01", "name": "Clara", "lastname": "Gamma", "dob": "1950-02-02", "gender": "f"}
}

fn open(clinic: &Clinic) -> Vec<Conflict> {
    clinic.conflicts().into_iter().filter(|conflict| conflict.status == ConflictStatus::Open).collect()
}

/// Decides on what the record holds now.
async fn decides(clinic: &Clinic, conflict: &Conflict, decision: Decision) -> Result<Conflict, ResolveError> {
    let record = clinic.here(conflict.key.kind, &conflict.key.id);
    let seen = current_value(conflict, record.as_ref());
    resolve(&clinic.store, &conflict.id, decision, seen, clerk(), |_, _, _| Ok(())).await
}

async fn is_refused(clinic: &Clinic, conflict: &Conflict, decision: Decision) {
    let before = clinic.here(conflict.key.kind, &conflict.key.id);
    let refused = decides(clinic, conflict, decision).await;
    assert!(matches!(&refused, Err(ResolveError::Invalid { .. })), "{refused:?}");
    assert_eq!(clinic.here(conflict.key.kind, &conflict.key.id), before);
    let known = clinic.conflicts().into_iter().find(|known| known.id == conflict.id).unwrap();
    assert_eq!(known.status, ConflictStatus::Open, "{known:?}");
}

/// The same decision, in the row at the centre.
async fn is_declined(clinic: &Clinic, conflict: &Conflict, decision: Document) {
    let mut row = clinic.sim.state().conflicts[&conflict.id].clone();
    row.extend(decision);
    clinic.sim.set_row("edge_conflicts", row);
    let before = clinic.here(conflict.key.kind, &conflict.key.id);
    clinic.round().await;
    clinic.round().await;
    assert_eq!(clinic.here(conflict.key.kind, &conflict.key.id), before);
    let row = clinic.sim.state().conflicts[&conflict.id].clone();
    assert_eq!(row.get_str("status").unwrap(), "declined", "{row}");
}

/// A conflict over one value in a record of each kind, and in fields of a person that let somebody in, after the account
/// went from Ana to Beatriz.
#[tokio::test]
async fn a_lost_value_of_a_person_goes_into_no_record_of_the_next_one() {
    let fields = [
        (Kind::Person, "phone", Bson::from("of Ana")),
        (Kind::Person, "password", Bson::from("hash of Ana")),
        (Kind::Person, "roles", doc! {"r": ["root"]}.remove("r").unwrap()),
        (Kind::Person, "active", Bson::from(true)),
        (Kind::Page, "info", Bson::from("of Ana")),
    ];
    for (kind, field, of_ana) in fields {
        let clinic = Clinic::new();
        let theirs = |value: &str| match &of_ana {
            Bson::Boolean(_) => Bson::from(false),
            Bson::Array(_) => Bson::Array(vec![Bson::from(value)]),
            _ => Bson::from(value),
        };
        let id = if kind == Kind::Person { ACCT } else { "p1" };
        let body = |value: Bson| match kind {
            Kind::Person => with(ana(), doc! {field: value}),
            _ => with(page(id, ACCT, ""), doc! {field: value}),
        };
        clinic.there(Kind::Person, ana());
        clinic.there(kind, body(theirs("agreed")));
        clinic.round().await;
        clinic.edit(kind, body(of_ana.clone())).await;
        let remote = match &of_ana {
            Bson::Boolean(_) => Bson::from("no"),
            _ => theirs("there"),
        };
        clinic.there(kind, body(remote));
        clinic.round().await;
        let found = open(&clinic);
        // Roles are a set, and unite.
        if field == "roles" {
            assert_eq!(found, []);
            continue;
        }
        assert_eq!(found.len(), 1, "{field}");
        if kind == Kind::Page {
            clinic.sim.remove(kind, id);
            clinic.round().await;
        }
        clinic.sim.remove(Kind::Person, ACCT);
        clinic.round().await;
        clinic.there(Kind::Person, with(beatriz(), doc! {"phone": "2", "password": "hash of Beatriz"}));
        if kind == Kind::Page {
            clinic.there(kind, page(id, ACCT, "of Beatriz"));
        }
        clinic.round().await;
        clinic.round().await;
        assert_eq!(clinic.holds(), 0, "{field}");
        is_refused(&clinic, &found[0], Decision::TakeLocal).await;
        if field != "password" {
            is_declined(&clinic, &found[0], doc! {"resolution": "local", "resolved_by": "office"}).await;
        }
        // What stands closes it, and changes nothing.
        let before = clinic.here(kind, id);
        decides(&clinic, &found[0], Decision::TakeCentral).await.unwrap();
        assert_eq!((clinic.here(kind, id), open(&clinic)), (before, vec![]), "{field}");
        clinic.assert_settled().await;
    }
}

/// The account becomes another human being's in its place, by a client of this node or field by field at the centre: that
/// is an end of the one before, wherever a value or a body goes back.
#[tokio::test]
async fn nothing_goes_back_to_who_has_the_account_in_the_place_of_another() {
    for is_here in [true, false] {
        let clinic = Clinic::new();
        clinic.there(Kind::Person, ana());
        clinic.there(Kind::Page, page("p1", ACCT, "of Ana"));
        clinic.there(Kind::Page, page("p2", ACCT, "agreed"));
        clinic.round().await;
        clinic.edit(Kind::Page, page("p2", ACCT, "of Ana")).await;
        clinic.there(Kind::Page, page("p2", ACCT, "theirs"));
        if is_here {
            clinic.edit(Kind::Person, with(ana(), doc! {"phone": "of Ana"})).await;
            clinic.there(Kind::Person, with(ana(), doc! {"phone": "2"}));
        }
        clinic.round().await;
        let found = open(&clinic);
        assert_eq!(found.len(), 1 + usize::from(is_here));
        clinic.delete(Kind::Page, "p1").await;
        clinic.round().await;
        let next = ["name", "lastname", "dob", "gender"].map(|field| (field, beatriz().get(field).cloned()));
        let next = next.into_iter().filter_map(|(field, value)| Some((field, value?)));
        if is_here {
            let fields = next.map(|(field, value)| (field.to_owned(), value)).collect();
            clinic.edit(Kind::Person, with(clinic.here(Kind::Person, ACCT).unwrap(), fields)).await;
        } else {
            // As long as the conflict waits, the last of them would be asked about.
            decides(&clinic, &found[0], Decision::TakeCentral).await.unwrap();
            for (field, value) in next {
                let there = clinic.at_centre(Kind::Person, ACCT).unwrap();
                clinic.there(Kind::Person, with(there, doc! {field: value}));
                clinic.round().await;
            }
        }
        assert_eq!(clinic.holds(), 0, "{is_here}");
        let refused = undeletes(&clinic, Kind::Page, |_| true).await;
        assert!(matches!(refused, Err(UndeleteError::OwnerChanged(_))), "{is_here}: {refused:?}");
        for conflict in open(&clinic) {
            is_refused(&clinic, &conflict, Decision::TakeLocal).await;
            decides(&clinic, &conflict, Decision::TakeCentral).await.unwrap();
        }
        if is_here {
            clinic.round().await;
            clinic.decide(Verdict::NewId("NEW01".to_owned())).await;
        }
        clinic.assert_settled().await;
        assert_eq!(clinic.book(ACCT), ["theirs"], "{is_here}");
    }
}

/// Name and day of birth are corrected, and somebody has said that it is the same person: what is theirs goes back.
#[tokio::test]
async fn what_is_of_one_who_is_said_to_be_the_same_goes_back() {
    let clinic = Clinic::new();
    clinic.there(Kind::Person, ana());
    clinic.there(Kind::Page, page("p1", ACCT, "deleted"));
    clinic.there(Kind::Page, page("p2", ACCT, "agreed"));
    clinic.round().await;
    clinic.edit(Kind::Page, page("p2", ACCT, "of Ana")).await;
    clinic.there(Kind::Page, page("p2", ACCT, "theirs"));
    clinic.delete(Kind::Page, "p1").await;
    clinic.round().await;
    let found = open(&clinic).remove(0);
    clinic.there(Kind::Person, with(ana(), doc! {"name": "Anne", "dob": "1985-10-14"}));
    clinic.round().await;
    clinic.decide(Verdict::Same).await;
    decides(&clinic, &found, Decision::TakeLocal).await.unwrap();
    undeletes(&clinic, Kind::Page, |_| true).await.unwrap();
    clinic.assert_settled().await;
    assert_eq!(clinic.book(ACCT), ["deleted", "of Ana"]);
}

/// One field of a person is corrected after the other is typed anew: nothing of that takes hers away.
#[tokio::test]
async fn a_value_of_the_same_person_is_taken() {
    let clinic = Clinic::new();
    clinic.there(Kind::Person, ana());
    clinic.there(Kind::Page, page("p1", ACCT, "agreed"));
    clinic.round().await;
    clinic.edit(Kind::Page, page("p1", ACCT, "mine")).await;
    clinic.there(Kind::Page, page("p1", ACCT, "theirs"));
    clinic.round().await;
    let found = open(&clinic);
    clinic.edit(Kind::Person, with(ana(), doc! {"name": "Anna", "gender": "female"})).await;
    clinic.round().await;
    clinic.edit(Kind::Person, with(ana(), doc! {"name": "Hanna", "gender": "F"})).await;
    clinic.round().await;
    decides(&clinic, &found[0], Decision::TakeLocal).await.unwrap();
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Kind::Page, "p1"), Some(page("p1", ACCT, "mine")));
}

/// The page was deleted here while the centre moved it to Clara's book.
async fn moved_and_deleted() -> (Clinic, Conflict) {
    let clinic = Clinic::new();
    clinic.there(Kind::Person, ana());
    clinic.there(Kind::Person, clara());
    clinic.there(Kind::Page, page("p1", ACCT, "filed wrongly"));
    clinic.round().await;
    clinic.delete(Kind::Page, "p1").await;
    clinic.there(Kind::Page, page("p1", "CLARA01", "of Clara"));
    clinic.round().await;
    let conflict = open(&clinic).remove(0);
    clinic.sim.remove(Kind::Page, "p1");
    clinic.round().await;
    assert_eq!(clinic.here(Kind::Page, "p1"), None);
    (clinic, conflict)
}

#[tokio::test]
async fn a_page_that_was_moved_is_made_again_where_it_stood() {
    let (clinic, conflict) = moved_and_deleted().await;
    decides(&clinic, &conflict, Decision::TakeCentral).await.unwrap();
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Kind::Page, "p1"), Some(page("p1", "CLARA01", "of Clara")));
    assert_eq!((clinic.book(ACCT).len(), clinic.book("CLARA01").len()), (0, 1));
    // Or it stays deleted, as it was here.
    let (clinic, conflict) = moved_and_deleted().await;
    decides(&clinic, &conflict, Decision::TakeLocal).await.unwrap();
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Kind::Page, "p1"), None);
    let trash = clinic.store.read().unwrap().trash().unwrap();
    assert!(trash.iter().any(|row| row.document == page("p1", ACCT, "filed wrongly")), "{trash:?}");
    // Clara's account has gone to somebody else.
    let (clinic, conflict) = moved_and_deleted().await;
    clinic.sim.remove(Kind::Person, "CLARA01");
    clinic.round().await;
    clinic.there(Kind::Person, with(beatriz(), doc! {"_id": "CLARA01"}));
    clinic.round().await;
    is_refused(&clinic, &conflict, Decision::TakeCentral).await;
}

/// What somebody types is taken as it is, or not at all.
#[tokio::test]
async fn a_typed_record_that_names_somebody_else_is_refused() {
    for is_gone in [true, false] {
        let clinic = Clinic::new();
        clinic.there(Kind::Person, ana());
        clinic.there(Kind::Person, clara());
        clinic.there(Kind::Page, page("p1", ACCT, "agreed"));
        clinic.round().await;
        clinic.edit(Kind::Page, page("p1", ACCT, "mine")).await;
        clinic.sim.remove(Kind::Page, "p1");
        clinic.round().await;
        if is_gone {
            clinic.sim.remove(Kind::Page, "p1");
            clinic.round().await;
        }
        let conflict = open(&clinic).remove(0);
        let typed = page("p1", "CLARA01", "of Clara");
        is_refused(&clinic, &conflict, Decision::Value(typed.clone().into())).await;
        let decision = doc! {"resolution": "value", "value": typed, "resolved_by": "office"};
        is_declined(&clinic, &conflict, decision).await;
        let own = page("p1", ACCT, "typed");
        decides(&clinic, &conflict, Decision::Value(own.clone().into())).await.unwrap();
        clinic.assert_settled().await;
        assert_eq!(clinic.at_centre(Kind::Page, "p1"), Some(own));
    }
}

/// Nobody had the account when the conflict arose: whoever gets it then is not the one whose page it is.
#[tokio::test]
async fn a_page_that_outlived_its_person_is_not_made_again_for_the_next_one() {
    let clinic = Clinic::new();
    clinic.there(Kind::Person, ana());
    clinic.there(Kind::Page, page("p1", ACCT, "agreed"));
    clinic.round().await;
    clinic.sim.remove(Kind::Person, ACCT);
    clinic.round().await;
    clinic.edit(Kind::Page, page("p1", ACCT, "mine")).await;
    clinic.sim.remove(Kind::Page, "p1");
    clinic.round().await;
    clinic.delete(Kind::Page, "p1").await;
    clinic.round().await;
    let conflict = open(&clinic).remove(0);
    clinic.there(Kind::Person, beatriz());
    clinic.round().await;
    clinic.round().await;
    assert_eq!((clinic.holds(), clinic.here(Kind::Page, "p1")), (0, None));
    is_refused(&clinic, &conflict, Decision::TakeLocal).await;
    decides(&clinic, &conflict, Decision::TakeCentral).await.unwrap();
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Kind::Page, "p1"), None);
}

async fn undeletes(
    clinic: &Clinic,
    kind: Kind,
    is_wanted: impl Fn(&Document) -> bool,
) -> Result<RecordKey, UndeleteError> {
    let trash = clinic.store.read().unwrap().trash().unwrap();
    let row = trash.iter().rev().find(|row| row.key.kind == kind && is_wanted(&row.document)).unwrap();
    clinic.store.undelete(Grant::operator(0, Verb::Post, kind), row.sequence).await
}

/// Ana is gone, with a conflict about her, and Beatriz, who came after her, is deleted here, which is not sent.
#[tokio::test]
async fn a_person_comes_back_over_nobody_else() {
    let clinic = Clinic::new();
    clinic.there(Kind::Person, ana());
    clinic.round().await;
    clinic.edit(Kind::Person, with(ana(), doc! {"phone": "2"})).await;
    clinic.sim.remove(Kind::Person, ACCT);
    clinic.round().await;
    clinic.sim.remove(Kind::Person, ACCT);
    clinic.round().await;
    let conflict = open(&clinic).remove(0);
    clinic.there(Kind::Person, beatriz());
    clinic.round().await;
    clinic.round().await;
    assert_eq!(clinic.here(Kind::Person, ACCT), Some(beatriz()));
    clinic.delete(Kind::Person, ACCT).await;
    is_refused(&clinic, &conflict, Decision::TakeLocal).await;
    let is_ana = |body: &Document| body.get_str("name").is_ok_and(|name| name == "Ana");
    let refused = undeletes(&clinic, Kind::Person, is_ana).await;
    assert!(matches!(refused, Err(UndeleteError::OwnerChanged(_))), "{refused:?}");
    // The delete of Beatriz is undone as ever.
    undeletes(&clinic, Kind::Person, |body| !is_ana(body)).await.unwrap();
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Kind::Person, ACCT), Some(beatriz()));
}

/// Out of the trash, and by a decision about a conflict.
#[tokio::test]
async fn roles_that_were_granted_here_do_not_come_back_with_a_person() {
    for way in ["trash", "decision"] {
        let clinic = Clinic::new();
        clinic.there(Kind::Person, with(ana(), doc! {"roles": ["end_user"]}));
        clinic.round().await;
        clinic
            .run(|tx| {
                let here = vec!["root".to_owned()];
                let granted = thalamus_edge::store::Granted { here, ..Default::default() };
                tx.replace_grants(ACCT, &granted, &Actor::Operator(0))
            })
            .await;
        let edited = with(ana(), doc! {"roles": ["end_user"], "phone": "2"});
        clinic.edit(Kind::Person, edited.clone()).await;
        clinic.sim.remove(Kind::Person, ACCT);
        clinic.round().await;
        clinic.sim.remove(Kind::Person, ACCT);
        clinic.round().await;
        let conflict = open(&clinic).remove(0);
        match way {
            "trash" => drop(undeletes(&clinic, Kind::Person, |_| true).await.unwrap()),
            _ => drop(decides(&clinic, &conflict, Decision::TakeLocal).await.unwrap()),
        }
        assert_eq!(clinic.here(Kind::Person, ACCT), Some(edited), "{way}");
        let grants = clinic.run(|tx| tx.grants_of(ACCT, "")).await;
        assert!(grants.is_empty(), "{way}: {grants:?}");
    }
}

/// A page of Ana's was deleted here, and the delete is not sent. Under its id a page of Clara's lies in the trash, and waits
/// in a conflict.
#[tokio::test]
async fn a_record_comes_back_over_no_unsent_delete_of_another_owner() {
    let clinic = Clinic::new();
    clinic.there(Kind::Person, ana());
    clinic.there(Kind::Person, clara());
    clinic.there(Kind::Page, page("p1", "CLARA01", "agreed"));
    clinic.round().await;
    clinic.edit(Kind::Page, page("p1", "CLARA01", "of Clara")).await;
    clinic.sim.remove(Kind::Page, "p1");
    clinic.round().await;
    let conflict = open(&clinic).remove(0);
    clinic.sim.remove(Kind::Page, "p1");
    clinic.round().await;
    clinic.there(Kind::Page, page("p1", ACCT, "of Ana"));
    clinic.round().await;
    clinic.delete(Kind::Page, "p1").await;
    is_refused(&clinic, &conflict, Decision::TakeLocal).await;
    let is_claras = |body: &Document| body.get_str("book").is_ok_and(|book| book == "CLARA01");
    let refused = undeletes(&clinic, Kind::Page, is_claras).await;
    assert!(matches!(refused, Err(UndeleteError::Unsent(_))), "{refused:?}");
    // Once the delete is sent, nothing is in the way.
    clinic.round().await;
    assert_eq!(clinic.at_centre(Kind::Page, "p1"), None);
    decides(&clinic, &conflict, Decision::TakeLocal).await.unwrap();
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Kind::Page, "p1"), Some(page("p1", "CLARA01", "of Clara")));
}

/// What waited apart, as the other person's, is in the trash without anybody's name but the account.
#[tokio::test]
async fn what_waited_apart_comes_out_of_the_trash_for_nobody() {
    let clinic = Clinic::with_hold().await;
    clinic.there(Kind::Page, page("p1", ACCT, "of Beatriz"));
    clinic.round().await;
    assert!(clinic.held(Kind::Page, "p1").is_some());
    clinic.sim.remove(Kind::Page, "p1");
    clinic.sim.remove(Kind::Person, ACCT);
    clinic.round().await;
    clinic.round().await;
    assert_eq!(clinic.holds(), 0);
    let refused = undeletes(&clinic, Kind::Page, |_| true).await;
    assert!(matches!(refused, Err(UndeleteError::OwnerChanged(_))), "{refused:?}");
}

/// Deleted here in such a number that it waits, and the account goes to somebody else: `--restore-deleted` leaves it.
#[tokio::test]
async fn what_is_wanted_back_after_many_deletes_is_not_given_to_the_next_person() {
    let clinic = Clinic::new();
    clinic.there(Kind::Person, ana());
    clinic.there(Kind::Person, clara());
    for n in 0..40 {
        let owner = if n % 2 == 0 { ACCT } else { "CLARA01" };
        clinic.there(Kind::Page, page(&format!("p{n:02}"), owner, "text"));
    }
    clinic.round().await;
    for n in 0..40 {
        clinic.delete(Kind::Page, &format!("p{n:02}")).await;
    }
    clinic.sim.remove(Kind::Person, ACCT);
    clinic.sync.round().await;
    clinic.there(Kind::Person, beatriz());
    clinic.sync.round().await;
    clinic.sync.round().await;
    clinic.sync.restore_deleted(clerk()).await.unwrap();
    assert_eq!((clinic.book(ACCT).len(), clinic.book("CLARA01").len()), (0, 9));
}

/// The id of Clara's page has come to be that of a page of Ana's, which gets an id of its own when Ana leaves her account: what
/// lost in Clara's goes with it into no record of Ana's.
#[tokio::test]
async fn a_value_of_somebody_else_does_not_follow_an_id_that_was_used_again() {
    let clinic = Clinic::new();
    clinic.there(Kind::Person, ana());
    clinic.there(Kind::Person, clara());
    clinic.there(Kind::Page, page("p1", "CLARA01", "agreed"));
    clinic.round().await;
    clinic.edit(Kind::Page, page("p1", "CLARA01", "of Clara")).await;
    clinic.there(Kind::Page, page("p1", "CLARA01", "there"));
    clinic.round().await;
    let found = open(&clinic).remove(0);
    clinic.sim.remove(Kind::Page, "p1");
    clinic.round().await;
    clinic.there(Kind::Page, page("p1", ACCT, "of Ana"));
    clinic.round().await;
    clinic.edit(Kind::Page, page("p1", ACCT, "of Ana, edited")).await;
    clinic.there(Kind::Person, beatriz());
    clinic.there(Kind::Page, page("p1", ACCT, "of Beatriz"));
    clinic.round().await;
    clinic.round().await;
    clinic.decide(Verdict::NewId("NEWACC1".to_owned())).await;
    clinic.round().await;
    let followed = open(&clinic);
    assert_eq!(followed.len(), 1, "{found:?} {followed:?}");
    is_refused(&clinic, &followed[0], Decision::TakeLocal).await;
    decides(&clinic, &followed[0], Decision::TakeCentral).await.unwrap();
    clinic.assert_settled().await;
    let texts = [clinic.book(ACCT), clinic.book("NEWACC1")].concat();
    assert!(!texts.iter().any(|text| text.contains("Clara")), "{texts:?}");
}
