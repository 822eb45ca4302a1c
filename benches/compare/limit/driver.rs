//! The driver alone: draining the centre's cursors into redb, and sending compare-and-sets.

use std::time::Instant;

use bson::{Document, doc};
use mongodb::Client;
use mongodb::Namespace;
use mongodb::options::{
    Acknowledgment, ReadConcern, UpdateModifications, UpdateOneModel, WriteConcern, WriteModel,
};
use redb::{Database, TableDefinition};

use crate::federation::{account, phone_of};
use crate::process::cpu_s_of;

/// Statements in one command, as many as the node sends.
const BATCH: usize = 1000;
/// Documents in one batch of a cursor, as many as the node asks for.
const CURSOR_BATCH: u32 = 1000;

fn measured<F: AsyncFnOnce(Client)>(uri: &str, work: F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::with_uri_str(uri).await.unwrap();
        let (cpu, began) = (cpu_s_of("self"), Instant::now());
        work(client).await;
        println!("measured {} {}", cpu_s_of("self") - cpu, began.elapsed().as_secs_f64());
    });
}

const DOCS: TableDefinition<(u8, &str), &[u8]> = TableDefinition::new("docs");
const JOURNAL: TableDefinition<u64, &[u8]> = TableDefinition::new("journal");
const BY_OWNER: TableDefinition<(u8, &str, &str), ()> = TableDefinition::new("by_owner");
const BY_NAME: TableDefinition<(&str, &str), ()> = TableDefinition::new("by_name");

/// Says processor seconds and seconds. `has_rows`: with the rows beside each record that the node has too, its place in
/// the journal and in the indexes.
pub(super) fn pull(uri: &str, database: &str, store: &str, has_rows: bool) {
    let line = [b'x'; 170];
    let _ = std::fs::remove_file(store);
    measured(uri, async |client| {
        let redb = Database::create(store).unwrap();
        let database = client.database(database);
        let mut sequence = 0;
        for (code, name) in [(1, "people"), (2, "pols")] {
            let records = database.collection::<Document>(name);
            let finding = records
                .find(doc! {"_id": {"$type": "string"}})
                .sort(doc! {"_id": 1})
                .batch_size(CURSOR_BATCH)
                .read_concern(ReadConcern::majority());
            let mut cursor = finding.batch().await.unwrap();
            while let Some(batch) = futures_util::StreamExt::next(&mut cursor).await {
                let batch = batch.unwrap();
                let mut writing = redb.begin_write().unwrap();
                writing.set_quick_repair(true);
                {
                    let mut docs = writing.open_table(DOCS).unwrap();
                    let mut beside = has_rows.then(|| {
                        let journal = writing.open_table(JOURNAL).unwrap();
                        (journal, writing.open_table(BY_OWNER).unwrap(), writing.open_table(BY_NAME).unwrap())
                    });
                    for raw in batch.doc_slices().unwrap() {
                        let raw = raw.unwrap().as_document().unwrap();
                        let id = raw.get_str("_id").unwrap();
                        docs.insert((code, id), raw.as_bytes()).unwrap();
                        let Some((journal, by_owner, by_name)) = &mut beside else {
                            continue;
                        };
                        sequence += 1;
                        journal.insert(sequence, line.as_slice()).unwrap();
                        by_owner.insert((code, raw.get_str("book").unwrap_or(id), id), ()).unwrap();
                        if code == 1 {
                            for term in [id, raw.get_str("name").unwrap(), raw.get_str("lastname").unwrap()] {
                                by_name.insert((term, id), ()).unwrap();
                            }
                        }
                    }
                }
                writing.commit().unwrap();
            }
        }
    });
}

/// Changes the phone number of people to what [`phone_of`] says for turn `turn`, from what it says for the one before.
pub(super) fn push(uri: &str, database: &str, people: usize, turn: usize) {
    measured(uri, async |client| {
        let concern = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build();
        for from in (0..people).step_by(BATCH) {
            let models: Vec<WriteModel> = (from..people.min(from + BATCH))
                .map(|number| {
                    let held = doc! {"$eq": phone_of(number, turn - 1), "$type": 2, "$not": {"$type": 4}};
                    UpdateOneModel::builder()
                        .namespace(Namespace::new(database, "people"))
                        .filter(doc! {"_id": account(number), "phone": held})
                        .update(UpdateModifications::Document(
                            doc! {"$set": {"phone": phone_of(number, turn)}},
                        ))
                        .build()
                        .into()
                })
                .collect();
            let sent = models.len();
            let writing =
                client.bulk_write(models).ordered(false).verbose_results().write_concern(concern.clone());
            let results = writing.await.unwrap();
            let hits: u64 = results.update_results.values().map(|result| result.modified_count).sum();
            assert_eq!(hits, sent as u64, "every compare-and-set hits");
        }
    });
}
