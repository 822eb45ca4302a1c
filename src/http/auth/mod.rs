//! Floor 4. Authentication: passwords, sessions of browsers, one-time links; and access in an emergency.
//!
//! - `access_rules`: puts access rules into force and ends rights of the former ones
//! - `authentication`: verifies the caller by HTTP Basic or by a session
//! - `basic_login`: verifies account and password
//! - `csrf_token`: tokens of forms against requests from other sites
//! - `current_password`: asks for the current password, besides a session
//! - `emergency`: emergency access: opening, listing, reviewing
//! - `link_form`: the page of a one-time link
//! - `links`: stored one-time links
//! - `origins`: rules for requests from pages of other sites (CORS)
//! - `password_form`: the page that changes a password
//! - `sessions`: logging in and off with a browser

pub(super) mod access_rules;
pub(super) mod authentication;
pub(super) mod basic_login;
pub(super) mod csrf_token;
pub(super) mod current_password;
pub(super) mod emergency;
pub(super) mod link_form;
pub(super) mod links;
pub(super) mod origins;
pub(super) mod password_form;
pub(super) mod sessions;
