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

/// How a page's id comes to be another person's.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    /// Deleted, and used again, before the node looks.
    Again,
    /// The same, read before the node hears of the delete.
    Ahead,
    /// The same, and nothing is heard of either.
    Unheard,
    /// Moved: nothing but its owner is another.
    Moved,
}

#[tokio::test]
async fn a_page_whose_id_is_used_again_for_somebody_else_is_in_the_trash() {
    for way in [Way::Again, Way::Ahead, Way::Unheard, Way::Moved] {
        let ground = Ground::agreed().await;
        let key = RecordKey::new(Kind::Page, "page");
        let page = |book: &str, text: &str| doc! {"_id": "page", "book": book, "summary": text, "n": 1};
        let pages = ground.centre.collection::<Document>("pols");
        // The node's own, delivered.
        edit(&ground.store, key.clone(), Some(page("ANA", "of Ana"))).await;
        ground.ends(Outcome::Complete).await;
        assert_eq!(ground.rows("pols").await, [page("ANA", "of Ana")]);
        let theirs = page("BOB", if way == Way::Moved { "of Ana" } else { "of Bob" });
        match way {
            Way::Moved => drop(pages.replace_one(doc! {"_id": "page"}, &theirs).await.unwrap()),
            Way::Again | Way::Ahead | Way::Unheard => {
                if way == Way::Ahead {
                    pages.update_one(doc! {"_id": "page"}, doc! {"$set": {"n": 2}}).await.unwrap();
                    for turn in 0..600 {
                        ground
                            .people()
                            .update_one(doc! {"_id": "BOB"}, doc! {"$set": {"h": turn}})
                            .await
                            .unwrap();
                    }
                }
                if way == Way::Unheard {
                    pages.drop().await.unwrap();
                } else {
                    pages.delete_one(doc! {"_id": "page"}).await.unwrap();
                }
                pages.insert_one(&theirs).await.unwrap();
            }
        }
        for _ in 0..3 {
            ground.sync.round().await;
        }
        assert_eq!(ground.here(Kind::Page, "page"), Some(theirs), "{way:?}");
        let trash = ground.store.read().unwrap().trash().unwrap();
        let kept: Vec<_> = trash.iter().filter_map(|row| row.document.get_str("summary").ok()).collect();
        let expected: &[&str] = if way == Way::Moved { &[] } else { &["of Ana"] };
        assert_eq!(kept, expected, "{way:?}");
    }
}
