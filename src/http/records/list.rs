//! Floor 4. Collections over HTTP, streamed.
//!
//! The store is read in batches, each in a transaction of its own that ends before the batch is sent: a
//! client that reads one byte a second holds nothing but its connection.

use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::domain::access::{Actor, Scope, Target, Verb};
use crate::domain::record::Kind;
use crate::domain::schema::{Owner, Route, Schema, Shape};
use crate::http::access::caller::Caller;
use crate::http::audit_observer::AuditEvent;
use crate::http::auth::emergency::{Subject, admit};
use crate::http::bodies::answer_budget::KeptBytes;
use crate::http::error::ApiError;
use crate::http::extract::{PathParams, query_pairs};
use crate::http::records::damage::X_DAMAGED;
use crate::http::records::list_pieces::{Lister, Selection, State, Who};
use crate::http::records::render::hidden_from;
use crate::http::state::app_state::AppState;
use crate::http::workload;

/// Longest text that people are searched by: each of its words is a walk through an index.
const WORDS_CHARS_MAX: usize = 100;
/// Lists only what belongs to this account.
const PERSON: &str = "person";

pub(crate) async fn list(
    node: Arc<AppState>,
    schema: &'static Schema,
    route: &'static Route,
    caller: &Caller,
    params: &PathParams,
    request: &Parts,
) -> Result<Response, ApiError> {
    let uri = &request.uri;
    let asked = query_pairs(uri).into_iter().rfind(|(name, _)| name == PERSON).map(|(_, person)| person);
    let person = params.get("person_id").or(asked.as_deref().filter(|_| schema.owner != Owner::Nobody));
    let (owner, opening) = listed_owner(&node, schema, route, caller, person, &request.headers).await?;
    let page_id = params.get("id").filter(|_| route.shape == Shape::OfPage).map(str::to_owned);
    let query = Query::parse(uri)?;
    let hidden = hidden_from(&node, schema, caller, opening);
    let shown = AuditEvent::list(schema, owner.clone()).in_emergency(opening);
    // Looking for the documents of one page may go through all of a person's.
    let is_short = owner.is_some() && query.limit.is_none() && page_id.is_none();
    let (store, path) = (node.store.clone(), uri.path().to_owned());
    let asked = Asked { node, kind: schema.kind, owner, page_id, query, hidden, path };
    let (first, lister, link) = if is_short {
        let (lister, link) = asked.lister()?;
        let (first, lister) = lister.read_short(caller).await?;
        (first, lister, link)
    } else {
        begun(asked, caller).await?
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
    Ok(shown.attach_to(response))
}

/// The first piece of a list that may be long, and where the next page begins. What the list keeps until its end is counted
/// before more of it is made.
async fn begun(asked: Asked, caller: &Caller) -> Result<(Bytes, Lister, Option<String>), ApiError> {
    let node = Arc::clone(&asked.node);
    let asked = Arc::new(asked);
    loop {
        let work = workload::take_for_list(&node, caller).await?;
        let (asking, answer) = (Arc::clone(&asked), caller.answer.clone());
        // Reading may wait for the disk; the async workers must not.
        let begun = tokio::task::spawn_blocking(move || {
            let (mut lister, link) = asking.lister()?;
            let kept_bytes = lister.selection.kept_bytes();
            let Some(keeps) = answer.keep(kept_bytes) else {
                return Ok(Err(kept_bytes));
            };
            lister.keeps = keeps;
            let begin = lister.marker();
            let first = lister.next_long()?;
            Ok::<_, ApiError>(Ok((lister, begin, first, link)))
        });
        match begun.await.map_err(|_| ApiError::Internal)?? {
            Ok((lister, begin, first, link)) => {
                let (first, lister) = lister.placed(begin, first, work, caller).await?;
                return Ok((first, lister, link));
            }
            Err(kept_bytes) => {
                drop(work);
                workload::wait_for_place(&node, caller, kept_bytes).await?;
            }
        }
    }
}

/// What a request lists.
struct Asked {
    node: Arc<AppState>,
    kind: Kind,
    owner: Option<String>,
    page_id: Option<String>,
    query: Query,
    hidden: &'static [&'static str],
    path: String,
}

impl Asked {
    /// The list before its first piece, and the link to its next page.
    fn lister(&self) -> Result<(Lister, Option<String>), ApiError> {
        let Asked { node, kind, query, .. } = self;
        let who = match (&self.owner, &query.words) {
            (Some(owner), _) => Who::Owner(owner.clone()),
            (None, Some(words)) if *kind == Kind::Person => {
                Who::Found(node.store.read()?.people_named(words)?)
            }
            (None, _) => Who::Everyone,
        };
        let selection = Selection { kind: *kind, who, page_id: self.page_id.clone() };
        let until = match query.limit {
            Some(limit) => selection.end_of_page(node, query.after.as_deref(), limit)?,
            None => None,
        };
        let link = until.as_deref().map(|last| query.next_link(&self.path, last));
        let lister = Lister {
            node: Arc::clone(node),
            selection,
            hidden: self.hidden,
            cursor: query.after.clone(),
            until,
            state: State::Start,
            keeps: KeptBytes::default(),
        };
        Ok((lister, link))
    }
}

/// Whose records the caller asks for, if not everybody's, and the emergency under which they may if not otherwise.
async fn listed_owner(
    node: &Arc<AppState>,
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
