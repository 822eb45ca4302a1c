//! Floor 0. The access rules in force, and the grants that only they make.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use super::{Actor, Principal, rules};
use crate::domain::json::{JsonError, parse};
use crate::domain::record::Kind;
use crate::domain::record::schema::{NODE_ACL_NAMES, Owner, SCHEMAS};

/// The rules used when the configuration names no file; installed as `/etc/thalamus-edge/roles.cfg`.
pub const BUILT_IN_ROLES: &str = include_str!("../../../etc/roles.cfg");

/// What whoever runs commands on the machine may use: administration, but no patient record.
pub(super) const OPERATOR_NAMES: &[&str] =
    &["sync", "conflicts", "changes", "audit", "metrics", "users", "backups", "trash"];

/// A method of the API as `roles.cfg` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    Get,
    Post,
    Patch,
    Put,
    Delete,
}

impl Verb {
    pub const ALL: [Verb; 5] = [Verb::Get, Verb::Post, Verb::Patch, Verb::Put, Verb::Delete];

    pub fn name(self) -> &'static str {
        match self {
            Verb::Get => "GET",
            Verb::Post => "POST",
            Verb::Patch => "PATCH",
            Verb::Put => "PUT",
            Verb::Delete => "DELETE",
        }
    }

    /// The verb that governs an HTTP method; HEAD is a GET without a body.
    pub fn of_method(method: &str) -> Option<Verb> {
        match method {
            "HEAD" => Some(Verb::Get),
            other => Verb::ALL.into_iter().find(|verb| verb.name() == other),
        }
    }
}

/// Something in the rules that could not be read.
#[derive(Debug)]
pub struct AclFault {
    /// In the text, from 1.
    pub line: usize,
    /// Entry and key; absent if the text is no list of roles.
    pub key: Option<String>,
    /// The value as JSON; absent for text that may be anything.
    pub value: Option<String>,
    pub message: String,
    pub allowed: &'static str,
    pub example: &'static str,
}

impl fmt::Display for AclFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.key {
            Some(key) => write!(f, "{key}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// Rules that could not be read: everything that is wrong, at least one thing.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(AclFault::to_string).collect::<Vec<_>>().join("\n"))]
pub struct AclError(pub Vec<AclFault>);

/// The access rules in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl {
    pub(super) roles: BTreeMap<String, Permissions>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Permissions {
    pub(super) names: BTreeMap<Verb, BTreeSet<String>>,
    pub(super) global: bool,
    /// `global` is JSON's `true`, which Thalamus takes for no.
    pub(super) is_json_global: bool,
    /// What GET names may be read of one other person at a time, for a reason.
    pub(super) emergency: bool,
}

impl Acl {
    /// Reads `roles.cfg`. Also returns warnings about names that nothing here answers to.
    pub fn parse(text: &str) -> Result<(Acl, Vec<String>), AclError> {
        let rows: Vec<Value> =
            serde_json::from_str(text).map_err(|error| AclError(vec![rules::no_list(text, &error)]))?;
        let mut faults = Vec::new();
        let mut roles = BTreeMap::new();
        let mut warnings = Vec::new();
        // Of a key that stands twice the last one counts, as in Thalamus; who reads the file may see the first.
        if let Err(JsonError::Invalid { message, .. }) = parse(text.as_bytes()) {
            warnings.push(message);
        }
        for (index, row) in rows.iter().enumerate() {
            let reader = rules::Reader { text, index };
            let (role, given) = match reader.row(row, &mut warnings) {
                Ok(read) => read,
                Err(fault) => {
                    faults.push(fault);
                    continue;
                }
            };
            let permissions = parse_permissions(&reader, role, given, &mut warnings, &mut faults);
            if roles.insert(role.to_owned(), permissions).is_some() {
                faults.push(reader.twice(role));
            }
        }
        if !faults.is_empty() {
            return Err(AclError(faults));
        }
        let mut acl = Acl { roles };
        warnings.extend(acl.complete_root());
        Ok((acl, warnings))
    }

    /// Nobody may do anything.
    pub(crate) fn without_roles() -> Acl {
        Acl { roles: BTreeMap::new() }
    }

    pub fn built_in() -> Acl {
        match Acl::parse(BUILT_IN_ROLES) {
            Ok((acl, _)) => acl,
            // The text is part of the program, and a test parses it.
            Err(_) => Acl::without_roles(),
        }
    }

    pub fn knows_role(&self, role: &str) -> bool {
        self.roles.contains_key(role)
    }

    /// The names of all roles, in order.
    pub fn role_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.roles.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// Whether any role may read the records of others in an emergency.
    pub fn knows_emergencies(&self) -> bool {
        self.roles.values().any(|role| role.emergency)
    }

    /// Whether `who` may read, under this name, what belongs to somebody else, once they have said why.
    pub fn may_open(&self, who: &Principal, acl_name: &str) -> bool {
        let named =
            |role: &Permissions| role.names.get(&Verb::Get).is_some_and(|names| names.contains(acl_name));
        let mut roles = who.roles.iter().filter_map(|role| self.roles.get(role));
        roles.any(|role| role.emergency && named(role))
    }

    /// Whether a role of theirs reaches the records of everybody.
    pub fn reaches_everybody(&self, who: &Principal) -> bool {
        who.roles.iter().filter_map(|role| self.roles.get(role)).any(|role| role.global)
    }

    /// What the roles of a principal add up to for one name and verb.
    pub(super) fn reach(&self, who: &Principal, verb: Verb, acl_name: &str) -> Option<Scope> {
        // Every account may log in; the access files of older Thalamus versions do not name it.
        if acl_name == "login" && verb == Verb::Get {
            return Some(Scope::Own);
        }
        if let Actor::Operator(_) = who.actor {
            return OPERATOR_NAMES.contains(&acl_name).then_some(Scope::Everyone);
        }
        let mut reach = None;
        for role in &who.roles {
            let Some(permissions) = self.roles.get(role) else {
                continue;
            };
            let named = permissions.names.get(&verb);
            if named.is_some_and(|names| names.contains(acl_name)) {
                if permissions.global {
                    return Some(Scope::Everyone);
                }
                reach = Some(Scope::Own);
            }
        }
        reach
    }

    /// How far a read of a collection reaches.
    pub fn authorize_list(&self, who: &Principal, kind: Kind, acl_name: &str) -> Result<Scope, Denied> {
        let scope = self.reach(who, Verb::Get, acl_name).ok_or(Denied::Forbidden)?;
        // Records that belong to nobody are for everyone who may use the name at all.
        Ok(match kind.schema().owner {
            Owner::Nobody => Scope::Everyone,
            _ => scope,
        })
    }

    /// The right to use `verb` on the record or person described by `target`.
    pub fn authorize(
        &self,
        who: &Principal,
        verb: Verb,
        acl_name: &str,
        kind: Kind,
        target: Target<'_>,
    ) -> Result<Grant, Denied> {
        let scope = self.permits(who, verb, acl_name, kind, target)?;
        Ok(Grant { actor: who.actor.clone(), verb, kind, scope })
    }

    /// Whether `who` may use `verb` on the record or person described by `target`, for those who do not act on it.
    pub fn permits(
        &self,
        who: &Principal,
        verb: Verb,
        acl_name: &str,
        kind: Kind,
        target: Target<'_>,
    ) -> Result<Scope, Denied> {
        let scope = self.reach(who, verb, acl_name).ok_or(Denied::Forbidden)?;
        if scope == Scope::Everyone {
            return Ok(scope);
        }
        match target {
            Target::PathPerson(person) if who.is(person) => Ok(scope),
            Target::PathPerson(_) => Err(Denied::Forbidden),
            Target::Record { owner: Some(owner) } if who.is(owner) => Ok(scope),
            Target::Record { .. } if kind.schema().owner == Owner::Nobody => {
                if verb == Verb::Get {
                    Ok(scope)
                } else {
                    Err(Denied::Forbidden)
                }
            }
            Target::Record { .. } if verb == Verb::Post => Err(Denied::Forbidden),
            Target::Record { .. } => Err(Denied::Hidden),
        }
    }

    /// Whether `who` may use a node function (sync, conflicts, changes, ...).
    pub fn authorize_node(&self, who: &Principal, verb: Verb, acl_name: &str) -> Result<Scope, Denied> {
        self.reach(who, verb, acl_name).ok_or(Denied::Forbidden)
    }

    /// Whether `who` may use a node function that reaches beyond their own records.
    pub fn authorize_global(&self, who: &Principal, verb: Verb, acl_name: &str) -> Result<(), Denied> {
        match self.reach(who, verb, acl_name) {
            Some(Scope::Everyone) => Ok(()),
            _ => Err(Denied::Forbidden),
        }
    }

    /// Whether `who` may read a record of this kind that belongs to `owner`, wherever it turns up.
    pub fn may_read(&self, who: &Principal, kind: Kind, owner: Option<&str>) -> bool {
        let target = Target::Record { owner };
        self.permits(who, Verb::Get, kind.schema().item_acl(), kind, target).is_ok()
    }
}

/// What a role may do; adds what of it cannot be read.
fn parse_permissions(
    reader: &rules::Reader<'_>,
    role: &str,
    given: &serde_json::Map<String, Value>,
    warnings: &mut Vec<String>,
    faults: &mut Vec<AclFault>,
) -> Permissions {
    let mut permissions = Permissions::default();
    for (key, value) in given {
        let flag = match key.as_str() {
            "global" => Some(&mut permissions.global),
            "emergency" => Some(&mut permissions.emergency),
            _ => None,
        };
        if let Some(flag) = flag {
            match rules::flag(value) {
                Some(read) => *flag = read,
                None => faults.push(reader.no_flag(key, value)),
            }
            continue;
        }
        let Some(verb) = Verb::ALL.into_iter().find(|verb| verb.name() == key) else {
            warnings.push(format!("role {role:?}: {key:?} is not a method"));
            continue;
        };
        let Ok(names) = serde_json::from_value::<BTreeSet<String>>(value.clone()) else {
            faults.push(reader.no_names(key, value));
            continue;
        };
        for name in names.iter().filter(|name| !is_known_name(name)) {
            warnings.push(format!("role {role:?}, {key}: nothing is called {name:?}"));
        }
        permissions.names.insert(verb, names);
    }
    permissions.is_json_global = given.get("global") == Some(&Value::Bool(true));
    if permissions.emergency && permissions.global {
        warnings.push(format!(
            "role {role:?}: \"emergency\" does nothing beside \"global\", which gives more: leave one of them out"
        ));
        permissions.emergency = false;
    }
    permissions
}

fn is_known_name(name: &str) -> bool {
    let mut routes = SCHEMAS.iter().flat_map(|schema| schema.routes);
    NODE_ACL_NAMES.contains(&name) || routes.any(|route| route.acl == name)
}

/// Whose records a permission reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Own,
    Everyone,
}

/// What a permission is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// The path names a person: whether they exist must not show.
    PathPerson(&'a str),
    /// A record found by its id, or one to be created.
    Record { owner: Option<&'a str> },
}

/// Why something may not be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Say so.
    #[error("not allowed")]
    Forbidden,
    /// Behave as if the record were absent.
    #[error("not found")]
    Hidden,
}

/// The right to do one thing, made only by this module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    actor: Actor,
    verb: Verb,
    kind: Kind,
    scope: Scope,
}

impl Grant {
    /// The operator of the machine can read and write the store's file anyway: `import` and the demo
    /// data need no role.
    pub fn operator(uid: u32, verb: Verb, kind: Kind) -> Grant {
        Grant { actor: Actor::Operator(uid), verb, kind, scope: Scope::Everyone }
    }

    pub fn actor(&self) -> &Actor {
        &self.actor
    }
    pub fn verb(&self) -> Verb {
        self.verb
    }
    pub fn kind(&self) -> Kind {
        self.kind
    }
    pub fn scope(&self) -> Scope {
        self.scope
    }
}
