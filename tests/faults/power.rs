//! Power cuts in the middle of the work, and disks that fail once.
//!
//! The reference workload runs once on a disk that remembers the order of its writes. Then, for every place in
//! that order and for several ways in which writes that were not flushed get lost or torn, the store is opened
//! again. It must hold exactly what it held after the last write that was acknowledged, or after the one that
//! was on its way: all tables are compared, by their sum. That the tables agree with each other has been checked
//! for each of these sums.

use std::io::ErrorKind;
use std::path::Path;

use super::is_long;
use super::recorder::{Recorder, Remains, Replay};
use super::support::generator::Numbers;
use super::workload::{self, Form, STEPS};

/// In the quick form every so-many-th place is tried; no divisor of what a step writes.
const CUTS_STRIDE: usize = 17;
/// In the quick form and in the long one.
const FILES_STRIDES: (usize, usize) = (43, 3);
/// A first block that is torn is searched for a single wrong bit each time.
const ENCRYPTED_FILES_STRIDES: (usize, usize) = (211, 17);
const FAILURES_STRIDE: usize = 41;
const REPAIRS_STRIDE: usize = 331;
/// In the long form too: each of them is opened again at every place of its own opening.
const REPAIRS_STRIDE_LONG: usize = 13;

/// What the workload left behind on a disk.
struct Reference {
    form: Form,
    /// The disk before.
    empty: Vec<u8>,
    disk: Recorder,
    /// How many operations there were when each step was acknowledged; the first is the state before.
    acknowledged: Vec<usize>,
    /// What the store held then.
    sums: Vec<String>,
}

impl Reference {
    async fn run(form: Form) -> Reference {
        let empty = {
            let disk = Recorder::default();
            drop(workload::open(disk.clone(), form).unwrap());
            disk.bytes()
        };
        let disk = Recorder::holding(empty.clone());
        workload::begin_anew();
        let store = workload::open(disk.clone(), form).unwrap();
        let mut reference =
            Reference { form, empty, disk: disk.clone(), acknowledged: Vec::new(), sums: Vec::new() };
        for step in 0..=STEPS {
            if step > 0 {
                workload::step(&store, step - 1).await.unwrap();
            }
            let snapshot = store.read().unwrap();
            assert_eq!(snapshot.disagreements().unwrap(), Vec::<String>::new(), "after step {step}");
            reference.acknowledged.push(if step == 0 { 0 } else { disk.operations() });
            reference.sums.push(snapshot.content_sha256().unwrap());
        }
        let mut distinct = reference.sums.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), STEPS + 1, "every step changes something");
        // Switched off in an orderly way: that, too, writes.
        drop(store);
        reference
    }

    /// How many steps had been acknowledged when so many operations had been issued.
    fn acknowledged_after(&self, operations: usize) -> usize {
        self.acknowledged.iter().filter(|at| **at <= operations).count() - 1
    }

    /// Opens what a disk holds; the store must be where `steps` steps led, or one more.
    fn check(&self, image: Vec<u8>, steps: usize, what: &str) -> Recorder {
        let disk = Recorder::holding(image);
        let store = workload::open(disk.clone(), self.form).unwrap_or_else(|error| panic!("{what}: {error}"));
        let sum = store.read().unwrap().content_sha256().unwrap();
        let allowed = &self.sums[steps..self.sums.len().min(steps + 2)];
        assert!(
            allowed.contains(&sum),
            "{what}: {steps} steps were acknowledged, it is {}",
            self.place(&sum)
        );
        drop(store);
        disk
    }

    /// The same of a file: beside that nothing counts as damaged, because a power cut is no rot.
    fn check_file(&self, path: &Path, image: &[u8], steps: usize, what: &str) {
        std::fs::write(path, image).unwrap();
        let store = workload::open_file(path, self.form).unwrap_or_else(|error| panic!("{what}: {error}"));
        let sum = store.read().unwrap().content_sha256().unwrap();
        let allowed = &self.sums[steps..self.sums.len().min(steps + 2)];
        assert!(
            allowed.contains(&sum),
            "{what}: {steps} steps were acknowledged, it is {}",
            self.place(&sum)
        );
        assert_eq!((store.damaged_rows(), store.bits_put_right().unwrap()), (vec![], None), "{what}");
    }

    fn place(&self, sum: &String) -> String {
        let at = self.sums.iter().position(|known| known == sum);
        at.map_or_else(|| "a state that never was".to_owned(), |steps| format!("where {steps} steps led"))
    }
}

fn stride(quick: usize) -> usize {
    if is_long() { 1 } else { quick }
}

async fn the_power_may_fail_anywhere_in(form: Form) {
    let reference = Reference::run(form).await;
    let log = reference.disk.log();
    let mut replay = Replay::new(reference.empty.clone(), &log);
    let mut opened = 0;
    for at in (0..=log.len()).step_by(stride(CUTS_STRIDE)).chain([log.len()]) {
        replay.advance(at);
        for remains in Remains::ALL {
            let image = replay.image(remains, &mut Numbers::new(at as u64));
            let what = format!("cut behind operation {at} of {}, {remains:?}", log.len());
            reference.check(image, reference.acknowledged_after(at), &what);
            opened += 1;
        }
    }
    println!("{} operations, {opened} stores opened after a power cut", log.len());
}

/// The same as a node opens it, which finds out by itself which of the two last commits counts.
async fn the_power_may_fail_anywhere_on_a_file_in(form: Form, (quick, long): (usize, usize)) {
    let reference = Reference::run(form).await;
    let (log, directory) = (reference.disk.log(), tempfile::tempdir().unwrap());
    let path = directory.path().join("store.redb");
    let mut replay = Replay::new(reference.empty.clone(), &log);
    let mut opened = 0;
    for at in (0..=log.len()).step_by(if is_long() { long } else { quick }).chain([log.len()]) {
        replay.advance(at);
        for remains in Remains::ALL {
            let image = replay.image(remains, &mut Numbers::new(at as u64));
            let what = format!("cut behind operation {at} of {}, {remains:?}", log.len());
            reference.check_file(&path, &image, reference.acknowledged_after(at), &what);
            opened += 1;
        }
    }
    println!("{} operations, {opened} files opened after a power cut", log.len());
}

/// The power fails, and again while the store is being opened.
async fn the_power_may_fail_again_while_a_store_is_opened_in(form: Form) {
    let reference = Reference::run(form).await;
    let log = reference.disk.log();
    let mut replay = Replay::new(reference.empty.clone(), &log);
    let mut opened = 0;
    for at in (0..log.len()).step_by(if is_long() { REPAIRS_STRIDE_LONG } else { REPAIRS_STRIDE }) {
        replay.advance(at);
        let (steps, image) = (
            reference.acknowledged_after(at),
            replay.image(Remains::SomeSectors, &mut Numbers::new(at as u64)),
        );
        let what = format!("cut behind operation {at}");
        let repaired = reference.check(image.clone(), steps, &what).log();
        let mut again = Replay::new(image, &repaired);
        for second in 0..repaired.len() {
            again.advance(second);
            for remains in [Remains::Nothing, Remains::SomeSectors] {
                let image = again.image(remains, &mut Numbers::new(second as u64));
                reference.check(image, steps, &format!("{what}, and behind {second} of the opening"));
                opened += 1;
            }
        }
    }
    println!("{opened} stores opened after a second power cut");
}

/// Opens the store and goes through the workload up to the first refusal; how many steps were acknowledged.
async fn run(disk: &Recorder, form: Form) -> usize {
    workload::begin_anew();
    let Ok(store) = workload::open(disk.clone(), form) else { return 0 };
    for step in 0..STEPS {
        if workload::step(&store, step).await.is_err() {
            // What is asked for now may be refused, but must be answered.
            let _ = store.read().map(|snapshot| snapshot.content_sha256());
            let _ = workload::step(&store, step).await;
            return step;
        }
    }
    STEPS
}

/// One operation fails: nothing panics, nothing is acknowledged that is not there, and what was is.
async fn any_operation_may_fail_in(form: Form) {
    let reference = Reference::run(form).await;
    // Looking at the store between the steps, as the reference did, makes it write at other times.
    let undisturbed = Recorder::holding(reference.empty.clone());
    assert_eq!(run(&undisturbed, form).await, STEPS);
    let count = undisturbed.operations();
    let mut refused = 0;
    for at in (0..count).step_by(stride(FAILURES_STRIDE)) {
        let kind = if at % 2 == 0 { ErrorKind::StorageFull } else { ErrorKind::Other };
        let disk = Recorder::holding(reference.empty.clone());
        disk.fail_at(at, kind);
        let acknowledged = run(&disk, form).await;
        refused += usize::from(acknowledged < STEPS);
        assert!(disk.has_failed(), "operation {at} of {count} did not come");
        let log = disk.log();
        let mut replay = Replay::new(reference.empty.clone(), &log);
        replay.advance(log.len());
        for remains in [Remains::Nothing, Remains::Everything, Remains::SomeSectors] {
            let image = replay.image(remains, &mut Numbers::new(at as u64));
            reference.check(image, acknowledged, &format!("operation {at} failed ({kind}), {remains:?}"));
        }
    }
    assert!(refused > 0);
    println!(
        "{} of {count} operations failed, one at a time; {refused} writes refused",
        count.div_ceil(stride(FAILURES_STRIDE))
    );
}

#[tokio::test]
async fn the_power_may_fail_anywhere_on_a_file() {
    the_power_may_fail_anywhere_on_a_file_in(Form::Plain, FILES_STRIDES).await;
}

#[tokio::test]
async fn the_power_may_fail_anywhere_on_an_encrypted_file() {
    the_power_may_fail_anywhere_on_a_file_in(Form::Encrypted, ENCRYPTED_FILES_STRIDES).await;
}

#[tokio::test]
async fn the_power_may_fail_anywhere() {
    the_power_may_fail_anywhere_in(Form::Plain).await;
}

#[tokio::test]
async fn the_power_may_fail_anywhere_under_encryption() {
    the_power_may_fail_anywhere_in(Form::Encrypted).await;
}

#[tokio::test]
async fn the_power_may_fail_again_while_a_store_is_opened() {
    the_power_may_fail_again_while_a_store_is_opened_in(Form::Plain).await;
}

#[tokio::test]
async fn the_power_may_fail_again_while_an_encrypted_store_is_opened() {
    the_power_may_fail_again_while_a_store_is_opened_in(Form::Encrypted).await;
}

#[tokio::test]
async fn any_operation_may_fail() {
    any_operation_may_fail_in(Form::Plain).await;
}

#[tokio::test]
async fn any_operation_of_an_encrypted_store_may_fail() {
    any_operation_may_fail_in(Form::Encrypted).await;
}
