//! Floor 1. Whose a value or a record was when it was kept, and whether that human being has the account now.
//!
//! What lost in a conflict and what lies in the trash may go back into a record much later. Records name their person by
//! account, and an account may have gone to somebody else since. So everything that is put back passes [`Tx::owner_now`].
//! It goes by the numbers of the trash: what was kept before the last one of the account was gone is not of who has it now
//! (`departed.rs`). An account becomes another human being's in its place as well, at once or field by field, and nobody is
//! gone then: so the people are compared too. Nothing is guessed: what is not known counts as another one's.

use bson::{Document, doc};

use super::departed::{Departed, identity_row};
use crate::domain::merge::{is_other_person, is_unknown};
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::{StoreError, unless_damaged};
use crate::store::rows::Fields;

/// Through which number of the trash it is not remembered for all accounts who had them.
const META_FORGOTTEN: &str = "departed_forgotten";

/// Whose a value or a record was, as it was noted when it was kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Whose {
    /// Folded; empty if it belonged to nobody.
    pub account: String,
    /// The fields by which the human being is told apart who had the account, empty if nobody was known who had it (see
    /// `is_nobody`); `None` if that was not noted.
    pub person: Option<Document>,
    /// The last number of the trash then.
    pub number: u64,
    /// It was another one's than who has the account, or it is not known whose.
    pub is_of_another: bool,
}

/// Whether this is nobody of whom anything is known. Rows of earlier versions have somebody of whom nothing is known but that
/// they had the account ([`is_unknown`]) where nobody had it.
fn is_nobody(person: &Document) -> bool {
    person.is_empty() || is_unknown(person)
}

/// Who has the account of a [`Whose`] now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerNow {
    /// The same human being; or still nobody, where nobody was known either.
    Same,
    /// They are gone, and nobody has it.
    Nobody,
    /// Another one, or it is not known whether it is another one.
    Another,
}

/// What is remembered of those who had an account.
struct Memory {
    last: Option<Departed>,
    /// See [`META_FORGOTTEN`].
    forgotten: Option<u64>,
}

impl Memory {
    /// Whether what was `whose` is of this `person`, who has the account now.
    fn is_of(&self, whose: &Whose, person: &Document) -> bool {
        let before = whose.person.as_ref().filter(|before| !before.is_empty());
        let is_another = before.is_some_and(|before| is_other_person(Some(before), before, person));
        // Nobody had the account then: the present holder came later.
        let was_nobodys = before.is_none() && whose.person.is_some() && !person.is_empty();
        if whose.is_of_another || is_another || was_nobodys {
            return false;
        }
        match (&self.last, self.forgotten) {
            (Some(last), _) => whose.number > last.ends_before(person),
            (None, Some(forgotten)) if whose.number <= forgotten => before.is_some(),
            // Nobody else is known ever to have had it.
            (None, _) => true,
        }
    }

    /// Who has the account, of these `people` that are stored under it.
    fn owner_now(&self, whose: &Whose, people: &[Document]) -> OwnerNow {
        match people {
            _ if whose.account.is_empty() && !whose.is_of_another => OwnerNow::Same,
            [] => {
                let was_nobody = whose.person.as_ref().map_or(self.last.is_none(), is_nobody);
                let is_unchanged = self.last.as_ref().is_none_or(|last| whose.number > last.until());
                match was_nobody && is_unchanged && !whose.is_of_another {
                    true => OwnerNow::Same,
                    false => OwnerNow::Nobody,
                }
            }
            [person] if self.is_of(whose, person) => OwnerNow::Same,
            _ => OwnerNow::Another,
        }
    }
}

/// Through which number of the trash it is forgotten who had the accounts.
pub(in crate::store) fn forgotten_in(bytes: &[u8]) -> Result<u64, StoreError> {
    Fields::of(bytes, "whose accounts are forgotten")?.count("through")
}

impl Tx<'_> {
    /// Whether the human being whose this was has the account now.
    pub fn owner_now(&self, whose: &Whose) -> Result<OwnerNow, StoreError> {
        owner_now(self, whose)
    }

    /// Whether this was of `person`, who has, or had until now, the account.
    pub(in crate::store) fn was_of(&self, whose: &Whose, person: &Document) -> Result<bool, StoreError> {
        Ok(memory_of(self, &whose.account)?.is_of(whose, person))
    }

    /// It is not remembered any more who had some account through this number of the trash.
    pub(in crate::store) fn note_forgotten(&mut self, number: u64) -> Result<(), StoreError> {
        if number == 0 {
            return Ok(());
        }
        let through = self.forgotten()?.unwrap_or_default().max(number);
        self.set_meta(META_FORGOTTEN, Some(&doc! {"through": through as i64}))
    }

    /// Who has the account now, as it is noted beside what may be put back later.
    pub(in crate::store) fn whose_now(&self, account: &str) -> Result<Whose, StoreError> {
        let account = fold_account(account);
        // A damaged person keeps no record of theirs from being deleted, nor a round from going on.
        let person = unless_damaged(self.known_under(&account))?.map(Option::unwrap_or_default);
        Ok(Whose { account, person, number: self.last_trash_number()?, is_of_another: false })
    }

    /// The fields of the one who has an account, or had it last: records may go after their person. Nothing if nobody has
    /// it, and nothing is known of who had it.
    pub(in crate::store) fn known_under(&self, account: &str) -> Result<Option<Document>, StoreError> {
        match &self.spellings(account)?[..] {
            _ if account.is_empty() => Ok(None),
            [id] => {
                let person = self.document(&RecordKey::new(Kind::Person, id.as_str()))?;
                Ok(person.as_ref().map(identity_row))
            }
            [] => Ok(self.departed(account)?.filter(|last| !is_nobody(last))),
            _ => Ok(None),
        }
    }
}

impl Snapshot {
    /// [`Tx::owner_now`]
    pub fn owner_now(&self, whose: &Whose) -> Result<OwnerNow, StoreError> {
        owner_now(self, whose)
    }
}

/// What is asked of a transaction, or of a view, to find out who has an account.
trait Accounts {
    /// The people who are stored under an account.
    fn people_of(&self, account: &str) -> Result<Vec<Document>, StoreError>;
    fn last_of(&self, account: &str) -> Result<Option<Departed>, StoreError>;
    /// Whether the row of who had it last may be damaged, under another key.
    fn is_last_lost(&self, account: &str) -> Result<bool, StoreError>;
    fn forgotten(&self) -> Result<Option<u64>, StoreError>;
}

/// A transaction and a view have the same tables, of two types.
macro_rules! accounts {
    ($($at:ty),*) => {$(
        impl Accounts for $at {
            fn people_of(&self, account: &str) -> Result<Vec<Document>, StoreError> {
                let mut people = Vec::new();
                for id in self.spellings(account)? {
                    people.extend(self.document(&RecordKey::new(Kind::Person, id))?);
                }
                Ok(people)
            }

            fn last_of(&self, account: &str) -> Result<Option<Departed>, StoreError> {
                self.departed_row(account)
            }

            fn is_last_lost(&self, account: &str) -> Result<bool, StoreError> {
                self.is_departed_lost(account)
            }

            fn forgotten(&self) -> Result<Option<u64>, StoreError> {
                self.meta_row(META_FORGOTTEN)?.map(|row| forgotten_in(&row)).transpose()
            }
        }
    )*};
}

accounts!(Tx<'_>, Snapshot);

fn owner_now(accounts: &impl Accounts, whose: &Whose) -> Result<OwnerNow, StoreError> {
    let people = accounts.people_of(&whose.account)?;
    Ok(memory_of(accounts, &whose.account)?.owner_now(whose, &people))
}

fn memory_of(accounts: &impl Accounts, account: &str) -> Result<Memory, StoreError> {
    let last = accounts.last_of(account)?;
    let forgotten = match last.is_none() && accounts.is_last_lost(account)? {
        // The row that was lost may be that of this account.
        true => Some(u64::MAX),
        false => accounts.forgotten()?,
    };
    Ok(Memory { last, forgotten })
}
