//! Floor 0. The chain of the audit trail, as its rules say.

use super::*;
use crate::domain::access::Actor;

fn chain(length: u64) -> Vec<Entry> {
    let mut head = Head::START;
    (1..=length)
        .map(|n| {
            let event = Event::new(What::Update, &Actor::Person("ANA001".to_owned())).about(
                "people",
                &n.to_string(),
                None,
            );
            let entry = Entry::after(&head, Times::once(1_000), event.changing(&["phone".to_owned()]));
            head = entry.head();
            entry
        })
        .collect()
}

fn verdict(entries: &[Entry], expected: &[Head]) -> Result<Verdict, AuditError> {
    let mut verifier = Verifier::new(Head::START);
    expected.iter().for_each(|head| verifier.expect("the centre", *head));
    entries.iter().try_for_each(|entry| verifier.take(entry))?;
    verifier.finish()
}

#[test]
fn an_entry_is_read_as_it_was_written() {
    let mut paths: Vec<String> = (0..40).map(|n| format!("field{n}")).collect();
    paths.push(String::new());
    let event =
        Event::new(What::Read, &Actor::Person("é".repeat(200))).about("", "a:b\n\0", None).of_everybody();
    let entry = Entry::after(&Head::START, Times::once(-1), event.changing(&paths));
    assert_eq!(Entry::decode(&entry.encode()), Some(entry.clone()));
    assert_eq!(entry.event.who.chars().count(), TEXT_CHARS_MAX + 1);
    assert_eq!(entry.event.paths.len(), PATHS_MAX);
    assert_eq!(entry.event.paths.last().unwrap(), "and 9 more");
    let json = serde_json::to_string(&entry).unwrap();
    assert_eq!(serde_json::from_str::<Entry>(&json).unwrap(), entry);
    assert_eq!(entry.head().to_string().parse::<Head>(), Ok(entry.head()));
    for bytes in [&entry.encode()[..31], &entry.encode()[..40], b""] {
        assert_eq!(Entry::decode(bytes), None);
    }
}

/// Every single bit counts: of each field, of the order of fields, of where one ends.
#[test]
fn no_byte_of_an_entry_can_change() {
    let entries = chain(1);
    let bytes = entries[0].encode();
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        let whole = Entry::decode(&altered).is_some_and(|entry| verdict(&[entry], &[]).is_ok());
        assert!(!whole, "byte {at}");
    }
    let mut moved = entries[0].clone();
    (moved.event.kind, moved.event.id) = ("peopl".into(), "e1".to_owned());
    assert_eq!(verdict(&[moved], &[]), Err(AuditError::Altered { seq: 1 }));
}

#[test]
fn the_first_wrong_entry_is_named() {
    let entries = chain(5);
    let whole = verdict(&entries, &[]).unwrap();
    assert_eq!((whole.head, whole.known_up_to), (entries[4].head(), None));
    let mut missing = entries.clone();
    missing.remove(2);
    assert_eq!(verdict(&missing, &[]), Err(AuditError::Missing { seq: 3, found: 4 }));
    let mut swapped = entries.clone();
    swapped.swap(1, 2);
    assert_eq!(verdict(&swapped, &[]), Err(AuditError::Missing { seq: 2, found: 3 }));
    // Also if the numbers are made to fit.
    (swapped[1].seq, swapped[2].seq) = (2, 3);
    assert_eq!(verdict(&swapped, &[]), Err(AuditError::Altered { seq: 2 }));
    let mut altered = entries;
    altered[3].event.who = "BOB002".to_owned();
    assert_eq!(verdict(&altered, &[]), Err(AuditError::Altered { seq: 4 }));
}

#[test]
fn what_somebody_else_knows_cannot_go_unnoticed() {
    let entries = chain(5);
    let known = entries[3].head();
    let whole = verdict(&entries, &[entries[1].head(), known]).unwrap();
    assert_eq!(whole.known_up_to, Some((4, "the centre".to_owned())));
    let by = || "the centre".to_owned();
    let cut = verdict(&entries[..3], &[known]);
    assert_eq!(cut, Err(AuditError::Cut { seq: 4, last: 3, by: by() }));
    // Written anew from entry 3 on, with hashes that fit.
    let mut anew = entries[..2].to_vec();
    for _ in 2..5 {
        let head = anew.last().unwrap().head();
        anew.push(Entry::after(&head, Times::once(1_000), Event::by_nobody(What::Read)));
    }
    assert!(verdict(&anew, &[]).is_ok());
    assert_eq!(verdict(&anew, &[known]), Err(AuditError::Replaced { seq: 4, by: by() }));
}

#[test]
fn the_rest_of_a_trail_is_checked_from_its_anchor() {
    let entries = chain(5);
    let mut verifier = Verifier::new(entries[1].head());
    verifier.expect("a backup", entries[0].head());
    entries[2..].iter().try_for_each(|entry| verifier.take(entry)).unwrap();
    let verdict = verifier.finish().unwrap();
    assert_eq!((verdict.anchor.seq, verdict.head.seq, verdict.known_up_to), (2, 5, None));
    assert_eq!(verdict.too_old, ["a backup"]);
    let mut verifier = Verifier::new(entries[0].head());
    assert_eq!(verifier.take(&entries[2]), Err(AuditError::Missing { seq: 2, found: 3 }));
    let mut verifier = Verifier::new(Head { hash: Hash::ZERO, ..entries[1].head() });
    assert_eq!(verifier.take(&entries[2]), Err(AuditError::Altered { seq: 3 }));
}
