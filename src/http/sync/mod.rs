//! Floor 4. The reconciliation with the centre over HTTP: its status, conflicts, refused and waiting records, and the trash.
//!
//! - `conflict_decision`: parses a decision and checks the right to make it
//! - `conflict_list`: the list of conflicts
//! - `conflict_rights`: rights to know of a conflict
//! - `conflict_trials`: tries many decisions without making them
//! - `conflict_view`: a conflict as JSON
//! - `conflicts`: shows and decides one conflict
//! - `identity_holds`: two people under one account: shows and decides
//! - `refused_records`: records that the centre refused
//! - `standing_questions`: accounts with two records, records without their person
//! - `status`: status, rounds, pause
//! - `trash`: deleted records
//! - `waiting_records`: records that wait to be sent

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
