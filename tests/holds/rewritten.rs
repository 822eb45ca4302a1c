//! A person of a node who is rewritten in place into somebody else. Nodes that have not delivered their records yet, or whose
//! records this one has not read, know the first one: the account never becomes the other one's before somebody has decided.

use thalamus_edge::domain::record::Kind::{Encounter, Page, Person, PersonalDocument};
use thalamus_edge::store::{HoldReason, TrashState, WaitReason};
use thalamus_edge::sync::identity::Verdict;

use super::*;

const NEW: &str = "NEW01";

/// Carlos, written over Ana.
fn carlos() -> Document {
    with(ana(), doc! {"name": "Carlos", "lastname": "Diaz", "dob": "1970-01-02", "gender": "m"})
}

/// Ana stands at the centre, and both nodes have her. What the second one writes for her is delivered before the first one
/// looks again; `own` of the first is not sent.
async fn rewritten(own: &[&str]) -> (Clinic, Clinic) {
    let sim = Sim::default();
    let (south, north) = (Clinic::at(&sim), Clinic::at(&sim));
    south.there(Person, ana());
    for clinic in [&south, &north] {
        clinic.round().await;
    }
    for kind in [Page, Encounter, PersonalDocument] {
        north
            .edit(kind, super::ownerless::record(kind, &format!("n-{}", kind.schema().collection), "Ana"))
            .await;
    }
    north.round().await;
    for id in own {
        south.edit(Page, page(id, ACCT, "Ana, unsent")).await;
    }
    south.edit(Person, carlos()).await;
    (south, north)
}

fn why(clinic: &Clinic) -> Option<HoldReason> {
    clinic.store.read().unwrap().hold(ACCT).unwrap().map(|hold| hold.why)
}

#[tokio::test]
async fn who_is_rewritten_waits_until_somebody_has_decided() {
    let (south, north) = rewritten(&[]).await;
    for _ in 0..2 {
        south.round().await;
        assert_eq!(why(&south), Some(HoldReason::Rewritten));
        assert_eq!(south.at_centre(Person, ACCT), Some(ana()), "nobody else has the account there");
        assert_eq!(south.here(Person, ACCT), Some(carlos()));
        north.round().await;
        assert_eq!(north.holds(), 0, "nothing has changed for others");
    }
}

#[tokio::test]
async fn two_people_part_with_what_was_written_for_each() {
    let (south, north) = rewritten(&["s-ana"]).await;
    // Before the next round: a page of his own, another word in one of hers, and one of hers is deleted.
    south.edit(Page, page("s-carlos", ACCT, "Carlos")).await;
    south.edit(Page, page("s-ana", ACCT, "Ana, unsent, again")).await;
    south.round().await;
    let hold = south.store.read().unwrap().hold(ACCT).unwrap().unwrap();
    assert_eq!(south.store.read().unwrap().going_along_count(&hold).unwrap(), 1);
    south.decide(Verdict::NewId(NEW.to_owned())).await;
    for clinic in [&south, &north, &south, &north] {
        clinic.round().await;
    }
    for clinic in [&south, &north] {
        clinic.assert_settled().await;
        assert_eq!(clinic.here(Person, ACCT), Some(ana()));
        let person = clinic.here(Person, NEW).unwrap();
        assert_eq!(person.get_str("name").unwrap(), "Carlos");
        assert_eq!(clinic.book(NEW), ["Carlos"]);
        let mut book = clinic.book(ACCT);
        book.sort();
        assert_eq!(book, ["Ana", "Ana, unsent, again"]);
        assert_eq!(
            clinic.here(Encounter, "n-encounter").unwrap().get_str("person").ok().map(str::to_owned),
            Some(ACCT.to_owned())
        );
    }
}

#[tokio::test]
async fn one_person_is_corrected_at_all_nodes_by_one_decision() {
    let (south, north) = rewritten(&["s-ana"]).await;
    south.round().await;
    south.decide(Verdict::Same).await;
    for clinic in [&south, &north, &south, &north] {
        clinic.round().await;
    }
    for clinic in [&south, &north] {
        clinic.assert_settled().await;
        assert_eq!(clinic.here(Person, ACCT), Some(carlos()));
        assert_eq!(clinic.book(ACCT), ["Ana", "Ana, unsent"]);
        assert_eq!(clinic.conflicts().iter().filter(|c| c.status == ConflictStatus::Open).count(), 0);
    }
}

#[tokio::test]
async fn who_is_written_back_is_not_asked_about_any_more() {
    let (south, _north) = rewritten(&["s-ana"]).await;
    south.round().await;
    south.edit(Person, ana()).await;
    south.round().await;
    south.assert_settled().await;
    assert_eq!(south.identity().resolution.as_deref(), Some("ended"));
}

#[tokio::test]
async fn step_by_step_with_rounds_in_between_is_asked_too() {
    let sim = Sim::default();
    let clinic = Clinic::at(&sim);
    clinic.there(Person, ana());
    clinic.round().await;
    for (field, value, is_asked) in [("name", "Carlos", false), ("lastname", "Diaz", true)] {
        clinic.edit(Person, with(clinic.here(Person, ACCT).unwrap(), doc! {field: value})).await;
        clinic.round().await;
        assert_eq!(why(&clinic).is_some(), is_asked, "{field}");
    }
    clinic.decide(Verdict::Same).await;
    clinic.round().await;
    clinic.assert_settled().await;
    // From now on they are who they are.
    clinic.edit(Person, with(clinic.here(Person, ACCT).unwrap(), doc! {"gender": "m"})).await;
    clinic.round().await;
    clinic.assert_settled().await;
}

/// Somebody writes another person into the account at the centre. What this node had of the first one goes with her.
#[tokio::test]
async fn what_was_agreed_before_the_centre_gave_the_account_away_goes_along() {
    let sim = Sim::default();
    let (south, north) = (Clinic::at(&sim), Clinic::at(&sim));
    south.there(Person, ana());
    for clinic in [&south, &north] {
        clinic.round().await;
    }
    north.edit(Page, page("p1", ACCT, "Ana")).await;
    north.edit(Page, page("p2", ACCT, "Ana, changed")).await;
    for clinic in [&north, &south] {
        clinic.round().await;
    }
    south.there(Person, beatriz());
    south.there(Page, page("p3", ACCT, "Beatriz"));
    south.there(Page, page("p2", ACCT, "Beatriz, changed"));
    for clinic in [&north, &south] {
        clinic.round().await;
        assert_eq!(why(clinic), Some(HoldReason::Reused));
    }
    // The same is decided on both nodes, one after the other.
    for clinic in [&north, &south] {
        clinic.decide(Verdict::NewId(NEW.to_owned())).await;
        for clinic in [&north, &south, &north, &south] {
            clinic.round().await;
        }
    }
    for clinic in [&north, &south] {
        clinic.assert_settled().await;
        assert_eq!(clinic.here(Person, ACCT), Some(beatriz()));
        assert_eq!(clinic.here(Person, NEW).unwrap().get_str("name").unwrap(), "Ana");
        let (mut hers, mut others) = (clinic.book(NEW), clinic.book(ACCT));
        hers.sort();
        hers.dedup();
        others.sort();
        assert_eq!(hers, ["Ana", "Ana, changed"]);
        assert_eq!(others, ["Beatriz", "Beatriz, changed"]);
    }
}

/// She is deleted at the centre while he is written over her, and records of hers stay there: they are not his.
#[tokio::test]
async fn a_delete_of_the_first_one_gives_nothing_to_the_other() {
    for is_asked_before in [true, false] {
        for is_stepwise in [true, false] {
            let sim = Sim::default();
            let clinic = Clinic::at(&sim);
            clinic.there(Person, ana());
            clinic.there(Page, page("p1", ACCT, "Ana"));
            clinic.round().await;
            let mut now = carlos();
            if is_stepwise {
                now = with(ana(), doc! {"name": "Carlos"});
                clinic.edit(Person, now.clone()).await;
                clinic.round().await;
                now.insert("lastname", "Diaz");
            }
            clinic.edit(Person, now).await;
            if is_asked_before {
                clinic.round().await;
                assert_eq!(why(&clinic), Some(HoldReason::Rewritten));
            }
            sim.remove(Person, ACCT);
            for _ in 0..3 {
                clinic.round().await;
                assert_eq!(clinic.at_centre(Person, ACCT), None, "{is_asked_before} {is_stepwise}");
            }
            assert_eq!(why(&clinic), Some(HoldReason::Taken), "{is_asked_before} {is_stepwise}");
            assert_eq!(clinic.book(ACCT), [""; 0]);
            let open =
                clinic.conflicts().into_iter().find(|c| c.status == ConflictStatus::Open && c.is_identity());
            let open = open.unwrap();
            let pair = hold_of(&clinic.store.read().unwrap(), &open).unwrap().unwrap().1;
            decide(&clinic.store, &open.id, Verdict::NewId(NEW.to_owned()), pair, clerk()).await.unwrap();
            clinic.round().await;
            clinic.round().await;
            assert_eq!(clinic.at_centre(Person, NEW).unwrap().get_str("lastname").unwrap(), "Diaz");
            assert_eq!(clinic.at_centre(Page, "p1"), Some(page("p1", ACCT, "Ana")));
            assert_eq!(clinic.book(NEW), [""; 0]);
        }
    }
}

/// What opened the account to the first one, and was given to her, opens nothing to the other.
#[tokio::test]
async fn password_and_roles_of_the_first_one_do_not_go_along() {
    let rights = doc! {"password": "$2b$04$ana", "roles": ["root"], "active": false};
    for (own, password, roles) in [
        (doc! {}, None, vec!["end_user"]),
        (doc! {"password": "$2b$04$carlos", "roles": ["nurse"]}, Some("$2b$04$carlos"), vec!["nurse"]),
    ] {
        let clinic = Clinic::new();
        clinic.there(Person, with(with(ana(), rights.clone()), doc! {"active": true}));
        clinic.round().await;
        clinic.run(|tx| tx.set_grants(ACCT, &["root".to_owned()], &Actor::Operator(0))).await;
        clinic.edit(Person, with(ana(), rights.clone())).await;
        clinic.round().await;
        clinic.edit(Person, with(with(carlos(), rights.clone()), own)).await;
        clinic.round().await;
        clinic.decide(Verdict::NewId(NEW.to_owned())).await;
        clinic.assert_settled().await;
        let person = clinic.here(Person, NEW).unwrap();
        assert_eq!(person.get_str("password").ok(), password);
        let found: Vec<&str> = person.get_array("roles").unwrap().iter().filter_map(Bson::as_str).collect();
        assert_eq!(found, roles);
        assert_eq!(clinic.here(Person, ACCT), Some(with(ana(), rights.clone())));
        let snapshot = clinic.store.read().unwrap();
        for (id, hash) in [(ACCT, "$2b$04$ana"), (NEW, "$2b$04$carlos"), (NEW, "")] {
            assert_eq!(snapshot.grants(id, hash).unwrap(), thalamus_edge::store::Granted::default(), "{id}");
            // It was closed for one of the two.
            assert!(snapshot.is_closed_here(id).unwrap(), "{id}");
        }
    }
}

/// The same is decided on a second node: what was given to her there goes with her, and nothing stays with the other one.
#[tokio::test]
async fn who_joins_an_account_takes_along_what_was_given_to_them() {
    let secret = doc! {"password": "$2b$04$ana"};
    let sim = Sim::default();
    let (south, north) = (Clinic::at(&sim), Clinic::at(&sim));
    south.there(Person, with(ana(), secret));
    for clinic in [&south, &north] {
        clinic.round().await;
    }
    south.run(|tx| tx.set_grants(ACCT, &["root".to_owned()], &Actor::Operator(0))).await;
    south.edit(Person, with(south.here(Person, ACCT).unwrap(), doc! {"active": false})).await;
    for clinic in [&south, &north] {
        clinic.round().await;
    }
    south.there(Person, beatriz());
    for clinic in [&north, &south] {
        clinic.round().await;
    }
    for clinic in [&north, &south] {
        clinic.decide(Verdict::NewId(NEW.to_owned())).await;
        for clinic in [&north, &south] {
            clinic.round().await;
        }
    }
    let snapshot = south.store.read().unwrap();
    assert_eq!(snapshot.grants(NEW, "$2b$04$ana").unwrap().of_record, ["root"]);
    assert!(snapshot.is_closed_here(NEW).unwrap() && !snapshot.is_closed_here(ACCT).unwrap());
}

/// Others go on with records of the first one meanwhile: neither version of them is the other one's.
#[tokio::test]
async fn what_others_write_meanwhile_goes_along_with_nobody() {
    let (south, north) = rewritten(&[]).await;
    south.round().await;
    north.edit(Page, with(north.here(Page, "n-pols").unwrap(), doc! {"info": "Ana, again"})).await;
    north.round().await;
    south.round().await;
    south.decide(Verdict::NewId(NEW.to_owned())).await;
    for clinic in [&south, &north, &south, &north] {
        clinic.round().await;
    }
    for clinic in [&south, &north] {
        clinic.assert_settled().await;
        assert_eq!((clinic.book(NEW), clinic.book(ACCT)), (vec![], vec!["Ana, again".to_owned()]));
    }
}

/// A slip in the rewrite is corrected afterwards: his records begin with the rewrite.
#[tokio::test]
async fn corrections_of_a_rewrite_begin_nobody_new() {
    let (south, north) = rewritten(&["s-ana"]).await;
    let slip = with(carlos(), doc! {"name": "Karl", "dob": "1970-01-20"});
    for (number, person) in [slip, carlos(), with(carlos(), doc! {"dob": "1970-02-01", "lastname": "Díez"})]
        .into_iter()
        .enumerate()
    {
        south.edit(Person, person).await;
        south.edit(Page, page(&format!("s-{number}"), ACCT, "Carlos")).await;
    }
    south.round().await;
    south.decide(Verdict::NewId(NEW.to_owned())).await;
    for clinic in [&south, &north, &south, &north] {
        clinic.round().await;
    }
    south.assert_settled().await;
    assert_eq!(south.book(NEW), ["Carlos"; 3]);
    assert_eq!(south.book(ACCT), ["Ana", "Ana, unsent"]);
}

/// Who is written back has what was written for the other one in between: that is asked about.
#[tokio::test]
async fn what_was_written_in_between_is_asked_about() {
    let (south, _north) = rewritten(&["s-ana"]).await;
    south.edit(Page, page("s-carlos", ACCT, "Carlos")).await;
    south.round().await;
    south.edit(Person, ana()).await;
    for _ in 0..2 {
        south.round().await;
        assert_eq!(south.at_centre(Page, "s-carlos"), None);
        assert!(why(&south).is_some());
    }
}

/// Only the typography of the first one's names changes at the centre meanwhile: no merge makes one of the two.
#[tokio::test]
async fn another_typography_at_the_centre_mixes_nobody() {
    for fields in [doc! {"name": "Carlos", "lastname": "Diaz"}, carlos()] {
        let clinic = Clinic::new();
        clinic.there(Person, ana());
        clinic.round().await;
        let person = with(ana(), fields);
        clinic.edit(Person, person.clone()).await;
        clinic.edit(Page, page("p", ACCT, "Carlos")).await;
        clinic.there(Person, with(ana(), doc! {"name": "ANA", "lastname": "BETZ"}));
        for _ in 0..2 {
            clinic.round().await;
            assert_eq!(why(&clinic), Some(HoldReason::Rewritten));
            assert_eq!(
                (clinic.here(Person, ACCT), clinic.at_centre(Page, "p")),
                (Some(person.clone()), None)
            );
        }
        clinic.decide(Verdict::NewId(NEW.to_owned())).await;
        clinic.assert_settled().await;
        assert_eq!((clinic.book(NEW), clinic.book(ACCT)), (vec!["Carlos".to_owned()], vec![]));
    }
}

/// Records of the first one that are deleted here after the rewrite, because they are not the other one's, stay hers.
#[tokio::test]
async fn a_delete_after_the_rewrite_is_not_carried_out_for_the_other_one() {
    for is_asked_before in [true, false] {
        let (south, north) = rewritten(&[]).await;
        let records = [Page, Encounter, PersonalDocument];
        let delete = async || {
            for kind in records {
                south.delete(kind, &format!("n-{}", kind.schema().collection)).await;
            }
        };
        if is_asked_before {
            south.round().await;
        } else {
            // They are here before she is written over.
            south.edit(Person, ana()).await;
            south.round().await;
            south.edit(Person, carlos()).await;
        }
        delete().await;
        south.round().await;
        south.decide(Verdict::NewId(NEW.to_owned())).await;
        for clinic in [&south, &north, &south, &north] {
            clinic.round().await;
        }
        for clinic in [&south, &north] {
            clinic.assert_settled().await;
            assert_eq!((clinic.book(NEW), clinic.book(ACCT)), (vec![], vec!["Ana".to_owned()]));
            for kind in records {
                assert!(clinic.here(kind, &format!("n-{}", kind.schema().collection)).is_some(), "{kind:?}");
            }
        }
    }
}

/// What was deleted here for the other one, and is the first one's, is listed as hers afterwards.
#[tokio::test]
async fn what_is_not_deleted_stays_hers_in_the_trash() {
    let (south, _north) = rewritten(&[]).await;
    // Her page is here before she is written over.
    south.edit(Person, ana()).await;
    south.round().await;
    south.edit(Person, carlos()).await;
    south.edit(Page, page("s-carlos", ACCT, "Carlos")).await;
    south.delete(Page, "s-carlos").await;
    south.delete(Page, "n-pols").await;
    south.round().await;
    south.decide(Verdict::NewId(NEW.to_owned())).await;
    south.assert_settled().await;
    let owners: Vec<_> = south.store.read().unwrap().trash().unwrap();
    let owners: Vec<(String, String, TrashState)> =
        owners.into_iter().map(|row| (row.key.id, row.whose.account, row.state)).collect();
    let row = |id: &str, account: &str, state| (id.to_owned(), account.to_owned(), state);
    assert_eq!(owners, [row("n-pols", ACCT, TrashState::Void), row("s-carlos", NEW, TrashState::Done)]);
}

/// Until the next round the list of what waits says what is so after the decision.
#[tokio::test]
async fn nothing_is_said_to_wait_for_a_question_that_is_decided() {
    for verdict in [Verdict::Same, Verdict::NewId(NEW.to_owned())] {
        let (south, _north) = rewritten(&["s-ana"]).await;
        south.edit(Page, page("s-carlos", ACCT, "Carlos")).await;
        south.round().await;
        assert_eq!(south.waits_for(Page, "s-ana"), Some(WaitReason::Held));
        south.decide(verdict).await;
        for waiting in south.store.read().unwrap().waiting(None, usize::MAX).unwrap() {
            assert_ne!(waiting.why, WaitReason::Held, "{waiting:?}");
        }
    }
}
