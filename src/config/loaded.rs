//! Floor 5. A configuration as it was read, with the places of its values for messages.

use std::path::Path;

use super::fault::{Fault, NO_TEXT, Place};
use super::layers::{self, Layered, Origins};
use super::{Config, ConfigError, DEFAULT_FILE, Overrides, check};
use crate::domain::encoding::utf8;
use crate::files::read_configured;

/// A configuration, and where its values were set.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    pub(super) origins: Origins,
}

impl Loaded {
    /// Puts the layers together: defaults, the file, variables out of `env`, flags. A file that is named
    /// must be there.
    pub fn load(
        path: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
        overrides: &Overrides,
    ) -> Result<Loaded, ConfigError> {
        let default = Path::new(DEFAULT_FILE);
        let path = path.or_else(|| default.exists().then_some(default));
        let file = path.map(|path| Ok((path, read_text(path)?))).transpose()?;
        Loaded::of_layers(file.as_ref().map(|(path, text)| (*path, text.as_str())), env, overrides)
    }

    /// Whether somebody has set this key, and it is no default.
    pub fn has(&self, key: &str) -> bool {
        self.origins.has(key)
    }

    /// A fault of a text that was to be written to `file`, located where its value comes from: the first of `known` that
    /// sets the key.
    pub fn locate(fault: Fault, file: &Path, known: &[&Loaded]) -> Fault {
        if fault.file.as_deref() != Some(file) {
            return fault;
        }
        let key = fault.key.as_deref().unwrap_or_default();
        let place = known.iter().find_map(|loaded| loaded.origins.place(key));
        fault.moved_to(&place.unwrap_or_else(|| Place::named("setup")))
    }

    /// As [`Loaded::load`] would read it if `text` were in the file `path`.
    pub fn of_text(
        path: &Path,
        text: &str,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Loaded, ConfigError> {
        Loaded::of_layers(Some((path, text)), env, &Overrides::default())
    }

    /// Reads and checks the layers; `file` is a path with its text.
    pub(super) fn of_layers(
        file: Option<(&Path, &str)>,
        env: impl Iterator<Item = (String, String)>,
        overrides: &Overrides,
    ) -> Result<Loaded, ConfigError> {
        let Layered { config, origins, mut faults } = layers::lay(file, env, overrides);
        for (key, problem) in check::faults(&config) {
            // Where a value could not be read, another stands in for it.
            if !faults.iter().any(|fault| fault.key.as_deref() == Some(key)) {
                faults.push(origins.fault(key, problem));
            }
        }
        let contradictions: Vec<Fault> =
            check::contradictions(&config).map(|(key, problem)| origins.fault(key, problem)).collect();
        let loaded = Loaded { config, origins };
        if faults.is_empty() && contradictions.is_empty() {
            return Ok(loaded);
        }
        // All faults are reported at once.
        let is_new = |fault: &Fault| !faults.iter().any(|other| other.key == fault.key);
        let outside: Vec<Fault> = loaded.examine().faults.into_iter().filter(is_new).collect();
        faults.extend(contradictions);
        faults.extend(outside);
        // As they stand in the file; other files, variables and flags come last.
        faults.sort_by_key(|fault| {
            let is_there = fault.file.is_some() && fault.file.as_deref() == file.map(|(path, _)| path);
            if is_there { fault.line.unwrap_or(usize::MAX) } else { usize::MAX }
        });
        Err(ConfigError::Faults(faults))
    }
}

/// The text of a file that a configuration names, or of a configuration.
pub fn read_text(path: &Path) -> Result<String, ConfigError> {
    let bytes =
        read_configured(path).map_err(|cause| ConfigError::Unreadable { path: path.to_owned(), cause })?;
    // Editors on Windows put a mark of byte order before it, or save "Unicode".
    match utf8(&bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => {
            let good = str::from_utf8(&bytes).err().map_or(0, |error| error.valid_up_to());
            let line = 1 + bytes.iter().take(good).filter(|byte| **byte == b'\n').count();
            let fault = Fault::of_text(
                &Place::line(path, line),
                error.to_string(),
                NO_TEXT,
                "text in UTF-8",
                "iconv -f ISO-8859-1 -t UTF-8 OLD-FILE > NEW-FILE",
            );
            Err(ConfigError::Faults(vec![fault]))
        }
    }
}
