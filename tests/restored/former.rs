//! Conflicts that a node published before an older image of it was put back: they are its conflicts again.

use super::*;
use thalamus_edge::store::ConflictStatus;
use thalamus_edge::sync::conflicts::{Decision, ResolveError, resolve};

/// A node, an image of its disk, and what has happened since.
struct Scene {
    directory: tempfile::TempDir,
    sim: Sim,
}

impl Scene {
    /// The image holds these people, agreed on.
    async fn new(ids: &[&str]) -> Scene {
        let scene = Scene { directory: tempfile::tempdir().unwrap(), sim: Sim::default() };
        for id in ids {
            scene.sim.put(Kind::Person, person(id, "old"));
        }
        let node = scene.node();
        // Something of its own, so that the centre knows whose images these are.
        node.set("OWN", "own").await;
        node.complete().await;
        node.complete().await;
        drop(node);
        std::fs::copy(scene.path("store"), scene.path("image")).unwrap();
        scene
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn node(&self) -> Node {
        Node::on_disk(&self.path("store"), &self.sim)
    }

    /// The node before the image was put back loses `f` of this record to the centre.
    async fn lose(&self, node: &Node, id: &str, f: &str) {
        node.set(id, f).await;
        self.sim.put(Kind::Person, person(id, "theirs"));
        node.complete().await;
        assert_eq!(self.row(id).get_str("status").unwrap(), "open");
    }

    fn put_back(&self) -> Node {
        std::fs::copy(self.path("image"), self.path("store")).unwrap();
        self.node()
    }

    /// The row of the only conflict about this record.
    fn row(&self, id: &str) -> Document {
        let rows = self.sim.state().conflicts.clone();
        let mut rows = rows.into_values().filter(|row| row.get_str("id").is_ok_and(|found| found == id));
        let row = rows.next().unwrap();
        assert_eq!(rows.next(), None);
        row
    }

    fn decide(&self, id: &str, decision: Document) {
        let mut row = self.row(id);
        row.extend(decision);
        self.sim.set_row("edge_conflicts", row);
    }

    fn assert_closed(&self, id: &str, resolution: &str, node: &Node) {
        let row = self.row(id);
        let field = |name: &str| row.get_str(name).unwrap_or_default().to_owned();
        assert_eq!((field("status"), field("resolution")), ("resolved".into(), resolution.into()), "{row}");
        assert_eq!(field("applied_by"), node.sync.status().unwrap().node, "{row}");
    }
}

fn open(node: &Node) -> Vec<Conflict> {
    let all = node.store.read().unwrap().conflicts().unwrap();
    all.into_iter().filter(|conflict| conflict.status == ConflictStatus::Open).collect()
}

fn lost(node: &Node) -> Vec<(String, Option<Bson>)> {
    let mut lost: Vec<_> =
        open(node).into_iter().map(|conflict| (conflict.key.id.clone(), conflict.loser().cloned())).collect();
    lost.sort_by(|a, b| a.0.cmp(&b.0));
    lost
}

async fn take(node: &Node, conflict: &Conflict, decision: Decision) -> Result<Conflict, ResolveError> {
    let record = node.store.read().unwrap().record(&conflict.key).unwrap();
    let record = record.map(|record| Document::try_from(record.document.as_ref()).unwrap());
    let seen = thalamus_edge::sync::conflicts::current_value(conflict, record.as_ref());
    resolve(&node.store, &conflict.id, decision, seen, Actor::Local("tech".to_owned()), |_, _, _| Ok(()))
        .await
}

#[tokio::test]
async fn what_lost_is_listed_again_and_can_be_taken() {
    let scene = Scene::new(&["P"]).await;
    let node = scene.node();
    scene.lose(&node, "P", "mine").await;
    let found = open(&node).remove(0);
    drop(node);
    let node = scene.put_back();
    let report = node.complete().await;
    assert_eq!(report.conflicts, 1, "{report:?}");
    assert!(report.message.contains("wait for a decision"), "{report:?}");
    let taken = open(&node).remove(0);
    assert_eq!(
        (&taken.id, &taken.path, &taken.base, &taken.local, &taken.central, &taken.author, taken.stands),
        (&found.id, &found.path, &found.base, &found.local, &found.central, &found.author, found.stands)
    );
    assert_eq!((&taken.owner, taken.fingerprint().unwrap()), (&found.owner, found.fingerprint().unwrap()));
    take(&node, &taken, Decision::TakeLocal).await.unwrap();
    assert_settled(&node, &scene.sim).await;
    assert_eq!(at(&scene.sim, "P").as_deref(), Some("mine"));
    scene.assert_closed("P", "local", &node);
}

#[tokio::test]
async fn a_decision_that_waits_in_the_row_is_carried_out_once() {
    let scene = Scene::new(&["P"]).await;
    let node = scene.node();
    scene.lose(&node, "P", "mine").await;
    drop(node);
    scene.decide("P", doc! {"status": "resolved", "resolution": "local", "resolved_by": "office"});
    let node = scene.put_back();
    node.complete().await;
    node.complete().await;
    assert_eq!(at(&scene.sim, "P").as_deref(), Some("mine"));
    scene.assert_closed("P", "local", &node);
    scene.sim.put(Kind::Person, person("P", "later"));
    assert_settled(&node, &scene.sim).await;
    assert_eq!(at(&scene.sim, "P").as_deref(), Some("later"));
    // Closed rows are nobody's to take over.
    drop(node);
    let node = scene.put_back();
    node.complete().await;
    assert_eq!(lost(&node), []);
    assert_eq!(at(&scene.sim, "P").as_deref(), Some("later"));
}

/// Each image has a name of its own, and the last one takes the conflicts of all of them over.
#[tokio::test]
async fn the_conflicts_of_all_images_are_taken_over() {
    let scene = Scene::new(&["P", "Q"]).await;
    let node = scene.node();
    scene.lose(&node, "P", "first").await;
    drop(node);
    let node = scene.put_back();
    node.complete().await;
    scene.lose(&node, "Q", "second").await;
    drop(node);
    let node = scene.put_back();
    node.complete().await;
    let lost = lost(&node);
    assert_eq!(lost, [("P".to_owned(), Some("first".into())), ("Q".to_owned(), Some("second".into()))]);
    scene.decide("Q", doc! {"resolution": "local", "resolved_by": "office"});
    node.complete().await;
    assert_settled(&node, &scene.sim).await;
    assert_eq!(at(&scene.sim, "Q").as_deref(), Some("second"));
    scene.assert_closed("Q", "local", &node);
}

/// The rows are read in pieces. A round that breaks off leaves the rest to the next one.
#[tokio::test]
async fn many_are_taken_over_in_pieces() {
    let ids: Vec<String> = (0..20).map(|n| format!("P{n:02}")).collect();
    let named: Vec<&str> = ids.iter().map(String::as_str).collect();
    let scene = Scene::new(&named).await;
    let node = scene.node();
    for id in &named {
        scene.lose(&node, id, "mine").await;
    }
    drop(node);
    let node = scene.put_back();
    scene.sim.state().waiting_faults.extend([None, None, Some(Fault::LostAnswer)]);
    node.ends(Outcome::Offline).await;
    assert!((1..20).contains(&lost(&node).len()), "{:?}", lost(&node).len());
    node.complete().await;
    assert_eq!(lost(&node).len(), 20);
    assert_settled(&node, &scene.sim).await;
    assert_eq!(lost(&node).len(), 20);
}

#[tokio::test]
async fn a_record_that_is_gone_or_holds_the_value_asks_for_little() {
    let scene = Scene::new(&["GONE", "SAME"]).await;
    let node = scene.node();
    scene.lose(&node, "GONE", "mine").await;
    scene.lose(&node, "SAME", "mine").await;
    drop(node);
    scene.sim.remove(Kind::Person, "GONE");
    // Somebody has written it by hand.
    scene.sim.put(Kind::Person, person("SAME", "mine"));
    let node = scene.put_back();
    node.complete().await;
    node.complete().await;
    assert_eq!(lost(&node), [("GONE".to_owned(), Some("mine".into()))]);
    scene.assert_closed("SAME", "local", &node);
    let gone = open(&node).remove(0);
    assert!(matches!(take(&node, &gone, Decision::TakeLocal).await, Err(ResolveError::Invalid { .. })));
    take(&node, &gone, Decision::TakeCentral).await.unwrap();
    node.complete().await;
    scene.assert_closed("GONE", "central", &node);
}

/// A value of one human being's goes into no record of another one's, whatever is decided.
#[tokio::test]
async fn a_value_is_not_put_into_the_record_of_somebody_else() {
    let named =
        |name: &str, f: &str| doc! {"_id": "P", "name": name, "lastname": name, "dob": "1990-01-01", "f": f};
    for (now, is_taken) in [("Anna", true), ("Bert", false)] {
        let scene = Scene::new(&[]).await;
        // The image has never seen her.
        let node = scene.node();
        scene.sim.put(Kind::Person, named("Anna", "old"));
        node.complete().await;
        node.edit("P", Some(named("Anna", "mine"))).await;
        scene.sim.put(Kind::Person, named("Anna", "theirs"));
        node.complete().await;
        drop(node);
        scene.sim.remove(Kind::Person, "P");
        scene.sim.put(Kind::Person, named(now, "theirs"));
        let node = scene.put_back();
        node.complete().await;
        let conflict = open(&node).remove(0);
        assert_eq!(conflict.loser(), Some(&"mine".into()));
        scene.decide("P", doc! {"resolution": "local", "resolved_by": "office"});
        node.complete().await;
        node.complete().await;
        let f = if is_taken { "mine" } else { "theirs" };
        assert_eq!(at(&scene.sim, "P").as_deref(), Some(f), "{now}");
        assert_eq!(scene.row("P").get_str("status").unwrap(), if is_taken { "resolved" } else { "declined" });
        if !is_taken {
            assert!(matches!(
                take(&node, &conflict, Decision::TakeLocal).await,
                Err(ResolveError::Invalid { .. })
            ));
            take(&node, &conflict, Decision::TakeCentral).await.unwrap();
            assert_settled(&node, &scene.sim).await;
            assert_eq!(at(&scene.sim, "P").as_deref(), Some(f), "{now}");
        }
    }
}

#[tokio::test]
async fn a_page_that_was_given_to_somebody_else_keeps_its_values() {
    let page = |book: &str, info: &str| doc! {"_id": "p1", "book": book, "info": info};
    let key = RecordKey::new(Kind::Page, "p1");
    for (now, is_taken) in [("ANNA01", true), ("BERT01", false)] {
        let scene = Scene::new(&["ANNA01", "BERT01"]).await;
        let node = scene.node();
        scene.sim.put(Kind::Page, page("ANNA01", "old"));
        node.complete().await;
        let (at, edited) = (key.clone(), page("ANNA01", "mine"));
        let actor = Actor::Local("tech".to_owned());
        node.store.transact(move |tx| tx.edit(&at, Some(&edited), &actor)).await.unwrap();
        scene.sim.put(Kind::Page, page("ANNA01", "theirs"));
        node.complete().await;
        drop(node);
        scene.sim.put(Kind::Page, page(now, "theirs"));
        let node = scene.put_back();
        node.complete().await;
        let conflict = open(&node).remove(0);
        assert_eq!(take(&node, &conflict, Decision::TakeLocal).await.is_ok(), is_taken, "{now}");
        node.complete().await;
        let info = if is_taken { "mine" } else { "theirs" };
        assert_eq!(scene.sim.get(Kind::Page, "p1"), Some(page(now, info)));
    }
}

/// What is not in the row is not made up.
#[tokio::test]
async fn a_value_that_is_not_in_the_row_is_written_nowhere() {
    let large = "x".repeat(300 << 10);
    for decision in ["local", "central", "value"] {
        let scene = Scene::new(&["P"]).await;
        let node = scene.node();
        scene.lose(&node, "P", &large).await;
        drop(node);
        let node = scene.put_back();
        node.complete().await;
        let conflict = open(&node).remove(0);
        assert!(conflict.is_withheld);
        assert!(matches!(
            take(&node, &conflict, Decision::TakeLocal).await,
            Err(ResolveError::Invalid { .. })
        ));
        scene.decide("P", doc! {"resolution": decision, "value": "typed", "resolved_by": "office"});
        node.complete().await;
        node.complete().await;
        let f = if decision == "value" { "typed" } else { "theirs" };
        assert_eq!(at(&scene.sim, "P").as_deref(), Some(f), "{decision}");
        let status = if decision == "local" { "declined" } else { "resolved" };
        assert_eq!(scene.row("P").get_str("status").unwrap(), status, "{decision}");
    }
}

/// Where the box from which the image was made goes on, both have the conflict, and it ends at both.
#[tokio::test]
async fn a_copy_and_its_original_share_their_conflicts() {
    let scene = Scene::new(&["P"]).await;
    let original = scene.node();
    scene.lose(&original, "P", "mine").await;
    let copy = Node::on_disk(&scene.path("image"), &scene.sim);
    copy.complete().await;
    let conflict = open(&copy).remove(0);
    take(&copy, &conflict, Decision::TakeLocal).await.unwrap();
    copy.complete().await;
    for _ in 0..2 {
        original.complete().await;
    }
    assert_eq!((lost(&original), lost(&copy)), (vec![], vec![]));
    assert_eq!(at(&scene.sim, "P").as_deref(), Some("mine"));
    scene.assert_closed("P", "local", &copy);
}

/// A row of an earlier version does not say whose the page was: it is made again for nobody, whoever has the account.
#[tokio::test]
async fn a_page_of_a_row_that_names_nobody_is_made_again_in_no_book() {
    let ann = |name: &str| doc! {"_id": "ANNA01", "name": name, "lastname": name, "dob": "1990-01-01", "gender": "f"};
    let page = |info: &str| doc! {"_id": "p1", "book": "ANNA01", "info": info};
    let key = RecordKey::new(Kind::Page, "p1");
    // Retyping is no other person, and does not keep anybody from their own.
    let retyped = doc! {"_id": "ANNA01", "name": "ÁNNA", "lastname": "anna", "dob": "1990-01-01T00:00:00Z", "gender": "female"};
    for (is_said, now, is_taken) in [
        (true, ann("Anna"), true),
        (true, retyped, true),
        (true, ann("Bert"), false),
        (false, ann("Anna"), false),
    ] {
        let scene = Scene::new(&[]).await;
        let node = scene.node();
        scene.sim.put(Kind::Person, ann("Anna"));
        scene.sim.put(Kind::Page, page("old"));
        node.complete().await;
        let (at, edited, actor) = (key.clone(), page("mine"), Actor::Local("tech".to_owned()));
        node.store.transact(move |tx| tx.edit(&at, Some(&edited), &actor)).await.unwrap();
        scene.sim.remove(Kind::Page, "p1");
        node.complete().await;
        scene.sim.remove(Kind::Page, "p1");
        node.complete().await;
        drop(node);
        let mut row = scene.row("p1");
        if !is_said {
            row.remove("owner");
            row.remove("person");
        }
        scene.sim.set_row("edge_conflicts", row);
        let what = format!("said: {is_said}, {now}");
        scene.sim.put(Kind::Person, now);
        let node = scene.put_back();
        node.complete().await;
        let conflict = open(&node).remove(0);
        let taken = take(&node, &conflict, Decision::TakeLocal).await;
        assert_eq!(taken.is_ok(), is_taken, "{what}: {taken:?}");
        node.complete().await;
        assert_eq!(scene.sim.get(Kind::Page, "p1").is_some(), is_taken, "{what}");
        assert_eq!(open(&node).is_empty(), is_taken, "{what}");
    }
}

/// What lost may stand nowhere else: a damaged row here delays it, and does not lose it.
#[tokio::test]
async fn a_conflict_in_the_way_of_which_a_row_is_damaged_is_taken_over_later() {
    let scene = Scene::new(&["P", "Q"]).await;
    let node = scene.node();
    scene.lose(&node, "P", "mine").await;
    scene.lose(&node, "Q", "mine too").await;
    let id = open(&node).into_iter().find(|conflict| conflict.key.id == "P").unwrap().id;
    drop(node);
    std::fs::copy(scene.path("image"), scene.path("store")).unwrap();
    let database = redb::Database::open(scene.path("store")).unwrap();
    let transaction = database.begin_write().unwrap();
    let conflicts = redb::TableDefinition::<&str, &[u8]>::new("conflict");
    let rotten: &[u8] = b"bytes that nobody wrote";
    transaction.open_table(conflicts).unwrap().insert(id.as_str(), rotten).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let node = scene.node();
    let ids = |node: &Node| lost(node).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    for _ in 0..2 {
        let report = node.complete().await;
        assert!(report.message.contains("1 of the conflicts of a former name"), "{report:?}");
        assert_eq!(ids(&node), ["Q"]);
    }
    let row = thalamus_edge::store::AsideRows { table: "conflict".to_owned(), kind: None, id: Some(id) };
    node.store.set_aside_rows(row).await.unwrap();
    let report = node.complete().await;
    assert!(!report.message.contains("of a former name"), "{report:?}");
    assert_eq!(
        lost(&node),
        [("P".to_owned(), Some("mine".into())), ("Q".to_owned(), Some("mine too".into()))]
    );
}
