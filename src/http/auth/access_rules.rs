//! Floor 4. Puts access rules into force, and ends what the former rules have allowed.

use std::sync::{Arc, PoisonError};

use crate::domain::access::Acl;
use crate::http::auth::links::end_disallowed;
use crate::http::state::app_state::AppState;
use crate::http::state::unsettled_rules::Unsettled;
use crate::store::{StoreError, Tx};

impl AppState {
    /// Puts these access rules into force. Unless they are the same as those before, what was made by the former rules and
    /// is kept is over for good, also if they come back: emergencies, requests that are under way, and links whose makers
    /// may not make them any more. After an error that holds too, and is to be written by [`AppState::settle_rules`].
    pub async fn replace_rules(self: &Arc<Self>, acl: Acl) -> Result<(), StoreError> {
        {
            let mut rules = self.acl.write().unwrap_or_else(PoisonError::into_inner);
            if **rules != acl {
                let acl = Arc::new(acl);
                self.unsettled_rules.add(&acl, true);
                *rules = acl;
                // From this moment on, whether or not the store takes anything.
                self.accounts.openings().end_all();
            }
        }
        if !self.unsettled_rules.lock().is_empty() {
            self.mark_rules(true);
        }
        self.settle_rules().await
    }

    /// Says beside the store whether it is still to be told what access rules have ended.
    fn mark_rules(&self, are_unsettled: bool) {
        if let Err(error) = self.store.unguarded().set_rules_unsettled(are_unsettled) {
            tracing::error!(%error, "what access rules have ended may be forgotten if the node ends now");
        }
    }

    /// Ends what the access rules do not allow with which the node starts; they may have been other ones before.
    pub async fn begin_with_rules(self: &Arc<Self>) -> Result<(), StoreError> {
        if self.store.unguarded().are_rules_unsettled() {
            // Which rules they were is not known any more: what any may have ended is over.
            self.unsettled_rules.add(&Arc::new(Acl::without_roles()), true);
        }
        self.unsettled_rules.add(&self.acl(), false);
        self.settle_rules().await
    }

    /// Writes what access rules have ended, as far as that could not be written yet.
    pub async fn settle_rules(self: &Arc<Self>) -> Result<(), StoreError> {
        let unsettled = self.unsettled_rules.lock().clone();
        if unsettled.is_empty() {
            if self.store.unguarded().are_rules_unsettled() {
                self.mark_rules(false);
            }
            return Ok(());
        }
        let (node, ended) = (Arc::clone(self), unsettled.clone());
        let end = move |tx: &mut Tx<'_>| -> Result<(), StoreError> {
            if ended.iter().any(|unsettled| unsettled.are_others) {
                // Those that were opened since are open by the rules in force.
                tx.end_emergencies_but(&node.accounts.openings().open())?;
            }
            ended.iter().try_for_each(|unsettled| end_disallowed(&node, &unsettled.acl, tx))
        };
        if let Err(error) = self.store.unguarded().transact(end).await {
            // This process may end before it is.
            self.mark_rules(true);
            return Err(error);
        }
        let is_settled = |rules: &Unsettled| unsettled.iter().any(|done| Arc::ptr_eq(&done.acl, &rules.acl));
        let mut rest = self.unsettled_rules.lock();
        rest.retain(|rules| !is_settled(rules));
        if rest.is_empty() && self.store.unguarded().are_rules_unsettled() {
            self.mark_rules(false);
        }
        Ok(())
    }
}
