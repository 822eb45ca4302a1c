//! A process under measurement: what it uses, and its end.

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Longest that a process may take until it is ready; one with a million records too.
const START_S_MAX: u64 = 120;
/// The kernel counts processor time in hundredths of a second.
const TICKS_PER_S: f64 = 100.0;

/// Processor time of a process so far, in seconds; `self` is this one.
pub(crate) fn cpu_s_of(pid: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name before it may hold spaces.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / TICKS_PER_S
}

/// Killed when dropped.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts a program and waits for the line that contains `word`; gives what comes after it, and how long it took.
    pub(crate) fn start(command: &mut Command, word: &str, from_stderr: bool) -> (Process, String, Duration) {
        let (out, err) =
            if from_stderr { (Stdio::null(), Stdio::piped()) } else { (Stdio::piped(), Stdio::inherit()) };
        let began = Instant::now();
        let mut child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap();
        let output: Box<dyn Read + Send> = match child.stderr.take() {
            Some(stderr) => Box::new(stderr),
            None => Box::new(child.stdout.take().unwrap()),
        };
        let word = word.to_owned();
        let (found, ready) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Read on after the word too, or the program would block on a full pipe.
                if let Some((_, rest)) = line.split_once(&word) {
                    drop(found.send((rest.trim().to_owned(), began.elapsed())));
                }
            }
        });
        let process = Process { child };
        match ready.recv_timeout(Duration::from_secs(START_S_MAX)) {
            Ok((rest, took)) => (process, rest, took),
            Err(_) => panic!("{command:?} is not ready"),
        }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processor time so far, in seconds: the program's and the kernel's for it.
    pub(crate) fn cpu_s(&self) -> f64 {
        cpu_s_of(&self.pid().to_string())
    }

    fn status_mb(&self, name: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }

    /// Resident memory in MB.
    pub(crate) fn memory_mb(&self) -> f64 {
        self.status_mb("VmRSS")
    }

    /// The most that it was since [`Process::forget_peak`].
    pub(crate) fn peak_mb(&self) -> f64 {
        self.status_mb("VmHWM")
    }

    pub(crate) fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").unwrap();
    }

    /// Ends it in order, and waits for that.
    pub(crate) fn stop(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its own end.
    pub(crate) fn wait(mut self) {
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, and need not be.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
