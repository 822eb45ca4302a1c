//! A node under test: the real binary in a directory of its own, reached over TLS as clients reach it and
//! over its Unix socket as the operator does.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::{Value, json};
use tempfile::TempDir;
use thalamus_edge::store::{Store, StoreOptions};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Longest that a node may take to listen.
const START_SECONDS_MAX: u64 = 30;
/// Longest that a call may take before the test takes the node for hung.
const CALL_SECONDS_MAX: u64 = 90;
/// How much of the end of its log a node leaves behind when its test fails, in bytes: hours write gigabytes.
const LOG_SHOWN_BYTES_MAX: u64 = 1 << 20;

const TECHNICIAN: &str = "tech@local";
const TECHNICIAN_PASSWORD: &str = "correct horse battery";

/// A node, killed with its files when dropped.
pub(crate) struct EdgeNode {
    pub(crate) name: String,
    directory: TempDir,
    settings: Vec<(String, String)>,
    running: Option<Running>,
    starts: usize,
    /// What is logged from the next start on.
    pub(crate) log_level: &'static str,
}

struct Running {
    child: Child,
    client: Client,
}

/// Somebody's way to a running node, at first root's; clones share their connections.
#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    /// Where its connections come from, if not from any address.
    source: Option<IpAddr>,
    credentials: String,
    tls: TlsConnector,
    idle: Arc<Mutex<Vec<SendRequest<Full<Bytes>>>>>,
}

/// An answer of the node.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) etag: Option<String>,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// The node went away before it answered.
#[derive(Debug, Clone)]
pub(crate) struct Gone(pub(crate) String);

impl EdgeNode {
    /// A node that reconciles with `uri` only when it is asked to.
    pub(crate) async fn start(name: &str, uri: &str, database: &str) -> EdgeNode {
        EdgeNode::start_in(tempfile::tempdir().expect("a temporary directory"), name, uri, database).await
    }

    /// The same in this directory.
    pub(crate) async fn start_in(directory: TempDir, name: &str, uri: &str, database: &str) -> EdgeNode {
        let own = |key: &str, value: &str| (format!("THALAMUS_EDGE__{key}"), value.to_owned());
        let data = directory.path().join("data").display().to_string();
        let settings = vec![
            own("DATA_DIR", &data),
            own("NODE__NAME", name),
            own("SERVER__LISTEN", "127.0.0.1:0"),
            own("ACCOUNTS__BCRYPT_COST", "4"),
            own("API__EXPOSE_PASSWORD_HASHES", "true"),
            own("CENTRAL__URI", uri),
            own("CENTRAL__DATABASE", database),
            own("CENTRAL__SCHEDULE", "0 0 0 1 1 *"),
            own("CENTRAL__JITTER_S", "0"),
            own("CENTRAL__ROUND_TIMEOUT_S", "120"),
        ];
        let mut node = EdgeNode {
            name: name.to_owned(),
            directory,
            settings,
            running: None,
            starts: 0,
            log_level: "info",
        };
        node.restart(None).await;
        let technician = json!({"password": TECHNICIAN_PASSWORD, "roles": ["root"], "local": true});
        let made = node.operator("POST", &format!("/users/{TECHNICIAN}"), Some(&technician)).await;
        assert_eq!(made.status, 201, "{}", made.json());
        node
    }

    /// Another value of a setting from the next start on.
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        let name = format!("THALAMUS_EDGE__{key}");
        self.settings.retain(|(known, _)| *known != name);
        self.settings.push((name, value.to_owned()));
    }

    /// Starts the node again, with fail points as the environment variable FAILPOINTS names them.
    pub(crate) async fn restart(&mut self, failpoints: Option<&str>) {
        self.kill_9();
        self.starts += 1;
        let log = self.log_path();
        let output = File::create(&log).expect("a log file");
        let mut command = self.program();
        command.arg("serve").env("THALAMUS_EDGE_LOG", self.log_level);
        if let Some(failpoints) = failpoints {
            command.env("FAILPOINTS", failpoints);
        }
        command.stdout(Stdio::null()).stderr(output);
        let mut child = command.spawn().expect("starting the node");
        let started = Instant::now();
        let address = loop {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("listening on https://"));
            if let Some(address) = line.and_then(|address| address.trim().parse().ok()) {
                break address;
            }
            let ended = child.try_wait().expect("the node's state");
            let late = started.elapsed() > Duration::from_secs(START_SECONDS_MAX);
            assert!(ended.is_none() && !late, "node {} does not start ({ended:?}):\n{text}", self.name);
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let tls = trusting(&self.data().join("tls").join("ca.pem"));
        let credentials = basic(TECHNICIAN, TECHNICIAN_PASSWORD);
        let client = Client { address, source: None, credentials, tls, idle: Arc::default() };
        self.running = Some(Running { child, client });
    }

    fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_thalamus-edge"));
        command.current_dir(self.directory.path()).stdin(Stdio::null());
        command.env_clear().envs(self.settings.iter().map(|(name, value)| (name, value)));
        command.env("PATH", "/usr/bin:/bin");
        command
    }

    /// Runs a command about this node, as a technician would: the exit code, and what it said.
    pub(crate) async fn command(&self, args: &[&str]) -> (Option<i32>, String) {
        let mut command = self.program();
        command.args(args);
        let ran = tokio::task::spawn_blocking(move || command.output()).await.expect("the command");
        let ran = ran.expect("running the program");
        let said = [ran.stdout, ran.stderr].concat();
        (ran.status.code(), String::from_utf8(said).expect("text"))
    }

    /// The running node's process.
    pub(crate) fn pid(&self) -> Pid {
        let running = self.running.as_ref().expect("a running node");
        i32::try_from(running.child.id()).ok().and_then(Pid::from_raw).expect("a process id")
    }

    /// Where the running node listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.client().address
    }

    /// A client with connections of its own.
    pub(crate) fn new_client(&self) -> Client {
        Client { idle: Arc::default(), ..self.client() }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join(format!("log.{}", self.starts))
    }

    /// What the node has written since it was started.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The last of it.
    fn end_of_log(&self) -> String {
        let mut end = Vec::new();
        let read = File::open(self.log_path()).and_then(|mut log| {
            let length = log.metadata()?.len();
            log.seek(SeekFrom::Start(length.saturating_sub(LOG_SHOWN_BYTES_MAX)))?;
            log.read_to_end(&mut end)
        });
        match read {
            Ok(_) => String::from_utf8_lossy(&end).into_owned(),
            Err(error) => format!("(no log: {error})"),
        }
    }

    /// Ends the node as a power cut would.
    pub(crate) fn kill_9(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }

    /// Ends the node as an operator would, and waits until it has.
    pub(crate) async fn stop(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        let pid = i32::try_from(running.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, Signal::TERM).expect("a signal to the node");
        running.client.idle.lock().expect("the connections").clear();
        let status = self.await_end(&mut running.child).await;
        assert!(status.success(), "node {} ended with {status}:\n{}", self.name, self.log());
    }

    /// Waits for a node that a fail point ends; false if it is still there after a moment.
    pub(crate) async fn has_died(&mut self) -> bool {
        let Some(mut running) = self.running.take() else { return true };
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(500) {
            if let Some(status) = running.child.try_wait().expect("the node's state") {
                assert_eq!(
                    status.signal(),
                    Some(9),
                    "node {} ended with {status}:\n{}",
                    self.name,
                    self.log()
                );
                return true;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.running = Some(running);
        false
    }

    async fn await_end(&self, child: &mut Child) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("the node's state") {
                return status;
            }
            assert!(started.elapsed() < Duration::from_secs(40), "node {} does not end", self.name);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The stopped node's store.
    pub(crate) fn open_store(&self) -> Store {
        assert!(self.running.is_none(), "the store belongs to the running node");
        let options = StoreOptions {
            cache_bytes: 16 << 20,
            journal_keep_rows: u64::MAX,
            audit_keep_rows: 100_000,
            clock: || 0,
        };
        Store::open(&self.data().join("store.redb"), options).expect("the node's store")
    }

    // ------------------------------------------------------------------------------------------- calls

    /// A call as root over TLS.
    pub(crate) async fn try_call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Reply, Gone> {
        let running = self.running.as_ref().ok_or_else(|| Gone("the node is not running".into()))?;
        running.client.call(method, path, headers, body).await
    }

    pub(crate) fn client(&self) -> Client {
        self.running.as_ref().expect("a running node").client.clone()
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Reply {
        match self.try_call(method, path, &[], body).await {
            Ok(reply) => reply,
            Err(Gone(why)) => panic!("node {}: {method} {path}: {why}\n{}", self.name, self.log()),
        }
    }

    /// A call that must succeed; the body of the answer, or null.
    pub(crate) async fn done(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let reply = self.call(method, path, body).await;
        let shown = String::from_utf8_lossy(&reply.body);
        assert!(reply.is_success(), "node {}: {method} {path}: {} {shown}", self.name, reply.status);
        if reply.body.is_empty() { Value::Null } else { reply.json() }
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.done("GET", path, None).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Value {
        self.done("PATCH", path, Some(&body)).await
    }

    /// Uploads the bytes of a personal document, which is made if it is not there.
    pub(crate) async fn upload(&self, id: &str, owner: &str, bytes: &[u8]) {
        let path = format!("/personal-documents/{id}");
        if self.call("GET", &path, None).await.status == 404 {
            self.done("POST", &path, Some(&json!({"fedacct": owner}))).await;
        }
        let (path, headers) = (format!("{path}/content"), [("content-type", "image/png")]);
        let sent = self.client().send("PUT", &path, &headers, Bytes::copy_from_slice(bytes)).await;
        let reply = sent.unwrap_or_else(|Gone(why)| panic!("node {}: PUT {path}: {why}", self.name));
        assert!(reply.is_success(), "{path}: {} {}", reply.status, String::from_utf8_lossy(&reply.body));
    }

    /// The bytes of a personal document.
    pub(crate) async fn download(&self, id: &str, headers: &[(&str, &str)]) -> Reply {
        let path = format!("/personal-documents/{id}/content");
        let reply = self.try_call("GET", &path, headers, None).await;
        reply.unwrap_or_else(|Gone(why)| panic!("node {}: GET {path}: {why}", self.name))
    }

    pub(crate) async fn try_round(&self) -> Result<Value, Gone> {
        let reply = self.try_call("POST", "/sync/rounds", &[], None).await?;
        assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
        Ok(reply.json())
    }

    /// A round that must end well.
    pub(crate) async fn round(&self) -> Value {
        let report = self.try_round().await.unwrap_or_else(|Gone(why)| panic!("{}: {why}", self.name));
        assert_eq!(report["outcome"], "complete", "node {}: {report}\n{}", self.name, self.log());
        report
    }

    /// A round that must end well, and looks at everything that the centre holds.
    pub(crate) async fn verification(&self) -> Value {
        let report = self.done("POST", "/sync/rounds", Some(&serde_json::json!({"verify": true}))).await;
        assert_eq!(report["outcome"], "complete", "node {}: {report}\n{}", self.name, self.log());
        report
    }

    /// A call over the Unix socket.
    pub(crate) async fn operator(&self, method: &str, path: &str, body: Option<&Value>) -> Reply {
        let stream = UnixStream::connect(self.data().join("control.sock")).await.expect("the control socket");
        let (mut connection, driver) = handshake(TokioIo::new(stream)).await.expect("a handshake");
        tokio::spawn(driver);
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let request = request.body(Full::new(body)).expect("a request");
        exchange(&mut connection, request).await.unwrap_or_else(|Gone(why)| panic!("{}: {why}", self.name))
    }
}

impl Drop for EdgeNode {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- last log of node {}\n{}", self.name, self.end_of_log());
        }
        self.kill_9();
    }
}

impl Client {
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Reply, Gone> {
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        self.send(method, path, headers, body).await
    }

    /// A call with any bytes for a body.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Reply, Gone> {
        let idle = self.idle.lock().expect("the connections").pop();
        let mut connection = match idle {
            Some(connection) if !connection.is_closed() => connection,
            _ => self.connect().await?,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("authorization", &self.credentials);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).expect("a request");
        let reply = exchange(&mut connection, request).await?;
        self.idle.lock().expect("the connections").push(connection);
        Ok(reply)
    }

    /// The same node, reached by somebody else from another address of this machine.
    pub(crate) fn of(&self, source: [u8; 4], user: &str, password: &str) -> Client {
        let credentials = basic(user, password);
        Client { source: Some(source.into()), credentials, idle: Arc::default(), ..self.clone() }
    }

    /// The line of a request's head that says who asks.
    pub(crate) fn authorization(&self) -> String {
        format!("Authorization: {}\r\n", self.credentials)
    }

    /// A connection without TLS, on which nothing has been said.
    pub(crate) async fn tcp(&self) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if let Some(source) = self.source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A connection on which nothing has been asked.
    pub(crate) async fn tls(&self) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from("localhost").expect("a name");
        self.tls.connect(name, self.tcp().await?).await
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Gone> {
        let stream = self.tls().await.map_err(|error| Gone(error.to_string()))?;
        let (connection, driver) = handshake(TokioIo::new(stream)).await.map_err(|e| Gone(e.to_string()))?;
        tokio::spawn(driver);
        Ok(connection)
    }
}

async fn exchange(
    connection: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Reply, Gone> {
    let asking = async {
        connection.ready().await?;
        let response = connection.send_request(request).await?;
        let status = response.status().as_u16();
        let etag = response.headers().get("etag").and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        let body = response.into_body().collect().await?.to_bytes();
        Ok::<_, hyper::Error>(Reply { status, etag, body })
    };
    match tokio::time::timeout(Duration::from_secs(CALL_SECONDS_MAX), asking).await {
        Ok(result) => result.map_err(|error| Gone(error.to_string())),
        Err(_) => panic!("no answer within {CALL_SECONDS_MAX} s"),
    }
}

fn basic(user: &str, password: &str) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Basic {encoded}")
}

/// A client that trusts the node's own authority and nobody else.
fn trusting(authority: &Path) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(authority).expect("the node's authority");
    roots.add(certificate).expect("a usable authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}
