//! Backups: what is written can be read again or is refused, and what is restored is what was there.

#![allow(clippy::unwrap_used)]

mod support;

#[path = "backups/files.rs"]
mod files;
#[path = "backups/restoring.rs"]
mod restoring;
#[path = "backups/stream.rs"]
mod stream;
#[path = "backups/wire.rs"]
mod wire;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bson::{Document, doc};
use thalamus_edge::backup::{BackupSettings, Backups, Keys, new_pair};
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::audit::{Event, What};
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{About, Store, StoreError, StoreOptions};

fn options() -> StoreOptions {
    StoreOptions {
        cache_bytes: 1 << 20,
        journal_keep_rows: 100_000,
        audit_keep_rows: 100_000,
        clock: || 1_000,
    }
}

fn event() -> Event {
    Event::new(What::Restore, &Actor::Operator(0))
}

fn key(id: &str) -> RecordKey {
    RecordKey::new(Kind::Person, id)
}

fn about() -> About {
    About { node_name: "clinic".to_owned(), node_id: None, created_ms: 1_000 }
}

fn settings(directory: &Path) -> BackupSettings {
    BackupSettings {
        directory: directory.join("backups"),
        keep: 3,
        recipients: Vec::new(),
        node_name: "clinic".to_owned(),
        data_dir: directory.to_owned(),
        reserve_bytes: 64 << 20,
    }
}

/// A backup of the store, encrypted if there is a public key.
async fn back_up(store: &Store, directory: &Path, public: Option<&str>) -> PathBuf {
    let recipients = public.iter().map(|key| key.parse().unwrap()).collect();
    let settings = BackupSettings { recipients, ..settings(directory) };
    Backups::new(store.clone(), settings).create().await.unwrap().file
}

/// A public key, and a file with the secret one.
fn pair(directory: &Path, name: &str) -> (String, Keys) {
    let (public, secret) = new_pair();
    let file = directory.join(name);
    std::fs::write(&file, secret.as_bytes()).unwrap();
    (public, Keys::read(&file).unwrap())
}

/// What lies in a directory, by name.
fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
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
            tx.set_local_account(
                "tech",
                Some(&doc! {"password": "$2b$04$x", "roles": ["root"]}),
                &Actor::Operator(0),
            )?;
            tx.set_grants("P01", &["root".to_owned()], &Actor::Operator(0))?;
            tx.set_meta("lease", Some(&doc! {"node": "here"}))
        })
        .await
        .unwrap();
}
