//! What several test binaries need. Each uses its own part.
#![allow(dead_code, clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "the environment says which server the tests use")]
#![allow(clippy::wrong_self_convention, reason = "steps of a scenario read as sentences")]

pub(crate) mod api;
pub(crate) mod checker;
pub(crate) mod demo;
pub(crate) mod disk;
pub(crate) mod federation;
pub(crate) mod generator;
pub(crate) mod mongo;
pub(crate) mod node;
pub(crate) mod proxy;
pub(crate) mod sim;
