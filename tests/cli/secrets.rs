//! Nothing secret is in the log, at any level, whatever library writes it.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::cli_support::{Clinic, Node};
use crate::support::mongo::{MongoServer, Setup, unique_database};

const PASSWORD: &str = "Zq7-cradle-of-Milano";
const NEXT_PASSWORD: &str = "Zq8-cradle-of-Roma";
const WRONG_PASSWORD: &str = "Zq9-wrong-password";
const CENTRE_PASSWORD: &str = "Zq4-centre-password";
const NOTE: &str = "Zq6-note-about-a-patient";

fn header(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat();
    assert!(name.len() < 127 && value.len() < 127);
    // RFC 7541, 6.2.2: a literal that is not indexed.
    [&[0][..], &text(name), &text(value)].concat()
}

/// A GET over HTTP/2 without TLS; returns once the answer has begun.
fn get_over_http2(node: &Node, path: &str, login: &str) {
    let fields = [
        header(":method", "GET"),
        header(":scheme", "http"),
        header(":authority", "clinic"),
        header(":path", path),
        header("authorization", &format!("Basic {}", BASE64.encode(login))),
    ]
    .concat();
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len() >> 8).unwrap();
        let head = [0, length, payload.len() as u8, kind, flags, 0, 0, 0, stream];
        [&head[..], payload].concat()
    };
    let mut stream = node.connect().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&frame(4, 0, 0, &[])).unwrap();
    stream.write_all(&frame(1, 5, 1, &fields)).unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).unwrap();
        if head[3] == 1 {
            return;
        }
    }
}

/// Asks as behind a proxy that speaks HTTPS; `headers` end their lines. The whole answer.
fn over_https(node: &Node, request: &str, headers: &str, body: &str) -> String {
    let mut stream = node.connect().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let head = format!("{request} HTTP/1.1\r\nHost: clinic\r\nX-Forwarded-Proto: https\r\nConnection: close");
    write!(stream, "{head}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Logs in by the form: the cookie and the token of the session.
fn open_session(node: &Node, account: &str, password: &str) -> (String, String) {
    let value = |answer: &str, name: &str, end: char| {
        let at = answer.find(name).unwrap_or_else(|| panic!("no {name} in {answer}")) + name.len();
        answer[at..].split(end).next().unwrap().trim().to_owned()
    };
    let sent = "Origin: https://clinic\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    let form = format!("account={account}&password={password}");
    let cookie = value(&over_https(node, "POST /session", sent, &form), "__Host-session=", ';');
    let page = over_https(node, "GET /session", &format!("Cookie: __Host-session={cookie}\r\n"), "");
    (cookie, value(&page, "x-csrf-token: ", '\r'))
}

#[test]
fn no_secret_is_in_the_log_at_any_level() {
    let every =
        "trace,h2=trace,hyper=trace,rustls=trace,mongodb=trace,fast_socks5=trace,fast_socks5::server=trace";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let user = Some(("clinic".to_owned(), CENTRE_PASSWORD.to_owned()));
    let server = runtime.block_on(MongoServer::start_own(Setup { user, ..Setup::default() }));
    // Without the variable, what the node says by default counts.
    for level in [Some(every), Some("info"), None] {
        let separator = if server.uri().contains('?') { "&" } else { "?" };
        let clinic = Clinic::new()
            .with("CENTRAL__URI", &format!("{}{separator}directConnection=true", server.uri()))
            .with("CENTRAL__DATABASE", &unique_database())
            .with("SERVER__TRUSTED_PROXIES", "[\"127.0.0.1\"]");
        let node = match level {
            Some(level) => clinic.serve_with_variable("THALAMUS_EDGE_LOG", level),
            None => clinic.serve(&[]),
        };
        let add = ["user", "add", "head", "--local", "--role", "root", "--password-stdin"];
        clinic.run_with(&add, &format!("{PASSWORD}\n")).ends(0);
        let made = clinic.run(&["user", "link", "head@local"]).ends(0).out.clone();
        let link = made.split_once("/link/").unwrap().1.lines().next().unwrap().to_owned();
        let login = |password: &str| format!("head@local:{password}");
        let mut secrets: Vec<String> =
            [PASSWORD, NEXT_PASSWORD, WRONG_PASSWORD, CENTRE_PASSWORD, NOTE].map(String::from).into();
        secrets.push(link.clone());

        assert_eq!(node.request("GET", "/users", &login(PASSWORD), "").0, 200);
        get_over_http2(&node, "/users", &login(PASSWORD));
        assert_eq!(node.request("GET", "/users", &login(WRONG_PASSWORD), "").0, 401);
        let person = format!(r#"{{"name": "{NOTE}", "password": "{NEXT_PASSWORD}"}}"#);
        assert_eq!(node.request("POST", "/people/ANA001", &login(PASSWORD), &person).0, 201);
        assert_eq!(node.request("GET", "/people/ANA001", &login(PASSWORD), "").0, 200);
        let form = format!("password={NEXT_PASSWORD}&again={NEXT_PASSWORD}");
        assert_eq!(node.request("POST", &format!("/link/{link}"), "", &form).0, 200);
        // Without HTTPS the form is refused, and read.
        let form = format!("account=head%40local&password={WRONG_PASSWORD}");
        assert_eq!(node.request("POST", "/session", "", &form).0, 403);
        let (cookie, token) = open_session(&node, "head%40local", NEXT_PASSWORD);
        let shown = format!("Cookie: __Host-session={cookie}\r\nx-csrf-token: {token}\r\n");
        let answer = over_https(&node, "GET /users", &shown, "");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{level:?}: {answer}");
        secrets.extend([cookie, token]);
        let cookie = "Cookie: __Host-session=Zq3-session-of-somebody";
        assert_eq!(node.get_with("/users", &login(NEXT_PASSWORD), cookie).0, 200);
        secrets.push("Zq3-session-of-somebody".to_owned());
        let reason = format!("X-Emergency-Reason: {NOTE}");
        assert_eq!(node.get_with("/people/ANA001", &login(NEXT_PASSWORD), &reason).0, 200);
        // Through the proxy inside the process, whose library writes what it is sent; the person goes to the centre.
        clinic.run(&["sync", "now"]).ends(0).says("complete");
        assert!(clinic.run(&["user", "list", "--json"]).ends(0).json().is_array());
        secrets
            .extend([PASSWORD, NEXT_PASSWORD, WRONG_PASSWORD].map(|password| BASE64.encode(login(password))));

        let log = node.stop();
        let lines = log.lines().count();
        assert!(
            if level == Some(every) { lines > 50 } else { lines < 40 },
            "{level:?}: {lines} lines\n{log}"
        );
        assert!(!log.contains("logged successfully") && !log.contains("Username:"), "{level:?}");
        let is_for_developers = |line: &&str| line.contains(" DEBUG ") || line.contains(" TRACE ");
        assert_eq!(log.lines().find(is_for_developers).is_some(), level == Some(every), "{level:?}");
        for secret in &secrets {
            // Also as libraries write bytes: `[90, 113, 55, ...`.
            let bytes: Vec<String> = secret.bytes().take(8).map(|byte| byte.to_string()).collect();
            for written in [secret.clone(), bytes.join(", "), hex::encode(&secret.as_bytes()[..8])] {
                let line = log.lines().find(|line| line.contains(&written));
                assert!(line.is_none(), "{level:?}: {secret} in {line:?}");
            }
        }
    }
}
