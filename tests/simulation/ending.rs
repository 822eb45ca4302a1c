//! The end of a run: everything heals, everybody gets two clean rounds, and the checker looks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, Document};
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::domain::value::same_document;
use thalamus_edge::store::{HoldReason, Snapshot, StoreError, Subject, Tx};
use thalamus_edge::sync::{Outcome, Report};

use super::checker::{Act, Case, Edit, Recorded, Traces, Transition, Transitions, fields};
use super::clinic::{Clinic, is_held, records};
use super::support::sim::weather::Rates;
use super::support::sim::{Applied, conflict_rows};
use super::world::World;

/// Rounds in which a node must come to its two clean ones.
const ROUNDS_MAX: usize = 12;
const CLEAN_ROUNDS: usize = 2;

impl World {
    /// What went wrong stops, and everything that is on its way arrives.
    pub(crate) async fn heal(&mut self) {
        self.tell("everything heals".to_owned());
        let latency_ms_max = self.plan.rates.latency_ms_max;
        self.sim.state().weather.rates = Rates { latency_ms_max, ..Rates::default() };
        self.sim.state().dooms.clear();
        self.sim.state().refused.clear();
        if self.sim.deliver_one() {
            self.sim.state().weather.count("zombie");
            self.sim.deliver();
        }
        // Rounds that still run have a time limit.
        while self.clinics.iter().any(Clinic::is_in_a_round) {
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.look_around().await;
        }
        for node in 0..self.clinics.len() {
            self.clinics[node].disk.was_cut();
            let store = self.clinics[node].running.as_ref().map(|running| running.store.clone());
            if let Some(store) = store {
                let retry = |tx: &mut Tx<'_>| -> Result<(), StoreError> { tx.retry_refused() };
                if let Err(error) = store.transact(retry).await {
                    self.complain(format!("{}: {error}", self.clinics[node].name));
                }
            }
        }
    }

    pub(crate) async fn round(&mut self, node: usize) -> Option<Report> {
        self.clinics[node].start_round();
        let round = self.clinics[node].running.as_mut()?.round.take()?;
        let report = round.await.expect("a report");
        let Report { outcome, pulled, pushed, merged, deleted, conflicts, message, .. } = &report;
        self.tell(format!(
            "{}: last rounds, {outcome:?}: pulled {pulled}, pushed {pushed}, merged {merged}, deleted {deleted}, \
             conflicts {conflicts}; {message}",
            self.clinics[node].name
        ));
        Some(report)
    }

    /// Two clean rounds of every node, after which all must be equal.
    pub(crate) async fn converge(&mut self) {
        let (mut turns, mut was_waiting) = (CLEAN_ROUNDS, false);
        while turns > 0 {
            turns -= 1;
            // What others do may end a wait, and what waited comes late.
            if !was_waiting && self.is_waiting() {
                (turns, was_waiting) = (turns + 1, true);
            }
            for node in 0..self.clinics.len() {
                let mut tries = 0;
                while self.round(node).await.is_none_or(|report| report.outcome != Outcome::Complete) {
                    self.agree_to_the_centre(node).await;
                    tries += 1;
                    if tries == ROUNDS_MAX {
                        return self.complain(format!("{} comes to no clean round", self.clinics[node].name));
                    }
                }
            }
        }
        self.check_equality();
        self.check_rest().await;
    }

    /// Whether somebody waits for a decision, or a decision for the values that it is about.
    fn is_waiting(&self) -> bool {
        let holds = |snapshot: Arc<Snapshot>| snapshot.holds_count().expect("a count") > 0;
        let waits = |snapshot: Arc<Snapshot>| {
            holds(Arc::clone(&snapshot)) || snapshot.held_back_count().expect("a count") > 0
        };
        let is_held = self.clinics.iter().filter_map(Clinic::snapshot).any(waits);
        is_held || self.sim.state().conflicts.values().any(conflict_rows::is_to_carry_out)
    }

    fn check_equality(&mut self) {
        let centre = self.at_centre();
        let mut found = Vec::new();
        for clinic in &self.clinics {
            let Some(snapshot) = clinic.snapshot() else {
                found.push(format!("{} is off", clinic.name));
                continue;
            };
            let here = records(&snapshot);
            let keys: BTreeSet<&RecordKey> = here.keys().chain(centre.keys()).collect();
            for key in keys {
                let is_same = match (here.get(key), centre.get(key)) {
                    (Some(here), Some(there)) => same_document(here, there),
                    (None, None) => true,
                    _ => false,
                };
                if !is_same && !waits(&snapshot, key, here.get(key).or(centre.get(key))) {
                    found.push(format!(
                        "{} holds {key} as {:?}, the centre as {:?}",
                        clinic.name,
                        here.get(key),
                        centre.get(key)
                    ));
                }
                // A record that was deleted here waits with the person to whom it belonged.
                let agreed = snapshot.agreed(key).expect("a base");
                let known = here.get(key).or(agreed.as_ref());
                if !waits(&snapshot, key, known) && !snapshot.is_clean(key).expect("a base") {
                    found.push(format!("{} has still a base of {key}", clinic.name));
                }
            }
            if !snapshot.intents().expect("the intents").is_empty() {
                found.push(format!("{} has still open intents", clinic.name));
            }
        }
        found.into_iter().for_each(|complaint| self.complain(complaint));
    }

    /// A round with nothing to do writes no record, and nothing at the centre.
    async fn check_rest(&mut self) {
        for node in 0..self.clinics.len() {
            let before = self.untouchable();
            let Some(running) = &self.clinics[node].running else { continue };
            let sequence = *running.store.changes().borrow();
            let Some(report) = self.round(node).await else { continue };
            let Some(running) = &self.clinics[node].running else { continue };
            let (name, now) = (self.clinics[node].name.clone(), *running.store.changes().borrow());
            let counts = [report.pulled, report.pushed, report.merged, report.deleted, report.conflicts];
            if counts != [0; 5] || now != sequence {
                self.complain(format!("{name}: a round with nothing to do did something: {report:?}"));
            }
            if before != self.untouchable() {
                self.complain(format!("{name}: a round with nothing to do changed the centre"));
            }
        }
    }

    /// What rounds with nothing to do leave alone, as text.
    fn untouchable(&self) -> String {
        let state = self.sim.state();
        format!("{:?} {:?} {:?}", state.records, state.conflicts, state.trash)
    }

    pub(crate) fn at_centre(&self) -> BTreeMap<RecordKey, Document> {
        let state = self.sim.state();
        let records = state.records.iter();
        records.map(|((kind, id), document)| (RecordKey::new(*kind, id.as_str()), document.clone())).collect()
    }

    /// The checker's verdict; returns how many edits were repeated.
    pub(crate) fn judge(&mut self) -> usize {
        let (last, traces) = (self.at_centre(), self.traces());
        let forgiven = self.forgiven();
        let repeats = self.allows_repeats();
        let case = Case {
            edits: &self.edits,
            unacknowledged: &self.unacknowledged,
            forgiven: &forgiven,
            last: &last,
            traces: &traces,
            transitions: &self.transitions(),
            repeats,
        };
        let mut verdict = case.judge();
        for clinic in &self.clinics {
            let held = clinic.snapshot().map(|snapshot| records(&snapshot)).unwrap_or_default();
            for (key, document) in held {
                verdict.complaints.extend(case.out_of_nowhere(&clinic.name, &key, &fields(&document)));
                verdict.complaints.extend(case.misplaced(&clinic.name, &key, &document));
            }
        }
        if !repeats || self.plan.is_calm {
            verdict.complaints.extend(self.applied_twice(&traces));
        }
        verdict.complaints.extend(self.identities());
        verdict.complaints.extend(self.sent_before_their_person());
        let repeated = verdict.repeats;
        verdict.complaints.into_iter().for_each(|complaint| self.complain(complaint));
        repeated
    }

    /// Whether a write may have been carried out twice, or an older state of a node may have come back.
    pub(crate) fn allows_repeats(&self) -> bool {
        let state = self.sim.state();
        let happened = |name: &str| state.weather.happened.get(name).is_some_and(|count| *count > 0);
        // Without its history the centre is no better than a standalone server.
        let is_unproven = ["history truncated", "upheaval", "feed broken"].iter().any(|name| happened(name));
        let troubles = ["zombie", "clone", "rolled back", "centre restored", "centre crash"];
        self.plan.is_standalone || is_unproven || troubles.iter().any(|name| happened(name))
    }

    /// Edits that were on a disk that is no more, and never at the centre.
    fn forgiven(&self) -> BTreeSet<usize> {
        let state = self.sim.state();
        let changes = state.chronicle.as_deref().unwrap_or_default();
        let was_there = |index: &usize| {
            let edit = &self.edits[*index];
            let Act::Set(value) = &edit.act else { return false };
            let stayed = |at: usize| {
                !self.set_backs.iter().any(|(copied, set_back)| (*copied..*set_back).contains(&at))
            };
            changes.iter().enumerate().any(|(at, change)| {
                let after = change.after.as_ref().map(fields).unwrap_or_default();
                change.key == edit.key
                    && after.get(&edit.path) == Some(value)
                    && (stayed(at) || self.kept_elsewhere.contains(index))
            })
        };
        let gone = self.gone.iter().copied().filter(|index| !was_there(index));
        // Whoever comes together with a restored centre later cannot tell what was deleted there since from what the
        // centre forgot, and puts it back.
        let since = self.restored_after.unwrap_or(self.edits.len());
        let has_copies =
            ["clone", "rolled back"].iter().any(|name| state.weather.happened.contains_key(name));
        let deletes = (0..self.edits.len()).filter(|index| self.edits[*index].act == Act::Delete);
        let outlived = deletes.filter(|index| {
            *index >= since || (has_copies && comes_as_new_after(&self.edits[*index], changes))
        });
        gone.chain(self.not_promised.iter().copied()).chain(outlived).collect()
    }

    /// What nodes made of fields at the centre.
    fn transitions(&self) -> Transitions {
        let state = self.sim.state();
        let mut found = Transitions::new();
        for (at, change) in state.chronicle.iter().flatten().enumerate() {
            let (Some(_), Some(before), Some(after)) = (change.by, &change.before, &change.after) else {
                continue;
            };
            let (before, after) = (fields(before), fields(after));
            let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for path in paths.into_iter().filter(|path| before.get(*path) != after.get(*path)) {
                let (from, to) = (before.get(path).cloned(), after.get(path).cloned());
                let place = (change.key.clone(), path.clone());
                found.entry(place).or_default().push(Transition { at, from, to });
            }
        }
        found
    }

    /// Values that a node brought to the centre more often than somebody set them.
    fn applied_twice(&self, traces: &Traces) -> Vec<String> {
        let state = self.sim.state();
        let mut came: BTreeMap<(RecordKey, String, String), usize> = BTreeMap::new();
        let changes = state.chronicle.as_deref().unwrap_or_default();
        let deleted =
            changes.iter().filter(|change| change.key.kind == Kind::Person && change.after.is_none());
        let gone: BTreeSet<&RecordKey> = deleted.map(|change| &change.key).collect();
        for change in state.chronicle.as_deref().unwrap_or_default() {
            // Records that come back after a delete bring all their values with them.
            let (Some(before), Some(after)) = (&change.before, &change.after) else {
                continue;
            };
            // So do those that take the place of another one, and people who were deleted there and made again: a node
            // where records of theirs are unsent has kept them.
            if self.decided.contains(&change.key) || gone.contains(&change.key) {
                continue;
            }
            let before = fields(before);
            for (path, value) in fields(after) {
                if before.get(&path) != Some(&value) {
                    *came.entry((change.key.clone(), path, value)).or_default() += 1;
                }
            }
        }
        let mut set: BTreeMap<(RecordKey, String, String), usize> = BTreeMap::new();
        for edit in self.edits.iter().chain(&self.unacknowledged) {
            if let Act::Set(value) = &edit.act {
                *set.entry((edit.key.clone(), edit.path.clone(), value.clone())).or_default() += 1;
            }
        }
        // What was removed as a whole while a part of it was edited comes back with all its parts.
        let too_often = came.into_iter().filter(|(value, count)| {
            *count > set.get(value).copied().unwrap_or(0) && !traces.dispute_above(&value.0, &value.1)
        });
        too_often.map(|(value, count)| format!("{value:?} came to the centre {count} times")).collect()
    }

    /// Records that a node brought to the centre under an account that no person has had there.
    fn sent_before_their_person(&self) -> Vec<String> {
        let state = self.sim.state();
        let (mut people, mut found) = (BTreeSet::new(), Vec::new());
        for change in state.chronicle.as_deref().unwrap_or_default() {
            let Some(after) = &change.after else { continue };
            let owner = change.key.kind.schema().owner_of(after);
            match (change.key.kind, owner, &change.before) {
                (Kind::Person, Some(account), _) => drop(people.insert(account)),
                (_, Some(account), None) if change.by.is_some() && !people.contains(&account) => {
                    found.push(format!("{} was sent before its person, {account}", change.key));
                }
                _ => {}
            }
        }
        found
    }

    /// Every node has one name at the centre, and another only if it is a copy or was rolled back.
    fn identities(&self) -> Vec<String> {
        let state = self.sim.state();
        let happened = |name: &str| state.weather.happened.get(name).copied().unwrap_or_default() as usize;
        let most =
            self.clinics.len() + happened("clone") + happened("rolled back") + happened("centre restored");
        if state.leases.len() > most {
            vec![format!("{} nodes are enrolled, {most} at most are there", state.leases.len())]
        } else {
            Vec::new()
        }
    }

    /// What the conflicts, the trash and the waiting records of all say.
    fn traces(&self) -> Traces {
        let mut traces = Traces::default();
        let state = self.sim.state();
        for row in state.conflicts.values() {
            if let Some(conflict) = central_conflict(row) {
                traces.add_conflict(conflict);
            }
            // The row keeps both records, also when the disk of the node that decided is put back.
            if let (Some(key), Ok("record")) = (key_of(row), row.get_str("type")) {
                let sides = ["local", "central"].map(|side| row.get_document(side));
                sides.iter().flatten().for_each(|body| traces.add_body(&key, body));
            }
        }
        for row in state.trash.values() {
            if let (Some(key), Some(Bson::Document(body))) = (key_of(row), row.get("document")) {
                traces.add_body(&key, body);
            }
        }
        drop(state);
        self.clinics.iter().for_each(|clinic| add_traces(clinic, &mut traces));
        traces
    }
}

/// What one node's conflicts, trash and waiting records say.
fn add_traces(clinic: &Clinic, traces: &mut Traces) {
    let Some(snapshot) = clinic.snapshot() else {
        return;
    };
    let conflicts = snapshot.conflicts().expect("the conflicts");
    for conflict in conflicts.into_iter().filter(|conflict| conflict.subject == Subject::Value) {
        let (key, path) = (conflict.key.clone(), conflict.path.join("."));
        traces.add_conflict(Recorded { key, path, loser: conflict.loser().cloned() });
    }
    for row in snapshot.trash().expect("the trash") {
        traces.add_body(&row.key, &row.document);
    }
    for (key, _) in snapshot.pending_deletes().expect("the deletes") {
        let agreed = snapshot.agreed(&key).expect("a base");
        if waits(&snapshot, &key, agreed.as_ref()) {
            traces.add_conflict(Recorded { key, path: String::new(), loser: None });
        }
    }
    for (key, document) in records(&snapshot) {
        if waits(&snapshot, &key, Some(&document)) {
            traces.add_waiting(&key, &document);
        }
        // Which of two records the id is for is asked about all of them.
        // So it is where somebody was deleted, and another one made under the account before that was sent.
        let hold = snapshot.hold(&key.id).expect("the holds").filter(|_| key.kind == Kind::Person);
        let is_rewritten = hold.is_some_and(|hold| hold.why == HoldReason::Rewritten);
        if is_rewritten || snapshot.undecided(&key).expect("what is undecided").is_some() {
            traces.add_conflict(Recorded { key, path: String::new(), loser: None });
        }
    }
}

/// Every value that these nodes have, in their records or where they lost.
pub(crate) fn known_to(clinics: &[&Clinic]) -> BTreeSet<(RecordKey, String, String)> {
    let mut traces = Traces::default();
    for clinic in clinics {
        add_traces(clinic, &mut traces);
        let held = clinic.snapshot().map(|snapshot| records(&snapshot)).unwrap_or_default();
        held.iter().for_each(|(key, document)| traces.add_body(key, document));
    }
    traces.into_values()
}

/// Whether a record came to the centre after this delete as a new one: from a node that had made it and never heard
/// that its copy, or the newer state of its disk, has brought it there already.
fn comes_as_new_after(delete: &Edit, changes: &[Applied]) -> bool {
    changes[delete.at.min(changes.len())..].iter().any(|change| {
        change.by.is_some() && change.key == delete.key && change.before.is_none() && change.after.is_some()
    })
}

/// Whether a record of a node waits behind a decision.
fn waits(snapshot: &Snapshot, key: &RecordKey, document: Option<&Document>) -> bool {
    let owner = document.and_then(|document| key.kind.schema().owner_of(document));
    owner.is_some_and(|owner| is_held(snapshot, &owner))
        || snapshot.held(key).expect("what waits").is_some()
        || snapshot.undecided(key).expect("what is undecided").is_some()
        || snapshot.waiting_of(key).expect("what waits").is_some()
}

fn key_of(row: &Document) -> Option<RecordKey> {
    Some(RecordKey::new(Kind::from_collection(row.get_str("collection").ok()?)?, row.get_str("id").ok()?))
}

fn central_conflict(row: &Document) -> Option<Recorded> {
    if row.get_str("type").is_ok_and(|subject| subject != "value") {
        return None;
    }
    let path: Vec<&str> = row.get_array("path").ok()?.iter().filter_map(Bson::as_str).collect();
    let stands = row.get_str("stands").ok()?;
    let loser = row.get(if stands == "local" { "central" } else { "local" }).cloned();
    Some(Recorded { key: key_of(row)?, path: path.join("."), loser })
}
