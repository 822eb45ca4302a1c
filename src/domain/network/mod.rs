//! Floor 0. Clients and machines by their addresses and names.
//!
//! Hides how IPv4 and IPv6 networks are compared, so that limits count clients and not addresses.
//!
//! - `address`: which addresses limits and throttles count as one client
//! - `fair_queue`: a bounded queue in which clients take turns
//! - `hostname`: names of machines by RFC 1123

pub mod address;
pub mod fair_queue;
pub mod hostname;
