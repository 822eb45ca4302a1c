//! What several test binaries need. Each uses its own part.
#![allow(dead_code)]

pub(crate) mod api;
pub(crate) mod mongo;
