//! Floor 5. The `db clear-copies` command: what an encrypted store leaves beside it in the clear.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context as _;
use clap::Args;

use crate::app::store_file;
use crate::backup;
use crate::cli::terminal::show::plain;
use crate::cli::terminal::{Done, EXIT_FAILED};
use crate::config::Config;
use crate::store::{ClearFiles, files_in_the_clear};

pub(super) const OLD_BYTES: &str = "What a file held before may still lie in free parts of the disk: on a flash disk \
     only erasing all of it is certain";
/// More names in one place help nobody.
const NAMES_MAX: usize = 100;

#[derive(Debug, Args)]
pub(crate) struct ClearCopiesArgs {
    /// Remove stores, exports and attachments, and backups of which a newer one is encrypted and whole. A store that a
    /// restore kept may hold edits that were never sent.
    #[arg(long)]
    remove: bool,
    /// With --remove: remove all backups that are not encrypted, the newest too.
    #[arg(long, requires = "remove")]
    backups: bool,
}

/// Files in the data and backup directories that hold records in the clear, or may; the store itself is not meant.
pub(crate) fn clear_files(config: &Config) -> ClearFiles {
    let store = store_file(&config.data_dir);
    let mut harmless = config.named_files();
    harmless.extend([store.canonicalize().unwrap_or_else(|_| store.clone()), store]);
    files_in_the_clear(&[&config.data_dir, &config.backup_settings().directory], &harmless)
}

/// What there is, with what to do about it; empty if there is nothing.
pub(super) fn clear_words(files: &ClearFiles) -> String {
    let mut words = Vec::new();
    if !files.copies.is_empty() {
        words.push(format!(
            "not encrypted, and with records in it:\n{}\nlook whether you still need them: a store that was kept may \
             hold edits that were never sent. `thalamus-edge db clear-copies --remove` removes them",
            names(&files.copies)
        ));
    }
    if !files.backups.is_empty() {
        words.push(format!(
            "backups that are not encrypted:\n{}\nname public keys in [backup] recipients and make a backup; then \
             `thalamus-edge db clear-copies --remove` removes the older ones that are not encrypted",
            names(&files.backups)
        ));
    }
    if !files.unknown.is_empty() {
        words.push(format!(
            "may hold records: nobody knows what is in them, and no command removes them. Look into them, and move or \
             delete them yourself:\n{}",
            names(&files.unknown)
        ));
    }
    words.join("\n\n")
}

pub(crate) fn run(config: &Config, args: &ClearCopiesArgs) -> anyhow::Result<Done> {
    let mut files = clear_files(config);
    if files.is_empty() {
        return Ok(Done::text("no other file holds records in the clear"));
    }
    if !args.remove {
        return Ok(Done::text(clear_words(&files)).with_code(EXIT_FAILED));
    }
    let successors = Successors::find(config)?;
    let (superseded, kept) =
        files.backups.drain(..).partition(|backup| args.backups || successors.include_newer_than(backup));
    files.backups = kept;
    let mut removed: Vec<PathBuf> = superseded;
    removed.append(&mut files.copies);
    for file in &removed {
        fs::remove_file(file).with_context(|| file.display().to_string())?;
        // It is of no use without its backup.
        let _ = fs::remove_file(suffixed(file, ".sha256"));
    }
    let mut words = Vec::new();
    if !removed.is_empty() {
        words.push(format!("removed:\n{}\n{OLD_BYTES}", names(&removed)));
    }
    if !files.backups.is_empty() {
        words.push(format!(
            "kept, because no backup that is newer, encrypted and whole stands beside them:\n{}\nname public keys in \
             [backup] recipients, run `thalamus-edge backup create`, and then this again; --backups removes them all \
             the same, the newest too",
            names(&files.backups)
        ));
        files.backups.clear();
    }
    let rest = clear_words(&files);
    let code =
        if words.len() == usize::from(!removed.is_empty()) && rest.is_empty() { 0 } else { EXIT_FAILED };
    words.extend(Some(rest).filter(|rest| !rest.is_empty()));
    Ok(Done::text(words.join("\n\n")).with_code(code))
}

/// Backups that are encrypted and whole, as far as that can be told without a key: they are what was written.
struct Successors {
    encrypted: Vec<backup::Listed>,
    clear: Vec<backup::Listed>,
    own_node: String,
}

impl Successors {
    fn find(config: &Config) -> anyhow::Result<Successors> {
        let settings = config.backup_settings();
        let listed = backup::list(&settings.directory)?;
        let (encrypted, clear): (Vec<_>, Vec<_>) = listed.into_iter().partition(|listed| listed.encrypted);
        let is_whole =
            |listed: &backup::Listed| backup::check(&listed.file, None).is_ok_and(|found| found.checksum);
        let encrypted = encrypted.into_iter().filter(is_whole).collect();
        Ok(Successors { encrypted, clear, own_node: settings.node_part() })
    }

    /// Whether one of them was made after this backup: by its number, or if it has none by the time of its file.
    fn include_newer_than(&self, file: &Path) -> bool {
        if let Some(backup) = self.clear.iter().find(|listed| listed.file == file) {
            // Another box may have this name, and this directory. What tells no store is of an earlier version.
            let is_of_it = |other: &&backup::Listed| {
                other.node == backup.node && (backup.store.is_none() || other.store == backup.store)
            };
            let is_newer = |other: &&backup::Listed| is_of_it(other) && other.number > backup.number;
            return self.encrypted.iter().any(|other| is_newer(&other));
        }
        let Some(written) = modified(file) else { return false };
        let own = self.encrypted.iter().filter(|listed| listed.node == self.own_node);
        own.filter_map(|listed| modified(&listed.file)).any(|made| made > written)
    }
}

fn modified(file: &Path) -> Option<SystemTime> {
    fs::metadata(file).and_then(|about| about.modified()).ok()
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn names(files: &[PathBuf]) -> String {
    let shown = files.iter().take(NAMES_MAX).map(|file| plain(&file.display().to_string()).to_string());
    let more = files.len().saturating_sub(NAMES_MAX);
    let rest = (more > 0).then(|| format!("and {more} more"));
    shown.chain(rest).collect::<Vec<_>>().join("\n")
}
