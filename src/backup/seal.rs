//! Floor 3. The outside of a backup: encryption to the technician's keys, and checksums.
//!
//! A node knows only public keys and cannot read its own backups. To check what it has written all the same, it
//! makes a key for each backup, encrypts to that one as well, reads the file back with it, and forgets it.

use std::io::{self, BufReader, BufWriter, Read, Seek as _, Write};
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret as _;
use age::x25519;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::BackupError;
use super::name::CHECKSUM_ENDING;
use crate::domain::encoding::utf8;
use crate::files::{open_regular, read_bounded, read_named, suffixed};
use crate::store::{Manifest, StreamError, read_backup};

const AGE_MAGIC: &[u8] = b"age-encryption.org/";
/// age encrypts pieces of 64 KiB, with 16 bytes each to check them by.
const AGE_TAG_BYTES: u64 = 16;
const AGE_CHUNK_BYTES: u64 = (64 << 10) + AGE_TAG_BYTES;
const BUFFER_BYTES: usize = 1 << 20;
/// Largest checksum file that is read.
const CHECKSUM_BYTES_MAX: u64 = 4 << 10;
/// Largest file with keys that is read.
const KEYS_BYTES_MAX: u64 = 64 << 10;

/// A public key that backups are encrypted to.
#[derive(Debug, Clone)]
pub struct Recipient(x25519::Recipient);

impl std::str::FromStr for Recipient {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Recipient, &'static str> {
        text.parse().map(Recipient)
    }
}

/// A new pair: the public key, and the secret one as the lines of a file that [`Keys::read`] takes.
pub fn new_pair() -> (String, Zeroizing<String>) {
    let identity = x25519::Identity::generate();
    let public = identity.to_public().to_string();
    let secret = identity.to_string();
    let lines = format!("# public key: {public}\n{}", secret.expose_secret());
    (public, Zeroizing::new(lines))
}

/// Secret keys that open backups.
pub struct Keys(Vec<Box<dyn age::Identity>>);

impl Keys {
    /// Reads a file of `AGE-SECRET-KEY-1...` lines, as `backup keygen` and age-keygen write it; also from a pipe.
    pub fn read(path: &Path) -> Result<Keys, BackupError> {
        let at = |cause| BackupError::File { path: path.to_owned(), cause };
        let bytes = Zeroizing::new(read_named(path, KEYS_BYTES_MAX).map_err(at)?);
        let text = utf8(&bytes).map_err(|error| at(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        let no_keys = || BackupError::NoKeys(path.to_owned());
        let mut keys: Vec<Box<dyn age::Identity>> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let key: x25519::Identity = line.parse().map_err(|_| no_keys())?;
            keys.push(Box::new(key));
        }
        if keys.is_empty() { Err(no_keys()) } else { Ok(Keys(keys)) }
    }
}

/// What is written through it, counted and hashed.
struct Hashing<W> {
    inner: W,
    digest: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A file as it was written.
pub(super) struct Sealed {
    pub(super) manifest: Manifest,
    pub(super) bytes: u64,
    pub(super) sha256: String,
    /// Opens the file as long as it is kept.
    pub(super) keys: Keys,
}

/// Writes a backup to `out`, encrypted to `recipients` if there are any. The caller makes it last.
pub(super) fn write(
    out: impl Write,
    recipients: &[Recipient],
    fill: impl FnOnce(&mut dyn Write) -> Result<Manifest, StreamError>,
) -> Result<Sealed, StreamError> {
    let failed = StreamError::Write;
    let mut out =
        BufWriter::with_capacity(BUFFER_BYTES, Hashing { inner: out, digest: Sha256::new(), bytes: 0 });
    let (manifest, keys) = if recipients.is_empty() {
        (fill(&mut out)?, Vec::new())
    } else {
        let own = x25519::Identity::generate();
        let own_public = own.to_public();
        let all = recipients.iter().map(|recipient| &recipient.0).chain([&own_public]);
        let encryptor = age::Encryptor::with_recipients(all.map(|key| key as &dyn age::Recipient));
        let encryptor = encryptor.map_err(|error| failed(io::Error::other(error.to_string())))?;
        let mut inside = encryptor.wrap_output(&mut out).map_err(failed)?;
        let manifest = fill(&mut inside)?;
        inside.finish().map_err(failed)?;
        (manifest, vec![Box::new(own) as Box<dyn age::Identity>])
    };
    let out = out.into_inner().map_err(|error| failed(error.into_error()))?;
    Ok(Sealed { manifest, bytes: out.bytes, sha256: hex::encode(out.digest.finalize()), keys: Keys(keys) })
}

/// Whether the file is encrypted.
pub(super) fn is_encrypted(path: &Path) -> Result<bool, BackupError> {
    let at = |cause| BackupError::File { path: path.to_owned(), cause };
    let mut start = Vec::new();
    open_regular(path).map_err(at)?.take(AGE_MAGIC.len() as u64).read_to_end(&mut start).map_err(at)?;
    Ok(start == AGE_MAGIC)
}

/// Hands what is inside of a backup to `read`.
pub(super) fn open<T>(
    path: &Path,
    keys: Option<&Keys>,
    read: impl FnOnce(&mut dyn Read) -> Result<T, StreamError>,
) -> Result<T, BackupError> {
    let unreadable = |cause| BackupError::Unusable { path: path.to_owned(), cause };
    let file = open_regular(path).map_err(|cause| BackupError::File { path: path.to_owned(), cause })?;
    let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
    if !is_encrypted(path)? {
        return read(&mut file).map_err(unreadable);
    }
    let Some(keys) = keys else {
        return Err(BackupError::KeyNeeded(path.to_owned()));
    };
    let refused = |error: age::DecryptError| match error {
        age::DecryptError::NoMatchingKeys => BackupError::WrongKey(path.to_owned()),
        age::DecryptError::Io(cause) if cause.kind() != io::ErrorKind::UnexpectedEof => {
            BackupError::File { path: path.to_owned(), cause }
        }
        other => unreadable(StreamError::Damaged(format!("its encryption cannot be read ({other})"))),
    };
    let decryptor = age::Decryptor::new_buffered(file).map_err(refused)?;
    let mut inside = decryptor.decrypt(keys.0.iter().map(|key| &**key)).map_err(refused)?;
    read(&mut inside).map_err(unreadable)
}

/// Looks at what can be seen of an encrypted backup without a key: its head, and whether a file of this length can end
/// there. A file that passes may be damaged all the same.
pub(super) fn examine_outside(path: &Path) -> Result<(), BackupError> {
    let at = |cause| BackupError::File { path: path.to_owned(), cause };
    let damaged = |what: &str| BackupError::Unusable {
        path: path.to_owned(),
        cause: StreamError::Damaged(what.to_owned()),
    };
    let file = open_regular(path).map_err(at)?;
    let length = file.metadata().map_err(at)?.len();
    let mut file = BufReader::new(file);
    age::Decryptor::new_buffered(&mut file)
        .map_err(|_| damaged("the head of its encryption cannot be read"))?;
    let inside = length.saturating_sub(file.stream_position().map_err(at)?);
    match inside % AGE_CHUNK_BYTES {
        0 if inside > 0 => Ok(()),
        // Nothing but the check of an empty piece, which only an empty backup would have.
        rest if rest <= AGE_TAG_BYTES => Err(damaged("it ends too early")),
        _ => Ok(()),
    }
}

/// What a backup holds, read to its end.
pub(super) fn manifest(path: &Path, keys: Option<&Keys>) -> Result<Manifest, BackupError> {
    open(path, keys, read_backup)
}

/// SHA-256 of the file, in hex.
pub(super) fn file_sha256(path: &Path) -> Result<String, BackupError> {
    let at = |cause| BackupError::File { path: path.to_owned(), cause };
    let mut file = open_regular(path).map_err(at)?;
    let mut sink = Hashing { inner: io::sink(), digest: Sha256::new(), bytes: 0 };
    io::copy(&mut file, &mut sink).map_err(at)?;
    Ok(hex::encode(sink.digest.finalize()))
}

/// Where the checksum of a backup stands.
pub(super) fn checksum_path(path: &Path) -> PathBuf {
    suffixed(path, CHECKSUM_ENDING)
}

/// Whether something stands there that could be the checksum of a backup. What cannot be read as one is there too: the
/// backup counts as damaged then. A directory is nobody's checksum.
pub(super) fn has_checksum(path: &Path) -> bool {
    std::fs::metadata(checksum_path(path)).is_ok_and(|about| !about.is_dir())
}

/// The SHA-256 that stands beside a backup, if there is one.
pub(super) fn noted_sha256(path: &Path) -> Result<Option<String>, BackupError> {
    if !has_checksum(path) {
        return Ok(None);
    }
    let path = checksum_path(path);
    match read_bounded(&path, CHECKSUM_BYTES_MAX) {
        // A checksum in another encoding is one that does not fit.
        Ok(bytes) => Ok(Some(sha256_in(utf8(&bytes).unwrap_or_default()).to_ascii_lowercase())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(BackupError::File { path, cause }),
    }
}

/// The checksum in the first line of a file as `sha256sum` writes it, `--tag` included: `SHA256 (FILE) = HEX`.
fn sha256_in(text: &str) -> &str {
    let line = text.trim_start().lines().next().unwrap_or_default();
    let tagged = line.strip_prefix("SHA256 (").and_then(|rest| rest.rsplit_once(") = "));
    // A name with a backslash in it is escaped, and a backslash says so.
    let plain = || line.strip_prefix('\\').unwrap_or(line).split_whitespace().next();
    tagged.map(|(_, hex)| hex.trim()).or_else(plain).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_read_as_they_are_written() {
        for (text, hex) in [
            ("0a1b  clinic.backup\n", "0a1b"),
            ("0A1B *clinic.backup", "0A1B"),
            ("SHA256 (clinic (1).backup) = 0a1b\r\n", "0a1b"),
            ("\\0a1b  a\\nb", "0a1b"),
            ("0a1b", "0a1b"),
            ("\n0a1b", "0a1b"),
            ("", ""),
        ] {
            assert_eq!(sha256_in(text), hex, "{text:?}");
        }
    }
}
