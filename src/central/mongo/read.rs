//! Floor 2. Reading records: by identifier, and all of a kind through one cursor.

use std::collections::VecDeque;

use bson::{Bson, Document, RawBsonRef, RawDocument, doc};
use futures_util::StreamExt;
use mongodb::ClientSession;
use mongodb::action::Action;
use mongodb::raw_batch_cursor::SessionRawBatchCursor;

use super::line::Patience;
use super::{MongoCentral, error};
use crate::central::{Fetched, LARGE_DOCUMENT_BYTES_MIN as LARGE, Result};
use crate::domain::depth::{CENTRE_DEPTH_MAX, is_deeper_than};
use crate::domain::merge::IDENTITY_FIELDS;
use crate::domain::record::Kind;
use crate::domain::verbatim::Verbatim;

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
        let fields = IDENTITY_FIELDS.into_iter().map(|field| (field.to_owned(), Bson::from(1)));
        let found = self.find_by_ids(Kind::Person, ids, Some(fields.collect())).await?;
        Ok(found
            .into_iter()
            .map(|person| match person {
                Fetched::Document { document, .. } => document.document().clone(),
                // Nothing can be told of them but that they are there.
                Fetched::Unreadable { id, .. } => doc! {"_id": id},
            })
            .collect())
    }

    async fn find_by_ids(
        &mut self,
        kind: Kind,
        ids: &[String],
        projection: Option<Document>,
    ) -> Result<Vec<Fetched>> {
        let mut found = Vec::with_capacity(ids.len());
        if ids.is_empty() {
            return Ok(found);
        }
        self.read_after_news();
        let collation = self.collation_of(1).await?;
        let records = self.records(kind);
        // One more than can be found, so that the server sees the end in the first batch.
        let finding = records
            .find(doc! {"_id": {"$in": ids}})
            .batch_size(batch_size(ids.len() + 1))
            .optional(projection, |finding, projection| finding.projection(projection))
            .optional(collation, |finding, collation| finding.collation(collation))
            .session(&mut self.reading);
        let mut cursor = self.patience.limited(async { finding.batch().await }).await?;
        while let Some(batch) = next_batch(&mut cursor, &mut self.reading, &self.patience).await? {
            found.extend(batch);
        }
        if let Some(time) = self.reading.operation_time() {
            self.told.note(time);
        }
        Ok(found)
    }

    pub(super) async fn continue_scan(&mut self, max: usize) -> Result<Vec<Fetched>> {
        let max = max.max(1);
        let Some(mut scan) = self.scan.take() else {
            return Err(error::failed("no scan is open"));
        };
        while scan.pending.is_empty() && !scan.at_end {
            let (mut cursor, size) = match scan.cursor.take() {
                Some((cursor, size)) if max < size * 2 && max * 2 > size => (cursor, size),
                _ => (self.open_scan(&scan, max).await?, max),
            };
            match next_batch(&mut cursor, &mut self.reading, &self.patience).await? {
                Some(batch) => scan.pending.extend(batch),
                None => scan.at_end = true,
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
        let collation = self.collation().await?;
        let records = self.records(kind);
        let finding = records
            .find(doc! {"_id": strings_after(after), "$expr": {"$gt": [{"$bsonSize": "$$ROOT"}, LARGE]}})
            .projection(doc! {"_id": 1})
            .optional(collation, |finding, collation| finding.collation(collation))
            .session(&mut self.reading);
        let mut cursor = self.patience.limited(async { finding.batch().await }).await?;
        let mut ids = Vec::new();
        while let Some(batch) = next_batch(&mut cursor, &mut self.reading, &self.patience).await? {
            ids.extend(batch.iter().map(|fetched| fetched.id().to_owned()));
        }
        Ok(ids)
    }

    async fn open_scan(&mut self, scan: &Scan, size: usize) -> Result<SessionRawBatchCursor> {
        let collation = self.collation().await?;
        let records = self.records(scan.kind);
        let mut among = strings_after(scan.after.as_deref());
        if !scan.without.is_empty() {
            among.insert("$nin", &scan.without);
        }
        let finding = records
            .find(doc! {"_id": among})
            .sort(doc! {"_id": 1})
            .batch_size(batch_size(size))
            .optional(collation, |finding, collation| finding.collation(collation))
            .session(&mut self.reading);
        self.patience.limited(async { finding.batch().await }).await
    }

    pub(super) async fn list_unsupported_ids(&mut self, kind: Kind, max: usize) -> Result<Vec<String>> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let limit = i64::try_from(max).unwrap_or(i64::MAX);
        let records = self.records(kind);
        let finding = records
            .find(doc! {"_id": {"$not": {"$type": "string"}}})
            .projection(doc! {"_id": 1})
            .limit(limit)
            .session(&mut self.reading);
        let mut cursor = self.patience.limited(async { finding.await }).await?;
        let mut ids = Vec::new();
        loop {
            let next = async { cursor.next(&mut self.reading).await.transpose() };
            match self.patience.limited(next).await? {
                Some(row) => {
                    let id = row.get("_id").cloned().unwrap_or(Bson::Null);
                    ids.push(id.into_relaxed_extjson().to_string());
                }
                None => return Ok(ids),
            }
        }
    }
}

fn strings_after(after: Option<&str>) -> Document {
    let mut among = doc! {"$type": "string"};
    if let Some(after) = after {
        among.insert("$gt", after);
    }
    among
}

pub(super) fn batch_size(documents: usize) -> u32 {
    u32::try_from(documents).unwrap_or(u32::MAX)
}

pub(super) async fn next_batch(
    cursor: &mut SessionRawBatchCursor,
    session: &mut ClientSession,
    patience: &Patience,
) -> Result<Option<Vec<Fetched>>> {
    let next = async { cursor.stream(session).next().await.transpose() };
    let Some(batch) = patience.limited(next).await? else {
        return Ok(None);
    };
    let unreadable = |_| error::failed("a batch of documents cannot be read");
    let mut found = Vec::new();
    for value in batch.doc_slices().map_err(|error| error::of_call(&error))? {
        if let RawBsonRef::Document(raw) = value.map_err(unreadable)? {
            found.extend(decode(raw));
        }
    }
    Ok(Some(found))
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

    #[test]
    fn other_identifiers_than_strings_are_passed_over() {
        assert_eq!(decoded(&doc! {"_id": 5}, b"", b""), None);
    }
}
