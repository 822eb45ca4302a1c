//! Floor 0: the rules of the field, pure and without input or output.
//!
//! Nothing here reads a clock, a file or the network, so every rule can be tested as a table. Imports between these
//! rooms go one way, from the later to the earlier ones:
//!
//! | room | what it hides |
//! |---|---|
//! | [`text`] | text without its typography; what of it can be seen; its encoding |
//! | [`network`] | which clients count as one, names of machines, the queue in which clients take turns |
//! | [`dates`] | dates as people and programs write them, and days |
//! | [`json`] | documents to and from the JSON that clients see |
//! | [`record`] | kinds of record, their keys, and the values in their documents |
//! | [`access`] | `roles.cfg` and the grants that it leads to |
//! | [`audit`] | the audit trail: its entries, its chain, and the reasons of emergencies |
//! | [`edit`] | what a client's create, patch or replace makes of a record |
//! | [`exported`] | records in files that Thalamus's tables were exported to |
//! | [`reconcile`] | what two versions of a record become |

pub mod access;
pub mod audit;
pub mod dates;
pub mod edit;
pub mod exported;
pub mod json;
pub mod network;
pub mod reconcile;
pub mod record;
pub mod text;

pub use audit::emergency;
pub use dates::{days, former_dates};
pub use network::{address, fair_queue, hostname};
pub use reconcile::{diff, merge, moment, overwritten, rebuild, same_meaning};
pub use record::{active, content, depth, schema, value, verbatim};
pub use text::{encoding, folding, visible};
