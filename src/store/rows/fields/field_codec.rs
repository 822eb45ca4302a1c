//! What the tests of all rows have in common: a table of rows, each with what may be missing in it.

use bson::{Bson, Document};

use crate::store::error::StoreError;
use crate::store::rows::encoding::encode;

/// A row with all of its fields, and how it is read.
pub(crate) struct Codec {
    pub(crate) name: &'static str,
    pub(crate) row: Document,
    /// Fields that a whole row may lack: earlier versions did not write them, or there was nothing to say.
    pub(crate) may_lack: &'static [&'static str],
    /// Fields whose values may be of any type: they are people's.
    pub(crate) any_type: &'static [&'static str],
    /// Fields that hold one of a few words.
    pub(crate) words: &'static [&'static str],
    /// Fields that hold numbers from 0 on.
    pub(crate) counts: &'static [&'static str],
    pub(crate) decode: fn(&[u8]) -> Result<(), StoreError>,
}

impl Codec {
    pub(crate) fn new(
        name: &'static str,
        row: Document,
        decode: fn(&[u8]) -> Result<(), StoreError>,
    ) -> Codec {
        Codec { name, row, may_lack: &[], any_type: &[], words: &[], counts: &[], decode }
    }

    /// Fails if a field of the row that cannot be read, or that is missing and must not be, does not make it damaged.
    pub(crate) fn assert_strict(&self) {
        let Codec { name, row, may_lack, any_type, words, counts, decode } = self;
        let read = |row: &Document| decode(&encode(row).unwrap());
        assert!(read(row).is_ok(), "{name}: {:?}", read(row));
        for field in row.keys() {
            let mut lacking = row.clone();
            lacking.remove(field);
            let is_read = match read(&lacking) {
                Ok(()) => true,
                Err(StoreError::Damaged(_)) => false,
                Err(other) => panic!("{name} without {field}: {other}"),
            };
            assert_eq!(is_read, may_lack.contains(&field.as_str()), "{name} without {field}");
            let mut bad: Vec<Bson> = Vec::new();
            if !any_type.contains(&field.as_str()) {
                // No field is a fraction, and none has null for nothing.
                bad.extend([Bson::from(1.5), Bson::Null]);
            }
            if words.contains(&field.as_str()) {
                bad.extend([Bson::from("unheard-of"), Bson::from("")]);
            }
            if counts.contains(&field.as_str()) {
                bad.push(Bson::from(-1_i64));
            }
            for value in bad {
                let mut other = row.clone();
                other.insert(field, value);
                assert!(matches!(read(&other), Err(StoreError::Damaged(_))), "{name}: {other}");
            }
        }
        // And with nothing but what it must have.
        let must: Document =
            row.clone().into_iter().filter(|(field, _)| !may_lack.contains(&field.as_str())).collect();
        assert!(read(&must).is_ok(), "{name}: {must}");
    }
}
