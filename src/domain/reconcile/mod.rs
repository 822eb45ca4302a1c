//! Floor 0. What two versions of a record become.
//!
//! Hides every decision between a node's version and the centre's: the caller writes down what these rules say.
//!
//! - `diff`: what an edit changed, as paths
//! - `merge`: the three-way merge of one record
//! - `same_meaning`: when two values mean the same, although they are stored differently
//! - `identity`, `genders`: the fields by which people are told apart, compared by meaning
//! - `overwritten`: edits that were delivered, and that others have changed at the centre since
//! - `rebuild`: what was last agreed on, after the centre was set back
//! - `moment`: moments in the history of the centre

pub mod diff;
pub mod merge;
pub mod moment;
pub mod overwritten;
pub mod rebuild;
pub mod same_meaning;

mod genders;
mod identity;
