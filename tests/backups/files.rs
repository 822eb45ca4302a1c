//! The files of backups: how they are named, checked, thinned out and encrypted.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicI64, Ordering};

use thalamus_edge::backup::{BackupError, Listed, check, is_as_written, list, warnings};
use thalamus_edge::store::StreamError;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_backup_is_for_its_owner_only_and_has_a_checksum_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::in_memory(options()).unwrap();
    fill(&store).await;
    let made = Backups::new(store.clone(), settings(directory.path())).create().await.unwrap();
    let store_id = store.read().unwrap().store_id().unwrap().unwrap();
    let name = &format!("clinic-00000001-19700101T000001Z-{}.backup", &store_id[..8]);
    assert_eq!(made.file, directory.path().join("backups").join(name));
    assert_eq!(made.manifest.about.node_id.as_deref(), Some("here"));
    assert_eq!((mode(&made.file), mode(made.file.parent().unwrap())), (0o600, 0o700));
    let checksum = made.file.with_file_name(format!("{name}.sha256"));
    assert_eq!(mode(&checksum), 0o600);
    assert_eq!(fs::read_to_string(checksum).unwrap(), format!("{}  {name}\n", made.sha256));
    assert_eq!(names_in(made.file.parent().unwrap()).len(), 2);

    let checked = check(&made.file, None).unwrap();
    assert_eq!((checked.sha256, checked.checksum), (made.sha256, true));
    assert_eq!(checked.manifest.unwrap(), made.manifest);
    assert_eq!(made.manifest.content_sha256, store.read().unwrap().content_sha256().unwrap());
    assert_eq!(made.warnings.len(), 2, "{:?}", made.warnings);
}

/// By their numbers: a clock that jumps makes nothing older or newer than it is.
#[tokio::test]
async fn only_the_oldest_own_complete_backups_go() {
    static NOW: AtomicI64 = AtomicI64::new(0);
    let directory = tempfile::tempdir().unwrap();
    let clock = StoreOptions { clock: || NOW.load(Ordering::Relaxed), ..options() };
    let store = Store::in_memory(clock).unwrap();
    let settings = settings(directory.path());
    let backups = Backups::new(store.clone(), settings.clone());
    fs::create_dir(&settings.directory).unwrap();
    let others = [
        "south-00000001-20200101T000000Z.backup",
        "south-00000001-20200101T000000Z.backup.sha256",
        "south-00000002-20200101T000000Z.backup.part",
        // Nobody knows whether this one is whole.
        "clinic-00000001-20200101T000000Z.backup",
        "clinic-1-20200101T000000Z.backup",
        "notes.txt",
    ];
    for other in others {
        fs::write(settings.directory.join(other), "x").unwrap();
    }
    // What a process leaves behind that is killed.
    for left in [
        "clinic-00000009-20200101T000000Z.backup.part",
        "clinic-00000009-20200101T000000Z.backup.age.part",
        "clinic-00000009-20200101T000000Z.backup.sha256",
        "clinic-00000009-20200101T000000Z.backup.sha256.part",
    ] {
        fs::write(settings.directory.join(left), "x").unwrap();
    }
    let mut made = Vec::new();
    for (days, removed) in [(20_000, 0), (30_000, 0), (10_000, 0), (40_000, 1), (1, 1), (1, 1)] {
        NOW.store(days * 86_400_000, Ordering::Relaxed);
        edit(&store, "ANA", Some(doc! {"_id": "ANA", "day": days})).await;
        let backup = backups.create().await.unwrap();
        assert_eq!(backup.removed, removed);
        assert!(check(&backup.file, None).unwrap().manifest.is_some());
        made.push(backup.file.file_name().unwrap().to_str().unwrap().to_owned());
    }
    let numbers: Vec<_> = list(&settings.directory).unwrap().iter().map(|l| l.number).collect();
    assert_eq!(numbers, [1, 5, 6, 7, 1]);
    let mut expected: Vec<String> = others.map(str::to_owned).to_vec();
    for kept in &made[3..] {
        expected.extend([kept.clone(), format!("{kept}.sha256")]);
    }
    expected.sort();
    assert_eq!(names_in(&settings.directory), expected);
}

/// Two boxes may have one name and one directory: a disk of the network, a stick that goes round.
#[tokio::test]
async fn boxes_of_one_name_leave_each_others_backups_alone() {
    let directory = tempfile::tempdir().unwrap();
    let settings = BackupSettings { keep: 2, ..settings(directory.path()) };
    // One of an earlier version, which does not tell whose it is: it counts as one's own.
    let before = settings.directory.join("clinic-00000001-20261127T030000Z.backup");
    // The second one has just been set up: nothing was written in it yet.
    let stores = [Store::in_memory(options()).unwrap(), Store::in_memory(options()).unwrap()];
    edit(&stores[0], "ANA001", Some(doc! {"_id": "ANA001"})).await;
    let boxes = stores.map(|store| Backups::new(store, settings.clone()));
    let of = |listed: &[Listed], store: &Option<String>| {
        let own = listed.iter().filter(|listed| listed.store == *store);
        own.map(|listed| listed.number).collect::<Vec<_>>()
    };
    for _ in 0..3 {
        boxes[0].create().await.unwrap();
    }
    let first = list(&settings.directory).unwrap()[0].store.clone();
    assert!(first.is_some());
    assert_eq!(of(&list(&settings.directory).unwrap(), &first), [2, 3]);
    let removed: Vec<usize> = [
        boxes[1].create().await.unwrap().removed,
        boxes[1].create().await.unwrap().removed,
        boxes[1].create().await.unwrap().removed,
    ]
    .into();
    assert_eq!(removed, [0, 0, 1]);
    let listed = list(&settings.directory).unwrap();
    assert_eq!(of(&listed, &first), [2, 3], "the other one's");
    assert_eq!(listed.len(), 4);
    // What an earlier version made may be of either.
    let [oldest, ..] = &listed[..] else { panic!() };
    fs::copy(&oldest.file, &before).unwrap();
    let sum = fs::read_to_string(format!("{}.sha256", oldest.file.display())).unwrap();
    fs::write(format!("{}.sha256", before.display()), sum).unwrap();
    assert_eq!(boxes[0].create().await.unwrap().removed, 1);
    assert!(before.exists());
    // As long as no other box is seen there, it goes with the others.
    for listed in list(&settings.directory)
        .unwrap()
        .iter()
        .filter(|listed| listed.store.is_some() && listed.store != first)
    {
        fs::remove_file(&listed.file).unwrap();
    }
    assert_eq!(boxes[0].create().await.unwrap().removed, 2);
    assert!(!before.exists());
}

/// One that is damaged counts for none that stays, and goes with those that are older than enough whole ones.
#[tokio::test]
async fn a_damaged_backup_takes_no_place_of_a_good_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::in_memory(options()).unwrap();
    let settings = BackupSettings { keep: 2, ..settings(directory.path()) };
    let backups = Backups::new(store.clone(), settings.clone());
    let kept = || list(&settings.directory).unwrap().iter().map(|listed| listed.number).collect::<Vec<_>>();
    let mut made = Vec::new();
    for _ in 0..2 {
        made.push(backups.create().await.unwrap().file);
    }
    type Damage = fn(Vec<u8>) -> Vec<u8>;
    let flipped: Damage = |mut bytes| {
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        bytes
    };
    let damages: [Damage; 3] = [flipped, |bytes| bytes[..500].to_vec(), |_| Vec::new()];
    for damage in damages {
        let newest = made.last().unwrap();
        let good = fs::read(newest).unwrap();
        fs::write(newest, damage(good)).unwrap();
        let listed = list(&settings.directory).unwrap();
        assert_eq!(is_as_written(listed.last().unwrap()).unwrap(), Some(false));
        assert_eq!(is_as_written(&listed[0]).unwrap(), Some(true), "{:?}", kept());
        made.push(backups.create().await.unwrap().file);
        // The first is the only other one that could be restored.
        assert_eq!(kept()[0], 1);
    }
    assert_eq!(backups.create().await.unwrap().removed, 4);
    assert_eq!(kept(), [5, 6]);
    fs::remove_file(settings.directory.join(format!(
        "{}.sha256",
        list(&settings.directory).unwrap()[0].file.file_name().unwrap().to_str().unwrap()
    )))
    .unwrap();
    assert_eq!(is_as_written(&list(&settings.directory).unwrap()[0]).unwrap(), None);
}

/// Without a key and without a checksum nothing is known of what is in it.
#[tokio::test]
async fn an_encrypted_backup_is_not_verified_by_its_outside() {
    let directory = tempfile::tempdir().unwrap();
    let (public, keys) = pair(directory.path(), "key");
    let store = Store::in_memory(options()).unwrap();
    fill(&store).await;
    let file = back_up(&store, directory.path(), Some(&public)).await;
    let good = fs::read(&file).unwrap();
    let copy = directory.path().join("copy.backup.age");
    for (what, bytes, is_seen) in [
        ("as it is", good.clone(), false),
        ("longer", [good.clone(), b"x".to_vec()].concat(), false),
        ("cut in the head", good[..100].to_vec(), true),
        (
            "cut behind the head",
            good[..good.windows(4).position(|w| w == b"\n---").unwrap() + 48].to_vec(),
            true,
        ),
        ("empty", Vec::new(), true),
    ] {
        fs::write(&copy, bytes).unwrap();
        match check(&copy, None).unwrap_err() {
            BackupError::NotVerified { .. } => assert!(!is_seen, "{what}"),
            BackupError::Unusable { .. } => assert!(is_seen, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(check(&copy, Some(&keys)).is_ok(), what == "as it is", "{what}");
    }
}

#[tokio::test]
async fn a_backup_that_fails_leaves_nothing_and_does_no_harm() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("store");
    let store = Store::open(&file, options()).unwrap();
    fill(&store).await;
    let full = BackupSettings { reserve_bytes: u64::MAX, ..settings(directory.path()) };
    let error = Backups::new(store.clone(), full).create().await.unwrap_err();
    assert!(matches!(error, BackupError::NoRoom { .. }), "{error:?}");
    let message = error.to_string();
    for words in ["no backup was made: ", "/backups has only ", "[backup] directory"] {
        assert!(message.contains(words), "{message}");
    }
    assert!(names_in(&directory.path().join("backups")).is_empty());

    // A stick that is not there must not lead to backups in the place where it should be.
    let elsewhere = tempfile::tempdir().unwrap();
    let stick = elsewhere.path().join("stick");
    let away = BackupSettings { directory: stick.clone(), ..settings(directory.path()) };
    let error = Backups::new(store.clone(), away).create().await.unwrap_err().to_string();
    assert!(error.contains("/stick: ") && error.contains("mounted?") && !stick.exists(), "{error}");

    let astray = BackupSettings { directory: file.join("backups"), ..settings(directory.path()) };
    let error = Backups::new(store.clone(), astray).create().await.unwrap_err().to_string();
    assert!(error.contains("store/backups: "), "{error}");
    // The store goes on, and so do backups.
    edit(&store, "ANA", Some(doc! {"_id": "ANA"})).await;
    back_up(&store, directory.path(), None).await;
}

#[tokio::test]
async fn only_the_holders_of_the_keys_read_an_encrypted_backup() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (pair(directory.path(), "first"), pair(directory.path(), "second"));
    let (_, stranger) = pair(directory.path(), "stranger");
    let store = Store::in_memory(options()).unwrap();
    edit(&store, "ANA", Some(doc! {"_id": "ANA", "name": "SECRET-NAME"})).await;
    let recipients = vec![first.0.parse().unwrap(), second.0.parse().unwrap()];
    let made = Backups::new(store, BackupSettings { recipients, ..settings(directory.path()) });
    let made = made.create().await.unwrap();
    assert!(made.encrypted && made.file.to_str().unwrap().ends_with(".backup.age"));
    let bytes = fs::read(&made.file).unwrap();
    assert!(bytes.starts_with(b"age-encryption.org/v1\n"));
    assert!(!bytes.windows(11).any(|window| window == b"SECRET-NAME"));
    for keys in [&first.1, &second.1] {
        assert_eq!(check(&made.file, Some(keys)).unwrap().manifest.as_ref(), Some(&made.manifest));
    }
    // Without a key only the checksum can be looked at.
    let checked = check(&made.file, None).unwrap();
    assert!(checked.checksum && checked.manifest.is_none());
    let error = check(&made.file, Some(&stranger)).unwrap_err();
    assert!(matches!(error, BackupError::WrongKey(_)), "{error:?}");
    // Nothing that was made for checking it lies about.
    assert_eq!(names_in(directory.path()), ["backups", "first", "second", "stranger"]);
    assert_eq!(warnings(&settings(directory.path())).len(), 2);
    assert_eq!(made.warnings.len(), 1, "{:?}", made.warnings);
}

#[tokio::test]
async fn damage_is_found_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let (public, keys) = pair(directory.path(), "key");
    let store = Store::in_memory(options()).unwrap();
    fill(&store).await;
    let file = back_up(&store, directory.path(), Some(&public)).await;
    let checksum = file.with_file_name(format!("{}.sha256", file.file_name().unwrap().to_str().unwrap()));
    let good = fs::read(&file).unwrap();
    let last = good.len() - 1;
    // In the first words, in a key, in the header's code, in the text, in its end.
    let places = [0, 30, 200, good.len() / 4, good.len() / 2, last - 20, last];
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    let mut spoiled: Vec<(String, Vec<u8>)> =
        places.iter().map(|at| (format!("byte {at}"), flipped(*at))).collect();
    for length in [0, 10, 100, 400, good.len() / 2, last] {
        spoiled.push((format!("{length} bytes"), good[..length].to_vec()));
    }
    spoiled.push(("longer".to_owned(), [good.clone(), b"x".to_vec()].concat()));
    for (what, bytes) in spoiled {
        fs::write(&file, &bytes).unwrap();
        let error = check(&file, Some(&keys)).unwrap_err();
        assert!(matches!(error, BackupError::Checksum(_)), "{what}: {error:?}");
        assert!(error.to_string().contains("its SHA-256 is not what"), "{error}");
        // And without the checksum too.
        let noted = fs::read(&checksum).unwrap();
        fs::remove_file(&checksum).unwrap();
        let error = check(&file, Some(&keys)).unwrap_err();
        let is_named = match &error {
            BackupError::Unusable { cause, .. } => {
                matches!(cause, StreamError::Damaged(_) | StreamError::NotABackup)
            }
            // A changed key is another one.
            BackupError::WrongKey(_) => what.starts_with("byte"),
            _ => false,
        };
        assert!(is_named, "{what}: {error:?}");
        fs::write(&checksum, noted).unwrap();
    }
    fs::write(&file, &good).unwrap();
    assert!(check(&file, Some(&keys)).unwrap().manifest.is_some());
    fs::write(&checksum, b"\xff\xfe").unwrap();
    assert!(matches!(check(&file, Some(&keys)).unwrap_err(), BackupError::Checksum(_)));
    let error = Keys::read(&file).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains(".backup.age: "), "{error}");
    let error = Keys::read(&checksum.with_file_name("absent")).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("absent: "), "{error}");
}
