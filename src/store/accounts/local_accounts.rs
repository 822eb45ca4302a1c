//! Floor 1. Reads roles that were granted on this node, and technicians' accounts.

use bson::Document;

use super::grants::{Grant, Granted, alike};
use crate::domain::record::fold_account;
use crate::store::engine::Snapshot;
use crate::store::error::StoreError;
use crate::store::rows::decode;
use crate::store::schema::{GRANTS, LOCAL_ACCOUNTS};

impl Snapshot {
    /// Roles granted to an account on this node.
    ///
    /// They hold for the record that they were given to, with the password that was set here: whoever can
    /// write at the centre could otherwise give that account a password of their own.
    pub fn grants(&self, id: &str, password_hash: &str) -> Result<Granted, StoreError> {
        let grants = self.transaction.open_table(GRANTS)?;
        let Some(row) = grants.get(fold_account(id).as_str())? else {
            return Ok(Granted::default());
        };
        Ok(Grant::decode(row.value())?.granted_to(id, password_hash))
    }

    /// A technician's account of this node: `password` (a bcrypt hash) and `roles`.
    pub fn local_account(&self, name: &str) -> Result<Option<Document>, StoreError> {
        let accounts = self.transaction.open_table(LOCAL_ACCOUNTS)?;
        accounts.get(name)?.map(|row| decode(row.value())).transpose()
    }

    /// The name under which a technician's account is stored that is called so in some spelling.
    pub fn resolve_local_account(&self, name: &str) -> Result<Option<String>, StoreError> {
        if self.local_account(name)?.is_some() {
            return Ok(Some(name.to_owned()));
        }
        let names = self.local_accounts()?.into_iter().map(|(known, _)| known).collect();
        Ok(alike(names, name))
    }

    pub fn local_accounts(&self) -> Result<Vec<(String, Document)>, StoreError> {
        let accounts = self.transaction.open_table(LOCAL_ACCOUNTS)?;
        let mut all = Vec::new();
        for entry in accounts.iter()?.sound() {
            let (name, row) = entry?;
            all.push((name.value().to_owned(), decode(row.value())?));
        }
        Ok(all)
    }

    /// How many people have roles that were granted on this node.
    pub fn granted_count(&self) -> Result<u64, StoreError> {
        self.transaction.open_table(GRANTS)?.len()
    }
}
