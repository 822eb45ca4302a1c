//! The rooms of a floor: imports between them go one way, and each file can be found by its name.
//!
//! A room is a directory directly below the floor, or a file there. What the floor's own file declares and re-exports
//! belongs to no room; an import of it counts as one of the file where the item is.

use std::collections::{BTreeMap, BTreeSet};

use crate::Source;
use crate::code::without_tests;
use crate::paths::{Named, Path, named_in};

/// Files whose names say nothing of what they hold.
const NAMES_OF_MANY: [&str; 2] = ["mod.rs", "tests.rs"];

/// The files of a floor that are no tests.
struct Floor<'a> {
    name: &'a str,
    files: BTreeMap<Path, Named>,
}

impl<'a> Floor<'a> {
    fn of(name: &'a str, sources: &[Source]) -> Floor<'a> {
        let own: Vec<&Source> =
            sources.iter().filter(|source| source.module() == name && !is_test(&source.path)).collect();
        let modules: BTreeSet<Path> = own.iter().map(|source| source.names()).collect();
        let is_module = |module: &[String]| modules.contains(module);
        let named = |source: &&Source| named_in(&without_tests(&source.code), &source.names(), &is_module);
        Floor { name, files: own.iter().map(|source| (source.names(), named(source))).collect() }
    }

    /// The file where the item of a path is. A file that imports the item only passes it on.
    fn file_of(&self, path: &[String]) -> Option<&[String]> {
        let mut path = path.to_vec();
        let mut passed = BTreeSet::new();
        while passed.insert(path.clone()) {
            let (file, named) = (1..=path.len()).rev().find_map(|n| self.files.get_key_value(&path[..n]))?;
            let rest = &path[file.len()..];
            match rest.split_first().and_then(|(first, behind)| Some((named.imports.get(first)?, behind))) {
                Some((import, behind)) => path = [import, behind].concat(),
                None => return Some(file),
            }
        }
        None
    }

    fn room_of<'m>(&self, module: &'m [String]) -> Option<&'m str> {
        module.get(1).filter(|_| module[0] == self.name).map(String::as_str)
    }

    /// Room -> the rooms that it imports from -> one of those imports.
    fn imports(&self) -> BTreeMap<&str, BTreeMap<&str, String>> {
        let mut imports: BTreeMap<&str, BTreeMap<&str, String>> = BTreeMap::new();
        for (module, named) in &self.files {
            let Some(own) = self.room_of(module) else {
                continue;
            };
            for path in &named.paths {
                let target = self.file_of(path).and_then(|file| self.room_of(file));
                if let Some(target) = target.filter(|target| *target != own) {
                    let import = || format!("{} imports {}", module.join("::"), path.join("::"));
                    imports.entry(own).or_default().entry(target).or_insert_with(import);
                }
            }
        }
        imports
    }
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.ends_with("_tests.rs")
}

/// The imports on a floor that go round: from a room into one that imports from it, by whatever way.
pub(crate) fn circles(floor: &str, sources: &[Source]) -> Vec<String> {
    let floor = Floor::of(floor, sources);
    let imports = floor.imports();
    let reached = |from: &str| {
        let (mut reached, mut next) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(room) = next.pop() {
            let targets =
                imports.get(room.as_str()).into_iter().flatten().map(|(target, _)| (*target).to_owned());
            next.extend(targets.filter(|target| reached.insert(target.clone())));
        }
        reached
    };
    let between =
        imports.iter().flat_map(|(room, targets)| targets.iter().map(move |target| (*room, target)));
    between
        .filter(|(room, (target, _))| reached(target).contains(*room))
        .map(|(_, (_, import))| import.clone())
        .collect()
}

/// The files of a floor that are called as another one there.
pub(crate) fn names_twice(floor: &str, sources: &[Source]) -> Vec<String> {
    let mut by_name: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for Source { path, .. } in sources.iter().filter(|source| source.module() == floor) {
        let name = path.rsplit('/').next().unwrap_or_default();
        if !NAMES_OF_MANY.contains(&name) && !path.contains("/tests/") {
            by_name.entry(name).or_default().push(path);
        }
    }
    by_name.into_values().filter(|paths| paths.len() > 1).map(|paths| paths.join(" and ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(files: &[(&str, &str)]) -> Vec<Source> {
        files.iter().map(|(path, text)| Source::new((*path).to_owned(), (*text).to_owned())).collect()
    }

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        circles("store", &sources(files))
    }

    #[test]
    fn imports_that_go_round_are_found() {
        for files in [
            &[("store/a.rs", "use super::b;"), ("store/b.rs", "use crate::store::a::A;")][..],
            // Written out.
            &[("store/a.rs", "fn f() { super::b::g() }"), ("store/b.rs", "fn g(a: crate::store::a::A) {}")],
            &[("store/a.rs", "use crate::store; fn f() { store::b::g() }"), ("store/b.rs", "use super::a;")],
            // By re-exports.
            &[
                ("store/mod.rs", "pub use b::B;"),
                ("store/a.rs", "use super::B;"),
                ("store/b.rs", "use super::a;"),
            ],
            &[
                ("store/mod.rs", "pub(crate) use b::{B as C};"),
                ("store/a/x.rs", "fn f() { crate::store::C::new() }"),
                ("store/b/mod.rs", "mod y; pub use y::B;"),
                ("store/b/y.rs", "use super::super::a;"),
                ("store/a/mod.rs", "mod x;"),
            ],
            // In other files of the two rooms.
            &[
                ("store/a/x.rs", "use crate::store::b::B;"),
                ("store/a/y.rs", ""),
                ("store/b/x.rs", "use crate::store::a::y::Y;"),
                ("store/b/mod.rs", "pub struct B;"),
                ("store/a/mod.rs", ""),
            ],
            // A floor whose own file stands above its directory.
            &[
                ("store.rs", "pub use b::B;"),
                ("store/a.rs", "use super::B;"),
                ("store/b.rs", "use super::a;"),
            ],
        ] {
            assert_eq!(found(files).len(), 2, "{files:?}: {:?}", found(files));
        }
        let three = [
            ("store/a.rs", "use super::b;"),
            ("store/b.rs", "use super::c;"),
            ("store/c.rs", "use super::a;"),
        ];
        assert_eq!(found(&three).len(), 3, "round by a third one");
        let import = found(&[("store/a.rs", "use super::b::B;"), ("store/b.rs", "use super::a;")]).remove(0);
        assert_eq!(import, "store::a imports store::b::B");
    }

    #[test]
    fn imports_that_go_one_way_are_none() {
        for files in [
            &[("store/a.rs", "use super::{b, c};"), ("store/b.rs", "use super::c;"), ("store/c.rs", "")][..],
            // Within one room.
            &[
                ("store/a/x.rs", "use super::y;"),
                ("store/a/y.rs", "use super::x;"),
                ("store/a/mod.rs", "mod x; mod y;"),
            ],
            // The floor's own items.
            &[("store/mod.rs", "pub struct S; use a::A;"), ("store/a.rs", "use super::S; use crate::store;")],
            // Tests.
            &[
                ("store/a.rs", "use super::b;"),
                ("store/b.rs", "#[cfg(test)] mod tests { use crate::store::a; }"),
            ],
            &[
                ("store/a.rs", "use super::b;"),
                ("store/b/tests.rs", "use crate::store::a;"),
                ("store/b.rs", ""),
            ],
            // Another floor, whose room is called as one here.
            &[("store/a.rs", "use super::b;"), ("store/b.rs", "use crate::domain::a;"), ("domain/a.rs", "")],
            // A name that goes round without an item.
            &[("store/mod.rs", "pub use a::X;"), ("store/a.rs", "pub use super::X;")],
        ] {
            assert_eq!(found(files), Vec::<String>::new(), "{files:?}");
        }
    }

    #[test]
    fn names_that_stand_twice_are_found() {
        let twice = |paths: &[&str]| {
            let files: Vec<(&str, &str)> = paths.iter().map(|path| (*path, "")).collect();
            names_twice("store", &sources(&files))
        };
        assert_eq!(twice(&["store/a/x.rs", "store/b/x.rs"]), ["store/a/x.rs and store/b/x.rs"]);
        assert_eq!(twice(&["store/x.rs", "store/b/c/x.rs"]).len(), 1);
        let allowed = [
            "store/a/mod.rs",
            "store/b/mod.rs",
            "store/a/tests.rs",
            "store/b/tests.rs",
            "store/a/tests/x.rs",
            "store/x.rs",
            "domain/x.rs",
        ];
        assert_eq!(twice(&allowed), Vec::<String>::new());
    }
}
