//! Floor 5. The `sync` command: rounds, and how the node and the centre stand.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::control::{Client, Missing, OF_QUESTIONS};
use crate::cli::terminal::show::{cell, facts, plain, table};
use crate::cli::terminal::{Done, EXIT_FAILED, EXIT_OFFLINE, EXIT_REFUSED};
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(crate) enum SyncCommand {
    /// Run a round now, or wait for the one that is running.
    Now {
        /// Look at everything that the centre holds, beginning with this round.
        #[arg(long)]
        verify: bool,
        /// Print the API's JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say how the node and the centre stand.
    Status {
        /// Print the API's JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the records that wait for their person or for a decision instead of being sent.
    Waiting {
        /// Print the API's JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run no round any more, not even after a restart, until `sync resume`. One under way stops.
    Pause,
    /// Go on after a pause, or after a halt with an answer to what halted it.
    Resume(AnswerArgs),
}

#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct AnswerArgs {
    /// Agree with the many deletes that wait: of records that vanished at the centre, whose bodies go to the
    /// trash here, and of records that were deleted here.
    #[arg(long)]
    accept_deletes: bool,
    /// Take those records back instead: put them at the centre again, or out of the trash here.
    #[arg(long)]
    restore_deleted: bool,
    /// Go on from what the centre holds, after it was restored from an older copy or replaced.
    #[arg(long)]
    centre_restored: bool,
}

pub(crate) async fn run(config: Config, command: SyncCommand) -> anyhow::Result<Done> {
    let client = Client::connect(&config, Missing::Refuse).await?;
    match command {
        SyncCommand::Now { verify, json } => {
            let report = client.post("/sync/rounds", &json!({"verify": verify})).await?.accepted()?;
            let code = round_exit_code(&report["outcome"]);
            let done = if json { Done::json(&report) } else { Done::text(round_text(&report)) };
            Ok(done.with_code(code))
        }
        SyncCommand::Status { json } => {
            let status = client.get("/sync/status").await?.accepted()?;
            if json {
                return Ok(Done::json(&status));
            }
            Ok(Done::text(status_text(&status, client.is_node_running())))
        }
        SyncCommand::Waiting { json } => {
            let waiting = client.get("/sync/waiting").await?.accepted()?;
            let damaged = client.unreadable(&OF_QUESTIONS).await?;
            if json {
                return Ok(Done::json(&waiting).lacking(damaged, true));
            }
            let rows = waiting.as_array().map_or(&[][..], |rows| rows).iter();
            let rows: Vec<_> = rows
                .map(|row| ["collection", "record", "person", "reason"].map(|name| cell(&row[name])))
                .collect();
            if rows.is_empty() {
                return Ok(Done::text("no waiting records").lacking(damaged, false));
            }
            Ok(Done::text(table(["COLLECTION", "RECORD", "PERSON", "WHY"], &rows)).lacking(damaged, false))
        }
        SyncCommand::Pause => {
            client.post("/sync/pause", &json!({})).await?.accepted()?;
            Ok(Done::text("paused: no round runs until `thalamus-edge sync resume`"))
        }
        SyncCommand::Resume(answer) => {
            let (body, text) = match answer {
                AnswerArgs { accept_deletes: true, .. } => (
                    json!({"accept_deletes": true}),
                    "accepted: the next round carries out the deletes that wait",
                ),
                AnswerArgs { restore_deleted: true, .. } => (
                    json!({"restore_deleted": true}),
                    "accepted: the records whose delete waited are back, and the next round sends them",
                ),
                AnswerArgs { centre_restored: true, .. } => (
                    json!({"centre_restored": true}),
                    "accepted: the next rounds bring this node and the restored centre together",
                ),
                AnswerArgs { .. } => (json!({}), "resumed: rounds run again"),
            };
            client.post("/sync/resume", &body).await?.accepted()?;
            Ok(Done::text(text))
        }
    }
}

fn round_exit_code(outcome: &Value) -> u8 {
    match outcome.as_str() {
        Some("complete" | "partial") => 0,
        Some("offline") => EXIT_OFFLINE,
        Some("halted") => EXIT_REFUSED,
        _ => EXIT_FAILED,
    }
}

fn round_text(report: &Value) -> String {
    let mut text = cell(&report["outcome"]);
    let message = cell(&report["message"]);
    if !message.is_empty() {
        text += &format!(": {message}");
    }
    let counts = ["pulled", "pushed", "merged", "deleted", "conflicts", "dead"];
    let counts: Vec<_> = counts.iter().map(|name| format!("{} {name}", cell(&report[*name]))).collect();
    text += &format!("\n{}", counts.join(", "));
    text += &format!(
        "\n{} round trips, {} bytes sent, {} received, {} ms",
        cell(&report["round_trips"]),
        cell(&report["bytes_sent"]),
        cell(&report["bytes_received"]),
        cell(&report["duration_ms"]),
    );
    text
}

fn status_text(status: &Value, is_running: bool) -> String {
    let last = match status["last_round"]["outcome"].as_str() {
        Some(outcome) => format!("{} at {}", plain(outcome), cell(&status["last_round"]["at"])),
        None => "none yet".to_owned(),
    };
    let waiting = match cell(&status["oldest_pending_at"]) {
        since if since.is_empty() => cell(&status["pending"]),
        since => format!("{}, the oldest since {since}", cell(&status["pending"])),
    };
    let emergencies = match status["emergencies_unreviewed"].as_u64() {
        Some(0) | None => String::new(),
        Some(count) => format!("{count}: thalamus-edge emergency list"),
    };
    facts(&[
        ("state", cell(&status["state"])),
        ("message", cell(&status["message"])),
        ("node", if is_running { "running".to_owned() } else { "not running".to_owned() }),
        ("waiting to be sent", waiting),
        ("open conflicts", cell(&status["conflicts_open"])),
        ("unsent conflicts", cell(&status["conflicts_unpublished"])),
        ("refused records", cell(&status["dead"])),
        ("emergencies to review", emergencies),
        ("last round", last),
        ("last complete round", cell(&status["last_complete_at"])),
        ("next round", cell(&status["next_round_at"])),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_says_how_a_round_ended() {
        let codes = [("complete", 0), ("partial", 0), ("failed", 1), ("halted", 3), ("offline", 4), ("", 1)];
        for (outcome, code) in codes {
            assert_eq!(round_exit_code(&json!(outcome)), code, "{outcome}");
        }
    }
}
