//! Records that are deleted at the centre and there again, in an older version, before the node that wrote the newer one
//! looks: what it wrote is not taken away without a word.

use bson::Bson;
use thalamus_edge::sync::conflicts::{Decision, resolve};

use super::*;

const YOUNG: &str = "allergic to penicillin";

/// How a record comes to be there again.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// Deleted by its id, and inserted as it was before.
    Deleted,
    /// The same, with a field that somebody has added to the older version.
    Changed,
    /// Deleted behind so many other changes that the node reads what was put back before it hears of that.
    Ahead,
    /// The whole collection is dropped and filled from a copy.
    Dropped,
}

fn open_conflicts(ground: &Ground) -> Vec<(Vec<String>, Option<Bson>, Option<Bson>)> {
    let snapshot = ground.store.read().unwrap();
    let conflicts = snapshot.conflicts().unwrap();
    let open = conflicts.into_iter().filter(|conflict| conflict.resolution.is_none());
    open.map(|conflict| (conflict.path, conflict.local, conflict.central)).collect()
}

impl Ground {
    async fn put_back(&self, way: Way, older: Vec<Document>) {
        match way {
            Way::Dropped => self.people().drop().await.unwrap(),
            Way::Ahead => {
                self.people().update_one(doc! {"_id": "ANA"}, doc! {"$set": {"h": "first"}}).await.unwrap();
                for turn in 0..600 {
                    self.people().update_one(doc! {"_id": "BOB"}, doc! {"$set": {"h": turn}}).await.unwrap();
                }
                self.people().delete_many(doc! {}).await.unwrap();
            }
            Way::Deleted | Way::Changed => drop(self.people().delete_many(doc! {}).await.unwrap()),
        }
        let changed = older.into_iter().map(|mut body| {
            if matches!(way, Way::Changed) {
                body.insert("h", "added elsewhere");
            }
            body
        });
        self.people().insert_many(changed.collect::<Vec<_>>()).await.unwrap();
    }
}

#[tokio::test]
async fn what_a_node_has_written_and_an_older_version_takes_away_is_a_conflict() {
    for way in [Way::Deleted, Way::Changed, Way::Ahead, Way::Dropped] {
        let ground = Ground::agreed().await;
        let older = ground.rows("people").await;
        ground.set("ANA", YOUNG).await;
        ground.ends(Outcome::Complete).await;
        assert_eq!(ground.at("ANA").await.unwrap().get_str("f").ok(), Some(YOUNG));
        ground.put_back(way, older).await;
        for _ in 0..3 {
            ground.sync.round().await;
        }
        // Nothing is written over without asking: who deleted the record may have seen the value.
        let there = ground.at("ANA").await.unwrap();
        assert_eq!(there.get_str("f").ok(), Some("old"), "{way:?}");
        assert_eq!(ground.person("ANA").unwrap(), there, "{way:?}");
        let conflicts = open_conflicts(&ground);
        let is_said = conflicts.iter().any(|(path, local, remote)| {
            *path == ["f"] && *local == Some(YOUNG.into()) && *remote == Some("old".into())
        });
        assert!(is_said, "{way:?}: {conflicts:?}");
        if matches!(way, Way::Changed) {
            assert_eq!(there.get_str("h").ok(), Some("added elsewhere"));
        }
        assert_eq!(ground.person("BOB"), ground.at("BOB").await, "{way:?}");
        let conflict = ground.store.read().unwrap().conflicts().unwrap().remove(0);
        let (actor, seen) = (Actor::Local("tech".to_owned()), Some("old".into()));
        let back = Decision::TakeLocal;
        resolve(&ground.store, &conflict.id, back, seen, actor, |_, _, _| Ok(())).await.unwrap();
        ground.sync.round().await;
        assert_eq!(ground.at("ANA").await.unwrap().get_str("f").ok(), Some(YOUNG), "{way:?}");
    }
}

/// What came from elsewhere and is taken away like this goes to the trash, as it would if the delete had been seen.
#[tokio::test]
async fn what_others_have_written_is_kept_in_the_trash() {
    let ground = Ground::agreed().await;
    let older = ground.rows("people").await;
    ground.people().update_one(doc! {"_id": "ANA"}, doc! {"$set": {"f": YOUNG}}).await.unwrap();
    ground.ends(Outcome::Complete).await;
    ground.put_back(Way::Deleted, older).await;
    for _ in 0..2 {
        ground.ends(Outcome::Complete).await;
    }
    assert_eq!(ground.person("ANA"), ground.at("ANA").await);
    assert_eq!(ground.person("ANA").unwrap().get_str("f").ok(), Some("old"));
    assert_eq!(open_conflicts(&ground), []);
    let snapshot = ground.store.read().unwrap();
    let trash = snapshot.trash().unwrap();
    assert_eq!(trash.len(), 1);
    assert_eq!(trash[0].document.get_str("f").ok(), Some(YOUNG));
}

/// A record that is deleted and put back as it was is no news, and neither is one that comes with more.
#[tokio::test]
async fn what_is_put_back_as_it_was_is_no_conflict() {
    for way in [Way::Deleted, Way::Changed] {
        let ground = Ground::agreed().await;
        ground.set("ANA", YOUNG).await;
        ground.ends(Outcome::Complete).await;
        let now = ground.rows("people").await;
        ground.put_back(way, now).await;
        ground.ends(Outcome::Complete).await;
        ground.ends(Outcome::Complete).await;
        assert_eq!(ground.person("ANA"), ground.at("ANA").await, "{way:?}");
        assert_eq!(ground.person("ANA").unwrap().get_str("f").ok(), Some(YOUNG));
        assert_eq!(open_conflicts(&ground), [], "{way:?}");
        assert!(!ground.store.read().unwrap().is_restoring().unwrap());
    }
}

/// What is gone for good is gone here too, with its body in the trash.
#[tokio::test]
async fn what_is_deleted_stays_deleted() {
    let ground = Ground::agreed().await;
    ground.set("ANA", YOUNG).await;
    ground.ends(Outcome::Complete).await;
    ground.people().delete_one(doc! {"_id": "ANA"}).await.unwrap();
    ground.ends(Outcome::Complete).await;
    ground.ends(Outcome::Complete).await;
    assert_eq!((ground.person("ANA"), ground.at("ANA").await), (None, None));
    assert_eq!(open_conflicts(&ground), []);
}
