//! Floor 1. What is counted over whole tables: records of nobody, and records of people who are gone. It is counted once for
//! each state of these tables, when somebody asks for it, and all views of that state share it.
//!
//! There may be millions of such records, and the status of the node asks for the counts again and again, while the audit trail
//! alone makes a new view each second. So a commit says whether it left what is counted as it was ([`Counted`]). Nobody has to
//! remember to say so: a transaction has the tables in a [`Noticing`], which sees that somebody got one for writing.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

use crate::domain::record::Kind;

/// The counts of one state.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(in crate::store) ownerless: BTreeMap<Kind, u64>,
    pub(in crate::store) left_behind: LeftBehindCount,
}

/// Where all views of one state keep them, with how often damage had been noted before they were counted: who is damaged is
/// not gone.
#[derive(Default)]
pub(crate) struct TallyShelf(pub(in crate::store) Mutex<Option<(u64, Arc<Tally>)>>);

/// Whether a commit leaves what is counted as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    AsBefore,
    Anew,
}

/// The shelf of the present state, for the engine.
#[derive(Default)]
pub(crate) struct PresentShelf {
    shelf: Arc<TallyShelf>,
    /// A commit is on its way that leaves nothing as it was: who begins to read may see the state before or after it.
    is_between: bool,
}

impl PresentShelf {
    /// For a view that begins now.
    pub(crate) fn shelf(&self) -> Arc<TallyShelf> {
        if self.is_between { Arc::default() } else { Arc::clone(&self.shelf) }
    }

    pub(crate) fn begin_commit(&mut self, counted: Counted) {
        self.is_between = counted == Counted::Anew;
    }

    pub(crate) fn end_commit(&mut self, counted: Counted) {
        self.is_between = false;
        if counted == Counted::Anew {
            self.forget();
        }
    }

    /// The state may be another one by now.
    pub(crate) fn forget(&mut self) {
        self.shelf = Arc::default();
    }
}

/// A table in a transaction, and whether somebody got it for writing.
pub(crate) struct Noticing<T> {
    table: T,
    is_written: bool,
}

impl<T> Noticing<T> {
    pub(crate) fn new(table: T) -> Noticing<T> {
        Noticing { table, is_written: false }
    }

    pub(crate) fn is_written(&self) -> bool {
        self.is_written
    }
}

impl<T> Deref for Noticing<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.table
    }
}

impl<T> DerefMut for Noticing<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.is_written = true;
        &mut self.table
    }
}

/// Records of somebody who is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftBehind {
    /// Folded.
    pub account: String,
    /// How many of each kind, none of a kind without any.
    pub counts: BTreeMap<Kind, u64>,
}

/// Records of all who are gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftBehindCount {
    /// How many accounts.
    pub accounts: u64,
    /// The first of them in order, [`LeftBehindCount::NAMED_MAX`] at most. Folded.
    pub first: Vec<String>,
    /// How many records of each kind, none of a kind without any.
    pub counts: BTreeMap<Kind, u64>,
}

impl LeftBehindCount {
    /// Most accounts that are named.
    pub const NAMED_MAX: usize = 3;

    /// One more, in order.
    pub(crate) fn add(&mut self, left: LeftBehind) {
        self.accounts += 1;
        if self.first.len() < Self::NAMED_MAX {
            self.first.push(left.account);
        }
        for (kind, count) in left.counts {
            *self.counts.entry(kind).or_default() += count;
        }
    }
}
