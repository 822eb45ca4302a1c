//! Floor 5. Commands of administrators: accounts, and what people did with records.
//!
//! Hides the API's routes about accounts, the audit trail, emergencies and the trash.
//!
//! - `users`: the `user` command
//! - `audit`: the `audit` command
//! - `emergency`: the `emergency` command
//! - `trash`: the `trash` command

pub(crate) mod audit;
pub(crate) mod emergency;
pub(crate) mod trash;
pub(crate) mod users;
