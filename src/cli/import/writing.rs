//! Floor 5. One record of an import in the store: whether it is written, and what becomes of it.

use std::collections::BTreeSet;
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
use crate::store::{Deletion, StoreError, TrashedSpellings, Tx, UndeleteError};
use crate::sync::time_text;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Added,
    Replaced,
    /// It had been deleted, and is back with what the file has.
    Restored,
    Equal,
    Different,
    /// It was deleted, and its body lies in the trash.
    Deleted,
    /// A record of a person who was deleted.
    OwnerDeleted,
    /// It was to be put back, and cannot.
    RestoreRefused,
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
    /// About a delete: how it was, or why it stands.
    pub(super) why: String,
    /// The record names bytes that the node has or should have, as it is stored now.
    pub(super) content: Option<Content>,
}

impl Verdict {
    /// Whether the store has the record as the file has it.
    pub(super) fn is_taken(self) -> bool {
        matches!(self, Verdict::Added | Verdict::Replaced | Verdict::Restored | Verdict::Equal)
    }
}

impl Verdict {
    /// Whether the row is one of the record under its key here, so that a later one of the same id is a second one.
    pub(super) fn is_of_record(self) -> bool {
        self.is_taken() || self == Verdict::Different
    }
}

impl Written {
    pub(super) fn new(verdict: Verdict, key: RecordKey) -> Written {
        Written { verdict, key, is_of_unknown: false, kept_open: None, why: String::new(), content: None }
    }

    fn because(self, why: String) -> Written {
        Written { why, ..self }
    }
}

/// Why a record may be of the person who had its account before, if it may: they were deleted here, another one has the account
/// now, and the files do not say that they are of that one.
fn of_person_before(
    tx: &Tx<'_>,
    account: &str,
    met: OfRecord<'_>,
    terms: &Terms,
) -> Result<Option<String>, StoreError> {
    let Some(person) = tx.resolve_person(account)?.map(|id| RecordKey::new(Kind::Person, id)) else {
        return Ok(None);
    };
    if met(&person) {
        return Ok(None);
    }
    let Some(deletion) = tx.deletion_of_person(account, &terms.trashed)? else {
        return Ok(None);
    };
    let (Some(now), Some((_, before))) = (tx.document(&person)?, &deletion.row) else {
        return Ok(None);
    };
    let is_other = is_other_person(Some(&before.document), &before.document, &now);
    Ok(is_other.then(|| {
        let how = how(&deletion);
        format!(
            "of {account}, who {how}, and which another person has now: import it together with the person whose record it is"
        )
    }))
}

/// What holds for all rows of an import.
pub(super) struct Terms {
    /// What is stored is overwritten.
    pub(super) is_replacing: bool,
    /// Deleted records are made again.
    pub(super) is_restoring: bool,
    /// Accounts, folded, that were closed on the node of an export.
    pub(super) closed: BTreeSet<String>,
    /// How people in the trash are spelled.
    pub(super) trashed: TrashedSpellings,
    pub(super) actor: Actor,
}

/// What is known of a record from the rows before.
pub(super) type OfRecord<'a> = &'a dyn Fn(&RecordKey) -> bool;

/// Writes a record, if it is to be written. `met` says whether a row of a record stood in the files before, `is_second` whether
/// one did that has other content.
pub(super) fn write_one(
    tx: &mut Tx<'_>,
    kind: Kind,
    item: &Item,
    (met, is_second): (OfRecord<'_>, OfRecord<'_>),
    terms: &Terms,
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
    if stored.is_none()
        && let Some(deletion) = tx.deletion(&key, &terms.trashed, &document)?
    {
        return match terms.is_restoring {
            true => restore(tx, deletion, document, item, terms),
            false => Ok(Written::new(Verdict::Deleted, deletion.key.clone()).because(left_out(&deletion))),
        };
    }
    if let (None, Some(account), true) = (&stored, &owner, kind != Kind::Person)
        && tx.resolve_person(account)?.is_none()
        && let Some(deletion) = tx.deletion_of_person(account, &terms.trashed)?
    {
        let why = format!("of {account}, who {}: put that person back first", how(&deletion));
        return Ok(Written::new(Verdict::OwnerDeleted, key).because(why));
    }
    if let (None, Some(account), true) = (&stored, &owner, kind != Kind::Person)
        && let Some(why) = of_person_before(tx, account, met, terms)?
    {
        return Ok(Written::new(Verdict::OwnerDeleted, key).because(why));
    }
    let is_closed = kind == Kind::Person && terms.closed.contains(&fold_account(&item.id));
    let mut kept_open = None;
    if let Some(stored) = &stored {
        keep_unsaid(kind, &mut document, stored);
        kept_open = keep_active(kind, &mut document, stored);
        if is_closed && kept_open.is_none() && !tx.is_closed_here(&key.id)? {
            kept_open = Some(is_active(stored));
        }
    }
    let verdict = match stored {
        None => Verdict::Added,
        Some(stored) if same_document(&stored, &document) => Verdict::Equal,
        // `--replace` would not help: which of the two is right cannot be told.
        Some(_) if is_second(&key) => Verdict::Twice,
        Some(_) if terms.is_replacing => Verdict::Replaced,
        Some(_) => Verdict::Different,
    };
    if verdict.is_taken() {
        put_bytes(tx, item)?;
    }
    if matches!(verdict, Verdict::Added | Verdict::Replaced) {
        tx.edit(&key, Some(&document), &terms.actor)?;
    }
    if is_closed && verdict == Verdict::Added {
        tx.set_closed_here(&key.id, true, &terms.actor)?;
    }
    let is_of_unknown = match &owner {
        Some(owner) if kind != Kind::Person => tx.resolve_person(owner)?.is_none(),
        _ => false,
    };
    let content = Content::of(kind, &document);
    Ok(Written { verdict, key, is_of_unknown, kept_open, why: String::new(), content })
}

fn put_bytes(tx: &mut Tx<'_>, item: &Item) -> Result<(), StoreError> {
    match &item.content {
        Some((sha256, bytes)) if !tx.has_content(sha256)? => tx.put_content(sha256, bytes),
        _ => Ok(()),
    }
}

/// A deleted record comes back with what the file has, by the rules of the trash: not as another human being's, and as open
/// or closed as it was.
fn restore(
    tx: &mut Tx<'_>,
    deletion: Deletion,
    mut document: Document,
    item: &Item,
    terms: &Terms,
) -> Result<Written, StoreError> {
    let key = deletion.key.clone();
    let mut kept_open = None;
    if let Some((_, row)) = &deletion.row {
        document.insert("_id", key.id.as_str());
        keep_unsaid(key.kind, &mut document, &row.document);
        kept_open = keep_active(key.kind, &mut document, &row.document);
    }
    match tx.bring_back(&deletion, &document, &terms.actor) {
        Ok(()) => {}
        Err(UndeleteError::Store(error)) => return Err(error),
        Err(why) => {
            let why = format!("{} and cannot be put back: {why}", how(&deletion));
            return Ok(Written::new(Verdict::RestoreRefused, key).because(why));
        }
    }
    put_bytes(tx, item)?;
    let content = Content::of(key.kind, &document);
    let why = how(&deletion);
    Ok(Written { kept_open, content, ..Written::new(Verdict::Restored, key).because(why) })
}

/// How a record was deleted, and where its body is.
fn how(deletion: &Deletion) -> String {
    let place = format!("lies in the trash ({})", deletion.sequence);
    match &deletion.row {
        Some((about, _)) => {
            format!("was deleted at {} by {} and {place}", time_text(about.at_ms), about.actor)
        }
        None => format!("was deleted and {place}, where it is damaged"),
    }
}

fn left_out(deletion: &Deletion) -> String {
    format!(
        "{}: left out. `thalamus-edge trash restore {}` puts it back as it was, `--restore-deleted` as the file has it",
        how(deletion),
        deletion.sequence
    )
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

/// Tells what two rows of one record have apart.
pub(super) fn hash_of_row(item: &Item) -> u64 {
    let mut hasher = DefaultHasher::new();
    item.document.to_vec().unwrap_or_default().hash(&mut hasher);
    item.content.as_ref().map(|(sha256, _)| sha256).hash(&mut hasher);
    hasher.finish()
}
