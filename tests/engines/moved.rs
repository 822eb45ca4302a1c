//! A conflict whose record has become another person's: it can be closed, and nothing is put into the other one's record.

use thalamus_edge::sync::conflicts::{Decision, resolve};

use super::*;

#[tokio::test]
async fn what_stands_in_another_persons_record_closes_the_conflict() {
    for by_row in [false, true] {
        let ground = Ground::agreed().await;
        let key = RecordKey::new(Kind::Page, "page");
        let page = |book: &str, text: &str| doc! {"_id": "page", "book": book, "summary": text};
        let pages = ground.centre.collection::<Document>("pols");
        pages.insert_one(page("ANA", "control")).await.unwrap();
        ground.ends(Outcome::Complete).await;
        edit(&ground.store, key.clone(), Some(page("ANA", "from here"))).await;
        pages.replace_one(doc! {"_id": "page"}, page("ANA", "from there")).await.unwrap();
        ground.ends(Outcome::Complete).await;
        pages.replace_one(doc! {"_id": "page"}, page("BOB", "moved")).await.unwrap();
        ground.ends(Outcome::Complete).await;
        let conflict = ground.store.read().unwrap().conflicts().unwrap().remove(0);
        assert_eq!(conflict.path, ["summary"]);
        let seen = Some("moved".into());
        let decide = |decision, seen: &Option<bson::Bson>| {
            let actor = Actor::Local("tech".to_owned());
            resolve(&ground.store, &conflict.id, decision, seen.clone(), actor, |_, _, _| Ok(()))
        };
        decide(Decision::TakeLocal, &seen).await.unwrap_err();
        if by_row {
            let decided =
                doc! {"$set": {"status": "resolved", "resolution": "central", "resolved_by": "Head office"}};
            let rows = ground.centre.collection::<Document>("edge_conflicts");
            rows.update_one(doc! {"_id": &conflict.id}, decided).await.unwrap();
        } else {
            decide(Decision::TakeCentral, &seen).await.unwrap();
        }
        ground.ends(Outcome::Complete).await;
        ground.ends(Outcome::Complete).await;
        let conflict = ground.store.read().unwrap().conflicts().unwrap().remove(0);
        assert_eq!(conflict.resolution.as_deref(), Some("central"), "{by_row}: {conflict:?}");
        assert_eq!(ground.here(Kind::Page, "page"), Some(page("BOB", "moved")));
        assert_eq!(ground.rows("pols").await, [page("BOB", "moved")]);
    }
}
