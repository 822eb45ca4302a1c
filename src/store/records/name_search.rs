//! Floor 1. Finding people by words, and the index that they are found by.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use redb::{ReadableTable, ReadableTableMetadata as _, WriteTransaction};

use super::indexes::search_terms;
use crate::domain::folding::{FOLDING_VERSION, Word, words};
use crate::domain::schema::{IdRule, SCHEMAS};
use crate::store::engine::Snapshot;
use crate::store::error::StoreError;
use crate::store::rows::{open_for_writing, raw};
use crate::store::schema::{BY_NAME, DOCS, META};

/// In `meta`: the version of the folding by which the index of names was made.
const META_FOLDING: &str = "folding";
/// How often the log says how far a new index is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// After so many people the clock is asked.
const PROGRESS_PEOPLE: u64 = 1000;

impl Snapshot {
    /// Ids of people, in order, of whose id or name each word of `query` begins a word, wherever one of the two has an
    /// apostrophe, a hyphen or a blank and the other has not.
    pub fn people_named(&self, query: &str) -> Result<Vec<String>, StoreError> {
        let by_name = self.transaction.open_table(BY_NAME)?;
        let words = words(query);
        let mut found: Option<BTreeSet<String>> = None;
        for word in &words {
            let mut of_word = None;
            for part in &word.parts {
                of_word = Some(begun(&by_name, part, of_word.as_ref().or(found.as_ref()))?);
            }
            let mut of_word = of_word.unwrap_or_default();
            if word.parts.len() > 1 {
                of_word.append(&mut begun(&by_name, &word.joined(), found.as_ref())?);
            }
            found = Some(of_word);
        }
        let mut found = found.unwrap_or_default();
        if words.len() > 1 {
            let whole: String = words.iter().map(Word::joined).collect();
            found.append(&mut begun(&by_name, &whole, None)?);
        }
        Ok(found.into_iter().collect())
    }
}

/// Ids, among these if there are any, of the people who are found by a term that begins with `beginning`.
fn begun(
    by_name: &impl ReadableTable<(&'static str, &'static str), ()>,
    beginning: &str,
    among: Option<&BTreeSet<String>>,
) -> Result<BTreeSet<String>, StoreError> {
    let mut found = BTreeSet::new();
    for entry in by_name.range((beginning, "")..)? {
        let (at, _) = entry?;
        let (term, id) = at.value();
        if !term.starts_with(beginning) {
            break;
        }
        if among.is_none_or(|among| among.contains(id)) {
            found.insert(id.to_owned());
        }
    }
    Ok(found)
}

/// Makes the index of names anew if another folding made it, all in this transaction: a store that is closed meanwhile
/// keeps the old one, and the next one to open it begins again. `ask_for_time`: the service manager is to wait.
pub(in crate::store) fn refold_names(
    transaction: &WriteTransaction,
    mut ask_for_time: impl FnMut(),
) -> Result<(), StoreError> {
    refold_names_telling(transaction, PROGRESS_INTERVAL, |people| {
        tracing::info!(people, "the index of names is being made");
        ask_for_time();
    })
}

/// `tell` is told of how many people the new index is, when so much time has passed since it was told last.
fn refold_names_telling(
    transaction: &WriteTransaction,
    interval: Duration,
    mut tell: impl FnMut(u64),
) -> Result<(), StoreError> {
    let mut meta = transaction.open_table(META)?;
    let version = FOLDING_VERSION.to_be_bytes();
    if meta.get(META_FOLDING)?.is_some_and(|found| found.value() == version) {
        return Ok(());
    }
    let docs = open_for_writing(transaction, &std::sync::Arc::default(), DOCS)?;
    if !transaction.open_table(BY_NAME)?.is_empty()? {
        tracing::info!("the index of names is made anew");
    }
    transaction.delete_table(BY_NAME)?;
    let mut by_name = transaction.open_table(BY_NAME)?;
    let (mut people, mut said) = (0_u64, Instant::now());
    for schema in SCHEMAS.iter().filter(|schema| schema.id_rule == IdRule::Account) {
        for entry in docs.range((schema.code, "")..)? {
            // A damaged record keeps nobody from the others: `db check` names it.
            let Ok((at, row)) = entry else {
                continue;
            };
            let (code, id) = at.value();
            if code != schema.code {
                break;
            }
            let terms = raw(row.value()).map(|document| search_terms(id, document)).unwrap_or_default();
            for term in terms {
                by_name.insert((term.as_str(), id), ())?;
            }
            people += 1;
            if people.is_multiple_of(PROGRESS_PEOPLE) && said.elapsed() >= interval {
                tell(people);
                said = Instant::now();
            }
        }
    }
    if people > 0 {
        tracing::info!(people, "the index of names is ready");
    }
    meta.insert(META_FOLDING, version.as_slice())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use redb::{Database, ReadableDatabase as _};

    use super::*;
    use crate::domain::access::Actor;
    use crate::domain::folding::TERMS_MAX;
    use crate::domain::record::{Kind, RecordKey};
    use crate::store::{Store, StoreOptions, Tx};

    const OPTIONS: StoreOptions =
        StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 1000, audit_keep_rows: 1000, clock: || 0 };

    #[tokio::test]
    async fn an_index_of_another_folding_is_made_anew_and_one_of_this_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        let store = Store::open(&path, OPTIONS).unwrap();
        let add = |tx: &mut Tx<'_>| -> Result<(), StoreError> {
            let person = bson::doc! {"_id": "ANA", "name": "Ana", "lastname": "O’Brien"};
            tx.edit(&RecordKey::new(Kind::Person, "ANA"), Some(&person), &Actor::Operator(0)).map(|_| ())
        };
        store.transact(add).await.unwrap();
        drop(store);
        let terms = |database: &Database| -> Vec<String> {
            let names = database.begin_read().unwrap().open_table(BY_NAME).unwrap();
            names.iter().unwrap().map(|entry| entry.unwrap().0.value().0.to_owned()).collect()
        };
        let right = terms(&Database::open(&path).unwrap());
        assert_eq!(right, ["ana", "brien", "o", "obrien"]);
        for (version, is_made) in
            [(None, true), (Some(FOLDING_VERSION - 1), true), (Some(FOLDING_VERSION), false)]
        {
            let database = Database::open(&path).unwrap();
            let transaction = database.begin_write().unwrap();
            {
                let mut names = transaction.open_table(BY_NAME).unwrap();
                names.retain(|_, ()| false).unwrap();
                names.insert(("o’brien", "ANA"), ()).unwrap();
                let mut meta = transaction.open_table(META).unwrap();
                match version {
                    Some(version) => meta.insert(META_FOLDING, version.to_be_bytes().as_slice()).unwrap(),
                    None => meta.remove(META_FOLDING).unwrap(),
                };
            }
            transaction.commit().unwrap();
            drop(database);
            drop(Store::open(&path, OPTIONS).unwrap());
            let found = terms(&Database::open(&path).unwrap());
            assert_eq!(found == right, is_made, "{version:?}: {found:?}");
        }
    }

    /// Each row is written by the one writer, while everybody else waits.
    #[tokio::test]
    async fn a_name_of_many_words_costs_no_more_rows_than_one_of_some_dozen() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.redb"), OPTIONS).unwrap();
        let words = |count: usize| (0..count).map(|n| format!("w{n:07}")).collect::<Vec<_>>().join(" ");
        let mut rows = Vec::new();
        for count in [3, 64, 100_000] {
            let (name, of_dashes) = (words(count), words(count).replace(' ', "-"));
            let edit = move |tx: &mut Tx<'_>| -> Result<u64, StoreError> {
                let person = bson::doc! {"_id": "ANA", "name": &name, "lastname": &of_dashes};
                tx.edit(&RecordKey::new(Kind::Person, "ANA"), Some(&person), &Actor::Operator(0))?;
                assert_eq!(tx.document(&RecordKey::new(Kind::Person, "ANA"))?, Some(person), "kept as it is");
                Ok(tx.by_name.len()?)
            };
            rows.push(store.transact(edit).await.unwrap());
            let view = store.read().unwrap();
            assert_eq!(view.disagreements().unwrap(), Vec::<String>::new());
            assert_eq!(view.people_named(&words(count)).unwrap(), ["ANA"], "found by the whole of it");
            assert_eq!(view.people_named("w0000002").unwrap(), ["ANA"]);
        }
        assert!(rows[0] < rows[1] && rows[1] == rows[2], "{rows:?}");
        assert!(rows[2] as usize <= 3 * TERMS_MAX, "{rows:?}");
    }

    #[tokio::test]
    async fn how_far_a_new_index_is_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        let store = Store::open(&path, OPTIONS).unwrap();
        let count = 2 * PROGRESS_PEOPLE + 1;
        let add = move |tx: &mut Tx<'_>| -> Result<(), StoreError> {
            for number in 0..count {
                let id = format!("P{number:06}");
                let person = bson::doc! {"_id": &id, "name": "Ana"};
                tx.edit(&RecordKey::new(Kind::Person, id), Some(&person), &Actor::Operator(0))?;
            }
            Ok(())
        };
        store.transact(add).await.unwrap();
        drop(store);
        let database = Database::open(&path).unwrap();
        let told_every = |interval: Duration| {
            let transaction = database.begin_write().unwrap();
            transaction.open_table(META).unwrap().remove(META_FOLDING).unwrap();
            let mut told = Vec::new();
            refold_names_telling(&transaction, interval, |people| told.push(people)).unwrap();
            transaction.abort().unwrap();
            told
        };
        assert_eq!(told_every(Duration::ZERO), [PROGRESS_PEOPLE, 2 * PROGRESS_PEOPLE]);
        assert!(told_every(Duration::from_secs(3600)).is_empty(), "not more often than it says");
    }
}
