//! Floor 4. Reading one record over HTTP.

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use axum::response::Response;
use bson::RawDocument;

use crate::domain::access::Verb;
use crate::domain::record::fold_account;
use crate::http::access::caller::Caller;
use crate::http::audit_observer::AuditEvent;
use crate::http::auth::emergency::{self, Subject};
use crate::http::error::ApiError;
use crate::http::records::etag::{etag, names_etag, not_modified};
use crate::http::records::item::{Found, ItemTarget};
use crate::http::records::render::{hidden_fields, hidden_from, show_into, text_response, uncovered};
use crate::http::state::app_state::AppState;
use crate::http::workload::{self, Work, text_of};
use crate::store::{Kept, KeptKey, KeptOf};

impl ItemTarget<'_> {
    /// The text of the record that the path leads to, if the caller may read it as anybody may whom the rules let.
    /// Texts are kept with the view that they were made of; who may see them is asked each time. For a large record
    /// instead what it takes, if `work` does not cover that.
    fn text(
        &self,
        node: &AppState,
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
        node: &Arc<AppState>,
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
    fn found_again(&self, node: &AppState, owner: Option<&str>) -> Result<Found, ApiError> {
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
        node: &Arc<AppState>,
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
        node: &Arc<AppState>,
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

/// The text of a large record that takes so much, made when there is work for it and a place among the answers. `made` says
/// how much is needed where the work does not cover it.
async fn large_text(
    node: &Arc<AppState>,
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

/// The text of a record, with what is known of it.
fn text(
    node: &AppState,
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

pub(crate) async fn read(
    node: &Arc<AppState>,
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
    let shown = AuditEvent::record(schema, &kept.id, kept.owner.clone()).in_emergency(opening);
    if names_etag(headers, header::IF_NONE_MATCH, &kept.etag) == Some(true) {
        return Ok(shown.attach_to(not_modified(&kept.etag)));
    }
    Ok(shown.attach_to(text_response(kept.text.clone(), &kept.etag)))
}
