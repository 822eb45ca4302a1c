//! Writing: every write is acknowledged when it is on disk.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{PEOPLE, Settings};
use crate::federation::account;
use crate::limit;
use crate::load::{CONNECTIONS, Script, authorization};
use crate::node::{Files, Node, scratch};
use crate::table::{Figure, Target, spread};

/// Bytes that a reader takes in who is not in a hurry, and how often.
const SLOW_BYTES: usize = 64 * 1024;
const SLOW_EVERY: Duration = Duration::from_millis(20);

fn patches() -> Script {
    let paths: Vec<String> = (1..PEOPLE).map(|number| format!("/people/{}", account(number))).collect();
    Script::writes(&scratch(), "patch", "PATCH", &paths, r#"{"phone":"+34 %d"}"#)
}

fn posts() -> Script {
    let paths: Vec<String> =
        (1..PEOPLE).map(|number| format!("/pols/{}/bench-%d", account(number))).collect();
    let body = r#"{"id":"bench-%d","page_date":"2026-05-04T10:00:00Z","page_type":"medical","medical_context":"encounter","age":"33y 4m 1d","health_condition_text":"Essential (primary) hypertension","health_condition_code":"I10","relevance":"important","summary":"Control visit %d","info":"Patient seen at the outpatient clinic. Vital signs within normal limits. Treatment was explained and a control visit was agreed upon.","node":"Hospital Lola Mora","active":true}"#;
    Script::writes(&scratch(), "post", "POST", &paths, body)
}

pub(super) fn patch(settings: &Settings) -> Vec<Figure> {
    vec![beside_redb(settings, "PATCH /people/{id}, 64 connections", "patch", &patches())]
}

pub(super) fn post(settings: &Settings) -> Vec<Figure> {
    vec![beside_redb(settings, "POST /pols/{id}/{page}, 64 connections", "post", &posts())]
}

fn beside_redb(settings: &Settings, what: &str, how: &str, script: &Script) -> Figure {
    let filled = Files::filled(PEOPLE);
    let other = filled.copy("commits");
    let node = filled.copy("writes").start(false);
    // Everybody's first edit also makes the row of what the centre has.
    script.run(&node.url, CONNECTIONS, Duration::from_secs(3));
    let seconds = settings.length.as_secs().to_string();
    let mut figure = Figure::alone(what, "/s", Vec::new(), Target::AtLeast(0.5));
    let (mut p99, mut cpu) = (Vec::new(), Vec::new());
    for _ in 0..settings.turns {
        let before = node.process.cpu_s();
        let load = script.run(&node.url, CONNECTIONS, settings.length);
        cpu.push(
            (node.process.cpu_s() - before) / (load.requests_per_s * settings.length.as_secs_f64()) * 1e6,
        );
        figure.node.push(load.requests_per_s);
        p99.push(load.p99_ms);
        figure.limit.push(limit::measure(&["commit", other.store().to_str().unwrap(), how, &seconds])[0]);
    }
    let seen = format!("CPU {:.0} µs each, p99 {:.0} ms", spread(&cpu).0, spread(&p99).0);
    figure.seeing(seen)
}

/// Somebody who reads everything, slowly, again and again.
fn slow_reader(node: &Node, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let host = node.host().to_owned();
    std::thread::spawn(move || {
        let mut bytes = vec![0; SLOW_BYTES];
        while !stop.load(Ordering::Relaxed) {
            let mut connection = TcpStream::connect(&host).unwrap();
            let request = format!(
                "GET /people HTTP/1.1\r\nHost: {host}\r\nAuthorization: {}\r\nConnection: close\r\n\r\n",
                authorization()
            );
            connection.write_all(request.as_bytes()).unwrap();
            while !stop.load(Ordering::Relaxed) && connection.read(&mut bytes).unwrap() > 0 {
                std::thread::sleep(SLOW_EVERY);
            }
        }
    })
}

pub(super) fn busy(settings: &Settings) -> Vec<Figure> {
    let directory = scratch().join("backups");
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).unwrap();
    let files = Files::filled(PEOPLE)
        .copy("busy")
        .with("THALAMUS_EDGE__BACKUP__DIRECTORY", directory.to_str().unwrap());
    let node = files.start(false);
    let script = patches();
    script.run(&node.url, CONNECTIONS, Duration::from_secs(3));
    let figure = |what: &str| Figure::alone(what, "/s", Vec::new(), Target::AtLeast(0.8));
    let mut reading = figure("PATCH beside a reader of everything, and alone");
    let mut saving = figure("PATCH beside backups, and alone");
    let mut backups = 0;
    for _ in 0..settings.turns {
        let alone = script.run(&node.url, CONNECTIONS, settings.length).requests_per_s;
        let stop = Arc::new(AtomicBool::new(false));
        let reader = slow_reader(&node, Arc::clone(&stop));
        reading.node.push(script.run(&node.url, CONNECTIONS, settings.length).requests_per_s);
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        reading.limit.push(alone);
        let mut load = script.start(&node.url, CONNECTIONS, settings.length);
        while !load.is_over() {
            files.command(&["backup", "create"]);
            backups += 1;
        }
        saving.node.push(load.join().requests_per_s);
        saving.limit.push(alone);
    }
    vec![reading, saving.seeing(format!("{backups} backups, one after the other"))]
}
