//! Floor 0. Who does something: people, technicians, the operator, the node itself.

use std::fmt;

use super::ROOT;
use crate::domain::record::schema::is_account;

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

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
