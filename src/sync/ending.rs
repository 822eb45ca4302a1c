//! Floor 3. What a round says at its end.

use super::Report;
use super::drain::Source;
use super::left::{Left, Said};
use super::namesakes;
use super::no_feed::NoFeed;
use super::round::{Outcome, Round, RoundError, Tally};
use super::scan::Reason;
use crate::central::survey::{Diagnosis, Stage};
use crate::central::{Cause, CentralError, Traffic};

impl Round<'_> {
    /// The report of the round, whatever became of it.
    pub(crate) fn finish(
        &mut self,
        result: Result<(), RoundError>,
        diagnosis: &Diagnosis,
        traffic: Traffic,
    ) -> Report {
        let place = match &result {
            Err(RoundError::Central(error)) => error.place().cloned(),
            _ => None,
        };
        let (outcome, mut message) = match result {
            Ok(()) => match self.left_over() {
                Some(message) => (Outcome::Partial, message),
                None => (Outcome::Complete, String::new()),
            },
            Err(RoundError::Central(CentralError::Offline(cause))) if self.has_only_sent => {
                tracing::info!(%cause, "the centre could not be read to the end");
                let mut message =
                    "The centre could not be read to the end; the next round goes on.".to_owned();
                if let Some(place) = &place {
                    message.push_str(&format!(" What happened: {place}. Remedy: {}.", place.remedy));
                }
                (Outcome::Offline, message)
            }
            Err(RoundError::Central(error)) => unreached(&error, diagnosis),
            Err(RoundError::Halted(message)) => (Outcome::Halted, message),
            Err(
                error @ (RoundError::TooLong
                | RoundError::ReadingSlow
                | RoundError::Stopped
                | RoundError::LeaseLost),
            ) => (Outcome::Partial, error.to_string()),
            Err(error) => {
                tracing::error!(%error, "the round failed");
                (Outcome::Failed, format!("The round failed: {error}."))
            }
        };
        if self.has_only_sent {
            message.push_str(&match self.unfinished + self.missed {
                0 => format!(" {}", self.sent_words()),
                to_send => format!(" {to_send} records are sent again in the next round."),
            });
        }
        let mut rest = String::new();
        rest.extend(self.verified_words().map(|words| format!(" {words}")));
        if let Some(words) = self.allowance.words().filter(|_| self.is_large_waiting) {
            rest.push_str(&format!(" {words}"));
        }
        rest.push_str(&self.content_note);
        rest.push_str(&self.aside);
        let name = &self.settings.node_name;
        let others = self.store.read().and_then(|snapshot| namesakes::known(&snapshot, name));
        if let Some(words) = namesakes::words(name, &others.unwrap_or_default()) {
            rest.push_str(&format!(" {words}"));
        }
        let is_well = matches!(outcome, Outcome::Complete | Outcome::Partial);
        if let (true, Source::Sweep, Some(known)) = (is_well, self.source, self.without_feed()) {
            rest.push_str(&format!(" {}", known.words(self.settings)));
        }
        let said = Said { ended: message, rest };
        let message = said.with(outcome, &Left::of_round(self.store));
        let Tally { pulled, pushed, merged, deleted, conflicts, dead } = self.tally;
        let mut report = Report {
            pulled,
            pushed,
            merged,
            deleted,
            conflicts,
            dead,
            said,
            ..Report::ended(outcome, &message)
        };
        report.set_cost(traffic);
        let found = match diagnosis {
            Diagnosis::Trouble(trouble) => Some(trouble),
            Diagnosis::Well | Diagnosis::Unknown => place.as_ref(),
        };
        if let Some(trouble) = found {
            (report.stage, report.member) = (Some(trouble.stage.name()), trouble.member.clone());
        }
        report
    }

    pub(super) fn without_feed(&self) -> Option<NoFeed> {
        self.store.read().and_then(|snapshot| NoFeed::known(&snapshot)).ok().flatten()
    }

    /// How far a verification has come that this round did not end; nothing if none is under way. What happened at the
    /// centre is known all the same.
    fn verified_words(&self) -> Option<String> {
        match (self.sweep, self.waiting_sweep) {
            (Some((Reason::Verify, percent)), _) => Some(format!(
                "The verification has looked at {percent} % of the centre's records; the next rounds look at the rest."
            )),
            (None, Some(Reason::Verify)) => {
                Some("The verification goes on as soon as large transfers may.".to_owned())
            }
            _ => None,
        }
    }

    /// What is said where everything that was edited here has been sent.
    fn sent_words(&self) -> &'static str {
        let unread = self.store.read().and_then(|snapshot| snapshot.unread_people_count());
        match unread {
            Ok(0) => "What was edited here has been sent to the centre.",
            _ => "What was edited here has been sent to the centre, except for people who are new.",
        }
    }

    /// How many records are to be read from the centre again.
    pub(super) fn to_read_again(&self) -> usize {
        let waiting = self.store.read().and_then(|snapshot| snapshot.to_read_again(None, usize::MAX));
        waiting.map_or(0, |rows| rows.len())
    }

    /// What a round that went well has left for the next one, in words.
    fn left_over(&self) -> Option<String> {
        let to_send = self.unfinished + self.missed;
        if to_send > 0 {
            return Some(format!("{to_send} records are sent again in the next round."));
        }
        match self.waiting_sweep {
            Some(Reason::First | Reason::Lost | Reason::Sweep | Reason::Restored) => {
                let mut words = self.sent_words().to_owned();
                match self.to_read_again() {
                    0 => {}
                    1 => words.push_str(" News of one record waits until all people have been looked at."),
                    count => words.push_str(&format!(
                        " News of {count} records waits until all people have been looked at."
                    )),
                }
                return Some(words);
            }
            // As below.
            Some(Reason::Verify) | None => {}
        }
        match self.sweep {
            Some((Reason::First, percent)) => {
                return Some(format!("First synchronization: {percent} % done; the next round goes on."));
            }
            Some((Reason::Restored, percent)) => {
                return Some(format!(
                    "This node and the restored centre are brought together: {percent} % done; the next round goes on."
                ));
            }
            Some((Reason::Lost | Reason::Sweep, percent)) => {
                return Some(format!(
                    "{percent} % of the centre's records have been looked through; the next round goes on."
                ));
            }
            // Everything that happened is known; the pass only makes sure of it. See [`Round::verified_words`].
            Some((Reason::Verify, _)) | None => {}
        }
        let waiting = self.to_read_again();
        (waiting > 0).then(|| format!("{waiting} records are read again in the next round."))
    }
}

/// What a round that the centre has ended says of it. What no waiting mends is a failure, whatever it looked like from
/// the middle of the round.
fn unreached(error: &CentralError, diagnosis: &Diagnosis) -> (Outcome, String) {
    const KEPT: &str = "Everything is kept here and will be sent later.";
    let is_offline = matches!(error, CentralError::Offline(_));
    match (diagnosis, error) {
        (Diagnosis::Trouble(trouble), _) if is_offline && !trouble.stage.is_lasting() => {
            tracing::info!(%error, %trouble, "the centre cannot be reached");
            // What answers has been reached.
            let what = if trouble.stage == Stage::Answer && error.is_answer() { "used" } else { "reached" };
            // What the round waited for, where the first answer tells nothing of it.
            let is_first = trouble.stage == Stage::Answer || error.is_answer();
            let asked = match error.place().filter(|_| is_first) {
                Some(place) => format!("; before that, {}", place.reason),
                None => String::new(),
            };
            let remedy = trouble.remedy;
            (
                Outcome::Offline,
                format!("The centre cannot be {what} {trouble}{asked}. Remedy: {remedy}. {KEPT}"),
            )
        }
        (Diagnosis::Trouble(trouble), _) => {
            tracing::error!(%error, told = error.told(), %trouble, remedy = trouble.remedy, "the round failed");
            // The command that was answered so says more than what a look at the way to the centre finds afterwards.
            let first = match error.place().filter(|_| error.is_answer()) {
                Some(place) if place.reason != trouble.reason => {
                    format!(" {}. The way to the centre ends now", error.told())
                }
                _ => String::new(),
            };
            let message = format!(
                "The round failed{first} {trouble}. Remedy: {}. Everything is kept here.",
                trouble.remedy
            );
            (Outcome::Failed, message)
        }
        (Diagnosis::Well | Diagnosis::Unknown, CentralError::Offline(cause)) if error.is_answer() => {
            tracing::info!(%cause, told = error.told(), "the centre answered that it cannot do now what was asked");
            let why = in_brackets(error, cause);
            let message = format!("The centre answers, and cannot do now what was asked {why}. {KEPT}");
            (Outcome::Offline, message)
        }
        (Diagnosis::Well, CentralError::Offline(cause)) => {
            tracing::info!(%cause, "the line to the centre broke off; the centre answers now");
            let message = match error.place() {
                Some(_) => format!(
                    "The centre did not answer, or the line broke off {}. By now the centre answers. {KEPT}",
                    error.told()
                ),
                None => {
                    format!("The line to the centre broke off ({cause}); by now the centre answers. {KEPT}")
                }
            };
            (Outcome::Offline, message)
        }
        (Diagnosis::Unknown, CentralError::Offline(cause)) => {
            tracing::info!(%cause, "the centre cannot be reached");
            (Outcome::Offline, format!("The centre cannot be reached {}. {KEPT}", in_brackets(error, cause)))
        }
        (_, error) => {
            let told = error.told();
            tracing::error!(%error, told, "the round failed");
            let message = match error.place() {
                Some(_) => format!("The round failed {told}. Everything is kept here."),
                None => format!("The round failed: {error}."),
            };
            (Outcome::Failed, message)
        }
    }
}

/// The place of an error, which begins with its stage in brackets; else the cause, in brackets.
fn in_brackets(error: &CentralError, cause: &Cause) -> String {
    match error.place() {
        Some(_) => error.told(),
        None => format!("({cause})"),
    }
}
