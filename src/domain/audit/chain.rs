//! Floor 0. The chain of entries: the bytes that a hash covers, and how a chain is checked.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Event;

/// What every hash begins with: no other use of SHA-256 gives the same.
pub const HASH_TAG: &[u8] = b"thalamus-edge audit 1";
const HASH_BYTES: usize = 32;
/// Fields of an entry before its paths.
const FIELDS: usize = 12;

/// When something happened, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// Milliseconds since 1970 by the clock of the box, of the first time and of the last.
    pub at_ms: i64,
    pub until_ms: i64,
    pub count: u64,
}

impl Times {
    pub fn once(at_ms: i64) -> Times {
        Times { at_ms, until_ms: at_ms, count: 1 }
    }
}

/// An event in its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Counts from 1, without a gap.
    pub seq: u64,
    #[serde(flatten)]
    pub times: Times,
    #[serde(flatten)]
    pub event: Event,
    /// Of this entry and all before it.
    pub hash: Hash,
}

impl Entry {
    /// The entry that follows `head`.
    pub fn after(head: &Head, times: Times, event: Event) -> Entry {
        let mut entry = Entry { seq: head.seq + 1, times, event, hash: Hash::ZERO };
        entry.hash = entry.hash_after(&head.hash);
        entry
    }

    pub fn head(&self) -> Head {
        Head { seq: self.seq, hash: self.hash }
    }

    fn hash_after(&self, previous: &Hash) -> Hash {
        let digest = Sha256::new().chain_update(HASH_TAG).chain_update(previous.0).chain_update(self.body());
        Hash(digest.finalize().into())
    }

    /// Every field in its place as text, each behind its length in four bytes, the highest first.
    fn body(&self) -> Vec<u8> {
        let Times { at_ms, until_ms, count } = self.times;
        let numbers = [self.seq.to_string(), at_ms.to_string(), until_ms.to_string(), count.to_string()];
        let Event { who, verb, kind, id, owner, peer, outcome, detail, paths } = &self.event;
        let texts: [&str; 8] = [who, verb, kind, id, owner, peer, outcome, detail];
        let mut bytes = Vec::new();
        let (numbers, paths) = (numbers.iter().map(String::as_str), paths.iter().map(String::as_str));
        for text in numbers.chain(texts).chain(paths) {
            bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    }

    /// As it is stored: the hash, then what it covers.
    pub fn encode(&self) -> Vec<u8> {
        [&self.hash.0[..], &self.body()].concat()
    }

    /// The hash in the bytes of an entry, whatever follows it.
    pub fn stored_hash(bytes: &[u8]) -> Option<Hash> {
        bytes.first_chunk::<HASH_BYTES>().map(|hash| Hash(*hash))
    }

    /// What is left of an entry that cannot be read, and takes its place: its hash, which the next one follows. It decodes
    /// to nothing.
    pub fn without_content(bytes: &[u8]) -> Vec<u8> {
        bytes.first_chunk::<HASH_BYTES>().unwrap_or(&[0; HASH_BYTES]).to_vec()
    }

    /// `None` if the bytes are no entry.
    pub fn decode(bytes: &[u8]) -> Option<Entry> {
        let (hash, mut rest) = bytes.split_first_chunk::<HASH_BYTES>()?;
        let mut texts = Vec::new();
        while !rest.is_empty() {
            let (length, behind) = rest.split_first_chunk::<4>()?;
            let (text, behind) = behind.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            texts.push(String::from_utf8(text.to_vec()).ok()?);
            rest = behind;
        }
        let paths = (texts.len() >= FIELDS).then(|| texts.split_off(FIELDS))?;
        let [seq, at_ms, until_ms, count, who, verb, kind, id, owner, peer, outcome, detail] =
            <[String; FIELDS]>::try_from(texts).ok()?;
        Some(Entry {
            seq: seq.parse().ok()?,
            times: Times {
                at_ms: at_ms.parse().ok()?,
                until_ms: until_ms.parse().ok()?,
                count: count.parse().ok()?,
            },
            event: Event {
                who,
                verb: verb.into(),
                kind: kind.into(),
                id,
                owner,
                peer,
                outcome: outcome.into(),
                detail,
                paths,
            },
            hash: Hash(*hash),
        })
    }
}

/// A SHA-256, written in 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hash(pub [u8; HASH_BYTES]);

impl Hash {
    /// What the first entry follows.
    pub const ZERO: Hash = Hash([0; HASH_BYTES]);
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for Hash {
    type Err = AuditError;

    fn from_str(text: &str) -> Result<Hash, AuditError> {
        let mut hash = Hash::ZERO;
        hex::decode_to_slice(text, &mut hash.0).map_err(|_| AuditError::NoHead)?;
        Ok(hash)
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Hash, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A place in the chain: all entries up to number `seq`. Written `SEQ:HASH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub seq: u64,
    pub hash: Hash,
}

impl Head {
    /// Before the first entry.
    pub const START: Head = Head { seq: 0, hash: Hash::ZERO };
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl FromStr for Head {
    type Err = AuditError;

    fn from_str(text: &str) -> Result<Head, AuditError> {
        let (seq, hash) = text.trim().split_once(':').ok_or(AuditError::NoHead)?;
        Ok(Head { seq: seq.parse().map_err(|_| AuditError::NoHead)?, hash: hash.parse()? })
    }
}

/// Why a chain is not whole, or cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    #[error("not of the form SEQ:HASH, a number and 64 hexadecimal digits")]
    NoHead,
    /// Nothing can be read where this entry should be.
    #[error("entry {seq} cannot be read")]
    Unreadable { seq: u64 },
    #[error("entry {seq} is missing: after entry {} comes {found}", seq - 1)]
    Missing { seq: u64, found: u64 },
    #[error("entry {seq} is not the one that was written after entry {}", seq - 1)]
    Altered { seq: u64 },
    /// The chain is one, but not the one that somebody else has seen.
    #[error("entry {seq} is not the one that {by} knows: the trail was written anew from there or before")]
    Replaced { seq: u64, by: String },
    #[error("the trail ends with entry {last}, but {by} knows of entry {seq}: its end was cut off")]
    Cut { seq: u64, last: u64, by: String },
}

/// What a whole chain proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What the oldest entry follows.
    pub anchor: Head,
    pub head: Head,
    /// The last entry that somebody else knows, and who: what came after it could be missing unnoticed.
    pub known_up_to: Option<(u64, String)>,
    /// Known heads from before the oldest entry that is kept.
    pub too_old: Vec<String>,
}

/// Checks entries one by one, oldest first.
#[derive(Debug, Clone)]
pub struct Verifier {
    anchor: Head,
    head: Head,
    expected: Vec<(String, Head)>,
}

impl Verifier {
    /// Of the entries after `anchor`, the place up to which older ones were cut.
    pub fn new(anchor: Head) -> Verifier {
        Verifier { anchor, head: anchor, expected: Vec::new() }
    }

    /// `by` has seen the chain when it ended in `head`.
    pub fn expect(&mut self, by: &str, head: Head) {
        self.expected.push((by.to_owned(), head));
    }

    /// The next entry.
    pub fn take(&mut self, entry: &Entry) -> Result<(), AuditError> {
        let seq = self.head.seq + 1;
        if self.head == self.anchor {
            self.compare()?;
        }
        if entry.seq != seq {
            return Err(AuditError::Missing { seq, found: entry.seq });
        }
        if entry.hash_after(&self.head.hash) != entry.hash {
            return Err(AuditError::Altered { seq });
        }
        self.head = entry.head();
        self.compare()
    }

    /// Something is where the next entry should be, or a later one, and cannot be read.
    pub fn unreadable(&self, found: u64) -> AuditError {
        let seq = self.head.seq + 1;
        if found == seq { AuditError::Unreadable { seq } } else { AuditError::Missing { seq, found } }
    }

    fn compare(&self) -> Result<(), AuditError> {
        let head = self.head;
        match self.expected.iter().find(|(_, known)| known.seq == head.seq && known.hash != head.hash) {
            Some((by, known)) => Err(AuditError::Replaced { seq: known.seq, by: by.clone() }),
            None => Ok(()),
        }
    }

    /// After the last entry.
    pub fn finish(self) -> Result<Verdict, AuditError> {
        self.compare()?;
        let Verifier { anchor, head, expected } = self;
        if let Some((by, known)) = expected.iter().find(|(_, known)| known.seq > head.seq) {
            return Err(AuditError::Cut { seq: known.seq, last: head.seq, by: by.clone() });
        }
        let too_old = expected.iter().filter(|(_, known)| known.seq < anchor.seq);
        let too_old = too_old.map(|(by, _)| by.clone()).collect();
        let compared = expected.into_iter().filter(|(_, known)| known.seq >= anchor.seq);
        let known_up_to = compared.map(|(by, known)| (known.seq, by)).max_by_key(|(seq, _)| *seq);
        Ok(Verdict { anchor, head, known_up_to, too_old })
    }
}
