//! Floor 5. One record of an import in the store: whether it is written, and what becomes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bson::{Bson, Document, doc};

use super::reasons::{KeptOpen, how, left_out, not_restored, of_doubt};
use super::record::Item;
use crate::domain::access::Actor;
use crate::domain::active::ACTIVE;
use crate::domain::content::Content;
use crate::domain::edit::spell_owner;
use crate::domain::merge::is_other_person;
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::domain::schema::is_account;
use crate::domain::value::same_document;
use crate::store::{Deletion, FormerHolders, OwnerDoubt, StoreError, Tx, UndeleteError};

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
    /// A record that may be of another person than who has its account here.
    OwnerInDoubt,
    /// Stands in the files a second time, with other content.
    Twice,
}

/// What became of an item, and the key that it is stored under.
pub(super) struct Written {
    pub(super) verdict: Verdict,
    pub(super) key: RecordKey,
    /// Tells what this row has apart from what another row of the record has. Ids and accounts in another spelling are the same.
    pub(super) row: u64,
    /// The record is of a person who is not here.
    pub(super) is_of_unknown: bool,
    /// Who may log in stays as it is here, unlike in the files.
    pub(super) kept_open: Option<KeptOpen>,
    /// Why the record was not taken, or how it was deleted before it came back.
    pub(super) why: String,
    /// The record names bytes that the node has or should have, as it is stored now.
    pub(super) content: Option<Content>,
}

impl Verdict {
    /// Whether the store has the record as the file has it.
    pub(super) fn is_taken(self) -> bool {
        matches!(self, Verdict::Added | Verdict::Replaced | Verdict::Restored | Verdict::Equal)
    }

    /// Whether the row is one of the record under its key here, so that a later one of the same id is a second one.
    pub(super) fn is_of_record(self) -> bool {
        self.is_taken() || self == Verdict::Different
    }
}

impl Written {
    pub(super) fn new(verdict: Verdict, key: RecordKey) -> Written {
        let (is_of_unknown, kept_open, why, content) = Default::default();
        Written { verdict, key, row: 0, is_of_unknown, kept_open, why, content }
    }

    fn because(self, why: String) -> Written {
        Written { why, ..self }
    }
}

/// What holds for all rows of an import.
pub(super) struct Terms {
    /// What is stored is overwritten.
    pub(super) is_replacing: bool,
    /// Deleted records are made again.
    pub(super) is_restoring: bool,
    /// Accounts, folded, that were closed on the node of an export.
    pub(super) closed: BTreeSet<String>,
    /// Who had accounts before.
    pub(super) former: FormerHolders,
    pub(super) actor: Actor,
}

/// What is known of a record from the rows before.
pub(super) type FirstRow<'a> = &'a dyn Fn(&RecordKey) -> Option<u64>;

/// Writes a record, if it is to be written. `before` says what the first row of a record had that stood in the files before:
/// [`Written::row`].
pub(super) fn write_one(
    tx: &mut Tx<'_>,
    kind: Kind,
    item: &Item,
    before: FirstRow<'_>,
    terms: &Terms,
) -> Result<Written, StoreError> {
    let mut document = item.document.clone();
    let mut key = RecordKey::new(kind, item.id.as_str());
    if kind == Kind::Person {
        // Whatever the spelling, it is one account. Who is new keeps the spelling of the file: in the database that the files
        // come from, another spelling would be another person if the clinic goes back.
        key.id = tx.resolve_person(&item.id)?.unwrap_or(key.id);
        document.insert("_id", key.id.as_str());
    }
    let stored = tx.document(&key)?;
    spell_owner(kind.schema(), &mut document, stored.as_ref(), |account| tx.resolve_person(account))?;
    let row = hash_of_row(&document, item);
    if let Some(why) = refusal(tx, &key, &document, stored.as_ref(), terms)? {
        let verdict =
            if kind == Kind::Person { Verdict::AccountOfOtherPerson } else { Verdict::OwnerDiffers };
        return Ok(Written::new(verdict, key).because(why));
    }
    if stored.is_none()
        && let Some(deletion) = tx.deletion(&key, &terms.former, &document)?
    {
        if terms.is_restoring {
            return Ok(Written { row, ..restore(tx, deletion, document, item, terms)? });
        }
        let why = left_out(tx, &deletion)?;
        return Ok(Written::new(Verdict::Deleted, deletion.key).because(why));
    }
    let is_closed = is_closed(item, kind, terms);
    let mut is_active_kept = false;
    if let Some(stored) = &stored {
        leave_out_shown_id(kind, &mut document, stored);
        keep_unsaid(kind, &mut document, stored);
        is_active_kept = keep_active(kind, &mut document, stored);
    }
    let verdict = match &stored {
        None => Verdict::Added,
        Some(stored) if same_document(stored, &document) => Verdict::Equal,
        // `--replace` would not help: which of the two is right cannot be told.
        Some(_) if before(&key).is_some_and(|first| first != row) => Verdict::Twice,
        Some(_) if terms.is_replacing => Verdict::Replaced,
        Some(_) => Verdict::Different,
    };
    let owner = kind.schema().owner_of(&document).filter(|_| kind != Kind::Person);
    if let Some(account) = owner.as_ref().filter(|_| verdict != Verdict::Equal) {
        // Nobody can ever have it, so nobody would look there: an account that is padded with spaces, say.
        if !is_account(account) && tx.resolve_person(account)?.is_none() {
            let why = format!("of {account:?}, which is no federation account and nobody's here");
            return Ok(Written::new(Verdict::OwnerInDoubt, key).because(why));
        }
        if let Some(doubt) = tx.owner_doubt(account, &terms.former, |person| before(person).is_some())? {
            let is_of_deleted = matches!(doubt, OwnerDoubt::Deleted(_) | OwnerDoubt::Succeeded(_));
            let verdict = if is_of_deleted { Verdict::OwnerDeleted } else { Verdict::OwnerInDoubt };
            return Ok(Written::new(verdict, key).because(of_doubt(account, &doubt)));
        }
    }
    if verdict.is_taken() {
        put_bytes(tx, item)?;
    }
    if matches!(verdict, Verdict::Added | Verdict::Replaced) {
        tx.edit(&key, Some(&document), &terms.actor)?;
    }
    if is_closed && verdict == Verdict::Added {
        tx.set_closed_here(&key.id, true, &terms.actor)?;
    }
    let is_closing_left = is_closed && !tx.is_closed_here(&key.id)?;
    let kept_open = kept_open(tx, &key, is_active_kept, is_closing_left)?;
    let is_of_unknown = match &owner {
        Some(owner) => tx.resolve_person(owner)?.is_none(),
        None => false,
    };
    let content = Content::of(kind, &document);
    Ok(Written { verdict, key, row, is_of_unknown, kept_open, why: String::new(), content })
}

/// Why a person may not come under this account, or why a record cannot become this one's; nothing else is asked then.
fn refusal(
    tx: &Tx<'_>,
    key: &RecordKey,
    document: &Document,
    stored: Option<&Document>,
    terms: &Terms,
) -> Result<Option<String>, StoreError> {
    let id = &key.id;
    let schema = key.kind.schema();
    if key.kind == Kind::Person {
        let is_other = match stored {
            Some(stored) => is_other_person(Some(stored), stored, document),
            None => tx.is_another_ones(key, document)?,
        };
        let rename = "give the person of the file another id, in their records too";
        if !is_other {
            let moved = if stored.is_none() { tx.moved_to(id, document, &terms.former)? } else { None };
            return Ok(moved.map(|to| {
                format!("{id} has {to} here now: give the person of the file that id, in their records too")
            }));
        }
        return Ok(Some(match stored {
            _ if tx.hold(id)?.is_some() => {
                format!(
                    "{id} is an account that two people have: decide who is who (`thalamus-edge conflicts list`)"
                )
            }
            Some(_) => format!("{id} is the account of somebody else here: {rename}"),
            None => format!(
                "{id} was the account of somebody else, or may have been, of whom something is left here or at the centre: \
                 {rename}"
            ),
        }));
    }
    let owner = schema.owner_of(document);
    let of_stored = stored.and_then(|stored| schema.owner_of(stored));
    if let Some(stored) = of_stored.filter(|stored| owner.as_ref() != Some(stored)) {
        let account = owner.unwrap_or_default();
        let has_moved = terms.former.moved_from(&account).any(|to| to == stored);
        return Ok(Some(match has_moved {
            true => format!(
                "{id} is a record of {stored} here, which the person of {account} has now: give it that account"
            ),
            false => format!("{id} is a record of {stored} here, and no record changes hands"),
        }));
    }
    let is_over_another = stored.is_none() && tx.is_over_another(key, document)?;
    Ok(is_over_another.then(|| {
        format!(
            "{id} was a record of somebody else here, and the centre does not know yet that it was deleted"
        )
    }))
}

/// Whether the account was closed on the node of an export.
fn is_closed(item: &Item, kind: Kind, terms: &Terms) -> bool {
    kind == Kind::Person && terms.closed.contains(&fold_account(&item.id))
}

/// What stays as it is here about who may log in, once the row is written.
fn kept_open(
    tx: &Tx<'_>,
    key: &RecordKey,
    is_active_kept: bool,
    is_closing_left: bool,
) -> Result<Option<KeptOpen>, StoreError> {
    let person = match is_active_kept || is_closing_left {
        true => tx.document(key)?,
        false => None,
    };
    let is_open = person.map(|person| tx.is_account_open(&key.id, &person)).transpose()?;
    Ok(is_open.map(|is_open| KeptOpen { is_closing: !is_active_kept, is_open }))
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
    let mut is_active_kept = false;
    if let Some((_, row)) = &deletion.row {
        document.insert("_id", key.id.as_str());
        keep_unsaid(key.kind, &mut document, &row.document);
        is_active_kept = keep_active(key.kind, &mut document, &row.document);
    }
    match tx.bring_back(&deletion, &document, &terms.actor) {
        Ok(()) => {}
        Err(UndeleteError::Store(error)) => return Err(error),
        Err(why) => {
            return Ok(Written::new(Verdict::RestoreRefused, key).because(not_restored(&deletion, &why)));
        }
    }
    put_bytes(tx, item)?;
    let is_closing_left = is_closed(item, key.kind, terms) && !tx.is_closed_here(&key.id)?;
    let kept_open = kept_open(tx, &key, is_active_kept, is_closing_left)?;
    let content = Content::of(key.kind, &document);
    let why = how(&deletion);
    Ok(Written { kept_open, content, ..Written::new(Verdict::Restored, key).because(why) })
}

/// An import opens and closes nobody who exists here: hubs store `active: false` for people who use their accounts.
/// Returns whether the file says something else in `active`.
fn keep_active(kind: Kind, document: &mut Document, stored: &Document) -> bool {
    let Some(said) = document.get(ACTIVE).filter(|_| kind == Kind::Person) else {
        return false;
    };
    match stored.get(ACTIVE) {
        Some(value) if value == said => return false,
        Some(value) => drop(document.insert(ACTIVE, value.clone())),
        // Without the field the account is open.
        None if *said == Bson::Boolean(true) => return false,
        None => drop(document.remove(ACTIVE)),
    }
    true
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

/// An answer of a node shows the id as `_id` and as `id`: that is no field of the record, unless it is stored so.
fn leave_out_shown_id(kind: Kind, document: &mut Document, stored: &Document) {
    let is_shown = match (document.get_str("_id"), document.get_str("id")) {
        (Ok(id), Ok(shown)) => !stored.contains_key("id") && kind.schema().same_id(id, shown),
        _ => false,
    };
    if is_shown {
        document.remove("id");
    }
}

pub(super) fn hash_of(key: &RecordKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key.kind.schema().code, &key.id).hash(&mut hasher);
    hasher.finish()
}

fn hash_of_row(document: &Document, item: &Item) -> u64 {
    let mut hasher = DefaultHasher::new();
    // In whatever order the fields stand.
    let fields: BTreeMap<_, _> = document.iter().collect();
    fields.into_iter().map(|(name, value)| doc! {name: value}).for_each(|field| {
        field.to_vec().unwrap_or_default().hash(&mut hasher);
    });
    item.content.as_ref().map(|(sha256, _)| sha256).hash(&mut hasher);
    hasher.finish()
}
