//! Floor 1. The audit trail in its tables: entries are appended in the transaction of what they are about, and
//! nothing is ever changed. What is older than the configured number of entries is cut off at the front; where,
//! is kept, so that the rest can still be checked.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use bson::{Document, doc};
use redb::ReadableTable;

use crate::domain::access::Actor;
use crate::domain::audit::{EVERYBODY, Entry, Event, Hash, Head, Times, What, owner_text};
use crate::domain::record::{Kind, RecordKey};
use crate::store::engine::{Snapshot, Store, Tx};
use crate::store::error::StoreError;
use crate::store::holders::Stretch;
use crate::store::rows::Checked;
use crate::store::schema::{AUDIT, AUDIT_OF};

/// Where the oldest kept entry begins: `{head: "SEQ:HASH"}`.
const META_ANCHOR: &str = "audit_anchor";
/// The head that the centre has last confirmed: `{head: "SEQ:HASH"}`.
const META_ACKNOWLEDGED: &str = "audit_acknowledged";
/// Exists while a node serves from the store.
pub(crate) const META_SERVING: &str = "serving";
/// Entries that one new entry may push out: a lower limit in the configuration takes effect step by step.
const CUT_ENTRIES_MAX: u64 = 64;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Entries that one query looks at.
const LOOK_ENTRIES_MAX: usize = 20_000;

/// Which entries are wanted, and where to begin.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// Oldest first, after this one; else the newest first.
    pub after: Option<u64>,
    /// Only entries before this one.
    pub before: Option<u64>,
    /// Folded id: entries about this person's data, or about everybody's.
    pub person: Option<String>,
    /// Of those only what is about the human being who has that account now: see `holders/holder_since.rs`.
    pub is_of_holder: bool,
    /// Entries by this actor, in any form in which one was ever written.
    pub who: Option<Actor>,
    pub verb: Option<String>,
    /// Milliseconds since 1970, both included.
    pub from_ms: Option<i64>,
    pub to_ms: Option<i64>,
    pub limit: usize,
}

impl AuditQuery {
    fn wants(&self, entry: &Entry) -> bool {
        let Entry { times, event, .. } = entry;
        let is_by = |who: &Actor| Actor::read(&event.who).is_some_and(|by| by.is_same(who));
        self.who.as_ref().is_none_or(is_by)
            && self.verb.as_ref().is_none_or(|verb| event.verb == *verb)
            && self.from_ms.is_none_or(|from| times.until_ms >= from)
            && self.to_ms.is_none_or(|to| times.at_ms <= to)
    }
}

/// An entry, or the number of one that cannot be read.
pub type AuditRow = Result<Entry, u64>;

/// Some entries in the order that was asked for.
#[derive(Debug)]
pub struct AuditPage {
    pub rows: Vec<AuditRow>,
    /// The last one that was looked at, if there may be more behind it.
    pub next: Option<u64>,
}

impl Tx<'_> {
    /// Appends an entry, made now. If that fails the transaction must fail.
    pub fn audit(&mut self, event: Event) -> Result<(), StoreError> {
        let times = Times::once(self.now_ms());
        self.audit_at(times, event)
    }

    /// Appends an entry about what happened then.
    pub(crate) fn audit_at(&mut self, times: Times, event: Event) -> Result<(), StoreError> {
        let entry = Entry::after(&self.audit_head()?, times, event);
        self.audit.insert(entry.seq, entry.encode().as_slice())?;
        if !entry.event.owner.is_empty() {
            self.audit_of.insert((entry.event.owner.as_str(), entry.seq), ())?;
        }
        self.wrote();
        self.cut_audit(entry.seq)
    }

    /// The event as done by whoever asked for this transaction.
    pub fn audit_asked(&mut self, what: What, fill: impl FnOnce(Event) -> Event) -> Result<(), StoreError> {
        let asker = self.asker.clone();
        let event = match &asker {
            Some(asker) => Event::new(what, &asker.who),
            None => Event::new(what, &Actor::Node),
        };
        self.audit(fill(event.at(self.asked_from())))
    }

    /// Where the request comes from that asked for this transaction.
    pub(crate) fn asked_from(&self) -> Option<IpAddr> {
        self.asker.as_ref().and_then(|asker| asker.from)
    }

    /// What somebody changed in a record. Whatever comes from the centre was done, and audited, elsewhere.
    pub(crate) fn audit_change(
        &mut self,
        key: &RecordKey,
        op: &str,
        paths: &[String],
        owner: Option<&str>,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        let what = match op {
            _ if *actor == Actor::Centre => return Ok(()),
            "create" => What::Create,
            "delete" => What::Delete,
            _ if key.kind != Kind::Person => What::Update,
            _ if paths.iter().any(|path| path == "password") => What::Password,
            _ if paths.iter().any(|path| path == "roles") => What::Roles,
            _ => What::Update,
        };
        let event = Event::new(what, actor).at(self.asked_from());
        self.audit_repeatable(event.about(key.kind.schema().collection, &key.id, owner).changing(paths))
    }

    /// The end of the trail, for whoever keeps it elsewhere.
    pub fn audit_head(&self) -> Result<Head, StoreError> {
        head_of(&self.audit, || self.meta(META_ANCHOR))
    }

    /// The centre has confirmed this head.
    pub(crate) fn acknowledge_audit(&mut self, head: &Head) -> Result<(), StoreError> {
        self.set_meta(META_ACKNOWLEDGED, Some(&head_row(head)))
    }

    /// Cuts off what is too old, oldest first: what is beyond the number that is kept, and has been kept long enough.
    fn cut_audit(&mut self, last: u64) -> Result<(), StoreError> {
        for _ in 0..CUT_ENTRIES_MAX {
            let oldest = self.audit.keys::<u64>(..)?.next().transpose()?.map(|seq| seq.value());
            let is_old = |seq: &u64| last.saturating_sub(*seq) >= self.audit_keep_rows;
            let Some(seq) = oldest.filter(is_old) else {
                return Ok(());
            };
            if !self.has_been_kept(seq)? {
                return Ok(());
            }
            let bytes = self.audit.unchecked_value(seq)?.unwrap_or_default();
            let entry = Entry::decode(&bytes);
            self.audit.remove(seq)?;
            if let Some(entry) = entry.filter(|entry| !entry.event.owner.is_empty()) {
                self.audit_of.remove((entry.event.owner.as_str(), seq))?;
            }
            let hash = Entry::stored_hash(&bytes).unwrap_or(Hash::ZERO);
            self.set_meta(META_ANCHOR, Some(&head_row(&Head { seq, hash })))?;
        }
        Ok(())
    }
}

impl Snapshot {
    /// The end of the trail, for whoever keeps it elsewhere.
    pub fn audit_head(&self) -> Result<Head, StoreError> {
        head_of(&self.transaction.open_table(AUDIT)?, || self.meta(META_ANCHOR))
    }

    /// What the oldest kept entry follows.
    pub fn audit_anchor(&self) -> Result<Head, StoreError> {
        parse_anchor(self.meta(META_ANCHOR)?.as_ref())
    }

    /// The head that the centre has last confirmed.
    pub fn audit_acknowledged(&self) -> Result<Option<Head>, StoreError> {
        self.meta(META_ACKNOWLEDGED)?.as_ref().map(parse_head).transpose()
    }

    /// The entries that a query asks for, as far as one look reaches.
    pub fn audit(&self, query: &AuditQuery) -> Result<AuditPage, StoreError> {
        let entries = self.transaction.open_table(AUDIT)?;
        let (first, end) = (query.after.map_or(0, |after| after.saturating_add(1)), query.before);
        let end = end.unwrap_or(u64::MAX).max(first);
        let is_ascending = query.after.is_some();
        let mut page = AuditPage { rows: Vec::new(), next: None };
        let (mut looked, mut last) = (0, None);
        let mut look = |seq: u64, since_ms: i64, bytes: &[u8]| {
            if looked == LOOK_ENTRIES_MAX || page.rows.len() == query.limit {
                page.next = last;
                return false;
            }
            (looked, last) = (looked + 1, Some(seq));
            match Entry::decode(bytes) {
                Some(entry) if !query.wants(&entry) || entry.times.at_ms < since_ms => {}
                Some(entry) if entry.seq == seq => page.rows.push(Ok(entry)),
                _ => page.rows.push(Err(seq)),
            }
            true
        };
        let Some(person) = &query.person else {
            let mut range = entries.range(first..end)?;
            while let Some(row) = if is_ascending { range.next() } else { range.next_back() } {
                let (seq, bytes) = row?;
                if !look(seq.value(), i64::MIN, bytes.value()) {
                    break;
                }
            }
            return Ok(page);
        };
        let of = self.transaction.open_table(AUDIT_OF)?;
        let mut numbers = Vec::new();
        let stretches = match query.is_of_holder {
            true => self.trail_of_holder(person)?,
            false => vec![Stretch::whole(person)],
        };
        for Stretch { account, after, through, since_ms } in stretches {
            let owner = owner_text(&account);
            // Up to version 0.1.0 every id stood there by itself.
            let before = Some(account.as_str()).filter(|before| *before != owner && *before != EVERYBODY);
            let (first, end) = (first.max(after.saturating_add(1)), end.min(through.saturating_add(1)));
            for owner in
                [Some(&*owner), Some(EVERYBODY), before].into_iter().flatten().filter(|_| first < end)
            {
                let mut range = of.range((owner, first)..(owner, end))?;
                // Of either as many as could be looked at.
                for _ in 0..=LOOK_ENTRIES_MAX {
                    let row = if is_ascending { range.next() } else { range.next_back() };
                    let Some(row) = row else { break };
                    numbers.push((row?.0.value().1, since_ms));
                }
            }
        }
        numbers.sort_unstable();
        numbers.dedup_by_key(|(seq, _)| *seq);
        if !is_ascending {
            numbers.reverse();
        }
        for (seq, since_ms) in numbers {
            let bytes = entries.get(seq)?.map(|row| row.value().to_vec()).unwrap_or_default();
            if !look(seq, since_ms, &bytes) {
                break;
            }
        }
        Ok(page)
    }
}

impl Store {
    /// Entries of the audit trail stay for so many days at least, however many there are; 0, as it is at first: only
    /// their number counts.
    pub fn keep_audit_for(&self, days: u32) {
        self.inner.engine.audit_keep_ms.store(i64::from(days) * DAY_MS, Ordering::Relaxed);
    }

    /// Notes that a node serves from this store; tells of one that did and never said that it stopped.
    pub async fn begin_service(&self, version: &'static str) -> Result<(), StoreError> {
        self.transact(move |tx| -> Result<(), StoreError> {
            tx.write_all_repeats()?;
            if tx.meta(META_SERVING)?.is_some() {
                tx.audit_asked(What::UncleanStop, |event| event)?;
            }
            tx.set_meta(META_SERVING, Some(&doc! {"since_ms": tx.now_ms()}))?;
            tx.audit_asked(What::Start, |event| event.saying(version))
        })
        .await
    }

    /// The node serves no more, and everything that it noted is written.
    pub async fn end_service(&self) -> Result<(), StoreError> {
        self.flush_notes().await?;
        self.transact(|tx| -> Result<(), StoreError> {
            tx.write_all_repeats()?;
            tx.set_meta(META_SERVING, None)?;
            tx.audit_asked(What::Stop, |event| event)
        })
        .await
    }
}

fn head_of(
    entries: &Checked<impl ReadableTable<u64, &'static [u8]>, u64>,
    anchor: impl FnOnce() -> Result<Option<Document>, StoreError>,
) -> Result<Head, StoreError> {
    let Some(seq) = entries.last_number()? else {
        return parse_anchor(anchor()?.as_ref());
    };
    // Also behind an entry that is damaged on the disk the trail goes on; the check of the chain names it.
    let bytes = entries.unchecked_value(seq)?.unwrap_or_default();
    Ok(Head { seq, hash: Entry::stored_hash(&bytes).unwrap_or(Hash::ZERO) })
}

fn head_row(head: &Head) -> Document {
    doc! {"head": head.to_string()}
}

fn parse_anchor(row: Option<&Document>) -> Result<Head, StoreError> {
    row.map_or(Ok(Head::START), parse_head)
}

fn parse_head(row: &Document) -> Result<Head, StoreError> {
    let head = row.get_str("head").ok().and_then(|head| head.parse().ok());
    head.ok_or_else(|| StoreError::Damaged("the head of the audit trail cannot be read".to_owned()))
}
