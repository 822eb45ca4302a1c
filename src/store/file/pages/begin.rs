//! Floor 1. Where the looking begins: how long the file is to be, and which of its two last commits counts.

use std::collections::BTreeSet;
use std::io;

use redb::StorageBackend;

use super::header::{HEADER_BYTES, Header, MAGIC, Regions, Sound, Worth};
use super::layout::Root;
use super::search::Search;
use super::{Guess, Inspected, LIST_OF_TABLES, Look, PAGE_BYTES, Wanted};
use crate::store::file::sealed::Sealed;

/// [`inspect`] for an encrypted store, of which blocks may not open.
pub(crate) fn inspect_sealed<B: StorageBackend>(bytes: &Sealed<B>, is_all: bool) -> io::Result<Inspected> {
    let mut found = inspect_with(bytes, Some(bytes), is_all)?;
    found.bits_in_blocks = bytes.defects().bits();
    found.has_torn_head = bytes.has_torn_head();
    Ok(found)
}

/// Follows the tree of pages; unless `is_all`, past the rows of tables that are most of a large file and whose rows have
/// checksums. A file that is no database of redb's is left to redb, which says so.
pub(crate) fn inspect(bytes: &(impl StorageBackend + ?Sized), is_all: bool) -> io::Result<Inspected> {
    inspect_with(bytes, None, is_all)
}

/// The bytes of a store, and how they are looked at.
struct Begin<'a, B: ?Sized> {
    bytes: &'a B,
    guess: Option<&'a dyn Guess>,
    length: u64,
    regions: Regions,
}

impl<'a, B: StorageBackend + ?Sized> Begin<'a, B> {
    fn look(&self, is_all: bool) -> Look<'a, B> {
        Look {
            bytes: self.bytes,
            length: self.length,
            is_all,
            guess: self.guess,
            wants_rows: false,
            header: self.regions,
            pages_left: self.length / PAGE_BYTES,
            search: Search::new(),
            found: Inspected::default(),
        }
    }

    /// Follows the trees of a commit.
    fn commit(&self, slot: &[u8], is_all: bool) -> io::Result<Inspected> {
        let mut look = self.look(is_all);
        for (is_there, at, is_own) in [(1, 8, false), (2, 40, true)] {
            if slot.get(is_there).is_some_and(|byte| *byte != 0)
                && let Some(root) = slot.get(at..).and_then(Root::read)
            {
                look.tables(root, is_own, None)?;
            }
        }
        Ok(look.found)
    }

    /// Follows the commit that counts. A later one that only lacks the mark that it counts does count if it is complete:
    /// nothing that was acknowledged is given up for the commit before it. One whose pages are not all there was being
    /// written when the power failed. The first block of an encrypted store tells more: where the other place of it does
    /// not open, it was being written, or has rotted, after all pages of that commit were on the disk; what is missing of
    /// them is missing because it rotted, and is no reason to go back.
    fn commit_that_counts(&self, header: &mut [u8; HEADER_BYTES], is_all: bool) -> io::Result<Inspected> {
        let mut later = *header;
        let Some(ahead) = Header(&mut later).go_ahead() else {
            return self.commit(Header(header).primary(), is_all);
        };
        let newer = self.commit(Header(&mut later).primary(), true)?;
        let newer = Inspected { ahead: Some(ahead), ..newer };
        if newer.is_complete() || self.guess.is_some_and(Guess::has_torn_head) {
            return Ok(newer);
        }
        let older = self.commit(Header(header).primary(), true)?;
        Ok(if newer.is_no_worse_than(&older) { newer } else { older })
    }
}

impl Inspected {
    /// Whether all of it is what was written, or becomes it.
    fn is_complete(&self) -> bool {
        self.broken.is_empty() && self.damaged.is_empty() && self.patches.is_empty()
    }

    fn is_no_worse_than(&self, other: &Inspected) -> bool {
        self.broken.is_subset(&other.broken)
            && self.damaged.iter().all(|row| other.damaged.contains(row))
            && self.patches.iter().all(|patch| other.patches.iter().any(|others| others.at == patch.at))
    }

    fn of_broken(what: impl IntoIterator<Item = String>) -> Inspected {
        Inspected { broken: what.into_iter().collect(), ..Inspected::default() }
    }
}

fn inspect_with(
    bytes: &(impl StorageBackend + ?Sized),
    guess: Option<&dyn Guess>,
    is_all: bool,
) -> io::Result<Inspected> {
    let length = length_with_rest(bytes, guess)?;
    let mut header = [0; HEADER_BYTES];
    if length < PAGE_BYTES {
        return Ok(Inspected::of_broken(rest_of_a_store(bytes, length)?));
    }
    bytes.read(0, &mut header)?;
    let sound = match Header(&mut header).put_right(length) {
        Worth::NoDatabase => return Ok(Inspected { is_left_to_redb: true, ..Inspected::default() }),
        Worth::Broken(what) => return Ok(Inspected::of_broken([what])),
        Worth::CutOff(wanted) => return Ok(Inspected::of_broken([end_of_file(guess, wanted, length)?])),
        Worth::Sound(sound) => sound,
    };
    let surplus = match guess {
        Some(sealed) => sealed.file_bytes()?.saturating_sub(sealed.bytes_in_file(sound.length)),
        None => length - sound.length,
    };
    let missing = sound.said.filter(|said| *said > length);
    let mut found = if Header(&mut header).is_unsettled() {
        // The power failed, perhaps while this commit was written: redb compares all checksums itself, and goes back to
        // the commit before if it has to. That must not happen because the file was cut off.
        let cut_off = missing.map(|wanted| end_of_file(guess, wanted, length)).transpose()?;
        Inspected { is_left_to_redb: true, ..Inspected::of_broken(cut_off) }
    } else {
        let regions = Header(&mut header).regions();
        let begin = Begin { bytes, guess, length: sound.length, regions };
        // Nothing is cut off that anything leads to.
        begin.commit_that_counts(&mut header, is_all || surplus > 0 || missing.is_some())?
    };
    found.flips.extend(sound.flips);
    if surplus > 0 && (missing.is_none() || found.broken.is_empty()) {
        (found.surplus, found.cut_to) = (surplus, Some(sound.length));
    }
    if let Some(wanted) = missing {
        let end = end_of_file(guess, wanted, length)?;
        if found.broken.is_empty() {
            found.cut_off_unless_flipped = Some(end);
        } else {
            found.broken.insert(end);
        }
    }
    Ok(found)
}

/// How many bytes redb sees, and what there is of one more page. A file has whole pages, or whole blocks, unless something was
/// cut off or appended: no wrong bit of the header explains the rest.
fn length_with_rest(bytes: &(impl StorageBackend + ?Sized), guess: Option<&dyn Guess>) -> io::Result<u64> {
    let length = bytes.len()?;
    let Some(sealed) = guess else { return Ok(length) };
    let rest = sealed.file_bytes()?.saturating_sub(sealed.bytes_in_file(length));
    // A sealed block is longer than what is in it.
    Ok(length + rest.min(PAGE_BYTES - 1))
}

/// What a file lacks that is shorter than it should be; both as redb sees it.
fn end_of_file(guess: Option<&dyn Guess>, wanted: u64, length: u64) -> io::Result<String> {
    let (wanted, length) = match guess {
        Some(sealed) => (sealed.bytes_in_file(wanted), sealed.file_bytes()?),
        None => (wanted, length),
    };
    Ok(format!("the end of the file (it should have {wanted} bytes and has {length})"))
}

/// What is missing of a file that is too short for a store, if it was one.
fn rest_of_a_store(bytes: &(impl StorageBackend + ?Sized), length: u64) -> io::Result<Option<String>> {
    let mut begin = [0; MAGIC.len()];
    let there = usize::try_from(length).unwrap_or(usize::MAX).min(begin.len());
    let begin = begin.get_mut(..there).unwrap_or_default();
    if begin.is_empty() {
        return Ok(None);
    }
    bytes.read(0, begin)?;
    let said =
        || format!("the end of the file (it should have {} bytes at least and has {length})", 2 * PAGE_BYTES);
    Ok(MAGIC.starts_with(begin).then(said))
}

/// Shows all rows of a table with checksums that can be reached and whose own checksum is right, whatever their page is
/// worth. Returns what is damaged beyond repair. Nothing is written.
pub(crate) fn rows_left(
    bytes: &(impl StorageBackend + ?Sized),
    sealed: Option<&dyn Guess>,
    name: &str,
    show: &mut dyn FnMut(&[u8], &[u8]),
) -> io::Result<BTreeSet<String>> {
    let length = length_with_rest(bytes, sealed)?;
    let mut header = [0; HEADER_BYTES];
    if length < PAGE_BYTES {
        return match rest_of_a_store(bytes, length)? {
            Some(what) => Ok(BTreeSet::from([what])),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "the file is too short for a store")),
        };
    }
    bytes.read(0, &mut header)?;
    let worth = Header(&mut header).put_right(length);
    let is_older = Header(&mut header).fall_back();
    // Of a file that nobody closed this is the last commit, as far as it was written.
    let _ = Header(&mut header).go_ahead();
    let begin = Begin { bytes, guess: None, length, regions: Header(&mut header).regions() };
    let mut look = begin.look(true);
    let header = Header(&mut header);
    let wanted: Wanted<'_> = Some((name, show));
    match header.primary().get(8..).and_then(Root::read) {
        Some(root) => look.tables(root, false, wanted)?,
        None => drop(look.found.broken.insert(LIST_OF_TABLES.to_owned())),
    }
    match worth {
        Worth::Broken(what) => drop(look.found.broken.insert(what)),
        Worth::CutOff(wanted) => drop(look.found.broken.insert(end_of_file(sealed, wanted, length)?)),
        // Which of the two is wrong was decided by redb, which did not open the file.
        Worth::Sound(Sound { said: Some(wanted), .. }) if wanted > length => {
            look.found.broken.insert(end_of_file(sealed, wanted, length)?);
        }
        Worth::NoDatabase | Worth::Sound(Sound { .. }) => {}
    }
    if is_older {
        look.found.broken.insert("the last change".to_owned());
    }
    Ok(look.found.broken)
}

#[cfg(test)]
mod tests;
