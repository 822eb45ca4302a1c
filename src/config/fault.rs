//! Floor 5. What is wrong with a configuration: where, with which value, what is allowed, and an example.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use toml::Value;

use super::keys;

/// Longer values are cut in messages.
const SHOWN_CHARS_MAX: usize = 80;
/// As many characters without a blank may be a key or a hash.
const KEY_CHARS: usize = 40;

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    text: String,
    file: Option<PathBuf>,
    line: Option<usize>,
}

impl Place {
    /// A variable or a flag.
    pub(super) fn named(text: impl Into<String>) -> Place {
        Place { text: text.into(), file: None, line: None }
    }

    /// A line of a file, the first of which is 1.
    pub(super) fn line(file: &Path, line: usize) -> Place {
        Place {
            text: format!("{} line {line}", file.display()),
            file: Some(file.to_owned()),
            line: Some(line),
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
    /// `section.key`; absent for text that is no TOML.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The value in TOML, cut if it is long; absent if none was set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    pub problem: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Cow<'static, str>>,
    /// A value in TOML that would be right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub example: Option<&'static str>,
    /// Whether a node does not start because of it.
    pub stops_the_node: bool,
}

impl Fault {
    /// A fault of a key's value.
    pub(super) fn of_key(
        place: &Place,
        key: &str,
        value: Option<&Value>,
        problem: impl Into<String>,
    ) -> Fault {
        let known = keys::find(key);
        let mut fault = Fault::of_text(place, problem);
        // A password is the likeliest value of a key that does not exist.
        fault.value = value.filter(|_| known.is_some()).map(|value| shown(key, value));
        fault.key = Some(key.to_owned());
        fault.allowed = known.map(|known| known.allowed.into());
        fault.example = known.map(|known| known.example);
        fault
    }

    /// A fault of a text, as of one that cannot be read as TOML.
    pub(super) fn of_text(place: &Place, problem: impl Into<String>) -> Fault {
        let Place { text, file, line } = place.clone();
        Fault {
            place: text,
            file,
            line,
            key: None,
            value: None,
            problem: problem.into(),
            allowed: None,
            example: None,
            stops_the_node: true,
        }
    }

    pub(super) fn is_of(&self, key: &str) -> bool {
        self.key.as_deref() == Some(key)
    }

    pub(super) fn moved_to(self, Place { text, file, line }: Place) -> Fault {
        Fault { place: text, file, line, ..self }
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
        if let Some(value) = &self.value {
            write!(f, "; it is {value}")?;
        }
        if let Some(allowed) = &self.allowed {
            write!(f, "; allowed: {allowed}")?;
        }
        if let (Some(example), Some(key)) = (self.example, &self.key) {
            let name = match keys::find(key) {
                Some(_) => keys::last_part(key).to_owned(),
                // The example is of the key that is meant.
                None => keys::exemplary_name(key),
            };
            let name = if key.starts_with("central.collections") { "collections".to_owned() } else { name };
            write!(f, "; for example {name} = {example}")?;
        }
        Ok(())
    }
}

/// One fault a line.
pub(super) fn lines(faults: &[Fault]) -> String {
    faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n")
}

/// A value as messages show it.
fn shown(key: &str, value: &Value) -> String {
    let text = value.to_string().replace('\n', " ");
    if key == "central.uri" || may_be_secret(key, &text) {
        return "(hidden)".to_owned();
    }
    if text.chars().count() <= SHOWN_CHARS_MAX {
        return text;
    }
    format!("{}...", text.chars().take(SHOWN_CHARS_MAX).collect::<String>())
}

/// Whether a text looks like a connection string, a key or a hash: they end up in the wrong line now and then.
fn may_be_secret(key: &str, text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let is_key = |word: &str| word.len() >= KEY_CHARS && word.chars().all(|c| c.is_ascii_alphanumeric());
    text.contains("mongodb")
        || (text.contains("://") && text.contains('@'))
        || text.contains("age-secret-key")
        || text.contains("$2")
        || (key != "backup.recipients" && text.split(|c: char| !c.is_ascii_alphanumeric()).any(is_key))
        // Where a section belongs, anything may stand.
        || (keys::is_section(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_the_wrong_line_are_not_shown() {
        let secret_key = "0123456789abcdef".repeat(4);
        for (key, value) in [
            ("central.uri", "anything"),
            ("central.database", "mongodb://edge:s3cret@hub/"),
            ("node.name", "postgres://edge:s3cret@hub/"),
            ("backup.recipients", "AGE-SECRET-KEY-1QQQQ"),
            ("store.key_file", &secret_key),
            ("central", "s3cret"),
            ("api.date_format", "$2b$12$abcdefghijklmnopqrstuv"),
        ] {
            assert_eq!(shown(key, &Value::String(value.to_owned())), "(hidden)", "{key}");
        }
        let text = |text: &str| shown("node.name", &Value::String(text.to_owned()));
        assert_eq!(text("here"), "\"here\"");
        assert!(!text("a\nb").contains('\n'), "one line");
        assert!(text(&"a b ".repeat(100)).ends_with("..."));
    }
}
