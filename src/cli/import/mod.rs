//! Floor 5. `import`: records from files into a store that no node holds.
//!
//! A person who is not the one that has the account here is not taken, and neither are the records of theirs; no record
//! changes hands. What is stored already is never overwritten unless `--replace` says so, and one bad document does not
//! keep the others out: it is named, and the exit code says that there was something that was not taken.
//!
//! - `sources`: which files are read, and which collection each of them is of
//! - `reader`, `wrapping`: rows in files, and lists in answers of an API
//! - `record`: records of rows
//! - `importer`: the records of a file, in batches
//! - `writing`, `reasons`: a record written, or the reason why it is not
//! - `report`: what became of all

mod importer;
mod reader;
mod reasons;
mod record;
mod report;
mod sources;
mod wrapping;
mod writing;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::archive::closed_list;
use super::control::{ControlError, Missing, open};
use super::terminal::{Done, EXIT_FAILED, Failure};
use crate::app::{App, AppError, store_file, store_options};
use crate::config::Config;
use crate::domain::access::Actor;
use crate::domain::record::fold_account;
use crate::domain::schema::{Owner, is_account};
use crate::store::{Store, StoreError, Trial};
use importer::Importer;
use reader::Format;
use report::{as_json, as_table, summary};
use sources::{OfDumps, Source, Sources};
use writing::Terms;

pub(super) use record::read_exported;

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// Files that are called after their collection or table, or directories of such files.
    #[arg(required = true, value_name = "DIR|FILE")]
    paths: Vec<PathBuf>,
    /// Overwrite records that differ from those in the files.
    #[arg(long)]
    replace: bool,
    /// Make records again that were deleted here, with what the files have.
    #[arg(long)]
    restore_deleted: bool,
    /// Say what would happen, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// What the files hold, whatever they are called.
    #[arg(long, value_name = "COLLECTION")]
    collection: Option<String>,
    /// The person whose records the files hold, where they do not say it themselves.
    #[arg(long, value_name = "ACCOUNT")]
    owner: Option<String>,
    /// The database of a dump whose tables are taken, where several have such tables.
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,
    /// The schema of a dump whose tables are taken, where several have such tables.
    #[arg(long, value_name = "SCHEMA")]
    schema: Option<String>,
    /// The format of the files, where it cannot be told from them.
    #[arg(long, value_enum, default_value = "auto")]
    format: Format,
    /// Print what was done as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: Config, args: ImportArgs) -> anyhow::Result<Done> {
    if let Some(owner) = args.owner.as_deref().filter(|owner| !is_account(owner)) {
        return Err(Failure::usage(format!("--owner {owner}: not a federation account")).into());
    }
    let sources = {
        let of_dumps = OfDumps { database: args.database.as_deref(), schema: args.schema.as_deref() };
        Sources::find(&config, &args.paths, args.collection.as_deref(), of_dumps)?
    };
    let ownerless = |source: &&Source| !matches!(source.kind.schema().owner, Owner::Field(_));
    if let (Some(_), Some(source)) = (&args.owner, sources.files.iter().find(ownerless)) {
        let path = source.path.display();
        return Err(Failure::usage(format!("{path}: --owner is for records that belong to a person")).into());
    }
    let mut closed = BTreeSet::new();
    for path in &sources.closed {
        closed.append(&mut closed_list::read(path)?);
    }
    let target = Target::open(&config, args.dry_run)?;
    let terms = Terms {
        is_replacing: args.replace,
        is_restoring: args.restore_deleted,
        closed,
        former: target.store().read()?.former_holders()?,
        actor: Actor::Operator(rustix::process::getuid().as_raw()),
    };
    let owner = args.owner.map(|owner| fold_account(&owner));
    let mut importer = Importer::new(target.store().clone(), &config, args.format, owner, terms);
    let mut refused_contents = 0;
    for (path, sha256) in &sources.contents {
        refused_contents += u64::from(!importer.content(path, sha256).await?);
    }
    let mut tallies = Vec::new();
    for source in &sources.files {
        let tally = importer.file(source).await.with_context(|| source.path.display().to_string())?;
        tallies.push((source, tally));
    }
    importer.clear_progress();
    importer.tell_notes(&tallies);
    sources.tell_skipped();
    let left = summary(&tallies, refused_contents, &sources);
    if let Some(left) = &left {
        eprintln!("{left}");
    }
    let mut done = if args.json {
        Done::json(&as_json(&tallies, &sources, args.dry_run))
    } else {
        Done::text(as_table(&tallies))
    };
    if args.dry_run && !args.json {
        done.text += "\n\ndry run: this is what would happen; nothing was changed";
    }
    Ok(done.with_code(if left.is_none() { 0 } else { EXIT_FAILED }))
}

/// Where the records go.
enum Target {
    Node(Box<App>),
    /// A copy that is forgotten.
    Copy(Box<Trial>),
}

impl Target {
    fn open(config: &Config, is_dry_run: bool) -> anyhow::Result<Target> {
        if !is_dry_run {
            return Ok(Target::Node(Box::new(open(config, Missing::Create)?)));
        }
        let path = store_file(&config.data_dir);
        let (key, reserve_bytes) = (config.store_key()?, config.store.reserve_bytes);
        let trial = Trial::of(&path, key.as_ref(), store_options(config), reserve_bytes);
        let trial = trial.map_err(|cause| {
            let is_no_room = matches!(cause, StoreError::Short(_) | StoreError::DiskFull);
            let error = anyhow::Error::from(match cause {
                StoreError::Held => ControlError::Held(config.data_dir.clone()),
                cause => ControlError::App(AppError::Store { path, cause }),
            });
            let message = "a dry run works on a copy of the store, and there is no room for the copy";
            if is_no_room { error.context(message) } else { error }
        })?;
        trial.store.set_active_from_centre(config.accounts.active_from_centre);
        Ok(Target::Copy(Box::new(trial)))
    }

    fn store(&self) -> &Store {
        match self {
            Target::Node(app) => app.node.store.unguarded(),
            Target::Copy(trial) => &trial.store,
        }
    }
}
