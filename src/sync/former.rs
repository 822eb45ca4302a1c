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
use crate::store::{Published, StoreError, Subject, Tx, stands_name, unless_damaged};

/// The names whose rows are to be taken over, and the id of the row that was looked at last.
const META_TAKE_OVER: &str = "conflicts_to_take_over";
const NODES: &str = "nodes";
const AFTER: &str = "after";

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
        while let Some(todo) = self.store.read()?.meta(META_TAKE_OVER)? {
            let names = names_in(&todo);
            let found = central.waiting_conflicts(&names, todo.get_str(AFTER).ok()).await?;
            let taken = self
                .store
                .transact(move |tx| -> Result<u64, StoreError> {
                    let mut taken = 0;
                    for row in &found.rows {
                        taken += u64::from(unless_damaged(take_over(tx, row))?.unwrap_or(false));
                    }
                    let rest = found.next.as_ref().map(|after| doc! {NODES: names.clone(), AFTER: after});
                    tx.set_meta(META_TAKE_OVER, rest.as_ref())?;
                    Ok(taken)
                })
                .await?;
            self.tally.conflicts += taken;
        }
        Ok(())
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
