//! Floor 1. Openings of other people's records in an emergency: the open items that somebody has to review.
//!
//! A row stands from the opening until it is reviewed. Whether access is still open is known to
//! [`crate::accounts`], which forgets it in time; the row says only that it was ended early, in the transaction that
//! changes the account.

use std::collections::HashSet;

use bson::{Bson, Document, doc};
use redb::ReadableTable;

use crate::domain::access::Actor;
use crate::domain::audit::{Event, What};
use crate::domain::emergency::{Emergency, OPEN_S_MAX, Reason, UNREVIEWED_EACH_MAX, UNREVIEWED_MAX};
use crate::domain::record::{Kind, fold_account};
use crate::store::engine::{Opened, Snapshot, Tx};
use crate::store::error::StoreError;
use crate::store::holders::is_another_than;
use crate::store::rows::{Checked, Fields, encode};
use crate::store::schema::EMERGENCY;

const OPEN_MS_MAX: i64 = OPEN_S_MAX as i64 * 1000;

fn opened(row: Emergency) -> Opened {
    Opened { by: Actor::read(&row.who), row }
}

/// Why nothing was opened.
#[derive(Debug, thiserror::Error)]
pub enum EmergencyError {
    /// Somebody has to review some first: [`UNREVIEWED_EACH_MAX`], [`UNREVIEWED_MAX`].
    #[error("too many emergencies wait for their review")]
    Unreviewed,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Emergency {
    pub(in crate::store) fn decode(id: u64, bytes: &[u8]) -> Result<Emergency, StoreError> {
        #[cfg(test)]
        tests::DECODED.with(|count| count.set(count.get() + 1));
        let row = Fields::of(bytes, "an emergency")?;
        Ok(Emergency {
            id,
            who: row.text("who")?.to_owned(),
            person: row.text("person")?.to_owned(),
            // Rows of earlier versions do not say.
            identity: row.document_if_any("identity")?.unwrap_or_default(),
            reason: row.text("reason")?.to_owned(),
            peer: row.text("peer")?.to_owned(),
            at_ms: row.int64("at")?,
            is_ended: row.flag("ended")?,
        })
    }

    /// Whether this actor opened it.
    fn is_by(&self, who: &Actor) -> bool {
        Actor::read(&self.who).is_some_and(|by| by.is_same(who))
    }

    fn row(&self) -> Document {
        doc! {
            "who": &self.who, "person": &self.person, "identity": &self.identity, "reason": &self.reason, "peer": &self.peer,
            "at": self.at_ms, "ended": Bson::Boolean(self.is_ended),
        }
    }

    /// What the audit trail says about it, in the name of whoever does it.
    fn event(&self, event: Event) -> Event {
        event.about(Kind::Person.schema().collection, &self.person, Some(&self.person))
    }
}

impl Tx<'_> {
    /// Opens the records of `person`, folded, to whoever asked for this transaction: an entry in the audit trail and
    /// an open item. Returns its number.
    pub fn open_emergency(&mut self, person: &str, reason: &Reason) -> Result<u64, EmergencyError> {
        let who = self.asker.as_ref().map_or(Actor::Node, |asker| asker.who.clone());
        let known = self.emergencies()?;
        if is_full(&known, &who) {
            return Err(EmergencyError::Unreviewed);
        }
        let mut opened = Emergency {
            id: 0,
            who: who.to_string(),
            person: person.to_owned(),
            identity: self.known_under(person)?.unwrap_or_default(),
            reason: reason.as_str().to_owned(),
            peer: self.asked_from().map(|peer| peer.to_string()).unwrap_or_default(),
            at_ms: self.now_ms(),
            is_ended: false,
        };
        self.audit_asked(What::Emergency, |event| opened.event(event).saying(&opened.reason))?;
        opened.id = self.audit_head()?.seq;
        self.write_emergency(&opened)?;
        let id = opened.id;
        if let Some(not_ended) = &mut self.not_ended {
            not_ended.push(self::opened(opened));
        }
        Ok(id)
    }

    /// Whoever asked for this transaction answers for having looked at it. `None` if there is no such open item.
    pub fn review_emergency(&mut self, id: u64) -> Result<Option<()>, StoreError> {
        let Some(row) = self.emergency.take(id)? else {
            return Ok(None);
        };
        let reviewed = Emergency::decode(id, &row)?;
        if let Some(not_ended) = &mut self.not_ended {
            not_ended.retain(|open| open.row.id != id);
        }
        self.audit_asked(What::Review, |event| reviewed.event(event).saying(&under(id)))?;
        Ok(Some(()))
    }

    /// Ends what others have opened of this person.
    pub(in crate::store) fn end_emergencies_at(&mut self, person: &str) -> Result<(), StoreError> {
        let account = fold_account(person);
        self.end_emergencies(|open| open.row.person == account)
    }

    /// Ends what others have opened of this account for another human being than `now`. It is compared with the person of
    /// the time of the opening, so a person who is changed field by field counts too.
    pub(in crate::store) fn end_emergencies_of_another(
        &mut self,
        person: &str,
        now: &Document,
    ) -> Result<(), StoreError> {
        let account = fold_account(person);
        self.end_emergencies(|open| open.row.person == account && is_another_than(&open.row.identity, now))
    }

    /// Ends all that is open.
    pub(crate) fn end_all_emergencies(&mut self) -> Result<(), StoreError> {
        self.end_emergencies(|_| true)
    }

    /// Ends all that is open, but for these numbers.
    pub(crate) fn end_emergencies_but(&mut self, open: &HashSet<u64>) -> Result<(), StoreError> {
        self.end_emergencies(|emergency| !open.contains(&emergency.row.id))
    }

    /// Ends what this account has opened.
    pub(crate) fn end_emergencies_of(&mut self, who: &Actor) -> Result<(), StoreError> {
        self.end_emergencies(|open| open.by.as_ref().is_some_and(|by| by.is_same(who)))
    }

    /// Ends those of which `is_over` says so. What time has ended before is no news for the audit trail.
    pub(in crate::store) fn end_emergencies(
        &mut self,
        is_over: impl Fn(&Opened) -> bool,
    ) -> Result<(), StoreError> {
        let not_ended = match self.not_ended.take() {
            Some(known) => known,
            None => self.emergencies()?.into_iter().filter(|row| !row.is_ended).map(opened).collect(),
        };
        let (over, not_ended) = match not_ended.iter().any(&is_over) {
            true => not_ended.into_iter().partition(is_over),
            false => (Vec::new(), not_ended),
        };
        self.not_ended = Some(not_ended);
        for Opened { row: open, .. } in over {
            let since_ms = self.now_ms().saturating_sub(open.at_ms);
            if since_ms < OPEN_MS_MAX {
                self.audit_asked(What::EmergencyEnd, |event| open.event(event).saying(&under(open.id)))?;
            }
            self.write_emergency(&Emergency { is_ended: true, ..open })?;
        }
        Ok(())
    }

    fn emergencies(&self) -> Result<Vec<Emergency>, StoreError> {
        read_all(&self.emergency)
    }

    fn write_emergency(&mut self, emergency: &Emergency) -> Result<(), StoreError> {
        self.emergency.insert(emergency.id, encode(&emergency.row())?.as_slice())?;
        self.wrote();
        Ok(())
    }
}

impl Snapshot {
    /// What waits for a review, oldest first.
    pub fn emergencies(&self) -> Result<Vec<Emergency>, StoreError> {
        read_all(&self.transaction.open_table(EMERGENCY)?)
    }

    /// Whether this account may open another before somebody has reviewed some.
    pub fn may_open_emergency(&self, who: &Actor) -> Result<bool, StoreError> {
        Ok(!is_full(&self.emergencies()?, who))
    }

    pub fn emergencies_count(&self) -> Result<u64, StoreError> {
        self.transaction.open_table(EMERGENCY)?.len()
    }

    /// `None` if there never was one, or it was reviewed.
    pub fn emergency(&self, id: u64) -> Result<Option<Emergency>, StoreError> {
        let emergencies = self.transaction.open_table(EMERGENCY)?;
        let row = emergencies.get(id)?;
        row.map(|row| Emergency::decode(id, row.value())).transpose()
    }
}

fn is_full(known: &[Emergency], who: &Actor) -> bool {
    let own = known.iter().filter(|known| known.is_by(who)).count();
    own >= UNREVIEWED_EACH_MAX || known.len() >= UNREVIEWED_MAX
}

/// How the audit trail marks what is done under an opening.
pub fn under(id: u64) -> String {
    format!("emergency {id}")
}

fn read_all(
    table: &Checked<impl ReadableTable<u64, &'static [u8]>, u64>,
) -> Result<Vec<Emergency>, StoreError> {
    let mut rows = Vec::new();
    for entry in table.iter()?.sound() {
        let (id, row) = entry?;
        rows.push(Emergency::decode(id.value(), row.value())?);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests;
