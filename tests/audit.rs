//! The audit trail: that it holds what was done and nothing else, that nobody changes it unnoticed, and that
//! neither a flood nor a power cut gets in its way.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "each binary uses its own part")]
mod cli_support;
mod support;

#[path = "audit/chain.rs"]
mod chain;
#[path = "audit/floods.rs"]
mod floods;
#[path = "audit/program.rs"]
mod program;
#[path = "audit/requests.rs"]
mod requests;

use thalamus_edge::domain::audit::{AuditError, Entry, Head, Verdict, Verifier};
use thalamus_edge::store::{AuditQuery, AuditRow, Store};

/// All entries that the store keeps, oldest first.
fn rows(store: &Store) -> Vec<AuditRow> {
    let query = AuditQuery { after: Some(0), limit: usize::MAX, ..AuditQuery::default() };
    let page = store.read().unwrap().audit(&query).unwrap();
    assert_eq!(page.next, None);
    page.rows
}

fn entries(store: &Store) -> Vec<Entry> {
    rows(store).into_iter().map(Result::unwrap).collect()
}

/// Checks the store's trail against what others know of it.
fn verified(store: &Store, known: &[Head]) -> Result<Verdict, AuditError> {
    let mut verifier = Verifier::new(store.read().unwrap().audit_anchor().unwrap());
    known.iter().for_each(|head| verifier.expect("somebody else", *head));
    for row in rows(store) {
        match row {
            Ok(entry) => verifier.take(&entry)?,
            Err(seq) => return Err(verifier.unreadable(seq)),
        }
    }
    verifier.finish()
}
