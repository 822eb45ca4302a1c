//! Floor 5. The `db` commands: the file of a store that no node holds.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::json;

use super::backup::numbers;
use super::clear_copies::{self, ClearCopiesArgs, OLD_BYTES, clear_files, clear_words};
use crate::app::{store_file, store_options};
use crate::cli::control::{Client, ControlError, Missing};
use crate::cli::terminal::show::{cell, plain, table};
use crate::cli::terminal::{Done, EXIT_FAILED, EXIT_REFUSED, Failure};
use crate::config::{Config, read_key};
use crate::domain::record::Kind;
use crate::files::create_private;
use crate::store::{
    CheckedStore, DamagedRow, SealError, StoreError, StoreKey, change_store_key, check_store, compact_store,
    recode_store,
};

#[derive(Debug, Subcommand)]
pub(crate) enum DbCommand {
    /// Go through the whole file: is it whole, and do its tables agree with each other.
    Check {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make the file as small as it can be.
    Compact,
    /// Make a key for the store, in a file that does not exist yet.
    Keygen { file: PathBuf },
    /// Encrypt a store that is not, with the key that the configuration names (store.key_file).
    Encrypt,
    /// Name files in the data and backup directories that hold records anybody can read, or may: older stores, backups,
    /// exports, attachments, and whatever is not known to be harmless.
    ClearCopies(ClearCopiesArgs),
    /// Write an encrypted store without encryption; then take store.key_file out of the configuration.
    Decrypt,
    /// Take a damaged record, or damaged rows of a table, out of the store and into a file below the data directory. Also
    /// while a node runs.
    SetAside {
        /// The names are percent-encoded, as `doctor` shows one that no terminal can show.
        #[arg(long)]
        encoded: bool,
        /// Damaged rows of this table, as `doctor` shows it: those with the id that is given, or all of them.
        #[arg(long, value_name = "TABLE")]
        table: Option<String>,
        /// Collection and id, as `doctor` shows them: `people ESPGNU777ORG`; of a row that is about no record, the id alone.
        #[arg(value_name = "COLLECTION|ID", num_args = 0..=2)]
        names: Vec<String>,
    },
    /// Give an encrypted store the key in this file; then name it in the configuration (store.key_file).
    Rekey { new_key_file: PathBuf },
}

pub(crate) async fn run(config: &Config, command: &DbCommand) -> anyhow::Result<Done> {
    if let DbCommand::SetAside { encoded, table, names } = command {
        let names = if *encoded { decoded(names)? } else { names.clone() };
        return set_aside(config, table.as_deref(), &names).await;
    }
    on_file(config, command)
}

fn decoded(names: &[String]) -> anyhow::Result<Vec<String>> {
    let decode = |name: &String| Ok(percent_decode_str(name).decode_utf8()?.into_owned());
    let names: Result<Vec<_>, std::str::Utf8Error> = names.iter().map(decode).collect();
    names.map_err(|_| Failure::usage("--encoded: a name must be UTF-8, percent-encoded, as page%1B1").into())
}

/// Damaged records and rows that nothing heals are in the way of every backup.
async fn set_aside(config: &Config, table: Option<&str>, names: &[String]) -> anyhow::Result<Done> {
    let (name, what, after) = match (table, names) {
        (None, [collection, _]) if Kind::from_collection(collection).is_none() => {
            let known = Kind::ALL.map(|kind| kind.schema().collection).join(", ");
            return Err(
                Failure::usage(format!("{}: no collection. There are {known}", plain(collection))).into()
            );
        }
        (None, [collection, id]) => (
            format!("{collection}:{id}"),
            format!("{collection} {} is", plain(id)),
            "The next round takes the centre's version, if there is one",
        ),
        (Some(table), rows) if rows.len() <= 2 => {
            let (collection, id) = match rows {
                [collection, id] => (collection.as_str(), id.as_str()),
                [id] => ("", id.as_str()),
                _ => ("", ""),
            };
            let what = match rows {
                [] => format!("damaged rows of {table} are"),
                rows => format!("{} of {table} is", plain(&rows.join(" "))),
            };
            (
                format!("*{table}:{collection}:{id}"),
                what,
                "docs/OPERATIONS.md says what follows for each table",
            )
        }
        _ => {
            let usage = "name a record (db set-aside COLLECTION ID) or rows of a table (db set-aside --table TABLE \
                         [COLLECTION] [ID]): thalamus-edge doctor shows the command";
            return Err(Failure::usage(usage).into());
        }
    };
    let client = Client::connect(config, Missing::Refuse).await?;
    let name = utf8_percent_encode(&name, NON_ALPHANUMERIC).to_string();
    let done = client.post(&format!("/sync/damaged/{name}/set-aside"), &json!({})).await?.accepted()?;
    let text = format!(
        "{what} not in the store any more. What was left of it is in {}. {after}",
        cell(&done["file"])
    );
    Ok(Done::text(text))
}

const NO_NEW_KEY: &str =
    "[store] key_file names no key: make one (thalamus-edge db keygen FILE) and name FILE there";
const NO_KEY: &str =
    "[store] key_file names no key: name the file of the key that the store is encrypted with";

fn on_file(config: &Config, command: &DbCommand) -> anyhow::Result<Done> {
    if let DbCommand::Keygen { file } = command {
        return keygen(file);
    }
    if let DbCommand::ClearCopies(args) = command {
        return clear_copies::run(config, args);
    }
    let file = store_file(&config.data_dir);
    if !file.try_exists()? {
        return Err(ControlError::NoStore(config.data_dir.clone()).into());
    }
    let (cache_bytes, key) = (store_options(config).cache_bytes, config.store_key()?);
    match command {
        // Above.
        DbCommand::SetAside { .. } => Ok(Done::text("")),
        DbCommand::Check { json } => {
            let checked = check_store(&file, key.as_ref(), cache_bytes)
                .map_err(|error| failure(config, &file, error))?;
            Ok(shown(&checked, *json))
        }
        DbCommand::Compact => {
            let (before, after) = compact_store(&file, key.as_ref(), cache_bytes)
                .map_err(|error| failure(config, &file, error))?;
            Ok(Done::text(format!("{before} bytes before, {after} bytes after")))
        }
        DbCommand::Keygen { file } => keygen(file),
        DbCommand::ClearCopies(args) => clear_copies::run(config, args),
        DbCommand::Encrypt | DbCommand::Decrypt => {
            let key = key.ok_or_else(|| match command {
                DbCommand::Encrypt => Failure::usage(NO_NEW_KEY),
                _ => Failure::usage(NO_KEY),
            })?;
            let (old, new) = match command {
                DbCommand::Encrypt => (None, Some(&key)),
                _ => (Some(&key), None),
            };
            let bytes = recode_store(&file, old, new).map_err(|error| match error {
                StoreError::Sealed(SealError::NoKey(id)) => Failure {
                    code: EXIT_FAILED,
                    message: format!("{}: the store is encrypted already, with key {id}", file.display()),
                },
                other => failure(config, &file, other),
            })?;
            Ok(Done::text(match new {
                Some(key) => {
                    let said = format!("encrypted with key {}: {bytes} bytes. {OLD_BYTES}", key.id());
                    match clear_files(config) {
                        others if others.is_empty() => said,
                        others => format!("{said}\n\n{}", clear_words(&others)),
                    }
                }
                None => format!("no longer encrypted: {bytes} bytes. Take key_file out of the configuration"),
            }))
        }
        DbCommand::Rekey { new_key_file } => {
            let old = key.ok_or_else(|| Failure::usage(NO_KEY))?;
            let new = read_key(new_key_file)?;
            change_store_key(&file, &old, &new).map_err(|error| failure(config, &file, error))?;
            Ok(Done::text(format!(
                "the store has key {} now: name {} in [store] key_file. Someone with the old key and an old copy of \
                 the file still reads it",
                new.id(),
                new_key_file.display()
            )))
        }
    }
}

fn keygen(path: &Path) -> anyhow::Result<Done> {
    let key = StoreKey::random()?;
    let at = || path.display().to_string();
    let mut file = match create_private(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => anyhow::bail!(
            "{}: the file exists, and may be the key of a store: give the new key another name",
            at()
        ),
        file => file.with_context(at)?,
    };
    file.write_all(key.to_text().as_bytes()).and_then(|()| file.sync_all()).with_context(at)?;
    Ok(Done::text(format!(
        "made key {} in {}. Keep a copy where neither fire nor thieves reach both: without it nobody reads the store",
        key.id(),
        path.display()
    )))
}

fn failure(config: &Config, file: &Path, error: StoreError) -> Failure {
    match error {
        StoreError::Held => {
            Failure { code: EXIT_REFUSED, message: ControlError::Held(config.data_dir.clone()).to_string() }
        }
        other => Failure { code: EXIT_FAILED, message: format!("{}: {other}", file.display()) },
    }
}

fn damaged_json(row: &DamagedRow) -> serde_json::Value {
    json!({"table": row.table, "kind": row.kind.map(|kind| kind.schema().collection), "id": row.id})
}

fn shown(checked: &CheckedStore, json: bool) -> Done {
    let is_right = checked.complaints.is_empty() && checked.damaged.is_empty();
    let code = if is_right { 0 } else { EXIT_FAILED };
    if json {
        return Done::json(&json!({
            "clean": checked.was_clean,
            "damaged": checked.damaged.iter().map(damaged_json).collect::<Vec<_>>(),
            "complaints": checked.complaints,
            "summary": checked.summary,
        }))
        .with_code(code);
    }
    let rows: Vec<_> = numbers(&checked.summary).into_iter().map(|(name, count)| [name, count]).collect();
    let mut text = table(["", "COUNT"], &rows);
    if !checked.was_clean {
        text += "\n\npages of the file are not what was written";
    }
    if is_right {
        return Done::text(text + "\n\nthe store is in order");
    }
    for row in &checked.damaged {
        let kind = row.kind.map_or("", |kind| kind.schema().collection);
        text += &format!("\ndamaged: {} {kind} {}", row.table, plain(&row.id));
    }
    for complaint in &checked.complaints {
        text += &format!("\n{}", plain(complaint));
    }
    let remedy = if checked.is_put_right_by_a_start {
        "The next start of the node puts all of it right and says so in its log; then look again"
    } else {
        "Records that were not changed here come back from the centre in the next round; for anything else keep a copy of \
         this file and restore the last good backup"
    };
    text += &format!(
        "\n\n{} things are not as they should be. Nothing was changed. {remedy}",
        checked.complaints.len() + checked.damaged.len()
    );
    Done::text(text).with_code(code)
}
