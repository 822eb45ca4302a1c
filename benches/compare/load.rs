//! wrk, and single requests by hand.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::federation::{DOCTOR, PASSWORD};

/// Connections of the throughput rows.
pub(crate) const CONNECTIONS: usize = 64;

pub(crate) fn authorization() -> String {
    format!("Basic {}", BASE64.encode(format!("{DOCTOR}:{PASSWORD}")))
}

/// What a run of wrk saw.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) requests_per_s: f64,
    pub(crate) median_ms: f64,
    pub(crate) p99_ms: f64,
}

/// Requests for wrk, in turns.
pub(crate) struct Script {
    path: PathBuf,
}

impl Script {
    /// GET of each of these paths.
    pub(crate) fn reads(directory: &Path, name: &str, paths: &[String]) -> Script {
        let list = directory.join(format!("{name}.paths"));
        fs::write(&list, paths.join("\n")).unwrap();
        let lua = format!(
            "local requests, at = {{}}, 0\n\
             function setup(thread) from = (from or 0) + 1; thread:set('from', from) end\n\
             function init()\n\
               for path in io.lines('{}') do requests[#requests + 1] = wrk.format('GET', path) end\n\
               at = math.floor(#requests * from / 3)\n\
             end\n\
             function request() at = at % #requests + 1; return requests[at] end\n",
            list.display()
        );
        Script::written(directory, name, &lua)
    }

    /// Writes of bodies that differ each time: `%d` in path and body is a number that never comes again, and that lies
    /// anywhere among those before it.
    pub(crate) fn writes(directory: &Path, name: &str, method: &str, paths: &[String], body: &str) -> Script {
        let list = directory.join(format!("{name}.paths"));
        fs::write(&list, paths.join("\n")).unwrap();
        let mut salt = [0; 4];
        getrandom::fill(&mut salt).unwrap();
        let lua = format!(
            "local paths, at = {{}}, 0\n\
             function setup(thread) from = (from or 0) + 1; thread:set('from', from) end\n\
             function init()\n\
               for path in io.lines('{}') do paths[#paths + 1] = path end\n\
             end\n\
             function request()\n\
               at = at + 1\n\
               local n = '{}' .. string.reverse(from * 1000000000 + at)\n\
               local path = paths[(at * 7919 + from * 4999) % #paths + 1]:gsub('%%d', n)\n\
               return wrk.format('{method}', path, nil, ('{body}'):gsub('%%d', n))\n\
             end\n",
            list.display(),
            hex::encode(salt)
        );
        Script::written(directory, name, &lua)
    }

    fn written(directory: &Path, name: &str, lua: &str) -> Script {
        let path = directory.join(format!("{name}.lua"));
        fs::write(&path, lua).unwrap();
        Script { path }
    }

    /// Runs wrk; every answer must be a good one.
    pub(crate) fn run(&self, url: &str, connections: usize, length: Duration) -> Load {
        self.start(url, connections, length).join()
    }

    pub(crate) fn start(&self, url: &str, connections: usize, length: Duration) -> Running {
        let threads = connections.min(2);
        let child = Command::new("wrk")
            .args([
                "--latency",
                "--timeout",
                "30s",
                "-t",
                &threads.to_string(),
                "-c",
                &connections.to_string(),
            ])
            .args(["-d", &format!("{}s", length.as_secs().max(1)), "-s"])
            .arg(&self.path)
            .args(["-H", &format!("Authorization: {}", authorization()), url])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("wrk");
        Running { child }
    }
}

pub(crate) struct Running {
    child: std::process::Child,
}

impl Running {
    pub(crate) fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Ends it; what it saw does not count.
    pub(crate) fn give_up(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(crate) fn join(self) -> Load {
        let output = self.child.wait_with_output().unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "{said}");
        let after = |word: &str| {
            let line = said.lines().find_map(|line| line.trim().strip_prefix(word));
            line.unwrap_or_else(|| panic!("no {word} in {said}")).trim().to_owned()
        };
        let requests_per_s: f64 = after("Requests/sec:").parse().unwrap();
        assert!(requests_per_s > 0.0, "{said}");
        Load { requests_per_s, median_ms: ms(&after("50%")), p99_ms: ms(&after("99%")) }
    }
}

/// Reads wrk's `1.25ms`, `830.00us`, `2.01s`.
fn ms(text: &str) -> f64 {
    for (unit, factor) in [("us", 0.001), ("ms", 1.0), ("s", 1000.0)] {
        if let Some(number) = text.strip_suffix(unit)
            && let Ok(number) = number.parse::<f64>()
        {
            return number * factor;
        }
    }
    panic!("{text} is no time")
}

/// One answer over plain HTTP.
pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) first_byte: Duration,
    pub(crate) took: Duration,
}

/// Asks for something once, over a connection of its own. `host` is `127.0.0.1:PORT`.
pub(crate) fn ask(host: &str, path: &str, authorization: &str) -> Answer {
    send(host, "GET", path, authorization, "")
}

/// Sends one request, over a connection of its own.
pub(crate) fn send(host: &str, method: &str, path: &str, authorization: &str, body: &str) -> Answer {
    let mut connection = TcpStream::connect(host).unwrap();
    let began = Instant::now();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {authorization}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).unwrap();
    let mut bytes = vec![0; 64 * 1024];
    let read = connection.read(&mut bytes).unwrap();
    let first_byte = began.elapsed();
    bytes.truncate(read);
    connection.read_to_end(&mut bytes).unwrap();
    let took = began.elapsed();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    assert!(head.starts_with("HTTP/1.1 2"), "{method} {path}: {head}");
    Answer { head, body: bytes.split_off(end), first_byte, took }
}
