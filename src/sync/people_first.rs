//! Floor 3. A record is taken only together with what the centre says at that moment about its person.
//!
//! An account, and the id of a record, may go to another human being at any time. That shows in the person, and the two
//! are held then ([`super::hold`]). But the feed tells of the person later than of a record that was touched before, and
//! records are read as they are now. A record of the other one looks like a newer version of the one here, and the two
//! would become one. So whoever reads records reads the people whom they name after them, nothing but the fields by which
//! people are told apart. Where these are not the people here, the record waits: the people are read again, and the
//! record behind them. Whatever happens between the two reads is seen that way: a person who is still the same after the
//! record was read was the same when it was read.
//!
//! Not asked is about records that are here as they are there, and that belong to nobody or to a person who is held. A node
//! that is new asks like any other: what it takes into the wrong book is edited there hours later.
//!
//! Nobody tells of somebody who follows on the person of a record in another spelling of the account. So where a sweep has
//! to find out what the history of changes does not tell, records whose people are not at the centre wait until it has
//! passed all people. One sweep that only verifies is no such case: what happened is told by the history.

use std::collections::{BTreeMap, BTreeSet};

use bson::{Document, RawDocument, RawDocumentBuf};

use super::doubt::is_not_meant;
use super::round::{Round, RoundError};
use super::scan::{META_SCAN, Position, Reason, is_under_way};
use super::step;
use super::undecided::absence;
use crate::central::Central;
use crate::domain::merge::is_other_person;
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::domain::schema::Owner;
use crate::store::{Base, Reread, Snapshot, StoreError, Tx, unless_damaged};

/// Who is at the centre, by id, of all who were asked for after records of theirs were read.
#[derive(Debug, Clone, Default)]
pub(super) struct PeopleThere {
    asked: BTreeMap<String, Option<Document>>,
}

/// A record that was read at the centre, or found to be gone there.
pub(super) type Read<'a> = (&'a RecordKey, Option<&'a RawDocument>);

/// Where a sweep under way stands, if it has not passed the people yet.
fn among_people(row: Option<Vec<u8>>) -> Option<Position> {
    let position = Position::saved(row)?;
    (position.reason != Reason::Verify && position.is_before_records()).then_some(position)
}

/// Whether people may have changed at the centre of whom this node does not know it yet.
pub(super) fn is_looking_at_people(snapshot: &Snapshot) -> Result<bool, StoreError> {
    Ok(among_people(snapshot.meta_row(META_SCAN)?).is_some())
}

/// Whether nothing but the sweep can tell whose the record is.
fn waits_for_sweep(tx: &Tx<'_>, key: &RecordKey) -> Result<bool, StoreError> {
    let Owner::Field(_) = key.kind.schema().owner else {
        return Ok(false);
    };
    if among_people(tx.meta_row(META_SCAN)?).is_none() {
        return Ok(false);
    }
    let Some(account) = tx.owner(key)? else {
        return Ok(false);
    };
    let people = tx.spellings(&account)?;
    // Somebody may follow on a person who is gone.
    if people.is_empty() {
        return Ok(true);
    }
    let mut is_anybody = false;
    for id in people {
        let person = RecordKey::new(Kind::Person, id);
        // Of a restored centre each person is marked who has not been looked at.
        if tx.is_resyncing_all()? && tx.reread_of(&person)?.is_some() {
            return Ok(true);
        }
        is_anybody |= absence(tx, &person)?.is_none();
    }
    Ok(!is_anybody)
}

/// The ids of the people who may have the accounts of a record, unless it needs no asking.
fn to_ask_for(snapshot: &Snapshot, (key, remote): Read<'_>) -> Result<Vec<String>, StoreError> {
    let schema = key.kind.schema();
    let Owner::Field(field) = schema.owner else {
        return Ok(Vec::new());
    };
    let (here, is_same) = snapshot.visit_record(key, |record| {
        let is_same = record.map(RawDocument::as_bytes) == remote.map(RawDocument::as_bytes);
        (record.and_then(|record| schema.owner_in(record)), is_same)
    })?;
    let base = snapshot.base(key)?;
    let is_no_news = match &base {
        _ if remote.is_none() => true,
        None => is_same,
        Some(base) => is_agreed(base, remote),
    };
    if is_no_news && !is_looking_at_people(snapshot)? {
        return Ok(Vec::new());
    }
    let here = here.or_else(|| base.as_ref()?.document().and_then(|base| schema.owner_of(base)));
    let there = remote.and_then(|remote| schema.owner_in(remote));
    let accounts: BTreeSet<String> =
        [here, there].into_iter().flatten().map(|account| fold_account(&account)).collect();
    let mut ids = Vec::new();
    for account in accounts {
        if snapshot.hold(&account)?.is_none() {
            ids.extend(snapshot.spellings(&account)?);
            ids.push(account);
        }
    }
    let named = remote.and_then(|remote| remote.get_str(field).ok());
    // As the record spells it.
    ids.extend(named.filter(|_| !ids.is_empty()).map(str::to_owned));
    Ok(ids)
}

/// Whether the centre holds what was agreed on.
fn is_agreed(base: &Base, remote: Option<&RawDocument>) -> bool {
    let base = base.document().and_then(|base| RawDocumentBuf::try_from(base).ok());
    base.as_ref().map(|base| base.as_bytes()) == remote.map(RawDocument::as_bytes)
}

/// What is known of a person after records of theirs were read.
enum Told {
    /// They are there as they are known here, or are known not to be there.
    AsKnown,
    /// They have to be read again first.
    Otherwise,
    /// They are not there, as is known. Somebody may follow.
    Gone,
    /// They were not asked for.
    Unasked,
}

/// Compares a person with what the centre said of them.
fn told(tx: &Tx<'_>, person: &RecordKey, people: &PeopleThere) -> Result<Told, StoreError> {
    let Some(there) = people.asked.get(&person.id) else {
        return Ok(Told::Unasked);
    };
    let is_gone =
        tx.is_vanished(person)? || tx.undecided(person)?.is_some_and(|known| known.central.is_none());
    let base = tx.base_if_dirty(person)?;
    let has_come = match &base {
        None => true,
        Some(base) => base.is_at_centre() || tx.has_landed(person)?,
    };
    let Some(there) = there else {
        return Ok(if has_come && !is_gone { Told::Otherwise } else { Told::Gone });
    };
    let Some(local) = tx.document(person)? else {
        return Ok(Told::Otherwise);
    };
    let agreed = match &base {
        // One of whom nobody knows whether they were there is empty.
        Some(base) => base.document().filter(|base| !base.is_empty()),
        None => Some(&local),
    };
    let agreed = agreed.or(if has_come { Some(&local) } else { None });
    let is_other = is_gone
        || is_other_person(agreed, &local, there)
        || is_not_meant(tx.meant(&person.id)?.as_ref(), &local, there);
    Ok(if is_other { Told::Otherwise } else { Told::AsKnown })
}

/// Whether a record that was read has to wait because its people at the centre are not known to be the ones here. It and
/// these people are to be read again then.
pub(super) fn waits_for_people(
    tx: &mut Tx<'_>,
    (key, remote): Read<'_>,
    people: &PeopleThere,
) -> Result<bool, StoreError> {
    // Of whom nobody knows who they are, nobody knows whose the record is.
    let again = match unless_damaged(people_in_doubt(tx, (key, remote), people))? {
        Some(None) => return Ok(false),
        Some(Some(again)) => again,
        None => Vec::new(),
    };
    for person in &again {
        tx.ask_again(person, Reread::default())?;
    }
    tx.ask_again(key, Reread::default())?;
    Ok(true)
}

/// The people who have to be read before the record is taken; `None` if it can be taken.
fn people_in_doubt(
    tx: &Tx<'_>,
    (key, remote): Read<'_>,
    people: &PeopleThere,
) -> Result<Option<Vec<RecordKey>>, StoreError> {
    let schema = key.kind.schema();
    let Owner::Field(field) = schema.owner else {
        return Ok(None);
    };
    let is_among_people = among_people(tx.meta_row(META_SCAN)?).is_some();
    if is_among_people && tx.is_resyncing_all()? && waits_for_sweep(tx, key)? {
        return Ok(Some(Vec::new()));
    }
    let is_no_news = match remote {
        None => true,
        Some(there) => match tx.base_if_dirty(key)? {
            None => tx.is_stored(key, Some(there.as_bytes()))?,
            Some(base) => is_agreed(&base, remote),
        },
    };
    if is_no_news && !is_among_people {
        return Ok(None);
    }
    let here = tx.owner(key)?.map(|account| fold_account(&account));
    let there = remote.and_then(|remote| schema.owner_in(remote)).map(|account| fold_account(&account));
    let named = remote.and_then(|remote| remote.get_str(field).ok());
    let (is_known_here, mut again, mut is_in_doubt) = (here.is_some(), Vec::new(), false);
    for account in BTreeSet::from_iter([here, there].into_iter().flatten()) {
        if tx.hold(&account)?.is_some() {
            continue;
        }
        let ids = tx.spellings(&account)?;
        let mut is_anybody = false;
        for id in &ids {
            let person = RecordKey::new(Kind::Person, id.as_str());
            match told(tx, &person, people)? {
                Told::AsKnown => is_anybody = true,
                Told::Otherwise => again.push(person),
                Told::Gone => {}
                Told::Unasked => is_in_doubt = true,
            }
        }
        // Whom the centre has, and this node has not.
        let spelled = named.filter(|named| fold_account(named) == account);
        for id in [Some(account.as_str()), spelled].into_iter().flatten() {
            if ids.iter().any(|known| known == id) {
                continue;
            }
            let person = RecordKey::new(Kind::Person, id);
            match people.asked.get(id) {
                None => is_in_doubt = true,
                Some(Some(there)) if !is_known_to_be_there(tx, &person, there)? => again.push(person),
                Some(Some(_)) => is_anybody = true,
                Some(None) => {}
            }
        }
        is_in_doubt |= is_among_people && !is_anybody && (is_known_here || !ids.is_empty());
    }
    Ok((is_in_doubt || !again.is_empty()).then_some(again))
}

/// Whether somebody who is not here is known to be at the centre: deleted here and not yet there, or not to be read.
fn is_known_to_be_there(tx: &Tx<'_>, person: &RecordKey, there: &Document) -> Result<bool, StoreError> {
    if tx.is_dead(person)? {
        return Ok(true);
    }
    Ok(match tx.base_if_dirty(person)? {
        Some(base) if base.is_at_centre() => {
            base.document().is_some_and(|base| !is_other_person(Some(base), base, there))
        }
        _ => false,
    })
}

/// The people of a record who have to be brought together with a restored centre before it.
pub(super) fn ask_for_people(tx: &mut Tx<'_>, key: &RecordKey) -> Result<(), StoreError> {
    let (Owner::Field(_), Some(account)) = (key.kind.schema().owner, tx.owner(key)?) else {
        return Ok(());
    };
    for id in tx.spellings(&account)? {
        let person = RecordKey::new(Kind::Person, id);
        if tx.to_bring_together(&person)?.is_some() {
            tx.ask_again(&person, Reread::default())?;
        }
    }
    Ok(())
}

impl Round<'_> {
    /// Reads who has the accounts of records that have just been read.
    pub(super) async fn people_there(
        &self,
        central: &mut dyn Central,
        records: Vec<Read<'_>>,
    ) -> Result<PeopleThere, RoundError> {
        let mut ids = BTreeSet::new();
        let snapshot = self.store.read()?;
        for record in records {
            // A damaged row: the record waits.
            ids.extend(unless_damaged(to_ask_for(&snapshot, record))?.into_iter().flatten());
        }
        drop(snapshot);
        if ids.is_empty() {
            return Ok(PeopleThere::default());
        }
        let ids: Vec<String> = ids.into_iter().collect();
        let found = central.identities(&ids).await?;
        step("people.read");
        let mut asked: BTreeMap<String, Option<Document>> = ids.into_iter().map(|id| (id, None)).collect();
        for person in found {
            if let Ok(id) = person.get_str("_id").map(str::to_owned) {
                asked.insert(id, Some(person));
            }
        }
        Ok(PeopleThere { asked })
    }

    /// The records among these that need not wait for a sweep to pass the people.
    pub(super) async fn not_too_early(&self, keys: Vec<RecordKey>) -> Result<Vec<RecordKey>, StoreError> {
        if !is_looking_at_people(&*self.store.read()?)? {
            return Ok(keys);
        }
        self.store
            .transact(move |tx| -> Result<Vec<RecordKey>, StoreError> {
                let mut left = Vec::new();
                for key in &keys {
                    // Of a damaged one the merge says what becomes of it.
                    if !unless_damaged(waits_for_sweep(tx, key))?.unwrap_or(false) {
                        left.push(key.clone());
                    }
                }
                Ok(left)
            })
            .await
    }

    /// The sweep has passed the people: what waited for that is settled and read now.
    pub(super) async fn records_follow(
        &mut self,
        central: &mut dyn Central,
        at: &Position,
    ) -> Result<(), RoundError> {
        if is_under_way(&*self.store.read()?)? {
            let at = at.encode();
            self.store.transact(move |tx| tx.set_meta(META_SCAN, Some(&at))).await?;
        }
        self.settle(central).await?;
        self.reread(central).await
    }
}
