//! Circles of imports between the rooms of a floor, and files of one name.
//!
//! A room is a directory directly below `src/FLOOR`, or a single file there. Paths are followed through `use` and `pub use`
//! to the file that holds the item, also where they are written out in code.

use std::collections::{BTreeMap, BTreeSet};

use super::{FLOORS, Source, is_word, sources, without_tests};

/// Floors that are not cut into rooms yet, or have two files of one name.
const NOT_YET_CUT: &[&str] = &["accounts", "central", "cli", "config", "domain", "http", "sync", "tls"];

type Path = Vec<String>;

/// The files of a floor as modules: paths from the crate root.
struct Graph {
    modules: BTreeMap<Path, String>,
    /// Names that a module imports, and what they stand for.
    imported: BTreeMap<Path, BTreeMap<String, Path>>,
}

fn is_of_tests(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("tests.rs")
}

fn module_of(path: &str) -> Path {
    let path = path.trim_end_matches(".rs").trim_end_matches("/mod");
    path.split('/').map(str::to_owned).collect()
}

/// The paths of a `use`, each written out: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn written_out(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((head, group)) = tree.split_once('{') else {
        return if tree.is_empty() { Vec::new() } else { vec![tree.to_owned()] };
    };
    let (mut parts, mut depth, mut part) = (Vec::new(), 0, String::new());
    for sign in group.chars() {
        match sign {
            '}' if depth == 0 => break,
            ',' if depth == 0 => parts.push(std::mem::take(&mut part)),
            _ => {
                depth += i32::from(sign == '{') - i32::from(sign == '}');
                part.push(sign);
            }
        }
    }
    parts.push(part);
    let under = |part: &String| written_out(part).into_iter().map(|path| format!("{}{path}", head.trim()));
    parts.iter().flat_map(under).collect()
}

/// The trees of all `use` in this code, and the code without them.
fn imports(code: &str) -> (Vec<String>, String) {
    let (mut trees, mut rest, mut left) = (Vec::new(), String::new(), code);
    while let Some(start) = left.find("use ") {
        let is_apart = !left[..start].chars().next_back().is_some_and(is_word);
        let (before, after) = left.split_at(start + "use ".len());
        rest.push_str(&before[..start]);
        left = after;
        if is_apart && let Some((tree, behind)) = after.split_once(';') {
            trees.push(tree.to_owned());
            left = behind;
        }
    }
    rest.push_str(left);
    (trees, rest)
}

/// Paths that are written out in code.
fn paths_in(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for word in code.split(|sign: char| !is_word(sign) && sign != ':') {
        let word = word.trim_matches(':');
        if word.contains("::") {
            paths.push(word.to_owned());
        }
    }
    paths
}

impl Graph {
    fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Graph {
        let shipped = files.into_iter().filter(|(path, _)| !is_of_tests(path));
        let modules = shipped.map(|(path, code)| (module_of(path), without_tests(code))).collect();
        let mut graph = Graph { modules, imported: BTreeMap::new() };
        let mut imported = BTreeMap::new();
        for (module, code) in &graph.modules {
            let mut names = BTreeMap::new();
            for path in imports(code).0.iter().flat_map(|tree| written_out(tree)) {
                let (path, alias) =
                    path.split_once(" as ").map_or((path.as_str(), None), |(a, b)| (a, Some(b)));
                if let Some(absolute) = graph.absolute(module, path) {
                    let name =
                        alias.map_or_else(|| absolute.last().cloned(), |alias| Some(alias.trim().to_owned()));
                    names.insert(name.unwrap_or_default(), absolute);
                }
            }
            imported.insert(module.clone(), names);
        }
        graph.imported = imported;
        graph
    }

    /// The path from the crate root that `path` means in `module`, if it does not lead to another crate.
    fn absolute(&self, module: &Path, path: &str) -> Option<Path> {
        let mut parts = path.split("::").map(|part| part.trim().to_owned()).peekable();
        let mut from = module.clone();
        match parts.peek()?.as_str() {
            "crate" => {
                parts.next();
                from.clear();
            }
            "self" => {
                parts.next();
            }
            "super" => {
                while parts.next_if(|part| part == "super").is_some() {
                    from.pop();
                }
            }
            child => {
                let child = [from.as_slice(), &[child.to_owned()]].concat();
                if !self.modules.contains_key(&child) {
                    return None;
                }
            }
        }
        from.extend(parts);
        Some(from)
    }

    /// The module that holds what `path` leads to.
    fn holder(&self, path: &Path, depth: usize) -> Option<Path> {
        let module =
            (1..=path.len()).rev().map(|end| &path[..end]).find(|head| self.modules.contains_key(*head))?;
        let name = path.get(module.len());
        let meant = name.and_then(|name| self.imported.get(module)?.get(name));
        match meant {
            Some(meant) if depth > 0 && !path.starts_with(meant) => {
                let behind = path.get(module.len() + 1..).unwrap_or_default();
                self.holder(&[meant.as_slice(), behind].concat(), depth - 1)
            }
            _ => Some(module.to_vec()),
        }
    }

    /// Which room of the floor imports from which, with each import.
    fn edges(&self, floor: &str) -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
        let room = |module: &Path| (module.first()? == floor).then(|| module.get(1).cloned()).flatten();
        let mut edges: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        for (module, code) in &self.modules {
            let Some(from) = room(module) else { continue };
            let (trees, rest) = imports(code);
            let used = trees.iter().flat_map(|tree| written_out(tree));
            for path in used
                .map(|path| path.split(" as ").next().unwrap_or_default().to_owned())
                .chain(paths_in(&rest))
            {
                let holder = self.absolute(module, &path).and_then(|path| self.holder(&path, 8));
                if let Some(to) = holder.as_ref().and_then(room).filter(|to| *to != from) {
                    let said = format!("{} imports {path}", module.join("/"));
                    edges.entry(from.clone()).or_default().entry(to).or_default().insert(said);
                }
            }
        }
        edges
    }

    /// The imports of rooms that reach themselves.
    fn circles(&self, floor: &str) -> Vec<String> {
        let edges = self.edges(floor);
        let reached = |from: &String| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![from.clone()]);
            while let Some(room) = next.pop() {
                let more = edges.get(&room).into_iter().flat_map(BTreeMap::keys);
                next.extend(more.filter(|room| seen.insert((*room).clone())).cloned());
            }
            seen
        };
        let from: BTreeMap<&String, BTreeSet<String>> =
            edges.keys().map(|room| (room, reached(room))).collect();
        let leads = |a: &String, b: &String| from.get(a).is_some_and(|reached| reached.contains(b));
        let each = edges.iter().flat_map(|(from, to)| to.iter().map(move |(to, said)| (from, to, said)));
        each.filter(|(from, to, _)| leads(to, from)).flat_map(|(.., said)| said.iter().cloned()).collect()
    }
}

/// File names that stand twice on a floor.
fn double_names<'a>(paths: impl IntoIterator<Item = &'a str>, floor: &str) -> Vec<String> {
    let mut names: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for path in paths.into_iter().filter(|path| path.starts_with(&format!("{floor}/")) && !is_of_tests(path))
    {
        names.entry(path.rsplit('/').next().unwrap_or_default()).or_default().push(path);
    }
    names.retain(|name, paths| *name != "mod.rs" && paths.len() > 1);
    names.into_values().map(|paths| paths.join(", ")).collect()
}

fn faults(sources: &[Source], floor: &str) -> Vec<String> {
    let files = sources.iter().filter(|source| source.module() == floor);
    let graph = Graph::of(files.map(|source| (source.path.as_str(), source.code.as_str())));
    let mut faults = graph.circles(floor);
    faults.extend(double_names(sources.iter().map(|source| source.path.as_str()), floor));
    faults
}

#[test]
fn rooms_of_a_floor_import_one_way_only() {
    let sources = sources();
    for (floor, _) in FLOORS {
        let faults = faults(&sources, floor);
        if NOT_YET_CUT.contains(floor) {
            assert!(!faults.is_empty(), "{floor} is cut: take it out of NOT_YET_CUT");
        } else {
            assert!(faults.is_empty(), "{floor}: {faults:#?}");
        }
    }
}

#[test]
fn a_circle_is_found_through_what_others_hand_on() {
    let one_way = [
        ("f/mod.rs", "mod a; mod b; pub use b::Thing;"),
        ("f/a/mod.rs", "mod inner;"),
        ("f/a/inner.rs", "use super::super::Thing; fn x() {}"),
        ("f/b.rs", "pub struct Thing;"),
    ];
    assert_eq!(Graph::of(one_way).circles("f"), Vec::<String>::new());
    for back in [
        "use crate::f::{a::inner::x};",
        "use super::a;",
        "fn y() { super::a::inner::x() }",
        "use crate::f::a as c;",
    ] {
        let mut files = one_way;
        let code = format!("pub struct Thing; {back}");
        files[3].1 = &code;
        let circles = Graph::of(files).circles("f");
        assert!(
            circles.iter().any(|said| said.starts_with("f/a/inner imports super::super::Thing")),
            "{circles:?}"
        );
        assert!(circles.iter().any(|said| said.starts_with("f/b imports")), "{circles:?}");
    }
    let mut files = one_way;
    files[3].1 = "pub struct Thing; #[cfg(test)] mod tests { use super::super::a; }";
    assert_eq!(Graph::of(files).circles("f"), Vec::<String>::new());
}

#[test]
fn a_name_that_stands_twice_is_found() {
    let paths =
        ["f/mod.rs", "f/a/mod.rs", "f/a/read.rs", "f/b/read.rs", "f/b/tests.rs", "f/a/tests.rs", "g/read.rs"];
    assert_eq!(double_names(paths, "f"), ["f/a/read.rs, f/b/read.rs"]);
}

#[test]
fn trees_of_imports_are_written_out() {
    assert_eq!(written_out("a::{b, c::{d, e as f}, g}"), ["a::b", "a::c::d", "a::c::e as f", "a::g"]);
    assert_eq!(imports("pub use a::B; x; pub(crate) use c::{D}; reuse y").0, ["a::B", "c::{D}"]);
}
