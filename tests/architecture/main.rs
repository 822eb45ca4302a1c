//! The house rules that a compiler does not check: imports point down, between the rooms of a floor they go one way,
//! one room owns each database, every file says what it hides, and none grows without end.
//!
//! `code` reads Rust source, `paths` finds what a file names of the crate, `rooms` looks at the rooms of a floor.

#![allow(clippy::unwrap_used)]

mod code;
mod paths;
mod rooms;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use code::{code_of, is_word, without_tests};
use paths::named_in;
use thalamus_edge::domain::access::Acl;
use thalamus_edge::domain::schema::SCHEMAS;

/// The floor of each module directly under `src/`; a new module needs a line here.
const FLOORS: &[(&str, u8)] = &[
    ("domain", 0),
    ("files", 0),
    ("flaw", 0),
    ("memory", 0),
    ("store", 1),
    ("accounts", 2),
    ("central", 2),
    ("sync", 3),
    ("backup", 3),
    ("http", 4),
    ("app", 5),
    ("cli", 5),
    ("config", 5),
    ("tls", 5),
    ("demo", 5),
    ("main", 5),
];

/// Floors whose rooms still import from each other in circles, or have files of the same name.
const WITHOUT_ROOMS_YET: &[&str] = &["sync"];

/// Crates that only one room may name, and the start of that room's paths.
const OWNED_CRATES: &[(&str, &str)] = &[("redb", "store"), ("mongodb", "central/mongo"), ("age", "backup")];

/// Where requests get at the store itself: everywhere else they write by the rights of a caller.
const UNGUARDED: &str = "unguarded";
/// What gives it to the process that serves requests, and what writes that new access rules have ended rights of others.
const UNGUARDED_IN: &[&str] = &["http/state/client_store.rs", "http/auth/access_rules.rs"];

const FILE_LINES_MAX: usize = 700;

struct Source {
    /// Below `src/`, with `/` between its parts.
    path: String,
    text: String,
    code: String,
}

impl Source {
    fn new(path: String, text: String) -> Source {
        Source { path, code: code_of(&text), text }
    }

    /// The module directly under `src/` that the file belongs to.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// The names of the file's module, from the root of the crate on.
    fn names(&self) -> paths::Path {
        let path = self.path.trim_end_matches(".rs").trim_end_matches("/mod");
        path.split('/').map(str::to_owned).collect()
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut found) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let parts: Vec<_> =
                    path.strip_prefix(&root).unwrap().iter().map(|p| p.to_str().unwrap()).collect();
                found.push(Source::new(parts.join("/"), text));
            }
        }
    }
    found
}

fn floor(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

/// What is wrong with the imports of one file.
fn upward_imports(source: &Source) -> Vec<String> {
    // The crate root declares every module and belongs to none.
    if source.path == "lib.rs" {
        return Vec::new();
    }
    let Some(own) = floor(source.module()) else {
        return vec![format!("{}: no floor is given for this module", source.path)];
    };
    let named = named_in(&source.code, &source.names(), &|_| false);
    let targets: BTreeSet<&String> = named.paths.iter().filter_map(|path| path.first()).collect();
    targets
        .iter()
        .filter_map(|target| match floor(target) {
            Some(theirs) if theirs <= own => None,
            Some(theirs) => Some(format!("{} (floor {own}) imports {target} (floor {theirs})", source.path)),
            None => Some(format!("{} imports {target}, which has no floor", source.path)),
        })
        .collect()
}

/// Whether `code` names the crate `name`: in a path, or in a `use` or `extern crate`.
fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(start, _)| {
        let (left, right) = (&code[..start], &code[start + name.len()..]);
        if is_word(left.chars().next_back().unwrap_or(' ')) || is_word(right.chars().next().unwrap_or(' ')) {
            return false;
        }
        let left = left.trim_end();
        // `a::redb` is somebody's module; `::redb` is the crate.
        let below = left.strip_suffix("::").is_some_and(|path| path.ends_with(is_word));
        let imported = ["use", "extern crate", "use ::"].iter().any(|word| left.ends_with(word));
        imported || (!below && right.trim_start().starts_with("::"))
    })
}

#[test]
fn imports_point_down() {
    let wrong: Vec<String> = sources().iter().flat_map(upward_imports).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn imports_between_rooms_go_one_way() {
    let sources = sources();
    for (floor, _) in FLOORS.iter().filter(|(floor, _)| !WITHOUT_ROOMS_YET.contains(floor)) {
        let circles = rooms::circles(floor, &sources);
        assert!(circles.is_empty(), "src/{floor}: {circles:#?}");
    }
}

#[test]
fn each_name_stands_once_on_a_floor() {
    let sources = sources();
    for (floor, _) in FLOORS.iter().filter(|(floor, _)| !WITHOUT_ROOMS_YET.contains(floor)) {
        let twice = rooms::names_twice(floor, &sources);
        assert!(twice.is_empty(), "src/{floor}: {twice:#?}");
    }
}

#[test]
fn each_database_has_one_room() {
    for (name, room) in OWNED_CRATES {
        for source in sources() {
            let inside = source.path.strip_prefix(room).is_some_and(|rest| rest.starts_with(['/', '.']));
            assert!(inside || !names_crate(&source.code, name), "{} names {name}", source.path);
        }
    }
}

/// What a client writes goes by the client's rights, which the store asks again in the transaction.
#[test]
fn requests_write_by_rights_only() {
    let in_http =
        |source: &&Source| source.path.starts_with("http/") && !UNGUARDED_IN.contains(&source.path.as_str());
    let sources = sources();
    for Source { path, code, .. } in sources.iter().filter(in_http) {
        assert!(!code.contains(UNGUARDED), "src/{path} writes to the store by no right");
    }
    for path in UNGUARDED_IN {
        assert!(
            sources.iter().any(|source| source.path == *path && source.code.contains(UNGUARDED)),
            "{path}"
        );
    }
}

/// What requests start in tasks of their own, where nothing knows who asked, so that the store would take a write as the
/// machine's: by file, how often and why that is right.
const SPAWNING: &[(&str, usize, &str)] = &[
    ("http/admin/audit_trail.rs", 1, "writes the notes that wait"),
    ("http/admin/backups.rs", 1, "writes a file, and into the store its id before the first one"),
    ("http/auth/emergency.rs", 1, "its writes go by the rights of its caller"),
    ("http/bodies/unread_body.rs", 2, "throws away what comes of a body"),
];

#[test]
fn requests_start_few_tasks_of_their_own() {
    let is_test = |path: &str| path.ends_with("tests.rs") || path.contains("/tests/");
    for Source { path, code, .. } in sources().iter().filter(|source| source.path.starts_with("http/")) {
        // Work that blocks is awaited where it is started, and has no writer: it reads.
        let shipped = without_tests(code);
        let count = if is_test(path) { 0 } else { tasks_in(&shipped) };
        let allowed = SPAWNING.iter().find(|(of, ..)| of == path).map_or(0, |(_, count, _)| *count);
        assert_eq!(count, allowed, "src/{path}: tasks of their own; each needs a reason in SPAWNING");
    }
}

/// How many tasks `code` starts.
fn tasks_in(code: &str) -> usize {
    let starts = |name: &str| {
        let found = code.match_indices(name);
        found.filter(|(at, _)| !is_word(code[..*at].chars().next_back().unwrap_or(' '))).count()
    };
    starts("spawn(") + starts("spawn_on(") + starts("spawn_local(") + starts("JoinSet")
}

/// Opens a file without asking what kind of file it is.
const OPENINGS: &[&str] =
    &["File::open", "OpenOptions::new", "fs::read(", "fs::read_to_string", "pem_file_iter", "from_pem_file"];

/// A pipe in the place of a file would be waited for without end, so all files are opened by one function.
#[test]
fn files_are_opened_in_one_place() {
    for Source { path, code, .. } in sources() {
        let is_test = path.ends_with("tests.rs") || path.contains("/tests/");
        let shipped = without_tests(&code);
        for opening in OPENINGS.iter().filter(|_| path != "files.rs" && !is_test) {
            assert!(!shipped.contains(opening), "src/{path} opens files by {opening}, not by crate::files");
        }
    }
}

#[test]
fn every_file_says_what_it_hides() {
    for Source { path, text, .. } in sources() {
        let says = text
            .strip_prefix("//!")
            .is_some_and(|rest| rest.lines().next().is_some_and(|l| l.trim().len() > 10));
        assert!(says, "src/{path} does not begin with a //! comment");
    }
}

#[test]
fn no_file_grows_without_end() {
    for Source { path, text, .. } in sources() {
        let lines = text.lines().count();
        assert!(lines <= FILE_LINES_MAX, "src/{path} has {lines} lines");
    }
}

#[test]
fn the_installed_roles_name_what_exists() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/roles.cfg");
    let text = fs::read_to_string(file).unwrap();
    let (_, warnings) = Acl::parse(&text).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    // And every name that a route asks for is granted to somebody.
    for route in SCHEMAS.iter().flat_map(|schema| schema.routes) {
        assert!(text.contains(&format!("\"{}\"", route.acl)), "{}: nobody has {}", route.path, route.acl);
    }
}

/// The checks themselves, on small sources: a check that finds nothing wrong anywhere proves nothing.
#[test]
fn the_checks_see_what_they_look_for() {
    let wrong = |path: &str, text: &str| upward_imports(&Source::new(path.to_owned(), text.to_owned()));
    for (path, text) in [
        ("domain/x.rs", "use crate::store::Store;"),
        ("domain/x.rs", "use crate::{domain::a, store::{B, C}};"),
        ("domain/x.rs", "use crate::{\n    store,\n};"),
        ("domain/x.rs", "use super::super::http::Y;"),
        ("domain/mod.rs", "use super::http;"),
        ("domain/a/x.rs", "type A = super::super::super::store::A;"),
        ("store/mod.rs", "fn f() { crate::sync::go() }"),
        ("store/mod.rs", "const A: char = '\"'; use crate::http::B; // \""),
        ("sync.rs", "use thalamus_edge::http::X;"),
        ("http/mod.rs", "use crate::app::X;"),
        ("accounts.rs", "use crate::sync::X;"),
        ("domain/x.rs", "use crate::unheard_of::X;"),
        ("unheard_of/mod.rs", "fn f() {}"),
    ] {
        assert_eq!(wrong(path, text).len(), 1, "{path}: {text}");
    }
    for (path, text) in [
        ("http/mod.rs", "use crate::{domain::{a, b::{c, store}}, store::X, sync};"),
        ("http/records/x.rs", "use super::super::caller::C; use super::super::super::store::S;"),
        ("domain/x.rs", "// crate::store\n/* crate::http /* crate::app */ crate::sync */ fn f<'a>() {}"),
        ("domain/x.rs", "//! [`crate::http`]\nconst A: &str = \"crate::store \\\" crate::app\";"),
        ("domain/x.rs", "const A: &str = r#\"crate::store \" crate::app\"#; const B: char = '\\'';"),
        ("domain/a/x.rs", "use super::super::http_like::A; use crate::domain::b;"),
        ("main.rs", "use thalamus_edge::cli;"),
        ("cli.rs", "use crate::app; use crate::config;"),
    ] {
        assert_eq!(wrong(path, text), Vec::<String>::new(), "{path}: {text}");
    }
    for (text, count) in [
        ("tokio::spawn(async move { a }); spawn (b)", 1),
        ("handle.spawn(a); task::spawn(b); set: JoinSet<C>", 3),
        ("spawn_blocking(a); respawn(b); // spawn(c)", 0),
    ] {
        assert_eq!(tasks_in(&code_of(text)), count, "{text}");
    }
    for text in [
        "use redb::Database;",
        "let d: ::redb::Database;",
        "use redb as store;",
        "x(redb::A)",
        "extern crate redb;",
    ] {
        assert!(names_crate(&code_of(text), "redb"), "{text}");
    }
    for text in
        ["use redb_like::A;", "let redb = 1;", "crate::store::redb::A", "// redb::A", "\"redb::A\"", "a.redb"]
    {
        assert!(!names_crate(&code_of(text), "redb"), "{text}");
    }
}
