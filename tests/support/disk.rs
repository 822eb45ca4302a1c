//! Disks in memory that a store can live on: they can be copied, fill up, and lose what was not flushed.

use std::io::{Error, ErrorKind, Result};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

/// One disk; clones are the same one. It is mounted for as long as a store has it open, and only by the last one
/// that opened it: what an earlier one still writes goes nowhere.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    medium: Arc<Mutex<Medium>>,
}

#[derive(Debug, Default)]
struct Medium {
    bytes: Vec<u8>,
    /// What has to be done to get back to what was there at the last flush, in order of the writes.
    unflushed: Vec<Undo>,
    /// Counts the times that the disk was mounted or torn away.
    mount: u64,
    is_full: bool,
    flushes: u64,
    /// Operations until the power fails in the middle of the work.
    until_cut: Option<u64>,
}

#[derive(Debug)]
enum Undo {
    /// These bytes were here.
    Bytes { at: usize, old: Vec<u8> },
    /// It was this long, with these bytes at the end.
    Length { length: usize, tail: Vec<u8> },
}

impl Disk {
    /// What a store opens; an earlier mount ends.
    pub(crate) fn mount(&self) -> Mount {
        let mut medium = self.medium();
        medium.mount += 1;
        Mount { medium: Arc::clone(&self.medium), number: medium.mount }
    }

    /// A disk of its own with what is safely on this one.
    pub(crate) fn copy(&self) -> Disk {
        let medium = self.medium();
        let mut copy = Medium { bytes: medium.bytes.clone(), ..Medium::default() };
        medium.unflushed.iter().rev().for_each(|undo| copy.undo(undo));
        Disk { medium: Arc::new(Mutex::new(copy)) }
    }

    /// The power fails: whoever has it mounted reaches it no more, and what was not flushed is gone.
    pub(crate) fn cut(&self) {
        self.medium().cut();
    }

    /// The power fails after so many more reads, writes and flushes.
    pub(crate) fn cut_after(&self, operations: u64) {
        self.medium().until_cut = Some(operations);
    }

    /// Whether the power failed after what [`Disk::cut_after`] said; if not, it does not any more.
    pub(crate) fn was_cut(&self) -> bool {
        let mut medium = self.medium();
        let is_cut = medium.until_cut.take() == Some(0);
        if is_cut {
            medium.cut();
        }
        is_cut
    }

    /// No write succeeds while the disk is full.
    pub(crate) fn set_full(&self, is_full: bool) {
        self.medium().is_full = is_full;
    }

    /// Makes a byte another one wherever the text stands, in more than one bit, while it is not mounted. Returns in how many
    /// places.
    pub(crate) fn damage(&self, text: &str) -> usize {
        let mut medium = self.medium();
        let windows = medium.bytes.windows(text.len()).enumerate();
        let places: Vec<usize> = windows.filter(|(_, at)| *at == text.as_bytes()).map(|(at, _)| at).collect();
        for place in &places {
            medium.bytes[*place] ^= 6;
        }
        places.len()
    }

    /// How often something was made safe.
    pub(crate) fn flushes(&self) -> u64 {
        self.medium().flushes
    }

    fn medium(&self) -> MutexGuard<'_, Medium> {
        self.medium.lock().expect("a disk")
    }
}

impl Medium {
    fn cut(&mut self) {
        self.mount += 1;
        while let Some(undo) = self.unflushed.pop() {
            self.undo(&undo);
        }
    }

    fn undo(&mut self, undo: &Undo) {
        match undo {
            Undo::Bytes { at, old } => self.bytes[*at..*at + old.len()].copy_from_slice(old),
            Undo::Length { length, tail } => {
                self.bytes.resize(*length, 0);
                self.bytes[*length - tail.len()..].copy_from_slice(tail);
            }
        }
    }
}

/// Makes a byte another one wherever the text stands in a file, in more than one bit: nothing can say what it was. Returns in how
/// many places.
pub(crate) fn damage(file: &Path, text: &str) -> usize {
    let mut bytes = std::fs::read(file).unwrap();
    let places: Vec<usize> = bytes
        .windows(text.len())
        .enumerate()
        .filter(|(_, at)| *at == text.as_bytes())
        .map(|(at, _)| at)
        .collect();
    for place in &places {
        bytes[*place] ^= 6;
    }
    std::fs::write(file, bytes).unwrap();
    places.len()
}

/// A disk as one store sees it.
#[derive(Debug)]
pub(crate) struct Mount {
    medium: Arc<Mutex<Medium>>,
    number: u64,
}

impl Mount {
    fn reach(&self) -> Result<MutexGuard<'_, Medium>> {
        let mut medium = self.medium.lock().expect("a disk");
        if medium.mount != self.number {
            return Err(Error::other("the machine is off"));
        }
        match &mut medium.until_cut {
            Some(operations @ 1..) => *operations -= 1,
            Some(0) => {
                medium.cut();
                return Err(Error::other("the power failed"));
            }
            None => {}
        }
        Ok(medium)
    }

    fn reach_to_write(&self) -> Result<MutexGuard<'_, Medium>> {
        let medium = self.reach()?;
        if medium.is_full { Err(ErrorKind::StorageFull.into()) } else { Ok(medium) }
    }
}

impl StorageBackend for Mount {
    fn len(&self) -> Result<u64> {
        Ok(self.reach()?.bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let medium = self.reach()?;
        let at = usize::try_from(offset).expect("an offset");
        let found = medium.bytes.get(at..at + out.len()).ok_or(ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<()> {
        let mut medium = self.reach_to_write()?;
        let (old, new) = (medium.bytes.len(), usize::try_from(length).expect("a length"));
        let tail = medium.bytes.get(new..).unwrap_or_default().to_vec();
        medium.unflushed.push(Undo::Length { length: old, tail });
        medium.bytes.resize(new, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        let mut medium = self.reach_to_write()?;
        medium.unflushed.clear();
        medium.flushes += 1;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut medium = self.reach_to_write()?;
        let at = usize::try_from(offset).expect("an offset");
        let place = medium.bytes.get_mut(at..at + data.len()).ok_or(ErrorKind::UnexpectedEof)?;
        let old = place.to_vec();
        place.copy_from_slice(data);
        medium.unflushed.push(Undo::Bytes { at, old });
        Ok(())
    }
}
