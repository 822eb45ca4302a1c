//! Floor 5. Whether what a connection has sent ends in the midst of a request's head (see [`super::clients`]).
//!
//! HTTP/2 unpacks a head as its pieces come, in memory that nothing else counts, and keeps it until its last piece. So the
//! frames are followed here, between TLS and HTTP: by their own heads of nine bytes, nothing is looked at twice.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum_server::accept::Accept;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::clients::{Clients, Connection};
use super::held::Watched;
use super::pace::Pace;

/// What an HTTP/2 connection begins with (RFC 9113, 3.4).
/// What ends a head of HTTP/1, unless a client ends its lines in another way.
const END_OF_HEAD: &[u8] = b"\r\n\r\n";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The head of a frame (RFC 9113, 4.1), and the kinds of frames and the flag that matter here.
const FRAME_HEAD_BYTES: usize = 9;
const KIND_DATA: u8 = 0;
const KIND_HEADERS: u8 = 1;
const KIND_CONTINUATION: u8 = 9;
const FLAG_END_HEADERS: u8 = 4;
/// What stands before a head in its frame: the length of what fills it up, and a priority (RFC 9113, 6.2).
const FLAG_PADDED: u8 = 8;
const FLAG_PRIORITY: u8 = 0x20;
/// How often a head may say how large its table is: the smallest and the last size are enough (RFC 7541, 4.2). Each takes
/// h2 more time than any other byte.
const SIZE_UPDATES_MAX: usize = 2;

/// What has come, as far as it matters here.
enum Speech {
    /// So many bytes, all of them as in the preface of HTTP/2.
    Preface(usize),
    Http1,
    Http2(Frames),
}

/// Where in a series of frames the bytes that have come end.
#[derive(Default)]
struct Frames {
    /// As much as has come of a frame's head.
    head: [u8; FRAME_HEAD_BYTES],
    head_bytes: usize,
    /// What is still to come of the frame's content, and its kind.
    rest: usize,
    kind: u8,
    flags: u8,
    /// A request's head has begun, and its last frame has not come.
    is_open: bool,
    /// Requests' heads that were completed.
    whole: usize,
    begin: Begin,
    /// Bytes of frames that are no part of a request, and of bodies' frames that bring nothing.
    aside: usize,
    /// A head has said too often how large its table is.
    is_wordy: bool,
}

/// How far the begin of a head has come: sizes of its table stand before everything else (RFC 7541, 6.3).
#[derive(Default)]
struct Begin {
    /// Bytes of the frame that come before.
    before: usize,
    sizes: usize,
    is_in_size: bool,
    is_over: bool,
}

impl Begin {
    /// Of a frame with these flags.
    fn of(flags: u8) -> Begin {
        let before = usize::from(flags & FLAG_PADDED != 0) + if flags & FLAG_PRIORITY != 0 { 5 } else { 0 };
        Begin { before, ..Begin::default() }
    }

    fn follow(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.is_over {
                return;
            } else if self.before > 0 {
                self.before -= 1;
            } else if self.is_in_size {
                self.is_in_size = byte & 0x80 != 0;
            } else if byte & 0xE0 == 0x20 {
                self.sizes += 1;
                self.is_in_size = byte & 0x1F == 0x1F;
            } else {
                self.is_over = true;
            }
        }
    }
}

impl Frames {
    fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.rest > 0 {
                let (content, others) = bytes.split_at(self.rest.min(bytes.len()));
                if matches!(self.kind, KIND_HEADERS | KIND_CONTINUATION) {
                    self.begin.follow(content);
                    self.is_wordy |= self.begin.sizes > SIZE_UPDATES_MAX;
                }
                if !matches!(self.kind, KIND_DATA | KIND_HEADERS | KIND_CONTINUATION) {
                    self.aside += content.len();
                }
                self.rest -= content.len();
                bytes = others;
            } else {
                let wanted = FRAME_HEAD_BYTES - self.head_bytes;
                let (some, others) = bytes.split_at(wanted.min(bytes.len()));
                if let Some(place) = self.head.get_mut(self.head_bytes..self.head_bytes + some.len()) {
                    place.copy_from_slice(some);
                }
                self.head_bytes += some.len();
                bytes = others;
                if self.head_bytes < FRAME_HEAD_BYTES {
                    return;
                }
                self.head_bytes = 0;
                let [high, middle, low, kind, flags, ..] = self.head;
                self.rest = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                (self.kind, self.flags) = (kind, flags);
                if !matches!(kind, KIND_DATA | KIND_HEADERS | KIND_CONTINUATION)
                    || kind == KIND_DATA && self.rest == 0
                {
                    self.aside += FRAME_HEAD_BYTES;
                }
                if kind == KIND_HEADERS {
                    self.is_open = true;
                    self.begin = Begin::of(flags);
                }
            }
            let is_of_head = matches!(self.kind, KIND_HEADERS | KIND_CONTINUATION);
            if self.rest == 0 && is_of_head && self.is_open && self.flags & FLAG_END_HEADERS != 0 {
                self.is_open = false;
                self.whole += 1;
            }
        }
    }

    /// Whether what has come ends within a head, or within a frame that is no part of a body: those are counted as they
    /// come.
    fn is_within(&self) -> bool {
        self.is_open || self.rest > 0 && self.kind != KIND_DATA
    }
}

impl Speech {
    fn follow(&mut self, bytes: &[u8]) {
        match self {
            Speech::Http1 => {}
            Speech::Http2(frames) => frames.follow(bytes),
            Speech::Preface(come) => {
                let wanted = PREFACE.get(*come..).unwrap_or_default();
                let same = wanted.len().min(bytes.len());
                let (first, others) = bytes.split_at(same);
                if !wanted.starts_with(first) {
                    *self = Speech::Http1;
                } else if same == wanted.len() {
                    let mut frames = Frames::default();
                    frames.follow(others);
                    *self = Speech::Http2(frames);
                } else {
                    *come += same;
                }
            }
        }
    }
}

/// A connection's bytes as HTTP gets them, which says when a request's head is there by half.
pub(super) struct WatchedHeads<T> {
    stream: T,
    speech: Speech,
    /// HTTP/1: something has come since it last waited for more, and the last of it does not end a head.
    has_come: bool,
    pace: Pace,
    clients: Arc<Clients>,
    connection: Arc<Connection>,
}

/// A stream over a connection's line.
pub(super) trait OverLine {
    fn line(&self) -> &Watched;
}

impl OverLine for Watched {
    fn line(&self) -> &Watched {
        self
    }
}

impl OverLine for TlsStream<Watched> {
    fn line(&self) -> &Watched {
        self.get_ref().0
    }
}

impl<T: OverLine> WatchedHeads<T> {
    fn new(stream: T) -> WatchedHeads<T> {
        let line = stream.line();
        let (clients, connection) = (Arc::clone(line.clients()), Arc::clone(line.connection()));
        connection.came_as_http();
        WatchedHeads {
            stream,
            speech: Speech::Preface(0),
            has_come: false,
            pace: Pace::new(),
            clients,
            connection,
        }
    }
}

impl<T> WatchedHeads<T> {
    fn came(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (clients, connection) = (&self.clients, &self.connection);
        connection.came_as_http();
        self.speech.follow(bytes);
        if let Speech::Http2(frames) = &mut self.speech {
            self.pace.spend(std::mem::take(&mut frames.aside));
        }
        match &mut self.speech {
            Speech::Http2(frames) if frames.is_wordy => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a head changes its table too often"));
            }
            Speech::Http2(frames) if frames.is_within() => clients.has_begun(connection),
            Speech::Http2(frames) => {
                // Before its first request a connection stays what it is.
                if std::mem::take(&mut frames.whole) > 0 || connection.moves() > 0 {
                    connection.is_whole();
                }
            }
            _ => self.has_come = !bytes.ends_with(END_OF_HEAD),
        }
        Ok(())
    }

    /// HTTP/1 has looked at all that has come, and waits for more. Where it has all of a request and nothing behind that, it
    /// does so before it answers, to see whether the client goes away. Where nothing is asked, a part of a head is there: alone, or
    /// behind a request that was answered meanwhile.
    fn waits(&mut self) {
        let (clients, connection) = (&self.clients, &self.connection);
        // A part of a record: up to 16 KiB, and nothing tells of what.
        if connection.is_held_by_tls() && connection.is_idle() {
            clients.has_begun(connection);
        }
        let is_http1 = matches!(self.speech, Speech::Http1);
        if std::mem::take(&mut self.has_come) && is_http1 && connection.is_idle() {
            clients.has_begun(connection);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for WatchedHeads<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.pace.poll(context));
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        match read {
            Poll::Ready(Ok(())) => self.came(buffer.filled().get(before..).unwrap_or_default())?,
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.waits(),
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for WatchedHeads<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Takes connections as another acceptor does, and watches their heads.
#[derive(Clone)]
pub(super) struct WatchingHeads<A>(pub(super) A);

impl<A, I, S> Accept<I, S> for WatchingHeads<A>
where
    A: Accept<I, S>,
    A::Stream: OverLine,
    A::Future: Send + 'static,
{
    type Stream = WatchedHeads<A::Stream>;
    type Service = A::Service;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: I, service: S) -> Self::Future {
        let accepted = self.0.accept(stream, service);
        Box::pin(async move {
            let (stream, service) = accepted.await?;
            Ok((WatchedHeads::new(stream), service))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Empty};
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use hyper_util::server::conn::auto::Builder;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;
    use crate::app::clients::Connected;
    use crate::domain::address::AddressPrefix;

    /// A connection that HTTP serves, its client's end, and its place.
    fn served() -> (DuplexStream, Connected) {
        let clients = Clients::new(100, 1000);
        let address = AddressPrefix::of(IpAddr::from([192, 0, 2, 1]));
        let connected = clients.connect(address, false).expect("a place");
        let (line, client) = duplex(64 << 10);
        let connection = Arc::clone(&connected.connection);
        let stream = WatchedHeads {
            stream: line,
            speech: Speech::Preface(0),
            has_come: false,
            pace: Pace::new(),
            clients: Arc::clone(&clients),
            connection: Arc::clone(&connection),
        };
        let service = service_fn(move |request: Request<Incoming>| {
            connection.is_whole();
            let turn = clients.begin(&connection, Arc::clone(connection.share()), 0);
            async move {
                let _ = request.into_body().collect().await;
                drop(turn);
                Ok::<_, hyper::Error>(Response::new(Empty::<Bytes>::new()))
            }
        });
        let serving = async move {
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        };
        tokio::spawn(serving);
        (client, connected)
    }

    /// HTTP/1 looks for more before the service is called: a whole request must not count until then, because counting takes
    /// the lock of all connections.
    #[tokio::test]
    async fn a_whole_request_never_counts_as_a_part() {
        let (mut client, connected) = served();
        let mut answer = [0; 4096];
        for piece in ["GET / HTTP/1.1\r\nHost: l\r\n\r\n"; 3] {
            let begun_ms = connected.connection.began_ms();
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            client.write_all(piece.as_bytes()).await.expect("sent");
            assert!(client.read(&mut answer).await.expect("an answer") > 0);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            assert_eq!(connected.connection.began_ms(), begun_ms);
        }
    }

    #[tokio::test]
    async fn a_part_of_a_head_counts_also_behind_a_request() {
        const GET: &str = "GET / HTTP/1.1\r\nHost: l\r\n\r\n";
        const PUT: &str = "PUT / HTTP/1.1\r\nHost: l\r\nContent-Length: 4\r\n\r\n";
        let (mut client, connected) = served();
        assert!(connected.connection.is_beginning(), "nothing has come");
        let mut answer = [0; 4096];
        for (pieces, is_beginning) in [
            (&[GET][..], false),
            (&[GET], false),
            (&["GET / HT", "TP/1.1\r\nHost: l\r\n\r\n"], false),
            (&[PUT, "body"], false),
            (&[PUT, "bo", "dy"], false),
            (&["PUT / HTTP/1.1\r\nHost: l\r\nContent-Length: 4\r\n\r\nbody"], false),
            (&["GET / HTTP/1.1\r\nHost: l\r\n\r\nGET / HT"], true),
            (&["TP/1.1\r\nHost: l\r\n\r\n"], false),
            (&[PUT, "bo", "dyGET / HT"], true),
            (&["TP/1.1\r\nHost: l\r\n\r\nG"], true),
            (&["ET / HTTP/1.1\r\nHost: l\r\n\r\n"], false),
        ] {
            for piece in pieces {
                client.write_all(piece.as_bytes()).await.expect("sent");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            assert!(client.read(&mut answer).await.expect("an answer") > 0);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            assert_eq!(connected.connection.is_beginning(), is_beginning, "{pieces:?}");
        }
    }

    fn frame(kind: u8, flags: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).expect("small").to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], content].concat()
    }

    /// Whether the bytes end within something, and how many heads were whole, however they are cut.
    fn followed(bytes: &[u8]) -> (bool, usize) {
        let mut results = [1, 2, 7, 9, 100_000].map(|piece| {
            let mut speech = Speech::Preface(0);
            bytes.chunks(piece).for_each(|some| speech.follow(some));
            match speech {
                Speech::Http2(frames) => (frames.is_within(), frames.whole),
                _ => panic!("HTTP/2"),
            }
        });
        results.sort_unstable();
        assert_eq!(results[0], results[4], "not by where it is cut");
        results[0]
    }

    #[test]
    fn frames_are_followed_to_the_end_of_a_head() {
        let settings = frame(4, 0, &[]);
        let head = frame(KIND_HEADERS, FLAG_END_HEADERS, &[0x82; 300]);
        let open = frame(KIND_HEADERS, 1, &[0x82; 300]);
        let more = frame(KIND_CONTINUATION, 0, &[0x82; 30]);
        let last = frame(KIND_CONTINUATION, FLAG_END_HEADERS, &[]);
        let data = frame(KIND_DATA, 0, &[0; 1000]);
        type Case<'a> = (&'a [&'a [u8]], (bool, usize));
        let cases: [Case<'_>; 9] = [
            (&[&settings], (false, 0)),
            (&[&settings, &head], (false, 1)),
            (&[&settings, &head[..100]], (true, 0)),
            (&[&settings, &open], (true, 0)),
            (&[&settings, &head, &open, &more], (true, 1)),
            (&[&settings, &head, &open, &more, &last], (false, 2)),
            (&[&settings, &head, &data[..500]], (false, 1)),
            (&[&settings, &head, &data, &head], (false, 2)),
            (&[&settings, &head, &frame(99, 0, &[0; 400])[..50]], (true, 1)),
        ];
        for (at, (parts, expected)) in cases.iter().enumerate() {
            let bytes = [PREFACE, &parts.concat()].concat();
            assert_eq!(followed(&bytes), *expected, "{at}");
        }
    }

    #[test]
    fn a_head_says_few_sizes_of_its_table() {
        let of = |flags: u8, content: &[u8]| frame(KIND_HEADERS, FLAG_END_HEADERS | flags, content);
        // 0x3F and two bytes: a size above 30.
        let (small, large) = ([0x20u8], [0x3F, 0xE1, 0x1F]);
        let get = [0x82u8, 0x87];
        let twice = [&small[..], &large, &get].concat();
        let thrice = [&small[..], &large, &small, &get].concat();
        let behind_priority = [&[0x20; 6][..], &get].concat();
        let open = frame(KIND_HEADERS, 0, &[0x20, 0x3F]);
        let rest = frame(KIND_CONTINUATION, FLAG_END_HEADERS, &[0x21, 0x82]);
        let cases = [
            (of(0, &get), false),
            (of(0, &twice), false),
            (of(0, &thrice), true),
            (of(0, &[0x20; 8000]), true),
            ([of(0, &twice), of(0, &twice), of(0, &twice)].concat(), false),
            (of(FLAG_PADDED, &[&[2][..], &twice, &[0x20, 0x20]].concat()), false),
            (of(FLAG_PADDED, &[&[0][..], &thrice].concat()), true),
            (of(FLAG_PRIORITY, &behind_priority), false),
            (of(FLAG_PRIORITY, &[&[0x20; 5][..], &thrice].concat()), true),
            // Of a value behind the begin each byte means something else.
            (of(0, &[&get[..], &[0x40, 1, b'a', 4, 0x20, 0x20, 0x20, 0x20]].concat()), false),
            ([open.clone(), rest.clone()].concat(), false),
            ([open, frame(KIND_CONTINUATION, FLAG_END_HEADERS, &[0x21, 0x20, 0x20])].concat(), true),
        ];
        for (at, (bytes, expected)) in cases.iter().enumerate() {
            for piece in [1, 2, 5, 100_000] {
                let mut speech = Speech::Preface(0);
                let mut is_wordy = false;
                for some in [PREFACE, bytes].concat().chunks(piece) {
                    speech.follow(some);
                    is_wordy |= matches!(&speech, Speech::Http2(frames) if frames.is_wordy);
                }
                assert_eq!(is_wordy, *expected, "{at} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn what_is_not_http2_is_http1() {
        for text in [&b"GET / HTTP/1.1\r\n"[..], b"PRI * HTTP/1.1\r\n", b"P"] {
            let mut speech = Speech::Preface(0);
            text.iter().for_each(|byte| speech.follow(std::slice::from_ref(byte)));
            assert!(!matches!(speech, Speech::Http2(_)));
        }
    }
}
