//! Whose password opens an account after another human being was written over its person, and who gets what the first one had
//! changed here and not sent: at the node, at the centre, and at another node.

use thalamus_edge::domain::access::{Grant, Verb};
use thalamus_edge::domain::record::Kind::{Page, Person};
use thalamus_edge::store::HoldReason;
use thalamus_edge::sync::identity::Verdict;

use super::taken_over::{ANA, CARLOS, answer, asked, books, carlos, why};
use super::*;

/// The password of Ana at the centre, the one that she has changed it to here, and the one that Carlos was given.
const SENT: &str = "$2b$04$sent";
const UNSENT: &str = "$2b$04$unsent";
const HIS: &str = "$2b$04$his";

fn identity(person: &Document) -> Document {
    let field = |field: &str| (field.to_owned(), person.get(field).cloned().unwrap());
    ["name", "lastname", "dob", "gender"].map(field).into_iter().collect()
}

fn password(person: Option<Document>) -> Option<String> {
    person.unwrap().get_str("password").ok().map(str::to_owned)
}

fn roles(person: Option<Document>) -> Vec<String> {
    let person = person.unwrap();
    let roles = person.get_array("roles").map(Vec::as_slice).unwrap_or_default();
    roles.iter().map(|role| role.as_str().unwrap().to_owned()).collect()
}

/// Two nodes have Ana. At the first one she gets another password, another role and another telephone number, and a page; none of
/// it is sent. Then somebody writes Carlos over her, who gets the fields of `his`.
async fn rewritten(his: Document) -> (Clinic, Clinic) {
    let sim = Sim::default();
    let (south, north) = (Clinic::at(&sim), Clinic::at(&sim));
    south.there(Person, with(ana(), doc! {"password": SENT, "roles": ["nurse"], "active": true}));
    for clinic in [&south, &north] {
        clinic.round().await;
    }
    let changed = doc! {"password": UNSENT, "roles": ["nurse", "root"], "phone": "2"};
    south.edit(Person, with(south.here(Person, ACCT).unwrap(), changed)).await;
    south.edit(Page, page("p1", ACCT, "Ana")).await;
    south.edit(Person, with(with(south.here(Person, ACCT).unwrap(), identity(&carlos())), his)).await;
    (south, north)
}

async fn rounds(south: &Clinic, north: &Clinic) {
    for clinic in [south, north, south, north] {
        clinic.round().await;
    }
}

/// What all sides have of an account, which must be the same.
fn everywhere<T: PartialEq + std::fmt::Debug>(
    (south, north): (&Clinic, &Clinic),
    id: &str,
    of: impl Fn(Option<Document>) -> T,
) -> T {
    let there = of(south.at_centre(Person, id));
    for clinic in [south, north] {
        assert_eq!(of(clinic.here(Person, id)), there, "{id}");
    }
    there
}

#[tokio::test]
async fn two_people_part_with_the_password_of_each() {
    for (his, opens, has) in [
        (doc! {}, None, vec!["end_user"]),
        (doc! {"password": HIS, "roles": ["doctor"]}, Some(HIS), vec!["doctor"]),
    ] {
        for is_given_later in [false, true] {
            let (south, north) = rewritten(if is_given_later {
                doc! {}
            } else {
                his.clone()
            })
            .await;
            if is_given_later {
                south.edit(Person, with(south.here(Person, ACCT).unwrap(), his.clone())).await;
            }
            south.round().await;
            assert_eq!(why(&south), Some(HoldReason::Rewritten));
            answer(&south, Verdict::NewId(CARLOS.to_owned())).await;
            rounds(&south, &north).await;
            let both = (&south, &north);
            assert_eq!(everywhere(both, CARLOS, password).as_deref(), opens);
            assert_eq!(everywhere(both, CARLOS, roles), has);
            // She has what was changed for her.
            assert_eq!(everywhere(both, ACCT, password).as_deref(), Some(UNSENT));
            assert_eq!(everywhere(both, ACCT, roles), ["nurse", "root"]);
            let phone = |person: Option<Document>| person.unwrap().get_str("phone").unwrap().to_owned();
            assert_eq!(everywhere(both, ACCT, phone), "2");
            for clinic in [&south, &north] {
                clinic.assert_settled().await;
                assert_eq!(books(clinic, &[ACCT, CARLOS]), [vec!["Ana"], vec![]]);
            }
        }
    }
}

#[tokio::test]
async fn one_person_keeps_the_last_password() {
    for (his, opens) in [(doc! {}, UNSENT), (doc! {"password": HIS}, HIS)] {
        let (south, north) = rewritten(his).await;
        south.round().await;
        answer(&south, Verdict::Same).await;
        rounds(&south, &north).await;
        assert_eq!(everywhere((&south, &north), ACCT, password).as_deref(), Some(opens));
        south.assert_settled().await;
    }
}

/// Ana gets in after the rewrite, with her password, and changes it.
#[tokio::test]
async fn a_password_that_the_first_one_changes_after_the_rewrite_is_hers() {
    let (south, north) = rewritten(doc! {}).await;
    let person = with(south.here(Person, ACCT).unwrap(), doc! {"password": "$2b$04$hers"});
    south.run(move |tx| tx.edit(&key(Person, ACCT), Some(&person), &Actor::Person(ACCT.to_owned()))).await;
    south.round().await;
    answer(&south, Verdict::NewId(CARLOS.to_owned())).await;
    rounds(&south, &north).await;
    assert_eq!(everywhere((&south, &north), CARLOS, password), None);
    assert_eq!(everywhere((&south, &north), ACCT, password).as_deref(), Some("$2b$04$hers"));
    south.assert_settled().await;
}

/// Carlos is given a link, which asks for no former password: what he sets is his, and opens nothing of Ana's.
#[tokio::test]
async fn a_password_that_is_set_by_a_link_after_the_rewrite_is_the_other_ones() {
    let (south, north) = rewritten(doc! {}).await;
    let person = with(south.here(Person, ACCT).unwrap(), doc! {"password": HIS});
    let write = move |tx: &mut Tx<'_>| {
        tx.password_is_given();
        tx.edit(&key(Person, ACCT), Some(&person), &Actor::Person(ACCT.to_owned()))
    };
    south.run(write).await;
    south.round().await;
    answer(&south, Verdict::NewId(CARLOS.to_owned())).await;
    rounds(&south, &north).await;
    assert_eq!(everywhere((&south, &north), CARLOS, password).as_deref(), Some(HIS));
    assert_eq!(everywhere((&south, &north), ACCT, password).as_deref(), Some(UNSENT));
    south.assert_settled().await;
}

/// Step by step nobody knows of whom what was changed in between is.
#[tokio::test]
async fn a_rewrite_in_two_steps_opens_nothing_to_either() {
    for is_round_between in [false, true] {
        let (south, north) = rewritten(doc! {}).await;
        south.edit(Person, with(south.here(Person, ACCT).unwrap(), identity(&ana()))).await;
        south.round().await;
        // All of that was hers.
        assert_eq!(password(south.at_centre(Person, ACCT)).as_deref(), Some(UNSENT));
        south.edit(Person, with(south.here(Person, ACCT).unwrap(), doc! {"name": "Carlos"})).await;
        if is_round_between {
            south.round().await;
        }
        let in_between = doc! {"password": "$2b$04$between"};
        south.edit(Person, with(south.here(Person, ACCT).unwrap(), in_between)).await;
        south.edit(Person, with(south.here(Person, ACCT).unwrap(), identity(&carlos()))).await;
        south.round().await;
        assert_eq!(why(&south), Some(HoldReason::Rewritten));
        answer(&south, Verdict::NewId(CARLOS.to_owned())).await;
        rounds(&south, &north).await;
        assert_eq!(everywhere((&south, &north), CARLOS, password), None, "{is_round_between}");
        let hers = if is_round_between { "$2b$04$between" } else { UNSENT };
        assert_eq!(everywhere((&south, &north), ACCT, password).as_deref(), Some(hers));
        south.assert_settled().await;
        let trash = south.store.read().unwrap().trash().unwrap();
        let kept = trash.iter().any(|row| row.document.get_str("password").ok() == Some("$2b$04$between"));
        assert_eq!(kept, !is_round_between);
    }
}

/// The centre gives the account to Beatriz, or deletes Ana, before that is decided.
#[tokio::test]
async fn the_centre_goes_on_meanwhile() {
    for (is_gone, is_asked_before) in [(false, false), (false, true), (true, false), (true, true)] {
        let (south, north) = rewritten(doc! {}).await;
        if is_asked_before {
            south.round().await;
        }
        match is_gone {
            true => south.sim.remove(Person, ACCT),
            false => south.there(Person, with(beatriz(), doc! {"password": "$2b$04$beatriz"})),
        }
        south.round().await;
        assert_eq!(asked(&south), ("Carlos".to_owned(), "Ana".to_owned()));
        answer(&south, Verdict::NewId(CARLOS.to_owned())).await;
        if is_gone {
            south.round().await;
            let trash = south.store.read().unwrap().trash().unwrap();
            let of_ana = trash.iter().find(|row| row.key == key(Person, ACCT)).unwrap();
            assert_eq!(password(Some(of_ana.document.clone())).as_deref(), Some(UNSENT));
            assert_eq!(of_ana.document.get_str("name").unwrap(), "Ana");
        } else {
            assert_eq!(asked(&south), ("Ana".to_owned(), "Beatriz".to_owned()));
            assert_eq!(password(south.here(Person, ACCT)).as_deref(), Some(UNSENT));
            answer(&south, Verdict::NewId(ANA.to_owned())).await;
            rounds(&south, &north).await;
            assert_eq!(password(south.at_centre(Person, ANA)).as_deref(), Some(UNSENT));
            assert_eq!(password(south.here(Person, ACCT)).as_deref(), Some("$2b$04$beatriz"));
            assert_eq!(books(&south, &[ACCT, CARLOS, ANA]), [vec![], vec![], vec!["Ana"]]);
        }
        assert_eq!(password(south.here(Person, CARLOS)), None, "{is_gone} {is_asked_before}");
        assert_eq!(roles(south.here(Person, CARLOS)), ["end_user"]);
    }
}

/// A program at the centre writes Beatriz over Ana and leaves the password as it is.
#[tokio::test]
async fn a_password_that_was_left_in_a_record_at_the_centre_opens_nothing_once_two_are_two() {
    for (there, opens) in [(SENT, None), (HIS, Some(HIS))] {
        let sim = Sim::default();
        let (south, north) = (Clinic::at(&sim), Clinic::at(&sim));
        south.there(Person, with(ana(), doc! {"password": SENT}));
        for clinic in [&south, &north] {
            clinic.round().await;
        }
        south.edit(Page, page("p1", ACCT, "Ana")).await;
        south.there(Person, with(beatriz(), doc! {"password": there}));
        south.round().await;
        assert_eq!(why(&south), Some(HoldReason::Reused));
        answer(&south, Verdict::NewId(ANA.to_owned())).await;
        south.round().await;
        north.round().await;
        answer(&north, Verdict::NewId(ANA.to_owned())).await;
        rounds(&south, &north).await;
        let both = (&south, &north);
        assert_eq!(everywhere(both, ACCT, password).as_deref(), opens);
        assert_eq!(everywhere(both, ANA, password).as_deref(), Some(SENT));
        for clinic in [&south, &north] {
            clinic.assert_settled().await;
        }
    }
}

/// Nothing of the first one is in the record of somebody who was made after she was deleted here, also if they are corrected, and
/// also if she goes at the centre before her delete was sent.
#[tokio::test]
async fn who_was_made_after_a_delete_keeps_what_they_were_given() {
    for is_corrected in [false, true] {
        let south = Clinic::new();
        south.there(Person, with(ana(), doc! {"password": SENT, "roles": ["nurse"], "active": true}));
        south.round().await;
        south.delete(Person, ACCT).await;
        let his = doc! {"password": HIS, "roles": ["doctor"], "active": true};
        south.edit(Person, with(carlos(), his)).await;
        if is_corrected {
            south.edit(Person, with(south.here(Person, ACCT).unwrap(), doc! {"lastname": "Duran"})).await;
        }
        south.sim.remove(Person, ACCT);
        south.round().await;
        for carlos in [south.here(Person, ACCT), south.at_centre(Person, ACCT)] {
            assert_eq!(password(carlos.clone()).as_deref(), Some(HIS), "{is_corrected}");
            assert_eq!(roles(carlos), ["doctor"], "{is_corrected}");
        }
        south.assert_settled().await;
    }
}

/// She came out of the trash of this node, and is not sent: who is written over her then gets nothing that opened her account.
#[tokio::test]
async fn who_came_out_of_the_trash_keeps_her_password() {
    let carlos_is = || identity(&carlos());
    let name_first = vec![doc! {"name": carlos().get_str("name").unwrap()}, carlos_is()];
    let another_before = vec![identity(&beatriz()), carlos_is()];
    let ways = [vec![carlos_is()], name_first, another_before];
    let there = ["nothing", "a page", "the person"];
    for (there, steps) in there.into_iter().flat_map(|there| ways.clone().map(|steps| (there, steps))) {
        let south = Clinic::new();
        let hers = with(ana(), doc! {"password": SENT, "roles": ["nurse"], "active": true});
        south.there(Person, hers.clone());
        south.there(Page, page("p1", ACCT, "Ana"));
        south.round().await;
        south.sim.remove(Page, "p1");
        south.sim.remove(Person, ACCT);
        south.round().await;
        let trash = south.store.read().unwrap().trash().unwrap();
        let row = trash.iter().find(|row| row.key.kind == Person).unwrap();
        south.store.undelete(Grant::operator(0, Verb::Post, Person), row.sequence).await.unwrap();
        for step in steps.clone() {
            south.edit(Person, with(south.here(Person, ACCT).unwrap(), step)).await;
        }
        match there {
            "the person" => south.there(Person, hers),
            "a page" => south.there(Page, page("p1", ACCT, "Ana")),
            _ => {}
        }
        south.round().await;
        assert_eq!(asked(&south), ("Carlos".to_owned(), "Ana".to_owned()), "{there} {steps:?}");
        answer(&south, Verdict::NewId(CARLOS.to_owned())).await;
        south.round().await;
        for carlos in [south.here(Person, CARLOS), south.at_centre(Person, CARLOS)] {
            assert_eq!(password(carlos.clone()), None, "{there} {steps:?}");
            assert_eq!(roles(carlos), ["end_user"], "{there} {steps:?}");
        }
    }
}
