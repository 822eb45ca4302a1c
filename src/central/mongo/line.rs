//! Floor 2. The line to the centre: every byte that the driver exchanges passes here.
//!
//! The driver shows commands, not connections; but it can be told to go through a SOCKS5 proxy. This is one,
//! inside the process, for one conversation: it counts what really travels (handshakes, monitoring, TLS and
//! compression included) and shows whether anything travels at all, so that a slow line can be told from a
//! dead one. It listens on the loopback interface and asks for a password that only this conversation has.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fast_socks5::server::{Config, SimpleUserPassword, Socks5Socket};
use mongodb::options::Socks5Proxy;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::error;
use crate::central::Result;

const LOOPBACK: &str = "127.0.0.1";
const USER: &str = "conversation";
/// What is passed on at a time.
const PIECE_BYTES_MAX: usize = 16 * 1024;
/// Longest that the driver may take to say where it wants to be connected.
const GREETING_SECONDS_MAX: u64 = 5;
/// A line that carries less than this within a conversation's limit is dead: the driver's own questions
/// about the state of the server come to less.
const QUIET_BYTES_MAX: u64 = 4 * 1024;
/// SOCKS5 (RFC 1928, section 6): succeeded, bound to nothing that matters.
const CONNECTED_REPLY: [u8; 10] = [5, 0, 0, 1, 0, 0, 0, 0, 0, 0];

/// What has travelled so far.
#[derive(Debug, Default)]
pub(super) struct Meter {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Meter {
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// How long an exchange may go without progress.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    pub(super) limit: Duration,
    pub(super) meter: Arc<Meter>,
}

impl Patience {
    /// Waits for an exchange as long as something travels; the driver's answer as it is.
    pub(super) async fn attempt<T>(
        &self,
        exchange: impl Future<Output = mongodb::error::Result<T>>,
    ) -> Result<mongodb::error::Result<T>> {
        tokio::pin!(exchange);
        let travelled = || self.meter.sent() + self.meter.received();
        let mut before = travelled();
        loop {
            if let Ok(answer) = tokio::time::timeout(self.limit, exchange.as_mut()).await {
                return Ok(answer);
            }
            let now = travelled();
            if now - before < QUIET_BYTES_MAX {
                return Err(error::offline("no answer in time"));
            }
            before = now;
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
    pub(super) async fn open(meter: Arc<Meter>) -> Result<(Line, Socks5Proxy)> {
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
                tokio::spawn(carry(driver, Arc::clone(&config), Arc::clone(&meter)));
            }
        });
        let mut proxy = Socks5Proxy::builder().host(LOOPBACK.to_owned()).build();
        proxy.port = Some(port);
        proxy.authentication = Some((USER.to_owned(), password));
        Ok((Line { accepting: accepting.abort_handle() }, proxy))
    }
}

/// Connects the driver with where it wants to be. A failure ends the connection, which the driver takes for
/// what it is.
async fn carry(driver: TcpStream, config: Arc<Config<SimpleUserPassword>>, meter: Arc<Meter>) {
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
    // Whichever side ends first takes the other along.
    tokio::select! {
        () = pass(from_driver, to_server, &meter.sent) => {}
        () = pass(from_server, to_driver, &meter.received) => {}
    }
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, count: &AtomicU64) {
    let mut piece = vec![0; PIECE_BYTES_MAX];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
        count.fetch_add(length as u64, Ordering::Relaxed);
    }
}
