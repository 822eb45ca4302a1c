//! Floor 5. The `backup` commands. Only `create` needs the store; the others look at files.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::backup::{self, BackupError, Checked, Keys, Listed};
use crate::cli::control::{Client, Missing};
use crate::cli::terminal::show::{cell, facts, plain, table};
use crate::cli::terminal::{Done, EXIT_FAILED, EXIT_REFUSED, EXIT_USAGE, Failure};
use crate::config::Config;
use crate::store::{Manifest, Summary};
use crate::sync::time_text;

#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Make a backup now; a running node makes it itself and goes on serving.
    Create {
        /// Print the API's JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the backups in the configured directory. Reads each of them and compares it with its checksum; ends with 1 if one
    /// is damaged.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check a backup: its checksum, and with the key, or if it is not encrypted, everything in it. Fails where neither the
    /// checksum nor the key is there.
    Verify(VerifyArgs),
    /// Make a pair of keys and show it, once: the secret one is kept nowhere.
    Keygen,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    file: PathBuf,
    /// File with the secret key.
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
}

pub(crate) async fn run(config: Config, command: BackupCommand) -> anyhow::Result<Done> {
    match command {
        BackupCommand::Create { json } => create(&config, json).await,
        BackupCommand::List { json } => list(&config, json),
        BackupCommand::Verify(args) => verify(&args),
        BackupCommand::Keygen => Ok(keygen()),
    }
}

fn warn(config: &Config) {
    for warning in config.backup_warnings() {
        eprintln!("warning: {}", plain(&warning));
    }
}

async fn create(config: &Config, json: bool) -> anyhow::Result<Done> {
    let client = Client::connect(config, Missing::Refuse).await?;
    let made = client.post("/backups", &json!({})).await?.accepted()?;
    if json {
        return Ok(Done::json(&made));
    }
    warn(config);
    let encrypted = if made["encrypted"] == true { "yes" } else { "no" };
    let records: u64 = made["manifest"]["summary"]["records"]
        .as_object()
        .map_or(0, |kinds| kinds.values().filter_map(Value::as_u64).sum());
    Ok(Done::text(facts(&[
        ("backup", cell(&made["file"])),
        ("bytes", cell(&made["bytes"])),
        ("sha256", cell(&made["sha256"])),
        ("sha256 of what is in it", cell(&made["manifest"]["content_sha256"])),
        ("encrypted", encrypted.to_owned()),
        ("records", records.to_string()),
        ("older ones removed", cell(&made["removed"])),
    ])))
}

fn list(config: &Config, json: bool) -> anyhow::Result<Done> {
    let directory = config.backup_settings().directory;
    let listed = backup::list(&directory).map_err(failure)?;
    if listed.is_empty() && !json {
        warn(config);
        return Ok(Done::text(format!("there is no backup in {}", plain(&directory.display().to_string()))));
    }
    let listed: Vec<_> = listed.into_iter().map(|listed| (backup::is_as_written(&listed), listed)).collect();
    let is_any_wrong =
        listed.iter().any(|(is_as_written, _)| !matches!(is_as_written, Ok(Some(true) | None)));
    let code = if is_any_wrong { EXIT_FAILED } else { 0 };
    if json {
        let rows = listed.iter().map(|(is_as_written, listed)| {
            let mut row = serde_json::to_value(listed)?;
            row["as_written"] = json!(is_as_written.as_ref().map_or(Some(false), |found| *found));
            Ok(row)
        });
        let rows = rows.collect::<Result<Vec<_>, serde_json::Error>>()?;
        let shown = json!({"backups": rows, "warnings": config.backup_warnings()});
        return Ok(Done::json(&shown).with_code(code));
    }
    warn(config);
    let rows: Vec<_> = listed.iter().map(|(is_as_written, listed)| row(is_as_written, listed)).collect();
    Ok(Done::text(table(["FILE", "MADE AT", "BYTES", "ENCRYPTED", "CHECKSUM"], &rows)).with_code(code))
}

fn row(is_as_written: &Result<Option<bool>, BackupError>, listed: &Listed) -> [String; 5] {
    let checksum = match is_as_written {
        Ok(Some(true)) => "right".to_owned(),
        Ok(Some(false)) => "WRONG: damaged".to_owned(),
        Ok(None) => "none".to_owned(),
        Err(BackupError::File { cause, .. }) => format!("WRONG: not compared ({cause})"),
        Err(error) => format!("WRONG: not compared ({error})"),
    };
    [
        plain(&listed.file.display().to_string()),
        time_text(listed.created_s.saturating_mul(1000)),
        listed.bytes.to_string(),
        if listed.encrypted { "yes" } else { "no" }.to_owned(),
        checksum,
    ]
}

fn verify(args: &VerifyArgs) -> anyhow::Result<Done> {
    let keys = keys(args.identity.as_deref())?;
    let checked = backup::check(&args.file, keys.as_ref()).map_err(failure)?;
    let mut text = checksum_text(&checked);
    match &checked.manifest {
        Some(manifest) => {
            text += &format!("\nthe backup is whole\n{}\n{}", about(manifest), content_text(manifest));
            for (name, count) in numbers(&manifest.summary) {
                text += &format!("\n{name}: {count}");
            }
        }
        // Its checksum was right.
        None => text += "\nit is encrypted: what is in it can be checked only with the key (--identity)",
    }
    Ok(Done::text(text))
}

pub(super) fn checksum_text(checked: &Checked) -> String {
    match checked.checksum {
        true => format!("sha256 {}: as it was written", checked.sha256),
        false => format!("sha256 {}: no checksum stands beside it to compare with", checked.sha256),
    }
}

/// The sum by which what is in a backup is compared with the store that it was made of, or that is made of it.
pub(super) fn content_text(manifest: &Manifest) -> String {
    plain(&format!("sha256 of what is in it: {}", manifest.content_sha256))
}

/// Whose backup it is, and of when.
pub(crate) fn about(manifest: &Manifest) -> String {
    let about = &manifest.about;
    plain(&format!(
        "made at {} on {:?} by thalamus-edge {}, when the audit trail ended in {}",
        time_text(about.created_ms),
        about.node_name,
        manifest.version,
        manifest.audit_head
    ))
}

/// What a store holds, by name.
pub(crate) fn numbers(summary: &Summary) -> Vec<(String, String)> {
    let mut numbers: Vec<_> =
        summary.records.iter().map(|(kind, count)| (kind.clone(), count.to_string())).collect();
    let technicians = match summary.local_accounts.len() {
        0 => "0".to_owned(),
        count => format!("{count} ({})", summary.local_accounts.join(", ")),
    };
    numbers.push(("technicians' accounts".to_owned(), technicians));
    numbers.push(("people with roles granted here".to_owned(), summary.granted_accounts.to_string()));
    numbers.push(("edits the centre has not got".to_owned(), summary.pending.to_string()));
    numbers.push(("open conflicts".to_owned(), summary.conflicts_open.to_string()));
    numbers.into_iter().map(|(name, count)| (plain(&name), plain(&count))).collect()
}

pub(crate) fn keys(path: Option<&Path>) -> Result<Option<Keys>, Failure> {
    path.map(Keys::read).transpose().map_err(failure)
}

/// With the exit code that belongs to it.
pub(crate) fn failure(error: BackupError) -> Failure {
    let code = match error {
        BackupError::Running(_) => EXIT_REFUSED,
        BackupError::KeyNeeded(_) | BackupError::NotVerified { .. } | BackupError::NoKeys(_) => EXIT_USAGE,
        _ => EXIT_FAILED,
    };
    Failure { code, message: error.to_string() }
}

fn keygen() -> Done {
    let (public, secret) = backup::new_pair();
    Done::text(format!(
        "# The secret key of backups. Keep it in two places that are not this machine: it is shown only now, and\n\
         # without it no encrypted backup can be read. On this machine only the public key is needed:\n\
         #     [backup]\n#     recipients = [\"{public}\"]\n{}",
        *secret
    ))
}
