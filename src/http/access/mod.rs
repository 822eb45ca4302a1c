//! Floor 4. The caller of a request: their stored account, their compares the caller's rights again when a request takes effect, and their quota of writes.
//!
//! - `account`: accounts: names, stored documents, administrators
//! - `account_lookup`: finds an account in the store, with its roles
//! - `caller`: the caller of a request
//! - `kept_values`: rights to values kept from former versions of records
//! - `request_body`: the body of a request, as handlers take it
//! - `rights`: compares the caller's rights again when a request takes effect
//! - `write_quota`: limits of writes and bytes per account

pub(super) mod account;
pub(super) mod account_lookup;
pub(super) mod caller;
pub(super) mod kept_values;
pub(super) mod request_body;
pub(super) mod rights;
pub(super) mod write_quota;
