//! Floor 1. Rows that refer to rows that are gone, and tables that are lost.
//!
//! When a damaged row is set aside, others may still refer to it: its key was damaged, so nobody can say which they are. As
//! soon as no damaged row is left, whatever refers to nothing is undone, always on the side where people are asked, and
//! the centre is read, once more. Records that should be there and are not count as damaged themselves.
//!
//! Each rule mends one sentence of `agreement.rs`; a table that is lost as a whole is taken for the one that costs a round
//! more, and never for the one that forgets a duty.

use std::collections::{BTreeMap, BTreeSet};

use bson::doc;
use redb::ReadableTable as _;

use crate::domain::content::{Content, EMPTY_CONTENT};
use crate::domain::record::{Kind, RecordKey};
use crate::domain::value::same_document;
use crate::store::conflicts::{Conflict, ConflictStatus};
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::{DamagedRow, StoreError, unless_damaged};
use crate::store::rows::{Base, BaseRow, DELETE_RANK_MIN, PAGES, decode, kind_of, push_rank, row_key};
use crate::store::schema::{BASE, BY_NAME, BY_OWNER, DOCS};

/// In `meta`: a pass over everything that the centre holds has been asked for.
pub const META_VERIFY_DUE: &str = "verify_due";

impl Snapshot {
    /// Notes records that should be there and are not: those that were edited here, and, while a row of the records is
    /// damaged, which may be theirs under another key, those that an index knows.
    pub(crate) fn note_missing(&self) -> Result<(), StoreError> {
        let docs = self.transaction.open_table(DOCS)?;
        let mut missing = BTreeSet::new();
        for entry in self.transaction.open_table(BASE)?.iter()?.sound() {
            let (at, row) = entry?;
            let (code, id) = at.value();
            let is_edit = BaseRow::place(row.value())?.0 < DELETE_RANK_MIN;
            if is_edit && !docs.contains((code, id))? {
                missing.insert((code, id.to_owned()));
            }
        }
        if self.transaction.has_damage_in(DOCS.name()) {
            for entry in self.transaction.open_table(BY_OWNER)?.iter()? {
                let (at, _) = entry?;
                let (code, _, id) = at.value();
                if !docs.contains((code, id))? {
                    missing.insert((code, id.to_owned()));
                }
            }
            let code = Kind::Person.schema().code;
            for entry in self.transaction.open_table(BY_NAME)?.iter()? {
                let (at, _) = entry?;
                let (_, id) = at.value();
                if !docs.contains((code, id))? {
                    missing.insert((code, id.to_owned()));
                }
            }
        }
        for (code, id) in missing {
            let kind = Some(kind_of(code)?);
            self.transaction.missing(DamagedRow { table: DOCS.name().to_owned(), kind, id });
        }
        Ok(())
    }
}

impl Tx<'_> {
    /// Undoes what refers to rows that are not there. Only where no row is damaged: one under a damaged key may be meant.
    pub(in crate::store) fn mend_references(&mut self) -> Result<(), StoreError> {
        self.put_questions_back()?;
        self.mend_queue()?;
        self.mend_notes()?;
        self.mend_contents()?;
        self.mend_journal()
    }

    /// Rows of what was last agreed that say nothing, and writes on their way of which nobody knows what was agreed.
    fn mend_queue(&mut self) -> Result<(), StoreError> {
        let (mut settled, mut unclear) = (Vec::new(), Vec::new());
        for entry in self.base.iter()?.sound() {
            let (at, row) = entry?;
            let key = key_at(at.value())?;
            if self.intent.contains(at.value())? {
                continue;
            }
            let row = BaseRow::decode(row.value())?;
            let document = self.docs.get(at.value())?.map(|row| decode(row.value())).transpose()?;
            let says_nothing = match (&document, row.base.document()) {
                (Some(document), Some(base)) => same_document(document, base),
                (None, None) => row.rank >= DELETE_RANK_MIN,
                _ => false,
            };
            settled.extend(says_nothing.then_some(key));
        }
        for at in self.intent.keys::<(u8, &str)>(..)? {
            let at = at?;
            if !self.base.contains(at.value())? {
                unclear.push(key_at(at.value())?);
            }
        }
        for key in settled {
            self.drop_base(&key)?;
        }
        for key in unclear {
            let is_delete = !self.docs.contains(row_key(&key))?;
            let rank = push_rank(key.kind, is_delete);
            let row = BaseRow::encode(rank, self.last_sequence(), &Base::Absent)?;
            self.base.insert_damaged(row_key(&key), &row)?;
            self.wrote();
        }
        Ok(())
    }

    /// What is noted about records, writes and conflicts that are not there.
    fn mend_notes(&mut self) -> Result<(), StoreError> {
        let mut idle = Vec::new();
        for at in self.waiting.keys::<(u8, &str)>(..)? {
            let at = at?;
            if !self.base.contains(at.value())? {
                idle.push(key_at(at.value())?);
            }
        }
        for key in idle {
            self.clear_waiting(&key)?;
        }
        let mut unsent = Vec::new();
        for entry in self.landed.iter()? {
            let (at, _) = entry?;
            if !self.intent.contains(at.value())? {
                unsent.push(key_at(at.value())?);
            }
        }
        for key in unsent {
            self.forget_landed(&key)?;
        }
        let mut unknown = BTreeSet::new();
        for entry in self.conflict_outbox.iter()? {
            unknown.insert(entry?.0.value().to_owned());
        }
        for entry in self.conflict_watched.iter()? {
            unknown.insert(entry?.0.value().to_owned());
        }
        for id in unknown {
            if !self.conflict.contains(id.as_str())? {
                self.conflict_outbox.remove(id.as_str())?;
                self.conflict_watched.remove(id.as_str())?;
                self.wrote();
            }
        }
        let mut echoes = Vec::new();
        for entry in self.echo.iter()? {
            let (at, _) = entry?;
            let (code, id, number) = at.value();
            if !self.sent.contains(number)? {
                echoes.push((code, id.to_owned(), number));
            }
        }
        for (code, id, number) in echoes {
            self.echo.remove((code, id.as_str(), number))?;
            self.wrote();
        }
        Ok(())
    }

    /// Attachments of which parts are missing are fetched again; each one is wanted, owed or idle as it follows from what
    /// is here and from who names it.
    fn mend_contents(&mut self) -> Result<(), StoreError> {
        let here = self.whole_contents()?;
        let named = self.named_contents()?;
        for (sha256, content) in &named {
            let is_here = here.contains(sha256) || sha256 == EMPTY_CONTENT;
            let is_wanted = self.content_wanted.get(sha256.as_str())?.is_some();
            if !is_here
                && !is_wanted
                && let Some(content) = content
            {
                self.queue_content(content)?;
            }
        }
        let mut known = BTreeSet::new();
        for entry in self.content_wanted.iter()? {
            known.insert(entry?.0.value().to_owned());
        }
        for sha256 in known.iter().filter(|sha256| !named.contains_key(*sha256)) {
            self.content_wanted.remove(sha256.as_str())?;
            self.remove_chunks(sha256)?;
        }
        let mut owed = Vec::new();
        for entry in self.content_owed.iter()? {
            owed.push(entry?.0.value().to_owned());
        }
        for sha256 in owed {
            if !named.contains_key(&sha256) || !self.has_content(&sha256)? {
                self.content_owed.remove(sha256.as_str())?;
                self.wrote();
            }
        }
        let mut idle: BTreeSet<String> = here.clone();
        for entry in self.content_idle.iter()? {
            idle.insert(entry?.0.value().to_owned());
        }
        for sha256 in idle {
            let is_known = self.content_idle.get(sha256.as_str())?.is_some();
            let is_idle = !named.contains_key(&sha256) && self.has_content(&sha256)?;
            match (is_known, is_idle) {
                (true, false) => drop(self.content_idle.remove(sha256.as_str())?),
                (false, true) => drop(self.content_idle.insert(sha256.as_str(), 0)?),
                _ => continue,
            }
            self.wrote();
        }
        Ok(())
    }

    /// Contents of which there is every part up to the last; parts of others are removed.
    pub(in crate::store) fn whole_contents(&mut self) -> Result<BTreeSet<String>, StoreError> {
        let mut parts = BTreeMap::<String, (u32, u32)>::new();
        for at in self.content.keys::<(&str, u32)>(..)? {
            let at = at?;
            let (sha256, number) = at.value();
            let (count, last) = parts.entry(sha256.to_owned()).or_default();
            (*count, *last) = (*count + 1, number);
        }
        let mut whole = BTreeSet::new();
        for (sha256, (count, last)) in parts {
            if last.checked_add(1) == Some(count) {
                whole.insert(sha256);
            } else {
                self.remove_chunks(&sha256)?;
            }
        }
        Ok(whole)
    }

    /// Contents that records name, as one of them says it; none if that one is damaged.
    pub(in crate::store) fn named_contents(&self) -> Result<BTreeMap<String, Option<Content>>, StoreError> {
        let mut named = BTreeMap::<String, Option<Content>>::new();
        for entry in self.content_named.iter()? {
            let (at, _) = entry?;
            let (sha256, code, id) = at.value();
            if named.get(sha256).is_some_and(Option::is_some) {
                continue;
            }
            let key = RecordKey::new(kind_of(code)?, id);
            let document = unless_damaged(self.document(&key))?.flatten();
            named.insert(sha256.to_owned(), document.and_then(|document| Content::of(key.kind, &document)));
        }
        Ok(named)
    }

    /// The change feed begins behind a gap, and never ends before an edit.
    fn mend_journal(&mut self) -> Result<(), StoreError> {
        let (mut before, mut gap) = (None::<u64>, None);
        for number in self.journal.keys::<u64>(..)? {
            let number = number?.value();
            if let Some(before) = before.filter(|before| before + 1 != number) {
                gap = Some(before);
            }
            before = Some(number);
        }
        if let Some(before) = gap {
            self.cut_journal(before)?;
            self.wrote();
        }
        let mut last = 0;
        for entry in self.dirty.iter()? {
            last = last.max(entry?.0.value().1);
        }
        if last > self.last_sequence() { self.begin_journal_after(last) } else { Ok(()) }
    }

    /// Fills tables that are lost, and are empty by now, so that nothing that they may have held is forgotten: everything is
    /// published, offered, asked for or looked at once more.
    pub(in crate::store) fn remake_notes(&mut self, lost: &BTreeSet<String>) -> Result<(), StoreError> {
        let is_lost = |name: &str| lost.contains(name);
        if is_lost("conflict_outbox") {
            self.publish_all_conflicts()?;
        } else if is_lost("conflict_watched") {
            self.publish_closed_conflicts()?;
        }
        if is_lost("taken") {
            self.take_all()?;
        }
        if is_lost("rights") {
            self.rights_are_lost()?;
        }
        if is_lost("closed_here") {
            self.closed_here_is_lost()?;
        }
        // Who is to be compared with whom is not known any more either.
        if is_lost("holder_since") || is_lost("holder_identity") {
            self.holders_are_lost()?;
        }
        if is_lost("closed_unsent") {
            self.closed_unsent_is_lost()?;
        }
        if ["reread", "vanished", "landed"].into_iter().any(is_lost) {
            self.doubt_intents()?;
            self.look_again_at_held()?;
            self.set_restore_swept(false)?;
            self.set_meta(META_VERIFY_DUE, Some(&doc! {"asked": true}))?;
        }
        if ["content_wanted", "content_owed", "content_idle"].into_iter().any(is_lost) {
            if is_lost("content_wanted") {
                self.want_unfinished()?;
            }
            if is_lost("content_owed") {
                for content in self.named_contents()?.into_values().flatten() {
                    self.queue_content(&content)?;
                }
            }
            // Who names an attachment may be in a row that is damaged: then nothing is removed before that is settled.
            if self.carry.ledger.rows().iter().all(|row| row.id == PAGES) {
                self.mend_contents()?;
            }
        }
        Ok(())
    }

    /// Each goes to the centre as it is, and its row there is read again for some rounds.
    fn publish_closed_conflicts(&mut self) -> Result<(), StoreError> {
        let mut closed = Vec::new();
        for entry in self.conflict.iter()?.sound() {
            let (id, row) = entry?;
            let is_closed = Conflict::decode(row.value())?.status == ConflictStatus::Resolved;
            closed.extend(is_closed.then(|| id.value().to_owned()));
        }
        for id in closed {
            self.conflict_outbox.insert(id.as_str(), ())?;
        }
        Ok(())
    }
}

fn key_at((code, id): (u8, &str)) -> Result<RecordKey, StoreError> {
    Ok(RecordKey::new(kind_of(code)?, id))
}

#[cfg(test)]
mod tests;
