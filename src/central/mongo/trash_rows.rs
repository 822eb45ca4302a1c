//! Floor 2. Rows of `edge_trash`: bodies that are kept before their records are deleted.

use bson::{Bson, Document, doc};

use super::MongoCentral;
use super::rows::{ListOf, split_id};
use crate::central::{ArchiveState, DOLLAR_NAME_CODE, Result, TRASH_COLLECTION};
use crate::domain::value::has_dollar_name;

impl MongoCentral {
    /// A row that is there already is replaced. Servers before 5.0 take names that begin with `$` within a document that is
    /// inserted, and in no replacement: there, rows with such names are inserted.
    pub(super) async fn archive_rows(&mut self, rows: &[Document]) -> Result<()> {
        let statement = |row: &Document| {
            let (id, fields) = split_id(row)?;
            let mut document = doc! {"_id": id.clone()};
            document.extend(fields);
            Ok(doc! {"q": {"_id": id}, "u": document, "upsert": true})
        };
        let statements = rows.iter().map(statement).collect::<Result<Vec<Document>>>()?;
        if self.replaces_dollar_names {
            let answer = self.write_rows(TRASH_COLLECTION, ListOf::Updates, statements.clone()).await;
            let is_about_names =
                answer.as_ref().is_err_and(|failure| failure.code() == Some(DOLLAR_NAME_CODE));
            if !is_about_names || !rows.iter().any(has_dollar_name) {
                return answer;
            }
            self.replaces_dollar_names = false;
        }
        let of_body = |statement: &Document| statement.get_document("u").is_ok_and(has_dollar_name);
        let (inserted, replaced): (Vec<_>, Vec<_>) = statements.into_iter().partition(of_body);
        self.write_rows(TRASH_COLLECTION, ListOf::Updates, replaced).await?;
        let renewed = inserted.iter().map(renewal).collect();
        self.write_rows(TRASH_COLLECTION, ListOf::Inserts, inserted).await?;
        self.write_rows(TRASH_COLLECTION, ListOf::Updates, renewed).await
    }

    pub(super) async fn settle_archived_rows(&mut self, settled: &[(String, ArchiveState)]) -> Result<()> {
        let statement = |(id, state): &(String, ArchiveState)| {
            let state = match state {
                ArchiveState::Done => "done",
                ArchiveState::Void => "void",
            };
            doc! {"q": {"_id": id}, "u": {"$set": {"state": state}}}
        };
        let statements = settled.iter().map(statement).collect();
        self.write_rows(TRASH_COLLECTION, ListOf::Updates, statements).await
    }
}

/// Sets what is not the same in each try, for a row that an earlier one has left: all that has no such names in it.
fn renewal(statement: &Document) -> Document {
    let row = statement.get_document("u").cloned().unwrap_or_default();
    let is_free = |name: &str, value: &Bson| name != "_id" && !has_dollar_name(&doc! {"": value.clone()});
    let free: Document = row.into_iter().filter(|(name, value)| is_free(name, value)).collect();
    let query = statement.get_document("q").cloned().unwrap_or_default();
    doc! {"q": query, "u": {"$set": free}}
}
