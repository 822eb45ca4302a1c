//! Floor 3. How reconciliation stands, for people and programs: never better than it is.

use std::collections::BTreeMap;

use bson::Document;
use serde::Serialize;

use super::budget::DAY_MS;
use super::left::{Left, Said, waiting_words};
use super::namesakes::{self, SameName};
use super::no_feed::NoFeed;
use super::operator::Pause;
use super::other_ids::OtherIds;
use super::{META_REPORT, Reconciler, lease, lock, time_text};
use crate::domain::record::Kind;
use crate::store::{Snapshot, StoreError};

/// How things stand; the answer of `GET /sync/status`.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    pub node: String,
    /// The id of this store and of all copies of it, once anything was edited in it.
    pub store: Option<String>,
    pub state: &'static str,
    pub pending: u64,
    pub oldest_pending_at: Option<String>,
    pub conflicts_open: u64,
    /// Conflicts that the centre does not know in their present state.
    pub conflicts_unpublished: u64,
    pub dead: u64,
    /// Rows of the store that are not what was written: not shown, not sent, not backed up.
    pub damaged: u64,
    /// False at a centre without a change feed, where every round reads everything.
    pub change_feed: bool,
    /// The error with which the centre refuses the change feed that it has, 0 for one without a code.
    pub change_feed_error: Option<i32>,
    /// Bytes that reading everything took last, at such a centre.
    pub full_read_bytes: Option<u64>,
    /// When every row had last been read to see whether it is good; nothing if that never was.
    pub scrubbed_at: Option<String>,
    /// Records at the centre whose ids are no text, by collection (`fs.files` too): left alone. 100 stands for more, too.
    pub other_ids: BTreeMap<String, u64>,
    /// Records here that say of nobody that they are theirs, such as pages without `book`, by collection.
    pub ownerless: BTreeMap<String, u64>,
    /// Records here of people who have been deleted, by collection.
    pub left_behind: BTreeMap<String, u64>,
    /// Records that wait for their person or for a decision instead of being sent.
    pub waiting: u64,
    /// Attachments that records here name and whose bytes are not here yet.
    pub content_pending: u64,
    /// Attachments that are here and that the centre is not known to have.
    pub content_owed: u64,
    pub last_round: Option<serde_json::Value>,
    pub last_complete_at: Option<String>,
    pub next_round_at: Option<String>,
    /// Other nodes at the centre under this node's name.
    pub namesakes: Vec<SameName>,
    /// Clients' writes are refused, because the disk is nearly full.
    pub storage_full: bool,
    /// When people are refused unless a round is complete before, see [`Reconciler::admits_people`]; nothing if
    /// that is never.
    pub logins_until: Option<String>,
    pub message: String,
}

/// For how long people may log in after the centre was heard, in milliseconds, if there is a limit.
#[derive(Clone, Copy)]
pub(super) struct LoginLimit(Option<i64>);

impl LoginLimit {
    /// Until when people may log in if nothing more is heard than what is kept of the rounds; nothing if there is no limit.
    pub(super) fn until_ms(self, kept: &Document) -> Option<i64> {
        let told_ms = kept.get_i64("complete_at").or_else(|_| kept.get_i64("first_at")).ok()?;
        Some(told_ms.saturating_add(self.0?))
    }
}

impl Reconciler {
    /// Looks through whole tables: not for a thread that serves everybody.
    pub fn status(&self) -> Result<Status, StoreError> {
        let snapshot = self.store.read()?;
        let kept = snapshot.meta(META_REPORT)?.unwrap_or_default();
        let report: Option<&Document> = kept.get_document("report").ok();
        let pause = Pause::of(&snapshot)?;
        let (state, mut message) = self.state(&snapshot, &kept, pause.as_ref())?;
        let namesakes = namesakes::known(&snapshot, &self.settings.node_name)?;
        if let Some(words) = namesakes::words(&self.settings.node_name, &namesakes)
            // The round may have said it.
            && !message.contains(&words)
        {
            message.push_str(&format!(" {words}"));
        }
        let shortage = self.store.shortage();
        if let Some(shortage) = shortage {
            message.push_str(&format!(" Writes are refused: {shortage}."));
        }
        let without_feed = NoFeed::known(&snapshot)?
            // Something else has to be answered first.
            .filter(|_| self.is_configured() && !["paused", "halted"].contains(&state));
        if let Some(known) = without_feed
            // Where the last round has not said it already.
            && !message.contains(&known.opening())
        {
            message.push_str(&format!(" {}", known.words(&self.settings)));
        }
        let logins_until_ms = self.login_limit().until_ms(&kept);
        if logins_until_ms.is_some_and(|until_ms| self.store.now_ms() >= until_ms) {
            let days = self.settings.offline_login_days;
            message.push_str(&format!(
                " People cannot log in until a round is complete: for {days} days there was none \
                 (offline_login_days in [accounts])."
            ));
        }
        let last_round = report.map(|report| {
            let mut shown = bson::Bson::Document(report.clone()).into_relaxed_extjson();
            shown["at"] = kept.get_i64("at").map_or(serde_json::Value::Null, |ms| time_text(ms).into());
            shown
        });
        Ok(Status {
            node: lease::node_id(&snapshot)?.unwrap_or_default(),
            state,
            pending: snapshot.pending_count()?,
            oldest_pending_at: snapshot.oldest_pending_ms()?.map(time_text),
            conflicts_open: snapshot.open_conflicts_count()?,
            conflicts_unpublished: snapshot.unpublished_conflicts_count()?,
            dead: snapshot.dead_count()?,
            store: snapshot.store_id()?,
            damaged: self.store.damaged_rows().len() as u64,
            change_feed: without_feed.is_none(),
            change_feed_error: without_feed.and_then(NoFeed::refused),
            full_read_bytes: without_feed.and_then(NoFeed::bytes),
            scrubbed_at: snapshot.scrubbed()?.completed_ms.map(time_text),
            other_ids: OtherIds::known(&snapshot)?.collections,
            ownerless: by_collection(snapshot.ownerless_counts()?),
            left_behind: by_collection(snapshot.left_behind_count()?.counts),
            waiting: snapshot.held_back_count()?,
            content_pending: snapshot.content_wanted_count()?,
            content_owed: snapshot.content_owed_count()?,
            last_round,
            last_complete_at: kept.get_i64("complete_at").ok().map(time_text),
            next_round_at: lock(&self.next_round_ms).filter(|_| pause.is_none()).map(time_text),
            namesakes,
            storage_full: shortage.is_some(),
            logins_until: logins_until_ms.map(time_text),
            message,
        })
    }

    /// Whether people may log in at this moment: always, unless `offline_login_days` have passed since the centre last
    /// told everything, an account that was closed there included. Before the first complete round they count from
    /// the first one that was tried.
    ///
    /// Goes by the machine's clock, because the limit has to outlast restarts. A time that lies ahead is not long ago: a
    /// clock that was set back keeps nobody out.
    pub fn admits_people(&self, snapshot: &Snapshot) -> Result<bool, StoreError> {
        if self.settings.offline_login_days == 0 {
            return Ok(true);
        }
        let kept = snapshot.meta(META_REPORT)?.unwrap_or_default();
        Ok(self.login_limit().until_ms(&kept).is_none_or(|until_ms| self.store.now_ms() < until_ms))
    }

    pub(super) fn login_limit(&self) -> LoginLimit {
        let limit_ms = i64::from(self.settings.offline_login_days) * DAY_MS;
        LoginLimit((limit_ms != 0 && self.is_configured()).then_some(limit_ms))
    }

    /// One word for programs, and sentences for people.
    fn state(
        &self,
        snapshot: &Snapshot,
        kept: &Document,
        pause: Option<&Pause>,
    ) -> Result<(&'static str, String), StoreError> {
        if !self.is_configured() {
            return Ok(("off", "Synchronization is off: no centre is configured.".to_owned()));
        }
        let is_running = lock(&self.running).as_ref().is_some_and(|round| !round.is_over());
        let is_revoked = snapshot.meta(lease::META_REVOKED)?.is_some();
        let report = kept.get_document("report").ok();
        let outcome = report.and_then(|report| report.get_str("outcome").ok());
        let said = Said {
            ended: kept.get_str(super::SAID_ENDED).unwrap_or_default().to_owned(),
            rest: kept.get_str(super::SAID_REST).unwrap_or_default().to_owned(),
        };
        let said = match report.and_then(|report| report.get_str("message").ok()) {
            // A complete round says nothing but what is left over, which is looked up anew.
            Some(message) if !kept.contains_key(super::SAID_ENDED) => Said::of_message(message),
            _ => said,
        };
        let left = Left::now(&self.store, snapshot)?;
        let waiting = waiting_words(snapshot)?;
        let ended = |ended: &str, is_waiting: bool| {
            let waiting = waiting.as_ref().filter(|_| is_waiting);
            let ended = waiting.map_or_else(|| ended.to_owned(), |waiting| format!("{ended} {waiting}"));
            format!("{}{}", left.after(&ended), said.rest)
        };
        Ok(match (pause, outcome) {
            _ if is_running => ("running", left.after("Synchronizing with the centre now.")),
            _ if self.is_connected() => {
                ("idle", left.after("Connected to the centre: changes travel at once."))
            }
            (_, Some("halted")) if is_revoked => ("revoked", ended(&said.ended, false)),
            // What halted it before is still to be decided.
            (Some(pause), Some("halted")) => {
                ("paused", ended(&format!("{} {}", pause.words(), said.ended), false))
            }
            (Some(pause), _) => ("paused", left.after(&pause.words())),
            (None, Some("offline")) => ("offline", ended(&said.ended, true)),
            (None, Some("halted")) => ("halted", ended(&said.ended, false)),
            (None, Some("failed")) => ("failed", ended(&said.ended, true)),
            (None, None) => ("idle", ended("No round has been run yet.", true)),
            // What is left by now counts.
            (None, Some("complete")) => {
                ("idle", format!("{}{}", left.when_complete(waiting.as_deref()), said.rest))
            }
            (None, Some(_)) => ("idle", ended(&said.ended, false)),
        })
    }
}

fn by_collection(counts: BTreeMap<Kind, u64>) -> BTreeMap<String, u64> {
    counts.into_iter().map(|(kind, count)| (kind.schema().collection.to_owned(), count)).collect()
}
