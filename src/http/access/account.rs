//! Floor 4. Accounts: the names that mean them, their stored documents, and the right to administer them.

use bson::Document;

use crate::domain::access::{Acl, Actor, LOCAL_SUFFIX, Principal, Verb, local_name};
use crate::domain::audit::ACCOUNT_KIND;
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::http::error::ApiError;
use crate::http::state::app_state::AppState;
use crate::store::{StoreError, Tx};

/// Space that a change of an account needs, roughly.
pub(crate) const ACCOUNT_BYTES: u64 = 4096;

/// Whose account it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Account {
    /// A technician's, of this node only; by the name without its ending.
    Local(String),
    Person(String),
}

impl Account {
    pub(crate) fn named(id: &str) -> Account {
        match local_name(id) {
            Some(name) => Account::Local(fold_local(name)),
            None => Account::Person(fold_account(id)),
        }
    }

    /// Whom it lets in.
    pub(crate) fn actor(&self) -> Actor {
        match self {
            Account::Local(name) => Actor::Local(name.clone()),
            Account::Person(id) => Actor::Person(id.clone()),
        }
    }

    /// What the audit trail calls it, and whose it is there.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Account::Local(_) => ACCOUNT_KIND,
            Account::Person(_) => Kind::Person.schema().collection,
        }
    }

    pub(crate) fn owner(&self) -> Option<&str> {
        match self {
            Account::Local(_) => None,
            Account::Person(id) => Some(id),
        }
    }
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Account::Local(name) => write!(f, "{name}{LOCAL_SUFFIX}"),
            Account::Person(id) => f.write_str(id),
        }
    }
}

/// The name in a role with `global`, and to be root or the operator.
pub(crate) fn may_administer(node: &AppState, who: &Principal, verb: Verb) -> Result<(), ApiError> {
    may_administer_by(&node.acl(), who, verb)
}

/// The same by these access rules.
pub(crate) fn may_administer_by(acl: &Acl, who: &Principal, verb: Verb) -> Result<(), ApiError> {
    acl.authorize_global(who, verb, "users")?;
    if who.administers() { Ok(()) } else { Err(ApiError::Forbidden) }
}

pub(crate) fn unknown() -> ApiError {
    ApiError::NotFound("User not found".into())
}

/// Gives an account this password; false if there is no such account.
pub(crate) fn store_password(
    tx: &mut Tx<'_>,
    account: &Account,
    hash: &str,
    actor: &Actor,
) -> Result<bool, StoreError> {
    change_account(tx, account, actor, |document| drop(document.insert("password", hash)))
}

/// Changes the document that an account is; false if there is no such account.
pub(crate) fn change_account(
    tx: &mut Tx<'_>,
    account: &Account,
    actor: &Actor,
    change: impl FnOnce(&mut Document),
) -> Result<bool, StoreError> {
    let Some(mut document) = document_of(tx, account)? else {
        return Ok(false);
    };
    change(&mut document);
    match account {
        Account::Local(name) => {
            let name = tx.resolve_local_account(name)?.unwrap_or_else(|| name.clone());
            tx.set_local_account(&name, Some(&document), actor)?;
        }
        Account::Person(id) => {
            let id = tx.resolve_person(id)?.unwrap_or_else(|| id.clone());
            tx.edit(&RecordKey::new(Kind::Person, id), Some(&document), actor)?;
        }
    }
    Ok(true)
}

/// The document that an account is.
pub(crate) fn document_of(tx: &Tx<'_>, account: &Account) -> Result<Option<Document>, StoreError> {
    match account {
        Account::Local(name) => match tx.resolve_local_account(name)? {
            Some(name) => tx.local_account(&name),
            None => Ok(None),
        },
        Account::Person(id) => match tx.resolve_person(id)? {
            Some(id) => tx.document(&RecordKey::new(Kind::Person, id)),
            None => Ok(None),
        },
    }
}

/// The spelling in which a technician's account is stored: any is the same account.
pub fn fold_local(name: &str) -> String {
    name.to_ascii_lowercase()
}
