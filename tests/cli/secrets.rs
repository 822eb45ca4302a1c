//! Nothing secret is in the log, at any level, whatever library writes it.

use std::fs;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::Value;

use crate::cli_support::{Clinic, Node};
use crate::support::mongo::{MongoServer, Setup, unique_database};

const PASSWORD: &str = "Zq7-cradle-of-Milano";
const NEXT_PASSWORD: &str = "Zq8-cradle-of-Roma";
const WRONG_PASSWORD: &str = "Zq9-wrong-password";
const CENTRE_PASSWORD: &str = "Zq4-centre-password";
const LAST_PASSWORD: &str = "Zq5-cradle-of-Torino";
const NOTE: &str = "Zq6-note-about-a-patient";
const SECRETS: [&str; 7] = [
    PASSWORD,
    NEXT_PASSWORD,
    WRONG_PASSWORD,
    CENTRE_PASSWORD,
    LAST_PASSWORD,
    NOTE,
    "Zq3-session-of-somebody",
];

fn header(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat();
    assert!(name.len() < 127 && value.len() < 127);
    // RFC 7541, 6.2.2: a literal that is not indexed.
    [&[0][..], &text(name), &text(value)].concat()
}

/// A connection to the node, in clear or by TLS.
trait Line: Read + Write {}

impl<T: Read + Write> Line for T {}

/// How a clinic's node is reached.
struct Client<'a> {
    clinic: &'a Clinic,
    node: &'a Node,
    has_tls: bool,
}

impl Client<'_> {
    fn connect(&self, protocol: &str) -> Box<dyn Line> {
        let stream = self.node.connect().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        if !self.has_tls {
            return Box::new(stream);
        }
        let mut roots = rustls::RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(self.clinic.data().join("tls").join("ca.pem")).unwrap();
        roots.add(authority).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let name = ServerName::try_from("localhost").unwrap();
        let session = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        Box::new(rustls::StreamOwned::new(session, stream))
    }

    /// The whole answer; `headers` end their lines.
    fn ask(&self, request: &str, headers: &str, body: &str) -> String {
        let mut stream = self.connect("http/1.1");
        let head = format!("{request} HTTP/1.1\r\nHost: clinic\r\nConnection: close");
        write!(stream, "{head}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// The status of the answer to somebody with a password.
    fn status(&self, request: &str, login: &str, headers: &str, body: &str) -> u16 {
        let login = format!("Authorization: Basic {}\r\n{headers}", BASE64.encode(login));
        let answer = self.ask(request, &login, body);
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Logs in by the form: the cookie and the token of the session.
    fn open_session(&self, account: &str, password: &str) -> (String, String) {
        let value = |answer: &str, name: &str, end: char| {
            let at = answer.find(name).unwrap_or_else(|| panic!("no {name} in {answer}")) + name.len();
            answer[at..].split(end).next().unwrap().trim().to_owned()
        };
        let form = format!("account={account}&password={password}");
        let sent = format!("{HTTPS}Content-Type: application/x-www-form-urlencoded\r\n");
        let cookie = value(&self.ask("POST /session", &sent, &form), "__Host-session=", ';');
        let page = self.ask("GET /session", &format!("{HTTPS}Cookie: __Host-session={cookie}\r\n"), "");
        (cookie, value(&page, "x-csrf-token: ", '\r'))
    }
}

/// Behind a proxy that speaks HTTPS.
const HTTPS: &str = "X-Forwarded-Proto: https\r\nOrigin: https://clinic\r\n";

/// A request over HTTP/2; returns once the answer has begun.
fn ask_over_http2(client: &Client<'_>, method: &str, path: &str, login: &str, body: &str) {
    let fields = [
        header(":method", method),
        header(":scheme", if client.has_tls { "https" } else { "http" }),
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
    let mut stream = client.connect("h2");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&frame(4, 0, 0, &[])).unwrap();
    // The head, and the body with the end of the stream.
    stream.write_all(&frame(1, 4, 1, &fields)).unwrap();
    stream.write_all(&frame(0, 1, 1, body.as_bytes())).unwrap();
    stream.flush().unwrap();
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

/// How a node is run, and what it is told to log.
struct Case {
    /// Without it, what the node says by default counts.
    level: Option<&'static str>,
    is_json: bool,
    /// With TLS, an encrypted store and encrypted backups.
    is_sealed: bool,
}

const EVERY: &str =
    "trace,h2=trace,hyper=trace,rustls=trace,mongodb=trace,fast_socks5=trace,fast_socks5::server=trace";

#[test]
fn no_secret_is_in_the_log_at_any_level() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let user = Some(("clinic".to_owned(), CENTRE_PASSWORD.to_owned()));
    let server = runtime.block_on(MongoServer::start_own(Setup { user, ..Setup::default() }));
    for (level, is_json, is_sealed) in [
        (Some(EVERY), false, false),
        (Some(EVERY), true, true),
        (Some("info"), true, false),
        (None, true, true),
        (None, false, false),
    ] {
        check_log(&server, &Case { level, is_json, is_sealed });
    }
}

fn check_log(server: &MongoServer, case: &Case) {
    let Case { level, is_json, is_sealed } = *case;
    let cell = format!("{level:?}, json: {is_json}, sealed: {is_sealed}");
    let separator = if server.uri().contains('?') { "&" } else { "?" };
    let mut clinic = Clinic::new()
        .with("CENTRAL__URI", &format!("{}{separator}directConnection=true", server.uri()))
        .with("CENTRAL__DATABASE", &unique_database())
        .with("SERVER__TRUSTED_PROXIES", "[\"127.0.0.1\"]");
    let mut secrets: Vec<String> = SECRETS.map(String::from).into();
    if is_sealed {
        let key = clinic.path("key");
        clinic.run(&["db", "keygen", key.to_str().unwrap()]).ends(0);
        let pair = clinic.run(&["backup", "keygen"]).ends(0).out;
        clinic = clinic
            .with("SERVER__TLS", "true")
            .with("STORE__KEY_FILE", key.to_str().unwrap())
            .with("BACKUP__RECIPIENTS", &format!("[{:?}]", pair.split('"').nth(1).unwrap()));
        let words = [fs::read_to_string(&key).unwrap(), pair].join("\n");
        let words = words.split_whitespace().map(|word| word.trim_matches('"').to_owned());
        let is_key = |word: &String| {
            word.starts_with("AGE-SECRET-KEY-") || word.len() >= 43 && !word.starts_with("age1")
        };
        let keys: Vec<String> = words.filter(is_key).collect();
        assert!(keys.len() >= 2, "{} keys", keys.len());
        secrets.extend(keys);
    }
    let format = is_json.then_some(("THALAMUS_EDGE_LOG_FORMAT", "json"));
    let variables: Vec<_> =
        level.map(|level| ("THALAMUS_EDGE_LOG", level)).into_iter().chain(format).collect();
    let node = clinic.serve_with_variables(&variables);
    let client = Client { clinic: &clinic, node: &node, has_tls: is_sealed };
    let add = ["user", "add", "head", "--local", "--role", "root", "--password-stdin"];
    clinic.run_with(&add, &format!("{PASSWORD}\n")).ends(0);
    let made = clinic.run(&["user", "link", "head@local"]).ends(0).out.clone();
    let link = made.split_once("/link/").unwrap().1.lines().next().unwrap().to_owned();
    let login = |password: &str| format!("head@local:{password}");
    secrets.push(link.clone());

    assert_eq!(client.status("GET /users", &login(PASSWORD), "", ""), 200);
    ask_over_http2(&client, "GET", "/users", &login(PASSWORD), "");
    assert_eq!(client.status("GET /users", &login(WRONG_PASSWORD), "", ""), 401);
    let person = format!(r#"{{"name": "{NOTE}", "password": "{NEXT_PASSWORD}"}}"#);
    assert_eq!(client.status("POST /people/ANA001", &login(PASSWORD), "", &person), 201);
    ask_over_http2(&client, "PATCH", "/people/ANA001", &login(PASSWORD), &format!(r#"{{"n": "{NOTE}"}}"#));
    assert_eq!(client.status("GET /people/ANA001", &login(PASSWORD), "", ""), 200);
    let form = format!("password={NEXT_PASSWORD}&again={NEXT_PASSWORD}");
    assert!(client.ask(&format!("POST /link/{link}"), "", &form).starts_with("HTTP/1.1 200 "), "{cell}");
    // Without HTTPS the form is refused, and read; with it the password is wrong.
    let form = format!("account=head%40local&password={WRONG_PASSWORD}");
    assert!(client.ask("POST /session", "", &form).starts_with("HTTP/1.1 403 "), "{cell}");
    let (cookie, token) = client.open_session("head%40local", NEXT_PASSWORD);
    let shown = format!("{HTTPS}Cookie: __Host-session={cookie}\r\nx-csrf-token: {token}\r\n");
    let answer = client.ask("GET /users", &shown, "");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{cell}: {answer}");
    secrets.extend([cookie, token]);
    let foreign = "Cookie: __Host-session=Zq3-session-of-somebody\r\n";
    assert_eq!(client.status("GET /users", &login(NEXT_PASSWORD), foreign, ""), 200);
    let reason = format!("X-Emergency-Reason: {NOTE}\r\n");
    assert_eq!(client.status("GET /people/ANA001", &login(NEXT_PASSWORD), &reason, ""), 200);
    if is_sealed {
        // The node makes it.
        clinic.run(&["backup", "create"]).ends(0);
    }
    // Through the proxy inside the process, whose library writes what it is sent; the person goes to the centre.
    clinic.run(&["sync", "now"]).ends(0).says("complete");
    assert!(clinic.run(&["user", "list", "--json"]).ends(0).json().is_array());
    // By a session another password needs the current one; a wrong one is refused.
    for (current, status) in [(WRONG_PASSWORD, 422), (NEXT_PASSWORD, 204)] {
        let new = format!(r#"{{"password": "{LAST_PASSWORD}", "current_password": "{current}"}}"#);
        let answer = client.ask("POST /users/head@local/password", &shown, &new);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{cell}: {answer}");
    }
    let passwords = [PASSWORD, NEXT_PASSWORD, WRONG_PASSWORD];
    secrets.extend(passwords.map(|password| BASE64.encode(login(password))));

    let log = node.stop();
    let lines = log.lines().count();
    let is_every = level == Some(EVERY);
    assert!(if is_every { lines > 50 } else { lines < 40 }, "{cell}: {lines} lines\n{log}");
    assert!(!log.contains("logged successfully") && !log.contains("Username:"), "{cell}");
    let is_for_developers = |line: &&str| {
        ["DEBUG", "TRACE"].iter().any(|level| {
            line.contains(&format!(" {level} ")) || line.contains(&format!("\"level\":\"{level}\""))
        })
    };
    assert_eq!(log.lines().find(is_for_developers).is_some(), is_every, "{cell}");
    if is_json {
        check_who_says_it(&log, level.is_none());
    }
    for secret in &secrets {
        // Also as libraries write bytes: `[90, 113, 55, ...`.
        let bytes: Vec<String> = secret.bytes().take(8).map(|byte| byte.to_string()).collect();
        for written in [secret.clone(), bytes.join(", "), hex::encode(&secret.as_bytes()[..8])] {
            let line = log.lines().find(|line| line.contains(&written));
            assert!(line.is_none(), "{cell}: {secret} in {line:?}");
        }
    }
}

/// By default, lines below a warning are the node's own. A level that somebody asks for is also that of libraries.
fn check_who_says_it(log: &str, is_default: bool) {
    let mut own = 0;
    let mut libraries = Vec::new();
    for line in log.lines() {
        // What is no line of the log is for whoever starts the node.
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        let (level, target) = (line["level"].as_str().unwrap(), line["target"].as_str().expect("a target"));
        if ["WARN", "ERROR"].contains(&level) {
            continue;
        }
        if target == "thalamus_edge" || target.starts_with("thalamus_edge::") {
            own += 1;
        } else {
            libraries.push(line);
        }
    }
    assert!(own > 3, "{own} lines: {log}");
    assert!(libraries.is_empty() || !is_default, "{libraries:?}");
}
