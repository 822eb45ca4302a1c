//! Floor 5. The directory of an export: its files, and which of them `import` takes.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use anyhow::Context as _;

use crate::central::{CONFLICTS_COLLECTION, TRASH_COLLECTION};
use crate::files::create_private;

const DIRECTORY_MODE: u32 = 0o700;
/// Where an export keeps uploaded bytes, each under its SHA-256.
pub(crate) const CONTENT_DIRECTORY: &str = "content";
/// The collections that these files are called after, as the centre has them.
pub(crate) const KEPT: [&str; 2] = [CONFLICTS_COLLECTION, TRASH_COLLECTION];

pub(crate) fn kept_file(collection: &str) -> String {
    format!("{collection}.jsonl")
}

pub(crate) fn make_directory(directory: &Path) -> anyhow::Result<()> {
    match DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            anyhow::bail!("{} exists already: name a new directory", directory.display())
        }
        made => made.with_context(|| directory.display().to_string()),
    }
}

pub(crate) fn create(path: &Path) -> anyhow::Result<File> {
    create_private(path).with_context(|| path.display().to_string())
}
