//! Floor 5. The `emergency` commands: whose records were opened in an emergency, and that somebody has looked at it.

use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::control::{Client, Missing};
use crate::cli::terminal::show::{cell, table};
use crate::cli::terminal::{Done, row_number};
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(crate) enum EmergencyCommand {
    /// List the emergencies that nobody has reviewed.
    List {
        /// Print the API's JSON.
        #[arg(long)]
        json: bool,
    },
    /// Answer for having looked at one; what was read in it is in the audit trail.
    Review {
        /// As `emergency list` shows it.
        #[arg(value_parser = row_number)]
        id: u64,
    },
}

pub(crate) async fn run(config: &Config, command: EmergencyCommand) -> anyhow::Result<Done> {
    let client = Client::connect(config, Missing::Refuse).await?;
    match command {
        EmergencyCommand::List { json } => {
            let found = client.get("/emergencies").await?.accepted()?;
            let damaged = client.unreadable(&[("emergency", None)]).await?;
            if json {
                return Ok(Done::json(&found).lacking(damaged, true));
            }
            let rows: Vec<_> = found.as_array().map_or(&[][..], |found| found).iter().map(row).collect();
            if rows.is_empty() {
                return Ok(Done::text("no emergency waits for a review").lacking(damaged, false));
            }
            Ok(Done::text(table(["ID", "WHO", "WHOSE", "WHEN", "STATE", "REASON"], &rows))
                .lacking(damaged, false))
        }
        EmergencyCommand::Review { id } => {
            client.post(&format!("/emergencies/{id}/review"), &json!({})).await?.accepted()?;
            Ok(Done::text(format!("reviewed: emergency {id} is closed, and the audit trail says by whom")))
        }
    }
}

fn row(found: &Value) -> [String; 6] {
    let state = if found["open"] == true { "open" } else { "over" };
    let [id, who, person, at, reason] =
        ["id", "who", "person", "at", "reason"].map(|name| cell(&found[name]));
    [id, who, person, at, state.to_owned(), reason]
}
