//! Floor 3. Restoring: a new store out of a backup takes the place of the present one, which is kept.
//!
//! At every moment the name of the store's file belongs to the old store or to the new one, each of them whole.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{BackupError, Keys, file_error, seal};
use crate::domain::access::Actor;
use crate::domain::audit::{Event, What};
use crate::files::{Unfinished, directory_of, give_to_owner_of_directory, suffixed, sync_directory};
use crate::store::{
    FORMAT_VERSION, Manifest, StoreError, StoreKey, StoreOptions, StreamError, Summary, lock_file,
    look_at_store, rebuild,
};
use crate::sync;

/// The name of the new store until it is whole.
const NEW_ENDING: &str = "restoring";
/// What a store is called that was replaced; a number follows.
const KEPT_ENDING: &str = "before-restore";

/// Where a backup is restored to.
pub struct Target<'a> {
    pub store_file: &'a Path,
    /// Of the store that is there, and of the one that will be.
    pub key: Option<&'a StoreKey>,
    pub options: StoreOptions,
    /// Who restores.
    pub by: Actor,
}

/// What is in the place of the store before a restore, which nobody has changed. Nobody else can open it as long as this is
/// kept.
pub enum Present {
    Absent,
    Readable {
        lock: File,
        summary: Box<Summary>,
        node_id: Option<String>,
    },
    /// Damaged, or of a later version.
    Unreadable {
        reason: StoreError,
        lock: File,
    },
}

impl Present {
    /// Takes the store for this process alone; fails with [`BackupError::Running`] while another one has it.
    pub fn hold(target: &Target<'_>) -> Result<Present, BackupError> {
        let store_file = target.store_file;
        if !store_file.exists() {
            return Ok(Present::Absent);
        }
        let held = |error| match error {
            StoreError::Held => BackupError::Running(store_file.to_owned()),
            other => BackupError::Store(other),
        };
        let looked = look_at_store(store_file, target.key, |snapshot| {
            Ok((Box::new(snapshot.summary()?), sync::node_id(snapshot)?))
        });
        let lock = || lock_file(store_file).map_err(held);
        match looked {
            Ok(Some((summary, node_id))) => Ok(Present::Readable { lock: lock()?, summary, node_id }),
            Ok(None) => {
                let reason = StoreError::Older { found: FORMAT_VERSION - 1, known: FORMAT_VERSION };
                Ok(Present::Unreadable { reason, lock: lock()? })
            }
            Err(StoreError::Held) => Err(held(StoreError::Held)),
            Err(reason) => Ok(Present::Unreadable { reason, lock: lock()? }),
        }
    }
}

/// What a restore has done.
#[derive(Debug)]
pub struct Restored {
    pub manifest: Manifest,
    /// Where the store is that was replaced.
    pub kept: Option<PathBuf>,
}

/// Puts a store made of `backup` in the place of the present one. After an error that one is as it was.
pub fn restore(
    backup: &Path,
    keys: Option<&Keys>,
    target: &Target<'_>,
    present: Present,
) -> Result<Restored, BackupError> {
    // The store may be a link to another disk.
    let store_file = match present {
        Present::Absent => target.store_file.to_owned(),
        _ => fs::canonicalize(target.store_file).map_err(file_error(target.store_file))?,
    };
    let directory = directory_of(&store_file);
    let new = beside(&store_file, NEW_ENDING);
    let unfinished = Unfinished::at(new.clone()).map_err(file_error(&new))?;
    let (key, event) = (target.key, Event::new(What::Restore, &target.by));
    let restore = |input: &mut dyn Read| rebuild(input, &new, key, &target.options, &event);
    let manifest = seal::open(backup, keys, restore);
    let manifest = manifest.map_err(|error| match error {
        BackupError::Unusable { cause: StreamError::Store(cause), .. } => {
            BackupError::NoNewStore { path: new.clone(), cause }
        }
        other => other,
    })?;
    give_to_owner_of_directory(&new).and_then(|()| sync_directory(directory)).map_err(file_error(&new))?;
    sync::step("restore.rebuilt");
    let kept = match present {
        // A node that was started meanwhile has made a store, and that one stays.
        Present::Absent => {
            fs::hard_link(&new, &store_file).map_err(file_error(&store_file))?;
            drop(unfinished);
            sync_directory(directory).map_err(file_error(directory))?;
            None
        }
        _ => {
            let kept = free_name(&store_file);
            let linked = fs::hard_link(&store_file, &kept).and_then(|()| sync_directory(directory));
            linked.map_err(file_error(&kept))?;
            sync::step("restore.kept");
            unfinished.take_place(&store_file).map_err(file_error(&store_file))?;
            Some(kept)
        }
    };
    sync::step("restore.swapped");
    // Only now may anybody open what was the store.
    drop(present);
    Ok(Restored { manifest, kept })
}

fn beside(store_file: &Path, ending: &str) -> PathBuf {
    suffixed(store_file, &format!(".{ending}"))
}

fn free_name(store_file: &Path) -> PathBuf {
    let name = |n: u32| beside(store_file, &format!("{KEPT_ENDING}-{n}"));
    // Linking fails if somebody is quicker.
    (1..u32::MAX).map(name).find(|path| fs::symlink_metadata(path).is_err()).unwrap_or_else(|| name(u32::MAX))
}
