//! The paths in a file that lead into the crate: its imports, and paths that are written out in code.

use std::collections::BTreeMap;

use crate::code::is_word;

/// A module, or an item in one, by its names from the root of the crate on.
pub(crate) type Path = Vec<String>;

/// The names that a file imports from the crate, and where each of them comes from.
pub(crate) type Imports = BTreeMap<String, Path>;

/// What a file names of the crate.
#[derive(Debug, Default)]
pub(crate) struct Named {
    /// Every path, of imports too. The path of `use a::*` ends with `a`.
    pub(crate) paths: Vec<Path>,
    /// What the file itself imports, and so what others find in it if it re-exports that.
    pub(crate) imports: Imports,
}

/// A path as it is written, with the modules in braces around it.
struct Written {
    inline: Path,
    names: Path,
    /// Of an import: the name that it gives.
    import: Option<String>,
}

/// The paths in the code of the file that is `module`. `is_module` knows the modules that are files.
pub(crate) fn named_in(code: &str, module: &[String], is_module: &dyn Fn(&[String]) -> bool) -> Named {
    let written = written_in(&words_of(code));
    let mut named = Named::default();
    // By module: those in braces import for themselves.
    let mut known: BTreeMap<Path, Imports> = BTreeMap::new();
    let is_import = |written: &&Written| written.import.is_some();
    for Written { inline, names, import } in
        written.iter().filter(is_import).chain(written.iter().filter(|written| !is_import(written)))
    {
        let here = [module, inline].concat();
        let imports = known.entry(here.clone()).or_default();
        let Some(path) = from_root(names, &here, imports, is_module) else {
            continue;
        };
        if let Some(name) = import {
            imports.insert(name.clone(), path.clone());
        }
        named.paths.push(path);
    }
    named.imports = known.remove(module).unwrap_or_default();
    named
}

/// The path from the root of the crate; `None` if it leads into another crate, or is the name of something else.
fn from_root(
    names: &[String],
    here: &[String],
    imports: &Imports,
    is_module: &dyn Fn(&[String]) -> bool,
) -> Option<Path> {
    let (first, rest) = names.split_first()?;
    match first.as_str() {
        "crate" | "thalamus_edge" => return Some(rest.to_vec()),
        "self" => return Some([here, rest].concat()),
        "super" => {
            let steps = names.iter().take_while(|name| *name == "super").count();
            let above = here.get(..here.len().checked_sub(steps)?)?;
            return Some([above, names.get(steps..)?].concat());
        }
        _ => {}
    }
    let child = [here, std::slice::from_ref(first)].concat();
    if is_module(&child) {
        return Some([&child, rest].concat());
    }
    imports.get(first).map(|path| [path, rest].concat())
}

/// Names and signs. `::` is one sign; blanks are none.
fn words_of(code: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            first if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            first => first.len_utf8(),
        };
        let (word, behind) = rest.split_at(length);
        words.push(word);
        rest = behind.trim_start();
    }
    words
}

fn written_in(words: &[&str]) -> Vec<Written> {
    let mut written = Vec::new();
    // Modules in braces, each with the depth of its brace.
    let mut inline: Vec<(String, usize)> = Vec::new();
    let (mut depth, mut i) = (0, 0);
    let at = |i: usize| words.get(i).copied().unwrap_or_default();
    let is_name = |i: usize| at(i).starts_with(is_word);
    while i < words.len() {
        let around = || inline.iter().map(|(name, _)| name.clone()).collect::<Path>();
        match at(i) {
            "{" => depth += 1,
            "}" => {
                depth = usize::saturating_sub(depth, 1);
                inline.retain(|(_, of)| *of <= depth);
            }
            "mod" if at(i + 2) == "{" => inline.push((at(i + 1).to_owned(), depth + 1)),
            "use" => {
                let end = (i..words.len()).find(|&j| at(j) == ";").unwrap_or(words.len());
                let mut leaves = Vec::new();
                leaves_of(words.get(i + 1..end).unwrap_or_default(), &[], &mut leaves);
                let around = around();
                written.extend(leaves.into_iter().map(|(names, import)| Written {
                    inline: around.clone(),
                    names,
                    import: Some(import),
                }));
                i = end;
            }
            _ if is_name(i) && at(i + 1) == "::" && !matches!(at(i.wrapping_sub(1)), "::" | ".") => {
                let mut names = vec![at(i).to_owned()];
                while at(i + 1) == "::" && is_name(i + 2) {
                    i += 2;
                    names.push(at(i).to_owned());
                }
                written.push(Written { inline: around(), names, import: None });
            }
            _ => {}
        }
        i += 1;
    }
    written
}

/// The paths of a tree of imports, each with the name that it gives: `a::{b, c as d, e::{self, *}}`.
fn leaves_of(words: &[&str], before: &[String], leaves: &mut Vec<(Path, String)>) {
    let mut names = before.to_vec();
    for (i, word) in words.iter().enumerate() {
        match *word {
            "::" => {}
            "{" => {
                let group = words.get(i + 1..words.len().saturating_sub(1)).unwrap_or_default();
                return members_of(group).into_iter().for_each(|member| leaves_of(member, &names, leaves));
            }
            "as" => {
                let alias = words.get(i + 1).copied().unwrap_or_default();
                return leaves.push((names, alias.to_owned()));
            }
            "*" => return leaves.push((names, "*".to_owned())),
            "self" if !names.is_empty() => {}
            name => names.push(name.to_owned()),
        }
    }
    if let Some(last) = names.last().cloned() {
        leaves.push((names, last));
    }
}

/// What stands between the commas of a group, those of groups within it left aside.
fn members_of<'a, 'w>(group: &'a [&'w str]) -> Vec<&'a [&'w str]> {
    let mut depth = 0;
    let is_end = |word: &&str| {
        match *word {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        depth == 0 && *word == ","
    };
    group.split(is_end).filter(|member| !member.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::code_of;

    fn path(text: &str) -> Path {
        text.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    fn named(module: &str, text: &str) -> Named {
        let modules = ["a", "a::b", "a::b::c", "a::d", "e"].map(path);
        named_in(&code_of(text), &path(module), &|module| modules.iter().any(|known| known == module))
    }

    #[test]
    fn paths_lead_from_the_root_of_the_crate() {
        for (module, text, paths) in [
            ("a::b", "use crate::e::F;", &["e::F"][..]),
            ("a::b", "use thalamus_edge::e;", &["e"]),
            ("a::b", "pub(crate) use super::d::F as G;", &["a::d::F"]),
            ("a::b", "use super::super::e;", &["e"]),
            ("a::b", "use self::c::F;", &["a::b::c::F"]),
            ("a::b", "pub use c::F;", &["a::b::c::F"]),
            (
                "a::b",
                "use crate::{a::{d, b::{self, c::*}}, e::{F, G as H},};",
                &["a::d", "a::b", "a::b::c", "e::F", "e::G"],
            ),
            ("a::b", "use super::{\n    d::F, // crate::e\n};", &["a::d::F"]),
            // Written out.
            (
                "a::b",
                "fn f() -> crate::e::F { c::g(super::d::H::I); }",
                &["e::F", "a::b::c::g", "a::d::H::I"],
            ),
            ("a::b", "let x = $crate::e::f::<super::d::G>();", &["e::f", "a::d::G"]),
            // By the name of an import.
            ("a::b", "fn f() { d::g() } use super::d;", &["a::d", "a::d::g"]),
            ("a::b", "use super::d as x; type F = x::G;", &["a::d", "a::d::G"]),
            // Modules in braces.
            (
                "a::b",
                "mod x { use super::c; fn f() { c::g() } } fn h() { super::d::i() }",
                &["a::b::c", "a::b::c::g", "a::d::i"],
            ),
            ("a::b", "mod x { mod y {} use super::super::d; }", &["a::d"]),
            // Other crates, other names, no code.
            ("a::b", "use std::fs; use d::e; fn f() { fs::read(); e::g(); a::b::c(); x.c::<u8>() }", &[]),
            ("a::b", "// crate::e::F\nconst A: &str = \"super::d::F\";", &[]),
        ] {
            let expected: Vec<Path> = paths.iter().map(|text| path(text)).collect();
            assert_eq!(named(module, text).paths, expected, "{module}: {text}");
        }
    }

    #[test]
    fn imports_have_the_names_that_they_give() {
        let Named { imports, .. } =
            named("a::b", "pub use c::{F as G, H}; use crate::e; mod x { use super::d; }");
        let expected = [("G", "a::b::c::F"), ("H", "a::b::c::H"), ("e", "e")];
        assert_eq!(imports, expected.map(|(name, of)| (name.to_owned(), path(of))).into());
    }
}
