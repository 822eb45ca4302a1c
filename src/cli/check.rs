//! Floor 5. The `check` command: everything that is wrong with a configuration at once, before a node is started with it.

use std::path::Path;

use serde_json::json;

use super::terminal::show::plain;
use super::terminal::{Done, EXIT_USAGE};
use crate::config::{ConfigError, Examined, Loaded, Overrides, environment};

const IN_ORDER: &str = "the configuration and the access rules are in order";

/// Ends with 2 if a node would not start; with what is only unwise, as `serve` does, it goes on.
pub(super) fn run(file: Option<&Path>, json: bool) -> Result<Done, ConfigError> {
    let (examined, roles) = match Loaded::load(file, environment(), &Overrides::default()) {
        Ok(loaded) => {
            (loaded.examine(), loaded.config.acl().map(|(acl, _)| acl.explained()).unwrap_or_default())
        }
        Err(error) if json || matches!(error, ConfigError::Faults(_)) => {
            (Examined { faults: error.into_faults(), ..Examined::default() }, Vec::new())
        }
        Err(error) => return Err(error),
    };
    let stopping = examined.stopping();
    if json {
        let Examined { faults, warnings, certificate } = &examined;
        let warnings: Vec<_> = warnings.iter().chain(certificate).collect();
        let found =
            json!({"ok": stopping.is_empty(), "faults": faults, "warnings": warnings, "roles": roles});
        let done = Done::json(&found);
        return Ok(if stopping.is_empty() { done } else { done.with_code(EXIT_USAGE) });
    }
    let warnings = warning_lines(&examined.unwise());
    if stopping.is_empty() {
        let roles: String = roles.iter().map(|line| format!("{}\n", plain(line))).collect();
        return Ok(Done::text(roles + &warnings + IN_ORDER));
    }
    eprint!("{}", plain(&warnings));
    Err(ConfigError::Faults(stopping))
}

fn warning_lines(warnings: &[String]) -> String {
    warnings.iter().map(|warning| format!("warning: {}\n", plain(warning))).collect()
}

/// What there is to say about a node that starts: faults that do not keep it from that, and warnings. An error if there
/// are others.
pub(super) fn startable(loaded: &Loaded) -> Result<Examined, ConfigError> {
    let examined = loaded.examine();
    match examined.stopping() {
        stopping if stopping.is_empty() => Ok(examined),
        stopping => Err(ConfigError::Faults(stopping)),
    }
}

/// What somebody should know who is about to start a node; an error if it would not start.
pub(super) fn warnings(loaded: &Loaded) -> Result<String, ConfigError> {
    Ok(warning_lines(&startable(loaded)?.unwise()))
}
