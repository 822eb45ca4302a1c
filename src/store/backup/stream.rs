//! Floor 1. A store as one stream of bytes, and back: what backups are made of.
//!
//! A line that says what it is, then frames (a tag, the length of the body as four bytes, the body): for each
//! table that has rows its name and then the rows in order of their keys, at the end the manifest, as JSON.
//! The manifest holds the SHA-256 of the frames before it; 32 more bytes secure the manifest.
//!
//! A stream and not a copy of the file: it can be encrypted, and be checked again, without lying anywhere in
//! the clear; it holds no free pages; and it does not depend on how redb spells a file.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use redb::{
    Key, ReadableTable as _, ReadableTableMetadata as _, TableDefinition, TableError, TableHandle as _, Value,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::domain::record::Kind;
use crate::store::engine::Snapshot;
use crate::store::error::StoreError;
use crate::store::file::caught;
use crate::store::rows::{RowName, RowsDefinition, View};
use crate::store::schema::{EachTable, FORMAT_VERSION, each_table};

/// Version of the stream; one with a higher number is refused.
const BACKUP_FORMAT: u32 = 1;
pub(in crate::store) const MAGIC: &[u8] = b"thalamus-edge backup\n";
/// Largest body of a frame: far more than the largest row.
const FRAME_BYTES_MAX: usize = 64 << 20;

const TAG_TABLE: u8 = b'T';
const TAG_ROW: u8 = b'R';
const TAG_MANIFEST: u8 = b'M';

/// Why a backup could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The side that takes the stream failed.
    #[error("{0}")]
    Write(io::Error),
    /// The side that gives the stream failed.
    #[error("{0}")]
    Read(io::Error),
    #[error("this is no backup of thalamus-edge")]
    NotABackup,
    /// What is there is not what was written.
    #[error("the backup is damaged: {0}")]
    Damaged(String),
    #[error(
        "the backup has format {found}, this version reads up to {known}: install the version that made it"
    )]
    Newer { found: u32, known: u32 },
    /// A table that no backup would hold.
    #[error("the table {0:?} is unknown to this version, and a backup would lack it")]
    UnknownTable(String),
}

macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for StreamError {
            fn from(error: $error) -> Self {
                StreamError::Store(error.into())
            }
        }
    )*};
}
from_redb!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::DatabaseError
);

/// What a store holds, in numbers for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Records by the usual name of their collection; none of those with none.
    pub records: BTreeMap<String, u64>,
    /// Names of technicians' accounts.
    pub local_accounts: Vec<String>,
    /// How many people have roles that were granted on the node.
    pub granted_accounts: u64,
    /// Records that the centre has not got yet as they are.
    pub pending: u64,
    pub conflicts_open: u64,
}

/// What stands at the end of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub store_format: u32,
    /// Of the program that made it.
    pub version: String,
    pub about: About,
    pub summary: Summary,
    /// Rows by table; none of those with none.
    pub tables: BTreeMap<String, u64>,
    /// SHA-256 of all rows in order, in hex: equal exactly if two stores hold the same.
    pub content_sha256: String,
    /// Head of the audit trail at that moment, `SEQ:HASH`.
    pub audit_head: String,
}

/// What the store does not know about a backup of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub node_name: String,
    /// The node's id at the centre, once it has one.
    pub node_id: Option<String>,
    /// Milliseconds since 1970, for people.
    pub created_ms: i64,
}

impl Snapshot {
    pub fn summary(&self) -> Result<Summary, StoreError> {
        let mut records = BTreeMap::new();
        for kind in Kind::ALL {
            let count = self.count(kind)?;
            if count > 0 {
                records.insert(kind.schema().collection.to_owned(), count);
            }
        }
        Ok(Summary {
            records,
            local_accounts: self.local_accounts()?.into_iter().map(|(name, _)| name).collect(),
            granted_accounts: self.granted_count()?,
            pending: self.pending_count()?,
            conflicts_open: self.open_conflicts_count()?,
        })
    }

    /// Writes everything that the store holds at this moment. Writers are not held up by it, however long it
    /// takes; the file grows by what they write meanwhile.
    pub fn write_backup(&self, about: &About, out: &mut dyn Write) -> Result<Manifest, StreamError> {
        if let Some(pages) = self.transaction.broken_pages() {
            return Err(StoreError::DamagedRow(Box::new(pages)).into());
        }
        out.write_all(MAGIC).map_err(StreamError::Write)?;
        let (content, tables) = write_rows(&self.transaction, out)?;
        let manifest = Manifest {
            format: BACKUP_FORMAT,
            store_format: FORMAT_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            about: about.clone(),
            summary: self.summary()?,
            tables,
            content_sha256: hex::encode(content),
            audit_head: self.audit_head()?.to_string(),
        };
        let body = serde_json::to_vec(&manifest).map_err(|e| StreamError::Write(e.into()))?;
        write_frame(out, None, TAG_MANIFEST, &[&body])?;
        out.write_all(&seal(&body)).map_err(StreamError::Write)?;
        Ok(manifest)
    }

    /// SHA-256 of all rows, in hex, as in a [`Manifest`].
    pub fn content_sha256(&self) -> Result<String, StreamError> {
        Ok(hex::encode(write_rows(&self.transaction, &mut io::sink())?.0))
    }
}

/// What secures the manifest, which itself secures the rows.
fn seal(manifest: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(MAGIC).chain_update(manifest).finalize().into()
}

fn write_frame(
    out: &mut dyn Write,
    digest: Option<&mut Sha256>,
    tag: u8,
    parts: &[&[u8]],
) -> Result<(), StreamError> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let fitting = u32::try_from(length).ok().filter(|_| length <= FRAME_BYTES_MAX);
    let length =
        fitting.ok_or_else(|| StoreError::Unstorable(format!("a row of {length} bytes is too large")))?;
    let mut head = [tag; 5];
    head[1..].copy_from_slice(&length.to_be_bytes());
    let mut digest = digest;
    for part in [&head[..]].iter().chain(parts) {
        out.write_all(part).map_err(StreamError::Write)?;
        if let Some(digest) = &mut digest {
            digest.update(part);
        }
    }
    Ok(())
}

/// Writes all rows; returns their SHA-256 and how many each table has.
pub(in crate::store) fn write_rows(
    transaction: &View,
    out: &mut dyn Write,
) -> Result<([u8; 32], BTreeMap<String, u64>), StreamError> {
    let mut writing =
        Writing { transaction, out, digest: Sha256::new(), counts: BTreeMap::new(), seen: BTreeSet::new() };
    each_table(&mut writing)?;
    for table in transaction.redb().list_tables()? {
        if !writing.seen.contains(table.name()) {
            return Err(StreamError::UnknownTable(table.name().to_owned()));
        }
    }
    Ok((writing.digest.finalize().into(), writing.counts))
}

struct Writing<'a> {
    transaction: &'a View,
    out: &'a mut dyn Write,
    digest: Sha256,
    counts: BTreeMap<String, u64>,
    seen: BTreeSet<String>,
}

impl EachTable for Writing<'_> {
    type Error = StreamError;

    fn table<K: Key + 'static, V: Value + 'static>(
        &mut self,
        definition: TableDefinition<'static, K, V>,
    ) -> Result<(), StreamError> {
        let name = definition.name().to_owned();
        self.seen.insert(name.clone());
        let table = match self.transaction.open_table(definition) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            table => table?,
        };
        // A table without rows leaves no trace, so one that a later version adds changes nothing here.
        if table.is_empty()? {
            return Ok(());
        }
        write_frame(self.out, Some(&mut self.digest), TAG_TABLE, &[name.as_bytes()])?;
        let (mut count, mut order) = (0, Ascending::new(definition.name()));
        for entry in table.iter()? {
            let (key, value) = entry?;
            let (key, value) = (key.value(), value.value());
            let (key, value) = (K::as_bytes(&key), V::as_bytes(&value));
            order.follow::<K>(key.as_ref()).map_err(wrong_order)?;
            self.row(key.as_ref(), value.as_ref())?;
            count += 1;
        }
        self.counts.insert(name, count);
        Ok(())
    }

    /// Without the checksums, which are the file's: a backup has its own. A row whose checksum is wrong ends the backup:
    /// what nobody knows any more must not take the place of older backups that know it.
    fn rows<K: RowName>(&mut self, definition: RowsDefinition<K>) -> Result<(), StreamError> {
        self.seen.insert(definition.name().to_owned());
        let table = match self.transaction.open_table(definition) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            table => table?,
        };
        if table.is_empty()? {
            return Ok(());
        }
        write_frame(self.out, Some(&mut self.digest), TAG_TABLE, &[definition.name().as_bytes()])?;
        let (mut count, mut order) = (0, Ascending::new(definition.name()));
        for entry in table.iter()? {
            let (key, row) = entry?;
            let key = key.value();
            let key = K::as_bytes(&key);
            order.follow::<K>(key.as_ref()).map_err(wrong_order)?;
            self.row(key.as_ref(), row.value())?;
            count += 1;
        }
        self.counts.insert(definition.name().to_owned(), count);
        Ok(())
    }
}

impl Writing<'_> {
    fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), StreamError> {
        let length =
            u32::try_from(key.len()).map_err(|_| StoreError::Unstorable("a key is too long".to_owned()))?;
        let parts = [&length.to_be_bytes()[..], key, value];
        write_frame(self.out, Some(&mut self.digest), TAG_ROW, &parts)
    }
}

/// Keys of a table, of which each has to come after the one before, as a store gives them back: a page whose bits are
/// wrong may hold others.
pub(in crate::store) struct Ascending<'a> {
    table: &'a str,
    before: Option<Vec<u8>>,
}

impl<'a> Ascending<'a> {
    pub(in crate::store) fn new(table: &'a str) -> Self {
        Ascending { table, before: None }
    }

    /// The next key of the table; an error if it cannot be, or stands there before.
    pub(in crate::store) fn follow<K: Key>(&mut self, key: &[u8]) -> Result<(), StreamError> {
        let before = self.before.take();
        // redb gives up on bytes that are no such key.
        let is_behind = || {
            drop(K::from_bytes(key));
            before.as_ref().is_none_or(|before| K::compare(before, key).is_lt())
        };
        let is_fitting = K::fixed_width().is_none_or(|width| width == key.len());
        if !is_fitting || !caught(is_behind).unwrap_or(false) {
            return Err(StreamError::Damaged(format!("the rows of {:?} are not in order", self.table)));
        }
        self.before = Some(key.to_vec());
        Ok(())
    }
}

pub(in crate::store) enum Frame {
    Table(String),
    /// The length of the key, and key and value behind each other.
    Row(usize, Vec<u8>),
    Manifest(Box<Manifest>),
}

pub(in crate::store) struct Reading<'a> {
    input: &'a mut dyn Read,
    digest: Sha256,
    counts: BTreeMap<String, u64>,
    table: Option<String>,
}

impl<'a> Reading<'a> {
    pub(in crate::store) fn start(input: &'a mut dyn Read) -> Result<Reading<'a>, StreamError> {
        let mut magic = [0; MAGIC.len()];
        match input.read_exact(&mut magic) {
            Ok(()) if magic == MAGIC => {}
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(read_error(error)),
            _ => return Err(StreamError::NotABackup),
        }
        Ok(Reading { input, digest: Sha256::new(), counts: BTreeMap::new(), table: None })
    }

    /// The next frame. With the manifest, everything has been compared with what it says.
    pub(in crate::store) fn next(&mut self) -> Result<Frame, StreamError> {
        let mut head = [0; 5];
        self.input.read_exact(&mut head).map_err(read_error)?;
        let [tag, a, b, c, d] = head;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(damaged("a length in it makes no sense"));
        }
        // Grows with what is really there, whatever the length says.
        let mut body = Vec::new();
        let read = self.input.take(length as u64).read_to_end(&mut body).map_err(read_error)?;
        if read < length {
            return Err(damaged("it ends too early"));
        }
        if tag == TAG_MANIFEST {
            return self.end(&body).map(|manifest| Frame::Manifest(Box::new(manifest)));
        }
        self.digest.update(head);
        self.digest.update(&body);
        match tag {
            TAG_TABLE => {
                let name = String::from_utf8(body).map_err(|_| damaged("a name in it is no text"))?;
                if self.counts.insert(name.clone(), 0).is_some() {
                    return Err(damaged("a table stands in it twice"));
                }
                self.table = Some(name.clone());
                Ok(Frame::Table(name))
            }
            TAG_ROW => {
                let count = self.table.as_ref().and_then(|table| self.counts.get_mut(table));
                *count.ok_or_else(|| damaged("a row in it belongs to no table"))? += 1;
                let (key_length, row) =
                    body.split_first_chunk::<4>().ok_or_else(|| damaged("a row in it is cut short"))?;
                let key_length = u32::from_be_bytes(*key_length) as usize;
                if key_length > row.len() {
                    return Err(damaged("a row in it is cut short"));
                }
                Ok(Frame::Row(key_length, row.to_vec()))
            }
            _ => Err(damaged("a part of it is of no known kind")),
        }
    }

    fn end(&mut self, body: &[u8]) -> Result<Manifest, StreamError> {
        let mut found = [0; 32];
        self.input.read_exact(&mut found).map_err(read_error)?;
        if found != seal(body) {
            return Err(damaged("its manifest has been changed"));
        }
        if self.input.read(&mut [0]).map_err(read_error)? != 0 {
            return Err(damaged("something follows after its end"));
        }
        // The formats first: what a later version writes may be unreadable here.
        #[derive(Deserialize)]
        struct Formats {
            format: u32,
            store_format: u32,
        }
        let unreadable = |_| damaged("its manifest cannot be read");
        let formats: Formats = serde_json::from_slice(body).map_err(unreadable)?;
        for (found, known) in [(formats.format, BACKUP_FORMAT), (formats.store_format, FORMAT_VERSION)] {
            if found > known {
                return Err(StreamError::Newer { found, known });
            }
        }
        let manifest: Manifest = serde_json::from_slice(body).map_err(unreadable)?;
        if manifest.content_sha256 != hex::encode(self.digest.finalize_reset())
            || manifest.tables != self.counts
        {
            return Err(damaged("its rows are not those that were written"));
        }
        Ok(manifest)
    }
}

/// Of a store that is backed up, it is the store that is damaged.
fn wrong_order(error: StreamError) -> StreamError {
    match error {
        StreamError::Damaged(what) => StoreError::Damaged(what).into(),
        other => other,
    }
}

pub(in crate::store) fn damaged(what: &str) -> StreamError {
    StreamError::Damaged(what.to_owned())
}

/// An end in the wrong place and bytes that an outer layer refuses are damage, the rest is the disk's fault.
fn read_error(error: io::Error) -> StreamError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("it ends too early"),
        io::ErrorKind::InvalidData => damaged("its encryption shows that it was changed"),
        _ => StreamError::Read(error),
    }
}

#[cfg(test)]
mod tests {
    use redb::Database;

    use super::*;
    use crate::store::{Store, StoreOptions, read_backup};

    /// A table that somebody adds and forgets in `each_table` must not be missing from backups unnoticed.
    #[test]
    fn a_table_that_no_backup_would_hold_stops_the_backup() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        let options = StoreOptions {
            cache_bytes: 1 << 20,
            journal_keep_rows: 1_000,
            audit_keep_rows: 1_000,
            clock: || 0,
        };
        drop(Store::open(&path, options).unwrap());
        let database = Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(TableDefinition::<u64, u64>::new("novelty")).unwrap();
        transaction.commit().unwrap();
        drop(database);
        let store = Store::open(&path, options).unwrap();
        let error = store.read().unwrap().content_sha256().unwrap_err();
        assert!(matches!(&error, StreamError::UnknownTable(name) if name == "novelty"), "{error:?}");
    }

    #[test]
    fn keys_that_do_not_ascend_are_refused() {
        let key = |n: u64| n.to_le_bytes();
        let follow = |keys: &[u64]| {
            let mut order = Ascending::new("journal");
            keys.iter().try_for_each(|n| order.follow::<u64>(&key(*n))).is_ok()
        };
        assert!(follow(&[1, 2, 300]));
        assert!(!follow(&[1, 300, 2]) && !follow(&[1, 1]));
        assert!(Ascending::new("journal").follow::<u64>(b"short").is_err());
        assert!(Ascending::new("docs").follow::<&str>(b"\xff\xff").is_err());
    }

    /// A backup of a later version is refused by its number, whatever else stands in it.
    #[test]
    fn a_backup_of_a_later_version_is_refused() {
        let body = br#"{"format": 2, "store_format": 1, "what": "else"}"#;
        let mut bytes = MAGIC.to_vec();
        write_frame(&mut bytes, None, TAG_MANIFEST, &[&body[..]]).unwrap();
        bytes.extend(seal(body));
        let error = read_backup(&mut bytes.as_slice()).unwrap_err();
        assert!(matches!(error, StreamError::Newer { found: 2, known: 1 }), "{error:?}");
    }
}
