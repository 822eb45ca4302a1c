//! Records of somebody that were deleted here while the centre has them still: they are nobody else's there.

use bson::doc;
use thalamus_edge::domain::record::Kind::{Page, Person};
use thalamus_edge::store::WaitReason;
use thalamus_edge::sync::Report;
use thalamus_edge::sync::identity::Verdict;

use super::taken_over::carlos;
use super::{ACCT, Clinic, ana, key, page, with};

/// More deletes than go to the centre unasked.
const MANY: usize = 25;

fn id(number: usize) -> String {
    format!("p{number}")
}

/// Ana with so many pages, on both sides.
async fn with_pages(count: usize) -> Clinic {
    let clinic = Clinic::new();
    clinic.there(Person, ana());
    for number in 0..count {
        clinic.there(Page, page(&id(number), ACCT, "Ana"));
    }
    clinic.round().await;
    for number in 0..count {
        clinic.delete(Page, &id(number)).await;
    }
    clinic.delete(Person, ACCT).await;
    clinic
}

async fn any_round(clinic: &Clinic) -> Report {
    clinic.sync.round().await
}

async fn may_be_made(clinic: &Clinic) -> bool {
    !clinic.run(|tx| tx.is_another_ones(&key(Person, ACCT), &carlos())).await
}

#[tokio::test]
async fn a_person_stays_at_the_centre_as_long_as_their_records() {
    let clinic = with_pages(MANY).await;
    let message = any_round(&clinic).await.message;
    assert!(message.contains("were deleted here"), "{message}");
    assert!(clinic.at_centre(Person, ACCT).is_some(), "somebody else would get her pages");
    assert!(!may_be_made(&clinic).await);
    clinic.sync.accept_deletes().await.unwrap();
    clinic.round().await;
    assert_eq!((clinic.at_centre(Person, ACCT), clinic.at_centre(Page, "p0")), (None, None));
    assert!(may_be_made(&clinic).await);
    clinic.edit(Person, carlos()).await;
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Person, ACCT), Some(carlos()));
}

/// Few deletes go unasked, and a person whose record is not deleted yet keeps nobody else's.
#[tokio::test]
async fn others_are_deleted_meanwhile() {
    let clinic = with_pages(MANY).await;
    clinic.there(Person, with(ana(), doc! {"_id": "OTHER1"}));
    any_round(&clinic).await;
    clinic.delete(Person, "OTHER1").await;
    any_round(&clinic).await;
    assert_eq!(clinic.at_centre(Person, "OTHER1"), None);
}

/// A page whose delete the centre refuses stays hers: somebody else follows once it is gone; she herself waits for nothing.
#[tokio::test]
async fn nobody_gets_what_was_deleted_here() {
    for is_another in [true, false] {
        let clinic = with_pages(1).await;
        clinic.refuses("p0", true).await;
        any_round(&clinic).await;
        assert_eq!(clinic.at_centre(Person, ACCT), None);
        assert!(clinic.at_centre(Page, "p0").is_some());
        assert!(!may_be_made(&clinic).await);
        let person = if is_another { carlos() } else { ana() };
        clinic.edit(Person, person.clone()).await;
        any_round(&clinic).await;
        assert_eq!(clinic.waits_for(Person, ACCT), is_another.then_some(WaitReason::Leaving));
        assert_eq!(clinic.at_centre(Person, ACCT), (!is_another).then(|| person.clone()));
        assert_eq!(clinic.book(ACCT), Vec::<String>::new());
        clinic.refuses("p0", false).await;
        clinic.run(|tx| tx.retry_refused()).await;
        clinic.assert_settled().await;
        assert_eq!((clinic.at_centre(Person, ACCT), clinic.at_centre(Page, "p0")), (Some(person), None));
    }
}

/// Somebody of nearly her name is made under the account of one who was closed and deleted here, which waits. That they are two is
/// decided: she is deleted still, and where records of hers keep her, she is closed.
#[tokio::test]
async fn who_was_closed_and_deleted_here_does_not_come_back_open() {
    for has_late_page in [false, true] {
        let clinic = Clinic::new();
        clinic.there(Person, with(ana(), doc! {"active": true, "password": "$2b$04$hers"}));
        clinic.round().await;
        clinic.edit(Person, with(clinic.here(Person, ACCT).unwrap(), doc! {"active": false})).await;
        clinic.delete(Person, ACCT).await;
        let namesake = with(ana(), doc! {"dob": "1999-09-09", "active": true});
        let is_refused = {
            let namesake = namesake.clone();
            clinic.run(move |tx| tx.is_another_ones(&key(Person, ACCT), &namesake)).await
        };
        assert!(!is_refused, "one field may be a correction");
        clinic.edit(Person, namesake).await;
        if has_late_page {
            clinic.there(Page, page("late", ACCT, "Ana"));
        }
        any_round(&clinic).await;
        clinic.decide(Verdict::NewId("NEW01".to_owned())).await;
        for _ in 0..3 {
            any_round(&clinic).await;
        }
        let hers = clinic.here(Person, ACCT);
        assert_eq!(hers, clinic.at_centre(Person, ACCT));
        let is_open = hers.as_ref().map(|person| person.get_bool("active").unwrap());
        assert_eq!(is_open, has_late_page.then_some(false), "{hers:?}");
        assert!(clinic.at_centre(Person, "NEW01").is_some());
        assert_eq!(clinic.book("NEW01"), Vec::<String>::new());
    }
}

/// The same without anybody else: records that come meanwhile keep who was deleted here, and closed.
#[tokio::test]
async fn who_is_kept_by_late_records_stays_closed() {
    for is_closed in [false, true] {
        let clinic = Clinic::new();
        clinic.there(Person, with(ana(), doc! {"active": true}));
        clinic.round().await;
        if is_closed {
            clinic.edit(Person, with(clinic.here(Person, ACCT).unwrap(), doc! {"active": false})).await;
        }
        clinic.delete(Person, ACCT).await;
        clinic.there(Page, page("late", ACCT, "Ana"));
        for _ in 0..2 {
            any_round(&clinic).await;
        }
        for hers in [clinic.here(Person, ACCT), clinic.at_centre(Person, ACCT)] {
            assert_eq!(hers.unwrap().get_bool("active").unwrap(), !is_closed);
        }
        assert_eq!(clinic.store.read().unwrap().is_closed_here(ACCT).unwrap(), is_closed);
    }
}
