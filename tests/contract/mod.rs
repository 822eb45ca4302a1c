//! What every centre promises, written against the traits and a view from behind, so that a simulated
//! centre can keep the same promises.
#![allow(dead_code)]

pub(crate) mod bounds;
pub(crate) mod cases;
pub(crate) mod content;
mod documents;
pub(crate) mod feeds;
pub(crate) mod ledger;
pub(crate) mod reading;
mod values;

use async_trait::async_trait;
use bson::{Bson, Document, doc};
use thalamus_edge::central::Write;
use thalamus_edge::domain::diff::Change;
use thalamus_edge::domain::record::{Kind, RecordKey};

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
    /// Sets and unsets fields of a record, given by dotted paths.
    async fn update(&self, kind: Kind, id: &str, set: Document, unset: &[&str]);
    async fn replace(&self, kind: Kind, document: Document);
    async fn remove(&self, kind: Kind, id: &str);
    /// Inserts documents that are no records and no rows of the reconciliation.
    async fn put_elsewhere(&self, collection: &str, documents: Vec<Document>);
    async fn rename(&self, from: &str, to: &str);
    async fn drop_collection(&self, collection: &str);
    async fn drop_everything(&self);

    /// Whether documents may have keys that begin with `$`: MongoDB takes them since 5.0.
    async fn takes_dollar_names(&self) -> bool {
        true
    }
}

pub(crate) fn person(id: &str) -> RecordKey {
    RecordKey::new(Kind::Person, id)
}

pub(crate) fn insert(id: &str, fields: Document) -> Write {
    let mut document = doc! {"_id": id};
    document.extend(fields);
    Write::Insert { key: person(id), document }
}

pub(crate) fn set(id: &str, field: &str, from: Option<Bson>, to: impl Into<Bson>) -> Write {
    let change = Change { path: vec![field.to_owned()], from, to: Some(to.into()) };
    Write::Update { key: person(id), changes: vec![change] }
}
