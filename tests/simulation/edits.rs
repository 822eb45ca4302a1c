//! What people and applications do to records: few records and few fields, so that they get into each other's way.

use std::collections::BTreeMap;

use bson::{Bson, Document, bson, doc};
use thalamus_edge::domain::diff;
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::domain::schema::Owner;

use super::support::generator::Numbers;

/// Kinds and ids of all records, and whom they belong to.
pub(crate) const RECORDS: [(Kind, &str, Option<&str>); 7] = [
    (Kind::Institution, "hospital", None),
    (Kind::Person, "ANA", None),
    (Kind::Person, "BEA", None),
    (Kind::Person, "CAI", None),
    (Kind::Page, "page-1", Some("ANA")),
    (Kind::Page, "page-2", Some("BEA")),
    (Kind::Encounter, "visit-1", Some("ANA")),
];
pub(crate) const FIELDS: [&str; 6] = ["f", "g", "n.x", "n.y", "n.d.z", "list"];
/// Of a hundred new people so many have another name than usual.
const STRANGERS_PERCENT: u64 = 15;
/// Of a hundred new records of a person so many are of another person than usual, under the same id.
const OTHERS_PERCENT: u64 = 12;
/// Of a hundred changes that a legacy application makes to such a record so many give it to somebody else.
const MOVES_PERCENT: u64 = 6;
/// Who may own a record.
const OWNERS: [&str; 3] = ["ANA", "BEA", "CAI"];

/// The keys of the first `count` records.
pub(crate) fn keys(count: usize) -> Vec<RecordKey> {
    RECORDS[..count].iter().map(|(kind, id, _)| RecordKey::new(*kind, *id)).collect()
}

/// The field that says whose a record is.
fn owner_field(kind: Kind) -> Option<&'static str> {
    match kind.schema().owner {
        Owner::Field(field) => Some(field),
        Owner::Itself | Owner::Nobody => None,
    }
}

/// What somebody does to a record.
#[derive(Debug, Clone)]
pub(crate) enum Doing {
    Create(Document),
    /// Sets, or with `None` removes, what is at dotted paths.
    Set(Vec<(String, Option<Bson>)>),
    Replace(Document),
    Delete,
}

impl Doing {
    /// The record afterwards.
    pub(crate) fn carry_out(&self, before: Option<&Document>) -> Option<Document> {
        match (self, before) {
            (Doing::Create(document) | Doing::Replace(document), _) => Some(document.clone()),
            (Doing::Delete, _) => None,
            (Doing::Set(fields), before) => {
                let mut document = before.cloned().unwrap_or_default();
                for (path, value) in fields {
                    let steps: Vec<String> = path.split('.').map(str::to_owned).collect();
                    diff::set(&mut document, &steps, value.clone());
                }
                Some(document)
            }
        }
    }
}

/// Values that somebody has seen, by record and path, the last one last.
#[derive(Debug, Default)]
pub(crate) struct Seen(BTreeMap<(RecordKey, String), Vec<Bson>>);

impl Seen {
    pub(crate) fn look(&mut self, key: &RecordKey, document: &Document) {
        for path in FIELDS {
            let steps: Vec<String> = path.split('.').map(str::to_owned).collect();
            if let Some(value) = diff::get(document, &steps) {
                let values = self.0.entry((key.clone(), path.to_owned())).or_default();
                if values.last() != Some(value) {
                    values.push(value.clone());
                }
            }
        }
    }
}

/// Thinks of things to do; values are its own and never the same twice, unless an older one comes back.
pub(crate) struct Author<'a> {
    pub(crate) numbers: &'a mut Numbers,
    pub(crate) who: &'a str,
    /// Different for every edit.
    pub(crate) count: usize,
    pub(crate) older: &'a Seen,
    /// Only the first so many fields are worked on.
    pub(crate) fields: usize,
    /// A legacy application: it replaces whole documents too, and stamps nothing.
    pub(crate) is_legacy: bool,
}

impl Author<'_> {
    fn tag(&self) -> String {
        format!("{}-{}", self.who, self.count)
    }

    /// A value of any type.
    fn value(&mut self, path: &str) -> Bson {
        let tag = self.tag();
        let number = 1_000_000 + i32::try_from(self.count).expect("a number");
        if path == "list" {
            return bson!([tag, number]);
        }
        match self.numbers.below(12) {
            0 => Bson::Null,
            1 => Bson::Int32(number),
            2 => Bson::Int64(number.into()),
            3 => Bson::Double(number.into()),
            4 => bson!([tag]),
            5 => bson!({"part": {"of": tag}}),
            _ => Bson::String(tag),
        }
    }

    fn create(&mut self, key: &RecordKey) -> Doing {
        let owner = RECORDS.iter().find(|(kind, id, _)| (*kind, *id) == (key.kind, key.id.as_str()));
        let mut document = doc! {"_id": &key.id, "f": self.tag()};
        if key.kind == Kind::Person {
            let is_stranger = self.numbers.chance(STRANGERS_PERCENT);
            document.insert("name", if is_stranger { "Xenia" } else { "Somebody" });
            document.insert("active", false);
        }
        if let (Some((.., Some(owner))), Some(field)) = (owner, owner_field(key.kind)) {
            let other = *self.numbers.pick(&OWNERS);
            document.insert(field, if self.numbers.chance(OTHERS_PERCENT) { other } else { owner });
        }
        for path in ["n.x", "g"] {
            if self.numbers.chance(50) {
                let value = self.value(path);
                let steps: Vec<String> = path.split('.').map(str::to_owned).collect();
                diff::set(&mut document, &steps, Some(value));
            }
        }
        if key.kind == Kind::Person && self.numbers.chance(50) {
            document.insert("roles", bson!(["end_user", self.tag()]));
        }
        Doing::Create(document)
    }

    /// Something to do to a record as it is.
    pub(crate) fn think(&mut self, key: &RecordKey, before: Option<&Document>) -> Doing {
        let Some(before) = before else {
            return self.create(key);
        };
        let is_person = key.kind == Kind::Person;
        if let Some(field) = owner_field(key.kind).filter(|_| self.is_legacy)
            && self.numbers.chance(MOVES_PERCENT)
        {
            let to = *self.numbers.pick(&OWNERS);
            return Doing::Set(vec![(field.to_owned(), Some(Bson::String(to.to_owned())))]);
        }
        match self.numbers.below(100) {
            0..=9 => Doing::Delete,
            10..=17 if self.is_legacy => {
                let mut document = before.clone();
                for field in ["g", "n", "list", "roles"] {
                    if self.numbers.chance(60) {
                        document.remove(field);
                    }
                }
                document.insert("f", self.tag());
                Doing::Replace(document)
            }
            18..=27 if is_person => self.change_roles(before),
            28..=33 if is_person && !self.is_legacy => {
                Doing::Set(vec![("password".to_owned(), Some(Bson::String(self.tag())))])
            }
            34..=43 => self.remove_something(before),
            44..=55 => self.bring_back(key, before),
            56..=58 => {
                let value = self.value("n");
                Doing::Set(vec![("n".to_owned(), Some(value))])
            }
            59..=66 => {
                let mut fields = self.set_field(before);
                fields.extend(self.set_field(before));
                fields.sort_by(|a, b| a.0.cmp(&b.0));
                fields.dedup_by(|a, b| a.0 == b.0);
                Doing::Set(fields)
            }
            _ => Doing::Set(self.set_field(before)),
        }
    }

    fn set_field(&mut self, before: &Document) -> Vec<(String, Option<Bson>)> {
        let path = self.some_path(before);
        let value = self.value(&path);
        let mut fields = vec![(path, Some(value))];
        if !self.is_legacy && self.numbers.chance(30) {
            fields.push(("modification_info".to_owned(), Some(bson!({"user": self.who, "n": self.tag()}))));
        }
        fields
    }

    /// A path that can be set: MongoDB refuses to step through what is no document.
    fn some_path(&mut self, before: &Document) -> String {
        loop {
            let path = *self.numbers.pick(&FIELDS[..self.fields]);
            let steps: Vec<String> = path.split('.').map(str::to_owned).collect();
            let is_open = |length: usize| {
                diff::get(before, &steps[..length]).is_none_or(|value| matches!(value, Bson::Document(_)))
            };
            if !self.is_legacy || (1..steps.len()).all(is_open) {
                return path.to_owned();
            }
        }
    }

    fn change_roles(&mut self, before: &Document) -> Doing {
        let mut roles = before.get_array("roles").cloned().unwrap_or_default();
        if !roles.is_empty() && self.numbers.chance(40) {
            let index = usize::try_from(self.numbers.below(roles.len() as u64)).expect("an index");
            roles.remove(index);
        } else {
            roles.push(Bson::String(self.tag()));
        }
        if roles.len() > 1 && self.numbers.chance(20) {
            roles.reverse();
        }
        Doing::Set(vec![("roles".to_owned(), Some(Bson::Array(roles)))])
    }

    fn remove_something(&mut self, before: &Document) -> Doing {
        let there: Vec<&str> = ["f", "g", "n", "n.x", "n.y", "n.d", "n.d.z", "list", "roles"]
            .into_iter()
            .filter(|path| {
                let steps: Vec<String> = path.split('.').map(str::to_owned).collect();
                diff::get(before, &steps).is_some()
            })
            .collect();
        if there.is_empty() {
            return Doing::Set(self.set_field(before));
        }
        Doing::Set(vec![((*self.numbers.pick(&there)).to_owned(), None)])
    }

    /// An older value again: an undo, or a legacy application with an old form on its screen.
    fn bring_back(&mut self, key: &RecordKey, before: &Document) -> Doing {
        let path = self.some_path(before);
        let older = self.older.0.get(&(key.clone(), path.clone()));
        match older.filter(|values| !values.is_empty()) {
            Some(values) => {
                // The last but one most often.
                let back = self.numbers.below(3).min(values.len() as u64 - 1);
                let index = values.len() - 1 - usize::try_from(back).expect("an index");
                Doing::Set(vec![(path, Some(values[index].clone()))])
            }
            None => Doing::Set(self.set_field(before)),
        }
    }
}
