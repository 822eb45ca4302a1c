//! Floor 3. People before their records, where a sweep has to find out what the history of changes does not tell.
//!
//! An account, and the id of a record, may have gone to another human being meanwhile. That shows in the person, and the
//! two are held then ([`super::hold`]). A record that is read before its person looks like a newer version of the one
//! here, and the two would become one. So until a sweep has passed the people, a record is taken only if it is known who
//! has the account, here and there; others wait to be read again. One sweep that only verifies is no such case: what
//! happened is told by the history.

use bson::RawDocument;

use super::round::{Round, RoundError};
use super::scan::{META_SCAN, Position, Reason};
use super::undecided::absence;
use crate::central::Central;
use crate::domain::record::{Kind, RecordKey};
use crate::domain::schema::Owner;
use crate::store::{Reread, Snapshot, StoreError, Tx};

/// Where a sweep under way stands, if it has not passed the people yet.
fn among_people(row: Option<&bson::Document>) -> Option<Position> {
    let position = row.and_then(Position::decode)?;
    (position.reason != Reason::Verify && position.is_before_records()).then_some(position)
}

/// Whether people may have changed at the centre of whom this node does not know it yet.
pub(super) fn is_looking_at_people(snapshot: &Snapshot) -> Result<bool, StoreError> {
    Ok(among_people(snapshot.meta(META_SCAN)?.as_ref()).is_some())
}

/// Whether it is not known yet whose the record is, that the centre holds as `remote`.
pub(super) fn comes_too_early(
    tx: &Tx<'_>,
    key: &RecordKey,
    remote: Option<&RawDocument>,
) -> Result<bool, StoreError> {
    let Owner::Field(_) = key.kind.schema().owner else {
        return Ok(false);
    };
    let Some(position) = among_people(tx.meta(META_SCAN)?.as_ref()) else {
        return Ok(false);
    };
    match is_of_unseen(tx, key, remote, &position) {
        // The merge says what becomes of that.
        Err(StoreError::DamagedRow(_)) => Ok(false),
        unseen => unseen,
    }
}

fn is_of_unseen(
    tx: &Tx<'_>,
    key: &RecordKey,
    remote: Option<&RawDocument>,
    position: &Position,
) -> Result<bool, StoreError> {
    let here = tx.owner(key)?;
    let there = remote.and_then(|remote| key.kind.schema().owner_in(remote));
    let is_known_here = here.is_some();
    for account in [here, there].into_iter().flatten() {
        let people = tx.spellings(&account)?;
        // Somebody may follow on a person who is gone, also where the record is new here.
        if people.is_empty() && (is_known_here || tx.departed(&account)?.is_some()) {
            return Ok(true);
        }
        for id in people {
            let person = RecordKey::new(Kind::Person, id);
            // Of a restored centre each person is marked who has not been looked at.
            let is_seen = position.has_passed(&person) || tx.is_resyncing_all()?;
            if !is_seen || tx.reread_of(&person)?.is_some() || absence(tx, &person)?.is_some() {
                return Ok(true);
            }
        }
    }
    Ok(false)
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
    /// The records among these that need not wait for their people.
    pub(super) async fn not_too_early(&self, keys: Vec<RecordKey>) -> Result<Vec<RecordKey>, StoreError> {
        if !is_looking_at_people(&*self.store.read()?)? {
            return Ok(keys);
        }
        self.store
            .transact(move |tx| -> Result<Vec<RecordKey>, StoreError> {
                let mut left = Vec::new();
                for key in &keys {
                    if !comes_too_early(tx, key, None)? {
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
        if self.store.read()?.meta(META_SCAN)?.is_some() {
            let at = at.encode();
            self.store.transact(move |tx| tx.set_meta(META_SCAN, Some(&at))).await?;
        }
        self.settle(central).await?;
        self.reread(central).await
    }
}
