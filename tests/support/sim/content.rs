//! Attachments of the centre in memory: rows and chunks as GridFS lays them out.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, doc};
use thalamus_edge::central::content::{Attachments, ContentFile, ContentMark, NewContentFile};
use thalamus_edge::central::{CentralError, Result};

use super::conversation::{Conversation, gone};

/// Where the line is cut, among the calls that are about attachments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The call never arrives.
    Request,
    /// It is carried out, and nobody hears of it.
    Answer,
}

#[derive(Default)]
pub(crate) struct Contents {
    /// Rows of `fs.files` by `_id`.
    pub(crate) files: BTreeMap<String, Document>,
    /// Ids of rows of `fs.files` that are no text.
    pub(crate) other_ids: Vec<String>,
    /// `data` of the rows of `fs.chunks`.
    pub(crate) chunks: BTreeMap<(String, u64), Bson>,
    /// After so many more calls the line is cut, once.
    pub(crate) cut: Option<(usize, Cut)>,
    /// The node's user has no privileges on these collections.
    pub(crate) is_refused: bool,
    /// Nothing works that is about these.
    pub(crate) failing: Vec<String>,
    pub(crate) calls: usize,
    /// Chunks that travelled, each time they did.
    pub(crate) added: Vec<(String, u64)>,
    pub(crate) fetched: Vec<(String, u64)>,
    pub(crate) replaced: Vec<(String, u64)>,
}

pub(crate) fn binary(bytes: &[u8]) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() })
}

fn bytes_of(data: &Bson) -> Option<&Vec<u8>> {
    match data {
        Bson::Binary(binary) => Some(&binary.bytes),
        _ => None,
    }
}

fn mark_of(row: &Document) -> Option<ContentMark> {
    let mark = row.get_document("metadata").ok()?.get_document("suspect").ok()?;
    let seen = mark.get("seen").and_then(bytes_of).cloned().unwrap_or_default();
    Some(ContentMark { node: mark.get_str("node").unwrap_or_default().to_owned(), seen })
}

fn number(row: &Document, field: &str) -> Option<u64> {
    let number = match row.get(field)? {
        Bson::Int32(n) => i64::from(*n),
        Bson::Int64(n) => *n,
        _ => return None,
    };
    u64::try_from(number).ok()
}

impl Contents {
    /// All bytes under a name, whether or not they are complete.
    pub(crate) fn bytes(&self, sha256: &str) -> Vec<u8> {
        let chunks = self.chunks.iter().filter(|((name, _), _)| name == sha256);
        chunks.flat_map(|(_, data)| bytes_of(data).cloned().unwrap_or_default()).collect()
    }

    /// Replaces a chunk as no node would.
    pub(crate) fn spoil(&mut self, sha256: &str, number: u64, data: &[u8]) {
        self.chunks.insert((sha256.to_owned(), number), binary(data));
    }

    pub(crate) fn is_marked(&self, sha256: &str) -> bool {
        self.files.get(sha256).and_then(mark_of).is_some()
    }
}

impl Conversation {
    fn carry<T>(&self, about: Option<&str>, job: impl FnOnce(&mut Contents) -> T) -> Result<T> {
        let mut contents = self.sim.contents();
        contents.calls += 1;
        if contents.is_refused {
            return Err(CentralError::Refused("no privileges".into()));
        }
        if about.is_some_and(|about| contents.failing.iter().any(|name| name == about)) {
            return Err(CentralError::Failed("a part is not accepted".into()));
        }
        match contents.cut {
            Some((0, cut)) => {
                contents.cut = None;
                if cut == Cut::Answer {
                    job(&mut contents);
                }
                return Err(gone());
            }
            Some((left, cut)) => contents.cut = Some((left - 1, cut)),
            None => {}
        }
        Ok(job(&mut contents))
    }
}

#[async_trait]
impl Attachments for Conversation {
    async fn content_files(&mut self, names: &[String]) -> Result<Vec<ContentFile>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        self.carry(None, |contents| {
            let file = |name: &String| {
                let row = contents.files.get(name)?;
                Some(ContentFile {
                    sha256: name.clone(),
                    length: number(row, "length"),
                    chunk_bytes: number(row, "chunkSize").filter(|size| *size > 0),
                    is_marked: mark_of(row).is_some(),
                })
            };
            names.iter().filter_map(file).collect()
        })
    }

    async fn unsupported_content_ids(&mut self, max: usize) -> Result<Vec<String>> {
        let contents = self.sim.contents();
        if contents.is_refused {
            return Err(CentralError::Refused("no privileges".into()));
        }
        Ok(contents.other_ids.iter().take(max).cloned().collect())
    }

    async fn marked_contents(&mut self, max: usize) -> Result<Vec<String>> {
        self.carry(None, |contents| {
            let marked = contents.files.iter().filter(|(_, row)| mark_of(row).is_some());
            marked.map(|(name, _)| name.clone()).take(max).collect()
        })
    }

    async fn content_mark(&mut self, sha256: &str) -> Result<Option<ContentMark>> {
        self.carry(Some(sha256), |contents| contents.files.get(sha256).and_then(mark_of))
    }

    async fn content_chunk_lengths(&mut self, sha256: &str) -> Result<BTreeMap<u64, Option<u64>>> {
        self.carry(Some(sha256), |contents| {
            let chunks = contents.chunks.iter().filter(|((name, _), _)| name == sha256);
            chunks
                .map(|((_, number), data)| (*number, bytes_of(data).map(|bytes| bytes.len() as u64)))
                .collect()
        })
    }

    async fn content_chunks(&mut self, sha256: &str, first: u64, count: u64) -> Result<Vec<(u64, Vec<u8>)>> {
        self.carry(Some(sha256), |contents| {
            let mut found = Vec::new();
            for number in first..first.saturating_add(count) {
                let data = contents.chunks.get(&(sha256.to_owned(), number));
                if let Some(bytes) = data.and_then(bytes_of) {
                    found.push((number, bytes.clone()));
                    contents.fetched.push((sha256.to_owned(), number));
                }
            }
            found
        })
    }

    async fn add_content_chunks(&mut self, sha256: &str, chunks: &[(u64, Vec<u8>)]) -> Result<()> {
        self.carry(Some(sha256), |contents| {
            for (number, bytes) in chunks {
                let at = (sha256.to_owned(), *number);
                contents.added.push(at.clone());
                contents.chunks.entry(at).or_insert_with(|| binary(bytes));
            }
        })
    }

    async fn replace_content_chunk(
        &mut self,
        sha256: &str,
        number: u64,
        from: Option<&[u8]>,
        to: &[u8],
    ) -> Result<bool> {
        self.carry(Some(sha256), |contents| {
            let at = (sha256.to_owned(), number);
            match contents.chunks.get_mut(&at) {
                Some(data) if bytes_of(data).map(Vec::as_slice) == from => *data = binary(to),
                _ => return false,
            }
            contents.replaced.push(at);
            true
        })
    }

    async fn add_content_file(&mut self, file: &NewContentFile) -> Result<()> {
        self.carry(Some(&file.sha256), |contents| {
            let row = doc! {
                "_id": &file.sha256,
                "length": file.length as i64,
                "chunkSize": 65_536,
                "uploadDate": bson::DateTime::from_millis(file.uploaded_at_ms),
                "filename": &file.sha256,
                "metadata": {"contentType": &file.media_type},
            };
            contents.files.entry(file.sha256.clone()).or_insert(row);
        })
    }

    async fn mark_content(
        &mut self,
        sha256: &str,
        from: Option<&ContentMark>,
        to: Option<&ContentMark>,
        length: Option<u64>,
    ) -> Result<bool> {
        self.carry(Some(sha256), |contents| {
            let Some(row) = contents.files.get_mut(sha256).filter(|row| mark_of(row).as_ref() == from) else {
                return false;
            };
            let mut metadata = row.get_document("metadata").cloned().unwrap_or_default();
            match to {
                Some(mark) => {
                    metadata.insert("suspect", doc! {"node": &mark.node, "seen": binary(&mark.seen)});
                }
                None => drop(metadata.remove("suspect")),
            }
            row.insert("metadata", metadata);
            if let Some(length) = length {
                row.insert("length", length as i64);
                row.insert("chunkSize", 65_536);
            }
            true
        })
    }
}
