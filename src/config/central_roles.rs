//! Floor 5. Roles that count when they come from the centre: what there is to say about `accounts.central_roles`.

use super::Loaded;
use crate::domain::access::{Acl, END_USER};

const KEY: &str = "accounts.central_roles";

impl Loaded {
    /// Roles that are to count when they come from the centre, but that mean nothing here.
    pub(super) fn unknown_roles(&self, acl: &Acl) -> Option<String> {
        let unknown: Vec<String> = self
            .config
            .accounts
            .central_roles
            .iter()
            .filter(|role| !acl.knows_role(role))
            .map(|role| format!("{role:?}"))
            .collect();
        // The default need not fit other rules.
        (self.origins.has(KEY) && !unknown.is_empty()).then(|| {
            format!(
                "`{KEY}` names {}, which the access rules do not know; there are {}",
                unknown.join(", "),
                acl.role_names().join(", ")
            )
        })
    }

    /// Says that the centre gives roles, and what to do about it, where nobody has decided that it shall: at a Thalamus
    /// people can write their own. `None` without a centre.
    pub fn open_central_roles(&self) -> Option<(String, String)> {
        let roles = &self.config.accounts.central_roles;
        let given = roles.iter().find(|role| *role != END_USER)?;
        // An address that cannot be read is one.
        if self.origins.has(KEY) || matches!(self.config.centre(), Ok(None)) {
            return None;
        }
        let finding = format!(
            "`{KEY}` is not set, so a {given} at the centre is one here: at a Thalamus every patient can make themselves one, \
             and would read everybody's records here"
        );
        let remedy = format!(
            "beside a Thalamus set it to [{END_USER:?}], and give staff their role on this node (thalamus-edge user add \
             ACCOUNT --role {given}); where no Thalamus writes to the centre, set it to {roles:?}"
        );
        Some((finding, remedy))
    }
}
