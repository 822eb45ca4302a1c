//! Floor 1. Files that hold records and can be read by whoever gets at them.
//!
//! Encrypting a store leaves others beside it: stores that a restore or an upgrade kept, one that was being written when
//! the power went, backups and exports. They are told by what is in them, whatever they are called.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::backup::MAGIC;

/// How redb's files begin.
const REDB_MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";
/// Exports and what other programs write of MongoDB.
const EXPORT_ENDINGS: [&str; 4] = ["jsonl", "ndjson", "bson", "csv"];
/// How deep directories are looked into.
const DEPTH_MAX: usize = 4;

/// Files below these directories that hold records in the clear, each once, in order. A link is looked at where it leads to,
/// if that is a file; a directory that is not there holds none.
pub fn files_in_the_clear(directories: &[&Path]) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for directory in directories {
        look_into(directory, DEPTH_MAX, &mut found)?;
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn look_into(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", directory.display()));
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(named)?,
    };
    for entry in entries {
        let entry = entry.map_err(named)?;
        let path = entry.path();
        if entry.file_type().map_err(named)?.is_dir() {
            if depth > 0 {
                look_into(&path, depth - 1, found)?;
            }
        } else if path.is_file() && is_in_the_clear(&path)? {
            found.push(path);
        }
    }
    Ok(())
}

fn is_in_the_clear(path: &Path) -> io::Result<bool> {
    let ending = path.extension().and_then(|ending| ending.to_str());
    if ending.is_some_and(|ending| EXPORT_ENDINGS.contains(&ending)) {
        return Ok(true);
    }
    let mut head = Vec::new();
    let longest = MAGIC.len().max(REDB_MAGIC.len()) as u64;
    let read = File::open(path).and_then(|file| file.take(longest).read_to_end(&mut head));
    read.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    Ok(head.starts_with(MAGIC) || head.starts_with(REDB_MAGIC))
}
