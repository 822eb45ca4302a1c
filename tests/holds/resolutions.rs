//! Decisions that are written into rows of `edge_conflicts`.

use bson::{Bson, Document, doc};
use thalamus_edge::domain::record::Kind::{self, Person};
use thalamus_edge::store::{Conflict, ConflictStatus};
use thalamus_edge::sync::conflicts::{Decision, resolve};

use super::support::sim::Sim;
use super::{Clinic, clerk, with};

pub(super) const ID: &str = "PAT01";

pub(super) fn patient(phone: &str) -> Document {
    doc! {"_id": ID, "active": false, "phone": phone, "other": 1}
}

impl Clinic {
    /// The node's name at the centre.
    pub(super) fn name(&self) -> String {
        self.sync.status().unwrap().node
    }

    /// A node that has agreed on the record, edited it, and lost.
    pub(super) async fn with_conflict(
        kind: Kind,
        base: Document,
        mine: Document,
        theirs: Option<Document>,
    ) -> Clinic {
        let clinic = Clinic::new();
        clinic.lose(kind, base, mine, theirs).await;
        assert_eq!(clinic.conflicts().len(), 1);
        clinic
    }

    /// Both sides change the record; the centre's value stands.
    pub(super) async fn lose(&self, kind: Kind, base: Document, mine: Document, theirs: Option<Document>) {
        let id = base.get_str("_id").unwrap().to_owned();
        if let (Kind::Page, Ok(book)) = (kind, base.get_str("book")) {
            self.there(Person, doc! {"_id": book});
        }
        self.there(kind, base);
        self.round().await;
        self.edit(kind, mine).await;
        match theirs {
            Some(theirs) => self.there(kind, theirs),
            None => self.sim.remove(kind, &id),
        }
        self.round().await;
    }

    pub(super) async fn about_phone() -> Clinic {
        Clinic::with_conflict(Person, patient("old"), patient("mine"), Some(patient("theirs"))).await
    }

    pub(super) fn only(&self) -> Conflict {
        let found = self.conflicts();
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().unwrap()
    }

    pub(super) fn row(&self) -> Document {
        self.sim.state().conflicts[&self.only().id].clone()
    }

    /// The federation's administrator writes into the row of the one conflict.
    pub(super) fn written(&self, fields: Document) {
        let id = self.only().id;
        self.sim.state().conflicts.get_mut(&id).unwrap().extend(fields);
    }

    pub(super) fn phone_there(&self) -> String {
        self.at_centre(Person, ID).unwrap().get_str("phone").unwrap().to_owned()
    }

    /// Staff of the node decide.
    pub(super) async fn resolve(&self, decision: Decision, seen: &str) {
        let allow = |_: &_, _: Option<&_>, _: Option<&_>| Ok(());
        let id = self.conflicts().into_iter().find(|c| c.status == ConflictStatus::Open).unwrap().id;
        resolve(&self.store, &id, decision, Some(seen.into()), clerk(), allow).await.unwrap();
    }

    /// The reasons of the notes on the one conflict.
    pub(super) fn notes(&self) -> Vec<String> {
        self.only().notes.into_iter().map(|note| note.reason).collect()
    }
}

#[tokio::test]
async fn a_decision_at_the_centre_is_carried_out_by_the_node_that_lost() {
    for (decision, phone) in [
        (doc! {"resolution": "local"}, "mine"),
        (doc! {"resolution": "central"}, "theirs"),
        (doc! {"resolution": "value", "value": "agreed"}, "agreed"),
        (doc! {"resolution": "value", "value": "theirs"}, "theirs"),
    ] {
        // Closed by whoever decided, or left for the node to close.
        for status in ["resolved", "open"] {
            for by in [Some("head office"), Some("local:admin"), None] {
                let what = format!("{decision} {status} {by:?}");
                let clinic = Clinic::about_phone().await;
                let mut fields = with(decision.clone(), doc! {"status": status});
                fields.extend(by.map(|by| doc! {"resolved_by": by}).unwrap_or_default());
                clinic.written(fields);
                clinic.assert_settled().await;
                assert_eq!(clinic.phone_there(), phone, "{what}");
                let closed = clinic.only();
                assert_eq!(closed.status, ConflictStatus::Resolved, "{what}");
                assert_eq!(closed.resolution.as_deref(), decision.get_str("resolution").ok(), "{what}");
                assert_eq!(closed.value.as_ref(), decision.get("value"), "{what}");
                let by = format!("centre ({})", by.unwrap_or("the federation's administrator"));
                assert_eq!(closed.resolved_by.as_ref(), Some(&by), "{what}");
                assert_eq!(closed.notes, [], "{what}");
                let row = clinic.row();
                assert_eq!(row.get_str("status").unwrap(), "resolved", "{what}");
                assert_eq!(row.get("resolution"), decision.get("resolution"), "{what}");
                assert_eq!(row.get_str("applied_by").unwrap(), clinic.name(), "{what}");
            }
        }
    }
}

/// Nobody is asked about decisions while nothing waits for one.
#[tokio::test]
async fn decisions_are_asked_for_only_while_some_are_due() {
    let questions = |clinic: &Clinic| std::mem::take(&mut clinic.sim.state().resolution_questions);
    let clinic = Clinic::new();
    clinic.edit(Person, patient("mine")).await;
    clinic.round().await;
    assert_eq!(questions(&clinic), Vec::<usize>::new());
    for n in 0..601 {
        clinic.there(Person, doc! {"_id": format!("P{n:04}"), "f": "old"});
    }
    clinic.round().await;
    for n in 0..601 {
        let id = format!("P{n:04}");
        clinic.edit(Person, doc! {"_id": &id, "f": "mine"}).await;
        clinic.there(Person, doc! {"_id": &id, "f": "theirs"});
    }
    clinic.round().await;
    assert_eq!(questions(&clinic), [500, 101]);
    let last = clinic.sim.state().conflicts.values_mut().last().map(|row| {
        row.extend(doc! {"status": "resolved", "resolution": "central"});
        row.get_str("_id").unwrap().to_owned()
    });
    clinic.round().await;
    // And once whether the decision that was carried out stands.
    assert_eq!(questions(&clinic), [500, 101, 1]);
    let open = clinic.store.read().unwrap().open_conflicts_count().unwrap();
    let closed = clinic.store.read().unwrap().conflict(&last.unwrap()).unwrap().unwrap();
    assert_eq!((open, closed.status), (600, ConflictStatus::Resolved));
}

/// A decision about a part says nothing about what has come to stand in place of the whole.
#[tokio::test]
async fn a_decision_about_a_part_does_not_replace_what_is_there_instead() {
    let address = |address: Option<Bson>| {
        let address = address.map(|address| doc! {"address": address}).unwrap_or_default();
        with(doc! {"_id": ID, "active": false}, address)
    };
    let of_street = |street: &str| address(Some(doc! {"street": street}.into()));
    let clinic = Clinic::with_conflict(
        Person,
        of_street("old"),
        of_street("mine"),
        Some(address(Some(doc! {}.into()))),
    )
    .await;
    clinic.there(Person, address(Some("by the river".into())));
    clinic.round().await;
    clinic.written(doc! {"status": "resolved", "resolution": "local", "resolved_by": "office"});
    clinic.round().await;
    assert_eq!(clinic.notes(), ["the value has changed meanwhile"]);
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Person, ID).unwrap().get_str("address").unwrap(), "by the river");
    // Staff who see it may decide so all the same.
    clinic.resolve(Decision::TakeLocal, "by the river").await;
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Person, ID).unwrap(), of_street("mine"));
    // Nor if it is the same that was to stand.
    let clinic =
        Clinic::with_conflict(Person, of_street("old"), of_street("mine"), Some(of_street("theirs"))).await;
    clinic.there(Person, address(Some("theirs".into())));
    clinic.round().await;
    clinic.written(doc! {"status": "resolved", "resolution": "local", "resolved_by": "office"});
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Person, ID).unwrap(), address(Some("theirs".into())));
}

/// What was to be decided has come about already, by whatever way.
#[tokio::test]
async fn an_edit_that_finds_its_value_there_is_no_edit() {
    let clinic = Clinic::about_phone().await;
    clinic.there(Person, patient("mine"));
    clinic.round().await;
    clinic.written(doc! {"status": "resolved", "resolution": "local"});
    let changes = clinic.store.changes();
    let before = *changes.borrow();
    clinic.round().await;
    assert_eq!((clinic.only().status, *changes.borrow()), (ConflictStatus::Resolved, before));
    assert_eq!(clinic.notes(), Vec::<String>::new());
}

/// Passwords are decided at the node, or given up.
#[tokio::test]
async fn secrets_are_never_taken_from_a_row() {
    let secret = |hash: &str| with(patient("p"), doc! {"password": hash});
    for (written, is_closed) in [
        (doc! {"resolution": "central"}, true),
        (doc! {"resolution": "local"}, false),
        (doc! {"resolution": "value", "value": "$2b$04$stolen"}, false),
    ] {
        let theirs = Some(secret("$2b$04$theirs"));
        let clinic = Clinic::with_conflict(Person, secret("$2b$04$old"), secret("$2b$04$mine"), theirs).await;
        let text = clinic.row().to_string();
        assert!(!text.contains("$2b") && text.contains("changed at node"), "{text}");
        clinic.written(with(written.clone(), doc! {"status": "resolved"}));
        clinic.round().await;
        clinic.round().await;
        let conflict = clinic.only();
        assert_eq!(conflict.status == ConflictStatus::Resolved, is_closed, "{written}");
        assert_eq!(conflict.notes.len(), usize::from(!is_closed), "{written}");
        assert!(conflict.notes.iter().all(|note| note.value.is_none()), "{written}");
        assert_eq!(clinic.at_centre(Person, ID), Some(secret("$2b$04$theirs")), "{written}");
        assert_eq!(clinic.here(Person, ID), Some(secret("$2b$04$theirs")), "{written}");
    }
}

/// One side had deleted the record: the decision is about all of it.
#[tokio::test]
async fn whole_records_are_decided_too() {
    let hash = doc! {"password": "$2b$04$hash"};
    let local = with(patient("mine"), hash.clone());
    let value = |phone: &str| {
        let value = with(patient(phone), doc! {"password": "$2b$04$stolen"});
        doc! {"resolution": "value", "value": value}
    };
    let refused = "the value has changed meanwhile";
    for (what, active, then, written, left, note) in [
        ("keep", false, None, doc! {"resolution": "local"}, Some("mine"), None),
        ("keep, edited since", false, Some("newer"), doc! {"resolution": "local"}, Some("newer"), None),
        ("let go", false, None, doc! {"resolution": "central"}, None, None),
        (
            "let go, edited since",
            false,
            Some("newer"),
            doc! {"resolution": "central"},
            Some("newer"),
            Some(refused),
        ),
        (
            "let an active person go",
            true,
            None,
            doc! {"resolution": "central"},
            Some("mine"),
            Some("The user is active."),
        ),
        ("another body", false, None, value("new"), Some("new"), None),
        (
            "somebody else's body",
            false,
            None,
            doc! {"resolution": "value", "value": {"_id": "OTHER1"}},
            Some("mine"),
            Some("it would change the record's id"),
        ),
    ] {
        let active = doc! {"active": active};
        let mine = with(local.clone(), active.clone());
        let base = with(with(patient("old"), hash.clone()), active.clone());
        let clinic = Clinic::with_conflict(Person, base, mine.clone(), None).await;
        assert!(!clinic.row().to_string().contains("$2b"), "{what}");
        if let Some(phone) = then {
            clinic.edit(Person, with(mine, doc! {"phone": phone})).await;
        }
        clinic.written(with(written, doc! {"status": "resolved"}));
        clinic.assert_settled().await;
        let there = clinic.at_centre(Person, ID);
        assert_eq!(there.as_ref().map(|there| there.get_str("phone").unwrap()), left, "{what}");
        assert!(there.is_none_or(|there| there.get_str("password").unwrap() == "$2b$04$hash"), "{what}");
        assert_eq!(clinic.notes(), note.into_iter().collect::<Vec<_>>(), "{what}");
        assert!(!clinic.row().to_string().contains("stolen"), "{what}: {}", clinic.row());
        assert_eq!(clinic.only().status == ConflictStatus::Open, note.is_some(), "{what}");
    }
}

// ------------------------------------------------------------------------------------------- several nodes

/// Two nodes that lost the same value against the same one: one conflict.
pub(super) async fn two_nodes() -> (Clinic, Clinic) {
    let sim = Sim::default();
    sim.put(Person, patient("old"));
    let (north, south) = (Clinic::at(&sim), Clinic::at(&sim));
    for node in [&north, &south] {
        node.round().await;
        node.edit(Person, patient("mine")).await;
    }
    sim.put(Person, patient("theirs"));
    for node in [&north, &south] {
        node.round().await;
    }
    assert_eq!(north.only().id, south.only().id);
    assert_eq!(sim.state().conflicts.len(), 1);
    (north, south)
}

#[tokio::test]
async fn one_node_carries_out_what_the_administrator_decided() {
    for south_first in [false, true] {
        let (north, south) = two_nodes().await;
        north.written(doc! {"status": "resolved", "resolution": "local"});
        let order = if south_first { [&south, &north] } else { [&north, &south] };
        order[0].round().await;
        // North published it.
        assert_eq!(north.phone_there(), if south_first { "theirs" } else { "mine" });
        for node in order {
            node.round().await;
        }
        for node in order {
            node.assert_settled().await;
            assert_eq!((node.only().status, node.phone_there().as_str()), (ConflictStatus::Resolved, "mine"));
            assert_eq!(node.only().notes, []);
        }
    }
}

#[tokio::test]
async fn a_decision_made_at_one_node_closes_the_conflict_on_others() {
    for at_publisher in [true, false] {
        let (north, south) = two_nodes().await;
        let (decides, other) = if at_publisher { (&north, &south) } else { (&south, &north) };
        decides.resolve(Decision::Value("both".into()), "theirs").await;
        decides.round().await;
        let row = decides.row();
        assert_eq!(row.get_str("applied_by").unwrap(), decides.sync.status().unwrap().node);
        assert_eq!(
            (row.get_str("value").unwrap(), row.get_str("resolved_by").unwrap()),
            ("both", "person:CLERK")
        );
        // Somebody has changed it again since: nothing is carried out a second time.
        north.there(Person, patient("later"));
        for node in [&north, &south] {
            node.assert_settled().await;
        }
        assert_eq!(other.phone_there(), "later");
        let closed = other.only();
        assert_eq!(closed.resolution.as_deref(), Some("value"));
        assert_eq!(
            (closed.value, closed.resolved_by.as_deref()),
            (Some(Bson::from("both")), Some("centre (person:CLERK)"))
        );
    }
}

#[tokio::test]
async fn of_two_decisions_the_first_stands_and_the_other_is_a_note() {
    let (north, south) = two_nodes().await;
    north.resolve(Decision::TakeLocal, "theirs").await;
    south.resolve(Decision::TakeCentral, "theirs").await;
    // Both have decided before either could tell.
    for node in [&south, &north] {
        node.assert_settled().await;
    }
    assert_eq!(north.row().get_str("resolution").unwrap(), "central");
    assert_eq!(north.notes(), ["this decision came first"]);
    let note = &north.only().notes[0];
    assert_eq!((note.resolution.as_str(), note.by.as_str()), ("central", "centre (person:CLERK)"));
    assert_eq!(south.notes(), Vec::<String>::new());
    // An edit is an edit: it travels whatever the row says.
    south.assert_settled().await;
    assert_eq!(south.phone_there(), "mine");

    // The same decision twice needs no note.
    let (north, south) = two_nodes().await;
    for node in [&north, &south] {
        node.resolve(Decision::TakeLocal, "theirs").await;
    }
    for node in [&north, &south, &north] {
        node.assert_settled().await;
        assert_eq!(node.notes(), Vec::<String>::new());
    }
}

/// A box that enrolled anew, as a copy does, still knows what it published under its old name.
#[tokio::test]
async fn a_node_with_a_new_name_carries_out_what_it_published_under_the_old_one() {
    let clinic = Clinic::about_phone().await;
    let old = clinic.sync.status().unwrap().node;
    clinic.run(|tx| tx.set_meta("lease", None)).await;
    clinic.round().await;
    assert_ne!(clinic.sync.status().unwrap().node, old);
    assert_eq!(clinic.row().get_str("node").unwrap(), old);
    clinic.written(doc! {"status": "resolved", "resolution": "local"});
    clinic.assert_settled().await;
    assert_eq!((clinic.phone_there().as_str(), clinic.only().status), ("mine", ConflictStatus::Resolved));
}

/// A copied box has the same conflict under the same publisher: what the original decided is done.
#[tokio::test]
async fn a_copy_of_a_node_does_not_repeat_what_the_original_decided() {
    let sim = Sim::default();
    let directory = tempfile::tempdir().unwrap();
    let paths = ["original", "copy"].map(|name| directory.path().join(name));
    let open = |path: &std::path::Path| {
        let store = super::Store::open(path, super::OPTIONS).unwrap();
        Clinic::with(store, &sim, std::time::Duration::from_secs(60))
    };
    let original = open(&paths[0]);
    original.lose(Person, patient("old"), patient("mine"), Some(patient("theirs"))).await;
    drop(original);
    std::fs::copy(&paths[0], &paths[1]).unwrap();
    let [original, copy] = paths.each_ref().map(|path| open(path));
    original.resolve(Decision::TakeLocal, "theirs").await;
    original.round().await;
    // Somebody who saw it has set it back.
    sim.put(Person, patient("theirs"));
    for node in [&original, &copy] {
        node.assert_settled().await;
        assert_eq!((node.only().status, node.phone_there().as_str()), (ConflictStatus::Resolved, "theirs"));
    }
    assert_ne!(original.sync.status().unwrap().node, copy.sync.status().unwrap().node);
}

// ------------------------------------------------------------------------------------------ found once more

#[tokio::test]
async fn a_conflict_that_is_found_again_is_open_again_everywhere() {
    let clinic = Clinic::about_phone().await;
    clinic.resolve(Decision::TakeCentral, "theirs").await;
    clinic.round().await;
    assert_eq!(clinic.row().get_str("status").unwrap(), "resolved");
    clinic.lose(Person, patient("old"), patient("mine"), Some(patient("others'"))).await;
    let again = clinic.only();
    assert_eq!((again.status, again.resolution.as_deref()), (ConflictStatus::Open, None));
    assert_eq!(clinic.notes(), ["it was found again after this decision"]);
    assert_eq!((again.notes[0].resolution.as_str(), again.notes[0].by.as_str()), ("central", "person:CLERK"));
    let row = clinic.row();
    assert_eq!(row.get_str("status").unwrap(), "open");
    assert_eq!(row.get_str("central").unwrap(), "others'");
    assert_eq!(row.get_array("notes").unwrap().len(), 1);
    for gone in ["resolution", "resolved_by", "applied_by"] {
        assert!(!row.contains_key(gone), "{row}");
    }
    // And can be decided there again.
    clinic.written(doc! {"status": "resolved", "resolution": "local"});
    clinic.assert_settled().await;
    assert_eq!((clinic.phone_there().as_str(), clinic.only().status), ("mine", ConflictStatus::Resolved));
}

/// Found again and decided before the centre heard of it.
#[tokio::test]
async fn a_conflict_found_again_and_decided_at_once_is_closed_there_with_its_new_decision() {
    let clinic = Clinic::about_phone().await;
    clinic.resolve(Decision::TakeCentral, "theirs").await;
    clinic.round().await;
    clinic.sim.state().conflicts_refused_about.push(ID.to_owned());
    clinic.lose(Person, patient("old"), patient("mine"), Some(patient("others'"))).await;
    clinic.resolve(Decision::TakeLocal, "others'").await;
    clinic.sim.state().conflicts_refused_about.clear();
    clinic.assert_settled().await;
    let row = clinic.row();
    assert_eq!((row.get_str("status").unwrap(), row.get_str("resolution").unwrap()), ("resolved", "local"));
    assert_eq!(clinic.notes(), ["it was found again after this decision"]);
}

/// An old decision about the same value, in another clash, decides nothing about a new one.
#[tokio::test]
async fn an_old_decision_does_not_close_another_clash() {
    let sim = Sim::default();
    let (north, south) = (Clinic::at(&sim), Clinic::at(&sim));
    north.lose(Person, patient("old"), patient("mine"), Some(patient("theirs"))).await;
    north.resolve(Decision::TakeCentral, "theirs").await;
    north.round().await;
    south.lose(Person, patient("other"), patient("mine"), Some(patient("others'"))).await;
    south.round().await;
    assert_eq!((north.only().id, south.only().status), (south.only().id, ConflictStatus::Open));
    assert_eq!(south.notes(), ["it is about an earlier clash over the same value"]);
    let row = south.row();
    assert_eq!((row.get_str("status").unwrap(), row.get_str("central").unwrap()), ("open", "others'"));
    assert_eq!(row.get_str("node").unwrap(), south.sync.status().unwrap().node);
    south.written(doc! {"status": "resolved", "resolution": "local"});
    for node in [&south, &north] {
        node.assert_settled().await;
    }
    assert_eq!((south.phone_there().as_str(), north.only().status), ("mine", ConflictStatus::Resolved));
}
