//! Floor 0. Rows of the tables that Thalamus has on PostgreSQL, made the fields of records.
//!
//! There a record is a row: its key in `id`, whose it is in `book` or `fedacct`, the bytes of a document in `document`,
//! and everything else as JSON in `data`. Upstream looks rows up by these columns and never by `data`. Where the two say
//! different things, nobody can tell which is right, and the row is refused: it may be about another person.
//!
//! - `rows`, `table`: rows and the columns of their tables
//! - `layout`: which format a file has
//! - `copy`, `csv`: the lines of `COPY`, of `psql` and of CSV
//! - `dump`: the rows in a dump in SQL
//! - `bytea`: bytes in text
//! - `misplaced`: records of another collection

pub mod bytea;
pub mod copy;
pub mod csv;
pub mod dump;
pub mod layout;

mod misplaced;
mod rows;
mod table;

pub use rows::{Taken, take, take_list, take_row};
pub use table::{Cell, Column, columns_named, is_heading, is_json_function};

#[cfg(test)]
mod tests;
