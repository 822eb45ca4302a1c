//! Compare-and-set against what may stand at the centre.

use bson::{Bson, Document, doc};
use thalamus_edge::central::{Central, Write, Written};
use thalamus_edge::domain::diff::{self, Change};
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::domain::value::same_document;

use super::{Behind, documents, values};

/// What became of a write, and with it of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Hit,
    Miss,
}

use Answer::{Hit, Miss};

/// One write against one stored document, both without `_id`.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) stored: Option<Document>,
    pub(super) attempt: Attempt,
    pub(super) answer: Answer,
}

pub(super) enum Attempt {
    Insert(Document),
    Update(Vec<Change>),
    Replace(Document, Document),
    Delete(Document),
}

pub(super) fn case(name: &'static str, stored: Document, attempt: Attempt, answer: Answer) -> Case {
    Case { name, stored: Some(stored), attempt, answer }
}

pub(super) fn change(path: &str, from: Option<Bson>, to: Option<Bson>) -> Change {
    Change { path: path.split('/').map(str::to_owned).collect(), from, to }
}

/// Sets the field `f`, believed to hold `from`.
pub(super) fn set_f(from: impl Into<Bson>) -> Attempt {
    Attempt::Update(vec![change("f", Some(from.into()), Some("new".into()))])
}

pub(super) fn update(changes: &[(&str, Option<Bson>, Option<Bson>)]) -> Attempt {
    let changes = changes.iter().cloned();
    Attempt::Update(changes.map(|(path, from, to)| change(path, from, to)).collect())
}

fn all() -> Vec<Case> {
    [
        values::scalars(),
        values::rare_types(),
        values::arrays(),
        documents::sub_documents(),
        documents::several_paths(),
        documents::whole_documents(),
        documents::hostile_keys(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

impl Case {
    fn write(&self, kind: Kind, id: &str) -> Write {
        let key = RecordKey::new(kind, id);
        let whole = |fields: &Document| identified(id, fields);
        match &self.attempt {
            Attempt::Insert(document) => Write::Insert { key, document: whole(document) },
            Attempt::Update(changes) => Write::Update { key, changes: changes.clone() },
            Attempt::Replace(base, document) => {
                Write::Replace { key, base: whole(base), document: whole(document) }
            }
            Attempt::Delete(base) => Write::Delete { key, base: whole(base) },
        }
    }

    /// What stands at the centre afterwards, given the answer.
    fn after(&self, id: &str, answer: Answer) -> Option<Document> {
        let stored = self.stored.as_ref().map(|fields| identified(id, fields));
        match (answer, &self.attempt) {
            (Miss, _) => stored,
            (Hit, Attempt::Insert(document) | Attempt::Replace(_, document)) => {
                Some(identified(id, document))
            }
            (Hit, Attempt::Delete(_)) => None,
            (Hit, Attempt::Update(changes)) => {
                let mut document = stored?;
                for change in changes {
                    diff::set(&mut document, &change.path, change.to.clone());
                }
                Some(document)
            }
        }
    }
}

fn identified(id: &str, fields: &Document) -> Document {
    let mut document = doc! {"_id": id};
    document.extend(fields.clone());
    document
}

/// How the cases are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sending {
    OneByOne,
    /// In one batch, each with an answer of its own.
    Together,
    /// In one batch, where an answer may be left open but must not be wrong.
    TogetherPerhapsOpen,
}

/// Whether a value that is written has a key that begins with `$`, at any depth.
fn writes_dollar_name(write: &Write) -> bool {
    fn has(value: &Bson) -> bool {
        match value {
            Bson::Document(document) => {
                document.iter().any(|(key, value)| key.starts_with('$') || has(value))
            }
            Bson::Array(values) => values.iter().any(has),
            _ => false,
        }
    }
    match write {
        Write::Insert { document, .. } | Write::Replace { document, .. } => {
            has(&Bson::Document(document.clone()))
        }
        Write::Update { changes, .. } => changes.iter().filter_map(|change| change.to.as_ref()).any(has),
        Write::Delete { .. } => false,
    }
}

/// Runs all cases and returns how many answers were left open.
pub(crate) async fn run(
    central: &mut dyn Central,
    behind: &dyn Behind,
    kind: Kind,
    sending: Sending,
) -> usize {
    let mut cases = all();
    let takes_dollar_names = behind.takes_dollar_names().await;
    if !takes_dollar_names {
        // Such a server can hold none.
        let begins = |document: &Document| document.keys().any(|key| key.starts_with('$'));
        cases.retain(|case| !case.stored.as_ref().is_some_and(begins));
    }
    let mut writes = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let id = format!("{sending:?} {number}");
        if let Some(stored) = &case.stored {
            behind.put(kind, identified(&id, stored)).await;
        }
        writes.push(case.write(kind, &id));
    }
    let answers = match sending {
        Sending::OneByOne => {
            let mut answers = Vec::new();
            for write in &writes {
                let answer = central.write(std::slice::from_ref(write)).await;
                answers.extend(answer.expect("an answer"));
            }
            answers
        }
        Sending::Together | Sending::TogetherPerhapsOpen => central.write(&writes).await.expect("answers"),
    };
    assert_eq!(answers.len(), cases.len());
    let mut failures = Vec::new();
    let mut open = 0;
    for ((case, write), answer) in cases.iter().zip(&writes).zip(answers) {
        let id = &write.key().id;
        let is_refused =
            !takes_dollar_names && writes_dollar_name(write) && matches!(answer, Written::Refused { .. });
        let due = if is_refused { Miss } else { case.answer };
        let expected = match due {
            _ if is_refused => answer.clone(),
            Hit => Written::Hit,
            Miss => Written::Miss,
        };
        if answer == Written::Unknown && sending == Sending::TogetherPerhapsOpen {
            open += 1;
        } else if answer != expected {
            failures.push(format!("{} ({id}): {answer:?} instead of {expected:?}", case.name));
        }
        let (found, due) = (behind.get(kind, id).await, case.after(id, due));
        let agree = match (&found, &due) {
            (Some(found), Some(due)) => same_document(found, due),
            (None, None) => true,
            _ => false,
        };
        if !agree {
            failures.push(format!("{} ({id}): left {found:?} instead of {due:?}", case.name));
        }
    }
    assert!(failures.is_empty(), "{sending:?}\n{}", failures.join("\n"));
    open
}
