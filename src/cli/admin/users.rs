//! Floor 5. The `user` commands. Passwords are asked for or read from standard input, never arguments:
//! those stand in the list of processes and in the shell's history.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufRead as _, Read as _};

use chrono::DateTime;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::cli::control::{Client, Missing, segment};
use crate::cli::terminal::show::{cell, plain, table};
use crate::cli::terminal::{Done, EXIT_FAILED, Failure};
use crate::config::{Config, PORT_UNKNOWN};
use crate::domain::access::{Acl, ROOT, local_name};
use crate::domain::encoding::utf8;

/// More than any password; the rest of an endless line is not read.
const PASSWORD_LINE_BYTES_MAX: u64 = 4096;

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Make an account, or give a person who has one these roles on this node; their record is not changed.
    Add(AddArgs),
    /// Set a password.
    Passwd(PasswdArgs),
    /// Make a link by which somebody sets the password of an account, once, within 24 hours.
    Link {
        /// Federation account, or NAME@local.
        id: String,
    },
    /// Close an account: it stays what it is, but nobody logs in with it.
    Disable {
        /// Federation account, or NAME@local.
        id: String,
    },
    /// Open an account again, or all that came here inactive.
    Enable(EnableArgs),
    /// List who can log in here, and as what.
    List {
        /// Print the API's JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct EnableArgs {
    /// Federation account, or NAME@local.
    #[arg(required_unless_present = "all_inactive", conflicts_with = "all_inactive")]
    id: Option<String>,
    /// Every person who has a password and whose record came here inactive, as hubs of Thalamus up to 0.9.8 make them.
    /// Accounts that were closed on this node stay closed. It travels to the centre.
    #[arg(long)]
    all_inactive: bool,
    /// Only those that came, or became inactive, at this moment or later: 2026-11-29T00:00:00Z.
    #[arg(long, requires = "all_inactive", conflicts_with = "id", value_name = "MOMENT", value_parser = moment)]
    since: Option<String>,
    /// Say whose accounts it would open, and open none.
    #[arg(long, requires = "all_inactive", conflicts_with = "id")]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Federation account, or the name of a technician.
    id: String,
    /// Roles on this node, all that the account is to have beside those of the person's record.
    #[arg(long = "role", required = true, num_args = 1.., value_name = "ROLE")]
    roles: Vec<String>,
    /// A technician's account, NAME@local: of this node only, never synchronized.
    #[arg(long)]
    local: bool,
    /// Read the password from standard input, one line, instead of asking.
    #[arg(long)]
    password_stdin: bool,
    /// Print a link that sets the password: once, within 24 hours, for anyone who has it.
    #[arg(long, conflicts_with = "password_stdin")]
    link: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PasswdArgs {
    /// Federation account, or NAME@local.
    id: String,
    /// Read the password from standard input, one line, instead of asking.
    #[arg(long)]
    password_stdin: bool,
}

/// The node would refuse any other text, as a request and not as an argument.
fn moment(text: &str) -> Result<String, String> {
    let read = DateTime::parse_from_rfc3339(text);
    read.map(|_| text.to_owned()).map_err(|_| "must be a moment such as 2026-11-29T00:00:00Z".to_owned())
}

pub(crate) async fn run(config: Config, command: UserCommand) -> anyhow::Result<Done> {
    match command {
        UserCommand::Add(args) => add(&config, args).await,
        UserCommand::Passwd(args) => passwd(&config, args).await,
        UserCommand::Link { id } => link(&config, &id).await,
        UserCommand::Disable { id } => set_active(&config, &id, false).await,
        UserCommand::Enable(EnableArgs { id: Some(id), .. }) => set_active(&config, &id, true).await,
        UserCommand::Enable(args) => enable_all(&config, args).await,
        UserCommand::List { json } => list(&config, json).await,
    }
}

/// An empty name would be no name in a path at all.
fn named(id: &str) -> anyhow::Result<String> {
    match id.trim().is_empty() || local_name(id).is_some_and(str::is_empty) {
        true => Err(Failure::usage("the account needs a name, as ARGBUE111FAV or admin@local").into()),
        false => Ok(segment(id)),
    }
}

async fn add(config: &Config, args: AddArgs) -> anyhow::Result<Done> {
    let path = format!("/users/{}", named(&args.id)?);
    let client = Client::connect(config, Missing::Create).await?;
    let mut body = json!({"roles": args.roles});
    if args.local {
        body["local"] = json!(true);
    }
    if args.password_stdin {
        body["password"] = json!(*password_line()?);
    }
    if args.link {
        body["link"] = json!(true);
    }
    let mut answer = client.post(&path, &body).await?;
    // Only a new account needs a password: the node knows which one is.
    if answer.body["field"] == "password" && !args.password_stdin {
        body["password"] = json!(*ask_password()?);
        answer = client.post(&path, &body).await?;
    }
    let is_about_roles = answer.body["field"] == "roles";
    let added = answer.accepted().map_err(|failure| match is_about_roles {
        true => about_roles(config, failure),
        false => failure,
    })?;
    let (id, roles) = (cell(&added["id"]), plain(&args.roles.join(", ")));
    let mut text = match added["active"] == false {
        true => format!("{id} has these roles here: {roles}"),
        false => format!("{id} logs in here as {roles}"),
    };
    if added["kept_roles"].is_array() {
        text += &format!(
            ", and as {}: the record of this person says so, on all nodes, and only a change of it takes that away",
            cell(&added["kept_roles"])
        );
    }
    if args.link {
        text += &format!("\n{}", shown_link(&client.base_url(config), &added["link"]));
    }
    text += &closed_note(&added["active"], &id);
    Ok(Done::text(text))
}

/// Says with which argument the roles were given, and one that is right.
fn about_roles(config: &Config, failure: Failure) -> Failure {
    let acl = config.acl().map_or_else(|_| Acl::built_in(), |(acl, _)| acl);
    let names = acl.role_names();
    let example = names.iter().find(|name| **name != ROOT).or(names.first());
    let example = example.map(|name| format!("; for example --role {name}"));
    let message = format!("--role: {}{}", failure.message, example.unwrap_or_default());
    Failure { message, ..failure }
}

async fn link(config: &Config, id: &str) -> anyhow::Result<Done> {
    let client = Client::connect(config, Missing::Refuse).await?;
    let path = format!("/users/{}/link", named(id)?);
    let made = client.post(&path, &json!({})).await?.accepted()?;
    Ok(Done::text(shown_link(&client.base_url(config), &made) + &closed_note(&made["active"], id)))
}

/// Says that an account is closed. `active`: whether it is open, if the node says so.
fn closed_note(active: &Value, id: &str) -> String {
    if *active != Value::Bool(false) {
        return String::new();
    }
    format!(
        "\nthe account is closed: nobody logs in with it before `thalamus-edge user enable {}`",
        plain(id)
    )
}

/// A link below the address at which clients find the node.
pub(crate) fn shown_link(base_url: &str, link: &Value) -> String {
    let (path, until) = (cell(&link["path"]), cell(&link["expires_at"]));
    let mut text = format!("{base_url}{path}\nsets the password, once, until {until}");
    if base_url.ends_with(&format!(":{PORT_UNKNOWN}")) {
        text += &format!(
            "\nput the port of the node in the place of {PORT_UNKNOWN}: it is known once the node runs, which says where it listens"
        );
    }
    text
}

async fn set_active(config: &Config, id: &str, is_active: bool) -> anyhow::Result<Done> {
    let client = Client::connect(config, Missing::Refuse).await?;
    let path = format!("/users/{}/active", named(id)?);
    client.post(&path, &json!({"active": is_active})).await?.accepted()?;
    let state = match is_active {
        true if has_password(&client, id).await? => "can log in again",
        true => "is open, and has no password yet: `thalamus-edge user passwd ACCOUNT` sets one",
        false => "cannot log in any more",
    };
    Ok(Done::text(format!("{} {state}", plain(id))))
}

/// Whether somebody can log in with the account as far as its password goes: those who have none are not listed.
async fn has_password(client: &Client, id: &str) -> anyhow::Result<bool> {
    Ok(listed_user(client, id).await?.is_some())
}

/// The account as `user list` knows it.
async fn listed_user(client: &Client, id: &str) -> anyhow::Result<Option<Value>> {
    let users = client.get("/users").await?.accepted()?;
    let is_it = |user: &&Value| user["id"].as_str().is_some_and(|listed| listed.eq_ignore_ascii_case(id));
    Ok(users.as_array().and_then(|users| users.iter().find(is_it)).cloned())
}

/// Opens the accounts of people that came here inactive, each as `user enable ACCOUNT` does.
async fn enable_all(config: &Config, args: EnableArgs) -> anyhow::Result<Done> {
    let client = Client::connect(config, Missing::Refuse).await?;
    let path = match &args.since {
        Some(since) => format!("/users?inactive=true&since={}", segment(since)),
        None => "/users?inactive=true".to_owned(),
    };
    let users = client.get(&path).await?.accepted()?;
    let users = users.as_array().map_or(&[][..], |users| users);
    let accounts = || users.iter().filter(|user| user["is_account"].is_null());
    let was_closed = |user: &&Value| user["closed_here"] == true;
    let became_so = |user: &&Value| user["closed_here"] != true && user["became_inactive"] == true;
    let mut lines = Vec::new();
    let (mut opened, mut refused) = (0_u64, 0_u64);
    for user in accounts().filter(|user| !was_closed(user) && !became_so(user)) {
        let id = cell(&user["id"]);
        if args.dry_run {
            lines.push(format!("{} would be opened; roles here: {}", plain(&id), cell(&user["roles"])));
            opened += 1;
            continue;
        }
        let answer = client
            .post(
                &format!("/users/{}/active", named(&id)?),
                &json!({"active": true, "unless_closed_here": true}),
            )
            .await?;
        match answer.accepted() {
            Ok(_) => {
                lines.push(format!("{} can log in again", plain(&id)));
                opened += 1;
            }
            Err(failure) => {
                lines.push(format!("{} stays closed: {}", plain(&id), failure.message));
                refused += 1;
            }
        }
    }
    let done = if args.dry_run { "accounts would be opened" } else { "accounts were opened" };
    lines.push(format!("{opened} {done}"));
    let later: Vec<_> = accounts().filter(became_so).map(|user| plain(&cell(&user["id"]))).collect();
    if !later.is_empty() {
        lines.push(format!(
            "{} became inactive after they had come here, so somebody closed them, and stay closed: {}",
            later.len(),
            later.join(", ")
        ));
    }
    let here = accounts().filter(was_closed).count();
    if here > 0 {
        lines.push(format!(
            "{here} that were closed on this node stay closed: `thalamus-edge user enable ACCOUNT` opens one"
        ));
    }
    if refused > 0 {
        lines.push(format!("{refused} could not be opened"));
        return Err(Failure { code: EXIT_FAILED, message: lines.join("\n") }.into());
    }
    Ok(Done::text(lines.join("\n")))
}

async fn passwd(config: &Config, args: PasswdArgs) -> anyhow::Result<Done> {
    let client = Client::connect(config, Missing::Refuse).await?;
    let password = if args.password_stdin { password_line()? } else { ask_password()? };
    let path = format!("/users/{}/password", named(&args.id)?);
    client.post(&path, &json!({"password": *password})).await?.accepted()?;
    let active = listed_user(&client, &args.id).await?.map_or(Value::Null, |user| user["active"].clone());
    Ok(Done::text(format!("the password of {} is set{}", plain(&args.id), closed_note(&active, &args.id))))
}

async fn list(config: &Config, json: bool) -> anyhow::Result<Done> {
    let client = Client::connect(config, Missing::Refuse).await?;
    let mut users = client.get("/users").await?.accepted()?;
    // Accounts, and the roles that they were given.
    let rows = [("docs", Some("people")), ("local_accounts", None), ("grants", None)];
    let damaged = client.unreadable(&rows).await?;
    if json {
        return Ok(Done::json(&users).lacking(damaged, true));
    }
    add_how_they_came(&client, &mut users).await?;
    let users = users.as_array().map_or(&[][..], |users| users);
    let rows: Vec<_> = users.iter().map(row).collect();
    if rows.is_empty() {
        return Ok(Done::text("nobody can log in here yet: `thalamus-edge user add ID --role ROLE`")
            .lacking(damaged, false));
    }
    let table = table(["ID", "ACTIVE", "ROLES", "NOT HONOURED HERE"], &rows);
    Ok(Done::text(format!("{table}\n{}", counted(users))).lacking(damaged, false))
}

/// Adds `became_inactive` and `came_from` to people who are closed by their record and were not closed here.
pub(crate) async fn add_how_they_came(client: &Client, users: &mut Value) -> anyhow::Result<()> {
    let users = users.as_array_mut().map_or(&mut [][..], |users| users);
    if !users.iter().any(|user| user["closed_here"] == false) {
        return Ok(());
    }
    let inactive = client.get("/users?inactive=true").await?.accepted()?;
    let inactive = inactive.as_array().map_or(&[][..], |users| users);
    let known: HashMap<&str, &Value> =
        inactive.iter().filter_map(|user| Some((user["id"].as_str()?, user))).collect();
    for user in users {
        if let Some(known) = user["id"].as_str().and_then(|id| known.get(id)) {
            for field in ["became_inactive", "came_from"] {
                user[field] = known[field].clone();
            }
        }
    }
    Ok(())
}

/// Why an account is closed here.
fn why_closed(user: &Value) -> &'static str {
    if user["deleted_at_centre"] == true {
        return "no, deleted at the centre: conflicts list";
    }
    match (&user["closed_here"], &user["became_inactive"]) {
        (Value::Bool(true), _) if user["opened_elsewhere"] == true => {
            "no, closed here, opened elsewhere since"
        }
        (Value::Bool(true), _) => "no, closed here",
        (Value::Bool(false), Value::Bool(true)) => "no, closed elsewhere",
        (Value::Bool(false), Value::Bool(false)) => "no, came here inactive",
        // The journal does not go back so far.
        (Value::Bool(false), _) => "no, not closed here",
        _ => "no",
    }
}

/// How many accounts are open, and how many are closed for which reason.
fn counted(users: &[Value]) -> String {
    let accounts: Vec<_> = users.iter().filter(|user| user["is_account"].is_null()).collect();
    let mut closed = BTreeMap::<&str, usize>::new();
    for user in accounts.iter().filter(|user| user["active"] != true) {
        *closed.entry(why_closed(user)).or_default() += 1;
    }
    let open = accounts.len() - closed.values().sum::<usize>();
    let reasons = closed.iter().map(|(why, count)| match why.strip_prefix("no, ") {
        Some(why) => format!("; {count} {why}"),
        None => format!("; {count} not active"),
    });
    format!("{} accounts: {open} open{}", accounts.len(), reasons.collect::<String>())
}

fn row(user: &Value) -> [String; 4] {
    let active = match (&user["is_account"], user["active"] == true) {
        (Value::Bool(false), _) => "no: a person of the federation whose id is no account",
        (_, true) => "yes",
        (_, false) => why_closed(user),
    };
    [cell(&user["id"]), active.to_owned(), cell(&user["roles"]), cell(&user["not_honoured"])]
}

/// One line of standard input without its end.
pub(crate) fn password_line() -> anyhow::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(Vec::new());
    let read = io::stdin().lock().take(PASSWORD_LINE_BYTES_MAX).read_until(b'\n', &mut line);
    read.map_err(|error| Failure { code: EXIT_FAILED, message: format!("standard input: {error}") })?;
    // Files and pipes of Windows begin with a mark of byte order, or are UTF-16 as a whole.
    let line = utf8(&line).map_err(|error| Failure::usage(format!("--password-stdin: {error}")))?;
    let password = line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line));
    if password.is_empty() {
        return Err(Failure::usage("--password-stdin: there is no password on standard input").into());
    }
    Ok(Zeroizing::new(password.to_owned()))
}

/// Asks on the terminal, twice and without echo.
fn ask_password() -> anyhow::Result<Zeroizing<String>> {
    let ask = |prompt: &str| {
        rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(|error| {
            Failure::usage(format!("no terminal to ask for a password ({error}): use --password-stdin"))
        })
    };
    let password = ask("New password: ")?;
    if *password != *ask("The same again: ")? {
        return Err(Failure {
            code: EXIT_FAILED,
            message: "the two passwords differ; nothing was changed".into(),
        }
        .into());
    }
    Ok(password)
}
