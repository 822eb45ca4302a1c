//! Floor 3. Backups: files that hold everything the store held at one moment, and the way back.
//!
//! Hides how they are named, encrypted, checked, thinned out and restored. A backup counts only once it was read
//! back from its file to the end; until then it has another name. It never takes the store's last room.

mod name;
mod restore;
mod schedule;
mod seal;

use std::convert::Infallible;
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::files::{Part, give_to_owner_of_directory, suffixed};
use crate::store::{About, Manifest, Store, StoreError, StreamError};
use crate::sync;
pub use name::Owner;
use name::{CHECKSUM_ENDING, Name, PART_ENDING, node_part};

pub use restore::{Present, Restored, Target, restore};
pub use schedule::{Clocks, keep_schedule, next_ms, parse_schedule};
pub use seal::{Keys, Recipient, new_pair};

/// How much is written between two looks at what is free, in bytes.
const LOOK_BYTES: u64 = 8 << 20;
const DIRECTORY_MODE: u32 = 0o700;

/// How backups are made.
#[derive(Debug, Clone)]
pub struct BackupSettings {
    pub directory: PathBuf,
    /// How many complete backups of this node stay; at least one.
    pub keep: usize,
    /// Empty: backups are not encrypted.
    pub recipients: Vec<Recipient>,
    pub node_name: String,
    /// The directory of the store.
    pub data_dir: PathBuf,
    /// Left free on the store's disk, in bytes.
    pub reserve_bytes: u64,
}

impl BackupSettings {
    /// What this node's backups are called by.
    pub fn node_part(&self) -> String {
        node_part(&self.node_name)
    }

    /// Whether a directory that is not there is simply still to be made: below the data directory.
    fn may_be_missing(&self) -> Result<(), BackupError> {
        match self.directory.starts_with(&self.data_dir) {
            true => Ok(()),
            false => Err(BackupError::NoDirectory(self.directory.clone())),
        }
    }
}

/// Why there is no backup, or none to restore.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{}: {cause}", path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error("no backup was made: {}: there is no such directory: is the disk connected and mounted?", .0.display())]
    NoDirectory(PathBuf),
    /// A backup failed while it was written; nothing of it is left.
    #[error("no backup was made: {}: {cause}", path.display())]
    NotWritten { path: PathBuf, cause: StreamError },
    #[error(
        "no backup was made: {} has only {free} bytes free, and the node keeps {reserve} for itself: make room, \
         or name another disk in [backup] directory", path.display()
    )]
    NoRoom { path: PathBuf, free: u64, reserve: u64 },
    #[error("no backup was made: what was read back from {} is not what was written: the disk may be failing", .0.display())]
    NotReadBack(PathBuf),
    /// The backup may be good, but there is no store made of it.
    #[error("{}: {cause}: nothing was restored", path.display())]
    NoNewStore { path: PathBuf, cause: StoreError },
    #[error("{}: {cause}", path.display())]
    Unusable { path: PathBuf, cause: StreamError },
    #[error("{}: the file is not the one that was written: its SHA-256 is not what {} says", .0.display(), seal::checksum_path(.0).display())]
    Checksum(PathBuf),
    #[error("{}: the backup is encrypted: name the file with the secret key with --identity", .0.display())]
    KeyNeeded(PathBuf),
    #[error("{}: the backup is encrypted to another key than this one", .0.display())]
    WrongKey(PathBuf),
    #[error(
        "{}: not verified: the backup is encrypted, and no checksum stands beside it. Its head and its length are those \
         of a backup, which says nothing about what is in it: name the file with the secret key with --identity, or put \
         {} beside it (SHA-256 of the file as it is: {sha256})", path.display(), seal::checksum_path(path).display()
    )]
    NotVerified { path: PathBuf, sha256: String },
    #[error("{}: there is no secret key in it (a line AGE-SECRET-KEY-1...)", .0.display())]
    NoKeys(PathBuf),
    #[error("a node holds the store in {}: stop it first (systemctl stop thalamus-edge)", .0.display())]
    Running(PathBuf),
}

/// A backup in the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    pub file: PathBuf,
    pub node: String,
    pub number: u64,
    /// Seconds since 1970 by the node's clock.
    pub created_s: i64,
    /// The beginning of its store's id, if the name tells it.
    pub store: Option<String>,
    pub bytes: u64,
    pub encrypted: bool,
    /// Whether its checksum stands beside it.
    pub checksum: bool,
}

/// A backup that was made.
#[derive(Debug, Serialize)]
pub struct Made {
    pub file: PathBuf,
    pub bytes: u64,
    pub sha256: String,
    pub encrypted: bool,
    pub manifest: Manifest,
    /// Older ones that went for it.
    pub removed: usize,
    /// What a technician should know, in sentences.
    pub warnings: Vec<String>,
}

/// What was found out about a backup. Either it was compared with its checksum, or it was read to its end.
#[derive(Debug)]
pub struct Checked {
    pub sha256: String,
    /// Whether a checksum stands beside it; it was right then.
    pub checksum: bool,
    /// Absent if the backup is encrypted and there was no key.
    pub manifest: Option<Manifest>,
}

fn broken_off() -> BackupError {
    BackupError::Store(StoreError::Failed("the backup was broken off".into()))
}

/// How far behind everything else a backup stands in line for a processor.
const BACKUP_NICENESS: i32 = 15;

/// Makes backups of one store, one at a time.
pub struct Backups {
    store: Store,
    settings: BackupSettings,
    turn: tokio::sync::Mutex<()>,
}

impl Backups {
    pub fn new(store: Store, settings: BackupSettings) -> Arc<Backups> {
        Arc::new(Backups { store, settings, turn: tokio::sync::Mutex::new(()) })
    }

    /// Makes a backup, reads it back, and then lets go of those that are too many. After an error nothing has
    /// changed.
    pub async fn create(self: &Arc<Self>) -> Result<Made, BackupError> {
        match self.create_if(|| Ok::<(), Infallible>(())).await {
            Ok(made) => made,
            Err(never) => match never {},
        }
    }

    /// [`Backups::create`] for a client, which waits for its turn behind other backups, for minutes perhaps. `check` is asked
    /// when that has come; its error is returned, and nothing is made.
    pub async fn create_if<E>(
        self: &Arc<Self>,
        check: impl FnOnce() -> Result<(), E>,
    ) -> Result<Result<Made, BackupError>, E> {
        let _turn = self.turn.lock().await;
        check()?;
        Ok(self.create_now().await)
    }

    async fn create_now(self: &Arc<Self>) -> Result<Made, BackupError> {
        self.name_store().await;
        let backups = Arc::clone(self);
        let made = tokio::task::spawn_blocking(move || {
            // A thread of its own, which ends with its priority.
            let thread = std::thread::Builder::new().name("backup".into()).spawn(move || {
                // Of this thread only. A backup has time, people have not; without it writes beside a backup are a
                // third slower on a box with two cores.
                let _ = rustix::process::setpriority_process(None, BACKUP_NICENESS);
                backups.make()
            });
            let thread = thread.map_err(|e| BackupError::Store(StoreError::Failed(e.to_string())))?;
            thread.join().map_err(|_| broken_off())?
        });
        made.await.map_err(|_| broken_off())?
    }

    /// Without an id of the store its backups could not be told from those of another box of this name. Where none can be written,
    /// the disk being full, none of theirs are removed either.
    async fn name_store(&self) {
        if self.store.read().and_then(|snapshot| snapshot.store_id()).is_ok_and(|id| id.is_some()) {
            return;
        }
        if let Err(error) = self.store.transact(|tx| tx.name_store()).await {
            tracing::warn!(%error, "backups of this store tell no store: it has no id, and none could be written");
        }
    }

    fn make(&self) -> Result<Made, BackupError> {
        let settings = &self.settings;
        let directory = &settings.directory;
        self.make_directory()?;
        let own = self.owner()?;
        tidy(directory, &own)?;
        let last = list(directory)?.iter().filter(|listed| listed.node == own.node).map(|l| l.number).max();
        let created_ms = self.store.now_ms();
        let name = Name {
            node: own.node.clone(),
            store: own.store(),
            number: last.map_or(1, |last| last.saturating_add(1)),
            created_s: created_ms.div_euclid(1000),
            is_encrypted: !settings.recipients.is_empty(),
        };
        let part = new_part(directory.join(format!("{name}{PART_ENDING}")))?;
        let sealed = self.write(&part, created_ms)?;
        let is_whole = seal::file_sha256(part.path())? == sealed.sha256
            && seal::manifest(part.path(), Some(&sealed.keys)).is_ok_and(|found| found == sealed.manifest);
        if !is_whole {
            return Err(BackupError::NotReadBack(part.path().to_owned()));
        }
        let file = directory.join(name.to_string());
        write_checksum(&file, &name, &sealed.sha256)?;
        part.complete(&file).map_err(file_error(&file))?;
        Ok(Made {
            file,
            bytes: sealed.bytes,
            sha256: sealed.sha256,
            encrypted: name.is_encrypted,
            manifest: sealed.manifest,
            removed: thin_out(directory, &own, settings.keep)?,
            warnings: warnings(settings),
        })
    }

    fn owner(&self) -> Result<Owner, BackupError> {
        let snapshot = self.store.read()?;
        // A copy of this store that goes on by itself gets another id at the centre.
        let ids = [sync::node_id(&snapshot)?, snapshot.store_id()?];
        Ok(Owner::new(&self.settings.node_name, ids.into_iter().flatten()))
    }

    /// Below the data directory it is made. Anywhere else it may be missing because a disk is, and backups that
    /// go to the place where that disk should be are on the wrong one.
    fn make_directory(&self) -> Result<(), BackupError> {
        let directory = &self.settings.directory;
        if directory.is_dir() {
            return Ok(());
        }
        self.settings.may_be_missing()?;
        let made = DirBuilder::new().mode(DIRECTORY_MODE).create(directory);
        made.and_then(|()| give_to_owner_of_directory(directory)).map_err(file_error(directory))
    }

    fn write(&self, part: &Part, created_ms: i64) -> Result<seal::Sealed, BackupError> {
        let settings = &self.settings;
        let snapshot = self.store.read()?;
        let about =
            About { node_name: settings.node_name.clone(), node_id: sync::node_id(&snapshot)?, created_ms };
        let mut out = Careful::new(part.file(), settings);
        let sealed = seal::write(&mut out, &settings.recipients, |out| snapshot.write_backup(&about, out));
        if let Some(free) = out.no_room {
            let path = settings.directory.clone();
            return Err(BackupError::NoRoom { path, free, reserve: settings.reserve_bytes });
        }
        let not_written = |cause| BackupError::NotWritten { path: settings.directory.clone(), cause };
        let sealed = sealed.map_err(not_written)?;
        part.file().sync_all().map_err(|error| not_written(StreamError::Write(error)))?;
        Ok(sealed)
    }
}

/// A file on the way to be a backup.
fn new_part(path: PathBuf) -> Result<Part, BackupError> {
    let at = file_error(&path);
    let part = Part::create(path.clone()).and_then(|part| give_to_owner_of_directory(&path).map(|()| part));
    part.map_err(at)
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |cause| BackupError::File { path, cause }
}

/// Writes as long as the store's own disk keeps its reserve.
struct Careful<'a> {
    file: &'a File,
    /// Absent on another disk than the store's, which may become full.
    reserve: Option<u64>,
    since_look: u64,
    /// What was free when it was too little.
    no_room: Option<u64>,
}

impl<'a> Careful<'a> {
    fn new(file: &'a File, settings: &BackupSettings) -> Careful<'a> {
        let is_same = is_same_device(settings).unwrap_or(true);
        let reserve = is_same.then_some(settings.reserve_bytes);
        Careful { file, reserve, since_look: LOOK_BYTES, no_room: None }
    }
}

impl io::Write for Careful<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(reserve) = self.reserve.filter(|_| self.since_look >= LOOK_BYTES) {
            let disk = rustix::fs::fstatvfs(self.file)?;
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            if free < reserve {
                self.no_room = Some(free);
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.since_look = 0;
        }
        let mut file = self.file;
        let written = file.write(bytes)?;
        self.since_look += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What backups do not protect against, as they are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weakness {
    NotEncrypted,
    SameDisk,
}

impl Weakness {
    /// What to do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Weakness::NotEncrypted => {
                "`thalamus-edge backup keygen` makes a pair of keys, [backup] recipients names the public one"
            }
            Weakness::SameDisk => "[backup] directory can name another",
        }
    }
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Weakness::NotEncrypted => {
                "backups are not encrypted: anyone who gets at one reads health records and password hashes"
            }
            Weakness::SameDisk => "backups lie on the same disk as the store and are lost with it",
        })
    }
}

pub fn weaknesses(settings: &BackupSettings) -> Vec<Weakness> {
    let mut weaknesses = Vec::new();
    if settings.recipients.is_empty() {
        weaknesses.push(Weakness::NotEncrypted);
    }
    if is_same_device(settings).unwrap_or(true) {
        weaknesses.push(Weakness::SameDisk);
    }
    weaknesses
}

/// What a technician should know about how backups are made, in sentences.
pub fn warnings(settings: &BackupSettings) -> Vec<String> {
    weaknesses(settings).into_iter().map(|weakness| format!("{weakness} ({})", weakness.remedy())).collect()
}

/// Whether backups go to the disk of the store; looks at what exists of both paths.
fn is_same_device(settings: &BackupSettings) -> Option<bool> {
    let device = |path: &Path| path.ancestors().find_map(|path| fs::metadata(path).ok()).map(|m| m.dev());
    Some(device(&settings.directory)? == device(&settings.data_dir)?)
}

/// The complete backups in a directory, each node's in order; none if there is no directory.
pub fn list(directory: &Path) -> Result<Vec<Listed>, BackupError> {
    let at = |cause| BackupError::File { path: directory.to_owned(), cause };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(at)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(at)?;
        let Some(name) = entry.file_name().to_str().and_then(Name::parse) else {
            continue;
        };
        let file = entry.path();
        let bytes = match fs::symlink_metadata(&file) {
            Ok(about) if about.is_file() => about.len(),
            // No file of ours, or gone just now.
            _ => continue,
        };
        found.push(Listed {
            checksum: seal::has_checksum(&file),
            node: name.node,
            number: name.number,
            created_s: name.created_s,
            store: name.store,
            bytes,
            encrypted: name.is_encrypted,
            file,
        });
    }
    found.sort_by(|a, b| (&a.node, a.number, &a.file).cmp(&(&b.node, b.number, &b.file)));
    Ok(found)
}

/// The backups of this node in order, those without a checksum among them.
pub fn list_own(settings: &BackupSettings, own: &Owner) -> Result<Vec<Listed>, BackupError> {
    let directory = &settings.directory;
    if !directory.is_dir() {
        settings.may_be_missing()?;
    }
    Ok(own_of(list(directory)?, own))
}

/// Those of one node and its store. What an earlier version made tells no store: it counts as long as no other box of this name
/// is seen to have the directory too.
fn own_of(mut listed: Vec<Listed>, own: &Owner) -> Vec<Listed> {
    let is_shared = listed.iter().any(|listed| own.is_others(&listed.node, listed.store.as_deref()));
    listed.retain(|listed| {
        own.has(&listed.node, listed.store.as_deref()) && !(is_shared && listed.store.is_none())
    });
    listed
}

/// Whether a backup is the file that was written: its SHA-256 is the one beside it. Reads all of it. `None` if no checksum
/// stands beside it; an error if one of the two files cannot be read.
pub fn is_as_written(listed: &Listed) -> Result<Option<bool>, BackupError> {
    let Some(noted) = seal::noted_sha256(&listed.file)? else {
        return Ok(None);
    };
    Ok(Some(seal::file_sha256(&listed.file)? == noted))
}

/// Checks a backup: its checksum, if one stands beside it, and with a key, or if none is needed, all of it. Where neither
/// can be looked at, that is [`BackupError::NotVerified`].
pub fn check(path: &Path, keys: Option<&Keys>) -> Result<Checked, BackupError> {
    let sha256 = seal::file_sha256(path)?;
    let noted = seal::noted_sha256(path)?;
    if noted.as_ref().is_some_and(|noted| *noted != sha256) {
        return Err(BackupError::Checksum(path.to_owned()));
    }
    let manifest = match seal::manifest(path, keys) {
        Err(BackupError::KeyNeeded(_)) => {
            seal::examine_outside(path)?;
            if noted.is_none() {
                return Err(BackupError::NotVerified { path: path.to_owned(), sha256 });
            }
            None
        }
        manifest => Some(manifest?),
    };
    Ok(Checked { sha256, checksum: noted.is_some(), manifest })
}

/// Removes what a process that was killed has left of this node's backups.
fn tidy(directory: &Path, own: &Owner) -> Result<(), BackupError> {
    let at = |cause| BackupError::File { path: directory.to_owned(), cause };
    for entry in fs::read_dir(directory).map_err(at)? {
        let path = entry.map_err(at)?.path();
        let Some(file) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let is_part = file.ends_with(PART_ENDING);
        let stem = file.strip_suffix(PART_ENDING).unwrap_or(file);
        let of = stem.strip_suffix(CHECKSUM_ENDING).unwrap_or(stem);
        let is_own = Name::parse(of).is_some_and(|name| own.has(&name.node, name.store.as_deref()));
        let is_alone = file.ends_with(CHECKSUM_ENDING) && !directory.join(of).exists();
        if is_own && (is_part || is_alone) {
            fs::remove_file(&path).map_err(|cause| BackupError::File { path, cause })?;
        }
    }
    Ok(())
}

/// Removes the oldest complete backups of this node, by their numbers, once `keep` newer ones are there that are as they
/// were written; says how many. One that is damaged takes no place of one that could be restored.
fn thin_out(directory: &Path, own: &Owner, keep: usize) -> Result<usize, BackupError> {
    let own = own_of(list(directory)?, own);
    let complete: Vec<_> = own.into_iter().filter(|listed| listed.checksum).collect();
    let keep = keep.max(1);
    if complete.len() <= keep {
        return Ok(0);
    }
    let mut whole = 0;
    let mut newest_first = complete.iter().rev();
    while whole < keep {
        match newest_first.next() {
            Some(listed) => whole += usize::from(matches!(is_as_written(listed), Ok(Some(true)))),
            None => break,
        }
    }
    let mut removed = 0;
    for listed in newest_first.rev() {
        // Never a backup without its checksum.
        for path in [listed.file.clone(), seal::checksum_path(&listed.file)] {
            fs::remove_file(&path).map_err(|cause| BackupError::File { path, cause })?;
        }
        removed += 1;
    }
    Ok(removed)
}

/// Written before the backup has its name, so that no backup is ever without one.
fn write_checksum(file: &Path, name: &Name, sha256: &str) -> Result<(), BackupError> {
    let path = seal::checksum_path(file);
    let part = new_part(suffixed(&path, PART_ENDING))?;
    let written = writeln!(part.file(), "{sha256}  {name}");
    written.and_then(|()| part.complete(&path)).map_err(file_error(&path))
}
