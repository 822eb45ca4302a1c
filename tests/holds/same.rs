//! "The same person", decided at one node, is not asked at the others.

use bson::{Bson, Document, doc};
use thalamus_edge::domain::record::Kind::Person;
use thalamus_edge::store::{AuditQuery, ConflictStatus};
use thalamus_edge::sync::identity::Verdict;

use super::support::sim::Sim;
use super::{ACCT, Clinic, ana, beatriz, with};

/// Name and day of birth, corrected at the centre.
fn corrected() -> Document {
    with(ana(), doc! {"name": "Anne", "dob": "1985-10-14"})
}

/// Nodes that have agreed on Ana, whose name and day of birth are corrected then.
async fn asked(names: usize) -> Vec<Clinic> {
    let sim = Sim::default();
    sim.put(Person, with(ana(), doc! {"password": "$2b$04$hash"}));
    let nodes: Vec<Clinic> = (0..names).map(|_| Clinic::at(&sim)).collect();
    for node in &nodes {
        node.round().await;
    }
    sim.put(Person, with(corrected(), doc! {"password": "$2b$04$hash"}));
    for node in &nodes {
        node.round().await;
        assert_eq!(node.holds(), 1);
    }
    nodes
}

/// The rows that say that two people are one.
fn answers(sim: &Sim) -> Vec<Document> {
    let rows = sim.state().conflicts.values().cloned().collect::<Vec<_>>();
    let is_answer = |row: &Document| row.get_str("type").is_ok_and(|kind| kind == "identity_answer");
    rows.into_iter().filter(is_answer).collect()
}

#[tokio::test]
async fn the_same_person_is_asked_about_once() {
    let nodes = asked(3).await;
    let sim = nodes[0].sim.clone();
    nodes[0].decide(Verdict::Same).await;
    nodes[0].round().await;
    let answer = answers(&sim);
    assert_eq!(answer.len(), 1, "{answer:?}");
    assert!(!answer[0].to_string().contains("$2b"), "{}", answer[0]);
    let questions: Vec<Document> = sim.state().conflicts.values().cloned().collect();
    let asks = |row: &&Document| row.get("question") == answer[0].get("_id");
    assert_eq!(questions.iter().filter(asks).count(), 3, "{questions:?}");
    for node in &nodes[1..] {
        node.round().await;
        assert_eq!(node.holds(), 0);
        let conflict = node.identity();
        assert_eq!(
            (conflict.status, conflict.resolution.as_deref()),
            (ConflictStatus::Resolved, Some("same"))
        );
        assert_eq!(conflict.resolved_by.as_deref(), Some("centre (person:CLERK)"));
        let query = AuditQuery { verb: Some("decision".to_owned()), limit: 9, ..AuditQuery::default() };
        let trail = node.store.read().unwrap().audit(&query).unwrap();
        assert_eq!(trail.rows.len(), 1);
        let entry = format!("{:?}", trail.rows[0]);
        let by = format!("same, decided by centre (person:CLERK) on node {}", nodes[0].name());
        assert!(entry.contains(&by) && entry.contains("centre"), "{entry}");
    }
    for node in &nodes {
        node.assert_settled().await;
        assert_eq!(node.here(Person, ACCT), sim.get(Person, ACCT));
    }
    assert_eq!(answers(&sim), answer);
    let row = |node: &Clinic| sim.state().conflicts[&node.identity().id].clone();
    for node in &nodes {
        assert_eq!(row(node).get_str("status").unwrap(), "resolved");
    }
    // A node that comes later is not asked either, however it spells the two, and whichever of them is local.
    let late = Clinic::at(&Sim::default());
    late.sim.state().conflicts.extend(sim.state().conflicts.clone());
    late.edit(Person, with(corrected(), doc! {"name": " ÁNNE", "dob": Bson::DateTime(day("1985-10-14"))}))
        .await;
    late.there(Person, with(ana(), doc! {"lastname": "BETZ"}));
    late.round().await;
    assert_eq!((late.holds(), late.identity().status), (0, ConflictStatus::Resolved));
}

/// What one person's name looks like on several keyboards, and the other's.
#[tokio::test]
async fn an_answer_holds_for_the_same_two_however_they_are_typed() {
    let sim = Sim::default();
    let typed = |name: &str, lastname: &str, dob: Bson, gender: &str| {
        doc! {"_id": ACCT, "name": name, "lastname": lastname, "dob": dob, "gender": gender}
    };
    let midnight = Bson::from(bson::DateTime::from_millis(497_228_400_000));
    let people = [
        typed("Seán", "O'Brien-Weiß", "1985-10-04".into(), "f"),
        typed("SEAN", "O’Brien Weiss", midnight, "Female"),
        typed("Sea\u{301}n\u{200F}", "Oʼbrien\u{2011}weiẞ", "1985-10-04T00:00:00+01:00".into(), "femenino"),
    ];
    sim.put(Person, typed("John", "Smith", "1970-01-01".into(), "m"));
    let mut nodes = Vec::new();
    for person in people {
        let node = Clinic::at(&sim);
        node.edit(Person, person).await;
        node.round().await;
        assert_eq!(node.holds(), 1);
        nodes.push(node);
    }
    nodes[0].decide(Verdict::Same).await;
    for node in &nodes {
        node.round().await;
        assert_eq!((node.holds(), node.identity().status), (0, ConflictStatus::Resolved));
    }
    assert_eq!(answers(&sim).len(), 1);
}

fn day(text: &str) -> bson::DateTime {
    bson::DateTime::parse_rfc3339_str(format!("{text}T00:00:00Z")).unwrap()
}

#[tokio::test]
async fn that_two_people_are_two_is_decided_at_every_node() {
    let nodes = asked(2).await;
    nodes[0].decide(Verdict::NewId("NEW01".to_owned())).await;
    for _ in 0..2 {
        for node in &nodes {
            node.round().await;
        }
    }
    assert_eq!((nodes[0].holds(), nodes[1].holds()), (0, 1));
    assert_eq!(answers(&nodes[0].sim), Vec::<Document>::new());
    // Nor does a hold that ended by itself answer anybody.
    nodes[1].there(Person, ana());
    nodes[1].round().await;
    assert_eq!(nodes[1].identity().resolution.as_deref(), Some("ended"));
    assert_eq!(answers(&nodes[0].sim), Vec::<Document>::new());
}

/// Whoever can write at the centre can write an answer. It unites nobody but the two whom it names.
#[tokio::test]
async fn an_answer_unites_only_the_two_that_it_names() {
    let nodes = asked(2).await;
    nodes[0].decide(Verdict::Same).await;
    nodes[0].round().await;
    let [answer] = &answers(&nodes[0].sim)[..] else { panic!() };
    let sides = |a: &Document, b: &Document| vec![Bson::Document(a.clone()), Bson::Document(b.clone())];
    let (old, new) = (ana(), corrected());
    let more = [sides(&old, &new), sides(&old, &new)].concat();
    for (what, fields) in [
        ("another person", doc! {"identities": sides(&old, &beatriz())}),
        ("the same person twice", doc! {"identities": sides(&new, &new)}),
        ("one more", doc! {"identities": more}),
        ("nobody", doc! {"identities": [{}, {}]}),
        ("less of them", doc! {"identities": [{"name": "Ana"}, {"name": "Anne"}]}),
        ("no list", doc! {"identities": "both"}),
        ("a new id", doc! {"resolution": "new_id", "value": "NEW01"}),
        ("no answer", doc! {"resolution": null}),
        ("not decided", doc! {"status": "open"}),
        ("declined", doc! {"status": "declined"}),
    ] {
        nodes[1].sim.set_row("edge_conflicts", with(answer.clone(), fields));
        for _ in 0..2 {
            nodes[1].round().await;
            assert_eq!(nodes[1].holds(), 1, "{what}");
            assert_eq!(nodes[1].identity().status, ConflictStatus::Open, "{what}");
        }
    }
    // The answer to another question, under the id of this one.
    let other = Clinic::at(&Sim::default());
    other.edit(Person, with(ana(), doc! {"name": "Clara"})).await;
    other.there(Person, beatriz());
    other.round().await;
    let rows: Vec<Document> = other.sim.state().conflicts.values().cloned().collect();
    let question = rows[0].get_str("question").unwrap();
    other.sim.set_row("edge_conflicts", with(answer.clone(), doc! {"_id": question}));
    other.round().await;
    assert_eq!(other.holds(), 1);
    // The true one is still taken.
    nodes[1].sim.set_row("edge_conflicts", answer.clone());
    nodes[1].round().await;
    assert_eq!(nodes[1].holds(), 0);
}

/// Until the answer is written at the centre the decision counts as not published.
#[tokio::test]
async fn an_answer_that_is_refused_is_sent_again() {
    let nodes = asked(2).await;
    nodes[0].sim.state().conflicts_refused_about.push(ACCT.to_owned());
    nodes[0].decide(Verdict::Same).await;
    let report = nodes[0].round().await;
    assert!(!report.message.contains("up to date"), "{}", report.message);
    assert_eq!(nodes[0].sync.status().unwrap().conflicts_unpublished, 1);
    nodes[0].sim.state().conflicts_refused_about.clear();
    for node in &nodes {
        node.assert_settled().await;
        assert_eq!(node.holds(), 0);
    }
}

/// A person here whom nobody doubts costs no question.
#[tokio::test]
async fn nothing_is_asked_while_nobody_is_held() {
    let clinic = Clinic::new();
    clinic.there(Person, ana());
    for _ in 0..3 {
        clinic.round().await;
    }
    assert_eq!(clinic.sim.state().resolution_questions, Vec::<usize>::new());
}
