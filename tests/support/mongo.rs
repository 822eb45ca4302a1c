//! A MongoDB server for tests.
//!
//! The first that is there: the one that `THALAMUS_EDGE_TEST_MONGODB_URI` names, a `mongod` on PATH (as a
//! replica set of one member), or SecantusDB, a server that speaks MongoDB's protocol, installed by
//! `python3 -m venv target/mongo && target/mongo/bin/pip install secantusdb==0.7.0b3`.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

const URI_VARIABLE: &str = "THALAMUS_EDGE_TEST_MONGODB_URI";
const START_SECONDS_MAX: u64 = 60;
const REPLICA_SET: &str = "rs0";
/// First byte of a TLS connection.
const TLS_HANDSHAKE: u8 = 22;

/// How a server of the test's own is set up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setup {
    /// Not a member of a replica set.
    pub(crate) standalone: bool,
    /// Serve TLS with this certificate and key, both PEM.
    pub(crate) tls: Option<(String, String)>,
    /// Have a user with all privileges on every database, of this name and password, and ask for it.
    pub(crate) user: Option<(String, String)>,
    /// Let the server compress what it sends, where it can. Without, bytes and times on the line are the same with every
    /// server.
    pub(crate) is_compressed: bool,
    /// Arguments for SecantusDB only.
    pub(crate) secantus_arguments: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Program {
    Mongod(PathBuf),
    Secantus { python: PathBuf, script: PathBuf },
}

/// A server, killed with its files when dropped, unless it is somebody else's.
pub(crate) struct MongoServer {
    uri: String,
    own: Option<Own>,
}

struct Own {
    program: Program,
    setup: Setup,
    port: u16,
    /// Where TLS ends if the server's build has none.
    front: Option<TlsFront>,
    directory: TempDir,
    child: Option<Child>,
}

impl MongoServer {
    /// Any server.
    pub(crate) async fn start() -> Self {
        match std::env::var(URI_VARIABLE) {
            Ok(uri) => Self { uri: durable(&uri), own: None },
            Err(_) => Self::start_own(Setup { is_compressed: true, ..Setup::default() }).await,
        }
    }

    /// A server that the test may kill and pause.
    pub(crate) async fn start_own(setup: Setup) -> Self {
        let mut own = Own {
            program: program(),
            port: free_port(),
            front: None,
            directory: tempfile::tempdir().expect("a temporary directory"),
            child: None,
            setup,
        };
        if let (Some((certificate, key)), false) = (&own.setup.tls, own.has_tls()) {
            own.front = Some(TlsFront::start(own.port, certificate, key));
        }
        if own.setup.user.is_some() {
            own.create_user().await;
        }
        own.launch(&own.arguments(true)).await;
        own.await_primary(own.setup.user.is_none()).await;
        own.require_tls(true);
        let uri = own.uri();
        Self { uri, own: Some(own) }
    }

    /// The connection string, with the user's password if there is a user.
    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// The port of a server of the test's own, for what stands in front of it. It speaks no TLS where the build has none.
    pub(crate) fn port(&self) -> u16 {
        self.own().port
    }

    /// The port by which everybody knows a server of the test's own, with TLS if it was set up so.
    pub(crate) fn public_port(&self) -> u16 {
        self.own().public_port()
    }

    pub(crate) fn is_secantus(&self) -> bool {
        self.own.as_ref().is_some_and(|own| !own.is_mongod())
    }

    /// Ends the server as a power failure would, its files kept.
    pub(crate) fn kill_9(&mut self) {
        self.own_mut().end();
    }

    /// Starts the server again on the same port and files.
    pub(crate) async fn restart(&mut self) {
        let own = self.own_mut();
        own.end();
        own.require_tls(false);
        own.launch(&own.arguments(true)).await;
        own.await_primary(false).await;
        own.require_tls(true);
    }

    /// Stops the server from running while its connections stay open.
    pub(crate) fn pause(&mut self) {
        self.own_mut().signal(Signal::STOP);
    }

    pub(crate) fn resume(&mut self) {
        self.own_mut().signal(Signal::CONT);
    }

    fn own(&self) -> &Own {
        self.own.as_ref().expect("a server of the test's own: use start_own")
    }

    fn own_mut(&mut self) -> &mut Own {
        self.own.as_mut().expect("a server of the test's own: use start_own")
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.end();
    }
}

impl Own {
    fn is_mongod(&self) -> bool {
        matches!(self.program, Program::Mongod(_))
    }

    fn credentials(&self) -> String {
        match &self.setup.user {
            Some((name, password)) => format!("{name}:{password}@"),
            None => String::new(),
        }
    }

    /// What the test and its nodes connect to.
    fn uri(&self) -> String {
        let tls = if self.setup.tls.is_some() { "tls=true" } else { "" };
        durable(&format!("mongodb://{}127.0.0.1:{}/?{tls}", self.credentials(), self.public_port()))
    }

    /// The port by which everybody knows the server.
    fn public_port(&self) -> u16 {
        self.front.as_ref().map_or(self.port, |front| front.port)
    }

    fn require_tls(&self, is_strict: bool) {
        if let Some(front) = &self.front {
            front.is_strict.store(is_strict, Ordering::Relaxed);
        }
    }

    /// The server itself, for setting it up.
    fn direct_uri(&self) -> String {
        // The driver takes an option about TLS for the wish to have it.
        let tls = if self.setup.tls.is_some() && self.has_tls() { "&tls=true&tlsInsecure=true" } else { "" };
        format!("mongodb://127.0.0.1:{}/?directConnection=true{tls}", self.port)
    }

    /// Whether the server speaks TLS by itself: a mongod can be built without.
    fn has_tls(&self) -> bool {
        let Program::Mongod(path) = &self.program else {
            return true;
        };
        let said = Command::new(path).arg("--help").output().expect("running mongod --help");
        String::from_utf8_lossy(&said.stdout).contains("tlsMode")
    }

    fn arguments(&self, secured: bool) -> Vec<String> {
        let port = self.port.to_string();
        let directory = self.directory.path().join("db").display().to_string();
        std::fs::create_dir_all(&directory).expect("a directory for the server");
        let mut arguments: Vec<String> = match &self.program {
            Program::Mongod(_) => [
                "--bind_ip",
                "127.0.0.1",
                "--nounixsocket",
                // Fail points.
                "--setParameter",
                "enableTestCommands=1",
                "--wiredTigerCacheSizeGB",
                "0.25",
                "--port",
                &port,
                "--dbpath",
                &directory,
            ]
            .map(str::to_owned)
            .to_vec(),
            Program::Secantus { script, .. } => [
                script.to_str().expect("a path in UTF-8"),
                "--host=127.0.0.1",
                "--enable-test-commands",
                "--cache-size=128M",
                // Otherwise what its bulkWrite acknowledges with `j: true` can be lost.
                "--sync-on-commit",
                "--log-level=WARNING",
                "--port",
                &port,
                "--storage-path",
                &directory,
            ]
            .map(str::to_owned)
            .to_vec(),
        };
        let mut add = |more: &[&str]| arguments.extend(more.iter().map(|s| (*s).to_owned()));
        let is_mongod = self.is_mongod();
        match (is_mongod, self.setup.standalone) {
            (false, true) => add(&["--standalone"]),
            (true, false) => add(&["--replSet", REPLICA_SET]),
            _ => {}
        }
        if is_mongod && !self.setup.is_compressed {
            add(&["--networkMessageCompressors", "disabled"]);
        }
        if secured && self.setup.user.is_some() {
            add(&["--auth"]);
            if is_mongod && !self.setup.standalone {
                // By which members of a replica set know each other; without, none starts that asks for passwords.
                add(&["--keyFile", &self.key_file()]);
            }
        }
        if let (Some((certificate, key)), None) = (&self.setup.tls, &self.front) {
            let file = |name: &str, text: &str| {
                let path = self.directory.path().join(name);
                std::fs::write(&path, text).expect("writing a certificate");
                path.display().to_string()
            };
            match self.program {
                Program::Mongod(_) => {
                    let both = file("both.pem", &format!("{certificate}{key}"));
                    let certificate = file("certificate.pem", certificate);
                    add(&["--tlsMode", "requireTLS", "--tlsCertificateKeyFile", &both]);
                    // A set of one member connects to itself, with the only certificate there is.
                    add(&["--tlsCAFile", &certificate, "--tlsAllowConnectionsWithoutCertificates"]);
                    add(&["--tlsAllowInvalidCertificates"]);
                }
                Program::Secantus { .. } => {
                    let certificate = file("certificate.pem", certificate);
                    let key = file("key.pem", key);
                    add(&["--tls-cert-file", &certificate, "--tls-key-file", &key]);
                }
            }
        }
        if let Program::Secantus { .. } = self.program {
            arguments.extend(self.setup.secantus_arguments.iter().cloned());
        }
        arguments
    }

    async fn launch(&mut self, arguments: &[String]) {
        let log = self.directory.path().join("log");
        let output = File::options().create(true).append(true).open(&log).expect("a log file");
        let executable = match &self.program {
            Program::Mongod(path) => path,
            Program::Secantus { python, .. } => python,
        };
        let child = Command::new(executable)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", executable.display()));
        let child = self.child.insert(child);
        let started = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            let ended = child.try_wait().expect("the server's state");
            let late = started.elapsed() > Duration::from_secs(START_SECONDS_MAX);
            if ended.is_some() || late {
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                panic!("the MongoDB server does not start ({ended:?}):\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Makes the user while the server still lets everybody in.
    async fn create_user(&mut self) {
        self.launch(&self.arguments(false)).await;
        self.await_primary(true).await;
        let (name, password) = self.setup.user.clone().expect("a user");
        let client = mongodb::Client::with_uri_str(self.direct_uri()).await.expect("a client");
        let create = bson::doc! {
            "createUser": name,
            "pwd": password,
            "roles": [{"role": "root", "db": "admin"}],
            "mechanisms": ["SCRAM-SHA-256"],
            "writeConcern": {"w": "majority", "j": true},
        };
        let created = client.database("admin").run_command(create).await;
        created.expect("creating a user");
        self.end();
    }

    /// A file that only its owner may read, as mongod asks for.
    fn key_file(&self) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.directory.path().join("key");
        if !path.exists() {
            std::fs::write(&path, "a key that members of a test's replica set share").expect("a key file");
            let only_owner = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(&path, only_owner).expect("permissions of the key file");
        }
        path.display().to_string()
    }

    /// Waits until a member of a replica set takes writes, once the set was initiated, here if need be.
    async fn await_primary(&self, is_new: bool) {
        if !self.is_mongod() || self.setup.standalone {
            return;
        }
        let client = mongodb::Client::with_uri_str(self.direct_uri()).await.expect("a client");
        let admin = client.database("admin");
        if is_new {
            let member = bson::doc! {"_id": 0, "host": format!("127.0.0.1:{}", self.public_port())};
            let config = bson::doc! {"_id": REPLICA_SET, "members": [member]};
            let initiated = admin.run_command(bson::doc! {"replSetInitiate": config}).await;
            initiated.expect("initiating the replica set");
        }
        let started = Instant::now();
        loop {
            // No password is asked for this. Servers before 4.4.2 know the older name only.
            let hello = admin.run_command(bson::doc! {"isMaster": 1}).await.expect("an answer");
            if hello.get_bool("ismaster").unwrap_or(false) {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(START_SECONDS_MAX), "no primary");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("a running server");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), signal).expect("a signal to the server");
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            // A server that has ended by itself cannot be killed, and need not be.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What tests write through this is read by nodes at once: it waits for the majority that they read from. On disk, too,
/// because tests kill servers.
fn durable(uri: &str) -> String {
    const CONFIRMED: &str = "w=majority&journal=true";
    match uri.split_once('?') {
        None => format!("{}/?{CONFIRMED}", uri.trim_end_matches('/')),
        Some((address, "")) => format!("{address}?{CONFIRMED}"),
        Some((address, options)) => format!("{address}?{options}&{CONFIRMED}"),
    }
}

/// Ends TLS in front of a server that has none, on threads of its own: whoever started it may end their runtime.
///
/// While the server starts, what is no TLS is passed on too: a member of a replica set looks for itself under the name that
/// the set has for it. Then it is refused, as by a server that requires TLS.
struct TlsFront {
    port: u16,
    is_strict: Arc<AtomicBool>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl TlsFront {
    fn start(server: u16, certificate: &str, key: &str) -> TlsFront {
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate with its key");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        listener.set_nonblocking(true).expect("a port that nobody waits for");
        let mut building = tokio::runtime::Builder::new_multi_thread();
        let runtime = building.worker_threads(1).enable_all().build().expect("a runtime");
        let is_strict = Arc::new(AtomicBool::new(false));
        let refuses = Arc::clone(&is_strict);
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("the port");
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, refuses) = (acceptor.clone(), Arc::clone(&refuses));
                tokio::spawn(async move {
                    let mut server = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await?;
                    let (mut client, mut first) = (client, [0]);
                    client.peek(&mut first).await?;
                    if first[0] != TLS_HANDSHAKE && !refuses.load(Ordering::Relaxed) {
                        return tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                    let mut client = acceptor.accept(client).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        TlsFront { port, is_strict, runtime: Some(runtime) }
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Nobody may wait for one within another.
            runtime.shutdown_background();
        }
    }
}

fn program() -> Program {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mongod = std::env::split_paths(&path).map(|directory| directory.join("mongod"));
    if let Some(mongod) = mongod.into_iter().find(|path| path.is_file()) {
        return Program::Mongod(mongod);
    }
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target"),
    };
    let binaries = target.join("mongo").join("bin");
    let (python, script) = (binaries.join("python"), binaries.join("secantusd-py"));
    assert!(
        script.is_file(),
        "this test needs a MongoDB server: name one in {URI_VARIABLE}, put mongod on PATH, or run\n  \
         python3 -m venv target/mongo && target/mongo/bin/pip install secantusdb==0.7.0b3"
    );
    Program::Secantus { python, script }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// Whether the server stores names that begin with `$`: MongoDB does since 5.0.
pub(crate) async fn takes_dollar_names(database: &mongodb::Database) -> bool {
    let scratch = database.collection::<bson::Document>("scratch");
    scratch.insert_one(bson::doc! {"_id": unique_database(), "$x": 1}).await.is_ok()
}

/// A database name that no other test uses.
pub(crate) fn unique_database() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut random = [0; 8];
    getrandom::fill(&mut random).expect("random bytes");
    format!("edge_test_{}_{count}", hex::encode(random))
}
