//! Edits that are made after an older image or a backup was put back are new, also of records that were unsent in it and that
//! have been delivered since.

use super::*;
use thalamus_edge::store::ConflictStatus;
use thalamus_edge::sync::conflicts::{Decision, resolve};

/// A node with a record that it has not sent, set back to that after it was sent.
struct SetBack {
    directory: tempfile::TempDir,
    sim: Sim,
    at: RecordKey,
}

impl SetBack {
    /// The record is agreed on as `agreed`, and one process after the other makes one of these versions of it. Then all is sent,
    /// and the node is back where it was before that.
    async fn new(kind: Kind, agreed: Option<Document>, unsent: &[Option<Document>]) -> SetBack {
        let (directory, sim) = (tempfile::tempdir().unwrap(), Sim::default());
        sim.put(Kind::Person, doc! {"_id": "P", "name": "Ana"});
        if let Some(agreed) = agreed {
            sim.put(kind, agreed);
        }
        let set_back = SetBack { directory, sim, at: RecordKey::new(kind, "r") };
        let (file, image) = (set_back.file("store"), set_back.file("image"));
        Node::on_disk(&file, &set_back.sim).complete().await;
        for version in unsent {
            set_back.edit(&Node::on_disk(&file, &set_back.sim), version.clone()).await;
        }
        std::fs::copy(&file, &image).unwrap();
        Node::on_disk(&file, &set_back.sim).complete().await;
        assert_eq!(set_back.centre().as_ref(), unsent.last().unwrap().as_ref());
        set_back
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn centre(&self) -> Option<Document> {
        self.sim.get(self.at.kind, &self.at.id)
    }

    async fn edit(&self, node: &Node, document: Option<Document>) {
        let (at, actor) = (self.at.clone(), Actor::Local("tech".to_owned()));
        node.store.transact(move |tx| tx.edit(&at, document.as_ref(), &actor)).await.unwrap();
    }

    /// One process after the other makes these edits; then rounds. Returns the node, at rest.
    async fn goes_on(&self, edits: &[Option<Document>]) -> Node {
        for edit in edits {
            self.edit(&Node::on_disk(&self.file("image"), &self.sim), edit.clone()).await;
        }
        let node = Node::on_disk(&self.file("image"), &self.sim);
        for _ in 0..3 {
            node.complete().await;
        }
        assert_eq!(node.pending(), 0);
        assert_eq!(self.here(&node), self.centre());
        node
    }

    fn here(&self, node: &Node) -> Option<Document> {
        let record = node.store.read().unwrap().record(&self.at).unwrap()?;
        Some(Document::try_from(record.document.as_ref()).unwrap())
    }
}

/// Path, local and central value of each open conflict.
fn open(node: &Node) -> Vec<(String, Option<Bson>, Option<Bson>)> {
    let conflicts = node.store.read().unwrap().conflicts().unwrap();
    let open = conflicts.into_iter().filter(|found| found.status == ConflictStatus::Open);
    open.map(|found| (found.path.join("."), found.local, found.central)).collect()
}

async fn take_local(node: &Node) {
    for conflict in node.store.read().unwrap().conflicts().unwrap() {
        let (decision, actor) = (Decision::TakeLocal, Actor::Local("tech".to_owned()));
        let stands = conflict.central.clone();
        resolve(&node.store, &conflict.id, decision, stands, actor, |_, _, _| Ok(())).await.unwrap();
    }
}

fn bp(systolic: i32, diastolic: i32) -> Document {
    doc! {"_id": "r", "person": "P", "bp": {"systolic": systolic, "diastolic": diastolic}, "hr": 70}
}

fn with_content(sha: char, length: i64) -> Document {
    let sha: String = std::iter::repeat_n(sha, 64).collect();
    doc! {"_id": "r", "fedacct": "P", "content": {"sha256": sha, "length": length, "type": "application/pdf"}}
}

fn page(info: &str) -> Document {
    doc! {"_id": "r", "book": "P", "info": info}
}

#[tokio::test]
async fn an_edit_made_afterwards_is_sent_and_raises_no_question() {
    let removed = doc! {"_id": "r", "person": "P", "hr": 70};
    let added =
        doc! {"_id": "r", "person": "P", "bp": {"systolic": 120, "diastolic": 80}, "hr": 70, "rr": 16};
    let rows: Vec<(Kind, Document, Document)> = vec![
        (Kind::Measurement, bp(120, 80), bp(150, 80)),
        (Kind::Measurement, bp(120, 80), bp(150, 95)),
        (Kind::Measurement, bp(120, 80), removed),
        (Kind::Measurement, bp(120, 80), added),
        (Kind::Page, page("before"), page("after")),
        (Kind::PersonalDocument, with_content('a', 7), with_content('b', 7)),
        (Kind::PersonalDocument, with_content('a', 7), with_content('b', 9)),
    ];
    for (kind, unsent, new) in rows {
        let mut other = unsent.clone();
        other.insert("note", "agreed");
        for agreed in [None, Some(other)] {
            let set_back = SetBack::new(kind, agreed, &[Some(unsent.clone())]).await;
            let node = set_back.goes_on(&[Some(new.clone())]).await;
            assert_eq!(open(&node), [], "{new}");
            assert_eq!(set_back.centre(), Some(new.clone()));
        }
    }
}

#[tokio::test]
async fn a_delete_made_afterwards_is_carried_out() {
    for agreed in [None, Some(page("agreed"))] {
        let set_back = SetBack::new(Kind::Page, agreed.clone(), &[Some(page("unsent"))]).await;
        let node = set_back.goes_on(&[None]).await;
        assert_eq!((set_back.centre(), open(&node)), (None, vec![]));
        let trash = node.store.read().unwrap().trash().unwrap();
        assert_eq!(trash.len(), 1);
        assert_eq!(trash[0].state.name(), "done");
        // Edited first, and deleted then.
        let set_back = SetBack::new(Kind::Page, agreed.clone(), &[Some(page("unsent"))]).await;
        let node = set_back.goes_on(&[Some(page("new")), None]).await;
        assert_eq!((set_back.centre(), open(&node)), (None, vec![]));
        // An edit of somebody else stands against it, and is asked about.
        let set_back = SetBack::new(Kind::Page, agreed, &[Some(page("unsent"))]).await;
        set_back.sim.put(Kind::Page, page("theirs"));
        let node = set_back.goes_on(&[None]).await;
        assert_eq!(set_back.centre(), Some(page("theirs")));
        assert_eq!(open(&node), [(String::new(), None, Some(page("theirs").into()))]);
    }
}

/// A record that only ever was on this node and is deleted there is nothing to anybody.
#[tokio::test]
async fn a_delete_of_what_was_never_delivered_is_no_news() {
    let set_back = SetBack::new(Kind::Page, Some(page("agreed")), &[Some(page("unsent"))]).await;
    let own = RecordKey::new(Kind::Page, "own");
    for document in [Some(doc! {"_id": "own", "book": "P", "info": "own"}), None] {
        let node = Node::on_disk(&set_back.file("image"), &set_back.sim);
        let (at, actor) = (own.clone(), Actor::Local("tech".to_owned()));
        node.store.transact(move |tx| tx.edit(&at, document.as_ref(), &actor)).await.unwrap();
    }
    // Somebody else's under the same id.
    let theirs = doc! {"_id": "own", "book": "P", "info": "theirs"};
    set_back.sim.put(Kind::Page, theirs.clone());
    set_back.goes_on(&[]).await;
    assert_eq!(set_back.sim.get(Kind::Page, "own"), Some(theirs));
}

#[tokio::test]
async fn what_earlier_processes_left_is_what_was_delivered() {
    let versions = [Some(page("first")), Some(page("second")), Some(page("third"))];
    let set_back = SetBack::new(Kind::Page, None, &versions).await;
    let node = set_back.goes_on(&[Some(page("fourth")), Some(page("fifth"))]).await;
    assert_eq!((open(&node), set_back.centre()), (vec![], Some(page("fifth"))));
    // Made again after a delete that was delivered.
    let set_back = SetBack::new(Kind::Page, Some(page("agreed")), &[Some(page("first")), None]).await;
    let node = set_back.goes_on(&[Some(page("again"))]).await;
    assert_eq!((open(&node), set_back.centre()), (vec![], Some(page("again"))));
}

/// Others have changed it too: one conflict for each value, with what both sides have, and each decision gives whole records.
#[tokio::test]
async fn a_conflict_shows_what_the_node_has_and_taking_it_loses_nothing() {
    let rows: Vec<(Kind, Document, Document, Document, &str, Document)> = vec![
        (Kind::Measurement, bp(120, 80), bp(150, 80), bp(130, 80), "bp.systolic", bp(150, 80)),
        // The other part is theirs, and was not edited here since: delivered, and overwritten.
        (Kind::Measurement, bp(120, 80), bp(120, 80), bp(120, 85), "bp.diastolic", bp(120, 80)),
        (
            Kind::PersonalDocument,
            with_content('a', 7),
            with_content('b', 7),
            with_content('c', 7),
            "content",
            with_content('b', 7),
        ),
        (
            Kind::PersonalDocument,
            with_content('a', 7),
            with_content('a', 7),
            with_content('c', 9),
            "content",
            with_content('a', 7),
        ),
    ];
    for (kind, unsent, new, theirs, path, taken) in rows {
        let mut other = unsent.clone();
        if kind == Kind::Measurement {
            other.insert("bp", doc! {"systolic": 1, "diastolic": 1});
        } else {
            other.extend(with_content('0', 1));
        }
        for agreed in [None, Some(other)] {
            let set_back = SetBack::new(kind, agreed, &[Some(unsent.clone())]).await;
            set_back.sim.put(kind, theirs.clone());
            let node = set_back.goes_on(&[Some(new.clone())]).await;
            let value = |document: &Document| {
                let path: Vec<String> = path.split('.').map(str::to_owned).collect();
                thalamus_edge::domain::diff::get(document, &path).cloned()
            };
            assert_eq!(open(&node), [(path.to_owned(), value(&new), value(&theirs))], "{new} {theirs}");
            assert_eq!(set_back.centre(), Some(theirs.clone()));
            take_local(&node).await;
            node.complete().await;
            assert_eq!((open(&node), set_back.centre()), (vec![], Some(taken.clone())));
        }
    }
}

/// It is put back once more, to a copy in which that edit still waits, because the centre refused it: it is new all the same.
#[tokio::test]
async fn an_edit_that_waits_over_a_second_time_is_still_new() {
    for (new, agreed) in [(Some(page("new")), None), (Some(page("new")), Some(page("agreed"))), (None, None)]
    {
        let set_back = SetBack::new(Kind::Page, agreed, &[Some(page("unsent"))]).await;
        let (image, second) = (set_back.file("image"), set_back.file("second"));
        set_back.edit(&Node::on_disk(&image, &set_back.sim), new.clone()).await;
        set_back.sim.state().refused.push("r".to_owned());
        let goes_on = |file: std::path::PathBuf| {
            let sim = set_back.sim.clone();
            async move {
                let node = Node::on_disk(&file, &sim);
                for _ in 0..2 {
                    node.sync.round().await;
                }
                node
            }
        };
        goes_on(image.clone()).await;
        assert_eq!(set_back.centre(), Some(page("unsent")), "{new:?}");
        std::fs::copy(&image, &second).unwrap();
        goes_on(image).await;
        goes_on(second.clone()).await;
        set_back.sim.state().refused.clear();
        let node = Node::on_disk(&second, &set_back.sim);
        node.store.transact(|tx| tx.retry_refused()).await.unwrap();
        node.complete().await;
        assert_eq!((set_back.centre(), open(&node)), (new, vec![]));
    }
}
