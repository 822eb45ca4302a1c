//! Floor 4. Finds accounts in the store, with the roles that count on this node.

use std::sync::Arc;

use bson::RawDocument;

use crate::accounts::StoredAccount;
use crate::domain::access::{Actor, Principal, local_name};
use crate::domain::active::{Closing, is_active, is_active_raw, is_open_here};
use crate::domain::record::{Kind, RecordKey};
use crate::domain::schema::is_account;
use crate::http::state::app_state::AppState;
use crate::store::{Granted, Snapshot, StoreError, Tx};

/// [`find_account`], without looking again for what is the same for as long as nothing is written: that costs a
/// quarter of what answering with a record does.
pub(crate) fn known_account(node: &AppState, user: &str) -> Result<Option<StoredAccount>, StoreError> {
    let view = node.store.read()?;
    let found = match node.known_accounts.get(&view, user) {
        Some(seen) => seen,
        None => {
            let found = account_of(node, &view, &login_name(user))?;
            node.known_accounts.insert(&view, user, found.as_ref());
            found
        }
    };
    found.map(|account| at_present(node, &view, account)).transpose()
}

/// The account of this name as it is now, with the roles that count on this node.
pub(crate) fn find_account(node: &AppState, user: &str) -> Result<Option<StoredAccount>, StoreError> {
    let view = node.store.read()?;
    account_of(node, &view, &login_name(user))?.map(|account| at_present(node, &view, account)).transpose()
}

/// Whose account a name means that somebody typed.
fn login_name(user: &str) -> Actor {
    match local_name(user) {
        Some(name) => Actor::Local(name.to_owned()),
        None => Actor::Person(user.to_owned()),
    }
}

/// The account at this moment: a person's is as if closed while the centre has not been heard for too long. Not part of
/// what is remembered of a view, because time passes while nothing is written.
pub(crate) fn at_present(
    node: &AppState,
    view: &Snapshot,
    account: StoredAccount,
) -> Result<StoredAccount, StoreError> {
    let active = account.active && is_admitted(node, view, &account.principal.actor)?;
    Ok(StoredAccount { active, ..account })
}

/// Whether an account of this kind lets in while the centre has not been heard for so long: technicians' always do.
pub(crate) fn is_admitted(node: &AppState, view: &Snapshot, actor: &Actor) -> Result<bool, StoreError> {
    Ok(!matches!(actor, Actor::Person(_)) || node.sync.admits_people(view)?)
}

/// An account as a view of the store holds it; `None` if there is none, or nobody can log in with it.
pub(crate) fn account_of(
    node: &AppState,
    snapshot: &Snapshot,
    actor: &Actor,
) -> Result<Option<StoredAccount>, StoreError> {
    match actor {
        Actor::Local(name) => {
            let Some(name) = snapshot.resolve_local_account(name)? else {
                return Ok(None);
            };
            let count = snapshot.rights_count(actor)?;
            Ok(snapshot.local_account(&name)?.map(|account| local_account(name, &account, count)))
        }
        Actor::Person(id) if is_account(id) => {
            let Some((id, mut fields)) =
                snapshot.look(Kind::Person, id, |id, person| (id.to_owned(), AccountFields::of(person)))?
            else {
                return Ok(None);
            };
            fields.active = is_open(node, fields.active, || snapshot.closing(&id))?;
            let granted = snapshot.grants(&id, fields.password_hash())?;
            let shares_account = snapshot.is_shared(&id)?;
            let count = snapshot.rights_count(actor)?;
            Ok(Some(fields.account(node, id, &granted, shares_account, count)))
        }
        _ => Ok(None),
    }
}

/// [`account_of`] in a transaction.
pub(crate) fn account_in_tx(
    node: &AppState,
    tx: &Tx<'_>,
    actor: &Actor,
) -> Result<Option<StoredAccount>, StoreError> {
    match actor {
        Actor::Local(name) => {
            let Some(name) = tx.resolve_local_account(name)? else {
                return Ok(None);
            };
            let count = tx.rights_count(actor)?;
            Ok(tx.local_account(&name)?.map(|account| local_account(name, &account, count)))
        }
        Actor::Person(id) if is_account(id) => {
            let Some(id) = tx.resolve_person(id)? else {
                return Ok(None);
            };
            let Some(mut fields) = tx.look(&RecordKey::new(Kind::Person, id.as_str()), AccountFields::of)?
            else {
                return Ok(None);
            };
            fields.active = is_open(node, fields.active, || tx.closing(&id))?;
            let granted = tx.grants_of(&id, fields.password_hash())?;
            let shares_account = tx.is_shared(&id)?;
            let count = tx.rights_count(actor)?;
            Ok(Some(fields.account(node, id, &granted, shares_account, count)))
        }
        _ => Ok(None),
    }
}

/// What the record of a person says about their account. Read from it as it lies there: this is done for every request,
/// and a record may have 16 MiB.
struct AccountFields {
    password_hash: Option<Arc<str>>,
    roles: Vec<String>,
    active: bool,
}

impl AccountFields {
    fn of(person: &RawDocument) -> AccountFields {
        let roles = person.get_array("roles").ok();
        let roles = roles.into_iter().flatten().flatten();
        AccountFields {
            password_hash: person.get_str("password").ok().map(Arc::from),
            roles: roles.filter_map(|role| role.as_str().map(str::to_owned)).collect(),
            active: is_active_raw(person),
        }
    }

    fn password_hash(&self) -> &str {
        self.password_hash.as_deref().unwrap_or_default()
    }

    /// `granted`: roles that count because they were given on this node.
    fn account(
        self,
        node: &AppState,
        id: String,
        granted: &Granted,
        shares_account: bool,
        rights_count: u64,
    ) -> StoredAccount {
        let AccountFields { password_hash, roles, active } = self;
        let roles = granted.counting(roles, &node.settings.central_roles);
        let principal = Arc::new(Principal { actor: Actor::Person(id), roles, shares_account });
        StoredAccount { password_hash, active, principal, rights_count }
    }
}

fn local_account(name: String, account: &bson::Document, rights_count: u64) -> StoredAccount {
    StoredAccount {
        principal: Arc::new(Principal::new(Actor::Local(name), strings(account.get("roles")))),
        password_hash: account.get_str("password").ok().map(Arc::from),
        active: is_active(account),
        rights_count,
    }
}

/// Whether a person's account is open here, by its record and by how it was closed here: [`is_open_here`].
pub(crate) fn is_open(
    node: &AppState,
    is_active: bool,
    closing: impl FnOnce() -> Result<Option<Closing>, StoreError>,
) -> Result<bool, StoreError> {
    Ok(is_open_here(node.settings.active_from_centre, is_active, closing()?))
}

/// The account of a caller who has been let in, as it is now.
pub(crate) fn account_now(node: &AppState, actor: &Actor) -> Result<Option<StoredAccount>, StoreError> {
    let view = node.store.read()?;
    account_of(node, &view, actor)?.map(|account| at_present(node, &view, account)).transpose()
}

/// The strings of a stored list; anything else there grants nothing.
pub(crate) fn strings(value: Option<&bson::Bson>) -> Vec<String> {
    let values = value.and_then(bson::Bson::as_array).map_or(&[][..], |values| values);
    values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
}
