//! Floor 5. The `conflicts` command.

use axum::http::Method;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::conflict_batch::{self, BulkArgs};
use super::conflict_text::{conflict_row, conflict_text, field_name, if_same, record_name};
use crate::cli::control::{Client, Missing, OF_QUESTIONS, segment};
use crate::cli::terminal::show::{cell, plain, table};
use crate::cli::terminal::{Done, EXIT_REFUSED, Failure};
use crate::config::Config;
use crate::domain::json::parse;

#[derive(Debug, Subcommand)]
pub(crate) enum ConflictsCommand {
    /// List what waits for a decision: values that both sides changed, and people who may be two.
    List {
        /// Also those that have been decided.
        #[arg(long)]
        all: bool,
        /// Print the API's JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one conflict with its values, or with its two people.
    Show {
        id: String,
        /// Print the API's JSON.
        #[arg(long)]
        json: bool,
    },
    /// Decide a conflict, or with --all many of them.
    ///
    /// With --all each conflict is decided as if alone: with the same rules and an entry of its own in the audit trail, and
    /// only if the record still holds what the conflict left standing. If it is interrupted, what was decided stays decided,
    /// and the same command goes on. Whether two people are one, and which of two records is to have an id, is never
    /// decided this way: decide those one by one.
    Resolve(ResolveArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ResolveArgs {
    /// The conflict, as `conflicts list` shows it.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    id: Option<String>,
    #[command(flatten)]
    decision: DecisionArgs,
    #[command(flatten)]
    bulk: BulkArgs,
    /// The version that you decide on, from `conflicts show`; needed once the value has moved on.
    #[arg(long, value_name = "ETAG", conflicts_with = "all")]
    etag: Option<String>,
    /// Print the API's JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct DecisionArgs {
    /// The side whose value is to stand; of two records under one id also `new-id`.
    #[arg(long)]
    take: Option<SideArg>,
    /// Another value, as JSON.
    #[arg(long, value_name = "JSON", value_parser = json_value, conflicts_with = "all")]
    value: Option<Value>,
    /// The two people under one account are one: unite their records.
    #[arg(long, conflicts_with = "all")]
    same: bool,
    /// They are two: the person of this node gets this account, with their records (`conflicts show` counts them).
    #[arg(long, value_name = "ACCOUNT", conflicts_with = "all")]
    new_id: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SideArg {
    Local,
    Central,
    /// Of two records under one id, the one of this node gets an id of its own.
    #[value(name = "new-id")]
    NewId,
}

fn json_value(text: &str) -> Result<Value, String> {
    parse(text.as_bytes()).map_err(|error| error.to_string())
}

pub(crate) async fn run(config: Config, command: ConflictsCommand) -> anyhow::Result<Done> {
    if let ConflictsCommand::Resolve(ResolveArgs { id: None, decision, .. }) = &command {
        decision.side_of_all()?;
    }
    let client = Client::connect(&config, Missing::Refuse).await?;
    match command {
        ConflictsCommand::List { all, json } => {
            let path = if all { "/sync/conflicts" } else { "/sync/conflicts?status=open" };
            let found = client.get(path).await?.accepted()?;
            let damaged = client.unreadable(&OF_QUESTIONS).await?;
            if json {
                return Ok(Done::json(&found).lacking(damaged, true));
            }
            let rows: Vec<_> =
                found.as_array().map_or(&[][..], |found| found).iter().map(conflict_row).collect();
            if rows.is_empty() {
                return Ok(Done::text("no conflicts").lacking(damaged, false));
            }
            Ok(Done::text(table(["ID", "RECORD", "FIELD", "STANDS", "STATUS", "FOUND", "CHANGED BY"], &rows))
                .lacking(damaged, false))
        }
        ConflictsCommand::Show { id, json } => {
            let conflict = client.get(&format!("/sync/conflicts/{}", segment(&id))).await?.accepted()?;
            Ok(if json { Done::json(&conflict) } else { Done::text(conflict_text(&conflict)) })
        }
        ConflictsCommand::Resolve(args) => resolve(&client, args).await,
    }
}

impl DecisionArgs {
    /// The side that `--all` takes.
    fn side_of_all(&self) -> Result<&'static str, Failure> {
        match self.take {
            Some(SideArg::Local) => Ok("local"),
            Some(SideArg::Central) => Ok("central"),
            _ => Err(Failure::usage("--all: take local or central")),
        }
    }
}

async fn resolve(client: &Client, args: ResolveArgs) -> anyhow::Result<Done> {
    let Some(id) = args.id else {
        let side = args.decision.side_of_all()?;
        return conflict_batch::resolve_all(client, &args.bulk, side, args.json).await;
    };
    let body = match args.decision {
        DecisionArgs { take: Some(SideArg::Local), .. } => json!({"take": "local"}),
        DecisionArgs { take: Some(SideArg::Central), .. } => json!({"take": "central"}),
        DecisionArgs { take: Some(SideArg::NewId), .. } => json!({"take": "new_id"}),
        DecisionArgs { same: true, .. } => json!({"decide": "same"}),
        DecisionArgs { new_id: Some(id), .. } => json!({"decide": "new_id", "id": id}),
        DecisionArgs { value, .. } => json!({"value": value}),
    };
    // The quotes of an entity tag are hard to get through a shell.
    let tag = args.etag.as_deref().map(|tag| format!("\"{}\"", tag.trim_matches('"')));
    let path = format!("/sync/conflicts/{}/resolution", segment(&id));
    let answer = client.send(Method::POST, &path, Some(&body), tag.as_deref()).await?;
    let resolved = answer.accepted().map_err(|mut failure| {
        if failure.code == EXIT_REFUSED {
            failure.message += &format!(
                ": look again with `thalamus-edge conflicts show {}`, then decide with the `--etag` that it shows",
                plain(&id)
            );
        }
        failure
    })?;
    if args.json {
        return Ok(Done::json(&resolved));
    }
    let what = match cell(&resolved["new_id"]) {
        new if new.is_empty() => field_name(&resolved),
        new => format!("is {new} now"),
    };
    let mut text = format!("resolved: {} {what}", record_name(&resolved)).trim_end().to_owned();
    for sentence in if_same(&resolved) {
        text.push_str(&format!("\n  {sentence}"));
    }
    Ok(Done::text(text))
}
