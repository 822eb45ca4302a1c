//! Floor 4. Who asks, and what they may do now: the caller of a request, their account as it is stored, and their rights at the moment
//! of effect.
//!
//! - `account`: which account a name means
//! - `account_lookup`: accounts as they are in the store
//! - `caller`: the caller of a request
//! - `kept_values`: who may read what is kept of a record
//! - `request_body`: the body, if the caller may still send it
//! - `rights`: rights at the moment of effect
//! - `write_quota`: how much an account may write

pub(super) mod account;
pub(super) mod account_lookup;
pub(super) mod caller;
pub(super) mod kept_values;
pub(super) mod request_body;
pub(super) mod rights;
pub(super) mod write_quota;
