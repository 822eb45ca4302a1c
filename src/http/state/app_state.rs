//! Floor 4. The state that all requests share.

use std::sync::{Arc, RwLock};

use crate::accounts::Accounts;
use crate::backup::Backups;
use crate::domain::access::Acl;
use crate::http::state::client_store::ClientStore;
use crate::http::state::known_accounts::KnownAccounts;
use crate::http::state::settings::ApiSettings;
use crate::http::state::unsettled_rules::UnsettledRules;
use crate::sync::Reconciler;

/// Everything that requests share.
pub struct AppState {
    pub store: ClientStore,
    pub backups: Arc<Backups>,
    pub accounts: Arc<Accounts>,
    /// Filled by itself.
    pub known_accounts: KnownAccounts,
    /// Replaced by [`AppState::replace_rules`] alone.
    pub acl: RwLock<Arc<Acl>>,
    /// Filled by itself.
    pub unsettled_rules: UnsettledRules,
    pub settings: ApiSettings,
    pub sync: Arc<Reconciler>,
    /// Key of form tokens; made anew at every start.
    pub form_key: [u8; 32],
}

impl AppState {
    /// The access rules in force now.
    pub(crate) fn acl(&self) -> Arc<Acl> {
        match self.acl.read() {
            Ok(acl) => Arc::clone(&acl),
            Err(poisoned) => Arc::clone(&poisoned.into_inner()),
        }
    }
}
