//! Floor 1. Why the store could not do what it was asked for, and the causes that callers tell apart.

use std::{fmt, io};

use crate::domain::record::Kind;
use crate::files::is_no_room;

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the file.
    #[error("the store is in use by another thalamus-edge")]
    Held,
    /// The file was written by a later version.
    #[error(
        "the store has format {found}, this version reads up to {known}: install the version that wrote it"
    )]
    Newer { found: u32, known: u32 },
    /// The disk is full.
    #[error("the disk is full")]
    DiskFull,
    /// The store and the key that was given do not fit.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// A client's write that would touch the reserve.
    #[error("{0}")]
    Short(Shortage),
    /// A client's write whose right no longer holds.
    #[error("{0}")]
    Stale(Stale),
    /// A value that cannot be written as BSON.
    #[error("cannot be stored: {0}")]
    Unstorable(String),
    /// What is on disk makes no sense.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// Pages are damaged beyond repair: the file is not opened for writing, because redb gives up in the middle of a
    /// write that comes upon them, and opens no such file again. Which tables they are of.
    #[error(
        "damaged beyond repair: {0}. So the store is not opened and nothing was written to it. Keep a copy \
         of the file. `thalamus-edge export DIR` reads the records that can still be read, unsent edits included; \
         then `thalamus-edge restore FILE` puts the last good backup in its place"
    )]
    Broken(String),
    /// The writer panicked, in redb mostly: nothing can be written until the store is opened anew, which looks at its
    /// pages first.
    #[error(
        "the store gave up in the middle of a write, as it does when pages of its file are damaged: what was being \
         written may not be stored, and the node ends. Its next start looks at the file and says what to do"
    )]
    GivenUp,
    /// A row whose checksum is wrong: it is not what was written.
    #[error(
        "a row of {:?} is damaged: it is not what was written, and is neither shown nor sent. `thalamus-edge doctor` \
         names it", .0.table
    )]
    DamagedRow(Box<DamagedRow>),
    /// The file has an earlier format, and whoever opened it changes nothing.
    #[error(
        "the store has format {found}, and this version writes {known}: the next start of the node upgrades it"
    )]
    Older { found: u32, known: u32 },
    /// The disk failed before this, and nothing was done: the same may be asked for again.
    #[error("the store's disk failed a moment ago; the store is opened again as soon as that is possible")]
    Reopening,
    /// The disk or the file system failed, or the store is closing.
    #[error("the store failed: {0}")]
    Failed(String),
}

impl StoreError {
    /// Whether opening the store again would end the same way, until somebody changes the file, the key or the program.
    pub fn is_lasting(&self) -> bool {
        use StoreError::*;
        match self {
            Newer { .. } | Older { .. } | Sealed(_) | Damaged(_) | Broken(_) | DamagedRow(_) => true,
            Held | DiskFull | Short(_) | Stale(_) | Unstorable(_) | GivenUp | Reopening | Failed(_) => false,
        }
    }

    pub(in crate::store) fn of_io(error: &io::Error) -> StoreError {
        match is_no_room(error) {
            true => StoreError::DiskFull,
            false => StoreError::Failed(error.to_string()),
        }
    }
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::DatabaseAlreadyOpen => StoreError::Held,
            redb::Error::Io(error) => StoreError::of_io(&error),
            redb::Error::PreviousIo => StoreError::Reopening,
            redb::Error::Corrupted(what) => StoreError::Damaged(what),
            other => StoreError::Failed(other.to_string()),
        }
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                StoreError::from(redb::Error::from(error))
            }
        }
    )*};
}
from_redb!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::DatabaseError,
    redb::CompactionError,
    redb::SetDurabilityError
);

/// Nothing if a row is damaged, which the ledger has then. For reads that decide nothing; what is written for one of many
/// records goes through `Tx::sparing`, where the rule stands.
pub(crate) fn unless_damaged<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::DamagedRow(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `None` for a row that cannot be read, where it only keeps time, or what may be lost: it begins anew, and does not stop what
/// else is to be written.
pub(crate) fn unless_unreadable<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(StoreError::Damaged(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A row whose checksum is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DamagedRow {
    /// Name of the table.
    pub table: String,
    /// Of the record that the row is about, if it is about one.
    pub kind: Option<Kind>,
    /// The record's id, or else what stands first in the key.
    pub id: String,
}

/// Why a file did not open with a key.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("a key is 64 hexadecimal digits, and nothing else in its file")]
    BadKey,
    #[error("the store is not encrypted, and a key was given: `db encrypt` encrypts it")]
    NotSealed,
    #[error("the store is encrypted: name the file of key {0} in [store] key_file")]
    NoKey(String),
    #[error("the store is encrypted with key {wanted}, and the key given is {given}")]
    OtherKey { wanted: String, given: String },
    #[error(
        "the encrypted store is damaged: {0}. Nothing in it was changed. Keep a copy of the file; `thalamus-edge restore \
         FILE` puts the last good backup in its place"
    )]
    Damaged(&'static str),
    #[error("the machine gives no randomness: {0}")]
    NoRandomness(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why rights no longer hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// Closed, deleted, or refused because the centre has not been heard for too long.
    #[error("the account has been closed")]
    Account,
    #[error("the password has been changed")]
    Password,
    #[error("the session has ended")]
    Session,
    #[error("the one-time link has been used or replaced")]
    Link,
    /// Its password, roles or activity were changed, and may be the same again.
    #[error("the account has been changed")]
    Changed,
    /// A role was taken, or another human being has come to have the account.
    #[error("the account has lost a role")]
    Roles,
    #[error("the access rules have changed")]
    Rules,
    /// The records of another person are no longer open in an emergency.
    #[error("the emergency access has ended")]
    Emergency,
    /// The write would give the caller's own account another password, and the caller came in by a session and has not
    /// given the present one.
    #[error("the current password of the account was not given")]
    PasswordNotGiven,
}

/// Less than the reserve is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    pub free_bytes: u64,
    pub reserve_bytes: u64,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = |bytes: u64| bytes / 1_000_000;
        write!(
            f,
            "the disk is nearly full: {} MB are free, and {} MB (store.reserve_bytes) are kept free",
            megabytes(self.free_bytes),
            megabytes(self.reserve_bytes)
        )
    }
}
