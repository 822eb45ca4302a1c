//! Floor 1. Hides the bodies of deleted records: kept with the delete, listed, trimmed by age, and put back only for
//! their own person.
//!
//! - `deleted_bodies`: rows of the trash
//! - `deletion`: the delete of a record, as far as the store remembers it
//! - `owner_doubt`: whether a record that comes again may be another person's
//! - `trash_age`: how long bodies are kept
//! - `undelete`: making a record again

mod deleted_bodies;
mod deletion;
mod owner_doubt;
mod trash_age;
mod undelete;

pub use deleted_bodies::{TrashPage, TrashRow, TrashState, TrashSummary};
pub(super) use deleted_bodies::{index_trash, key_of};
pub use deletion::Deletion;
pub use owner_doubt::{FormerHolders, OwnerDoubt};
#[cfg(test)]
pub(super) use trash_age::TrashAge;
pub(crate) use undelete::Return;
pub use undelete::UndeleteError;
