//! Floor 0. What is stored in a field, by key path, and which stored row each row of a client's list was.
//!
//! Clients send a list as a whole, with rows put in front, taken out and moved. A place in it is no identity, so types
//! are looked up by key path with the places left out: `v.0.w` and `v.7.w` are one column.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use bson::Bson;
use serde_json::Value;

use super::adopt::is_shown_as;
use super::{DateFormat, show_value};
use crate::domain::dates::days::is_day;
use crate::domain::dates::former_dates::is_mark_of_moments;
use crate::domain::dates::parse_date;

/// The values that a field holds under one key path.
#[derive(Default)]
pub(super) struct Column<'s> {
    has_dates: bool,
    /// A date that is no day.
    has_moments: bool,
    pub(super) has_lists: bool,
    /// Something that is neither a date nor null nor a list.
    has_others: bool,
    texts: HashSet<&'s str>,
    /// The values whose type JSON does not tell, by the fingerprint of what is shown of them.
    shown: HashMap<u64, &'s Bson>,
    /// The dates by their milliseconds since 1970.
    moments: HashMap<i64, &'s Bson>,
    keys: HashMap<&'s str, Column<'s>>,
}

impl<'s> Column<'s> {
    pub(super) fn of(stored: &'s Bson) -> Self {
        let mut column = Column::default();
        column.add(stored);
        column
    }

    /// Another version of the field, of which only the types count.
    pub(super) fn add_types(&mut self, value: &'s Bson) {
        match value {
            Bson::Null => {}
            Bson::DateTime(date) => {
                self.has_dates = true;
                self.has_moments |= !is_day(*date) || is_mark_of_moments(*date);
            }
            Bson::Array(values) => {
                self.has_lists = true;
                values.iter().for_each(|value| self.add_types(value));
            }
            other => {
                self.has_others = true;
                for (key, value) in other.as_document().into_iter().flatten() {
                    self.keys.entry(key).or_default().add_types(value);
                }
            }
        }
    }

    fn add(&mut self, value: &'s Bson) {
        match value {
            Bson::Array(values) => {
                self.has_lists = true;
                values.iter().for_each(|value| self.add(value));
                return;
            }
            Bson::Null => return,
            Bson::DateTime(date) => {
                self.has_dates = true;
                self.has_moments |= !is_day(*date);
                self.moments.entry(date.timestamp_millis()).or_insert(value);
                let rfc3339 = fingerprint(&show_value(value, DateFormat::Rfc3339));
                self.shown.entry(rfc3339).or_insert(value);
            }
            other => {
                self.has_others = true;
                match other {
                    Bson::Document(document) => {
                        for (key, value) in document {
                            self.keys.entry(key).or_default().add(value);
                        }
                        return;
                    }
                    Bson::String(text) => {
                        self.texts.insert(text);
                        return;
                    }
                    Bson::Boolean(_) | Bson::Int32(_) => return,
                    _ => {}
                }
            }
        }
        self.shown.entry(fingerprint(&show_value(value, DateFormat::Http))).or_insert(value);
    }

    /// What is stored under a key of the documents of this column; `None` if no document has it.
    pub(super) fn under(&self, key: &str) -> Option<&Column<'s>> {
        self.keys.get(key)
    }

    /// Whether dates, and nothing else, are stored here.
    pub(super) fn is_of_dates(&self) -> bool {
        self.has_dates && !self.has_others
    }

    /// Whether all dates that are stored here may be days.
    pub(super) fn is_of_days(&self) -> bool {
        self.has_dates && !self.has_moments
    }

    /// The stored value that the client was shown as this one, wherever it has moved; and the date that is written here
    /// in another form.
    pub(super) fn moved(&self, value: &Value) -> Option<&'s Bson> {
        let may_be_one = match value {
            Value::Object(map) => map.keys().any(|key| key.starts_with('$')),
            Value::String(_) | Value::Number(_) => true,
            Value::Null | Value::Bool(_) | Value::Array(_) => false,
        };
        if !may_be_one || (self.shown.is_empty() && self.moments.is_empty()) {
            return None;
        }
        let shown = self.shown.get(&fingerprint(value)).copied().filter(|old| is_shown_as(old, value));
        shown.or_else(|| {
            let text = value.as_str().filter(|text| self.has_dates && !self.texts.contains(text))?;
            self.moments.get(&parse_date(text)?.timestamp_millis()).copied()
        })
    }
}

/// The stored row that a row of a list was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Was {
    /// Exactly this one: it is as it was shown, or it is the only row of the list that is not.
    Row(usize),
    /// Most likely this one: it has members in common.
    Perhaps(usize),
    /// This one stood at the place.
    AtPlace(usize),
    /// None that can be told.
    Unknown,
}

/// Votes are counted for values that at most so many rows share, so that a long list takes time in proportion.
const SHARING_ROWS_MAX: usize = 16;

/// Finds the stored row of each row: first the rows at both ends that are as they were, then those that moved, then by
/// the values that documents have in common, then by the place.
pub(super) fn rows_before(values: &[Value], stored: &[Bson]) -> Vec<Was> {
    let is_as_shown = |(value, old): &(&Value, &Bson)| is_shown_as(old, value);
    let head = values.iter().zip(stored).take_while(is_as_shown).count();
    let tail_max = values.len().min(stored.len()) - head;
    let tail = values.iter().rev().zip(stored.iter().rev()).take(tail_max).take_while(is_as_shown).count();
    let (values_end, stored_end) = (values.len() - tail, stored.len() - tail);
    let mut before = vec![Was::Unknown; values.len()];
    for (index, was) in before.iter_mut().enumerate() {
        if index < head {
            *was = Was::Row(index);
        } else if index >= values_end {
            *was = Was::Row(index - values_end + stored_end);
        }
    }
    if values_end - head == 1
        && stored_end - head == 1
        && let Some(was) = before.get_mut(head)
    {
        *was = Was::Row(head);
        return before;
    }
    let mut free: HashSet<usize> = (head..stored_end).collect();
    if free.is_empty() || head == values_end {
        return before;
    }
    let mut set = |free: &mut HashSet<usize>, index: usize, was: Was| {
        if let (Was::Row(row) | Was::Perhaps(row) | Was::AtPlace(row), Some(place)) =
            (was, before.get_mut(index))
        {
            free.remove(&row);
            *place = was;
        }
    };
    let changed = |from: usize, to: usize| values.iter().enumerate().take(to).skip(from);
    let mut moved = by_fingerprint(stored, head, stored_end);
    let mut edited = Vec::new();
    for (index, value) in changed(head, values_end) {
        let rows = moved.get_mut(&fingerprint(value));
        let row =
            rows.and_then(|rows| std::iter::from_fn(|| rows.pop_front()).find(|row| free.contains(row)));
        match row.filter(|row| stored.get(*row).is_some_and(|old| is_shown_as(old, value))) {
            Some(row) => set(&mut free, index, Was::Row(row)),
            None => edited.push((index, value)),
        }
    }
    let sharing = by_member(stored, &free);
    edited.retain(|(index, value)| {
        let most = most_alike(value, &sharing, &free);
        most.inspect(|row| set(&mut free, *index, Was::Perhaps(*row))).is_none()
    });
    for (index, _) in edited {
        if free.contains(&index) {
            set(&mut free, index, Was::AtPlace(index));
        }
    }
    before
}

/// The rows by what is shown of them.
fn by_fingerprint(stored: &[Bson], from: usize, to: usize) -> HashMap<u64, VecDeque<usize>> {
    let mut found: HashMap<u64, VecDeque<usize>> = HashMap::new();
    for (row, old) in stored.iter().enumerate().take(to).skip(from) {
        for dates in [DateFormat::Http, DateFormat::Rfc3339] {
            let rows = found.entry(fingerprint(&show_value(old, dates))).or_default();
            if rows.back() != Some(&row) {
                rows.push_back(row);
            }
        }
    }
    found
}

/// The documents among the rows by what is shown of their members.
fn by_member(stored: &[Bson], rows: &HashSet<usize>) -> HashMap<u64, Vec<usize>> {
    let mut found: HashMap<u64, Vec<usize>> = HashMap::new();
    for (row, old) in stored.iter().enumerate().filter(|(row, _)| rows.contains(row)) {
        for (key, member) in old.as_document().into_iter().flatten() {
            for dates in [DateFormat::Http, DateFormat::Rfc3339] {
                let rows = found.entry(fingerprint_of_member(key, &show_value(member, dates))).or_default();
                if rows.last() != Some(&row) {
                    rows.push(row);
                }
            }
        }
    }
    found
}

/// The free row that has the most members of a document, the first of several.
fn most_alike(value: &Value, sharing: &HashMap<u64, Vec<usize>>, free: &HashSet<usize>) -> Option<usize> {
    let mut votes: HashMap<usize, usize> = HashMap::new();
    for (key, member) in value.as_object().into_iter().flatten() {
        let rows = sharing.get(&fingerprint_of_member(key, member));
        let rows = rows.filter(|rows| rows.len() <= SHARING_ROWS_MAX);
        for row in rows.into_iter().flatten().filter(|row| free.contains(row)) {
            *votes.entry(*row).or_default() += 1;
        }
    }
    votes.into_iter().max_by_key(|(row, votes)| (*votes, std::cmp::Reverse(*row))).map(|(row, _)| row)
}

fn fingerprint_of_member(key: &str, value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, fingerprint(value)).hash(&mut hasher);
    hasher.finish()
}

/// Equal for values that [`is_shown_as`] takes for the same; the order of keys does not count.
fn fingerprint(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    match value {
        Value::Null => 0_u8.hash(&mut hasher),
        Value::Bool(truth) => truth.hash(&mut hasher),
        // Adding zero turns -0.0 into 0.0.
        Value::Number(number) => (number.as_f64().unwrap_or(0.0) + 0.0).to_bits().hash(&mut hasher),
        Value::String(text) => text.hash(&mut hasher),
        Value::Array(values) => {
            for value in values {
                fingerprint(value).hash(&mut hasher);
            }
        }
        Value::Object(map) => {
            let fields = map.iter().map(|(key, value)| fingerprint_of_member(key, value));
            fields.fold(0, u64::wrapping_add).hash(&mut hasher);
        }
    }
    hasher.finish()
}
