//! Floor 5. The accounts that were closed on a node, as a file of its export: their records may not say so for long, because
//! a hub stores `active: false` for everybody. An import keeps them closed.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::create;
use crate::domain::record::fold_account;
use crate::files::read_bounded;

/// What the file is called, without its ending.
pub(crate) const CLOSED_ACCOUNTS: &str = "closed_accounts";

/// No file of accounts is larger: a million of them have 40 MB.
const BYTES_MAX: u64 = 64 << 20;

/// Its name.
pub(crate) fn closed_file() -> String {
    format!("{CLOSED_ACCOUNTS}.jsonl")
}

/// Writes the accounts, one a line; no file if there are none.
pub(crate) fn write(directory: &Path, ids: &[String]) -> anyhow::Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut file = create(&directory.join(closed_file()))?;
    let lines: String = ids.iter().map(|id| format!("{}\n", json!({"_id": id}))).collect();
    file.write_all(lines.as_bytes())?;
    Ok(file.sync_all()?)
}

/// Reads the accounts, folded.
pub(crate) fn read(path: &Path) -> anyhow::Result<BTreeSet<String>> {
    let read = read_bounded(path, BYTES_MAX).and_then(|bytes| {
        String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    });
    let text = read.with_context(|| path.display().to_string())?;
    let mut accounts = BTreeSet::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let row: Value = serde_json::from_str(line).unwrap_or_default();
        let id = row["_id"].as_str().filter(|id| !id.is_empty());
        let wrong = || format!("{}: line {}: expected {{\"_id\": \"ACCOUNT\"}}", path.display(), number + 1);
        accounts.insert(fold_account(id.with_context(wrong)?));
    }
    Ok(accounts)
}
