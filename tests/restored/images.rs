//! Images of a node's disk that are put back: what was delivered from them since is not delivered again.

use bson::DateTime;

use super::*;
use thalamus_edge::sync::conflicts::{Decision, resolve};

/// A node, and an image of its disk that is made before it sends what it has.
struct Imaged {
    directory: tempfile::TempDir,
    sim: Sim,
}

impl Imaged {
    /// The record is agreed on as `agreed` and edited to `edited`; that is sent, but not known to the image.
    async fn new(agreed: Option<Document>, edited: Document) -> Imaged {
        let imaged = Imaged { directory: tempfile::tempdir().unwrap(), sim: Sim::default() };
        if let Some(agreed) = agreed {
            imaged.sim.put(Kind::Person, agreed);
        }
        let (file, image) = (imaged.directory.path().join("store"), imaged.file());
        let node = Node::on_disk(&file, &imaged.sim);
        node.complete().await;
        node.edit("P", Some(edited)).await;
        drop(node);
        std::fs::copy(&file, image).unwrap();
        Node::on_disk(&file, &imaged.sim).complete().await;
        imaged
    }

    fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("image")
    }

    /// The image goes on, with this edit before its first round. Returns the node, at rest.
    async fn put_back_and_edit(&self, document: Document) -> Node {
        let node = Node::on_disk(&self.file(), &self.sim);
        node.edit("P", Some(document)).await;
        node.complete().await;
        assert_settled(&node, &self.sim).await;
        node
    }

    fn centre(&self) -> Option<Document> {
        self.sim.get(Kind::Person, "P")
    }
}

fn conflicts(node: &Node) -> Vec<(String, Option<Bson>)> {
    let conflicts = node.store.read().unwrap().conflicts().unwrap();
    conflicts.into_iter().map(|conflict| (conflict.path.join("."), conflict.loser().cloned())).collect()
}

fn only(f: &str) -> Document {
    doc! {"_id": "P", "f": f}
}

fn fields(f: &str, g: &str) -> Document {
    doc! {"_id": "P", "f": f, "g": g}
}

/// An edit stands against a delete, whatever it does, and staff see it.
#[tokio::test]
async fn a_record_deleted_by_others_comes_back_by_an_edit_and_by_nothing_else() {
    for is_edited in [true, false] {
        let imaged = Imaged::new(None, fields("mine", "mine")).await;
        imaged.sim.remove(Kind::Person, "P");
        let edited = if is_edited { only("mine") } else { fields("mine", "mine") };
        let node = imaged.put_back_and_edit(edited.clone()).await;
        let (centre, loser) = match is_edited {
            true => (Some(edited), None),
            false => (None, Some(Bson::Document(edited))),
        };
        assert_eq!(imaged.centre(), centre);
        assert_eq!(conflicts(&node), [(String::new(), loser)]);
    }
}

#[tokio::test]
async fn a_removal_of_what_was_delivered_is_carried_out() {
    let imaged = Imaged::new(None, fields("mine", "mine")).await;
    let node = imaged.put_back_and_edit(only("mine")).await;
    assert_eq!(imaged.centre(), Some(only("mine")));
    assert_eq!(conflicts(&node), []);
    // Somebody else has written it since.
    let imaged = Imaged::new(None, fields("mine", "mine")).await;
    imaged.sim.put(Kind::Person, fields("mine", "theirs"));
    let node = imaged.put_back_and_edit(only("mine")).await;
    assert_eq!(imaged.centre(), Some(fields("mine", "theirs")));
    assert_eq!(conflicts(&node), [("g".to_owned(), None)]);
}

#[tokio::test]
async fn a_removal_is_carried_out_and_takes_no_delivered_edit_with_it() {
    let imaged = Imaged::new(Some(fields("old", "old")), fields("mine", "old")).await;
    // Somebody takes the delivered edit back.
    imaged.sim.put(Kind::Person, fields("old", "old"));
    let node = imaged.put_back_and_edit(only("mine")).await;
    assert_eq!(imaged.centre(), Some(only("old")));
    assert_eq!(conflicts(&node), [("f".to_owned(), Some("mine".into()))]);
}

#[tokio::test]
async fn an_edit_of_another_field_raises_no_question() {
    let imaged = Imaged::new(Some(fields("old", "old")), fields("mine", "old")).await;
    let node = imaged.put_back_and_edit(fields("mine", "new")).await;
    assert_eq!(imaged.centre(), Some(fields("mine", "new")));
    assert_eq!(conflicts(&node), []);
}

/// What a program at the centre has written anew in its own form is no loss of the edit. How a name is spelled is.
#[tokio::test]
async fn a_delivered_edit_that_means_what_stands_there_raises_no_question() {
    let (day, ana) = (DateTime::parse_rfc3339_str("1985-10-04T00:00:00Z").unwrap(), "Ana");
    let decimal: bson::Decimal128 = "36.60".parse().unwrap();
    let rows: [(&str, Option<Bson>, Bson, Bson, bool); 10] = [
        ("dob", Some("1985-10-05".into()), "1985-10-04".into(), day.into(), false),
        ("dob", Some("1985-10-05".into()), "1985-10-04".into(), "1985-10-05".into(), true),
        ("f", Some(60.into()), 70.into(), 70.0.into(), false),
        ("f", Some(60.into()), 36.6.into(), decimal.into(), false),
        ("f", None, 70.into(), 70.0.into(), false),
        ("f", Some(60.into()), 70.into(), "70".into(), true),
        ("gender", Some("u".into()), "f".into(), "female".into(), false),
        ("name", Some("Jose".into()), "José".into(), "Jose".into(), true),
        ("name", Some("Jose".into()), "José".into(), "JOSE".into(), true),
        ("lastname", None, "José".into(), "JOSE".into(), true),
    ];
    for (field, before, mine, theirs, is_conflict) in rows {
        let with = |value: Option<&Bson>| {
            let mut person = doc! {"_id": "P", "name": ana};
            person.extend(value.map(|value| (field.to_owned(), value.clone())));
            person
        };
        let imaged = Imaged::new(Some(with(before.as_ref())), with(Some(&mine))).await;
        assert_eq!(imaged.centre(), Some(with(Some(&mine))));
        imaged.sim.put(Kind::Person, with(Some(&theirs)));
        let node = Node::on_disk(&imaged.file(), &imaged.sim);
        assert_settled(&node, &imaged.sim).await;
        assert_eq!(imaged.centre(), Some(with(Some(&theirs))), "{field}: it stands as it is");
        let expected = is_conflict.then(|| (field.to_owned(), Some(mine.clone())));
        assert_eq!(conflicts(&node), expected.into_iter().collect::<Vec<_>>(), "{mine} {theirs}");
    }
}

/// An edit that was not delivered is exact: it is sent where the centre holds what it began with, and else a conflict.
#[tokio::test]
async fn an_edit_that_was_not_delivered_is_compared_exactly() {
    let person = |name: &str, f: Bson| doc! {"_id": "P", "name": name, "lastname": "Betz", "f": f};
    for (mine, theirs, stands, lost) in [
        (person("José", 1.into()), person("Jose", 1.into()), person("José", 1.into()), None),
        (person("José", 1.into()), person("JOSE", 1.into()), person("JOSE", 1.into()), Some("José".into())),
        (
            person("Jose", 1.0.into()),
            person("Jose", 1_i64.into()),
            person("Jose", 1_i64.into()),
            Some(1.0.into()),
        ),
    ] {
        let sim = Sim::default();
        sim.put(Kind::Person, person("Jose", 1.into()));
        let directory = tempfile::tempdir().unwrap();
        let (file, image) = (directory.path().join("store"), directory.path().join("image"));
        let node = Node::on_disk(&file, &sim);
        node.complete().await;
        drop(node);
        std::fs::copy(&file, &image).unwrap();
        // The original has gone on, so the image is another node.
        Node::on_disk(&file, &sim).complete().await;
        sim.put(Kind::Person, theirs);
        let node = Node::on_disk(&image, &sim);
        node.edit("P", Some(mine)).await;
        assert_settled(&node, &sim).await;
        assert_eq!(sim.get(Kind::Person, "P"), Some(stands));
        let found: Vec<Bson> = conflicts(&node).into_iter().filter_map(|(_, loser)| loser).collect();
        assert_eq!(found, lost.into_iter().collect::<Vec<Bson>>());
    }
}

/// What the image holds was delivered and has gone its own way since: somebody else has the account, or the id.
#[tokio::test]
async fn values_of_one_person_are_no_question_about_another() {
    let bert = || doc! {"_id": "P", "name": "Bert", "lastname": "Beta", "dob": "1950-02-02", "gender": "m", "f": "of Bert"};
    let anna = || doc! {"_id": "P", "name": "Anna", "lastname": "Alpha", "dob": "1990-01-01", "gender": "f", "f": "of Anna"};
    let imaged = Imaged::new(None, bert()).await;
    imaged.sim.put(Kind::Person, anna());
    let node = Node::on_disk(&imaged.file(), &imaged.sim);
    for _ in 0..2 {
        node.complete().await;
    }
    let open = node.store.read().unwrap().conflicts().unwrap();
    assert_eq!(open.len(), 1, "{open:?}");
    assert!(open[0].is_identity());
    assert_eq!(imaged.centre(), Some(anna()));
    assert_eq!(node.get("P"), Some(bert()));
}

#[tokio::test]
async fn values_of_a_record_are_no_question_about_another_ones() {
    let page = |book: &str, info: &str| doc! {"_id": "p1", "book": book, "info": info};
    let directory = tempfile::tempdir().unwrap();
    let (file, image) = (directory.path().join("store"), directory.path().join("image"));
    let sim = Sim::default();
    for id in ["ANNA01", "BERT01"] {
        sim.put(Kind::Person, doc! {"_id": id, "name": id});
    }
    let node = Node::on_disk(&file, &sim);
    node.complete().await;
    let key = RecordKey::new(Kind::Page, "p1");
    let (of_bert, actor) = (page("BERT01", "of Bert"), Actor::Local("tech".to_owned()));
    let at = key.clone();
    node.store.transact(move |tx| tx.edit(&at, Some(&of_bert), &actor)).await.unwrap();
    drop(node);
    std::fs::copy(&file, &image).unwrap();
    Node::on_disk(&file, &sim).complete().await;
    // Bert's goes on under another id, and Anna's has this one.
    sim.put(Kind::Page, page("ANNA01", "of Anna"));
    let node = Node::on_disk(&image, &sim);
    node.complete().await;
    node.complete().await;
    assert_eq!(conflicts(&node), []);
    assert_eq!(sim.get(Kind::Page, "p1"), Some(page("ANNA01", "of Anna")));
    let snapshot = node.store.read().unwrap();
    let here = snapshot.record(&key).unwrap().unwrap();
    assert_eq!(Document::try_from(here.document.as_ref()).unwrap(), page("ANNA01", "of Anna"));
    assert!(snapshot.trash().unwrap().iter().any(|row| row.document == page("BERT01", "of Bert")));
}

/// The row was published under the old name, and the image finds the conflict again.
#[tokio::test]
async fn a_decision_in_the_row_of_the_old_name_is_carried_out() {
    let directory = tempfile::tempdir().unwrap();
    let (file, image) = (directory.path().join("store"), directory.path().join("image"));
    let sim = Sim::default();
    sim.put(Kind::Person, fields("old", "old"));
    let node = Node::on_disk(&file, &sim);
    node.complete().await;
    node.edit("P", Some(fields("mine", "old"))).await;
    sim.put(Kind::Person, fields("theirs", "old"));
    drop(node);
    std::fs::copy(&file, &image).unwrap();
    Node::on_disk(&file, &sim).complete().await;
    let node = Node::on_disk(&image, &sim);
    node.complete().await;
    let mut rows: Vec<Document> = sim.state().conflicts.values().cloned().collect();
    assert_eq!(rows.len(), 1, "{rows:?}");
    let mut row = rows.remove(0);
    row.extend(doc! {"resolution": "local", "resolved_by": "admin"});
    sim.set_row("edge_conflicts", row);
    for _ in 0..2 {
        node.complete().await;
    }
    assert_eq!(at(&sim, "P").as_deref(), Some("mine"));
    let row = sim.state().conflicts.values().next().cloned().unwrap();
    assert_eq!(row.get_str("status").unwrap(), "resolved");
    assert!(row.get_str("applied_by").is_ok(), "{row}");
}

/// An image from before: it goes on as another node with what it has, and settles by reading.
#[tokio::test]
async fn an_old_image_goes_on_as_a_new_node() {
    let sim = Sim::default();
    for id in ["EDITED", "OPEN", "SINCE"] {
        sim.put(Kind::Person, person(id, "old"));
    }
    let directory = tempfile::tempdir().unwrap();
    let (file, image) = (directory.path().join("store"), directory.path().join("image"));
    let node = Node::on_disk(&file, &sim);
    node.complete().await;
    node.set("EDITED", "mine").await;
    node.set("OPEN", "mine").await;
    // It arrives, and nobody hears of it.
    sim.state().write_faults.push_back(Fault::LostAnswer);
    node.ends(Outcome::Offline).await;
    assert_eq!(node.store.read().unwrap().intents().unwrap().len(), 2);
    drop(node);
    std::fs::copy(&file, &image).unwrap();
    let node = Node::on_disk(&file, &sim);
    node.set("SINCE", "sent").await;
    node.complete().await;
    let first = node.sync.status().unwrap().node;
    drop(node);

    let node = Node::on_disk(&image, &sim);
    node.set("EDITED", "on the image").await;
    assert!(!node.sync.centre_restored().await.unwrap());
    node.complete().await;
    assert_ne!(node.sync.status().unwrap().node, first);
    assert_eq!(sim.state().leases.len(), 2);
    assert_settled(&node, &sim).await;
    for (id, f) in [("EDITED", "on the image"), ("OPEN", "mine"), ("SINCE", "sent")] {
        assert_eq!(at(&sim, id).as_deref(), Some(f), "{id}");
    }
    assert_eq!(node.lost().len(), 0);
    assert!(node.store.read().unwrap().intents().unwrap().is_empty());
}

/// What the image holds was deleted by others: a decision for it makes the record again, wherever it is made.
#[tokio::test]
async fn a_record_deleted_by_others_is_made_again_by_a_decision() {
    for is_row in [true, false] {
        let imaged = Imaged::new(None, fields("mine", "mine")).await;
        imaged.sim.remove(Kind::Person, "P");
        let node = Node::on_disk(&imaged.file(), &imaged.sim);
        node.complete().await;
        let conflict = node.store.read().unwrap().conflicts().unwrap().remove(0);
        assert_eq!((imaged.centre(), node.get("P")), (None, None));
        if is_row {
            let mut row = imaged.sim.state().conflicts[&conflict.id].clone();
            row.extend(doc! {"resolution": "local", "resolved_by": "admin"});
            imaged.sim.set_row("edge_conflicts", row);
        } else {
            let (decision, actor) = (Decision::TakeLocal, Actor::Local("tech".to_owned()));
            resolve(&node.store, &conflict.id, decision, None, actor, |_, _, _| Ok(())).await.unwrap();
        }
        for _ in 0..2 {
            node.complete().await;
        }
        assert_eq!(imaged.centre(), Some(fields("mine", "mine")), "in the row: {is_row}");
        assert_eq!(node.get("P"), Some(fields("mine", "mine")), "in the row: {is_row}");
        let row = imaged.sim.state().conflicts[&conflict.id].clone();
        assert_eq!(row.get_str("status").unwrap(), "resolved", "{row}");
        assert!(row.get_str("applied_by").is_ok(), "{row}");
    }
}
