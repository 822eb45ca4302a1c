//! Floor 2. Reading records: by identifier, and all of a kind through one cursor.

use std::collections::{BTreeSet, VecDeque};
use std::ops::ControlFlow;

use bson::{Bson, Document, RawBsonRef, RawDocument, doc};
use futures_util::StreamExt;
use mongodb::ClientSession;
use mongodb::action::Action;
use mongodb::options::{FindOptions, WriteConcern};
use mongodb::raw_batch_cursor::SessionRawBatchCursor;

use super::cursors::{Question, REOPENED_MAX, lost_cursor};
use super::line::Patience;
use super::{MongoCentral, error};
use crate::central::{Fetched, LARGE_DOCUMENT_BYTES_MIN as LARGE, Result};
use crate::domain::depth::{CENTRE_DEPTH_MAX, is_deeper_than};
use crate::domain::merge::IDENTITY_FIELDS;
use crate::domain::record::Kind;
use crate::domain::verbatim::Verbatim;

/// Every type that an `_id` can have but text, as `$type` knows them. Each is a range of the index on `_id`, so records
/// under text are not looked at; for "no text" a server reads the whole collection. Symbols lie among the text there and
/// are left out: nothing has written them for many years.
const OTHER_ID_TYPES: [i32; 16] = [-1, 1, 3, 5, 7, 8, 9, 10, 11, 12, 13, 15, 16, 17, 18, 19];
const ID_TYPE_MAX_KEY: i32 = 127;
/// Documents looked at in one exchange to find large ones: the answer to a question about all of them would take as long as
/// reading them.
const SIZES_PER_PAGE: i64 = 1000;
/// Bytes of documents fetched by identifier after which the others are left to be asked for again. One reply of a server has
/// at most 16 MiB, so that no more than this and a reply is held.
const FETCH_BYTES_MAX: usize = 4 << 20;

/// A walk over the records of one kind in order of `_id`.
///
/// The server's cursor hands out batches of a size fixed when it is opened. It follows what the caller
/// asks for: once that has doubled or halved, a new cursor continues after the last document.
pub(super) struct Scan {
    kind: Kind,
    /// The last identifier handed out, or where the walk begins.
    after: Option<String>,
    without: Vec<String>,
    cursor: Option<(SessionRawBatchCursor, usize)>,
    /// Read and not yet handed out.
    pending: VecDeque<Fetched>,
    at_end: bool,
}

impl Scan {
    pub(super) fn new(kind: Kind, after: Option<&str>, without: &[String]) -> Self {
        Self {
            kind,
            after: after.map(str::to_owned),
            without: without.to_vec(),
            cursor: None,
            pending: VecDeque::new(),
            at_end: false,
        }
    }
}

impl MongoCentral {
    pub(super) async fn fetch_records(&mut self, kind: Kind, ids: &[String]) -> Result<Vec<Fetched>> {
        self.find_by_ids(kind, ids, None).await
    }

    pub(super) async fn find_identities(&mut self, ids: &[String]) -> Result<Vec<Document>> {
        let fields: Document =
            IDENTITY_FIELDS.into_iter().map(|field| (field.to_owned(), Bson::from(1))).collect();
        let (mut people, mut left) = (Vec::with_capacity(ids.len()), ids.to_vec());
        while !left.is_empty() {
            let found = self.find_by_ids(Kind::Person, &left, Some(fields.clone())).await?;
            left.clear();
            for person in found {
                match person {
                    Fetched::Document { document, .. } => people.push(document.decode()),
                    // Nothing can be told of them but that they are there.
                    Fetched::Unreadable { id, .. } => people.push(doc! {"_id": id}),
                    Fetched::Deferred { id } => left.push(id),
                }
            }
        }
        Ok(people)
    }

    async fn find_by_ids(
        &mut self,
        kind: Kind,
        ids: &[String],
        projection: Option<Document>,
    ) -> Result<Vec<Fetched>> {
        let (mut found, mut missing) = (Vec::with_capacity(ids.len()), ids.to_vec());
        let mut bytes = 0;
        self.read_after_news();
        while !missing.is_empty() {
            let before = found.len();
            let mut cursor = self.open_find(kind, &missing, projection.clone()).await?;
            let is_lost = loop {
                if bytes >= FETCH_BYTES_MAX {
                    break false;
                }
                match next_batch(&mut cursor, &mut self.reading, &self.patience).await? {
                    Next::Batch(batch) => {
                        bytes += batch.iter().map(Fetched::bytes).sum::<usize>();
                        found.extend(batch);
                    }
                    Next::End => {
                        missing.clear();
                        break false;
                    }
                    Next::Lost => break true,
                }
            };
            // What came before the server gave the cursor up, or before it was too much, is here.
            let present: BTreeSet<&str> = found.iter().map(Fetched::id).collect();
            missing.retain(|id| !present.contains(id.as_str()));
            if !is_lost {
                break;
            }
            if found.len() == before {
                return Err(lost_cursor());
            }
        }
        found.extend(missing.into_iter().map(|id| Fetched::Deferred { id }));
        if let Some(time) = self.reading.operation_time() {
            self.told.note(time);
        }
        Ok(found)
    }

    async fn open_find(
        &mut self,
        kind: Kind,
        ids: &[String],
        projection: Option<Document>,
    ) -> Result<SessionRawBatchCursor> {
        loop {
            let collation = self.collation_of(1).await?;
            let is_collated = collation.is_some();
            // One more than can be found, so that the server sees the end in the first batch.
            let records = self.records(kind);
            let finding = records
                .find(doc! {"_id": {"$in": ids}})
                .batch_size(batch_size(ids.len() + 1))
                .optional(projection.clone(), |finding, projection| finding.projection(projection))
                .optional(collation, |finding, collation| finding.collation(collation))
                .session(&mut self.reading);
            match self.patience.attempt(async { finding.batch().await }).await? {
                Err(failure) if is_collated && self.has_no_collations(&failure) => {}
                opened => return opened.map_err(|failure| error::of_call(&failure)),
            }
        }
    }

    pub(super) async fn continue_scan(&mut self, max: usize) -> Result<Vec<Fetched>> {
        let max = max.max(1);
        let Some(mut scan) = self.scan.take() else {
            return Err(error::failed("no scan is open"));
        };
        let mut reopened = 0;
        while scan.pending.is_empty() && !scan.at_end {
            let (mut cursor, size) = match scan.cursor.take() {
                Some((cursor, size)) if max < size * 2 && max * 2 > size => (cursor, size),
                _ => (self.open_scan(&scan, max).await?, max),
            };
            match next_batch(&mut cursor, &mut self.reading, &self.patience).await? {
                Next::Batch(batch) => scan.pending.extend(batch),
                Next::End => scan.at_end = true,
                // Everything before it was handed out: the next one begins behind that.
                Next::Lost => {
                    reopened += 1;
                    if reopened > REOPENED_MAX {
                        return Err(lost_cursor());
                    }
                    continue;
                }
            }
            scan.cursor = Some((cursor, size));
        }
        let batch: Vec<Fetched> = scan.pending.drain(..max.min(scan.pending.len())).collect();
        if let Some(last) = batch.last() {
            scan.after = Some(last.id().to_owned());
        }
        self.scan = Some(scan);
        Ok(batch)
    }

    pub(super) async fn list_large_ids(&mut self, kind: Kind, after: Option<&str>) -> Result<Vec<String>> {
        let (mut large, mut after) = (Vec::new(), after.map(str::to_owned));
        loop {
            let Some(page) = self.sizes_page(kind, after.as_deref()).await? else {
                return Ok(large);
            };
            let ids = page.get_array("large").map_or(&[][..], Vec::as_slice);
            large.extend(ids.iter().filter_map(|id| id.as_str().map(str::to_owned)));
            let Ok(last) = page.get_str("last") else {
                return Err(error::failed("a page of identifiers cannot be read"));
            };
            after = Some(last.to_owned());
        }
    }

    /// The last identifier of the next page, and those of large documents in it; `None` at the end.
    async fn sizes_page(&mut self, kind: Kind, after: Option<&str>) -> Result<Option<Document>> {
        let mut reopened = 0;
        loop {
            let collation = self.collation().await?;
            let is_collated = collation.is_some();
            let records = self.records(kind);
            let reading = records
                .aggregate(sizes_pipeline(after))
                // It writes nothing.
                .write_concern(WriteConcern::default())
                .optional(collation, |reading, collation| reading.collation(collation))
                .session(&mut self.reading);
            match self.patience.attempt(async { reading.await }).await? {
                Err(failure) if is_collated && self.has_no_collations(&failure) => {}
                opened => {
                    let mut cursor = opened.map_err(|failure| error::of_call(&failure))?;
                    let next = async { cursor.next(&mut self.reading).await.transpose() };
                    match self.patience.attempt(next).await? {
                        Err(failure) if error::is_cursor_lost(&failure) => reopened += 1,
                        page => return page.map_err(|failure| error::of_call(&failure)),
                    }
                    if reopened > REOPENED_MAX {
                        return Err(lost_cursor());
                    }
                }
            }
        }
    }

    async fn open_scan(&mut self, scan: &Scan, size: usize) -> Result<SessionRawBatchCursor> {
        loop {
            let collation = self.collation().await?;
            let is_collated = collation.is_some();
            let mut among = strings_after(scan.after.as_deref());
            if !scan.without.is_empty() {
                among.insert("$nin", &scan.without);
            }
            let records = self.records(scan.kind);
            let finding = records
                .find(doc! {"_id": among})
                .sort(doc! {"_id": 1})
                .batch_size(batch_size(size))
                .optional(collation, |finding, collation| finding.collation(collation))
                .session(&mut self.reading);
            match self.patience.attempt(async { finding.batch().await }).await? {
                Err(failure) if is_collated && self.has_no_collations(&failure) => {}
                opened => return opened.map_err(|failure| error::of_call(&failure)),
            }
        }
    }

    pub(super) async fn list_unsupported_ids(&mut self, collection: &str, max: usize) -> Result<Vec<String>> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let limit = i64::try_from(max).unwrap_or(i64::MAX);
        let mut options = FindOptions::default();
        options.projection = Some(doc! {"_id": 1});
        options.limit = Some(limit);
        let question = Question { collection, filter: doc! {"_id": other_ids()}, key: "_id", options };
        let mut ids = Vec::new();
        self.each_row(question, |row| {
            let id = row.get("_id").ok().flatten().and_then(|id| Bson::try_from(id).ok());
            ids.push(id.unwrap_or(Bson::Null).into_relaxed_extjson().to_string());
            Ok(ControlFlow::Continue(()))
        })
        .await?;
        Ok(ids)
    }
}

fn strings_after(after: Option<&str>) -> Document {
    let mut among = doc! {"$type": "string"};
    if let Some(after) = after {
        among.insert("$gt", after);
    }
    among
}

/// What `_id` is where it is no text.
fn other_ids() -> Document {
    let types: Vec<i32> = OTHER_ID_TYPES.into_iter().chain([ID_TYPE_MAX_KEY]).collect();
    doc! {"$type": types}
}

fn sizes_pipeline(after: Option<&str>) -> Vec<Document> {
    let is_large = doc! {"$gt": ["$bytes", LARGE]};
    vec![
        doc! {"$match": {"_id": strings_after(after)}},
        doc! {"$sort": {"_id": 1}},
        doc! {"$limit": SIZES_PER_PAGE},
        doc! {"$project": {"bytes": {"$bsonSize": "$$ROOT"}}},
        // In place of a thousand sizes; their order is kept.
        doc! {"$group": {
            "_id": Bson::Null,
            "last": {"$last": "$_id"},
            "large": {"$push": {"$cond": [is_large, "$_id", "$$REMOVE"]}},
        }},
    ]
}

pub(super) fn batch_size(documents: usize) -> u32 {
    u32::try_from(documents).unwrap_or(u32::MAX)
}

/// What a cursor tells next.
pub(super) enum Next {
    Batch(Vec<Fetched>),
    End,
    /// The server does not know the cursor any more: some give it up after seconds.
    Lost,
}

pub(super) async fn next_batch(
    cursor: &mut SessionRawBatchCursor,
    session: &mut ClientSession,
    patience: &Patience,
) -> Result<Next> {
    let next = async { cursor.stream(session).next().await.transpose() };
    let batch = match patience.attempt(next).await? {
        Ok(Some(batch)) => batch,
        Ok(None) => return Ok(Next::End),
        Err(failure) if error::is_cursor_lost(&failure) => return Ok(Next::Lost),
        Err(failure) => return Err(error::of_call(&failure)),
    };
    let unreadable = |_| error::failed("a batch of documents cannot be read");
    let mut found = Vec::new();
    for value in batch.doc_slices().map_err(|error| error::of_call(&error))? {
        if let RawBsonRef::Document(raw) = value.map_err(unreadable)? {
            found.extend(decode(raw));
        }
    }
    Ok(Next::Batch(found))
}

/// A document out of what the server sent, if it can be read and walked through.
pub(super) fn owned(raw: &RawDocument) -> Option<Document> {
    if is_deeper_than(CENTRE_DEPTH_MAX, raw) { None } else { Document::try_from(raw).ok() }
}

/// A document as it is kept; `None` if its `_id` is no string.
fn decode(raw: &RawDocument) -> Option<Fetched> {
    let id = string_id(raw)?;
    Some(match Verbatim::read(raw) {
        Ok(document) => Fetched::Document { id, document },
        Err(why) => Fetched::Unreadable { id, reason: why.to_string() },
    })
}

/// The identifier; where it is not valid text, what can be read of it.
fn string_id(raw: &RawDocument) -> Option<String> {
    for element in raw.iter_elements() {
        let element = element.ok()?;
        if element.key().as_str() == "_id" {
            return match element.value_utf8_lossy() {
                Ok(bson::RawBson::String(id)) => Some(id),
                _ => None,
            };
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(document: &Document, from: &[u8], to: &[u8]) -> Option<Fetched> {
        let mut bytes = document.to_vec().unwrap();
        if !from.is_empty() {
            let at = bytes.windows(from.len()).position(|w| w == from).unwrap();
            bytes[at..at + to.len()].copy_from_slice(to);
        }
        decode(RawDocument::from_bytes(&bytes).unwrap())
    }

    fn is_unreadable(fetched: Option<Fetched>, expected: &str) -> bool {
        matches!(fetched, Some(Fetched::Unreadable { id, .. }) if id == expected)
    }

    #[test]
    fn what_keeps_its_bytes_is_a_document() {
        let document = doc! {"_id": "a", "x": {"y": [1, 1.0, -0.0, f64::NAN, 1_i64]}};
        let expected = document.to_vec().unwrap();
        let Some(Fetched::Document { id, document }) = decoded(&document, b"", b"") else {
            panic!("not readable");
        };
        assert_eq!((id.as_str(), document.bytes().as_bytes()), ("a", expected.as_slice()));
    }

    #[test]
    fn repeated_keys_and_invalid_text_are_unreadable() {
        let document = doc! {"_id": "a", "s": {"k1": "text", "k2": 2}};
        assert!(is_unreadable(decoded(&document, b"k2", b"k1"), "a"));
        assert!(is_unreadable(decoded(&document, b"text", b"t\xffxt"), "a"));
        assert!(is_unreadable(decoded(&document, b"k1", b"\xff1"), "a"));
        assert!(is_unreadable(decoded(&doc! {"_id": "abc"}, b"abc", b"a\xffc"), "a\u{fffd}c"));
        assert!(is_unreadable(decoded(&doc! {"_id": "a", "x": [1, 2]}, b"\x101", b"\x107"), "a"));
    }

    #[test]
    fn what_no_stack_would_stand_is_unreadable() {
        let mut document = doc! {};
        for _ in 0..CENTRE_DEPTH_MAX {
            document = doc! {"a": document};
        }
        document.insert("_id", "a");
        assert!(is_unreadable(decoded(&document, b"", b""), "a"));
        let allowed = doc! {"_id": "a", "a": document.get_document("a").unwrap().get("a").unwrap()};
        assert!(matches!(decoded(&allowed, b"", b""), Some(Fetched::Document { .. })));
    }

    /// As the server orders types: only what has a place of its own beside the text is asked for.
    #[test]
    fn other_identifiers_are_asked_for_by_ranges() {
        use bson::spec::ElementType;
        let asked = other_ids();
        assert_eq!(asked.keys().collect::<Vec<_>>(), ["$type"]);
        let types: BTreeSet<i32> =
            asked.get_array("$type").unwrap().iter().map(|number| number.as_i32().unwrap()).collect();
        let among_text = [ElementType::String, ElementType::Symbol].map(|kind| kind as i32);
        // An array as `_id` no server takes; undefined is null in this order.
        let impossible = [ElementType::Array, ElementType::Undefined].map(|kind| kind as i32);
        let every = (1..=0x13).chain([-1, 127]);
        let expected: BTreeSet<i32> =
            every.filter(|number| !among_text.contains(number) && !impossible.contains(number)).collect();
        assert_eq!(types, expected);
    }

    #[test]
    fn other_identifiers_than_strings_are_passed_over() {
        assert_eq!(decoded(&doc! {"_id": 5}, b"", b""), None);
    }
}
