//! Floor 5. Files that are written whole or not at all, and last.
//!
//! Hides how: under another name beside the file, on disk before it takes the file's place. Whoever looks at it
//! meanwhile, or after a power cut, sees the old file or the new one.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

/// Ending of the name under which a file waits.
const STAGED_SUFFIX: &str = ".new";

/// What a file will be, beside it and on disk; gone if nothing comes of it.
#[derive(Debug)]
pub(crate) struct Staged {
    beside: PathBuf,
    path: PathBuf,
}

impl Staged {
    /// Writes what is to be at `path`, with these permissions and, if given, this owner and group.
    pub(crate) fn new(
        path: &Path,
        content: &[u8],
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> io::Result<Staged> {
        let staged = Staged { beside: suffixed(path, STAGED_SUFFIX), path: path.to_owned() };
        remove_if_there(&staged.beside)?;
        // For the owner only until it belongs to whom it shall.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged.beside)?;
        file.write_all(content)?;
        if let Some((uid, gid)) = owner {
            fchown(&file, Some(uid), Some(gid))?;
        }
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        Ok(staged)
    }

    /// Where it waits.
    pub(crate) fn beside(&self) -> &Path {
        &self.beside
    }

    /// Puts it in its place.
    pub(crate) fn replace(self) -> io::Result<()> {
        fs::rename(&self.beside, &self.path)?;
        File::open(directory_of(&self.path))?.sync_all()
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Once it is in its place there is nothing here any more.
        let _ = fs::remove_file(&self.beside);
    }
}

/// Lets what is at `path` now keep a second name, with its owner and permissions, in place of what had that name.
pub(crate) fn keep_as(path: &Path, suffix: &str) -> io::Result<PathBuf> {
    let (kept, link) = (suffixed(path, suffix), suffixed(path, &format!("{suffix}{STAGED_SUFFIX}")));
    remove_if_there(&link)?;
    fs::hard_link(path, &link)?;
    fs::rename(&link, &kept)?;
    // Renaming does nothing where both names are the same file already.
    remove_if_there(&link)?;
    Ok(kept)
}

pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_file_is_replaced_at_once_or_not_at_all() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("a.toml");
        Staged::new(&path, b"one", 0o640, None).unwrap().replace().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        let staged = Staged::new(&path, b"two", 0o600, None).unwrap();
        assert_eq!(fs::read(staged.beside()).unwrap(), b"two");
        assert_eq!(fs::read(&path).unwrap(), b"one");
        drop(staged);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "what came to nothing is gone");
        // What an earlier attempt left behind is in nobody's way.
        fs::write(directory.path().join("a.toml.new"), "half").unwrap();
        Staged::new(&path, b"two", 0o600, None).unwrap().replace().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_kept_is_the_very_file() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("a.toml");
        for content in ["one", "two"] {
            Staged::new(&path, content.as_bytes(), 0o640, None).unwrap().replace().unwrap();
            let kept = keep_as(&path, ".before").unwrap();
            // Twice is the same as once.
            assert_eq!(keep_as(&path, ".before").unwrap(), kept);
            Staged::new(&path, b"other", 0o600, None).unwrap().replace().unwrap();
            assert_eq!(fs::read_to_string(&kept).unwrap(), content);
            assert_eq!(fs::metadata(&kept).unwrap().mode() & 0o777, 0o640);
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
        }
    }
}
