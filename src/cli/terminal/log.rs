//! Floor 5. The log on standard error. What is in it came from elsewhere, too: names and ids of clients and of the centre.

use std::io::{self, IsTerminal as _, Write};

use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use super::show::plain;
use crate::config::is_log_json;

/// Logs to standard error: for people, or as JSON, one object a line.
pub(crate) fn start_log(level: &str) {
    // Libraries are heard from a warning on, but for those that read what strangers send: they warn about each odd frame,
    // so that one connection fills a disk. rustls warns about every client that names the node by its address, as well;
    // that is normal in a clinic.
    let libraries = if level == "info" { "warn" } else { level };
    let default = format!("{libraries},thalamus_edge={level}");
    let asked = EnvFilter::try_from_env("THALAMUS_EDGE_LOG").map_or(default, |asked| asked.to_string());
    // A directive of the variable for one of these by its name comes later and counts.
    let filter = EnvFilter::new(format!("rustls=error,h2=error,hyper=error,{asked}"));
    // It writes down the password of every connection. No directive of the variable, however exact, brings it back.
    let filter = filter.and(filter_fn(|metadata| !metadata.target().starts_with("fast_socks5")));
    // It would say so on the same standard error, and a panic there would end the request: a log may be on a full disk.
    let log = tracing_subscriber::fmt::layer().log_internal_errors(false);
    let to_log = tracing_subscriber::registry();
    if is_log_json() {
        // Programs that read it can tell what the node says from what a library does.
        to_log.with(log.json().with_writer(io::stderr).with_target(true).with_filter(filter)).init();
    } else {
        let log = log.compact().with_target(false).with_ansi(io::stderr().is_terminal());
        let log = log.with_writer(|| OneLine(io::stderr()));
        to_log.with(log.with_filter(filter)).init();
    }
}

/// Keeps each entry of the text log on one line: no name in it begins a line or moves the cursor. JSON has its own escapes.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, said: &[u8]) -> io::Result<usize> {
        self.0.write_all(one_line(&String::from_utf8_lossy(said)).as_bytes())?;
        Ok(said.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The text with its end, and with what else would end a line in it spelled out.
fn one_line(said: &str) -> String {
    // Escapes are the subscriber's own colours: it spells out those of values.
    let colours = said.trim_end_matches('\n').split('\u{1b}').map(plain);
    colours.collect::<Vec<_>>().join("\u{1b}").replace('\n', "\\n") + "\n"
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_name_begins_no_line() {
        let kept = Kept::default();
        let writer = kept.clone();
        let layer = tracing_subscriber::fmt::layer().compact().with_ansi(false);
        let layer = layer.with_writer(move || OneLine(writer.clone()));
        let names = [
            "a\r\n2026-12-01T00:00:00Z ERROR forged",
            "\u{85}b",
            "\u{2028}c",
            "\u{202E}d",
            "\u{9b}2Je",
            "\u{1b}[2Jf",
        ];
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            for name in names {
                tracing::info!(name, "records of {name} wait");
            }
        });
        let log = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        assert_eq!(log.lines().count(), names.len(), "{log}");
        assert!(log.contains("records of a\\u{d}\\n2026-12-01T00:00:00Z ERROR forged wait"), "{log}");
        let is_plain = |c: char| c == '\n' || !c.is_control() && !matches!(c, '\u{2028}' | '\u{202E}');
        assert!(log.chars().all(is_plain), "{log:?}");
    }

    #[test]
    fn colours_stay() {
        assert_eq!(one_line("\u{1b}[32m INFO\u{1b}[0m said\n"), "\u{1b}[32m INFO\u{1b}[0m said\n");
    }
}
