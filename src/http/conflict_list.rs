//! Floor 4. The list of conflicts over HTTP, streamed: large values are shown by their size, and no more than one
//! conflict is read at a time.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::Node;
use super::caller::Caller;
use super::conflict_view::{self, LIST_VALUE_BYTES_MAX};
use super::conflicts::may_see;
use super::error::ApiError;
use super::extract::query_pairs;
use super::holds::{self, Case};
use super::witness::Seen;
use super::workload;
use crate::domain::access::Verb;
use crate::store::{ConflictStatus, Snapshot};

/// Bytes of text after which a piece of a list is sent.
const LIST_CHUNK_BYTES: usize = 64 * 1024;
pub(crate) async fn list(
    State(node): State<Arc<Node>>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    node.acl().authorize_node(&caller.principal, Verb::Get, "conflicts")?;
    let mut wanted = None;
    for (name, value) in query_pairs(request.uri()) {
        if name == "status" {
            wanted = Some(match value.as_str() {
                "open" => ConflictStatus::Open,
                "resolved" => ConflictStatus::Resolved,
                _ => return Err(ApiError::invalid("status", "status: open or resolved")),
            });
        }
    }
    let work = workload::take_for_rows(&node, &caller).await?;
    // Reading may wait for the disk; the async workers must not.
    let begun = tokio::task::spawn_blocking(move || {
        let snapshot = node.store.read()?;
        let ids = snapshot.conflict_ids(wanted)?.into_iter();
        let has_duplicates = wanted != Some(ConflictStatus::Resolved);
        drop(snapshot);
        let mut lister = Lister { node, caller, ids, has_duplicates, place: Place::Start };
        let first = lister.next_chunk()?.unwrap_or_default();
        Ok::<_, ApiError>((lister, first))
    });
    let (lister, first) = begun.await.map_err(|_| ApiError::Internal)??;
    drop(work);
    let response = super::json_body(lister.into_body(first));
    Ok(Seen::other("conflicts", None).of_everybody().on(response))
}

/// Where a list is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    Middle,
    End,
}

/// Renders the listed conflicts piece by piece, each from a view that is let go before the piece is sent.
struct Lister {
    node: Arc<Node>,
    caller: Caller,
    ids: std::vec::IntoIter<String>,
    has_duplicates: bool,
    place: Place,
}

impl Lister {
    /// The rest is read as the client takes it.
    fn into_body(self, first: Bytes) -> Body {
        if self.place == Place::End {
            return Body::from(first);
        }
        let rest = stream::try_unfold(self, |mut lister| async move {
            let unread = |_| std::io::Error::other("the list could not be read to its end");
            let _work = workload::take_for_rows(&lister.node, &lister.caller).await.map_err(unread)?;
            let read = tokio::task::spawn_blocking(move || lister.next_chunk().map(|chunk| (chunk, lister)));
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
        let snapshot = self.node.store.read()?;
        let mut text = if self.place == Place::Start { vec![b'['] } else { Vec::new() };
        let mut has_items = self.place == Place::Middle;
        while text.len() < LIST_CHUNK_BYTES {
            let Some(id) = self.ids.next() else {
                self.end(&snapshot, &mut text, has_items)?;
                return Ok(Some(text.into()));
            };
            // One that is gone by now is left out.
            if let Some(shown) = shown_in_list(&self.node, &self.caller, &snapshot, &id)? {
                if has_items {
                    text.push(b',');
                }
                text.extend_from_slice(&shown);
                has_items = true;
            }
        }
        self.place = Place::Middle;
        Ok(Some(text.into()))
    }

    fn end(&mut self, snapshot: &Snapshot, text: &mut Vec<u8>, mut has_items: bool) -> Result<(), ApiError> {
        self.place = Place::End;
        if self.has_duplicates && holds::may_see(&self.node, &self.caller) {
            for duplicate in holds::duplicates(&self.node, snapshot)? {
                if has_items {
                    text.push(b',');
                }
                text.extend_from_slice(duplicate.to_string().as_bytes());
                has_items = true;
            }
        }
        text.push(b']');
        Ok(())
    }
}

/// The JSON text of a conflict in a list, if the caller may see it.
fn shown_in_list(
    node: &Node,
    caller: &Caller,
    snapshot: &Snapshot,
    id: &str,
) -> Result<Option<Vec<u8>>, ApiError> {
    let listed = conflict_view::visit(node, snapshot, id, Some(LIST_VALUE_BYTES_MAX), |view| {
        if view.head.is_identity() {
            return Ok(Listed::Identity);
        }
        let is_shown = may_see(node, caller, view.head, view.owner().as_deref());
        if is_shown { view.text().map(Listed::Text) } else { Ok(Listed::Hidden) }
    })?;
    match listed.transpose()? {
        Some(Listed::Text(text)) => Ok(Some(text)),
        Some(Listed::Identity) if holds::may_see(node, caller) => {
            let Some(conflict) = snapshot.conflict(id)? else {
                return Ok(None);
            };
            let shown = Case::read(snapshot, conflict)?.shown(node, Some(LIST_VALUE_BYTES_MAX));
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
