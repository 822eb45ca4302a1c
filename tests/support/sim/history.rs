//! What has happened at the simulated centre, in order, and how much of it the centre still knows.

use std::collections::VecDeque;

use bson::{Document, doc};
use thalamus_edge::central::{Effect, Event, Lease, Moment, Token};
use thalamus_edge::domain::record::RecordKey;

/// One thing that happened.
#[derive(Debug, Clone)]
pub(super) enum Happening {
    /// With the document where one was inserted or replaced.
    Record { key: RecordKey, effect: Effect },
    /// A node's row has changed, perhaps to hold another lease. A row that is new is told without it.
    Node { node: String, lease: Option<Lease> },
    /// Something in a collection that is nobody's business.
    Elsewhere,
    /// Collections were dropped or renamed.
    Upheaval,
}

impl Happening {
    /// As it is told to a node that asked for these bodies; `Err`: the feed breaks here.
    pub(super) fn told(&self, to: &str, bodies: &[RecordKey], at: Moment) -> Result<Option<Event>, ()> {
        match self {
            Happening::Record { key, effect } => {
                // Bodies are asked for by id alone.
                let is_asked = bodies.iter().any(|asked| asked.id == key.id);
                let effect = match effect {
                    Effect::Inserted(body) => Effect::Inserted(body.clone().filter(|_| is_asked)),
                    Effect::Replaced(body) => Effect::Replaced(body.clone().filter(|_| is_asked)),
                    other => other.clone(),
                };
                Ok(Some(Event::Record { key: key.clone(), effect, at: Some(at) }))
            }
            Happening::Node { node, lease } if node == to => Ok(lease.clone().map(Event::Lease)),
            Happening::Node { .. } | Happening::Elsewhere => Ok(None),
            Happening::Upheaval => Err(()),
        }
    }
}

/// The history as a server keeps it: from some position on.
#[derive(Debug, Default, Clone)]
pub(super) struct History {
    /// Another one after the centre was restored from a dump: tokens of the old one mean nothing.
    epoch: i64,
    /// The position of the first happening that is still known.
    first: u64,
    happenings: VecDeque<(Moment, Happening)>,
    /// Counts up with everything that happens, also over a restore: time goes on.
    clock: u64,
    /// A position ahead of everything that happened is accepted, and nothing is told until it is reached.
    pub(super) accepts_positions_ahead: bool,
}

impl History {
    pub(super) fn push(&mut self, happening: Happening) {
        self.clock += 1;
        self.happenings.push_back((Moment(self.clock), happening));
    }

    pub(super) fn end(&self) -> u64 {
        self.first + self.happenings.len() as u64
    }

    /// The moment of what happened last.
    pub(super) fn now(&self) -> Moment {
        Moment(self.clock)
    }

    /// What happened at this position, and when; `None`: nothing yet.
    pub(super) fn get(&self, at: u64) -> Option<&(Moment, Happening)> {
        self.happenings.get(usize::try_from(at.checked_sub(self.first)?).ok()?)
    }

    /// Forgets everything but the last few happenings.
    pub(super) fn truncate(&mut self, keep: usize) {
        let forgotten = self.happenings.len().saturating_sub(keep);
        self.happenings.drain(..forgotten);
        self.first += forgotten as u64;
    }

    /// Begins anew: the centre was restored from a dump.
    pub(super) fn begin_anew(&mut self) {
        let (clock, accepts_positions_ahead) = (self.clock, self.accepts_positions_ahead);
        *self = History { epoch: self.epoch + 1, clock, accepts_positions_ahead, ..History::default() };
    }

    /// Goes on from an older state: the files of the centre were put back.
    pub(super) fn set_back(&mut self, copy: History) {
        *self = History { clock: self.clock, ..copy };
    }

    pub(super) fn token(&self, at: u64) -> Token {
        Token(doc! {"_data": format!("{:04}:{at:012}", self.epoch)})
    }

    /// The position of a token of this history that is still known.
    pub(super) fn position(&self, token: &Token) -> Option<u64> {
        let Token(row): &Token = token;
        let (epoch, at) = text(row)?.split_once(':')?;
        let (epoch, at): (i64, u64) = (epoch.parse().ok()?, at.parse().ok()?);
        let is_known = at >= self.first && (at <= self.end() || self.accepts_positions_ahead);
        (epoch == self.epoch && is_known).then_some(at)
    }
}

fn text(row: &Document) -> Option<&str> {
    row.get_str("_data").ok()
}
