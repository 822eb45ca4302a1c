//! Floor 5. Changes to the text of a configuration that leave everything else in it as it is.
//!
//! Hides how a key gets to its place: a key that is set changes in its line, one that the sample only mentions
//! takes the line that mentions it, below its explanation, and any other goes to the end of its section.

use std::collections::BTreeSet;
use std::fmt;

use toml::{Table, Value};
use toml_edit::{DocumentMut, Item, TableLike};

use super::ConfigError;
use super::fault::{Fault, HIDDEN, Place};

/// The configuration as it is installed: every key with its default, none set.
const SAMPLE: &str = include_str!("../../etc/config.toml");
/// The key that may hold a password, and is never shown.
const SECRET_KEY: &str = "central.uri";

/// The text of a configuration. Keys are written `section.key`, or `key` outside of any section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigText(String);

/// A key that two configurations do not have alike. Shows itself without secrets.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    key: String,
    before: Option<Value>,
    after: Option<Value>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<Value>| match value {
            None => "(default)".to_owned(),
            Some(_) if self.key == SECRET_KEY => "(hidden)".to_owned(),
            Some(value) => value.to_string(),
        };
        write!(f, "{} = {}, was {}", self.key, shown(&self.after), shown(&self.before))
    }
}

impl ConfigText {
    pub fn sample() -> ConfigText {
        ConfigText(SAMPLE.to_owned())
    }

    /// A text that [`super::Config::of_text`] takes; this does not look whether it does.
    pub fn new(text: String) -> ConfigText {
        ConfigText(text)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the key is set to.
    pub fn get(&self, key: &str) -> Result<Option<Value>, ConfigError> {
        Ok(leaves(&self.table()?).remove(key))
    }

    /// All keys that are set, and to what.
    pub fn keys(&self) -> Result<Vec<(String, Value)>, ConfigError> {
        Ok(leaves(&self.table()?).into_iter().collect())
    }

    pub fn set(&mut self, key: &str, value: Value) -> Result<(), ConfigError> {
        let known = self.get(key)?;
        if known.as_ref() == Some(&value) {
            return Ok(());
        }
        let inserted = self.with(key, &value)?;
        // The mentioned line is only a guess until it turns out to mean the same.
        self.0 = match mentioned(&self.0, key, &value) {
            Some(text) if known.is_none() && table(&text).ok() == table(&inserted).ok() => text,
            _ => inserted,
        };
        Ok(())
    }

    /// Leaves the key to its default.
    pub fn remove(&mut self, key: &str) -> Result<(), ConfigError> {
        let mut document = self.document()?;
        let (section, name) = parts(key);
        if let Some(table) = section_of(&mut document, section) {
            table.remove(name);
        }
        if self.get(key)?.is_some() {
            self.0 = document.to_string();
        }
        Ok(())
    }

    /// How `self` differs from what was before.
    pub fn changes_since(&self, before: &ConfigText) -> Result<Vec<Change>, ConfigError> {
        let (mut before, mut after) = (leaves(&before.table()?), leaves(&self.table()?));
        let keys: BTreeSet<String> = before.keys().chain(after.keys()).cloned().collect();
        let change = |key: String| Change { before: before.remove(&key), after: after.remove(&key), key };
        Ok(keys.into_iter().map(change).filter(|change| change.before != change.after).collect())
    }

    fn table(&self) -> Result<Table, ConfigError> {
        table(&self.0)
    }

    fn document(&self) -> Result<DocumentMut, ConfigError> {
        self.0.parse().map_err(|_| no_toml())
    }

    /// The text with the key changed where it is, or else added to its section.
    fn with(&self, key: &str, value: &Value) -> Result<String, ConfigError> {
        let mut document = self.document()?;
        let mut value: toml_edit::Value = value.to_string().parse().map_err(|_| unfit(key))?;
        let (section, name) = parts(key);
        if let Some(section) = section
            && !document.contains_key(section)
        {
            document.insert(section, Item::Table(toml_edit::Table::new()));
        }
        let table = section_of(&mut document, section).ok_or_else(|| unfit(key))?;
        match table.get_mut(name).and_then(Item::as_value_mut) {
            Some(known) => {
                *value.decor_mut() = known.decor().clone();
                *known = value;
            }
            None => drop(table.insert(name, Item::Value(value))),
        }
        Ok(document.to_string())
    }
}

/// A configuration that is read before it is changed is TOML already.
fn no_toml() -> ConfigError {
    let example = "listen = \"0.0.0.0:8443\"";
    let fault =
        Fault::of_text(&Place::named("setup"), "is no TOML", HIDDEN, "a configuration in TOML", example);
    ConfigError::Faults(vec![fault])
}

fn unfit(key: &str) -> ConfigError {
    let place = Place::named("setup");
    ConfigError::Faults(vec![Fault::of_key(&place, key, None, "cannot be changed in this file")])
}

fn table(text: &str) -> Result<Table, ConfigError> {
    toml::from_str(text).map_err(|_| no_toml())
}

fn parts(key: &str) -> (Option<&str>, &str) {
    key.split_once('.').map_or((None, key), |(section, name)| (Some(section), name))
}

fn section_of<'a>(document: &'a mut DocumentMut, section: Option<&str>) -> Option<&'a mut dyn TableLike> {
    match section {
        None => Some(document.as_table_mut() as &mut dyn TableLike),
        Some(section) => document.get_mut(section)?.as_table_like_mut(),
    }
}

/// Keys and values; a table inside a section is one value.
fn leaves(table: &Table) -> std::collections::BTreeMap<String, Value> {
    let mut leaves = std::collections::BTreeMap::new();
    for (name, value) in table {
        match value {
            Value::Table(section) => {
                leaves.extend(section.iter().map(|(key, value)| (format!("{name}.{key}"), value.clone())));
            }
            value => drop(leaves.insert(name.clone(), value.clone())),
        }
    }
    leaves
}

/// The text with `#key = ` in the key's section replaced by the key and its value, if there is such a line.
fn mentioned(text: &str, key: &str, value: &Value) -> Option<String> {
    let (section, name) = parts(key);
    let (mut current, mut is_found) = (None, false);
    let mut lines: Vec<String> = Vec::new();
    for line in text.split('\n') {
        if let Some(header) = line.strip_prefix('[') {
            current = header.split(']').next();
        }
        let mentions = line.strip_prefix('#').is_some_and(|rest| rest.starts_with(&format!("{name} = ")));
        let is_it = !is_found && current == section && mentions;
        is_found |= is_it;
        lines.push(if is_it { format!("{name} = {value}") } else { line.to_owned() });
    }
    is_found.then(|| lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Value {
        Value::String(value.to_owned())
    }

    /// Lines that are only here, and only there.
    fn differing(before: &str, after: &str) -> (Vec<String>, Vec<String>) {
        let only = |this: &str, other: &str| {
            let other: Vec<&str> = other.lines().collect();
            this.lines().filter(|line| !other.contains(line)).map(str::to_owned).collect::<Vec<_>>()
        };
        (only(before, after), only(after, before))
    }

    #[test]
    fn a_key_takes_the_line_that_mentions_it() {
        let before = ConfigText::sample();
        let mut after = before.clone();
        after.set("data_dir", text("/srv/node")).unwrap();
        after.set("server.listen", text("127.0.0.1:8443")).unwrap();
        after.set("central.uri_file", text("/etc/c")).unwrap();
        after.set("store.cache_bytes", Value::Integer(1 << 20)).unwrap();
        let (gone, new) = differing(before.as_str(), after.as_str());
        assert_eq!(
            gone,
            [
                "#data_dir = \"/var/lib/thalamus-edge\"",
                "#listen = \"0.0.0.0:8443\"",
                "#cache_bytes = 33554432",
                "#uri_file = \"\""
            ]
        );
        assert_eq!(
            new,
            [
                "data_dir = \"/srv/node\"",
                "listen = \"127.0.0.1:8443\"",
                "cache_bytes = 1048576",
                "uri_file = \"/etc/c\""
            ]
        );
        assert_eq!(after.as_str().lines().count(), before.as_str().lines().count());
        let once = after.clone();
        after.set("server.listen", text("127.0.0.1:8443")).unwrap();
        assert_eq!(after, once, "the same again changes nothing");
    }

    #[test]
    fn whatever_else_somebody_wrote_stays() {
        let mine = "# mine\n[server] # first\nlisten = '1.2.3.4:5' # why\n\n[api]\n#listen = \"x\"\nbody_limit_bytes = 2000\n";
        let mut edited = ConfigText::new(mine.to_owned());
        edited.set("server.listen", text("127.0.0.1:1")).unwrap();
        assert_eq!(edited.as_str(), mine.replace("'1.2.3.4:5'", "\"127.0.0.1:1\""));
        edited.set("server.tls", Value::Boolean(false)).unwrap();
        edited.set("node.name", text("north")).unwrap();
        edited.set("data_dir", text("/d")).unwrap();
        for kept in ["# mine", "[server] # first", "# why", "#listen = \"x\"", "body_limit_bytes = 2000"] {
            assert!(edited.as_str().contains(kept), "{}", edited.as_str());
        }
        let keys = edited.keys().unwrap();
        assert_eq!(
            keys,
            [
                ("api.body_limit_bytes".to_owned(), Value::Integer(2000)),
                ("data_dir".to_owned(), text("/d")),
                ("node.name".to_owned(), text("north")),
                ("server.listen".to_owned(), text("127.0.0.1:1")),
                ("server.tls".to_owned(), Value::Boolean(false)),
            ]
        );
        edited.remove("server.tls").unwrap();
        assert_eq!(edited.get("server.tls").unwrap(), None);
        let same = edited.clone();
        edited.remove("central.uri").unwrap();
        assert_eq!(edited, same);
    }

    /// A line that only looks like a mention is left alone.
    #[test]
    fn a_line_inside_of_a_text_is_no_mention() {
        let mine = "[server]\nnames = ['''\n#listen = \"a\"\n''']\n";
        let mut edited = ConfigText::new(mine.to_owned());
        edited.set("server.listen", text("127.0.0.1:1")).unwrap();
        assert!(edited.as_str().starts_with(mine), "{}", edited.as_str());
        assert_eq!(edited.get("server.listen").unwrap(), Some(text("127.0.0.1:1")));
    }

    #[test]
    fn a_section_may_be_written_in_any_way() {
        for mine in ["server.tls = false\n", "server = { tls = false }\n", "[central]\n"] {
            let mut edited = ConfigText::new(mine.to_owned());
            edited.set("server.listen", text("127.0.0.1:1")).unwrap();
            assert_eq!(edited.get("server.listen").unwrap(), Some(text("127.0.0.1:1")), "{mine}");
        }
    }

    #[test]
    fn changes_are_named_without_secrets() {
        let before =
            ConfigText::new("[central]\nuri = \"mongodb://a:b@c\"\n[server]\ntls = true\n".to_owned());
        let mut after = before.clone();
        after.remove("central.uri").unwrap();
        after.set("central.uri_file", text("/etc/c")).unwrap();
        after.set("server.tls", Value::Boolean(false)).unwrap();
        let shown: Vec<String> =
            after.changes_since(&before).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "central.uri = (default), was (hidden)",
                "central.uri_file = \"/etc/c\", was (default)",
                "server.tls = false, was true"
            ]
        );
    }
}
