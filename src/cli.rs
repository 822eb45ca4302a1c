//! Floor 5. The command line: one function per command.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};

use crate::app::App;
use crate::config::{self, Config, Overrides};
use crate::demo;

/// Exit codes that scripts may rely on.
const EXIT_FAILED: u8 = 1;

/// A GNU Health federation node that works without a network.
#[derive(Debug, Parser)]
#[command(name = "thalamus-edge", version, max_term_width = 100)]
struct Cli {
    /// Configuration file [default: /etc/thalamus-edge/config.toml if it exists].
    #[arg(long, global = true, env = "THALAMUS_EDGE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API and synchronize on schedule.
    Serve(ServeArgs),
    /// Check the configuration and the access rules.
    Check,
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
    let cli = Cli::parse();
    match execute(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("thalamus-edge: {error:#}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn execute(cli: Cli) -> anyhow::Result<ExitCode> {
    let load = |overrides: &Overrides| Config::load(cli.config.as_deref(), config::environment(), overrides);
    match &cli.command {
        Command::Serve(args) => {
            let overrides = Overrides { listen: args.listen.clone(), demo: args.demo };
            runtime()?.block_on(serve(load(&overrides)?, args.demo))
        }
        Command::Check => check(&load(&Overrides::default())?),
        Command::Version => {
            println!("thalamus-edge {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the runtime could not be started")
}

async fn serve(config: Config, is_demo: bool) -> anyhow::Result<ExitCode> {
    start_log();
    let app = App::open(config)?;
    if is_demo {
        if app.node.sync.is_configured() {
            bail!("--demo is not for a node with a centre");
        }
        let uid = rustix::process::getuid().as_raw();
        if demo::fill(&app.node.store, uid).await? {
            eprintln!("demo records added");
        } else {
            eprintln!("--demo: the store has records already and was left as it is");
        }
    }
    app.serve().await?;
    Ok(ExitCode::SUCCESS)
}

fn start_log() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("THALAMUS_EDGE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
}

fn check(config: &Config) -> anyhow::Result<ExitCode> {
    let (_, warnings) = config.acl()?;
    config.centre()?;
    for warning in warnings {
        println!("warning: access rules: {warning}");
    }
    println!("the configuration and the access rules are in order");
    Ok(ExitCode::SUCCESS)
}
