//! Floor 1. Reading the fields of rows that this program has written.
//!
//! A field that is missing, of another type, or with a word that nobody wrote makes the row [`StoreError::Damaged`]. It
//! never becomes a default: a conflict whose status cannot be read is not decided, and a count that cannot be read is not 0.
//! Functions that end in `_if_any` read fields that may be missing, because earlier versions did not write them, or
//! because they are written only where there is something to say. Which field that is, and why, stands in the table of
//! this module's tests.

use bson::{Bson, Document, RawBsonRef, RawDocument};

use super::encoding::{kind_of, raw};
use crate::domain::record::RecordKey;
use crate::store::error::StoreError;

/// A row, or a document in one.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'d> {
    row: &'d RawDocument,
    what: &'static str,
}

impl<'d> Fields<'d> {
    /// `what` names the row in errors.
    pub(crate) fn of(bytes: &'d [u8], what: &'static str) -> Result<Fields<'d>, StoreError> {
        Ok(Fields::of_raw(raw(bytes)?, what))
    }

    pub(crate) fn of_raw(row: &'d RawDocument, what: &'static str) -> Fields<'d> {
        Fields { row, what }
    }

    fn get(&self, field: &str) -> Result<Option<RawBsonRef<'d>>, StoreError> {
        self.row.get(field).map_err(|_| self.damaged(field))
    }

    fn read<T>(
        &self,
        field: &str,
        read: impl FnOnce(RawBsonRef<'d>) -> Option<T>,
    ) -> Result<Option<T>, StoreError> {
        let Some(value) = self.get(field)? else {
            return Ok(None);
        };
        read(value).map(Some).ok_or_else(|| self.damaged(field))
    }

    fn there<T>(&self, field: &str, read: Option<T>) -> Result<T, StoreError> {
        read.ok_or_else(|| self.damaged(field))
    }

    pub(crate) fn text(&self, field: &str) -> Result<&'d str, StoreError> {
        self.there(field, self.text_if_any(field)?)
    }

    pub(crate) fn text_if_any(&self, field: &str) -> Result<Option<&'d str>, StoreError> {
        self.read(field, |value| value.as_str())
    }

    /// A text, or null for none.
    pub(crate) fn text_or_null(&self, field: &str) -> Result<Option<&'d str>, StoreError> {
        match self.get(field)? {
            Some(RawBsonRef::Null) => Ok(None),
            _ => self.text_if_any(field),
        }
    }

    /// A text that stands for one of a few things.
    pub(crate) fn word<T>(
        &self,
        field: &str,
        named: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, StoreError> {
        self.there(field, self.word_if_any(field, named)?)
    }

    pub(crate) fn word_if_any<T>(
        &self,
        field: &str,
        named: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, StoreError> {
        self.read(field, |value| value.as_str().and_then(named))
    }

    pub(crate) fn int32(&self, field: &str) -> Result<i32, StoreError> {
        let read = self.read(field, |value| value.as_i32())?;
        self.there(field, read)
    }

    pub(crate) fn int32_if_any(&self, field: &str) -> Result<Option<i32>, StoreError> {
        self.read(field, |value| value.as_i32())
    }

    pub(crate) fn int64(&self, field: &str) -> Result<i64, StoreError> {
        self.there(field, self.int64_if_any(field)?)
    }

    pub(crate) fn int64_if_any(&self, field: &str) -> Result<Option<i64>, StoreError> {
        self.read(field, |value| value.as_i64())
    }

    /// A number that counts, or that numbers something.
    pub(crate) fn count(&self, field: &str) -> Result<u64, StoreError> {
        self.there(field, self.count_if_any(field)?)
    }

    pub(crate) fn count_if_any(&self, field: &str) -> Result<Option<u64>, StoreError> {
        self.read(field, |value| value.as_i64().and_then(|number| u64::try_from(number).ok()))
    }

    pub(crate) fn flag(&self, field: &str) -> Result<bool, StoreError> {
        let read = self.read(field, |value| value.as_bool())?;
        self.there(field, read)
    }

    /// A flag that is written only where it is set.
    pub(crate) fn flag_if_any(&self, field: &str) -> Result<bool, StoreError> {
        Ok(self.read(field, |value| value.as_bool())?.unwrap_or(false))
    }

    /// Texts in a list.
    pub(crate) fn texts(&self, field: &str) -> Result<Vec<String>, StoreError> {
        self.items(field, |value| value.as_str().map(str::to_owned))
    }

    /// The same of a list that is written only where it is not empty.
    pub(crate) fn texts_if_any(&self, field: &str) -> Result<Vec<String>, StoreError> {
        match self.get(field)? {
            None => Ok(Vec::new()),
            Some(_) => self.texts(field),
        }
    }

    /// A document in the row, to be read by its fields.
    pub(crate) fn row_if_any(&self, field: &str) -> Result<Option<Fields<'d>>, StoreError> {
        let what = self.what;
        self.read(field, |value| Some(Fields::of_raw(value.as_document()?, what)))
    }

    /// Documents in a list.
    pub(crate) fn rows(&self, field: &str) -> Result<Vec<Fields<'d>>, StoreError> {
        let what = self.what;
        self.items(field, |value| Some(Fields::of_raw(value.as_document()?, what)))
    }

    /// The same of a list that is written only where it is not empty.
    pub(crate) fn rows_if_any(&self, field: &str) -> Result<Vec<Fields<'d>>, StoreError> {
        match self.get(field)? {
            None => Ok(Vec::new()),
            Some(_) => self.rows(field),
        }
    }

    fn items<T>(
        &self,
        field: &str,
        read: impl Fn(RawBsonRef<'d>) -> Option<T>,
    ) -> Result<Vec<T>, StoreError> {
        let list = self.read(field, |value| value.as_array())?;
        let items = self.there(field, list)?.into_iter();
        items.map(|item| self.there(field, item.ok().and_then(&read))).collect()
    }

    pub(crate) fn document(&self, field: &str) -> Result<Document, StoreError> {
        self.there(field, self.document_if_any(field)?)
    }

    pub(crate) fn document_if_any(&self, field: &str) -> Result<Option<Document>, StoreError> {
        self.read(field, |value| Document::try_from(value.as_document()?).ok())
    }

    /// A value of whatever type; none is no null.
    pub(crate) fn value_if_any(&self, field: &str) -> Result<Option<Bson>, StoreError> {
        self.read(field, |value| Bson::try_from(value).ok())
    }

    /// The record that the row is about.
    pub(crate) fn key(&self) -> Result<RecordKey, StoreError> {
        let code = u8::try_from(self.int32("kind")?).map_err(|_| self.damaged("kind"))?;
        Ok(RecordKey::new(kind_of(code)?, self.text("id")?))
    }

    fn damaged(&self, field: &str) -> StoreError {
        StoreError::Damaged(format!("{:?} of {} cannot be read", field, self.what))
    }
}

#[cfg(test)]
pub(crate) mod field_codec;
#[cfg(test)]
mod tests;
