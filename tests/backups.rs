//! Backups: what is written can be read again or is refused, and what is restored is what was there.

#![allow(clippy::unwrap_used)]

mod support;

#[path = "backups/stream.rs"]
mod stream;

use bson::{Document, doc};
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{About, Store, StoreError, StoreOptions};

fn options() -> StoreOptions {
    StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 100_000, clock: || 1_000 }
}

fn key(id: &str) -> RecordKey {
    RecordKey::new(Kind::Person, id)
}

fn about() -> About {
    About { node_name: "clinic".to_owned(), node_id: None, created_ms: 1_000 }
}

async fn edit(store: &Store, id: &str, document: Option<Document>) {
    let (key, actor) = (key(id), Actor::Local("tech".to_owned()));
    store.transact(move |tx| tx.edit(&key, document.as_ref(), &actor)).await.unwrap();
}

/// A store with rows in tables of every sort.
async fn fill(store: &Store) {
    for n in 0..50 {
        let id = format!("P{n:02}");
        edit(store, &id, Some(doc! {"_id": &id, "name": "Ana", "lastname": format!("Núñez {n}")})).await;
    }
    edit(store, "P07", None).await;
    store
        .transact(|tx| -> Result<(), StoreError> {
            tx.set_local_account("tech", Some(&doc! {"password": "$2b$04$x", "roles": ["root"]}))?;
            tx.set_grants("P01", &["root".to_owned()])?;
            tx.set_meta("lease", Some(&doc! {"node": "here"}))
        })
        .await
        .unwrap();
}
