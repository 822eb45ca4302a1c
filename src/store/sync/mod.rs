//! Floor 1. Hides what the reconciliation keeps: the outbox, open writes, refused records, positions in the change
//! feed, deliveries, and records that wait for a decision.
//!
//! - `delivered`: edits that were delivered under a former name
//! - `feed`: records to be read again, own writes and echoes
//! - `intents`: open writes and refused records
//! - `landed`: writes and reads since the last seal
//! - `outbox`: records that wait to be sent
//! - `resync`: bringing together with a centre that was set back
//! - `undecided`: records that wait for a decision
//! - `unsent_versions`: unsent records as earlier processes left them

mod delivered;
mod feed;
mod intents;
mod landed;
mod outbox;
mod resync;
mod undecided;
mod unsent_versions;

#[cfg(test)]
pub(super) use delivered::boots_in;
pub(super) use delivered::last_boot;
pub use delivered::{Compared, Delivered, STORE_FIELD};
pub use feed::{Reread, Sent, Vanished};
#[cfg(test)]
pub(super) use intents::decode_intent;
pub use intents::{DeadLetter, Intent, IntentWrite, NOT_ARCHIVED_CODE, OpenWrite, Pending, UNREADABLE_CODE};
#[cfg(test)]
pub(super) use landed::is_sealing;
pub use landed::{Landing, Taken};
#[cfg(test)]
pub(super) use resync::{RestoreMode, own_in};
pub use undecided::{Undecided, WaitReason, Waiting};
#[cfg(test)]
pub(super) use unsent_versions::UnsentVersions;
