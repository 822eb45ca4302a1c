//! Floor 1. Hides what this node knows of accounts beside the records: roles granted here, accounts closed here,
//! emergency accesses, and when rights have changed.
//!
//! - `closed_accounts`: accounts that were closed here
//! - `deletable_people`: whether a person may be deleted
//! - `emergency`: emergency accesses that wait for a review
//! - `grants`: roles granted here
//! - `local_accounts`: reading grants and technicians' accounts
//! - `rights_count`: how often rights have changed
//! - `unsettled_rules`: a mark that access rules have ended something

mod closed_accounts;
mod deletable_people;
mod emergency;
mod grants;
mod local_accounts;
mod rights_count;
mod unsettled_rules;

pub use closed_accounts::{ActiveChange, ActiveChanges};
pub use deletable_people::Stays;
pub use emergency::{EmergencyError, under};
#[cfg(test)]
pub(super) use grants::Grant;
pub use grants::Granted;
