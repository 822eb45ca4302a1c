//! Floor 2. The line to the centre: every byte that the driver exchanges passes here.
//!
//! The driver shows commands, not connections; but it can be told to go through a SOCKS5 proxy. This is one,
//! inside the process, for one conversation: it counts what really travels (handshakes, monitoring, TLS and
//! compression included) and shows whether anything travels at all, so that a slow line can be told from a
//! dead one. It listens on the loopback interface and asks for a password that only this conversation has.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fast_socks5::server::{Config, SimpleUserPassword, Socks5Socket};
use mongodb::options::Socks5Proxy;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::{error, lock};
use crate::central::Result;

const LOOPBACK: &str = "127.0.0.1";
const USER: &str = "conversation";
/// What is passed on at a time.
const PIECE_BYTES_MAX: usize = 16 * 1024;
/// Longest that the driver may take to say where it wants to be connected.
const GREETING_SECONDS_MAX: u64 = 5;
/// A connection that carries less than this within a conversation's limit carries no exchange: the driver's own
/// questions about the state of a server come to less. Those of several servers together may not.
const QUIET_BYTES_MAX: u64 = 4 * 1024;
/// SOCKS5 (RFC 1928, section 6): succeeded, bound to nothing that matters.
const CONNECTED_REPLY: [u8; 10] = [5, 0, 0, 1, 0, 0, 0, 0, 0, 0];

/// What has travelled so far: in all, and on each of the connections that are open.
#[derive(Debug, Default)]
pub(super) struct Meter {
    sent: AtomicU64,
    received: AtomicU64,
    /// Bytes both ways, by the number of the connection.
    open: Mutex<BTreeMap<u64, u64>>,
    /// Connections that were opened.
    opened: AtomicU64,
    /// Exchanges that may take as long as the server is alive: no connection ends for its silence meanwhile.
    silence_allowed: AtomicU64,
}

/// As long as it lives, connections may be silent.
pub(super) struct AllowedSilence<'m>(&'m Meter);

impl Drop for AllowedSilence<'_> {
    fn drop(&mut self) {
        self.0.silence_allowed.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Meter {
    pub(super) fn allow_silence(&self) -> AllowedSilence<'_> {
        self.silence_allowed.fetch_add(1, Ordering::Relaxed);
        AllowedSilence(self)
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    fn open_connections(&self) -> BTreeMap<u64, u64> {
        lock(&self.open).clone()
    }

    /// Whether any one connection has carried as much as an exchange does since `before`.
    fn is_busy_since(&self, before: &BTreeMap<u64, u64>) -> bool {
        let open = lock(&self.open);
        open.iter()
            .any(|(number, bytes)| bytes - before.get(number).copied().unwrap_or_default() >= QUIET_BYTES_MAX)
    }
}

/// How long an exchange may go without progress.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    pub(super) limit: Duration,
    pub(super) meter: Arc<Meter>,
}

impl Patience {
    /// Waits for an exchange as long as something travels; the driver's answer as it is. The exchange's own connection
    /// is not known, but [`carry`] ends one on which a question stays without an answer.
    pub(super) async fn attempt<T>(
        &self,
        exchange: impl Future<Output = mongodb::error::Result<T>>,
    ) -> Result<mongodb::error::Result<T>> {
        tokio::pin!(exchange);
        let mut before = self.meter.open_connections();
        loop {
            if let Ok(answer) = tokio::time::timeout(self.limit, exchange.as_mut()).await {
                return Ok(answer);
            }
            if !self.meter.is_busy_since(&before) {
                let why = format!("no answer within {} seconds", self.limit.as_secs().max(1));
                return Err(error::offline(&why));
            }
            before = self.meter.open_connections();
        }
    }

    /// Waits for an exchange as long as something travels.
    pub(super) async fn limited<T>(
        &self,
        exchange: impl Future<Output = mongodb::error::Result<T>>,
    ) -> Result<T> {
        self.attempt(exchange).await?.map_err(|error| error::of_call(&error))
    }
}

/// One connection as it is carried.
struct Carried {
    number: u64,
    meter: Arc<Meter>,
    /// The driver spoke last: an answer is due.
    is_asked: AtomicBool,
    /// Pieces that travelled.
    pieces: AtomicU64,
}

impl Carried {
    fn begin(meter: &Arc<Meter>) -> Carried {
        let number = meter.opened.fetch_add(1, Ordering::Relaxed);
        lock(&meter.open).insert(number, 0);
        let (is_asked, pieces) = (AtomicBool::new(false), AtomicU64::new(0));
        Carried { number, meter: Arc::clone(meter), is_asked, pieces }
    }

    fn note(&self, is_question: bool, bytes: u64) {
        let all = if is_question { &self.meter.sent } else { &self.meter.received };
        all.fetch_add(bytes, Ordering::Relaxed);
        if let Some(own) = lock(&self.meter.open).get_mut(&self.number) {
            *own += bytes;
        }
        self.is_asked.store(is_question, Ordering::Relaxed);
        self.pieces.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns once a question had no answer for so long, and nothing travelled either.
    async fn silence(&self, limit: Duration) {
        let mut before = self.pieces.load(Ordering::Relaxed);
        loop {
            tokio::time::sleep(limit).await;
            let now = self.pieces.load(Ordering::Relaxed);
            let is_allowed = self.meter.silence_allowed.load(Ordering::Relaxed) > 0;
            if now == before && self.is_asked.load(Ordering::Relaxed) && !is_allowed {
                return;
            }
            before = now;
        }
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        lock(&self.meter.open).remove(&self.number);
    }
}

/// The open line; closed when dropped.
pub(super) struct Line {
    accepting: AbortHandle,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Line {
    /// Opens a line and tells how the driver is to use it.
    pub(super) async fn open(patience: &Patience) -> Result<(Line, Socks5Proxy)> {
        let (meter, limit) = (Arc::clone(&patience.meter), patience.limit);
        let no_port = |_| error::failed("no port of the loopback interface is free");
        let listener = TcpListener::bind((LOOPBACK, 0)).await.map_err(no_port)?;
        let port = listener.local_addr().map_err(no_port)?.port();
        let password = uuid::Uuid::new_v4().simple().to_string();
        let user = SimpleUserPassword { username: USER.to_owned(), password: password.clone() };
        let mut config = Config::<SimpleUserPassword>::default().with_authentication(user);
        config.set_request_timeout(GREETING_SECONDS_MAX);
        config.set_execute_command(false);
        // Names are looked up here, beside the connecting.
        config.set_dns_resolve(true);
        let config = Arc::new(config);
        let accepting = tokio::spawn(async move {
            while let Ok((driver, _)) = listener.accept().await {
                tokio::spawn(carry(driver, Arc::clone(&config), Arc::clone(&meter), limit));
            }
        });
        let mut proxy = Socks5Proxy::builder().host(LOOPBACK.to_owned()).build();
        proxy.port = Some(port);
        proxy.authentication = Some((USER.to_owned(), password));
        Ok((Line { accepting: accepting.abort_handle() }, proxy))
    }
}

/// Connects the driver with where it wants to be. A failure ends the connection, which the driver takes for
/// what it is; so does a question without an answer within `limit`, whatever other connections carry.
async fn carry(
    driver: TcpStream,
    config: Arc<Config<SimpleUserPassword>>,
    meter: Arc<Meter>,
    limit: Duration,
) {
    let Ok(asked) = Socks5Socket::new(driver, config).upgrade_to_socks5().await else {
        return;
    };
    let Some(address) = asked.target_addr().map(ToString::to_string) else {
        return;
    };
    let mut driver = asked.into_inner();
    let Ok(server) = TcpStream::connect(address).await else {
        return;
    };
    // Small messages are not to wait for others.
    if server.set_nodelay(true).is_err() || driver.set_nodelay(true).is_err() {
        return;
    }
    if driver.write_all(&CONNECTED_REPLY).await.is_err() {
        return;
    }
    let (from_driver, to_driver) = driver.into_split();
    let (from_server, to_server) = server.into_split();
    let carried = Carried::begin(&meter);
    // Whichever side ends first takes the other along.
    tokio::select! {
        () = pass(from_driver, to_server, |bytes| carried.note(true, bytes)) => {}
        () = pass(from_server, to_driver, |bytes| carried.note(false, bytes)) => {}
        () = carried.silence(limit) => {}
    }
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, note: impl Fn(u64)) {
    let mut piece = vec![0; PIECE_BYTES_MAX];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
        note(length as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Monitors of three members say a little each, all the time; the exchange is dead all the same.
    #[test]
    fn silence_is_judged_per_connection() {
        let meter = Arc::new(Meter::default());
        let monitors: Vec<_> = (0..3).map(|_| Carried::begin(&meter)).collect();
        let exchange = Carried::begin(&meter);
        exchange.note(true, 10 * QUIET_BYTES_MAX);
        let before = meter.open_connections();
        for _ in 0..3 {
            monitors.iter().for_each(|monitor| monitor.note(false, 1_000));
        }
        assert!(meter.received() > 2 * QUIET_BYTES_MAX);
        assert!(!meter.is_busy_since(&before));
        exchange.note(false, QUIET_BYTES_MAX);
        assert!(meter.is_busy_since(&before));
        // One that was opened since counts from its beginning.
        let before = meter.open_connections();
        let another = Carried::begin(&meter);
        another.note(true, QUIET_BYTES_MAX);
        assert!(meter.is_busy_since(&before));
        drop(another);
        assert_eq!(meter.open_connections().len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_question_without_an_answer_ends_a_connection() {
        let limit = Duration::from_secs(30);
        let is_ended =
            async |carried: &Carried| tokio::time::timeout(limit * 3, carried.silence(limit)).await.is_ok();
        let carried = Carried::begin(&Arc::new(Meter::default()));
        assert!(!is_ended(&carried).await, "nothing was asked");
        carried.note(true, 100);
        carried.note(false, 100);
        assert!(!is_ended(&carried).await, "it was answered");
        carried.note(true, 100);
        assert!(is_ended(&carried).await);
    }
}
