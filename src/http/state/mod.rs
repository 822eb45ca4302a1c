//! Floor 4. The state that all requests share: the store, the settings of the API, and caches.
//!
//! - `app_state`: the fields of the state
//! - `client_store`: the store: read by everyone, written only with a right
//! - `known_accounts`: cache of accounts by login name
//! - `settings`: the settings of the API
//! - `unsettled_rules`: access rules whose effect is not stored yet

pub(super) mod app_state;
pub(super) mod client_store;
pub(super) mod known_accounts;
pub(super) mod settings;
pub(super) mod unsettled_rules;
