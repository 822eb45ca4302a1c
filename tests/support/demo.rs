//! The real program with its demo records, in a directory that goes away with it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long the program may take until it listens; it makes its certificates first.
const START_S_MAX: u64 = 60;

pub(crate) struct DemoNode {
    child: Child,
    /// `https://127.0.0.1:PORT`
    pub(crate) url: String,
    /// What it said since it listens, once it has ended.
    log: mpsc::Receiver<String>,
    _directory: tempfile::TempDir,
}

impl DemoNode {
    pub(crate) fn start() -> DemoNode {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_thalamus-edge"))
            .args(["serve", "--demo", "--listen", "127.0.0.1:0"])
            .current_dir(directory.path())
            .env("THALAMUS_EDGE_LOG", "warn")
            // Unknown accounts cost as much as this says; the demo's own hashes keep theirs.
            .env("THALAMUS_EDGE__ACCOUNTS__BCRYPT_COST", "4")
            .env_remove("THALAMUS_EDGE_CONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let (found, url) = mpsc::channel();
        let (keep, log) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                if let Some((_, url)) = line.trim().split_once("listening on ") {
                    let _ = found.send(url.to_owned());
                    break;
                }
                line.clear();
            }
            // Read on, or the program would block on a full pipe.
            let mut rest = Vec::new();
            let _ = lines.read_to_end(&mut rest);
            let _ = keep.send(String::from_utf8_lossy(&rest).into_owned());
        });
        let url = url.recv_timeout(Duration::from_secs(START_S_MAX));
        let Ok(url) = url else {
            let _ = child.kill();
            panic!("the program does not listen after {START_S_MAX} s");
        };
        DemoNode { child, url, log, _directory: directory }
    }

    /// Whether it is still running.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Ends it and gives what it logged at level warn and above.
    pub(crate) fn stop(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.log.recv_timeout(Duration::from_secs(10)).unwrap()
    }
}

impl Drop for DemoNode {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program of the virtual environment `target/clients`, which `tests/run` makes.
pub(crate) fn client(name: &str) -> Command {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/clients/bin").join(name);
    assert!(path.exists(), "{} is missing: tests/run makes it", path.display());
    Command::new(path)
}
