//! Floor 1. What counts on this node only: roles that were granted here, and technicians' accounts.

use bson::{Document, doc};
use sha2::{Digest, Sha256};

use crate::domain::access::Actor;
use crate::domain::audit::{ACCOUNT_KIND, Event, What};
use crate::domain::diff::changed_paths;
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::store::engine::Tx;
use crate::store::error::StoreError;
use crate::store::rows::{Fields, decode, encode};

/// The roles that a person was granted on this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Granted {
    /// Count as long as the person's record names them too: they were given by a change of the record.
    pub of_record: Vec<String>,
    /// Count whatever the record says, which has never been told of them.
    pub here: Vec<String>,
}

/// A row of grants.
#[derive(Debug)]
pub(crate) struct Grant {
    granted: Granted,
    /// Id of the record that it was given to. A row of an early version, which noted neither this nor the password, grants
    /// nothing.
    id: Option<String>,
    /// Digest of the hash of the password that was set here.
    password: Option<String>,
}

impl Grant {
    pub(in crate::store) fn decode(row: &[u8]) -> Result<Grant, StoreError> {
        let row = Fields::of(row, "what was granted to a person")?;
        let granted = Granted { of_record: row.texts("roles")?, here: row.texts_if_any(HERE)? };
        let text = |field: &str| Ok::<_, StoreError>(row.text_if_any(field)?.map(str::to_owned));
        Ok(Grant { granted, id: text("id")?, password: text("password")? })
    }

    /// Whether it was given to the record with this id and this stored hash of a password.
    fn is_for(&self, id: &str, password_hash: &str) -> bool {
        self.id.as_deref() == Some(id) && self.password == Some(password_digest(password_hash))
    }

    /// What it grants to them.
    pub(in crate::store) fn granted_to(self, id: &str, password_hash: &str) -> Granted {
        if self.is_for(id, password_hash) { self.granted } else { Granted::default() }
    }
}

impl Granted {
    pub fn is_empty(&self) -> bool {
        self.of_record.is_empty() && self.here.is_empty()
    }

    pub fn has(&self, role: &str) -> bool {
        self.of_record.iter().chain(&self.here).any(|known| known == role)
    }

    /// The roles that count here of a person whose record names `roles`: those that count from any record (`central`), and
    /// those that were granted.
    pub fn counting(&self, mut roles: Vec<String>, central: &[String]) -> Vec<String> {
        roles.retain(|role| central.contains(role) || self.has(role));
        let added: Vec<String> = self.here.iter().filter(|role| !roles.contains(role)).cloned().collect();
        roles.extend(added);
        roles
    }
}

const HERE: &str = "here";

impl Tx<'_> {
    /// Sets the roles of a person's record that count because they were given on this node, as the record is now. Roles
    /// that the record was never told of stay.
    pub fn set_grants(&mut self, id: &str, roles: &[String], actor: &Actor) -> Result<(), StoreError> {
        let person = self.document(&RecordKey::new(Kind::Person, id))?.unwrap_or_default();
        let here = self.grants_of(id, password_of(&person))?.here;
        self.replace_grants(id, &Granted { of_record: roles.to_vec(), here }, actor)
    }

    /// Sets all roles that a person was granted on this node, as the record is now; none removes them.
    pub fn replace_grants(&mut self, id: &str, granted: &Granted, actor: &Actor) -> Result<(), StoreError> {
        let account = fold_account(id);
        let known = self.grant(&account)?.map(|grant| grant.granted).unwrap_or_default();
        // Also the same roles again: what was granted may not count any more.
        if !known.is_empty() || !granted.is_empty() {
            let event = Event::new(What::Grant, actor).at(self.asked_from());
            let collection = Kind::Person.schema().collection;
            let roles = [&granted.of_record[..], &granted.here].concat().join(", ");
            self.audit(event.about(collection, id, Some(&account)).saying(&roles))?;
        }
        self.write_grants(id, granted)
    }

    /// Roles granted on this node to the person with this id and this stored hash of a password.
    pub fn grants_of(&self, id: &str, password_hash: &str) -> Result<Granted, StoreError> {
        let grant = self.grant(&fold_account(id))?;
        Ok(grant.map(|grant| grant.granted_to(id, password_hash)).unwrap_or_default())
    }

    fn grant(&self, account: &str) -> Result<Option<Grant>, StoreError> {
        self.grants.get(account)?.map(|row| Grant::decode(row.value())).transpose()
    }

    fn write_grants(&mut self, id: &str, granted: &Granted) -> Result<(), StoreError> {
        let account = fold_account(id);
        let is_none = granted.is_empty() && self.grants.get(account.as_str())?.is_none();
        if !is_none {
            self.rights_changed(&Actor::Person(id.to_owned()))?;
        }
        if granted.is_empty() {
            self.grants.remove(account.as_str())?;
        } else {
            let person = self.document(&RecordKey::new(Kind::Person, id))?.unwrap_or_default();
            let password = password_digest(password_of(&person));
            let mut row = doc! {"roles": &granted.of_record, "id": id, "password": password};
            if !granted.here.is_empty() {
                row.insert(HERE, &granted.here);
            }
            self.grants.insert(account.as_str(), encode(&row)?.as_slice())?;
        }
        self.wrote();
        Ok(())
    }

    /// Roles granted to a person go with them to their new id, under which they are stored already.
    pub fn move_grants(&mut self, from: &str, old: &Document, to: &str) -> Result<(), StoreError> {
        let grant = self.grant(&fold_account(from))?;
        let Some(grant) = grant.filter(|grant| grant.is_for(from, password_of(old))) else {
            return Ok(());
        };
        self.write_grants(from, &Granted::default())?;
        self.write_grants(to, &grant.granted)
    }

    /// Granted roles stay with a person whose password is changed on this node.
    pub(crate) fn carry_grants(
        &mut self,
        key: &RecordKey,
        old: Option<&Document>,
        new: Option<&Document>,
    ) -> Result<(), StoreError> {
        let (Kind::Person, Some(old), Some(new)) = (key.kind, old, new) else {
            return Ok(());
        };
        let grant = self.grant(&fold_account(&key.id))?;
        let Some(grant) = grant.filter(|grant| grant.is_for(&key.id, password_of(old))) else {
            return Ok(());
        };
        if password_of(old) == password_of(new) {
            return Ok(());
        }
        self.write_grants(&key.id, &grant.granted)
    }

    /// A technician's account of this node.
    pub fn local_account(&self, name: &str) -> Result<Option<Document>, StoreError> {
        self.local_accounts.get(name)?.map(|row| decode(row.value())).transpose()
    }

    /// The name under which a technician's account is stored that is called so in some spelling.
    pub fn resolve_local_account(&self, name: &str) -> Result<Option<String>, StoreError> {
        if self.local_accounts.get(name)?.is_some() {
            return Ok(Some(name.to_owned()));
        }
        let mut names = Vec::new();
        for entry in self.local_accounts.iter()? {
            names.push(entry?.0.value().to_owned());
        }
        Ok(alike(names, name))
    }

    /// Sets or removes a technician's account.
    pub fn set_local_account(
        &mut self,
        name: &str,
        account: Option<&Document>,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        let paths = changed_paths(self.local_account(name)?.as_ref(), account);
        let event = Event::new(What::Account, actor).at(self.asked_from());
        let owner = Actor::Local(name.to_owned());
        let shown = owner.login_name().unwrap_or_default();
        self.audit(event.about(ACCOUNT_KIND, &shown, None).changing(&paths))?;
        self.rights_changed(&owner)?;
        match account {
            Some(account) => self.local_accounts.insert(name, encode(account)?.as_slice())?,
            None => {
                self.local_accounts.remove(name)?;
            }
        }
        self.wrote();
        Ok(())
    }
}

/// The name that is the same but for capitals. Stores of earlier versions may hold two: then the one in small letters.
pub(crate) fn alike(names: Vec<String>, name: &str) -> Option<String> {
    let mut alike: Vec<String> = names.into_iter().filter(|known| known.eq_ignore_ascii_case(name)).collect();
    alike.sort_by_key(|known| known.bytes().any(|byte| byte.is_ascii_uppercase()));
    alike.into_iter().next()
}

/// The stored hash of a person's password; empty if they have none.
pub(crate) fn password_of(person: &Document) -> &str {
    person.get_str("password").unwrap_or_default()
}

fn password_digest(password_hash: &str) -> String {
    hex::encode(Sha256::digest(password_hash))
}
