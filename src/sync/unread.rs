//! Floor 3. What waits to be sent until something at the centre has been read.
//!
//! | what is sent | what it waits for |
//! |---|---|
//! | a person who was made here, and with them their records | everything: the centre may have records of somebody else under the account, and the person would get them |
//! | while another task reads: any record | the record itself and its person, if they are to be read again: the write would miss, or go to somebody else |
//!
//! Everything is read once no sweep has a part to come ([`Round::is_swept`]) and no record is to be read again. That is the same
//! in every round and in continuous work. Nobody waits for what cannot be read: a record that is unreadable at the centre, or one
//! that cannot be taken because a row of this node is damaged. Nor for a record whose own write is on the way: the next round
//! finds out what became of that.
//!
//! [`Round::is_swept`]: super::round::Round::is_swept

use super::undecided;
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::flaw::{Flaw, planted};
use crate::store::{Base, StoreError, Tx, WaitReason, Waiting};

/// Why a record is not sent yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// A sweep has a part to come, or the reading has failed.
    Sweep,
    /// Records are to be read again.
    Records,
}

/// What has to be read before a person who is new is sent; it is noted then that they wait. `is_swept` as in the round.
pub(super) fn unread_for(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    is_swept: bool,
) -> Result<Option<Unread>, StoreError> {
    // One who waits for a decision says so.
    if !is_new_person(tx, key)? || undecided::waits(tx, key)?.is_some() {
        return Ok(None);
    }
    let unread = match is_swept {
        false => Unread::Sweep,
        true if tx.has_unread()? => Unread::Records,
        true => return Ok(None),
    };
    let account = fold_account(&key.id);
    tx.put_waiting(&Waiting { key: key.clone(), account, why: WaitReason::Unread })?;
    Ok(Some(unread))
}

/// Whether a person was made here whom the centre does not have, and to whom no write is on its way.
fn is_new_person(tx: &Tx<'_>, key: &RecordKey) -> Result<bool, StoreError> {
    let is_new = key.kind == Kind::Person
        && tx.base_if_dirty(key)? == Some(Base::Absent)
        && !tx.is_stored(key, None)?
        && !tx.has_intent(key)?
        && !tx.is_dead(key)?;
    Ok(is_new && !planted(Flaw::PersonNotAwaited))
}

/// Whether the record or its person is to be read again: until then the centre is known to hold something else than is known
/// here, so that a write would miss, or go to somebody else.
pub(super) fn is_read_first(tx: &Tx<'_>, key: &RecordKey) -> Result<bool, StoreError> {
    if tx.reread_due(key)?.is_some() {
        return Ok(true);
    }
    let Some(owner) = tx.owner(key)? else {
        return Ok(false);
    };
    for id in tx.spellings(&owner)? {
        if tx.reread_due(&RecordKey::new(Kind::Person, id))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;
    use crate::domain::access::Actor;
    use crate::store::{Intent, IntentWrite, Reread, Store, StoreOptions};

    const OPTIONS: StoreOptions =
        StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 100, audit_keep_rows: 100, clock: || 0 };

    /// Whether Anna, who is new, waits, after `prepared`, and that a note says so if she does.
    async fn waits(
        is_swept: bool,
        prepared: impl Fn(&mut Tx<'_>, &RecordKey) -> Result<(), StoreError> + Send + 'static,
    ) -> Option<Unread> {
        let store = Store::in_memory(OPTIONS).unwrap();
        let anna = RecordKey::new(Kind::Person, "ANA001");
        let key = anna.clone();
        let job = move |tx: &mut Tx<'_>| -> Result<Option<Unread>, StoreError> {
            tx.edit(&key, Some(&doc! {"_id": "ANA001", "name": "Anna"}), &Actor::Operator(0))?;
            prepared(tx, &RecordKey::new(Kind::Page, "p1"))?;
            unread_for(tx, &key, is_swept)
        };
        let found = store.transact(job).await.unwrap();
        let noted = store.read().unwrap().waiting_of(&anna).unwrap().map(|waiting| waiting.why);
        assert_eq!(noted, found.map(|_| WaitReason::Unread));
        found
    }

    #[tokio::test]
    async fn a_new_person_waits_for_what_can_be_read_and_for_nothing_else() {
        assert_eq!(waits(true, |_, _| Ok(())).await, None);
        assert_eq!(waits(false, |_, _| Ok(())).await, Some(Unread::Sweep));
        assert_eq!(
            waits(true, |tx, page| tx.ask_again(page, Reread::default())).await,
            Some(Unread::Records)
        );
        let unreadable = |tx: &mut Tx<'_>, page: &RecordKey| {
            tx.ask_again(page, Reread::of_deleted())?;
            tx.read_unreadable(page)
        };
        assert_eq!(waits(true, unreadable).await, None);
        let stopped = |tx: &mut Tx<'_>, page: &RecordKey| {
            tx.ask_again(page, Reread::default())?;
            tx.note_stopped(page);
            Ok(())
        };
        assert_eq!(waits(true, stopped).await, None);
        let on_the_way = |tx: &mut Tx<'_>, page: &RecordKey| {
            let write = IntentWrite::Insert(doc! {"_id": "p1"});
            tx.open_intent(page, &Intent { number: 1, after: None, author: String::new(), write })?;
            tx.ask_again(page, Reread::default())
        };
        assert_eq!(waits(true, on_the_way).await, None);
    }
}
