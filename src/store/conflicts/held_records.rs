//! Floor 1. Documents of the centre that wait behind an identity hold, or for a person to have their account.

use std::collections::BTreeSet;

use bson::{Document, doc};
use redb::ReadableTable;

use crate::domain::access::Actor;
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::{StoreError, unless_damaged};
use crate::store::rows::{Base, Fields, encode, ids_between, kind_of, row_key};
use crate::store::schema::{HELD, HELD_OF, HOLD};

/// A document of the centre that waits behind a hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// The hold's account.
    pub account: String,
    pub document: Document,
    /// It was agreed on here while the one stood at the centre who had the account before, so it is theirs.
    pub is_agreed: bool,
}

impl Held {
    pub(in crate::store) fn decode(bytes: &[u8]) -> Result<Held, StoreError> {
        let row = Fields::of(bytes, "a held record")?;
        Ok(Held {
            account: row.text("account")?.to_owned(),
            document: row.document("document")?,
            is_agreed: row.flag_if_any("agreed")?,
        })
    }
}

impl Tx<'_> {
    /// What the centre holds under this key and has to wait.
    pub fn held(&self, key: &RecordKey) -> Result<Option<Held>, StoreError> {
        self.held.get(row_key(key))?.map(|row| Held::decode(row.value())).transpose()
    }

    /// Lets a document of the centre wait behind the hold of `account`; returns whether that is news.
    pub fn put_held(
        &mut self,
        key: &RecordKey,
        account: &str,
        document: &Document,
    ) -> Result<bool, StoreError> {
        let known = unless_damaged(self.held(key))?.flatten();
        let is_agreed = known.is_some_and(|known| known.is_agreed && known.account == account);
        self.put_held_row(key, account, document, is_agreed)
    }

    /// The same for one that was agreed on here while the one stood at the centre who had the account before.
    pub fn put_held_agreed(
        &mut self,
        key: &RecordKey,
        account: &str,
        document: &Document,
    ) -> Result<bool, StoreError> {
        self.put_held_row(key, account, document, true)
    }

    fn put_held_row(
        &mut self,
        key: &RecordKey,
        account: &str,
        document: &Document,
        is_agreed: bool,
    ) -> Result<bool, StoreError> {
        let mut row = doc! {"account": account, "document": document};
        if is_agreed {
            row.insert("agreed", true);
        }
        let row = encode(&row)?;
        if self.held.get(row_key(key))?.is_some_and(|known| known.value() == row) {
            return Ok(false);
        }
        self.take_held(key)?;
        let (code, id) = row_key(key);
        self.held.insert((code, id), row.as_slice())?;
        self.held_of.insert((account, code, id), ())?;
        self.wrote();
        Ok(true)
    }

    /// The document does not wait any longer.
    pub fn take_held(&mut self, key: &RecordKey) -> Result<Option<Document>, StoreError> {
        let Some(held) = self.held(key)? else {
            return Ok(None);
        };
        let (code, id) = row_key(key);
        self.held.remove((code, id))?;
        self.held_of.remove((held.account.as_str(), code, id))?;
        self.wrote();
        Ok(Some(held.document))
    }

    /// What waits behind the hold of an account: people first, then the rest in the order of their kinds.
    pub fn held_of(&self, account: &str) -> Result<Vec<RecordKey>, StoreError> {
        held_of(&self.held_of, account)
    }

    /// The accounts behind which something waits, with a hold or without.
    pub fn waited_for(&self) -> Result<BTreeSet<String>, StoreError> {
        let mut accounts = BTreeSet::new();
        for entry in self.held_of.iter()? {
            let (at, ()) = (entry?.0, ());
            accounts.insert(at.value().0.to_owned());
        }
        Ok(accounts)
    }

    /// Records that the centre has under an account, where nobody is known who had it there, or that came later; the
    /// latter also if the centre has them no longer.
    fn records_of_nobody(
        &self,
        account: &str,
        late: &BTreeSet<RecordKey>,
    ) -> Result<Vec<RecordKey>, StoreError> {
        let mut found = Vec::new();
        if self.hold(account)?.is_none() {
            let is_all = self.departed(account)?.is_none();
            for key in self.dependents(account)? {
                if late.contains(&key) || (is_all && self.base(&key)?.is_under(&key, account)) {
                    found.push(key);
                }
            }
        }
        Ok(found)
    }

    /// Whether there is one among them with edits that have not been sent, or that is here alone: it could not wait apart.
    pub(in crate::store) fn has_edited_records_of_nobody(&self, account: &str) -> Result<bool, StoreError> {
        for key in self.records_of_nobody(account, &self.late(account)?)? {
            if !self.is_clean(&key)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A person has been made here. What the centre has under their account came before them and is not theirs: it is in
    /// nobody's book from now on, and waits. So does what came `late`, after the last one was gone.
    pub(in crate::store) fn set_apart_from(
        &mut self,
        key: &RecordKey,
        late: &BTreeSet<RecordKey>,
    ) -> Result<(), StoreError> {
        let is_known_there = self.base(key)?.is_at_centre() || self.has_landed(key)?;
        if is_known_there || self.spellings(&key.id)?.len() > 1 {
            return Ok(());
        }
        for of_account in self.records_of_nobody(&key.id, late)? {
            if let (Some(document), true) = (self.document(&of_account)?, self.is_clean(&of_account)?) {
                self.set_apart(&of_account, &fold_account(&key.id), &document)?;
            }
        }
        Ok(())
    }

    /// A record that nobody has changed here waits for who has the account, as what the centre has.
    pub fn set_apart(
        &mut self,
        key: &RecordKey,
        account: &str,
        document: &Document,
    ) -> Result<(), StoreError> {
        self.put(key, None, &Base::Absent, &Actor::Centre)?;
        self.put_held(key, account, document).map(drop)
    }
}

impl Snapshot {
    pub fn held(&self, key: &RecordKey) -> Result<Option<Held>, StoreError> {
        let held = self.transaction.open_table(HELD)?;
        held.get(row_key(key))?.map(|row| Held::decode(row.value())).transpose()
    }

    /// What waits behind the hold of an account.
    pub fn held_of(&self, account: &str) -> Result<Vec<RecordKey>, StoreError> {
        held_of(&self.transaction.open_table(HELD_OF)?, account)
    }

    /// How many records of the centre wait for somebody to have their account, behind no hold.
    pub fn nobodys_count(&self) -> Result<u64, StoreError> {
        let holds = self.transaction.open_table(HOLD)?;
        let mut count = 0;
        for entry in self.transaction.open_table(HELD_OF)?.iter()? {
            let (at, ()) = (entry?.0, ());
            count += u64::from(!holds.contains(at.value().0)?);
        }
        Ok(count)
    }

    /// Ids after `after` up to `up_to` (or the end) of a kind's records that wait behind a hold.
    pub(crate) fn held_ids(
        &self,
        kind: Kind,
        after: Option<&str>,
        up_to: Option<&str>,
    ) -> Result<Vec<String>, StoreError> {
        ids_between(&self.transaction.open_table(HELD)?, kind, after, up_to)
    }
}

fn held_of(
    held_of: &impl ReadableTable<(&'static str, u8, &'static str), ()>,
    account: &str,
) -> Result<Vec<RecordKey>, StoreError> {
    let account = fold_account(account);
    let mut keys = Vec::new();
    for entry in held_of.range((account.as_str(), 0, "")..)? {
        let (at, _) = entry?;
        let (of, code, id) = at.value();
        if of != account {
            break;
        }
        keys.push(RecordKey::new(kind_of(code)?, id));
    }
    Ok(keys)
}
