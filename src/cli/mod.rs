//! Floor 5. The command line: one function per command.
//!
//! Commands about a node are requests to its API as the operator of the machine, see `control`; what they
//! answer is text for people, or the API's JSON with `--json`.

mod audit;
mod backup;
mod check;
mod clear_copies;
mod closed_accounts;
mod conflict_batch;
mod control;
mod db;
mod doctor;
mod emergency;
mod export;
mod export_content;
mod export_kept;
mod import;
mod log;
pub mod ndjson;
mod reconcile;
mod restore;
mod setup;
mod show;
mod suggest;
mod trash;
mod users;

use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};

use crate::app::{App, AppError};
use crate::config::{self, ConfigError, Loaded, Overrides};
use crate::demo;
use crate::domain::record::Kind;
use crate::files::is_no_room;
use control::ControlError;
use log::start_log;
use show::plain;

// Exit codes that scripts may rely on; 0 is success.
/// The command failed.
const EXIT_FAILED: u8 = 1;
/// What the command was told makes no sense: arguments or configuration. Also clap's own code.
const EXIT_USAGE: u8 = 2;
/// A person must decide first: the round is halted, or what was decided on has changed.
const EXIT_REFUSED: u8 = 3;
/// The centre cannot be reached.
const EXIT_OFFLINE: u8 = 4;

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
    Sync(reconcile::SyncCommand),
    /// What waits for a decision: values that both sides changed, and people who may be two.
    #[command(subcommand)]
    Conflicts(reconcile::ConflictsCommand),
    /// Records that the centre refused.
    #[command(subcommand)]
    Dead(reconcile::DeadCommand),
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

/// What a command that came to its end has to say.
struct Done {
    /// For standard output.
    text: String,
    code: u8,
}

impl Done {
    fn text(text: impl Into<String>) -> Done {
        Done { text: text.into(), code: 0 }
    }

    fn json(value: &serde_json::Value) -> Done {
        Done::text(format!("{value:#}"))
    }

    fn with_code(self, code: u8) -> Done {
        Done { code, ..self }
    }

    /// A list that lacks rows which are damaged says so, and is a failure. What programs read stays as it is.
    fn lacking(mut self, damaged: Vec<String>, is_json: bool) -> Done {
        let said = match damaged.len() {
            0 => return self,
            1 => "One row is damaged and not listed: `thalamus-edge doctor` says what to do".to_owned(),
            count => {
                format!("{count} rows are damaged and not listed: `thalamus-edge doctor` says what to do")
            }
        };
        let said = format!("{said}\n  {}", damaged.join("\n  "));
        if is_json {
            eprintln!("thalamus-edge: {said}");
        } else {
            self.text += &format!("\n\n{said}");
        }
        self.with_code(EXIT_FAILED)
    }
}

/// An error with an exit code of its own; others exit with 1.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn usage(message: impl Into<String>) -> Failure {
        Failure { code: EXIT_USAGE, message: message.into() }
    }
}

/// Runs the command line of the process.
pub fn run() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let cli = suggest::parse(&arguments).unwrap_or_else(|error| error.exit());
    let done = execute(cli).and_then(|done| print(&done.text).map(|()| done.code));
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let message = format!("{error:#}");
            let advice = show::denied_advice(&message).map(|advice| format!(": {advice}"));
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
        return runtime.block_on(serve(loaded, args.demo));
    }
    if let Command::Doctor { json } = cli.command {
        return runtime.block_on(doctor::run(loaded, cli.config, json));
    }
    let config = loaded.config;
    runtime.block_on(async {
        match cli.command {
            Command::User(command) => users::run(config, command).await,
            Command::Sync(command) => reconcile::sync(config, command).await,
            Command::Conflicts(command) => reconcile::conflicts(config, command).await,
            Command::Dead(command) => reconcile::dead(config, command).await,
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

async fn serve(loaded: Loaded, is_demo: bool) -> anyhow::Result<Done> {
    let examined = check::startable(&loaded)?;
    for warning in examined.logged_before_start() {
        tracing::warn!("{}", plain(&warning));
    }
    let is_told_where = loaded.has("server.listen");
    let config = loaded.config;
    if is_demo && !config.is_centre_local()? {
        let message = "--demo: the centre (central.uri) is not on this machine, and demo people must not reach a real one";
        return Err(Failure::usage(message).into());
    }
    let mut app = App::open(config).map_err(start_failure)?;
    if is_demo {
        let uid = rustix::process::getuid().as_raw();
        // The demo is the first to write, so it finds what every client would find.
        let reserve =
            examined.faults.iter().find(|fault| fault.key.as_deref() == Some("store.reserve_bytes"));
        let filled = demo::fill(app.node.store.unguarded(), uid).await;
        if let (Err(_), Some(fault)) = (&filled, reserve) {
            return Err(ConfigError::Faults(vec![fault.clone()]).into());
        }
        if filled? {
            eprintln!("--demo: demo records added");
            eprintln!("--demo: their passwords are public: everybody who reaches this node is root on it");
        } else {
            eprintln!("--demo: the store has records already and was left as it is");
            eprintln!("--demo: if they are the demo's, their passwords are public");
        }
    }
    // As long as everybody knows how to log in, nobody but this machine gets to the login, unless somebody decided so.
    let listen = &mut app.config.server.listen;
    let public = {
        // Let go at once: as long as there is a view, its pages are not used again.
        let view = app.node.store.read()?;
        demo::accounts_with_public_password(&view)
    };
    if !public.is_empty() && !is_told_where && !listen.ip().is_loopback() {
        listen.set_ip(Ipv4Addr::LOCALHOST.into());
        tracing::warn!(
            "listening on {listen} only, because of accounts of the demo with public passwords; [server] listen changes that"
        );
    }
    app.serve().await.map_err(start_failure)?;
    Ok(Done::text(""))
}

/// What keeps a node from starting until somebody changes the configuration or what it points to ends with the code of a
/// wrong configuration, whether `check` can find it or not: starting again would not help. What may pass does not.
fn start_failure(error: AppError) -> anyhow::Error {
    let is_lasting = match &error {
        AppError::Config(_) | AppError::Listen { .. } | AppError::Tls(_) | AppError::Schedule(_) => true,
        AppError::Path { cause, .. } => !is_no_room(cause),
        AppError::Store { cause, .. } => cause.is_lasting(),
        AppError::System(_) => false,
    };
    match is_lasting {
        true => Failure::usage(format!("{error:#}")).into(),
        false => error.into(),
    }
}

/// Reads the number of a row, as the lists show it.
fn row_number(text: &str) -> Result<u64, &'static str> {
    text.parse().map_err(|_| "must be a number, as the list shows it")
}

/// The names of the collections, for arguments: others are refused with these.
fn collection_names() -> PossibleValuesParser {
    PossibleValuesParser::new(Kind::ALL.map(|kind| kind.schema().collection))
}
