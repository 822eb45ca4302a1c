//! A node behind a real nginx, with the configuration of docs/OPERATIONS.md.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use thalamus_edge::tls::{Tls, TlsSettings};

use crate::cli_support::{Clinic, ROOT};

const OPERATIONS: &str = include_str!("../../docs/OPERATIONS.md");

/// One on PATH, or the one that tests/run has unpacked.
#[allow(clippy::disallowed_methods, reason = "where programs are is no setting of the node")]
fn nginx() -> PathBuf {
    let unpacked = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/nginx/usr/sbin/nginx"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).map(|directory| directory.join("nginx"));
    let mut places = installed.chain(["/usr/sbin/nginx".into(), unpacked]);
    places.find(|place| place.exists()).expect("nginx: tests/run gets it")
}

/// One process: nginx without workers.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks over HTTPS, from an address of this machine: status, head, body.
fn ask(port: u16, from: &str, request: (&str, &str), headers: &[&str], body: &str) -> (u16, String, String) {
    const CLIENT: &str = r#"
import http.client, ssl, sys
port, source, method, path, body = sys.argv[1:6]
context = ssl._create_unverified_context()
c = http.client.HTTPSConnection("127.0.0.1", int(port), source_address=(source, 0), context=context)
c.putrequest(method, path)
for line in sys.argv[6:]:
    c.putheader(*line.split(": ", 1))
c.putheader("Content-Length", str(len(body)))
c.endheaders(body.encode())
r = c.getresponse()
print(r.status)
print(str(r.headers).strip())
print()
print(r.read().decode())
"#;
    let (port, (method, path)) = (port.to_string(), request);
    let mut command = Command::new("python3");
    let ran = command.args(["-c", CLIENT, &port, from, method, path, body]).args(headers).output().unwrap();
    let out = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let (status, rest) = out.split_once('\n').unwrap();
    let (head, body) = rest.split_once("\n\n").unwrap();
    (status.parse().unwrap(), head.to_lowercase(), body.to_owned())
}

/// Starts nginx with the documented server in front of the node.
#[allow(clippy::disallowed_methods, reason = "a certificate for now")]
fn start(clinic: &Clinic, port: u16, node_port: u16) -> Running {
    let names = vec!["clinic.example.org".to_owned()];
    let settings = TlsSettings { directory: clinic.path("proxy-tls"), own: None, names };
    Tls::load(settings, SystemTime::now()).unwrap();
    let path = |name: &str| clinic.path(name).to_str().unwrap().to_owned();
    let (_, block) = OPERATIONS.split_once("```nginx\n").expect("the configuration in the docs");
    let mut server = block.split_once("```").unwrap().0.to_owned();
    for (documented, here) in [
        ("listen 443 ssl http2;", format!("listen 127.0.0.1:{port} ssl http2;")),
        ("/etc/ssl/clinic.pem", path("proxy-tls/cert.pem")),
        ("/etc/ssl/clinic.key", path("proxy-tls/key.pem")),
        ("http://127.0.0.1:8080", format!("http://127.0.0.1:{node_port}")),
    ] {
        assert!(server.contains(documented), "{documented}");
        server = server.replace(documented, &here);
    }
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = kinds.map(|kind| format!("{kind}_temp_path {};\n", path(kind))).concat();
    let (config, log, pid) = (clinic.path("nginx.conf"), path("nginx.log"), path("nginx.pid"));
    let text = format!(
        "daemon off;\nmaster_process off;\npid {pid};\nerror_log {log};\nevents {{}}\n\
         http {{\naccess_log off;\n{temporary}{server}}}\n"
    );
    fs::write(&config, text).unwrap();
    let child = Command::new(nginx()).args(["-c", config.to_str().unwrap(), "-e", &log]).spawn().unwrap();
    let mut running = Running(child);
    let deadline = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let ended = running.0.try_wait().unwrap();
        assert!(ended.is_none() && Instant::now() < deadline, "{ended:?} {:?}", fs::read_to_string(&log));
        std::thread::sleep(Duration::from_millis(20));
    }
    running
}

#[test]
fn behind_nginx_the_node_sees_the_client() {
    let clinic = Clinic::new().with("SERVER__TRUSTED_PROXIES", "[\"127.0.0.1\", \"::1\"]");
    let node = clinic.serve(&["--demo"]);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nginx = start(&clinic, port, node.port());

    // Whatever a client says about itself, the proxy knows better.
    const FOR: &str = "X-Forwarded-For: 203.0.113.9";
    const STANDARD: &str = "Forwarded: for=203.0.113.9;proto=http";
    const PROTO: &str = "X-Forwarded-Proto: http";
    let wrong = ["Authorization: Basic QTpC", FOR, STANDARD, PROTO];
    assert_eq!(ask(port, "127.0.0.5", ("GET", "/people"), &wrong, "").0, 401);
    let origin = format!("Origin: https://127.0.0.1:{port}");
    let sent = ["Content-Type: application/x-www-form-urlencoded", &origin, PROTO];
    let form = "account=ITPYT999HON&password=gnusolidario";
    let (status, head, body) = ask(port, "127.0.0.6", ("POST", "/session"), &sent, form);
    assert!(status == 303 && head.contains("set-cookie: __host-session="), "{status} {head} {body}");
    // A page of another site is refused here too: the proxy passes on which host was asked for.
    let foreign = ["Origin: https://elsewhere.example"];
    assert_eq!(ask(port, "127.0.0.6", ("POST", "/session"), &foreign, form).0, 403);
    // This one comes from a trusted address, without the proxy.
    assert_eq!(node.get_with("/people", "A:C", FOR).0, 401);

    // Guesses from one address hold up nobody at another one, though all come through the proxy.
    let guess = |from: &str| {
        ask(port, from, ("GET", "/people"), &["Authorization: Basic RVNQR05VNzc3T1JHOkI="], "").0
    };
    let guesses: Vec<u16> = (0..20).map(|_| guess("127.0.0.7")).take_while(|status| *status == 401).collect();
    assert!((5..20).contains(&guesses.len()), "{guesses:?}");
    assert_eq!(guess("127.0.0.8"), 401, "a wrong one from elsewhere is looked at");
    let right = ["Authorization: Basic SVRQWVQ5OTlIT046Z251c29saWRhcmlv"];
    assert_eq!(ask(port, "127.0.0.8", ("GET", "/people"), &right, "").0, 200);

    let audited = || -> Vec<(String, String)> {
        let audit = node.request("GET", "/audit?limit=1000&after=0", ROOT, "").1;
        let audit: Value = serde_json::from_str(&audit).unwrap();
        let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let entries = audit["entries"].as_array().unwrap().iter();
        entries.map(|entry| (text(entry, "verb"), text(entry, "peer"))).collect()
    };
    let from = |verb: &str| {
        let of_verb = audited().into_iter().filter(|(known, _)| known == verb);
        of_verb.map(|(_, from)| from).collect::<Vec<_>>()
    };
    // Reads and refusals are written within a second.
    let known = |verb: &str, peer: &str| from(verb).iter().any(|known| known == peer);
    node.wait_until(|| known("login_failed", "127.0.0.8") && known("login", "127.0.0.6"));
    let mut failed = from("login_failed");
    failed.sort();
    failed.dedup();
    assert_eq!(failed, ["127.0.0.5", "127.0.0.7", "127.0.0.8", "203.0.113.9"]);
    assert!(!known("login", "127.0.0.1") && !known("login_failed", "127.0.0.1"));
    drop(nginx);
    node.stop();
}

/// Who is no proxy of the node's may say what they like.
#[test]
fn nobody_else_is_believed() {
    let clinic = Clinic::new();
    let node = clinic.serve(&["--demo"]);
    assert_eq!(node.get_with("/people", "A:C", "X-Forwarded-For: 203.0.113.9").0, 401);
    node.wait_until(|| node.request("GET", "/audit?limit=1000&after=0", ROOT, "").1.contains("login_failed"));
    assert!(!node.request("GET", "/audit?limit=1000&after=0", ROOT, "").1.contains("203.0.113.9"));
    node.stop();
}
