//! Floor 5. The `db` commands: the file of a store that no node holds.

use std::path::Path;

use clap::Subcommand;
use serde_json::json;

use super::backup::numbers;
use super::control::ControlError;
use super::show::{plain, table};
use super::{Done, EXIT_FAILED, EXIT_REFUSED, Failure};
use crate::app::{store_file, store_options};
use crate::config::Config;
use crate::store::{CheckedStore, StoreError, check_store, compact_store};

#[derive(Debug, Subcommand)]
pub(super) enum DbCommand {
    /// Go through the whole file: is it whole, and do its tables agree with each other.
    Check {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make the file as small as it can be.
    Compact,
}

pub(super) fn run(config: &Config, command: &DbCommand) -> anyhow::Result<Done> {
    let file = store_file(&config.data_dir);
    if !file.try_exists()? {
        return Err(ControlError::NoStore(config.data_dir.clone()).into());
    }
    let cache_bytes = store_options(config).cache_bytes;
    match command {
        DbCommand::Check { json } => {
            let checked = check_store(&file, cache_bytes).map_err(|error| failure(config, &file, error))?;
            Ok(shown(&checked, *json))
        }
        DbCommand::Compact => {
            let (before, after) =
                compact_store(&file, cache_bytes).map_err(|error| failure(config, &file, error))?;
            Ok(Done::text(format!("{} bytes before, {after} bytes after", before)))
        }
    }
}

fn failure(config: &Config, file: &Path, error: StoreError) -> Failure {
    match error {
        StoreError::Held => {
            Failure { code: EXIT_REFUSED, message: ControlError::Held(config.data_dir.clone()).to_string() }
        }
        other => Failure { code: EXIT_FAILED, message: format!("{}: {other}", file.display()) },
    }
}

fn shown(checked: &CheckedStore, json: bool) -> Done {
    let is_right = checked.complaints_count == 0;
    let code = if is_right { 0 } else { EXIT_FAILED };
    if json {
        return Done::json(&json!({
            "clean": checked.was_clean,
            "complaints": checked.complaints,
            "complaints_count": checked.complaints_count,
            "summary": checked.summary,
        }))
        .with_code(code);
    }
    let rows: Vec<_> = numbers(&checked.summary).into_iter().map(|(name, count)| [name, count]).collect();
    let mut text = table(["", "COUNT"], &rows);
    if !checked.was_clean {
        text += "\n\nthe file was not closed properly and has been repaired";
    }
    if is_right {
        return Done::text(text + "\n\nthe store is in order");
    }
    for complaint in &checked.complaints {
        text += &format!("\n{}", plain(complaint));
    }
    text += &format!(
        "\n\n{} things do not add up: keep a copy of this file, restore the last good backup, and report it",
        checked.complaints_count
    );
    Done::text(text).with_code(code)
}
