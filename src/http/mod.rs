//! Floor 4. The API over HTTP: routes, middleware and handlers.
//!
//! Rooms, from the top down; each imports only rooms below it:
//!
//! - `router`: the route table
//! - `middleware`: request id, login, quotas and audit around every handler
//! - `routes`: finds the handler of a path
//! - `health`, `authorization`: health of the node, and the rights of a caller for other services
//! - `admin`: accounts, audit trail, backups
//! - `sync`: status, conflicts, refused records, trash
//! - `records`: records of every kind, and attachments
//! - `auth`: passwords, sessions, one-time links, emergencies
//! - `workload`: shares memory and processor time among requests
//! - `audit_observer`: notes reads and refusals in the audit trail
//! - `access`: the caller and their rights
//! - `state`: the state that all requests share
//! - `bodies`: bodies of requests and answers
//! - `extract`, `error`, `request_id`, `response`: parts of a request, and forms of an answer

mod access;
mod admin;
mod audit_observer;
mod auth;
mod authorization;
mod bodies;
mod error;
mod extract;
mod health;
mod middleware;
mod records;
mod request_id;
mod response;
mod router;
mod routes;
mod state;
mod sync;
mod workload;

pub use access::account::fold_local;
pub use access::caller::Peer;
pub use admin::users::check_local_name;
pub use auth::basic_login::basic_credentials;
pub use bodies::arrivals::{Arrivals, Received};
pub(crate) use bodies::pieces::{PieceRule, Pieces};
pub use error::Overloaded;
pub(crate) use middleware::error_page::{Refusal, Unasked};
pub use middleware::long_answer::PIECE_BYTES;
pub use router::{Api, api};
pub use state::app_state::AppState;
pub use state::client_store::ClientStore;
pub use state::known_accounts::KnownAccounts;
pub use state::settings::{ApiSettings, BrowserSessions, CollectionShape, FORWARDED_PROTO};
pub use state::unsettled_rules::UnsettledRules;
pub use sync::conflict_trials;
pub use workload::{all_large_work, all_work};
