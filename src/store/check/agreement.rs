//! Floor 1. Whether the tables agree with each other.
//!
//! Everything beside the records follows from them or refers to them; each rule is written down where the rows
//! are written, and here only whether they hold. What is found is told in counts: ids do not belong into logs. Rows
//! are looked up and counted, never gathered, so a store of any size is checked within the memory of its cache.

use std::borrow::Borrow;

use redb::{Key, ReadOnlyTable, ReadableTable as _, ReadableTableMetadata as _, TableDefinition, Value};

use crate::domain::audit::Entry;
use crate::domain::content::{Content, EMPTY_CONTENT};
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::domain::schema::{IdRule, Owner};
use crate::domain::value::same_document;
use crate::store::conflicts::{Conflict, ConflictStatus, Held, Hold, Subject, about};
use crate::store::engine::{Snapshot, last_sequence};
use crate::store::error::StoreError;
use crate::store::holders::indexed_owner;
use crate::store::records::search_terms;
use crate::store::rows::{Base, BaseRow, DELETE_RANK_MIN, decode, kind_of, raw, row_key};
use crate::store::schema::{
    AUDIT, AUDIT_OF, BASE, BY_NAME, BY_OWNER, BY_SPELLING, CONFLICT, CONFLICT_ABOUT, CONFLICT_OPEN,
    CONFLICT_OUTBOX, CONFLICT_WATCHED, CONTENT, CONTENT_IDLE, CONTENT_NAMED, CONTENT_OWED, CONTENT_WANTED,
    DIRTY, DOCS, DUPLICATE, ECHO, HELD, HELD_OF, HOLD, INTENT, JOURNAL, LANDED, META, OWNER_OF, SENT, TRASH,
    TRASH_ORDER, TRASH_OWNER, UNDECIDED, WAITING,
};
use crate::store::sync::Undecided;
use crate::store::trash::TrashSummary;

/// A table whose rows follow from others: how many are called for, and how many of these are there. Nothing calls for
/// a row twice.
struct Followers<T> {
    name: &'static str,
    table: T,
    rows: u64,
    due: u64,
    there: u64,
}

impl<K: Key + 'static, V: Value + 'static> Followers<ReadOnlyTable<K, V>> {
    /// There has to be a row under this key.
    fn call_for<'k>(&mut self, key: impl Borrow<K::SelfType<'k>>) -> Result<(), StoreError> {
        let is_there = self.table.get(key)?.is_some();
        self.count(is_there);
        Ok(())
    }
}

impl<K: Key + 'static, V: Value + 'static> Followers<ReadOnlyTable<K, V>> {
    /// There has to be a row under this key, with this value.
    fn call_for_value<'k, 'v>(
        &mut self,
        key: impl Borrow<K::SelfType<'k>>,
        value: impl Borrow<V::SelfType<'v>>,
    ) -> Result<(), StoreError> {
        let found = self.table.get(key)?;
        let is_there = found
            .is_some_and(|row| V::as_bytes(&row.value()).as_ref() == V::as_bytes(value.borrow()).as_ref());
        self.count(is_there);
        Ok(())
    }
}

impl<T> Followers<T> {
    fn count(&mut self, is_there: bool) {
        self.due += 1;
        self.there += u64::from(is_there);
    }

    fn report(self, found: &mut Vec<String>) -> Result<(), StoreError> {
        let missing = self.due - self.there;
        let superfluous = self.rows.saturating_sub(self.there);
        if (missing, superfluous) != (0, 0) {
            found.push(format!(
                "{}: {missing} rows are missing, {superfluous} should not be there",
                self.name
            ));
        }
        Ok(())
    }
}

impl Snapshot {
    /// Where tables contradict each other, for people; empty if nowhere. Reads everything.
    pub fn disagreements(&self) -> Result<Vec<String>, StoreError> {
        let mut found = Vec::new();
        self.compare_records(&mut found)?;
        self.compare_duplicates(&mut found)?;
        self.compare_contents(&mut found)?;
        self.compare_held(&mut found)?;
        self.compare_conflicts(&mut found)?;
        self.compare_trash(&mut found)?;
        self.compare_audit(&mut found)?;
        self.look_at_journal(&mut found)?;
        Ok(found)
    }

    fn followers<K: Key + 'static, V: Value + 'static>(
        &self,
        name: &'static str,
        table: TableDefinition<'static, K, V>,
    ) -> Result<Followers<ReadOnlyTable<K, V>>, StoreError> {
        let table = self.transaction.open_table(table)?;
        Ok(Followers { name, rows: table.len()?, table, due: 0, there: 0 })
    }

    /// What has to stand beside the records.
    fn compare_records(&self, found: &mut Vec<String>) -> Result<(), StoreError> {
        let docs = self.transaction.open_table(DOCS)?;
        let intents = self.transaction.open_table(INTENT)?;
        let mut owners = self.followers("by_owner", BY_OWNER)?;
        let mut owner_of = self.followers("owner_of", OWNER_OF)?;
        let mut names = self.followers("by_name", BY_NAME)?;
        let mut spellings = self.followers("by_spelling", BY_SPELLING)?;
        let mut contents = self.followers("content_named", CONTENT_NAMED)?;
        // Of records that differ from their base, or have a write on the way.
        let table = self.transaction.open_table(BASE)?;
        let mut base = Followers { name: "base", rows: table.len()?, table, due: 0, there: 0 };
        let mut dirty = self.followers("dirty", DIRTY)?;
        let (mut misnamed, mut unreadable) = (0, 0);
        for entry in docs.iter()? {
            let (at, row) = entry?;
            let (code, id) = at.value();
            let (Ok(document), Ok(decoded)) = (raw(row.value()), decode(row.value())) else {
                unreadable += 1;
                continue;
            };
            let kind = kind_of(code)?;
            let schema = kind.schema();
            misnamed += u64::from(document.get_str("_id").ok() != Some(id));
            if let Some(owner) = indexed_owner(schema, document) {
                owners.call_for((code, owner.as_str(), id))?;
            }
            if matches!(schema.owner, Owner::Field(_)) {
                owner_of
                    .call_for_value((code, id), schema.owner_in(document).unwrap_or_default().as_str())?;
            }
            if schema.id_rule == IdRule::Account {
                for term in search_terms(id, document) {
                    names.call_for((term.as_str(), id))?;
                }
                let account = fold_account(id);
                if account != id {
                    spellings.call_for((account.as_str(), id))?;
                }
            }
            if let Some(content) = Content::named_in(kind, document) {
                contents.call_for((content.sha256.as_str(), code, id))?;
            }
            let agreed = base.table.get((code, id))?.map(|row| BaseRow::decode(row.value())).transpose()?;
            let differs = match &agreed {
                None => false,
                Some(row) => row.base.document().is_none_or(|base| !same_document(base, &decoded)),
            };
            if differs || intents.get((code, id))?.is_some() {
                base.count(agreed.is_some());
            }
        }
        let (mut deleted, mut lost) = (0, 0);
        for entry in base.table.iter()? {
            let (at, row) = entry?;
            let ((code, id), row) = (at.value(), BaseRow::decode(row.value())?);
            lost += u64::from(row.rank < DELETE_RANK_MIN && docs.get((code, id))?.is_none());
            dirty.call_for((row.rank, row.sequence, code, id))?;
            // Deleted here, and still at the centre.
            let is_due = row.base != Base::Absent || intents.get((code, id))?.is_some();
            deleted += u64::from(is_due && docs.get((code, id))?.is_none());
        }
        (base.due, base.there) = (base.due + deleted, base.there + deleted);
        for entry in intents.iter()? {
            let (at, _) = entry?;
            if docs.get(at.value())?.is_none() && base.table.get(at.value())?.is_none() {
                base.count(false);
            }
        }
        count(found, "records that cannot be read", unreadable);
        count(found, "records under another id than their own", misnamed);
        count(found, "edited records that are not there", lost);
        owners.report(found)?;
        owner_of.report(found)?;
        names.report(found)?;
        spellings.report(found)?;
        contents.report(found)?;
        base.report(found)?;
        dirty.report(found)
    }

    /// Accounts that two people have: at most one of them is spelled as the account is.
    fn compare_duplicates(&self, found: &mut Vec<String>) -> Result<(), StoreError> {
        let docs = self.transaction.open_table(DOCS)?;
        let mut duplicates = self.followers("duplicate", DUPLICATE)?;
        let people = Kind::ALL.into_iter().filter(|kind| kind.schema().id_rule == IdRule::Account);
        let codes: Vec<u8> = people.map(|kind| kind.schema().code).collect();
        let spellings = self.transaction.open_table(BY_SPELLING)?;
        each_run(
            spellings.iter()?.map(|entry| Ok(entry?.0)),
            |(account, _)| (account.to_owned(), 0),
            |account, run| {
                let mut people = run.rows;
                for code in &codes {
                    people += u64::from(docs.get((*code, account))?.is_some());
                }
                if people > 1 { duplicates.call_for(account) } else { Ok(()) }
            },
        )?;
        duplicates.report(found)
    }

    /// Chunks without a gap; a content that is named is wanted or here, one that is not is idle.
    fn compare_contents(&self, found: &mut Vec<String>) -> Result<(), StoreError> {
        let chunks = self.transaction.open_table(CONTENT)?;
        let named = self.transaction.open_table(CONTENT_NAMED)?;
        let marks = self.transaction.open_table(CONTENT_WANTED)?;
        let mut wanted = self.followers("content_wanted", CONTENT_WANTED)?;
        let mut idle = self.followers("content_idle", CONTENT_IDLE)?;
        let is_here = |name: &str| -> Result<bool, StoreError> {
            if name == EMPTY_CONTENT {
                return Ok(true);
            }
            let has_chunks = chunks.keys((name, 0)..=(name, u32::MAX))?.next().is_some();
            Ok(has_chunks && marks.get(name)?.is_none())
        };
        let is_named = |name: &str| -> Result<bool, StoreError> {
            let first = named.range((name, 0, "")..)?.next().transpose()?;
            Ok(first.is_some_and(|(at, _)| at.value().0 == name))
        };
        each_run(
            named.iter()?.map(|entry| Ok(entry?.0)),
            |(name, ..)| (name.to_owned(), 0),
            |name, _| {
                if is_here(name)? { Ok(()) } else { wanted.call_for(name) }
            },
        )?;
        let mut gaps = 0;
        each_run(
            chunks.keys::<(&str, u32)>(..)?,
            |(name, number)| (name.to_owned(), number),
            |name, run| {
                gaps += u64::from(run.rows != u64::from(run.last) + 1);
                if is_here(name)? && !is_named(name)? { idle.call_for(name) } else { Ok(()) }
            },
        )?;
        let mut astray = 0;
        for entry in self.transaction.open_table(CONTENT_OWED)?.iter()? {
            let (at, _) = entry?;
            astray += u64::from(!is_named(at.value())? || !is_here(at.value())?);
        }
        count(found, "contents with missing chunks", gaps);
        wanted.report(found)?;
        idle.report(found)?;
        count(found, "contents to be sent that are not here or not named", astray);
        Ok(())
    }

    /// What waits for a decision or for its person, and what is not sealed.
    fn compare_held(&self, found: &mut Vec<String>) -> Result<(), StoreError> {
        let conflicts = self.transaction.open_table(CONFLICT)?;
        let holds = self.transaction.open_table(HOLD)?;
        let (mut unasked, mut astray) = (0, 0);
        for entry in holds.iter()? {
            let (account, row) = entry?;
            let hold = Hold::decode(account.value(), row.value())?;
            unasked += u64::from(conflicts.get(hold.conflict.as_str())?.is_none());
        }
        let mut held_of = self.followers("held_of", HELD_OF)?;
        for entry in self.transaction.open_table(HELD)?.iter()? {
            let (at, row) = entry?;
            let ((code, id), held) = (at.value(), Held::decode(row.value())?);
            // Records may wait for somebody to have their account, with nobody to decide about.
            let is_person = kind_of(code)? == Kind::Person;
            astray += u64::from(is_person && holds.get(held.account.as_str())?.is_none());
            held_of.call_for((held.account.as_str(), code, id))?;
        }
        held_of.report(found)?;
        count(found, "people of the centre who wait for no decision", astray);
        for entry in self.transaction.open_table(UNDECIDED)?.iter()? {
            let (_, row) = entry?;
            let undecided = Undecided::decode(row.value())?;
            unasked += u64::from(conflicts.get(undecided.conflict.as_str())?.is_none());
        }
        count(found, "decisions that nobody is asked for", unasked);
        let undecided = self.transaction.open_table(UNDECIDED)?;
        let mut unheld = 0;
        for entry in self.transaction.open_table(CONFLICT_OPEN)?.iter()? {
            let (at, ()) = (entry?.0, ());
            let (code, id, conflict) = at.value();
            let row = conflicts.get(conflict)?;
            let conflict = row.map(|row| Conflict::head(raw(row.value())?)).transpose()?;
            unheld += u64::from(match conflict.map(|conflict| conflict.subject) {
                Some(Subject::Identity) => holds.get(fold_account(id).as_str())?.is_none(),
                Some(Subject::Record) => undecided.get((code, id))?.is_none(),
                Some(Subject::Value) | None => false,
            });
        }
        count(found, "questions for which nothing waits", unheld);
        let base = self.transaction.open_table(BASE)?;
        let mut idle = 0;
        for entry in self.transaction.open_table(WAITING)?.iter()? {
            idle += u64::from(base.get(entry?.0.value())?.is_none());
        }
        count(found, "records that wait and have nothing to be sent", idle);
        let intents = self.transaction.open_table(INTENT)?;
        let mut unsent = 0;
        for entry in self.transaction.open_table(LANDED)?.iter()? {
            unsent += u64::from(intents.get(entry?.0.value())?.is_none());
        }
        count(found, "writes to be sealed that were not sent", unsent);
        Ok(())
    }

    fn compare_conflicts(&self, found: &mut Vec<String>) -> Result<(), StoreError> {
        let conflicts = self.transaction.open_table(CONFLICT)?;
        let mut open = self.followers("conflict_open", CONFLICT_OPEN)?;
        let mut noted = self.followers("conflict_about", CONFLICT_ABOUT)?;
        for entry in conflicts.iter()? {
            let (at, row) = entry?;
            let conflict = Conflict::decode(row.value())?;
            noted.call_for_value(at.value(), about(&conflict))?;
            if conflict.status == ConflictStatus::Open {
                let (code, id) = row_key(&conflict.key);
                open.call_for((code, id, at.value()))?;
            }
        }
        open.report(found)?;
        noted.report(found)?;
        let mut unknown = 0;
        for entry in self.transaction.open_table(CONFLICT_OUTBOX)?.iter()? {
            let (at, _) = entry?;
            unknown += u64::from(conflicts.get(at.value())?.is_none());
        }
        count(found, "conflicts to be published that are not there", unknown);
        let mut unknown = 0;
        for entry in self.transaction.open_table(CONFLICT_WATCHED)?.iter()? {
            let (at, _) = entry?;
            unknown += u64::from(conflicts.get(at.value())?.is_none());
        }
        count(found, "closed conflicts to be read again that are not there", unknown);
        let sent = self.transaction.open_table(SENT)?;
        let oldest = sent.first()?.map_or(0, |(at, _)| at.value());
        let mut lost = 0;
        for entry in self.transaction.open_table(ECHO)?.iter()? {
            let (at, _) = entry?;
            let (.., number) = at.value();
            lost += u64::from(number >= oldest && sent.get(number)?.is_none());
        }
        count(found, "echoes of writes that are not there", lost);
        Ok(())
    }

    fn compare_trash(&self, found: &mut Vec<String>) -> Result<(), StoreError> {
        let mut order = self.followers("trash_order", TRASH_ORDER)?;
        let mut owners = self.followers("trash_owner", TRASH_OWNER)?;
        let mut unreadable = 0;
        for entry in self.transaction.open_table(TRASH)?.iter()? {
            let (at, row) = entry?;
            let (code, id, sequence) = at.value();
            order.call_for((sequence, code, id))?;
            let key = RecordKey::new(kind_of(code)?, id);
            match TrashSummary::decode(key, sequence, row.value()) {
                Ok(row) => owners.call_for_value(sequence, row.owner.as_deref().unwrap_or_default())?,
                Err(_) => unreadable += 1,
            }
        }
        order.report(found)?;
        owners.report(found)?;
        count(found, "bodies in the trash that cannot be read", unreadable);
        Ok(())
    }

    /// Whose data each entry of the audit trail is about. One that cannot be read may be anybody's.
    fn compare_audit(&self, found: &mut Vec<String>) -> Result<(), StoreError> {
        let audit = self.transaction.open_table(AUDIT)?;
        let mut of = self.followers("audit_of", AUDIT_OF)?;
        for entry in audit.iter()? {
            let (seq, row) = entry?;
            if let Some(entry) = Entry::decode(row.value()).filter(|entry| !entry.event.owner.is_empty()) {
                of.call_for((entry.event.owner.as_str(), seq.value()))?;
            }
        }
        let mut unreadable = 0;
        for entry in of.table.iter()? {
            let (at, _) = entry?;
            let row = audit.get(at.value().1)?;
            unreadable += u64::from(row.is_some_and(|row| Entry::decode(row.value()).is_none()));
        }
        (of.due, of.there) = (of.due + unreadable, of.there + unreadable);
        of.report(found)
    }

    fn look_at_journal(&self, found: &mut Vec<String>) -> Result<(), StoreError> {
        let journal = self.transaction.open_table(JOURNAL)?;
        let last = last_sequence(&journal, &self.transaction.open_table(META)?)?;
        let (mut gaps, mut before) = (0, None);
        for entry in journal.iter()? {
            let sequence = entry?.0.value();
            gaps += u64::from(before.is_some_and(|before: u64| before + 1 != sequence));
            before = Some(sequence);
        }
        count(found, "gaps in the journal", gaps);
        let mut beyond = 0;
        for entry in self.transaction.open_table(DIRTY)?.iter()? {
            let (_, sequence, ..) = entry?.0.value();
            beyond += u64::from(sequence > last);
        }
        count(found, "edits that the journal does not know", beyond);
        Ok(())
    }
}

/// Rows of a table whose keys begin with the same text.
#[derive(Default)]
struct Run {
    rows: u64,
    /// The number in the last of the keys.
    last: u32,
}

/// Goes through the keys of a table, run by run; `split` says with which text a key begins, and which number is in it.
fn each_run<'a, K: Key + 'static>(
    keys: impl Iterator<Item = Result<redb::AccessGuard<'a, K>, StoreError>>,
    split: impl for<'r> Fn(K::SelfType<'r>) -> (String, u32),
    mut each: impl FnMut(&str, &Run) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut run: Option<(String, Run)> = None;
    for key in keys {
        let key = key?;
        let (name, number) = split(key.value());
        match &mut run {
            Some((begun, run)) if *begun == name => *run = Run { rows: run.rows + 1, last: number },
            _ => {
                let ended = run.replace((name, Run { rows: 1, last: number }));
                ended.map_or(Ok(()), |(name, run)| each(&name, &run))?;
            }
        }
    }
    run.map_or(Ok(()), |(name, run)| each(&name, &run))
}

fn count(found: &mut Vec<String>, what: &str, number: u64) {
    if number > 0 {
        found.push(format!("{what}: {number}"));
    }
}

#[cfg(test)]
mod tests;
