//! Floor 1. Who made the two versions of a conflict, and when, as far as it is known.
//!
//! Here the journal tells. The centre keeps no history of its records: there, only what the program that wrote the record
//! put into it is known, and that is about the record as a whole.

use std::collections::HashMap;

use bson::{Bson, Document};

use crate::domain::access::Actor;
use crate::domain::record::RecordKey;
use crate::store::engine::Tx;
use crate::store::error::StoreError;
use crate::store::rows::Fields;
use crate::store::sync::IntentWrite;

/// Changes that are searched for an edit, beginning with the last one: a first meeting with a centre may find thousands
/// of conflicts, and each of them searches.
const SEARCHED_CHANGES_MAX: usize = 256;
/// Longest name or time that is taken from a record of the centre, in characters.
const NAMED_CHARS_MAX: usize = 128;
/// The fields of a record in which programs say who wrote it last, and who made it.
const STAMPS: [&str; 2] = ["modification_info", "creation_info"];
/// The path of a record as a whole.
const WHOLE_RECORD: &str = "";

/// An edit of this node.
#[derive(Debug, Default)]
pub(in crate::store) struct EditHere {
    /// Empty if it is not known.
    pub(in crate::store) author: String,
    pub(in crate::store) at_ms: Option<i64>,
}

/// The last write of the centre's version, as it says itself.
#[derive(Debug, Default)]
pub(in crate::store) struct EditThere {
    pub(in crate::store) author: Option<String>,
    pub(in crate::store) at: Option<String>,
}

impl Tx<'_> {
    /// The last unsent edit at each of these paths of a record, in their order. If the journal does not have it among its last
    /// changes, the author of the record's last unsent edit, without the time.
    pub(in crate::store) fn edits_here(
        &self,
        key: &RecordKey,
        paths: &[&[String]],
    ) -> Result<Vec<EditHere>, StoreError> {
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        let Some(first) = self.base_row(key)?.map(|row| row.sequence) else {
            return Ok(paths.iter().map(|_| EditHere::default()).collect());
        };
        let mut wanted = WantedPaths::of(paths);
        let mut found: Vec<Option<EditHere>> = paths.iter().map(|_| None).collect();
        let by_centre = Actor::Centre.to_string();
        let last = self.journal.range(first..)?.rev().take(SEARCHED_CHANGES_MAX);
        // The edit that made the record wait for the centre, which may be the only one.
        let oldest = self.journal.range(first..)?.take(2);
        for entry in last.chain(oldest) {
            let Ok((_, row)) = entry else { break };
            if wanted.is_empty() {
                break;
            }
            let row = Fields::of(row.value(), "a row of the journal")?;
            let actor = row.text("actor")?;
            if actor == by_centre || row.key()? != *key {
                continue;
            }
            for edited in row.texts("paths")? {
                for at in wanted.take_parts_of(&edited) {
                    let edit = EditHere { author: actor.to_owned(), at_ms: Some(row.int64("at")?) };
                    found[at].get_or_insert(edit);
                }
            }
        }
        // What came from the centre nobody edited here.
        let author = Some(self.author_of(key)?).filter(|author| *author != by_centre).unwrap_or_default();
        Ok(found
            .into_iter()
            .map(|found| found.unwrap_or_else(|| EditHere { author: author.clone(), at_ms: None }))
            .collect())
    }

    /// The edit that this node sent last for each of these paths of a record, in their order. Without the time, which is not
    /// remembered.
    pub(in crate::store) fn edits_sent(
        &mut self,
        key: &RecordKey,
        paths: &[&[String]],
    ) -> Result<Vec<EditHere>, StoreError> {
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        let mut wanted = WantedPaths::of(paths);
        let mut found: Vec<EditHere> = paths.iter().map(|_| EditHere::default()).collect();
        for sent in self.sent_of(key)?.into_iter().rev() {
            let taken = match &sent.write {
                IntentWrite::Update(changes) => {
                    changes.iter().flat_map(|change| wanted.take_parts_of(&change.path.join("."))).collect()
                }
                IntentWrite::Insert(_) | IntentWrite::Replace(_) => wanted.take_parts_of(WHOLE_RECORD),
                IntentWrite::Delete { .. } => wanted.take_exactly(WHOLE_RECORD),
            };
            for at in taken {
                found[at].author.clone_from(&sent.author);
            }
        }
        Ok(found)
    }

    /// Who wrote the centre's version, if that says so, and not the same as the version that was agreed on before: then it
    /// was written by a program that leaves no name.
    pub(in crate::store) fn edit_there(
        &self,
        key: &RecordKey,
        remote: Option<&Document>,
    ) -> Result<EditThere, StoreError> {
        let Some(remote) = remote else {
            return Ok(EditThere::default());
        };
        let base = self.base(key)?;
        let stamp = |field: &&str| {
            let stamp = remote.get_document(field).ok()?;
            let is_old =
                base.document().is_some_and(|base| base.get_document(field).is_ok_and(|old| old == stamp));
            (!is_old).then_some(stamp)
        };
        let Some(stamp) = STAMPS.iter().find_map(stamp) else {
            return Ok(EditThere::default());
        };
        let text = |field: &str| match stamp.get(field)? {
            Bson::String(text) if !text.trim().is_empty() => {
                Some(text.chars().take(NAMED_CHARS_MAX).collect::<String>())
            }
            Bson::DateTime(date) => date.try_to_rfc3339_string().ok(),
            _ => None,
        };
        let author = match (text("user"), text("node")) {
            (Some(user), Some(node)) => Some(format!("{user} at {node}")),
            (user, node) => user.or(node.map(|node| format!("somebody at {node}"))),
        };
        Ok(EditThere { author, at: text("timestamp") })
    }
}

/// Paths whose edits are looked for, by themselves and by what they are parts of: a record may have thousands of both, and
/// each with each would be millions.
struct WantedPaths {
    /// By dotted path: the places of the paths that are it, or below it. The empty one ([`WHOLE_RECORD`]) is the whole record.
    below: HashMap<String, Vec<usize>>,
    /// By dotted path, the places of the paths that are it.
    exact: HashMap<String, Vec<usize>>,
    left: usize,
    /// By place.
    is_taken: Vec<bool>,
}

impl WantedPaths {
    fn of(paths: &[&[String]]) -> WantedPaths {
        let (mut below, mut exact) =
            (HashMap::<String, Vec<usize>>::new(), HashMap::<String, Vec<usize>>::new());
        for (at, path) in paths.iter().enumerate() {
            let path = path.join(".");
            for part in parts_of(&path) {
                below.entry(part.to_owned()).or_default().push(at);
            }
            exact.entry(path).or_default().push(at);
        }
        WantedPaths { below, exact, left: paths.len(), is_taken: vec![false; paths.len()] }
    }

    fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Takes the paths out that are a part of a dotted path, or of which it is one; their places.
    fn take_parts_of(&mut self, edited: &str) -> Vec<usize> {
        let mut taken = self.below.remove(edited).unwrap_or_default();
        for part in parts_of(edited) {
            taken.extend(self.exact.remove(part).unwrap_or_default());
        }
        self.take(taken)
    }

    /// Takes the paths out that are this dotted path; their places.
    fn take_exactly(&mut self, path: &str) -> Vec<usize> {
        let taken = self.exact.remove(path).unwrap_or_default();
        self.take(taken)
    }

    /// Leaves those out that were taken before.
    fn take(&mut self, mut places: Vec<usize>) -> Vec<usize> {
        places.retain(|at| !std::mem::replace(&mut self.is_taken[*at], true));
        self.left -= places.len();
        places
    }
}

/// What a dotted path leads through: the whole record, each part that ends before a dot, and itself.
fn parts_of(path: &str) -> impl Iterator<Item = &str> {
    let dots = path.match_indices('.').map(|(at, _)| &path[..at]);
    let itself = Some(path).filter(|path| !path.is_empty());
    std::iter::once(WHOLE_RECORD).chain(dots).chain(itself)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::diff::{Change, Path};
    use crate::domain::merge::{Clash, Side};
    use crate::domain::record::Kind;
    use crate::store::{Base, Intent, Store, StoreOptions};

    const OPTIONS: StoreOptions =
        StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 1000, audit_keep_rows: 1000, clock: || 0 };

    #[tokio::test]
    async fn each_of_many_clashes_of_a_record_has_its_author() {
        const FIELDS: i32 = 3_000;
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.redb"), OPTIONS).unwrap();
        let authors = [Actor::Operator(1), Actor::Operator(2)];
        let version = |by: i32| -> Document {
            // The first edit changes all of them, the second one those with an even number.
            let value = |n: i32| if n % 2 == 0 { by } else { by.min(1) };
            let fields = (0..FIELDS).map(|n| (format!("k{n}"), value(n).into()));
            [("_id".to_owned(), "e".into())].into_iter().chain(fields).collect()
        };
        let key = RecordKey::new(Kind::Event, "e");
        let (of, versions) = (key.clone(), [version(0), version(1), version(2)]);
        let clashes: Vec<Clash> = (0..FIELDS)
            .map(|n| Clash {
                path: Path::from([format!("k{n}")]),
                base: Some(0.into()),
                local: versions[2].get(format!("k{n}")).cloned(),
                remote: Some(9.into()),
                stands: Side::Remote,
            })
            .collect();
        let found = store.transact(move |tx: &mut Tx<'_>| -> Result<_, StoreError> {
            tx.put(&of, Some(&versions[0]), &Base::Document(versions[0].clone()), &Actor::Centre)?;
            for (version, author) in versions[1..].iter().zip(&authors) {
                tx.edit(&of, Some(version), author)?;
            }
            tx.add_conflicts(&of, &clashes, None)?;
            // The same again is known.
            tx.add_conflicts(&of, &clashes, None)?;
            tx.open_conflicts_of(&of)
        });
        let found = found.await.unwrap();
        assert_eq!(found.len(), FIELDS as usize);
        for conflict in found {
            let number: i32 = conflict.path[0][1..].parse().unwrap();
            let author = Actor::Operator(if number % 2 == 0 { 2 } else { 1 });
            assert_eq!(conflict.author, author.to_string(), "{number}");
            assert_eq!(conflict.edited_at_ms, Some(0));
        }
    }

    #[tokio::test]
    async fn what_was_sent_has_the_author_of_the_last_write_that_it_was_a_part_of() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.redb"), OPTIONS).unwrap();
        let path = |dotted: &str| -> Path { dotted.split_terminator('.').map(str::to_owned).collect() };
        let update = |dotted: &str| {
            IntentWrite::Update(vec![Change { path: path(dotted), from: None, to: Some(1.into()) }])
        };
        let writes = [
            ("first", IntentWrite::Insert(Document::new())),
            ("second", update("a.b")),
            ("third", update("c")),
            ("fourth", update("a.b.d")),
            ("fifth", IntentWrite::Delete { archive: String::new() }),
        ];
        let found = store.transact(move |tx: &mut Tx<'_>| -> Result<_, StoreError> {
            let key = RecordKey::new(Kind::Event, "e");
            for (number, (author, write)) in (1..).zip(&writes) {
                let intent =
                    Intent { number, after: None, author: (*author).to_owned(), write: write.clone() };
                tx.note_sent(&key, &intent, 1, false)?;
            }
            let paths = ["a", "a.b.e", "c.x", "z", ""].map(path);
            let paths: Vec<&[String]> = paths.iter().map(Vec::as_slice).collect();
            let other = tx.edits_sent(&RecordKey::new(Kind::Event, "other"), &paths)?;
            assert!(other.iter().all(|edit| edit.author.is_empty()));
            tx.edits_sent(&key, &paths)
        });
        let authors: Vec<String> = found.await.unwrap().into_iter().map(|edit| edit.author).collect();
        assert_eq!(authors, ["fourth", "second", "third", "first", "fifth"]);
    }

    #[test]
    fn a_path_is_found_by_its_parts_and_by_what_it_is_a_part_of() {
        let paths = ["", "a", "a.b", "a.b.c", "ab", "x"].map(|path| {
            path.split('.').filter(|key| !key.is_empty()).map(str::to_owned).collect::<Vec<String>>()
        });
        let paths: Vec<&[String]> = paths.iter().map(Vec::as_slice).collect();
        for (edited, expected) in [
            ("", &[0, 1, 2, 3, 4, 5][..]),
            ("a", &[0, 1, 2, 3]),
            ("a.b", &[0, 1, 2, 3]),
            ("a.b.c.d", &[0, 1, 2, 3]),
            ("a.x", &[0, 1]),
            ("abc", &[0]),
            ("x", &[0, 5]),
        ] {
            let mut wanted = WantedPaths::of(&paths);
            let mut taken = wanted.take_parts_of(edited);
            taken.sort_unstable();
            assert_eq!(taken, expected, "{edited}");
            assert!(wanted.take_parts_of(edited).is_empty(), "each once");
            assert_eq!(wanted.is_empty(), expected.len() == paths.len());
        }
    }
}
