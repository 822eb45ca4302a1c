//! Floor 0. The three-way merge of one record: what both sides hold after a reconciliation.
//!
//! Each path is decided on its own from its base, local and remote value. Where both sides changed a
//! path differently the centre's value stands and the local one leaves as a [`Clash`], which the caller
//! must make durable before the loser disappears. Edits win over deletes. No clock is consulted.
//!
//! Versions that were never agreed on may come from two programs that store the same thing differently: there, values
//! that mean the same ([`super::same_meaning`]) agree, and the centre's stands. Otherwise types and bits count. Nor is anybody
//! given a role there because one of the two sides names it: the roles of the centre stand, and others are a [`Clash`]. So is
//! an account that is closed on one side and, because the other one says nothing, open there.

use std::collections::HashSet;

use bson::{Bson, Document};

use super::diff::{Change, Path, differences, is_divisible, is_identity, may_lead_on};
use super::identity::value_of;
use super::same_meaning::same_meaning_option;
use crate::domain::record::Kind;
use crate::domain::record::active::{ACTIVE, opens};
use crate::domain::record::schema::Schema;
use crate::domain::record::value::{is_member, is_same_set, is_small_set, same_document, same_option};
use crate::flaw::{Flaw, planted};

/// What a merge decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// The record from now on; `None` when it is gone on both sides or is to be deleted.
    pub document: Option<Document>,
    pub clashes: Vec<Clash>,
}

/// A value that lost: it goes to a conflict record.
#[derive(Debug, Clone, PartialEq)]
pub struct Clash {
    /// Empty for the record as a whole.
    pub path: Path,
    pub base: Option<Bson>,
    pub local: Option<Bson>,
    pub remote: Option<Bson>,
    pub stands: Side,
}

/// Whose value stands after a clash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Local,
    Remote,
}

/// Merges one record. `base` is the version last agreed with the centre; absent records are `None`.
///
/// The side of a whole record that was deleted has no value in a clash: what it wants is that the record is gone. The body
/// that a record had when it was deleted here, edits that nobody else has seen included, is in the trash.
pub fn merge(
    schema: &Schema,
    base: Option<&Document>,
    local: Option<&Document>,
    remote: Option<&Document>,
) -> Merged {
    let whole = |stands| Clash {
        path: Path::new(),
        base: base.cloned().map(Bson::Document),
        local: local.cloned().map(Bson::Document),
        remote: remote.cloned().map(Bson::Document),
        stands,
    };
    let clean = |document: Option<&Document>| Merged { document: document.cloned(), clashes: Vec::new() };
    match (base, local, remote) {
        (_, None, None) => clean(None),
        (None, Some(local), None) => clean(Some(local)),
        (None, None, Some(remote)) => clean(Some(remote)),
        (Some(base), Some(local), None) if same_document(base, local) => clean(None),
        (Some(_), _, None) | (Some(_), None, _) if planted(Flaw::DeleteBeatsEdit) => clean(None),
        (Some(_), Some(local), None) => {
            Merged { document: Some(local.clone()), clashes: vec![whole(Side::Local)] }
        }
        (Some(base), None, Some(remote)) if same_document(base, remote) => clean(None),
        (Some(_), None, Some(remote)) => {
            Merged { document: Some(remote.clone()), clashes: vec![whole(Side::Remote)] }
        }
        (base, Some(local), Some(remote)) => {
            let nothing = Document::new();
            let has_base = base.is_some();
            let mut merge = FieldMerge { schema, has_base, path: Path::new(), clashes: Vec::new() };
            let document = merge.documents(base.unwrap_or(&nothing), local, remote);
            Merged { document: Some(document), clashes: merge.clashes }
        }
    }
}

/// Beyond so many clashes below one value, that is one clash as a whole: nobody decides thousands, and each is a row of its own.
const CLASHES_BELOW_MAX: usize = 64;

struct FieldMerge<'a> {
    schema: &'a Schema,
    /// Whether the record was agreed on before. If not, values agree that mean the same.
    has_base: bool,
    path: Path,
    clashes: Vec<Clash>,
}

impl FieldMerge<'_> {
    /// Starts from the centre's document, so that what nobody here changed keeps its bytes and order.
    fn documents(&mut self, base: &Document, local: &Document, remote: &Document) -> Document {
        let mut merged = remote.clone();
        let own = local.keys().filter(|k| !remote.contains_key(k.as_str()));
        // Taken out together: each that is taken out alone moves all behind it.
        let mut gone: HashSet<&str> = HashSet::new();
        for key in remote.keys().chain(own) {
            if self.path.is_empty() && is_identity(key) {
                continue;
            }
            self.path.push(key.clone());
            let value = self.value(base.get(key), local.get(key), remote.get(key));
            match value {
                Some(value) if same_option(Some(&value), remote.get(key)) => {}
                Some(value) => {
                    merged.insert(key, value);
                }
                None => {
                    gone.insert(key);
                }
            }
            self.path.pop();
        }
        match gone.is_empty() {
            true => merged,
            false => merged.into_iter().filter(|(key, _)| !gone.contains(key.as_str())).collect(),
        }
    }

    fn value(&mut self, base: Option<&Bson>, local: Option<&Bson>, remote: Option<&Bson>) -> Option<Bson> {
        if !self.has_base && self.is_set_field() {
            return match is_same_set(local, remote) {
                true => remote.cloned(),
                false => self.clash(base, local, remote),
            };
        }
        if !self.has_base && self.is_account_state() && local.is_some() != remote.is_some() {
            return match opens(local) == opens(remote) {
                true => remote.cloned(),
                false => self.clash(base, local, remote),
            };
        }
        if same_option(local, base) || same_option(local, remote) {
            return remote.cloned();
        }
        if same_option(remote, base) {
            return local.cloned();
        }
        if self.is_last_writer_field() && is_stamp(local) && is_stamp(remote) {
            return remote.cloned();
        }
        if let (true, Some(Bson::Array(local)), Some(Bson::Array(remote))) = (
            self.is_set_field() && [base, local, remote].into_iter().flatten().all(is_small_set),
            local,
            remote,
        ) {
            match base {
                Some(Bson::Array(base)) => return Some(merge_sets(base, local, remote)),
                // Agreed on without it, and both sides have added to it since.
                None => return Some(merge_sets(&[], local, remote)),
                Some(_) => {}
            }
        }
        let mut is_clashing = false;
        if let (false, Some(Bson::Document(local)), Some(Bson::Document(remote))) =
            (self.is_whole_field(), local, remote)
        {
            let nothing = Document::new();
            let base = match base {
                Some(Bson::Document(base)) => Some(base),
                None => Some(&nothing),
                Some(_) => None,
            };
            if let Some(base) = base
                && may_lead_on(&self.path)
                && [base, local, remote].into_iter().all(is_divisible)
            {
                let before = self.clashes.len();
                let merged = self.documents(base, local, remote);
                if self.clashes.len() - before <= CLASHES_BELOW_MAX {
                    return Some(Bson::Document(merged));
                }
                self.clashes.truncate(before);
                is_clashing = true;
            }
        }
        if is_clashing {
            return self.clash(base, local, remote);
        }
        if !self.has_base && same_meaning_option(self.schema, &self.path, local, remote) {
            return remote.cloned();
        }
        self.clash(base, local, remote)
    }

    /// Both sides changed the path differently.
    fn clash(&mut self, base: Option<&Bson>, local: Option<&Bson>, remote: Option<&Bson>) -> Option<Bson> {
        // A removal loses against an edit below it, whichever side removed.
        let edited_below_removed = remote.is_none()
            && matches!(base, Some(Bson::Document(_)))
            && matches!(local, Some(Bson::Document(_)));
        // An account that somebody has closed stays closed until somebody decides.
        let closed_here = self.has_base && self.is_account_state() && !opens(local) && opens(remote);
        let stands = if edited_below_removed || closed_here { Side::Local } else { Side::Remote };
        self.clashes.push(Clash {
            path: self.path.clone(),
            base: base.cloned(),
            local: local.cloned(),
            remote: remote.cloned(),
            stands,
        });
        match stands {
            Side::Local => local.cloned(),
            Side::Remote => remote.cloned(),
        }
    }

    fn is_set_field(&self) -> bool {
        self.path.len() == 1 && self.schema.set_fields.contains(&self.path[0].as_str())
    }

    /// Whether this says if an account is open. Without it the account is: a missing value is no gap to be filled.
    fn is_account_state(&self) -> bool {
        self.schema.kind == Kind::Person && self.path == [ACTIVE]
    }

    fn is_whole_field(&self) -> bool {
        self.path.len() == 1 && self.schema.whole_fields.contains(&self.path[0].as_str())
    }

    fn is_last_writer_field(&self) -> bool {
        self.path.len() == 1 && self.schema.last_writer_fields.contains(&self.path[0].as_str())
    }
}

/// The values in which two versions differ, each at a path at which a merge would find a conflict: fields that are one value
/// stay whole, and who wrote a record last is no difference.
pub fn differing_values(schema: &Schema, ours: &Document, theirs: &Document) -> Vec<Change> {
    let is_stamp_of_both = |field: &str| {
        schema.last_writer_fields.contains(&field) && is_stamp(ours.get(field)) && is_stamp(theirs.get(field))
    };
    let mut changes = differences(ours, theirs, schema.whole_fields);
    changes.retain(|change| change.path.first().is_none_or(|field| !is_stamp_of_both(field)));
    changes
}

/// The path under which a conflict over the value at `path` is kept: a part of a field that is one value is never decided alone.
pub fn conflict_path(schema: &Schema, path: &[String]) -> Path {
    match path.first() {
        Some(field) if schema.whole_fields.contains(&field.as_str()) => vec![field.clone()],
        _ => path.to_vec(),
    }
}

/// What a program writes into a stamp at each change: who, where and when. With both sides changed, two stamps always differ.
const STAMP_FIELDS: [&str; 3] = ["user", "node", "timestamp"];

/// Whether this says nothing but who changed the record last. Anything else in such a field is what people wrote.
fn is_stamp(value: Option<&Bson>) -> bool {
    match value {
        None | Some(Bson::Null) => true,
        Some(Bson::Document(stamp)) => stamp.keys().all(|key| STAMP_FIELDS.contains(&key.as_str())),
        Some(_) => false,
    }
}

/// (remote ∪ (local ∖ base)) ∖ (base ∖ local): the centre's order, own additions appended in sorted order.
fn merge_sets(base: &[Bson], local: &[Bson], remote: &[Bson]) -> Bson {
    let mut merged: Vec<Bson> =
        remote.iter().filter(|value| is_member(local, value) || !is_member(base, value)).cloned().collect();
    let mut added: Vec<Bson> = Vec::new();
    for value in local {
        if !is_member(base, value) && !is_member(remote, value) && !is_member(&added, value) {
            added.push(value.clone());
        }
    }
    added.sort_by_cached_key(|value| value.to_string());
    merged.append(&mut added);
    Bson::Array(merged)
}

/// The fields by which people are told apart.
pub const IDENTITY_FIELDS: [&str; 4] = ["name", "lastname", "dob", "gender"];
/// A person known to both sides is taken for another human being once this many of them have changed.
pub const REUSED_FIELDS_MIN: usize = 2;

/// The identity of a person in one spelling: the same for all records that differ only in their typography, on every
/// node that folds alike ([`crate::domain::text::folding::FOLDING_VERSION`]).
pub fn identity_of(person: &Document) -> Document {
    let known = IDENTITY_FIELDS.into_iter().filter_map(|field| Some((field, value_of(person, field)?)));
    known.map(|(field, value)| (field.to_owned(), Bson::String(value.canonical()))).collect()
}

/// What stands in the fields by which people are told apart if nothing of somebody is known but that they had an account.
pub const NOT_KNOWN: &str = "(not known any more)";

/// Somebody of whom nothing is known but that they had an account: see [`NOT_KNOWN`].
pub fn unknown_identity() -> Document {
    IDENTITY_FIELDS.into_iter().map(|field| (field.to_owned(), NOT_KNOWN.into())).collect()
}

/// Whether nothing is known of a person but the account. Nobody is taken for them, not even one of whom the centre says
/// nothing either.
pub fn is_unknown(person: &Document) -> bool {
    IDENTITY_FIELDS.into_iter().all(|field| person.get_str(field).is_ok_and(|value| value == NOT_KNOWN))
}

/// In how many of [`IDENTITY_FIELDS`] two people differ, by meaning; a missing value agrees with anything.
pub fn identity_differences(a: &Document, b: &Document) -> usize {
    if is_unknown(a) != is_unknown(b) {
        return IDENTITY_FIELDS.len();
    }
    let differs = |field: &str| {
        !same_option(a.get(field), b.get(field))
            && matches!((value_of(a, field), value_of(b, field)), (Some(a), Some(b)) if !a.agrees(&b))
    };
    IDENTITY_FIELDS.into_iter().filter(|field| differs(field)).count()
}

/// Whether nothing of what was known of a person is left, where more than one field was known and one says something else
/// now: a row that only has another one's name.
fn is_nothing_left(before: &Document, after: &Document) -> bool {
    let known: Vec<&str> =
        IDENTITY_FIELDS.into_iter().filter(|field| value_of(before, field).is_some()).collect();
    let stays = |field: &&str| matches!((value_of(before, field), value_of(after, field)), (Some(a), Some(b)) if a.agrees(&b));
    known.len() > 1 && !known.iter().any(stays)
}

/// Whether two person records can be the same human being.
pub fn same_identity(a: &Document, b: &Document) -> bool {
    identity_differences(a, b) == 0
}

/// Whether the centre's person may be somebody else than the one here under the same account: made on both
/// sides and not alike, or agreed once (`base`) and since then changed at the centre in what people are told
/// apart by, as happens when an account is given to another human being.
pub fn is_other_person(base: Option<&Document>, local: &Document, remote: &Document) -> bool {
    let is_changed = match base {
        Some(base) => {
            let differences = identity_differences(base, remote);
            differences >= REUSED_FIELDS_MIN || (differences > 0 && is_nothing_left(base, remote))
        }
        // One of whom no name is known may be anybody.
        None if has_name(local) != has_name(remote) => return true,
        None => true,
    };
    is_changed && !same_identity(local, remote)
}

fn has_name(person: &Document) -> bool {
    ["name", "lastname"].into_iter().any(|field| value_of(person, field).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    /// Each clash is a row here and at the centre.
    #[test]
    fn a_value_with_too_many_clashes_below_it_clashes_as_a_whole() {
        let side = |clashes: usize, value: i32, own: &str| -> Document {
            let fields = (0..clashes).map(|n| (format!("k{n}"), value.into()));
            let many: Document = fields.chain([(own.to_owned(), 1.into())]).collect();
            doc! {"_id": "a", "q": {"many": many, "few": {"x": value}}}
        };
        for (clashes, paths) in
            [(CLASHES_BELOW_MAX - 1, CLASHES_BELOW_MAX), (CLASHES_BELOW_MAX + 1, 2), (20_000, 2)]
        {
            let (local, remote) = (side(clashes, 1, "here"), side(clashes, 2, "there"));
            let merged =
                merge(Kind::Event.schema(), Some(&side(clashes, 0, "base")), Some(&local), Some(&remote));
            assert_eq!(merged.clashes.len(), paths, "{clashes}");
            let is_whole = merged.clashes.iter().any(|clash| clash.path == ["q", "many"]);
            assert_eq!(is_whole, clashes > CLASHES_BELOW_MAX);
            if is_whole {
                // What was edited here is in the conflict as a whole, and the centre's version stands as a whole.
                assert_eq!(merged.document.as_ref(), Some(&remote));
                let whole = merged.clashes.iter().find(|clash| clash.path == ["q", "many"]).unwrap();
                assert_eq!(whole.local.as_ref(), local.get_document("q").unwrap().get("many"));
            }
        }
    }

    #[test]
    fn many_fields_are_taken_out_together() {
        let fields = |value: i32| (0..70_000).map(|n| (format!("k{n}"), value.into())).collect::<Document>();
        let (base, mut remote) = (doc! {"_id": "a", "q": fields(0)}, doc! {"_id": "a", "q": fields(0)});
        remote.get_document_mut("q").unwrap().insert("k7", 1);
        let local = doc! {"_id": "a", "q": {}};
        let merged = merge(Kind::Event.schema(), Some(&base), Some(&local), Some(&remote));
        assert_eq!(merged.document, Some(doc! {"_id": "a", "q": {"k7": 1}}));
        assert_eq!(merged.clashes.len(), 1);
    }
}
