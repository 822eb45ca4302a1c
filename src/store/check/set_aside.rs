//! Floor 1. The way out for a damaged record that nothing heals: its rows go into a file, and the record leaves the store.
//!
//! As long as a damaged record is in the store no backup is made, because nobody can say what is in it. Once it is set
//! aside, the next round takes the centre's version, if there is one, and backups are made again. What can be read of
//! the rows may be worth something to somebody who knows the patient, so they are kept as they are.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use redb::{ReadOnlyTable, ReadableTable};

use crate::domain::access::Actor;
use crate::domain::audit::What;
use crate::domain::record::{Kind, RecordKey};
use crate::files::{create_private, directory_of, give_to_owner_of_directory, sync_directory};
use crate::store::engine::{Snapshot, Store, Tx};
use crate::store::error::StoreError;
use crate::store::rows::{Checked, RowKey, RowsDefinition, row_key};
use crate::store::schema::{BASE, DEAD, DELIVERED, DOCS, GHOST, HELD, INTENT, UNDECIDED, WAITING};
use crate::store::sync::Reread;

/// Below the directory of the store.
pub(in crate::store) const DIRECTORY: &str = "damaged";
/// Tables whose rows under a record's key are what the node knows of it.
const TABLES: [RowsDefinition<RowKey>; 9] =
    [DOCS, BASE, INTENT, DELIVERED, UNDECIDED, GHOST, DEAD, HELD, WAITING];

/// Why a record was not set aside.
#[derive(Debug, thiserror::Error)]
pub enum SetAsideError {
    #[error("no row of this record is damaged")]
    NotDamaged,
    #[error("no row of this table has a checksum")]
    NoTable,
    #[error("its rows are records, which are set aside as a whole")]
    OfRecord,
    #[error("the store is in memory, and has no directory")]
    NoDirectory,
    #[error("its rows could not be kept: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Sets a damaged record aside; returns the file that has its rows now. The file is on disk before anything is
    /// removed.
    pub async fn set_aside(&self, key: &RecordKey) -> Result<PathBuf, SetAsideError> {
        let key = key.clone();
        let is_damaged = {
            let key = key.clone();
            self.transact(move |tx| -> Result<bool, StoreError> { Ok(tx.damage(&key)?.is_some()) }).await?
        };
        if !is_damaged {
            return Err(SetAsideError::NotDamaged);
        }
        let file = self.inner.file.as_ref().ok_or(SetAsideError::NoDirectory)?;
        let directory = directory_of(&file.path).to_owned();
        let rows = self.read()?.rows_of(&key)?;
        let collection = key.kind.schema().collection;
        let lines = rows.iter().map(|(table, row)| (collection, key.id.as_str(), *table, row.as_slice()));
        let path = keep(&directory.join(DIRECTORY), collection, lines)?;
        let name = path.display().to_string();
        self.transact(move |tx| -> Result<(), StoreError> { tx.drop_damaged(&key, &name) }).await?;
        self.settle_damage().await?;
        tracing::warn!(file = %path.display(), "a damaged record was set aside");
        Ok(path)
    }
}

impl Snapshot {
    /// The rows under a record's key, by table, as they stand in the file.
    fn rows_of(&self, key: &RecordKey) -> Result<Vec<(&'static str, Vec<u8>)>, StoreError> {
        let mut rows = Vec::new();
        for table in TABLES {
            let open: Checked<ReadOnlyTable<RowKey, &'static [u8]>, RowKey> =
                self.transaction.open_table(table)?;
            if let Some(row) = open.unchecked(row_key(key))? {
                rows.push((table.name(), row));
            }
        }
        Ok(rows)
    }
}

/// One line of JSON for each row (collection, id, table and bytes), in a file that only the service's user reads.
pub(in crate::store) fn keep<'a>(
    directory: &Path,
    stem: &str,
    rows: impl Iterator<Item = (&'a str, &'a str, &'a str, &'a [u8])>,
) -> Result<PathBuf, io::Error> {
    std::fs::create_dir_all(directory)?;
    give_to_owner_of_directory(directory)?;
    let mut number = 1;
    let (path, mut file) = loop {
        // Ids may hold anything; the record is named inside.
        let path = directory.join(format!("{stem}-{number}.jsonl"));
        match create_private(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            file => break (path, file?),
        }
    };
    for (collection, id, table, row) in rows {
        let line = serde_json::json!({
            "collection": collection, "id": id, "table": table, "row_hex": hex::encode(row),
            "row_text": String::from_utf8_lossy(row),
        });
        writeln!(file, "{line}")?;
    }
    file.sync_all()?;
    give_to_owner_of_directory(&path)?;
    sync_directory(directory)?;
    sync_directory(directory_of(directory))?;
    Ok(path)
}

impl Tx<'_> {
    /// Removes all that is known of a damaged record, and has the centre asked for it.
    fn drop_damaged(&mut self, key: &RecordKey, file: &str) -> Result<(), StoreError> {
        if self.damage(key)?.is_none() {
            return Ok(());
        }
        let at = row_key(key);
        let stand_in = self.stand_in(key)?;
        let of = match key.kind {
            Kind::Person => Some(self.row_of(&key.id, &self.docs.unchecked_value(at)?.unwrap_or_default())?),
            _ => None,
        };
        let contents = self.unindex_unreadable(key)?;
        for table in [
            &mut self.docs,
            &mut self.base,
            &mut self.intent,
            &mut self.delivered,
            &mut self.ghost,
            &mut self.dead,
            &mut self.waiting,
        ] {
            table.remove(at)?;
        }
        if !stand_in.as_ref().is_some_and(|stand_in| stand_in.is_undecided) {
            self.undecided.remove(at)?;
        }
        let mut places = Vec::new();
        for entry in self.dirty.iter()? {
            let (place, _) = entry?;
            let (rank, sequence, code, id) = place.value();
            if (code, id) == at {
                places.push((rank, sequence));
            }
        }
        for (rank, sequence) in places {
            self.dirty.remove((rank, sequence, at.0, at.1))?;
        }
        self.landed.remove(at)?;
        self.clear_vanished(key)?;
        for sha256 in contents {
            self.unname_content(key, &sha256)?;
        }
        self.note_gone(key)?;
        self.ask_again(key, Reread::default())?;
        let collection = key.kind.schema().collection;
        self.audit_asked(What::SetAside, |event| event.about(collection, &key.id, None).saying(file))?;
        // Nobody could read what rights it was about.
        if key.kind == Kind::Person {
            self.rights_changed(&Actor::Person(key.id.clone()))?;
        }
        match stand_in {
            Some(stand_in) => self.put_stand_in(key, &stand_in)?,
            None => {
                if let Some(of) = &of {
                    self.remember_unknown(of)?;
                }
                // Readers of the change feed learn that it is not here any more.
                self.journal_gone(key)?;
            }
        }
        self.put_questions_back()
    }

    /// Removes what followed from a record's row that nobody can read, and returns the contents that it named.
    pub(crate) fn unindex_unreadable(&mut self, key: &RecordKey) -> Result<Vec<String>, StoreError> {
        let (code, id) = row_key(key);
        let mut owners = Vec::new();
        for entry in self.by_owner.range((code, "", "")..(code + 1, "", ""))? {
            let (at, _) = entry?;
            let (_, owner, of) = at.value();
            if of == id {
                owners.push(owner.to_owned());
            }
        }
        for owner in owners {
            self.by_owner.remove((code, owner.as_str(), id))?;
        }
        self.note_owner(key, None)?;
        if key.kind == Kind::Person {
            let mut words = Vec::new();
            for entry in self.by_name.iter()? {
                let (at, _) = entry?;
                if at.value().1 == id {
                    words.push(at.value().0.to_owned());
                }
            }
            for word in words {
                self.by_name.remove((word.as_str(), id))?;
            }
        }
        let mut contents = Vec::new();
        for entry in self.content_named.iter()? {
            let (at, _) = entry?;
            let (sha256, of_kind, of) = at.value();
            if (of_kind, of) == (code, id) {
                contents.push(sha256.to_owned());
            }
        }
        self.wrote();
        Ok(contents)
    }
}
