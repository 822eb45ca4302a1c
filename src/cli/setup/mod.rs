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

use super::admin::users::{password_line, shown_link};
use super::control::{Client, ControlError, Missing, segment};
use super::doctor::centre;
use super::terminal::show::{cell, plain};
use super::terminal::{Done, EXIT_FAILED, EXIT_REFUSED, Failure};
use crate::accounts::Accounts;
use crate::app::now_ms;
use crate::config::edit::ConfigText;
use crate::config::{Config, DEFAULT_FILE, Loaded, environment, read_text};
use crate::domain::access::{LOCAL_SUFFIX, ROOT, local_name};
use crate::http::{check_local_name, fold_local};
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
    /// Ask nothing, and write the configuration.
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
        let is_known = read_text(Path::new(&file)).is_ok_and(|known| known.trim() == uri);
        self.uri = (!is_known).then(|| Zeroizing::new(uri.to_owned()));
        self.text.set(URI_FILE, Setting::String(file))?;
        Ok(())
    }

    /// Sets what a file sets that is written like the configuration.
    fn lay_over(&mut self, site: &Path, place: &Place) -> anyhow::Result<Loaded> {
        // Names the place of what is wrong with it.
        let loaded = Loaded::load(Some(site), std::iter::empty(), &crate::config::Overrides::default())?;
        let text = read_text(site)?;
        for (key, value) in ConfigText::new(text).keys()? {
            match (key.as_str(), &value) {
                (URI, Setting::String(uri)) => {
                    self.set_centre((!uri.is_empty()).then_some(uri.as_str()), place)?;
                }
                _ => self.text.set(&key, value)?,
            }
        }
        Ok(loaded)
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
    let site = match (&args.from, &terminal) {
        (Some(site), _) => Some(draft.lay_over(site, &place)?),
        (None, Some(terminal)) => {
            ask::settings(terminal, &mut draft, &place)?;
            None
        }
        (None, None) => None,
    };
    let text = draft.text.clone();
    // Whatever is wrong with the configuration or the account is said before anything is written.
    let checked = place.check(&draft, site.as_ref())?;
    let planned = place.config(&text, environment())?.without_centre();
    let operator = planned_operator(&planned, &args, terminal.as_ref(), password).await?;
    // What is there already is told, and not asked about again.
    let asking = terminal.as_ref().filter(|_| draft.uri.is_some());
    let centre = tried_centre(&checked, &planned, asking).await?;
    // Who was asked has agreed already to a configuration where there was none.
    let is_agreed = args.yes || (terminal.is_some() && !place.is_there());
    let written = place.write(draft, is_agreed)?;
    let config = place.config(&text, environment())?;

    match administer(&config, operator).await {
        Ok((operator, is_running)) => {
            let steps = next_steps(&config, &place, &written, is_running);
            let texts = [Some(written.text), centre, Some(operator), Some(steps)];
            Ok(Done::text(texts.into_iter().flatten().collect::<Vec<_>>().join("\n")))
        }
        Err(error) => {
            // That much is done.
            eprintln!("{}", plain(&written.text));
            Err(error)
        }
    }
}

/// What came of trying the way to the centre. A box may be set up before its line is, so a centre that is away is told
/// and asked about, and stops nobody.
async fn tried_centre(
    checked: &Config,
    planned: &Config,
    terminal: Option<&Terminal>,
) -> anyhow::Result<Option<String>> {
    // A node that knows itself by its id is no other one.
    let own = match Client::connect(planned, Missing::Refuse).await {
        Ok(client) => match client.get("/sync/status").await?.accepted() {
            Ok(status) => status["node"].as_str().filter(|own| !own.is_empty()).map(str::to_owned),
            Err(_) => None,
        },
        Err(_) => None,
    };
    let Some((is_usable, text)) = centre::told(checked, own.as_deref(), now_ms()).await else {
        return Ok(None);
    };
    if let Some(terminal) = terminal
        && !is_usable
    {
        eprintln!("{text}");
        if !terminal.agrees("The centre cannot be used like this. Write the configuration all the same?")? {
            let message = "nothing was written".to_owned();
            return Err(Failure { code: EXIT_REFUSED, message }.into());
        }
        return Ok(None);
    }
    Ok(Some(text))
}

/// The account that is to administer the node.
struct Operator {
    name: String,
    /// Without one, a link is made.
    password: Option<Zeroizing<String>>,
}

/// Who is to administer the node, as far as nobody does. Asks the node that is there, and makes none.
async fn planned_operator(
    config: &Config,
    args: &SetupArgs,
    terminal: Option<&Terminal>,
    password: Option<Zeroizing<String>>,
) -> anyhow::Result<Operator> {
    let users = match Client::connect(config, Missing::Refuse).await {
        Ok(client) => client.get("/users").await?.accepted()?,
        Err(ControlError::NoStore(_)) => json!([]),
        Err(error) => return Err(error.into()),
    };
    let users = users.as_array().map_or(&[][..], |users| users);
    let is_needed = administrator(users).is_none();
    let name = match (&args.operator, terminal) {
        (Some(name), _) => name.clone(),
        (None, Some(terminal)) if is_needed => {
            terminal.ask("Account of the administrator", OPERATOR_DEFAULT)?
        }
        (None, _) => OPERATOR_DEFAULT.to_owned(),
    };
    let name = fold_local(local_name(&name).unwrap_or(&name));
    if is_needed {
        refuse_known(users, &name)?;
        check_local_name(&name)
            .map_err(|message| Failure { code: EXIT_FAILED, message: message.to_owned() })?;
        if let Some(password) = &password {
            let accounts = Accounts::new(config.accounts_settings())?;
            let checked = accounts.check_new_password(&name, password);
            checked.map_err(|message| Failure {
                code: EXIT_FAILED,
                message: format!("password: {message}; nothing was written"),
            })?;
        }
    }
    Ok(Operator { name, password })
}

/// Returns the account of an existing administrator of the node.
fn administrator(users: &[Value]) -> Option<String> {
    let is_root = |user: &Value| user["roles"].as_array().is_some_and(|roles| roles.contains(&json!(ROOT)));
    users.iter().find(|user| user["active"] == true && is_root(user)).map(|user| cell(&user["id"]))
}

fn refuse_known(users: &[Value], name: &str) -> Result<(), Failure> {
    let id = format!("{name}{LOCAL_SUFFIX}");
    if !users.iter().any(|user| user["id"].as_str().is_some_and(|known| known.eq_ignore_ascii_case(&id))) {
        return Ok(());
    }
    let message = format!(
        "{id} is there already but does not administer this node: give another name with --operator, or see `user add` and `user enable`"
    );
    Err(Failure { code: EXIT_REFUSED, message })
}

/// Makes the account that administers the node, unless there is one. What there is to say about it, and whether a node
/// runs.
async fn administer(config: &Config, operator: Operator) -> anyhow::Result<(String, bool)> {
    let client = Client::connect(config, Missing::Create).await?;
    let is_running = client.is_node_running();
    let users = client.get("/users").await?.accepted()?;
    let users = users.as_array().map_or(&[][..], |users| users);
    if let Some(id) = administrator(users) {
        let text = format!(
            "{id} administers this node already: nothing was changed. `thalamus-edge user link {id}` makes a link for a new password"
        );
        return Ok((text, is_running));
    }
    let Operator { name, password } = operator;
    refuse_known(users, &name)?;
    let mut body = json!({"roles": [ROOT], "local": true});
    match password {
        Some(password) => body["password"] = json!(*password),
        None => body["link"] = json!(true),
    }
    let made = client.post(&format!("/users/{}", segment(&name)), &body).await?.accepted()?;
    let mut text = format!("{} administers this node", plain(&format!("{name}{LOCAL_SUFFIX}")));
    if made["link"].is_object() {
        // A node that runs by another configuration will be restarted with this one.
        text += &format!("\n{}", shown_link(&config.base_url(), &made["link"]));
    }
    Ok((text, is_running))
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
