//! Floor 0. Dates and days.
//!
//! Hides in how many forms people and programs write a date, and that BSON has no days: a day is stored as a moment.
//!
//! - `written`: dates as clients write them
//! - `stored`: the dates that stored values mean
//! - `days`: fields that hold a day
//! - `birth`: the day of a birth that was stored as a moment
//! - `former_dates`: where a record had dates that were taken away

pub mod days;
pub mod former_dates;

mod birth;
mod stored;
mod written;

pub(crate) use birth::{Birth, birth_in, birth_of, moment_of};
pub use stored::stored_moment;
pub use written::{DATE_FORMS, WrittenDate, date_of, parse_date, plain_date, written_date};
