//! Floor 1. Hides what the reconciliation keeps: the outbox, open writes, refused records, positions in the change
//! feed, deliveries, and records that wait for a decision.
//!
//! - `abandoned_writes`: writes given up without an answer
//! - `delivered`: edits that were delivered under a former name
//! - `intents`: open writes
//! - `landed`: writes and reads since the last seal
//! - `outbox`: records that wait to be sent, and agreed versions
//! - `own_writes`: own writes that landed, and their echoes
//! - `pending_deletes`: deletes that have not reached the centre
//! - `refused`: refused records
//! - `rereads`: records to be read from the centre again
//! - `resync`: bringing together with a centre that was set back
//! - `undecided`: records that wait for a decision
//! - `unsent_versions`: unsent records as earlier processes left them
//! - `vanished`: records that vanished at the centre

mod abandoned_writes;
mod delivered;
mod intents;
mod landed;
mod outbox;
mod own_writes;
mod pending_deletes;
mod refused;
mod rereads;
mod resync;
mod undecided;
mod unsent_versions;
mod vanished;

#[cfg(test)]
pub(super) use delivered::boots_in;
pub(super) use delivered::last_boot;
pub use delivered::{Compared, Delivered, STORE_FIELD};
#[cfg(test)]
pub(super) use intents::decode_intent;
pub use intents::{Intent, IntentWrite, OpenWrite};
#[cfg(test)]
pub(super) use landed::is_sealing;
pub use landed::{Landing, Taken};
pub use outbox::Pending;
pub use own_writes::Sent;
pub use refused::{DeadLetter, NOT_ARCHIVED_CODE, UNREADABLE_CODE};
pub use rereads::Reread;
#[cfg(test)]
pub(super) use resync::{RestoreMode, own_in};
pub use undecided::{Undecided, WaitReason, Waiting};
#[cfg(test)]
pub(super) use unsent_versions::UnsentVersions;
pub use vanished::Vanished;
