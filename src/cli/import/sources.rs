//! Floor 5. Which files `import` reads, and which collection each of them is of.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::reader::{DumpTable, DumpTables, tables_of_dump};
use crate::cli::archive::closed_list::CLOSED_ACCOUNTS;
use crate::cli::archive::{CONTENT_DIRECTORY, KEPT};
use crate::cli::terminal::Failure;
use crate::cli::terminal::show::plain;
use crate::config::Config;
use crate::domain::content::is_content_name;
use crate::domain::exported::columns_named;
use crate::domain::exported::dump::schema_and_name;
use crate::domain::record::Kind;
use crate::domain::schema::SCHEMAS;
use crate::files::{open_regular, other_than_regular};

/// Endings of the files that a directory is searched for, each also with `.gz`.
const ENDINGS: &[&str] = &["jsonl", "ndjson", "json", "js", "csv", "tsv", "copy", "txt", "sql"];
/// The ending of what `pg_dump` writes, which holds several tables.
const DUMP_ENDING: &str = "sql";
/// The ending of packed files.
const PACKED_ENDING: &str = "gz";
/// Tables and collections of Thalamus whose names are neither here nor in paths of the API.
const OTHER_NAMES: &[(&str, Kind)] = &[("dus", Kind::DomiciliaryUnit)];
/// Begins a program, which holds no records.
const PROGRAM_MARK: &[u8] = b"#!";

/// About the files of an export that are only there to be read.
const NOT_TAKEN: &str = "conflicts and deleted records are not imported; the file is there to be read";

/// A file of records, or a table in one.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    /// The table, if it is a dump of several.
    pub(super) table: Option<DumpTable>,
    /// Stands in an `export` of a node: documents that name no bytes there have none.
    pub(super) of_export: bool,
}

/// What is taken of dumps that have more than one.
#[derive(Debug, Clone, Copy)]
pub(super) struct OfDumps<'a> {
    pub(super) database: Option<&'a str>,
    pub(super) schema: Option<&'a str>,
}

/// The files of an import.
#[derive(Default)]
pub(super) struct Sources {
    pub(super) files: Vec<Source>,
    /// Files of an export that name the accounts that were closed on its node.
    pub(super) closed: Vec<PathBuf>,
    /// Uploaded bytes, and the SHA-256 that they should have.
    pub(super) contents: Vec<(PathBuf, String)>,
    /// Files that are left out, each with the reason.
    pub(super) skipped: Vec<(PathBuf, String)>,
    /// Dumps that are not all there, each with the reason. What they have is taken.
    pub(super) cut_off: Vec<(PathBuf, String)>,
}

impl Sources {
    /// Finds the files; those that are named must be understood, those in directories are named if they are not.
    ///
    /// `collection`: what all files are of, whatever they are called.
    pub(super) fn find(
        config: &Config,
        paths: &[PathBuf],
        collection: Option<&str>,
        of_dumps: OfDumps<'_>,
    ) -> anyhow::Result<Sources> {
        let known = || Kind::ALL.map(|kind| config.collection_of(kind)).join(", ");
        let of_all = collection
            .map(|name| {
                kind_named(config, name).ok_or_else(|| {
                    Failure::usage(format!("{name}: not a collection of this node; there are {}", known()))
                })
            })
            .transpose()?;
        let mut sources = Sources::default();
        for path in paths {
            if path.is_dir() {
                sources.add_directory(config, path, of_all, of_dumps)?;
                continue;
            }
            let usage = |problem: &str| Failure::usage(format!("{}: {problem}", path.display()));
            let kind = fs::metadata(path).map_err(|error| usage(&error.to_string()))?.file_type();
            if let Some(other) = other_than_regular(kind) {
                return Err(usage(&read_once(other)).into());
            }
            let (stem, ending) = parts(path);
            if KEPT.contains(&stem.as_str()) {
                return Err(Failure::usage(format!("{}: {NOT_TAKEN}", path.display())).into());
            }
            if stem == CLOSED_ACCOUNTS {
                sources.closed.push(path.clone());
                continue;
            }
            if ending == DUMP_ENDING {
                sources.add_dump(config, path, of_dumps)?;
                continue;
            }
            let kind = of_all.or_else(|| kind_named(config, &stem)).ok_or_else(|| {
                Failure::usage(format!(
                    "{}: a file is called after its collection, or --collection names it; there are {}",
                    path.display(),
                    known()
                ))
            })?;
            let of_export = path.parent().is_some_and(is_export);
            sources.files.push(Source { path: path.clone(), kind, table: None, of_export });
        }
        sources.check_databases(of_all.is_some(), of_dumps.database)?;
        if sources.files.is_empty() {
            sources.tell_skipped();
            return Err(Failure::usage(format!(
                "there is no file of records: COLLECTION with an ending of {}",
                ENDINGS.join(", ")
            ))
            .into());
        }
        // Who has an account is known before records of theirs are taken, and pages before their documents.
        sources
            .files
            .sort_by_key(|source| (source.kind != Kind::Person, source.kind == Kind::PersonalDocument));
        Ok(sources)
    }

    fn add_directory(
        &mut self,
        config: &Config,
        directory: &Path,
        of_all: Option<Kind>,
        of_dumps: OfDumps<'_>,
    ) -> anyhow::Result<()> {
        let of_export = is_export(directory);
        for path in sorted_entries(directory)? {
            let entry = fs::metadata(&path).with_context(|| path.display().to_string())?.file_type();
            if path.is_dir() {
                if path.file_name() != Some(OsStr::new(CONTENT_DIRECTORY)) && has_records(&path)? {
                    self.skip(path, "directories in a directory are not searched: name it");
                }
                continue;
            }
            if let Some(other) = other_than_regular(entry) {
                self.skip(path, &read_once(other));
                continue;
            }
            let (stem, ending) = parts(&path);
            if !ENDINGS.contains(&ending.as_str()) {
                if is_program(&path)? {
                    eprintln!("{}: a program holds no records", plain(&path.display().to_string()));
                } else {
                    self.skip(path, "not a file of records");
                }
            } else if ending == DUMP_ENDING {
                self.add_dump(config, &path, of_dumps)?;
            } else if stem == CLOSED_ACCOUNTS {
                self.closed.push(path);
            } else if KEPT.contains(&stem.as_str()) {
                eprintln!("{}: {NOT_TAKEN}", plain(&path.display().to_string()));
            } else {
                match of_all.or_else(|| kind_named(config, &stem)) {
                    Some(kind) => self.files.push(Source { path, kind, table: None, of_export }),
                    None => self.skip(path, "not a collection of this node"),
                }
            }
        }
        let contents = directory.join(CONTENT_DIRECTORY);
        if contents.is_dir() {
            for path in sorted_entries(&contents)? {
                let name = path.file_name().and_then(OsStr::to_str).filter(|name| is_content_name(name));
                match name.map(str::to_owned) {
                    _ if !path.is_file() => self.skip(path, "not a regular file"),
                    Some(name) => self.contents.push((path, name)),
                    None => self.skip(path, "not called after the SHA-256 of what it holds"),
                }
            }
        }
        Ok(())
    }

    /// Adds the tables of a dump that are of kinds of records. Tables of two databases or schemas are never taken for one: they
    /// may be of two clinics, an older copy, or one to practise with.
    fn add_dump(&mut self, config: &Config, path: &Path, of_dumps: OfDumps<'_>) -> anyhow::Result<()> {
        let OfDumps { database, schema } = of_dumps;
        let shown = plain(&path.display().to_string());
        let DumpTables { mut tables, twice, cut_off } =
            tables_of_dump(path).with_context(|| path.display().to_string())?;
        if tables.is_empty() {
            match not_text(path) {
                Some(why) => self.skip(path.to_owned(), why),
                // Commands that make the tables, say.
                None => eprintln!("{shown}: holds no rows of a table"),
            }
        }
        let is_ours = |table: &DumpTable| kind_named(config, &table.name).is_some();
        if let Some(table) =
            twice.filter(|table| is_ours(table) && database.is_none_or(|one| one == table.database))
        {
            return Err(Failure::usage(format!(
                "{shown}: its table {} stands in two dumps that were put together, of two databases perhaps, or of two \
                 days: put each into a file of its own, and import one",
                plain(&table.name)
            ))
            .into());
        }
        let databases: BTreeSet<&str> =
            tables.iter().filter(|table| is_ours(table)).map(|table| table.database.as_str()).collect();
        if database.is_none() && databases.len() > 1 {
            return Err(Failure::usage(format!("{shown}: {}", say_databases(&databases))).into());
        }
        if let Some(database) = database {
            for table in tables.iter().filter(|table| is_ours(table) && table.database != database) {
                let (name, of) = (plain(&table.name), name_of_database(&table.database));
                eprintln!("{shown}: its table {name} is of the database {of} and is not taken");
            }
            tables.retain(|table| table.database == database || !is_ours(table));
        }
        self.cut_off.extend(cut_off.map(|why| (path.to_owned(), why.to_owned())));
        let ours = tables.iter().filter(|table| is_ours(table));
        let schemas: BTreeSet<&str> = ours.map(|table| schema_and_name(&table.name).0).collect();
        if schema.is_none() && schemas.len() > 1 {
            let schemas: Vec<_> = schemas.into_iter().collect();
            return Err(Failure::usage(format!(
                "{shown}: has such tables in several schemas: say with --schema which are to be taken ({})",
                schemas.join(", ")
            ))
            .into());
        }
        if let Some(schema) = schema
            && !(schemas.contains(schema) || (database.is_some() && schemas.is_empty()))
        {
            return Err(Failure::usage(format!("{shown}: has no such table in the schema {schema}")).into());
        }
        for table in tables {
            let name = &table.name;
            match kind_named(config, name) {
                Some(_) if schema.is_some_and(|schema| schema_and_name(name).0 != schema) => {
                    eprintln!("{shown}: its table {} is of another schema and is not taken", plain(name));
                }
                Some(kind) => {
                    match table.columns.as_deref().map(|names| columns_named(kind, names)).transpose() {
                        Ok(_) => {
                            let (path, table) = (path.to_owned(), Some(table));
                            self.files.push(Source { path, kind, table, of_export: false });
                        }
                        // Another program's perhaps, which happens to be called so.
                        Err(why) => {
                            self.skip(path.to_owned(), &format!("its table {name} is not Thalamus's: {why}"))
                        }
                    }
                }
                None => {
                    self.skip(path.to_owned(), &format!("its table {name} is not a collection of this node"))
                }
            }
        }
        Ok(())
    }

    /// Refuses files that are of two databases by what they say or are called. What does not say it may be of any.
    fn check_databases(&self, is_collection_said: bool, chosen: Option<&str>) -> anyhow::Result<()> {
        let of_dumps = self.files.iter().filter_map(|source| source.table.as_ref());
        let databases: BTreeSet<&str> =
            of_dumps.map(|table| table.database.as_str()).filter(|name| !name.is_empty()).collect();
        if databases.len() > 1 {
            return Err(Failure::usage(say_databases(&databases)).into());
        }
        let is_chosen = |source: &Source| {
            source.table.as_ref().is_some_and(|table| Some(table.database.as_str()) == chosen)
        };
        if let Some(chosen) = chosen
            && !self.files.iter().any(is_chosen)
        {
            return Err(Failure::usage(format!("no dump has such a table of the database {chosen}")).into());
        }
        let others = self.files.iter().filter(|source| source.table.is_none() && !is_collection_said);
        let stems: Vec<String> = others.map(|source| parts(&source.path).0).collect();
        let named: BTreeSet<&str> =
            stems.iter().filter_map(|stem| stem.rsplit_once('.')).map(|(name, _)| name).collect();
        if named.len() > 1 {
            let named: Vec<_> = named.into_iter().map(plain).collect();
            return Err(Failure::usage(format!(
                "by their names the files are of several databases or schemas ({}): name those of one of them",
                named.join(", ")
            ))
            .into());
        }
        Ok(())
    }

    fn skip(&mut self, path: PathBuf, why: &str) {
        self.skipped.push((path, why.to_owned()));
    }

    pub(super) fn tell_skipped(&self) {
        for (path, why) in &self.skipped {
            eprintln!("{}: {}, left out", plain(&path.display().to_string()), plain(why));
        }
        for (path, why) in &self.cut_off {
            eprintln!("{}: {why}", plain(&path.display().to_string()));
        }
    }
}

fn say_databases(databases: &BTreeSet<&str>) -> String {
    let databases: Vec<_> = databases.iter().map(|name| name_of_database(name)).collect();
    format!(
        "several databases have such tables: say with --database which one is to be taken ({})",
        databases.join(", ")
    )
}

/// A part of a dump that does not say which database it is of comes before the first `\connect`.
fn name_of_database(name: &str) -> String {
    if name.is_empty() { "\"\", before the first \\connect".to_owned() } else { plain(name) }
}

/// Refuses a pipe or a device: it gives its bytes once, and the format of a file is told by reading it before.
fn read_once(other: &str) -> String {
    format!("it is {other}, which cannot be read twice: save it as a file and import that")
}

/// Whether a directory is an `export` of a node with documents, which has a directory for their bytes.
fn is_export(directory: &Path) -> bool {
    directory.join(CONTENT_DIRECTORY).is_dir()
}

/// The name of a file without its endings, and the ending that tells its format, in lower case.
pub(super) fn parts(path: &Path) -> (String, String) {
    let is_packed = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case(PACKED_ENDING));
    let name = if is_packed { path.file_stem() } else { path.file_name() };
    let name = name.and_then(OsStr::to_str).unwrap_or_default();
    match name.rsplit_once('.') {
        Some((stem, ending)) => (stem.to_owned(), ending.to_ascii_lowercase()),
        None => (name.to_owned(), String::new()),
    }
}

/// The kind of record in a collection, a table or behind a path of the API that is called so. A name in force here comes
/// first. What stands before the last dot is a database or a schema.
fn kind_named(config: &Config, name: &str) -> Option<Kind> {
    config.kind_of_collection(name).or_else(|| {
        let is_it = |kind: &Kind| is_alike(config.collection_of(*kind), last_part(name));
        Kind::ALL.into_iter().find(is_it).or_else(|| kind_in_thalamus(name))
    })
}

/// [`kind_named`] by the names that Thalamus gives, whatever is in force here.
pub(super) fn kind_in_thalamus(name: &str) -> Option<Kind> {
    let alike = |known: &str| is_alike(known, last_part(name));
    let route = |path: &str| path.split('/').nth(1).is_some_and(alike);
    let is_it = |schema: &&crate::domain::schema::Schema| {
        alike(schema.collection) || schema.routes.iter().any(|one| route(one.path))
    };
    let known = SCHEMAS.iter().find(is_it).map(|schema| schema.kind);
    known.or_else(|| OTHER_NAMES.iter().find(|(other, _)| alike(other)).map(|(_, kind)| *kind))
}

fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn is_alike(known: &str, name: &str) -> bool {
    known.replace('-', "_").eq_ignore_ascii_case(&name.replace('-', "_"))
}

fn sorted_entries(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let read =
        || -> io::Result<Vec<PathBuf>> { fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect() };
    let mut entries = read().with_context(|| directory.display().to_string())?;
    entries.sort();
    Ok(entries)
}

fn has_records(directory: &Path) -> anyhow::Result<bool> {
    let is_of_records = |path: &PathBuf| ENDINGS.contains(&parts(path).1.as_str());
    Ok(sorted_entries(directory)?.iter().any(is_of_records))
}

fn is_program(path: &Path) -> anyhow::Result<bool> {
    let mut start = Vec::new();
    let file = open_regular(path).with_context(|| path.display().to_string())?;
    file.take(PROGRAM_MARK.len() as u64)
        .read_to_end(&mut start)
        .with_context(|| path.display().to_string())?;
    Ok(start == PROGRAM_MARK)
}

/// Why a file that is called as a dump cannot be read as one, if it is no text in UTF-8.
fn not_text(path: &Path) -> Option<&'static str> {
    let mut first = [0; 5];
    let read = open_regular(path).and_then(|mut file| file.read(&mut first)).unwrap_or_default();
    match first.get(..read).unwrap_or_default() {
        b"PGDMP" => {
            Some("it is in the packed format of pg_dump: make text of it with `pg_restore -f NAME.sql FILE`")
        }
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
            Some("it is UTF-16: write it as UTF-8, with `pg_dump -f` instead of `>` on Windows")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    #[test]
    fn names_of_thalamus_are_understood() {
        let config = Config::load(None, std::iter::empty(), &Overrides::default()).unwrap();
        for (name, kind) in [
            ("people", Some(Kind::Person)),
            ("public.people", Some(Kind::Person)),
            ("federation.pols", Some(Kind::Page)),
            ("personal_docs", Some(Kind::PersonalDocument)),
            ("personal-documents", Some(Kind::PersonalDocument)),
            ("personal_document", Some(Kind::PersonalDocument)),
            ("dus", Some(Kind::DomiciliaryUnit)),
            ("DUS", Some(Kind::DomiciliaryUnit)),
            ("domiciliary-units", Some(Kind::DomiciliaryUnit)),
            ("domiciliary_units", Some(Kind::DomiciliaryUnit)),
            ("institutions", Some(Kind::Institution)),
            ("institution", Some(Kind::Institution)),
            ("encounters", Some(Kind::Encounter)),
            ("measurement", None),
            ("person", None),
            ("people (1)", None),
            ("", None),
        ] {
            assert_eq!(kind_named(&config, name), kind, "{name}");
        }
        for (path, stem, ending) in [
            ("a/people.json", "people", "json"),
            ("people.JSON.gz", "people", "json"),
            ("federation.people.csv", "federation.people", "csv"),
            ("people", "people", ""),
            ("people.gz", "people", ""),
        ] {
            assert_eq!(parts(Path::new(path)), (stem.to_owned(), ending.to_owned()), "{path}");
        }
    }
}
