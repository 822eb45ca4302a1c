//! Floor 5. `restore`: a backup in the place of a stopped node's store. Nothing happens before it was read to its
//! end, and before somebody has agreed to what goes back.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::Args;

use super::backup::{about, checksum_text, content_text, failure, keys, numbers};
use crate::app::{make_data_dir, store_file, store_options};
use crate::backup::{self, BackupError, Present, Target};
use crate::cli::terminal::show::{plain, table};
use crate::cli::terminal::{Done, EXIT_REFUSED, Failure};
use crate::config::Config;
use crate::domain::access::Actor;
use crate::store::{Manifest, SealError, StoreError};

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    #[arg(value_name = "FILE")]
    backup: PathBuf,
    /// Only check the backup and show what would go back.
    #[arg(long)]
    dry_run: bool,
    /// File with the secret key, for an encrypted backup.
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Do not ask.
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
}

const WHAT_GOES_BACK: &str = "Everything goes back to that moment: records, and with them accounts, passwords and \
     roles. Who was closed since then can log in again, and who has changed a password has the old one; with \
     offline_login_days people are let in so long after the last complete round of then. What the centre has got comes back with the next rounds; edits that it has not got are only in the store that is kept.";

/// What was encrypted does not become readable in passing.
const NO_KEY: &str = "the store that is there is encrypted, and [store] key_file names no key, so the records would lie in the \
     clear. Name the file of its key; if that is lost, make another one (thalamus-edge db keygen FILE) and name it; if they are \
     to be readable without a key, move the present store away first";

pub(crate) fn run(config: &Config, args: &RestoreArgs) -> anyhow::Result<Done> {
    let keys = keys(args.identity.as_deref())?;
    let file = store_file(&config.data_dir);
    let key = config.store_key()?;
    let target = Target {
        store_file: &file,
        key: key.as_ref(),
        options: store_options(config),
        by: Actor::Operator(rustix::process::getuid().as_raw()),
    };
    let present = match Present::hold(&target) {
        // Looking does no harm to a node that runs.
        Err(BackupError::Running(_)) if args.dry_run => None,
        present => Some(present.map_err(failure)?),
    };
    let checked = backup::check(&args.backup, keys.as_ref()).map_err(failure)?;
    let Some(manifest) = &checked.manifest else {
        return Err(failure(BackupError::KeyNeeded(args.backup.clone())).into());
    };
    let mut text = format!("{}\nthe backup is whole, {}\n\n", checksum_text(&checked), about(manifest));
    text += &comparison(manifest, present.as_ref());
    if args.dry_run {
        return Ok(Done::text(text + "\n\nnothing was changed"));
    }
    if let Some(Present::Unreadable { reason: StoreError::Sealed(SealError::NoKey(_)), .. }) = &present {
        let message = format!("nothing was changed: {}: {NO_KEY}", file.display());
        return Err(Failure { code: EXIT_REFUSED, message }.into());
    }
    eprintln!("{text}\n\n{WHAT_GOES_BACK}");
    if !args.yes {
        ask()?;
    }
    make_data_dir(&config.data_dir)?;
    let present = present.unwrap_or(Present::Absent);
    let restored = backup::restore(&args.backup, keys.as_ref(), &target, present).map_err(failure)?;
    let kept = restored.kept.map_or_else(String::new, |kept| {
        format!("\nthe store that was there is kept as {}: remove it once all is well", kept.display())
    });
    // The new store was hashed as it gives its rows back, and had this sum.
    let content = content_text(&restored.manifest);
    Ok(Done::text(plain(&format!("{} is what the backup holds\n{content}{kept}", file.display()))))
}

/// What there is now beside what there will be.
fn comparison(manifest: &Manifest, present: Option<&Present>) -> String {
    let after = numbers(&manifest.summary);
    let (before, note) = match present {
        Some(Present::Readable { summary, node_id, .. }) => {
            let is_other = node_id.is_some() && *node_id != manifest.about.node_id;
            let note = if is_other { "note: at the centre, the present store is another node" } else { "" };
            (numbers(summary), note.to_owned())
        }
        Some(Present::Absent) => (Vec::new(), "there is no store yet".to_owned()),
        Some(Present::Unreadable { reason, .. }) => {
            (Vec::new(), format!("the present store cannot be read: {reason}"))
        }
        None => (Vec::new(), "a node is running on the present store; stop it before the restore".to_owned()),
    };
    let mut names: Vec<&String> = after.iter().chain(&before).map(|(name, _)| name).collect();
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(*name));
    let of = |numbers: &[(String, String)], name: &String| {
        let found = numbers.iter().find(|(of, _)| of == name).map(|(_, count)| count.clone());
        found.unwrap_or_else(|| if numbers.is_empty() { String::new() } else { "0".to_owned() })
    };
    let rows: Vec<_> =
        names.iter().map(|name| [(*name).clone(), of(&before, name), of(&after, name)]).collect();
    let table = table(["", "NOW", "BACKUP"], &rows);
    if note.is_empty() { table } else { format!("{table}\n\n{}", plain(&note)) }
}

/// Asks on the terminal whether to go on.
fn ask() -> Result<(), Failure> {
    let refused = |message: &str| Failure { code: EXIT_REFUSED, message: message.to_owned() };
    if !io::stdin().is_terminal() {
        return Err(refused("nothing was changed: there is no terminal to ask on, and --yes was not given"));
    }
    eprint!("\nType yes to go on: ");
    let _ = io::stderr().flush();
    let mut answer = String::new();
    match io::stdin().lock().read_line(&mut answer) {
        Ok(_) if answer.trim() == "yes" => Ok(()),
        _ => Err(refused("nothing was changed")),
    }
}
