//! The reference workload: everything that a node writes, through the store's own interface.

use std::path::Path;

use bson::{Bson, Document, doc};
use redb::StorageBackend;
use sha2::{Digest as _, Sha256};
use thalamus_edge::domain::access::{Actor, Grant, Verb};
use thalamus_edge::domain::diff::{Diff, diff};
use thalamus_edge::domain::merge::{Clash, Side};
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{
    Base, Edit, EditError, Intent, IntentWrite, Requirement, Reread, Sealed, Store, StoreError, StoreKey,
    StoreOptions, Tx,
};

/// Steps of the workload; each is one write that is acknowledged.
pub(crate) const STEPS: usize = 15 * KINDS_OF_STEPS;
const KINDS_OF_STEPS: usize = 14;
/// Few enough for the journal to be trimmed on the way.
const JOURNAL_ROWS: u64 = 60;

const OPTIONS: StoreOptions = StoreOptions {
    cache_bytes: 1 << 20,
    journal_keep_rows: JOURNAL_ROWS,
    audit_keep_rows: JOURNAL_ROWS,
    clock: || 1_000,
};

/// How the store lies on its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    Encrypted,
}

/// Names that are by chance otherwise are the same in every run from here on.
pub(crate) fn begin_anew() {
    thalamus_edge::flaw::count_ids(true);
}

pub(crate) fn open(backend: impl StorageBackend, form: Form) -> Result<Store, StoreError> {
    match form {
        Form::Plain => Store::on_backend(backend, OPTIONS),
        Form::Encrypted => Store::on_backend(Sealed::open(backend, &key())?, OPTIONS),
    }
}

/// As the node does it: what is in the file is looked at before redb sees it.
pub(crate) fn open_file(path: &Path, form: Form) -> Result<Store, StoreError> {
    let key = (form == Form::Encrypted).then(key);
    Store::open_with_key(path, key.as_ref(), OPTIONS)
}

fn key() -> StoreKey {
    StoreKey::parse(&"5e".repeat(32)).expect("a key")
}

fn person(turn: usize) -> RecordKey {
    RecordKey::new(Kind::Person, format!("ANA{turn}"))
}

fn paper(turn: usize) -> RecordKey {
    RecordKey::new(Kind::PersonalDocument, format!("paper{turn}"))
}

/// One that the centre has too.
fn shared(turn: usize) -> RecordKey {
    RecordKey::new(Kind::Page, format!("page{turn}"))
}

fn shared_document(turn: usize, text: &str) -> Document {
    doc! {"_id": shared(turn).id, "book": person(turn).id, "text": text, "long": "x".repeat(turn * 50)}
}

fn content(bytes: &[u8]) -> (String, Bson) {
    let sha256 = hex::encode(Sha256::digest(bytes));
    let named = doc! {"sha256": &sha256, "length": bytes.len() as i64, "type": "image/png"};
    (sha256, named.into())
}

/// As long as a chunk and a bit in every fifth turn, short otherwise.
fn attachment(turn: usize) -> Vec<u8> {
    let length = if turn.is_multiple_of(5) { 70_000 } else { 500 + turn };
    (0..length).map(|at| (at * (turn + 3)) as u8).collect()
}

/// Carries out step `number`.
pub(crate) async fn step(store: &Store, number: usize) -> Result<(), EditError> {
    let turn = number / KINDS_OF_STEPS;
    match number % KINDS_OF_STEPS {
        0..4 | 10 | 11 => store.edit(client_edit(store, number % KINDS_OF_STEPS, turn)?).await,
        at => Ok(store.transact(move |tx| bookkeeping(tx, at, turn)).await?),
    }
}

/// What a client asks for.
fn client_edit(store: &Store, at: usize, turn: usize) -> Result<Edit, EditError> {
    let bytes = attachment(turn);
    let (sha256, named) = content(&bytes);
    let hash = |text: &str| format!("$2b$04${}", text.repeat(53));
    let whose = paper(turn);
    let (key, verb, document) = match at {
        0 => (
            person(turn),
            Verb::Post,
            Some(
                doc! {"_id": person(turn).id, "name": "Ana Maria", "password": hash("a"), "roles": ["root"]},
            ),
        ),
        1 => (whose.clone(), Verb::Post, Some(doc! {"_id": &whose.id, "fedacct": person(turn).id})),
        2 => (
            whose.clone(),
            Verb::Patch,
            Some(doc! {"_id": &whose.id, "fedacct": person(turn).id, "content": named}),
        ),
        // A password by a link, say: the granted roles stay with it.
        3 => (
            person(turn),
            Verb::Patch,
            Some(doc! {"_id": person(turn).id, "name": "Ana", "password": hash("b"), "roles": ["root"]}),
        ),
        10 if turn.is_multiple_of(2) => (whose, Verb::Delete, None),
        10 => (whose.clone(), Verb::Patch, Some(doc! {"_id": &whose.id, "fedacct": person(turn).id})),
        _ => (shared(turn), Verb::Patch, Some(shared_document(turn, "edited once more"))),
    };
    let expected = store.read()?.record(&key)?.map(|record| record.document.as_bytes().to_vec());
    let is_new_person = at == 0;
    Ok(Edit {
        grant: Grant::operator(0, verb, key.kind),
        expected,
        document,
        requires: if is_new_person { vec![Requirement::AccountFree(key.id.clone())] } else { Vec::new() },
        id: key.id,
        grants: is_new_person.then(|| vec!["root".to_owned()]),
        content: (at == 2).then_some((sha256, bytes.into())),
        closes: None,
    })
}

/// What the reconciliation writes.
fn bookkeeping(tx: &mut Tx<'_>, at: usize, turn: usize) -> Result<(), StoreError> {
    let key = shared(turn);
    match at {
        4 => {
            let document = shared_document(turn, "agreed");
            tx.put(&key, Some(&document), &Base::Document(document.clone()), &Actor::Centre)
        }
        5 => tx
            .edit(&key, Some(&shared_document(turn, "edited")), &Actor::Local("tech".to_owned()))
            .map(|_| ()),
        6 => {
            let (Base::Document(base), Some(document)) = (tx.base(&key)?, tx.document(&key)?) else {
                panic!("the record is not there");
            };
            let Diff::Fields(changes) = diff(&base, &document) else { panic!("nothing was edited") };
            let number = tx.next_push_number()?;
            let author = tx.author_of(&key)?;
            tx.open_intent(&key, &Intent { number, after: None, author, write: IntentWrite::Update(changes) })
        }
        7 => tx.edit(&key, Some(&shared_document(turn, "meanwhile")), &Actor::Operator(0)).map(|_| ()),
        8 => {
            let number = tx.push_number()?;
            let intent = tx.intent(&key)?.expect("a write on its way");
            tx.settle_intent(&key, number, true)?;
            tx.note_sent(&key, &intent, 1, turn.is_multiple_of(2))
        }
        9 => {
            let clash = Clash {
                path: vec!["text".to_owned()],
                base: Some("agreed".into()),
                local: Some("meanwhile".into()),
                remote: Some(format!("theirs {turn}").into()),
                stands: Side::Remote,
            };
            tx.add_conflict(&key, &clash, None)
        }
        12 => {
            // Content of the centre's, of which the first chunk comes.
            let (sha256, named) = content(&[attachment(5), vec![turn as u8]].concat());
            let of = RecordKey::new(Kind::PersonalDocument, format!("far{turn}"));
            let document = doc! {"_id": &of.id, "fedacct": person(turn).id, "content": named};
            tx.put(&of, Some(&document), &Base::Document(document.clone()), &Actor::Centre)?;
            tx.keep_chunks(&sha256, 0, &vec![turn as u8; 64 * 1024]).map(|_| ())
        }
        _ => {
            tx.ask_again(&key, Reread::default())?;
            tx.set_meta("feed", Some(&doc! {"token": format!("position {turn}")}))
        }
    }
}
