//! Floor 5. The attachments in an export: files called after the SHA-256 of their bytes.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::cli::archive::{create, make_directory};
use crate::store::LeftChunk;

/// An attachment that is being written.
pub(super) struct Attachment {
    name: String,
    path: PathBuf,
    file: File,
    digest: Sha256,
}

impl Attachment {
    /// Begins the file in this directory, which is made if it is not there.
    pub(super) fn begin(directory: &Path, sha256: &str) -> anyhow::Result<Attachment> {
        if !directory.exists() {
            make_directory(directory)?;
        }
        let path = directory.join(sha256);
        let file = create(&path)?;
        Ok(Attachment { name: sha256.to_owned(), path, file, digest: Sha256::new() })
    }

    pub(super) fn write(&mut self, chunk: &[u8]) -> anyhow::Result<()> {
        self.file.write_all(chunk)?;
        self.digest.update(chunk);
        Ok(())
    }

    /// Keeps the file if it has all bytes; otherwise removes it and returns false.
    pub(super) fn end(self) -> anyhow::Result<bool> {
        let is_whole = hex::encode(self.digest.finalize()) == self.name;
        if is_whole {
            self.file.sync_all()?;
        } else {
            fs::remove_file(&self.path)?;
        }
        Ok(is_whole)
    }
}

/// Attachments of which part after part is found in a store that is not opened any more.
pub(super) struct Chunks {
    directory: PathBuf,
    open: Option<Attachment>,
    /// Attachments written.
    pub(super) contents: u64,
}

impl Chunks {
    pub(super) fn into(directory: PathBuf) -> Chunks {
        Chunks { directory, open: None, contents: 0 }
    }

    pub(super) fn take(&mut self, chunk: &LeftChunk) -> anyhow::Result<()> {
        if self.open.as_ref().is_none_or(|open| open.name != chunk.sha256) {
            self.close()?;
            // It becomes the name of a file.
            if !chunk.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Ok(());
            }
            self.open = Some(Attachment::begin(&self.directory, &chunk.sha256)?);
        }
        match &mut self.open {
            Some(open) => open.write(&chunk.bytes),
            None => Ok(()),
        }
    }

    /// Keeps the last one if all of it was there.
    pub(super) fn close(&mut self) -> anyhow::Result<()> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let name = open.name.clone();
        if open.end()? {
            self.contents += 1;
        } else {
            eprintln!("error: the attachment {name} is not complete, and is left out");
        }
        Ok(())
    }
}
