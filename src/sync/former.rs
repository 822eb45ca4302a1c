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
use super::round::{Round, RoundError};
use crate::central::Central;
use crate::domain::merge::Side;
use crate::domain::record::{Kind, RecordKey};
use crate::store::{Published, StoreError, Subject, Tx, stands_name};

/// The names whose rows are to be taken over, and the id of the row that was looked at last.
const META_TAKE_OVER: &str = "conflicts_to_take_over";
const NODES: &str = "nodes";
const AFTER: &str = "after";
/// How many rows were left out because a row here was damaged.
const LEFT_OUT: &str = "left_out";
/// All rows were looked at; how many rows here were damaged then.
const DAMAGED: &str = "damaged";

/// The node goes on under another name: the rows of these former ones are to be taken over.
pub(super) fn begin(tx: &mut Tx<'_>, former: &[String]) -> Result<(), StoreError> {
    let mut names = tx.meta(META_TAKE_OVER)?.as_ref().map(names_in).unwrap_or_default();
    names.extend(former.iter().cloned());
    names.sort();
    names.dedup();
    tx.set_meta(META_TAKE_OVER, Some(&doc! {NODES: names}))
}

fn names_in(row: &Document) -> Vec<String> {
    let names = row.get_array(NODES).into_iter().flatten().filter_map(Bson::as_str);
    names.map(str::to_owned).collect()
}

impl Round<'_> {
    /// Takes the rows over, if there are any to be taken over and everything at the centre has been looked at.
    pub(super) async fn take_over_conflicts(&mut self, central: &mut dyn Central) -> Result<(), RoundError> {
        if self.sweep.is_some() || self.waiting_sweep.is_some() {
            return Ok(());
        }
        let mut is_begun = false;
        while let Some(mut todo) = self.store.read()?.meta(META_TAKE_OVER)? {
            let names = names_in(&todo);
            if let Ok(damaged) = todo.get_i64(DAMAGED) {
                // All were read, and some wait. They are read once more when a row was healed or set aside.
                if is_begun || self.damaged_count() >= damaged {
                    self.note_left_out(todo.get_i64(LEFT_OUT).unwrap_or_default());
                    return Ok(());
                }
                todo = doc! {NODES: names.clone()};
            }
            is_begun = true;
            let before = todo.get_i64(LEFT_OUT).unwrap_or_default();
            let found = central.waiting_conflicts(&names, todo.get_str(AFTER).ok()).await?;
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
                    let (mut taken, mut left_out) = (0, before);
                    for row in &found.rows {
                        let id = row.get_str("_id").unwrap_or_default();
                        // Its value may be nowhere but in the row: it is not passed over for good.
                        match tx.sparing_conflict(id, |tx| take_over(tx, row))? {
                            Some(is_new) => taken += u64::from(is_new),
                            None => left_out += 1,
                        }
                    }
                    let mut rest = doc! {NODES: names.clone(), LEFT_OUT: left_out};
                    match &found.next {
                        Some(after) => drop(rest.insert(AFTER, after)),
                        None => drop(rest.insert(DAMAGED, i64::MAX)),
                    }
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
                        let mut row = tx.meta(META_TAKE_OVER)?.unwrap_or_default();
                        row.insert(DAMAGED, damaged);
                        tx.set_meta(META_TAKE_OVER, Some(&row))
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
