//! Floor 2. The protocol that is spoken at a port, told by the first bytes of an answer.
//!
//! Asked only where a connection has come to nothing. A server that expects another protocol often waits for more
//! instead of closing: MongoDB without TLS takes the first message of TLS for the beginning of a very long one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::FuturesUnordered;
use mongodb::options::TlsOptions;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{hello, tls};

/// An exchange without an answer for so long, or for half of its limit, makes it worth asking what else is spoken there. Longer
/// than a handshake takes over a satellite.
const QUIET: Duration = Duration::from_secs(2);
/// Longest that each protocol is tried.
const TRY_LIMIT: Duration = Duration::from_secs(2);
/// Longest to wait for the rest of an answer that has begun.
const REST_LIMIT: Duration = Duration::from_millis(300);
/// What is read of an answer: enough for what MongoDB replies to HTTP.
const ANSWER_BYTES_MAX: u64 = 512;
const HTTP_QUESTION: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

/// A protocol that a server may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// MongoDB's own, without TLS.
    Mongo,
    Tls,
    /// HTTP without TLS.
    Http,
}

/// Waits for an exchange in the protocol `expected` for as long as `limit`; `None` when that is over. If it stays silent, and
/// another protocol is spoken at the port, returns that one as an error without waiting for the limit.
pub(super) async fn unless_other<T>(
    expected: Protocol,
    host: &str,
    port: u16,
    limit: Duration,
    exchange: impl Future<Output = T>,
) -> Result<Option<T>, Protocol> {
    let exchange = tokio::time::timeout(limit, exchange);
    tokio::pin!(exchange);
    if let Ok(answer) = tokio::time::timeout(QUIET.min(limit / 2), exchange.as_mut()).await {
        return Ok(answer.ok());
    }
    let looking = async {
        match spoken_beside(Some(expected), host, port).await {
            Some(other) if other != expected => other,
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        answer = exchange => Ok(answer.ok()),
        other = looking => Err(other),
    }
}

/// The protocol that is spoken at a port; `None` if nothing answers in a protocol that is known.
pub(super) async fn spoken_at(host: &str, port: u16) -> Option<Protocol> {
    spoken_beside(None, host, port).await
}

/// [`spoken_at`]; `expected` if that is spoken as well: a server may speak both, MongoDB does.
async fn spoken_beside(expected: Option<Protocol>, host: &str, port: u16) -> Option<Protocol> {
    let mongo = async {
        let stream = TcpStream::connect((host, port)).await.ok()?;
        hello::exchange(stream, false).await.ok().map(|_| Protocol::Mongo)
    };
    let tls = async { of_bytes(&answer_to(&first_of_tls(host)?, host, port).await?) };
    let http = async { of_bytes(&answer_to(HTTP_QUESTION, host, port).await?) };
    let tries: [BoxFuture<'_, Option<Protocol>>; 3] = [mongo.boxed(), tls.boxed(), http.boxed()];
    let tries = tries.map(|trying| tokio::time::timeout(TRY_LIMIT, trying));
    let mut tries: FuturesUnordered<_> = tries.into_iter().collect();
    let mut found = None;
    while let Some(tried) = tries.next().await {
        match tried.ok().flatten() {
            Some(answer)
                if expected.is_none_or(|expected| expected == answer) && answer != Protocol::Http =>
            {
                return Some(answer);
            }
            // A server may also say in HTTP that it is none.
            Some(answer) if found.is_none_or(|found| found == Protocol::Http) => found = Some(answer),
            _ => {}
        }
    }
    found
}

/// The protocol that an answer belongs to, whatever was asked.
fn of_bytes(answer: &[u8]) -> Option<Protocol> {
    match answer {
        // A record of TLS: an alert or a part of a handshake, of version 3.x.
        [0x15 | 0x16, 3, ..] => Some(Protocol::Tls),
        // MongoDB answers HTTP with a page that says what it is.
        [b'H', b'T', b'T', b'P', b'/', rest @ ..] => match rest.windows(7).any(|part| part == b"MongoDB") {
            true => Some(Protocol::Mongo),
            false => Some(Protocol::Http),
        },
        _ => None,
    }
}

async fn answer_to(question: &[u8], host: &str, port: u16) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect((host, port)).await.ok()?;
    stream.write_all(question).await.ok()?;
    let mut answer = Vec::new();
    let mut reading = stream.take(ANSWER_BYTES_MAX);
    let first = reading.read_buf(&mut answer).await.ok()?;
    let mut rest = Vec::new();
    if first > 0 {
        // An answer in HTTP says in its body whose it is; the connection may stay open behind it.
        let _ = tokio::time::timeout(REST_LIMIT, reading.read_to_end(&mut rest)).await;
    }
    answer.extend(rest);
    Some(answer)
}

/// The first message of a TLS handshake with a server of this name.
fn first_of_tls(host: &str) -> Option<Vec<u8>> {
    let config = tls::config(&TlsOptions::default()).ok()?;
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let mut connection = ClientConnection::new(Arc::clone(&config), name).ok()?;
    let mut message = Vec::new();
    connection.write_tls(&mut message).ok()?;
    Some(message)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn first_bytes_tell_the_protocol() {
        for (answer, protocol) in [
            (&b"\x15\x03\x01\x00\x02\x02\x46"[..], Some(Protocol::Tls)),
            (b"\x16\x03\x03\x00\x7a", Some(Protocol::Tls)),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", Some(Protocol::Http)),
            (
                b"HTTP/1.0 200 OK\r\n\r\nIt looks like you are trying to access MongoDB over HTTP",
                Some(Protocol::Mongo),
            ),
            (b"SSH-2.0-OpenSSH_9.2", None),
            (b"\x15", None),
            (b"", None),
        ] {
            assert_eq!(of_bytes(answer), protocol, "{answer:?}");
        }
        assert_eq!(of_bytes(&first_of_tls("127.0.0.1").unwrap()), Some(Protocol::Tls), "what is sent is TLS");
    }

    /// A server that reads for ever and answers once it has read this.
    async fn answering(awaited: &'static [u8], answer: &'static [u8]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut read = Vec::new();
                    while let Ok(1..) = stream.read_buf(&mut read).await {
                        if read.starts_with(awaited) {
                            stream.write_all(answer).await.unwrap();
                        }
                    }
                });
            }
        });
        port
    }

    /// A server that speaks MongoDB's protocol at once, and TLS over a slow line.
    async fn speaking_both() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut read = Vec::new();
                    stream.read_buf(&mut read).await.unwrap();
                    let answer: &[u8] = match read.first() {
                        Some(0x16) => {
                            tokio::time::sleep(TRY_LIMIT / 2).await;
                            b"\x16\x03\x03\x00\x7a"
                        }
                        _ => {
                            b"HTTP/1.0 200 OK\r\n\r\nIt looks like you are trying to access MongoDB over HTTP"
                        }
                    };
                    let _ = stream.write_all(answer).await;
                });
            }
        });
        port
    }

    #[tokio::test]
    async fn a_server_that_speaks_both_is_not_said_to_speak_the_other_only() {
        let both = speaking_both().await;
        assert_eq!(spoken_at("127.0.0.1", both).await, Some(Protocol::Mongo));
        let limit = TRY_LIMIT * 3;
        let slow = |expected| unless_other(expected, "127.0.0.1", both, limit, std::future::pending::<()>());
        let looked = tokio::join!(slow(Protocol::Tls), slow(Protocol::Mongo));
        assert_eq!(looked, (Ok(None), Ok(None)));
    }

    #[tokio::test]
    async fn a_server_that_waits_for_another_protocol_is_told_and_silence_is_not() {
        let begun = Instant::now();
        let http = answering(b"GET ", b"HTTP/1.0 404 Not Found\r\nConnection: keep-alive\r\n\r\n").await;
        let alert = answering(b"\x16\x03", b"\x15\x03\x03\x00\x02\x02\x28").await;
        let silent = answering(b"nothing that anybody says", b"").await;
        let looked = tokio::join!(
            spoken_at("127.0.0.1", http),
            spoken_at("127.0.0.1", alert),
            spoken_at("127.0.0.1", silent),
            unless_other(Protocol::Mongo, "127.0.0.1", alert, TRY_LIMIT * 5, std::future::pending::<()>()),
            unless_other(Protocol::Tls, "127.0.0.1", alert, TRY_LIMIT * 5, tokio::time::sleep(QUIET * 2)),
        );
        assert_eq!(
            looked,
            (Some(Protocol::Http), Some(Protocol::Tls), None, Err(Protocol::Tls), Ok(Some(())))
        );
        assert!(begun.elapsed() < QUIET * 2 + TRY_LIMIT, "{:?}", begun.elapsed());
    }
}
