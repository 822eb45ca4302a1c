//! Floor 2. Passwords: what may become one, and what it costs to compare one.
//!
//! Hides bcrypt: the forms of a password that are compared, the threads that compute, and what was compared lately.
//!
//! - `rules`: what a new password must be, and which hashes are verified
//! - `spellings`: one password in the bytes that keyboards and clients have for it
//! - `cache`: credentials that were verified a moment ago
//! - `costs`: what a login costs for a name that nobody has
//! - `pool`: the threads that compute, and the fair, bounded queue before them

mod cache;
mod costs;
mod pool;
mod rules;
mod spellings;

pub(super) use cache::{Cache, Credential, CredentialKey};
pub(super) use costs::Costs;
pub(super) use pool::{Full, Pool};
#[cfg(test)]
pub(super) use pool::{WAITING_PER_PEER_MAX, WAITING_TOTAL_MAX};
pub use rules::{
    BCRYPT_COST_DEFAULT, BCRYPT_COST_MAX, BCRYPT_COST_MIN, PASSWORD_BYTES_MAX, PASSWORD_CHARS_MAX,
    PASSWORD_CHARS_MIN_DEFAULT, PUBLIC_PASSWORD_HASHES, is_acceptable_hash,
};
pub(super) use rules::{check_new, cost_of, dummy_hash};
pub use spellings::canonical;
pub(super) use spellings::spellings;
