//! Floor 0. Files that are there whole or not at all, and last; whose they are.
//!
//! Hides how: a file is written under another name, and is on disk before it takes its place. Whoever looks at it
//! meanwhile, or after a power cut, sees the old file or the new one. What comes to nothing is removed.

use std::ffi::OsString;
use std::fs::{self, File, FileType, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{
    FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, fchown,
};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Whether a file cannot grow: the disk is full, or a quota or a limit of the process is reached.
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// Ending of the name under which a file waits.
const STAGED_SUFFIX: &str = ".new";
/// For its owner only.
const PRIVATE_MODE: u32 = 0o600;

/// No file that a configuration names is larger, a bundle of authorities included.
const CONFIGURED_BYTES_MAX: u64 = 4 << 20;

/// Reads a file that a configuration names: a regular one of at most 4 MiB.
pub(crate) fn read_configured(path: &Path) -> io::Result<Vec<u8>> {
    read_bounded(path, CONFIGURED_BYTES_MAX)
}

/// Reads a regular file of at most `bytes_max` bytes.
pub(crate) fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    read_at_most(open_regular(path)?, bytes_max)
}

/// Reads a file of at most `bytes_max` bytes that the operator names on the command line, see [`open_named`].
pub(crate) fn read_named(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    read_at_most(open_named(path)?, bytes_max)
}

fn read_at_most(file: File, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let size = match bytes_max >> 20 {
            0 => format!("{} KiB", bytes_max >> 10),
            mib => format!("{mib} MiB"),
        };
        return Err(refusal(&format!("it has more than {size}, so it is another file than is meant")));
    }
    Ok(bytes)
}

/// Opens a regular file to read it. Anything else is an error at once: a device would be read without end, and a pipe
/// would wait for a writer for ever.
///
/// Whatever reads a file opens it here; `tests/architecture/main.rs` looks for others.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    open_regular_with(path, OpenOptions::new().read(true))
}

/// Opens a file that the operator names on the command line, and that is read once: it may also be a pipe, as
/// `<(zcat trail.gz)` is. That is waited for, which the operator sees and can end.
pub(crate) fn open_named(path: &Path) -> io::Result<File> {
    match fs::metadata(path)?.file_type() {
        kind if kind.is_fifo() => File::open(path),
        _ => open_regular(path),
    }
}

/// [`open_regular`] to read and write it.
pub(crate) fn open_regular_to_write(path: &Path) -> io::Result<File> {
    open_regular_with(path, OpenOptions::new().read(true).write(true))
}

fn open_regular_with(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let check = |kind: FileType| match other_than_regular(kind) {
        Some(other) => Err(refusal(&format!("it is {other}, where a regular file belongs"))),
        None => Ok(()),
    };
    // Asked before it is opened: to open a device may already do something.
    check(fs::metadata(path)?.file_type())?;
    // Asked again of what was opened: another file may have taken the name meanwhile. With this flag no pipe is waited
    // for; for regular files it has no meaning.
    let without_waiting = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = options.custom_flags(without_waiting).open(path)?;
    check(file.metadata()?.file_type())?;
    Ok(file)
}

fn refusal(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, problem)
}

/// Names the kind of a file that is not a regular one.
pub(crate) fn other_than_regular(kind: FileType) -> Option<&'static str> {
    match () {
        () if kind.is_file() => None,
        () if kind.is_dir() => Some("a directory"),
        () if kind.is_fifo() => Some("a pipe (FIFO)"),
        () if kind.is_socket() => Some("a socket"),
        () => Some("a device"),
    }
}

/// The name of a file that is being made; the file is removed unless it takes its place.
#[derive(Debug)]
pub(crate) struct Unfinished(PathBuf);

impl Unfinished {
    /// Makes room for a file of this name: what an earlier attempt left behind is removed.
    pub(crate) fn at(path: PathBuf) -> io::Result<Unfinished> {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(Unfinished(path)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Gives the file, which is on disk, the name `path`, in place of what had it.
    pub(crate) fn take_place(self, path: &Path) -> io::Result<()> {
        fs::rename(&self.0, path)?;
        sync_directory(directory_of(path))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Once it is in its place there is nothing here any more.
        let _ = fs::remove_file(&self.0);
    }
}

/// A file that is being written, for its owner only, under a name that it does not keep.
#[derive(Debug)]
pub(crate) struct Part {
    unfinished: Unfinished,
    file: File,
}

impl Part {
    pub(crate) fn create(path: PathBuf) -> io::Result<Part> {
        let unfinished = Unfinished::at(path)?;
        let file = create_private(unfinished.path())?;
        Ok(Part { unfinished, file })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn path(&self) -> &Path {
        self.unfinished.path()
    }

    /// Puts it on disk and in its place.
    pub(crate) fn complete(self, path: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        self.unfinished.take_place(path)
    }
}

/// What a file will be, beside it and on disk; gone if nothing comes of it.
#[derive(Debug)]
pub(crate) struct Staged {
    part: Part,
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
        let part = Part::create(suffixed(path, STAGED_SUFFIX))?;
        let mut file = part.file();
        file.write_all(content)?;
        if let Some((uid, gid)) = owner {
            fchown(file, Some(uid), Some(gid))?;
        }
        // For its owner only until it belongs to whom it shall.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        Ok(Staged { part, path: path.to_owned() })
    }

    /// Where it waits.
    pub(crate) fn beside(&self) -> &Path {
        self.part.path()
    }

    /// Puts it in its place.
    pub(crate) fn replace(self) -> io::Result<()> {
        self.part.complete(&self.path)
    }
}

/// A new file for its owner only, to be read and written; fails if there is one of this name.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(PRIVATE_MODE).open(path)
}

/// What root makes in somebody's directory is theirs: a command must not lock the service out of its own files.
pub(crate) fn give_to_owner_of_directory(path: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = fs::metadata(directory_of(path))?;
    if owner.uid() == 0 {
        return Ok(());
    }
    match chown(path, Some(owner.uid()), Some(owner.gid())) {
        // Not every stick knows owners.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        given => given,
    }
}

/// Makes names in a directory last.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    open_directory(directory)?.sync_all()
}

/// Opens a directory; anything else is an error at once.
pub(crate) fn open_directory(directory: &Path) -> io::Result<File> {
    let only_directories = i32::try_from(OFlags::DIRECTORY.bits()).unwrap_or_default();
    OpenOptions::new().read(true).custom_flags(only_directories).open(directory)
}

/// Lets what is at `path` now keep a second name, with its owner and permissions, in place of what had that name.
pub(crate) fn keep_as(path: &Path, suffix: &str) -> io::Result<PathBuf> {
    let kept = suffixed(path, suffix);
    let link = Unfinished::at(suffixed(path, &format!("{suffix}{STAGED_SUFFIX}")))?;
    fs::hard_link(path, link.path())?;
    // Renaming does nothing where both names are the same file already; then the other one goes.
    link.take_place(&kept)?;
    Ok(kept)
}

/// The directory that a name stands in.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The path with this at the end of its name.
pub(crate) fn suffixed(path: &Path, suffix: &str) -> PathBuf {
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

    #[test]
    fn only_regular_files_of_a_bounded_size_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        let socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        File::create(path("large")).unwrap().set_len(CONFIGURED_BYTES_MAX + 1).unwrap();
        File::create(path("limit")).unwrap().set_len(CONFIGURED_BYTES_MAX).unwrap();
        std::os::unix::fs::symlink(path("limit"), path("link")).unwrap();
        for (name, problem) in [
            (path("fifo"), "a pipe"),
            (path("socket"), "a socket"),
            (directory.path().to_owned(), "a directory"),
            ("/dev/zero".into(), "a device"),
            ("/dev/null".into(), "a device"),
            (path("large"), "more than 4 MiB"),
        ] {
            let error = read_configured(&name).unwrap_err().to_string();
            assert!(error.contains(problem), "{name:?}: {error}");
            if !problem.starts_with("more") {
                let error = open_regular_to_write(&name).unwrap_err().to_string();
                assert!(error.contains(problem), "{name:?}: {error}");
            }
        }
        assert!(read_bounded(&path("limit"), 4 << 10).unwrap_err().to_string().contains("more than 4 KiB"));
        assert!(open_directory(&path("fifo")).is_err() && open_directory(directory.path()).is_ok());
        drop(socket);
        assert_eq!(read_configured(&path("link")).unwrap().len() as u64, CONFIGURED_BYTES_MAX);
        assert_eq!(read_configured(&path("absent")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
