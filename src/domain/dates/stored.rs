//! Floor 0. The dates that stored values mean, by the rule by which clients write them ([`super::date_of`]): what is taken for a
//! date where one is stored is that date wherever values are compared, and nothing else is.

use bson::Bson;
use chrono::NaiveDateTime;

use super::date_of;
use super::written::{is_whole, moment_in_digits, utc_of};

/// The moment of a BSON date, of MongoDB's `{"$date": ...}`, or of a number that is milliseconds since 1970 and nothing else, by
/// UTC. Text has [`super::written_date`], which keeps how it is written.
pub fn stored_moment(value: &Bson) -> Option<NaiveDateTime> {
    let date = match value {
        Bson::DateTime(date) => *date,
        Bson::Int64(number) => moment_in_digits(*number)?,
        Bson::Double(number) if is_whole(*number) => moment_in_digits(*number as i64)?,
        Bson::Document(object) if object.len() == 1 && object.contains_key("$date") => {
            date_of(&value.clone().into_relaxed_extjson())?
        }
        _ => return None,
    };
    utc_of(date)
}
