//! Floor 5. The `trash` commands: what was deleted, and putting it back.

use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::cli::control::{Client, Missing};
use crate::cli::terminal::show::{cell, facts, plain, table};
use crate::cli::terminal::{Done, collection_names, row_number};
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(crate) enum TrashCommand {
    /// List deleted records, the last one first.
    List(ListArgs),
    /// Show one deleted record: whose it was, who deleted it, when, and whether the centre knows.
    Show {
        /// As `trash list` shows it.
        #[arg(value_parser = row_number)]
        id: u64,
        /// Print the API's JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a record of a deleted one again.
    Restore {
        /// As `trash list` shows it.
        #[arg(value_parser = row_number)]
        id: u64,
        /// Print the API's JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only records of this collection, as `people` or `pols`.
    #[arg(long, value_parser = collection_names())]
    collection: Option<String>,
    /// Only records of this person.
    #[arg(long, value_name = "ACCOUNT")]
    person: Option<String>,
    /// How many.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print the API's JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(config: &Config, command: TrashCommand) -> anyhow::Result<Done> {
    let client = Client::connect(config, Missing::Refuse).await?;
    match command {
        TrashCommand::List(args) => list(&client, &args).await,
        TrashCommand::Show { id, json } => {
            let found = client.get(&format!("/trash/{id}")).await?.accepted()?;
            Ok(if json { Done::json(&found) } else { Done::text(shown(&found)) })
        }
        TrashCommand::Restore { id, json } => {
            let restored = client.post(&format!("/trash/{id}/restore"), &json!({})).await?.accepted()?;
            Ok(if json { Done::json(&restored) } else { Done::text(restored_text(&restored)) })
        }
    }
}

async fn list(client: &Client, args: &ListArgs) -> anyhow::Result<Done> {
    let limit = args.limit as usize;
    let mut found = Vec::new();
    let mut next = Some(first_page(args));
    while let Some(path) = next.as_ref().filter(|_| found.len() < limit) {
        let answer = client.get(path).await?;
        next.clone_from(&answer.next);
        if let Value::Array(rows) = answer.accepted()? {
            found.extend(rows);
        }
    }
    // The last page may hold more than is wanted.
    let is_cut = next.is_some() || found.len() > limit;
    found.truncate(limit);
    let damaged = client.unreadable(&[("trash", args.collection.as_deref())]).await?;
    if args.json {
        return Ok(Done::json(&Value::Array(found)).lacking(damaged, true));
    }
    if found.is_empty() {
        return Ok(Done::text("no deleted records").lacking(damaged, false));
    }
    let rows: Vec<_> = found.iter().map(row).collect();
    let mut text = table(["ID", "RECORD", "WHOSE", "STATE", "DELETED BY", "WHEN"], &rows);
    if is_cut {
        text += &format!("\nThere are older ones; --limit {} shows more.", args.limit.saturating_mul(10));
    }
    Ok(Done::text(text).lacking(damaged, false))
}

fn first_page(args: &ListArgs) -> String {
    let mut path = format!("/trash?limit={}", args.limit);
    for (name, value) in [("collection", &args.collection), ("person", &args.person)] {
        if let Some(value) = value {
            path += &format!("&{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
        }
    }
    path
}

fn record_name(row: &Value) -> String {
    format!("{}/{}", cell(&row["collection"]), cell(&row["record"]))
}

fn row(row: &Value) -> [String; 6] {
    let [id, owner, state, by, at] =
        ["id", "owner", "state", "deleted_by", "deleted_at"].map(|name| cell(&row[name]));
    [id, record_name(row), owner, state, by, at]
}

fn shown(row: &Value) -> String {
    let state = match row["state"].as_str() {
        Some("pending") => "pending: the centre does not know of the delete yet".to_owned(),
        Some("done") => "done: the record is deleted at the centre too, or was never there".to_owned(),
        Some("void") => "void: the delete was undone".to_owned(),
        _ => cell(&row["state"]),
    };
    let content = match row.get("document") {
        Some(document) => plain(&document.to_string()),
        None => "(not shown to commands: those who may read the record see it at /trash/ID)".to_owned(),
    };
    facts(&[
        ("id", cell(&row["id"])),
        ("record", record_name(row)),
        ("belongs to", cell(&row["owner"])),
        ("state", state),
        ("deleted by", cell(&row["deleted_by"])),
        ("deleted", cell(&row["deleted_at"])),
        ("content", content),
    ])
}

fn restored_text(row: &Value) -> String {
    let mut text = format!("restored: {}", record_name(row));
    if row["collection"] == "people" {
        text += "\nThe account is as it was when it was deleted, which usually means closed. To open it: thalamus-edge \
                 user enable ";
        text += &cell(&row["record"]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_shown_is_said_to_be() {
        let row = json!({"id": 7, "collection": "people", "record": "ANA\u{1b}", "state": "done"});
        let text = shown(&row);
        assert!(text.contains("record   people/ANA\\u{1b}\n"), "{text}");
        assert!(text.contains("content  (not shown to commands"), "{text}");
        let with_body = json!({"state": "void", "document": {"name": "x\u{202e}"}});
        assert!(shown(&with_body).contains("content  {\"name\":\"x\\u{202e}\"}"), "{}", shown(&with_body));
    }
}
