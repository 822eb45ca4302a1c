//! Floor 1. Who made the two versions of a conflict, and when, as far as it is known.
//!
//! Here the journal tells. The centre keeps no history of its records: there, only what the program that wrote the record
//! put into it is known, and that is about the record as a whole.

use bson::{Bson, Document};

use super::StoreError;
use super::records::Tx;
use super::tables::*;
use crate::domain::access::Actor;
use crate::domain::record::RecordKey;

/// Changes that are searched for an edit, beginning with the last one: a first meeting with a centre may find thousands
/// of conflicts, and each of them searches.
const SEARCHED_CHANGES_MAX: usize = 256;
/// Longest name or time that is taken from a record of the centre, in characters.
const NAMED_CHARS_MAX: usize = 128;
/// The fields of a record in which programs say who wrote it last, and who made it.
const STAMPS: [&str; 2] = ["modification_info", "creation_info"];

/// An edit of this node.
#[derive(Debug, Default)]
pub(super) struct EditHere {
    /// Empty if it is not known.
    pub(super) author: String,
    pub(super) at_ms: Option<i64>,
}

/// The last write of the centre's version, as it says itself.
#[derive(Debug, Default)]
pub(super) struct EditThere {
    pub(super) author: Option<String>,
    pub(super) at: Option<String>,
}

impl Tx<'_> {
    /// The last unsent edit at a path of a record. If the journal does not have it among its last changes, the author of
    /// the record's last unsent edit, without the time.
    pub(super) fn edit_here(&self, key: &RecordKey, path: &[String]) -> Result<EditHere, StoreError> {
        let Some(first) = self.base_row(key)?.map(|row| row.sequence) else {
            return Ok(EditHere::default());
        };
        let path = path.join(".");
        let by_centre = Actor::Centre.to_string();
        let last = self.journal.range(first..)?.rev().take(SEARCHED_CHANGES_MAX);
        // The edit that made the record wait for the centre, which may be the only one.
        let oldest = self.journal.range(first..)?.take(2);
        for entry in last.chain(oldest) {
            let Ok((_, row)) = entry else { break };
            let row = Fields::of(row.value(), "a row of the journal")?;
            let actor = row.text("actor")?;
            if actor != by_centre
                && row.key()? == *key
                && row.texts("paths")?.iter().any(|edited| is_part(edited, &path))
            {
                return Ok(EditHere { author: actor.to_owned(), at_ms: Some(row.int64("at")?) });
            }
        }
        // What came from the centre nobody edited here.
        let author = Some(self.author_of(key)?).filter(|author| *author != by_centre);
        Ok(EditHere { author: author.unwrap_or_default(), at_ms: None })
    }

    /// Who wrote the centre's version, if that says so, and not the same as the version that was agreed on before: then it
    /// was written by a program that leaves no name.
    pub(super) fn edit_there(
        &self,
        key: &RecordKey,
        remote: Option<&Document>,
    ) -> Result<EditThere, StoreError> {
        let Some(remote) = remote else {
            return Ok(EditThere::default());
        };
        let base = self.base(key)?;
        let stamp = |field: &&str| {
            let stamp = remote.get_document(field).ok()?;
            let is_old =
                base.document().is_some_and(|base| base.get_document(field).is_ok_and(|old| old == stamp));
            (!is_old).then_some(stamp)
        };
        let Some(stamp) = STAMPS.iter().find_map(stamp) else {
            return Ok(EditThere::default());
        };
        let text = |field: &str| match stamp.get(field)? {
            Bson::String(text) if !text.trim().is_empty() => {
                Some(text.chars().take(NAMED_CHARS_MAX).collect::<String>())
            }
            Bson::DateTime(date) => date.try_to_rfc3339_string().ok(),
            _ => None,
        };
        let author = match (text("user"), text("node")) {
            (Some(user), Some(node)) => Some(format!("{user} at {node}")),
            (user, node) => user.or(node.map(|node| format!("somebody at {node}"))),
        };
        Ok(EditThere { author, at: text("timestamp") })
    }
}

/// Whether one of two dotted paths is a part of the other; the empty one is the whole record.
fn is_part(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    short.is_empty() || long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
