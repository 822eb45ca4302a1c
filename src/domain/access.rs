//! Floor 0. Who may do what: `roles.cfg` in Thalamus's format, and the grants that it leads to.
//!
//! A [`Grant`] can be made nowhere else, and every write that comes from a client takes one, so a route
//! cannot forget to ask.

mod rules;
mod thalamus;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use super::json::{JsonError, parse};
use super::record::Kind;
use super::schema::{NODE_ACL_NAMES, Owner, SCHEMAS, is_account};

/// The rules used when the configuration names no file; installed as `/etc/thalamus-edge/roles.cfg`.
pub const BUILT_IN_ROLES: &str = include_str!("../../etc/roles.cfg");

/// The role that may change other people's passwords, roles and activation.
pub const ROOT: &str = "root";
/// The role of a person created without one.
pub const END_USER: &str = "end_user";

/// What whoever runs commands on the machine may use: administration, but no patient record.
const OPERATOR_NAMES: &[&str] =
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
    roles: BTreeMap<String, Permissions>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Permissions {
    names: BTreeMap<Verb, BTreeSet<String>>,
    global: bool,
    /// `global` is JSON's `true`, which Thalamus takes for no.
    is_json_global: bool,
    /// What GET names may be read of one other person at a time, for a reason.
    emergency: bool,
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
    fn reach(&self, who: &Principal, verb: Verb, acl_name: &str) -> Option<Scope> {
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

/// Someone whose credentials were verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub actor: Actor,
    /// Roles that count on this node.
    pub roles: Vec<String>,
    /// Another human being has the account in another spelling. Whose records are whose cannot be told, so none counts
    /// as their own.
    pub shares_account: bool,
}

impl Principal {
    pub fn new(actor: Actor, roles: Vec<String>) -> Principal {
        Principal { actor, roles, shares_account: false }
    }

    /// Whether `account` is this person, in any spelling.
    pub fn is(&self, account: &str) -> bool {
        !self.shares_account && matches!(&self.actor, Actor::Person(id) if id.eq_ignore_ascii_case(account))
    }

    pub fn is_root(&self) -> bool {
        self.roles.iter().any(|role| role == ROOT)
    }

    /// Root, or whoever runs commands on the machine: they may give roles and passwords to others.
    pub fn administers(&self) -> bool {
        self.is_root() || matches!(self.actor, Actor::Operator(_))
    }
}

/// Who does something. Never compared as text: a person may have any id that the centre holds, also one that reads like
/// another actor.
///
/// Written `person:ESPGNU777ORG`, `local:admin`, `operator:0`, `centre`, `node`, `nobody`, each of which names one actor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Actor {
    /// The person with this id.
    Person(String),
    /// A technician's account of this node only, by its name without the ending.
    Local(String),
    /// Whoever runs commands on the machine, by user id.
    Operator(u32),
    /// A reconciliation.
    Centre,
    /// This node by itself.
    Node,
    /// A request of which nobody knows who made it.
    Nobody,
}

const PERSON_PREFIX: &str = "person:";
const LOCAL_PREFIX: &str = "local:";
const OPERATOR_PREFIX: &str = "operator:";

impl Actor {
    /// Whether it is an account, which somebody logs in with.
    pub fn has_account(&self) -> bool {
        matches!(self, Actor::Person(_) | Actor::Local(_))
    }

    /// The actor that is written so, in the form of now or in the one up to version 0.1.0, which wrote people by their
    /// id alone, `NAME@local`, `operator(uid N)` and `-`. `None` for texts of that time that may be several: ids that are
    /// no account.
    pub fn read(text: &str) -> Option<Actor> {
        let operator = |uid: &str| uid.parse().ok().map(Actor::Operator);
        if let Some(id) = text.strip_prefix(PERSON_PREFIX) {
            return Some(Actor::Person(id.to_owned()));
        }
        if let Some(name) = text.strip_prefix(LOCAL_PREFIX) {
            return Some(Actor::Local(name.to_owned()));
        }
        if let Some(uid) = text.strip_prefix(OPERATOR_PREFIX) {
            return operator(uid);
        }
        match text {
            "centre" => return Some(Actor::Centre),
            "node" => return Some(Actor::Node),
            "nobody" | "-" => return Some(Actor::Nobody),
            _ => {}
        }
        if let Some(uid) = text.strip_prefix("operator(uid ").and_then(|rest| rest.strip_suffix(')')) {
            return operator(uid);
        }
        if let Some(name) = local_name(text) {
            return Some(Actor::Local(name.to_owned()));
        }
        is_account(text).then(|| Actor::Person(text.to_owned()))
    }

    /// Whether both are the same account, or the same otherwise: accounts have spellings.
    pub fn is_same(&self, other: &Actor) -> bool {
        match (self, other) {
            (Actor::Person(one), Actor::Person(other)) | (Actor::Local(one), Actor::Local(other)) => {
                one.eq_ignore_ascii_case(other)
            }
            _ => self == other,
        }
    }

    /// The name that somebody types to log in as this actor.
    pub fn login_name(&self) -> Option<String> {
        match self {
            Actor::Person(id) => Some(id.clone()),
            Actor::Local(name) => Some(format!("{name}{LOCAL_SUFFIX}")),
            _ => None,
        }
    }
}

/// Ending of the names of technicians' accounts, which exist on one node only.
pub const LOCAL_SUFFIX: &str = "@local";

/// The name of a technician's account without its ending, as it was typed.
pub fn local_name(user: &str) -> Option<&str> {
    let (name, ending) = user.split_at_checked(user.len().checked_sub(LOCAL_SUFFIX.len())?)?;
    ending.eq_ignore_ascii_case(LOCAL_SUFFIX).then_some(name)
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Actor::Person(id) => write!(f, "{PERSON_PREFIX}{id}"),
            Actor::Local(name) => write!(f, "{LOCAL_PREFIX}{name}"),
            Actor::Operator(uid) => write!(f, "{OPERATOR_PREFIX}{uid}"),
            Actor::Centre => f.write_str("centre"),
            Actor::Node => f.write_str("node"),
            Actor::Nobody => f.write_str("nobody"),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_rules_parse_without_warnings() {
        let (acl, warnings) = Acl::parse(BUILT_IN_ROLES).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        for role in [END_USER, "health_professional", ROOT] {
            assert!(acl.knows_role(role));
        }
    }

    #[test]
    fn errors_name_the_place() {
        let place = |text: &str| Acl::parse(text).unwrap_err().to_string();
        assert!(place("[\n{]").starts_with("line 2: is no JSON"), "{}", place("[\n{]"));
        assert!(place(r#"[{"role": "a"}]"#).starts_with("line 1: [0]: has no \"permissions\""));
        for (text, words) in [
            ("", "is empty"),
            (" \n", "is empty"),
            ("[{\"role\": ", "ends in the middle"),
            ("{}", "is no list of roles"),
            ("7", "is no list of roles"),
            ("[][]", "goes on"),
            ("[{'role': 1}]", "is no JSON"),
            ("[1]", "is no role"),
            ("[{\"role\": \"\", \"permissions\": {}}]", "must be a name"),
        ] {
            let found = place(text);
            assert!(found.contains(words) && !found.contains("EOF"), "{text}: {found}");
        }
        let global = r#"[{"role": "a", "permissions": {"global": "maybe"}}]"#;
        assert!(place(global).starts_with("line 1: [0].permissions.global: "));
        let names = r#"[{"role": "a", "permissions": {"GET": "people"}}]"#;
        assert!(place(names).starts_with("line 1: [0].permissions.GET: "));
    }

    #[test]
    fn emergencies_are_for_roles_that_say_so() {
        let text = r#"[{"role": "nurse", "permissions": {"GET": ["person"], "PATCH": ["page"], "emergency": true}},
                       {"role": "guest", "permissions": {"GET": ["person", "page"], "emergency": "False"}},
                       {"role": "doctor", "permissions": {"GET": ["page", "sync"], "global": "True", "emergency": "True"}}]"#;
        let (acl, warnings) = Acl::parse(text).unwrap();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].starts_with("role \"doctor\": \"emergency\" does nothing"), "{warnings:?}");
        assert!(acl.knows_emergencies() && !Acl::built_in().knows_emergencies());
        let who = |roles: &[&str]| {
            let roles = roles.iter().map(|role| (*role).to_owned()).collect();
            Principal::new(Actor::Person("ANA001".to_owned()), roles)
        };
        for (roles, name, may) in [
            (&["nurse"][..], "person", true),
            (&["guest", "nurse"], "person", true),
            // Named only where there is no emergency, or for other verbs.
            (&["guest", "nurse"], "page", false),
            (&["guest"], "person", false),
            (&["doctor"], "page", false),
            (&["unknown"], "person", false),
            (&[], "login", false),
        ] {
            assert_eq!(acl.may_open(&who(roles), name), may, "{roles:?} {name}");
        }
        let operator = Principal::new(Actor::Operator(0), Vec::new());
        assert!(!acl.may_open(&operator, "person"));
        let bad = r#"[{"role": "a", "permissions": {"emergency": 1}}]"#;
        let error = Acl::parse(bad).unwrap_err().to_string();
        assert!(error.starts_with("line 1: [0].permissions.emergency: must be true"), "{error}");
    }

    #[test]
    fn an_actor_is_what_is_written() {
        let person = |id: &str| Actor::Person(id.to_owned());
        let local = |name: &str| Actor::Local(name.to_owned());
        let actors = [
            person("ANNA1"),
            person("boss@local"),
            person("local:boss"),
            person("person:ANNA1"),
            person("operator(uid 0)"),
            person("operator:0"),
            person("centre"),
            person("NODE"),
            person("nobody"),
            person("-"),
            person(""),
            local("boss"),
            local("ANNA1"),
            local("centre"),
            Actor::Operator(0),
            Actor::Centre,
            Actor::Node,
            Actor::Nobody,
        ];
        for (n, actor) in actors.iter().enumerate() {
            assert_eq!(Actor::read(&actor.to_string()).as_ref(), Some(actor));
            for other in &actors[..n] {
                assert!(!actor.is_same(other) && actor.to_string() != other.to_string(), "{actor} {other}");
            }
        }
        // As versions up to 0.1.0 wrote them.
        for (old, actor) in [
            ("ANNA1", Some(person("ANNA1"))),
            ("boss@local", Some(local("boss"))),
            ("operator(uid 1000)", Some(Actor::Operator(1000))),
            ("centre", Some(Actor::Centre)),
            ("-", Some(Actor::Nobody)),
            ("operator(uid 0", None),
            ("operator:x", None),
            ("Ñandú", None),
            ("", None),
        ] {
            assert_eq!(Actor::read(old), actor, "{old}");
        }
        assert!(person("anna1").is_same(&person("ANNA1")) && local("Boss").is_same(&local("boss")));
    }

    #[test]
    fn unknown_names_warn() {
        let text = r#"[{"role": "a", "permissions": {"GET": ["peple", "sync"], "FETCH": []}}]"#;
        let (_, warnings) = Acl::parse(text).unwrap();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }

    #[test]
    fn a_key_that_stands_twice_warns() {
        let text = r#"[{"role": "a", "permissions": {"GET": ["people"], "GET": ["sync"]}}]"#;
        let (_, warnings) = Acl::parse(text).unwrap();
        assert_eq!(warnings, ["0.permissions.GET: the key stands twice"]);
    }
}
