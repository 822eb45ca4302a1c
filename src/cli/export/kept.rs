//! Floor 5. What an export holds beside the records: conflicts and the bodies of deleted records.
//!
//! A value that lost against the centre's is nowhere else. `import` does not take these files: which value is right is for
//! people to decide, and what was deleted is deleted. They are there to be read.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use bson::{Bson, Document, doc};
use serde_json::Value;

use crate::central::{CONFLICTS_COLLECTION, TRASH_COLLECTION};
use crate::cli::archive::{create, kept_file};
use crate::cli::terminal::show::plain;
use crate::store::{Conflict, ConflictStatus, Store, stands_name, unless_damaged};

/// Rows of the trash whose numbers are read at once.
const TRASH_PAGE: usize = 500;

/// What was written beside the records.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) conflicts: u64,
    /// Those of them that wait for a decision.
    pub(super) open: u64,
    pub(super) trash: u64,
    /// Lines that read back are something else.
    pub(super) unfaithful: u64,
}

impl Kept {
    /// For people, if there is anything.
    pub(super) fn note(&self) -> Option<String> {
        let is_empty = (self.conflicts, self.trash) == (0, 0);
        (!is_empty).then(|| {
            format!(
                "note: {} conflicts, of which {} wait for a decision, and the bodies of {} deleted records are in {} and \
                 {}. `import` does not take them: decide what waits before the box is replaced (`thalamus-edge conflicts \
                 list`), or read it there",
                self.conflicts,
                self.open,
                self.trash,
                kept_file(CONFLICTS_COLLECTION),
                kept_file(TRASH_COLLECTION),
            )
        })
    }
}

/// Writes all conflicts and all bodies in the trash, oldest conflict first and newest body first. A file is made only if there
/// is something to be in it. Rows that are damaged are left out, and the store knows them then.
pub(super) fn write_kept(store: &Store, directory: &Path) -> anyhow::Result<Kept> {
    let mut kept = Kept::default();
    let mut conflicts = Lines::new(directory, CONFLICTS_COLLECTION);
    for id in store.read()?.conflict_ids(None)? {
        let Some(conflict) = unless_damaged(store.read()?.conflict(&id))?.flatten() else {
            continue;
        };
        kept.open += u64::from(conflict.status == ConflictStatus::Open);
        conflicts.write(exported(&conflict))?;
    }
    kept.unfaithful += conflicts.unfaithful;
    kept.conflicts = conflicts.end()?;
    let mut trash = Lines::new(directory, TRASH_COLLECTION);
    let mut before = None;
    loop {
        let page = store.read()?.trash_page(before, TRASH_PAGE, |_, _| true, |_| Ok(true))?;
        for row in &page.rows {
            let Some((row, body)) = unless_damaged(store.read()?.trashed(row.sequence))?.flatten() else {
                continue;
            };
            let collection = row.key.kind.schema().collection;
            trash.write(doc! {
                // As every other line of an export has one.
                "_id": format!("{collection}/{}/{}", row.key.id, row.sequence),
                "collection": collection,
                "id": row.key.id,
                "sequence": i64::try_from(row.sequence)?,
                "deleted_by": row.actor,
                "deleted_at": bson::DateTime::from_millis(row.at_ms),
                "state": row.state.name(),
                "document": body,
            })?;
        }
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    kept.unfaithful += trash.unfaithful;
    kept.trash = trash.end()?;
    Ok(kept)
}

/// A conflict with all of its values; fields that have no value are absent.
fn exported(conflict: &Conflict) -> Document {
    let mut row = doc! {
        "_id": &conflict.id,
        "type": conflict.subject.name(),
        "collection": conflict.key.kind.schema().collection,
        "id": &conflict.key.id,
        "path": conflict.path.clone(),
        "stands": stands_name(conflict.stands),
        "status": conflict.status.name(),
        "found_at": bson::DateTime::from_millis(conflict.found_at_ms),
    };
    let text = |text: &Option<String>| text.clone().map(Bson::String);
    let author = Some(conflict.author.clone()).filter(|author| !author.is_empty());
    let fields = [
        ("author", author.map(Bson::String)),
        ("base", conflict.base.clone()),
        ("local", conflict.local.clone()),
        ("central", conflict.central.clone()),
        ("resolution", text(&conflict.resolution)),
        ("value", conflict.value.clone()),
        ("resolved_by", text(&conflict.resolved_by)),
        ("resolved_at", conflict.resolved_at_ms.map(|at| bson::DateTime::from_millis(at).into())),
    ];
    row.extend(fields.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value?))));
    row
}

/// A file of one document a line, as canonical extended JSON.
struct Lines<'a> {
    directory: &'a Path,
    collection: &'static str,
    out: Option<BufWriter<File>>,
    count: u64,
    unfaithful: u64,
}

impl Lines<'_> {
    fn new<'a>(directory: &'a Path, collection: &'static str) -> Lines<'a> {
        Lines { directory, collection, out: None, count: 0, unfaithful: 0 }
    }

    fn write(&mut self, row: Document) -> anyhow::Result<()> {
        let out = match &mut self.out {
            Some(out) => out,
            none => none.insert(BufWriter::new(create(&self.directory.join(kept_file(self.collection)))?)),
        };
        let (written, id) = (row.to_vec()?, row.get("_id").or_else(|| row.get("id")).cloned());
        let line = Bson::Document(row).into_canonical_extjson().to_string();
        writeln!(out, "{line}")?;
        self.count += 1;
        // A value may have keys that mean a type in extended JSON.
        let read = serde_json::from_str(&line).ok().and_then(|value: Value| Bson::try_from(value).ok());
        let is_same =
            matches!(&read, Some(Bson::Document(row)) if row.to_vec().is_ok_and(|read| read == written));
        if !is_same {
            self.unfaithful += 1;
            let id = id.as_ref().and_then(Bson::as_str).unwrap_or_default();
            eprintln!(
                "{}: {}: extended JSON cannot tell it apart from something else",
                self.collection,
                plain(id)
            );
        }
        Ok(())
    }

    /// Returns how many lines were written.
    fn end(self) -> anyhow::Result<u64> {
        if let Some(out) = self.out {
            out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        }
        Ok(self.count)
    }
}
