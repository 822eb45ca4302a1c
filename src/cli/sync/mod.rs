//! Floor 5. Commands about the reconciliation with the centre.
//!
//! Hides the API's routes below `/sync`, and turns its JSON into text that says what to decide.
//!
//! - `rounds`: the `sync` command
//! - `conflicts`: the `conflicts` command; `conflict_batch` decides many, `conflict_text` shows them
//! - `refused`: the `dead` command

pub(crate) mod conflicts;
pub(crate) mod refused;
pub(crate) mod rounds;

mod conflict_batch;
mod conflict_text;
