//! Floor 5. What `setup` asks on the terminal. An answer that cannot be used is asked for again, with the words that
//! `check` has for it.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};

use toml::Value as Setting;
use zeroize::Zeroizing;

use super::place::Place;
use super::{DATA_DIR, Draft, URI, URI_FILE};
use crate::cli::terminal::{EXIT_FAILED, Failure};
use crate::config::Config;
use crate::config::edit::ConfigText;

/// How often a question is asked.
const TRIES_MAX: usize = 5;
/// Longer than any answer; the rest of an endless line is not read.
const ANSWER_BYTES_MAX: u64 = 4096;
/// The answer for nothing at all.
const NONE: &str = "none";
/// The answer for what is there, where that is not shown.
const KEEP: &str = "keep";

/// Somebody who can be asked.
pub(super) struct Terminal(());

impl Terminal {
    pub(super) fn open() -> Result<Terminal, Failure> {
        match io::stdin().is_terminal() {
            true => Ok(Terminal(())),
            false => Err(Failure::usage(
                "no terminal to ask on: give the settings with --from FILE, or keep to the defaults with --yes",
            )),
        }
    }

    /// An empty answer is the default.
    pub(super) fn ask(&self, question: &str, default: &str) -> anyhow::Result<String> {
        // Not on standard output: that is for what came of it.
        let mut screen = io::stderr().lock();
        write!(screen, "{question} [{default}]: ").and_then(|()| screen.flush()).map_err(unanswered)?;
        let mut line = String::new();
        let read = io::stdin().lock().take(ANSWER_BYTES_MAX).read_line(&mut line).map_err(unanswered)?;
        if read == 0 {
            return Err(unanswered(io::ErrorKind::UnexpectedEof.into()).into());
        }
        Ok(answer_or(&line, default).to_owned())
    }

    fn ask_hidden(&self, question: &str, default: &str) -> anyhow::Result<Zeroizing<String>> {
        let typed = rpassword::prompt_password(format!("{question} [{default}]: "));
        let typed = Zeroizing::new(typed.map_err(unanswered)?);
        Ok(Zeroizing::new(answer_or(&typed, default).to_owned()))
    }

    pub(super) fn agrees(&self, question: &str) -> anyhow::Result<bool> {
        let answer = self.ask(question, "yes")?.to_lowercase();
        Ok(["y", "yes"].contains(&answer.as_str()))
    }
}

fn answer_or<'a>(typed: &'a str, default: &'a str) -> &'a str {
    let typed = typed.trim();
    if typed.is_empty() { default } else { typed }
}

fn unanswered(error: io::Error) -> Failure {
    Failure { code: EXIT_FAILED, message: format!("no answer ({error}); nothing was written") }
}

/// Asks for what most nodes need; everything else is in the file.
pub(super) fn settings(terminal: &Terminal, draft: &mut Draft, place: &Place) -> anyhow::Result<()> {
    let now = place.config(&draft.text, std::iter::empty())?;
    let text = |answer: &str| Setting::String(answer.to_owned());
    let list = |answer: &str| {
        let names = answer.split([',', ' ']).filter(|name| !name.is_empty() && *name != NONE);
        Setting::Array(names.map(text).collect())
    };
    let mut ask = |key: &str, question: &str, shown: &str, read: &dyn Fn(&str) -> Setting| {
        tried(|| {
            let answer = terminal.ask(question, shown)?;
            if answer == shown {
                return Ok(true);
            }
            let mut text = draft.text.clone();
            text.set(key, read(&answer))?;
            Ok(is_usable(&text, place).then(|| draft.text = text).is_some())
        })
    };
    ask("node.name", "Name of this node, unlike any other's", &now.node.name, &text)?;
    ask("server.listen", "Address and port to listen on", &now.server.listen.to_string(), &text)?;
    let names = now.server.names.join(", ");
    let names = if names.is_empty() { NONE } else { &names };
    ask("server.names", "Names and addresses that clients use, for the certificate", names, &list)?;
    if !place.is_packaged() {
        ask(DATA_DIR, "Directory for the data", &now.data_dir.to_string_lossy(), &text)?;
    }
    centre(terminal, draft, place)?;
    Ok(())
}

fn centre(terminal: &Terminal, draft: &mut Draft, place: &Place) -> anyhow::Result<()> {
    let has_one = draft.text.get(URI)?.is_some() || draft.text.get(URI_FILE)?.is_some();
    let shown = if has_one { KEEP } else { NONE };
    tried(|| {
        let question = "Connection string of the centre (mongodb://...), which is not shown";
        let answer = terminal.ask_hidden(question, shown)?;
        match answer.as_str() {
            KEEP if has_one => return Ok(true),
            NONE => draft.set_centre(None, place)?,
            uri => {
                let mut text = draft.text.clone();
                text.remove(URI_FILE)?;
                text.set(URI, Setting::String(uri.to_owned()))?;
                if !is_usable(&text, place) {
                    return Ok(false);
                }
                draft.set_centre(Some(uri), place)?;
            }
        }
        Ok(true)
    })?;
    if draft.text.get(URI)?.is_none() && draft.text.get(URI_FILE)?.is_none() {
        return Ok(());
    }
    let config = place.config(&draft.text, std::iter::empty())?;
    let uri = match &draft.uri {
        Some(uri) => uri.to_string(),
        None => config.centre()?.map(|centre| centre.uri).unwrap_or_default(),
    };
    if let Some(database) = Config::database_in(&uri) {
        eprintln!("  its database: {} (the connection string names it)", super::plain(&database));
        return Ok(());
    }
    let shown = config.database_at(&uri).map_err(anyhow::Error::msg)?;
    tried(|| {
        let answer = terminal.ask("Database of the federation at the centre", &shown)?;
        if answer == shown {
            return Ok(true);
        }
        let mut text = draft.text.clone();
        text.set("central.database", Setting::String(answer))?;
        Ok(is_usable(&text, place).then(|| draft.text = text).is_some())
    })
}

/// Until one of a few attempts came to something.
fn tried(mut attempt: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    for _ in 0..TRIES_MAX {
        if attempt()? {
            return Ok(());
        }
    }
    Err(Failure::usage("none of the answers could be used; nothing was written").into())
}

/// Says what is wrong with it if it is not.
fn is_usable(text: &ConfigText, place: &Place) -> bool {
    match place.config(text, std::iter::empty()) {
        Ok(_) => true,
        Err(error) => {
            eprintln!("  {}", super::plain(&error.to_string()));
            false
        }
    }
}
