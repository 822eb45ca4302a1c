//! What `import` says of a row is true in every state of the store: whose account is open, and whose a record is that names an
//! account alone.

use bson::{Bson, Document, doc};
use serde_json::Value;
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{Base, Conflict, Hold, HoldReason, StoreError, TrashState, Tx};

use crate::cli_support::Clinic;
use crate::imports::{import, put};

const PAGES: &str =
    "{\"id\": \"P1\", \"book\": \"ANA001\", \"n\": 1}\n{\"id\": \"P2\", \"book\": \"ana001\", \"n\": 2}";

fn tech() -> Actor {
    Actor::Local("tech".to_owned())
}

fn ana() -> Document {
    doc! {"_id": "ANA001", "name": "Ana", "lastname": "Betz", "dob": "1985-10-04", "gender": "f", "active": false}
}

fn beatriz() -> Document {
    doc! {"_id": "ANA001", "name": "Beatriz", "lastname": "Cordara", "dob": "1950-02-03", "gender": "f", "active": false}
}

/// Of no password: that there is one makes an account of a person.
const HASH: &str = "$2b$04$......................O.................................";

fn with(mut person: Document, fields: Document) -> Document {
    person.extend(fields);
    person
}

fn shown(person: Document) -> Value {
    Bson::Document(person).into_relaxed_extjson()
}

fn key(id: &str) -> RecordKey {
    RecordKey::new(Kind::Person, id)
}

fn from_centre(tx: &mut Tx<'_>, person: Option<Document>) -> Result<(), StoreError> {
    let base = person.clone().map_or(Base::Absent, Base::Document);
    tx.put(&key("ANA001"), person.as_ref(), &base, &Actor::Centre)
}

/// Somebody deletes Ana, and the centre knows of it.
fn delete_ana(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    from_centre(tx, Some(ana()))?;
    tx.edit(&key("ANA001"), None, &tech())?;
    from_centre(tx, None)?;
    tx.settle_trash(&key("ANA001"), TrashState::Done)
}

/// Ana was made here and Beatriz at the centre, and nobody has decided.
fn hold_ana(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    tx.edit(&key("ANA001"), Some(&ana()), &tech())?;
    let hold = Hold {
        account: "ANA001".to_owned(),
        conflict: "hold".to_owned(),
        local: "ANA001".to_owned(),
        remote: "ANA001".to_owned(),
        why: HoldReason::Created,
        gone: None,
        since_ms: 0,
    };
    tx.put_hold(&hold)?;
    tx.put_held(&key("ANA001"), "ANA001", &beatriz())?;
    let conflict = Conflict::about_identity(&hold, &ana(), &beatriz(), String::new());
    tx.open_conflict(conflict)
}

/// An encounter of Ana's account is on the node alone: an edit of it stood against a delete while nobody had the account.
fn left_alone(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    let (key, of_ana) = (RecordKey::new(Kind::Encounter, "e1"), doc! {"_id": "e1", "person": "ANA001"});
    tx.put(&key, Some(&of_ana), &Base::Document(of_ana.clone()), &Actor::Centre)?;
    let edited = with(of_ana, doc! {"summary": "edited"});
    tx.edit(&key, Some(&edited), &tech())?;
    tx.put(&key, Some(&edited), &Base::Absent, &Actor::Centre)
}

const HERE_ALONE: &str = "nobody, and a record of theirs is here alone";

/// How an account can stand, and what is said of a page that names it alone; nothing if it is taken.
type State = (&'static str, fn(&mut Tx<'_>) -> Result<(), StoreError>, Option<&'static str>);

const STATES: &[State] = &[
    ("one person", |tx| from_centre(tx, Some(ana())), None),
    ("nobody ever", |_| Ok(()), None),
    (
        "in the trash",
        delete_ana,
        Some(
            "pols/P1 is of ANA001, who was deleted at 1970-01-01T00:00:01Z by local:tech and lies in the trash",
        ),
    ),
    (
        "another one since",
        |tx| {
            delete_ana(tx)?;
            from_centre(tx, Some(beatriz()))
        },
        Some("and which another person has now: import it together with the person whose record it is"),
    ),
    (
        "the same one again",
        |tx| {
            delete_ana(tx)?;
            from_centre(tx, Some(ana()))
        },
        None,
    ),
    (
        "another one before them, who was there again",
        |tx| {
            delete_ana(tx)?;
            from_centre(tx, Some(beatriz()))?;
            tx.discard(&key("ANA001"), &beatriz())?;
            from_centre(tx, None)?;
            from_centre(tx, Some(beatriz()))
        },
        Some("and which another person has now"),
    ),
    (
        "gone without a trace in the trash",
        |tx| {
            from_centre(tx, Some(ana()))?;
            from_centre(tx, None)
        },
        Some("pols/P1 is of ANA001, an account whose person is gone: import it together"),
    ),
    (
        "another one since, without a trace in the trash",
        |tx| {
            from_centre(tx, Some(ana()))?;
            from_centre(tx, None)?;
            from_centre(tx, Some(beatriz()))
        },
        Some("pols/P1 is of ANA001, an account that somebody else had before: import it together"),
    ),
    (HERE_ALONE, left_alone, None),
    (
        "nobody, and a record of theirs was here alone",
        |tx| {
            left_alone(tx)?;
            tx.edit(&RecordKey::new(Kind::Encounter, "e1"), None, &tech()).map(drop)
        },
        None,
    ),
    (
        "the first one after records of nobody",
        |tx| {
            left_alone(tx)?;
            tx.edit(&RecordKey::new(Kind::Encounter, "e1"), None, &tech())?;
            from_centre(tx, Some(ana()))
        },
        Some(
            "P1 is of ANA001, an account of which it is not known here whether somebody else had it before: import it",
        ),
    ),
    ("held", hold_ana, Some("pols/P1 is of ANA001, an account that two people have: decide who is who")),
    (
        "two spellings",
        |tx| {
            from_centre(tx, Some(ana()))?;
            let other = with(beatriz(), doc! {"_id": "Ana001"});
            tx.put(&key("Ana001"), Some(&other), &Base::Document(other.clone()), &Actor::Centre)
        },
        Some("pols/P1 is of ANA001, an account that two people have here in two spellings"),
    ),
];

fn pages(clinic: &Clinic) -> Vec<String> {
    clinic.records(Kind::Page).iter().map(|page| page.get_str("_id").unwrap().to_owned()).collect()
}

#[test]
fn pages_alone_are_taken_only_where_it_is_certain_whose_they_are() {
    for (state, make, refusal) in STATES {
        let clinic = Clinic::new();
        clinic.write(make);
        for more in [&["--dry-run"][..], &["--replace"], &["--restore-deleted"], &[]] {
            let ran = import(&clinic, "pols.jsonl", PAGES, more);
            let Some(refusal) = refusal else {
                ran.ends(0);
                continue;
            };
            println!("{state}: {}", ran.err);
            let ran = ran.ends(1);
            ran.complains(refusal)
                .complains("pols.jsonl line 1 column 1: ")
                .complains("line 2 column 1: pols/P2 is of ANA001");
            assert_eq!(pages(&clinic), [""; 0], "{state}");
        }
        if refusal.is_none() {
            assert_eq!(pages(&clinic), ["P1", "P2"], "{state}");
        }
    }
}

/// What is stored under the account may be somebody else's too.
#[test]
fn nothing_is_written_over_a_record_that_may_be_of_somebody_else() {
    let clinic = Clinic::new();
    clinic.write(|tx| {
        delete_ana(tx)?;
        from_centre(tx, Some(beatriz()))?;
        let page = doc! {"_id": "P1", "book": "ANA001", "info": "of Beatriz"};
        tx.put(&RecordKey::new(Kind::Page, "P1"), Some(&page), &Base::Document(page.clone()), &Actor::Centre)
    });
    let text = r#"{"id": "P1", "book": "ANA001", "info": "of Ana"}"#;
    import(&clinic, "pols.jsonl", text, &["--replace"]).ends(1).complains("which another person has now");
    assert_eq!(clinic.records(Kind::Page)[0].get_str("info").unwrap(), "of Beatriz");
    // The same as here changes nothing.
    import(&clinic, "pols.jsonl", text.replace("of Ana", "of Beatriz"), &["--replace"]).ends(0);
}

/// Files are older than a decision: the person whom they call ANA001 has NEW001 since.
#[test]
fn an_account_that_was_given_up_by_a_decision_is_not_its_former_persons() {
    let clinic = Clinic::new();
    clinic.write(|tx| {
        hold_ana(tx)?;
        let page = doc! {"_id": "P1", "book": "ANA001", "n": 1};
        tx.edit(&RecordKey::new(Kind::Page, "P1"), Some(&page), &tech()).map(drop)
    });
    let shown_conflict = clinic.run(&["conflicts", "show", "hold", "--json"]).ends(0).json();
    let etag = shown_conflict["etag"].as_str().unwrap().trim_matches('"').to_owned();
    clinic.run(&["conflicts", "resolve", "hold", "--new-id", "NEW001", "--etag", &etag]).ends(0);
    for is_there in [true, false] {
        if !is_there {
            clinic.write(|tx| from_centre(tx, None));
        }
        for more in [&["--dry-run"][..], &["--replace"], &[]] {
            let ran = import(&clinic, "pols.jsonl", PAGES, more).ends(1);
            ran.complains("line 1 column 1: P1 is a record of NEW001 here, which the person of ANA001 has now: give it that account");
            ran.complains(
                "line 2 column 1: pols/P2 is of ANA001, an account whose person has NEW001 here now: give it that account",
            );
            ran.complains("not everything was taken: 2 rows were refused");
            assert_eq!(pages(&clinic), ["P1"]);
        }
        // Nor do they come back with their person.
        put(&clinic, "all/people.jsonl", shown(ana()).to_string());
        put(&clinic, "all/pols.jsonl", PAGES);
        let ran = clinic.run(&["import", "all"]).ends(1);
        ran.complains(if is_there {
            "ANA001 is the account of somebody else here"
        } else {
            "ANA001 has NEW001 here now: give"
        });
        ran.complains("P2 is of a person who was not taken");
        assert_eq!(pages(&clinic), ["P1"]);
    }
    // With the account that the person has, all is taken.
    import(&clinic, "pols.jsonl", PAGES.replace("ANA001", "NEW001").replace("ana001", "new001"), &[]).ends(0);
    assert_eq!(pages(&clinic), ["P1", "P2"]);
}

/// With the person it is certain.
#[test]
fn pages_that_come_with_their_person_are_taken() {
    for (state, make, _) in STATES.iter().filter(|(state, ..)| !state.contains("trash")) {
        for person in [ana(), beatriz()] {
            let clinic = Clinic::new();
            clinic.write(make);
            let is_here =
                clinic.records(Kind::Person).iter().any(|here| here.get("name") == person.get("name"));
            let is_free = clinic.records(Kind::Person).is_empty();
            // Whose the record that is here alone is has to be said first.
            let is_asked = ["two spellings", HERE_ALONE].contains(state);
            if !is_here && !is_free || is_asked {
                continue;
            }
            put(&clinic, "all/people.jsonl", shown(person).to_string());
            put(&clinic, "all/pols.jsonl", PAGES);
            clinic.run(&["import", "all"]).ends(0);
            assert_eq!(pages(&clinic), ["P1", "P2"], "{state}");
        }
    }
}

/// What the file has in `active`, what is stored, how somebody closed the account here, whether `active` counts; and what is said.
#[test]
fn what_is_said_of_an_account_is_how_it_is() {
    for (counts, said, stored, is_closed_here, state) in [
        ("honour", "true", Some(false), false, Some("closed")),
        ("honour", "false", Some(true), false, Some("open")),
        ("honour", "false", None, false, Some("open")),
        ("honour", "true", None, false, None),
        ("honour", "false", Some(false), true, None),
        ("honour", "false", Some(true), true, Some("closed")),
        ("ignore", "true", Some(false), false, Some("open")),
        ("ignore", "false", Some(true), false, Some("open")),
        ("ignore", "false", None, false, Some("open")),
        ("ignore", "true", Some(false), true, Some("closed")),
        ("ignore", "false", Some(true), true, Some("closed")),
        ("ignore", "\"true\"", Some(false), false, Some("open")),
    ] {
        let clinic = Clinic::new().with("ACCOUNTS__ACTIVE_FROM_CENTRE", counts);
        let person = || with(ana(), doc! {"password": HASH});
        clinic.write(move |tx| from_centre(tx, Some(person())));
        if is_closed_here {
            clinic.run(&["user", "disable", "ANA001"]).ends(0);
        }
        clinic.write(move |tx| {
            let mut person = person();
            match stored {
                Some(stored) => person.insert("active", stored),
                None => person.remove("active"),
            };
            from_centre(tx, Some(person))
        });
        let mut file = shown(ana());
        file["active"] = said.parse().unwrap();
        for more in [&["--dry-run"][..], &["--replace"], &[]] {
            let ran = import(&clinic, "people.jsonl", file.to_string(), more);
            let Some(state) = state else {
                assert!(!ran.err.contains("the account is"), "{}", ran.err);
                continue;
            };
            let ran = ran.ends(1);
            ran.complains(&format!("ANA001: `active` stays as it is here: the account is {state}"));
            ran.complains("1 people stay open or closed as they are here");
        }
        let accounts = clinic.run(&["user", "list", "--json"]).ends(0).json();
        if let Some(state) = state {
            assert_eq!(accounts[0]["active"], state == "open", "{counts} {said} {stored:?} {is_closed_here}");
        }
    }
}

/// An export names accounts that were closed on its node, of which the record may say the same here without anybody having closed
/// them.
#[test]
fn a_closing_that_is_not_taken_is_named() {
    for (counts, is_restored, state) in [
        ("honour", false, "closed"),
        ("ignore", false, "open"),
        ("honour", true, "closed"),
        ("ignore", true, "open"),
    ] {
        let clinic = Clinic::new().with("ACCOUNTS__ACTIVE_FROM_CENTRE", counts);
        clinic.write(move |tx| {
            from_centre(tx, Some(ana()))?;
            if is_restored {
                tx.discard(&key("ANA001"), &ana())?;
                from_centre(tx, None)?;
            }
            Ok(())
        });
        put(&clinic, "out/people.jsonl", shown(ana()).to_string());
        put(&clinic, "out/closed_accounts.jsonl", r#"{"_id": "ana001"}"#);
        let ran = clinic.run(&["import", "out", "--restore-deleted"]).ends(1);
        ran.complains(&format!(
            "ANA001: was closed on the node that the files come from, and was not closed here, which stays so: the account is {state}"
        ));
    }
}

/// What a deleted record can come back by depends on its person.
#[test]
fn what_puts_a_deleted_record_back_is_only_said_where_it_does() {
    for (holder, said) in [
        (Some(ana()), "left out. `thalamus-edge trash restore "),
        (
            Some(beatriz()),
            "left out. It cannot be put back as things are: the account ANA001 is another person's now",
        ),
        (None, "left out. It cannot be put back as things are: the person ANA001 does not exist here"),
    ] {
        let clinic = Clinic::new();
        clinic.write(move |tx| {
            from_centre(tx, Some(ana()))?;
            let page = doc! {"_id": "P1", "book": "ANA001", "n": 1};
            let at = RecordKey::new(Kind::Page, "P1");
            tx.put(&at, Some(&page), &Base::Document(page.clone()), &Actor::Centre)?;
            tx.discard(&at, &page)?;
            tx.put(&at, None, &Base::Absent, &Actor::Centre)?;
            if holder.as_ref() != Some(&ana()) {
                tx.discard(&key("ANA001"), &ana())?;
                from_centre(tx, None)?;
                from_centre(tx, holder.clone())?;
            }
            Ok(())
        });
        let ran = import(&clinic, "pols.jsonl", PAGES.lines().next().unwrap(), &[]).ends(1);
        ran.complains("pols/P1 was deleted at ").complains(said);
    }
}

/// Two rows that have the same are none of which one is wrong, however ids and accounts are spelled.
#[test]
fn a_row_in_another_spelling_has_no_other_content() {
    let clinic = Clinic::new();
    clinic.write(|tx| {
        from_centre(tx, Some(with(ana(), doc! {"note": "here"})))?;
        let page = doc! {"_id": "P1", "book": "ANA001", "n": 9};
        tx.edit(&RecordKey::new(Kind::Page, "P1"), Some(&page), &tech()).map(drop)
    });
    let people = [ana(), with(ana(), doc! {"_id": "ana001"})].map(|row| shown(row).to_string()).join("\n");
    put(&clinic, "all/people.jsonl", people);
    put(&clinic, "all/pols.jsonl", PAGES.replace("P2", "P1").replace("\"n\": 2", "\"n\": 1"));
    let ran = clinic.run(&["import", "all", "--json"]).ends(1);
    let files = ran.json()["files"].clone();
    for file in [&files[0], &files[1]] {
        assert_eq!((&file["different"], &file["refused"]), (&Value::from(2), &Value::from(0)), "{files}");
    }
}

/// An account that nobody can have is a slip: a column of a fixed width, say.
#[test]
fn a_record_of_an_account_that_can_be_nobodys_is_refused() {
    let clinic = Clinic::new();
    // The centre has had people with such ids.
    import(&clinic, "people.jsonl", r#"{"id": "ANA_001", "name": "Ana"}"#, &[]).ends(0);
    for (account, is_taken) in
        [("ana_001", true), ("ANA001", true), ("ANA001 ", false), (" ANA001", false), ("AB", false)]
    {
        let page = serde_json::json!({"id": format!("P{account}"), "book": account}).to_string();
        let ran = import(&clinic, "pols.jsonl", page, &[]).ends(if is_taken { 0 } else { 1 });
        if !is_taken {
            ran.complains("which is no federation account and nobody's here");
        }
    }
    assert_eq!(pages(&clinic), ["PANA001", "Pana_001"]);
}
