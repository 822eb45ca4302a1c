//! Floor 1. Files that hold records, or may, and are not encrypted.
//!
//! Encrypting a store leaves others beside it: stores that a restore or an upgrade kept, one that was being written when
//! the power went, backups, exports, archives. A file is harmless only if it is known to be: encrypted by this program
//! or by age, a certificate or key, a checksum, empty. What is neither that nor known to hold records is named too.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::stream::MAGIC;
use crate::domain::content::is_content_name;
use crate::domain::record::Kind;
use crate::files::open_regular;
use crate::store::file::SEALED_MAGIC;

/// How redb's files begin.
const REDB_MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";
/// How files begin that are encrypted, or hold certificates and keys.
const HARMLESS: [&[u8]; 4] = [SEALED_MAGIC, b"age-encryption.org/v1", b"-----BEGIN ", b"AGE-SECRET-KEY-"];
/// Exports and what other programs write of MongoDB.
const EXPORT_ENDINGS: [&str; 4] = ["jsonl", "ndjson", "bson", "csv"];
/// Endings of files that hold records if they are called like a collection.
const COLLECTION_ENDINGS: [&str; 3] = ["json", "txt", "tsv"];
/// Where an export puts attachments, each under the SHA-256 of its bytes.
const CONTENT_DIRECTORY: &str = "content";
/// How deep directories are looked into.
const DEPTH_MAX: usize = 32;
/// A sum and a name.
const CHECKSUM_BYTES_MAX: u64 = 1024;
const STORE_KEY_DIGITS: usize = 64;

/// What lies beside an encrypted store; each path once, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ClearFiles {
    /// Stores, exports and attachments that are not encrypted.
    pub copies: Vec<PathBuf>,
    /// Backups that are not encrypted.
    pub backups: Vec<PathBuf>,
    /// What may hold records: nobody knows these files, or they cannot be read.
    pub unknown: Vec<PathBuf>,
}

impl ClearFiles {
    pub fn is_empty(&self) -> bool {
        self.copies.is_empty() && self.backups.is_empty() && self.unknown.is_empty()
    }

    fn tidy(&mut self, harmless: &[PathBuf]) {
        for list in [&mut self.copies, &mut self.backups, &mut self.unknown] {
            list.retain(|path| !harmless.contains(path));
            list.sort();
            list.dedup();
        }
    }
}

/// Files below these directories that are not known to be harmless, without those in `harmless`. A link to a file is
/// looked at where it leads to; a directory that is not there holds nothing.
pub fn files_in_the_clear(directories: &[&Path], harmless: &[PathBuf]) -> ClearFiles {
    let mut found = ClearFiles::default();
    for directory in directories {
        look_into(directory, DEPTH_MAX, &mut found);
    }
    found.tidy(harmless);
    found
}

fn look_into(directory: &Path, depth: usize, found: &mut ClearFiles) {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(_) => return found.unknown.push(directory.to_owned()),
        Ok(entries) => entries,
    };
    for entry in entries {
        let Ok(entry) = entry else {
            found.unknown.push(directory.to_owned());
            continue;
        };
        let path = entry.path();
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        if path.is_dir() {
            match (is_link, depth) {
                (false, 1..) => look_into(&path, depth - 1, found),
                _ => found.unknown.push(path),
            }
        } else if path.is_file() {
            match what_is(&path) {
                What::Harmless => {}
                // Whose file it leads to is not known.
                _ if is_link => found.unknown.push(path),
                What::Copy => found.copies.push(path),
                What::Backup => found.backups.push(path),
                What::Unknown => found.unknown.push(path),
            }
        }
    }
}

enum What {
    Harmless,
    Copy,
    Backup,
    Unknown,
}

fn what_is(path: &Path) -> What {
    let Ok((head, bytes)) = head_of(path) else {
        return What::Unknown;
    };
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    let directory = path.parent().and_then(Path::file_name);
    match () {
        () if bytes == 0 => What::Harmless,
        () if head.starts_with(MAGIC) => What::Backup,
        () if head.starts_with(REDB_MAGIC) => What::Copy,
        () if HARMLESS.iter().any(|known| head.starts_with(known)) => What::Harmless,
        () if EXPORT_ENDINGS.contains(&ending.as_str()) => What::Copy,
        () if COLLECTION_ENDINGS.contains(&ending.as_str()) && is_collection(name) => What::Copy,
        () if is_content_name(name) && directory.is_some_and(|name| name == CONTENT_DIRECTORY) => What::Copy,
        () if is_checksum(&head, bytes) || is_store_key(&head, bytes) => What::Harmless,
        () => What::Unknown,
    }
}

/// The first bytes of a file, and how many it has.
fn head_of(path: &Path) -> io::Result<(Vec<u8>, u64)> {
    let file = open_regular(path)?;
    let bytes = file.metadata()?.len();
    let mut head = Vec::new();
    file.take(CHECKSUM_BYTES_MAX).read_to_end(&mut head)?;
    Ok((head, bytes))
}

/// Whether a file is called like a collection: `people.json`, `people-2026.json`.
fn is_collection(name: &str) -> bool {
    let stem = name.split(['.', '-', '_', ' ']).next().unwrap_or_default();
    Kind::ALL.iter().any(|kind| kind.schema().collection.split('_').next() == Some(stem))
}

/// A line as `sha256sum` writes it.
fn is_checksum(head: &[u8], bytes: u64) -> bool {
    let text = str::from_utf8(head).unwrap_or_default();
    let sum = text.split_once("  ").map_or("", |(sum, _)| sum);
    bytes <= CHECKSUM_BYTES_MAX && text.lines().count() == 1 && is_content_name(sum)
}

fn is_store_key(head: &[u8], bytes: u64) -> bool {
    let text = str::from_utf8(head).unwrap_or_default().trim();
    bytes <= CHECKSUM_BYTES_MAX
        && text.len() == STORE_KEY_DIGITS
        && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_harmless_only_if_it_is_known_to_be() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let sum = "5e".repeat(32);
        let line = format!("{sum}  clinic.backup\n");
        let files: [(&str, &[u8]); 23] = [
            ("copies/store.redb.before-restore-1", REDB_MAGIC),
            ("copies/a/b/c/d/e/f/deep", REDB_MAGIC),
            ("copies/people.jsonl", b"{}"),
            ("copies/people.json", b"[]"),
            ("copies/PEOPLE.JSONL", b"{}"),
            ("copies/personal_documents-old.json", b"[]"),
            ("copies/pols.bson", b"x"),
            (&format!("copies/content/{sum}"), b"picture"),
            ("backups/renamed.bin", MAGIC),
            ("backups/x.backup.age", MAGIC),
            ("unknown/t.tar", b"x"),
            ("unknown/notes.json", b"x"),
            ("unknown/s.gz", b"\x1f\x8b"),
            ("unknown/.hidden", b"x"),
            (&format!("unknown/{sum}"), b"picture"),
            ("unknown/x.sha256", b"Ana Betz"),
            ("harmless/empty", b""),
            ("harmless/x.backup", b"age-encryption.org/v1\n"),
            ("harmless/store.redb", SEALED_MAGIC),
            ("harmless/tls/ca.key", b"-----BEGIN PRIVATE KEY-----"),
            ("harmless/x.backup.sha256", line.as_bytes()),
            ("harmless/store.key", sum.as_bytes()),
            ("harmless/named.cfg", b"x"),
        ];
        for (name, bytes) in files {
            fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            fs::write(path(name), bytes).unwrap();
        }
        symlink("/", path("unknown/root")).unwrap();
        symlink(path("copies/pols.bson"), path("copies/link")).unwrap();
        symlink("/absent", path("harmless/dangling")).unwrap();
        let found = files_in_the_clear(&[directory.path(), &path("absent")], &[path("harmless/named.cfg")]);
        let expected = |class: &str| {
            let mut paths: Vec<_> = files
                .iter()
                .filter(|(name, _)| name.starts_with(class))
                .map(|(name, _)| path(name))
                .collect();
            match class {
                "copies" => {}
                "unknown" => paths.push(path("unknown/root")),
                _ => {}
            }
            paths.sort();
            paths
        };
        // The link has no telling name; what it leads to is found under its own.
        let mut unknown = expected("unknown");
        unknown.push(path("copies/link"));
        unknown.sort();
        assert_eq!(found.unknown, unknown);
        assert_eq!(found.copies, expected("copies"));
        assert_eq!(found.backups, expected("backups"));
        assert_eq!(files_in_the_clear(&[&path("harmless/tls")], &[]), ClearFiles::default());
    }
}
