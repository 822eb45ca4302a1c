//! A disk in memory that remembers in which order it was written, so that every state in which a power cut may
//! leave it can be made afterwards.

use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

use super::support::generator::Numbers;

/// What a disk writes as a whole.
const SECTOR_BYTES: usize = 512;

#[derive(Debug, Clone)]
pub(crate) enum Operation {
    Write { at: usize, data: Vec<u8> },
    Length(usize),
    Sync,
}

/// What remains of writes that were not flushed when the power failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remains {
    Nothing,
    Everything,
    /// Some of the writes, in any order.
    SomeWrites,
    /// Some sectors of each write.
    SomeSectors,
    /// Everything but some sectors of the last write.
    TornAtTheEnd,
}

impl Remains {
    pub(crate) const ALL: [Remains; 5] = [
        Remains::Nothing,
        Remains::Everything,
        Remains::SomeWrites,
        Remains::SomeSectors,
        Remains::TornAtTheEnd,
    ];
}

#[derive(Debug, Default)]
struct Medium {
    bytes: Vec<u8>,
    log: Vec<Operation>,
    /// The number of the operation that fails, once, and how.
    failing: Option<(usize, ErrorKind)>,
    has_failed: bool,
}

/// The disk; clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Medium>>);

impl Recorder {
    pub(crate) fn holding(bytes: Vec<u8>) -> Recorder {
        Recorder(Arc::new(Mutex::new(Medium { bytes, ..Medium::default() })))
    }

    /// The operation with this number fails, and the first half of it happens.
    pub(crate) fn fail_at(&self, number: usize, kind: ErrorKind) {
        self.medium().failing = Some((number, kind));
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.medium().has_failed
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.medium().bytes.clone()
    }

    /// How many writes, flushes and changes of length there were.
    pub(crate) fn operations(&self) -> usize {
        self.medium().log.len()
    }

    pub(crate) fn log(&self) -> Vec<Operation> {
        self.medium().log.clone()
    }

    fn medium(&self) -> MutexGuard<'_, Medium> {
        self.0.lock().expect("a disk")
    }

    fn act(&self, operation: Operation) -> Result<()> {
        let mut medium = self.medium();
        if let Some((_, kind)) = medium.failing.filter(|(number, _)| *number == medium.log.len()) {
            medium.failing = None;
            medium.has_failed = true;
            if let Operation::Write { at, mut data } = operation {
                data.truncate(data.len() / 2);
                let half = Operation::Write { at, data };
                half.apply(&mut medium.bytes);
                medium.log.push(half);
            }
            return Err(Error::from(kind));
        }
        operation.apply(&mut medium.bytes);
        medium.log.push(operation);
        Ok(())
    }
}

impl Operation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Operation::Write { at, data } => {
                if bytes.len() < at + data.len() {
                    bytes.resize(at + data.len(), 0);
                }
                bytes[*at..at + data.len()].copy_from_slice(data);
            }
            Operation::Length(length) => bytes.resize(*length, 0),
            Operation::Sync => {}
        }
    }

    /// Only those sectors that `is_kept` says; a length is one.
    fn apply_sectors(&self, bytes: &mut Vec<u8>, mut is_kept: impl FnMut() -> bool) {
        match self {
            Operation::Write { at, data } => {
                for (number, sector) in data.chunks(SECTOR_BYTES).enumerate() {
                    if is_kept() {
                        let part = Operation::Write { at: at + number * SECTOR_BYTES, data: sector.to_vec() };
                        part.apply(bytes);
                    }
                }
            }
            whole => {
                if is_kept() {
                    whole.apply(bytes);
                }
            }
        }
    }
}

/// Goes through a log; what it shows is the disk after the power failed behind the operation where it stands.
pub(crate) struct Replay<'a> {
    log: &'a [Operation],
    at: usize,
    flushed: Vec<u8>,
    flushed_at: usize,
}

impl<'a> Replay<'a> {
    /// Of what was done to a disk that held these bytes.
    pub(crate) fn new(bytes: Vec<u8>, log: &'a [Operation]) -> Replay<'a> {
        Replay { log, at: 0, flushed: bytes, flushed_at: 0 }
    }

    /// Goes on to where the first `count` operations have been issued.
    pub(crate) fn advance(&mut self, count: usize) {
        for at in self.at..count {
            if matches!(self.log[at], Operation::Sync) {
                self.log[self.flushed_at..at].iter().for_each(|done| done.apply(&mut self.flushed));
                self.flushed_at = at;
            }
        }
        self.at = count;
    }

    pub(crate) fn image(&self, remains: Remains, numbers: &mut Numbers) -> Vec<u8> {
        let mut bytes = self.flushed.clone();
        let unflushed = &self.log[self.flushed_at..self.at];
        for (index, operation) in unflushed.iter().enumerate() {
            let is_last = index + 1 == unflushed.len();
            match remains {
                Remains::Nothing => {}
                Remains::Everything => operation.apply(&mut bytes),
                Remains::SomeWrites if numbers.below(2) == 0 => operation.apply(&mut bytes),
                Remains::SomeWrites => {}
                Remains::TornAtTheEnd if !is_last => operation.apply(&mut bytes),
                Remains::SomeSectors | Remains::TornAtTheEnd => {
                    operation.apply_sectors(&mut bytes, || numbers.below(2) == 0);
                }
            }
        }
        bytes
    }
}

impl StorageBackend for Recorder {
    fn len(&self) -> Result<u64> {
        Ok(self.medium().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let (medium, at) = (self.medium(), usize::try_from(offset).expect("an offset"));
        let found = medium.bytes.get(at..at + out.len()).ok_or(ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<()> {
        self.act(Operation::Length(usize::try_from(length).expect("a length")))
    }

    fn sync_data(&self) -> Result<()> {
        self.act(Operation::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.act(Operation::Write { at: usize::try_from(offset).expect("an offset"), data: data.to_vec() })
    }
}
