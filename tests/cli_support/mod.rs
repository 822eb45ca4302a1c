//! A clinic in a temporary directory: runs the program there, serves from it, looks into its store.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine as _;
use bson::Document;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use thalamus_edge::app::{control_socket, store_file};
use thalamus_edge::domain::record::Kind;
use thalamus_edge::store::{Store, StoreError, StoreOptions, Tx};

const PROGRAM: &str = env!("CARGO_BIN_EXE_thalamus-edge");
/// Both ways to run a command about a node.
pub(crate) const IS_RUNNING: [bool; 2] = [false, true];
/// Demo accounts.
pub(crate) const PROFESSIONAL: &str = "ITPYT999HON:gnusolidario";
pub(crate) const ROOT: &str = "ARGBUE111FAV:freedom";
/// A user without rights, on every system.
pub(crate) const NOBODY_UID: u32 = 65534;
const WAIT_S_MAX: u64 = 60;
const LOCK_TRIES_MAX: usize = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A directory and what the environment says about it. Clones share the directory.
#[derive(Clone)]
pub(crate) struct Clinic {
    directory: Arc<TempDir>,
    variables: Vec<(String, String)>,
}

/// A command that has ended.
pub(crate) struct Ran {
    shown: String,
    code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn code(&self) -> Option<i32> {
        self.code
    }

    pub(crate) fn ends(self, code: i32) -> Ran {
        assert_eq!(self.code, Some(code), "{}\n{}\n{}", self.shown, self.out, self.err);
        self
    }

    /// Ended by a signal, as by a power cut.
    #[cfg(feature = "failpoints")]
    pub(crate) fn was_killed(&self) {
        assert_eq!(self.code, None, "{}\n{}\n{}", self.shown, self.out, self.err);
    }

    pub(crate) fn says(&self, text: &str) -> &Ran {
        assert!(self.out.contains(text), "{}: {text:?} is not in\n{}\n{}", self.shown, self.out, self.err);
        self
    }

    pub(crate) fn complains(&self, text: &str) -> &Ran {
        assert!(self.err.contains(text), "{}: {text:?} is not in\n{}", self.shown, self.err);
        self
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{}: {error}\n{}", self.shown, self.out))
    }
}

impl Clinic {
    pub(crate) fn new() -> Clinic {
        let clinic = Clinic { directory: Arc::new(TempDir::new().unwrap()), variables: Vec::new() };
        let data = clinic.data();
        clinic
            .with("DATA_DIR", data.to_str().unwrap())
            .with("NODE__NAME", "clinic")
            .with("SERVER__LISTEN", "127.0.0.1:0")
            .with("SERVER__TLS", "false")
            .with("ACCOUNTS__BCRYPT_COST", "4")
            // Rounds are run by command only.
            .with("CENTRAL__SCHEDULE", "0 0 0 1 1 *")
    }

    /// The same clinic with another setting.
    pub(crate) fn with(&self, key: &str, value: &str) -> Clinic {
        let mut clinic = self.clone();
        clinic.variables.push((format!("THALAMUS_EDGE__{key}"), value.to_owned()));
        clinic
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.directory.path());
        command.env_remove("THALAMUS_EDGE_CONFIG").env_remove("THALAMUS_EDGE_LOG").env_remove("FAILPOINTS");
        command.envs(self.variables.iter().cloned()).stdin(Stdio::null());
        command
    }

    fn finish(mut command: Command, input: Option<&str>) -> Ran {
        let shown = format!("{command:?}").split('"').skip(1).step_by(2).collect::<Vec<_>>().join(" ");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        let mut child = command.spawn().unwrap();
        if let Some(input) = input {
            // A command that refuses its arguments does not read.
            let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        }
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { shown, code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        let mut command = self.command(PROGRAM);
        command.args(args);
        Clinic::finish(command, None)
    }

    #[cfg(feature = "failpoints")]
    pub(crate) fn run_with_variable(&self, name: &str, value: &str, args: &[&str]) -> Ran {
        let mut command = self.command(PROGRAM);
        command.args(args).env(name, value);
        Clinic::finish(command, None)
    }

    /// Runs a command and kills it, as a power cut does, unless it has ended by then.
    #[cfg(feature = "failpoints")]
    pub(crate) fn kill_after(&self, time: Duration, args: &[&str]) {
        let mut command = self.command(PROGRAM);
        let mut child = command.args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(time);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn run_with(&self, args: &[&str], input: &str) -> Ran {
        let mut command = self.command(PROGRAM);
        command.args(args);
        Clinic::finish(command, Some(input))
    }

    /// Without any setting in the environment.
    pub(crate) fn bare(&self, args: &[&str]) -> Ran {
        self.without_settings().run(args)
    }

    pub(crate) fn without_settings(&self) -> Clinic {
        Clinic { variables: Vec::new(), ..self.clone() }
    }

    /// In a session of its own, where nobody can be asked anything.
    pub(crate) fn without_terminal(&self, args: &[&str]) -> Ran {
        let mut command = self.command("setsid");
        command.arg("--wait").arg(PROGRAM).args(args);
        Clinic::finish(command, None)
    }

    /// At a terminal, where somebody types one answer at each prompt; the exit code and what was to be seen.
    pub(crate) fn at_terminal(&self, args: &[&str], answers: &[&str]) -> (i32, String) {
        const TYPIST: &str = r#"
import os, pty, sys, time
answers = sys.argv[1].split("|")
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[2], sys.argv[2:])
seen = b""
while True:
    try:
        some = os.read(terminal, 1024)
    except OSError:
        break
    if not some:
        break
    seen += some
    if answers and some.rstrip().endswith(b":"):
        # The echo is switched off after the prompt; nobody types that fast.
        time.sleep(0.5)
        os.write(terminal, answers.pop(0).encode() + b"\n")
sys.stdout.buffer.write(seen)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;
        let mut command = self.command("python3");
        command.args(["-c", TYPIST, &answers.join("|"), PROGRAM]).args(args);
        let ran = Clinic::finish(command, None);
        (ran.code.unwrap(), ran.out + &ran.err)
    }

    /// As somebody who may not use the node's control socket.
    pub(crate) fn run_as_other_user(&self, args: &[&str]) -> Ran {
        let mut command = if rustix::process::geteuid().is_root() {
            // The program and the way to the data must be open to them; the data are not.
            fs::set_permissions(self.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
            let program = self.path("program");
            fs::copy(PROGRAM, &program).unwrap();
            let mut command = self.command(program.to_str().unwrap());
            command.uid(NOBODY_UID).gid(NOBODY_UID);
            command
        } else {
            // Nobody else can be had: the same user, locked out.
            let socket = control_socket(&self.data());
            fs::set_permissions(socket, fs::Permissions::from_mode(0o000)).unwrap();
            self.command(PROGRAM)
        };
        command.args(args);
        Clinic::finish(command, None)
    }

    /// Starts a node and waits until it listens.
    pub(crate) fn serve(&self, args: &[&str]) -> Node {
        let mut command = self.command(PROGRAM);
        command.arg("serve").args(args);
        Node::start(command)
    }

    pub(crate) fn serve_with_variable(&self, name: &str, value: &str) -> Node {
        self.serve_with_variables(&[(name, value)])
    }

    pub(crate) fn serve_with_variables(&self, variables: &[(&str, &str)]) -> Node {
        let mut command = self.command(PROGRAM);
        command.arg("serve").envs(variables.iter().copied());
        Node::start(command)
    }

    // ------------------------------------------------------------------------------------- the store

    pub(crate) fn open_store(&self) -> Store {
        fs::create_dir_all(self.data()).unwrap();
        let options = StoreOptions {
            cache_bytes: 1 << 20,
            journal_keep_rows: 100_000,
            audit_keep_rows: 100_000,
            clock: || 1_000,
        };
        // A process that another test is starting has a copy of the lock until it runs its program.
        for _ in 0..LOCK_TRIES_MAX {
            match Store::open(&store_file(&self.data()), options) {
                Err(StoreError::Held) => std::thread::sleep(LOCK_PAUSE),
                opened => return opened.unwrap(),
            }
        }
        panic!("the store is held")
    }

    /// A store with nothing in it.
    pub(crate) fn make_store(&self) {
        drop(self.open_store());
    }

    pub(crate) fn write(&self, job: impl Fn(&mut Tx<'_>) -> Result<(), StoreError> + Send + 'static) {
        let store = self.open_store();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(store.transact(move |tx| job(tx))).unwrap();
    }

    /// The stored bytes of all records of a kind, in order of their ids.
    pub(crate) fn raw_records(&self, kind: Kind) -> Vec<Vec<u8>> {
        let store = self.open_store();
        let page = store.read().unwrap().list(kind, None, usize::MAX, usize::MAX).unwrap();
        page.records.into_iter().map(|record| record.document.into_bytes()).collect()
    }

    pub(crate) fn records(&self, kind: Kind) -> Vec<Document> {
        let raw = self.raw_records(kind);
        raw.iter().map(|bytes| Document::from_reader(bytes.as_slice()).unwrap()).collect()
    }
}

/// A node that serves; killed with the test.
pub(crate) struct Node {
    child: Mutex<Child>,
    address: SocketAddr,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Node {
    fn start(mut command: Command) -> Node {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&log));
        let reader = std::thread::spawn(move || {
            for line in lines.lines() {
                kept.lock().unwrap().push_str(&(line.unwrap() + "\n"));
            }
        });
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut node = Node { child: Mutex::new(child), address, log, reader: Some(reader) };
        node.wait_for_log("listening on http");
        node.wait_until(|| {
            node.log().split("listening on http").nth(1).is_some_and(|rest| rest.contains('\n'))
        });
        let log = node.log();
        let line = log.split("listening on http").nth(1).unwrap().lines().next().unwrap();
        let address: SocketAddr = line.split("://").nth(1).unwrap().parse().unwrap();
        node.address = SocketAddr::from(([127, 0, 0, 1], address.port()));
        node
    }

    /// Everything on its standard error up to now.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn wait_for_log(&self, text: &str) {
        self.wait_until(|| self.log().contains(text));
    }

    pub(crate) fn wait_until(&self, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(WAIT_S_MAX);
        while !condition() {
            let ended = self.child.lock().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "ended: {ended:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The environment that the process began with.
    pub(crate) fn environment(&self) -> Vec<String> {
        let path = format!("/proc/{}/environ", self.child.lock().unwrap().id());
        let environment = String::from_utf8(fs::read(path).unwrap()).unwrap();
        environment.split('\0').map(str::to_owned).collect()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child.lock().unwrap());
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the end and returns the whole log.
    pub(crate) fn ended(mut self, code: i32) -> String {
        let status = self.child.lock().unwrap().wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        assert_eq!(status.code(), Some(code), "{}", self.log());
        self.log()
    }

    /// Waits for the end by a signal.
    pub(crate) fn gone(self) {
        assert_eq!(self.child.lock().unwrap().wait().unwrap().code(), None);
    }

    pub(crate) fn stop(self) -> String {
        self.signal(Signal::TERM);
        self.ended(0)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn connect(&self) -> io::Result<TcpStream> {
        TcpStream::connect(self.address)
    }

    /// Sends the head of a request whose body is to follow.
    pub(crate) fn begin(&self, method: &str, path: &str, login: &str, length: usize) -> Exchange {
        let login = base64::engine::general_purpose::STANDARD.encode(login);
        let mut exchange = Exchange { stream: self.connect().unwrap() };
        exchange.stream.set_read_timeout(Some(Duration::from_secs(WAIT_S_MAX))).unwrap();
        exchange.send(&format!(
            "{method} {path} HTTP/1.1\r\nHost: clinic\r\nAuthorization: Basic {login}\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n"
        ));
        exchange
    }

    /// The status and the body of an answer to a GET with one more header.
    pub(crate) fn get_with(&self, path: &str, login: &str, header: &str) -> (u16, String) {
        // The head is sent as it is, so a line may stand where the last one ends.
        let path = format!("{path} HTTP/1.1\r\n{header}\r\nX-Rest:");
        self.begin("GET", &path, login, 0).finish()
    }

    /// The status and the body of an answer.
    pub(crate) fn request(&self, method: &str, path: &str, login: &str, body: &str) -> (u16, String) {
        let mut exchange = self.begin(method, path, login, body.len());
        exchange.send(body);
        exchange.finish()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A request on its way.
pub(crate) struct Exchange {
    stream: TcpStream,
}

impl Exchange {
    pub(crate) fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn finish(self) -> (u16, String) {
        let (head, body) = self.head_and_body();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
    }

    pub(crate) fn head_and_body(mut self) -> (String, String) {
        let mut answer = Vec::new();
        self.stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
        (head.to_owned(), body.to_owned())
    }
}
