//! Floor 5. What `doctor` found, how bad it is, and how that is told.

use std::io::{self, IsTerminal as _};

use serde::Serialize;
use serde_json::json;

use crate::cli::terminal::show::{denied_advice, plain};
use crate::cli::terminal::{Done, EXIT_FAILED};

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Health {
    Ok,
    /// Somebody should look at it when there is time.
    Warning,
    /// Data or their secrecy are at risk, or the node does not work.
    Wrong,
}

impl Health {
    fn word(self) -> &'static str {
        match self {
            Health::Ok => "ok",
            Health::Warning => "warning",
            Health::Wrong => "WRONG",
        }
    }

    /// As terminals are told of green, yellow and red.
    fn colour(self) -> &'static str {
        match self {
            Health::Ok => "\u{1b}[32m",
            Health::Warning => "\u{1b}[33m",
            Health::Wrong => "\u{1b}[31m",
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Finding {
    about: &'static str,
    pub(super) health: Health,
    pub(super) finding: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// What has been found so far.
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn ok(&mut self, about: &'static str, finding: impl Into<String>) {
        self.0.push(Finding { about, health: Health::Ok, finding: finding.into(), remedy: None });
    }

    pub(super) fn warning(
        &mut self,
        about: &'static str,
        finding: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.found(about, Health::Warning, finding, remedy);
    }

    pub(super) fn wrong(
        &mut self,
        about: &'static str,
        finding: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.found(about, Health::Wrong, finding, remedy);
    }

    pub(super) fn found(
        &mut self,
        about: &'static str,
        health: Health,
        finding: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let finding = finding.into();
        // Nothing else can be said of what may not be looked at.
        let remedy = denied_advice(&finding).map_or_else(|| remedy.into(), str::to_owned);
        self.0.push(Finding { about, health, finding, remedy: Some(remedy) });
    }

    /// All of them, for people.
    pub(super) fn lines(&self) -> String {
        let is_coloured = io::stdout().is_terminal();
        let lines: Vec<_> = self.0.iter().map(|finding| line(finding, is_coloured)).collect();
        lines.join("\n")
    }

    fn count(&self, health: Health) -> usize {
        self.0.iter().filter(|finding| finding.health == health).count()
    }
}

pub(super) fn shown(found: &Findings, json: bool) -> Done {
    let (wrong, warnings) = (found.count(Health::Wrong), found.count(Health::Warning));
    let code = if wrong > 0 { EXIT_FAILED } else { 0 };
    if json {
        return Done::json(&json!({"wrong": wrong, "warnings": warnings, "findings": found.0}))
            .with_code(code);
    }
    let verdict = match (wrong, warnings) {
        (0, 0) => "all is well".to_owned(),
        _ => format!("{wrong} wrong, {warnings} warnings"),
    };
    Done::text(format!("{}\n\n{verdict}", found.lines())).with_code(code)
}

fn line(finding: &Finding, is_coloured: bool) -> String {
    let word = format!("{:<7}", finding.health.word());
    let word = match is_coloured {
        true => format!("{}{word}\u{1b}[0m", finding.health.colour()),
        false => word,
    };
    let text = plain(&finding.finding).replace('\n', " ");
    match &finding.remedy {
        None => format!("{word}  {}: {text}", finding.about),
        Some(remedy) => format!("{word}  {}: {text}\n         -> {}", finding.about, plain(remedy)),
    }
}
