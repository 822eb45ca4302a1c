//! Nothing secret is in the log, at any level, whatever library writes it.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::cli_support::{Clinic, Node};

const PASSWORD: &str = "Zq7-cradle-of-Milano";
const NEXT_PASSWORD: &str = "Zq8-cradle-of-Roma";
const WRONG_PASSWORD: &str = "Zq9-wrong-password";
const CENTRE_PASSWORD: &str = "Zq4-centre-password";
const PROXY_PASSWORD: &str = "Zq5-proxy-password";
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

#[test]
fn no_secret_is_in_the_log_at_any_level() {
    for level in
        ["trace,h2=trace,hyper=trace,rustls=trace,fast_socks5=trace,fast_socks5::server=trace", "info"]
    {
        let uri = format!("mongodb://clinic:{CENTRE_PASSWORD}@127.0.0.1:9/");
        let clinic = Clinic::new().with("CENTRAL__URI", &uri);
        let node = clinic.serve_with_variable("THALAMUS_EDGE_LOG", level);
        let add = ["user", "add", "head", "--local", "--role", "root", "--password-stdin"];
        clinic.run_with(&add, &format!("{PASSWORD}\n")).ends(0);
        let made = clinic.run(&["user", "link", "head@local"]).ends(0).out.clone();
        let link = made.split_once("/link/").unwrap().1.lines().next().unwrap().to_owned();
        let login = |password: &str| format!("head@local:{password}");
        let mut secrets: Vec<String> =
            [PASSWORD, NEXT_PASSWORD, WRONG_PASSWORD, CENTRE_PASSWORD, PROXY_PASSWORD, NOTE]
                .map(String::from)
                .into();
        secrets.push(link.clone());

        assert_eq!(node.request("GET", "/users", &login(PASSWORD), "").0, 200);
        get_over_http2(&node, "/users", &login(PASSWORD));
        assert_eq!(node.request("GET", "/users", &login(WRONG_PASSWORD), "").0, 401);
        let person = format!(r#"{{"name": "{NOTE}", "password": "{NEXT_PASSWORD}"}}"#);
        assert_eq!(node.request("POST", "/people/ANA001", &login(PASSWORD), &person).0, 201);
        assert_eq!(node.request("GET", "/people/ANA001", &login(PASSWORD), "").0, 200);
        let form = format!("password={NEXT_PASSWORD}&again={NEXT_PASSWORD}");
        assert_eq!(node.request("POST", &format!("/link/{link}"), "", &form).0, 200);
        // A session counts behind a proxy that speaks HTTPS to its clients; without one the form is refused, and read.
        let form = format!("account=head%40local&password={WRONG_PASSWORD}");
        assert_eq!(node.request("POST", "/session", "", &form).0, 403);
        let cookie = "Cookie: __Host-session=Zq3-session-of-somebody";
        assert_eq!(node.get_with("/users", &login(NEXT_PASSWORD), cookie).0, 200);
        secrets.push("Zq3-session-of-somebody".to_owned());
        let reason = format!("X-Emergency-Reason: {NOTE}");
        assert_eq!(node.get_with("/people/ANA001", &login(NEXT_PASSWORD), &reason).0, 200);
        if level != "info" {
            // It goes through the proxy inside the process, whose library writes what it is sent.
            clinic.run(&["sync", "now"]);
        }
        assert!(clinic.run(&["user", "list", "--json"]).ends(0).json().is_array());
        secrets
            .extend([PASSWORD, NEXT_PASSWORD, WRONG_PASSWORD].map(|password| BASE64.encode(login(password))));

        let log = node.stop();
        let lines = log.lines().count();
        assert!(if level == "info" { lines < 30 } else { lines > 50 }, "{level}: {lines} lines");
        assert!(!log.contains("logged successfully") && !log.contains("Username:"), "{level}");
        for secret in &secrets {
            // Also as libraries write bytes: `[90, 113, 55, ...`.
            let bytes: Vec<String> = secret.bytes().take(8).map(|byte| byte.to_string()).collect();
            for written in [secret.clone(), bytes.join(", "), hex::encode(&secret.as_bytes()[..8])] {
                let line = log.lines().find(|line| line.contains(&written));
                assert!(line.is_none(), "{level}: {secret} in {line:?}");
            }
        }
    }
}
