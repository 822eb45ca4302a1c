//! Floor 4. What all requests share: the store as requests have it, the settings of the API, and what is remembered between requests.
//!
//! - `app_state`: the state itself
//! - `client_store`: the store, without writes but by a right
//! - `known_accounts`: accounts that were looked up lately
//! - `settings`: the settings of the API
//! - `unsettled_rules`: access rules whose effect is not in the store yet

pub(super) mod app_state;
pub(super) mod client_store;
pub(super) mod known_accounts;
pub(super) mod settings;
pub(super) mod unsettled_rules;
