//! Floor 1. Identity holds: two people under one account, and the centre's records that wait until somebody has
//! decided whether they are one.
//!
//! The person of this node stays in `docs`, with their records; what the centre holds under the account and is
//! not agreed on goes to `held` (`held_records.rs`). So does a record of the centre whose person nobody knows: it waits for somebody to have
//! the account, behind no hold. Whether somebody is held, and what follows from a decision, is the business of
//! the reconciliation; here it is only kept.

use std::ops::Bound;

use bson::{Document, doc};

use crate::domain::merge::is_other_person;
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::StoreError;
use crate::store::rows::{Fields, encode};
use crate::store::schema::{DUPLICATE, HOLD};

/// Why two people under one account may be two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldReason {
    /// Made on both sides, and not alike.
    Created,
    /// Agreed once; then the centre's record came to be about somebody else.
    Reused,
    /// New on both sides, and the ids are spelled differently.
    Spelling,
    /// The person of this node was deleted, records of theirs are still here, and somebody else came to have the
    /// account.
    Departed,
    /// The person was made here; the account was another one's, whose records are at the centre while nobody is there
    /// who has it.
    Taken,
    /// Agreed once; then the person was rewritten on this node into somebody else.
    Rewritten,
}

impl HoldReason {
    const ALL: [HoldReason; 6] = [
        HoldReason::Created,
        HoldReason::Reused,
        HoldReason::Spelling,
        HoldReason::Departed,
        HoldReason::Taken,
        HoldReason::Rewritten,
    ];

    pub(in crate::store) fn named(name: &str) -> Option<HoldReason> {
        HoldReason::ALL.into_iter().find(|reason| reason.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            HoldReason::Created => "created",
            HoldReason::Reused => "reused",
            HoldReason::Spelling => "spelling",
            HoldReason::Departed => "departed",
            HoldReason::Taken => "taken",
            HoldReason::Rewritten => "rewritten",
        }
    }
}

impl HoldReason {
    /// Whether a record of the account goes with the person of this node to a new account. `is_own`: the centre has never been
    /// known to have it under the account. `is_older`: its first unsent write came before the account was this person's.
    /// `is_last_holder`: this very person stood at the centre last.
    pub(super) fn takes_along(self, is_own: bool, is_older: bool, is_last_holder: bool) -> bool {
        match self {
            // What was agreed before the other person came is of the one who is here.
            HoldReason::Departed | HoldReason::Reused => true,
            HoldReason::Rewritten => is_own && !is_older,
            // What was agreed while they stood there is theirs.
            HoldReason::Taken => is_own || is_last_holder,
            HoldReason::Created | HoldReason::Spelling => is_own,
        }
    }
}

/// Two people under one account, until somebody has decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The account that both have, folded.
    pub account: String,
    /// The conflict under which it is listed and decided.
    pub conflict: String,
    /// The id of the person here, and that of the one at the centre: the same but for [`HoldReason::Spelling`].
    pub local: String,
    pub remote: String,
    pub why: HoldReason,
    pub since_ms: i64,
    /// The fields by which the other person is told apart, if the centre has them no longer but records of theirs.
    pub gone: Option<Document>,
}

impl Hold {
    pub fn local_key(&self) -> RecordKey {
        RecordKey::new(Kind::Person, self.local.as_str())
    }

    pub fn remote_key(&self) -> RecordKey {
        RecordKey::new(Kind::Person, self.remote.as_str())
    }

    /// Whether the centre has given the account away since: `agreed` is who had it there when another person was written
    /// over them here, `held` who has it now.
    fn is_taken(&self, agreed: &Document, held: &Document) -> bool {
        let is_known = self.why == HoldReason::Rewritten && !agreed.is_empty();
        is_known && is_other_person(Some(agreed), agreed, held)
    }

    fn other(&self, agreed: Option<Document>, held: Option<Document>) -> Option<Document> {
        match (agreed, held) {
            (Some(agreed), Some(held)) if self.is_taken(&agreed, &held) => Some(agreed),
            (_, held) => held.or_else(|| self.gone.clone()),
        }
    }

    /// Whether nothing is known of the other person if the centre's does not wait here.
    pub(crate) fn is_other_missing(&self) -> bool {
        self.gone.is_none() && self.why != HoldReason::Taken
    }

    fn encode(&self) -> Document {
        let mut row = doc! {
            "conflict": &self.conflict, "local": &self.local, "remote": &self.remote,
            "why": self.why.name(), "since": self.since_ms,
        };
        row.extend(self.gone.clone().map(|gone| ("gone".to_owned(), gone.into())));
        row
    }

    pub(in crate::store) fn decode(account: &str, bytes: &[u8]) -> Result<Hold, StoreError> {
        let row = Fields::of(bytes, "a hold")?;
        Ok(Hold {
            account: account.to_owned(),
            conflict: row.text("conflict")?.to_owned(),
            local: row.text("local")?.to_owned(),
            remote: row.text("remote")?.to_owned(),
            why: row.word("why", HoldReason::named)?,
            since_ms: row.int64("since")?,
            gone: row.document_if_any("gone")?,
        })
    }
}

impl Tx<'_> {
    /// Whether anybody is held; almost always nobody is.
    pub fn has_holds(&self) -> Result<bool, StoreError> {
        Ok(!self.hold.is_empty()?)
    }

    /// The hold of an account, in any spelling.
    pub fn hold(&self, account: &str) -> Result<Option<Hold>, StoreError> {
        let account = fold_account(account);
        if let Some(row) = self.hold.get(account.as_str())? {
            return Hold::decode(&account, row.value()).map(Some);
        }
        // Its row may lie under another key, which is damaged.
        if self.hold.is_empty()? { Ok(None) } else { self.hold_asked_about(&account) }
    }

    pub fn holds(&self) -> Result<Vec<Hold>, StoreError> {
        let mut holds = Vec::new();
        for entry in self.hold.iter()?.sound() {
            let (account, row) = entry?;
            holds.push(Hold::decode(account.value(), row.value())?);
        }
        Ok(holds)
    }

    pub fn put_hold(&mut self, hold: &Hold) -> Result<(), StoreError> {
        self.hold.insert(hold.account.as_str(), encode(&hold.encode())?.as_slice())?;
        self.wrote();
        Ok(())
    }

    /// Ends a hold. What waits behind it stays until it is taken.
    pub fn remove_hold(&mut self, hold: &Hold) -> Result<(), StoreError> {
        self.hold.remove(hold.account.as_str())?;
        self.wrote();
        Ok(())
    }

    /// The other person of a hold: the centre's, or what is remembered of the one who is gone there. Of a person who was
    /// rewritten here it is the one who was written over, even if a third person has the account at the centre by now.
    pub fn other_person(&self, hold: &Hold) -> Result<Option<Document>, StoreError> {
        let held = self.held(&hold.remote_key())?.map(|held| held.document);
        let agreed = self.written_over_in(hold)?;
        Ok(hold.other(agreed, held))
    }

    /// Who has the account at the centre by now, if that is not the person over whom another one was written here. Whether
    /// these two are one is asked once it is decided what becomes of the one who was written here.
    pub fn taken_by(&self, hold: &Hold) -> Result<Option<Document>, StoreError> {
        let held = self.held(&hold.remote_key())?.map(|held| held.document);
        let agreed = self.written_over_in(hold)?;
        Ok(held.filter(|held| agreed.is_some_and(|agreed| hold.is_taken(&agreed, held))))
    }

    /// The person over whom another one was written here.
    pub fn written_over_in(&self, hold: &Hold) -> Result<Option<Document>, StoreError> {
        match hold.why {
            HoldReason::Rewritten => Ok(self.base(&hold.local_key())?.document().cloned()),
            _ => Ok(None),
        }
    }
}

impl Snapshot {
    /// All holds.
    pub fn holds(&self) -> Result<Vec<Hold>, StoreError> {
        let mut holds = Vec::new();
        for entry in self.transaction.open_table(HOLD)?.iter()?.sound() {
            let (account, row) = entry?;
            holds.push(Hold::decode(account.value(), row.value())?);
        }
        Ok(holds)
    }

    /// The hold of an account, in any spelling.
    pub fn hold(&self, account: &str) -> Result<Option<Hold>, StoreError> {
        let account = fold_account(account);
        let hold = self.transaction.open_table(HOLD)?;
        let row = hold.get(account.as_str())?;
        row.map(|row| Hold::decode(&account, row.value())).transpose()
    }

    /// How many people are held.
    pub fn holds_count(&self) -> Result<u64, StoreError> {
        self.transaction.open_table(HOLD)?.len()
    }

    /// The other person of a hold, see [`Tx::other_person`].
    pub fn other_person(&self, hold: &Hold) -> Result<Option<Document>, StoreError> {
        let held = self.held(&hold.remote_key())?.map(|held| held.document);
        let agreed = match (hold.why, self.base(&hold.local_key())?) {
            (HoldReason::Rewritten, Some(base)) => base.document().cloned(),
            (HoldReason::Rewritten, None) => self.document(&hold.local_key())?,
            _ => None,
        };
        Ok(hold.other(agreed, held))
    }

    /// Accounts under which more than one person is stored, each with the ids of these people, in order: at most `max` of those
    /// behind `after`, and all from the first for the empty text.
    pub fn duplicates_after(
        &self,
        after: &str,
        max: usize,
    ) -> Result<Vec<(String, Vec<String>)>, StoreError> {
        let mut found = Vec::new();
        let duplicate = self.transaction.open_table(DUPLICATE)?;
        for entry in duplicate.range::<&str>((Bound::Excluded(after), Bound::Unbounded))?.take(max) {
            let (account, ()) = (entry?.0, ());
            found.push((account.value().to_owned(), self.spellings(account.value())?));
        }
        Ok(found)
    }
}
