//! Floor 4. Records of every kind in the schema: read, listed, written, with their attachments, and the feed of their changes.
//!
//! - `change_feed`: `GET /changes`
//! - `content`: attachments: upload and download
//! - `damage`: tells how many damaged records a list leaves out
//! - `etag`: entity tags and conditions
//! - `item`: the record that a path names
//! - `list`: collections
//! - `list_pieces`: the text of a list, piece by piece
//! - `media_type`: media types and file names of attachments
//! - `read`: one record
//! - `render`: the JSON text of a record
//! - `write`: create, patch, replace, delete
//! - `write_body`: parses the body of a write and limits the record's size

pub(super) mod change_feed;
pub(super) mod content;
pub(super) mod damage;
pub(super) mod etag;
pub(super) mod item;
pub(super) mod list;
pub(super) mod list_pieces;
pub(super) mod media_type;
pub(super) mod read;
pub(super) mod render;
pub(super) mod write;
pub(super) mod write_body;
