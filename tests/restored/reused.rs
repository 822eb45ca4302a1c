//! An image is put back, and the account and the ids in it have gone to another person at the centre meanwhile.
//!
//! What the image holds was delivered. None of it may be mixed with what is the other person's by now: not in the book
//! that is shown here, not in a conflict, not at the centre.

use super::*;
use thalamus_edge::store::{ConflictStatus, Subject};
use thalamus_edge::sync::conflicts::{Decision, ResolveError, resolve};
use thalamus_edge::sync::identity::{Verdict, decide, hold_of};

const ACCT: &str = "RST4X";
const NEW: &str = "NEW4X";

fn ann() -> Document {
    doc! {"_id": ACCT, "name": "Ann", "lastname": "Alpha", "dob": "1980-01-01", "gender": "f"}
}

fn bertha(id: &str) -> Document {
    doc! {"_id": id, "name": "Bertha", "lastname": "Beta", "dob": "1951-05-05", "gender": "f"}
}

fn page() -> RecordKey {
    RecordKey::new(Kind::Page, "r4")
}

/// The page as both sides had it.
fn agreed() -> Document {
    doc! {"_id": "r4", "book": ACCT, "t": "ann", "v": 1}
}

/// The page of the other person under the same id.
fn berthas(book: &str) -> Document {
    doc! {"_id": "r4", "book": book, "t": "bertha"}
}

/// What was done to the page here, and delivered after the image was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Nothing,
    Edited,
    Nulled,
    Made,
    Deleted,
}

impl Done {
    const ALL: [Done; 5] = [Done::Nothing, Done::Edited, Done::Nulled, Done::Made, Done::Deleted];

    /// The page in the image.
    fn page(self) -> Option<Document> {
        let mut page = agreed();
        match self {
            Done::Nothing => {}
            Done::Edited => drop(page.insert("u", "ann-edited")),
            Done::Nulled => drop(page.insert("t", Bson::Null)),
            Done::Made => page = doc! {"_id": "r4", "book": ACCT, "t": "ann-made"},
            Done::Deleted => return None,
        }
        Some(page)
    }
}

/// Who has the account at the centre when the image goes on, and in which spelling; the page is that person's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Bertha,
    OtherSpelling,
    /// The person is gone, and nobody knows whose the page is.
    Nobody,
}

impl Then {
    const ALL: [Then; 3] = [Then::Bertha, Then::OtherSpelling, Then::Nobody];

    fn account(self) -> &'static str {
        if self == Then::OtherSpelling { "rst4x" } else { ACCT }
    }
}

struct Scene {
    _directory: tempfile::TempDir,
    sim: Sim,
    node: Node,
}

async fn write(node: &Node, key: RecordKey, document: Option<Document>) {
    let actor = Actor::Local("tech".to_owned());
    node.store.transact(move |tx| tx.edit(&key, document.as_ref(), &actor)).await.unwrap();
}

/// Whether the field holds this text.
fn is(document: &Document, field: &str, text: &str) -> bool {
    document.get_str(field).is_ok_and(|found| found == text)
}

fn here(node: &Node, key: &RecordKey) -> Option<Document> {
    let record = node.store.read().unwrap().record(key).unwrap()?;
    Some(Document::try_from(record.document.as_ref()).unwrap())
}

impl Scene {
    /// The image is put back after its edits were delivered, and after the centre has become another. It has had no
    /// round yet.
    async fn new(done: Done, then: Then, has_history: bool) -> Scene {
        let directory = tempfile::tempdir().unwrap();
        let (file, image) = (directory.path().join("store"), directory.path().join("image"));
        let sim = centre(has_history);
        sim.put(Kind::Person, ann());
        if done != Done::Made {
            sim.put(Kind::Page, agreed());
        }
        let node = Node::on_disk(&file, &sim);
        node.complete().await;
        // The centre has to know whose images these are.
        node.set("OWN", "own").await;
        node.complete().await;
        if done != Done::Nothing {
            write(&node, page(), done.page()).await;
        }
        drop(node);
        std::fs::copy(&file, &image).unwrap();
        Node::on_disk(&file, &sim).complete().await;
        sim.remove(Kind::Person, ACCT);
        sim.remove(Kind::Page, "r4");
        if then != Then::Nobody {
            sim.put(Kind::Person, bertha(then.account()));
        }
        sim.put(Kind::Page, berthas(then.account()));
        let node = Node::on_disk(&image, &sim);
        Scene { _directory: directory, sim, node }
    }

    async fn rounds(&self) {
        for _ in 0..3 {
            self.node.complete().await;
        }
    }

    /// The conflicts that wait, with what they are about.
    fn open(&self) -> Vec<Conflict> {
        let conflicts = self.node.store.read().unwrap().conflicts().unwrap();
        conflicts.into_iter().filter(|conflict| conflict.status == ConflictStatus::Open).collect()
    }

    async fn takes_local(&self, what: &str) {
        for conflict in self.open().into_iter().filter(|conflict| conflict.subject == Subject::Value) {
            let record = here(&self.node, &conflict.key);
            let seen = thalamus_edge::sync::conflicts::current_value(&conflict, record.as_ref());
            let taken =
                resolve(&self.node.store, &conflict.id, Decision::TakeLocal, seen, clerk(), |_, _, _| Ok(()))
                    .await;
            assert!(!matches!(taken, Err(ResolveError::Store(_))), "{what}: {taken:?}");
        }
    }

    /// Decides that the two are two.
    async fn parts(&self) {
        for conflict in self.open().into_iter().filter(Conflict::is_identity) {
            let pair = hold_of(&self.node.store.read().unwrap(), &conflict).unwrap().unwrap().1;
            let verdict = Verdict::NewId(NEW.to_owned());
            decide(&self.node.store, &conflict.id, verdict, pair, clerk()).await.unwrap();
        }
    }

    /// The pages here.
    fn pages(&self) -> Vec<Document> {
        let snapshot = self.node.store.read().unwrap();
        let listed = snapshot.list(Kind::Page, None, 100, 1 << 20).unwrap().records;
        listed.iter().map(|record| Document::try_from(record.document.as_ref()).unwrap()).collect()
    }

    /// Whether a page of Bertha's is in this book here.
    fn has_berthas(&self, account: &str) -> bool {
        let is_hers = |page: &Document| is(page, "t", "bertha");
        self.pages().iter().any(|page| is_hers(page) && is(page, "book", account))
    }

    fn trash(&self) -> Vec<Document> {
        self.node.store.read().unwrap().trash().unwrap().into_iter().map(|row| row.document).collect()
    }
}

fn centre(has_history: bool) -> Sim {
    if has_history { Sim::with_history() } else { Sim::default() }
}

fn clerk() -> Actor {
    Actor::Person("CLERK".to_owned())
}

/// Nothing of one of the two is with the other one.
fn assert_apart(scene: &Scene, then: Then, what: &str) {
    assert_eq!(scene.sim.get(Kind::Page, "r4"), Some(berthas(then.account())), "{what}: at the centre");
    for (_, document) in scene.sim.state().records.iter().filter(|((kind, _), _)| *kind == Kind::Page) {
        let is_berthas = is(document, "t", "bertha");
        let is_in_hers = is(document, "book", then.account());
        assert_eq!(is_berthas, is_in_hers, "{what}: {document}");
    }
    let is_ann_here = here(&scene.node, &key(ACCT)).is_some_and(|person| is(&person, "name", "Ann"));
    if is_ann_here {
        assert!(!scene.has_berthas(ACCT), "{what}: in Ann's book");
    }
    assert!(!scene.has_berthas(NEW), "{what}: under Ann's new account");
    let is_hers_lost = scene.trash().iter().any(|document| is(document, "t", "bertha"));
    assert!(!is_hers_lost, "{what}: in the trash");
    let values: Vec<_> = scene.open().into_iter().filter(|open| open.subject == Subject::Value).collect();
    assert!(values.is_empty(), "{what}: {values:?}");
}

/// What the image held of Ann's is somewhere: in her book, or in the trash.
fn assert_kept(scene: &Scene, done: Done, what: &str) {
    let Some(page) = done.page() else {
        return;
    };
    let same = |found: &Document| {
        let fields = ["t", "u", "v"].into_iter();
        fields.filter(|field| page.contains_key(field)).all(|field| found.get(field) == page.get(field))
    };
    let mut pages = scene.pages();
    pages.extend(scene.trash());
    assert!(pages.iter().any(same), "{what}: {pages:?}");
}

#[tokio::test]
async fn records_of_two_people_are_not_mixed() {
    for then in Then::ALL {
        for done in Done::ALL {
            for (is_first, has_history) in [(true, true), (false, true), (true, false), (false, false)] {
                let what = format!("{then:?}, {done:?}, values first: {is_first}, history: {has_history}");
                let scene = Scene::new(done, then, has_history).await;
                scene.node.complete().await;
                assert_apart(&scene, then, &what);
                assert_kept(&scene, done, &what);
                if is_first {
                    scene.takes_local(&what).await;
                    scene.parts().await;
                } else {
                    scene.parts().await;
                    scene.rounds().await;
                    scene.takes_local(&what).await;
                }
                scene.rounds().await;
                assert_apart(&scene, then, &what);
                assert_kept(&scene, done, &what);
                assert_eq!(scene.node.pending(), 0, "{what}");
            }
        }
    }
}

/// What was on its way when the image was made is settled by reading, and the same holds for it.
#[tokio::test]
async fn a_write_on_its_way_in_an_image_is_not_settled_by_another_ones_record() {
    for has_history in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let (file, image) = (directory.path().join("store"), directory.path().join("image"));
        let sim = centre(has_history);
        sim.put(Kind::Person, ann());
        sim.put(Kind::Page, agreed());
        let node = Node::on_disk(&file, &sim);
        node.complete().await;
        write(&node, page(), Done::Edited.page()).await;
        sim.state().write_faults.push_back(Fault::LostRequest);
        node.ends(Outcome::Offline).await;
        assert_eq!(node.store.read().unwrap().intents().unwrap().len(), 1);
        drop(node);
        std::fs::copy(&file, &image).unwrap();
        let what = format!("history: {has_history}");
        // Else it is no image, but the node itself.
        if has_history {
            Node::on_disk(&file, &sim).complete().await;
        }
        sim.remove(Kind::Person, ACCT);
        sim.remove(Kind::Page, "r4");
        sim.put(Kind::Person, bertha(ACCT));
        sim.put(Kind::Page, berthas(ACCT));
        let scene = Scene { _directory: directory, node: Node::on_disk(&image, &sim), sim };
        scene.node.complete().await;
        assert_apart(&scene, Then::Bertha, &what);
        scene.parts().await;
        scene.rounds().await;
        assert_apart(&scene, Then::Bertha, &what);
        assert_kept(&scene, Done::Edited, &what);
        let ids: Vec<_> =
            scene.sim.state().records.keys().filter(|(kind, _)| *kind == Kind::Page).cloned().collect();
        assert_eq!(ids.len(), 2, "{what}: Ann's went with her");
    }
}

/// A line that carries little: the sweep takes rounds to pass the people, and news of a record comes before that.
#[tokio::test]
async fn news_of_a_record_waits_until_the_sweep_has_passed_its_person() {
    let directory = tempfile::tempdir().unwrap();
    let (file, image) = (directory.path().join("store"), directory.path().join("image"));
    let sim = Sim::with_history();
    for n in 0..1000 {
        sim.put(Kind::Person, person(&format!("P{n:04}"), "old"));
    }
    sim.put(Kind::Person, ann());
    sim.put(Kind::Page, agreed());
    let node = Node::on_disk(&file, &sim);
    node.complete().await;
    write(&node, page(), Done::Edited.page()).await;
    drop(node);
    std::fs::copy(&file, &image).unwrap();
    Node::on_disk(&file, &sim).complete().await;
    sim.remove(Kind::Person, ACCT);
    sim.remove(Kind::Page, "r4");
    sim.put(Kind::Person, bertha(ACCT));
    sim.put(Kind::Page, doc! {"_id": "r4", "book": ACCT, "t": "bertha at first"});
    sim.state().line_bytes_per_document = 1000;
    let settings = SyncSettings { scan_bytes_per_round: 100_000, ..SyncSettings::default() };
    let node = Node::with(Store::open(&image, options()).unwrap(), &sim, settings);
    node.ends(Outcome::Partial).await;
    let scene = Scene { _directory: directory, node, sim };
    // An edit at the centre, and one of Ann's here, while nobody knows here that the account is Bertha's.
    scene.sim.put(Kind::Page, berthas(ACCT));
    scene.sim.put(Kind::Page, doc! {"_id": "r5", "book": ACCT, "t": "bertha"});
    write(
        &scene.node,
        RecordKey::new(Kind::Page, "own"),
        Some(doc! {"_id": "own", "book": ACCT, "t": "ann-own"}),
    )
    .await;
    let mut rounds = 0;
    loop {
        let report = scene.node.sync.round().await;
        assert_apart(&scene, Then::Bertha, &format!("round {rounds}"));
        if report.outcome == Outcome::Complete {
            break;
        }
        rounds += 1;
        assert!(rounds < 20, "{report:?}");
    }
    assert!(rounds > 0);
    scene.parts().await;
    scene.rounds().await;
    assert_apart(&scene, Then::Bertha, "in the end");
    assert_kept(&scene, Done::Edited, "in the end");
}
