//! Floor 2. Reading all rows that match, through cursors that a server may give up before they have told everything.
//!
//! Some servers forget a cursor after seconds (error 43). Then the rows that were not told yet are asked for, at once:
//! the same question without the rows that were told. That costs no round, and no order has to be asked for.

use std::ops::ControlFlow;

use bson::{Bson, Document, RawDocument, RawDocumentBuf, doc};
use mongodb::options::FindOptions;

use super::{MongoCentral, error};
use crate::central::{CentralError, Result};

/// How often in a row a cursor is opened again that the server gave up before it told anything.
pub(super) const REOPENED_MAX: usize = 3;
/// Longest value by which a row that was told is left out. Nodes write shorter ones; a longer one may be told twice.
const KEY_BYTES_MAX: usize = 1024;

/// Rows that are wanted.
pub(super) struct Question<'a> {
    pub(super) collection: &'a str,
    pub(super) filter: Document,
    /// The field that tells these rows apart, which is among those that are shown.
    pub(super) key: &'static str,
    pub(super) options: FindOptions,
}

impl Question<'_> {
    fn without(&self, told: &[Bson]) -> Document {
        match told {
            [] => self.filter.clone(),
            told => doc! {"$and": [self.filter.clone(), {self.key: {"$nin": told}}]},
        }
    }

    fn key_of(&self, row: &RawDocument) -> Option<Bson> {
        let key = Bson::try_from(row.get(self.key).ok()??).ok()?;
        let bytes = doc! {"": &key}.to_vec().ok()?;
        (bytes.len() <= KEY_BYTES_MAX).then_some(key)
    }
}

impl MongoCentral {
    /// Hands each row to `take` until that breaks, or there are no more.
    pub(super) async fn each_row(
        &mut self,
        question: Question<'_>,
        mut take: impl FnMut(&RawDocument) -> Result<ControlFlow<()>> + Send,
    ) -> Result<()> {
        let rows = self.database.collection::<RawDocumentBuf>(question.collection);
        let limit = question.options.limit.map(|limit| limit.unsigned_abs());
        let (mut told, mut count, mut reopened) = (Vec::new(), 0_u64, 0);
        loop {
            let known = told.len();
            let mut options = question.options.clone();
            options.limit = limit.map(|limit| i64::try_from(limit.saturating_sub(count)).unwrap_or(i64::MAX));
            if options.limit == Some(0) {
                return Ok(());
            }
            let finding = rows.find(question.without(&told)).with_options(options).session(&mut self.reading);
            let mut cursor = self.patience.limited(async { finding.await }).await?;
            loop {
                let next = async { cursor.advance(&mut self.reading).await };
                match self.patience.attempt(next).await? {
                    Ok(true) => {}
                    Ok(false) => return Ok(()),
                    Err(failure) if error::is_cursor_lost(&failure) => break,
                    Err(failure) => return Err(error::of_call(&failure)),
                }
                let row = cursor.current();
                count += 1;
                told.extend(question.key_of(row));
                if take(row)?.is_break() {
                    return Ok(());
                }
            }
            reopened = if told.len() > known { 0 } else { reopened + 1 };
            if reopened > REOPENED_MAX {
                return Err(lost_cursor());
            }
        }
    }
}

/// The server gives up its cursors before they tell anything.
pub(super) fn lost_cursor() -> CentralError {
    error::offline("it gives up what was asked before it has answered")
}
