//! The house rules that a compiler does not check: imports point down, one room owns each database,
//! every file says what it hides, and none grows without end.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

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
    /// The module directly under `src/` that the file belongs to.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// How many modules the file lies below the crate root.
    fn level(&self) -> usize {
        let path = self.path.trim_end_matches(".rs").trim_end_matches("/mod");
        path.split('/').count()
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
                found.push(Source { path: parts.join("/"), code: code_of(&text), text });
            }
        }
    }
    found
}

/// The text without comments and without what stands in strings and character literals.
fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let (mut code, mut i) = (String::new(), 0);
    while i < chars.len() {
        match (at(i), at(i + 1)) {
            ('/', '/') => i = end_of_line(&chars, i),
            ('/', '*') => i = end_of_block(&chars, i),
            ('r', '"' | '#') if !is_word(before(&chars, i)) || before(&chars, i) == 'b' => {
                match end_of_raw_string(&chars, i) {
                    Some(end) => i = end,
                    // A raw identifier: r#type.
                    None => {
                        code.push('r');
                        i += 1;
                    }
                }
            }
            ('"', _) => i = end_of_string(&chars, i),
            // 'x' or '\x': a character; anything else with this mark is a lifetime.
            ('\'', '\\') => i = (i + 3..chars.len()).find(|&j| at(j) == '\'').map_or(chars.len(), |j| j + 1),
            ('\'', _) if at(i + 2) == '\'' => i += 3,
            (c, _) => {
                code.push(c);
                i += 1;
            }
        }
    }
    code
}

fn before(chars: &[char], i: usize) -> char {
    i.checked_sub(1).map_or(' ', |j| chars[j])
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn end_of_line(chars: &[char], start: usize) -> usize {
    (start..chars.len()).find(|&j| chars[j] == '\n').unwrap_or(chars.len())
}

/// Block comments nest.
fn end_of_block(chars: &[char], start: usize) -> usize {
    let (mut depth, mut i) = (0, start);
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    i
}

fn end_of_string(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

fn end_of_raw_string(chars: &[char], start: usize) -> Option<usize> {
    let hashes = chars[start + 1..].iter().take_while(|&&c| c == '#').count();
    let open = start + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let closes = |j: &usize| {
        chars[*j] == '"' && chars[*j + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes
    };
    Some((open + 1..chars.len()).find(closes).map_or(chars.len(), |j| j + 1 + hashes))
}

/// The names that follow `prefix` in `code`, also those in braces behind it: `crate::{a::B, c}`.
fn names_behind(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (start, _) in code.match_indices(prefix) {
        let preceded = code[..start].chars().next_back().unwrap_or(' ');
        if is_word(preceded) || preceded == ':' {
            continue;
        }
        let rest = code[start + prefix.len()..].trim_start();
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group_heads(group)),
            None => found.extend(head(rest)),
        }
    }
    found
}

fn head(path: &str) -> Option<String> {
    let name: String = path.trim_start().chars().take_while(|c| is_word(*c)).collect();
    (!name.is_empty()).then_some(name)
}

/// The first name of each path in a group whose opening brace is passed already.
fn group_heads(group: &str) -> Vec<String> {
    let (mut heads, mut depth, mut start) = (Vec::new(), 0, 0);
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                heads.extend(head(&group[start..i]));
                start = i + 1;
            }
            _ => {}
        }
        if c == '}' && depth == 0 && start == i + 1 {
            break;
        }
    }
    heads
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
    let mut targets = names_behind(&source.code, "crate::");
    targets.extend(names_behind(&source.code, "thalamus_edge::"));
    // As many steps up as the file is deep lead to the crate root too.
    targets.extend(names_behind(&source.code, &"super::".repeat(source.level())));
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

/// Code without the items that only tests have: to the end of the block, or of the line that ends before one.
fn without_tests(code: &str) -> String {
    let mut parts = code.split("#[cfg(test)]");
    let mut shipped = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut depth = 0_usize;
        let end = part.find(|sign| {
            match sign {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && (sign == ';' || sign == '}')
        });
        shipped += end.and_then(|end| part.get(end + 1..)).unwrap_or_default();
    }
    shipped
}

#[test]
fn only_tests_are_left_out() {
    let code = "a; #[cfg(test)] use b; c; #[cfg(test)] mod d { fn e() { f; } } g; #[cfg(test)] mod h; i";
    assert_eq!(without_tests(code), "a;  c;  g;  i");
}

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
    let wrong = |path: &str, text: &str| {
        let source = Source { path: path.to_owned(), text: text.to_owned(), code: code_of(text) };
        upward_imports(&source)
    };
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
