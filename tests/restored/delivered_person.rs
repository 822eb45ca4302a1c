//! A person who was made on a node and is in an older image of it, unsent; they were sent since. When the image goes on and somebody
//! else is written over them, nothing here says any more who they were: the two are asked about all the same.

use super::written_over::{ACCT, NEW, ann, answer, book, carl, page, write};
use super::*;
use thalamus_edge::store::HoldReason;

/// How the other one is written.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    AtOnce,
    Names,
    StepByStep,
}

/// How the store comes to be older than what was sent.
#[derive(Debug, Clone, Copy, PartialEq)]
enum From {
    Image,
    /// The node had been at the centre before it made the person.
    KnownImage,
    /// The original goes on too.
    Copy,
}

fn with(mut document: Document, fields: Document) -> Document {
    document.extend(fields);
    document
}

fn steps(way: Way) -> Vec<Document> {
    let names = doc! {"name": "Carl", "lastname": "Gamma"};
    match way {
        Way::AtOnce => vec![with(secret(), carl())],
        Way::Names => vec![with(secret(), names)],
        Way::StepByStep => vec![with(secret(), doc! {"name": "Carl"}), with(secret(), names)],
    }
}

/// Ann, with a password.
fn secret() -> Document {
    with(ann(), doc! {"phone": "1", "password": "$2b$04$ann", "roles": ["doctor"]})
}

struct Scene {
    _directory: tempfile::TempDir,
    sim: Sim,
    /// That goes on from the image.
    node: Node,
}

/// Ann is in the image with a page, and has been sent since; another node has added one.
async fn delivered(from: From) -> Scene {
    let directory = tempfile::tempdir().unwrap();
    let (file, image) = (directory.path().join("store"), directory.path().join("image"));
    let sim = Sim::default();
    let node = Node::on_disk(&file, &sim);
    if from == From::KnownImage {
        node.set("OWN", "own").await;
        node.complete().await;
    }
    write(&node, (key(ACCT), secret())).await;
    write(&node, page("a0", "Ann, in the image")).await;
    drop(node);
    std::fs::copy(&file, &image).unwrap();
    let node = Node::on_disk(&file, &sim);
    node.complete().await;
    sim.put(Kind::Page, page("p1", "Ann, elsewhere").1);
    if from == From::Copy {
        node.complete().await;
    }
    drop(node);
    Scene { _directory: directory, node: Node::on_disk(&image, &sim), sim }
}

fn why(node: &Node) -> Option<HoldReason> {
    node.store.read().unwrap().hold(ACCT).unwrap().map(|hold| hold.why)
}

#[tokio::test]
async fn another_one_who_is_written_in_the_image_is_asked_about() {
    for from in [From::Image, From::KnownImage, From::Copy] {
        for way in [Way::AtOnce, Way::Names, Way::StepByStep] {
            for is_same in [false, true] {
                let what = format!("{from:?} {way:?} {is_same}");
                let Scene { _directory, sim, node } = delivered(from).await;
                write(&node, page("a1", "Ann, since then")).await;
                for step in steps(way) {
                    write(&node, (key(ACCT), step)).await;
                }
                write(&node, page("c1", "Carl")).await;
                for _ in 0..2 {
                    node.complete().await;
                    assert_eq!(why(&node), Some(HoldReason::Rewritten), "{what}");
                    assert_eq!(book(&sim, ACCT), ["Ann, elsewhere", "Ann, in the image"], "{what}");
                    assert_eq!(sim.get(Kind::Person, ACCT), Some(secret()), "{what}");
                }
                let verdict = if is_same { Verdict::Same } else { Verdict::NewId(NEW.to_owned()) };
                answer(&node, verdict).await;
                for _ in 0..3 {
                    node.complete().await;
                }
                let all =
                    ["Ann, elsewhere", "Ann, in the image", "Ann, since then", "Carl"].map(str::to_owned);
                let expected = if is_same { (&all[..], &all[4..]) } else { (&all[..3], &all[3..]) };
                let found = (book(&sim, ACCT), book(&sim, NEW));
                assert_eq!((&found.0[..], &found.1[..]), expected, "{what}");
                assert_eq!(node.pending(), 0, "{what}");
                if !is_same {
                    assert_eq!(sim.get(Kind::Person, ACCT), Some(secret()), "{what}");
                    let moved = sim.get(Kind::Person, NEW).unwrap();
                    assert_eq!(moved.get_str("name").unwrap(), "Carl", "{what}");
                    assert_eq!(moved.get("password"), None, "{what}: it opens Ann's account");
                }
            }
        }
    }
}

/// At the centre the account is a third one's by then: neither gets what is the other's.
#[tokio::test]
async fn a_third_one_at_the_centre_is_not_mixed_with_them() {
    let Scene { _directory, sim, node } = delivered(From::Image).await;
    let dora = doc! {"_id": ACCT, "name": "Dora", "lastname": "Delta", "dob": "1999-09-09", "gender": "f"};
    sim.put(Kind::Person, dora.clone());
    sim.put(Kind::Page, page("d1", "Dora").1);
    write(&node, (key(ACCT), with(secret(), carl()))).await;
    write(&node, page("c1", "Carl")).await;
    for _ in 0..2 {
        node.complete().await;
        assert!(why(&node).is_some());
        assert_eq!(sim.get(Kind::Page, "c1"), None);
    }
    answer(&node, Verdict::NewId(NEW.to_owned())).await;
    for _ in 0..3 {
        node.complete().await;
    }
    assert_eq!(book(&sim, NEW), ["Carl"]);
    assert_eq!(sim.get(Kind::Person, ACCT), Some(dora));
}

/// A correction is no other person: nobody is asked who that is.
#[tokio::test]
async fn a_correction_in_the_image_is_no_question_about_people() {
    for fields in [doc! {"dob": "1980-01-02"}, doc! {"phone": "2"}, doc! {"name": "ANN", "lastname": "ALPHA"}]
    {
        let Scene { _directory, sim, node } = delivered(From::Image).await;
        write(&node, (key(ACCT), with(secret(), fields.clone()))).await;
        write(&node, page("a1", "Ann, since then")).await;
        for _ in 0..3 {
            node.complete().await;
        }
        assert_eq!(why(&node), None, "{fields}");
        assert_eq!(node.pending(), 0, "{fields}");
        assert_eq!(book(&sim, ACCT), ["Ann, elsewhere", "Ann, in the image", "Ann, since then"], "{fields}");
    }
}

/// The same one was written elsewhere: that is one person by now.
#[tokio::test]
async fn the_same_one_at_the_centre_is_no_question() {
    let Scene { _directory, sim, node } = delivered(From::Image).await;
    sim.put(Kind::Person, with(secret(), carl()));
    write(&node, (key(ACCT), with(secret(), carl()))).await;
    for _ in 0..3 {
        node.complete().await;
    }
    assert_eq!(why(&node), None);
    assert_eq!(node.pending(), 0);
}
