//! Floor 3. Writes that fail together are sent apart, and one that fails alone again and again is refused: no record
//! holds up another one for ever.
//!
//! An error of a whole call says nothing of whose fault it is. A write that changes nothing, sent in the same way, tells: if
//! the centre takes it, the call failed over what was in it, and halves are sent, and halves of what fails again. What
//! then fails alone is the record's own fault, counted by [`patient`]. If the centre does not take it, it takes no writes
//! of that kind now, or none at all, and nothing is counted. Nor is it where the node is not allowed to write: other kinds
//! are tried.

use std::collections::{BTreeSet, VecDeque};

use bson::{Bson, Document, doc};

use super::kept_rows::or_anew;
use crate::central::{Central, CentralError, NOBODY, Result, Write, Written};
use crate::domain::diff::Change;
use crate::domain::record::{Kind, RecordKey};
use crate::store::{Fields, NOT_ARCHIVED_CODE, StoreError, Tx};

/// How many rounds in a row the centre may answer one record with the same error before it is refused, whatever the error;
/// and with errors that are not the same.
const FAULTS_MAX: i64 = 3;
const VARIED_FAULTS_MAX: i64 = 6;
/// So many records of a call that fail alone, and none that does not: the others of that call wait for the next round.
pub(super) const ALONE_FAILED_MAX: usize = 32;
/// Code of a failure for which the centre gave none.
const CALL_CODE: i32 = 0;
const META_FAULTS: &str = "faults";
/// Field of a record's faults: how many in a row, whatever their codes.
const ALL: &str = "all";
/// Records whose faults are counted; more at a time are not the records' fault.
const FAULTS_COUNTED_MAX: usize = 1_000;

/// What became of writes.
pub(super) struct Sent {
    /// One answer for each, in their order.
    pub(super) written: Vec<Written>,
    /// They could not be sent together: how long it took says nothing about the line.
    pub(super) is_apart: bool,
    /// Why some of them were not sent, or are not counted, if it is no fault of theirs.
    pub(super) failure: Option<CentralError>,
    /// The first error of one that failed alone, whose own fault it is.
    pub(super) alone: Option<CentralError>,
}

/// Sends writes together, and apart if that fails for any reason but the line. Fails if the centre takes no writes at all.
pub(super) async fn write(central: &mut dyn Central, writes: &[Write]) -> Result<Sent> {
    let failure = match central.write(writes).await {
        Ok(written) => return Ok(Sent { written, is_apart: false, failure: None, alone: None }),
        Err(failure) if failure.is_about_call() => failure,
        Err(failure) => return Err(failure),
    };
    let written = vec![Written::Unknown; writes.len()];
    let mut sent = Sent { written, is_apart: true, failure: None, alone: None };
    // Who is not allowed to write is not asked again.
    if matches!(failure, CentralError::Refused(_)) {
        sent.failure = Some(failure);
        return Ok(sent);
    }
    let open = if failure.is_answer() { open_kinds(central, writes).await? } else { BTreeSet::new() };
    if open.is_empty() && (failure.is_answer() || writes.len() == 1) {
        return Err(failure);
    }
    tracing::warn!(%failure, writes = writes.len(), "writes failed together and are sent apart");
    let is_open = |at: &usize| writes.get(*at).is_some_and(|write| open.contains(&write.key().kind));
    let of_open: Vec<usize> = (0..writes.len()).filter(|at| open.is_empty() || is_open(at)).collect();
    if of_open.len() < writes.len() {
        sent.failure = Some(failure.clone());
    }
    let mut left = VecDeque::from(match of_open.len() {
        1 if writes.len() == 1 => {
            sent.note_alone(0, &failure);
            Vec::new()
        }
        all if all == writes.len() => halves(&of_open),
        _ => vec![of_open],
    });
    let (mut failed_alone, mut is_any_answered, mut is_newest_next) = (0, false, true);
    // From both ends by turns: a great many that fail hide neither what came before them nor what came after.
    while let Some(part) = if is_newest_next { left.pop_back() } else { left.pop_front() } {
        let is_newest = is_newest_next;
        is_newest_next = !is_newest;
        let together: Vec<Write> = part.iter().filter_map(|at| writes.get(*at)).cloned().collect();
        match (central.write(&together).await, part.as_slice()) {
            (Ok(written), _) => {
                is_any_answered = true;
                for (at, written) in part.iter().zip(written) {
                    if let Some(answer) = sent.written.get_mut(*at) {
                        // It may have missed because it landed the first time: what the centre holds decides later.
                        *answer = if written == Written::Miss { Written::Unknown } else { written };
                    }
                }
            }
            (Err(failure), [at]) if failure.is_about_call() => {
                sent.note_alone(*at, &failure);
                failed_alone += 1;
                if failed_alone == ALONE_FAILED_MAX && !is_any_answered {
                    sent.failure.get_or_insert(failure);
                    break;
                }
            }
            (Err(failure), _) if failure.is_about_call() => {
                if is_newest {
                    left.extend(halves(&part));
                } else {
                    halves(&part).into_iter().rev().for_each(|half| left.push_front(half));
                }
            }
            (Err(failure), _) => return Err(failure),
        }
    }
    // Without a code nothing but another record tells that it is not the centre.
    if open.is_empty() && !is_any_answered { Err(failure) } else { Ok(sent) }
}

fn halves(part: &[usize]) -> Vec<Vec<usize>> {
    let (first, second) = part.split_at(part.len() / 2);
    [first, second].into_iter().filter(|half| !half.is_empty()).map(<[usize]>::to_vec).collect()
}

impl Sent {
    /// A write failed alone of a kind that the centre takes: it is its own fault, unless the centre refuses this node.
    fn note_alone(&mut self, at: usize, failure: &CentralError) {
        if matches!(failure, CentralError::Refused(_)) {
            self.failure.get_or_insert_with(|| failure.clone());
        } else if let Some(answer) = self.written.get_mut(at) {
            *answer = Written::Faulty { code: failure.code().unwrap_or(CALL_CODE) };
            self.alone.get_or_insert_with(|| failure.clone());
        }
    }
}

/// The kinds of which the centre takes writes, of those among `writes`. If it takes none of these, another one is asked
/// about, because a collection alone may be closed for this node. Empty if the centre takes no writes.
async fn open_kinds(central: &mut dyn Central, writes: &[Write]) -> Result<BTreeSet<Kind>> {
    let kinds: BTreeSet<Kind> = writes.iter().map(|write| write.key().kind).collect();
    let mut open = BTreeSet::new();
    for kind in kinds.iter().copied() {
        if takes_writes(central, kind).await? {
            open.insert(kind);
        }
    }
    if open.is_empty()
        && let Some(other) = Kind::ALL.into_iter().find(|kind| !kinds.contains(kind))
        && takes_writes(central, other).await?
    {
        open.insert(other);
    }
    Ok(open)
}

async fn takes_writes(central: &mut dyn Central, kind: Kind) -> Result<bool> {
    match central.write(&[nothing(kind)]).await {
        Ok(answers) => Ok(answers == [Written::Miss]),
        Err(failure) if failure.is_about_call() => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// A write that is sent like any other, and changes nothing.
fn nothing(kind: Kind) -> Write {
    let name = Some(Bson::from(NOBODY));
    let change = Change { path: vec!["name".to_owned()], from: name.clone(), to: name };
    Write::Update { key: RecordKey::new(kind, NOBODY), changes: vec![change] }
}

/// The answer to a write with what is remembered of earlier ones: one fault too many in a row is a refusal.
pub(super) fn patient(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    written: &Written,
) -> std::result::Result<Written, StoreError> {
    let name = format!("{}:{}", key.kind.schema().collection, key.id);
    let Written::Faulty { code } = written else {
        // Anything but silence says that it was no lasting fault.
        if *written != Written::Unknown {
            forget(tx, &name)?;
        }
        return Ok(written.clone());
    };
    Ok(match count(tx, &name, *code)? {
        None => written.clone(),
        Some(message) => Written::Refused { code: *code, message },
    })
}

/// What was answered about one name lately.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counted {
    code: i32,
    /// In a row with this code.
    times: i64,
    /// In a row with any.
    all: i64,
}

impl Counted {
    fn read(row: Fields<'_>) -> std::result::Result<Counted, StoreError> {
        let times = row.int64("times")?;
        // Earlier versions counted the same error only.
        let all = row.int64_if_any(ALL)?.unwrap_or(times);
        Ok(Counted { code: row.int32("code")?, times, all })
    }

    pub(super) fn decode(row: &[u8]) -> std::result::Result<Counted, StoreError> {
        Counted::read(Fields::of(row, "the count of a fault")?)
    }

    fn encode(self) -> Document {
        doc! {"code": self.code, "times": self.times, ALL: self.all}
    }
}

/// All that is counted, by name. What cannot be read is counted anew: the record is tried some rounds longer.
fn counted(tx: &Tx<'_>) -> std::result::Result<Document, StoreError> {
    let row = tx.meta(META_FAULTS).map(Option::unwrap_or_default);
    or_anew(row, Document::new)
}

fn forget(tx: &mut Tx<'_>, name: &str) -> std::result::Result<(), StoreError> {
    let mut faults = counted(tx)?;
    match faults.remove(name) {
        Some(_) => tx.set_meta(META_FAULTS, (!faults.is_empty()).then_some(&faults)),
        None => Ok(()),
    }
}

fn in_row(row: &Bson) -> std::result::Result<Counted, StoreError> {
    let Bson::Document(row) = row else {
        return Err(StoreError::Damaged("the count of a fault is no document".to_owned()));
    };
    let row = row.to_vec().map_err(|_| StoreError::Damaged("the count of a fault".to_owned()))?;
    Counted::decode(&row)
}

/// Counts an error about `name`. Once it was one too many in a row, returns what to say, and forgets it.
pub(super) fn count(
    tx: &mut Tx<'_>,
    name: &str,
    code: i32,
) -> std::result::Result<Option<String>, StoreError> {
    let mut faults = counted(tx)?;
    let known = match faults.get(name) {
        Some(row) => or_anew(in_row(row), Counted::default)?,
        None => Counted::default(),
    };
    let times = 1 + if known.code == code { known.times } else { 0 };
    let all = 1 + known.all.max(known.times);
    if times < FAULTS_MAX && all < VARIED_FAULTS_MAX {
        if faults.len() < FAULTS_COUNTED_MAX || faults.contains_key(name) {
            faults.insert(name, Counted { code, times, all }.encode());
            tx.set_meta(META_FAULTS, Some(&faults))?;
        }
        return Ok(None);
    }
    forget(tx, name)?;
    Ok(Some(match code {
        NOT_ARCHIVED_CODE => {
            "the centre does not take its body into the trash, so it was not deleted there".to_owned()
        }
        CALL_CODE => format!("the centre failed {all} times at this record and took others"),
        code if times == FAULTS_MAX => format!("the centre answered {times} times with error {code}"),
        code => format!("the centre answered {all} times with errors, the last time with {code}"),
    }))
}
