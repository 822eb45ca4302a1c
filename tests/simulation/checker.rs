//! The checker of the promises: every acknowledged edit stands, or was overwritten by somebody who saw it, or
//! lies where staff can find it; and no value comes from nowhere.
//!
//! Edits are noted in the order in which they were acknowledged, so whoever saw one came later. Only where a
//! write may be carried out twice (late ones, copies and old images of nodes, servers without history) may an
//! older edit stand over a newer one that brought back what the older one had seen: a repeat, not a loss.

use std::collections::{BTreeMap, BTreeSet};

use bson::{Bson, Document};
use thalamus_edge::domain::record::RecordKey;

use super::decisions::ADMINISTRATOR;

/// What a record holds: by dotted path, elements of sets by path and name. Sub-documents and sets without
/// anything in them do not count.
pub(crate) type Fields = BTreeMap<String, String>;

/// Fields that say who a record is about, or who wrote it last.
const UNTRACKED: [&str; 6] = ["_id", "name", "book", "person", "active", "modification_info"];
const SET_FIELD: &str = "roles";
/// An element that says nothing about who put it there.
const EVERYBODYS_ROLE: &str = "end_user";

/// The account to which a record belongs.
fn owner(key: &RecordKey, document: &Document) -> Option<String> {
    key.kind.schema().owner_of(document)
}

/// The tracked fields of a record.
pub(crate) fn fields(document: &Document) -> Fields {
    let mut found = Fields::new();
    for (key, value) in document.iter().filter(|(key, _)| !UNTRACKED.contains(&key.as_str())) {
        collect(key, value, &mut found);
    }
    found
}

/// The fields of what stands at a path.
pub(crate) fn fields_at(path: &str, value: &Bson) -> Fields {
    let mut found = Fields::new();
    match value {
        Bson::Document(document) if path.is_empty() => found = fields(document),
        _ if UNTRACKED.contains(&path.split('.').next().unwrap_or_default()) => {}
        _ => collect(path, value, &mut found),
    }
    found
}

fn collect(path: &str, value: &Bson, found: &mut Fields) {
    match value {
        Bson::Document(document) => {
            document.iter().for_each(|(key, value)| collect(&format!("{path}.{key}"), value, found));
        }
        Bson::Array(elements) if path == SET_FIELD => {
            let own = elements.iter().filter(|element| element.as_str() != Some(EVERYBODYS_ROLE));
            found.extend(own.map(|e| (format!("{path}[{e:?}]"), format!("{e:?}"))));
        }
        _ => drop(found.insert(path.to_owned(), format!("{value:?}"))),
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    Set(String),
    Unset(String),
    Create,
    Delete,
    /// The record goes on under another id.
    Move,
    /// The record is somebody else's from now on.
    Give,
}

/// One acknowledged change of one path.
#[derive(Debug, Clone)]
pub(crate) struct Edit {
    pub(crate) who: String,
    pub(crate) key: RecordKey,
    /// Empty for the record as a whole.
    pub(crate) path: String,
    pub(crate) act: Act,
    /// What the writer saw: everything for the record as a whole, else what was at the path.
    pub(crate) saw: Fields,
    /// Whose the record is afterwards.
    owner: Option<String>,
    /// Part of a record that nobody else had yet.
    is_new: bool,
    /// Brings back what the centre has, before anything else went there; or what it has if the write that is on
    /// its way does not land.
    is_withdrawal: bool,
    /// How many changes the centre had seen.
    pub(crate) at: usize,
}

impl Edit {
    /// A record that goes on under another id.
    pub(crate) fn moved(who: &str, key: &RecordKey, document: &Document, at: usize) -> Edit {
        Edit {
            who: who.to_owned(),
            key: key.clone(),
            path: String::new(),
            act: Act::Move,
            saw: fields(document),
            owner: owner(key, document),
            is_new: false,
            is_withdrawal: false,
            at,
        }
    }

    fn saw(&self, path: &str, value: &str) -> bool {
        self.saw.get(path).is_some_and(|saw| saw == value)
    }
}

/// A change of a record by somebody.
pub(crate) struct Change {
    pub(crate) key: RecordKey,
    pub(crate) before: Option<Document>,
    pub(crate) after: Option<Document>,
    /// Nobody else has the record yet.
    pub(crate) is_own: bool,
    /// What the centre may have as far as the writer's node knows: one thing, or two while a write is on its way.
    /// Empty if nothing is known.
    pub(crate) agreed: Vec<Document>,
    /// How many changes the centre had seen.
    pub(crate) at: usize,
}

impl Change {
    /// The edits that it consists of.
    pub(crate) fn edits(&self, who: &str) -> Vec<Edit> {
        let agreed: Vec<Fields> = self.agreed.iter().map(fields).collect();
        let (old, new) = (
            self.before.as_ref().map(fields).unwrap_or_default(),
            self.after.as_ref().map(fields).unwrap_or_default(),
        );
        let edit = |path: &str, act: Act, saw: Fields| Edit {
            who: who.to_owned(),
            key: self.key.clone(),
            path: path.to_owned(),
            is_withdrawal: !path.is_empty() && agreed.iter().any(|agreed| agreed.get(path) == new.get(path)),
            act,
            saw,
            owner: self
                .after
                .as_ref()
                .or(self.before.as_ref())
                .and_then(|document| owner(&self.key, document)),
            is_new: self.is_own || self.before.is_none(),
            at: self.at,
        };
        let mut found = Vec::new();
        match (&self.before, &self.after) {
            (Some(_), None) => return vec![edit("", Act::Delete, old)],
            (None, Some(_)) => found.push(edit("", Act::Create, Fields::new())),
            (Some(before), Some(after)) if owner(&self.key, before) != owner(&self.key, after) => {
                found.push(edit("", Act::Give, old.clone()));
            }
            _ => {}
        }
        let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for path in paths.into_iter().filter(|path| old.get(*path) != new.get(*path)) {
            let saw = old.get(path).map(|value| (path.clone(), value.clone())).into_iter().collect();
            let act = match (new.get(path), old.get(path)) {
                (Some(value), _) => Act::Set(value.clone()),
                (None, Some(value)) => Act::Unset(value.clone()),
                (None, None) => continue,
            };
            found.push(edit(path, act, saw));
        }
        found
    }
}

/// What a node's write made of one path at the centre.
#[derive(Debug)]
pub(crate) struct Transition {
    /// Its place in the centre's history.
    pub(crate) at: usize,
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
}

/// Transitions by record and path, in order.
pub(crate) type Transitions = BTreeMap<(RecordKey, String), Vec<Transition>>;

/// A conflict as it was recorded, here or at the centre.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) key: RecordKey,
    pub(crate) path: String,
    /// What lost.
    pub(crate) loser: Option<Bson>,
}

/// What staff can find of values that lost.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    conflicts: Vec<Recorded>,
    values: BTreeSet<(RecordKey, String, String)>,
    /// Records as they are where they wait for a decision.
    waiting: Vec<(RecordKey, Fields)>,
}

impl Traces {
    pub(crate) fn add_conflict(&mut self, conflict: Recorded) {
        if let Some(loser) = &conflict.loser {
            let found = fields_at(&conflict.path, loser);
            self.values.extend(found.into_iter().map(|(path, value)| (conflict.key.clone(), path, value)));
        }
        self.conflicts.push(conflict);
    }

    /// A record that waits for a decision.
    pub(crate) fn add_waiting(&mut self, key: &RecordKey, document: &Document) {
        self.add_body(key, document);
        self.waiting.push((key.clone(), fields(document)));
    }

    /// Whether somewhere a record waits without anything at this path.
    fn wait_without(&self, key: &RecordKey, path: &str) -> bool {
        self.waiting.iter().any(|(of, fields)| of == key && !fields.contains_key(path))
    }

    /// A body in the trash.
    pub(crate) fn add_body(&mut self, key: &RecordKey, document: &Document) {
        self.values.extend(fields(document).into_iter().map(|(path, value)| (key.clone(), path, value)));
    }

    /// Every value of which there is a trace.
    pub(crate) fn into_values(self) -> BTreeSet<(RecordKey, String, String)> {
        self.values
    }

    fn hold(&self, key: &RecordKey, path: &str, value: &str) -> bool {
        self.values.contains(&(key.clone(), path.to_owned(), value.to_owned()))
    }

    /// Whether there is a conflict about something that the path is a part of.
    pub(crate) fn dispute_above(&self, key: &RecordKey, path: &str) -> bool {
        self.conflicts.iter().any(|conflict| {
            conflict.key == *key
                && conflict.path != path
                && (conflict.path.is_empty() || is_within(path, &conflict.path))
        })
    }

    /// Whether there is a conflict about the path, what is below it or what it is part of.
    fn dispute(&self, key: &RecordKey, path: &str) -> bool {
        self.conflicts.iter().any(|conflict| {
            conflict.key == *key
                && (conflict.path.is_empty()
                    || is_within(path, &conflict.path)
                    || is_within(&conflict.path, path))
        })
    }
}

fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// What the checker goes by.
pub(crate) struct Case<'a> {
    pub(crate) edits: &'a [Edit],
    /// What may stand although nobody was told that it was taken.
    pub(crate) unacknowledged: &'a [Edit],
    /// Edits that are allowed to be gone: they were on a disk that is no more, and nowhere else.
    pub(crate) forgiven: &'a BTreeSet<usize>,
    /// What everybody holds in the end.
    pub(crate) last: &'a BTreeMap<RecordKey, Document>,
    pub(crate) traces: &'a Traces,
    pub(crate) transitions: &'a Transitions,
    /// Whether a write may have been carried out twice.
    pub(crate) repeats: bool,
}

/// What is wrong, and how many edits stand only because repeats are allowed.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) complaints: Vec<String>,
    pub(crate) repeats: usize,
}

impl Case<'_> {
    pub(crate) fn judge(&self) -> Verdict {
        let last: BTreeMap<&RecordKey, Fields> =
            self.last.iter().map(|(key, document)| (key, fields(document))).collect();
        let mut verdict = Verdict::default();
        for (index, edit) in self.edits.iter().enumerate() {
            if self.forgiven.contains(&index) {
                continue;
            }
            let visible = last.get(&edit.key);
            // Who takes an edit back before anybody has it has not edited: whoever changes what was there before
            // need not have seen that.
            let in_order = !edit.is_withdrawal;
            if self.is_kept(index, edit, visible, in_order) || self.was_replaced(edit) {
                continue;
            }
            if self.repeats && self.is_kept(index, edit, visible, false) {
                verdict.repeats += 1;
                continue;
            }
            verdict.complaints.push(format!("edit {index} left no trace: {edit:?}; now {visible:?}"));
        }
        for (key, fields) in &last {
            verdict.complaints.extend(self.out_of_nowhere("the centre", key, fields));
        }
        for (key, document) in self.last {
            verdict.complaints.extend(self.misplaced("the centre", key, document));
        }
        verdict
    }

    /// Whether what the edit left at the centre was replaced there, later and by comparing, with what somebody made
    /// of just that, in one edit or in several. Those may be older and may have seen the same value at another
    /// time: values do not tell how often they came back.
    fn was_replaced(&self, edit: &Edit) -> bool {
        let left = match &edit.act {
            Act::Set(value) => Some(value),
            Act::Unset(_) => None,
            Act::Create | Act::Delete | Act::Move | Act::Give => return false,
        };
        let at_place = || {
            let edits = self.edits.iter().enumerate();
            // A record that is deleted and made again leaves the path empty.
            let is_here = |other: &Edit| other.path == edit.path || other.act == Act::Delete;
            edits.filter(move |(_, other)| other.key == edit.key && is_here(other))
        };
        let made_of_it = |transition: &Transition| {
            at_place().any(|(last, other)| {
                let first = at_place().take_while(|(first, _)| *first <= last);
                let mut first =
                    first.filter(|(first, of)| *first == last || (left.is_some() && of.who == other.who));
                first.any(|(_, first)| first.saw.get(&edit.path) == left)
                    && match &other.act {
                        Act::Set(value) => transition.to.as_ref() == Some(value),
                        Act::Unset(_) | Act::Delete => transition.to.is_none(),
                        Act::Create | Act::Move | Act::Give => false,
                    }
            })
        };
        let place = (edit.key.clone(), edit.path.clone());
        let transitions = self.transitions.get(&place).map_or(&[][..], Vec::as_slice);
        // Others write null as well, and what came to be the same by chance counts as theirs.
        let is_anybodys = left.is_some_and(|value| value == "Null");
        let later = transitions.iter().filter(|transition| is_anybodys || transition.at >= edit.at);
        later.filter(|transition| transition.from.as_ref() == left).any(made_of_it)
    }

    /// Values that nobody wrote.
    pub(crate) fn out_of_nowhere(&self, place: &str, key: &RecordKey, fields: &Fields) -> Vec<String> {
        let all = || self.edits.iter().chain(self.unacknowledged);
        let wrote = |path: &String, value: &String| {
            all().any(|edit| edit.key == *key && edit.path == *path && edit.act == Act::Set(value.clone()))
        };
        let made_up = fields.iter().filter(|(path, value)| !wrote(path, value));
        made_up.map(|(path, value)| format!("{place}, {key} {path}: nobody wrote {value}")).collect()
    }

    /// Values in a record of somebody for whom nobody wrote them: they were written for another person, and nobody
    /// who saw them gave the record to this one.
    pub(crate) fn misplaced(&self, place: &str, key: &RecordKey, document: &Document) -> Vec<String> {
        let Some(owner) = owner(key, document) else {
            return Vec::new();
        };
        let all = || self.edits.iter().chain(self.unacknowledged).filter(|edit| edit.key == *key);
        let belongs = |path: &String, value: &String| {
            all().any(|edit| {
                (edit.owner.as_ref() == Some(&owner) || edit.who == ADMINISTRATOR)
                    && match &edit.act {
                        Act::Set(written) => edit.path == *path && written == value,
                        Act::Give | Act::Move => edit.saw(path, value),
                        _ => false,
                    }
            })
        };
        let fields = fields(document);
        let astray = fields.iter().filter(|(path, value)| !belongs(path, value));
        astray
            .map(|(path, value)| format!("{place}, {key} {path}: {value} is in a record of {owner}"))
            .collect()
    }

    /// Whether the edit stands, was overwritten by one that saw it, or is recorded. `in_order`: whoever saw it
    /// came after it.
    fn is_kept(&self, index: usize, edit: &Edit, visible: Option<&Fields>, in_order: bool) -> bool {
        // What the federation's administrator decides is carried out whenever a node asks next.
        let others = || {
            let others = self.edits.iter().enumerate().filter(|(_, other)| other.key == edit.key);
            let later = others.filter(|(at, other)| !in_order || *at > index || other.who == ADMINISTRATOR);
            later.map(|(_, other)| other)
        };
        let shown = visible.and_then(|fields| fields.get(&edit.path));
        match &edit.act {
            Act::Set(value) => {
                shown == Some(value)
                    || others().any(|other| other.saw(&edit.path, value))
                    || self.traces.hold(&edit.key, &edit.path, value)
            }
            Act::Unset(old) => {
                // By somebody who saw that there is nothing.
                let set_again = |other: &Edit| {
                    matches!(other.act, Act::Set(_)) && other.path == edit.path && other.saw.is_empty()
                };
                // Records that were made in two places are one with the fields of both.
                let made_elsewhere = |other: &Edit| {
                    other.is_new
                        && set_again(other)
                        && other.key == edit.key
                        && other.act != Act::Set(old.clone())
                };
                let moved_without = |other: &Edit| {
                    other.act == Act::Move && other.who == edit.who && !other.saw.contains_key(&edit.path)
                };
                shown.is_none()
                    || others().any(set_again)
                    || others().any(moved_without)
                    || (shown != Some(old) && self.edits.iter().any(made_elsewhere))
                    || self.traces.dispute(&edit.key, &edit.path)
                    || self.traces.wait_without(&edit.key, &edit.path)
            }
            Act::Delete => {
                let came_back = |path: &String, value: &String| {
                    let wrote = |other: &&Edit| {
                        other.key == edit.key && other.path == *path && other.act == Act::Set(value.clone())
                    };
                    let is_later = others().any(|other| wrote(&other) && (in_order || other.saw.is_empty()));
                    // Or by somebody else all along.
                    is_later || self.edits.iter().filter(wrote).count() > 1
                };
                let is_left = |fields: &Fields| {
                    let mut seen = fields.iter().filter(|(path, value)| edit.saw(path, value));
                    seen.any(|(path, value)| !came_back(path, value) && !self.traces.dispute(&edit.key, path))
                };
                !visible.is_some_and(is_left)
            }
            // The values that it wrote are edits of their own.
            Act::Create | Act::Move | Act::Give => true,
        }
    }
}
