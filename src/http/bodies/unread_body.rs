//! Floor 4. What a refusal leaves unread of a request's body.
//!
//! Over HTTP/1 a connection with an unread body cannot be used again, and a client that is told to wait would begin another
//! one for each try. What is more, a connection that is closed while something of a body still comes is reset, and the client
//! loses an answer that it has not read yet: most clients send everything first. So the answer goes out at once, and what comes
//! behind it is thrown away for a while; it counts for its client as other bodies do. Over HTTP/2 a stream whose body nobody
//! wants is reset behind the answer, and clients (curl 7.88) then show the reset instead of the answer.

use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderValue, Version, header};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use tokio::time::timeout;

/// Longest body that is taken off the line before the answer is sent, or over HTTP/2.
const BYTES_MAX: usize = 64 << 10;
/// Longest body that is thrown away behind the answer over HTTP/1: whatever a client might send as an attachment.
const LATE_BYTES_MAX: usize = 32 << 20;
/// How long that may take, and how long nothing may come.
const LATE_MAX: Duration = Duration::from_secs(30);
const LATE_PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long what is left is waited for, and over HTTP/2 the client to see the answer.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Where a body comes back to if its handler leaves some of it.
#[derive(Clone, Default)]
pub(crate) struct Unread(Arc<Mutex<Option<Body>>>);

impl Unread {
    /// The request with a body that comes back here.
    pub(crate) fn of(request: Request) -> (Option<Unread>, Request) {
        if request.body().is_end_stream() || waits_to_be_asked(&request) {
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
    pub(crate) async fn read_away(self, version: Version) {
        let Some(body) = self.take() else { return };
        if version >= Version::HTTP_2 {
            // The answer need not wait. The stream stays one of those that its connection may have.
            tokio::spawn(timeout(WAIT_MAX, async {
                if let Some(_held) = read(body).await {
                    std::future::pending::<()>().await;
                }
            }));
            return;
        }
        if body.size_hint().upper().is_some_and(|bytes| bytes <= BYTES_MAX as u64) {
            // What comes slowly is of no interest.
            let _ = timeout(WAIT_MAX, read(body)).await;
        } else {
            tokio::spawn(timeout(LATE_MAX, throw_away(body)));
        }
    }
}

/// Whether the client sends the body only when it is told to go on (RFC 9110, 10.1.1). Reading tells it so: a refusal does not.
fn waits_to_be_asked(request: &Request) -> bool {
    let is_expected = |expected: &HeaderValue| expected.as_bytes().eq_ignore_ascii_case(b"100-continue");
    request.version() < Version::HTTP_2 && request.headers().get_all(header::EXPECT).iter().any(is_expected)
}

/// Throws a body away, up to so many bytes and as long as it comes on.
async fn throw_away(mut body: Body) {
    let mut taken = 0;
    while taken <= LATE_BYTES_MAX {
        match timeout(LATE_PAUSE_MAX, body.frame()).await {
            Ok(Some(Ok(frame))) => taken += frame.data_ref().map_or(0, Bytes::len),
            _ => break,
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

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// `/taken` reads its body, everything else is refused.
    async fn answer(request: Request) -> StatusCode {
        let (version, is_taken) = (request.version(), request.uri().path() == "/taken");
        let (unread, request) = Unread::of(request);
        if is_taken {
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            assert_eq!(body, "hello");
            return StatusCode::OK;
        }
        drop(request);
        if let Some(unread) = unread {
            unread.read_away(version).await;
        }
        StatusCode::FORBIDDEN
    }

    /// What comes first, and how the connection goes on when the body is sent.
    async fn said(path: &str, expect: &str, body: &str) -> (String, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("its address");
        let server = tokio::spawn(axum::serve(listener, Router::new().fallback(answer)).into_future());
        let mut line = TcpStream::connect(address).await.expect("the server");
        let head = format!("PUT {path} HTTP/1.1\r\nHost: l\r\nContent-Length: 5\r\n{expect}\r\n{body}");
        line.write_all(head.as_bytes()).await.expect("sent");
        let mut first = [0; 1024];
        let bytes = line.read(&mut first).await.expect("an answer");
        let _ = line.write_all(b"hello").await;
        let mut second = [0; 1024];
        let more = timeout(WAIT_MAX, line.read(&mut second)).await.map_or(0, |read| read.unwrap_or_default());
        server.abort();
        let status =
            |text: &[u8]| String::from_utf8_lossy(text).split(' ').nth(1).unwrap_or_default().to_owned();
        (status(&first[..bytes]), status(&second[..more]))
    }

    #[tokio::test]
    async fn who_waits_to_be_asked_for_a_body_is_asked_only_if_it_is_wanted() {
        let expect = "Expect: 100-Continue\r\n";
        assert_eq!(said("/taken", expect, "").await, ("100".to_owned(), "200".to_owned()));
        assert_eq!(said("/refused", expect, "").await, ("403".to_owned(), String::new()));
        assert_eq!(said("/refused", "", "hello").await.0, "403");
    }

    /// A client that sends all of its body before it reads sees the answer, however long the body is, and the connection goes
    /// on.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_sends_everything_first_sees_the_refusal() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("its address");
        let server = tokio::spawn(axum::serve(listener, Router::new().fallback(answer)).into_future());
        let body = vec![b'x'; 4 << 20];
        let length = format!("Content-Length: {}\r\n\r\n", body.len());
        let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len());
        for (framing, end) in [(length, ""), (chunked, "\r\n0\r\n\r\n")] {
            for attempt in 0..20 {
                let mut line = TcpStream::connect(address).await.expect("the server");
                let head = format!("PUT /refused HTTP/1.1\r\nHost: l\r\n{framing}");
                for part in [head.as_bytes(), &body, end.as_bytes()] {
                    line.write_all(part).await.unwrap_or_else(|error| panic!("{attempt}: {error}"));
                }
                for is_again in [false, true] {
                    if is_again {
                        let more = b"PUT /refused HTTP/1.1\r\nHost: l\r\nContent-Length: 1\r\n\r\nx";
                        line.write_all(more).await.expect("the connection goes on");
                    }
                    let mut answer = [0; 1024];
                    let bytes = line.read(&mut answer).await.expect("an answer");
                    let text = String::from_utf8_lossy(&answer[..bytes]);
                    assert!(text.starts_with("HTTP/1.1 403 "), "{attempt}: {text}");
                }
            }
        }
        server.abort();
    }
}
