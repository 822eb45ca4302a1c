//! Floor 5. Variables of the program that set no key of the configuration, and those that nearly do.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::fault::{Fault, HIDDEN, Place, setting};
use super::keys::Key;
use super::{VARIABLE_PREFIX, keys};

/// How much is logged.
pub(super) const LOG: &str = "THALAMUS_EDGE_LOG";
/// `json`, or `text`.
pub(super) const LOG_FORMAT: &str = "THALAMUS_EDGE_LOG_FORMAT";
/// How all variables of this program begin.
const PREFIX: &str = "THALAMUS_EDGE_";

/// Whether a variable is one of these.
pub(super) fn is_looked_at(name: &str) -> bool {
    [LOG, LOG_FORMAT].contains(&name) || meant(name).is_some()
}

/// What is wrong with such a variable.
pub(super) fn fault(name: &str, value: &str) -> Option<Fault> {
    const LEVELS: &str = "off, error, warn, info, debug, trace, or a list of TARGET=LEVEL";
    match name {
        LOG if !is_filter(value) => Some(Fault::of_variable(name, "is no level", value, LEVELS, "info")),
        LOG_FORMAT if !["", "text", "json"].contains(&value) => {
            Some(Fault::of_variable(name, "is no format", value, "text, json", "json"))
        }
        _ => meant(name).map(|(meant, key)| {
            const ALLOWED: &str =
                "THALAMUS_EDGE__KEY or THALAMUS_EDGE__SECTION__KEY, in capitals, with two underscores";
            let place = Place::Variable(name.to_owned());
            let problem = format!("sets nothing; did you mean {meant}?");
            Fault::of_text(&place, problem, HIDDEN, ALLOWED, setting(&meant, key.example.trim_matches('"')))
        }),
    }
}

/// A bare word would be taken for the name of a part of the program, and switch everything else off.
fn is_filter(value: &str) -> bool {
    let is_directive = |directive: &str| {
        let directive = directive.trim();
        match directive.rsplit_once('=') {
            Some((target, level)) => !target.trim().is_empty() && level.trim().parse::<LevelFilter>().is_ok(),
            None => !directive.is_empty() && directive.parse::<LevelFilter>().is_ok(),
        }
    };
    value.trim().is_empty() || (EnvFilter::try_new(value).is_ok() && value.split(',').all(is_directive))
}

/// The variable that one is meant to be which has one underscore where two belong, or small letters.
fn meant(name: &str) -> Option<(String, &'static Key)> {
    let rest = name.get(..PREFIX.len()).filter(|start| start.eq_ignore_ascii_case(PREFIX))?;
    let plain = name.get(rest.len()..)?.trim_start_matches('_').to_ascii_lowercase().replace("__", "_");
    let known = keys::KEYS.iter().find(|key| key.name.replace('.', "_") == plain)?;
    let right = known.variable();
    (right != name && !name.starts_with(VARIABLE_PREFIX)).then_some((right, known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_formats_that_do_not_exist_are_refused() {
        for right in
            ["", "info", "INFO", "off", "warn,thalamus_edge::sync=debug", " debug ", "rustls=error,info"]
        {
            assert_eq!(fault(LOG, right), None, "{right}");
        }
        for wrong in
            ["lots", "inf", "verbose", "info,lots", "thalamus_edge=lots", "=info", "thalamus_edge", "info,"]
        {
            assert!(fault(LOG, wrong).is_some_and(|fault| fault.allowed.contains("debug, trace")), "{wrong}");
        }
        for right in ["json", "text", ""] {
            assert_eq!(fault(LOG_FORMAT, right), None, "{right}");
        }
        for wrong in ["xml", "JSON", "jsonl", "pretty"] {
            assert!(fault(LOG_FORMAT, wrong).is_some(), "{wrong}");
        }
    }

    #[test]
    fn variables_that_nearly_set_a_key_are_named() {
        for (name, right) in [
            ("THALAMUS_EDGE_SERVER_LISTEN", "THALAMUS_EDGE__SERVER__LISTEN"),
            ("thalamus_edge__server__listen", "THALAMUS_EDGE__SERVER__LISTEN"),
            ("THALAMUS_EDGE_DATA_DIR", "THALAMUS_EDGE__DATA_DIR"),
            ("THALAMUS_EDGE_CENTRAL__URI_FILE", "THALAMUS_EDGE__CENTRAL__URI_FILE"),
        ] {
            assert!(is_looked_at(name));
            let found = fault(name, "").unwrap();
            assert_eq!(found.problem, format!("sets nothing; did you mean {right}?"));
            assert!(found.example.starts_with(&format!("{right}=")), "{}", found.example);
        }
        for other in
            ["THALAMUS_EDGE_CONFIG", "THALAMUS_EDGE_TEST_SEED", "PATH", "THALAMUS_EDGE__SERVER__FOO", "Ä"]
        {
            assert!(!is_looked_at(other), "{other}");
        }
    }
}
