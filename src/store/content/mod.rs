//! Floor 1. Hides attachments: their bytes in chunks, the records that name them, and the queues of attachments to
//! fetch, send or let go.
//!
//! - `attachment_reads`: reading attachments
//! - `attachments`: chunks and the tables that follow the records
//! - `content_check`: attachments compared with their names

mod attachment_reads;
mod attachments;
mod content_check;

pub use attachments::{CONTENT_TABLE, ContentsLeft, IdleContents, OwedContent, WantedContent};
