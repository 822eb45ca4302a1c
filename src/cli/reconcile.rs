//! Floor 5. The `sync`, `conflicts` and `dead` commands.

use axum::http::Method;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::conflict_batch::{self, BulkArgs};
use super::control::{Client, Missing, OF_QUESTIONS, segment};
use super::show::{cell, facts, plain, table};
use super::{Done, EXIT_FAILED, EXIT_OFFLINE, EXIT_REFUSED, Failure};
use crate::config::Config;
use crate::domain::json::parse;

#[derive(Debug, Subcommand)]
pub(super) enum SyncCommand {
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
pub(super) struct AnswerArgs {
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

#[derive(Debug, Subcommand)]
pub(super) enum ConflictsCommand {
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
pub(super) struct ResolveArgs {
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

#[derive(Debug, Subcommand)]
pub(super) enum DeadCommand {
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

fn json_value(text: &str) -> Result<Value, String> {
    parse(text.as_bytes()).map_err(|error| error.to_string())
}

pub(super) async fn sync(config: Config, command: SyncCommand) -> anyhow::Result<Done> {
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

pub(super) async fn conflicts(config: Config, command: ConflictsCommand) -> anyhow::Result<Done> {
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

pub(super) fn record_name(conflict: &Value) -> String {
    format!("{}/{}", cell(&conflict["collection"]), cell(&conflict["record"]))
}

pub(super) fn field_name(conflict: &Value) -> String {
    let steps = conflict["path"].as_array().map_or(&[][..], |steps| steps);
    steps.iter().map(cell).collect::<Vec<_>>().join(".")
}

/// What is to be decided, in place of a field.
pub(super) fn subject_name(conflict: &Value) -> String {
    match (conflict["type"].as_str(), field_name(conflict)) {
        (Some("identity"), _) => "(another person?)".to_owned(),
        (Some("duplicate"), _) => "(two records)".to_owned(),
        (Some("left_behind"), _) => "(deleted, with records)".to_owned(),
        (_, whole) if whole.is_empty() => "(the record)".to_owned(),
        (_, field) => field,
    }
}

fn conflict_row(conflict: &Value) -> [String; 7] {
    let [id, stands, status, found] =
        ["id", "stands", "status", "found_at"].map(|name| cell(&conflict[name]));
    [id, record_name(conflict), subject_name(conflict), stands, status, found, changed_by(conflict)]
}

fn conflict_text(conflict: &Value) -> String {
    let text = match conflict["type"].as_str() {
        Some("identity") => identity_text(conflict),
        Some("duplicate") => duplicate_text(conflict),
        Some("left_behind") => left_behind_text(conflict),
        _ => value_text(conflict),
    };
    let notes = conflict["notes"].as_array().map_or(&[][..], |notes| notes);
    notes.iter().fold(text, |text, note| format!("{text}\n{}", note_text(note)))
}

fn note_text(note: &Value) -> String {
    let value = note.get("value").map_or_else(String::new, |value| format!(" {}", plain(&value.to_string())));
    format!(
        "note at {}: {} decided {}{value}: {}",
        cell(&note["at"]),
        cell(&note["resolved_by"]),
        cell(&note["resolution"]),
        cell(&note["reason"]),
    )
}

/// How a conflict was resolved, if it was, and its version.
fn resolution_facts(conflict: &Value) -> [(&'static str, String); 4] {
    [
        ("resolution", cell(&conflict["resolution"])),
        ("resolved by", cell(&conflict["resolved_by"])),
        ("resolved", cell(&conflict["resolved_at"])),
        ("etag", cell(&conflict["etag"]).trim_matches('"').to_owned()),
    ]
}

fn value_text(conflict: &Value) -> String {
    let field = match field_name(conflict) {
        whole if whole.is_empty() => "(the record as a whole)".to_owned(),
        field => field,
    };
    // A side without the record has deleted it.
    let is_whole = conflict["type"] == "value" && field_name(conflict).is_empty();
    let is_deleted = |name: &str| is_whole && name != "base" && conflict.get(name).is_none();
    // As JSON, so that text and number can be told apart; what is not there has no value.
    let value = |name: &str| match conflict.get(name) {
        Some(value) => plain(&value.to_string()),
        None if conflict["secret"] == true => "(never shown)".to_owned(),
        None if is_deleted(name) => "(deleted)".to_owned(),
        None => "(absent)".to_owned(),
    };
    let [by, at] = match is_deleted("local") {
        true => ["deleted here by", "deleted here"],
        false => ["edited here by", "edited here"],
    };
    let mut lines = vec![
        ("conflict", cell(&conflict["id"])),
        ("record", record_name(conflict)),
        ("field", field),
        ("status", cell(&conflict["status"])),
        ("found", cell(&conflict["found_at"])),
        (by, author(conflict)),
        (at, cell(&conflict["edited_at"])),
        ("centre's by", conflict.get("central_author").map_or_else(|| "unknown".to_owned(), cell)),
        ("centre's written", cell(&conflict["central_edited_at"])),
        ("before", value("base")),
        ("local", value("local")),
        ("central", value("central")),
        ("stands", cell(&conflict["stands"])),
        ("now", value("current")),
        ("note", notice(conflict).to_owned()),
    ];
    lines.extend(resolution_facts(conflict));
    facts(&lines)
}

/// What helps to decide.
fn notice(conflict: &Value) -> &'static str {
    match (conflict["equal_by_meaning"] == true, conflict["changed_since"] == true) {
        (_, true) => "the record holds something else by now: a decision needs its --etag",
        (true, false) => "both values mean the same",
        (false, false) => "",
    }
}

/// Who changed the value on both sides, for the list.
fn changed_by(conflict: &Value) -> String {
    if conflict["type"] != "value" {
        return cell(&conflict["author"]);
    }
    let side = |by: String, at: &Value| match cell(at) {
        at if at.is_empty() => by,
        at => format!("{by} ({at})"),
    };
    let here = side(author(conflict), &conflict["edited_at"]);
    let there = conflict.get("central_author").map_or_else(|| "unknown".to_owned(), cell);
    format!("{here}; centre: {}", side(there, &conflict["central_edited_at"]))
}

/// Who made the edit of this node.
fn author(conflict: &Value) -> String {
    conflict.get("author").map_or_else(|| "unknown".to_owned(), cell)
}

/// Two people side by side, and what the decision is about.
fn identity_text(conflict: &Value) -> String {
    let why = match conflict["why"].as_str() {
        Some("created") => "both sides made a person under this account, and they differ",
        Some("reused") => "at the centre the account has come to be about somebody else",
        Some("rewritten") => {
            "on this node the person was rewritten into somebody else, which is not sent; if the centre has given the account \
             to another one since, that is asked next"
        }
        Some("departed") => {
            "the one before is gone at the centre, records of theirs are here, and somebody else has the account"
        }
        Some("taken") => "the centre has records under this account, and nobody there who has it",
        Some("spelling") => "the centre has a person whose account differs in spelling only",
        _ => "",
    };
    let mut lines = vec![
        ("conflict", cell(&conflict["id"])),
        ("record", record_name(conflict)),
        ("question", "is the person of this node the one at the centre?".to_owned()),
        ("why", why.to_owned()),
        ("status", cell(&conflict["status"])),
        ("found", cell(&conflict["found_at"])),
        ("edited here by", cell(&conflict["author"])),
        ("this node", plain(&conflict["local"].to_string())),
        ("the centre", plain(&conflict["central"].to_string())),
        ("records that go along", cell(&conflict["own_records"])),
        ("waiting records", cell(&conflict["held_records"])),
        ("new account", cell(&conflict["new_id"])),
    ];
    lines.extend(if_same(conflict).map(|sentence| ("if the same", sentence)));
    lines.extend(resolution_facts(conflict));
    facts(&lines)
}

/// What "same" does to the account, or has done.
fn if_same(conflict: &Value) -> impl Iterator<Item = String> {
    conflict["if_same"].as_array().into_iter().flatten().map(cell)
}

fn duplicate_text(conflict: &Value) -> String {
    let mut lines = vec![
        ("record", record_name(conflict)),
        ("question", "two records have this account: correct or delete one of them".to_owned()),
    ];
    let records = conflict["records"].as_array().map_or(&[][..], |records| records);
    lines.extend(records.iter().map(|record| ("one", plain(&record.to_string()))));
    facts(&lines)
}

/// A deleted person whose records are here, with what to do.
fn left_behind_text(conflict: &Value) -> String {
    let account = cell(&conflict["record"]);
    let counts = conflict["counts"].as_object().into_iter().flatten();
    let records: Vec<String> =
        counts.map(|(collection, count)| format!("{} in {collection}", cell(count))).collect();
    facts(&[
        ("record", record_name(conflict)),
        ("question", "the person has been deleted, and records of theirs are here".to_owned()),
        ("records", records.join(", ")),
        (
            "to keep them",
            format!(
                "thalamus-edge trash list --person {account} shows the person; thalamus-edge trash restore NUMBER puts them \
                 back, here and at the centre"
            ),
        ),
        ("to let them go", "delete the records too, here or at the centre".to_owned()),
    ])
}

pub(super) async fn dead(config: Config, command: DeadCommand) -> anyhow::Result<Done> {
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

    #[test]
    fn values_that_are_absent_secret_or_null_are_told_apart() {
        let text = conflict_text(&json!({"path": ["a", "b"], "base": null, "local": "x\u{1b}"}));
        let said = "before          null\nlocal           \"x\\u001b\"\ncentral         (absent)";
        assert!(text.contains(said), "{text}");
        assert!(text.contains("field           a.b\nedited here by  unknown"), "{text}");
        let secret = conflict_text(&json!({"path": ["password"], "secret": true}));
        assert!(secret.contains("local           (never shown)"), "{secret}");
    }

    #[test]
    fn a_side_that_deleted_the_record_says_so() {
        let body = json!({"_id": "p1"});
        let of = |sides: Value| {
            let mut conflict = json!({"type": "value", "path": [], "base": body, "author": "person:ANA"});
            conflict.as_object_mut().unwrap().extend(sides.as_object().unwrap().clone());
            conflict_text(&conflict)
        };
        let here = of(json!({"central": body, "current": body, "stands": "central"}));
        let said = "local            (deleted)\ncentral          {\"_id\":\"p1\"}";
        assert!(here.contains(said) && here.contains("deleted here by  person:ANA"), "{here}");
        let there = of(json!({"local": body, "current": body, "stands": "local"}));
        let said = "local           {\"_id\":\"p1\"}\ncentral         (deleted)";
        assert!(there.contains(said) && there.contains("edited here by  person:ANA"), "{there}");
        let gone = of(json!({"local": body, "stands": "local"}));
        assert!(gone.contains("now             (deleted)"), "{gone}");
        // Two records under one id: none of them was deleted by anybody's edit.
        let record = conflict_text(&json!({"type": "record", "path": [], "local": body}));
        assert!(record.contains("central         (absent)"), "{record}");
    }
}
