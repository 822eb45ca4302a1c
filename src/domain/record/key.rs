//! Floor 0. What a record is called: its kind, its identifier, and how identifiers compare.

use std::fmt;

/// A kind of health record. Everything that differs between kinds stands in [`super::schema`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Person,
    Page,
    PersonalDocument,
    DomiciliaryUnit,
    Institution,
    Encounter,
    Event,
    Measurement,
    Hospitalization,
}

impl Kind {
    pub const ALL: [Kind; 9] = [
        Kind::Person,
        Kind::Page,
        Kind::PersonalDocument,
        Kind::DomiciliaryUnit,
        Kind::Institution,
        Kind::Encounter,
        Kind::Event,
        Kind::Measurement,
        Kind::Hospitalization,
    ];
}

/// The kind and `_id` of one record: its key in the store and at the centre.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordKey {
    pub kind: Kind,
    pub id: String,
}

impl RecordKey {
    pub fn new(kind: Kind, id: impl Into<String>) -> Self {
        Self { kind, id: id.into() }
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.schema().collection, self.id)
    }
}

/// The canonical spelling of a federation account: GNU Health writes them in upper case, and people
/// type them in any.
pub fn fold_account(id: &str) -> String {
    id.to_ascii_uppercase()
}
