//! Floor 2. Attachments in GridFS: `fs.files` and `fs.chunks`, as every driver lays them out.
//!
//! The driver's own bucket is not used: it names chunks and files as it goes and cannot go on where an
//! upload was cut.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use async_trait::async_trait;
use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, RawBsonRef, RawDocument, doc};
use mongodb::options::FindOptions;

use super::cursors::Question;
use super::write::write_errors;
use super::{MongoCentral, confirmed_document, error, number, unconfirmed};
use crate::central::content::{
    Attachments, CHUNKS_COLLECTION, ContentFile, ContentMark, FILES_COLLECTION, NewContentFile,
};
use crate::central::{CentralError, Result, Written};
use crate::domain::content::CONTENT_CHUNK_BYTES;

/// Where a row of `fs.files` says that the content is not what its name says.
const MARK: &str = "metadata.suspect";
const MARK_NODE: &str = "metadata.suspect.node";
/// Most rows that a reply carries where they are small.
const SMALL_ROWS_MAX: u32 = 20_000;
/// Longest field of such a row that is read.
const FIELD_BYTES_MAX: usize = 1024;
/// Rows of chunks that are looked at for one name: more than content of ours can have, so that nothing is thought whole
/// that has more.
const CHUNK_ROWS_MAX: i64 = (1 << 16) + 1;
/// Bytes of chunks that are taken at once: the longest document and a batch of ordinary chunks.
const CHUNKS_BYTES_MAX: usize = (16 << 20) + (2 << 20);

#[async_trait]
impl Attachments for MongoCentral {
    async fn content_files(&mut self, names: &[String]) -> Result<Vec<ContentFile>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let shown = doc! {"length": 1, "chunkSize": 1, MARK_NODE: 1};
        let rows = self.find_rows(FILES_COLLECTION, "_id", doc! {"_id": {"$in": names}}, shown, 0).await?;
        let file = |row: &Document| {
            Some(ContentFile {
                sha256: row.get_str("_id").ok()?.to_owned(),
                length: number(row, "length"),
                chunk_bytes: number(row, "chunkSize").filter(|size| *size > 0),
                is_marked: row.get_document("metadata").is_ok_and(|data| data.contains_key("suspect")),
            })
        };
        Ok(rows.iter().filter_map(file).collect())
    }

    async fn unsupported_content_ids(&mut self, max: usize) -> Result<Vec<String>> {
        let answer = self.list_unsupported_ids(FILES_COLLECTION, max).await;
        self.reading("find", FILES_COLLECTION, answer)
    }

    async fn marked_contents(&mut self, max: usize) -> Result<Vec<String>> {
        let marked = doc! {MARK_NODE: {"$exists": true}};
        let limit = i64::try_from(max).unwrap_or(i64::MAX);
        let rows = self.find_rows(FILES_COLLECTION, "_id", marked, doc! {"_id": 1}, limit).await?;
        Ok(rows.iter().filter_map(|row| row.get_str("_id").ok().map(str::to_owned)).collect())
    }

    async fn content_mark(&mut self, sha256: &str) -> Result<Option<ContentMark>> {
        let rows = self.find_rows(FILES_COLLECTION, "_id", doc! {"_id": sha256}, doc! {MARK: 1}, 1).await?;
        let mark = rows
            .first()
            .and_then(|row| row.get_document("metadata").ok())
            .and_then(|metadata| metadata.get_document("suspect").ok());
        Ok(mark.map(|mark| ContentMark {
            node: mark.get_str("node").unwrap_or_default().to_owned(),
            seen: mark.get_binary_generic("seen").cloned().unwrap_or_default(),
        }))
    }

    async fn content_chunk_lengths(&mut self, sha256: &str) -> Result<BTreeMap<u64, Option<u64>>> {
        // The size of anything but bytes would be an error of the whole question, and some engines work out the branch that
        // they do not take.
        let is_bytes = doc! {"$eq": [{"$type": "$data"}, "binData"]};
        let only_bytes = doc! {"$cond": [&is_bytes, "$data", ""]};
        let bytes = doc! {"$cond": [is_bytes, {"$binarySize": only_bytes}, -1]};
        let shown = doc! {"_id": 0, "n": 1, "bytes": bytes};
        let rows =
            self.find_rows(CHUNKS_COLLECTION, "n", doc! {"files_id": sha256}, shown, CHUNK_ROWS_MAX).await?;
        Ok(rows.iter().filter_map(|row| Some((number(row, "n")?, number(row, "bytes")))).collect())
    }

    async fn content_chunks(&mut self, sha256: &str, first: u64, count: u64) -> Result<Vec<(u64, Vec<u8>)>> {
        let (Ok(from), Ok(to)) = (i64::try_from(first), i64::try_from(first.saturating_add(count))) else {
            return Ok(Vec::new());
        };
        let filter = doc! {"files_id": sha256, "n": {"$gte": from, "$lt": to}};
        let mut options = FindOptions::default();
        options.projection = Some(doc! {"_id": 0, "n": 1, "data": 1});
        options.sort = Some(doc! {"n": 1});
        options.batch_size = Some(u32::try_from(count).unwrap_or(u32::MAX).saturating_add(1));
        let question = Question { collection: CHUNKS_COLLECTION, filter, key: "n", options };
        let (mut found, mut bytes) = (Vec::new(), 0);
        let answer = self
            .each_row(question, |row| {
                // Chunks longer than their row says are noticed by who asked.
                if bytes >= CHUNKS_BYTES_MAX {
                    return Ok(ControlFlow::Break(()));
                }
                let number = match row.get("n") {
                    Ok(Some(RawBsonRef::Int32(n))) => u64::try_from(n).ok(),
                    Ok(Some(RawBsonRef::Int64(n))) => u64::try_from(n).ok(),
                    _ => None,
                };
                if let (Some(number), Ok(Some(RawBsonRef::Binary(data)))) = (number, row.get("data")) {
                    bytes += data.bytes.len();
                    found.push((number, data.bytes.to_vec()));
                }
                Ok(ControlFlow::Continue(()))
            })
            .await;
        self.reading("find", CHUNKS_COLLECTION, answer)?;
        Ok(found)
    }

    async fn add_content_chunks(&mut self, sha256: &str, chunks: &[(u64, Vec<u8>)]) -> Result<()> {
        if chunks.is_empty() {
            return Ok(());
        }
        self.ensure_content_indexes().await?;
        let documents = chunks.iter().map(|(number, data)| {
            let number = i32::try_from(*number).map_err(|_| error::failed("content has too many chunks"))?;
            Ok(doc! {"_id": ObjectId::new(), "files_id": sha256, "n": number, "data": binary(data)})
        });
        let documents: Vec<Document> = documents.collect::<Result<_>>()?;
        self.insert_rows(CHUNKS_COLLECTION, documents).await
    }

    async fn replace_content_chunk(
        &mut self,
        sha256: &str,
        number: u64,
        from: Option<&[u8]>,
        to: &[u8],
    ) -> Result<bool> {
        let Ok(number) = i64::try_from(number) else {
            return Ok(false);
        };
        let held = match from {
            Some(from) => doc! {"$eq": binary(from)},
            None => doc! {"$not": {"$type": "binData"}},
        };
        let filter = doc! {"files_id": sha256, "n": number, "data": held};
        self.update_row(CHUNKS_COLLECTION, filter, doc! {"$set": {"data": binary(to)}}).await
    }

    async fn add_content_file(&mut self, file: &NewContentFile) -> Result<()> {
        self.ensure_content_indexes().await?;
        let too_long = |_| error::failed("content is too long");
        let row = doc! {
            "_id": &file.sha256,
            "length": i64::try_from(file.length).map_err(too_long)?,
            "chunkSize": CONTENT_CHUNK_BYTES as i32,
            "uploadDate": DateTime::from_millis(file.uploaded_at_ms),
            "filename": &file.sha256,
            "metadata": {"contentType": &file.media_type},
        };
        self.insert_rows(FILES_COLLECTION, vec![row]).await
    }

    async fn mark_content(
        &mut self,
        sha256: &str,
        from: Option<&ContentMark>,
        to: Option<&ContentMark>,
        length: Option<u64>,
    ) -> Result<bool> {
        let mut filter = doc! {"_id": sha256};
        match from {
            Some(mark) => {
                filter.insert(MARK_NODE, &mark.node);
                filter.insert(format!("{MARK}.seen"), binary(&mark.seen));
            }
            None => drop(filter.insert(MARK, doc! {"$exists": false})),
        }
        let (mut set, mut update) = (doc! {}, doc! {});
        match to {
            Some(mark) => {
                drop(set.insert(MARK, doc! {"node": &mark.node, "seen": binary(&mark.seen)}));
            }
            None => drop(update.insert("$unset", doc! {MARK: ""})),
        }
        if let Some(length) = length.and_then(|length| i64::try_from(length).ok()) {
            set.extend(doc! {"length": length, "chunkSize": CONTENT_CHUNK_BYTES as i32});
        }
        if !set.is_empty() {
            update.insert("$set", set);
        }
        self.update_row(FILES_COLLECTION, filter, update).await
    }
}

impl MongoCentral {
    /// All rows that match, or `limit` of them unless that is 0; `key` tells them apart. Fields are names and numbers: one
    /// that is longer than those can be is as good as absent, so that rows which somebody has put there take no memory.
    async fn find_rows(
        &mut self,
        collection: &str,
        key: &'static str,
        filter: Document,
        shown: Document,
        limit: i64,
    ) -> Result<Vec<Document>> {
        let mut options = FindOptions::default();
        options.projection = Some(shown);
        options.batch_size = Some(SMALL_ROWS_MAX);
        options.limit = (limit > 0).then_some(limit);
        let mut found = Vec::new();
        let answer = self
            .each_row(Question { collection, filter, key, options }, |row| {
                found.push(short_fields(row));
                Ok(ControlFlow::Continue(()))
            })
            .await;
        self.reading("find", collection, answer)?;
        Ok(found)
    }

    /// The index that makes a chunk unique, the usual one on files, and one of marked files only. Asked for
    /// once in a conversation that adds something; where they are there already it costs the question.
    async fn ensure_content_indexes(&mut self) -> Result<()> {
        if self.has_content_indexes {
            return Ok(());
        }
        let chunks = doc! {"key": {"files_id": 1, "n": 1}, "name": "files_id_1_n_1", "unique": true};
        let usual = doc! {"key": {"filename": 1, "uploadDate": 1}, "name": "filename_1_uploadDate_1"};
        let marked = doc! {"key": {MARK_NODE: 1}, "name": "metadata.suspect.node_1", "sparse": true};
        for (collection, indexes) in
            [(CHUNKS_COLLECTION, vec![chunks]), (FILES_COLLECTION, vec![usual, marked])]
        {
            let command = doc! {"createIndexes": collection, "indexes": indexes};
            let answer = self.command(command).await;
            self.writing("createIndexes", collection, answer)?;
        }
        self.has_content_indexes = true;
        Ok(())
    }

    /// Inserts rows and returns when all are durable; one that is there already, as this file of this length or as this
    /// chunk of this file, is as good: whether its bytes are right is looked at when all chunks are there.
    async fn insert_rows(&mut self, collection: &str, documents: Vec<Document>) -> Result<()> {
        let (named_by, same_by): (&[&str], &[&str]) = match collection {
            CHUNKS_COLLECTION => (&["files_id", "n"], &["files_id", "n"]),
            _ => (&["_id"], &["_id", "length"]),
        };
        let fields = |row: &Document, fields: &[&str]| -> Document {
            let fields =
                fields.iter().filter_map(|field| Some(((*field).to_owned(), row.get(*field)?.clone())));
            fields.collect()
        };
        let rows: Vec<(Document, Document)> =
            documents.iter().map(|row| (fields(row, named_by), fields(row, same_by))).collect();
        let command = doc! {
            "insert": collection,
            "documents": documents,
            "ordered": false,
            "writeConcern": confirmed_document(),
        };
        let answer = self.command(command).await;
        let reply = self.writing("insert", collection, answer)?;
        for (at, code, message) in write_errors(&reply) {
            if !error::is_duplicate_key(code) {
                return self.writing("insert", collection, Err(not_accepted(code)));
            }
            let Some((name, same)) = rows.get(at) else {
                return Err(error::about_call("the answer cannot be read"));
            };
            // In another index another row is in the way, and this one is not there.
            if self.find_rows(collection, "_id", same.clone(), doc! {"_id": 1}, 1).await?.is_empty() {
                let refused = error::of_index(error::index_of(message), &Bson::from(name.clone()));
                return self.writing("insert", collection, Err(refused));
            }
        }
        self.writing("insert", collection, unconfirmed(&reply).map_or(Ok(()), Err))
    }

    /// Updates the one row that matches; false if none does.
    async fn update_row(&mut self, collection: &str, filter: Document, update: Document) -> Result<bool> {
        let command = doc! {
            "update": collection,
            "updates": [{"q": filter, "u": update}],
            "writeConcern": confirmed_document(),
        };
        let answer = self.command(command).await;
        let reply = self.writing("update", collection, answer)?;
        if let Some((_, code, message)) = write_errors(&reply).next() {
            return match error::of_write(code, message) {
                Written::Miss => Ok(false),
                _ => self.writing("update", collection, Err(not_accepted(code))),
            };
        }
        if let Some(unconfirmed) = unconfirmed(&reply) {
            return self.writing("update", collection, Err(unconfirmed));
        }
        Ok(number(&reply, "n") == Some(1))
    }
}

fn short_fields(row: &RawDocument) -> Document {
    let fields = row.iter_elements().flatten().filter(|field| field.size() <= FIELD_BYTES_MAX);
    fields.filter_map(|field| Some((field.key().as_str().to_owned(), Bson::try_from(field).ok()?))).collect()
}

fn not_accepted(code: i32) -> CentralError {
    error::of_row(code, "a part of an attachment is not accepted")
}

fn binary(bytes: &[u8]) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() })
}
