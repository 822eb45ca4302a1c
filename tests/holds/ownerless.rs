//! Records that come while nobody has their account, and accounts that go from one human being to another: nothing of
//! the one comes into the book of the other, and nothing is lost.

use bson::{Document, doc};
use thalamus_edge::domain::merge::is_unknown;
use thalamus_edge::domain::record::Kind::{self, Encounter, Page, Person, PersonalDocument};
use thalamus_edge::domain::record::fold_account;
use thalamus_edge::domain::schema::Owner;
use thalamus_edge::store::{ConflictStatus, HoldReason};
use thalamus_edge::sync::Outcome;
use thalamus_edge::sync::conflicts::Decision;
use thalamus_edge::sync::identity::{Verdict, decide, hold_of};

use super::support::sim::Sim;
use super::{ACCT, Clinic, clerk, key, with};

pub(super) const NEW: &str = "NEW01";

pub(super) fn anna() -> Document {
    doc! {"_id": ACCT, "name": "Anna", "lastname": "Alpha", "dob": "1950-01-01", "gender": "f"}
}

pub(super) fn boris() -> Document {
    doc! {"_id": ACCT, "name": "Boris", "lastname": "Beta", "dob": "1980-05-05", "gender": "m"}
}

/// A record of the account; `token` begins with the name of the one whom it is about.
pub(super) fn record(kind: Kind, id: &str, token: &str) -> Document {
    let Owner::Field(owner) = kind.schema().owner else {
        panic!("{kind:?} belongs to nobody");
    };
    doc! {"_id": id, owner: ACCT, "info": token}
}

impl Clinic {
    fn all_here(&self) -> Vec<(Kind, Document)> {
        let snapshot = self.store.read().unwrap();
        let mut found = Vec::new();
        for kind in Kind::ALL {
            for record in snapshot.list(kind, None, usize::MAX, usize::MAX).unwrap().records {
                found.push((kind, Document::try_from(record.document.as_ref()).unwrap()));
            }
        }
        found
    }

    fn all_there(&self) -> Vec<(Kind, Document)> {
        let records = self.sim.state().records.clone();
        records.into_iter().map(|((kind, _), document)| (kind, document)).collect()
    }

    /// No record is in the book of another human being, here or at the centre.
    pub(super) fn assert_unmixed(&self, when: &str) {
        self.assert_unmixed_but(&[], when);
    }

    /// The same but for records that others have mixed at the centre themselves.
    pub(super) fn assert_unmixed_but(&self, mixed_there: &[&str], when: &str) {
        for (place, records) in [("here", self.all_here()), ("there", self.all_there())] {
            let people: Vec<_> = records.iter().filter(|(kind, _)| *kind == Person).collect();
            for (kind, document) in &records {
                let (Some(owner), Ok(token)) = (kind.schema().owner_of(document), document.get_str("info"))
                else {
                    continue;
                };
                if place == "there" && mixed_there.contains(&token) {
                    continue;
                }
                for (_, person) in
                    people.iter().filter(|(_, person)| fold_account(person.get_str("_id").unwrap()) == owner)
                {
                    if is_unknown(person) {
                        continue;
                    }
                    let name = person.get_str("name").unwrap();
                    assert!(token.starts_with(name), "{when}, {place}: {document} is in the book of {name}");
                }
            }
        }
    }

    /// Everything that is kept anywhere, as text.
    pub(super) fn kept(&self) -> String {
        let snapshot = self.store.read().unwrap();
        let held: Vec<_> = ["a1", "a2", "b1", "b2"]
            .iter()
            .flat_map(|id| Kind::ALL.map(|kind| self.held(kind, id)))
            .collect();
        let trash: Vec<_> = snapshot.trash().unwrap().into_iter().map(|row| row.document).collect();
        format!("{:?} {:?} {held:?} {trash:?} {:?}", self.all_here(), self.all_there(), self.conflicts())
    }

    pub(super) fn open_identity(&self) -> Option<(String, HoldReason)> {
        let snapshot = self.store.read().unwrap();
        let mut open =
            self.conflicts().into_iter().filter(|c| c.is_identity() && c.status == ConflictStatus::Open);
        let conflict = open.next()?;
        assert!(open.next().is_none());
        let hold = hold_of(&snapshot, &conflict).unwrap().expect("a hold").0;
        Some((conflict.id, hold.why))
    }

    pub(super) async fn answer(&self, verdict: Verdict) {
        let (id, _) = self.open_identity().expect("a question");
        let conflict = self.conflicts().into_iter().find(|conflict| conflict.id == id).unwrap();
        let pair = hold_of(&self.store.read().unwrap(), &conflict).unwrap().unwrap().1;
        decide(&self.store, &id, verdict, pair, clerk()).await.unwrap();
    }
}

/// Who had the account on the node before Boris.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Departed,
    Vanished,
    Undecided,
    DeletedUnsent,
    MadeAndDeleted,
    Nobody,
}

const BEFORE: [Before; 6] = [
    Before::Departed,
    Before::Vanished,
    Before::Undecided,
    Before::DeletedUnsent,
    Before::MadeAndDeleted,
    Before::Nobody,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Record,
    Person,
    Together,
}

/// Anna has had the account, as far as `before` says.
async fn after(before: Before, kind: Kind) -> (Clinic, Vec<&'static str>) {
    let clinic = Clinic::new();
    let mut tokens = Vec::new();
    match before {
        Before::Departed => {
            clinic.there(Person, anna());
            clinic.there(kind, record(kind, "a1", "Anna-agreed"));
            clinic.round().await;
            clinic.sim.remove(Person, ACCT);
            clinic.round().await;
            tokens.push("Anna-agreed");
        }
        Before::Vanished | Before::Undecided => {
            clinic.there(Person, anna());
            clinic.round().await;
            clinic.sim.remove(Person, ACCT);
            if before == Before::Undecided {
                clinic.edit(kind, record(kind, "a1", "Anna-unsent")).await;
                clinic.round().await;
                tokens.push("Anna-unsent");
            }
        }
        Before::DeletedUnsent => {
            clinic.there(Person, anna());
            clinic.round().await;
            clinic.delete(Person, ACCT).await;
        }
        Before::MadeAndDeleted => {
            clinic.edit(Person, anna()).await;
            clinic.delete(Person, ACCT).await;
        }
        Before::Nobody => {}
    }
    (clinic, tokens)
}

async fn the_account_goes(before: Before, first: First, kind: Kind, verdict: Option<Verdict>) {
    let what = format!("{before:?} {first:?} {kind:?} {verdict:?}");
    let (clinic, mut tokens) = after(before, kind).await;
    tokens.extend(["Boris-page", "Boris-more"]);
    let come = |person: bool| match person {
        true => clinic.there(Person, boris()),
        false => {
            clinic.there(kind, record(kind, "b1", "Boris-page"));
            clinic.there(PersonalDocument, record(PersonalDocument, "b2", "Boris-more"));
        }
    };
    // Its person was deleted there, and it was not.
    let left = ["Anna-agreed"];
    for person in if first == First::Person { [true, false] } else { [false, true] } {
        come(person);
        if first != First::Together {
            clinic.round().await;
            clinic.assert_unmixed_but(&left, &what);
        }
    }
    for _ in 0..3 {
        clinic.round().await;
        clinic.assert_unmixed_but(&left, &what);
    }
    let question = clinic.open_identity();
    // The one who had it at the centre is another one than Boris.
    let is_asked = !matches!(before, Before::MadeAndDeleted | Before::Nobody);
    assert_eq!(question.is_some(), is_asked, "{what}: {question:?}");
    if let (Some(verdict), true) = (&verdict, question.is_some()) {
        clinic.answer(verdict.clone()).await;
        for _ in 0..3 {
            clinic.round().await;
            // Whoever says that the two are one puts them together.
            if *verdict != Verdict::Same {
                clinic.assert_unmixed(&what);
            }
        }
    }
    if question.is_none() || verdict.is_some() {
        for (id, kind) in [("b1", kind), ("b2", PersonalDocument)] {
            assert!(clinic.here(kind, id).is_some(), "{what}: {id} is shown");
            assert_eq!(clinic.at_centre(kind, id), clinic.here(kind, id), "{what}");
        }
        clinic.assert_settled().await;
    }
    let kept = clinic.kept();
    for token in tokens {
        assert!(kept.contains(token), "{what}: {token} is lost");
    }
    for name in ["Anna", "Boris"] {
        let was_there = name == "Boris" || before != Before::Nobody;
        assert_eq!(kept.contains(&format!("\"name\": String(\"{name}\")")), was_there, "{what}: {name}");
    }
}

#[tokio::test]
async fn nothing_of_one_person_comes_into_the_book_of_the_next() {
    for before in BEFORE {
        for first in [First::Record, First::Person, First::Together] {
            if (before, first) == (Before::DeletedUnsent, First::Record) {
                // Anna has the account there when the record comes, so it is hers: see below.
                continue;
            }
            for kind in [Page, Encounter, PersonalDocument] {
                for verdict in [None, Some(Verdict::Same), Some(Verdict::NewId(NEW.to_owned()))] {
                    the_account_goes(before, first, kind, verdict).await;
                }
            }
        }
    }
}

/// One node reads a record of Anna's and that she is gone in one round, the other one in two.
#[tokio::test]
async fn the_same_events_lead_to_the_same_on_each_node() {
    for has_history in [false, true] {
        for next in [anna(), boris()] {
            let what = format!("history: {has_history}, then {next}");
            let sim = if has_history { Sim::with_history() } else { Sim::default() };
            let nodes = [Clinic::at(&sim), Clinic::at(&sim)];
            sim.put(Person, anna());
            for node in &nodes {
                node.round().await;
            }
            sim.put(Encounter, record(Encounter, "b1", "Anna-lab"));
            nodes[0].round().await;
            sim.remove(Person, ACCT);
            for node in &nodes {
                node.round().await;
                node.assert_settled().await;
                assert_eq!(node.store.read().unwrap().nobodys_count().unwrap(), 0, "{what}");
            }
            sim.put(Person, next.clone());
            for node in nodes.iter().chain(&nodes) {
                node.round().await;
                node.assert_unmixed_but(&["Anna-lab"], &what);
            }
            let is_same = next == anna();
            for node in &nodes {
                let asked = node.open_identity().map(|(_, why)| why);
                assert_eq!(asked, (!is_same).then_some(HoldReason::Departed), "{what}");
                if is_same {
                    node.assert_settled().await;
                }
            }
            if is_same {
                continue;
            }
            // Who has read it in two knows that it is hers.
            nodes[0].answer(Verdict::NewId(NEW.to_owned())).await;
            for node in nodes.iter().chain(&nodes) {
                node.round().await;
            }
            assert_eq!(sim.get(Encounter, "b1").unwrap().get_str("person").unwrap(), NEW, "{what}");
            nodes.iter().for_each(|node| node.assert_unmixed(&what));
        }
    }
}

/// Who was deleted here stands at the centre until that is sent: a record that comes meanwhile is theirs, and keeps them.
#[tokio::test]
async fn a_record_of_who_was_deleted_here_takes_the_delete_back() {
    for kind in [Page, Encounter, PersonalDocument] {
        let (clinic, _) = after(Before::DeletedUnsent, kind).await;
        clinic.there(kind, record(kind, "a1", "Anna-lab"));
        // She may be gone there too, and is read again in the next one.
        assert_eq!(clinic.sync.round().await.outcome, Outcome::Partial);
        clinic.assert_settled().await;
        assert_eq!(clinic.at_centre(Person, ACCT), Some(anna()), "{kind:?}");
        assert_eq!(clinic.here(kind, "a1"), Some(record(kind, "a1", "Anna-lab")), "{kind:?}");
        let told = clinic.conflicts();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!((&told[0].key, told[0].local.as_ref()), (&key(Person, ACCT), None));
        clinic.assert_unmixed("taken back");
    }
}

/// What is written here into a record that nobody has goes into nobody's book.
#[tokio::test]
async fn an_edit_of_what_came_late_is_in_the_trash_when_somebody_else_comes() {
    for verdict in [Verdict::Same, Verdict::NewId(NEW.to_owned())] {
        let (clinic, _) = after(Before::Departed, Page).await;
        clinic.there(Page, record(Page, "b1", "Boris-page"));
        clinic.round().await;
        clinic.edit(Page, with(record(Page, "b1", "Boris-page"), doc! {"note": "here"})).await;
        clinic.there(Person, boris());
        clinic.round().await;
        clinic.assert_unmixed_but(&["Anna-agreed"], "asked");
        assert_eq!(clinic.held(Page, "b1"), Some(record(Page, "b1", "Boris-page")));
        clinic.answer(verdict.clone()).await;
        clinic.assert_settled().await;
        assert_eq!(clinic.at_centre(Page, "b1"), Some(record(Page, "b1", "Boris-page")), "{verdict:?}");
        assert!(clinic.kept().contains("here"), "{verdict:?}");
    }
}

/// Somebody is made here under the account of one who is gone, and is the same: whose a record is that came meanwhile is asked.
#[tokio::test]
async fn what_came_late_is_in_nobodys_book_when_a_person_is_made_again_here() {
    let (clinic, _) = after(Before::Departed, Page).await;
    clinic.there(Page, record(Page, "b1", "Boris-page"));
    clinic.round().await;
    assert!(clinic.here(Page, "b1").is_some());
    clinic.edit(Person, anna()).await;
    clinic.assert_unmixed("made again");
    assert!(clinic.held(Page, "b1").is_some() && clinic.here(Page, "a1").is_some());
    clinic.round().await;
    clinic.assert_unmixed("asked");
    assert_eq!(clinic.open_identity().map(|(_, why)| why), Some(HoldReason::Taken));
}

#[tokio::test]
async fn a_record_waits_until_somebody_has_its_account() {
    for before in BEFORE {
        let (clinic, _) = after(before, Page).await;
        clinic.there(Page, record(Page, "b1", "Boris-page"));
        let report = clinic.sync.round().await;
        // Somebody is here in whose book it would be, and who does not stand at the centre.
        let is_apart = before == Before::Undecided;
        assert_eq!(clinic.held(Page, "b1").is_some(), is_apart, "{before:?}");
        assert_eq!(clinic.here(Page, "b1").is_none(), is_apart, "{before:?}");
        let said = "One record of the centre waits apart and is shown to nobody";
        assert_eq!(report.message.contains(said), is_apart, "{before:?}: {report:?}");
        // It follows the centre there.
        let changed = with(record(Page, "b1", "Boris-page"), doc! {"more": 1});
        clinic.there(Page, changed.clone());
        clinic.round().await;
        let is_now = if is_apart { clinic.held(Page, "b1") } else { clinic.here(Page, "b1") };
        assert_eq!(is_now, Some(changed), "{before:?}");
        assert_eq!(clinic.store.read().unwrap().disagreements().unwrap(), [""; 0], "{before:?}");
        clinic.sim.remove(Page, "b1");
        clinic.round().await;
        assert_eq!((clinic.held(Page, "b1"), clinic.here(Page, "b1")), (None, None), "{before:?}");
    }
}

/// A person who is put there again by decision has what was agreed with them; what came meanwhile is asked about.
#[tokio::test]
async fn what_came_meanwhile_is_asked_about_when_a_person_is_put_there_again() {
    for verdict in [Verdict::Same, Verdict::NewId(NEW.to_owned())] {
        let (clinic, _) = after(Before::Undecided, Page).await;
        clinic.there(Page, record(Page, "b1", "Boris-page"));
        clinic.round().await;
        clinic.decide_record(Decision::TakeLocal).await;
        for _ in 0..2 {
            clinic.round().await;
            clinic.assert_unmixed("put there again");
        }
        assert_eq!(clinic.at_centre(Person, ACCT), None);
        assert_eq!(clinic.open_identity().map(|(_, why)| why), Some(HoldReason::Taken));
        clinic.answer(verdict.clone()).await;
        clinic.round().await;
        clinic.round().await;
        assert!(clinic.open_identity().is_none(), "{verdict:?}");
        let is_same = verdict == Verdict::Same;
        let (account, other) = if is_same { (ACCT, NEW) } else { (NEW, ACCT) };
        assert!(clinic.at_centre(Person, account).is_some() && clinic.at_centre(Person, other).is_none());
        let at = |id| clinic.at_centre(Page, id).map(|page| page.get_str("book").unwrap().to_owned());
        assert_eq!((at("a1"), at("b1")), (Some(account.to_owned()), Some(ACCT.to_owned())), "{verdict:?}");
        if !is_same {
            clinic.there(Person, boris());
            clinic.round().await;
            clinic.assert_unmixed("Boris has come");
            clinic.assert_settled().await;
        }
    }
}

/// A person is made here under an account of which the centre has a record, and nobody: it is in nobody's book at once.
#[tokio::test]
async fn a_record_of_nobody_is_not_in_the_book_of_who_is_made_here() {
    let clinic = Clinic::new();
    clinic.there(Page, record(Page, "b1", "Boris-page"));
    clinic.round().await;
    assert!(clinic.here(Page, "b1").is_some(), "those see it who may see all");
    clinic.edit(Person, anna()).await;
    clinic.edit(Page, record(Page, "a1", "Anna-made")).await;
    clinic.assert_unmixed("before the next round");
    assert!(clinic.held(Page, "b1").is_some());
    for _ in 0..2 {
        clinic.round().await;
        clinic.assert_unmixed("asked");
    }
    assert_eq!(clinic.open_identity().map(|(_, why)| why), Some(HoldReason::Taken));
    clinic.there(Person, boris());
    clinic.round().await;
    clinic.answer(Verdict::NewId(NEW.to_owned())).await;
    clinic.round().await;
    clinic.assert_unmixed("decided");
    clinic.assert_settled().await;
    assert!(clinic.kept().contains("Anna-made") && clinic.kept().contains("Boris-page"));
}

/// An edit of a record of nobody could not wait apart: nobody is made under the account before it is sent.
#[tokio::test]
async fn nobody_is_made_over_an_edited_record_of_nobody() {
    let clinic = Clinic::new();
    clinic.there(Page, record(Page, "b1", "Boris-page"));
    clinic.round().await;
    clinic.edit(Page, with(record(Page, "b1", "Boris-page"), doc! {"note": "here"})).await;
    let is_another_ones = async || clinic.run(|tx| tx.is_another_ones(&key(Person, ACCT), &anna())).await;
    assert!(is_another_ones().await);
    clinic.round().await;
    assert!(!is_another_ones().await);
}

/// Anna was deleted here, which is not sent, and Boris has her account: that asks who they are, and neither is lost.
#[tokio::test]
async fn a_delete_is_not_of_who_has_the_account_by_then() {
    for verdict in [None, Some(Verdict::Same), Some(Verdict::NewId(NEW.to_owned()))] {
        let (clinic, _) = after(Before::DeletedUnsent, Page).await;
        clinic.there(Person, boris());
        clinic.there(Page, record(Page, "b1", "Boris-page"));
        clinic.round().await;
        clinic.assert_unmixed("asked");
        assert_eq!(clinic.open_identity().map(|(_, why)| why), Some(HoldReason::Departed));
        assert!(clinic.conflicts().iter().all(|conflict| conflict.is_identity()), "{:?}", clinic.conflicts());
        assert_eq!(clinic.at_centre(Person, ACCT), Some(boris()), "nothing is deleted there");
        match &verdict {
            // Boris goes there, so nothing is left to ask, and she is deleted as was said.
            None => {
                clinic.sim.remove(Person, ACCT);
                clinic.sim.remove(Page, "b1");
            }
            Some(verdict) => clinic.answer(verdict.clone()).await,
        }
        clinic.assert_settled().await;
        let there =
            |id| clinic.at_centre(Person, id).map(|person| person.get_str("name").unwrap().to_owned());
        let expected = match &verdict {
            None => (None, None),
            Some(Verdict::Same) => (Some("Boris"), None),
            Some(Verdict::NewId(_)) => (Some("Boris"), Some("Anna")),
        };
        assert_eq!((there(ACCT).as_deref(), there(NEW).as_deref()), expected);
        assert!(clinic.kept().contains("Anna"), "{verdict:?}");
    }
}

/// Who had the account is gone, and a record of theirs is deleted at the centre and there again, before the node looks, whom the
/// centre tells of both: by then it may be anybody's, and is one that came while nobody had the account. What the node had is
/// in its trash.
#[tokio::test]
async fn a_record_that_is_deleted_and_there_again_while_nobody_has_its_account_came_late() {
    for before in [Before::Departed, Before::Vanished, Before::Undecided] {
        for again in [record(Page, "a1", "Boris-page"), record(Page, "a1", "Anna-agreed")] {
            let what = format!("{before:?} {again}");
            let clinic = Clinic::at(&Sim::with_history());
            clinic.there(Person, anna());
            clinic.there(Page, record(Page, "a1", "Anna-agreed"));
            clinic.round().await;
            if before == Before::Undecided {
                clinic.edit(Encounter, record(Encounter, "a2", "Anna-unsent")).await;
            }
            clinic.sim.remove(Person, ACCT);
            if before != Before::Vanished {
                clinic.round().await;
            }
            clinic.sim.remove(Page, "a1");
            clinic.there(Page, again.clone());
            clinic.round().await;
            let found = [clinic.held(Page, "a1"), clinic.here(Page, "a1")];
            let expected = match before {
                Before::Undecided => [Some(again.clone()), None],
                _ => [None, Some(again.clone())],
            };
            assert_eq!(found, expected, "{what}");
            let trash = clinic.store.read().unwrap().trash().unwrap();
            let is_kept = trash.iter().any(|row| row.document == record(Page, "a1", "Anna-agreed"));
            assert!(is_kept, "{what}: {trash:?}");
            assert_eq!(clinic.store.read().unwrap().disagreements().unwrap(), [""; 0], "{what}");
            // The next holder of the account there has the record.
            let is_of_boris = again.get_str("info").unwrap() == "Boris-page";
            clinic.there(Person, if is_of_boris { boris() } else { anna() });
            clinic.round().await;
            if clinic.open_identity().is_some() {
                assert!(is_of_boris, "{what}");
                clinic.answer(Verdict::NewId(NEW.to_owned())).await;
            }
            for _ in 0..3 {
                clinic.round().await;
                clinic.assert_unmixed(&what);
            }
            assert_eq!(clinic.here(Page, "a1"), Some(again.clone()), "{what}");
            clinic.assert_settled().await;
        }
    }
}

/// As before, of a record that was edited on the node meanwhile: it is asked which of the two is to have the id.
#[tokio::test]
async fn an_edited_record_that_is_deleted_and_there_again_while_nobody_has_its_account_is_asked_about() {
    for is_person_kept in [true, false] {
        let clinic = Clinic::at(&Sim::with_history());
        clinic.there(Person, anna());
        clinic.there(Page, record(Page, "a1", "Anna-agreed"));
        clinic.round().await;
        if is_person_kept {
            clinic.edit(Encounter, record(Encounter, "a2", "Anna-unsent")).await;
        }
        clinic.sim.remove(Person, ACCT);
        clinic.round().await;
        assert_eq!(clinic.here(Person, ACCT).is_some(), is_person_kept);
        let edited = with(record(Page, "a1", "Anna-agreed"), doc! {"note": "Anna-edited"});
        clinic.edit(Page, edited.clone()).await;
        clinic.sim.remove(Page, "a1");
        let there = with(record(Page, "a1", "Boris-page"), doc! {"more": "Boris-more"});
        clinic.there(Page, there.clone());
        for _ in 0..2 {
            clinic.round().await;
            assert_eq!(clinic.at_centre(Page, "a1"), Some(there.clone()), "kept: {is_person_kept}");
            assert_eq!(clinic.here(Page, "a1"), Some(edited.clone()), "kept: {is_person_kept}");
        }
        assert!(clinic.record_conflict().is_some_and(|asked| asked.key == key(Page, "a1")) || is_person_kept);
        let asked = clinic.conflicts().into_iter().find(|asked| asked.key == key(Page, "a1"));
        assert_eq!(asked.map(|asked| asked.subject), Some(thalamus_edge::store::Subject::Record));
    }
}
