//! Records of somebody that were deleted here while the centre has them still: they are nobody else's there.

use bson::doc;
use thalamus_edge::domain::record::Kind::{Page, Person};
use thalamus_edge::store::WaitReason;
use thalamus_edge::sync::Report;

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
