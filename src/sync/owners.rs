//! Floor 3. Whether people still are who they are at the centre, before records of theirs are sent.
//!
//! A record names its person by account. An application may give the account to another human being at any moment, and
//! the change feed tells of it later: the record would stand in another one's book. So before records are sent, the
//! fields by which people are told apart are read again. Where they are somebody else's, or nobody is there, nothing is
//! sent; the person is read again, and the record waits for what follows from that ([`super::hold`],
//! [`super::undecided`]). What is left is the time between this reading and the write.
//!
//! A record that goes there for the first time names its person in the spelling in which that person is stored.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use bson::Document;

use super::doubt::is_not_meant;
use super::people_first::is_looking_at_people;
use super::round::{Round, RoundError};
use super::step;
use super::undecided::why_nobody_stands;
use crate::central::Central;
use crate::domain::access::Actor;
use crate::domain::edit::spell_owner;
use crate::domain::merge::is_other_person;
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::domain::schema::Owner;
use crate::store::{
    Reread, Snapshot, StoreError, Tx, WaitReason, Waiting, identity_in, identity_row, unless_damaged,
};

/// A person as this node believes them to stand at the centre: the fields by which people are told apart.
struct Believed {
    key: RecordKey,
    /// What was agreed on; `None` if it was only sent.
    agreed: Option<Document>,
    local: Document,
    /// For whom what waits was meant, see [`Snapshot::meant`].
    meant: Option<Document>,
    /// Known to be gone. Somebody else may have followed.
    is_gone: bool,
}

/// An account of which records are about to be sent.
#[derive(Default)]
struct Account {
    people: Vec<Believed>,
    /// Records that the centre has, and new ones.
    known: Vec<RecordKey>,
    new: Vec<RecordKey>,
}

impl Account {
    /// The records that must not be sent if the centre has this of the people. `is_unclear`: somebody may have the account
    /// in another spelling whom a sweep has not come to.
    fn kept_back(&self, found: &BTreeMap<&str, &Document>, is_unclear: bool) -> Vec<RecordKey> {
        let there: Vec<_> = self
            .people
            .iter()
            .filter_map(|person| Some((person, *found.get(person.key.id.as_str())?)))
            .collect();
        let is_theirs = there.iter().any(|(person, found)| {
            !is_other_person(person.agreed.as_ref(), &person.local, found)
                && !is_not_meant(person.meant.as_ref(), &person.local, found)
        });
        match (is_theirs, there.is_empty()) {
            (true, _) => Vec::new(),
            (false, true) if is_unclear => [self.known.as_slice(), self.new.as_slice()].concat(),
            // As is known: new records wait anyway.
            (false, true) if self.people.iter().all(|person| person.is_gone) => Vec::new(),
            // The records that are there are nobody's now, and stay whose they were.
            (false, true) => self.new.clone(),
            (false, false) => [self.known.as_slice(), self.new.as_slice()].concat(),
        }
    }
}

/// What is known of the accounts of records that are about to be sent.
struct Accounts {
    /// Those that somebody has at the centre.
    accounts: BTreeMap<String, Account>,
    /// The records of which a damaged row, or a sweep that has not come to the people, does not let it be said.
    unclear: BTreeSet<RecordKey>,
    /// Those among them that wait for the sweep, each with its account.
    unseen: Vec<(RecordKey, String)>,
}

/// Looks who has the accounts of these records, as far as it is known here.
fn accounts_of(snapshot: &Snapshot, keys: &[RecordKey]) -> Result<Accounts, StoreError> {
    let mut accounts: BTreeMap<String, Account> = BTreeMap::new();
    let mut unclear = BTreeSet::new();
    for key in keys {
        match note_account(snapshot, key, &mut accounts) {
            // It delays no other. A damaged person who can be healed is read again in the next round, and their records go then.
            Err(StoreError::DamagedRow(_)) => drop(unclear.insert(key.clone())),
            noted => noted?,
        }
    }
    let mut unseen = Vec::new();
    if is_looking_at_people(snapshot)? {
        for (name, account) in accounts.iter().filter(|(_, account)| account.people.is_empty()) {
            let records = account.known.iter().chain(&account.new);
            unclear.extend(records.clone().cloned());
            unseen.extend(records.map(|key| (key.clone(), name.clone())));
        }
    }
    accounts.retain(|_, account| !account.people.is_empty());
    Ok(Accounts { accounts, unclear, unseen })
}

/// Adds a record that is about to be sent to its account.
fn note_account(
    snapshot: &Snapshot,
    key: &RecordKey,
    accounts: &mut BTreeMap<String, Account>,
) -> Result<(), StoreError> {
    let Owner::Field(_) = key.kind.schema().owner else {
        return Ok(());
    };
    // A delete puts nothing into anybody's book.
    let owner =
        snapshot.visit_record(key, |record| record.and_then(|record| key.kind.schema().owner_in(record)))?;
    let Some(account) = owner.map(|owner| fold_account(&owner)) else {
        return Ok(());
    };
    // None of these is sent.
    let is_idle = snapshot.is_dead(key)?
        || snapshot.has_intent(key)?
        || snapshot.undecided(key)?.is_some()
        || snapshot.held(key)?.is_some()
        || snapshot.hold(&account)?.is_some();
    if is_idle {
        return Ok(());
    }
    let is_new = snapshot.base(key)?.is_some_and(|base| !base.is_under(key, &account));
    let of_account = match accounts.entry(account) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(new) => {
            let people = believed(snapshot, new.key())?;
            new.insert(Account { people, ..Account::default() })
        }
    };
    if is_new {
        of_account.new.push(key.clone())
    } else {
        of_account.known.push(key.clone())
    }
    Ok(())
}

fn believed(snapshot: &Snapshot, account: &str) -> Result<Vec<Believed>, StoreError> {
    let mut people = Vec::new();
    for id in snapshot.spellings(account)? {
        let key = RecordKey::new(Kind::Person, id);
        let is_gone = snapshot.is_vanished(&key)? || snapshot.undecided(&key)?.is_some();
        let agreed = match snapshot.base(&key)? {
            None => None,
            Some(base) if base.is_at_centre() || snapshot.has_landed(&key)? => {
                // One of whom nobody knows whether they were there is empty.
                Some(base.document().filter(|base| !base.is_empty()).map(identity_row))
            }
            // Their records wait.
            Some(_) => continue,
        };
        let Some(local) = snapshot.visit_record(&key, |record| record.map(identity_in).transpose())?? else {
            continue;
        };
        let agreed = match agreed {
            None => Some(local.clone()),
            Some(agreed) => agreed,
        };
        let meant = snapshot.meant(account)?;
        people.push(Believed { key, agreed, local, meant, is_gone });
    }
    Ok(people)
}

/// Notes that a record waits, and why its person does not stand at the centre.
fn note_unseen(tx: &mut Tx<'_>, key: &RecordKey, account: &str) -> Result<(), StoreError> {
    // Where a damaged row does not let it be said, nobody is known to have the account.
    let why = unless_damaged(why_nobody_stands(tx, account))?.flatten().unwrap_or(WaitReason::Unknown);
    tx.put_waiting(&Waiting { key: key.clone(), account: account.to_owned(), why })
}

/// A record that the centre has never had under its account names its person there as that person is stored: Thalamus finds the
/// records of a book by exactly this spelling. It may have been written before the person was here, or before it was
/// decided that a person in another spelling is the same one.
pub(super) fn spell_owner_as_stored(tx: &mut Tx<'_>, key: &RecordKey) -> Result<(), StoreError> {
    let (Some(account), Some(written)) = (tx.owner(key)?, tx.document(key)?) else {
        return Ok(());
    };
    let base = tx.base(key)?;
    if base.is_under(key, &account) {
        return Ok(());
    }
    let people = tx.spellings(&account)?;
    let mut spelled = written.clone();
    spell_owner(key.kind.schema(), &mut spelled, None, |given| -> Result<_, StoreError> {
        // Where two records of one person are there, either spelling is right.
        let is_stored = people.iter().any(|id| id == given);
        Ok(people.first().filter(|_| !is_stored).cloned())
    })?;
    // Who wrote the record last stays who it was.
    if spelled == written { Ok(()) } else { tx.put(key, Some(&spelled), &base, &Actor::Centre) }
}

impl Round<'_> {
    /// Takes the records out of `keys` whose person the centre does not have as this node knows them. Returns what may
    /// be sent, and what may not yet.
    pub(super) async fn with_people_as_known(
        &mut self,
        central: &mut dyn Central,
        keys: Vec<RecordKey>,
    ) -> Result<(Vec<RecordKey>, Vec<RecordKey>), RoundError> {
        let snapshot = self.store.read()?;
        let Accounts { accounts, unclear, unseen } = accounts_of(&snapshot, &keys)?;
        let is_unclear = is_looking_at_people(&snapshot)?;
        drop(snapshot);
        if !unseen.is_empty() {
            // Staff see that they wait.
            self.store
                .transact(move |tx| {
                    unseen.iter().try_for_each(|(key, account)| note_unseen(tx, key, account))
                })
                .await?;
        }
        // They wait until the row is healed, or a sweep has come to the people; nothing that is done now helps.
        let keys: Vec<_> = keys.into_iter().filter(|key| !unclear.contains(key)).collect();
        if accounts.is_empty() {
            return Ok((keys, Vec::new()));
        }
        let ids: Vec<String> = accounts
            .values()
            .flat_map(|account| &account.people)
            .map(|person| person.key.id.clone())
            .collect();
        let found = match central.identities(&ids).await {
            Ok(found) => found,
            Err(error) if error.is_about_call() => {
                // Records of nobody need not wait for the answer.
                let asked = accounts.values().flat_map(|account| account.known.iter().chain(&account.new));
                let asked: BTreeSet<&RecordKey> = asked.collect();
                let (kept_back, sent) = keys.into_iter().partition(|key| asked.contains(key));
                self.note_unread(Err(error.into()))?;
                return Ok((sent, kept_back));
            }
            Err(error) => return Err(error.into()),
        };
        step("owners.read");
        let found: BTreeMap<&str, &Document> =
            found.iter().filter_map(|person| Some((person.get_str("_id").ok()?, person))).collect();
        let (mut doubted, mut kept_back) = (Vec::new(), BTreeSet::new());
        for account in accounts.into_values() {
            let records = account.kept_back(&found, is_unclear);
            if !records.is_empty() {
                doubted.extend(account.people.into_iter().map(|person| person.key));
                kept_back.extend(records);
            }
        }
        if doubted.is_empty() {
            return Ok((keys, Vec::new()));
        }
        self.store
            .transact(move |tx| -> Result<(), StoreError> {
                doubted.iter().try_for_each(|person| tx.ask_again(person, Reread::default()))
            })
            .await?;
        let (kept_back, sent) = keys.into_iter().partition(|key| kept_back.contains(key));
        Ok((sent, kept_back))
    }
}
