//! What people decide: conflicts, who somebody is, and whether the centre is meant to be as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bson::{Bson, Document, doc};
use thalamus_edge::central::CONFLICTS_COLLECTION;
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::diff;
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{Conflict, ConflictStatus, Hold, Snapshot, Subject};
use thalamus_edge::sync::conflicts::{self, Decision, ResolveError};
use thalamus_edge::sync::identity::{self, Verdict};

use super::checker::{Act, Change, Edit, Fields, fields};
use super::clinic::{Clinic, record, records};
use super::ending::known_to;
use super::support::sim::{Backup, SetBack};
use super::world::World;

/// Turns in which everybody who waits must be decided.
const TURNS_MAX: usize = 8;
pub(crate) const ADMINISTRATOR: &str = "admin";

/// What the centre was at some time.
pub(crate) struct OlderCentre {
    backup: Backup,
    /// How many edits had been made, and how many changes the centre had seen.
    edits: usize,
    at: usize,
}

impl World {
    /// Somebody decides one of the conflicts that a node lists.
    pub(crate) async fn decide_at_a_node(&mut self) {
        let node = self.some_node();
        let Some(snapshot) = self.clinics[node].snapshot() else {
            return;
        };
        let mut open = snapshot.conflicts().expect("the conflicts");
        open.retain(|conflict| conflict.status == ConflictStatus::Open);
        open.sort_by(|a, b| a.id.cmp(&b.id));
        drop(snapshot);
        if open.is_empty() {
            return;
        }
        let conflict = self.numbers.pick(&open).clone();
        match conflict.subject {
            Subject::Identity => self.decide_who(node, &conflict).await,
            Subject::Record => self.decide_record(node, &conflict).await,
            Subject::Value => self.decide_value(node, &conflict).await,
        }
    }

    /// Somebody decides which of two records is to have an id, or what becomes of a person who is gone at the centre.
    async fn decide_record(&mut self, node: usize, conflict: &Conflict) {
        let Some(snapshot) = self.clinics[node].snapshot() else {
            return;
        };
        let seen = conflicts::current_value(conflict, record(&snapshot, &conflict.key).as_ref());
        let before = records(&snapshot);
        drop(snapshot);
        let choices = match conflict.central {
            Some(_) => vec![Decision::TakeLocal, Decision::TakeCentral, Decision::NewId],
            None => vec![Decision::TakeLocal, Decision::TakeCentral],
        };
        let decision = self.numbers.pick(&choices).clone();
        let who = self.clinics[node].name.clone();
        self.tell(format!("{who}: decides {}: {decision:?}", conflict.key));
        self.decided.insert(conflict.key.clone());
        let store = self.clinics[node].running.as_ref().expect("a running node").store.clone();
        let actor = Actor::Local(who.clone());
        let decided = decision.clone();
        let made = conflicts::resolve(&store, &conflict.id, decision, seen, actor, |_, _, _| Ok(())).await;
        match made {
            Ok(_) => {}
            Err(ResolveError::Store(error)) => {
                self.tell(format!("{who}: perhaps not kept ({error})"));
                self.fail_disk(node);
            }
            Err(refused) => {
                self.tell(format!("{who}: {refused}"));
                return;
            }
        }
        let Some(snapshot) = self.clinics[node].snapshot() else {
            return;
        };
        let after = records(&snapshot);
        drop(snapshot);
        // What stands under other ids, or in place of another record, by this decision.
        let at = self.sim.state().chronicle.as_ref().map_or(0, Vec::len);
        // The record here stands under another id, or lies in the trash; what the centre has under its own is nobody's
        // edit.
        let is_left = conflict.central.is_some() && decided != Decision::TakeLocal;
        if let (Some(local), true) = (before.get(&conflict.key), is_left) {
            self.edits.push(Edit::moved(&who, &conflict.key, local, at));
        }
        let is_back = |key: &RecordKey| *key == conflict.key && conflict.central.is_none();
        let is_new = |key: &RecordKey, now: &Document| before.get(key) != Some(now) || is_back(key);
        let is_edit = |key: &RecordKey| !is_left || *key != conflict.key;
        for (key, document) in after.iter().filter(|(key, now)| is_edit(key) && is_new(key, now)) {
            self.keys.insert(key.clone());
            let (key, now) = (key.clone(), Some(document.clone()));
            let before = before.get(&key).filter(|_| !is_back(&key)).cloned();
            self.note(&who, &Change { key, before, after: now, is_own: true, agreed: Vec::new(), at });
        }
    }

    async fn decide_value(&mut self, node: usize, conflict: &Conflict) {
        let Some(snapshot) = self.clinics[node].snapshot() else {
            return;
        };
        let before = record(&snapshot, &conflict.key);
        let mut change = self.change(&snapshot, &conflict.key, before.clone(), None);
        drop(snapshot);
        self.counted += 1;
        let who = self.clinics[node].name.clone();
        let own = Bson::String(format!("{who}-{}", self.counted));
        let decision = match self.numbers.below(3) {
            0 => Decision::TakeLocal,
            1 => Decision::TakeCentral,
            _ if conflict.path.is_empty() => Decision::TakeCentral,
            _ => Decision::Value(own),
        };
        let seen = conflicts::current_value(conflict, before.as_ref());
        let store = self.clinics[node].running.as_ref().expect("a running node").store.clone();
        let after = Arc::new(Mutex::new(before));
        let decided = Arc::clone(&after);
        let check = move |_: &_, _: Option<&Document>, new: Option<&Document>| {
            *decided.lock().expect("a lock") = new.cloned();
            Ok(())
        };
        let path = conflict.path.join(".");
        self.tell(format!("{who}: decides {} {path:?}: {decision:?}", conflict.key));
        let actor = Actor::Local(who.clone());
        let made = conflicts::resolve(&store, &conflict.id, decision, seen, actor, check).await;
        change.after = after.lock().expect("a lock").clone();
        let made = match made {
            Ok(_) => Ok(()),
            Err(ResolveError::Store(error)) => Err(error),
            Err(refused) => {
                self.tell(format!("{who}: {refused}"));
                return;
            }
        };
        self.settle_edit(node, &who, &change, made);
    }

    /// Somebody decides whether two people under one account are one.
    async fn decide_who(&mut self, node: usize, conflict: &Conflict) {
        let Some(snapshot) = self.clinics[node].snapshot() else {
            return;
        };
        let Some((hold, pair)) = identity::hold_of(&snapshot, conflict).expect("a hold") else {
            return;
        };
        let before = records(&snapshot);
        let deleted = deletes_of(&snapshot, &hold.account);
        drop(snapshot);
        self.counted += 1;
        let verdict = match self.numbers.below(2) {
            0 => Verdict::Same,
            _ => Verdict::NewId(format!("NEW{}", self.counted)),
        };
        let who = self.clinics[node].name.clone();
        self.tell(format!("{who}: decides who {} is: {verdict:?}", hold.account));
        let store = self.clinics[node].running.as_ref().expect("a running node").store.clone();
        let actor = Actor::Local(who.clone());
        match identity::decide(&store, &conflict.id, verdict.clone(), pair, actor).await {
            Ok(_) => {}
            Err(ResolveError::Store(error)) => {
                self.tell(format!("{who}: perhaps not kept ({error})"));
                self.fail_disk(node);
            }
            Err(refused) => {
                self.tell(format!("{who}: {refused}"));
                return;
            }
        }
        let (Verdict::NewId(new), Some(snapshot)) = (&verdict, self.clinics[node].snapshot()) else {
            return;
        };
        let after = records(&snapshot);
        let withdrawn: BTreeSet<RecordKey> =
            deleted.difference(&deletes_of(&snapshot, &hold.account)).cloned().collect();
        drop(snapshot);
        if after.contains_key(&RecordKey::new(Kind::Person, new.as_str())) {
            self.note_move(&who, &hold, new, &before, &after);
            // The record was another person's all along, and stays theirs.
            let edits = self.edits.iter().enumerate();
            let deletes = edits.filter(|(_, edit)| {
                edit.who == who && edit.act == Act::Delete && withdrawn.contains(&edit.key)
            });
            let deletes: Vec<usize> = deletes.map(|(index, _)| index).collect();
            self.not_promised.extend(deletes);
        }
    }

    /// The person of a node and the records made there go on under other ids.
    fn note_move(
        &mut self,
        who: &str,
        hold: &Hold,
        new: &str,
        before: &BTreeMap<RecordKey, Document>,
        after: &BTreeMap<RecordKey, Document>,
    ) {
        let owner =
            |key: &RecordKey, document: &Document| key.kind.schema().owner_of(document).unwrap_or_default();
        let at = self.sim.state().chronicle.as_ref().map_or(0, Vec::len);
        for (key, document) in before.iter().filter(|(key, document)| owner(key, document) == hold.account) {
            let is_same = |now: &Document| owner(key, now) == new || fields(now) == fields(document);
            if !after.get(key).is_some_and(is_same) {
                self.tell(format!("  edit {}: {who} {key} goes on under another id", self.edits.len()));
                self.edits.push(Edit::moved(who, key, document, at));
            }
        }
        for (key, document) in after.iter().filter(|(key, document)| owner(key, document) == new) {
            self.keys.insert(key.clone());
            if let Some(given) = before.get(key) {
                let (key, before, after) = (key.clone(), Some(given.clone()), Some(document.clone()));
                self.note(who, &Change { key, before, after, is_own: true, agreed: Vec::new(), at });
            }
            if !before.contains_key(key) {
                let (key, after) = (key.clone(), Some(document.clone()));
                self.note(who, &Change { key, before: None, after, is_own: true, agreed: Vec::new(), at });
            }
        }
    }

    /// The federation's administrator decides a conflict in its row. Whether a node can still carry it out is
    /// not known.
    pub(crate) fn decide_at_the_centre(&mut self) {
        let open: Vec<Document> = {
            let state = self.sim.state();
            let text = |row: &Document, field: &str| row.get_str(field).unwrap_or_default().to_owned();
            let is_open = |row: &&Document| {
                let path = row.get_array("path").cloned().unwrap_or_default();
                text(row, "status") == "open"
                    && text(row, "type") == "value"
                    && !row.contains_key("resolution")
                    && path.first().and_then(Bson::as_str).is_some_and(|field| field != "password")
            };
            state.conflicts.values().filter(is_open).cloned().collect()
        };
        if open.is_empty() {
            return;
        }
        let mut row = self.numbers.pick(&open).clone();
        self.counted += 1;
        let own = Bson::String(format!("{ADMINISTRATOR}-{}", self.counted));
        let (name, chosen) = match self.numbers.below(3) {
            0 => ("local", row.get("local").cloned()),
            1 => ("central", row.get("central").cloned()),
            _ => ("value", Some(own)),
        };
        row.insert("resolution", name);
        row.insert("resolved_by", ADMINISTRATOR);
        if name == "value" {
            row.insert("value", chosen.clone());
        }
        let steps: Vec<String> = row
            .get_array("path")
            .into_iter()
            .flatten()
            .filter_map(|step| step.as_str().map(str::to_owned))
            .collect();
        let collection = row.get_str("collection").unwrap_or_default();
        let kind = Kind::from_collection(collection).expect("a kind");
        let key = RecordKey::new(kind, row.get_str("id").unwrap_or_default());
        self.tell(format!("{ADMINISTRATOR}: decides {key} {:?}: {name} {chosen:?}", steps.join(".")));
        let with = |value: Option<Bson>| {
            let mut document = doc! {};
            diff::set(&mut document, &steps, value);
            Some(document)
        };
        // What stands is seen, and given up if something else is chosen.
        let stands = row.get_str("stands").unwrap_or_default();
        let (before, after) = (with(row.get(stands).cloned()), with(chosen));
        let at = self.sim.state().chronicle.as_ref().map_or(0, Vec::len);
        let first = self.edits.len();
        self.note(ADMINISTRATOR, &Change { key, before, after, is_own: false, agreed: Vec::new(), at });
        self.not_promised.extend(first..self.edits.len());
        self.sim.set_row(CONFLICTS_COLLECTION, row);
    }

    /// Goes on until nobody waits for a decision at any node.
    pub(crate) async fn decide_all_holds(&mut self) {
        for _ in 0..TURNS_MAX {
            let mut waiting = 0;
            for node in 0..self.clinics.len() {
                self.round(node).await;
                self.agree_to_the_centre(node).await;
                let Some(snapshot) = self.clinics[node].snapshot() else {
                    continue;
                };
                let mut open = snapshot.conflicts().expect("the conflicts");
                drop(snapshot);
                let is_waiting = |conflict: &Conflict| {
                    conflict.status == ConflictStatus::Open && conflict.subject != Subject::Value
                };
                open.retain(is_waiting);
                waiting += open.len();
                for conflict in open {
                    match conflict.subject {
                        Subject::Record => self.decide_record(node, &conflict).await,
                        _ => self.decide_who(node, &conflict).await,
                    }
                }
            }
            if waiting == 0 {
                return;
            }
        }
        self.complain(format!("after {TURNS_MAX} turns somebody still waits for a decision"));
    }

    /// A backup of the centre is taken, or an older one put back.
    pub(crate) fn set_centre_back(&mut self) {
        let at = self.sim.state().chronicle.as_ref().map_or(0, Vec::len);
        let Some(older) = self.backup.take() else {
            self.tell("a backup of the centre is taken".to_owned());
            self.backup = Some(OlderCentre { backup: self.sim.backup(), edits: self.edits.len(), at });
            return;
        };
        self.sim.state().weather.count("centre restored");
        self.tell(format!("the centre is what it was {} edits ago", self.edits.len() - older.edits));
        self.restored_after.get_or_insert(self.edits.len());
        let lost = self.lost_with(&older);
        self.not_promised.extend(lost);
        // By its files more often: then its history ends where the copy was made.
        let by = if self.numbers.chance(60) { SetBack::Files } else { SetBack::Dump };
        self.tell(format!("  by {by:?}"));
        self.set_backs.push((older.at, at));
        self.sim.restore(older.backup, by);
    }

    /// Edits that went with the newer centre: what it alone had, and nobody who will notice. Removals are gone
    /// with it, whoever knows of them: nothing tells them from what a node has not seen yet.
    fn lost_with(&self, older: &OlderCentre) -> Vec<usize> {
        let state = self.sim.state();
        let noticing: Vec<&Clinic> = self.clinics.iter().collect();
        let known = known_to(&noticing);
        let since = state.chronicle.iter().flatten().skip(older.at);
        let changes: Vec<_> = since
            .map(|change| {
                let now = change.after.as_ref();
                (&change.key, change.before.as_ref().map(fields), now.map(fields))
            })
            .collect();
        let arrived = |edit: &Edit| {
            changes.iter().filter(|(key, ..)| **key == edit.key).any(|(_, before, after)| match &edit.act {
                Act::Delete | Act::Move => after.is_none(),
                Act::Create => before.is_none(),
                Act::Give => false,
                Act::Set(_) | Act::Unset(_) => {
                    let at = |fields: &Option<Fields>| fields.as_ref()?.get(&edit.path).cloned();
                    let left = match &edit.act {
                        Act::Set(value) => Some(value.clone()),
                        _ => None,
                    };
                    at(before) != at(after) && at(after) == left
                }
            })
        };
        let is_known = |edit: &Edit| match &edit.act {
            Act::Set(value) => known.contains(&(edit.key.clone(), edit.path.clone(), value.clone())),
            _ => false,
        };
        let is_lost =
            |(index, edit): &(usize, &Edit)| (*index >= older.edits || arrived(edit)) && !is_known(edit);
        self.edits.iter().enumerate().filter(is_lost).map(|(index, _)| index).collect()
    }

    /// The operator of a node agrees with what it asked about a restored centre, if it did.
    pub(crate) async fn agree_to_the_centre(&mut self, node: usize) {
        self.clinics[node].is_asking = false;
        let Some(running) = &self.clinics[node].running else {
            return;
        };
        let sync = Arc::clone(&running.sync);
        match sync.centre_restored().await {
            Ok(false) => {}
            Ok(true) => self.tell(format!("{}: the centre is meant to be so", self.clinics[node].name)),
            Err(_) => self.fail_disk(node),
        }
    }
}

/// Records of this account that the centre has and that were deleted at the node, where it does not know yet.
fn deletes_of(snapshot: &Snapshot, account: &str) -> BTreeSet<RecordKey> {
    let deletes = snapshot.pending_deletes().expect("the deletes").into_iter().map(|(key, _)| key);
    let is_of_account = |key: &RecordKey| {
        let agreed = snapshot.agreed(key).expect("a base");
        agreed.and_then(|agreed| key.kind.schema().owner_of(&agreed)).is_some_and(|owner| owner == account)
    };
    deletes.filter(is_of_account).collect()
}
