//! Floor 5. Connections as they come in: whose they are, how many there may be, and what each request holds.
//!
//! A stranger who opens connections and says nothing, or asks and takes no answer, must not keep others out
//! ([`super::clients`]); and the process never runs out of descriptors, because the store, the centre and the
//! certificates need some too.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use axum::http::{Method, Request, Response, Version, header};
use axum_server::accept::Accept;
use futures_util::future::BoxFuture;
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::net::TcpStream;
use tower::Service;

use super::clients::{Clients, Connected, Crowded, Turn, Waiting};
use super::held::{Arriving, Held, Watched};
use super::proxies::Proxies;
use super::reading::Readers;
use super::{HTTP2_STREAM_WINDOW, plain_http};
use crate::domain::address::AddressPrefix;
use crate::files::read_configured;
use crate::http::{Arrivals, Peer, Received, Refusal, Unasked};

/// Connections in all: each takes some 33 KB, with TLS and HTTP/2.
const CONNECTIONS_MAX: usize = 2048;
/// Bytes of answers that the system takes over from a connection and has not sent, or not had acknowledged; the system counts
/// twice as much for it. By itself it takes up to 4 MiB of each connection whose client reads slowly.
const SENT_BYTES_MAX: usize = 128 << 10;
/// Descriptors for everything else: the store, the centre, certificates, the control socket, the log.
const DESCRIPTORS_KEPT: usize = 128;
/// Connections that there may always be, however few descriptors the system gives.
const CONNECTIONS_MIN: usize = 16;
/// Connections whose bytes are read at the same time: with HTTP/2 each may begin 32 requests, with heads of some 80 KB
/// in memory.
const READERS_MAX: usize = 8;
/// Fields of a request's head. HTTP/1 takes no more by itself.
const FIELDS_MAX: usize = 100;
/// What a name with its value takes in a table of fields beside their bytes, and each further value of a name.
const FIELD_BYTES: usize = 112;
const FURTHER_VALUE_BYTES: usize = 80;

/// Counts connections, and refuses those beyond the limits.
#[derive(Clone)]
pub(super) struct Connections {
    clients: Arc<Clients>,
    /// Whether TLS comes next, so that who speaks plain HTTP is told so.
    is_https: bool,
    proxies: Arc<Proxies>,
    /// Connections that may read at the same time.
    readers: Readers,
}

impl Connections {
    /// As many as the process has descriptors for; takes what the system lets it have.
    pub(super) fn within_descriptors(proxies: Proxies, body_bytes_max: usize) -> Connections {
        let in_all_max = match descriptors() {
            Some(descriptors) => {
                descriptors.saturating_sub(DESCRIPTORS_KEPT).clamp(CONNECTIONS_MIN, CONNECTIONS_MAX)
            }
            None => CONNECTIONS_MAX,
        };
        if in_all_max < CONNECTIONS_MAX {
            tracing::warn!(
                connections = in_all_max,
                "the system allows few open files: fewer connections are taken (raise LimitNOFILE or ulimit -n)"
            );
        }
        let clients = Clients::new(in_all_max, body_bytes_max);
        let readers = Readers::new(READERS_MAX);
        Connections { clients, is_https: false, proxies: Arc::new(proxies), readers }
    }

    pub(super) fn for_https(self) -> Connections {
        Connections { is_https: true, ..self }
    }

    pub(super) fn clients(&self) -> &Arc<Clients> {
        &self.clients
    }
}

/// How many descriptors this process may have, after asking for as many as connections may need.
///
/// Read from the kernel's text: a filter of system calls answers `prlimit` in ways that the safe call for
/// reading does not expect.
fn descriptors() -> Option<usize> {
    let limits = read_configured(Path::new("/proc/self/limits")).ok()?;
    let limits = String::from_utf8(limits).ok()?;
    let (soft, hard) = open_files(&limits)?;
    let wanted = CONNECTIONS_MAX + DESCRIPTORS_KEPT;
    let reachable = hard.min(wanted);
    if soft >= reachable {
        return Some(soft);
    }
    let asked = Rlimit { current: u64::try_from(reachable).ok(), maximum: u64::try_from(hard).ok() };
    Some(if setrlimit(Resource::Nofile, asked).is_ok() { reachable } else { soft })
}

/// The soft and the hard limit in the text of `/proc/self/limits`.
fn open_files(limits: &str) -> Option<(usize, usize)> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let number = |word: &str| if word == "unlimited" { Some(usize::MAX) } else { word.parse().ok() };
    let mut words = line.split_whitespace();
    Some((number(words.next()?)?, number(words.next()?)?))
}

impl<S: Send + 'static> Accept<TcpStream, S> for Connections {
    type Stream = Watched;
    type Service = CountedService<S>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, mut stream: TcpStream, inner: S) -> Self::Future {
        let peer = stream.peer_addr().map(|peer| peer.ip().to_canonical());
        let connect =
            |peer: &IpAddr| self.clients.connect(AddressPrefix::of(*peer), self.proxies.trusts(*peer));
        let connected = peer.as_ref().ok().map(connect);
        let is_https = self.is_https;
        let proxies = Arc::clone(&self.proxies);
        let readers = self.readers.clone();
        Box::pin(async move {
            let peer = peer?;
            let connected = connected.flatten().ok_or_else(|| io::Error::other("too many connections"))?;
            stream.set_nodelay(true)?;
            // One without it works as well: the system then takes over more of an answer at once.
            let _ = set_socket_send_buffer_size(&stream, SENT_BYTES_MAX);
            if is_https {
                let is_plain = tokio::select! {
                    is_plain = plain_http::turn_away(&mut stream) => is_plain?,
                    () = connected.connection.ended() => return Err(io::ErrorKind::ConnectionAborted.into()),
                };
                if is_plain {
                    return Err(io::Error::other("plain HTTP on the port of HTTPS: answered 400"));
                }
            }
            let stream = Watched::new(stream, &connected, &readers, is_https);
            Ok((stream, CountedService { inner, line: Arc::new(Line { peer, proxies, connected }) }))
        })
    }
}

/// The service of one connection, which has its place as long as this lives. Says with each request where it comes from,
/// and counts what it holds.
#[derive(Clone)]
pub(super) struct CountedService<S> {
    inner: S,
    line: Arc<Line>,
}

/// What is the same for all requests of a connection.
struct Line {
    peer: IpAddr,
    proxies: Arc<Proxies>,
    connected: Connected,
}

type Answer = BoxFuture<'static, Result<Response<Body>, Infallible>>;

/// What a request's head takes in memory: its fields lie in tables that grow by doubling.
fn head_bytes<B>(request: &Request<B>) -> usize {
    let fields = request.headers();
    let further = fields.len().saturating_sub(fields.keys_len());
    let text: usize = fields.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    fields.capacity() * FIELD_BYTES + further.next_power_of_two() * FURTHER_VALUE_BYTES + text + path
}

/// Whether its connection takes in what comes of the request's body before it is asked for. HTTP/1 takes nothing.
fn has_body_unasked<B: HttpBody>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_2 && !request.body().is_end_stream()
}

/// How much of such a body that is.
fn unread_bytes<B: HttpBody>(request: &Request<B>) -> usize {
    let most = request.body().size_hint().upper().and_then(|bytes| u32::try_from(bytes).ok());
    most.unwrap_or(HTTP2_STREAM_WINDOW).min(HTTP2_STREAM_WINDOW) as usize
}

fn lacks_host<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    request.version() == Version::HTTP_11 && (hosts.next().is_none() || hosts.next().is_some())
}

impl<S, B> Service<Request<B>> for CountedService<S>
where
    S: Service<Request<Arriving<B>>, Response = Response<Body>, Error = Infallible, Future = Answer>
        + Clone
        + Send
        + Unpin
        + 'static,
    B: HttpBody + Send + Unpin + 'static,
{
    type Response = Response<Held>;
    type Error = Infallible;
    type Future = Answering<S, B>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Line { peer, proxies, connected } = &*self.line;
        let client = proxies.client(*peer, request.headers_mut());
        request.extensions_mut().insert(Peer::Address(client));
        let Connected { clients, connection } = connected;
        let share = match client == *peer {
            true => None,
            false => Some(clients.share(AddressPrefix::of(client))),
        };
        let is_read = [Method::GET, Method::HEAD].contains(request.method());
        let reader = Unasked::of(request.headers());
        let has_many_fields = request.headers().len() > FIELDS_MAX;
        if request.version() < Version::HTTP_2 {
            connection.asked_by_http1();
            connection.is_whole();
        }
        let head_bytes = head_bytes(&request);
        let turn = clients.begin(connection, share, head_bytes);
        let unread = has_body_unasked(&request).then(|| {
            turn.expects_trailers();
            turn.holding_unread(unread_bytes(&request))
        });
        let refusal = if has_many_fields {
            Some(Refusal::TooManyFields)
        } else if lacks_host(&request) {
            Some(Refusal::NoHost)
        } else {
            (!turn.may_go_on()).then_some(Refusal::Overloaded)
        };
        if let Some(refusal) = refusal {
            // Nothing of it is kept until it is looked at.
            drop((request, unread));
            turn.refused(!has_many_fields);
            let state = State::Refused(Some(reader.refuse(refusal)));
            return Answering { state, head_bytes: 0, turn, is_read, reader };
        }
        let received: Arc<dyn Arrivals> = Arc::<Turn>::clone(&turn);
        request.extensions_mut().insert(Received(received));
        let is_one_by_one = request.version() < Version::HTTP_2;
        let request = request.map(|body| Arriving { body, turn: Arc::clone(&turn), unread, place: None });
        let state = if is_one_by_one && turn.has_room() {
            State::Answer(self.inner.call(request))
        } else {
            State::Asked(Some((self.inner.clone(), request)))
        };
        Answering { state, head_bytes, turn, is_read, reader }
    }
}

/// A request that is being answered: once there is room for an answer, and as long as there is when it is made. HTTP/2
/// asks for many before the first is looked at, so only a client with far too much is refused when they come in.
pub(super) struct Answering<S, B> {
    state: State<S, B>,
    /// What the turn counts for the head.
    head_bytes: usize,
    turn: Arc<Turn>,
    is_read: bool,
    reader: Unasked,
}

enum State<S, B> {
    Asked(Option<(S, Request<Arriving<B>>)>),
    Answer(Answer),
    /// The answer is made, and waits for room.
    Made(Option<Response<Body>>, BoxFuture<'static, Result<(), Crowded>>),
    Refused(Option<Response<Body>>),
}

impl<S, B> Answering<S, B> {
    /// The answer to a request for which not even a place to wait is left.
    fn refuse(&mut self, request: Request<Arriving<B>>) -> State<S, B> {
        drop(request);
        self.turn.refused(true);
        self.head_bytes = 0;
        State::Refused(Some(self.reader.refuse(Refusal::Overloaded)))
    }

    /// Instead of an answer for which there is no room. What was written is written: a refusal would be untrue.
    fn refuse_answer(&self) -> Response<Body> {
        if !self.is_read {
            self.turn.break_off();
        }
        self.reader.refuse(Refusal::Overloaded)
    }

    fn give(&self, response: Response<Body>) -> Response<Held> {
        let turn = Arc::clone(&self.turn);
        response.map(|body| Held::of(body, turn))
    }
}

impl<S, B> Future for Answering<S, B>
where
    S: Service<Request<Arriving<B>>, Response = Response<Body>, Error = Infallible, Future = Answer>
        + Send
        + Unpin
        + 'static,
    B: Send + Unpin + 'static,
{
    type Output = Result<Response<Held>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let State::Asked(asked) = &mut this.state
            && let Some((mut inner, request)) = asked.take()
        {
            this.state = if this.turn.has_room() {
                State::Answer(inner.call(request))
            } else {
                match this.turn.wait() {
                    Ok(waiting) => {
                        State::Answer(Box::pin(when_there_is_room(waiting, inner, request, this.reader)))
                    }
                    Err(_) => this.refuse(request),
                }
            };
        }
        loop {
            let response = match &mut this.state {
                State::Asked(_) => return Poll::Pending,
                State::Refused(refusal) => {
                    let Some(refusal) = refusal.take() else {
                        return Poll::Pending;
                    };
                    return Poll::Ready(Ok(this.give(refusal)));
                }
                State::Answer(answer) => {
                    let Ok(response) = ready!(answer.as_mut().poll(context));
                    response
                }
                State::Made(response, room) => {
                    let has_room = ready!(room.as_mut().poll(context)).is_ok();
                    let Some(response) = response.take() else {
                        return Poll::Pending;
                    };
                    let response = if has_room { response } else { this.refuse_answer() };
                    return Poll::Ready(Ok(this.give(response)));
                }
            };
            this.turn.answered(std::mem::take(&mut this.head_bytes));
            let bytes = response.body().size_hint().exact();
            if this.turn.has_room_for(bytes) {
                return Poll::Ready(Ok(this.give(response)));
            }
            match this.turn.wait_with(bytes) {
                Ok(waiting) => this.state = State::Made(Some(response), Box::pin(waiting.for_room())),
                Err(_) => {
                    let refusal = this.refuse_answer();
                    return Poll::Ready(Ok(this.give(refusal)));
                }
            }
        }
    }
}

async fn when_there_is_room<S, B>(
    waiting: Waiting,
    mut inner: S,
    request: Request<Arriving<B>>,
    reader: Unasked,
) -> Result<Response<Body>, Infallible>
where
    S: Service<Request<Arriving<B>>, Response = Response<Body>, Error = Infallible>,
{
    if waiting.for_room().await.is_err() {
        return Ok(reader.refuse(Refusal::Overloaded));
    }
    inner.call(request).await
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_let_go() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let client = TcpStream::connect(listener.local_addr().expect("its address")).await.expect("a client");
        let (server, _) = listener.accept().await.expect("the client");
        let connections = Connections::within_descriptors(Proxies::default(), 0);
        let (mut stream, _service) = connections.accept(server, ()).await.expect("a counted connection");
        // More than the buffers of the system take. Time goes on by itself while nothing else happens.
        let stalled = stream.write_all(&vec![0; 64 << 20]).await.expect_err("nobody reads");
        assert_eq!(stalled.kind(), io::ErrorKind::TimedOut);
        drop(client);
    }

    #[test]
    fn the_kernels_text_is_read() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max processes             95991                95991                processes \n\
                    Max open files            1024                 1048576              files     \n";
        assert_eq!(open_files(text), Some((1024, 1_048_576)));
        assert_eq!(open_files("Max open files  unlimited  unlimited  files"), Some((usize::MAX, usize::MAX)));
        assert_eq!(open_files("Max open files  many  files"), None);
        assert_eq!(open_files(""), None);
        assert!(descriptors().is_some_and(|descriptors| descriptors > 0), "this system's own text");
    }
}
