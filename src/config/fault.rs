//! Floor 5. What is wrong with a configuration: where, with which value, what is allowed, and an example.
//!
//! A fault is made here alone, and none without all of these.

mod secret;

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use toml::Value;

use super::keys;
use crate::domain::access::AclFault;
pub(super) use secret::{HIDDEN, shown_line};
use secret::{shown, shown_text, shown_unknown, without_secrets};

/// In place of the value of a default.
const NOT_SET: &str = "(not set)";
/// In place of bytes that are no text.
pub(super) const NO_TEXT: &str = "(not UTF-8)";
/// How to make a key that nobody else has.
const KEY_COMMAND: &str = "thalamus-edge db keygen FILE";

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A line of a file, the first of which is 1.
    Line(PathBuf, usize),
    Variable(String),
    /// Of the command line.
    Flag(&'static str),
    /// Anything else, in words.
    Named(String),
}

impl Place {
    pub(super) fn line(file: &Path, line: usize) -> Place {
        Place::Line(file.to_owned(), line)
    }

    pub(super) fn named(text: impl Into<String>) -> Place {
        Place::Named(text.into())
    }

    fn text(&self) -> String {
        match self {
            Place::Line(file, line) => format!("{} line {line}", file.display()),
            Place::Variable(name) => format!("variable {name}"),
            Place::Flag(name) => (*name).to_owned(),
            Place::Named(text) => text.clone(),
        }
    }

    /// A value in TOML for a key as it is given here, and the same as people write it.
    fn example(&self, key: &str, toml: &str) -> (String, String) {
        let plain = || match toml.parse::<Value>() {
            Ok(Value::String(text)) => text,
            _ => toml.to_owned(),
        };
        let line = format!("{} = {toml}", keys::last_part(key));
        match self {
            Place::Line(..) => (toml.to_owned(), line),
            Place::Variable(name) => (plain(), setting(name, &plain())),
            Place::Flag(name) => (plain(), format!("{name} {}", plain())),
            Place::Named(_) => match keys::section_of(key) {
                Some(section) => (toml.to_owned(), format!("[{section}] {line}")),
                None => (toml.to_owned(), line),
            },
        }
    }
}

/// Something to correct. Never holds a value that may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// File and line, variable, or flag.
    pub place: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// `section.key`, or what of another file; absent for a text as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The value in TOML, cut if it is long; "(hidden)" if it may be a secret, "(not set)" if the default counts.
    pub value: String,
    pub problem: String,
    pub allowed: Cow<'static, str>,
    /// A value that would be right: in TOML for a key of the configuration, as it is for a variable or a flag. Where the
    /// key or the text is wrong, what would be right in its place.
    pub example: Cow<'static, str>,
    /// The example as messages write it.
    #[serde(skip)]
    written: String,
    /// Whether a node does not start because of it.
    pub stops_the_node: bool,
}

impl Fault {
    /// A fault of a key's value. What is said about a key that does not exist is of those that do.
    pub(super) fn of_key(
        place: &Place,
        key: &str,
        value: Option<&Value>,
        problem: impl Into<String>,
    ) -> Fault {
        let problem = without_secrets(key, value, problem.into());
        let (shown, allowed, (example, written)): (String, Cow<'static, str>, _) = match keys::find(key) {
            Some(known) => {
                let shown = value.map_or_else(|| NOT_SET.to_owned(), |value| shown(key, value));
                (shown, known.allowed.into(), place.example(key, known.example_beside(value)))
            }
            None => {
                let line = match place {
                    Place::Variable(_) => {
                        let right = keys::instead_of(key, value);
                        Place::Variable(right.variable()).example(right.name, right.example).1
                    }
                    _ => keys::line_beside(key, value),
                };
                (shown_unknown(key, value), keys::those_beside(key).into(), (line.clone(), line))
            }
        };
        Fault {
            key: Some(key.to_owned()),
            written,
            ..Fault::of_text(place, problem, shown, allowed, example)
        }
    }

    /// A key's value that is no text.
    pub(super) fn of_no_text(place: &Place, key: &str) -> Fault {
        let fault = Fault::of_key(place, key, None, "the value is not UTF-8 text");
        Fault { value: NO_TEXT.to_owned(), ..fault }
    }

    /// A fault of a text, as of one that cannot be read as TOML. `value` must be fit to be shown.
    pub(super) fn of_text(
        place: &Place,
        problem: impl Into<String>,
        value: impl Into<String>,
        allowed: impl Into<Cow<'static, str>>,
        example: impl Into<Cow<'static, str>>,
    ) -> Fault {
        let (file, line) = match place {
            Place::Line(file, line) => (Some(file.clone()), Some(*line)),
            _ => (None, None),
        };
        let example = example.into();
        Fault {
            place: place.text(),
            file,
            line,
            key: None,
            value: value.into(),
            problem: problem.into(),
            allowed: allowed.into(),
            written: example.clone().into_owned(),
            example,
            stops_the_node: true,
        }
    }

    /// A fault of what a variable holds that sets no key.
    pub(super) fn of_variable(
        name: &str,
        problem: &str,
        value: &str,
        allowed: &'static str,
        example: &str,
    ) -> Fault {
        let value = shown_text("", format!("{value:?}"));
        let place = Place::Variable(name.to_owned());
        let fault = Fault::of_text(&place, problem, value, allowed, example.to_owned());
        Fault { written: setting(name, example), ..fault }
    }

    /// A fault of access rules, which have keys of their own.
    pub(super) fn of_rules(file: &Path, found: &AclFault) -> Fault {
        let value = match &found.value {
            Some(value) => shown_text("accounts.roles_file", value.clone()),
            None => HIDDEN.to_owned(),
        };
        let place = Place::line(file, found.line);
        let fault = Fault::of_text(&place, &found.message, value, found.allowed, found.example);
        Fault { key: found.key.clone(), ..fault }
    }

    /// A file that cannot be read.
    pub(super) fn of_unreadable(path: &Path, cause: &io::Error) -> Fault {
        let shown = shown_text("", path.display().to_string());
        let place = Place::named(shown.clone());
        let problem = format!("cannot be read: {cause}");
        let allowed = "a regular file that this user can read, of at most 4 MiB";
        Fault::of_text(&place, problem, shown, allowed, super::DEFAULT_FILE)
    }

    /// A fault of the connection string that a file holds.
    pub(super) fn of_uri_file(path: &Path, problem: String) -> Fault {
        let known = &keys::CONNECTION_STRING;
        let example = known.example.trim_matches('"');
        Fault::of_text(&Place::line(path, 1), problem, HIDDEN, known.allowed, example)
    }

    /// A fault of the key of a store that a file holds. No key is shown as an example: it would be used.
    pub(super) fn of_key_file(path: &Path, problem: String) -> Fault {
        Fault::of_text(&Place::line(path, 1), problem, HIDDEN, "64 hexadecimal digits", KEY_COMMAND)
    }

    /// A fault of a file that others on this machine may read.
    pub(super) fn of_mode(path: &Path, mode: u32, problem: String) -> Fault {
        let place = Place::named(path.display().to_string());
        let allowed = "a mode that gives others nothing, as 0600 or 0640";
        // Without its name: it may be another file than was meant.
        Fault::of_text(&place, problem, format!("mode {mode:04o}"), allowed, "chmod o= FILE")
    }

    pub(super) fn is_of(&self, key: &str) -> bool {
        self.key.as_deref() == Some(key)
    }

    /// The same, set elsewhere.
    pub(super) fn moved_to(self, place: &Place) -> Fault {
        let (file, line) = match place {
            Place::Line(file, line) => (Some(file.clone()), Some(*line)),
            _ => (None, None),
        };
        Fault { place: place.text(), file, line, ..self }
    }

    /// The same, where another value of the key is no remedy.
    pub(super) fn mended_by(self, allowed: &'static str, example: &'static str) -> Fault {
        Fault { allowed: allowed.into(), example: example.into(), written: example.to_owned(), ..self }
    }

    /// The same, but a node starts all the same.
    pub(super) fn not_stopping(self) -> Fault {
        Fault { stops_the_node: false, ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if let Some(key) = &self.key {
            write!(f, "`{key}`: ")?;
        }
        f.write_str(&self.problem)?;
        if self.value != NOT_SET {
            write!(f, "; it is {}", self.value)?;
        }
        // On one line.
        write!(f, "; allowed: {}; for example {}", self.allowed, self.written.replace('\n', " "))
    }
}

/// A variable as a shell sets it.
pub(super) fn setting(name: &str, value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/.:_-%+,@=".contains(c);
    match value.chars().all(is_plain) {
        true => format!("{name}={value}"),
        false => format!("{name}='{value}'"),
    }
}

/// One fault a line.
pub(super) fn lines(faults: &[Fault]) -> String {
    faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n")
}
