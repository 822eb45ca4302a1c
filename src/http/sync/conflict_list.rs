//! Floor 4. The list of conflicts over HTTP, streamed or in pages: large values are shown by their size, and no more than
//! one conflict is read at a time. Behind the conflicts come the questions that the records themselves ask, one by one too:
//! there may be as many as people were ever deleted.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Uri, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::domain::access::Verb;
use crate::domain::record::Kind;
use crate::http::access::caller::Caller;
use crate::http::audit_observer::AuditEvent;
use crate::http::bodies::answer_budget::KeptBytes;
use crate::http::error::ApiError;
use crate::http::extract::query_pairs;
use crate::http::records::damage::counting_damaged;
use crate::http::state::app_state::AppState;
use crate::http::sync::conflict_rights::ConflictReader;
use crate::http::sync::conflict_view::{self, ConflictView, LIST_VALUE_BYTES_MAX};
use crate::http::sync::identity_holds::Case;
use crate::http::sync::standing_questions;
use crate::http::{response, workload};
use crate::store::{ConflictStatus, DamagedRow, Snapshot, StoreError, Subject};

/// Bytes of text after which a piece of a list is sent.
const LIST_CHUNK_BYTES: usize = 64 * 1024;
/// Conflicts on one page at most.
const LIMIT_CONFLICTS_MAX: usize = 500;
/// Tables without whose rows a conflict is not listed, or not as a whole.
const OF_LIST: [&str; 4] = ["conflict", "hold", "held", "undecided"];
/// Most paths that an error names, where no conflict is about the one that was asked for, and characters of each: clients write them.
const PATHS_NAMED_MAX: usize = 50;
const NAMED_CHARS_MAX: usize = 80;

/// A path as an error names it.
fn named(path: &str) -> String {
    match path.char_indices().nth(NAMED_CHARS_MAX) {
        _ if path.is_empty() => "\"\" (the record)".to_owned(),
        Some((end, _)) => format!("{}…", &path[..end]),
        None => path.to_owned(),
    }
}

pub(crate) async fn list(
    State(node): State<Arc<AppState>>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    node.acl().authorize_node(&caller.principal, Verb::Get, "conflicts")?;
    let query = Query::parse(request.uri())?;
    if query.limit.is_some() {
        return page(node, caller, query).await;
    }
    let (lister, first) = loop {
        let work = workload::take_for_rows(&node, &caller).await?;
        let (serving, asking, query) = (Arc::clone(&node), caller.clone(), query.clone());
        // Reading may wait for the disk; the async workers must not.
        let begun = tokio::task::spawn_blocking(move || {
            let snapshot = serving.store.read()?;
            query.check_path(&serving, &asking, &snapshot)?;
            let walk = Walk::begin(serving, asking, query, &snapshot)?;
            drop(snapshot);
            let kept_bytes = walk.kept_bytes();
            let Some(keeps) = walk.caller.answer.keep(kept_bytes) else {
                return Ok(Err(kept_bytes));
            };
            let mut lister = Lister { walk, place: Place::Start, _keeps: keeps };
            let first = lister.next_chunk()?.unwrap_or_default();
            // Counted before the work is given back.
            lister.walk.caller.answer.made(first.len());
            Ok::<_, ApiError>(Ok((lister, first)))
        });
        match begun.await.map_err(|_| ApiError::Internal)?? {
            Ok(begun) => break begun,
            Err(kept_bytes) => {
                drop(work);
                workload::wait_for_place(&node, &caller, kept_bytes).await?;
            }
        }
    };
    let damaged = known_damage(&lister.walk.node, &lister.walk.caller)?;
    let response = counting_damaged(&damaged, &OF_LIST, response::json_body(lister.into_body(first)));
    Ok(AuditEvent::other("conflicts", None).of_everybody().attach_to(response))
}

/// Which conflicts are listed.
#[derive(Clone)]
struct Query {
    status: Option<ConflictStatus>,
    kind: Option<Kind>,
    /// Dotted; the empty one is the record as a whole.
    path: Option<String>,
    is_equal_by_meaning: bool,
    /// Conflicts and questions on a page; all of them in one answer if nothing is said.
    limit: Option<usize>,
    after: Option<Behind>,
}

/// A place in the list. It stays one, whatever becomes of what is there.
#[derive(Clone)]
enum Behind {
    /// The conflict that was found then and has this id.
    Conflict(i64, String),
    /// A question that the records themselves ask, which are behind all conflicts.
    Standing(standing_questions::Place),
}

impl Behind {
    fn parse(text: &str) -> Option<Behind> {
        if let Some(place) = standing_questions::Place::behind(text) {
            return Some(Behind::Standing(place));
        }
        let (at_ms, id) = text.split_once('-')?;
        Some(Behind::Conflict(at_ms.parse().ok()?, id.to_owned()))
    }

    fn text(&self) -> String {
        match self {
            Behind::Conflict(at_ms, id) => format!("{at_ms}-{id}"),
            Behind::Standing(place) => place.id(),
        }
    }
}

impl Query {
    fn parse(uri: &Uri) -> Result<Query, ApiError> {
        let mut query = Query {
            status: None,
            kind: None,
            path: None,
            is_equal_by_meaning: false,
            limit: None,
            after: None,
        };
        for (name, value) in query_pairs(uri) {
            let invalid = |message: &str| ApiError::invalid(&name, format!("{name}: {message}"));
            match name.as_str() {
                "status" => {
                    query.status = Some(match value.as_str() {
                        "open" => ConflictStatus::Open,
                        "resolved" => ConflictStatus::Resolved,
                        _ => return Err(invalid("open or resolved")),
                    });
                }
                "collection" => {
                    let names = Kind::ALL.map(|kind| kind.schema().collection).join(", ");
                    let unknown = || invalid(&format!("there is no such collection; there are {names}"));
                    query.kind = Some(Kind::from_collection(&value).ok_or_else(unknown)?);
                }
                "path" => query.path = Some(value),
                "equal_by_meaning" => match value.as_str() {
                    "true" => query.is_equal_by_meaning = true,
                    "false" => query.is_equal_by_meaning = false,
                    _ => return Err(invalid("true or false")),
                },
                "limit" => match value.parse::<usize>() {
                    Ok(limit) if limit > 0 => query.limit = Some(limit.min(LIMIT_CONFLICTS_MAX)),
                    _ => return Err(invalid("must be a whole number above 0")),
                },
                "after" => {
                    let place = Behind::parse(&value);
                    query.after =
                        Some(place.ok_or_else(|| invalid("must be taken from the link to the next page"))?);
                }
                _ => {}
            }
        }
        Ok(query)
    }

    /// The ids to look at, oldest first.
    fn ids(&self, reader: &ConflictReader<'_>) -> Result<Vec<String>, StoreError> {
        let after = match &self.after {
            None => None,
            Some(Behind::Conflict(at_ms, id)) => Some((*at_ms, id.as_str())),
            Some(Behind::Standing(_)) => return Ok(Vec::new()),
        };
        reader.ids(self.status, after)
    }

    /// Whether a conflict is of those that are asked for, for one about values by what it is between, for a question about
    /// people or records by the collection alone.
    fn wants(&self, view: &ConflictView<'_>) -> bool {
        let head = view.head;
        let is_about_values = head.subject == Subject::Value;
        self.kind.is_none_or(|kind| kind == head.key.kind)
            && self.path.as_ref().is_none_or(|path| is_about_values && *path == head.path.join("."))
            && (!self.is_equal_by_meaning || view.is_equal_by_meaning())
    }

    fn wants_standing(&self) -> bool {
        self.status != Some(ConflictStatus::Resolved)
            && self.kind.is_none_or(|kind| kind == Kind::Person)
            && self.path.is_none()
            && !self.is_equal_by_meaning
    }

    /// Where the questions that the records themselves ask begin; `None` if none are wanted.
    fn standing_from(&self) -> Option<standing_questions::Place> {
        self.wants_standing().then(|| match &self.after {
            Some(Behind::Standing(place)) => place.clone(),
            _ => standing_questions::Place::start(),
        })
    }

    /// Refuses a path that no conflict is about, open or decided: it is a mistake in writing. Names those that there are.
    fn check_path(&self, node: &AppState, caller: &Caller, snapshot: &Snapshot) -> Result<(), ApiError> {
        let (Some(path), None) = (&self.path, &self.after) else {
            return Ok(());
        };
        let (mut known, mut more) = (BTreeSet::new(), 0_usize);
        let reader = ConflictReader::new(node, caller, snapshot);
        for id in reader.ids(None, None)? {
            let found = conflict_view::visit(node, snapshot, &id, Some(LIST_VALUE_BYTES_MAX), |view| {
                let is_of_kind = self.kind.is_none_or(|kind| kind == view.head.key.kind);
                if !is_of_kind || view.head.subject != Subject::Value {
                    return Ok(None);
                }
                let is_shown = reader.may_know(view);
                is_shown.map(|is_shown| {
                    is_shown.then(|| {
                        let found = view.head.path.join(".");
                        if found == *path { None } else { Some(named(&found)) }
                    })
                })
            })?;
            match found.transpose()?.flatten() {
                Some(None) => return Ok(()),
                Some(Some(name)) if known.len() < PATHS_NAMED_MAX || known.contains(&name) => {
                    known.insert(name);
                }
                Some(Some(_)) => more += 1,
                None => {}
            }
        }
        if known.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = known.into_iter().collect();
        let others = if more > 0 { format!(" and others, in {more} conflicts") } else { String::new() };
        Err(ApiError::invalid(
            "path",
            format!("path: no conflict is about it; there are {}{others}", names.join(", ")),
        ))
    }

    /// Where the next page begins.
    fn next_link(&self, last: &Behind) -> String {
        let text = |value: &str| utf8_percent_encode(value, NON_ALPHANUMERIC).to_string();
        let pairs = [
            ("status", self.status.map(|status| status.name().to_owned())),
            ("collection", self.kind.map(|kind| kind.schema().collection.to_owned())),
            ("path", self.path.as_deref().map(text)),
            ("equal_by_meaning", self.is_equal_by_meaning.then(|| "true".to_owned())),
            ("limit", self.limit.map(|limit| limit.to_string())),
            ("after", Some(text(&last.text()))),
        ];
        let pairs =
            pairs.into_iter().filter_map(|(name, value)| value.map(|value| format!("{name}={value}")));
        format!("</sync/conflicts?{}>; rel=\"next\"", pairs.collect::<Vec<_>>().join("&"))
    }
}

/// One page of the list. `Link` leads to the next one, if there is one.
async fn page(node: Arc<AppState>, caller: Caller, query: Query) -> Result<Response, ApiError> {
    let limit = query.limit.unwrap_or(LIMIT_CONFLICTS_MAX);
    let work = workload::take_for_rows(&node, &caller).await?;
    let (serving, asking) = (Arc::clone(&node), caller.clone());
    let read = tokio::task::spawn_blocking(move || {
        let snapshot = node.store.read()?;
        query.check_path(&node, &caller, &snapshot)?;
        let mut walk = Walk::begin(node, caller, query, &snapshot)?;
        let (mut rows, mut link, mut last) = (Vec::new(), None, None);
        while let Some((shown, item)) = walk.next(&snapshot)? {
            if rows.len() == limit {
                let behind = last.map(|last: Item| last.place(&snapshot)).transpose()?;
                link = behind.map(|behind| walk.query.next_link(&behind));
                break;
            }
            rows.push(shown);
            last = Some(item);
        }
        Ok::<_, ApiError>(([&b"["[..], &rows.join(&b','), b"]"].concat(), link))
    });
    let (text, link) = read.await.map_err(|_| ApiError::Internal)??;
    drop(work);
    let damaged = known_damage(&serving, &asking)?;
    let mut response = counting_damaged(&damaged, &OF_LIST, response::json_body(Body::from(text)));
    if let Some(link) = link.and_then(|link| HeaderValue::from_str(&link).ok()) {
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(AuditEvent::other("conflicts", None).of_everybody().attach_to(response))
}

/// The damaged rows that the caller may know of.
fn known_damage(node: &AppState, caller: &Caller) -> Result<Vec<DamagedRow>, ApiError> {
    let view = node.store.read()?;
    Ok(ConflictReader::new(node, caller, &view).damaged(node.store.damaged_rows())?)
}

/// Where a list is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    Middle,
    End,
}

/// What is listed.
enum Item {
    /// The conflict with this id.
    Conflict(String),
    /// The question before this place.
    Standing(standing_questions::Place),
}

impl Item {
    /// Where the list goes on behind it.
    fn place(self, snapshot: &Snapshot) -> Result<Behind, StoreError> {
        Ok(match self {
            Item::Standing(place) => Behind::Standing(place),
            Item::Conflict(id) => {
                let found_at_ms = snapshot.visit_conflict(&id, |head, _| head.found_at_ms)?;
                Behind::Conflict(found_at_ms.unwrap_or_default(), id)
            }
        })
    }
}

/// Goes through what is listed, in its order.
struct Walk {
    node: Arc<AppState>,
    caller: Caller,
    query: Query,
    /// The conflicts that are still to be looked at.
    ids: std::vec::IntoIter<String>,
    /// Behind them.
    standing: Option<standing_questions::Place>,
}

impl Walk {
    fn begin(
        node: Arc<AppState>,
        caller: Caller,
        query: Query,
        snapshot: &Snapshot,
    ) -> Result<Walk, StoreError> {
        let ids = query.ids(&ConflictReader::new(&node, &caller, snapshot))?.into_iter();
        let standing = query.standing_from();
        Ok(Walk { node, caller, query, ids, standing })
    }

    /// What the ids take that are still to be looked at.
    fn kept_bytes(&self) -> usize {
        self.ids.as_slice().iter().map(|id| id.len() + size_of::<String>()).sum()
    }

    /// The next one, with its JSON text. One that is gone by now is left out.
    fn next(&mut self, snapshot: &Snapshot) -> Result<Option<(Vec<u8>, Item)>, ApiError> {
        for id in self.ids.by_ref() {
            if let Some(shown) = shown_in_list(&self.node, &self.caller, &self.query, snapshot, &id)? {
                return Ok(Some((shown, Item::Conflict(id))));
            }
        }
        let Some(place) = &self.standing else {
            return Ok(None);
        };
        if !ConflictReader::new(&self.node, &self.caller, snapshot).may_know_people() {
            return Ok(None);
        }
        let Some((question, place)) = standing_questions::next(&self.node, snapshot, place)? else {
            return Ok(None);
        };
        self.standing = Some(place.clone());
        Ok(Some((question.to_string().into_bytes(), Item::Standing(place))))
    }
}

/// Renders the list piece by piece, each from a view that is let go before the piece is sent.
struct Lister {
    walk: Walk,
    place: Place,
    /// The count of the ids that the walk keeps.
    _keeps: KeptBytes,
}

impl Lister {
    /// The rest is read as the client takes it.
    fn into_body(self, first: Bytes) -> Body {
        if self.place == Place::End {
            return Body::from(first);
        }
        let rest = stream::try_unfold(self, |mut lister| async move {
            let unread = |_| std::io::Error::other("the list could not be read to its end");
            let Walk { node, caller, .. } = &lister.walk;
            // A chunk has little more than that, unless one conflict is longer.
            workload::wait_for_place(node, caller, LIST_CHUNK_BYTES).await.map_err(unread)?;
            let work = workload::take_for_rows(node, caller).await.map_err(unread)?;
            let read = tokio::task::spawn_blocking(move || {
                let chunk = lister.next_chunk()?;
                lister.walk.caller.answer.made(chunk.as_ref().map_or(0, Bytes::len));
                drop(work);
                Ok::<_, ApiError>((chunk, lister))
            });
            match read.await {
                Ok(Ok((chunk, lister))) => Ok(chunk.map(|chunk| (chunk, lister))),
                // The connection is cut, so that the client sees an incomplete answer.
                _ => Err(std::io::Error::other("the list could not be read to its end")),
            }
        });
        Body::from_stream(stream::once(async move { Ok(first) }).chain(rest))
    }

    /// The next piece of the JSON text; `None` after the end.
    fn next_chunk(&mut self) -> Result<Option<Bytes>, ApiError> {
        if self.place == Place::End {
            return Ok(None);
        }
        let snapshot = self.walk.node.store.read()?;
        let mut text = if self.place == Place::Start { vec![b'['] } else { Vec::new() };
        let mut has_items = self.place == Place::Middle;
        while text.len() < LIST_CHUNK_BYTES {
            let Some((shown, _)) = self.walk.next(&snapshot)? else {
                self.place = Place::End;
                text.push(b']');
                return Ok(Some(text.into()));
            };
            if has_items {
                text.push(b',');
            }
            text.extend_from_slice(&shown);
            has_items = true;
        }
        self.place = Place::Middle;
        Ok(Some(text.into()))
    }
}

/// The JSON text of a conflict in a list, if the caller may see it.
fn shown_in_list(
    node: &AppState,
    caller: &Caller,
    query: &Query,
    snapshot: &Snapshot,
    id: &str,
) -> Result<Option<Vec<u8>>, ApiError> {
    let reader = ConflictReader::new(node, caller, snapshot);
    if !reader.may_know_noted(id)? {
        return Ok(None);
    }
    let listed = conflict_view::visit(node, snapshot, id, Some(LIST_VALUE_BYTES_MAX), |view| {
        if !query.wants(view) {
            return Ok(Listed::Hidden);
        }
        match reader.may_know(view)? {
            false => Ok(Listed::Hidden),
            true if view.head.is_identity() => Ok(Listed::Identity),
            true => view.text().map(Listed::Text),
        }
    })?;
    match listed.transpose()? {
        Some(Listed::Text(text)) => Ok(Some(text)),
        Some(Listed::Identity) => {
            let Some(conflict) = snapshot.conflict(id)? else {
                return Ok(None);
            };
            let shown = Case::in_list(node, snapshot, conflict)?.shown(node, Some(LIST_VALUE_BYTES_MAX));
            conflict_view::text_of(&shown, LIST_VALUE_BYTES_MAX).map(Some)
        }
        _ => Ok(None),
    }
}

/// What a list makes of a conflict.
enum Listed {
    Text(Vec<u8>),
    Identity,
    Hidden,
}
