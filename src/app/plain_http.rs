//! Floor 5. Plain HTTP on the port of HTTPS: answered with a sentence and the right address, instead of a connection
//! that ends without a word.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for the first byte of a connection.
const FIRST_BYTE_MAX: Duration = Duration::from_secs(10);
/// Longest wait for the head of a request, and for the client to take the answer.
const HEAD_MAX: Duration = Duration::from_secs(5);
/// More of a head is not read.
const HEAD_BYTES_MAX: usize = 8192;
const HEAD_END: &[u8] = b"\r\n\r\n";
/// Of what a client goes on to send, so much is taken, so that the answer is not cut off.
const REST_BYTES_MAX: usize = 64 << 10;

/// Answers a client that speaks plain HTTP; true if it did, and the connection is over. What else comes is left
/// unread for TLS.
pub(super) async fn turn_away(stream: &mut TcpStream) -> io::Result<bool> {
    let mut first = [0; 1];
    let read =
        timeout(FIRST_BYTE_MAX, stream.peek(&mut first)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    // TLS begins with 22, methods of HTTP with a letter.
    if read == 0 || !first[0].is_ascii_alphabetic() {
        return Ok(false);
    }
    let local = stream.local_addr()?;
    let head = timeout(HEAD_MAX, read_head(stream)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let answering = async {
        stream.write_all(&answer(&head, local)).await?;
        stream.shutdown().await?;
        let mut rest = vec![0; 4096];
        let mut taken = 0;
        while taken < REST_BYTES_MAX {
            match stream.read(&mut rest).await? {
                0 => break,
                read => taken += read,
            }
        }
        io::Result::Ok(())
    };
    // Whether the client has taken it changes nothing here.
    let _ = timeout(HEAD_MAX, answering).await;
    Ok(true)
}

async fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut some = [0; 1024];
    while head.len() < HEAD_BYTES_MAX && !head.windows(HEAD_END.len()).any(|end| end == HEAD_END) {
        match stream.read(&mut some).await? {
            0 => break,
            read => head.extend(some.iter().take(read)),
        }
    }
    Ok(head)
}

fn answer(head: &[u8], local: SocketAddr) -> Vec<u8> {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let header = |name: &str| {
        let mut fields = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let address = address(header("host"), target, local);
    let sentence = "This port speaks HTTPS only. The right address is";
    let is_page = header("accept").is_some_and(|accept| accept.contains("text/html"));
    let (kind, body) = match is_page {
        // The address holds no character that would mean something here: see `address`.
        true => (
            "text/html",
            format!(
                "<!doctype html>\n<title>HTTPS only</title>\n<p>{sentence} <a href=\"{address}\">{address}</a>\n"
            ),
        ),
        false => ("text/plain", format!("{sentence} {address}\n")),
    };
    let length = body.len();
    let shown = if method == "HEAD" { "" } else { &body };
    format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {length}\r\n\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n{shown}"
    )
    .into_bytes()
}

/// What the client should have asked for: the same host, port and path.
fn address(host: Option<&str>, target: &str, local: SocketAddr) -> String {
    let is_host = |host: &&str| {
        !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:[]".contains(c))
    };
    let host = match host.filter(is_host) {
        // Clients leave out the port 80, and this is another.
        Some(host) if host.ends_with(']') || !host.contains(':') => match local.port() {
            443 => host.to_owned(),
            port => format!("{host}:{port}"),
        },
        Some(host) => host.to_owned(),
        None => local.to_string(),
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~/?=%+,:@!$*;".contains(c);
    let target = if target.starts_with('/') && target.chars().all(is_plain) { target } else { "/" };
    format!("https://{host}{target}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_address_is_the_one_that_was_asked_for() {
        let local: SocketAddr = ([10, 0, 0, 5], 8443).into();
        let of = |host: Option<&str>, target: &str| address(host, target, local);
        assert_eq!(of(Some("clinic.local:8443"), "/people?q=a"), "https://clinic.local:8443/people?q=a");
        assert_eq!(of(Some("[::1]:8443"), "/"), "https://[::1]:8443/");
        assert_eq!(of(Some("clinic.local"), "/"), "https://clinic.local:8443/");
        assert_eq!(
            address(Some("clinic.local"), "/x", ([10, 0, 0, 5], 443).into()),
            "https://clinic.local/x"
        );
        assert_eq!(of(Some("[::1]"), "/"), "https://[::1]:8443/");
        assert_eq!(of(None, "/x"), "https://10.0.0.5:8443/x");
        for (host, target) in [("a\"><script>", "/"), ("", "/"), ("evil.example/x", "/")] {
            assert_eq!(of(Some(host), target), "https://10.0.0.5:8443/", "{host}");
        }
        for target in ["/<script>", "/a\"b", "*", "http://elsewhere/", ""] {
            assert_eq!(of(Some("h:1"), target), "https://h:1/", "{target}");
        }
    }

    #[test]
    fn the_answer_is_what_the_client_reads() {
        let local: SocketAddr = ([127, 0, 0, 1], 8443).into();
        let of = |head: &str| String::from_utf8(answer(head.as_bytes(), local)).expect("text");
        let plain = of("GET /people HTTP/1.1\r\nHost: box:8443\r\n\r\n");
        assert!(plain.starts_with("HTTP/1.1 400 ") && plain.contains("text/plain"), "{plain}");
        assert!(plain.ends_with(
            "\r\n\r\nThis port speaks HTTPS only. The right address is https://box:8443/people\n"
        ));
        let page = of("GET / HTTP/1.1\r\nhost: box:8443\r\naccept: text/html,*/*\r\n\r\n");
        assert!(page.contains("text/html") && page.contains("<a href=\"https://box:8443/\">"), "{page}");
        let head = of("HEAD / HTTP/1.1\r\nHost: box:8443\r\n\r\n");
        assert!(head.ends_with("\r\n\r\n") && !head.contains("Content-Length: 0"), "{head}");
        assert!(of("PRI * HTTP/2.0\r\n\r\n").contains("https://127.0.0.1:8443/"));
    }
}
