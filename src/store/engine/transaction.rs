//! Floor 1. A write transaction: all tables opened, and what the present job is about.

use std::collections::HashMap;
use std::sync::Arc;

use redb::{ReadableTable, Table, WriteTransaction};

use super::asker::Asker;
use super::carry::Carry;
use super::sparing::Spared;
use super::store::StoreOptions;
use super::tally::{Counted, Noticing};
use crate::domain::access::Actor;
use crate::domain::emergency::Emergency;
use crate::store::error::StoreError;
use crate::store::rows::{Checked, RowKey, Rows, damaged, open_for_writing};
use crate::store::schema::tables;
use crate::store::schema::*;

/// The type of an open table.
macro_rules! opened {
    ($t:lifetime, $form:tt, counted $($marks:ident)*) => { Noticing<opened!($t, $form,)> };
    ($t:lifetime, [rows $key:ty], $($marks:ident)*) => { Rows<$t, $key> };
    ($t:lifetime, [plain $key:ty => $value:ty], $($marks:ident)*) => { Table<$t, $key, $value> };
}

/// Opens a table.
macro_rules! open {
    ($transaction:ident, $ledger:ident, $table:ident, counted $($marks:ident)*) => {
        Noticing::new(open!($transaction, $ledger, $table,))
    };
    ($transaction:ident, $ledger:ident, $table:ident, $($marks:ident)*) => {
        open_for_writing($transaction, &$ledger, $table)?
    };
}

/// Whether a table that counts depend on was written.
macro_rules! is_written {
    ($tx:ident, $field:ident, counted $($marks:ident)*) => {
        $tx.$field.is_written()
    };
    ($tx:ident, $field:ident, $($marks:ident)*) => {
        false
    };
}

macro_rules! transaction {
    ($($(#[$doc:meta])* $field:ident $table:ident: $form:tt $role:ident $($marks:ident)*;)*) => {
        /// A write transaction, with all tables open. Effects last only if the whole group commits.
        pub struct Tx<'t> {
            $(pub(in crate::store) $field: opened!('t, $form, $($marks)*),)*
            /// A person that is written stays the same human being, whatever becomes of their fields.
            pub(in crate::store) keeps_holder: bool,
            /// A password that is written was given by who has no need to know the former one.
            pub(in crate::store) password_is_given: bool,
            /// Emergency accesses that have not ended, read when they are needed.
            pub(in crate::store) not_ended: Option<Vec<Opened>>,
            pub(in crate::store) carry: &'t mut Carry,
            pub(in crate::store) sequence: u64,
            pub(in crate::store) journal_keep_rows: u64,
            pub(in crate::store) audit_keep_rows: u64,
            /// For whom the present job works.
            pub(in crate::store) asker: Option<Asker>,
            /// What the present job leaves out.
            pub(in crate::store) spared: Spared,
            pub(in crate::store) now_ms: i64,
            pub(in crate::store) writes: u64,
            /// Places of own writes that landed, by the id of their record; looked up when they are needed.
            pub(in crate::store) sent_at: Option<HashMap<String, Vec<u64>>>,
        }

        impl<'t> Tx<'t> {
            pub(crate) fn open(
                transaction: &'t WriteTransaction,
                options: &StoreOptions,
                carry: &'t mut Carry,
            ) -> Result<Tx<'t>, StoreError> {
                let ledger = Arc::clone(&carry.ledger);
                let mut tx = Tx {
                    $($field: open!(transaction, ledger, $table, $($marks)*),)*
                    keeps_holder: false,
                    password_is_given: false,
                    not_ended: None,
                    carry,
                    sequence: 0,
                    journal_keep_rows: options.journal_keep_rows,
                    audit_keep_rows: options.audit_keep_rows,
                    asker: None,
                    spared: Spared::default(),
                    now_ms: (options.clock)(),
                    writes: 0,
                    sent_at: None,
                };
                tx.sequence = last_sequence(&tx.journal, &tx.meta)?;
                tx.carry.found.get_or_insert(tx.sequence);
                Ok(tx)
            }

            /// Whether this transaction leaves the counts of the node's status as they were: the tables that they depend on.
            pub(crate) fn counted(&self) -> Counted {
                let is_written = $(is_written!(self, $field, $($marks)*))||*;
                if is_written { Counted::Anew } else { Counted::AsBefore }
            }
        }
    };
}

tables!(transaction);

/// One that is not ended, as the present transaction knows it: thousands of people may come in one, and each is looked for
/// among them.
pub(in crate::store) struct Opened {
    /// Who opened it, if that can be told.
    pub(in crate::store) by: Option<Actor>,
    pub(in crate::store) row: Emergency,
}

pub(crate) fn create_tables(transaction: &WriteTransaction) -> Result<(), StoreError> {
    let options =
        StoreOptions { cache_bytes: 0, journal_keep_rows: u64::MAX, audit_keep_rows: u64::MAX, clock: || 0 };
    Tx::open(transaction, &options, &mut Carry::default()).map(|_| ())
}

impl Tx<'_> {
    /// How many rows this transaction has touched.
    pub(crate) fn writes(&self) -> u64 {
        self.writes
    }

    pub(crate) fn wrote(&mut self) {
        self.writes += 1;
    }

    pub(crate) fn last_sequence(&self) -> u64 {
        self.sequence
    }

    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }
}

/// The number of the last change: that of the journal's last row, or where it is to begin.
pub(crate) fn last_sequence(
    journal: &Checked<impl ReadableTable<u64, &'static [u8]>, u64>,
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<u64, StoreError> {
    if let Some(sequence) = journal.last_number()? {
        return Ok(sequence);
    }
    let Some(start) = meta.get(META_JOURNAL_START)? else {
        return Ok(0);
    };
    let start = start.value().try_into().map_err(|_| damaged("the beginning of the journal"))?;
    Ok(u64::from_be_bytes(start))
}
