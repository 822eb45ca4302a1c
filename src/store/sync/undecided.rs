//! Floor 1. Records whose version here and at the centre must not become one before somebody has decided, and records
//! that wait for their person.
//!
//! What is decided, and what follows from it, is the business of the reconciliation; here it is only kept.

use std::collections::BTreeMap;

use bson::{Document, RawDocument, doc};
use redb::ReadableTable;

use crate::domain::access::Actor;
use crate::domain::merge::same_identity;
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::domain::schema::Owner;
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::{StoreError, unless_damaged};
use crate::store::rows::{Fields, damaged, encode, ids_between, kind_of, row_key};
use crate::store::schema::{UNDECIDED, VANISHED, WAITING};

/// A record that is neither pushed nor merged before somebody has decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Undecided {
    /// The conflict under which it is decided.
    pub conflict: String,
    /// What the centre holds; `None` if it was deleted there.
    pub central: Option<Document>,
    /// The person whose record the centre's is, by decision, while nobody stood at the centre under its account: the fields by
    /// which people are told apart.
    pub decided_owner: Option<Document>,
}

impl Undecided {
    pub(in crate::store) fn decode(bytes: &[u8]) -> Result<Undecided, StoreError> {
        let row = Fields::of(bytes, "an undecided record")?;
        Ok(Undecided {
            conflict: row.text("conflict")?.to_owned(),
            central: row.document_if_any("central")?,
            decided_owner: row.document_if_any("decided_owner")?,
        })
    }

    /// Whether somebody has decided that the centre's record is this `person`'s.
    pub fn is_decided_to_be_of(&self, person: &Document) -> bool {
        self.decided_owner.as_ref().is_some_and(|owner| same_identity(owner, person))
    }
}

/// Why a record is not sent although it was edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitReason {
    /// Nobody here has the account.
    Unknown,
    /// The centre does not have the person yet.
    Unsent,
    /// The centre refuses the person.
    Refused,
    /// It is not decided who has the account.
    Held,
    /// The person was deleted at the centre, and it is not decided what becomes of their records.
    Deleted,
    /// The record itself waits for a decision.
    Undecided,
    /// Two human beings have the account, in two spellings.
    Shared,
    /// A person who was made here, or a record of theirs: not everything at the centre has been read, so records of somebody
    /// else may be there under the account.
    Unread,
    /// A person who was made here: records of somebody else were deleted under the account, and the centre has them still.
    Leaving,
}

impl WaitReason {
    const ALL: [WaitReason; 9] = [
        WaitReason::Unknown,
        WaitReason::Unsent,
        WaitReason::Refused,
        WaitReason::Held,
        WaitReason::Deleted,
        WaitReason::Undecided,
        WaitReason::Shared,
        WaitReason::Unread,
        WaitReason::Leaving,
    ];

    pub fn name(self) -> &'static str {
        match self {
            WaitReason::Unknown => "unknown",
            WaitReason::Unsent => "unsent",
            WaitReason::Refused => "refused",
            WaitReason::Held => "held",
            WaitReason::Deleted => "deleted",
            WaitReason::Undecided => "undecided",
            WaitReason::Shared => "shared",
            WaitReason::Unread => "unread",
            WaitReason::Leaving => "leaving",
        }
    }

    /// The reason in a sentence.
    pub fn words(self) -> &'static str {
        match self {
            WaitReason::Unknown => "No person here has this account.",
            WaitReason::Unsent => "The centre does not have the person yet.",
            WaitReason::Refused => "The centre refuses the person: see the refused records.",
            WaitReason::Held => "Two people have this account: see the conflicts.",
            WaitReason::Deleted => "The person was deleted at the centre: see the conflicts.",
            WaitReason::Undecided => "The centre has another record under this id: see the conflicts.",
            WaitReason::Shared => {
                "Two people have this account, in two spellings: one of them needs another id at the centre."
            }
            WaitReason::Unread => {
                "A person who is new is sent once everything at the centre has been read, and their records follow: somebody \
                 else may have records there under the account."
            }
            WaitReason::Leaving => {
                "Records of who had this account before were deleted here, and the centre has them still. The person follows once \
                 these deletes are there: see `thalamus-edge sync status` and the refused records."
            }
        }
    }
}

/// A record that waits instead of being sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub key: RecordKey,
    /// The account for which it waits, folded; empty if it is the record itself that is undecided.
    pub account: String,
    pub why: WaitReason,
}

impl Waiting {
    pub(in crate::store) fn decode(key: RecordKey, bytes: &[u8]) -> Result<Waiting, StoreError> {
        let row = Fields::of(bytes, "a waiting record")?;
        let named = |word: &str| WaitReason::ALL.into_iter().find(|reason| reason.name() == word);
        Ok(Waiting { key, account: row.text("account")?.to_owned(), why: row.word("why", named)? })
    }
}

impl Tx<'_> {
    pub fn undecided(&self, key: &RecordKey) -> Result<Option<Undecided>, StoreError> {
        if let Some(row) = self.undecided.get(row_key(key))? {
            return Undecided::decode(row.value()).map(Some);
        }
        // Its row may lie under another key, which is damaged.
        if self.undecided.is_empty()? { Ok(None) } else { self.undecided_asked_about(key) }
    }

    pub fn put_undecided(&mut self, key: &RecordKey, undecided: &Undecided) -> Result<(), StoreError> {
        let mut row = doc! {"conflict": &undecided.conflict};
        row.extend(undecided.central.clone().map(|central| ("central".to_owned(), central.into())));
        row.extend(undecided.decided_owner.clone().map(|owner| ("decided_owner".to_owned(), owner.into())));
        let row = encode(&row)?;
        if self.undecided.get(row_key(key))?.is_some_and(|known| known.value() == row) {
            return Ok(());
        }
        self.undecided.insert(row_key(key), row.as_slice())?;
        self.wrote();
        self.account_waits_or_not(key)
    }

    /// The undecided records of people, by the account under which the centre has them, folded: that of the record here, or
    /// another one. Reads all undecided records.
    pub fn undecided_by_account(&self) -> Result<BTreeMap<String, Vec<RecordKey>>, StoreError> {
        let mut found: BTreeMap<String, Vec<RecordKey>> = BTreeMap::new();
        for entry in self.undecided.iter()?.sound() {
            let (at, row) = entry?;
            let (code, id) = at.value();
            let kind = kind_of(code)?;
            let row = RawDocument::from_bytes(row.value()).map_err(|_| damaged("an undecided record"))?;
            if let (Owner::Field(_), Ok(central)) = (kind.schema().owner, row.get_document("central"))
                && let Some(account) = kind.schema().owner_in(central)
            {
                found.entry(fold_account(&account)).or_default().push(RecordKey::new(kind, id));
            }
        }
        Ok(found)
    }

    pub fn remove_undecided(&mut self, key: &RecordKey) -> Result<(), StoreError> {
        if self.undecided.remove(row_key(key))? {
            self.wrote();
            self.account_waits_or_not(key)?;
        }
        Ok(())
    }

    /// While it is undecided what becomes of a person, their account is closed ([`Closing::Gone`](crate::domain::active::Closing)).
    fn account_waits_or_not(&mut self, key: &RecordKey) -> Result<(), StoreError> {
        match key.kind {
            Kind::Person => self.rights_changed(&Actor::Person(key.id.clone())),
            _ => Ok(()),
        }
    }

    /// Whether a record is noted as gone at the centre.
    pub fn is_vanished(&self, key: &RecordKey) -> Result<bool, StoreError> {
        Ok(self.vanished.get(row_key(key))?.is_some())
    }

    /// Notes that the record waits instead of being sent, and why.
    pub fn put_waiting(&mut self, waiting: &Waiting) -> Result<(), StoreError> {
        let row = encode(&doc! {"account": &waiting.account, "why": waiting.why.name()})?;
        let at = row_key(&waiting.key);
        // A damaged one is written anew: it only says what is known here.
        let is_known =
            unless_damaged(self.waiting.get(at))?.flatten().is_some_and(|known| known.value() == row);
        if !is_known {
            self.waiting.insert(at, row.as_slice())?;
            self.wrote();
        }
        Ok(())
    }

    /// Whether it is noted that the person waits for this reason. A damaged note says nothing.
    pub(crate) fn is_noted_as(&self, person: &RecordKey, why: WaitReason) -> Result<bool, StoreError> {
        let Some(row) = unless_damaged(self.waiting.get(row_key(person)))?.flatten() else {
            return Ok(false);
        };
        let noted = unless_damaged(Waiting::decode(person.clone(), row.value()))?;
        Ok(noted.is_some_and(|noted| noted.why == why))
    }

    /// Whether it is noted that the record waits instead of being sent, for whatever reason.
    pub fn is_noted_as_waiting(&self, key: &RecordKey) -> Result<bool, StoreError> {
        self.waiting.contains(row_key(key))
    }

    /// The record does not wait any longer.
    pub fn clear_waiting(&mut self, key: &RecordKey) -> Result<(), StoreError> {
        if self.waiting.remove(row_key(key))? {
            self.wrote();
        }
        Ok(())
    }
}

impl Snapshot {
    pub fn undecided(&self, key: &RecordKey) -> Result<Option<Undecided>, StoreError> {
        let undecided = self.transaction.open_table(UNDECIDED)?;
        undecided.get(row_key(key))?.map(|row| Undecided::decode(row.value())).transpose()
    }

    /// Whether a record is noted as gone at the centre.
    pub fn is_vanished(&self, key: &RecordKey) -> Result<bool, StoreError> {
        Ok(self.transaction.open_table(VANISHED)?.get(row_key(key))?.is_some())
    }

    /// Why a record waits instead of being sent, if it does.
    pub fn waiting_of(&self, key: &RecordKey) -> Result<Option<Waiting>, StoreError> {
        let waiting = self.transaction.open_table(WAITING)?;
        waiting.get(row_key(key))?.map(|row| Waiting::decode(key.clone(), row.value())).transpose()
    }

    /// Records that wait instead of being sent, after `after`, at most `max`.
    pub fn waiting(&self, after: Option<&RecordKey>, max: usize) -> Result<Vec<Waiting>, StoreError> {
        let waiting = self.transaction.open_table(WAITING)?;
        let start = after.map_or(std::ops::Bound::Unbounded, |key| std::ops::Bound::Excluded(row_key(key)));
        let mut found = Vec::new();
        for entry in waiting.range::<(u8, &str)>((start, std::ops::Bound::Unbounded))?.sound().take(max) {
            let (at, row) = entry?;
            let (code, id) = at.value();
            found.push(Waiting::decode(RecordKey::new(kind_of(code)?, id), row.value())?);
        }
        Ok(found)
    }

    /// How many people who were made here wait until everything at the centre has been read.
    pub fn unread_people_count(&self) -> Result<u64, StoreError> {
        let waiting = self.transaction.open_table(WAITING)?;
        let code = Kind::Person.schema().code;
        let mut count = 0;
        for entry in waiting.range((code, "")..(code + 1, ""))?.sound() {
            let (at, row) = entry?;
            let waiting = Waiting::decode(RecordKey::new(Kind::Person, at.value().1), row.value())?;
            count += u64::from(waiting.why == WaitReason::Unread);
        }
        Ok(count)
    }

    /// How many records wait instead of being sent.
    pub fn held_back_count(&self) -> Result<u64, StoreError> {
        self.transaction.open_table(WAITING)?.len()
    }

    /// Ids after `after` up to `up_to` (or the end) of a kind's undecided records.
    pub(crate) fn undecided_ids(
        &self,
        kind: Kind,
        after: Option<&str>,
        up_to: Option<&str>,
    ) -> Result<Vec<String>, StoreError> {
        let undecided = self.transaction.open_table(UNDECIDED)?;
        ids_between(&undecided, kind, after, up_to)
    }
}
