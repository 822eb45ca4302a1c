//! Floor 1. Hides whether the tables agree with each other and with their checksums, and the ways out where they do
//! not: healed, rebuilt, mended or set aside.
//!
//! - `agreement`: rules that hold between tables
//! - `damaged_accounts`: accounts that a damaged row was about
//! - `damaged_pages`: pages of the open file
//! - `heal`: damaged records healed by the centre
//! - `lost_questions`: open questions put back
//! - `lost_records`: records that should be there
//! - `references`: rows that refer to nothing
//! - `reindex`: tables made anew
//! - `scrub`: all rows in the background
//! - `set_aside`: damaged records set aside
//! - `set_aside_rows`: other damaged rows set aside
//! - `stand_in`: a person in place of a damaged one

mod agreement;
mod damaged_accounts;
mod damaged_pages;
mod heal;
mod lost_questions;
mod lost_records;
mod references;
mod reindex;
mod scrub;
mod set_aside;
mod set_aside_rows;
mod stand_in;

pub(super) use damaged_pages::name_rows;
pub use heal::Damage;
pub use references::META_VERIFY_DUE;
pub(super) use reindex::drop_indexes;
pub use scrub::Scrub;
pub use set_aside::SetAsideError;
pub use set_aside_rows::AsideRows;
