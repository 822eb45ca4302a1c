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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;

    /// At a Thalamus everybody can write their own roles. Who has decided is not asked again.
    #[test]
    fn roles_that_the_centre_gives_are_warned_about_until_somebody_decides() {
        const WARNING: &str = "`accounts.central_roles` is not set";
        let directory = TempDir::new().unwrap();
        let centre = "central.uri = \"mongodb://127.0.0.1/federation\"";
        for (keys, is_said) in [
            (String::new(), false),
            (centre.to_owned(), true),
            (format!("{centre}\naccounts.central_roles = [\"end_user\"]"), false),
            (format!("{centre}\naccounts.central_roles = [\"end_user\", \"health_professional\"]"), false),
        ] {
            let data_dir = directory.path().join("d");
            let text = format!("server.listen = \"127.0.0.1:0\"\ndata_dir = {data_dir:?}\n{keys}");
            let found = Loaded::of_text(Path::new("site.toml"), &text, std::iter::empty()).unwrap().examine();
            let said: Vec<_> = found.warnings.iter().filter(|warning| warning.contains(WARNING)).collect();
            assert_eq!(said.len(), usize::from(is_said), "{keys}: {said:?}");
            assert!(said.iter().all(|said| said.contains("set it to [\"end_user\"]")), "{said:?}");
        }
        let variable = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let env = [("THALAMUS_EDGE__ACCOUNTS__CENTRAL_ROLES", "[\"end_user\"]")].map(variable);
        let loaded = Loaded::of_text(Path::new("site.toml"), centre, env.into_iter()).unwrap();
        assert_eq!(loaded.open_central_roles(), None);
    }
}
