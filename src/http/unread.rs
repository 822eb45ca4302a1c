//! Floor 4. What a refusal leaves unread of a request's body.
//!
//! Over HTTP/1 a connection with an unread body cannot be used again, and a client that is told to wait would begin another
//! one for each try. Over HTTP/2 a stream whose body nobody wants is reset behind the answer, and clients (curl 7.88) then
//! show the reset instead of the answer.

use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::Version;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use tokio::time::timeout;

/// Longest body that is taken off the line unread.
const BYTES_MAX: usize = 64 << 10;
/// How long what is left is waited for, and over HTTP/2 the client to see the answer.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Where a body comes back to if its handler leaves some of it.
#[derive(Clone, Default)]
pub(super) struct Unread(Arc<Mutex<Option<Body>>>);

impl Unread {
    /// The request with a body that comes back here.
    pub(super) fn of(request: Request) -> (Option<Unread>, Request) {
        if request.body().is_end_stream() {
            return (None, request);
        }
        let unread = Unread::default();
        let back = unread.clone();
        (Some(unread), request.map(|body| Body::new(Lent { body, back })))
    }

    fn take(&self) -> Option<Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Called with a refusal before it is sent.
    pub(super) async fn read_away(self, version: Version) {
        let Some(body) = self.take() else { return };
        if version >= Version::HTTP_2 {
            // The answer need not wait. The stream stays one of those that its connection may have.
            tokio::spawn(timeout(WAIT_MAX, async {
                if let Some(_held) = read(body).await {
                    std::future::pending::<()>().await;
                }
            }));
        } else if body.size_hint().upper().is_some_and(|bytes| bytes <= BYTES_MAX as u64) {
            // What comes slowly is of no interest.
            let _ = timeout(WAIT_MAX, read(body)).await;
        }
    }
}

/// Reads a body to its end, or hands back what is beyond [`BYTES_MAX`]. What is wrong with it is of no interest.
async fn read(mut body: Body) -> Option<Body> {
    let mut taken = 0;
    while taken <= BYTES_MAX {
        let frame = body.frame().await?.ok()?;
        taken += frame.data_ref().map_or(0, Bytes::len);
    }
    Some(body)
}

struct Lent {
    body: Body,
    back: Unread,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.body.is_end_stream() {
            let left = mem::take(&mut self.body);
            *self.back.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(left);
        }
    }
}
