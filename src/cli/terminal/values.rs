//! Floor 5. Values of arguments that several commands take.

use clap::builder::PossibleValuesParser;

use crate::domain::record::Kind;

/// Reads the number of a row, as the lists show it.
pub(crate) fn row_number(text: &str) -> Result<u64, &'static str> {
    text.parse().map_err(|_| "must be a number, as the list shows it")
}

/// The names of the collections, for arguments: others are refused with these.
pub(crate) fn collection_names() -> PossibleValuesParser {
    PossibleValuesParser::new(Kind::ALL.map(|kind| kind.schema().collection))
}
