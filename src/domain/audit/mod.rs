//! Floor 0. The audit trail: what an entry says, the bytes that its hash covers, and how a chain is checked.
//!
//! Every entry holds the hash of the one before, so none can be changed, taken out or put elsewhere without
//! breaking all that follow. What was cut off at the end, or written anew to the end, shows only against a head
//! that somebody else knows: see [`Verifier::expect`]. The encoding is described in `docs/SECURITY.md`; a change of it
//! needs a new [`HASH_TAG`].
//!
//! - `event`: what is audited
//! - `chain`: entries in their places, and the check of a chain
//! - `emergency`: how far emergency access reaches, and what a reason must be

pub mod emergency;

mod chain;
mod event;

pub use chain::{AuditError, Entry, HASH_TAG, Hash, Head, Times, Verdict, Verifier};
pub use event::{ACCOUNT_KIND, EVERYBODY, Event, Outcome, PATHS_MAX, TEXT_CHARS_MAX, What, owner_text};

#[cfg(test)]
mod tests;
