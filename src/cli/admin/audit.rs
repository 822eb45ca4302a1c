//! Floor 5. The `audit` commands: checking the trail, and writing it out so that others can check it.
//!
//! An export is one JSON object a line: first the anchor, the place that the oldest entry follows, then the
//! entries, oldest first.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::control::{Client, Missing};
use crate::cli::terminal::{Done, EXIT_FAILED, Failure};
use crate::config::Config;
use crate::domain::audit::{AuditError, Entry, Head, Verdict, Verifier};
use crate::files::{create_private, open_named};

/// Entries asked for at a time: as many as there are in one answer.
const PAGE_ENTRIES_MAX: usize = 1000;
/// Whoever knows of a head, as people read it.
const CENTRE: &str = "the centre";
const ARGUMENT: &str = "--expect";

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Check that no entry was changed, taken out or moved, and that the end is the one that others know.
    Verify {
        /// A head that was kept elsewhere, SEQ:HASH; may be given more than once.
        #[arg(long, value_name = "SEQ:HASH")]
        expect: Vec<Head>,
        /// Check an export instead of the node's own trail.
        #[arg(long, value_name = "EXPORT")]
        file: Option<PathBuf>,
    },
    /// Write the trail out, one JSON object a line.
    Export {
        /// A file that does not exist yet; else standard output.
        file: Option<PathBuf>,
    },
}

pub(crate) async fn run(config: &Config, command: AuditCommand) -> anyhow::Result<Done> {
    match command {
        AuditCommand::Verify { expect, file: None } => verify_node(config, &expect).await,
        AuditCommand::Verify { expect, file: Some(file) } => verify_file(&file, &expect),
        AuditCommand::Export { file } => export(config, file.as_deref()).await,
    }
}

/// The node's entries, page by page.
struct Trail {
    client: Client,
    after: u64,
    is_over: bool,
}

/// A page as the API shows it.
struct Page {
    entries: Vec<Value>,
    anchor: Head,
    acknowledged: Option<Head>,
}

impl Trail {
    async fn of(config: &Config) -> anyhow::Result<Trail> {
        Ok(Trail { client: Client::connect(config, Missing::Refuse).await?, after: 0, is_over: false })
    }

    /// The next page; `None` after the last.
    async fn page(&mut self) -> anyhow::Result<Option<Page>> {
        if self.is_over {
            return Ok(None);
        }
        let path = format!("/audit?after={}&limit={PAGE_ENTRIES_MAX}", self.after);
        let mut answer = self.client.get(&path).await?.accepted()?;
        let head = |name: &str| answer[name].as_str().map(str::parse::<Head>).transpose();
        let (anchor, acknowledged) = (head("anchor")?.unwrap_or(Head::START), head("acknowledged")?);
        match answer["next"].as_u64() {
            Some(next) => self.after = next,
            None => self.is_over = true,
        }
        let entries = answer["entries"].as_array_mut().map(std::mem::take).unwrap_or_default();
        Ok(Some(Page { entries, anchor, acknowledged }))
    }
}

async fn verify_node(config: &Config, expect: &[Head]) -> anyhow::Result<Done> {
    let mut trail = Trail::of(config).await?;
    let mut checked: Option<Verifier> = None;
    while let Some(page) = trail.page().await? {
        let verifier = checked.get_or_insert_with(|| {
            let mut verifier = expecting(page.anchor, expect);
            page.acknowledged.iter().for_each(|head| verifier.expect(CENTRE, *head));
            verifier
        });
        for shown in page.entries {
            take(verifier, shown).map_err(broken)?;
        }
    }
    let verdict = checked.unwrap_or_else(|| expecting(Head::START, expect)).finish().map_err(broken)?;
    Ok(Done::text(words(&verdict)))
}

fn verify_file(path: &Path, expect: &[Head]) -> anyhow::Result<Done> {
    let shown = || path.display().to_string();
    let mut checked: Option<Verifier> = None;
    for (number, line) in BufReader::new(open_named(path).with_context(shown)?).lines().enumerate() {
        let at = || format!("{} line {}", path.display(), number + 1);
        let line: Value = serde_json::from_str(&line.with_context(at)?).with_context(at)?;
        match &mut checked {
            None => {
                let anchor = line["anchor"].as_str().and_then(|anchor| anchor.parse().ok());
                let anchor = anchor.with_context(|| format!("{}: not the anchor of an export", at()))?;
                checked = Some(expecting(anchor, expect));
            }
            Some(verifier) => take(verifier, line).map_err(broken)?,
        }
    }
    let verifier = checked.with_context(|| format!("{}: the file is empty", path.display()))?;
    Ok(Done::text(words(&verifier.finish().map_err(broken)?)))
}

fn expecting(anchor: Head, expect: &[Head]) -> Verifier {
    let mut verifier = Verifier::new(anchor);
    expect.iter().for_each(|head| verifier.expect(ARGUMENT, *head));
    verifier
}

/// Checks one entry as the API shows it or an export holds it.
fn take(verifier: &mut Verifier, shown: Value) -> Result<(), AuditError> {
    let seq = shown["seq"].as_u64().unwrap_or_default();
    match serde_json::from_value::<Entry>(shown) {
        Ok(entry) => verifier.take(&entry),
        Err(_) => Err(verifier.unreadable(seq)),
    }
}

fn broken(error: AuditError) -> Failure {
    Failure { code: EXIT_FAILED, message: format!("the audit trail is not whole: {error}") }
}

fn words(verdict: &Verdict) -> String {
    let Verdict { anchor, head, known_up_to, too_old } = verdict;
    if head.seq == anchor.seq {
        return format!("there are no entries after entry {}", anchor.seq);
    }
    let mut text =
        format!("the audit trail is whole: entries {} to {}\nhead {head}\n", anchor.seq + 1, head.seq);
    text += &match known_up_to {
        Some((seq, by)) if *seq == head.seq => format!("{by} knows its end: nothing was cut off"),
        Some((seq, by)) => format!(
            "{by} knows of entry {seq}: had the trail been cut off or rewritten before that, it would show; \
             after it, it would not"
        ),
        None => {
            "nobody else knows its end: entries that were cut off there would not be missed. Keep the head \
                 and compare with `--expect`"
                .to_owned()
        }
    };
    if !too_old.is_empty() {
        text += &format!("\nolder than what is kept, and not compared: the head of {}", too_old.join(", "));
    }
    text
}

async fn export(config: &Config, file: Option<&Path>) -> anyhow::Result<Done> {
    let mut trail = Trail::of(config).await?;
    let mut out: Box<dyn Write> = match file {
        Some(path) => Box::new(BufWriter::new(create(path)?)),
        None => Box::new(BufWriter::new(io::stdout().lock())),
    };
    let written = write_trail(&mut trail, &mut out).await;
    match written.and_then(|()| Ok(out.flush()?)) {
        // Whoever reads has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(Done::text("")),
        Err(error) => Err(error.context("the export is not complete")),
        Ok(()) => Ok(Done::text("")),
    }
}

async fn write_trail(trail: &mut Trail, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut is_first = true;
    while let Some(page) = trail.page().await? {
        if std::mem::take(&mut is_first) {
            writeln!(out, "{}", json!({"anchor": page.anchor.to_string()}))?;
        }
        for mut entry in page.entries {
            // For people, and not part of the chain.
            entry.as_object_mut().map(|fields| fields.remove("at"));
            writeln!(out, "{entry}")?;
        }
    }
    Ok(())
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn create(path: &Path) -> anyhow::Result<File> {
    create_private(path).with_context(|| path.display().to_string())
}
