//! Floor 2. Why the centre cannot be reached, and whether a node may do there what it has to do.
//!
//! Hides that the driver tries all members at once and then knows only that it found none: here the way is tried stage by
//! stage, without the driver. Rounds, `doctor` and `setup` ask the same functions.
//!
//! - `look`: what `doctor` and `setup` are told, and what a failed round is
//! - `probe`: the way to the centre, tried stage by stage
//! - `hello`, `listener`: the first answer of a server, and the protocol that is spoken at a port
//! - `tls`: TLS towards the centre, and why it does not come about
//! - `topology`: servers that the driver drops although they answer
//! - `rights`: login and privileges
//! - `place`: where in a conversation something failed

pub(super) mod look;
pub(super) mod place;

mod hello;
mod listener;
mod probe;
mod rights;
mod tls;
mod topology;
