//! Floor 1. What was made of records, for whoever asks for the same before the next commit.
//!
//! It lies in the view that it was made of and goes with it, so it cannot be out of date.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::snapshot::Snapshot;
use crate::domain::record::Kind;

/// Most bytes of text that one view keeps: the list of ten thousand people.
const KEPT_BYTES_MAX: usize = 8 << 20;
/// What one entry takes beside its text.
const ENTRY_BYTES: usize = 256;

/// What a text is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeptKey {
    pub kind: Kind,
    pub of: KeptOf,
    /// Whoever makes different texts of the same tells them apart by this.
    pub form: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeptOf {
    /// The record with this id.
    Record(String),
    /// A part of the list of everybody's, or of an account's, after this id.
    Part { owner: Option<String>, after: Option<String>, max: usize },
}

/// Text made of a record, or of a part of a list.
#[derive(Debug)]
pub struct Kept {
    pub text: Bytes,
    /// Version of the record's bytes.
    pub etag: String,
    /// Id of the record, as it is stored.
    pub id: String,
    /// Folded account that the record belongs to.
    pub owner: Option<String>,
    /// Where the list goes on.
    pub next: Option<String>,
}

/// The texts of one view.
#[derive(Default)]
pub(crate) struct Shelf(Mutex<(HashMap<KeptKey, Arc<Kept>>, usize)>);

impl Snapshot {
    pub fn kept(&self, key: &KeptKey) -> Option<Arc<Kept>> {
        self.shelf.0.lock().unwrap_or_else(PoisonError::into_inner).0.get(key).cloned()
    }

    /// Keeps a text that was made of this view, if there is room.
    pub fn keep(&self, key: KeptKey, kept: Arc<Kept>) {
        let bytes = kept.text.len() + ENTRY_BYTES;
        let mut shelf = self.shelf.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shelf.1 + bytes <= KEPT_BYTES_MAX && shelf.0.insert(key, kept).is_none() {
            shelf.1 += bytes;
        }
    }
}
