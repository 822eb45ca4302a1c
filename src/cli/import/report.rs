//! Floor 5. What an import says it has done.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::sources::{Source, Sources};
use crate::cli::terminal::show::{plain, table};

/// What became of the rows of a file.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) added: u64,
    pub(super) replaced: u64,
    pub(super) equal: u64,
    /// Left as they are here.
    pub(super) different: u64,
    /// Not taken, because they, or their person, were deleted here.
    pub(super) deleted: u64,
    /// Of those that were added, the ones that had been deleted.
    pub(super) restored: u64,
    /// Not taken.
    pub(super) refused: u64,
    /// People whose account is spelled otherwise here than in the file.
    pub(super) respelled: u64,
    /// Personal documents whose bytes are not on this node.
    pub(super) without_content: u64,
    /// People of whom the files say otherwise whether they may log in, which stays as it is here.
    pub(super) active_kept: u64,
    /// Records of people who are not on this node.
    pub(super) of_unknown: u64,
    /// People with ids that are no account, so that nobody logs in with them.
    pub(super) no_account: u64,
}

pub(super) fn as_json(tallies: &[(&Source, Tally)], sources: &Sources, is_dry_run: bool) -> Value {
    let rows = tallies.iter().map(|(source, tally)| {
        json!({
            "file": source.path.display().to_string(),
            "collection": source.kind.schema().collection,
            "added": tally.added,
            "replaced": tally.replaced,
            "equal": tally.equal,
            "different": tally.different,
            "deleted": tally.deleted,
            "restored": tally.restored,
            "refused": tally.refused,
            "incomplete": tally.without_content,
            "active_kept": tally.active_kept,
            "no_account": tally.no_account,
            "respelled": tally.respelled,
            "of_unknown": tally.of_unknown,
        })
    });
    let named = |files: &[(PathBuf, String)]| -> Value {
        files.iter().map(|(path, why)| json!({"file": path.display().to_string(), "why": why})).collect()
    };
    json!({
        "files": rows.collect::<Vec<_>>(),
        "skipped": named(&sources.skipped),
        "cut_off": named(&sources.cut_off),
        "dry_run": is_dry_run,
    })
}

pub(super) fn as_table(tallies: &[(&Source, Tally)]) -> String {
    let rows: Vec<_> = tallies
        .iter()
        .map(|(source, tally)| {
            let Tally { added, replaced, equal, different, deleted, refused, without_content, .. } = *tally;
            let counts = [added, replaced, equal, different, deleted, refused, without_content];
            let [added, replaced, equal, different, deleted, refused, incomplete] =
                counts.map(|count| count.to_string());
            let mut file = plain(&source.path.display().to_string());
            if let Some(table) = &source.table {
                file += &format!(" {}", plain(&table.name));
            }
            [file, added, replaced, equal, different, deleted, refused, incomplete]
        })
        .collect();
    table(["FILE", "ADDED", "REPLACED", "EQUAL", "DIFFERENT", "DELETED", "REFUSED", "INCOMPLETE"], &rows)
}

/// How much was not taken, if anything, or that there was nothing.
pub(super) fn summary(
    tallies: &[(&Source, Tally)],
    refused_contents: u64,
    sources: &Sources,
) -> Option<String> {
    let sum = |count: fn(&Tally) -> u64| tallies.iter().map(|(_, tally)| count(tally)).sum::<u64>();
    let counted = [
        (sum(|tally| tally.refused), "rows were refused"),
        (sum(|tally| tally.different), "records are stored with other content"),
        (sum(|tally| tally.deleted), "records, or their people, were deleted here"),
        (sum(|tally| tally.without_content), "personal documents are incomplete"),
        (sum(|tally| tally.active_kept), "people stay open or closed as they are here"),
        (refused_contents, "uploaded files were refused"),
        (sources.skipped.len() as u64, "files were left out"),
        (sources.cut_off.len() as u64, "dumps were cut off"),
    ];
    let said: Vec<_> = counted
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if !said.is_empty() {
        return Some(format!("not everything was taken: {}", said.join(", ")));
    }
    // What a command that failed leaves behind. One table of several may be empty.
    let is_nothing =
        tallies.iter().all(|(_, tally)| *tally == Tally::default()) && sources.contents.is_empty();
    is_nothing.then(|| {
        "nothing was imported: none of the files holds a record; look whether the export has failed"
            .to_owned()
    })
}
