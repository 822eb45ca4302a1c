//! Floor 5. The command line: one function per command.
//!
//! Commands about a node are requests to its API as the operator of the machine, see `control`; what they
//! answer is text for people, or the API's JSON with `--json`.
//!
//! | room | commands |
//! |---|---|
//! | `terminal` | none: what all share |
//! | `control` | none: requests to the node's API |
//! | `check`, `serve` | `check`, `serve` |
//! | `admin` | `user`, `audit`, `emergency`, `trash` |
//! | `sync` | `sync`, `conflicts`, `dead` |
//! | `store` | `backup`, `restore`, `db` |
//! | `archive`, `export`, `import` | `export`, `import` |
//! | `doctor` | `doctor` |
//! | `setup` | `setup` |

mod admin;
mod archive;
mod check;
mod control;
mod doctor;
mod export;
mod import;
mod serve;
mod setup;
mod store;
mod sync;
mod terminal;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

pub use archive::ndjson;

use crate::app::AppError;
use crate::config::{self, ConfigError, Loaded, Overrides};
use admin::{audit, emergency, trash, users};
use control::ControlError;
use store::{backup, db, restore};
use sync::{conflicts, refused, rounds};
use terminal::show::{denied_advice, plain};
use terminal::{Done, EXIT_FAILED, EXIT_REFUSED, EXIT_USAGE, Failure, start_log};

/// How long a thread for blocking work is kept without any. Such threads take work in turn: with a round every few
/// seconds, threads that are kept longer than that would never end, each of them with its stack and its part of the
/// allocator.
const IDLE_THREAD: Duration = Duration::from_secs(1);

/// A GNU Health federation node that works without a network.
#[derive(Debug, Parser)]
#[command(name = "thalamus-edge", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    /// Configuration file [default: /etc/thalamus-edge/config.toml if it exists].
    #[arg(long, global = true, env = "THALAMUS_EDGE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str =
    "Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 a person must decide first, 4 offline.";

const LOG_VARIABLES: &str = "The log goes to standard error. THALAMUS_EDGE_LOG=debug (error, warn, info, trace) says more \
     or less, THALAMUS_EDGE_LOG_FORMAT=json writes one object a line. SIGHUP reloads the access rules and the certificate.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API and synchronize on schedule.
    #[command(after_help = LOG_VARIABLES)]
    Serve(ServeArgs),
    /// Check the configuration and everything that it points to: access rules, certificate, keys, directories.
    Check {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Look at everything that may need somebody, and say what to do about it.
    Doctor {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write the configuration and make the first administrator's account. Run again, it changes only what it is
    /// told anew.
    Setup(setup::SetupArgs),
    /// Accounts: people who log in here, and technicians of this node.
    #[command(subcommand)]
    User(users::UserCommand),
    /// The reconciliation with the centre.
    #[command(subcommand)]
    Sync(rounds::SyncCommand),
    /// What waits for a decision: values that both sides changed, and people who may be two.
    #[command(subcommand)]
    Conflicts(conflicts::ConflictsCommand),
    /// Records that the centre refused.
    #[command(subcommand)]
    Dead(refused::DeadCommand),
    /// Deleted records, and putting them back.
    #[command(subcommand)]
    Trash(trash::TrashCommand),
    /// Backups of everything that this node holds.
    #[command(subcommand)]
    Backup(backup::BackupCommand),
    /// Put a backup in the place of a stopped node's store, which is kept.
    Restore(restore::RestoreArgs),
    /// The file of a stopped node's store.
    #[command(subcommand)]
    Db(db::DbCommand),
    /// Import records into a stopped node: what Thalamus, its API, PostgreSQL, MongoDB and `export` write.
    Import(import::ImportArgs),
    /// Export all records of a stopped node as MongoDB extended JSON, one file per collection.
    Export(export::ExportArgs),
    /// The audit trail: who has read and changed what.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Records that were opened in an emergency, and their review.
    #[command(subcommand)]
    Emergency(emergency::EmergencyCommand),
    /// Show the version.
    Version,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Fill an empty store with demo records.
    #[arg(long)]
    demo: bool,
    /// Address and port to listen on instead of the configured one.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
}

/// Runs the command line of the process.
pub fn run() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let cli = terminal::parse(&arguments).unwrap_or_else(|error| error.exit());
    let done = execute(cli).and_then(|done| print(&done.text).map(|()| done.code));
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let message = format!("{error:#}");
            let advice = denied_advice(&message).map(|advice| format!(": {advice}"));
            eprintln!("thalamus-edge: {}{}", plain(&message), advice.unwrap_or_default());
            ExitCode::from(exit_code(&error))
        }
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    let is_config = |error: &anyhow::Error| {
        error.is::<ConfigError>()
            || matches!(error.downcast_ref(), Some(AppError::Config(_)))
            || matches!(error.downcast_ref(), Some(ControlError::App(AppError::Config(_))))
    };
    match error.downcast_ref::<Failure>() {
        Some(failure) => failure.code,
        None if matches!(error.downcast_ref(), Some(ControlError::Held(_))) => EXIT_REFUSED,
        None if is_config(error) => EXIT_USAGE,
        None => EXIT_FAILED,
    }
}

/// Writes to standard output; a reader that has seen enough is no error.
fn print(text: &str) -> anyhow::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("standard output"),
    }
}

fn execute(cli: Cli) -> anyhow::Result<Done> {
    if let Command::Version = cli.command {
        return Ok(version());
    }
    let mut overrides = Overrides::default();
    if let Command::Serve(args) = &cli.command {
        overrides = Overrides { listen: args.listen.clone(), demo: args.demo };
    }
    let is_serving = matches!(cli.command, Command::Serve(_));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_keep_alive(IDLE_THREAD)
        .build()
        .context("the runtime could not be started")?;
    if let Command::Setup(args) = cli.command {
        // There may be no configuration yet.
        start_log("error");
        return runtime.block_on(setup::run(cli.config, args));
    }
    if let Command::Check { json } = cli.command {
        start_log("error");
        return Ok(check::run(cli.config.as_deref(), json)?);
    }
    let loaded = Loaded::load(cli.config.as_deref(), config::environment(), &overrides)?;
    start_log(if is_serving { "info" } else { "error" });
    if let Command::Serve(args) = cli.command {
        return runtime.block_on(serve::serve(loaded, args.demo));
    }
    if let Command::Doctor { json } = cli.command {
        return runtime.block_on(doctor::run(loaded, cli.config, json));
    }
    let config = loaded.config;
    runtime.block_on(async {
        match cli.command {
            Command::User(command) => users::run(config, command).await,
            Command::Sync(command) => rounds::run(config, command).await,
            Command::Conflicts(command) => conflicts::run(config, command).await,
            Command::Dead(command) => refused::run(config, command).await,
            Command::Trash(command) => trash::run(&config, command).await,
            Command::Backup(command) => backup::run(config, command).await,
            Command::Restore(args) => restore::run(&config, &args),
            Command::Db(command) => db::run(&config, &command).await,
            Command::Import(args) => import::run(config, args).await,
            Command::Export(args) => export::run(config, &args).await,
            Command::Audit(command) => audit::run(&config, command).await,
            Command::Emergency(command) => emergency::run(&config, command).await,
            // Done above.
            Command::Setup(_)
            | Command::Serve(_)
            | Command::Check { .. }
            | Command::Doctor { .. }
            | Command::Version => Ok(version()),
        }
    })
}

fn version() -> Done {
    let version = concat!("thalamus-edge ", env!("CARGO_PKG_VERSION"));
    if cfg!(feature = "failpoints") {
        return Done::text(format!("{version}\nbuilt with: failpoints (for tests only)"));
    }
    Done::text(version)
}
