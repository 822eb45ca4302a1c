//! Floor 4. What administrators of the node do: accounts, the audit trail, backups.
//!
//! - `account_list`: `GET /users`
//! - `audit_trail`: `GET /audit`
//! - `backups`: `POST /backups`
//! - `users`: adds and changes accounts

pub(super) mod account_list;
pub(super) mod audit_trail;
pub(super) mod backups;
pub(super) mod users;
