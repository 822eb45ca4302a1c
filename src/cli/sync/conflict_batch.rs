//! Floor 5. `conflicts resolve --all`: decides many conflicts, each by a request of its own, as the command for one does.
//!
//! Conflicts are listed a page at a time; of those that were looked at, the ids are kept. Each decision is a transaction, and is
//! made on the version that the page showed: what has changed since is left alone. A dry run has the node try all of them one
//! after the other, because a decision may depend on those before it.

use std::collections::{BTreeMap, HashSet};

use axum::http::{Method, StatusCode};
use clap::Args;
use serde_json::{Value, json};

use super::conflict_text::{field_name, record_name, subject_name};
use crate::cli::control::{Client, OF_QUESTIONS, segment};
use crate::cli::terminal::show::{cell, plain, table};
use crate::cli::terminal::{Done, EXIT_FAILED, EXIT_REFUSED, Failure, collection_names};
use crate::http::conflict_trials::TRIALS_MAX;

/// Conflicts on a page.
const PAGE_CONFLICTS: usize = 100;
/// Conflicts that were not decided and are named; there may be thousands.
const NAMED_MAX: usize = 20;

#[derive(Debug, Args)]
pub(super) struct BulkArgs {
    /// Decide all open conflicts over values, or those that the next options choose.
    #[arg(long)]
    pub(crate) all: bool,
    /// Only conflicts over records of this collection.
    #[arg(long, value_name = "COLLECTION", requires = "all", conflicts_with = "id", value_parser = collection_names())]
    collection: Option<String>,
    /// Only conflicts over exactly this field, as `conflicts list` shows it (`address.city`); "" is the record as a whole.
    #[arg(long, value_name = "FIELD", requires = "all", conflicts_with = "id")]
    path: Option<String>,
    /// Only conflicts whose two values mean the same (docs/SYNC.md, "Values that mean the same").
    #[arg(long, requires = "all", conflicts_with = "id")]
    where_equal_by_meaning: bool,
    /// Count what would be decided, and decide nothing. While the node tries it, writes wait.
    #[arg(long, requires = "all", conflicts_with = "id")]
    dry_run: bool,
}

impl BulkArgs {
    fn first_page(&self) -> String {
        let mut path = format!("/sync/conflicts?status=open&limit={PAGE_CONFLICTS}");
        for (name, value) in [("collection", &self.collection), ("path", &self.path)] {
            if let Some(value) = value {
                path += &format!("&{name}={}", segment(value));
            }
        }
        if self.where_equal_by_meaning {
            path += "&equal_by_meaning=true";
        }
        path
    }
}

/// What became of the conflicts that matched.
#[derive(Debug, Default)]
struct Outcomes {
    /// (collection, field) -> decided, or to be decided.
    decided: BTreeMap<(String, String), u64>,
    /// The record holds something else by now, or somebody else has decided meanwhile.
    changed: u64,
    /// A decision about who a person is comes first.
    waiting: u64,
    refused: u64,
    /// Questions about people or records, which are decided one by one.
    questions: u64,
    /// Passwords, roles and `active` of people, and people as a whole: only where `--path` names them.
    logins: u64,
    /// (conflict, record and field, why).
    named: Vec<[String; 3]>,
}

impl Outcomes {
    fn decided(&self) -> u64 {
        self.decided.values().sum()
    }

    fn left(&self) -> u64 {
        self.changed + self.waiting + self.refused
    }

    /// Counts what became of a decision, by the answer to it. An error that is not about this conflict ends the command.
    fn count(&mut self, conflict: &Value, status: StatusCode, answer: &Value) -> anyhow::Result<()> {
        if status.is_success() {
            let place = (cell(&conflict["collection"]), subject_name(conflict));
            *self.decided.entry(place).or_default() += 1;
            return Ok(());
        }
        let why = match answer["error"].as_str() {
            Some(why) => why.to_owned(),
            None => status.to_string(),
        };
        match status {
            StatusCode::CONFLICT if answer["code"] == "decision_pending" => self.waiting += 1,
            StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => {
                self.leave_changed(conflict);
                return Ok(());
            }
            // Of a damaged record; the others go on.
            _ if status.is_client_error() || answer["code"] == "damaged" => self.refused += 1,
            _ => {
                let message = format!("{why}; {} were decided before: run the command again", self.decided());
                return Err(Failure { code: EXIT_FAILED, message }.into());
            }
        }
        self.leave(conflict, &why);
        Ok(())
    }

    fn leave_changed(&mut self, conflict: &Value) {
        self.changed += 1;
        self.leave(conflict, "the value has changed since, or somebody else has decided");
    }

    fn leave(&mut self, conflict: &Value, why: &str) {
        if self.named.len() < NAMED_MAX {
            let what = format!("{} {}", record_name(conflict), subject_name(conflict));
            self.named.push([cell(&conflict["id"]), what, plain(why)]);
        }
    }

    fn exit_code(&self) -> u8 {
        match (self.refused, self.changed + self.waiting) {
            (0, 0) => 0,
            (0, _) => EXIT_REFUSED,
            _ => EXIT_FAILED,
        }
    }

    fn json(&self, side: &str, is_dry_run: bool) -> Value {
        json!({
            "take": side, "dry_run": is_dry_run, "matched": self.decided() + self.left(), "decided": self.decided(),
            "changed": self.changed, "waiting": self.waiting, "refused": self.refused,
            "questions_left": self.questions, "logins_left": self.logins,
        })
    }

    fn text(&self, side: &str, is_dry_run: bool) -> String {
        let mut lines = Vec::new();
        if self.decided() + self.left() == 0 {
            lines.push("no conflict matches: nothing is decided".to_owned());
        } else {
            let row = |((collection, field), count): (&(String, String), &u64)| {
                [collection.clone(), field.clone(), count.to_string()]
            };
            let rows: Vec<_> = self.decided.iter().map(row).collect();
            if !rows.is_empty() {
                lines.push(table(["COLLECTION", "FIELD", "CONFLICTS"], &rows));
            }
            let done = if is_dry_run { "would be decided" } else { "decided" };
            lines.push(format!("{} {done}: {side}", self.decided()));
            for (count, why) in [
                (self.changed, "left: the value has changed since, or somebody else has decided"),
                (self.waiting, "left: it is to be decided first who the person is"),
                (self.refused, "refused"),
            ] {
                if count > 0 {
                    lines.push(format!("{count} {why}"));
                }
            }
        }
        if !self.named.is_empty() {
            lines.push(table(["ID", "RECORD", "WHY"], &self.named));
        }
        if self.left() > self.named.len() as u64 {
            lines.push("and more: `thalamus-edge conflicts list`".to_owned());
        }
        if self.questions > 0 {
            lines.push(format!(
                "{} about people or records are not decided this way, but one by one: `thalamus-edge conflicts list`",
                self.questions
            ));
        }
        if self.logins > 0 {
            lines.push(format!(
                "{} about passwords, roles or `active` of people, or people as a whole, are decided only where --path names \
                 the field, or one by one",
                self.logins
            ));
        }
        lines.join("\n")
    }
}

/// Whether a decision could let somebody in or keep somebody out.
fn is_about_login(conflict: &Value) -> bool {
    let field = field_name(conflict);
    let first = field.split('.').next().unwrap_or_default();
    cell(&conflict["collection"]) == "people" && ["", "password", "roles", "active"].contains(&first)
}

/// Decides the conflicts that `args` chooses for `side`, or tries each of these decisions.
pub(super) async fn resolve_all(
    client: &Client,
    args: &BulkArgs,
    side: &str,
    is_json: bool,
) -> anyhow::Result<Done> {
    let mut outcomes = Outcomes::default();
    // A conflict that is found again meanwhile comes a second time.
    let mut seen = HashSet::new();
    let mut to_try = Vec::new();
    let mut next = Some(args.first_page());
    while let Some(path) = next {
        let answer = client.get(&path).await?;
        if answer.status == StatusCode::UNPROCESSABLE_ENTITY {
            return Err(Failure::usage(format!("--{}", cell(&answer.body["error"]))).into());
        }
        next = answer.next.clone();
        let page = answer.accepted()?;
        for conflict in page.as_array().map_or(&[][..], |page| page) {
            if conflict["type"] != "value" {
                outcomes.questions += 1;
            } else if args.path.is_none() && is_about_login(conflict) {
                outcomes.logins += 1;
            } else if !seen.insert(cell(&conflict["id"])) {
            } else if args.dry_run {
                to_try.push(without_values(conflict));
            } else {
                decide(client, conflict, side, &mut outcomes).await?;
            }
        }
    }
    // The run would leave these alone without asking.
    let (changed, mut rest): (Vec<Value>, Vec<Value>) =
        to_try.into_iter().partition(|conflict| conflict["changed_since"] == true);
    changed.iter().for_each(|conflict| outcomes.leave_changed(conflict));
    while !rest.is_empty() {
        let asked = rest.get(..TRIALS_MAX.min(rest.len())).unwrap_or_default();
        let tried = try_all(client, asked, side, &mut outcomes).await?;
        rest.drain(..tried);
    }
    let code = if args.dry_run { 0 } else { outcomes.exit_code() };
    let done = match is_json {
        true => Done::json(&outcomes.json(side, args.dry_run)),
        false => Done::text(outcomes.text(side, args.dry_run)),
    };
    let damaged = client.unreadable(&OF_QUESTIONS).await?;
    Ok(done.with_code(code).lacking(damaged, is_json))
}

/// What is kept of a conflict until it is tried: there may be thousands, and their values may be large.
fn without_values(conflict: &Value) -> Value {
    let mut kept = conflict.clone();
    if let Some(fields) = kept.as_object_mut() {
        fields.retain(|name, _| {
            ["id", "type", "collection", "record", "path", "etag", "changed_since"].contains(&name.as_str())
        });
    }
    kept
}

async fn decide(
    client: &Client,
    conflict: &Value,
    side: &str,
    outcomes: &mut Outcomes,
) -> anyhow::Result<()> {
    if conflict["changed_since"] == true {
        outcomes.leave_changed(conflict);
        return Ok(());
    }
    let path = format!("/sync/conflicts/{}/resolution", segment(&cell(&conflict["id"])));
    let decision = json!({"take": side});
    let answer = client.send(Method::POST, &path, Some(&decision), conflict["etag"].as_str()).await?;
    outcomes.count(conflict, answer.status, &answer.body)
}

/// Has the node try these decisions one after the other; how many of them it has tried.
async fn try_all(
    client: &Client,
    asked: &[Value],
    side: &str,
    outcomes: &mut Outcomes,
) -> anyhow::Result<usize> {
    let decision = |conflict: &Value| json!({"id": conflict["id"], "etag": conflict["etag"], "take": side});
    let body = json!({"decisions": asked.iter().map(decision).collect::<Vec<_>>()});
    let answer = client.send(Method::POST, "/sync/conflicts/trial", Some(&body), None).await?;
    if matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
        let message = "the node that is running is of an earlier version, which cannot try decisions: nothing was decided; \
                       restart the node, then run the command again";
        return Err(Failure { code: EXIT_REFUSED, message: message.to_owned() }.into());
    }
    let answer = answer.accepted()?;
    let tried = answer["outcomes"].as_array().map_or(&[][..], |tried| tried);
    if tried.is_empty() || tried.len() > asked.len() {
        let message = "the node did not say what becomes of each decision".to_owned();
        return Err(Failure { code: EXIT_FAILED, message }.into());
    }
    for (conflict, outcome) in asked.iter().zip(tried) {
        let status = outcome["status"].as_u64().and_then(|status| u16::try_from(status).ok());
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        outcomes.count(conflict, status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), outcome)?;
    }
    Ok(tried.len())
}
