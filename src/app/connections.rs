//! Floor 5. How many connections there may be, in all and from one address, and how long one may stand still.
//!
//! A stranger who opens connections and says nothing must not keep others out. One address gets a share of
//! them; a connection on which an answer is waiting and nobody takes it ends; and the process never runs out of
//! descriptors, because the store, the centre and the certificates need some too.

use std::collections::HashMap;
use std::fs;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::Request;
use axum_server::accept::Accept;
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_io_timeout::TimeoutStream;
use tower::Service;

use super::plain_http;
use super::proxies::Proxies;
use crate::http::Peer;

/// Connections from one address.
const PER_ADDRESS_MAX: usize = 512;
/// Connections in all.
const CONNECTIONS_MAX: usize = 4096;
/// Descriptors for everything else: the store, the centre, certificates, the control socket, the log.
const DESCRIPTORS_KEPT: usize = 128;
/// Connections that there may always be, however few descriptors the system gives.
const CONNECTIONS_MIN: usize = 16;
/// How long a client may take nothing of what is sent to it.
const STALLED_S_MAX: u64 = 120;
/// Pause between two words in the log about refused connections.
const REFUSED_LOG_S: u64 = 60;

/// Counts connections, and refuses those beyond the limits.
#[derive(Clone)]
pub(super) struct Connections {
    open: Arc<Mutex<Open>>,
    in_all_max: usize,
    /// Whether TLS comes next, so that who speaks plain HTTP is told so.
    is_https: bool,
    proxies: Arc<Proxies>,
}

#[derive(Default)]
struct Open {
    by_address: HashMap<IpAddr, usize>,
    in_all: usize,
    refused: u64,
    logged_at: Option<Instant>,
}

/// One counted connection; given back when dropped.
struct Counted {
    open: Arc<Mutex<Open>>,
    address: IpAddr,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        open.in_all -= 1;
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connections {
    /// As many as the process has descriptors for; takes what the system lets it have.
    pub(super) fn within_descriptors(proxies: Proxies) -> Connections {
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
        Connections { open: Arc::default(), in_all_max, is_https: false, proxies: Arc::new(proxies) }
    }

    pub(super) fn for_https(self) -> Connections {
        Connections { is_https: true, ..self }
    }

    fn count(&self, address: IpAddr) -> Option<Counted> {
        let mut open = lock(&self.open);
        let here = open.by_address.get(&address).copied().unwrap_or(0);
        // A proxy's connections are those of all its clients.
        let is_over_share = here >= PER_ADDRESS_MAX && !self.proxies.trusts(address);
        if open.in_all >= self.in_all_max || is_over_share {
            open.refused += 1;
            let is_quiet = |at: Instant| at.elapsed() < Duration::from_secs(REFUSED_LOG_S);
            if !open.logged_at.is_some_and(is_quiet) {
                open.logged_at = Some(Instant::now());
                let (refused, in_all) = (open.refused, open.in_all);
                tracing::warn!(%address, from_address = here, in_all, refused, "too many connections: refused");
            }
            return None;
        }
        open.in_all += 1;
        *open.by_address.entry(address).or_default() += 1;
        drop(open);
        Some(Counted { open: Arc::clone(&self.open), address })
    }
}

/// How many descriptors this process may have, after asking for as many as connections may need.
///
/// Read from the kernel's text: a filter of system calls answers `prlimit` in ways that the safe call for
/// reading does not expect.
fn descriptors() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
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
    type Stream = Pin<Box<TimeoutStream<TcpStream>>>;
    type Service = CountedService<S>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, mut stream: TcpStream, inner: S) -> Self::Future {
        let peer = stream.peer_addr().map(|peer| peer.ip().to_canonical());
        let counted = peer.as_ref().ok().map(|peer| self.count(*peer));
        let is_https = self.is_https;
        let proxies = Arc::clone(&self.proxies);
        Box::pin(async move {
            let peer = peer?;
            let counted = counted.flatten().ok_or_else(|| io::Error::other("too many connections"))?;
            stream.set_nodelay(true)?;
            if is_https && plain_http::turn_away(&mut stream).await? {
                return Err(io::Error::other("plain HTTP on the port of HTTPS: answered 400"));
            }
            let mut stream = Box::pin(TimeoutStream::new(stream));
            stream.as_mut().set_write_timeout_pinned(Some(Duration::from_secs(STALLED_S_MAX)));
            Ok((stream, CountedService { inner, peer, proxies, _counted: Arc::new(counted) }))
        })
    }
}

/// The service of one connection, which is counted as long as this lives. Says with each request where it comes from.
#[derive(Clone)]
pub(super) struct CountedService<S> {
    inner: S,
    peer: IpAddr,
    proxies: Arc<Proxies>,
    _counted: Arc<Counted>,
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for CountedService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let client = self.proxies.client(self.peer, request.headers_mut());
        request.extensions_mut().insert(Peer::Address(client));
        self.inner.call(request)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    fn limited(in_all_max: usize) -> Connections {
        Connections { open: Arc::default(), in_all_max, is_https: false, proxies: Arc::default() }
    }

    #[test]
    fn one_address_has_a_share_and_gives_it_back() {
        let connections = limited(CONNECTIONS_MAX);
        let (here, there) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let mut held: Vec<_> =
            (0..PER_ADDRESS_MAX).map(|_| connections.count(here).expect("a share")).collect();
        assert!(connections.count(here).is_none());
        let other = connections.count(there);
        assert!(other.is_some(), "another address is not kept out");
        held.pop();
        held.push(connections.count(here).expect("one was given back"));
        assert!(connections.count(here).is_none());
        drop((held, other));
        let open = lock(&connections.open);
        assert_eq!((open.in_all, open.by_address.len()), (0, 0), "nothing is kept of those who left");
    }

    #[test]
    fn all_together_have_a_limit() {
        let connections = limited(3);
        let address = |last| IpAddr::from([192, 0, 2, last]);
        let held: Vec<_> = (1..=3).map(|last| connections.count(address(last)).expect("within")).collect();
        assert!(connections.count(address(4)).is_none());
        drop(held);
        assert!(connections.count(address(4)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_let_go() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let client = TcpStream::connect(listener.local_addr().expect("its address")).await.expect("a client");
        let (server, _) = listener.accept().await.expect("the client");
        let (mut stream, _service) = limited(1).accept(server, ()).await.expect("a counted connection");
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
