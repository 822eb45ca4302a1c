//! A checker of promises: no acknowledged edit disappears without a trace, and no value comes from nowhere.
//!
//! Every edit writes a value that nobody else writes. At the end it must be visible, or have been
//! overwritten by somebody who saw it, or lie in a conflict, in the trash or among the refused.

use std::collections::{BTreeMap, BTreeSet};

/// Dotted path of a field; empty for the record as a whole.
pub(crate) type Path = String;
/// The tagged values of a record by path.
pub(crate) type Fields = BTreeMap<Path, String>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    Set(String),
    /// Took away what was there.
    Unset(String),
    Create,
    Delete,
}

/// An edit that was acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Edit {
    pub(crate) who: String,
    pub(crate) record: String,
    pub(crate) path: Path,
    pub(crate) act: Act,
    /// What the writer saw in the places that the edit overwrote.
    pub(crate) saw: Fields,
}

/// What staff can find of values that lost.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    /// Text of every conflict, archived or discarded body and refused record, by record.
    pub(crate) texts: Vec<(String, String)>,
    /// Paths of conflicts, by record.
    pub(crate) conflicts: BTreeSet<(String, Path)>,
}

impl Traces {
    fn hold(&self, record: &str, value: &str) -> bool {
        self.texts.iter().any(|(of, text)| of == record && text.contains(value))
    }

    /// Whether there is a conflict about the path, what is below it or what it is part of.
    fn dispute(&self, record: &str, path: &str) -> bool {
        self.conflicts.iter().any(|(of, disputed)| {
            of == record && (disputed.is_empty() || is_within(path, disputed) || is_within(disputed, path))
        })
    }
}

fn is_within(path: &str, outer: &str) -> bool {
    path == outer || path.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'))
}

/// Complaints about edits that left no trace and values that nobody wrote.
pub(crate) fn complaints(edits: &[Edit], last: &BTreeMap<String, Fields>, traces: &Traces) -> Vec<String> {
    let mut complaints = Vec::new();
    for (index, edit) in edits.iter().enumerate() {
        let others =
            || edits.iter().enumerate().filter(|(at, other)| *at != index && other.record == edit.record);
        let visible = last.get(&edit.record);
        let shown = visible.and_then(|fields| fields.get(&edit.path));
        let is_kept = match &edit.act {
            Act::Set(value) => {
                let was_seen = || others().any(|(_, other)| other.saw.get(&edit.path) == Some(value));
                shown == Some(value) || was_seen() || traces.hold(&edit.record, value)
            }
            Act::Unset(old) => {
                let set_again = |other: &Edit| other.path == edit.path && other.act == Act::Set(old.clone());
                shown != Some(old)
                    || others().any(|(at, other)| at > index && set_again(other))
                    || traces.dispute(&edit.record, &edit.path)
            }
            Act::Delete => {
                let created = |at: usize, other: &Edit| {
                    other.act == Act::Create && (at > index || other.who != edit.who)
                };
                visible.is_none()
                    || others().any(|(at, other)| created(at, other))
                    || traces.conflicts.contains(&(edit.record.clone(), Path::new()))
            }
            // The values that it wrote are edits of their own.
            Act::Create => true,
        };
        if !is_kept {
            complaints.push(format!("edit {index} left no trace: {edit:?}; now {visible:?}"));
        }
    }
    for (record, fields) in last {
        for (path, value) in fields {
            let wrote = |edit: &Edit| {
                edit.record == *record && edit.path == *path && edit.act == Act::Set(value.clone())
            };
            if !edits.iter().any(wrote) {
                complaints.push(format!("{record} {path}: nobody wrote {value:?}"));
            }
        }
    }
    complaints
}
