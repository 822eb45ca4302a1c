//! Floor 1. The file's first bytes: which of the two last commits counts, and where single bits of them are wrong.

use std::ops::Range;

use super::layout::{sum, u32_at, u64_at, u128_at};
use super::{Flip, PAGE_BYTES};

pub(super) const HEADER_BYTES: usize = 320;
pub(super) const MAGIC: &[u8; 9] = b"redb\x1a\x0a\xa9\x0d\x0a";
/// Where the flags are: which slot counts, and whether the file was closed properly.
const FLAGS_AT: usize = 9;
const SECOND_SLOT: u8 = 1;
const IS_OPEN: u8 = 2;
/// Whether the slot that counts was on the disk before it came to count.
const IS_SETTLED: u8 = 4;
const FLAGS_KNOWN: u8 = 0x0f;
/// Pages of a region, unless the maker of a file says otherwise; no code here does.
const REGION_PAGES: u64 = 1 << 20;
const SLOTS_AT: [usize; 2] = [64, 192];
const SLOT_BYTES: usize = 128;
const SLOT_SUM_AT: usize = 112;
const SLOT_VERSION: u8 = 3;

/// The file's first bytes.
pub(super) struct Header<'a>(pub(super) &'a mut [u8; HEADER_BYTES]);

/// What a header is called that nothing explains.
const HEADER_NAME: &str = "the file's header";

/// What a header is worth.
pub(super) enum Worth {
    /// It is left to redb.
    NoDatabase,
    /// More is wrong than can be put right: what.
    Broken(String),
    /// Of a file that was closed, and that had so many bytes then.
    CutOff(u64),
    /// As it should be, with these bits changed.
    Sound(Sound),
}

/// What there is to know of a header that makes sense.
pub(super) struct Sound {
    pub(super) flips: Vec<Flip>,
    /// How many bytes of the file belong to it. Behind them something was appended that redb never wrote: it gives a file
    /// whole pages, and knows how many of them a file had when it was closed.
    pub(super) length: u64,
    /// How many bytes it has by what its last header says, which may be what is wrong in it. Of a file that nobody closed
    /// they may be more: it grows before its header says so.
    pub(super) said: Option<u64>,
}

/// Pages before the data of each region, and of data.
#[derive(Clone, Copy)]
pub(super) struct Regions {
    pub(super) ahead: u64,
    pub(super) data: u64,
}

impl Header<'_> {
    pub(super) fn regions(&self) -> Regions {
        let number = |at| u32_at(&self.0[..], at).unwrap_or_default() as u64;
        Regions { ahead: number(16), data: number(20) }
    }

    fn slot(&self, number: usize) -> &[u8] {
        SLOTS_AT.get(number).and_then(|at| self.0.get(*at..*at + SLOT_BYTES)).unwrap_or_default()
    }

    fn primary_number(&self) -> usize {
        usize::from(self.0[FLAGS_AT] & SECOND_SLOT)
    }

    pub(super) fn primary(&self) -> &[u8] {
        self.slot(self.primary_number())
    }

    fn is_closed(&self) -> bool {
        self.0[FLAGS_AT] & IS_OPEN == 0
    }

    fn is_slot_good(&self, number: usize) -> bool {
        let slot = self.slot(number);
        slot.first() == Some(&SLOT_VERSION) && u128_at(slot, SLOT_SUM_AT) == slot.get(..SLOT_SUM_AT).map(sum)
    }

    /// The number of the last commit in a slot.
    fn commit(&self, number: usize) -> Option<u64> {
        u64_at(self.slot(number), 104)
    }

    /// How long the file is by what the header says of a file that was closed.
    fn length(&self) -> Option<u64> {
        let (full, rest) = (u32_at(&self.0[..], 24)? as u64, u32_at(&self.0[..], 28)? as u64);
        full.checked_mul(self.regions().data)?.checked_add(rest)?.checked_add(1)?.checked_mul(PAGE_BYTES)
    }

    /// Whether it can be what redb wrote: for a file that was closed properly all of it is known, but for its length.
    fn is_sound_but_for_length(&self) -> bool {
        let Regions { ahead, data } = self.regions();
        let is_known = self.0.starts_with(MAGIC)
            && self.0[FLAGS_AT] & !FLAGS_KNOWN == 0
            && u32_at(&self.0[..], 12) == Some(PAGE_BYTES as usize)
            && ahead == 0
            && data == REGION_PAGES
            && self.is_slot_good(self.primary_number());
        let other = 1 - self.primary_number();
        let is_older = !self.is_slot_good(other) || self.commit(other) <= self.commit(self.primary_number());
        is_known && (is_older || !self.is_closed())
    }

    fn is_sound(&self, length: u64) -> bool {
        self.is_sound_but_for_length() && (!self.is_closed() || self.length() == Some(length))
    }

    /// Puts single wrong bits right, and says what the header is worth.
    pub(super) fn put_right(&mut self, length: u64) -> Worth {
        let mut flips = Vec::new();
        // Each slot has a checksum of its own.
        for (number, at) in SLOTS_AT.into_iter().enumerate() {
            if !self.is_slot_good(number) {
                let is_good = |header: &Self| header.is_slot_good(number);
                flips.extend(self.only_bit(at..at + SLOT_BYTES, is_good));
            }
        }
        // Of a file that was closed these are all.
        let whole_pages = length - length % PAGE_BYTES;
        let said = self.length();
        if self.is_sound(length) {
            return self.sound(flips, whole_pages, said);
        }
        // Also where something was appended this is harmless: what redb takes for free pages is written before it is read.
        if let Some(flip) = self.only_bit(0..SLOTS_AT[0], |header| header.is_sound(length)) {
            flips.push(flip);
            return self.sound(flips, whole_pages, said);
        }
        if !self.0.starts_with(MAGIC) && !self.is_slot_good(0) && !self.is_slot_good(1) {
            return Worth::NoDatabase;
        }
        if self.is_unsettled() {
            // The power failed while this commit was written: redb goes back to the one before.
            return Worth::NoDatabase;
        }
        if self.is_sound_but_for_length()
            && let Some(wanted) = self.length()
        {
            return match wanted <= length && wanted >= 2 * PAGE_BYTES {
                true => self.sound(flips, wanted, None),
                false => Worth::CutOff(wanted),
            };
        }
        Worth::Broken(HEADER_NAME.to_owned())
    }

    /// redb opens no file with a commit of which it does not know the version, also if that does not count.
    fn sound(&self, flips: Vec<Flip>, length: u64, said: Option<u64>) -> Worth {
        match SLOTS_AT.iter().all(|at| self.0.get(*at) == Some(&SLOT_VERSION)) {
            true => Worth::Sound(Sound { flips, length, said }),
            false => Worth::Broken(HEADER_NAME.to_owned()),
        }
    }

    /// Has the other commit count if nobody closed the file and that commit is the later one, and says which bit does it.
    ///
    /// redb writes a commit in two steps, each flushed: its pages and its slot, then the bit that has it count. So a later
    /// commit that does not count had not been acknowledged when the power failed, or it had, and the bit is not what was
    /// written any more.
    pub(super) fn go_ahead(&mut self) -> Option<Flip> {
        let (primary, other) = (self.primary_number(), 1 - self.primary_number());
        let is_ahead = !self.is_closed()
            && !self.is_unsettled()
            && self.is_slot_good(other)
            && self.commit(other) > self.commit(primary);
        is_ahead.then(|| {
            self.0[FLAGS_AT] ^= SECOND_SLOT;
            Flip { at: FLAGS_AT as u64, bit: 0 }
        })
    }

    /// Whether nobody closed the file, and the commit that counts may not have been on the disk before it came to count.
    pub(super) fn is_unsettled(&self) -> bool {
        self.0[FLAGS_AT] & (IS_OPEN | IS_SETTLED) == IS_OPEN
    }

    /// Has the other commit count if the one that counts cannot be read, for reading only. Returns whether it
    /// was so.
    pub(super) fn fall_back(&mut self) -> bool {
        let is_lost =
            !self.is_slot_good(self.primary_number()) && self.is_slot_good(1 - self.primary_number());
        if is_lost {
            self.0[FLAGS_AT] ^= SECOND_SLOT;
        }
        is_lost
    }

    /// Changes the only bit of this range whose change is good, and says which it was.
    fn only_bit(&mut self, range: Range<usize>, is_good: impl Fn(&Self) -> bool) -> Option<Flip> {
        // With one commit damaged, which of the two counts is no question of one bit: the other is older, and what was
        // acknowledged since would be lost without a word.
        let are_both_good = self.is_slot_good(0) && self.is_slot_good(1);
        let mut found = None;
        for at in range {
            for bit in 0..8 {
                let mask = 1 << bit;
                // A file that is not closed could be anything.
                if at == FLAGS_AT && (mask == IS_OPEN || (mask == SECOND_SLOT && !are_both_good)) {
                    continue;
                }
                *self.0.get_mut(at)? ^= mask;
                let is_it = is_good(self);
                *self.0.get_mut(at)? ^= mask;
                if is_it && found.replace((at, bit)).is_some() {
                    return None;
                }
            }
        }
        let (at, bit) = found?;
        *self.0.get_mut(at)? ^= 1 << bit;
        Some(Flip { at: at as u64, bit })
    }
}
