//! Floor 5. One record of an import in the store: whether it is written, and what becomes of it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bson::{Bson, Document};

use super::record::Item;
use crate::domain::access::Actor;
use crate::domain::active::{ACTIVE, is_active};
use crate::domain::content::Content;
use crate::domain::edit::spell_owner;
use crate::domain::merge::is_other_person;
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::domain::value::same_document;
use crate::store::{StoreError, Tx};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Added,
    Replaced,
    Equal,
    Different,
    /// A person whose account is another person's here.
    AccountOfOtherPerson,
    /// A record of a person who was refused.
    OwnerRefused,
    /// A record that belongs to another person here.
    OwnerDiffers,
    /// Stands in the files a second time, with other content.
    Twice,
}

/// What became of an item, and the key that it is stored under.
pub(super) struct Written {
    pub(super) verdict: Verdict,
    pub(super) key: RecordKey,
    /// The record is of a person who is not here.
    pub(super) is_of_unknown: bool,
    /// `active` differs and was kept: whether the account is open here.
    pub(super) kept_open: Option<bool>,
    /// The record names bytes that the node has or should have, as it is stored now.
    pub(super) content: Option<Content>,
}

impl Verdict {
    /// Whether the store has the record as the file has it.
    pub(super) fn is_taken(self) -> bool {
        matches!(self, Verdict::Added | Verdict::Replaced | Verdict::Equal)
    }
}

impl Written {
    pub(super) fn new(verdict: Verdict, key: RecordKey) -> Written {
        Written { verdict, key, is_of_unknown: false, kept_open: None, content: None }
    }
}

/// Writes a record, if it is to be written. `replaces` is there if what is stored is to be overwritten, and says whether
/// that stood in the files, too. `is_closed`: the account was closed on the node that the files come from.
pub(super) fn write_one(
    tx: &mut Tx<'_>,
    kind: Kind,
    item: &Item,
    replaces: Option<&dyn Fn(&RecordKey) -> bool>,
    is_closed: bool,
    actor: &Actor,
) -> Result<Written, StoreError> {
    let mut document = item.document.clone();
    let mut key = RecordKey::new(kind, item.id.as_str());
    if kind == Kind::Person {
        // As the API does it: whatever the spelling, it is one account.
        key.id = tx.resolve_person(&item.id)?.unwrap_or_else(|| fold_account(&item.id));
        document.insert("_id", key.id.as_str());
    }
    let stored = tx.document(&key)?;
    if kind == Kind::Person {
        let is_other = match &stored {
            Some(stored) => is_other_person(Some(stored), stored, &document),
            None => tx.is_another_ones(&key, &document)?,
        };
        if is_other {
            return Ok(Written::new(Verdict::AccountOfOtherPerson, key));
        }
    }
    spell_owner(kind.schema(), &mut document, stored.as_ref(), |account| tx.resolve_person(account))?;
    let owner = kind.schema().owner_of(&document);
    let of_stored = stored.as_ref().and_then(|stored| kind.schema().owner_of(stored));
    let is_over_another = kind != Kind::Person && stored.is_none() && tx.is_over_another(&key, &document)?;
    if is_over_another || of_stored.is_some_and(|stored| owner.as_ref() != Some(&stored)) {
        return Ok(Written::new(Verdict::OwnerDiffers, key));
    }
    let mut kept_open = None;
    if let Some(stored) = &stored {
        keep_unsaid(kind, &mut document, stored);
        kept_open = keep_active(kind, &mut document, stored);
        if is_closed && kept_open.is_none() && !tx.is_closed_here(&key.id)? {
            kept_open = Some(is_active(stored));
        }
    }
    let verdict = match (stored, replaces) {
        (None, _) => Verdict::Added,
        (Some(stored), _) if same_document(&stored, &document) => Verdict::Equal,
        (Some(_), None) => Verdict::Different,
        (Some(_), Some(is_second)) if is_second(&key) => Verdict::Twice,
        (Some(_), Some(_)) => Verdict::Replaced,
    };
    if verdict.is_taken()
        && let Some((sha256, bytes)) = &item.content
        && !tx.has_content(sha256)?
    {
        tx.put_content(sha256, bytes)?;
    }
    if matches!(verdict, Verdict::Added | Verdict::Replaced) {
        tx.edit(&key, Some(&document), actor)?;
    }
    if is_closed && verdict == Verdict::Added {
        tx.set_closed_here(&key.id, true, actor)?;
    }
    let is_of_unknown = match &owner {
        Some(owner) if kind != Kind::Person => tx.resolve_person(owner)?.is_none(),
        _ => false,
    };
    let content = Content::of(kind, &document);
    Ok(Written { verdict, key, is_of_unknown, kept_open, content })
}

/// An import opens and closes nobody who exists here: hubs store `active: false` for people who use their accounts.
/// Returns whether the account is open here, if the file says something else in `active`.
fn keep_active(kind: Kind, document: &mut Document, stored: &Document) -> Option<bool> {
    let said = document.get(ACTIVE).filter(|_| kind == Kind::Person)?;
    match stored.get(ACTIVE) {
        Some(value) if value == said => return None,
        Some(value) => drop(document.insert(ACTIVE, value.clone())),
        // Without the field the account is open.
        None if *said == Bson::Boolean(true) => return None,
        None => drop(document.remove(ACTIVE)),
    }
    Some(is_active(stored))
}

/// As with PUT, fields that a file leaves out because no answer of an API has them (a password), or because they describe
/// bytes that it does not have, stay as they are.
fn keep_unsaid(kind: Kind, document: &mut Document, stored: &Document) {
    for field in kind.schema().kept_by_put {
        if let (None, Some(value)) = (document.get(field), stored.get(field)) {
            document.insert(*field, value.clone());
        }
    }
}

pub(super) fn hash_of(key: &RecordKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key.kind.schema().code, &key.id).hash(&mut hasher);
    hasher.finish()
}
