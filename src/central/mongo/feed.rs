//! Floor 2. The change feed: what happened to records since a token, and to the node's own row.
//!
//! Hides change streams. The cursor is read batch by batch as the server sends them, because each reply says
//! up to where it has told everything; the driver's own change stream hides that, and reopens itself where
//! a round has to know.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bson::{Bson, Document, RawDocument, Timestamp, doc};
use futures_util::StreamExt;
use mongodb::Database;
use mongodb::options::WriteConcern;
use mongodb::raw_batch_cursor::RawBatchCursor;

use super::counters::Counters;
use super::diagnosis::place::trouble;
use super::line::Patience;
use super::read::{batch_size, owned};
use super::{MongoCentral, error};
use crate::central::content::FILES_COLLECTION;
use crate::central::survey::Stage;
use crate::central::{
    Cause, CentralError, Changes, Effect, Event, Feed, Lease, Moment, NODES_COLLECTION, Result, Token,
    Watched, lease_of,
};
use crate::domain::json::weight::{self, Together};
use crate::domain::record::{Kind, RecordKey};

/// No change stream: without a replica set, or where the engine does not know the stage (unrecognized stage, unknown
/// command, unknown stage, not supported).
const NO_CHANGE_STREAM_CODES: [i32; 5] = [40_573, 40_324, 59, 115, 238];
/// The history is gone, or ends: change stream fatal, history lost, invalid resume token, an event too
/// large to be told.
const LOST_CODES: [i32; 4] = [260, 280, 286, 10_334];
/// What happens to collections rather than to documents.
const UPHEAVALS: [&str; 4] = ["drop", "rename", "dropDatabase", "invalidate"];

/// The server's time of what is to be seen by later reads, of a feed or of conversations beside each other.
#[derive(Debug, Clone, Default)]
pub(super) struct Told(Arc<Mutex<Option<Timestamp>>>);

impl Told {
    pub(super) fn time(&self) -> Option<Timestamp> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, time: Timestamp) {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *latest = (*latest).max(Some(time));
    }
}

pub(super) struct MongoFeed {
    told: Told,
    cursor: RawBatchCursor,
    database: Database,
    patience: Patience,
    counters: Arc<Counters>,
    /// It goes on from an earlier position and has not come to its end yet. The server reads through everything that
    /// happened since then in any database, however little of it is told, so a reply may take minutes.
    is_behind: bool,
    kinds: BTreeMap<String, Kind>,
    node: String,
    /// Up to where the server has told everything, and up to where it was handed out.
    read_to: Option<Token>,
    told_to: Option<Token>,
    /// Read while the feed was opened, and not handed out.
    first: Option<Changes>,
}

impl MongoCentral {
    pub(super) async fn open_feed(
        &mut self,
        node: &str,
        after: Option<&Token>,
        bodies: &[RecordKey],
        max: usize,
    ) -> Result<Watched> {
        let kinds: BTreeMap<String, Kind> =
            Kind::ALL.into_iter().map(|kind| (self.address.collection(kind).to_owned(), kind)).collect();
        let pipeline = pipeline(&kinds, node, after, bodies);
        // It writes nothing: what the driver would say about confirming is bytes in every round.
        let watching = self.database.aggregate(pipeline).max_await_time(self.feed_wait());
        let watching = watching.batch_size(batch_size(max.max(1)));
        let watching = watching.write_concern(WriteConcern::default());
        let is_behind = after.is_some();
        let opening = async { watching.batch().await };
        let opened = match is_behind {
            true => while_alive(&self.patience, &self.database, opening).await?,
            false => self.patience.attempt(opening).await?,
        };
        let cursor = match opened {
            Ok(cursor) => cursor,
            Err(failure) => return no_feed(&failure, is_behind),
        };
        let patience = self.patience.clone();
        let node = node.to_owned();
        let begin = after.cloned();
        let mut feed = MongoFeed {
            told: self.told.clone(),
            cursor,
            database: self.database.clone(),
            patience,
            counters: Arc::clone(&self.counters),
            is_behind,
            kinds,
            node,
            read_to: begin.clone(),
            told_to: begin,
            first: None,
        };
        // The first reply is here already; it says where the feed begins.
        let first = feed.read().await?;
        if first.is_lost && first.events.is_empty() {
            return Ok(Watched::Lost);
        }
        if first.events.is_empty() {
            feed.told_to.clone_from(&feed.read_to);
        } else {
            feed.first = Some(first);
        }
        Ok(Watched::Open(Box::new(feed)))
    }
}

/// Waits for a reply for as long as the server answers another question whenever the patience for one ends.
async fn while_alive<T>(
    patience: &Patience,
    database: &Database,
    exchange: impl Future<Output = mongodb::error::Result<T>>,
) -> Result<mongodb::error::Result<T>> {
    tokio::pin!(exchange);
    let _allowed = patience.meter.allow_silence();
    loop {
        match patience.attempt(exchange.as_mut()).await {
            Err(CentralError::Offline(_)) => {
                let asking = database.run_command(doc! {"ping": 1});
                patience.limited(async { asking.await }).await?;
            }
            answered => return answered,
        }
    }
}

/// Only a position can be lost: a feed that begins now and is told so has failed.
fn no_feed(failure: &mongodb::error::Error, is_behind: bool) -> Result<Watched> {
    match error::command_code(failure) {
        Some(code) if NO_CHANGE_STREAM_CODES.contains(&code) => Ok(Watched::Unsupported),
        Some(code) if is_behind && LOST_CODES.contains(&code) => Ok(Watched::Lost),
        _ => Err(error::of_call(failure)),
    }
}

fn pipeline(
    kinds: &BTreeMap<String, Kind>,
    node: &str,
    after: Option<&Token>,
    bodies: &[RecordKey],
) -> Vec<Document> {
    // Attachments are told of in a few words each, which are fewer than a condition in every round would be.
    let names: Vec<&str> = kinds.keys().map(String::as_str).chain([FILES_COLLECTION]).collect();
    let mut stream = doc! {};
    if let Some(Token(token)) = after {
        stream.insert("resumeAfter", token);
    }
    // Short, because it is sent in every round: what else a rename is about is looked at here.
    let mut told = doc! {
        "operationType": true, "ns": true, "to": true, "documentKey": true, "updateDescription": true,
        "clusterTime": true,
    };
    if !bodies.is_empty() {
        let mut ids: Vec<&str> = bodies.iter().map(|key| key.id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        let is_asked = doc! {"$in": ["$documentKey._id", ids]};
        told.insert("fullDocument", doc! {"$cond": [is_asked, "$fullDocument", "$$REMOVE"]});
    }
    vec![
        doc! {"$changeStream": stream},
        doc! {"$match": {"$or": [
            {"ns.coll": {"$in": &names}},
            {"ns.coll": NODES_COLLECTION, "documentKey._id": node},
            // Upheavals are about no document.
            {"documentKey": Bson::Null},
        ]}},
        doc! {"$project": told},
    ]
}

impl MongoFeed {
    async fn read(&mut self) -> Result<Changes> {
        let cursor = &mut self.cursor;
        let next = async { Ok(cursor.next().await.transpose()) };
        let answered = match self.is_behind {
            true => while_alive(&self.patience, &self.database, next).await?,
            false => self.patience.attempt(next).await?,
        };
        let batch = match answered.map_err(|failure| error::of_call(&failure))? {
            Ok(Some(batch)) => batch,
            Ok(None) => return Ok(Changes { is_lost: true, ..Changes::default() }),
            Err(failure) => {
                return match error::command_code(&failure) {
                    Some(code) if LOST_CODES.contains(&code) => {
                        Ok(Changes { is_lost: true, ..Changes::default() })
                    }
                    _ => Err(error::of_call(&failure)),
                };
            }
        };
        let unreadable = |_| error::failed("a batch of changes cannot be read");
        let (mut changes, mut values) = (Changes::default(), Together::default());
        let mut is_empty = true;
        for value in batch.doc_slices().map_err(|failure| error::of_call(&failure))? {
            if let bson::RawBsonRef::Document(raw) = value.map_err(unreadable)? {
                self.take(raw, &mut changes, &mut values)?;
                is_empty = false;
            }
        }
        let reply = batch.as_raw_document();
        if let Ok(time) = reply.get_timestamp("operationTime") {
            self.told.note(time);
        }
        self.is_behind &= !is_empty;
        let position = reply.get_document("cursor").and_then(|c| c.get_document("postBatchResumeToken"));
        if let Ok(token) = position {
            self.read_to = Some(Token(Document::try_from(token).map_err(|_| unreadable_token())?));
        }
        Ok(changes)
    }

    /// Adds what an event tells to `changes`. `values` counts what is told of values: of more than can be worked with
    /// together it is only told that something happened, and the records are read.
    fn take(&mut self, raw: &RawDocument, changes: &mut Changes, values: &mut Together) -> Result<()> {
        if let Ok(token) = raw.get_document("_id") {
            self.read_to = Some(Token(Document::try_from(token).map_err(|_| unreadable_token())?));
        }
        let operation = raw.get_str("operationType").unwrap_or_default();
        let collection =
            |field: &str| raw.get_document(field).and_then(|place| place.get_str("coll")).unwrap_or_default();
        let place = collection("ns");
        if UPHEAVALS.contains(&operation) {
            let is_elsewhere = ["drop", "rename"].contains(&operation)
                && !self.kinds.contains_key(place)
                && !self.kinds.contains_key(collection("to"));
            changes.is_lost |= !is_elsewhere;
            return Ok(());
        }
        if place == NODES_COLLECTION {
            changes.events.extend(lease_told(raw, &self.node).map(Event::Lease));
            return Ok(());
        }
        let id = raw.get_document("documentKey").and_then(|key| key.get_str("_id"));
        // Of attachments it only matters that there are some under other ids than text.
        if place == FILES_COLLECTION {
            changes.has_other_ids |= id.is_err();
            return Ok(());
        }
        let Some(kind) = self.kinds.get(place) else {
            return Ok(());
        };
        // Documents under other ids than text are left alone.
        let Ok(id) = id else {
            changes.has_other_ids = true;
            return Ok(());
        };
        let mut told = |field: &str| {
            let value = raw.get_document(field).ok()?;
            values.takes(weight::of_decoded(value)).then_some(value)
        };
        let mut body = || told("fullDocument").and_then(owned);
        let effect = match operation {
            "insert" => Effect::Inserted(body()),
            "replace" => Effect::Replaced(body()),
            "delete" => Effect::Deleted,
            // What cannot be read, like everything unheard of, is a change of which nothing is known.
            _ => whole(raw)
                .and_then(|_| told("updateDescription"))
                .and_then(described)
                .unwrap_or(Effect::Updated { set: Vec::new(), unset: Vec::new() }),
        };
        let at = raw.get_timestamp("clusterTime").ok().map(moment);
        changes.events.push(Event::Record { key: RecordKey::new(*kind, id), effect, at });
        Ok(())
    }
}

/// Seconds and a number within the second.
pub(super) fn moment(time: Timestamp) -> Moment {
    Moment(u64::from(time.time) << 32 | u64::from(time.increment))
}

fn unreadable_token() -> CentralError {
    error::failed("a position in the changes cannot be read")
}

/// The event, unless it also shortened arrays (MongoDB 4.4 and later, after updates by pipelines): then what was set and
/// removed is not all that happened.
fn whole(raw: &RawDocument) -> Option<&RawDocument> {
    let shortened = raw.get_document("updateDescription").and_then(|told| told.get_array("truncatedArrays"));
    shortened.map_or(true, |arrays| arrays.is_empty()).then_some(raw)
}

/// Dotted paths with the values that they were set to, and those that were removed.
fn described(description: &RawDocument) -> Option<Effect> {
    let mut description = owned(description)?;
    let set = match description.remove("updatedFields") {
        Some(Bson::Document(set)) => set,
        _ => Document::new(),
    };
    let unset = description.get_array("removedFields").cloned().unwrap_or_default();
    let unset = unset.iter().filter_map(|path| path.as_str().map(str::to_owned)).collect();
    Some(Effect::Updated { set: set.into_iter().collect(), unset })
}

/// The lease that the own row has come to hold, however the server spells the change.
fn lease_told(raw: &RawDocument, node: &str) -> Option<Lease> {
    if raw.get_document("documentKey").ok()?.get_str("_id").ok()? != node {
        return None;
    }
    let Effect::Updated { set, .. } = described(raw.get_document("updateDescription").ok()?)? else {
        return None;
    };
    let mut lease = doc! {};
    for (path, value) in set {
        match (path.as_str(), value) {
            ("lease", Bson::Document(whole)) => lease = whole,
            ("lease.number", number) => drop(lease.insert("number", number)),
            ("lease.nonce", nonce) => drop(lease.insert("nonce", nonce)),
            _ => {}
        }
    }
    lease_of(&doc! {"lease": lease})
}

#[async_trait]
impl Feed for MongoFeed {
    async fn next(&mut self) -> Result<Changes> {
        let changes = match self.first.take() {
            Some(first) => first,
            None => self.read().await.map_err(|error| {
                let member = self.counters.member();
                let at = |cause: &Cause| trouble(Stage::Reading, member, "getMore", "its change feed", cause);
                error.at(at)
            })?,
        };
        self.told_to.clone_from(&self.read_to);
        Ok(changes)
    }

    fn token(&self) -> Option<Token> {
        self.told_to.clone()
    }
}

#[cfg(test)]
mod tests {
    use bson::RawDocumentBuf;

    use super::*;

    #[test]
    fn an_update_that_shortened_arrays_is_not_told_in_full() {
        let event = |truncated: Bson| {
            let description =
                doc! {"updatedFields": {"a": 1}, "removedFields": [], "truncatedArrays": truncated};
            RawDocumentBuf::try_from(&doc! {"updateDescription": description}).unwrap()
        };
        let shortened = event(Bson::Array(vec![doc! {"field": "notes", "newSize": 1}.into()]));
        assert!(whole(&shortened).is_none());
        for told in [event(Bson::Array(Vec::new())), event(Bson::Null)] {
            assert!(whole(&told).is_some());
        }
        // The own row is looked at for its lease only.
        assert!(described(shortened.get_document("updateDescription").unwrap()).is_some());
    }
}
