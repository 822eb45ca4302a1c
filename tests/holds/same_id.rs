//! Two people under one account, or with one id of a record, one after the other: nothing of the one becomes the other's
//! because the ids are the same.

use super::*;
use thalamus_edge::store::OwnerNow;

fn open(clinic: &Clinic) -> Vec<Conflict> {
    clinic.conflicts().into_iter().filter(|conflict| conflict.status == ConflictStatus::Open).collect()
}

/// The same two values clash on one node in a record of Ana's, on another one in the record of the same id of Beatriz's.
#[tokio::test]
async fn a_decision_about_one_person_decides_nothing_about_another_one() {
    for (kind, id) in [(Kind::Person, ACCT), (Kind::Page, "p1")] {
        let body = |person: Document, value: &str| match kind {
            Kind::Person => with(person, doc! {"phone": value}),
            _ => page(id, ACCT, value),
        };
        let sim = Sim::default();
        let (a, b) = (Clinic::at(&sim), Clinic::at(&sim));
        a.there(Kind::Person, ana());
        a.there(kind, body(ana(), "agreed"));
        a.round().await;
        b.round().await;
        a.edit(kind, body(ana(), "here")).await;
        a.there(kind, body(ana(), "there"));
        a.round().await;
        let of_ana = open(&a);
        assert_eq!(of_ana.len(), 1);
        sim.remove(Kind::Page, "p1");
        b.round().await;
        sim.remove(Kind::Person, ACCT);
        b.round().await;
        a.there(Kind::Person, beatriz());
        b.round().await;
        a.there(kind, body(beatriz(), "agreed"));
        b.round().await;
        b.edit(kind, body(beatriz(), "here")).await;
        a.there(kind, body(beatriz(), "there"));
        b.round().await;
        let of_beatriz = open(&b);
        assert_eq!(of_beatriz.len(), 1);
        assert_ne!(of_ana[0].id, of_beatriz[0].id, "{kind:?}");
        // Each has a row of its own, and the decision in one is carried out for that one.
        let mut row = sim.state().conflicts[&of_beatriz[0].id].clone();
        row.extend(doc! {"resolution": "local", "resolved_by": "office"});
        sim.set_row("edge_conflicts", row);
        b.round().await;
        b.round().await;
        assert_eq!((b.here(kind, id), open(&b)), (Some(body(beatriz(), "here")), vec![]), "{kind:?}");
        assert_eq!(sim.state().conflicts[&of_ana[0].id].get_str("status").unwrap(), "open");
        a.round().await;
        assert!(open(&a).iter().any(|conflict| conflict.id == of_ana[0].id), "{kind:?}");
    }
}

/// Their name was corrected meanwhile.
#[tokio::test]
async fn a_value_that_loses_again_stays_one_conflict_of_the_same_person() {
    let clinic = Clinic::new();
    clinic.there(Kind::Person, with(ana(), doc! {"phone": "agreed"}));
    clinic.round().await;
    clinic.edit(Kind::Person, with(ana(), doc! {"phone": "here"})).await;
    clinic.there(Kind::Person, with(ana(), doc! {"phone": "there"}));
    clinic.round().await;
    let found = open(&clinic);
    let renamed = || with(ana(), doc! {"lastname": "Betz-Ruiz", "phone": "there"});
    clinic.there(Kind::Person, renamed());
    clinic.round().await;
    clinic.edit(Kind::Person, with(renamed(), doc! {"phone": "here"})).await;
    clinic.there(Kind::Person, with(renamed(), doc! {"phone": "there again"}));
    clinic.round().await;
    let ids =
        |conflicts: &[Conflict]| conflicts.iter().map(|conflict| conflict.id.clone()).collect::<Vec<_>>();
    assert_eq!((ids(&open(&clinic)), found.len()), (ids(&found), 1));
}

/// The account of Ana is held, and the centre gives the id of a record of somebody else's, deleted here, to the other one.
#[tokio::test]
async fn a_record_of_the_one_who_waits_is_not_taken_because_one_of_its_id_was_deleted_here() {
    for kind in [Kind::Page, Kind::PersonalDocument] {
        let owner = if kind == Kind::Page { "book" } else { "fedacct" };
        let clinic = Clinic::new();
        clinic.there(Kind::Person, ana());
        clinic.there(Kind::Person, with(beatriz(), doc! {"_id": "OTHER"}));
        clinic.there(kind, doc! {"_id": "r1", owner: "OTHER", "info": "of Other"});
        clinic.round().await;
        clinic.there(Kind::Person, with(beatriz(), doc! {"name": "Carla", "lastname": "Duarte"}));
        clinic.round().await;
        assert_eq!(clinic.holds(), 1);
        clinic.delete(kind, "r1").await;
        let of_carla = doc! {"_id": "r1", owner: ACCT, "info": "of Carla"};
        clinic.there(kind, of_carla.clone());
        for _ in 0..2 {
            clinic.round().await;
            assert_eq!(clinic.here(kind, "r1"), None, "{kind:?}");
            assert_eq!(clinic.held(kind, "r1").as_ref(), Some(&of_carla), "{kind:?}");
            assert_eq!(clinic.at_centre(kind, "r1").as_ref(), Some(&of_carla), "{kind:?}");
        }
        // What was deleted can be found.
        let trash = clinic.store.read().unwrap().trash().unwrap();
        assert!(trash.iter().any(|row| row.key == key(kind, "r1")), "{kind:?}");
    }
}

/// Ana's account is Beatriz's at the centre, with a record of hers under the id of one of Ana's. The centre is mended while the
/// node is away: it hears in one round that Beatriz's record is gone and that Ana is back.
#[tokio::test]
async fn what_waits_is_not_taken_before_its_own_news() {
    for (is_deleted, is_edited) in [(true, true), (true, false), (false, true), (false, false)] {
        let what = format!("deleted: {is_deleted}, edited: {is_edited}");
        let clinic = Clinic::new();
        clinic.there(Kind::Person, ana());
        clinic.there(Kind::Page, page("p1", ACCT, "of Ana"));
        clinic.round().await;
        clinic.sim.remove(Kind::Page, "p1");
        clinic.there(Kind::Person, beatriz());
        let of_beatriz = with(page("p1", ACCT, "of Beatriz"), doc! {"blood": "of Beatriz"});
        clinic.there(Kind::Page, of_beatriz);
        clinic.there(Kind::Page, page("p2", ACCT, "of Beatriz"));
        clinic.round().await;
        assert_eq!(clinic.holds(), 1, "{what}");
        if is_edited && clinic.here(Kind::Page, "p1").is_some() {
            clinic.edit(Kind::Page, with(page("p1", ACCT, "of Ana"), doc! {"note": "of Ana"})).await;
        }
        for id in ["p1", "p2"] {
            match is_deleted {
                true => clinic.sim.remove(Kind::Page, id),
                false => clinic.there(Kind::Page, page(id, "OTHER", "of Beatriz")),
            }
        }
        clinic.there(Kind::Person, ana());
        for _ in 0..3 {
            clinic.round().await;
            assert_eq!(clinic.holds(), 0, "{what}");
            for found in
                [clinic.here(Kind::Page, "p1"), clinic.at_centre(Kind::Page, "p1")].into_iter().flatten()
            {
                let text = found.to_string();
                assert!(!text.contains("of Ana") || !text.contains("of Beatriz"), "{what}: {text}");
            }
            assert!(!clinic.book(ACCT).contains(&"of Beatriz".to_owned()), "{what}");
        }
        // Nothing of hers can be put into the book of Ana.
        let trash = clinic.store.read().unwrap().trash().unwrap();
        for row in trash.into_iter().filter(|row| row.document.to_string().contains("of Beatriz")) {
            let whose = row.whose.clone();
            let owner = clinic.run(move |tx| tx.owner_now(&whose)).await;
            assert_ne!(owner, OwnerNow::Same, "{what}: {row:?}");
        }
    }
}

/// While Ana is held, a page of hers is made here under the id of one of Beatriz's, which waits. The centre is mended, and Beatriz's
/// page is deleted, or given to whose it is, in the same round or in a later one.
#[tokio::test]
async fn a_new_record_and_the_one_that_waited_under_its_id_stay_two() {
    let of_beatriz = || with(page("p1", ACCT, "of Beatriz"), doc! {"blood": "of Beatriz"});
    for (is_gone_at_once, is_gone_later) in [(true, true), (false, true), (false, false)] {
        for decision in [None, Some(Decision::NewId), Some(Decision::TakeLocal), Some(Decision::TakeCentral)]
        {
            let what = format!("gone at once: {is_gone_at_once}, later: {is_gone_later}, {decision:?}");
            let clinic = Clinic::with_hold().await;
            clinic.there(Kind::Page, of_beatriz());
            clinic.round().await;
            clinic.edit(Kind::Page, page("p1", ACCT, "of Ana")).await;
            clinic.round().await;
            assert_eq!(clinic.held(Kind::Page, "p1"), Some(of_beatriz()), "{what}");
            clinic.there(Kind::Person, ana());
            if is_gone_at_once {
                clinic.sim.remove(Kind::Page, "p1");
            }
            clinic.round().await;
            assert_eq!(clinic.holds(), 0, "{what}");
            assert_eq!(clinic.here(Kind::Page, "p1"), Some(page("p1", ACCT, "of Ana")), "{what}");
            let asked = clinic.record_conflict();
            assert_eq!(asked.is_some(), !is_gone_at_once, "{what}: {asked:?}");
            if !is_gone_at_once {
                assert_eq!(clinic.at_centre(Kind::Page, "p1"), Some(of_beatriz()), "{what}");
                assert_eq!(clinic.waits_for(Kind::Page, "p1"), Some(WaitReason::Undecided), "{what}");
            }
            if is_gone_later && !is_gone_at_once {
                clinic.sim.remove(Kind::Page, "p1");
            } else if let (false, Some(decision)) = (is_gone_at_once, decision.clone()) {
                clinic.decide_record(decision).await;
            } else if !is_gone_at_once {
                continue;
            }
            clinic.assert_settled().await;
            assert_eq!(clinic.record_conflict(), None, "{what}");
            let texts: Vec<String> = clinic
                .book(ACCT)
                .into_iter()
                .chain(
                    clinic.store.read().unwrap().trash().unwrap().iter().map(|row| row.document.to_string()),
                )
                .collect();
            assert!(texts.iter().any(|text| text.contains("of Ana")), "{what}: {texts:?}");
            let mixed = texts.iter().find(|text| text.contains("of Ana") && text.contains("of Beatriz"));
            assert_eq!(mixed, None, "{what}");
            let there =
                clinic.at_centre(Kind::Page, "p1").map(|page| page.get_str("info").unwrap().to_owned());
            let expected = match &decision {
                _ if is_gone_later => "of Ana",
                Some(Decision::TakeLocal) => "of Ana",
                _ => "of Beatriz",
            };
            assert_eq!(there.as_deref(), Some(expected), "{what}");
        }
    }
}

/// The other one and their record are gone, of which the node hears in one round: so is who had the account before.
#[tokio::test]
async fn who_was_agreed_goes_with_the_person_and_the_records_that_waited() {
    for with_record in [true, false] {
        let clinic = Clinic::new();
        clinic.there(Kind::Person, ana());
        clinic.round().await;
        clinic.there(Kind::Person, beatriz());
        if with_record {
            clinic.there(Kind::Page, page("p1", ACCT, "of Beatriz"));
        }
        clinic.round().await;
        assert_eq!(clinic.holds(), 1);
        clinic.sim.remove(Kind::Page, "p1");
        clinic.sim.remove(Kind::Person, ACCT);
        for _ in 0..3 {
            clinic.round().await;
        }
        assert_eq!(
            (clinic.holds(), clinic.here(Kind::Person, ACCT)),
            (0, None),
            "with a record: {with_record}"
        );
        clinic.assert_settled().await;
    }
}
