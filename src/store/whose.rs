//! Floor 1. Whose a value or a record was when it was kept, and whether that human being has the account now.
//!
//! What lost in a conflict and what lies in the trash may go back into a record much later. Records name their person by
//! account, and an account may have gone to somebody else since. So everything that is put back passes [`Tx::owner_now`].
//! It goes by the numbers of the trash: what was kept before the last one of the account was gone is not of who has it now
//! (`departed.rs`). An account becomes another human being's in its place as well, at once or field by field, and nobody is
//! gone then: so the people are compared too. Nothing is guessed: what is not known counts as another one's.

use bson::{Bson, Document, doc};
use redb::ReadableTable as _;

use super::conflicts::{Conflict, Subject, digest};
use super::departed::{Departed, identity_row};
use super::records::Tx;
use super::snapshot::Snapshot;
use super::stand_in::unless_damaged;
use super::tables::Fields;
use super::{StoreError, tables};
use crate::domain::merge::{Clash, identity_of, is_other_person, is_unknown};
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::domain::schema::Owner;

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
pub(super) fn forgotten_in(bytes: &[u8]) -> Result<u64, StoreError> {
    Fields::of(bytes, "whose accounts are forgotten")?.count("through")
}

/// Tells people apart in a row of the centre, on every node that folds alike.
pub(super) fn mark_of(account: &str, person: &Document) -> Result<String, StoreError> {
    digest(&doc! {"account": account, "person": identity_of(person)})
}

impl Conflict {
    /// Whose the value or body was that is to be put into a record of this account, if that was noted.
    pub fn whose(&self, account: &str) -> Option<Whose> {
        let noted = |person: &Option<Document>| Whose {
            account: account.to_owned(),
            person: person.clone(),
            number: self.noted_at.unwrap_or_default(),
            is_of_another: self.is_of_another || self.noted_at.is_none(),
        };
        if self.owner.as_deref() == Some(account) {
            return Some(noted(&self.person));
        }
        let central = self.central_owner().filter(|owner| owner == account);
        central.filter(|_| self.central_person.is_some()).map(|_| noted(&self.central_person))
    }

    /// The account that the centre's version of a whole record names.
    fn central_owner(&self) -> Option<String> {
        let central = self.central.as_ref().filter(|_| self.path.is_empty());
        central.and_then(Bson::as_document).and_then(|body| self.key.kind.schema().owner_of(body))
    }

    /// The conflict with its whole bodies under another id and account: those of the record that goes there.
    fn renamed(&self, (old, new): (&str, &str), (was, owner): (Option<&str>, &str)) -> Conflict {
        let mut renamed = self.clone();
        if !self.path.is_empty() {
            return renamed;
        }
        let schema = self.key.kind.schema();
        let bodies = [&mut renamed.base, &mut renamed.local, &mut renamed.central];
        for body in bodies.into_iter().flatten().filter_map(Bson::as_document_mut) {
            for field in ["_id", "id"] {
                if body.get_str(field).is_ok_and(|id| id == old) {
                    body.insert(field, new);
                }
            }
            if let (Owner::Field(field), Some(was)) = (schema.owner, was)
                && was != owner
                && schema.owner_of(body).as_deref() == Some(was)
            {
                body.insert(field, owner);
            }
        }
        renamed
    }

    /// The human being whose record it was, as a row of the centre says it; empty if nobody was known.
    pub fn person_mark(&self) -> Result<Option<String>, StoreError> {
        match (&self.owner, &self.person) {
            (Some(_), Some(person)) if person.is_empty() => Ok(Some(String::new())),
            (Some(owner), Some(person)) => mark_of(owner, person).map(Some),
            _ => Ok(None),
        }
    }
}

impl Tx<'_> {
    /// Whether the human being whose this was has the account now.
    pub fn owner_now(&self, whose: &Whose) -> Result<OwnerNow, StoreError> {
        owner_now(self, whose)
    }

    /// Whether this was of `person`, who has, or had until now, the account.
    pub(super) fn was_of(&self, whose: &Whose, person: &Document) -> Result<bool, StoreError> {
        Ok(memory_of(self, &whose.account)?.is_of(whose, person))
    }

    /// Whether a value of a conflict, or the whole body that it keeps, is of the human being whose `record` is here.
    pub fn belongs_into(&self, conflict: &Conflict, record: &Document) -> Result<bool, StoreError> {
        let schema = conflict.key.kind.schema();
        let account = schema.owner_of(record).unwrap_or_default();
        match (schema.owner, conflict.whose(&account)) {
            (Owner::Nobody, _) => Ok(true),
            (_, None) => Ok(false),
            // There may be others with the account, in other spellings.
            (Owner::Itself, Some(whose)) => self.was_of(&whose, record),
            (Owner::Field(_), Some(whose)) => Ok(self.owner_now(&whose)? == OwnerNow::Same),
        }
    }

    /// Whether two conflicts over a record are of the same human being, `now` of who has its account now.
    pub(super) fn is_same_human(&self, before: &Conflict, now: &Conflict) -> Result<bool, StoreError> {
        let account = now.owner.as_deref().unwrap_or_default();
        match (before.whose(account), &now.person) {
            _ if before.owner != now.owner => Ok(false),
            (Some(whose), Some(person)) => self.was_of(&whose, person),
            (whose, _) => Ok(whose.is_some_and(|whose| !whose.is_of_another)),
        }
    }

    /// It is not remembered any more who had some account through this number of the trash.
    pub(super) fn note_forgotten(&mut self, number: u64) -> Result<(), StoreError> {
        if number == 0 {
            return Ok(());
        }
        let through = self.forgotten()?.unwrap_or_default().max(number);
        self.set_meta(META_FORGOTTEN, Some(&doc! {"through": through as i64}))
    }

    /// Who has the account now, as it is noted beside what may be put back later.
    pub(super) fn whose_now(&self, account: &str) -> Result<Whose, StoreError> {
        let account = fold_account(account);
        // A damaged person keeps no record of theirs from being deleted, nor a round from going on.
        let person = unless_damaged(self.known_under(&account))?.map(Option::unwrap_or_default);
        Ok(Whose { account, person, number: self.last_trash_number()?, is_of_another: false })
    }

    /// Whose the values of a clash are; and who has the account that the centre's version of a whole record names, if that
    /// is another account.
    pub(super) fn whose_clash(
        &self,
        key: &RecordKey,
        clash: &Clash,
    ) -> Result<(Whose, Option<Document>), StoreError> {
        let schema = key.kind.schema();
        let body = |value: &Option<Bson>| {
            value.as_ref().filter(|_| clash.path.is_empty()).and_then(Bson::as_document).cloned()
        };
        let bodies = [body(&clash.local), body(&clash.base), body(&clash.remote)];
        let mut account = self.owner(key)?;
        if account.is_none() && self.is_stored(key, None)? {
            // Neither here nor agreed on: the versions themselves name it.
            account = bodies.iter().flatten().find_map(|body| schema.owner_of(body));
        }
        let account = account.unwrap_or_default();
        let mut whose = self.whose_now(&account)?;
        if key.kind == Kind::Person {
            let agreed = || Ok::<_, StoreError>(self.base(key)?.document().cloned());
            let person = self.document(key)?.map_or_else(agreed, |person| Ok(Some(person)))?;
            whose.person = person.or(bodies[0].clone()).as_ref().map(identity_row);
        }
        let central = bodies[2].as_ref().and_then(|body| schema.owner_of(body));
        let central = central.filter(|central| *central != account);
        let central_person = match central {
            Some(central) => self.whose_now(&central)?.person,
            None => None,
        };
        Ok((whose, central_person))
    }

    /// A conflict over a record that goes on under another account or id, as `conflict.key` says. If it was of the human
    /// being who has the record now, it is theirs there too.
    pub(super) fn given(&self, conflict: Conflict, from: &RecordKey) -> Result<Conflict, StoreError> {
        let owner = self.owner(&conflict.key)?.unwrap_or_default();
        let (was, to) = (conflict.owner.clone(), conflict.key.id.clone());
        let mut given = conflict.renamed((&from.id, &to), (was.as_deref(), &owner));
        if was.as_ref() == Some(&owner) || given.key.kind.schema().owner == Owner::Nobody {
            return Ok(given);
        }
        let now = self.whose_now(&owner)?;
        let whose = was.and_then(|was| conflict.whose(&was));
        // The id of the record may have been another one's when the conflict was found, under whatever account.
        let is_same_human = |whose: &Whose, person: &Document| {
            let before = whose.person.as_ref().filter(|before| !before.is_empty());
            before.is_some_and(|before| !is_other_person(Some(before), before, person))
        };
        given.is_of_another = match (whose, &now.person) {
            (Some(whose), Some(person)) => !is_same_human(&whose, person) || !self.was_of(&whose, person)?,
            _ => true,
        };
        (given.owner, given.person, given.noted_at) = (Some(owner), now.person, Some(now.number));
        Ok(given)
    }

    /// The `person` has left this account for `new`. Conflicts over records of theirs that are gone go with them; those over
    /// what stays with the account are another one's.
    pub(crate) fn part_conflicts(
        &mut self,
        account: &str,
        person: &Document,
        new: &str,
    ) -> Result<(), StoreError> {
        let account = fold_account(account);
        for mut conflict in self.value_conflicts_of(&account)? {
            let is_gone = conflict.key.kind != Kind::Person && self.document(&conflict.key)?.is_none();
            let whose = conflict.whose(&account).filter(|_| is_gone);
            if let Some(whose) = whose
                && self.was_of(&whose, person)?
            {
                let now = self.whose_now(new)?;
                // The row at the centre is about the same clash.
                let fingerprint = conflict.fingerprint()?;
                let id = conflict.key.id.clone();
                conflict = conflict.renamed((&id, &id), (Some(&account), &now.account));
                conflict.row_fingerprint = Some(fingerprint);
                (conflict.owner, conflict.person, conflict.noted_at) =
                    (Some(now.account), now.person, Some(now.number));
            } else {
                conflict.is_of_another = true;
            }
            self.keep_conflict(&conflict)?;
        }
        Ok(())
    }

    /// The holder of the account `now` is the `person` who had it, by decision, although their identities differ: what was
    /// kept of that one is theirs.
    pub(crate) fn note_same(
        &mut self,
        account: &str,
        person: &Document,
        now: &Document,
    ) -> Result<(), StoreError> {
        if !is_other_person(Some(person), person, now) {
            return Ok(());
        }
        let account = fold_account(account);
        for mut conflict in self.value_conflicts_of(&account)? {
            if let Some(whose) = conflict.whose(&account)
                && self.was_of(&whose, person)?
            {
                conflict.person = Some(identity_row(now));
                self.keep_conflict(&conflict)?;
            }
        }
        self.note_trash_same(&account, person, now)?;
        self.note_departed_same(&account, person, now)
    }

    /// The open conflicts over values that were found in records of this account, in order of their records.
    fn value_conflicts_of(&self, account: &str) -> Result<Vec<Conflict>, StoreError> {
        let mut found = Vec::new();
        for entry in self.conflict_open.iter()? {
            let id = entry?.0.value().2.to_owned();
            // One that is damaged keeps nobody from the others.
            let conflict = unless_damaged(self.conflict_of_account(&id, account))?.flatten();
            found.extend(conflict.filter(|conflict| conflict.subject == Subject::Value));
        }
        Ok(found)
    }

    /// The conflict, if it was found in a record of this account; others may have large values, and are not decoded.
    fn conflict_of_account(&self, id: &str, account: &str) -> Result<Option<Conflict>, StoreError> {
        let Some(row) = self.conflict.get(id)? else {
            return Ok(None);
        };
        let owner = tables::raw(row.value())?.get_str("owner");
        if owner.is_ok_and(|owner| owner == account) {
            Conflict::decode(row.value()).map(Some)
        } else {
            Ok(None)
        }
    }

    /// The fields of the one who has an account, or had it last: records may go after their person. Nothing if nobody has
    /// it, and nothing is known of who had it.
    pub(super) fn known_under(&self, account: &str) -> Result<Option<Document>, StoreError> {
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

    /// Whether a row of the centre means the one who has this account here; their fields.
    pub(super) fn person_of_mark(&self, account: &str, mark: &str) -> Result<Option<Document>, StoreError> {
        let whose = self.whose_now(account)?;
        let person = whose.person.filter(|person| !person.is_empty());
        Ok(match person {
            Some(person) if mark_of(&whose.account, &person)? == mark => Some(person),
            _ => None,
        })
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
