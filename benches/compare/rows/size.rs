//! What grows, and what it takes.

use std::time::Duration;

use super::{PEOPLE, Settings};
use crate::federation::{PAGES, account};
use crate::load::{CONNECTIONS, Script};
use crate::node::{Files, Node, scratch};
use crate::table::{Figure, Target};

/// Records of the small store.
const SMALL: usize = 1_000;

pub(super) fn growth(settings: &Settings) -> Vec<Figure> {
    let people = |records: usize| records / (1 + PAGES);
    let small = Files::filled(people(SMALL)).copy("small").start(false);
    let large_files = Files::filled(people(settings.scale)).copy("large");
    let large = large_files.start(false);
    let figure = |what: &str| Figure::alone(what, "ms", Vec::new(), Target::AtMost(1.3));
    let mut reading = figure("GET /people/{id}, one connection, median: grown store beside 1,000 records");
    let mut writing = figure("PATCH, one connection, median: grown store beside 1,000 records");
    let asked = |records: usize| -> Vec<String> {
        let step = (people(records) / 150).max(1);
        (1..150).map(|n| format!("/people/{}", account(n * step))).collect()
    };
    let scripts = |name: &str, records: usize| {
        let paths = asked(records);
        let patches =
            Script::writes(&scratch(), &format!("{name}-patch"), "PATCH", &paths, r#"{"phone":"+34 %d"}"#);
        (Script::reads(&scratch(), &format!("{name}-read"), &paths), patches)
    };
    let (small_scripts, large_scripts) = (scripts("small", SMALL), scripts("large", settings.scale));
    let run = |node: &Node, script: &Script| script.run(&node.url, 1, settings.length).median_ms;
    for (node, (reads, patches)) in [(&small, &small_scripts), (&large, &large_scripts)] {
        reads.run(&node.url, 1, Duration::from_secs(1));
        patches.run(&node.url, 1, Duration::from_secs(1));
    }
    for _ in 0..settings.turns {
        reading.limit.push(run(&small, &small_scripts.0));
        reading.node.push(run(&large, &large_scripts.0));
        writing.limit.push(run(&small, &small_scripts.1));
        writing.node.push(run(&large, &large_scripts.1));
    }
    large.process.stop();
    let (mut after_stop, mut after_kill) = (Vec::new(), Vec::new());
    for _ in 0..settings.turns {
        let node = large_files.start(false);
        after_stop.push(node.start.as_secs_f64() * 1e3);
        let mut load = large_scripts.1.start(&node.url, 8, settings.length);
        std::thread::sleep(Duration::from_secs(1));
        // Killed in the middle of writing.
        drop(node);
        load.give_up();
        let node = large_files.start(false);
        after_kill.push(node.start.as_secs_f64() * 1e3);
        node.process.stop();
    }
    let start = |what: &str, values| Figure::alone(what, "ms", values, Target::AtMost(200.0));
    vec![
        reading.seeing(format!("{} records", settings.scale)),
        writing,
        start("start with the grown store, until it listens", after_stop),
        start("the same after kill -9 in the middle of writes", after_kill),
    ]
}

pub(super) fn footprint(settings: &Settings) -> Vec<Figure> {
    let node = Files::filled(PEOPLE).copy("size").start(true);
    std::thread::sleep(Duration::from_secs(2));
    let idle = node.process.memory_mb();
    let people: Vec<String> = (1..PEOPLE).map(|n| format!("/people/{}", account(n))).collect();
    let reads = Script::reads(&scratch(), "size-reads", &people);
    let lists = Script::reads(&scratch(), "size-lists", &["/people".to_owned()]);
    let writes = Script::writes(&scratch(), "size-writes", "PATCH", &people, r#"{"phone":"+34 %d"}"#);
    for _ in 0..settings.turns {
        reads.run(&node.url, CONNECTIONS, settings.length);
        lists.run(&node.url, 4, settings.length);
        writes.run(&node.url, CONNECTIONS, settings.length);
    }
    let used = node.process.memory_mb();
    let program =
        std::fs::metadata(env!("CARGO_BIN_EXE_thalamus-edge")).unwrap().len() as f64 / (1 << 20) as f64;
    vec![
        Figure::alone("memory of an idle node, 60,000 records, TLS", "MB", vec![idle], Target::AtMost(25.0)),
        Figure::alone("memory after reads, lists and writes", "MB", vec![used], Target::AtMost(100.0)),
        Figure::alone("the program, stripped", "MB", vec![program], Target::AtMost(20.0)),
    ]
}
