//! Floor 5. Where a configuration lies: how it gets there, whose it is, and what stays of the one before.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use toml::Value as Setting;

use super::ask::Terminal;
use super::{Draft, URI, URI_FILE};
use crate::cli::check::{startable, warnings};
use crate::cli::terminal::{EXIT_REFUSED, Failure};
use crate::config::edit::{Change, ConfigText};
use crate::config::{Config, ConfigError, DEFAULT_FILE, Loaded, environment, read_text};
use crate::files::{Staged, directory_of, keep_as};

/// Ending of the name of what was there before.
const BEFORE_SUFFIX: &str = ".before-setup";
/// A configuration: written by root, read by the service's group.
const CONFIG_MODE: u32 = 0o640;
/// What holds a password: for the service alone.
const SECRET_MODE: u32 = 0o600;
/// There while systemd runs the machine.
const SYSTEMD_DIRECTORY: &str = "/run/systemd/system";

pub(super) struct Place {
    path: PathBuf,
    /// What is there.
    found: Option<String>,
    is_packaged: bool,
}

/// What became of the configuration.
pub(super) struct Written {
    pub(super) text: String,
    pub(super) has_changed: bool,
}

impl Place {
    pub(super) fn find(path: PathBuf) -> Result<Place, ConfigError> {
        let is_packaged = path == Path::new(DEFAULT_FILE);
        let unreadable = |cause| ConfigError::Unreadable { path: path.clone(), cause };
        // Behind a link, the file itself is replaced and not the link.
        match fs::canonicalize(&path) {
            Ok(path) => {
                let text = read_text(&path)?;
                Ok(Place { path, found: Some(text), is_packaged })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let path = std::path::absolute(&path).map_err(unreadable)?;
                Ok(Place { path, found: None, is_packaged })
            }
            Err(error) => Err(unreadable(error)),
        }
    }

    /// The configuration that packages install.
    pub(super) fn is_packaged(&self) -> bool {
        self.is_packaged
    }

    pub(super) fn is_run_by_systemd(&self) -> bool {
        self.is_packaged && Path::new(SYSTEMD_DIRECTORY).exists()
    }

    pub(super) fn serve_command(&self) -> String {
        match self.is_packaged {
            true => "thalamus-edge serve".to_owned(),
            false => format!("thalamus-edge serve --config {}", self.path.display()),
        }
    }

    /// What is there, or what a new configuration begins as.
    pub(super) fn text(&self) -> ConfigText {
        self.found.clone().map_or_else(ConfigText::sample, ConfigText::new)
    }

    /// What a text would mean if it were here.
    pub(super) fn config(
        &self,
        text: &ConfigText,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, ConfigError> {
        Config::of_text(&self.path, text.as_str(), env)
    }

    fn loaded(&self, text: &ConfigText) -> Result<Loaded, ConfigError> {
        Loaded::of_text(&self.path, text.as_str(), environment())
    }

    /// Whether there is a configuration already.
    pub(super) fn is_there(&self) -> bool {
        self.found.is_some()
    }

    /// Whether a node would start with the draft, before the file of its connection string is there; as what it would
    /// start. What is wrong is located where it was written: in the file of `--from`, or in the configuration that is there.
    pub(super) fn check(&self, draft: &Draft, site: Option<&Loaded>) -> anyhow::Result<Config> {
        let mut text = draft.text.clone();
        if let Some(uri) = &draft.uri {
            text.remove(URI_FILE)?;
            text.set(URI, Setting::String(uri.to_string()))?;
        }
        let found = self.found.as_ref().map(|text| ConfigText::new(text.clone()));
        let found =
            found.and_then(|text| Loaded::of_text(&self.path, text.as_str(), std::iter::empty()).ok());
        let checked = self.loaded(&text).and_then(|loaded| startable(&loaded).map(|_| loaded.config));
        match checked {
            Err(ConfigError::Faults(faults)) => {
                let known: Vec<&Loaded> = site.into_iter().chain(&found).collect();
                let located = |fault| Loaded::locate(fault, &self.path, &known);
                Err(ConfigError::Faults(faults.into_iter().map(located).collect()).into())
            }
            checked => Ok(checked?),
        }
    }

    /// The path of something else in the same directory.
    pub(super) fn beside(&self, name: &str) -> String {
        directory_of(&self.path).join(name).to_string_lossy().into_owned()
    }

    /// Shows what would change, and replaces what is there if that is wanted and `check` would be content.
    pub(super) fn write(&self, draft: Draft, is_agreed: bool) -> anyhow::Result<Written> {
        let changes = draft.text.changes_since(&self.text())?;
        let shown = self.path.display();
        if self.found.is_some() && changes.is_empty() && draft.uri.is_none() {
            warnings(&self.loaded(&draft.text)?)?;
            return Ok(Written { text: format!("{shown} was left as it is"), has_changed: false });
        }
        let service = self.service(&draft)?;
        let secret = self.stage_secret(&draft, service)?;
        let mut checked = draft.text.clone();
        if let Some((_, staged)) = &secret {
            checked.set(URI_FILE, Setting::String(staged.beside().to_string_lossy().into_owned()))?;
        }
        let warnings = warnings(&self.loaded(&checked)?)?;
        let staged = match changes.is_empty() && self.found.is_some() {
            true => None,
            false => Some(self.stage(&draft, service)?),
        };
        self.show(&changes, secret.as_ref().map(|(path, _)| path.as_path()));
        if !is_agreed {
            agree(&self.path)?;
        }
        let mut text = warnings;
        // The configuration names the secret, so that comes first.
        for (path, staged) in secret.into_iter().chain(staged.map(|staged| (self.path.clone(), staged))) {
            text += &self.put(&path, staged)?;
        }
        Ok(Written { text: text.trim_end().to_owned(), has_changed: true })
    }

    fn put(&self, path: &Path, staged: Staged) -> anyhow::Result<String> {
        let unwritten = |error: io::Error| unwritable(path, &error);
        if path == self.path && read_text(path).ok() != self.found {
            let message =
                format!("{}: somebody else has changed it meanwhile: run setup again", path.display());
            return Err(Failure { code: EXIT_REFUSED, message }.into());
        }
        let mut text = format!("{} was written", path.display());
        if path.exists() {
            let kept = keep_as(path, BEFORE_SUFFIX).map_err(unwritten)?;
            text += &format!("; what it was before is {}", kept.display());
        }
        staged.replace().map_err(unwritten)?;
        Ok(text + "\n")
    }

    fn show(&self, changes: &[Change], secret: Option<&Path>) {
        let mut text = format!("{} is to be changed\n", self.path.display());
        if self.found.is_none() {
            text = format!("{} is to be made\n", self.path.display());
        }
        text.extend(changes.iter().map(|change| format!("  {change}\n")));
        text.extend(secret.map(|path| format!("  {} is to hold a connection string\n", path.display())));
        eprint!("{}", super::plain(&text));
    }

    fn stage(&self, draft: &Draft, service: Option<(u32, u32)>) -> Result<Staged, Failure> {
        let directory = directory_of(&self.path);
        fs::create_dir_all(directory).map_err(|error| unwritable(directory, &error))?;
        // What packages or an administrator decided about the file stays.
        let (mode, owner) = match fs::metadata(&self.path) {
            Ok(known) => (known.permissions().mode() & 0o777, (known.uid(), known.gid())),
            Err(_) => (CONFIG_MODE, (0, service.map_or(0, |(_, gid)| gid))),
        };
        let owner = is_root().then_some(owner);
        Staged::new(&self.path, draft.text.as_str().as_bytes(), mode, owner)
            .map_err(|error| unwritable(&self.path, &error))
    }

    fn stage_secret(
        &self,
        draft: &Draft,
        service: Option<(u32, u32)>,
    ) -> anyhow::Result<Option<(PathBuf, Staged)>> {
        let (Some(uri), Some(Setting::String(file))) = (&draft.uri, draft.text.get(URI_FILE)?) else {
            return Ok(None);
        };
        let path = PathBuf::from(file);
        let directory = directory_of(&path);
        fs::create_dir_all(directory).map_err(|error| unwritable(directory, &error))?;
        let staged = Staged::new(&path, format!("{}\n", **uri).as_bytes(), SECRET_MODE, service);
        let staged = staged.map_err(|error| unwritable(&path, &error))?;
        Ok(Some((path, staged)))
    }

    /// User and group that the node runs as, as far as root has to know: those whose data directory it is.
    fn service(&self, draft: &Draft) -> anyhow::Result<Option<(u32, u32)>> {
        if !is_root() {
            return Ok(None);
        }
        let directory = self.config(&draft.text, environment())?.data_dir;
        match fs::metadata(&directory) {
            Ok(known) => Ok(Some((known.uid(), known.gid())).filter(|(uid, _)| *uid != 0)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.is_packaged => Ok(None),
            Err(error) => {
                let directory = directory.display();
                let message = format!(
                    "{directory}: {error}: make it first, for the user that runs the node: \
                     install -d -m 0750 -o thalamus-edge -g thalamus-edge {directory}"
                );
                Err(Failure::usage(message).into())
            }
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    let advice = match error.kind() {
        io::ErrorKind::PermissionDenied => ": run this as root, or name a file of your own with --config",
        _ => "",
    };
    Failure::usage(format!("{} cannot be written: {error}{advice}", path.display()))
}

fn agree(path: &Path) -> anyhow::Result<()> {
    let question = if path.exists() { "Change it" } else { "Make it" };
    if Terminal::open().is_ok_and(|terminal| terminal.agrees(question).unwrap_or(false)) {
        return Ok(());
    }
    let message = format!("{} was not written: nobody agreed to that, nor was --yes given", path.display());
    Err(Failure { code: EXIT_REFUSED, message }.into())
}
