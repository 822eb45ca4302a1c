//! Floor 5. The `setup` command: from an installed package to the first login.
//!
//! Two steps, each of which leaves alone what is there already: the configuration, with what was answered or stands
//! in `--from`, shown before it changes; and an account that administers the node, if nobody does, with a link by
//! which its owner sets the password.

mod ask;
mod place;

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use toml::Value as Setting;
use zeroize::Zeroizing;

use super::control::{Client, Missing, segment};
use super::show::{cell, plain};
use super::users::{password_line, shown_link};
use super::{Done, EXIT_REFUSED, Failure};
use crate::config::edit::ConfigText;
use crate::config::{Config, DEFAULT_FILE, environment};
use crate::domain::access::ROOT;
use crate::http::LOCAL_SUFFIX;
use ask::Terminal;
use place::{Place, Written};

/// Name of the first administrator's account, unless another is given.
const OPERATOR_DEFAULT: &str = "admin";
const DATA_DIR: &str = "data_dir";
const URI: &str = "central.uri";
const URI_FILE: &str = "central.uri_file";

const UNATTENDED: &str = "Without --from it asks on the terminal; with --yes it asks nothing. The file of --from is \
     written like the configuration and holds only what is to be set. A central.uri goes into a file of its own, which \
     nobody but the node reads. What the configuration was before stays beside it as config.toml.before-setup.";

#[derive(Debug, Args)]
#[command(after_help = UNATTENDED)]
pub(super) struct SetupArgs {
    /// Take the settings from this file instead of asking.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Ask nothing, and change a configuration that is there.
    #[arg(long)]
    yes: bool,
    /// Account to make, NAME@local, if nobody administers this node yet [default: admin].
    #[arg(long, value_name = "NAME")]
    operator: Option<String>,
    /// Read the administrator's password from standard input, one line, instead of making a link.
    #[arg(long)]
    password_stdin: bool,
}

/// What a configuration is to become.
struct Draft {
    text: ConfigText,
    /// The connection string of the centre, if it is to be another.
    uri: Option<Zeroizing<String>>,
}

impl Draft {
    /// The connection string goes to a file, because more people read a configuration than may know a password.
    fn set_centre(&mut self, uri: Option<&str>, place: &Place) -> anyhow::Result<()> {
        self.text.remove(URI)?;
        let Some(uri) = uri else {
            self.uri = None;
            self.text.remove(URI_FILE)?;
            return Ok(());
        };
        let file = match self.text.get(URI_FILE)? {
            Some(Setting::String(file)) if !file.is_empty() => file,
            _ => place.beside("central.uri"),
        };
        let is_known = std::fs::read_to_string(&file).is_ok_and(|known| known.trim() == uri);
        self.uri = (!is_known).then(|| Zeroizing::new(uri.to_owned()));
        self.text.set(URI_FILE, Setting::String(file))?;
        Ok(())
    }

    /// Sets what a file sets that is written like the configuration.
    fn lay_over(&mut self, site: &Path, place: &Place) -> anyhow::Result<()> {
        // Names the place of what is wrong with it.
        Config::load(Some(site), std::iter::empty(), &crate::config::Overrides::default())?;
        let text = std::fs::read_to_string(site)
            .map_err(|error| Failure::usage(format!("{}: {error}", site.display())))?;
        for (key, value) in ConfigText::new(text).keys()? {
            match (key.as_str(), &value) {
                (URI, Setting::String(uri)) => {
                    self.set_centre((!uri.is_empty()).then_some(uri.as_str()), place)?;
                }
                _ => self.text.set(&key, value)?,
            }
        }
        Ok(())
    }
}

pub(super) async fn run(file: Option<PathBuf>, args: SetupArgs) -> anyhow::Result<Done> {
    let place = Place::find(file.unwrap_or_else(|| PathBuf::from(DEFAULT_FILE)))?;
    // What is wrong already is not built upon.
    let before = place.text();
    place.config(&before, std::iter::empty())?;
    let terminal = match args.yes || args.from.is_some() {
        true => None,
        false => Some(Terminal::open()?),
    };
    let password = if args.password_stdin { Some(password_line()?) } else { None };

    let mut draft = Draft { text: before, uri: None };
    if !place.is_packaged() && draft.text.get(DATA_DIR)?.is_none() {
        draft.text.set(DATA_DIR, Setting::String(place.beside("thalamus-edge-data")))?;
    }
    match (&args.from, &terminal) {
        (Some(site), _) => draft.lay_over(site, &place)?,
        (None, Some(terminal)) => ask::settings(terminal, &mut draft, &place)?,
        (None, None) => {}
    }
    let text = draft.text.clone();
    let written = place.write(draft, args.yes)?;
    let config = place.config(&text, environment())?;

    match administer(&config, &args, terminal.as_ref(), password).await {
        Ok((operator, is_running)) => {
            let steps = next_steps(&config, &place, &written, is_running);
            Ok(Done::text([written.text, operator, steps].join("\n")))
        }
        Err(error) => {
            // That much is done.
            eprintln!("{}", plain(&written.text));
            Err(error)
        }
    }
}

/// What there is to say about the administrator's account, and whether a node runs.
async fn administer(
    config: &Config,
    args: &SetupArgs,
    terminal: Option<&Terminal>,
    password: Option<Zeroizing<String>>,
) -> anyhow::Result<(String, bool)> {
    let client = Client::connect(config, Missing::Create).await?;
    let operator = operator(&client, config, args, terminal, password).await?;
    Ok((operator, client.is_node_running()))
}

/// Makes the account that administers the node, unless there is one; what there is to say about it.
async fn operator(
    client: &Client,
    config: &Config,
    args: &SetupArgs,
    terminal: Option<&Terminal>,
    password: Option<Zeroizing<String>>,
) -> anyhow::Result<String> {
    let users = client.get("/users").await?.accepted()?;
    let users = users.as_array().map_or(&[][..], |users| users);
    let is_root = |user: &Value| user["roles"].as_array().is_some_and(|roles| roles.contains(&json!(ROOT)));
    if let Some(user) = users.iter().find(|user| user["active"] == true && is_root(user)) {
        let id = cell(&user["id"]);
        return Ok(format!(
            "{id} administers this node already: nothing was changed. `thalamus-edge user link {id}` makes a link for a new password"
        ));
    }
    let name = match (&args.operator, terminal) {
        (Some(name), _) => name.clone(),
        (None, Some(terminal)) => terminal.ask("Account of the administrator", OPERATOR_DEFAULT)?,
        (None, None) => OPERATOR_DEFAULT.to_owned(),
    };
    let name = name.strip_suffix(LOCAL_SUFFIX).unwrap_or(&name);
    let id = format!("{name}{LOCAL_SUFFIX}");
    if users.iter().any(|user| user["id"] == *id) {
        let message = format!(
            "{id} is there already but does not administer this node: give another name with --operator, or see `user add` and `user enable`"
        );
        return Err(Failure { code: EXIT_REFUSED, message }.into());
    }
    let mut body = json!({"roles": [ROOT], "local": true});
    match password {
        Some(password) => body["password"] = json!(*password),
        None => body["link"] = json!(true),
    }
    let made = client.post(&format!("/users/{}", segment(name)), &body).await?.accepted()?;
    let mut text = format!("{} administers this node", plain(&id));
    if made["link"].is_object() {
        text += &format!("\n{}", shown_link(config, &made["link"]));
    }
    Ok(text)
}

fn next_steps(config: &Config, place: &Place, written: &Written, is_running: bool) -> String {
    let mut steps = Vec::new();
    match (is_running, place.is_run_by_systemd()) {
        (true, _) if !written.has_changed => {}
        (true, true) => steps.push("let the changes count: systemctl restart thalamus-edge".to_owned()),
        (true, false) => steps.push("let the changes count: restart the node".to_owned()),
        (false, true) => steps.push("start the node: systemctl start thalamus-edge".to_owned()),
        (false, false) => steps.push(format!("start the node: {}", place.serve_command())),
    }
    if let Some(file) = config.tls_settings().and_then(|settings| settings.authority_file()) {
        let made = if file.exists() { "" } else { ", which the first start makes" };
        steps.push(format!("let clients trust the authority in {}{made}", file.display()));
    }
    steps.push(format!("find the node at {}", config.base_url()));
    let lines = steps.iter().map(|step| format!("  - {step}"));
    std::iter::once("next".to_owned()).chain(lines).collect::<Vec<_>>().join("\n")
}
