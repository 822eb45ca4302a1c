//! Floor 4. Administration of the node: accounts, the audit trail, backups.
//!
//! - `account_list`: `GET /users`
//! - `audit_trail`: `GET /audit`
//! - `backups`: `POST /backups`
//! - `users`: adds and changes accounts

pub(super) mod account_list;
pub(super) mod audit_trail;
pub(super) mod backups;
pub(super) mod users;
