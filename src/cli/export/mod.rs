//! Floor 5. `export`: all records of a store that no node holds, as files that `import` reads; and beside them the conflicts
//! and the bodies of deleted records, which it does not.
//!
//! Canonical extended JSON keeps every type of BSON; each line is read back before it counts as written.
//!
//! - `attachments`: the bytes of documents
//! - `kept`: conflicts, and the bodies of deleted records

mod attachments;
mod kept;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bson::{Bson, Document};
use clap::Args;
use serde_json::{Value, json};

use super::archive::closed_list::{self, CLOSED_ACCOUNTS, closed_file};
use super::archive::ndjson::{Place, Text};
use super::archive::{CONTENT_DIRECTORY, KEPT, create, kept_file, make_directory};
use super::control::{ControlError, Missing, open};
use super::import::read_exported;
use super::terminal::show::{plain, table};
use super::terminal::{Done, EXIT_FAILED};
use crate::app::{AppError, store_file};
use crate::config::Config;
use crate::domain::access::Actor;
use crate::domain::audit::{Event, What};
use crate::domain::content::{Content, has_content};
use crate::domain::record::Kind;
use crate::files::sync_directory;
use crate::store::{
    DamagedRow, Left, Part, Snapshot, Store, StoreError, StoredRecord, read_what_is_left, unless_damaged,
};
use attachments::{Attachment, Chunks};
use kept::write_kept;

/// Records read from the store at once.
const BATCH_RECORDS_MAX: usize = 500;
const BATCH_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// A directory that does not exist yet.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Print what was written as JSON.
    #[arg(long)]
    json: bool,
}

/// What was written of a collection.
struct Exported {
    collection: &'static str,
    file: String,
    records: u64,
}

impl Exported {
    fn of(kind: Kind, file: String, records: u64) -> Exported {
        Exported { collection: kind.schema().collection, file, records }
    }
}

pub(super) async fn run(config: Config, args: &ExportArgs) -> anyhow::Result<Done> {
    let directory = &args.directory;
    // Before the store is opened, which writes to it: an export that is refused leaves it as it is.
    if directory.symlink_metadata().is_ok() {
        anyhow::bail!("{} exists already: name a new directory", directory.display());
    }
    let app = match open(&config, Missing::Refuse) {
        Err(ControlError::App(AppError::Store {
            cause: cause @ (StoreError::Broken(_) | StoreError::Damaged(_)),
            ..
        })) => return salvage(&config, directory, &cause, args.json),
        opened => opened?,
    };
    make_directory(directory)?;
    audit(app.node.store.unguarded()).await?;
    let mut export = Export {
        store: app.node.store.unguarded().clone(),
        directory,
        unfaithful: 0,
        contents: 0,
        missing: 0,
        rotten: 0,
        closed: Vec::new(),
    };
    let mut written = Vec::new();
    for kind in Kind::ALL {
        let file = file_of(&config, kind);
        let records = export.kind(kind, &file);
        let records =
            records.with_context(|| format!("the export in {} is not complete", directory.display()))?;
        written.push(Exported::of(kind, file, records));
        // Even empty, it tells `import` that this is an export: documents which name no bytes have none.
        if has_content(kind) && !directory.join(CONTENT_DIRECTORY).exists() {
            make_directory(&directory.join(CONTENT_DIRECTORY))?;
        }
    }
    closed_list::write(directory, &export.closed)
        .with_context(|| format!("the export in {} is not complete", directory.display()))?;
    if !export.closed.is_empty() {
        let (file, records) = (closed_file(), export.closed.len() as u64);
        written.push(Exported { collection: CLOSED_ACCOUNTS, file, records });
    }
    let kept = write_kept(&export.store, directory)
        .with_context(|| format!("the export in {} is not complete", directory.display()))?;
    for (collection, records) in KEPT.into_iter().zip([kept.conflicts, kept.trash]) {
        if records > 0 {
            written.push(Exported { collection, file: kept_file(collection), records });
        }
    }
    sync_directory(directory).with_context(|| directory.display().to_string())?;
    eprintln!(
        "warning: {} holds health records and password hashes in clear: keep it as safe as the node",
        plain(&directory.display().to_string())
    );
    if export.missing > 0 {
        eprintln!(
            "note: {} personal documents name uploaded bytes that are not on this node",
            export.missing
        );
    }
    if let Some(note) = kept.note() {
        eprintln!("{note}");
    }
    let left_out = export.left_out();
    for row in &left_out {
        eprintln!("error: {row} is damaged and is left out");
    }
    if export.rotten > 0 || !left_out.is_empty() {
        eprintln!(
            "error: not everything is in this export: `thalamus-edge doctor` says what to do about what is damaged"
        );
    }
    let done = if args.json {
        Done::json(&as_json(&written, export.contents))
    } else {
        Done::text(as_table(&written))
    };
    let is_whole = export.unfaithful + kept.unfaithful + export.rotten == 0 && left_out.is_empty();
    Ok(done.with_code(if is_whole { 0 } else { EXIT_FAILED }))
}

/// Writes what can still be read of a store that is not opened any more. Nothing is written to it, so the audit trail does
/// not know of it either.
fn salvage(config: &Config, directory: &Path, cause: &StoreError, json: bool) -> anyhow::Result<Done> {
    make_directory(directory)?;
    eprintln!("error: {}", plain(&cause.to_string()));
    let mut files: BTreeMap<Kind, (BufWriter<File>, Exported)> = BTreeMap::new();
    for kind in Kind::ALL {
        let file = file_of(config, kind);
        let out = BufWriter::new(create(&directory.join(&file))?);
        files.insert(kind, (out, Exported::of(kind, file, 0)));
    }
    let mut chunks = Chunks::into(directory.join(CONTENT_DIRECTORY));
    let show = |left: Left| -> anyhow::Result<()> {
        let record = match left {
            Left::Record(record) => record,
            Left::Chunk(chunk) => return chunks.take(&chunk),
        };
        let (out, exported) = files.get_mut(&record.key.kind).context("a record of no kind")?;
        let document = Document::try_from(record.document.as_ref())?;
        writeln!(out, "{}", Bson::Document(document).into_canonical_extjson())?;
        exported.records += 1;
        Ok(())
    };
    let key = config.store_key()?;
    let broken = read_what_is_left(&store_file(&config.data_dir), key.as_ref(), show)
        .with_context(|| format!("the export in {} is not complete", directory.display()))?;
    chunks.close()?;
    let mut written = Vec::new();
    for (out, exported) in files.into_values() {
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        written.push(exported);
    }
    if broken.is_empty() {
        eprintln!("note: every record could be read, as far as the file says how many there are");
    } else {
        eprintln!("error: records or attachments are missing: pages of {} cannot be read", broken.join(", "));
    }
    eprintln!(
        "note: conflicts, deleted records and which accounts were closed on this node are not in it: a backup has them"
    );
    eprintln!("note: this export is not in the audit trail, because nothing was written to the store");
    eprintln!(
        "warning: {} holds health records and password hashes in clear: keep it as safe as the node",
        plain(&directory.display().to_string())
    );
    let done =
        if json { Done::json(&as_json(&written, chunks.contents)) } else { Done::text(as_table(&written)) };
    Ok(done.with_code(EXIT_FAILED))
}

/// The name of the file of a kind. A collection may be called what no file can.
fn file_of(config: &Config, kind: Kind) -> String {
    let name = Some(config.collection_of(kind)).filter(|name| !name.contains('/'));
    format!("{}.jsonl", name.unwrap_or(kind.schema().collection))
}

/// Whoever exports reads everything, and before that it stands in the trail.
async fn audit(store: &Store) -> Result<(), StoreError> {
    let operator = Actor::Operator(rustix::process::getuid().as_raw());
    store
        .transact(move |tx| -> Result<(), StoreError> {
            tx.audit(Event::new(What::Export, &operator).of_everybody())
        })
        .await
}

struct Export<'a> {
    store: Store,
    directory: &'a Path,
    /// Records that import would not give back as they are.
    unfaithful: u64,
    contents: u64,
    /// Personal documents without their bytes.
    missing: u64,
    /// Personal documents of whose bytes some are damaged.
    rotten: u64,
    /// People whose accounts were closed on this node.
    closed: Vec<String>,
}

impl Export<'_> {
    /// The rows that are not in the files because they are damaged, by collection and id. The store knows those that were come
    /// upon.
    fn left_out(&self) -> Vec<String> {
        let damaged = self.store.damaged_rows().into_iter().filter_map(|DamagedRow { table, kind, id }| {
            let collection = kind.map_or("a record of no kind", |kind| kind.schema().collection);
            match table.as_str() {
                "docs" => Some(format!("{collection}/{}", plain(&id))),
                "trash" => Some(format!("the body of the deleted {collection}/{}", plain(&id))),
                "conflict" => Some(format!("the conflict {}", plain(&id))),
                _ => None,
            }
        });
        damaged.collect()
    }

    /// Writes the records of a kind that can be read, and says how many. A file without any says that there are none: what
    /// reads the files of an export need not ask which are there.
    fn kind(&mut self, kind: Kind, file: &str) -> anyhow::Result<u64> {
        let mut out = BufWriter::new(create(&self.directory.join(file))?);
        let (mut after, mut records) = (None::<String>, 0);
        loop {
            let snapshot = self.store.read()?;
            let mut read = Vec::new();
            let part = Part {
                after: after.as_deref(),
                max: BATCH_RECORDS_MAX,
                bytes_max: BATCH_BYTES_MAX,
                is_without_damaged: true,
            };
            let next = snapshot.visit(kind, part, |id, document| {
                read.push(StoredRecord { id: id.to_owned(), document: document.to_owned() });
            })?;
            for record in &read {
                let document = Document::try_from(record.document.as_ref())?;
                self.content(&snapshot, kind, (&record.id, &document))?;
                if kind == Kind::Person && snapshot.closing(&record.id)?.is_some() {
                    self.closed.push(record.id.clone());
                }
                let line = Bson::Document(document).into_canonical_extjson().to_string();
                self.check(kind, record, &line);
                writeln!(out, "{line}")?;
                records += 1;
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok(records)
    }

    fn check(&mut self, kind: Kind, record: &StoredRecord, line: &str) {
        let text = Text { place: Place { line: 1, column: 1 }, bytes: line.as_bytes().to_vec() };
        let problem = match read_exported(kind, &text) {
            Ok(document) if document.to_vec().is_ok_and(|bytes| bytes == record.document.as_bytes()) => {
                return;
            }
            Ok(_) => "extended JSON cannot tell it apart from another record".to_owned(),
            Err(wrong) => format!("import refuses it: {}", wrong.message),
        };
        self.unfaithful += 1;
        eprintln!("{}/{}: {}", kind.schema().collection, plain(&record.id), plain(&problem));
    }

    /// Writes the uploaded bytes that a personal document names. If some are damaged, it names the document and goes on.
    fn content(
        &mut self,
        snapshot: &Snapshot,
        kind: Kind,
        (id, document): (&str, &Document),
    ) -> anyhow::Result<()> {
        let Some(Content { sha256, .. }) = Content::of(kind, document) else {
            return Ok(());
        };
        if !snapshot.has_content(&sha256)? {
            self.missing += 1;
            return Ok(());
        }
        let directory = self.directory.join(CONTENT_DIRECTORY);
        // Two documents may have the same bytes.
        if directory.join(&sha256).exists() {
            return Ok(());
        }
        let mut attachment = Attachment::begin(&directory, &sha256)?;
        for number in 0.. {
            match unless_damaged(snapshot.content_chunk(&sha256, number))? {
                Some(Some(chunk)) => attachment.write(&chunk)?,
                // What is not all there is not kept.
                Some(None) | None => break,
            }
        }
        if attachment.end()? {
            self.contents += 1;
        } else {
            self.rotten += 1;
            eprintln!(
                "error: {}/{}: the attachment {sha256} is damaged and is left out",
                kind.schema().collection,
                plain(id)
            );
        }
        Ok(())
    }
}

fn as_json(written: &[Exported], contents: u64) -> Value {
    let files = written.iter().map(|exported| {
        json!({
            "file": exported.file,
            "collection": exported.collection,
            "records": exported.records,
        })
    });
    json!({"files": files.collect::<Vec<_>>(), "contents": contents})
}

fn as_table(written: &[Exported]) -> String {
    let rows: Vec<_> =
        written.iter().map(|exported| [exported.file.clone(), exported.records.to_string()]).collect();
    table(["FILE", "RECORDS"], &rows)
}
