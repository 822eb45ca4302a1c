//! Floor 4. The reconciliation with the centre as people see it: its status, and all that waits for a decision.
//!
//! - `conflict_decision`: what a decision says, and who may make it
//! - `conflict_list`: the list of conflicts
//! - `conflict_rights`: who may know of a conflict
//! - `conflict_trials`: what many decisions would do
//! - `conflict_view`: a conflict as JSON
//! - `conflicts`: one conflict: seeing it, deciding
//! - `identity_holds`: two people under one account
//! - `refused_records`: records that the centre refused
//! - `standing_questions`: questions that the records themselves ask
//! - `status`: status, rounds, pause
//! - `trash`: deleted records
//! - `waiting_records`: records that wait

pub(super) mod conflict_decision;
pub(super) mod conflict_list;
pub(super) mod conflict_rights;
pub mod conflict_trials;
pub(super) mod conflict_view;
pub(super) mod conflicts;
pub(super) mod identity_holds;
pub(super) mod refused_records;
pub(super) mod standing_questions;
pub(super) mod status;
pub(super) mod trash;
pub(super) mod waiting_records;
