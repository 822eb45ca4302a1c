//! Floor 5. The layers of a configuration, and where each value in force was set.
//!
//! Every layer is tried on its own before it is laid over the others, so a message can name its place.
//! What does not fit is not repeated: it may be a password in the wrong line.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::{
    AccountRules, Api, Backup, Central, Config, ConfigError, DEFAULT_DATA_DIR, Node, Overrides, Server,
    Store, TRIAL_DATA_DIR, VARIABLE_PREFIX, check,
};

/// All keys that there are.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Keys {
    data_dir: Option<PathBuf>,
    node: Node,
    server: Server,
    api: Api,
    accounts: AccountRules,
    store: Store,
    central: Central,
    backup: Backup,
}

pub(super) fn load(
    file: Option<(&Path, &str)>,
    env: impl Iterator<Item = (String, String)>,
    overrides: &Overrides,
) -> Result<Config, ConfigError> {
    let mut layers = Layers::default();
    if let Some((path, text)) = file {
        layers.add_file(path, text)?;
    }
    for (name, value) in env {
        if let Some(key) = name.strip_prefix(VARIABLE_PREFIX) {
            layers.add_variable(&name, key, &value)?;
        }
    }
    if let Some(listen) = &overrides.listen {
        let value = Value::String(listen.clone());
        layers.add("--listen", &["server".to_owned(), "listen".to_owned()], vec![value])?;
    }
    let Layers { values, places } = layers;
    let place = |key: &str| match places.get(key) {
        Some(place) => place.clone(),
        None => "configuration".to_owned(),
    };
    let keys: Keys = values.try_into().map_err(|error: toml::de::Error| ConfigError::Invalid {
        // Each layer is right by itself; only the names of collections can clash between two.
        place: place("central.collections"),
        message: format!("`central.collections`: {}", without_values(error.message())),
    })?;
    let trial = overrides.demo || file.is_none();
    let mut config = Config {
        data_dir: keys
            .data_dir
            .unwrap_or_else(|| PathBuf::from(if trial { TRIAL_DATA_DIR } else { DEFAULT_DATA_DIR })),
        node: keys.node,
        server: keys.server,
        api: keys.api,
        accounts: keys.accounts,
        store: keys.store,
        central: keys.central,
        backup: keys.backup,
    };
    if config.node.name.is_empty() {
        config.node.name = gethostname::gethostname().to_string_lossy().into_owned();
    }
    match check::first_fault(&config) {
        None => Ok(config),
        Some((key, message)) => {
            Err(ConfigError::Invalid { place: place(key), message: format!("`{key}` {message}") })
        }
    }
}

#[derive(Default)]
struct Layers {
    values: Table,
    /// Dotted key -> where it was set last.
    places: BTreeMap<String, String>,
}

impl Layers {
    fn add_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let place = |at: usize| {
            let line = 1 + text[..at.min(text.len())].matches('\n').count();
            format!("{} line {line}", path.display())
        };
        let invalid = |keys: &[Key], error: &toml::de::Error| {
            let message = without_values(error.message());
            let Some(at) = error.span().map(|span| span.start) else {
                return ConfigError::Invalid { place: path.display().to_string(), message };
            };
            // The innermost key comes last.
            let key = keys.iter().rfind(|key| key.covers(at));
            ConfigError::Invalid {
                place: place(at),
                message: key.map_or(message.clone(), |key| format!("`{}`: {message}", key.dotted)),
            }
        };
        let tree = DeTable::parse(text).map_err(|error| invalid(&[], &error))?;
        let mut keys = Vec::new();
        collect_keys(tree.get_ref(), "", &mut keys);
        toml::from_str::<Keys>(text).map_err(|error| invalid(&keys, &error))?;
        self.values = toml::from_str(text).map_err(|error| invalid(&keys, &error))?;
        self.places.extend(keys.into_iter().map(|key| (key.dotted, place(key.name.start))));
        Ok(())
    }

    /// `SECTION__KEY=value`: the value as TOML if the key takes that, else as the text that it is.
    fn add_variable(&mut self, name: &str, key: &str, text: &str) -> Result<(), ConfigError> {
        let place = format!("variable {name}");
        if text.contains(char::REPLACEMENT_CHARACTER) {
            let message = "the value is not UTF-8 text".to_owned();
            return Err(ConfigError::Invalid { place, message });
        }
        let path: Vec<String> = key.split("__").map(str::to_lowercase).collect();
        let typed = text.parse::<Value>().ok();
        let candidates = typed.into_iter().chain([Value::String(text.to_owned())]).collect();
        self.add(&place, &path, candidates)
    }

    /// Lays the first candidate that fits over what is there.
    fn add(&mut self, place: &str, path: &[String], candidates: Vec<Value>) -> Result<(), ConfigError> {
        let dotted = path.join(".");
        let mut first_error = None;
        for candidate in candidates {
            let layer = path
                .iter()
                .rev()
                .fold(candidate, |value, key| Value::Table(Table::from_iter([(key.clone(), value)])));
            match layer.clone().try_into::<Keys>() {
                Ok(_) => {
                    lay_over(&mut self.values, layer);
                    self.places.insert(dotted, place.to_owned());
                    return Ok(());
                }
                Err(error) => first_error.get_or_insert(without_values(error.message())),
            };
        }
        Err(ConfigError::Invalid {
            place: place.to_owned(),
            message: format!("`{dotted}`: {}", first_error.unwrap_or_default()),
        })
    }
}

fn lay_over(below: &mut Table, above: Value) {
    let Value::Table(above) = above else {
        return;
    };
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(inner)), value @ Value::Table(_)) => lay_over(inner, value),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

/// A key as the file spells it out.
struct Key {
    dotted: String,
    name: Range<usize>,
    value: Range<usize>,
}

impl Key {
    fn covers(&self, at: usize) -> bool {
        self.name.contains(&at) || self.value.contains(&at)
    }
}

/// Outer keys before the ones inside them.
fn collect_keys(table: &DeTable<'_>, prefix: &str, keys: &mut Vec<Key>) {
    for (name, value) in table {
        let dotted = format!("{prefix}{}", name.get_ref());
        keys.push(Key { dotted: dotted.clone(), name: name.span(), value: value.span() });
        if let DeValue::Table(inner) = value.get_ref() {
            collect_keys(inner, &format!("{dotted}."), keys);
        }
    }
}

/// Takes out what serde quotes of the input.
fn without_values(message: &str) -> String {
    let cut = |message: String, before: &str, open: char, close: char| {
        let Some(start) = message.find(&format!("{before} {open}")) else {
            return message;
        };
        let start = start + before.len();
        match message[start + 2..].rfind(close) {
            Some(length) => format!("{}{}", &message[..start], &message[start + 2 + length + 1..]),
            None => message[..start].to_owned(),
        }
    };
    let message = cut(message.to_owned(), "string", '"', '"');
    // The names that would be right follow in the same quotes.
    match message.strip_prefix("unknown variant `").and_then(|rest| rest.rsplit_once("`, expected ")) {
        Some((_, expected)) => format!("is none of the values that there are: {expected}"),
        None => message,
    }
}
