//! Floor 1. The embedded store: the only floor that knows redb.
//!
//! Hides tables, keys, transactions and durability. Reads go through a [`Snapshot`], writes through
//! [`Store::transact`]: many writers share one durable commit, and nobody is answered before it is on
//! disk. What a write does to the bookkeeping of the reconciliation (base, dirty, journal, indexes)
//! happens in one file, `records/write.rs`, in the same transaction.
//!
//! The rooms, each of which imports only from those above it: `error`, `budget`, `rows`, `schema`, `file`, `engine`, `holders`,
//! `accounts`, `content`, `audit`, `trash`, `records`, `sync`, `conflicts`, `check`, `opening`, `backup`, `upkeep`.

mod accounts;
mod audit;
mod backup;
mod budget;
mod check;
mod conflicts;
mod content;
mod engine;
mod error;
mod file;
mod holders;
mod opening;
mod records;
mod rows;
mod schema;
mod sync;
mod trash;
mod upkeep;

pub use crate::domain::emergency::Emergency;
pub use accounts::{ActiveChange, ActiveChanges, EmergencyError, Granted, Stays, under};
pub use audit::{AuditPage, AuditQuery, AuditRow};
pub use backup::{
    About, ClearFiles, Manifest, StreamError, Summary, files_in_the_clear, read_backup, rebuild,
};
pub use budget::{Budget, Given, Share};
pub use check::{AsideRows, Damage, META_VERIFY_DUE, Scrub, SetAsideError};
pub use conflicts::{
    About as ConflictAbout, Conflict, ConflictStatus, Held, Hold, HoldReason, Note, Published, Subject,
    stands_name,
};
pub use content::{CONTENT_TABLE, ContentsLeft, IdleContents, OwedContent, WantedContent};
pub(crate) use engine::off_workers;
pub use engine::{
    Asker, Charge, Claim, Clock, FreeBytes, Kept, KeptKey, KeptOf, LeftBehind, LeftBehindCount, Right,
    Snapshot, Standing, Store, StoreOptions, Tx, Unnoted, asked_by, free_bytes_at, space_at,
};
pub use error::{DamagedRow, SealError, Shortage, Stale, StoreError};
pub(crate) use error::{unless_damaged, unless_unreadable};
pub use file::{Sealed, StoreKey};
pub use holders::{OwnerNow, Whose, identity_in, identity_row};
pub use opening::BitsPutRight;
pub use records::{
    Edit, EditError, JournalRow, JournalWindow, NotedOwner, Part, RecordPage, Requirement, StoredRecord,
};
pub use rows::Base;
#[cfg(test)]
pub(crate) use rows::Codec;
pub(crate) use rows::Fields;
pub use schema::{FORMAT_VERSION, is_made_anew};
pub use sync::{
    Compared, DeadLetter, Delivered, Intent, IntentWrite, Landing, NOT_ARCHIVED_CODE, OpenWrite, Pending,
    Reread, STORE_FIELD, Sent, Taken, UNREADABLE_CODE, Undecided, Vanished, WaitReason, Waiting,
};
pub(crate) use trash::Return;
pub use trash::{
    Deletion, FormerHolders, OwnerDoubt, TrashPage, TrashRow, TrashState, TrashSummary, UndeleteError,
};
pub use upkeep::{
    CheckedStore, Left, LeftChunk, LeftRecord, Trial, change_store_key, check_store, compact_store,
    lock_file, look_at_store, read_what_is_left, recode_store,
};
