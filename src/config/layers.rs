//! Floor 5. The layers of a configuration, and where each value in force was set.
//!
//! Every value is tried on its own before it is laid over the others, so all that are wrong are found at once, and a
//! message can name the place of each.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::fault::{Fault, Place, shown_line};
use super::{
    AccountRules, Api, Backup, Central, Config, DEFAULT_DATA_DIR, Node, Overrides, Server, Store,
    TRIAL_DATA_DIR, VARIABLE_PREFIX, keys, variables,
};

/// What a node listens on that only shows the demo: its passwords are public.
const DEMO_LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 8443);
const COLLECTIONS: [&str; 2] = ["central", "collections"];
/// So many lines that are no TOML are named; after that, what follows is hardly meant as a configuration.
const NOT_TOML_MAX: usize = 20;

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

/// Where values were set.
#[derive(Debug, Clone, Default)]
pub(super) struct Origins {
    values: Table,
    /// Dotted key -> where it was set last.
    places: BTreeMap<String, Place>,
}

impl Origins {
    /// A fault of the value that is in force.
    pub(super) fn fault(&self, key: &str, problem: impl Into<String>) -> Fault {
        let within = format!("{key}.");
        let place = self.places.get(key).cloned();
        let place = place.or_else(|| {
            let inside = self.places.iter().find(|(name, _)| name.starts_with(&within));
            inside.map(|(_, place)| place.clone())
        });
        let value = key.split('.').try_fold(None, |table: Option<&Value>, name| {
            let value = match table {
                None => self.values.get(name),
                Some(table) => table.get(name),
            };
            value.map(Some)
        });
        let place = place.unwrap_or_else(|| Place::named("configuration"));
        Fault::of_key(&place, key, value.flatten(), problem)
    }

    /// Where the key was set.
    pub(super) fn place(&self, key: &str) -> Option<Place> {
        self.places.get(key).cloned()
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }
}

/// What the layers say together, and the values that could not be read.
pub(super) struct Layered {
    pub(super) config: Config,
    pub(super) origins: Origins,
    pub(super) faults: Vec<Fault>,
}

/// Lays defaults, the file, variables out of `env`, and flags over each other.
pub(super) fn lay(
    file: Option<(&Path, &str)>,
    env: impl Iterator<Item = (String, String)>,
    overrides: &Overrides,
) -> Layered {
    let mut layers = Layers::default();
    if let Some((path, text)) = file {
        layers.add_file(path, text);
    }
    for (name, value) in env {
        if let Some(key) = name.strip_prefix(VARIABLE_PREFIX) {
            layers.add_variable(&name, key, &value);
        } else if let Some(fault) = variables::fault(&name, &value) {
            layers.faults.push(fault);
        }
    }
    if let Some(listen) = &overrides.listen {
        let value = Value::String(listen.clone());
        layers.add(&Place::Flag("--listen"), &["server".to_owned(), "listen".to_owned()], vec![value]);
    }
    let Layers { origins, mut faults } = layers;
    let keys = origins.values.clone().try_into().unwrap_or_else(|error: toml::de::Error| {
        // Each value is right by itself; only the names of collections can clash.
        faults.push(origins.fault("central.collections", without_values(error.message())));
        Keys::default()
    });
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
    if overrides.demo && !origins.has("server.listen") {
        config.server.listen = SocketAddr::from(DEMO_LISTEN);
    }
    Layered { config, origins, faults }
}

#[derive(Default)]
struct Layers {
    origins: Origins,
    faults: Vec<Fault>,
}

impl Layers {
    fn add_file(&mut self, path: &Path, text: &str) {
        let text = self.readable(path, text);
        let Ok(tree) = DeTable::parse(&text) else {
            return;
        };
        let mut leaves = Vec::new();
        collect_leaves(tree.get_ref(), &[], &mut leaves);
        for leaf in leaves {
            let line = |at: usize| Place::line(path, line_of(&text, at));
            let place = line(leaf.name.start);
            match leaf.alone(&text) {
                Ok(table) => {
                    lay_over(&mut self.origins.values, Value::Table(table));
                    self.origins.places.insert(leaf.dotted(), place);
                }
                Err((at, problem)) => {
                    let place = at.map_or(place, line);
                    self.refuse(&place, &leaf.path, leaf.shown(&text).as_ref(), problem);
                }
            }
        }
    }

    /// The text without the lines that are no TOML, each of which is a fault.
    fn readable(&mut self, path: &Path, text: &str) -> String {
        let mut lines: Vec<&str> = text.split('\n').collect();
        for _ in 0..NOT_TOML_MAX {
            let text = lines.join("\n");
            let Err(error) = DeTable::parse(&text) else {
                return text;
            };
            let mut at = line_of(&text, error.span().map_or(0, |span| span.start));
            // What is not closed is missed at the end.
            while at > 1 && lines.get(at - 1).is_none_or(|line| line.trim().is_empty()) {
                at -= 1;
            }
            let problem = format!("is not TOML: {}", without_values(error.message()).replace('\n', ", "));
            let fault = no_toml(&Place::line(path, at), problem, lines.get(at - 1).unwrap_or(&""));
            self.faults.push(fault);
            let is_header = |line: &&str| line.trim_start().starts_with('[');
            let after_header = match lines.get(at - 1) {
                // Without its header nobody knows where the keys below belong.
                Some(line) if is_header(line) => {
                    lines.iter().skip(at).take_while(|line| !is_header(line)).count()
                }
                _ => 0,
            };
            for line in lines.iter_mut().skip(at - 1).take(1 + after_header) {
                *line = "";
            }
        }
        String::new()
    }

    /// `SECTION__KEY=value`: the value as TOML if the key takes that, else as the text that it is.
    fn add_variable(&mut self, name: &str, key: &str, text: &str) {
        let place = Place::Variable(name.to_owned());
        let path: Vec<String> = key.split("__").map(str::to_lowercase).collect();
        if text.contains(char::REPLACEMENT_CHARACTER) {
            return self.faults.push(Fault::of_no_text(&place, &path.join(".")));
        }
        let typed = text.parse::<Value>().ok();
        let candidates = typed.into_iter().chain([Value::String(text.to_owned())]).collect();
        self.add(&place, &path, candidates);
    }

    /// Lays the first candidate that fits over what is there.
    fn add(&mut self, place: &Place, path: &[String], candidates: Vec<Value>) {
        let mut first = None;
        for candidate in candidates {
            if !candidate.is_table()
                && let Some(problem) = no_section(path)
            {
                first.get_or_insert((candidate, problem));
                continue;
            }
            let layer = path
                .iter()
                .rev()
                .fold(candidate.clone(), |value, key| Value::Table(Table::from_iter([(key.clone(), value)])));
            match layer.clone().try_into::<Keys>() {
                Ok(_) => {
                    lay_over(&mut self.origins.values, layer);
                    self.origins.places.insert(path.join("."), place.clone());
                    return;
                }
                Err(error) => first.get_or_insert((candidate, problem_of(&error))),
            };
        }
        if let Some((value, problem)) = first {
            self.refuse(place, path, Some(&value), problem);
        }
    }

    fn refuse(&mut self, place: &Place, path: &[String], value: Option<&Value>, mut problem: String) {
        let key = path.join(".");
        let like = if keys::find(&key).is_none() { keys::like(&key) } else { None };
        if let Some(like) = like {
            problem += &format!("; did you mean `{like}`?");
        }
        self.faults.push(Fault::of_key(place, &key, value, problem));
    }
}

/// A line that is no TOML. Only the value of a key that holds no secret is shown.
fn no_toml(place: &Place, problem: String, line: &str) -> Fault {
    const ALLOWED: &str =
        "TOML: each line a `[section]`, a `key = value` with text in double quotes, or a `# comment`";
    let (name, value) = line.split_once('=').unwrap_or((line, ""));
    let name = name.trim();
    let known = keys::KEYS.iter().find(|key| !name.is_empty() && keys::last_part(key.name) == name);
    let (value, example) = match known {
        Some(key) => {
            (format!("{name} = {}", shown_line(key.name, value)), format!("{name} = {}", key.example))
        }
        None => (shown_line("", ""), keys::line_beside("server.", None)),
    };
    Fault::of_text(place, problem, value, ALLOWED, example)
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
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

/// A key with its value, as the file spells it out.
struct Leaf {
    path: Vec<String>,
    name: Range<usize>,
    value: Range<usize>,
    /// Whether the value stands in one place, and not below a header of its own.
    is_inline: bool,
    /// Whether it is written as `[[name]]`.
    is_list_of_sections: bool,
}

impl Leaf {
    fn dotted(&self) -> String {
        self.path.join(".")
    }

    /// The value in the file.
    fn text<'a>(&self, file: &'a str) -> &'a str {
        let text = file.get(self.value.clone()).unwrap_or_default();
        if self.is_inline { text } else { "{}" }
    }

    /// The value, if it is of any type.
    fn shown(&self, file: &str) -> Option<Value> {
        if self.is_list_of_sections {
            return Some(Value::Array(vec![Value::Table(Table::new())]));
        }
        self.text(file).parse().ok()
    }

    /// A configuration of this key alone; or where in the file and why it is none.
    fn alone(&self, file: &str) -> Result<Table, (Option<usize>, String)> {
        if let Some(problem) = no_section(&self.path) {
            return Err((None, problem));
        }
        let quoted = self.path.iter().map(|name| Value::String(name.clone()).to_string());
        let before = quoted.collect::<Vec<_>>().join(".") + " = ";
        let text = before.clone() + self.text(file);
        let place = |error: &toml::de::Error| {
            let at = error.span()?.start.checked_sub(before.len())?;
            self.is_inline.then_some(self.value.start + at)
        };
        toml::from_str::<Keys>(&text).map_err(|error| (place(&error), problem_of(&error)))?;
        toml::from_str(&text).map_err(|error| (place(&error), problem_of(&error)))
    }
}

/// All keys with a value; sections and the names of collections are taken apart.
fn collect_leaves(table: &DeTable<'_>, above: &[String], leaves: &mut Vec<Leaf>) {
    for (name, value) in table {
        let path: Vec<String> = above.iter().cloned().chain([name.get_ref().to_string()]).collect();
        let has_keys = match path.as_slice() {
            [section] => keys::is_section(section),
            [section, key] => [section.as_str(), key] == COLLECTIONS,
            _ => false,
        };
        match value.get_ref() {
            DeValue::Table(inner) if has_keys => collect_leaves(inner, &path, leaves),
            inner => {
                let (name, span) = (name.span(), value.span());
                // A header spans its name, an inline table its braces.
                let is_inline = span.start >= name.end;
                let is_list_of_sections = !is_inline && matches!(inner, DeValue::Array(_));
                leaves.push(Leaf { path, name, value: span, is_inline, is_list_of_sections });
            }
        }
    }
}

/// What is wrong with a value where a section belongs; a list would be read as its keys in order.
fn no_section(path: &[String]) -> Option<String> {
    match path {
        [name] if keys::is_section(name) => {
            Some(format!("is a section, which is written once as [{name}] with its keys below"))
        }
        _ => None,
    }
}

fn problem_of(error: &toml::de::Error) -> String {
    without_values(error.message())
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
