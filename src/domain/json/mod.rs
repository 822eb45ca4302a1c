//! Floor 0. Documents to and from the JSON that clients see.
//!
//! Outwards ([`Shown`]): `_id` and `id`, keys sorted, secrets left out, dates as Thalamus writes them.
//! Inwards ([`parse_object`], [`adopt()`]): strict about what a record may hold, and careful about types: a
//! JSON value equal to what is shown for the stored value *is* the stored value, so that reading a record
//! and writing it back changes nothing.
//!
//! - `shown`: documents as clients see them
//! - `parse`: bodies that become records, read strictly; `lines`: in which line of a text a value stands
//! - `adopt`: JSON values made BSON, with the types of what is stored; `columns`: what is stored in a field
//! - `extended`, `shell`: MongoDB's extended JSON, and what its shell prints and reads
//! - `weight`: how much memory text and documents take as trees of values

pub(crate) mod lines;
pub mod weight;

mod adopt;
mod columns;
mod extended;
mod parse;
mod shell;
mod shown;

use std::fmt;

pub use adopt::{adopt, adopt_like, check_key};
pub use extended::bson_of_extended;
pub use parse::{BODY_VALUES_MAX, BodyError, check_values, parse, parse_body, parse_object};
pub use shell::{ShellError, parse_shell};
pub use shown::{DateFormat, Shown, ShownPart, show_value};

/// Deepest nesting of a document accepted from clients, the document itself being level 1.
pub const DOCUMENT_DEPTH_MAX: usize = 64;

/// A body that cannot become a record.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum JsonError {
    #[error("not JSON: {message} at line {line} column {column}")]
    Syntax { message: String, line: usize, column: usize },
    #[error("{message}")]
    Invalid { field: String, message: String },
}

impl JsonError {
    fn invalid(field: &str, message: impl fmt::Display) -> Self {
        let message = if field.is_empty() { message.to_string() } else { format!("{field}: {message}") };
        JsonError::Invalid { field: field.to_owned(), message }
    }
}

#[cfg(test)]
mod tests;
