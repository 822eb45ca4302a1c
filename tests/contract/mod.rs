//! What every centre promises, written against the traits and a view from behind, so that a simulated
//! centre can keep the same promises.
#![allow(dead_code)]

pub(crate) mod cases;
pub(crate) mod content;
mod documents;
pub(crate) mod ledger;
pub(crate) mod reading;
mod values;

use async_trait::async_trait;
use bson::Document;
use thalamus_edge::domain::record::Kind;

/// The centre's collections seen by somebody else: a legacy application, an administrator.
#[async_trait]
pub(crate) trait Behind: Send + Sync {
    /// Inserts a record of any shape.
    async fn put(&self, kind: Kind, document: Document);
    /// Inserts many records.
    async fn put_all(&self, kind: Kind, documents: Vec<Document>);
    async fn get(&self, kind: Kind, id: &str) -> Option<Document>;
    /// A row of one of the reconciliation's own collections.
    async fn row(&self, collection: &str, id: &str) -> Option<Document>;
    /// Writes a row of one of the reconciliation's own collections.
    async fn set_row(&self, collection: &str, row: Document);
}
