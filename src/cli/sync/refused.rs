//! Floor 5. The `dead` command: records that the centre refused.

use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::control::{Client, Missing, segment};
use crate::cli::terminal::Done;
use crate::cli::terminal::show::{cell, plain, table};
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(crate) enum DeadCommand {
    /// List the records that the centre refused, or that could not be taken from it.
    List {
        /// Print the API's JSON.
        #[arg(long)]
        json: bool,
    },
    /// Try one again in the next round.
    Retry {
        /// As `dead list` shows it: COLLECTION:RECORD.
        id: String,
    },
    /// Give up what was changed here: the centre's version takes its place, the local one goes to the trash.
    TakeCentral {
        /// As `dead list` shows it: COLLECTION:RECORD.
        id: String,
    },
    /// Put the local version into the trash. If the centre has the record, its version takes the place.
    Discard {
        /// As `dead list` shows it: COLLECTION:RECORD.
        id: String,
    },
}

pub(crate) async fn run(config: Config, command: DeadCommand) -> anyhow::Result<Done> {
    let client = Client::connect(&config, Missing::Refuse).await?;
    match command {
        DeadCommand::List { json } => {
            let letters = client.get("/sync/dead").await?.accepted()?;
            let damaged = client.unreadable(&[("dead", None)]).await?;
            if json {
                return Ok(Done::json(&letters).lacking(damaged, true));
            }
            let rows: Vec<_> =
                letters.as_array().map_or(&[][..], |letters| letters).iter().map(dead_row).collect();
            if rows.is_empty() {
                return Ok(Done::text("no refused records").lacking(damaged, false));
            }
            Ok(Done::text(table(["ID", "DIRECTION", "SINCE", "REASON", "WAYS OUT"], &rows))
                .lacking(damaged, false))
        }
        DeadCommand::Retry { id } => way_out(&client, &id, "retry", "is tried again in the next round").await,
        DeadCommand::TakeCentral { id } => {
            way_out(&client, &id, "take-central", "has the centre's version; the local one is in the trash")
                .await
        }
        DeadCommand::Discard { id } => way_out(&client, &id, "discard", "is discarded to the trash").await,
    }
}

/// Takes a way out for one refused record.
async fn way_out(client: &Client, id: &str, way: &str, done: &str) -> anyhow::Result<Done> {
    client.post(&format!("/sync/dead/{}/{way}", segment(id)), &json!({})).await?.accepted()?;
    Ok(Done::text(format!("{} {done}", plain(id))))
}

fn dead_row(letter: &Value) -> [String; 5] {
    let [id, direction, at, reason] = ["id", "direction", "at", "reason"].map(|name| cell(&letter[name]));
    let ways = letter["ways_out"].as_array().map_or(&[][..], |ways| ways);
    [id, direction, at, reason, ways.iter().map(cell).collect::<Vec<_>>().join(", ")]
}
