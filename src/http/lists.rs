//! Floor 4. Collections over HTTP, streamed.
//!
//! The store is read in batches, each in a transaction of its own that ends before the batch is sent: a
//! client that reads one byte a second holds nothing but its connection.

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use bson::RawDocument;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::caller::Caller;
use super::emergency::{Subject, admit};
use super::error::ApiError;
use super::extract::{At, query_pairs};
use super::records::{hidden_from, show_into, uncovered};
use super::witness::Seen;
use super::workload::{self, Work, is_large};
use super::{CollectionShape, Node};
use crate::domain::access::{Actor, Scope, Target, Verb};
use crate::domain::record::Kind;
use crate::domain::schema::{DOCUMENT_PAGE_FIELD, Owner, Route, Schema, Shape};
use crate::store::{DamagedRow, Kept, KeptKey, KeptOf, Part, Snapshot, StoreError};

/// Most records read from the store at once.
const BATCH_RECORDS_MAX: usize = 500;
/// Most records of a person that are read where the request is: a thread of its own would take longer than reading
/// a book of so many pages does.
const SHORT_RECORDS_MAX: usize = 16;
/// Roughly the most bytes read from the store at once; a list that nobody takes holds so much.
const BATCH_BYTES_MAX: usize = 256 * 1024;
/// Longest text that people are searched by: each of its words is a walk through an index.
const WORDS_CHARS_MAX: usize = 100;
/// Lists only what belongs to this account.
const PERSON: &str = "person";

/// How many records of the kind are damaged on the node's disk, and therefore in no list.
pub(super) const X_DAMAGED: header::HeaderName = header::HeaderName::from_static("x-damaged");

/// Which records a request lists.
struct Selection {
    kind: Kind,
    who: Who,
    /// Only documents of this page of life.
    page_id: Option<String>,
}

enum Who {
    Everyone,
    /// Records of this account.
    Owner(String),
    /// People found by their names, in order of `_id`.
    Found(Vec<String>),
}

impl Selection {
    /// Shows the next records that were asked for, at most so many. Returns where to go on; `None` at the end.
    fn visit(
        &self,
        snapshot: &Snapshot,
        after: Option<&str>,
        max: usize,
        mut show: impl FnMut(&str, &RawDocument) -> Result<(), ApiError>,
    ) -> Result<Option<String>, ApiError> {
        let part = Part { after, max, bytes_max: BATCH_BYTES_MAX, is_without_damaged: true };
        let kind = self.kind;
        let mut shown = Ok(());
        let spelling = match &self.who {
            Who::Owner(owner) => snapshot.book_spelling(owner)?,
            Who::Everyone | Who::Found(_) => None,
        };
        let mut include = |id: &str, document: &RawDocument| {
            if shown.is_ok() && self.includes(document) && kind.schema().is_in_book(document, spelling) {
                shown = show(id, document);
            }
        };
        let next = match &self.who {
            Who::Everyone => snapshot.visit(kind, part, include)?,
            Who::Owner(owner) if kind.schema().owner == Owner::Itself => {
                snapshot.look(kind, owner, |id, own| {
                    if after.is_none_or(|after| id > after) {
                        include(id, own);
                    }
                })?;
                None
            }
            Who::Owner(owner) => snapshot.visit_of(kind, owner, part, include)?,
            Who::Found(ids) => {
                let start = ids.partition_point(|id| after.is_some_and(|after| id.as_str() <= after));
                let (now, later) = ids[start..].split_at(max.min(ids.len() - start));
                for id in now {
                    match snapshot.look_at(kind, id, &mut include) {
                        Ok(_) | Err(StoreError::DamagedRow(_)) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                now.last().filter(|_| !later.is_empty()).cloned()
            }
        };
        shown.map(|()| next)
    }

    fn includes(&self, document: &RawDocument) -> bool {
        let Some(page_id) = &self.page_id else {
            return true;
        };
        document.get_str(DOCUMENT_PAGE_FIELD).is_ok_and(|page| page == page_id)
    }

    /// The id of the last of `limit` records after `after`, if others come after it.
    fn end_of_page(
        &self,
        node: &Node,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Option<String>, ApiError> {
        let (mut cursor, mut left, mut last) = (after.map(str::to_owned), limit, None);
        loop {
            let mut is_beyond = false;
            let view = node.store.read()?;
            cursor = self.visit(
                &view,
                cursor.as_deref(),
                BATCH_RECORDS_MAX.min(left.saturating_add(1)),
                |id, _| {
                    match left.checked_sub(1) {
                        Some(less) => (left, last) = (less, Some(id.to_owned())),
                        None => is_beyond = true,
                    }
                    Ok(())
                },
            )?;
            if is_beyond {
                return Ok(last);
            }
            if cursor.is_none() {
                return Ok(None);
            }
        }
    }
}

pub(crate) async fn list(
    node: Arc<Node>,
    schema: &'static Schema,
    route: &'static Route,
    caller: &Caller,
    at: &At,
    request: &Parts,
) -> Result<Response, ApiError> {
    let uri = &request.uri;
    let asked = query_pairs(uri).into_iter().rfind(|(name, _)| name == PERSON).map(|(_, person)| person);
    let person = at.get("person_id").or(asked.as_deref().filter(|_| schema.owner != Owner::Nobody));
    let (owner, opening) = listed_owner(&node, schema, route, caller, person, &request.headers).await?;
    let page_id = at.get("id").filter(|_| route.shape == Shape::OfPage).map(str::to_owned);
    let query = Query::parse(uri)?;
    let hidden = hidden_from(&node, schema, caller, opening);
    let shown = Seen::list(schema, owner.clone()).under(opening);
    let path = uri.path().to_owned();
    // Looking for the documents of one page may go through all of a person's.
    let is_short = owner.is_some() && query.limit.is_none() && page_id.is_none();
    let (store, lister_node) = (node.store.clone(), Arc::clone(&node));
    let begin = {
        let node = Arc::clone(&node);
        move |max| {
            let who = match (owner, &query.words) {
                (Some(owner), _) => Who::Owner(owner),
                (None, Some(words)) if schema.kind == Kind::Person => {
                    Who::Found(node.store.read()?.people_named(words)?)
                }
                (None, _) => Who::Everyone,
            };
            let selection = Selection { kind: schema.kind, who, page_id };
            let until = match query.limit {
                Some(limit) => selection.end_of_page(&node, query.after.as_deref(), limit)?,
                None => None,
            };
            let link = until.as_deref().map(|last| query.next_link(&path, last));
            let state = State::Start;
            let mut lister = Lister { node, selection, hidden, cursor: query.after, until, state };
            let first = lister.next_piece(max, None)?;
            Ok::<_, ApiError>((lister, first, link))
        }
    };
    let (mut lister, first, link) = if is_short {
        begin(SHORT_RECORDS_MAX)?
    } else {
        // Reading may wait for the disk; the async workers must not.
        let _work = workload::take_for_list(&lister_node, caller).await?;
        let begun = tokio::task::spawn_blocking(move || begin(BATCH_RECORDS_MAX));
        begun.await.map_err(|_| ApiError::Internal)??
    };
    let first = match first {
        Piece::Text(text) => text,
        Piece::End => Bytes::new(),
        Piece::Large(bytes) => lister.large_piece(caller, bytes).await?,
    };
    let json = HeaderValue::from_static("application/json");
    let body = lister.into_body(first, caller);
    let mut response = ([(header::CONTENT_TYPE, json)], body).into_response();
    if let Some(link) = link.and_then(|link| HeaderValue::from_str(&link).ok()) {
        response.headers_mut().insert(header::LINK, link);
    }
    // Not how many of these would be shown: nobody knows what stands in them.
    let damaged = store.damaged_records(schema.kind);
    if damaged > 0 {
        response.headers_mut().insert(X_DAMAGED, HeaderValue::from(damaged));
    }
    Ok(shown.on(response))
}

/// A list in which rows of these tables are left out if they are damaged: says how many.
pub(super) fn counting_damaged(rows: &[DamagedRow], tables: &[&str], mut list: Response) -> Response {
    let damaged = rows.iter().filter(|row| tables.contains(&row.table.as_str())).count();
    if damaged > 0 {
        list.headers_mut().insert(X_DAMAGED, HeaderValue::from(damaged));
    }
    list
}

/// Whose records the caller asks for, if not everybody's, and the emergency under which they may if not otherwise.
async fn listed_owner(
    node: &Arc<Node>,
    schema: &Schema,
    route: &Route,
    caller: &Caller,
    person: Option<&str>,
    headers: &HeaderMap,
) -> Result<(Option<String>, Option<u64>), ApiError> {
    let (acl, who) = (node.acl(), &caller.principal);
    if let Some(person) = person {
        let granted = acl.authorize(who, Verb::Get, route.acl, schema.kind, Target::PathPerson(person));
        let opening = match granted {
            Ok(_) => None,
            Err(denied) => {
                let opening =
                    Box::pin(admit(node, caller, headers, route.acl, Subject::Named(person))).await?;
                Some(opening.ok_or(denied)?)
            }
        };
        return Ok((Some(person.to_owned()), opening));
    }
    match (acl.authorize_list(who, schema.kind, route.acl)?, &who.actor) {
        (Scope::Everyone, _) => Ok((None, None)),
        (Scope::Own, Actor::Person(id)) if who.is(id) => Ok((Some(id.clone()), None)),
        (Scope::Own, _) => Err(ApiError::Forbidden),
    }
}

struct Query {
    limit: Option<usize>,
    after: Option<String>,
    words: Option<String>,
    person: Option<String>,
}

impl Query {
    fn parse(uri: &Uri) -> Result<Query, ApiError> {
        let mut query = Query { limit: None, after: None, words: None, person: None };
        for (name, value) in query_pairs(uri) {
            match name.as_str() {
                "limit" => match value.parse::<usize>() {
                    Ok(limit) if limit > 0 => query.limit = Some(limit),
                    _ => return Err(ApiError::invalid("limit", "limit: must be a whole number above 0")),
                },
                "after" => query.after = Some(value),
                "q" if value.chars().count() > WORDS_CHARS_MAX => {
                    return Err(ApiError::invalid("q", format!("q: at most {WORDS_CHARS_MAX} characters")));
                }
                "q" => query.words = Some(value).filter(|words| !words.trim().is_empty()),
                PERSON => query.person = Some(value),
                _ => {}
            }
        }
        Ok(query)
    }

    fn next_link(&self, path: &str, last: &str) -> String {
        let limit = self.limit.unwrap_or_default();
        let after = utf8_percent_encode(last, NON_ALPHANUMERIC);
        let more: String = [("q", &self.words), (PERSON, &self.person)]
            .into_iter()
            .filter_map(|(name, value)| value.as_deref().map(|value| (name, value)))
            .map(|(name, value)| format!("&{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)))
            .collect();
        format!("<{path}?limit={limit}&after={after}{more}>; rel=\"next\"")
    }
}

/// What comes next of a list's text.
enum Piece {
    Text(Bytes),
    /// A large record, for which so much has to be waited for.
    Large(usize),
    /// Nothing.
    End,
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
    cursor: Option<String>,
    /// The last id wanted, when the client gave a limit and there is more.
    until: Option<String>,
    state: State,
}

impl Lister {
    /// The rest is read as the client takes it.
    fn into_body(self, first: Bytes, caller: &Caller) -> Body {
        if matches!(self.state, State::End) {
            return Body::from(first);
        }
        let rest = stream::try_unfold((self, caller.clone()), |(lister, caller)| async move {
            let read = lister.read_on(&caller).await;
            // The connection is cut, so that the client sees an incomplete answer.
            let (text, lister) =
                read.map_err(|_| std::io::Error::other("the list could not be read to its end"))?;
            Ok::<_, std::io::Error>((!text.is_empty()).then_some((text, (lister, caller))))
        });
        Body::from_stream(stream::once(async move { Ok(first) }).chain(rest))
    }

    /// The next piece of the JSON text, empty after the end.
    async fn read_on(mut self, caller: &Caller) -> Result<(Bytes, Lister), ApiError> {
        let work = workload::take_for_list(&self.node, caller).await?;
        let read = tokio::task::spawn_blocking(move || {
            self.next_piece(BATCH_RECORDS_MAX, None).map(|piece| (piece, self))
        });
        let (piece, mut lister) = read.await.map_err(|_| ApiError::Internal)??;
        drop(work);
        Ok(match piece {
            Piece::Text(text) => (text, lister),
            Piece::End => (Bytes::new(), lister),
            Piece::Large(bytes) => (lister.large_piece(caller, bytes).await?, lister),
        })
    }

    /// The next piece, with what the large record in it takes.
    async fn large_piece(&mut self, caller: &Caller, mut bytes: usize) -> Result<Bytes, ApiError> {
        let node = Arc::clone(&self.node);
        loop {
            let work = workload::take(&node, caller, bytes).await?;
            match work.run(|| self.next_piece(BATCH_RECORDS_MAX, Some(&work)))? {
                Piece::Text(text) => return Ok(text),
                Piece::End => return Ok(Bytes::new()),
                Piece::Large(needed) => bytes = needed,
            }
        }
    }

    /// The next piece of the JSON text, of at most so many records.
    ///
    /// Pieces of whole lists are kept with the view that they were made of, which makes the second list of ten thousand
    /// people several times faster than the first.
    fn next_piece(&mut self, max: usize, work: Option<&Work>) -> Result<Piece, ApiError> {
        let view = self.node.store.read()?;
        let key = self.key(max);
        if let Some(kept) = key.as_ref().and_then(|key| view.kept(key)) {
            self.state = if kept.next.is_some() { State::Middle } else { State::End };
            self.cursor.clone_from(&kept.next);
            return Ok(Piece::Text(kept.text.clone()));
        }
        let made = self.made_piece(&view, max, work)?;
        if let (Piece::Text(text), Some(key)) = (&made, key) {
            let (text, next) = (text.clone(), self.cursor.clone());
            let kept = Kept { text, etag: String::new(), id: String::new(), owner: None, next };
            view.keep(key, Arc::new(kept));
        }
        Ok(made)
    }

    /// What the next piece is kept under, if it is a part of a whole list.
    fn key(&self, max: usize) -> Option<KeptKey> {
        let owner = match &self.selection.who {
            Who::Everyone => None,
            Who::Owner(owner) => Some(owner.clone()),
            Who::Found(_) => return None,
        };
        if self.until.is_some() || self.selection.page_id.is_some() || matches!(self.state, State::End) {
            return None;
        }
        let of = KeptOf::Part { owner, after: self.cursor.clone(), max };
        // A part that begins a list begins otherwise than one in its middle after the same id.
        let form = u8::from(self.hidden.is_empty()) | u8::from(matches!(self.state, State::Middle)) << 1;
        Some(KeptKey { kind: self.selection.kind, of, form })
    }

    fn made_piece(&mut self, view: &Snapshot, max: usize, work: Option<&Work>) -> Result<Piece, ApiError> {
        let mut text = match self.state {
            State::Start => vec![b'['],
            State::Middle => vec![b','],
            State::End => return Ok(Piece::End),
        };
        let before = text.len();
        loop {
            let (until, cursor) = (self.until.as_deref(), self.cursor.as_deref());
            let (mut before_large, mut last) = (None, None);
            let next = self.selection.visit(view, cursor, max, |id, document| {
                if before_large.is_some() || until.is_some_and(|until| id > until) {
                    return Ok(());
                }
                // One large record in a piece: what was waited for is for one.
                before_large = match (&last, is_large(document)) {
                    (Some(_), true) => Some(0),
                    _ => uncovered(&self.node, document, self.hidden, work)?,
                };
                if before_large.is_some() {
                    return Ok(());
                }
                last = Some(id.to_owned());
                if text.len() > before {
                    text.push(b',');
                }
                self.render(document, &mut text)
            })?;
            if let Some(bytes) = before_large {
                let Some(last) = last else {
                    return Ok(Piece::Large(bytes));
                };
                (self.cursor, self.state) = (Some(last), State::Middle);
                return Ok(Piece::Text(text.into()));
            }
            let is_over = next.as_deref().is_none_or(|next| until.is_some_and(|until| next >= until));
            self.cursor = next;
            if is_over {
                if text == b"," {
                    text.clear();
                }
                text.push(b']');
                self.state = State::End;
                return Ok(Piece::Text(text.into()));
            }
            // A batch may hold nothing that was asked for; a chunk does, or the comma would be wrong.
            if text.len() > before {
                self.state = State::Middle;
                return Ok(Piece::Text(text.into()));
            }
        }
    }

    fn render(&self, document: &RawDocument, text: &mut Vec<u8>) -> Result<(), ApiError> {
        match self.node.settings.collection_shape {
            CollectionShape::Flat => show_into(&self.node, document, self.hidden, text),
            CollectionShape::Rows => {
                text.push(b'[');
                show_into(&self.node, document, self.hidden, &mut *text)?;
                text.push(b']');
                Ok(())
            }
        }
    }
}
