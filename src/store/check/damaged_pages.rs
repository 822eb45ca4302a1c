//! Floor 1. Pages of the open store compared with their checksums; damaged rows named by their keys.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::{Key, StorageBackend, TableDefinition, Value};

use crate::domain::record::Kind;
use crate::files::open_regular;
use crate::store::engine::Store;
use crate::store::error::{DamagedRow, StoreError};
use crate::store::file::{BLOCKS_AT, Sealed, inspect, inspect_sealed};
use crate::store::rows::{Ledger, PAGES, RowName, RowsDefinition};
use crate::store::schema::{EachTable, each_table};

/// What is written in place: the header and what lies beside it in its page; in an encrypted store all before its blocks.
const HEADER_BYTES: usize = BLOCKS_AT as usize;

/// Notes damaged rows, by table and key, as what their keys say.
pub(crate) fn name_rows(damaged: &[(String, Vec<u8>)], ledger: &Ledger) {
    let Ok(()) = each_table(&mut Naming { damaged, ledger });
}

struct Naming<'a> {
    damaged: &'a [(String, Vec<u8>)],
    ledger: &'a Ledger,
}

impl EachTable for Naming<'_> {
    type Error = std::convert::Infallible;

    fn table<K: Key + 'static, V: Value + 'static>(
        &mut self,
        _: TableDefinition<'static, K, V>,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    fn rows<K: RowName>(&mut self, rows: RowsDefinition<K>) -> Result<(), Self::Error> {
        for (table, key) in self.damaged.iter().filter(|(table, _)| *table == rows.name()) {
            // A key that is none of this type would make redb give up.
            let named = catch_unwind(AssertUnwindSafe(|| K::row_name(&K::from_bytes(key))));
            let (code, id) = named.unwrap_or_else(|_| (None, hex::encode(key)));
            self.ledger.note(DamagedRow { table: table.clone(), kind: code.and_then(Kind::from_code), id });
        }
        Ok(())
    }
}

/// The file of an open store as one commit left it. Pages of that commit stay as they are while a view of it lives; the
/// header is kept from when the view was made.
#[derive(Debug)]
struct Committed {
    file: File,
    length: u64,
    header: Vec<u8>,
}

impl StorageBackend for Committed {
    fn len(&self) -> io::Result<u64> {
        Ok(self.length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        match self.header.get(from..from.saturating_add(out.len())) {
            Some(header) => out.copy_from_slice(header),
            None => self.file.read_exact_at(out, offset)?,
        }
        Ok(())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Store {
    /// Looks at the pages of the open store. Wrong bits are put right by opening it again, which ends what is being read at
    /// that moment; what is beyond that is named. Reads the whole file.
    pub async fn look_at_pages(&self) -> Result<(), StoreError> {
        let store = self.clone();
        let looked = tokio::task::spawn_blocking(move || store.look_at_pages_now());
        looked.await.map_err(|error| StoreError::Damaged(format!("pages cannot be followed: {error}")))?
    }

    fn look_at_pages_now(&self) -> Result<(), StoreError> {
        let io = |error: io::Error| StoreError::of_io(&error);
        let engine = &self.inner.engine;
        let Some(file) = self.inner.file.as_ref() else {
            return Ok(());
        };
        let (_view, committed) = {
            let _nobody_writes = engine.writing();
            let view = engine.view()?;
            let open = open_regular(&file.path).map_err(io)?;
            let mut header = vec![0; HEADER_BYTES];
            open.read_exact_at(&mut header, 0).map_err(io)?;
            let length = open.metadata().map_err(io)?.len();
            (view, Committed { file: open, length, header })
        };
        let found = match &file.key {
            None => inspect(&committed, true).map_err(io)?,
            Some(key) => inspect_sealed(&Sealed::open_to_look(committed, key)?, true).map_err(io)?,
        };
        name_rows(&found.damaged, &engine.ledger);
        for table in &found.broken {
            engine.ledger.note(DamagedRow { table: table.clone(), kind: None, id: PAGES.to_owned() });
        }
        let bits = found.flips.len() as u64 + found.bits_in_blocks;
        if bits > 0 || (found.closed_blocks > 0 && !found.patches.is_empty()) {
            tracing::error!(
                bits,
                blocks = found.closed_blocks,
                "the store's file is not what was written: it is opened again"
            );
            file.mend_next();
            engine.reopen();
        }
        Ok(())
    }

    /// Whether pages of the file are damaged, so that rows may be missing of which nobody knows: then nothing is
    /// concluded from a row that is not there.
    pub fn has_broken_pages(&self) -> bool {
        self.damaged_rows().iter().any(|row| row.id == PAGES)
    }
}
