//! Floor 4. How callers prove who they are, and what protects that: passwords, sessions of browsers, one-time links, and access in an
//! emergency.
//!
//! - `access_rules`: new access rules, and the end of what the former ones allowed
//! - `authentication`: HTTP Basic and sessions, before any routing
//! - `csrf_token`: tokens in forms
//! - `current_password`: the password once more, where a session is not enough
//! - `emergency`: reading a person's records for a reason
//! - `link_form`: the form behind a one-time link
//! - `links`: one-time links
//! - `origins`: requests from pages of other sites
//! - `password_form`: the form that changes a password
//! - `sessions`: sessions of browsers

pub(super) mod access_rules;
pub(super) mod authentication;
pub(super) mod csrf_token;
pub(super) mod current_password;
pub(super) mod emergency;
pub(super) mod link_form;
pub(super) mod links;
pub(super) mod origins;
pub(super) mod password_form;
pub(super) mod sessions;
