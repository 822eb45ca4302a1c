//! Floor 0: the rules of the field, pure and without input or output.
//!
//! Nothing here reads a clock, a file or the network, so every rule can be tested as a table.

pub mod access;
pub mod active;
pub mod address;
pub mod audit;
pub mod content;
pub mod days;
pub mod depth;
pub mod diff;
pub mod edit;
pub mod emergency;
pub mod encoding;
pub mod exported;
pub mod fair_queue;
pub mod folding;
pub mod former_dates;
pub mod hostname;
mod identity;
pub mod json;
pub mod merge;
pub mod moment;
pub mod overwritten;
pub mod rebuild;
pub mod record;
pub mod same_meaning;
pub mod schema;
pub mod value;
pub mod verbatim;
pub mod visible;
