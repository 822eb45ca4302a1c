//! Floor 4. The change feed: what has changed since a sequence number, at once, by long poll or as a
//! stream of server-sent events.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde_json::{Value, json};

use crate::domain::access::{Actor, Principal, Verb};
use crate::domain::schema::Owner;
use crate::http::access::caller::Caller;
use crate::http::access::rights::refreshed;
use crate::http::error::ApiError;
use crate::http::extract::query_pairs;
use crate::http::response;
use crate::http::state::app_state::AppState;
use crate::store::JournalRow;

/// Most changes in one answer.
const LIMIT_CHANGES_MAX: usize = 1000;
/// Changes that a stream reads at once: so many are held for a client that takes none.
const STREAM_CHANGES_MAX: usize = 32;
/// Tells nginx, and proxies that follow it, to let every event through at once.
const UNBUFFERED: [(&str, &str); 1] = [("x-accel-buffering", "no")];
/// Longest that a poll waits for a change.
const WAIT_S_MAX: u64 = 60;

struct Poll {
    /// Absent: from the oldest change that is kept.
    since: Option<u64>,
    limit: usize,
    wait: Duration,
}

impl Poll {
    fn parse(request: &Request) -> Result<Poll, ApiError> {
        let mut poll = Poll { since: None, limit: LIMIT_CHANGES_MAX, wait: Duration::ZERO };
        let pairs = query_pairs(request.uri());
        for (index, (name, value)) in pairs.iter().enumerate() {
            if pairs.iter().take(index).any(|(before, _)| before == name) {
                return Err(ApiError::BadRequest(format!("{name}: stands twice")));
            }
            let number = || {
                let message = format!("{name}: must be a whole number");
                value.parse::<u64>().map_err(|_| ApiError::invalid(name, message))
            };
            match name.as_str() {
                "since" => poll.since = Some(number()?),
                "limit" => match number()? {
                    0 => return Err(ApiError::invalid(name, "limit: must be a whole number above 0")),
                    limit => poll.limit = usize::try_from(limit).unwrap_or(usize::MAX).min(LIMIT_CHANGES_MAX),
                },
                "wait" => poll.wait = Duration::from_secs(number()?.min(WAIT_S_MAX)),
                other => {
                    let message =
                        format!("There is no parameter {other:?} here; there are since, limit and wait");
                    return Err(ApiError::BadRequest(message));
                }
            }
        }
        // An event stream goes on after the last event that the client saw.
        let last_event = request.headers().get("last-event-id").and_then(|id| id.to_str().ok());
        if let Some(seen) = last_event.and_then(|id| id.parse().ok()) {
            poll.since = Some(seen);
        }
        Ok(poll)
    }
}

pub(crate) async fn changes(
    State(node): State<Arc<AppState>>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    node.acl().authorize_node(&caller.principal, Verb::Get, "changes")?;
    let poll = Poll::parse(&request)?;
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("text/event-stream")) {
        return event_stream(node, caller, &poll);
    }
    let mut announced = node.store.changes();
    let deadline = tokio::time::Instant::now() + poll.wait;
    let (mut since, mut who) = (poll.since, Arc::clone(&caller.principal));
    loop {
        announced.borrow_and_update();
        let Changes { shown, last, is_all } = read_changes(&node, &who, since, poll.limit)?;
        if !shown.is_empty() || tokio::time::Instant::now() >= deadline {
            return Ok((UNBUFFERED, response::json(json!({"changes": shown, "last": last}))).into_response());
        }
        // What the caller may not see is not asked for again.
        since = Some(last);
        if is_all {
            // Both a change and the end of the wait lead to one more look.
            let _ = tokio::time::timeout_at(deadline, announced.changed()).await;
        } else {
            tokio::task::yield_now().await;
        }
        who = still_in(&node, &caller)?.ok_or(ApiError::Unauthorized)?;
    }
}

/// The caller as they are now, if they may still see changes: a wait may outlive the account or the session of who
/// began it, or some of their roles.
fn still_in(node: &AppState, caller: &Caller) -> Result<Option<Arc<Principal>>, ApiError> {
    let Some(now) = refreshed(node, caller)? else {
        return Ok(None);
    };
    node.acl().authorize_node(&now.principal, Verb::Get, "changes")?;
    Ok(Some(now.principal))
}

/// A stretch of the feed as one caller sees it.
struct Changes {
    shown: Vec<Value>,
    /// Up to which change the feed was read.
    last: u64,
    /// There is nothing after it yet.
    is_all: bool,
}

fn read_changes(
    node: &AppState,
    who: &Principal,
    since: Option<u64>,
    limit: usize,
) -> Result<Changes, ApiError> {
    let acl = node.acl();
    let view = node.store.read()?;
    let window = view.journal(since.unwrap_or(0), limit)?;
    if since.is_some_and(|since| since.saturating_add(1) < window.oldest) {
        return Err(ApiError::Gone { oldest: window.oldest });
    }
    if since.is_some_and(|since| since > window.last) {
        return Err(ApiError::NotYet { last: window.last });
    }
    let last = window.rows.last().map_or(window.last, |row| row.sequence);
    // What became of somebody else's records is not for who has the account now.
    let theirs_after = match &who.actor {
        Actor::Person(account) => view.changes_before_holder(account)?,
        _ => 0,
    };
    let may_read = |row: &JournalRow| {
        let kind = row.key.kind;
        acl.may_read(who, kind, row.owner.as_deref())
            && (row.sequence > theirs_after
                || kind.schema().owner == Owner::Nobody
                || acl.may_read(who, kind, None))
    };
    let rows = window.rows.iter().filter(|row| may_read(row));
    Ok(Changes { shown: rows.map(shown).collect(), last, is_all: last >= window.last })
}

fn shown(row: &JournalRow) -> Value {
    json!({"seq": row.sequence, "kind": row.key.kind.schema().collection, "id": row.key.id, "op": row.op})
}

fn event_stream(node: Arc<AppState>, caller: Caller, poll: &Poll) -> Result<Response, ApiError> {
    // The first look decides whether there is a stream at all.
    read_changes(&node, &caller.principal, poll.since, 1)?;
    let announced = node.store.changes();
    let start = (node, caller, poll.since, announced, VecDeque::<(u64, String)>::new());
    let events = stream::unfold(Some(start), |going_on| async move {
        let (node, caller, mut since, mut announced, mut ready) = going_on?;
        loop {
            if let Some((sequence, change)) = ready.pop_front() {
                let event = Event::default().id(sequence.to_string()).event("change").data(change);
                return Some((Ok(event), Some((node, caller, since, announced, ready))));
            }
            announced.borrow_and_update();
            let now = still_in(&node, &caller).and_then(|now| now.ok_or(ApiError::Unauthorized));
            let changes = match now.and_then(|now| read_changes(&node, &now, since, STREAM_CHANGES_MAX)) {
                Ok(changes) => changes,
                // As a broken one: a stream that ended well would be complete.
                Err(_) => return Some((Err(io::Error::other("the stream of changes ended")), None)),
            };
            since = Some(changes.last);
            // As text: a tree of values takes several times as much, and waits as long as the client.
            let text = |change: Value| (change["seq"].as_u64().unwrap_or_default(), change.to_string());
            ready = changes.shown.into_iter().map(text).collect();
            match (ready.is_empty(), changes.is_all) {
                (true, true) => announced.changed().await.ok()?,
                // There may be many that this caller is not shown.
                (true, false) => tokio::task::yield_now().await,
                _ => {}
            }
        }
    });
    let stream = Sse::new(events).keep_alive(KeepAlive::default());
    Ok((UNBUFFERED, stream).into_response())
}
