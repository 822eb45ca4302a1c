//! Floor 3. Conflicts that were published under a former name of this node.
//!
//! An older image of the store does not know what was found after it was made. What lost then may stand in nothing but the
//! row of `edge_conflicts`, under a name that no node has any more. So the node that goes on from an image takes the rows
//! of its former names over that wait: they are conflicts of this node again. It does that once, after it has looked at
//! what the centre holds, in pieces, and goes on where it was.
//!
//! Questions about people and whole records are not in it: their rows are of no use without the records, and a node that
//! has those asks anew.

use bson::{Bson, Document, doc};

use super::conflict_rows::{CLIPPED, is_marker};
use super::conflicts::close_moot;
use super::kept_rows::or_anew;
use super::lease;
use super::round::{Round, RoundError};
use crate::central::Central;
use crate::domain::merge::Side;
use crate::domain::record::{Kind, RecordKey};
use crate::store::{Fields, Published, Snapshot, StoreError, Subject, Tx, stands_name};

/// The names whose rows are to be taken over, and the id of the row that was looked at last.
const META_TAKE_OVER: &str = "conflicts_to_take_over";
const NODES: &str = "nodes";
const AFTER: &str = "after";
/// How many rows were left out because a row here was damaged.
const LEFT_OUT: &str = "left_out";
/// All rows were looked at; how many rows here were damaged then.
const DAMAGED: &str = "damaged";

/// Rows to be taken over, and how far that has come.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct TakeOver {
    nodes: Vec<String>,
    after: Option<String>,
    left_out: i64,
    damaged: Option<i64>,
}

impl TakeOver {
    pub(super) fn decode(row: &[u8]) -> Result<TakeOver, StoreError> {
        let row = Fields::of(row, "the conflicts of a former name")?;
        Ok(TakeOver {
            nodes: row.texts(NODES)?,
            after: row.text_if_any(AFTER)?.map(str::to_owned),
            left_out: row.int64_if_any(LEFT_OUT)?.unwrap_or(0),
            damaged: row.int64_if_any(DAMAGED)?,
        })
    }

    /// From the beginning, under all names that the node has had, if the row cannot be read: what was taken over already
    /// is known then.
    fn in_row(
        row: Option<Vec<u8>>,
        former: impl FnOnce() -> Result<Vec<String>, StoreError>,
    ) -> Result<Option<TakeOver>, StoreError> {
        let Some(row) = row else {
            return Ok(None);
        };
        match or_anew(TakeOver::decode(&row).map(Some), || None)? {
            Some(known) => Ok(Some(known)),
            None => Ok(Some(TakeOver { nodes: former()?, ..TakeOver::default() })),
        }
    }

    pub(super) fn known(snapshot: &Snapshot) -> Result<Option<TakeOver>, StoreError> {
        TakeOver::in_row(snapshot.meta_row(META_TAKE_OVER)?, || lease::former(snapshot))
    }

    fn known_in(tx: &Tx<'_>) -> Result<Option<TakeOver>, StoreError> {
        TakeOver::in_row(tx.meta_row(META_TAKE_OVER)?, || lease::former_in(tx))
    }

    fn encode(&self) -> Document {
        let mut row = doc! {NODES: &self.nodes, LEFT_OUT: self.left_out};
        row.extend(self.after.clone().map(|after| (AFTER.to_owned(), after.into())));
        row.extend(self.damaged.map(|damaged| (DAMAGED.to_owned(), damaged.into())));
        row
    }
}

/// The node goes on under another name: the rows of these former ones are to be taken over.
pub(super) fn begin(tx: &mut Tx<'_>, former: &[String]) -> Result<(), StoreError> {
    let mut nodes = TakeOver::known_in(tx)?.map(|known| known.nodes).unwrap_or_default();
    nodes.extend(former.iter().cloned());
    nodes.sort();
    nodes.dedup();
    tx.set_meta(META_TAKE_OVER, Some(&TakeOver { nodes, ..TakeOver::default() }.encode()))
}

impl Round<'_> {
    /// Takes the rows over, if there are any to be taken over and everything at the centre has been looked at.
    pub(super) async fn take_over_conflicts(&mut self, central: &mut dyn Central) -> Result<(), RoundError> {
        if self.sweep.is_some() || self.waiting_sweep.is_some() {
            return Ok(());
        }
        let mut is_begun = false;
        while let Some(mut todo) = TakeOver::known(&*self.store.read()?)? {
            if let Some(damaged) = todo.damaged {
                // All were read, and some wait. They are read once more when a row was healed or set aside.
                if is_begun || self.damaged_count() >= damaged {
                    self.note_left_out(todo.left_out);
                    return Ok(());
                }
                todo = TakeOver { nodes: todo.nodes, ..TakeOver::default() };
            }
            is_begun = true;
            let found = central.waiting_conflicts(&todo.nodes, todo.after.as_deref()).await?;
            if !found.unreadable.is_empty() {
                let ids = found.unreadable.join(", ");
                tracing::warn!(%ids, "conflicts of a former name cannot be read");
                self.aside.push_str(&format!(
                    " Conflicts of a former name of this node cannot be read at the centre: edge_conflicts {ids}."
                ));
            }
            let (taken, is_waiting) = self
                .store
                .transact(move |tx| -> Result<(u64, bool), StoreError> {
                    let (mut taken, mut left_out) = (0, todo.left_out);
                    for row in &found.rows {
                        let id = row.get_str("_id").unwrap_or_default();
                        // Its value may be nowhere but in the row: it is not passed over for good.
                        match tx.sparing_conflict(id, |tx| take_over(tx, row))? {
                            Some(is_new) => taken += u64::from(is_new),
                            None => left_out += 1,
                        }
                    }
                    let mut rest = TakeOver { nodes: todo.nodes.clone(), left_out, ..TakeOver::default() };
                    match &found.next {
                        Some(after) => rest.after = Some(after.clone()),
                        None => rest.damaged = Some(i64::MAX),
                    }
                    let rest = rest.encode();
                    let is_over = found.next.is_none() && left_out == 0;
                    tx.set_meta(META_TAKE_OVER, Some(&rest).filter(|_| !is_over))?;
                    Ok((taken, found.next.is_none() && !is_over))
                })
                .await?;
            self.tally.conflicts += taken;
            if is_waiting {
                let damaged = self.damaged_count();
                self.store
                    .transact(move |tx| -> Result<(), StoreError> {
                        let mut waiting = TakeOver::known_in(tx)?.unwrap_or_default();
                        waiting.damaged = Some(damaged);
                        tx.set_meta(META_TAKE_OVER, Some(&waiting.encode()))
                    })
                    .await?;
            }
        }
        Ok(())
    }

    fn damaged_count(&self) -> i64 {
        i64::try_from(self.store.damaged_rows().len()).unwrap_or(i64::MAX)
    }

    fn note_left_out(&mut self, count: i64) {
        self.aside.push_str(&format!(
            " {count} of the conflicts of a former name of this node wait until damaged rows are healed or set aside."
        ));
    }
}

/// Returns whether it is a conflict of this node now that was not before.
fn take_over(tx: &mut Tx<'_>, row: &Document) -> Result<bool, StoreError> {
    let Some(published) = published(row) else {
        return Ok(false);
    };
    let Some(conflict) = tx.take_over(published)? else {
        return Ok(false);
    };
    // Unless somebody has decided: that is carried out, or answered.
    if !matches!(row.get("resolution"), None | Some(Bson::Null)) {
        return Ok(true);
    }
    if let Some(record) = tx.document(&conflict.key)? {
        close_moot(tx, &conflict.key, &record)?;
    }
    Ok(true)
}

/// The row of a conflict over a value, if it has all that is needed.
fn published(row: &Document) -> Option<Published> {
    let text = |field: &str| row.get_str(field).map(str::to_owned).ok();
    if text("type").is_some_and(|kind| kind != Subject::Value.name()) {
        return None;
    }
    let collection = text("collection")?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.schema().collection == collection)?;
    let path = row.get_array("path").ok()?.iter().map(|step| step.as_str().map(str::to_owned));
    let clipped: Vec<&str> = row.get_array(CLIPPED).into_iter().flatten().filter_map(Bson::as_str).collect();
    let is_clipped = |field: &str| clipped.contains(&field) && row.get(field).is_some_and(is_marker);
    Some(Published {
        id: text("_id")?,
        key: RecordKey::new(kind, text("id")?),
        path: path.collect::<Option<_>>()?,
        base: row.get("base").cloned(),
        local: row.get("local").cloned(),
        central: row.get("central").cloned(),
        stands: [Side::Local, Side::Remote]
            .into_iter()
            .find(|side| row.get_str("stands").is_ok_and(|stands| stands == stands_name(*side)))?,
        author: text("author").unwrap_or_default(),
        found_at_ms: row.get_datetime("found_at").ok()?.timestamp_millis(),
        owner: text("owner"),
        person: text("person"),
        fingerprint: text("fingerprint"),
        node: text("node")?,
        is_withheld: is_clipped("local") || is_clipped("central"),
    })
}
