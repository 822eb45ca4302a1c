//! Floor 1. What waits for a decision: values that lost against the other side's, and people who may be two.
//!
//! Both are rows of one table, so that they are counted, listed and published together. What belongs to a
//! person who waits is in [`super::holds`].

use bson::{Bson, Document, RawDocument, doc};
use sha2::{Digest, Sha256};

use super::conflict_owners::mark_of;
use super::holds::{Hold, HoldReason};
use crate::domain::diff::Path;
use crate::domain::merge::Side;
use crate::domain::record::{Kind, RecordKey};
use crate::domain::value::same_option;
use crate::store::error::StoreError;
use crate::store::rows::{Fields, encode, insert_some};

/// What has to be decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Which value a field, or a record, is to have.
    Value,
    /// Whether two people under one account are one human being.
    Identity,
    /// Which of two records, of different people, is to have an id; or what becomes of a person who was deleted at
    /// the centre while records of theirs were made here.
    Record,
}

impl Subject {
    const ALL: [Subject; 3] = [Subject::Value, Subject::Identity, Subject::Record];

    pub fn name(self) -> &'static str {
        match self {
            Subject::Value => "value",
            Subject::Identity => "identity",
            Subject::Record => "record",
        }
    }

    /// As it stands in the notes of what conflicts are about; never changed.
    pub(in crate::store) fn number(self) -> u8 {
        match self {
            Subject::Value => 0,
            Subject::Identity => 1,
            Subject::Record => 2,
        }
    }

    pub(in crate::store) fn numbered(number: u8) -> Option<Subject> {
        Subject::ALL.into_iter().find(|one| one.number() == number)
    }

    fn named(name: &str) -> Option<Subject> {
        Subject::ALL.into_iter().find(|one| one.name() == name)
    }
}

/// Whether a conflict waits for a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConflictStatus {
    Open,
    Resolved,
}

impl ConflictStatus {
    pub fn name(self) -> &'static str {
        match self {
            ConflictStatus::Open => "open",
            ConflictStatus::Resolved => "resolved",
        }
    }

    fn named(name: &str) -> Option<ConflictStatus> {
        [ConflictStatus::Open, ConflictStatus::Resolved].into_iter().find(|status| status.name() == name)
    }
}

/// A decision that was not carried out here, or that came before the conflict was found again.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// Why it is only a note, for people.
    pub reason: String,
    /// As whoever decided wrote it.
    pub resolution: String,
    pub value: Option<Bson>,
    pub by: String,
    pub at_ms: i64,
}

impl Note {
    fn encode(&self) -> Document {
        let mut row = doc! {
            "reason": &self.reason, "resolution": &self.resolution, "by": &self.by, "at": self.at_ms,
        };
        insert_some(&mut row, "value", &self.value);
        row
    }

    fn decode(row: Fields<'_>) -> Result<Note, StoreError> {
        Ok(Note {
            reason: row.text("reason")?.to_owned(),
            resolution: row.text("resolution")?.to_owned(),
            value: row.value_if_any("value")?,
            by: row.text("by")?.to_owned(),
            at_ms: row.int64("at")?,
        })
    }
}

/// A value that lost against the other side's, or a person who may be somebody else; kept until someone
/// decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    /// Hash of record, its person, path and losing value, so that the federation keeps one. Of an identity: hash of the
    /// node and of both people's identities.
    pub id: String,
    pub subject: Subject,
    pub key: RecordKey,
    /// Whose the record was when its values clashed, folded: a value of one person's is never put into a record that
    /// has become another one's ([`Conflict::whose`]). Empty if it belonged to nobody; `None` if an earlier version found
    /// the conflict.
    pub owner: Option<String>,
    /// The fields by which the human being is told apart who had that account then, empty if nobody was known.
    pub person: Option<Document>,
    /// As `person`, of the account that the centre's version of a whole record names, if that is another account.
    pub central_person: Option<Document>,
    /// The last number of the trash then; `None` if an earlier version found the conflict.
    pub noted_at: Option<u64>,
    /// The record was another one's than who has the account now, or it is not known whose it was.
    pub is_of_another: bool,
    /// Empty for the record as a whole.
    pub path: Path,
    pub base: Option<Bson>,
    /// Of an identity: the two people without their secrets, as they were when this was found or decided.
    pub local: Option<Bson>,
    pub central: Option<Bson>,
    pub stands: Side,
    pub status: ConflictStatus,
    /// Who made the local edit; empty if that is not known.
    pub author: String,
    /// When, by this node's clock; `None` if that is not known.
    pub edited_at_ms: Option<i64>,
    /// Who made the centre's version, and when, in the words of the program that wrote it there.
    pub central_author: Option<String>,
    pub central_edited_at: Option<String>,
    pub found_at_ms: i64,
    /// `local`, `central` or `value`, once resolved, and by whom. Of an identity `same`, `new_id`, or `ended`
    /// if it turned out that nothing is to be decided.
    pub resolution: Option<String>,
    /// The value that was decided on, or the new id.
    pub value: Option<Bson>,
    pub resolved_by: Option<String>,
    pub resolved_at_ms: Option<i64>,
    pub notes: Vec<Note>,
    /// The name under which this store published it: the node's, or that of the node that it is a copy of.
    pub publisher: Option<String>,
    /// Found again after it was resolved: the centre's row is to be opened again.
    pub is_reopened: bool,
    /// Of a conflict that was taken over from a row of the centre: the fingerprint there, of values that may have had
    /// secrets in them.
    pub row_fingerprint: Option<String>,
    /// Of an identity: why the two may be two.
    pub why: Option<HoldReason>,
    /// One of the two values is not on this node: only the value that stands can be taken, or one's own be written.
    pub is_withheld: bool,
}

impl Conflict {
    /// A conflict that nobody has decided, about nothing yet.
    pub(in crate::store) fn new(id: String, key: RecordKey, subject: Subject) -> Conflict {
        Conflict {
            id,
            subject,
            key,
            owner: None,
            person: None,
            central_person: None,
            noted_at: None,
            is_of_another: false,
            path: Path::new(),
            base: None,
            local: None,
            central: None,
            stands: Side::Local,
            status: ConflictStatus::Open,
            author: String::new(),
            edited_at_ms: None,
            central_author: None,
            central_edited_at: None,
            found_at_ms: 0,
            resolution: None,
            value: None,
            resolved_by: None,
            resolved_at_ms: None,
            notes: Vec::new(),
            publisher: None,
            is_reopened: false,
            row_fingerprint: None,
            why: None,
            is_withheld: false,
        }
    }

    /// The question whether the two people of a hold are one.
    pub fn about_identity(hold: &Hold, local: &Document, central: &Document, author: String) -> Conflict {
        Conflict {
            local: Some(Bson::Document(Kind::Person.schema().without_secrets(local))),
            central: Some(Bson::Document(Kind::Person.schema().without_secrets(central))),
            author,
            why: Some(hold.why),
            found_at_ms: hold.since_ms,
            ..Conflict::new(hold.conflict.clone(), hold.local_key(), Subject::Identity)
        }
    }

    /// The question which of two versions of a record is to stand, that are no versions of one record.
    pub fn about_record(
        id: String,
        key: &RecordKey,
        local: &Document,
        central: Option<&Document>,
        author: String,
        found_at_ms: i64,
    ) -> Conflict {
        let schema = key.kind.schema();
        Conflict {
            local: Some(Bson::Document(schema.without_secrets(local))),
            central: central.map(|central| Bson::Document(schema.without_secrets(central))),
            author,
            found_at_ms,
            ..Conflict::new(id, key.clone(), Subject::Record)
        }
    }

    /// The value that was displaced.
    pub fn loser(&self) -> Option<&Bson> {
        match self.stands {
            Side::Local => self.central.as_ref(),
            Side::Remote => self.local.as_ref(),
        }
    }

    /// The value that the record was left with.
    pub fn standing(&self) -> Option<&Bson> {
        match self.stands {
            Side::Local => self.local.as_ref(),
            Side::Remote => self.central.as_ref(),
        }
    }

    /// Whether the path leads into a field that is never shown.
    pub fn is_secret(&self) -> bool {
        self.path.first().is_some_and(|field| self.key.kind.schema().is_secret(field))
    }

    pub fn is_identity(&self) -> bool {
        self.subject == Subject::Identity
    }

    /// Closes the conflict.
    pub fn resolve(&mut self, resolution: &str, value: Option<Bson>, by: &str, at_ms: i64) {
        self.status = ConflictStatus::Resolved;
        self.resolution = Some(resolution.to_owned());
        self.value = value;
        self.resolved_by = Some(by.to_owned());
        self.resolved_at_ms = Some(at_ms);
    }

    /// Adds a note unless it has been made before; returns whether it is new.
    pub fn note(&mut self, note: Note) -> bool {
        let is_known = self.notes.iter().any(|known| {
            (&known.reason, &known.resolution, &known.by) == (&note.reason, &note.resolution, &note.by)
                && same_option(known.value.as_ref(), note.value.as_ref())
        });
        if !is_known {
            self.notes.push(note);
        }
        !is_known
    }

    /// Tells whether two nodes, or one node at two times, mean the same clash by the same id.
    pub fn fingerprint(&self) -> Result<String, StoreError> {
        if let Some(known) = &self.row_fingerprint {
            return Ok(known.clone());
        }
        let mut seen = doc! {"stands": stands_name(self.stands)};
        insert_some(&mut seen, "base", &self.base);
        insert_some(&mut seen, "local", &self.local);
        insert_some(&mut seen, "central", &self.central);
        digest(&seen)
    }

    /// The id of a conflict over values. Two people who have an account or an id of a record one after the other may have
    /// clashes over the same values: a decision about the one closes nothing of the other's.
    pub(in crate::store) fn id_of_value(&self) -> Result<String, StoreError> {
        let (key, path) = (&self.key, self.path.clone());
        let mut named = doc! {"collection": key.kind.schema().collection, "id": &key.id, "path": path};
        insert_some(&mut named, "loser", &self.loser().cloned());
        if let Some(mut person) = self.person.clone().filter(|person| !person.is_empty()) {
            if let (Kind::Person, Some(field)) = (key.kind, self.path.first()) {
                // The value that clashes is another one on each side.
                person.remove(field);
            }
            named.insert("person", mark_of("", &person)?);
        }
        digest(&named)
    }

    /// Whether both are about the same losing value of a record.
    pub(in crate::store) fn is_about_same_value(&self, other: &Conflict) -> bool {
        (self.subject, &self.key, &self.path) == (other.subject, &other.key, &other.path)
            && same_option(self.loser(), other.loser())
    }

    /// An id made of what tells one conflict from all others.
    pub fn named(of: &Document) -> Result<String, StoreError> {
        digest(of)
    }

    pub(crate) fn encode(&self) -> Document {
        let mut row = doc! {
            "_id": &self.id,
            "type": self.subject.name(),
            "kind": i32::from(self.key.kind.schema().code),
            "id": &self.key.id,
            "path": self.path.clone(),
            "stands": stands_name(self.stands),
            "status": self.status.name(),
            "author": &self.author,
            "found_at": self.found_at_ms,
        };
        insert_some(&mut row, "edited_at", &self.edited_at_ms.map(Bson::Int64));
        insert_some(&mut row, "central_author", &self.central_author.clone().map(Bson::String));
        insert_some(&mut row, "central_edited_at", &self.central_edited_at.clone().map(Bson::String));
        insert_some(&mut row, "owner", &self.owner.clone().map(Bson::String));
        insert_some(&mut row, "identity", &self.person.clone().map(Bson::Document));
        insert_some(&mut row, "central_identity", &self.central_person.clone().map(Bson::Document));
        insert_some(&mut row, "noted_at", &self.noted_at.map(|number| Bson::Int64(number as i64)));
        insert_some(&mut row, "row_fingerprint", &self.row_fingerprint.clone().map(Bson::String));
        insert_some(&mut row, "base", &self.base);
        insert_some(&mut row, "local", &self.local);
        insert_some(&mut row, "central", &self.central);
        insert_some(&mut row, "resolution", &self.resolution.clone().map(Bson::String));
        insert_some(&mut row, "value", &self.value);
        insert_some(&mut row, "resolved_by", &self.resolved_by.clone().map(Bson::String));
        insert_some(&mut row, "resolved_at", &self.resolved_at_ms.map(Bson::Int64));
        insert_some(&mut row, "publisher", &self.publisher.clone().map(Bson::String));
        insert_some(&mut row, "why", &self.why.map(|why| Bson::from(why.name())));
        if !self.notes.is_empty() {
            row.insert("notes", self.notes.iter().map(Note::encode).collect::<Vec<_>>());
        }
        if self.is_reopened {
            row.insert("reopened", true);
        }
        if self.is_withheld {
            row.insert("withheld", true);
        }
        if self.is_of_another {
            row.insert("of_another", true);
        }
        row
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Conflict, StoreError> {
        let row = Fields::of(bytes, "a conflict")?;
        Ok(Conflict {
            base: row.value_if_any("base")?,
            local: row.value_if_any("local")?,
            central: row.value_if_any("central")?,
            value: row.value_if_any("value")?,
            notes: row.rows_if_any("notes")?.into_iter().map(Note::decode).collect::<Result<_, _>>()?,
            ..Conflict::head_in(row)?
        })
    }

    /// The conflict without its values and notes, which may be large.
    pub(crate) fn head(row: &RawDocument) -> Result<Conflict, StoreError> {
        Conflict::head_in(Fields::of_raw(row, "a conflict"))
    }

    fn head_in(row: Fields<'_>) -> Result<Conflict, StoreError> {
        let text = |field: &str| Ok::<_, StoreError>(row.text_if_any(field)?.map(str::to_owned));
        // Rows of earlier versions do not say: there was only one.
        let subject = row.word_if_any("type", Subject::named)?.unwrap_or(Subject::Value);
        Ok(Conflict {
            path: row.texts("path")?,
            owner: text("owner")?,
            person: row.document_if_any("identity")?,
            central_person: row.document_if_any("central_identity")?,
            noted_at: row.count_if_any("noted_at")?,
            is_of_another: row.flag_if_any("of_another")?,
            stands: row.word("stands", stands_named)?,
            status: row.word("status", ConflictStatus::named)?,
            author: row.text("author")?.to_owned(),
            edited_at_ms: row.int64_if_any("edited_at")?,
            central_author: text("central_author")?,
            central_edited_at: text("central_edited_at")?,
            found_at_ms: row.int64("found_at")?,
            resolution: text("resolution")?,
            resolved_by: text("resolved_by")?,
            resolved_at_ms: row.int64_if_any("resolved_at")?,
            publisher: text("publisher")?,
            is_reopened: row.flag_if_any("reopened")?,
            row_fingerprint: text("row_fingerprint")?,
            why: row.word_if_any("why", HoldReason::named)?,
            is_withheld: row.flag_if_any("withheld")?,
            ..Conflict::new(row.text("_id")?.to_owned(), row.key()?, subject)
        })
    }
}

/// How rows and answers name the side whose value stands.
pub fn stands_name(stands: Side) -> &'static str {
    match stands {
        Side::Local => "local",
        Side::Remote => "central",
    }
}

fn stands_named(name: &str) -> Option<Side> {
    [Side::Local, Side::Remote].into_iter().find(|side| stands_name(*side) == name)
}

pub(crate) fn digest(of: &Document) -> Result<String, StoreError> {
    Ok(hex::encode(&Sha256::digest(encode(of)?)[..16]))
}
