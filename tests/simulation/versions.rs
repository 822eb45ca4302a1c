//! What a node takes for the centre's version of a record never goes back to an older one.

use std::collections::{BTreeMap, BTreeSet};

use thalamus_edge::domain::record::RecordKey;
use thalamus_edge::store::{Base, Snapshot};

use super::checker::{Fields, fields};
use super::clinic::record;
use super::support::sim::Applied;

/// The centre's versions of every record, and how far each node has come along them.
#[derive(Default)]
pub(crate) struct Versions {
    /// Fields of each version, the first of which is that there is no record.
    by_key: BTreeMap<RecordKey, Vec<Fields>>,
    looked_at: usize,
    /// The oldest version that may be the one from which a node has the value of a field.
    reached: BTreeMap<(usize, RecordKey, String), usize>,
}

impl Versions {
    /// Takes up what has happened at the centre since.
    pub(crate) fn learn(&mut self, chronicle: &[Applied]) {
        for change in &chronicle[self.looked_at.min(chronicle.len())..] {
            let versions = self.by_key.entry(change.key.clone()).or_insert_with(|| vec![Fields::new()]);
            versions.push(change.after.as_ref().map(fields).unwrap_or_default());
        }
        self.looked_at = chronicle.len();
    }

    /// Fields in which the node has gone back. A value that the centre never had is of no version: nodes make a
    /// base of what may have been sent.
    pub(crate) fn gone_back(&mut self, node: usize, snapshot: &Snapshot) -> Vec<String> {
        let mut found = Vec::new();
        for (key, versions) in &self.by_key {
            if snapshot.held(key).expect("what waits").is_some()
                || snapshot.undecided(key).expect("what waits").is_some()
            {
                // Apart from the record here, until somebody has decided.
                continue;
            }
            let known = match snapshot.base(key).expect("a base") {
                Some(Base::Document(base)) => fields(&base),
                Some(Base::Absent) => Fields::new(),
                None => record(snapshot, key).as_ref().map(fields).unwrap_or_default(),
            };
            let paths: BTreeSet<&String> =
                versions.iter().flat_map(Fields::keys).chain(known.keys()).collect();
            for path in paths {
                let place = (node, key.clone(), path.clone());
                let from = self.reached.get(&place).copied().unwrap_or_default();
                let is_there = |version: &Fields| version.get(path) == known.get(path);
                match versions[from..].iter().position(is_there) {
                    Some(steps) => drop(self.reached.insert(place, from + steps)),
                    None if versions.iter().any(is_there) => found.push(format!(
                        "{key} {path} is {:?} again, as it was before version {from} of {}",
                        known.get(path),
                        versions.len() - 1
                    )),
                    None => {}
                }
            }
        }
        found
    }
}
