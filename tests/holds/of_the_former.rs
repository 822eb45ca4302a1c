//! Records of one over whom somebody else was written here, and which are deleted before it is decided that they are two: in the
//! trash, and where they are wanted back, they are the former one's.

use thalamus_edge::domain::access::{Grant, Verb};
use thalamus_edge::domain::record::Kind::{Page, Person};
use thalamus_edge::store::{Stays, TrashRow, UndeleteError};
use thalamus_edge::sync::Outcome;
use thalamus_edge::sync::identity::Verdict;

use super::taken_over::{CARLOS, answer, books, carlos};
use super::*;

/// More than go unasked.
const MANY: usize = 26;

/// Ana, whose pages are agreed on; Carlos is written over her, and has a page of his own.
async fn rewritten(pages: usize, has_unsent: bool, is_asked_before: bool) -> Clinic {
    let clinic = Clinic::new();
    clinic.there(Person, ana());
    for number in 0..pages {
        clinic.there(Page, page(&format!("p{number}"), ACCT, "Ana"));
    }
    clinic.round().await;
    if has_unsent {
        clinic.edit(Page, page("unsent", ACCT, "Ana, unsent")).await;
    }
    clinic.edit(Person, carlos()).await;
    clinic.edit(Page, page("his", ACCT, "Carlos")).await;
    if is_asked_before {
        clinic.round().await;
    }
    clinic
}

fn in_trash(clinic: &Clinic, id: &str) -> TrashRow {
    let rows = clinic.store.read().unwrap().trash().unwrap();
    rows.into_iter().find(|row| row.key.id == id).expect(id)
}

async fn restore(clinic: &Clinic, id: &str) -> Result<(), UndeleteError> {
    let row = in_trash(clinic, id);
    clinic.store.undelete(Grant::operator(0, Verb::Post, Page), row.sequence).await.map(drop)
}

async fn parted(clinic: &Clinic) {
    answer(clinic, Verdict::NewId(CARLOS.to_owned())).await;
    for _ in 0..2 {
        clinic.round().await;
    }
}

#[tokio::test]
async fn what_is_deleted_meanwhile_goes_back_to_the_former_one() {
    for is_asked_before in [false, true] {
        let clinic = rewritten(2, true, is_asked_before).await;
        clinic.sim.remove(Page, "p0");
        for id in ["unsent", "his"] {
            clinic.delete(Page, id).await;
        }
        clinic.round().await;
        assert!(restore(&clinic, "p0").await.is_err(), "nobody has decided");
        parted(&clinic).await;
        for id in ["p0", "unsent", "his"] {
            restore(&clinic, id).await.unwrap();
        }
        clinic.round().await;
        let expected = [vec!["Ana", "Ana", "Ana, unsent"], vec!["Carlos"]];
        assert_eq!(books(&clinic, &[ACCT, CARLOS]), expected, "{is_asked_before}");
        clinic.assert_settled().await;
    }
}

#[tokio::test]
async fn what_is_wanted_back_at_the_centre_is_the_former_ones() {
    for is_asked_before in [false, true] {
        let clinic = rewritten(MANY, true, is_asked_before).await;
        for number in 0..MANY {
            clinic.sim.remove(Page, &format!("p{number}"));
        }
        assert_eq!(clinic.sync.round().await.outcome, Outcome::Halted);
        clinic.sync.restore_deleted(clerk()).await.unwrap();
        clinic.round().await;
        parted(&clinic).await;
        let hers = clinic.store.read().unwrap().list_of(Page, ACCT, None, 99, 99_999).unwrap().records;
        assert_eq!((hers.len(), clinic.book(CARLOS)), (MANY + 1, vec!["Carlos".to_owned()]));
        clinic.assert_settled().await;
    }
}

/// The former one is deleted at the centre with her records, and who was written over her keeps the account.
#[tokio::test]
async fn nobody_gets_the_records_of_one_who_is_gone() {
    for is_asked_before in [false, true] {
        let clinic = rewritten(2, false, is_asked_before).await;
        for id in ["p0", "p1"] {
            clinic.sim.remove(Page, id);
        }
        clinic.sim.remove(Person, ACCT);
        for _ in 0..2 {
            clinic.sync.round().await;
        }
        for id in ["p0", "p1"] {
            let restored = restore(&clinic, id).await;
            assert!(matches!(restored, Err(UndeleteError::OwnerChanged(_))), "{restored:?}");
        }
    }
}

/// She is gone there with a record, and it is decided that who was written over her is she: what is in the trash comes back to her.
#[tokio::test]
async fn a_correction_of_one_who_is_gone_has_her_trash() {
    let clinic = rewritten(2, true, false).await;
    clinic.sim.remove(Page, "p0");
    clinic.sim.remove(Person, ACCT);
    clinic.sync.round().await;
    assert!(restore(&clinic, "p0").await.is_err(), "nobody has decided");
    answer(&clinic, Verdict::Same).await;
    restore(&clinic, "p0").await.unwrap();
    for _ in 0..2 {
        clinic.round().await;
    }
    assert_eq!(clinic.book(ACCT), ["Carlos", "Ana", "Ana", "Ana, unsent"]);
}

/// The centre loses the former one too, with more than goes unasked, and all is wanted back there.
#[tokio::test]
async fn what_of_one_who_is_gone_is_wanted_back_is_asked_about() {
    for is_asked_before in [false, true] {
        let clinic = rewritten(MANY, false, is_asked_before).await;
        for number in 0..MANY {
            clinic.sim.remove(Page, &format!("p{number}"));
        }
        clinic.sim.remove(Person, ACCT);
        assert_eq!(clinic.sync.round().await.outcome, Outcome::Halted);
        clinic.sync.restore_deleted(clerk()).await.unwrap();
        for _ in 0..2 {
            clinic.sync.round().await;
            assert_eq!(clinic.at_centre(Page, "p0"), None, "{is_asked_before}");
        }
        parted(&clinic).await;
        assert_eq!(clinic.book(CARLOS), ["Carlos"], "{is_asked_before}");
        assert_eq!(clinic.here(Page, "p0").unwrap().get_str("book").unwrap(), ACCT, "{is_asked_before}");
    }
}

/// Who would be deleted is not who the centre has.
#[tokio::test]
async fn a_rewritten_person_is_deleted_by_nobody() {
    let clinic = Clinic::new();
    clinic.there(Person, with(ana(), doc! {"active": true}));
    clinic.round().await;
    let his = with(carlos(), doc! {"active": false});
    clinic.edit(Person, his.clone()).await;
    let stays = clinic.run(move |tx| tx.why_stays(ACCT, &his)).await;
    assert_eq!(stays, Some(Stays::Rewritten));
}

/// As the refusal says: what was deleted before somebody was corrected comes back to them as they were.
#[tokio::test]
async fn who_is_written_as_before_gets_records_out_of_the_trash() {
    for is_sent in [false, true] {
        let clinic = Clinic::new();
        clinic.edit(Person, ana()).await;
        clinic.edit(Page, page("p1", ACCT, "Ana")).await;
        if is_sent {
            clinic.round().await;
        }
        clinic.delete(Page, "p1").await;
        clinic.edit(Person, carlos()).await;
        assert!(matches!(restore(&clinic, "p1").await, Err(UndeleteError::OwnerChanged(_))), "{is_sent}");
        clinic.edit(Person, ana()).await;
        restore(&clinic, "p1").await.unwrap();
        clinic.edit(Person, carlos()).await;
        assert_eq!(clinic.book(ACCT), ["Ana"], "{is_sent}");
    }
}

/// Nobody was written over a person who was never sent: they were corrected, and what was theirs is.
#[tokio::test]
async fn who_was_never_sent_and_is_corrected_is_the_same() {
    let clinic = Clinic::new();
    let opens = doc! {"password": "$2b$04$hers", "roles": ["doctor"], "active": true};
    clinic.edit(Person, with(ana(), opens)).await;
    clinic.edit(Page, page("p1", ACCT, "Ana")).await;
    let corrected = doc! {"name": "Anna", "lastname": "Lopez", "dob": "1991-01-01"};
    clinic.edit(Person, with(clinic.here(Person, ACCT).unwrap(), corrected)).await;
    clinic.delete(Page, "p1").await;
    restore(&clinic, "p1").await.unwrap();
    assert_eq!(clinic.book(ACCT), ["Ana"]);
    clinic.there(Person, beatriz());
    clinic.round().await;
    parted(&clinic).await;
    let there = clinic.at_centre(Person, CARLOS).unwrap();
    assert_eq!(there.get_str("password").unwrap(), "$2b$04$hers");
    assert_eq!(there.get_array("roles").unwrap(), &vec!["doctor".into()]);
    assert_eq!(books(&clinic, &[ACCT, CARLOS]), [Vec::<String>::new(), vec!["Ana".to_owned()]]);
}
