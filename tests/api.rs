//! Every sentence of the API's description, asked of a node inside the test: status, body and what the
//! request left in the journal.

#![allow(clippy::unwrap_used)]

mod support;

#[path = "api/access.rs"]
mod access;
#[path = "api/bounds.rs"]
mod bounds;
#[path = "api/browser.rs"]
mod browser;
#[path = "api/changes.rs"]
mod changes;
#[path = "api/clients.rs"]
mod clients;
#[path = "api/conflict_rights.rs"]
mod conflict_rights;
#[path = "api/conflicts.rs"]
mod conflicts;
#[path = "api/content.rs"]
mod content;
#[path = "api/cors.rs"]
mod cors;
#[path = "api/counted.rs"]
mod counted;
#[path = "api/effects.rs"]
mod effects;
#[path = "api/emergency.rs"]
mod emergency;
#[path = "api/errors.rs"]
mod errors;
#[path = "api/holders.rs"]
mod holders;
#[path = "api/holds.rs"]
mod holds;
#[path = "api/holes.rs"]
mod holes;
#[path = "api/identities.rs"]
mod identities;
#[path = "api/identity.rs"]
mod identity;
#[path = "api/inactive.rs"]
mod inactive;
#[path = "api/left_behind.rs"]
mod left_behind;
#[path = "api/link.rs"]
mod link;
#[path = "api/lists.rs"]
mod lists;
#[path = "api/long_answers.rs"]
mod long_answers;
#[path = "api/methods.rs"]
mod methods;
#[path = "api/node.rs"]
mod node;
#[path = "api/offline.rs"]
mod offline;
#[path = "api/oracle_routes.rs"]
mod oracle_routes;
#[path = "api/oracles.rs"]
mod oracles;
#[path = "api/own_password.rs"]
mod own_password;
#[path = "api/password.rs"]
mod password;
#[path = "api/rights.rs"]
mod rights;
#[path = "api/sent_back.rs"]
mod sent_back;
#[path = "api/session.rs"]
mod session;
#[path = "api/shared_books.rs"]
mod shared_books;
#[path = "api/successors.rs"]
mod successors;
#[path = "api/trash.rs"]
mod trash;
#[path = "api/unsettled.rs"]
mod unsettled;
#[path = "api/waits.rs"]
mod waits;
#[path = "api/write_answers.rs"]
mod write_answers;
