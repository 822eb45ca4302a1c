//! Floor 1. Which edits of this node the centre has, told in a way that an older copy of the store understands.
//!
//! The store may be put back to an older image of its disk. Edits that wait to be sent there were delivered long ago,
//! perhaps, and others may have undone them since. The node's row at the centre therefore says through which edit the
//! node has delivered, by number in the journal. An image goes on counting where it was, so the same numbers come up
//! again for other edits; each process that edits has a name, which tells them apart.

use std::collections::BTreeSet;

use bson::{Bson, Document, doc};
use redb::ReadableTable;

use super::rereads::Reread;
use crate::domain::access::Actor;
use crate::domain::diff::{Path, get};
use crate::domain::merge::{Clash, Side};
use crate::domain::overwritten::overwritten;
use crate::domain::record::{Kind, RecordKey};
use crate::store::engine::{Snapshot, Tx, last_sequence};
use crate::store::error::StoreError;
use crate::store::rows::{Base, Fields, decode, encode, kind_of, row_key};
use crate::store::schema::{DIRTY, JOURNAL, META};
use crate::store::trash::TrashState;

/// The processes that edited this store: names, and the number of the first change of each.
const META_BOOTS: &str = "boots";
const BOOTS_ROW: &str = "the processes that edited this store";
/// Processes that are remembered.
const BOOTS_MAX: usize = 256;
/// Edits that are named as not delivered; with more of them everything after counts as not delivered.
const UNDELIVERED_MAX: usize = 64;

/// In the node's row: the id of the store and of all images of it, whatever their names.
pub const STORE_FIELD: &str = "store";
/// In the node's row: the number through which edits are delivered, but those in the second; the processes that made
/// them, name -> number of the first change.
const DELIVERED: &str = "delivered";
const UNDELIVERED: &str = "undelivered";
const BOOTS: &str = "boots";

/// What the row of a node at the centre says of its edits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivered {
    through: u64,
    except: BTreeSet<u64>,
    boots: BTreeSet<String>,
}

impl Delivered {
    /// What cannot be read there says of no edit that it was delivered. The row is the centre's, so no row of this store
    /// is damaged then; and an edit that counts as not delivered is compared with what the centre holds.
    pub fn of_row(row: &Document) -> Delivered {
        Delivered::read(row).unwrap_or_default()
    }

    fn read(row: &Document) -> Option<Delivered> {
        let number = |value: &Bson| value.as_i64().and_then(|number| u64::try_from(number).ok());
        let except = row.get_array(UNDELIVERED).ok()?.iter().map(number);
        Some(Delivered {
            through: row.get(DELIVERED).and_then(number)?,
            except: except.collect::<Option<_>>()?,
            boots: row.get_document(BOOTS).ok()?.keys().cloned().collect(),
        })
    }

    fn has(&self, sequence: u64, boots: &[(String, u64)]) -> bool {
        let boot = boots.iter().rev().find(|(_, from)| *from <= sequence);
        sequence <= self.through
            && !self.except.contains(&sequence)
            && boot.is_some_and(|(name, _)| self.boots.contains(name))
    }
}

/// The process that was the last to change a record, of whatever version; empty if there was none.
pub(in crate::store) fn last_boot(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<String, StoreError> {
    Ok(boots_known(meta)?.pop().map(|(name, _)| name).unwrap_or_default())
}

/// The processes that a row of [`META_BOOTS`] names, oldest first.
pub(in crate::store) fn boots_in(bytes: &[u8]) -> Result<Vec<(String, u64)>, StoreError> {
    let rows = Fields::of(bytes, BOOTS_ROW)?.rows_if_any(BOOTS)?;
    rows.into_iter().map(|boot| Ok((boot.text("name")?.to_owned(), boot.count("from")?))).collect()
}

fn boots_known(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<Vec<(String, u64)>, StoreError> {
    meta.get(META_BOOTS)?.map_or(Ok(Vec::new()), |row| boots_in(row.value()))
}

fn text_of_boots(bytes: &[u8], field: &str) -> Result<Option<String>, StoreError> {
    Ok(Fields::of(bytes, BOOTS_ROW)?.text_if_any(field)?.map(str::to_owned))
}

fn store_id_in(meta: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<Option<String>, StoreError> {
    meta.get(META_BOOTS)?.map_or(Ok(None), |row| text_of_boots(row.value(), "store"))
}

impl Tx<'_> {
    /// The first change of this process is about to get this number.
    pub(in crate::store) fn note_boot(&mut self, sequence: u64) -> Result<(), StoreError> {
        let mut boots = boots_known(&self.meta)?;
        let name = self.carry.boot.clone();
        if boots.last().is_some_and(|(last, _)| *last == name) {
            return Ok(());
        }
        boots.push((name, sequence));
        let store = self.store_id()?.unwrap_or_else(|| crate::flaw::fresh_id().to_string());
        let kept = boots.len().saturating_sub(BOOTS_MAX);
        let rows = boots[kept..].iter().map(|(name, from)| doc! {"name": name, "from": *from as i64});
        let mut row = self.meta(META_BOOTS)?.unwrap_or_default();
        row.extend(doc! {"store": store, BOOTS: rows.collect::<Vec<_>>()});
        self.set_meta(META_BOOTS, Some(&row))?;
        let name = self.carry.boot.clone();
        self.note_keeper(&name)
    }

    /// A seal is about to be sent with this announcement, which names processes.
    pub fn tell_boots(&mut self, announcement: &Document) -> Result<(), StoreError> {
        let named = |(name, _): &(String, u64)| announcement.contains_key(format!("{BOOTS}.{name}"));
        self.copy_in_boots_row("telling", |row| {
            Ok(boots_in(row)?.into_iter().rev().find(named).map(|(name, _)| name))
        })
    }

    /// The centre has that seal.
    pub fn boots_told(&mut self) -> Result<(), StoreError> {
        self.copy_in_boots_row("told", |row| text_of_boots(row, "telling"))
    }

    fn copy_in_boots_row(
        &mut self,
        field: &str,
        value: impl Fn(&[u8]) -> Result<Option<String>, StoreError>,
    ) -> Result<(), StoreError> {
        let Some(bytes) = self.meta.get(META_BOOTS)?.map(|row| row.value().to_vec()) else {
            return Ok(());
        };
        let (value, known) = (value(&bytes)?, text_of_boots(&bytes, field)?);
        if value.is_none() || value == known {
            return Ok(());
        }
        let mut row = decode(&bytes)?;
        row.extend(value.map(|name| (field.to_owned(), name.into())));
        self.set_meta(META_BOOTS, Some(&row))
    }

    /// The id of this store and of all copies of it, once anything was edited in it or a backup was made.
    pub fn store_id(&self) -> Result<Option<String>, StoreError> {
        store_id_in(&self.meta)
    }

    /// Gives the store an id if it has none yet.
    pub fn name_store(&mut self) -> Result<(), StoreError> {
        if self.store_id()?.is_some() {
            return Ok(());
        }
        let mut row = self.meta(META_BOOTS)?.unwrap_or_default();
        row.insert("store", crate::flaw::fresh_id().to_string());
        self.set_meta(META_BOOTS, Some(&row))
    }

    /// This store goes on under another name, and `delivered` is what the rows of earlier ones say: edits that wait
    /// here and are delivered are not new. Those that a later process has made are, whatever their number: the record counts
    /// as delivered in the version that the earlier ones left (`unsent_versions.rs`). What the centre has since is
    /// compared when it is read ([`Tx::compare_delivered`]).
    pub fn settle_delivered(&mut self, delivered: &[Delivered]) -> Result<(), StoreError> {
        let boots = boots_known(&self.meta)?;
        let has = |sequence| delivered.iter().any(|row| row.has(sequence, &boots));
        let mut due = Vec::new();
        for entry in self.dirty.iter()? {
            let (at, _) = entry?;
            let (_, sequence, code, id) = at.value();
            if has(sequence) {
                due.push(RecordKey::new(kind_of(code)?, id));
            }
        }
        let deleted = self.unsent_deletes()?;
        for key in due {
            let left = self.unsent_version(&key)?;
            // An edit of which nothing tells that it is new counts as delivered: if it was not, it becomes a conflict, and is
            // not lost.
            let version = left.as_ref().and_then(|left| left.before(|change| !has(change)));
            // What cannot be read is not sent.
            self.sparing(&key, |tx| tx.settle_delivered_edits(&key, version))?;
        }
        for key in deleted {
            let left = self.unsent_version(&key)?.filter(|left| has(left.first));
            if let Some((change, Some(version))) =
                left.as_ref().and_then(|left| left.before(|change| !has(change)))
            {
                self.sparing(&key, |tx| tx.settle_unsent_delete(&key, (change, version)))?;
            }
        }
        self.forget_unsent_versions()
    }

    /// `left`: the first change that is new, if there is one, and the record before it, as the processes left it whose edits are
    /// delivered.
    fn settle_delivered_edits(
        &mut self,
        key: &RecordKey,
        left: Option<(u64, Option<&Document>)>,
    ) -> Result<(), StoreError> {
        let local = self.document(key)?;
        let delivered = left.map_or(local.as_ref(), |(_, before)| before);
        if key.kind == Kind::Person
            && let (Some(delivered), Base::Document(agreed)) = (delivered, self.base(key)?)
            && !agreed.is_empty()
            && self.is_rewritten(key, &agreed, delivered)?
        {
            // Never sent before it was decided whether they are the same. Where the image was made that may have been
            // decided in any way, and left nothing that waits.
            return Ok(());
        }
        if left.is_some() && self.has_intent(key)? {
            // The intent tells what was sent.
            return Ok(());
        }
        self.settle_delivered_record(key, local.as_ref(), delivered, left.map(|(change, _)| change))
    }

    /// A record that only this node had, as far as it knew, and that was deleted here: the centre has it as it was `left`. The
    /// delete is still to be sent.
    fn settle_unsent_delete(
        &mut self,
        key: &RecordKey,
        (change, left): (u64, &Document),
    ) -> Result<(), StoreError> {
        if self.docs.contains(row_key(key))? || !self.is_clean(key)? {
            return Ok(());
        }
        self.reopen_trash(key)?;
        self.settle_delivered_record(key, None, Some(left), Some(change))
    }

    /// `delivered` is what the centre was given of the record, which is `local` by now; `change` is the first that came after it, and
    /// the place of what is left to be sent. At the place of before, the next image would have it delivered too.
    fn settle_delivered_record(
        &mut self,
        key: &RecordKey,
        local: Option<&Document>,
        delivered: Option<&Document>,
        change: Option<u64>,
    ) -> Result<(), StoreError> {
        if let Some(intent) = self.intent(key)? {
            self.settle_intent(key, intent.number, false)?;
        }
        let base = self.base(key)?;
        let mut row = Document::new();
        row.extend(base.document().cloned().map(|base| ("base".to_owned(), base.into())));
        row.extend(delivered.cloned().map(|delivered| ("local".to_owned(), delivered.into())));
        self.delivered.insert(row_key(key), encode(&row)?.as_slice())?;
        self.ask_again(key, Reread::default())?;
        self.put_base(key, &base, local, &Base::from(delivered.cloned()), &Actor::Centre)?;
        if let Some(change) = change {
            self.move_edit(key, change)?;
        }
        if local.is_none() && delivered.is_none() {
            self.settle_trash(key, TrashState::Done)?;
        }
        self.wrote();
        Ok(())
    }

    /// Where the centre holds something else now than what was delivered, that stands and the other is a conflict:
    /// somebody has changed it since, or an edit was taken for delivered by mistake. `None` if nothing was delivered.
    /// `local` is what is here.
    pub fn compare_delivered(
        &mut self,
        key: &RecordKey,
        local: Option<&Document>,
        remote: Option<&Document>,
    ) -> Result<Option<Compared>, StoreError> {
        let Some(row) = self.delivered.take(row_key(key))?.map(|row| decode(&row)) else {
            return Ok(None);
        };
        self.wrote();
        let row = row?;
        let (base, delivered) = (row.get_document("base").ok(), row.get_document("local").ok());
        let mut clashes = removed_unclearly(&row, remote);
        clashes.extend(overwritten(key.kind.schema(), base, delivered, local, remote));
        Ok(Some(Compared { clashes, base: base.cloned() }))
    }
}

/// What was delivered, compared with what the centre has by now.
#[derive(Debug)]
pub struct Compared {
    pub clashes: Vec<Clash>,
    /// What was agreed on before.
    pub base: Option<Document>,
}

/// In rows of earlier versions, fields that were removed after the image was put back: it was not known what had been
/// delivered of them.
fn removed_unclearly(row: &Document, remote: Option<&Document>) -> Vec<Clash> {
    let unclear = row.get_array("unclear").into_iter().flatten().filter_map(Bson::as_str);
    let removed = unclear.filter_map(|path| {
        let path: Path = path.split('.').map(str::to_owned).collect();
        let remote = get(remote?, &path)?.clone();
        Some(Clash { path, base: None, local: None, remote: Some(remote), stands: Side::Remote })
    });
    removed.collect()
}

impl Snapshot {
    /// The id of this store, see [`Tx::store_id`].
    pub fn store_id(&self) -> Result<Option<String>, StoreError> {
        store_id_in(&self.transaction.open_table(META)?)
    }

    /// What the node's row is to say once the next seal is there.
    pub fn delivered(&self) -> Result<Document, StoreError> {
        let meta = self.transaction.open_table(META)?;
        let boots = boots_known(&meta)?;
        if boots.is_empty() {
            return Ok(Document::new());
        }
        let journal = self.transaction.open_table(JOURNAL)?;
        let mut through = last_sequence(&journal, &meta)?;
        let mut left = BTreeSet::new();
        let landed = self.landed_clean()?;
        for entry in self.transaction.open_table(DIRTY)?.iter()? {
            let (at, _) = entry?;
            let (_, sequence, code, id) = at.value();
            if !landed.contains(&(code, id.to_owned())) {
                left.insert(sequence);
            }
        }
        if let Some(beyond) = left.iter().nth(UNDELIVERED_MAX).copied() {
            through = beyond.saturating_sub(1);
        }
        let left: Vec<Bson> =
            left.into_iter().take(UNDELIVERED_MAX).map(|sequence| Bson::Int64(sequence as i64)).collect();
        let mut row = doc! {DELIVERED: through as i64, UNDELIVERED: left};
        row.extend(store_id_in(&meta)?.map(|store| (STORE_FIELD.to_owned(), store.into())));
        let told = meta.get(META_BOOTS)?.map(|row| text_of_boots(row.value(), "told")).transpose()?.flatten();
        // Those that the centre has are not named again.
        let first = boots.iter().position(|(name, _)| Some(name) == told.as_ref()).unwrap_or(0);
        for (boot, from) in &boots[first..] {
            row.insert(format!("{BOOTS}.{boot}"), *from as i64);
        }
        Ok(row)
    }
}
