//! Floor 5. `import`: records from files into a store that no node holds.
//!
//! A person who is not the one that has the account here is not taken, and neither are the records of theirs.
//! What is stored already is never overwritten unless `--replace` says so, and one bad document does not
//! keep the others out: it is named, and the exit code says that there was one.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use bson::{Bson, Document};
use clap::Args;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::control::{Missing, open};
use super::export_kept::KEPT;
use super::ndjson::{Documents, Place, read_document};
use super::show::{plain, table};
use super::{Done, EXIT_FAILED, Failure};
use crate::config::Config;
use crate::domain::access::Actor;
use crate::domain::content::{Content, is_content_name};
use crate::domain::merge::is_other_person;
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::domain::value::same_document;
use crate::store::{Store, StoreError, Tx};

/// Records written in one transaction.
const BATCH_RECORDS_MAX: usize = 500;
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Endings of the files that a directory is searched for.
const ENDINGS: &[&str] = &["jsonl", "ndjson", "json"];
/// Where an export keeps uploaded bytes, each under its SHA-256.
pub(super) const CONTENT_DIRECTORY: &str = "content";

/// About the files of an export that are only there to be read.
const NOT_TAKEN: &str = "conflicts and deleted records are not imported; the file is there to be read";

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// Files COLLECTION.jsonl, .ndjson or .json, or directories of such files.
    #[arg(required = true, value_name = "DIR|FILE")]
    paths: Vec<PathBuf>,
    /// Overwrite records that differ from those in the files.
    #[arg(long)]
    replace: bool,
    /// Print what was done as JSON.
    #[arg(long)]
    json: bool,
}

/// What is to be read.
#[derive(Default)]
struct Sources {
    files: Vec<(PathBuf, Kind)>,
    contents: Vec<(PathBuf, String)>,
}

/// What became of the documents of a file.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tally {
    added: u64,
    replaced: u64,
    equal: u64,
    /// Left as they are here.
    different: u64,
    /// Not taken.
    refused: u64,
    /// People whose id is spelled in upper case here, unlike in the file.
    folded: u64,
    /// Personal documents whose bytes are not on this node.
    without_content: u64,
}

pub(super) async fn run(config: Config, args: ImportArgs) -> anyhow::Result<Done> {
    let sources = find_sources(&config, &args.paths)?;
    let app = open(&config, Missing::Create)?;
    let mut importer = Importer {
        store: app.node.store.unguarded().clone(),
        is_replacing: args.replace,
        actor: Actor::Operator(rustix::process::getuid().as_raw()),
        central_roles: config.accounts.central_roles.clone(),
        roles_to_grant: BTreeSet::new(),
        people_to_grant: 0,
        others: BTreeSet::new(),
        shows_progress: io::stderr().is_terminal(),
    };
    let limit = config.api.content_limit_bytes;
    let mut refused_contents = 0;
    for (path, sha256) in &sources.contents {
        refused_contents += u64::from(!importer.content(path, sha256, limit).await?);
    }
    let mut tallies = Vec::new();
    // Who has an account is known before records of theirs are taken.
    let mut files: Vec<_> = sources.files.iter().collect();
    files.sort_by_key(|(_, kind)| *kind != Kind::Person);
    for (path, kind) in files {
        let tally = importer.file(path, *kind).await.with_context(|| path.display().to_string())?;
        tallies.push((path.as_path(), *kind, tally));
    }
    importer.clear_progress();
    importer.tell_notes(&tallies);
    let is_complete = refused_contents == 0 && tallies.iter().all(|(.., tally)| tally.refused == 0);
    let done = if args.json { Done::json(&as_json(&tallies)) } else { Done::text(as_table(&tallies)) };
    Ok(done.with_code(if is_complete { 0 } else { EXIT_FAILED }))
}

fn find_sources(config: &Config, paths: &[PathBuf]) -> anyhow::Result<Sources> {
    let mut sources = Sources::default();
    for path in paths {
        if path.is_dir() {
            add_directory(config, path, &mut sources)?;
            continue;
        }
        if let Err(error) = fs::metadata(path) {
            return Err(Failure::usage(format!("{}: {error}", path.display())).into());
        }
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if KEPT.contains(&stem) {
            return Err(Failure::usage(format!("{}: {NOT_TAKEN}", path.display())).into());
        }
        let kind = config.kind_of_collection(stem).ok_or_else(|| {
            let known = Kind::ALL.map(|kind| config.collection_of(kind)).join(", ");
            Failure::usage(format!(
                "{}: a file is called after its collection; there are {known}",
                path.display()
            ))
        })?;
        sources.files.push((path.clone(), kind));
    }
    if sources.files.is_empty() {
        return Err(Failure::usage("there is no file of records: COLLECTION.jsonl, .ndjson or .json").into());
    }
    Ok(sources)
}

fn add_directory(config: &Config, directory: &Path, sources: &mut Sources) -> anyhow::Result<()> {
    for path in sorted_entries(directory)? {
        let has_records = path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known));
        if !has_records || !path.is_file() {
            continue;
        }
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        match config.kind_of_collection(stem) {
            Some(kind) => sources.files.push((path, kind)),
            None if KEPT.contains(&stem) => {
                eprintln!("{}: {NOT_TAKEN}", plain(&path.display().to_string()));
            }
            None => {
                eprintln!("{}: not a collection of this node, left out", plain(&path.display().to_string()))
            }
        }
    }
    let contents = directory.join(CONTENT_DIRECTORY);
    if contents.is_dir() {
        for path in sorted_entries(&contents)? {
            if let Some(name) =
                path.file_name().and_then(|name| name.to_str()).filter(|name| is_content_name(name))
            {
                let name = name.to_owned();
                sources.contents.push((path, name));
            }
        }
    }
    Ok(())
}

fn sorted_entries(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let read =
        || -> io::Result<Vec<PathBuf>> { fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect() };
    let mut entries = read().with_context(|| directory.display().to_string())?;
    entries.sort();
    Ok(entries)
}

struct Importer {
    store: Store,
    is_replacing: bool,
    actor: Actor,
    central_roles: Vec<String>,
    /// Roles that imported people have and that count only where they are granted.
    roles_to_grant: BTreeSet<String>,
    people_to_grant: u64,
    /// Accounts, folded, that are somebody else's here than in the files.
    others: BTreeSet<String>,
    shows_progress: bool,
}

/// A document on its way into the store.
struct Item {
    place: Place,
    id: String,
    document: Document,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Added,
    Replaced,
    Equal,
    Different,
    /// A person under the account of somebody else.
    AnotherOne,
    /// A record of such a person.
    OfAnotherOne,
}

/// What became of an item, and the key that it is stored under.
struct Written {
    verdict: Verdict,
    key: RecordKey,
}

impl Importer {
    async fn file(&mut self, path: &Path, kind: Kind) -> anyhow::Result<Tally> {
        let mut tally = Tally::default();
        let (mut batch, mut batch_bytes) = (Vec::new(), 0);
        for found in Documents::new(BufReader::with_capacity(1 << 16, File::open(path)?)) {
            let read = found?.and_then(|text| {
                batch_bytes += text.bytes.len();
                read_document(kind, &text).map(|document| (text.place, document))
            });
            match read {
                Ok((place, document)) => {
                    let id = document.get_str("_id").unwrap_or_default().to_owned();
                    batch.push(Item { place, id, document });
                }
                Err(wrong) => {
                    tally.refused += 1;
                    self.tell(path, wrong.place, &wrong.message);
                }
            }
            if batch.len() >= BATCH_RECORDS_MAX || batch_bytes >= BATCH_BYTES_MAX {
                self.write(path, kind, std::mem::take(&mut batch), &mut tally).await?;
                batch_bytes = 0;
            }
        }
        self.write(path, kind, batch, &mut tally).await?;
        Ok(tally)
    }

    async fn write(
        &mut self,
        path: &Path,
        kind: Kind,
        batch: Vec<Item>,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        let bytes =
            batch.iter().map(|item| item.document.to_vec().map_or(0, |bytes| bytes.len() as u64)).sum();
        let claim = self.store.claim(bytes)?;
        let items = Arc::new(batch);
        let (job, actor, is_replacing) = (Arc::clone(&items), self.actor.clone(), self.is_replacing);
        let others = self.others.clone();
        let written: Vec<Written> = self
            .store
            .transact(move |tx| -> Result<_, StoreError> {
                job.iter()
                    .map(|item| {
                        let owner = kind.schema().owner_of(&item.document);
                        if kind != Kind::Person && owner.is_some_and(|owner| others.contains(&owner)) {
                            let key = RecordKey::new(kind, item.id.as_str());
                            return Ok(Written { verdict: Verdict::OfAnotherOne, key });
                        }
                        write_one(tx, kind, item, is_replacing, &actor)
                    })
                    .collect()
            })
            .await?;
        drop(claim);
        for (item, Written { verdict, key }) in items.iter().zip(written) {
            match verdict {
                Verdict::Added => tally.added += 1,
                Verdict::Replaced => tally.replaced += 1,
                Verdict::Equal => tally.equal += 1,
                Verdict::Different => {
                    tally.different += 1;
                    self.tell(
                        path,
                        item.place,
                        &format!("{} is stored with other content and was left as it is", key.id),
                    );
                }
                Verdict::AnotherOne => {
                    tally.refused += 1;
                    self.others.insert(fold_account(&key.id));
                    let message = format!(
                        "{} is, or was, the account of somebody else here: give the person of the file another id, in \
                         their records too",
                        key.id
                    );
                    self.tell(path, item.place, &message);
                }
                Verdict::OfAnotherOne => {
                    tally.refused += 1;
                    let message = format!("{} is of a person who was not taken", key.id);
                    self.tell(path, item.place, &message);
                }
            }
            if matches!(verdict, Verdict::Added | Verdict::Replaced) {
                tally.folded += u64::from(key.id != item.id);
                tally.without_content += u64::from(self.lacks_content(kind, &item.document)?);
                self.note_roles(&key, &item.document)?;
            }
        }
        self.show_progress(path, tally);
        Ok(())
    }

    fn lacks_content(&self, kind: Kind, document: &Document) -> Result<bool, StoreError> {
        match Content::of(kind, document) {
            Some(content) => Ok(!self.store.read()?.has_content(&content.sha256)?),
            None => Ok(false),
        }
    }

    /// A file makes nobody an administrator: roles other than the federation's are granted by hand.
    fn note_roles(&mut self, key: &RecordKey, document: &Document) -> Result<(), StoreError> {
        let Some(Bson::Array(roles)) = document.get("roles").filter(|_| key.kind == Kind::Person) else {
            return Ok(());
        };
        let roles = roles.iter().filter_map(Bson::as_str);
        let mut special: Vec<&str> =
            roles.filter(|role| !self.central_roles.iter().any(|known| known == role)).collect();
        if !special.is_empty() {
            let granted =
                self.store.read()?.grants(&key.id, document.get_str("password").unwrap_or_default())?;
            special.retain(|role| !granted.has(role));
        }
        self.people_to_grant += u64::from(!special.is_empty());
        self.roles_to_grant.extend(special.into_iter().map(str::to_owned));
        Ok(())
    }

    /// Takes uploaded bytes; false if they are not what their name says.
    async fn content(&mut self, path: &Path, sha256: &str, bytes_max: u64) -> anyhow::Result<bool> {
        let shown = || path.display().to_string();
        let length = fs::metadata(path).with_context(shown)?.len();
        if length > bytes_max {
            eprintln!("{}: larger than api.content_limit_bytes allows", plain(&shown()));
            return Ok(false);
        }
        let bytes = fs::read(path).with_context(shown)?;
        if hex::encode(Sha256::digest(&bytes)) != sha256 {
            eprintln!("{}: the bytes are damaged: their SHA-256 is another one", plain(&shown()));
            return Ok(false);
        }
        let sha256 = sha256.to_owned();
        let _claim = self.store.claim(length)?;
        self.store.transact(move |tx| -> Result<(), StoreError> { tx.put_content(&sha256, &bytes) }).await?;
        Ok(true)
    }

    fn tell(&self, path: &Path, place: Place, message: &str) {
        self.clear_progress();
        eprintln!("{} {place}: {}", plain(&path.display().to_string()), plain(message));
    }

    fn tell_notes(&self, tallies: &[(&Path, Kind, Tally)]) {
        let sum = |count: fn(&Tally) -> u64| tallies.iter().map(|(.., tally)| count(tally)).sum::<u64>();
        let (folded, different) = (sum(|tally| tally.folded), sum(|tally| tally.different));
        let without_content = sum(|tally| tally.without_content);
        if folded > 0 {
            eprintln!(
                "note: {folded} people are stored under their account in upper case, unlike in the files"
            );
        }
        if different > 0 {
            eprintln!("note: {different} records were left as they are; `--replace` overwrites them");
        }
        if without_content > 0 {
            eprintln!(
                "note: {without_content} personal documents name uploaded bytes that are not on this node"
            );
        }
        if self.people_to_grant > 0 {
            let roles: Vec<_> = self.roles_to_grant.iter().map(|role| plain(role)).collect();
            eprintln!(
                "note: {} people have roles that count only where they are granted ({}): \
                 `thalamus-edge user add ID --role ROLE` grants them on this node",
                self.people_to_grant,
                roles.join(", ")
            );
        }
    }

    fn show_progress(&self, path: &Path, tally: &Tally) {
        if self.shows_progress {
            let Tally { added, replaced, equal, different, refused, .. } = tally;
            let read = added + replaced + equal + different + refused;
            eprint!("\r{}: {read} records", plain(&path.display().to_string()));
        }
    }

    fn clear_progress(&self) {
        if self.shows_progress {
            eprint!("\r\x1b[K");
        }
    }
}

fn write_one(
    tx: &mut Tx<'_>,
    kind: Kind,
    item: &Item,
    is_replacing: bool,
    actor: &Actor,
) -> Result<Written, StoreError> {
    let mut document = item.document.clone();
    let mut key = RecordKey::new(kind, item.id.as_str());
    if kind == Kind::Person {
        // As the API does it: whatever the spelling, it is one account.
        key.id = tx.resolve_person(&item.id)?.unwrap_or_else(|| fold_account(&item.id));
        document.insert("_id", key.id.as_str());
    }
    let stored = tx.document(&key)?;
    if kind == Kind::Person {
        let is_other = match &stored {
            Some(stored) => is_other_person(Some(stored), stored, &document),
            None => tx.is_another_ones(&key, &document)?,
        };
        if is_other {
            return Ok(Written { verdict: Verdict::AnotherOne, key });
        }
    }
    let verdict = match stored {
        None => Verdict::Added,
        Some(stored) if same_document(&stored, &document) => Verdict::Equal,
        Some(_) if is_replacing => Verdict::Replaced,
        Some(_) => Verdict::Different,
    };
    if matches!(verdict, Verdict::Added | Verdict::Replaced) {
        tx.edit(&key, Some(&document), actor)?;
    }
    Ok(Written { verdict, key })
}

fn as_json(tallies: &[(&Path, Kind, Tally)]) -> Value {
    let rows = tallies.iter().map(|(path, kind, tally)| {
        json!({
            "file": path.display().to_string(),
            "collection": kind.schema().collection,
            "added": tally.added,
            "replaced": tally.replaced,
            "equal": tally.equal,
            "different": tally.different,
            "refused": tally.refused,
        })
    });
    json!({"files": rows.collect::<Vec<_>>()})
}

fn as_table(tallies: &[(&Path, Kind, Tally)]) -> String {
    let rows: Vec<_> = tallies
        .iter()
        .map(|(path, _, tally)| {
            let counts = [tally.added, tally.replaced, tally.equal, tally.different, tally.refused];
            let [added, replaced, equal, different, refused] = counts.map(|count| count.to_string());
            [plain(&path.display().to_string()), added, replaced, equal, different, refused]
        })
        .collect();
    table(["FILE", "ADDED", "REPLACED", "EQUAL", "DIFFERENT", "REFUSED"], &rows)
}
