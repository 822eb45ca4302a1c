//! Floor 2. Attachments at the centre, as the lane that carries them sees them.
//!
//! Content lies there in the standard layout of GridFS, so that every driver and `mongofiles` can read it:
//! chunks by number, and a file row that says that all of them are there and is therefore written last. A
//! row's `_id` is the name of the content, the SHA-256 of its bytes. What stands under a name is thereby
//! given, so writing a chunk twice is no error, and nodes only ever add to what is there: the one exception
//! is a chunk that is not what the name says, which is replaced by comparing it.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::Result;

/// Bytes of a chunk's SHA-256 that stand for the chunk in a [`ContentMark`].
pub const DIGEST_BYTES: usize = 8;
/// Stands for a chunk that is missing, or not of the length that it should have.
pub const DIGEST_WRONG: [u8; DIGEST_BYTES] = [0; DIGEST_BYTES];
/// Stands for a chunk that was not looked at.
pub const DIGEST_UNSEEN: [u8; DIGEST_BYTES] = [0xff; DIGEST_BYTES];

/// The row of `fs.files` that says that content is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentFile {
    pub sha256: String,
    /// In bytes; `None` if the row does not say.
    pub length: Option<u64>,
    /// Size of its chunks; `None` if the row does not say. Nodes write 64 KiB, other programs as they like.
    pub chunk_bytes: Option<u64>,
    /// Somebody found it not to be what its name says.
    pub is_marked: bool,
}

/// What a new row of `fs.files` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewContentFile {
    pub sha256: String,
    pub length: u64,
    pub media_type: String,
    /// Milliseconds since 1970, for people.
    pub uploaded_at_ms: i64,
}

/// A note in the row of `fs.files` that the content did not come out right: who found that, and what they
/// saw, so that whoever holds the right bytes need not fetch the wrong ones to find which they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentMark {
    pub node: String,
    /// [`DIGEST_BYTES`] for every chunk, in order.
    pub seen: Vec<u8>,
}

/// The part of a conversation that is about attachments.
#[async_trait]
pub trait Attachments: Send + Sync {
    /// The rows of `fs.files` that exist among `names`, in any order.
    async fn content_files(&mut self, names: &[String]) -> Result<Vec<ContentFile>>;

    /// Up to `max` rows of `fs.files` whose `_id` is no string, as relaxed extended JSON of the `_id`.
    async fn unsupported_content_ids(&mut self, max: usize) -> Result<Vec<String>>;

    /// Names of marked content, at most `max`.
    async fn marked_contents(&mut self, max: usize) -> Result<Vec<String>>;

    /// The mark of a row of `fs.files`, if there is one.
    async fn content_mark(&mut self, sha256: &str) -> Result<Option<ContentMark>>;

    /// The length of every chunk that is there, whether or not the content is complete; `None` where a
    /// chunk holds no bytes.
    async fn content_chunk_lengths(&mut self, sha256: &str) -> Result<BTreeMap<u64, Option<u64>>>;

    /// The chunks with these numbers that exist and hold bytes, in order.
    async fn content_chunks(&mut self, sha256: &str, first: u64, count: u64) -> Result<Vec<(u64, Vec<u8>)>>;

    /// Adds chunks; one that is there already stays as it is. Returns when all are durable.
    async fn add_content_chunks(&mut self, sha256: &str, chunks: &[(u64, Vec<u8>)]) -> Result<()>;

    /// Puts `to` into the place of a chunk that holds `from` (`None`: no bytes); false if it holds
    /// something else, or is not there.
    async fn replace_content_chunk(
        &mut self,
        sha256: &str,
        number: u64,
        from: Option<&[u8]>,
        to: &[u8],
    ) -> Result<bool>;

    /// Adds the row that says that content is complete; one that is there already stays as it is.
    async fn add_content_file(&mut self, file: &NewContentFile) -> Result<()>;

    /// Sets or removes the mark of a row of `fs.files` if that still has the mark `from`; with a length,
    /// the row says from now on that the content is so long and has chunks of 64 KiB. False if the row has
    /// another mark, or is not there.
    async fn mark_content(
        &mut self,
        sha256: &str,
        from: Option<&ContentMark>,
        to: Option<&ContentMark>,
        length: Option<u64>,
    ) -> Result<bool>;
}

/// Collections of the standard layout, in the database of the records.
pub const FILES_COLLECTION: &str = "fs.files";
pub const CHUNKS_COLLECTION: &str = "fs.chunks";
