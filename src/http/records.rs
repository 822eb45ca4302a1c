//! Floor 4. One record over HTTP: which one a path names, who may have it, how it is shown.

use std::io::Write;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bson::{Document, RawDocument};
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

use super::Node;
use super::caller::Caller;
use super::emergency::{self, Subject};
use super::error::ApiError;
use super::extract::{At, names_etag};
use super::witness::Seen;
use super::workload::{self, Work, changing, is_large, reading, text_of};
use crate::domain::access::{Acl, Denied, Grant, Target, Verb};
use crate::domain::json::Shown;
use crate::domain::record::{Kind, fold_account};
use crate::domain::schema::{Owner, Route, Schema, Shape};
use crate::store::{Kept, KeptKey, KeptOf, Snapshot, StoreError, StoredRecord};

/// The record that a path names.
pub(crate) struct ItemTarget<'a> {
    pub(crate) schema: &'static Schema,
    acl_name: &'static str,
    pub(crate) id: &'a str,
    /// The person in the path, where it has one besides the id.
    pub(crate) path_owner: Option<&'a str>,
}

impl<'a> ItemTarget<'a> {
    pub(crate) fn new(schema: &'static Schema, route: &'static Route, at: &'a At) -> Self {
        let (id, path_owner) = match (route.shape, schema.kind) {
            (Shape::ItemOfPerson, _) => (at.id(), Some(at.person())),
            (_, Kind::Person) => (at.person(), None),
            _ => (at.id(), None),
        };
        ItemTarget { schema, acl_name: route.acl, id, path_owner }
    }

    pub(crate) fn absent(&self) -> ApiError {
        ApiError::NotFound(self.absence())
    }

    pub(crate) fn absence(&self) -> String {
        format!("{} not found", self.schema.noun)
    }

    /// The person that the path names, if it names one.
    fn path_person(&self) -> Option<&'a str> {
        match self.schema.kind {
            Kind::Person => Some(self.id),
            _ => self.path_owner,
        }
    }

    /// Checks what can be known before the record is read; says nothing about whether it exists.
    pub(crate) fn authorize_path(&self, acl: &Acl, caller: &Caller, verb: Verb) -> Result<(), ApiError> {
        let target = match self.path_person() {
            Some(person) => Target::PathPerson(person),
            None if self.schema.owner == Owner::Nobody => Target::Record { owner: None },
            None => {
                acl.authorize_node(&caller.principal, verb, self.acl_name)?;
                return Ok(());
            }
        };
        acl.permits(&caller.principal, verb, self.acl_name, self.schema.kind, target)?;
        Ok(())
    }

    /// The grant to use `verb` on a record that belongs to `owner`. What must not show is absent.
    pub(crate) fn authorize_record(
        &self,
        acl: &Acl,
        caller: &Caller,
        verb: Verb,
        owner: Option<&str>,
    ) -> Result<Grant, ApiError> {
        let target = match self.path_person() {
            Some(person) => Target::PathPerson(person),
            None => Target::Record { owner },
        };
        acl.authorize(&caller.principal, verb, self.acl_name, self.schema.kind, target).map_err(|denied| {
            match denied {
                Denied::Hidden => ApiError::Hidden(self.absence()),
                Denied::Forbidden => ApiError::Forbidden,
            }
        })
    }

    /// Whether the path leads to a record that belongs to `owner`, and the caller may use `verb` on it.
    pub(crate) fn may_reach(&self, acl: &Acl, caller: &Caller, verb: Verb, owner: Option<&str>) -> bool {
        self.leads_to(owner) && self.authorize_record(acl, caller, verb, owner).is_ok()
    }

    /// The record with the id of the path, in whatever book it is.
    pub(crate) fn find(&self, snapshot: &Snapshot) -> Result<Option<Found>, ApiError> {
        Ok(snapshot.find(self.schema.kind, self.id)?.map(Found))
    }

    /// Whether the path leads to a record: a page only through its own book.
    pub(crate) fn leads_to(&self, owner: Option<&str>) -> bool {
        match self.path_owner {
            Some(person) => owner == Some(fold_account(person).as_str()),
            None => true,
        }
    }

    /// Whether the record is in the book that the path names, if [`ItemTarget::leads_to`] leads there: not in that of somebody
    /// else who has the account in another spelling.
    pub(crate) fn is_in_book(&self, view: &Snapshot, record: &RawDocument) -> Result<bool, StoreError> {
        let spelling = match self.path_owner {
            Some(person) => view.book_spelling(person)?,
            None => None,
        };
        Ok(self.schema.is_in_book(record, spelling))
    }

    /// The answer when the record stands in another book than the path says: absent to everybody, and an attempt
    /// to reach it by those who may not have it.
    pub(crate) fn misfiled(&self, acl: &Acl, caller: &Caller, owner: Option<&str>) -> ApiError {
        match acl.may_read(&caller.principal, self.schema.kind, owner) {
            true => self.absent(),
            false => ApiError::Hidden(self.absence()),
        }
    }

    /// The record that the path leads to, and the grant to use `verb` on it; an error if it is absent or
    /// as good as.
    pub(crate) fn authorized(
        &self,
        node: &Node,
        caller: &Caller,
        verb: Verb,
    ) -> Result<(Found, Grant), ApiError> {
        self.authorize_path(&node.acl(), caller, verb)?;
        let view = node.store.read()?;
        self.check_noted(&view, node, caller, verb)?;
        let found = self.find(&view)?.ok_or_else(|| self.absent())?;
        let grant = self.authorize_found(node, caller, verb, found.owner(self.schema).as_deref())?;
        if !self.is_in_book(&view, found.raw())? {
            return Err(self.absent());
        }
        Ok((found, grant))
    }

    /// Refuses by the note of whose the record is, before it is read: what the caller may not have takes as long as what is
    /// not there, however large it is, and nobody else learns that it is damaged.
    fn check_noted(&self, view: &Snapshot, node: &Node, caller: &Caller, verb: Verb) -> Result<(), ApiError> {
        match view.noted_owner(self.schema.kind, self.id)? {
            Some(noted) => self.authorize_found(node, caller, verb, noted.account()).map(drop),
            None => Ok(()),
        }
    }

    /// What changing the record takes that the path leads to, if the caller may use `verb` on it.
    pub(crate) fn weight(&self, node: &Node, caller: &Caller, verb: Verb) -> Result<usize, ApiError> {
        let view = node.store.read()?;
        self.check_noted(&view, node, caller, verb)?;
        let stored = view.look(self.schema.kind, self.id, |_, stored| changing(stored))?;
        Ok(stored.unwrap_or(0))
    }

    /// The grant to use `verb` on a record that was found and belongs to `owner`, if the path leads to it.
    pub(crate) fn authorize_found(
        &self,
        node: &Node,
        caller: &Caller,
        verb: Verb,
        owner: Option<&str>,
    ) -> Result<Grant, ApiError> {
        let acl = node.acl();
        if !self.leads_to(owner) {
            return Err(self.misfiled(&acl, caller, owner));
        }
        self.authorize_record(&acl, caller, verb, owner)
    }

    /// The text of the record that the path leads to, if the caller may read it as anybody may whom the rules let.
    /// Texts are kept with the view that they were made of; who may see them is asked each time. For a large record
    /// instead what it takes, if `work` does not cover that.
    fn text(
        &self,
        node: &Node,
        caller: &Caller,
        hidden: &[&str],
        work: Option<&Work>,
    ) -> Result<Result<Arc<Kept>, usize>, ApiError> {
        self.authorize_path(&node.acl(), caller, Verb::Get)?;
        let view = node.store.read()?;
        let form = u8::from(hidden.is_empty());
        let key = KeptKey { kind: self.schema.kind, of: KeptOf::Record(self.id.to_owned()), form };
        let is_shared = self.path_owner.is_some_and(|person| !matches!(view.book_spelling(person), Ok(None)));
        if let Some(kept) = view.kept(&key).filter(|_| !is_shared) {
            self.authorize_found(node, caller, Verb::Get, kept.owner.as_deref())?;
            return Ok(Ok(kept));
        }
        self.check_noted(&view, node, caller, Verb::Get)?;
        let look = |id: &str, record: &RawDocument| {
            let owner = self.schema.owner_in(record);
            self.authorize_found(node, caller, Verb::Get, owner.as_deref())?;
            if !self.is_in_book(&view, record)? {
                return Err(self.absent());
            }
            if let Some(bytes) = uncovered(node, record, hidden, work)? {
                return Ok(Err(bytes));
            }
            text(node, id, record, owner, hidden).map(|text| Ok(Arc::new(text)))
        };
        let made = view.look(self.schema.kind, self.id, look)?.ok_or_else(|| self.absent())??;
        if let Ok(made) = &made {
            view.keep(key, Arc::clone(made));
        }
        Ok(made)
    }

    /// The text of a large record, or after a refusal what an emergency shows.
    async fn text_after(
        &self,
        refusal: Result<usize, ApiError>,
        node: &Arc<Node>,
        caller: &Caller,
        headers: &HeaderMap,
    ) -> Result<(Arc<Kept>, Option<u64>), ApiError> {
        let schema = self.schema;
        let refusal = match refusal {
            Err(refusal) => refusal,
            Ok(bytes) => {
                let hidden = || hidden_fields(node, schema, caller);
                let made = |work: &Work| self.text(node, caller, hidden(), Some(work));
                return Ok((large_text(node, caller, bytes, made).await?, None));
            }
        };
        let (found, opening) = self.readable_after(refusal, node, caller, headers).await?;
        let hidden = hidden_from(node, schema, caller, opening);
        let owner = found.owner(schema);
        let Some(bytes) = uncovered(node, found.raw(), hidden, None)? else {
            return Ok((Arc::new(text(node, &found.0.id, found.raw(), owner, hidden)?), opening));
        };
        // Read again when there is room for it: as many as wait would hold it.
        drop(found);
        let made = |work: &Work| {
            // The emergency may be over by now; who the caller is was compared after the wait.
            opening.map_or(Ok(()), |opening| emergency::check_open(node, opening))?;
            let found = self.found_again(node, owner.as_deref())?;
            if let Some(bytes) = uncovered(node, found.raw(), hidden, Some(work))? {
                return Ok(Err(bytes));
            }
            let text = text(node, &found.0.id, found.raw(), owner.clone(), hidden)?;
            Ok(Ok(Arc::new(text)))
        };
        Ok((large_text(node, caller, bytes, made).await?, opening))
    }

    /// The record that the path leads to, if it is still of this account.
    fn found_again(&self, node: &Node, owner: Option<&str>) -> Result<Found, ApiError> {
        let view = node.store.read()?;
        let found = self.find(&view)?.ok_or_else(|| self.absent())?;
        if found.owner(self.schema).as_deref() != owner || !self.is_in_book(&view, found.raw())? {
            return Err(ApiError::Hidden(self.absence()));
        }
        Ok(found)
    }

    /// The record that the path leads to, if the caller may read it, and the emergency under which they may if not
    /// otherwise.
    pub(crate) async fn readable(
        &self,
        node: &Arc<Node>,
        caller: &Caller,
        headers: &HeaderMap,
    ) -> Result<(Found, Option<u64>), ApiError> {
        match self.authorized(node, caller, Verb::Get) {
            Ok((found, _)) => Ok((found, None)),
            Err(refusal) => self.readable_after(refusal, node, caller, headers).await,
        }
    }

    /// The record in spite of a refusal, if there is an emergency, and which.
    async fn readable_after(
        &self,
        refusal: ApiError,
        node: &Arc<Node>,
        caller: &Caller,
        headers: &HeaderMap,
    ) -> Result<(Found, Option<u64>), ApiError> {
        let is_absent = matches!(refusal, ApiError::NotFound(_)) && self.path_person().is_none();
        if !is_absent && !matches!(refusal, ApiError::Forbidden | ApiError::Hidden(_)) {
            return Err(refusal);
        }
        let owner = match self.path_person() {
            // The caller may read what is that person's, and this is not.
            Some(_) if self.authorize_path(&node.acl(), caller, Verb::Get).is_ok() => return Err(refusal),
            Some(person) => fold_account(person),
            None => {
                let view = node.store.read()?;
                let owner = match view.noted_owner(self.schema.kind, self.id)? {
                    Some(noted) => noted.account().map(str::to_owned),
                    None => self.find(&view)?.and_then(|found| found.owner(self.schema)),
                };
                let Some(owner) = owner else {
                    emergency::check(node, caller, headers, self.acl_name)?;
                    return Err(refusal);
                };
                owner
            }
        };
        let subject = self.path_person().map_or(Subject::Owner(&owner), Subject::Named);
        let Some(opening) = emergency::admit(node, caller, headers, self.acl_name, subject).await? else {
            return Err(refusal);
        };
        // Read again: it is theirs now, whatever it was, or it is not shown.
        Ok((self.found_again(node, Some(&owner))?, Some(opening)))
    }
}

/// A record as it is stored.
pub(crate) struct Found(pub(crate) StoredRecord);

impl Found {
    pub(crate) fn raw(&self) -> &RawDocument {
        &self.0.document
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.document.as_bytes()
    }

    /// Decoded, for who changes it.
    pub(crate) fn document(&self) -> Result<Document, ApiError> {
        to_document(self.raw())
    }

    /// The account that it belongs to, folded.
    pub(crate) fn owner(&self, schema: &Schema) -> Option<String> {
        schema.owner_in(self.raw())
    }

    /// An answer that shows it, for the audit.
    pub(crate) fn seen(&self, schema: &Schema) -> Seen {
        Seen::record(schema, &self.0.id, self.owner(schema))
    }
}

/// The text of a large record that takes so much, made when there is work for it and a place among the answers. `made` says
/// how much is needed where the work does not cover it.
async fn large_text(
    node: &Arc<Node>,
    caller: &Caller,
    mut bytes: usize,
    made: impl Fn(&Work) -> Result<Result<Arc<Kept>, usize>, ApiError>,
) -> Result<Arc<Kept>, ApiError> {
    let mut text_bytes = text_of(bytes);
    loop {
        workload::wait_for_place(node, caller, text_bytes).await?;
        let work = workload::take(node, caller, bytes).await?;
        match work.run(|| made(&work))? {
            Ok(made) if caller.answer.place(made.text.len()) => return Ok(made),
            Ok(made) => text_bytes = made.text.len(),
            Err(needed) => (bytes, text_bytes) = (needed, needed),
        }
    }
}

/// What making text of a large record takes, if that is not covered. Without `work` by its length, and with it as it is:
/// text with many signs that are written as escapes is several times as long.
pub(crate) fn uncovered(
    node: &Node,
    record: &RawDocument,
    hidden: &[&str],
    work: Option<&Work>,
) -> Result<Option<usize>, ApiError> {
    if !is_large(record) {
        return Ok(None);
    }
    let bytes = record.as_bytes().len();
    let Some(work) = work else {
        return Ok(Some(reading(bytes)));
    };
    let bytes = bytes.saturating_add(work.run(|| shown_bytes(node, record, hidden))?);
    Ok((!work.covers(bytes)).then_some(bytes))
}

/// Counts what is written, and keeps nothing of it.
pub(crate) struct Length(pub(crate) usize);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The text of a record, with what is known of it.
fn text(
    node: &Node,
    id: &str,
    record: &RawDocument,
    owner: Option<String>,
    hidden: &[&str],
) -> Result<Kept, ApiError> {
    // Field names and quotes of JSON take about as much as lengths and types of BSON.
    let mut text = Vec::with_capacity(record.as_bytes().len());
    show_into(node, record, hidden, &mut text)?;
    Ok(Kept { text: text.into(), etag: etag(record.as_bytes()), id: id.to_owned(), owner, next: None })
}

pub(crate) fn to_document(raw: &RawDocument) -> Result<Document, ApiError> {
    Document::try_from(raw).map_err(|e| StoreError::Damaged(e.to_string()).into())
}

/// The version of stored bytes.
pub(crate) fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", hex::encode(&Sha256::digest(bytes)[..16]))
}

/// The answer when the client has this version already.
pub(crate) fn not_modified(etag: &str) -> Response {
    (StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response()
}

/// `If-Match` and `If-None-Match` of a write to what is stored now, if anything is.
pub(crate) fn check_precondition(headers: &HeaderMap, stored: Option<&[u8]>) -> Result<(), ApiError> {
    if ![header::IF_MATCH, header::IF_NONE_MATCH].iter().any(|name| headers.contains_key(name)) {
        return Ok(());
    }
    let names = |header| match stored {
        Some(bytes) => names_etag(headers, header, &etag(bytes)),
        None => headers.contains_key(header).then_some(false),
    };
    if names(header::IF_MATCH) == Some(false) || names(header::IF_NONE_MATCH) == Some(true) {
        return Err(ApiError::PreconditionFailed);
    }
    Ok(())
}

/// What stands in a path as it is: the alphabet of new ids.
const PATH_CHARS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b':').remove(b'-');

/// The path of a record, by its id and the account that it belongs to.
pub(crate) fn item_path(schema: &Schema, id: &str, owner: Option<&str>) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, PATH_CHARS).to_string();
    let (id, owner) = (&encoded(id), &encoded(owner.unwrap_or_default()));
    let route = schema.routes.iter().find(|route| matches!(route.shape, Shape::Item | Shape::ItemOfPerson));
    route.map_or_else(String::new, |route| match route.shape {
        Shape::ItemOfPerson => route.path.replace("{person_id}", owner).replace("{id}", id),
        _ => route.path.replace("{person_id}", id).replace("{id}", id),
    })
}

/// Fields that this caller is not shown.
pub(crate) fn hidden_fields(
    node: &Node,
    schema: &'static Schema,
    caller: &Caller,
) -> &'static [&'static str] {
    let shows_hashes = node.settings.expose_password_hashes && caller.principal.is_root();
    if shows_hashes { &[] } else { schema.secret_fields }
}

/// The same for a read, perhaps in an emergency: that shows no hash to anybody.
pub(crate) fn hidden_from(
    node: &Node,
    schema: &'static Schema,
    caller: &Caller,
    opening: Option<u64>,
) -> &'static [&'static str] {
    if opening.is_some() { schema.secret_fields } else { hidden_fields(node, schema, caller) }
}

/// Appends a record as clients see it.
pub(crate) fn show_into(
    node: &Node,
    document: &RawDocument,
    hidden: &[&str],
    text: impl Write,
) -> Result<(), ApiError> {
    let shown = Shown { document, dates: node.settings.date_format, hidden };
    serde_json::to_writer(text, &shown).map_err(|e| StoreError::Damaged(e.to_string()).into())
}

/// How many bytes [`show_into`] appends.
pub(crate) fn shown_bytes(node: &Node, document: &RawDocument, hidden: &[&str]) -> Result<usize, ApiError> {
    let mut length = Length(0);
    show_into(node, document, hidden, &mut length)?;
    Ok(length.0)
}

pub(crate) fn record_response(
    node: &Node,
    schema: &'static Schema,
    caller: &Caller,
    record: &RawDocument,
) -> Result<Response, ApiError> {
    let hidden = hidden_fields(node, schema, caller);
    // As long as it was counted: a text that grows takes up to twice its length, which stays with the answer.
    let mut text = Vec::with_capacity(shown_bytes(node, record, hidden)?);
    show_into(node, record, hidden, &mut text)?;
    Ok(text_response(text.into(), &etag(record.as_bytes())))
}

fn text_response(text: Bytes, etag: &str) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], [(header::ETAG, etag)], text).into_response()
}

pub(crate) async fn read(
    node: &Arc<Node>,
    target: &ItemTarget<'_>,
    caller: &Caller,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let schema = target.schema;
    let (kept, opening) = match target.text(node, caller, hidden_fields(node, schema, caller), None) {
        Ok(Ok(kept)) => (kept, None),
        // Rare, and long: not a part of what every read carries along.
        Ok(Err(bytes)) => Box::pin(target.text_after(Ok(bytes), node, caller, headers)).await?,
        Err(refusal) => Box::pin(target.text_after(Err(refusal), node, caller, headers)).await?,
    };
    let shown = Seen::record(schema, &kept.id, kept.owner.clone()).under(opening);
    if names_etag(headers, header::IF_NONE_MATCH, &kept.etag) == Some(true) {
        return Ok(shown.on(not_modified(&kept.etag)));
    }
    Ok(shown.on(text_response(kept.text.clone(), &kept.etag)))
}
