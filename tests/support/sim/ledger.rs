//! The reconciliation's own collections at the simulated centre: leases, conflicts, archived bodies.

use bson::{Document, doc};
use thalamus_edge::central::{ArchiveState, CentralError, ConflictAnswer, Lease, LeaseAnswer, Result};

use thalamus_edge::domain::diff;

use super::history::Happening;
use super::{State, conflict_rows};

/// Fields of a node's row that announcements and reports leave alone.
const NODE_OWN_FIELDS: [&str; 3] = ["_id", "lease", "status"];

impl State {
    /// Whether the node may write, and if `expected` is what its row holds.
    pub(super) fn lease_answer(&self, node: &str, expected: &[Lease]) -> LeaseAnswer {
        if self.revoked.iter().any(|revoked| revoked == node) {
            return LeaseAnswer::Revoked;
        }
        let held = self.leases.get(node).cloned();
        let is_mine = match &held {
            None => expected.is_empty(),
            Some(held) => expected.contains(held),
        };
        if is_mine { LeaseAnswer::Taken } else { LeaseAnswer::Other(held) }
    }

    pub(super) fn take_lease(
        &mut self,
        node: &str,
        expected: &[Lease],
        proposed: &Lease,
        announcement: &Document,
    ) -> LeaseAnswer {
        let answer = self.lease_answer(node, expected);
        if answer == LeaseAnswer::Taken {
            let is_new = !self.nodes.contains_key(node) && !self.leases.contains_key(node);
            let row =
                self.nodes.entry(node.to_owned()).or_insert_with(|| doc! {"_id": node, "status": "active"});
            // As `$set` does: a field may be a path.
            for (field, value) in free_fields(announcement) {
                let path: Vec<String> = field.split('.').map(str::to_owned).collect();
                diff::set(row, &path, Some(value));
            }
            self.leases.insert(node.to_owned(), proposed.clone());
            let lease = (!is_new).then(|| proposed.clone());
            self.history.push(Happening::Node { node: node.to_owned(), lease });
        }
        answer
    }

    pub(super) fn report(&mut self, node: &str, lease: &Lease, report: &Document) {
        self.reports.push(report.clone());
        if self.leases.get(node) != Some(lease) {
            return;
        }
        if let Some(row) = self.nodes.get_mut(node) {
            row.extend(free_fields(report));
        }
        self.history.push(Happening::Node { node: node.to_owned(), lease: None });
    }

    pub(super) fn archive(&mut self, rows: &[Document]) -> Result<()> {
        let about = |row: &Document| row.get_str("id").unwrap_or_default().to_owned();
        let is_refused = |row: &Document| {
            let has_refused_body = row.contains_key("document") && self.bodies_refused.contains(&about(row));
            self.not_archived.contains(&about(row)) || has_refused_body || is_too_large(row)
        };
        if rows.iter().any(is_refused) {
            return Err(not_accepted());
        }
        for row in rows {
            self.trash.insert(id_of(row)?, row.clone());
        }
        Ok(())
    }

    pub(super) fn settle_archive(&mut self, settled: &[(String, ArchiveState)]) {
        for (id, ended) in settled {
            if let Some(row) = self.trash.get_mut(id) {
                row.insert("state", if *ended == ArchiveState::Done { "done" } else { "void" });
            }
        }
    }

    pub(super) fn publish_conflicts(&mut self, rows: &[Document]) -> Result<()> {
        let about = |row: &Document| row.get_str("id").unwrap_or_default().to_owned();
        let is_refused =
            |row: &Document| self.conflicts_refused_about.contains(&about(row)) || is_too_large(row);
        if rows.iter().any(is_refused) {
            return Err(not_accepted());
        }
        for row in rows {
            conflict_rows::publish(&mut self.conflicts, row);
        }
        Ok(())
    }

    pub(super) fn answer_conflicts(&mut self, answers: &[ConflictAnswer]) {
        for answer in answers {
            conflict_rows::answer(&mut self.conflicts, answer);
        }
    }
}

/// MongoDB stores no document of more than 16 MiB.
fn is_too_large(row: &Document) -> bool {
    row.to_vec().expect("a document").len() > 16 << 20
}

fn not_accepted() -> CentralError {
    CentralError::Failed("a row is not accepted".into())
}

fn id_of(row: &Document) -> Result<String> {
    let id = row.get_str("_id").map(str::to_owned);
    id.map_err(|_| CentralError::Failed("a row without an identifier".into()))
}

/// The fields that a node may set in its row.
fn free_fields(fields: &Document) -> Document {
    let free = fields.iter().filter(|(key, _)| !NODE_OWN_FIELDS.contains(&key.as_str()));
    free.map(|(key, value)| (key.clone(), value.clone())).collect()
}
