//! Floor 3. What is left over, in words: said by every round, however it ended, by `sync status` and by the pages that show
//! it. Counts of refused, held and damaged records are left out by none of them.

use super::other_ids::OtherIds;
use super::round::Outcome;
use super::{damaged, naming_nobody, time_text};
use crate::store::{Snapshot, Store, StoreError, off_workers};

/// What a complete round says first while accounts wait for a decision.
const SENT_BUT: &str = "Everything that can be sent and taken has been.";
/// What a complete round says first.
const UP_TO_DATE: &str = "Everything is up to date with the centre.";
/// When a person who is new is sent, and why not before.
const WHEN_READ: &str = "sent once everything at the centre has been read, because records of somebody else may be there \
                         under the account";
/// Said where it cannot be read what is left over.
const UNREADABLE: &str = "What is left over could not be read: see `thalamus-edge doctor`.";

/// What is left over at this moment.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// What the centre does not take, or does not know yet.
    at_centre: Option<String>,
    /// Accounts that two people have, and rows that rotted.
    waiting: Option<String>,
    /// What is as it is at the centre, and is to be put right there, or is otherwise here.
    noticed: Option<String>,
}

impl Left {
    pub(super) fn now(store: &Store, snapshot: &Snapshot) -> Result<Left, StoreError> {
        let waiting = [
            held_words(snapshot)?,
            duplicates_words(snapshot.duplicates_count()?),
            naming_nobody::left_behind_words(&snapshot.left_behind_count()?),
            nobodys_words(snapshot.nobodys_count()?),
            damaged::counted(&store.damaged_rows()),
        ];
        let waiting: Vec<String> = waiting.into_iter().flatten().collect();
        Ok(Left {
            at_centre: left_words(snapshot)?,
            waiting: (!waiting.is_empty()).then(|| waiting.join(" ")),
            noticed: noticed_words(snapshot)?,
        })
    }

    /// [`Left::now`] for a round that has to say something. Where that cannot be read, nothing is as it should be.
    pub(super) fn of_round(store: &Store) -> Left {
        let left = off_workers(|| store.read().and_then(|snapshot| Left::now(store, &snapshot)));
        left.unwrap_or_else(|error| {
            tracing::error!(%error, "what is left over could not be read");
            let damaged = damaged::counted(&store.damaged_rows());
            Left { waiting: damaged.or_else(|| Some(UNREADABLE.to_owned())), ..Left::default() }
        })
    }

    /// The sentences; nothing if nothing is left over.
    fn words(&self) -> Vec<&str> {
        [&self.at_centre, &self.waiting, &self.noticed].into_iter().flatten().map(String::as_str).collect()
    }

    /// `said`, and all of it.
    pub(super) fn after(&self, said: &str) -> String {
        let mut words = vec![said];
        words.extend(self.words());
        words.retain(|words| !words.is_empty());
        words.join(" ")
    }

    /// What is said while all that can be sent and taken has been, but for `unsent`.
    pub(super) fn when_complete(&self, unsent: Option<&str>) -> String {
        self.after(match (unsent, &self.at_centre, &self.waiting) {
            (Some(unsent), ..) => unsent,
            (None, Some(_), _) => "",
            (None, None, Some(_)) => SENT_BUT,
            (None, None, None) => UP_TO_DATE,
        })
    }
}

/// What the report of a round says, in the order in which it is read: how it ended, what is left over, and the rest.
/// [`Left`] is as old as the round, so the other two are kept apart.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Said {
    pub(super) ended: String,
    pub(super) rest: String,
}

impl Said {
    /// For `outcome`, with what is left over at this moment.
    pub(super) fn with(&self, outcome: Outcome, left: &Left) -> String {
        let message = match outcome {
            Outcome::Complete => left.when_complete(None),
            _ => left.after(&self.ended),
        };
        format!("{message}{}", self.rest)
    }

    /// From the report of a version that did not keep it apart.
    pub(super) fn of_message(message: &str) -> Said {
        Said {
            ended: message.to_owned(),
            rest: message.strip_prefix(UP_TO_DATE).unwrap_or_default().to_owned(),
        }
    }
}

/// What the centre does not take, or does not know yet; `None` if nothing is left over.
fn left_words(snapshot: &Snapshot) -> Result<Option<String>, StoreError> {
    let mut words = Vec::new();
    let list = "see `thalamus-edge dead list`.";
    match snapshot.dead_count()? {
        0 => {}
        1 => words.push(format!("One record is refused by the centre or cannot be read from it: {list}")),
        dead => {
            words.push(format!("{dead} records are refused by the centre or cannot be read from it: {list}"))
        }
    }
    let unread = snapshot.unread_people_count()?;
    match unread {
        0 => {}
        1 => words.push(format!("One person who was made here is {WHEN_READ}.")),
        unread => words.push(format!("{unread} people who were made here are {WHEN_READ}.")),
    }
    match snapshot.held_back_count()?.saturating_sub(unread) {
        0 => {}
        1 => words.push(
            "One record waits for its person or for a decision: see `thalamus-edge sync waiting`.".to_owned(),
        ),
        held => words.push(format!(
            "{held} records wait for their person or for a decision: see `thalamus-edge sync waiting`."
        )),
    }
    if snapshot.has_open_conflicts()? {
        words.push("Some records differ and wait for a decision: see the conflicts.".to_owned());
    }
    words.extend(OtherIds::known(snapshot)?.words());
    match snapshot.unpublished_conflicts_count()? {
        0 => {}
        1 => words.push("One conflict, as it is now, is not written at the centre yet.".to_owned()),
        count => {
            words.push(format!("{count} conflicts, as they are now, are not written at the centre yet."))
        }
    }
    Ok((!words.is_empty()).then(|| words.join(" ")))
}

fn noticed_words(snapshot: &Snapshot) -> Result<Option<String>, StoreError> {
    let closed = match snapshot.opened_elsewhere_count()? {
        0 => None,
        1 => Some("One account that was closed on this node was opened elsewhere".to_owned()),
        count => Some(format!("{count} accounts that were closed on this node were opened elsewhere")),
    };
    let closed = closed.map(|said| format!("{said}, and stays closed here: see `thalamus-edge user list`."));
    let nobodys = naming_nobody::words(&snapshot.ownerless_counts()?);
    let words: Vec<String> = [nobodys, closed].into_iter().flatten().collect();
    Ok((!words.is_empty()).then(|| words.join(" ")))
}

/// Accounts that two people have; `None` if there are none.
fn held_words(snapshot: &Snapshot) -> Result<Option<String>, StoreError> {
    let held = snapshot.holds_count()?;
    Ok((held > 0).then(|| {
        format!(
            "Accounts that two people have, one here and one at the centre: {held}. They and their records wait for \
             a decision: see the conflicts."
        )
    }))
}

/// Accounts that stand at the centre in two spellings; `None` if there are none.
fn duplicates_words(count: u64) -> Option<String> {
    (count > 0).then(|| {
        format!(
            "Accounts that the centre has in more than one spelling, as two records: {count}. One of the two needs another \
             account there: see the conflicts."
        )
    })
}

/// Records of the centre whose account nobody has; `None` if none wait for that.
fn nobodys_words(count: u64) -> Option<String> {
    let what = match count {
        0 => return None,
        1 => "One record of the centre waits apart and is".to_owned(),
        count => format!("{count} records of the centre wait apart and are"),
    };
    Some(format!("{what} shown to nobody, because no person has the account there."))
}

/// What was edited here and has not reached the centre; nothing if nothing was.
pub(super) fn waiting_words(snapshot: &Snapshot) -> Result<Option<String>, StoreError> {
    // Refused ones, and those that wait for something else, are counted and shown apart.
    let waiting = snapshot.waiting_count()?.saturating_sub(snapshot.held_back_count()?);
    let since = snapshot.oldest_pending_ms()?.map(time_text).unwrap_or_default();
    Ok(match waiting {
        0 => None,
        1 => Some(format!("One record that was changed here at {since} waits to be sent.")),
        _ => Some(format!(
            "{waiting} records that were changed here wait to be sent, the oldest since {since}."
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_over_is_said_however_a_round_ended() {
        let nothing = Left::default();
        let refused = Left { at_centre: Some("Two are refused.".to_owned()), waiting: None, noticed: None };
        let held = Left { at_centre: None, waiting: Some("One is held.".to_owned()), noticed: None };
        let both = Left {
            at_centre: Some("Two are refused.".to_owned()),
            waiting: Some("One is held.".to_owned()),
            noticed: None,
        };
        let said = Said { ended: "It ended.".to_owned(), rest: " And more.".to_owned() };
        for outcome in [Outcome::Partial, Outcome::Offline, Outcome::Halted, Outcome::Failed] {
            assert_eq!(said.with(outcome, &nothing), "It ended. And more.");
            assert_eq!(said.with(outcome, &both), "It ended. Two are refused. One is held. And more.");
        }
        let complete = |left| said.with(Outcome::Complete, left);
        assert_eq!(complete(&nothing), format!("{UP_TO_DATE} And more."));
        assert_eq!(complete(&refused), "Two are refused. And more.");
        assert_eq!(complete(&held), format!("{SENT_BUT} One is held. And more."));
        assert_eq!(complete(&both), "Two are refused. One is held. And more.");
        assert_eq!(both.when_complete(Some("One waits.")), "One waits. Two are refused. One is held.");
    }
}
