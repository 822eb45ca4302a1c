//! Floor 0. Who may do what: `roles.cfg` in Thalamus's format, and the grants that it leads to.
//!
//! A [`Grant`] can be made nowhere else, and every write that comes from a client takes one, so a route
//! cannot forget to ask.
//!
//! - `actor`: who does something
//! - `acl`: the rules in force, what they permit, and grants
//! - `rules`: the text of `roles.cfg`, entry by entry
//! - `thalamus`: rules that were written for Thalamus

mod acl;
mod actor;
mod rules;
mod thalamus;

pub use acl::{Acl, AclError, AclFault, BUILT_IN_ROLES, Denied, Grant, Scope, Target, Verb};
pub use actor::{Actor, LOCAL_SUFFIX, Principal, local_name};

/// The role that may change other people's passwords, roles and activation.
pub const ROOT: &str = "root";
/// The role of a person created without one.
pub const END_USER: &str = "end_user";

#[cfg(test)]
mod tests;
