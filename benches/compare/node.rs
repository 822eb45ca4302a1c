//! The node under measurement: the program, with records in a directory of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::federation;
use crate::process::Process;

/// A stopped node's files.
pub(crate) struct Files {
    pub(crate) directory: PathBuf,
    program: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl Files {
    /// A node with nothing in it.
    pub(crate) fn empty(directory: PathBuf) -> Files {
        std::fs::create_dir_all(&directory).unwrap();
        Files { directory, program: own_program(), environment: Vec::new() }
    }

    /// A node with so many people and their pages, made once and kept for later runs.
    pub(crate) fn filled(people: usize) -> Files {
        let files = Files::empty(scratch().join(format!("filled-{people}")));
        let done = files.directory.join("filled");
        if !done.exists() {
            files.fill(people);
            std::fs::write(done, "").unwrap();
        }
        files
    }

    /// The same of another program, which may write its store in another way: made anew each time.
    pub(crate) fn filled_by(program: &Path, people: usize) -> Files {
        let directory = scratch().join(format!("filled-{people}-against"));
        let files = Files { program: program.to_owned(), ..Files::empty(directory) };
        files.fill(people);
        files
    }

    fn fill(&self, people: usize) {
        std::fs::remove_dir_all(&self.directory).unwrap();
        std::fs::create_dir_all(&self.directory).unwrap();
        let source = self.directory.join("records");
        federation::write(&source, people);
        self.command(&["import", source.to_str().unwrap()]);
        std::fs::remove_dir_all(&source).unwrap();
    }

    /// Other files with the same records.
    pub(crate) fn copy(&self, name: &str) -> Files {
        let directory = scratch().join(name);
        // Left by a run that was ended.
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::copy(self.store(), directory.join("store.redb")).unwrap();
        Files { directory, program: self.program.clone(), environment: self.environment.clone() }
    }

    pub(crate) fn with(mut self, key: &'static str, value: impl Into<String>) -> Files {
        self.environment.push((key, value.into()));
        self
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.directory.join("store.redb")
    }

    fn program(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_remove("THALAMUS_EDGE_CONFIG")
            .env("THALAMUS_EDGE__DATA_DIR", &self.directory)
            .env("THALAMUS_EDGE__ACCOUNTS__ROLES_FILE", concat!(env!("CARGO_MANIFEST_DIR"), "/etc/roles.cfg"))
            // No backup comes in between.
            .env("THALAMUS_EDGE__BACKUP__SCHEDULE", "")
            .env("THALAMUS_EDGE__CENTRAL__SCHEDULE", "0 0 0 1 1 *")
            .current_dir(&self.directory)
            .envs(self.environment.iter().map(|(key, value)| (*key, value)));
        command
    }

    /// Runs a command of the program to its end.
    pub(crate) fn command(&self, arguments: &[&str]) -> String {
        let output = self.program().args(arguments).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        said
    }

    pub(crate) fn start(&self, tls: bool) -> Node {
        let mut command = self.program();
        command.args(["serve", "--listen", "127.0.0.1:0"]).env("THALAMUS_EDGE__SERVER__TLS", tls.to_string());
        let (process, url, start) = Process::start(&mut command, "listening on ", true);
        Node { process, url, start }
    }
}

pub(crate) struct Node {
    pub(crate) process: Process,
    /// `http://127.0.0.1:PORT`
    pub(crate) url: String,
    /// Until it listened.
    pub(crate) start: Duration,
}

impl Node {
    pub(crate) fn host(&self) -> &str {
        host(&self.url)
    }
}

fn own_program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_thalamus-edge"))
}

pub(crate) fn host(url: &str) -> &str {
    url.rsplit_once('/').unwrap().1
}

/// Where everything is done: on the disk of the build, so that a flush costs what it costs.
pub(crate) fn scratch() -> PathBuf {
    let program = own_program();
    let directory = program.ancestors().nth(2).unwrap().join("bench");
    std::fs::create_dir_all(&directory).unwrap();
    directory
}
