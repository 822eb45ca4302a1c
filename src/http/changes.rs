//! Floor 4. The change feed: what has changed since a sequence number, at once, by long poll or as a
//! stream of server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{Uri, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};

use super::Node;
use super::caller::Caller;
use super::error::ApiError;
use crate::domain::access::{Principal, Scope, Verb};
use crate::domain::schema::Owner;
use crate::store::JournalRow;

/// Most changes in one answer.
const LIMIT_CHANGES_MAX: usize = 1000;
/// Longest that a poll waits for a change.
const WAIT_S_MAX: u64 = 60;

/// The pairs of a query string, decoded; what is not UTF-8 is replaced.
pub(crate) fn query_pairs(uri: &Uri) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
    };
    let query = uri.query().unwrap_or_default();
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

struct Poll {
    since: u64,
    limit: usize,
    wait: Duration,
}

impl Poll {
    fn parse(request: &Request) -> Result<Poll, ApiError> {
        let mut poll = Poll { since: 0, limit: LIMIT_CHANGES_MAX, wait: Duration::ZERO };
        for (name, value) in query_pairs(request.uri()) {
            let number = || {
                let message = format!("{name}: must be a whole number");
                value.parse::<u64>().map_err(|_| ApiError::invalid(&name, message))
            };
            match name.as_str() {
                "since" => poll.since = number()?,
                "limit" => poll.limit = usize::try_from(number()?).unwrap_or(usize::MAX).clamp(1, LIMIT_CHANGES_MAX),
                "wait" => poll.wait = Duration::from_secs(number()?.min(WAIT_S_MAX)),
                _ => {}
            }
        }
        // An event stream goes on after the last event that the client saw.
        let last_event = request.headers().get("last-event-id").and_then(|id| id.to_str().ok());
        if let Some(seen) = last_event.and_then(|id| id.parse().ok()) {
            poll.since = seen;
        }
        Ok(poll)
    }
}

pub(crate) async fn changes(
    State(node): State<Arc<Node>>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    node.acl().authorize_node(&caller.principal, Verb::Get, "changes")?;
    let poll = Poll::parse(&request)?;
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("text/event-stream")) {
        return event_stream(node, caller, poll);
    }
    let mut announced = node.store.changes();
    let deadline = tokio::time::Instant::now() + poll.wait;
    loop {
        announced.borrow_and_update();
        let (changes, last) = read_changes(&node, &caller.principal, poll.since, poll.limit)?;
        if !changes.is_empty() || tokio::time::Instant::now() >= deadline {
            return Ok(super::json(json!({"changes": changes, "last": last})));
        }
        // Both a change and the end of the wait lead to one more look.
        let _ = tokio::time::timeout_at(deadline, announced.changed()).await;
    }
}

/// The changes that the caller may see, and the sequence number up to which the feed was read.
fn read_changes(node: &Node, who: &Principal, since: u64, limit: usize) -> Result<(Vec<Value>, u64), ApiError> {
    let window = node.store.read()?.journal(since, limit)?;
    if window.oldest > 0 && since.saturating_add(1) < window.oldest && since != 0 {
        return Err(ApiError::Gone { oldest: window.oldest });
    }
    let last = window.rows.last().map_or(window.last, |row| row.sequence);
    let rows = window.rows.into_iter().filter(|row| may_see(node, who, row));
    Ok((rows.map(|row| shown(&row)).collect(), last))
}

fn may_see(node: &Node, who: &Principal, row: &JournalRow) -> bool {
    let schema = row.key.kind.schema();
    match node.acl().authorize_node(who, Verb::Get, schema.item_acl()) {
        Ok(Scope::Everyone) => true,
        Ok(Scope::Own) => schema.owner == Owner::Nobody || row.owner.as_deref().is_some_and(|owner| who.is(owner)),
        Err(_) => false,
    }
}

fn shown(row: &JournalRow) -> Value {
    json!({"seq": row.sequence, "kind": row.key.kind.schema().collection, "id": row.key.id, "op": row.op})
}

fn event_stream(node: Arc<Node>, caller: Caller, poll: Poll) -> Result<Response, ApiError> {
    // The first look decides whether there is a stream at all.
    read_changes(&node, &caller.principal, poll.since, 1)?;
    let announced = node.store.changes();
    let start = (node, caller, poll.since, announced, Vec::<Value>::new());
    let events = stream::unfold(start, |(node, caller, mut since, mut announced, mut ready)| async move {
        loop {
            if let Some(change) = ready.pop() {
                let id = change["seq"].to_string();
                let event = Event::default().id(id).event("change").data(change.to_string());
                return Some((Ok::<_, Infallible>(event), (node, caller, since, announced, ready)));
            }
            announced.borrow_and_update();
            let (mut changes, last) = read_changes(&node, &caller.principal, since, LIMIT_CHANGES_MAX).ok()?;
            let progressed = last > since;
            since = last;
            changes.reverse();
            ready = changes;
            if !progressed {
                announced.changed().await.ok()?;
            }
        }
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}
