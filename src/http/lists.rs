//! Floor 4. Collections over HTTP, streamed.
//!
//! The store is read in batches, each in a transaction of its own that ends before the batch is sent: a
//! client that reads one byte a second holds nothing but its connection.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::caller::Caller;
use super::error::ApiError;
use super::records::{hidden_fields, list_scope, shown_bytes};
use super::{CollectionShape, Node};
use crate::domain::access::{Actor, Scope, Target, Verb};
use crate::domain::record::Kind;
use crate::domain::schema::{DOCUMENT_PAGE_FIELD, Owner, Route, Schema, Shape};
use crate::store::{RecordPage, StoredRecord};

/// Most records read from the store at once.
const BATCH_RECORDS_MAX: usize = 500;
/// Roughly the most bytes read from the store at once.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Largest `limit` that a client may ask for.
const LIMIT_RECORDS_MAX: usize = 10_000;

/// Which records a request lists.
#[derive(Clone)]
struct Selection {
    schema: &'static Schema,
    /// Only records of this account.
    owner: Option<String>,
    /// Only documents of this page of life.
    page_id: Option<String>,
    /// Only people found by these words.
    query: Option<String>,
}

impl Selection {
    fn batch(&self, node: &Node, after: Option<&str>, max: usize) -> Result<RecordPage, ApiError> {
        let snapshot = node.store.read()?;
        let kind = self.schema.kind;
        let page = match (&self.query, &self.owner) {
            (Some(query), None) => snapshot.search_people(query, after, max)?,
            (_, Some(owner)) if self.schema.owner == Owner::Itself => {
                let own = snapshot.find(kind, owner)?.filter(|own| after.is_none_or(|after| own.id.as_str() > after));
                RecordPage { records: own.into_iter().collect(), more: false }
            }
            (_, Some(owner)) => snapshot.list_of(kind, owner, after, max, BATCH_BYTES_MAX)?,
            (None, None) => snapshot.list(kind, after, max, BATCH_BYTES_MAX)?,
        };
        Ok(page)
    }

    fn includes(&self, record: &StoredRecord) -> bool {
        let Some(page_id) = &self.page_id else {
            return true;
        };
        record.document.get_str(DOCUMENT_PAGE_FIELD).is_ok_and(|page| page == page_id)
    }
}

pub(crate) fn list(
    node: &Arc<Node>,
    schema: &'static Schema,
    route: &'static Route,
    caller: &Caller,
    at: &BTreeMap<String, String>,
    request: &Request,
) -> Result<Response, ApiError> {
    let query = Query::parse(request)?;
    let mut selection = Selection { schema, owner: None, page_id: None, query: None };
    match (route.shape, at.get("person_id")) {
        (Shape::OfPerson | Shape::OfPage, Some(person)) => {
            let acl = node.acl();
            acl.authorize(&caller.principal, Verb::Get, route.acl, schema.kind, Target::PathPerson(person))?;
            selection.owner = Some(person.clone());
            selection.page_id = at.get("id").filter(|_| route.shape == Shape::OfPage).cloned();
        }
        _ => match (list_scope(node, schema, route, caller)?, &caller.principal.actor) {
            (Scope::Everyone, _) => {}
            (Scope::Own, Actor::Person(id)) => selection.owner = Some(id.clone()),
            (Scope::Own, _) => return Err(ApiError::Forbidden),
        },
    }
    if schema.kind == Kind::Person && selection.owner.is_none() {
        selection.query = query.words;
    }
    let lister = Lister {
        node: Arc::clone(node),
        selection,
        hidden: hidden_fields(node, schema, caller),
        after: query.after,
        left: query.limit,
        state: State::Start,
    };
    lister.respond(request.uri().path())
}

struct Query {
    limit: Option<usize>,
    after: Option<String>,
    words: Option<String>,
}

impl Query {
    fn parse(request: &Request) -> Result<Query, ApiError> {
        let mut query = Query { limit: None, after: None, words: None };
        for (name, value) in super::changes::query_pairs(request.uri()) {
            match name.as_str() {
                "limit" => match value.parse::<usize>() {
                    Ok(limit) if (1..=LIMIT_RECORDS_MAX).contains(&limit) => query.limit = Some(limit),
                    _ => {
                        let message = format!("limit: must be a number from 1 to {LIMIT_RECORDS_MAX}");
                        return Err(ApiError::invalid("limit", message));
                    }
                },
                "after" => query.after = Some(value),
                "q" if !value.trim().is_empty() => query.words = Some(value),
                _ => {}
            }
        }
        Ok(query)
    }
}

enum State {
    Start,
    Middle,
    End,
}

/// Renders the selected records batch by batch.
struct Lister {
    node: Arc<Node>,
    selection: Selection,
    hidden: &'static [&'static str],
    after: Option<String>,
    /// Records still wanted, when the client gave a limit.
    left: Option<usize>,
    state: State,
}

impl Lister {
    fn respond(mut self, path: &str) -> Result<Response, ApiError> {
        let limit = self.left;
        let first = self.next_chunk()?.unwrap_or_default();
        let mut link = None;
        if let (Some(limit), Some(after), Some(0)) = (limit, &self.after, self.left) {
            let more = !self.selection.batch(&self.node, Some(after), 1)?.records.is_empty();
            link = more.then(|| {
                let after = utf8_percent_encode(after, NON_ALPHANUMERIC);
                let words = self.selection.query.as_deref().map_or_else(String::new, |words| {
                    format!("&q={}", utf8_percent_encode(words, NON_ALPHANUMERIC))
                });
                format!("<{path}?limit={limit}&after={after}{words}>; rel=\"next\"")
            });
        }
        let body = if matches!(self.state, State::End) {
            Body::from(first)
        } else {
            let rest = stream::try_unfold(self, |mut lister| async move {
                // Reading may wait for the disk; the async workers must not.
                let read = tokio::task::spawn_blocking(move || lister.next_chunk().map(|chunk| (chunk, lister)));
                match read.await {
                    Ok(Ok((Some(chunk), lister))) => Ok(Some((chunk, lister))),
                    Ok(Ok((None, _))) => Ok(None),
                    // The connection is cut, so that the client sees an incomplete answer.
                    _ => Err(std::io::Error::other("the list could not be read to its end")),
                }
            });
            use futures_util::StreamExt as _;
            Body::from_stream(stream::once(async move { Ok(first) }).chain(rest))
        };
        let json = HeaderValue::from_static("application/json");
        let mut response = ([(header::CONTENT_TYPE, json)], body).into_response();
        if let Some(link) = link.and_then(|link| HeaderValue::from_str(&link).ok()) {
            response.headers_mut().insert(header::LINK, link);
        }
        Ok(response)
    }

    /// The next piece of the JSON text; `None` after the end.
    fn next_chunk(&mut self) -> Result<Option<Bytes>, ApiError> {
        let mut text = match self.state {
            State::Start => vec![b'['],
            State::Middle => vec![b','],
            State::End => return Ok(None),
        };
        let mut has_record = false;
        loop {
            let max = self.left.map_or(BATCH_RECORDS_MAX, |left| left.min(BATCH_RECORDS_MAX));
            let page = self.selection.batch(&self.node, self.after.as_deref(), max)?;
            if let Some(last) = page.records.last() {
                self.after = Some(last.id.clone());
            }
            for record in page.records.iter().filter(|record| self.selection.includes(record)) {
                if has_record {
                    text.push(b',');
                }
                has_record = true;
                let rows = self.node.settings.collection_shape == CollectionShape::Rows;
                if rows {
                    text.push(b'[');
                }
                text.append(&mut shown_bytes(&self.node, &record.document, self.hidden)?);
                if rows {
                    text.push(b']');
                }
                self.left = self.left.map(|left| left.saturating_sub(1));
            }
            let is_over = !page.more || self.left == Some(0);
            if is_over {
                if !has_record && matches!(self.state, State::Middle) {
                    text.pop();
                }
                text.push(b']');
                self.state = State::End;
                return Ok(Some(text.into()));
            }
            // A batch may hold nothing that was asked for; a chunk does, or the comma would be wrong.
            if has_record {
                self.state = State::Middle;
                return Ok(Some(text.into()));
            }
        }
    }
}
