//! Damaged rows of every table are set aside, and backups are made again.

use bson::doc;

use super::*;
use crate::domain::access::Actor;
use crate::store::rows::encode;
use crate::store::{AuditQuery, StoreOptions};

const OPTIONS: StoreOptions =
    StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 1_000, audit_keep_rows: 1_000, clock: || 0 };

fn row() -> Vec<u8> {
    encode(&doc! {"what": "is left"}).unwrap()
}

/// A damaged row in every table that has checksums and is not about a record alone.
fn damage(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    let (person, id) = (Kind::Person.schema().code, "ana");
    for rows in [
        &mut tx.dead,
        &mut tx.held,
        &mut tx.waiting,
        &mut tx.restore,
        &mut tx.former_dates,
        &mut tx.unsent_versions,
    ] {
        rows.insert_damaged((person, id), &row())?;
    }
    for rows in [
        &mut tx.hold,
        &mut tx.departed,
        &mut tx.meant,
        &mut tx.newcomer,
        &mut tx.conflict,
        &mut tx.grants,
        &mut tx.local_accounts,
    ] {
        rows.insert_damaged("ana", &row())?;
    }
    tx.conflict_open.insert((person, id, "ana"), ())?;
    tx.conflict_outbox.insert("ana", ())?;
    tx.held_of.insert(("ANA", person, id), ())?;
    tx.trash.insert_damaged((person, id, 7), &row())?;
    tx.trash_order.insert((7, person, id), ())?;
    tx.content.insert_damaged(("0123", 0), b"bytes")?;
    for rows in [&mut tx.sent, &mut tx.emergency] {
        rows.insert_damaged(2, &row())?;
    }
    tx.echo.insert((person, id, 2), ())?;
    let (change, entry) = (tx.journal.unchecked_value(2)?, tx.audit.unchecked_value(2)?);
    tx.journal.insert_damaged(2, &change.unwrap_or_default())?;
    tx.audit.insert_damaged(2, &entry.unwrap_or_default())?;
    tx.wrote();
    Ok(())
}

#[tokio::test]
async fn a_damaged_row_of_any_table_is_set_aside_and_backups_are_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store.redb"), OPTIONS).unwrap();
    let job = |tx: &mut Tx<'_>| -> Result<(), StoreError> {
        for id in ["ana", "eva", "iva"] {
            let person = doc! {"_id": id, "name": format!("Name {id}")};
            tx.edit(&RecordKey::new(Kind::Person, id), Some(&person), &Actor::Local("tech".to_owned()))?;
        }
        damage(tx)
    };
    store.transact(job).await.unwrap();
    let damaged = store.damaged_rows();
    let tables: std::collections::BTreeSet<_> = damaged.iter().map(|row| row.table.clone()).collect();
    assert_eq!((damaged.len(), tables.len()), (19, 19), "{tables:?}");
    let record_tables: Vec<_> = OF_RECORDS.iter().map(|rows| rows.name()).collect();
    let mut missing = Vec::new();
    struct Names<'a>(&'a mut Vec<&'static str>);
    impl EachTable for Names<'_> {
        type Error = StoreError;
        fn table<K: Key + 'static, V: Value + 'static>(
            &mut self,
            _: TableDefinition<'static, K, V>,
        ) -> Result<(), StoreError> {
            Ok(())
        }
        fn rows<K: RowName>(&mut self, rows: RowsDefinition<K>) -> Result<(), StoreError> {
            self.0.push(rows.name());
            Ok(())
        }
    }
    each_table(&mut Names(&mut missing)).unwrap();
    missing.retain(|name| !record_tables.contains(name) && !tables.contains(*name));
    assert_eq!(missing, Vec::<&str>::new(), "every table is tried");
    for DamagedRow { table, kind, id } in damaged {
        assert!(store.read().unwrap().content_sha256().is_err(), "{table}");
        let which = |id: &str| AsideRows { table: table.clone(), kind, id: Some(id.to_owned()) };
        let error = store.set_aside_rows(which("999")).await.unwrap_err();
        assert!(matches!(error, SetAsideError::NotDamaged), "{table}: {error}");
        let (file, count) = store.set_aside_rows(which(&id)).await.unwrap();
        assert_eq!(count, 1, "{table}");
        let text = std::fs::read_to_string(file).unwrap();
        assert!(text.contains(&format!("\"table\":\"{table}\"")) && text.contains(&id), "{text}");
        assert!(!store.damaged_rows().iter().any(|row| row.table == table), "{table}");
    }
    let snapshot = store.read().unwrap();
    assert!(snapshot.content_sha256().is_ok());
    assert_eq!(snapshot.disagreements().unwrap(), Vec::<String>::new());
    // The chain goes on behind the entry, which says that it cannot be read; the feed begins behind the change.
    let trail = snapshot.audit(&AuditQuery { limit: 100, ..Default::default() }).unwrap();
    let unreadable: Vec<_> = trail.rows.iter().filter_map(|row| row.as_ref().err()).collect();
    assert_eq!(unreadable, [&2]);
    let said = trail.rows.iter().flatten().filter(|entry| entry.event.verb == "set_aside").count();
    assert_eq!(said, 19);
    assert_eq!(snapshot.journal(0, 100).unwrap().rows.len(), 1);
}

#[tokio::test]
async fn all_damaged_rows_of_a_table_are_set_aside_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store.redb"), OPTIONS).unwrap();
    let job = |tx: &mut Tx<'_>| -> Result<(), StoreError> {
        for account in ["ana", "eva", "iva"] {
            tx.grants.insert_damaged(account, &row())?;
        }
        tx.docs.insert_damaged((Kind::Person.schema().code, "ana"), &row())?;
        tx.wrote();
        Ok(())
    };
    store.transact(job).await.unwrap();
    let all = |table: &str| AsideRows { table: table.to_owned(), kind: None, id: None };
    assert_eq!(store.set_aside_rows(all("grants")).await.unwrap().1, 3);
    let errors = [("grants", "NotDamaged"), ("docs", "OfRecord"), ("by_owner", "NoTable"), ("x", "NoTable")];
    for (table, name) in errors {
        let error = store.set_aside_rows(all(table)).await.unwrap_err();
        assert_eq!(format!("{error:?}"), name, "{table}");
    }
}

/// As many damaged rows as are kept by name, in a table of many.
#[tokio::test]
async fn what_became_of_many_damaged_rows_is_found_out_soon() {
    let store = Store::in_memory(OPTIONS).unwrap();
    let job = |tx: &mut Tx<'_>| -> Result<(), StoreError> {
        for n in 0..20_000 {
            let account = format!("account-{n:05}");
            match n % 20 {
                0 => tx.grants.insert_damaged(account.as_str(), &row())?,
                _ => tx.grants.insert(account.as_str(), &row())?,
            }
        }
        tx.wrote();
        Ok(())
    };
    store.transact(job).await.unwrap();
    assert_eq!(store.damaged_rows().len(), 1_000);
    let begun = std::time::Instant::now();
    store.settle_damage().await.unwrap();
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    let half = |tx: &mut Tx<'_>| -> Result<(), StoreError> {
        for n in (0..10_000).step_by(20) {
            tx.grants.insert(format!("account-{n:05}").as_str(), &row())?;
        }
        tx.wrote();
        Ok(())
    };
    store.transact(half).await.unwrap();
    store.settle_damage().await.unwrap();
    assert_eq!(store.damaged_rows().len(), 500);
}
