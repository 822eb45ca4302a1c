//! redb committing the rows that a write of a client touches, in groups, and nothing else.

use std::time::{Duration, Instant};

use redb::{Database, Durability, TableDefinition};

/// Writes that share a commit, as many as the node's writer takes.
const GROUP: usize = 64;
/// Cache of the node's store.
const CACHE_BYTES: usize = 32 << 20;

type Row = (u8, &'static str);
const DOCS: TableDefinition<Row, &[u8]> = TableDefinition::new("docs");
const BASE: TableDefinition<Row, &[u8]> = TableDefinition::new("base");
const DIRTY: TableDefinition<(u8, u64, u8, &str), (i64, &str)> = TableDefinition::new("dirty");
const JOURNAL: TableDefinition<u64, &[u8]> = TableDefinition::new("journal");
const AUDIT: TableDefinition<u64, &[u8]> = TableDefinition::new("audit");
const AUDIT_OF: TableDefinition<(&str, u64), ()> = TableDefinition::new("audit_of");
const BY_OWNER: TableDefinition<(u8, &str, &str), ()> = TableDefinition::new("by_owner");

/// Code of people and of pages of life in keys.
const PERSON: u8 = 1;
const PAGE: u8 = 2;

/// Commits to a node's store for so many seconds; says writes per second.
pub(super) fn commit(store: &str, how: &str, seconds: u64) {
    let database = Database::builder().set_cache_size(CACHE_BYTES).create(store).unwrap();
    let ids: Vec<String> = (1..10_000).map(crate::federation::account).collect();
    let body = vec![b'x'; 560];
    let entry = vec![b'x'; 330];
    let line = vec![b'x'; 170];
    let (mut done, began) = (0_u64, Instant::now());
    // Far behind what is there.
    let mut sequence: u64 = 1 << 40;
    while began.elapsed() < Duration::from_secs(seconds) {
        let mut transaction = database.begin_write().unwrap();
        transaction.set_durability(Durability::Immediate).unwrap();
        transaction.set_quick_repair(true);
        {
            let mut docs = transaction.open_table(DOCS).unwrap();
            let mut base = transaction.open_table(BASE).unwrap();
            let mut dirty = transaction.open_table(DIRTY).unwrap();
            let mut journal = transaction.open_table(JOURNAL).unwrap();
            let mut audit = transaction.open_table(AUDIT).unwrap();
            let mut audit_of = transaction.open_table(AUDIT_OF).unwrap();
            let mut by_owner = transaction.open_table(BY_OWNER).unwrap();
            for _ in 0..GROUP {
                // Spread over the tree like ids that people ask for.
                let owner = ids[(done as usize * 7919) % ids.len()].as_str();
                sequence += 1;
                let author = (0, "BENCHDOCTOR");
                if how == "patch" {
                    // What the centre has, and the place in the queue, stay as the first edit left them.
                    docs.insert((PERSON, owner), body.as_slice()).unwrap();
                } else {
                    let id =
                        uuid::Uuid::from_u64_pair(sequence.wrapping_mul(0x9E37_79B9_7F4A_7C15), sequence);
                    let id = id.to_string();
                    docs.insert((PAGE, id.as_str()), body.as_slice()).unwrap();
                    base.insert((PAGE, id.as_str()), &body[..9]).unwrap();
                    dirty.insert((1, sequence, PAGE, id.as_str()), author).unwrap();
                    by_owner.insert((PAGE, owner, id.as_str()), ()).unwrap();
                }
                journal.insert(sequence, line.as_slice()).unwrap();
                audit.insert(sequence, entry.as_slice()).unwrap();
                audit_of.insert((owner, sequence), ()).unwrap();
                done += 1;
            }
        }
        transaction.commit().unwrap();
    }
    println!("measured {}", done as f64 / began.elapsed().as_secs_f64());
}
