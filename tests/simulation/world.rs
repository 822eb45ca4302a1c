//! One run of the simulation: some nodes, a centre, a legacy application, and what goes wrong by seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, Document};
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{Base, Snapshot, StoreError, Tx};
use thalamus_edge::sync::{Outcome, Report};

use super::checker::{Act, Change, Edit};
use super::clinic::{Clinic, Image, is_held, mistakes, record, set_clock};
use super::decisions::OlderCentre;
use super::edits::{Author, Doing, Seen, keys};
use super::ending::known_to;
use super::plan::{Plan, Trouble};
use super::support::disk::Disk;
use super::support::generator::Numbers;
use super::support::sim::{Doom, Sim, Weather};
use super::versions::Versions;

/// Most nodes, copies among them.
const NODES_MAX: usize = 6;
const LEGACY: &str = "legacy";
/// Time in which every node has its first round behind it, if nothing goes wrong.
const CONNECT: Duration = Duration::from_secs(5);
/// Time in which a last round comes to its news.
const LAST_ROUND: Duration = Duration::from_secs(3);
/// Whoever waits looks around so often.
const LOOK_EVERY_MS: u64 = 50;
/// Clocks may be wrong by so many years, in either direction.
const SKEW_YEARS_MAX: u64 = 60;
const YEAR_MS: i64 = 365 * 24 * 60 * 60 * 1000;

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) numbers: Numbers,
    pub(crate) sim: Sim,
    pub(crate) clinics: Vec<Clinic>,
    pub(crate) edits: Vec<Edit>,
    /// Edits that were made while the disk failed, so that nobody knows whether they were kept.
    pub(crate) unacknowledged: Vec<Edit>,
    /// Records about which somebody decided which of two is to have their id.
    pub(crate) decided: BTreeSet<RecordKey>,
    /// Edits that went with a disk.
    pub(crate) gone: BTreeSet<usize>,
    /// Those of them whose values other nodes had at the time.
    pub(crate) kept_elsewhere: BTreeSet<usize>,
    /// When the centre was set back, as how many changes it had seen until the copy was made, and until then.
    pub(crate) set_backs: Vec<(usize, usize)>,
    /// Edits that nobody promises to keep: ordered but perhaps not carried out, or made at a centre that is no more.
    pub(crate) not_promised: BTreeSet<usize>,
    /// An older state of the centre.
    pub(crate) backup: Option<OlderCentre>,
    /// Everything that there ever was.
    pub(crate) keys: BTreeSet<RecordKey>,
    /// Values that were seen at a path, by who saw them.
    older: BTreeMap<String, Seen>,
    pub(crate) counted: usize,
    /// What was done, in order.
    pub(crate) story: Vec<String>,
    pub(crate) complaints: Vec<String>,
    /// How many edits had been made when the centre was set back for the first time.
    pub(crate) restored_after: Option<usize>,
    versions: Versions,
    started: tokio::time::Instant,
    /// How much each node's disk had been written to when its store was looked at.
    looked_at_store: BTreeMap<usize, u64>,
    /// People who wait for a decision, by node, as they were when its round began, and how many changes the centre
    /// had seen.
    held_before: BTreeMap<usize, (BTreeSet<String>, usize)>,
}

impl World {
    pub(crate) fn new(plan: Plan) -> World {
        let sim = Sim::default();
        {
            let mut state = sim.state();
            state.weather = Weather::new(plan.seed ^ 0x5EED, plan.rates.clone());
            state.is_standalone = plan.is_standalone;
            state.answer_max = plan.answer_max;
            state.chronicle = Some(Vec::new());
            state.talk = plan.is_told.then(Vec::new);
            state.flaw = plan.centre_flaw;
            state.is_archive_checked = plan.centre_flaw.is_none();
        }
        sim.be_careless(plan.is_lazy && plan.has(Trouble::CentreCrash), plan.accepts_positions_ahead);
        set_clock(0);
        let mut world = World {
            numbers: Numbers::new(plan.seed),
            clinics: Vec::new(),
            edits: Vec::new(),
            unacknowledged: Vec::new(),
            decided: BTreeSet::new(),
            gone: BTreeSet::new(),
            kept_elsewhere: BTreeSet::new(),
            set_backs: Vec::new(),
            not_promised: BTreeSet::new(),
            backup: None,
            keys: keys(plan.records).into_iter().collect(),
            older: BTreeMap::new(),
            counted: 0,
            story: Vec::new(),
            complaints: Vec::new(),
            restored_after: None,
            versions: Versions::default(),
            started: tokio::time::Instant::now(),
            looked_at_store: BTreeMap::new(),
            held_before: BTreeMap::new(),
            sim,
            plan,
        };
        for index in 0..world.plan.nodes {
            world.add_clinic(format!("node{index}"), Disk::default());
        }
        world
    }

    fn add_clinic(&mut self, name: String, disk: Disk) {
        let is_continuous = self.numbers.chance(self.plan.continuous_percent);
        let mut clinic = Clinic::new(self.clinics.len(), name, disk, is_continuous);
        clinic.start(&self.sim).expect("a node that starts");
        self.clinics.push(clinic);
    }

    pub(crate) fn tell(&mut self, what: String) {
        let at = self.started.elapsed().as_millis();
        if let Some(talk) = &mut self.sim.state().talk {
            self.story.append(talk);
        }
        self.story.push(format!("{:4} {at:>7} ms  {what}", self.story.len()));
    }

    pub(crate) fn complain(&mut self, what: String) {
        self.tell(format!("COMPLAINT: {what}"));
        self.complaints.push(what);
    }

    pub(crate) fn happened(&mut self, trouble: &'static str) {
        self.sim.state().weather.count(trouble);
    }

    // ------------------------------------------------------------------------------------------ the course

    /// Everything that the seed has in store.
    pub(crate) async fn live(&mut self) {
        if self.plan.is_crowded {
            self.connect_all().await;
        }
        for _ in 0..self.plan.operations {
            self.one_operation().await;
            let mut pause = self.numbers.below(self.plan.pause_ms_max);
            while pause > 0 {
                let wait = pause.min(LOOK_EVERY_MS);
                tokio::time::sleep(Duration::from_millis(wait)).await;
                self.look_around().await;
                pause -= wait;
            }
            if !self.complaints.is_empty() {
                return;
            }
        }
        if self.plan.has(Trouble::Kill) {
            self.die_with_news().await;
        }
    }

    /// The last that happens to a record is on its way to a node that dies with it in its hands.
    async fn die_with_news(&mut self) {
        self.legacy_edit();
        let node = self.some_node();
        self.doom_at(node, Some("fetch.done".to_owned()), 0);
        tokio::time::sleep(LAST_ROUND).await;
        self.look_around().await;
    }

    /// Every node is connected before anything goes wrong.
    async fn connect_all(&mut self) {
        let rates = std::mem::take(&mut self.sim.state().weather.rates);
        for clinic in &mut self.clinics {
            clinic.start_round();
        }
        tokio::time::sleep(CONNECT).await;
        self.look_around().await;
        self.sim.state().weather.rates = rates;
    }

    async fn one_operation(&mut self) {
        if self.plan.has(Trouble::ClockSkew) {
            self.skew_clock();
        }
        match self.numbers.below(100) {
            0..=39 => self.edit_at_a_node().await,
            40..=57 => self.legacy_edit(),
            58..=61 => self.decide_at_a_node().await,
            62 => self.decide_at_the_centre(),
            63..=84 => self.start_a_round(),
            85..=88 => {
                let rest = 1000 + self.numbers.below(8000);
                tokio::time::sleep(Duration::from_millis(rest)).await;
            }
            _ => self.trouble().await,
        }
    }

    pub(crate) fn some_node(&mut self) -> usize {
        usize::try_from(self.numbers.below(self.clinics.len() as u64)).expect("a node")
    }

    fn some_key(&mut self) -> RecordKey {
        let keys: Vec<RecordKey> = self.keys.iter().cloned().collect();
        self.numbers.pick(&keys).clone()
    }

    fn skew_clock(&mut self) {
        let years = i64::try_from(self.numbers.below(2 * SKEW_YEARS_MAX)).expect("years");
        let skew = i64::try_from(SKEW_YEARS_MAX).expect("years") - years;
        set_clock(skew * YEAR_MS + i64::try_from(self.numbers.below(1 << 40)).expect("milliseconds"));
    }

    // ------------------------------------------------------------------------------------------ edits

    fn think(&mut self, who: &str, key: &RecordKey, before: Option<&Document>) -> Doing {
        self.counted += 1;
        let mut author = Author {
            numbers: &mut self.numbers,
            who,
            count: self.counted,
            older: self.older.entry(who.to_owned()).or_default(),
            fields: self.plan.fields,
            is_legacy: who == LEGACY,
        };
        author.think(key, before)
    }

    /// Notes an edit that was acknowledged.
    pub(crate) fn note(&mut self, who: &str, change: &Change) {
        for edit in change.edits(who) {
            self.tell(format!(
                "  edit {}: {who} {} {:?} {:?}",
                self.edits.len(),
                edit.key,
                edit.path,
                edit.act
            ));
            self.edits.push(edit);
        }
        let seen = self.older.entry(who.to_owned()).or_default();
        change.before.iter().chain(&change.after).for_each(|document| seen.look(&change.key, document));
    }

    /// A change at a node that is about to be made.
    pub(crate) fn change(
        &self,
        snapshot: &Snapshot,
        key: &RecordKey,
        before: Option<Document>,
        after: Option<Document>,
    ) -> Change {
        let base = snapshot.base(key).expect("a base");
        let open = snapshot.intent(key).expect("an intent");
        let is_own = base == Some(Base::Absent);
        let landed = open.zip(base.as_ref()).map(|(open, base)| open.write.applied_to(base));
        let known = base.unwrap_or_else(|| Base::from(before.clone()));
        let document = |base: Base| base.document().cloned().unwrap_or_default();
        let agreed = [Some(known), landed].into_iter().flatten().map(document).collect();
        let at = self.sim.state().chronicle.as_ref().map_or(0, Vec::len);
        Change { key: key.clone(), before, after, is_own, agreed, at }
    }

    async fn edit_at_a_node(&mut self) {
        let (node, key) = (self.some_node(), self.some_key());
        let Some(snapshot) = self.clinics[node].snapshot() else {
            return;
        };
        let before = record(&snapshot, &key);
        let is_waiting = key.kind == Kind::Person && is_held(&snapshot, &key.id);
        let who = self.clinics[node].name.clone();
        let doing = self.think(&who, &key, before.as_ref());
        if is_waiting && matches!(doing, Doing::Delete) {
            self.tell(format!("{who}: {key} waits for a decision and is not to be deleted"));
            return;
        }
        let after = doing.carry_out(before.as_ref());
        let change = self.change(&snapshot, &key, before, after.clone());
        drop(snapshot);
        self.tell(format!("{who}: {key} {doing:?}"));
        let store = self.clinics[node].running.as_ref().expect("a running node").store.clone();
        let (at, new, actor) = (key, after, Actor::Local(who.clone()));
        let made = store.transact(move |tx: &mut Tx<'_>| tx.edit(&at, new.as_ref(), &actor)).await;
        self.settle_edit(node, &who, &change, made.map(|_| ()));
    }

    /// Notes what became of an edit at a node.
    pub(crate) fn settle_edit(
        &mut self,
        node: usize,
        who: &str,
        change: &Change,
        made: Result<(), StoreError>,
    ) {
        match made {
            Ok(()) => self.note(who, change),
            Err(error) => {
                self.tell(format!("{who}: not kept ({error})"));
                self.unacknowledged.extend(change.edits(who));
                self.fail_disk(node);
            }
        }
    }

    fn legacy_edit(&mut self) {
        let key = self.some_key();
        let before = self.sim.get(key.kind, &key.id);
        // A legacy application makes records less often than it changes them.
        if before.is_none() && self.numbers.chance(50) {
            return;
        }
        let doing = self.think(LEGACY, &key, before.as_ref());
        self.tell(format!("{LEGACY}: {key} {doing:?}"));
        match &doing {
            Doing::Create(document) | Doing::Replace(document) => self.sim.put(key.kind, document.clone()),
            Doing::Delete => self.sim.remove(key.kind, &key.id),
            Doing::Set(fields) => {
                let fields: Vec<(&str, Option<Bson>)> =
                    fields.iter().map(|(path, value)| (path.as_str(), value.clone())).collect();
                self.sim.update(key.kind, &key.id, &fields);
            }
        }
        let after = self.sim.get(key.kind, &key.id);
        let at = self.sim.state().chronicle.as_ref().map_or(0, Vec::len);
        self.note(LEGACY, &Change { key, before, after, is_own: false, agreed: Vec::new(), at });
    }

    // ------------------------------------------------------------------------------------------ rounds

    fn start_a_round(&mut self) {
        let node = self.some_node();
        let is_connected =
            self.clinics[node].running.as_ref().is_some_and(|running| running.sync.is_connected());
        if is_connected && self.plan.is_crowded {
            return;
        }
        self.begin_round(node);
    }

    /// Starts a round at a node that is on, unless one is running there.
    fn begin_round(&mut self, node: usize) {
        let Some(snapshot) = self.clinics[node].snapshot() else {
            return;
        };
        let held = people_held(&snapshot, &self.keys);
        drop(snapshot);
        if self.clinics[node].start_round() {
            let at = self.sim.state().chronicle.as_ref().map_or(0, Vec::len);
            self.held_before.insert(node, (held, at));
            self.tell(format!("{}: a round begins", self.clinics[node].name));
        }
    }

    /// Notices what ended and who died.
    pub(crate) async fn look_around(&mut self) {
        let mistakes_there = std::mem::take(&mut self.sim.state().mistakes);
        mistakes_there.into_iter().for_each(|mistake| self.complain(mistake));
        let died = std::mem::take(&mut self.sim.state().died);
        for (node, place) in died {
            self.tell(format!("{}: dies at {place}", self.clinics[node].name));
            self.clinics[node].stop(&self.sim);
            self.restart(node);
        }
        for node in 0..self.clinics.len() {
            if self.clinics[node].running.is_some() && self.clinics[node].disk.was_cut() {
                self.tell(format!("{}: the power fails in the middle of a write", self.clinics[node].name));
                self.clinics[node].stop(&self.sim);
                self.restart(node);
            }
            if let Some(report) = self.clinics[node].ended_round().await {
                self.note_round(node, &report);
            }
            if self.clinics[node].is_asking {
                self.agree_to_the_centre(node).await;
            }
            // Whatever was written since is looked at.
            let written = self.clinics[node].written();
            if written == self.looked_at_store.insert(node, written).unwrap_or_default() {
                continue;
            }
            if let Some(snapshot) = self.clinics[node].snapshot() {
                let mut found = mistakes(&snapshot, &self.keys);
                if !self.allows_repeats() {
                    self.versions.learn(self.sim.state().chronicle.as_deref().unwrap_or_default());
                    found.extend(self.versions.gone_back(node, &snapshot));
                }
                drop(snapshot);
                for mistake in found {
                    self.complain(format!("{}: {mistake}", self.clinics[node].name));
                }
            }
        }
    }

    fn note_round(&mut self, node: usize, report: &Report) {
        let Report { outcome, pulled, pushed, merged, deleted, conflicts, message, .. } = report;
        let name = self.clinics[node].name.clone();
        self.tell(format!(
            "{name}: round {outcome:?}: pulled {pulled}, pushed {pushed}, merged {merged}, deleted {deleted}, \
             conflicts {conflicts}; {message}"
        ));
        self.check_held_pages(node);
        match outcome {
            Outcome::Complete | Outcome::Partial | Outcome::Offline => {}
            Outcome::Failed if self.plan.is_disk_failing() => self.fail_disk(node),
            Outcome::Failed if message.contains("history of changes breaks") => {}
            Outcome::Halted if message.contains("--centre-restored") => {
                self.clinics[node].is_asking = true;
            }
            Outcome::Halted | Outcome::Failed => {
                self.complain(format!("{name}: round {outcome:?}: {message}"))
            }
        }
    }

    /// Nothing of a person who waited before the round and waits after it was sent.
    fn check_held_pages(&mut self, node: usize) {
        let Some(snapshot) = self.clinics[node].snapshot() else {
            return;
        };
        let (before, at) = self.held_before.remove(&node).unwrap_or_default();
        let held: BTreeSet<String> =
            people_held(&snapshot, &self.keys).intersection(&before).cloned().collect();
        drop(snapshot);
        let changes = self.sim.state().chronicle.clone().unwrap_or_default();
        let mut sent = Vec::new();
        for change in &changes[at.min(changes.len())..] {
            let document = change.after.as_ref().or(change.before.as_ref());
            let owner = document.and_then(|document| change.key.kind.schema().owner_of(document));
            // What was given up before the hold may arrive during it.
            let is_sent = change.by == Some(node) && !change.is_late;
            if is_sent && owner.is_some_and(|owner| held.contains(&owner)) {
                sent.push(change.key.clone());
            }
        }
        for key in sent {
            self.complain(format!("{} sent {key} of a person who waits", self.clinics[node].name));
        }
    }

    // ------------------------------------------------------------------------------------------ troubles

    async fn trouble(&mut self) {
        let mut troubles = self.plan.troubles.clone();
        troubles.push(Trouble::Verification);
        let node = self.some_node();
        match *self.numbers.pick(&troubles) {
            // They happen by themselves.
            Trouble::ClockSkew => {}
            Trouble::Kill => self.doom(node),
            Trouble::PowerCut => {
                self.happened("power cut");
                self.tell(format!("{}: the power fails", self.clinics[node].name));
                self.clinics[node].stop(&self.sim);
                self.restart(node);
            }
            Trouble::TornWrite => {
                let operations = self.numbers.below(200);
                self.happened("torn write");
                self.clinics[node].disk.cut_after(operations);
            }
            Trouble::DiskFull => self.fill_disk(node).await,
            Trouble::Zombie => {
                if self.sim.deliver_one() {
                    self.happened("zombie");
                    self.tell("a late request arrives".to_owned());
                }
            }
            Trouble::HistoryTruncated => {
                let keep = usize::try_from(self.numbers.below(5)).expect("a number");
                self.happened("history truncated");
                self.tell(format!("the centre forgets its history but {keep}"));
                self.sim.forget_history(keep);
            }
            Trouble::Upheaval => {
                self.happened("upheaval");
                self.tell("a collection is renamed and renamed back".to_owned());
                self.sim.upheave();
            }
            Trouble::Verification => {
                if let Some(running) = &self.clinics[node].running {
                    let asked = Arc::clone(&running.sync).ask_for_verification().await;
                    self.tell(format!("{}: is to verify everything ({asked:?})", self.clinics[node].name));
                    if asked.is_err() {
                        self.fail_disk(node);
                    }
                }
            }
            Trouble::Clone => self.clone_node(node),
            Trouble::RolledBack => self.roll_back(node),
            Trouble::CentreRestored => self.set_centre_back(),
            Trouble::Refusal => {
                let refused = match self.sim.state().refused.is_empty() {
                    true => vec![(*self.numbers.pick(&["ANA", "BEA"])).to_owned()],
                    false => Vec::new(),
                };
                self.happened("refusal");
                self.tell(format!("the centre refuses {refused:?}"));
                self.sim.state().refused = refused;
            }
            Trouble::CentreCrash => {
                self.happened("centre crash");
                self.tell("the centre dies and comes back".to_owned());
                self.sim.crash();
            }
        }
    }

    /// The node dies at some step of its next rounds.
    fn doom(&mut self, node: usize) {
        let place = match self.numbers.below(4) {
            // Anywhere: between two calls, too.
            0 => None,
            // With news in its hands.
            1 => Some("fetch.done".to_owned()),
            _ => Some(self.numbers.pick(&self.plan.steps).clone()),
        };
        let visits = self.numbers.below(if place.is_none() { 40 } else { 3 });
        self.doom_at(node, place, visits);
    }

    fn doom_at(&mut self, node: usize, place: Option<String>, visits: u64) {
        self.tell(format!("{}: will die at {place:?}, visit {visits}", self.clinics[node].name));
        let disk = self.clinics[node].disk.clone();
        self.sim.state().dooms.insert(node, Doom { place, visits, disk });
        self.happened("kill");
        self.begin_round(node);
    }

    fn restart(&mut self, node: usize) {
        self.sim.state().dooms.remove(&node);
        let sim = self.sim.clone();
        let mut started = self.clinics[node].start(&sim);
        // The power that was to fail in the middle of a write fails while the store is opened.
        if started.is_err() && self.clinics[node].disk.was_cut() {
            self.clinics[node].stop(&self.sim);
            started = self.clinics[node].start(&sim);
        }
        if let Err(error) = started {
            self.complain(format!("{} does not start: {error}", self.clinics[node].name));
        }
    }

    /// A store whose disk has failed once does nothing more before it is opened again.
    pub(crate) fn fail_disk(&mut self, node: usize) {
        self.tell(format!("{}: is started again after its disk failed", self.clinics[node].name));
        self.clinics[node].disk.set_full(false);
        self.clinics[node].disk.was_cut();
        self.clinics[node].stop(&self.sim);
        self.restart(node);
    }

    async fn fill_disk(&mut self, node: usize) {
        self.happened("disk full");
        self.tell(format!("{}: the disk is full", self.clinics[node].name));
        self.clinics[node].disk.set_full(true);
        self.clinics[node].start_round();
        let rest = self.numbers.below(3000);
        tokio::time::sleep(Duration::from_millis(rest)).await;
        self.fail_disk(node);
    }

    fn clone_node(&mut self, node: usize) {
        if self.clinics.len() >= NODES_MAX {
            return;
        }
        self.happened("clone");
        let name = format!("copy{}of{}", self.clinics.len(), node);
        self.tell(format!("{name}: begins with what {} has", self.clinics[node].name));
        let disk = self.clinics[node].disk.copy();
        self.add_clinic(name, disk);
    }

    /// Takes an image of the node's disk, or puts an older one back.
    fn roll_back(&mut self, node: usize) {
        let name = self.clinics[node].name.clone();
        let Some(Image { disk, edits }) = self.clinics[node].image.take() else {
            self.tell(format!("{name}: an image is taken"));
            let image = Image { disk: self.clinics[node].disk.copy(), edits: self.edits.len() };
            self.clinics[node].image = Some(image);
            return;
        };
        self.happened("rolled back");
        self.tell(format!("{name}: is what it was {} edits ago", self.edits.len() - edits));
        // What was on the disk alone is gone with it.
        let others: Vec<&Clinic> = self.clinics.iter().filter(|clinic| clinic.name != name).collect();
        let known = known_to(&others);
        let since = self.edits.iter().enumerate().skip(edits);
        for (index, edit) in since.filter(|(_, edit)| edit.who == name) {
            self.gone.insert(index);
            if let Act::Set(value) = &edit.act
                && known.contains(&(edit.key.clone(), edit.path.clone(), value.clone()))
            {
                self.kept_elsewhere.insert(index);
            }
        }
        self.clinics[node].stop(&self.sim);
        self.clinics[node].disk = disk;
        self.restart(node);
    }
}

fn people_held(snapshot: &Snapshot, keys: &BTreeSet<RecordKey>) -> BTreeSet<String> {
    let people = keys.iter().filter(|key| key.kind == Kind::Person);
    people.map(|key| key.id.clone()).filter(|id| is_held(snapshot, id)).collect()
}
