//! A backup in the place of the store: what was there is kept, and the centre loses nothing.

use std::fs;

use bson::Bson;
use thalamus_edge::backup::{BackupError, Present, Target, check, restore};
use thalamus_edge::sync::{Outcome, Reconciler, SyncSettings};

use super::support::sim::{Sim, person};
use super::*;

/// A node on a file, with a centre.
struct Node {
    store: Store,
    sync: Arc<Reconciler>,
}

impl Node {
    fn on_disk(file: &Path, sim: &Sim) -> Node {
        let store = Store::open(file, options()).unwrap();
        let sync = Reconciler::new(store.clone(), Some(Arc::new(sim.clone())), SyncSettings::default());
        Node { store, sync }
    }

    async fn complete(&self) {
        let report = self.sync.round().await;
        assert_eq!(report.outcome, Outcome::Complete, "{report:?}");
    }

    async fn set(&self, id: &str, f: &str) {
        edit(&self.store, id, Some(person(id, f))).await;
    }

    fn at(&self, id: &str) -> Option<String> {
        let record = self.store.read().unwrap().record(&key(id)).unwrap()?;
        let document = Document::try_from(record.document.as_ref()).unwrap();
        Some(document.get_str("f").unwrap().to_owned())
    }
}

fn target(file: &Path) -> Target<'_> {
    Target { store_file: file, key: None, options: options(), by: Actor::Operator(0) }
}

fn hold(file: &Path) -> Result<Present, BackupError> {
    Present::hold(&target(file))
}

#[tokio::test]
async fn a_restored_node_goes_on_with_the_centre_and_nothing_is_lost() {
    let sim = Sim::default();
    for id in ["BEFORE", "SINCE", "BOTH", "GONE", "PENDING", "THEIRS", "AGAIN"] {
        sim.put(Kind::Person, person(id, "old"));
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("store.redb");
    let node = Node::on_disk(&file, &sim);
    node.complete().await;
    node.set("BEFORE", "mine").await;
    node.complete().await;
    // The backup holds an edit that nobody has seen.
    node.set("PENDING", "pending").await;
    node.set("AGAIN", "pending").await;
    let backup = back_up(&node.store, directory.path(), None).await;

    node.set("SINCE", "sent").await;
    node.set("NEW", "sent").await;
    node.set("AGAIN", "newer").await;
    node.set("BOTH", "mine").await;
    edit(&node.store, "GONE", None).await;
    node.complete().await;
    sim.put(Kind::Person, person("THEIRS", "theirs"));
    sim.put(Kind::Person, person("BOTH", "theirs"));
    let first = node.sync.status().unwrap().node;
    // And one that only the lost store has.
    node.set("LOST", "here only").await;
    drop(node);

    let restored = restore(&backup, None, &target(&file), hold(&file).unwrap()).unwrap();
    assert_eq!(restored.manifest.about.node_id.as_deref(), Some(first.as_str()));
    let node = Node::on_disk(&file, &sim);
    assert_eq!((node.at("SINCE").as_deref(), node.at("NEW")), (Some("old"), None));
    assert_eq!(node.at("PENDING").as_deref(), Some("pending"));
    node.set("BEFORE", "after the restore").await;
    for _ in 0..2 {
        node.complete().await;
    }
    assert_ne!(node.sync.status().unwrap().node, first, "an old image is another node");
    for (id, expected) in [
        ("BEFORE", Some("after the restore")),
        ("SINCE", Some("sent")),
        ("NEW", Some("sent")),
        ("BOTH", Some("theirs")),
        ("GONE", None),
        ("PENDING", Some("pending")),
        ("THEIRS", Some("theirs")),
        ("AGAIN", Some("newer")),
    ] {
        let there = sim.get(Kind::Person, id).map(|document| document.get_str("f").unwrap().to_owned());
        assert_eq!((there.as_deref(), node.at(id).as_deref()), (expected, expected), "{id}");
    }
    // What the older state said of this one is not dropped: somebody decides.
    let conflicts = node.store.read().unwrap().conflicts().unwrap();
    let lost: Vec<_> = conflicts.iter().map(|c| (c.key.id.as_str(), c.loser().cloned())).collect();
    assert_eq!(lost, [("AGAIN", Some(Bson::from("pending")))]);
    assert_eq!(node.store.read().unwrap().pending_count().unwrap(), 0);
    drop(node);
    // The store that was replaced is there, with what nobody else had.
    let kept = Node::on_disk(&restored.kept.unwrap(), &sim);
    assert_eq!(kept.at("LOST").as_deref(), Some("here only"));
}

/// Nothing has happened at the centre since the backup: the node is still itself.
#[tokio::test]
async fn a_backup_that_is_as_new_as_the_centre_goes_on_as_the_same_node() {
    let sim = Sim::default();
    sim.put(Kind::Person, person("ANA", "old"));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("store.redb");
    let node = Node::on_disk(&file, &sim);
    node.complete().await;
    let backup = back_up(&node.store, directory.path(), None).await;
    let first = node.sync.status().unwrap().node;
    node.set("ANA", "here only").await;
    drop(node);
    restore(&backup, None, &target(&file), hold(&file).unwrap()).unwrap();
    let node = Node::on_disk(&file, &sim);
    node.set("EVA", "new").await;
    node.complete().await;
    assert_eq!(node.sync.status().unwrap().node, first);
    assert_eq!((node.at("ANA").as_deref(), sim.state().leases.len()), (Some("old"), 1));
    assert_eq!(sim.get(Kind::Person, "EVA"), Some(person("EVA", "new")));
}

#[tokio::test]
async fn a_restore_onto_nothing_makes_a_store_and_onto_rubble_keeps_the_rubble() {
    let directory = tempfile::tempdir().unwrap();
    let (public, keys) = pair(directory.path(), "key");
    let store = Store::in_memory(options()).unwrap();
    fill(&store).await;
    let expected = store.read().unwrap().summary().unwrap();
    let backup = back_up(&store, directory.path(), Some(&public)).await;
    let file = directory.path().join("new box.redb");
    let restored = restore(&backup, Some(&keys), &target(&file), hold(&file).unwrap()).unwrap();
    assert_eq!((restored.kept, restored.manifest.summary.clone()), (None, expected.clone()));
    let made = Store::open(&file, options()).unwrap();
    assert_eq!(made.read().unwrap().summary().unwrap(), expected);
    drop(made);

    fs::write(&file, "rubble").unwrap();
    let present = hold(&file).unwrap();
    assert!(matches!(present, Present::Unreadable { .. }));
    let kept = restore(&backup, Some(&keys), &target(&file), present).unwrap().kept.unwrap();
    assert_eq!(fs::read(&kept).unwrap(), b"rubble");
    assert_eq!(Store::open(&file, options()).unwrap().read().unwrap().summary().unwrap(), expected);
    // A second one has a number of its own.
    let again = restore(&backup, Some(&keys), &target(&file), hold(&file).unwrap()).unwrap().kept.unwrap();
    assert_ne!(kept, again);
    assert_eq!(names_in(directory.path()).len(), 5);
}

#[tokio::test]
async fn what_cannot_be_used_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (public, keys) = pair(directory.path(), "key");
    let (_, stranger) = pair(directory.path(), "stranger");
    let file = directory.path().join("store.redb");
    let store = Store::open(&file, options()).unwrap();
    fill(&store).await;
    let plain = back_up(&store, directory.path(), None).await;
    let secret = back_up(&store, directory.path(), Some(&public)).await;
    assert!(matches!(hold(&file), Err(BackupError::Running(_))), "somebody has it");
    edit(&store, "LATER", Some(doc! {"_id": "LATER"})).await;
    drop(store);
    let settled = || {
        let store = Store::open(&file, options()).unwrap();
        let snapshot = store.read().unwrap();
        snapshot.content_sha256().unwrap()
    };
    let before = settled();
    let names = names_in(directory.path());

    let mut broken = Vec::new();
    for backup in [&plain, &secret] {
        let good = fs::read(backup).unwrap();
        for at in [0, good.len() / 3, good.len() / 2, good.len() - 1] {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            broken.push((backup.clone(), bytes));
        }
        for length in [0, 300, good.len() / 2, good.len() - 1] {
            broken.push((backup.clone(), good[..length].to_vec()));
        }
    }
    let spoiled = directory.path().join("backups/spoiled");
    for (of, bytes) in broken {
        fs::write(&spoiled, &bytes).unwrap();
        // The checks that come first are left out, so that the restore itself has to notice.
        let error = restore(&spoiled, Some(&keys), &target(&file), hold(&file).unwrap()).unwrap_err();
        assert!(error.to_string().contains("spoiled: "), "{}: {error}", of.display());
        assert!(check(&spoiled, Some(&keys)).is_err());
        assert_eq!(names_in(directory.path()), names, "{error}");
    }
    for keys in [None, Some(&stranger)] {
        restore(&secret, keys, &target(&file), hold(&file).unwrap()).unwrap_err();
    }
    restore(&file.with_file_name("absent"), None, &target(&file), hold(&file).unwrap()).unwrap_err();
    assert_eq!((names_in(directory.path()), settled()), (names, before));
}
