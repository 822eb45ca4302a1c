//! A store's file is made as a whole or not at all, and one that is damaged stays as it is.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bson::doc;
use tempfile::TempDir;
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{Store, StoreError, StoreOptions};

const OPTIONS: StoreOptions =
    StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 1000, audit_keep_rows: 1000, clock: || 0 };

fn open(path: &Path) -> Result<Store, StoreError> {
    Store::open(path, OPTIONS)
}

fn ana() -> RecordKey {
    RecordKey::new(Kind::Person, "ANA")
}

/// A directory, and the file in it that a store with one record left.
async fn used_store() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.redb");
    let store = open(&path).unwrap();
    let edited = store.transact(|tx| -> Result<bool, StoreError> {
        tx.edit(&ana(), Some(&doc! {"_id": "ANA", "name": "Ana"}), &Actor::Local("tech".to_owned()))
    });
    edited.await.unwrap();
    (directory, path)
}

fn names_in(directory: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn what_an_interrupted_creation_left_is_replaced() {
    let whole = {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store.redb");
        drop(open(&path).unwrap());
        fs::read(path).unwrap()
    };
    let garbage = vec![0xA5; 10_000];
    let leftovers: [&[u8]; 6] =
        [&[], &[0; 4096], &garbage, &whole[..4096], &whole[..whole.len() / 2], &whole];
    for left in leftovers {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store.redb");
        fs::write(directory.path().join("store.redb.new"), left).unwrap();
        let store = open(&path).unwrap();
        assert!(store.read().unwrap().is_empty().unwrap());
        assert_eq!(names_in(&directory), ["store.redb"], "after {} bytes", left.len());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[tokio::test]
async fn a_store_is_opened_whatever_lies_beside_it() {
    let (directory, path) = used_store().await;
    fs::write(directory.path().join("store.redb.new"), b"left").unwrap();
    let store = open(&path).unwrap();
    assert!(store.read().unwrap().record(&ana()).unwrap().is_some());
}

#[tokio::test]
async fn a_damaged_store_is_not_written_over() {
    let (_directory, path) = used_store().await;
    let whole = fs::read(&path).unwrap();
    let mut garbage = whole.clone();
    garbage[..4096].fill(0xA5);
    let mut zeros = whole.clone();
    zeros[..9].fill(0);
    let cut = |length: usize| whole[..length].to_vec();
    let damaged = [cut(0), cut(1), cut(8), cut(100), cut(4096), cut(whole.len() / 2), garbage, zeros];
    for bytes in damaged {
        fs::write(&path, &bytes).unwrap();
        let error = open(&path).map(|_| ()).unwrap_err();
        assert!(
            matches!(error, StoreError::Damaged(_) | StoreError::Broken(_)),
            "{} bytes: {error:?}",
            bytes.len()
        );
        assert!(error.to_string().to_lowercase().contains("restore"), "{error}");
        assert!(fs::read(&path).unwrap() == bytes, "{} bytes were changed: {error}", bytes.len());
    }
    fs::write(&path, &whole).unwrap();
    assert!(open(&path).unwrap().read().unwrap().record(&ana()).unwrap().is_some());
}

#[tokio::test]
async fn a_link_that_leads_nowhere_is_no_reason_for_an_empty_store() {
    let (directory, path) = used_store().await;
    let (link, away) = (directory.path().join("link.redb"), directory.path().join("away.redb"));
    symlink(&path, &link).unwrap();
    assert!(open(&link).unwrap().read().unwrap().record(&ana()).unwrap().is_some());
    fs::rename(&path, &away).unwrap();
    assert!(open(&link).is_err());
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn two_that_start_at_once_make_one_store() {
    for _ in 0..20 {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store.redb");
        let opened: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| open(&path))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let held = opened.iter().filter(|store| matches!(store, Err(StoreError::Held))).count();
        assert_eq!((opened.iter().filter(|store| store.is_ok()).count(), held), (1, 3));
        assert_eq!(names_in(&directory), ["store.redb"]);
    }
}

/// The real program, killed while it makes its first store: at whichever moment, the next start finds its way.
#[test]
fn a_first_start_may_be_killed_at_any_moment() {
    let (mut none, mut unfinished, mut whole) = (0, 0, 0);
    for delay_us in (0..40_u64).map(|turn| turn * 250) {
        let directory = TempDir::new().unwrap();
        let data = directory.path().join("data");
        let (path, new) = (data.join("store.redb"), data.join("store.redb.new"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_thalamus-edge"));
        command.arg("serve").current_dir(directory.path()).env_clear();
        command.env("THALAMUS_EDGE__DATA_DIR", &data).env("THALAMUS_EDGE__SERVER__LISTEN", "127.0.0.1:0");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        // From the first sign of the file on; a start that was over before is a case too.
        while !new.exists() && !path.exists() {
            assert!(child.try_wait().unwrap().is_none(), "the node ended by itself");
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_micros(delay_us));
        child.kill().unwrap();
        child.wait().unwrap();
        match (path.exists(), new.exists()) {
            (true, _) => whole += 1,
            (false, true) => unfinished += 1,
            (false, false) => none += 1,
        }
        let store = open(&path).unwrap();
        assert!(store.read().unwrap().is_empty().unwrap());
        drop(store);
        let left = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(!left.into_iter().any(|name| name == "store.redb.new"));
    }
    println!("killed before, while and after the store was made: {none}, {unfinished}, {whole}");
}
