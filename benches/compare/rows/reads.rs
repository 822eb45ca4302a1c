//! Reading.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::{PEOPLE, Settings};
use crate::federation::{DOCTOR, account};
use crate::limit;
use crate::load::{CONNECTIONS, Script, ask, authorization, send};
use crate::node::{Files, Node, host, scratch};
use crate::process::Process;
use crate::table::{Figure, Target, spread};

/// Records that are asked for in turns.
const ASKED: usize = 1_000;
/// Connections that stream lists.
const STREAMS: usize = 4;
/// Lists that are read one by one in a turn.
const LISTS: usize = 10;
/// Before the first turn: the login, and the page cache.
const WARM: Duration = Duration::from_secs(2);
/// First logins that are measured.
const LOGINS: usize = 8;

pub(super) fn person(settings: &Settings) -> Vec<Figure> {
    let paths: Vec<String> = (1..=ASKED).map(|n| format!("/people/{}", account(n * 7))).collect();
    let what = "GET /people/{id}, 64 connections";
    let mut figures = vec![
        beside_bare(settings, what, &paths, false, 0.7),
        beside_bare(settings, &format!("{what}, TLS"), &paths, true, 0.7),
    ];
    figures.extend(beside_another(settings, what, &paths, false));
    figures.extend(beside_another(settings, &format!("{what}, TLS"), &paths, true));
    figures
}

pub(super) fn book(settings: &Settings) -> Vec<Figure> {
    let paths: Vec<String> = (1..=ASKED).map(|n| format!("/pols/{}", account(n * 7))).collect();
    let what = "GET /pols/{id}, 5 pages, 64 connections";
    let mut figures = vec![beside_bare(settings, what, &paths, false, 0.6)];
    figures.extend(beside_another(settings, what, &paths, false));
    figures
}

/// The node beside another build of itself, if one was named.
fn beside_another(settings: &Settings, what: &str, paths: &[String], tls: bool) -> Option<Figure> {
    let against = settings.against.as_ref()?;
    let node = Files::filled(PEOPLE).copy("reads").start(tls);
    let other = Files::filled_by(against, PEOPLE).copy("reads-against").start(tls);
    let script = Script::reads(&scratch(), "reads", paths);
    script.run(&node.url, CONNECTIONS, WARM);
    script.run(&other.url, CONNECTIONS, WARM);
    let mut figure =
        Figure::alone(&format!("{what}, beside the other program"), "/s", Vec::new(), Target::AtLeast(0.97));
    let mut cpu = [Vec::new(), Vec::new()];
    for _ in 0..settings.turns {
        let (mine, mine_us) = turn(settings, &script, &node.process, &node.url);
        let (others, others_us) = turn(settings, &script, &other.process, &other.url);
        figure.node.push(mine);
        figure.limit.push(others);
        cpu[0].push(mine_us);
        cpu[1].push(others_us);
    }
    let seen = format!("CPU {:.1} µs each, the other {:.1} µs", spread(&cpu[0]).0, spread(&cpu[1]).0);
    Some(figure.seeing(seen))
}

/// One turn of one side: requests a second, and the processor time of each in µs.
fn turn(settings: &Settings, script: &Script, process: &Process, url: &str) -> (f64, f64) {
    let before = process.cpu_s();
    let load = script.run(url, CONNECTIONS, settings.length);
    let each = (process.cpu_s() - before) / (load.requests_per_s * settings.length.as_secs_f64());
    (load.requests_per_s, each * 1e6)
}

/// The node beside a server that knows its answers by heart.
fn beside_bare(settings: &Settings, what: &str, paths: &[String], tls: bool, target: f64) -> Figure {
    let files = Files::filled(PEOPLE).copy("reads");
    let answers = recorded(&files, paths);
    let node = files.start(tls);
    let (certificate, key) = (files.directory.join("tls/cert.pem"), files.directory.join("tls/key.pem"));
    let mut arguments = vec!["web", answers.to_str().unwrap()];
    if tls {
        arguments.extend([certificate.to_str().unwrap(), key.to_str().unwrap()]);
    }
    let (bare, bare_url) = limit::serve(&arguments);
    let script = Script::reads(&scratch(), "reads", paths);
    script.run(&node.url, CONNECTIONS, WARM);
    script.run(&bare_url, CONNECTIONS, WARM);
    let (mut figure, mut cpu) =
        (Figure::alone(what, "/s", Vec::new(), Target::AtLeast(target)), [Vec::new(), Vec::new()]);
    for _ in 0..settings.turns {
        let (mine, mine_us) = turn(settings, &script, &node.process, &node.url);
        let (bares, bares_us) = turn(settings, &script, &bare, &bare_url);
        figure.node.push(mine);
        figure.limit.push(bares);
        cpu[0].push(mine_us);
        cpu[1].push(bares_us);
    }
    let seen = format!("CPU {:.0} µs each, bare {:.0} µs", spread(&cpu[0]).0, spread(&cpu[1]).0);
    figure.seeing(seen)
}

/// The answers of the node to these paths, in a file for the bare server.
fn recorded(files: &Files, paths: &[String]) -> PathBuf {
    let node = files.start(false);
    let lines: Vec<String> = paths
        .iter()
        .map(|path| {
            let answer = ask(node.host(), path, &authorization());
            // hyper writes these itself.
            let own =
                |name: &str| ["date", "content-length", "connection", "transfer-encoding"].contains(&name);
            let headers: Vec<(&str, &str)> = answer
                .head
                .lines()
                .skip(1)
                .filter_map(|line| line.split_once(": "))
                .filter(|(name, _)| !own(&name.to_ascii_lowercase()))
                .collect();
            let body = String::from_utf8(dechunked(&answer.head, answer.body)).unwrap();
            serde_json::to_string(&(path, headers, body)).unwrap()
        })
        .collect();
    let file = scratch().join("answers.jsonl");
    fs::write(&file, lines.join("\n")).unwrap();
    file
}

/// A body as it was before it was cut into chunks.
fn dechunked(head: &str, body: Vec<u8>) -> Vec<u8> {
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return body;
    }
    let (mut rest, mut whole) = (body.as_slice(), Vec::new());
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").unwrap();
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if length == 0 {
            return whole;
        }
        whole.extend_from_slice(&rest[end + 2..end + 2 + length]);
        rest = &rest[end + 2 + length + 2..];
    }
}

pub(super) fn list(settings: &Settings) -> Vec<Figure> {
    let node = Files::filled(PEOPLE).copy("list").start(false);
    let whole = ask(node.host(), "/people", &authorization());
    let people: Vec<serde_json::Value> = serde_json::from_slice(&dechunked(&whole.head, whole.body)).unwrap();
    assert_eq!(people.len(), PEOPLE);
    let bodies = scratch().join("bodies.jsonl");
    let lines: Vec<String> = people.iter().map(ToString::to_string).collect();
    fs::write(&bodies, lines.join("\n")).unwrap();
    let (_bare, bare_url) = limit::serve(&["table", bodies.to_str().unwrap()]);
    let script = Script::reads(&scratch(), "list", &["/people".to_owned()]);
    let mut figure =
        Figure::alone("GET /people, 10,000 people, 4 connections", "/s", Vec::new(), Target::AtLeast(0.5));
    let mut changed = Figure::alone("the same, one list after each write", "ms", Vec::new(), Target::None);
    let (mut first_bytes, mut growth) = (Vec::new(), Vec::new());
    script.run(&node.url, STREAMS, Duration::from_secs(1));
    for turn in 0..settings.turns {
        node.process.forget_peak();
        let before = node.process.memory_mb();
        figure.node.push(script.run(&node.url, STREAMS, settings.length).requests_per_s);
        growth.push(node.process.peak_mb() - before);
        figure.limit.push(script.run(&bare_url, STREAMS, settings.length).requests_per_s);
        for number in 0..LISTS {
            let body = format!(r#"{{"phone":"+34 {turn} {number}"}}"#);
            send(node.host(), "PATCH", &format!("/people/{DOCTOR}"), &authorization(), &body);
            let mine = ask(node.host(), "/people", &authorization());
            first_bytes.push(mine.first_byte.as_secs_f64() * 1e3);
            changed.node.push(mine.took.as_secs_f64() * 1e3);
            changed.limit.push(ask(host(&bare_url), "/people", "").took.as_secs_f64() * 1e3);
        }
    }
    vec![
        figure.seeing("pieces are kept until the next commit"),
        changed.seeing("nothing is kept: each record is read and written as JSON"),
        Figure::alone("first byte of such a list", "ms", first_bytes, Target::AtMost(10.0)),
        Figure::alone("memory while 4 lists are sent", "MB more", growth, Target::AtMost(16.0)),
    ]
}

/// First logins one after the other, of accounts that the node has not seen; somebody who is in reads meanwhile.
pub(super) fn login(settings: &Settings) -> Vec<Figure> {
    let node = Files::filled(PEOPLE).copy("login").start(false);
    let one_bcrypt = || {
        let began = std::time::Instant::now();
        bcrypt::hash("another password", 12).unwrap();
        began.elapsed().as_secs_f64() * 1e3
    };
    let script = Script::reads(&scratch(), "login", &[format!("/people/{DOCTOR}")]);
    script.run(&node.url, 1, Duration::from_secs(1));
    let mut first = Figure::alone(
        "a first login, beside one bcrypt of the same cost",
        "ms",
        Vec::new(),
        Target::AtMost(1.2),
    );
    let mut others =
        Figure::alone("a reader's p99 during first logins, beside alone", "ms", Vec::new(), Target::None);
    let mut number = 1;
    for _ in 0..settings.turns * LOGINS {
        let took = first_login(&node, number).as_secs_f64() * 1e3;
        number += 1;
        first.node.push(took);
        first.limit.push(one_bcrypt());
    }
    for _ in 0..settings.turns {
        others.limit.push(script.run(&node.url, 1, settings.length).p99_ms);
        let mut reader = script.start(&node.url, 1, settings.length);
        while !reader.is_over() {
            first_login(&node, number);
            number += 1;
        }
        others.node.push(reader.join().p99_ms);
    }
    vec![first, others.seeing("one of two cores computes bcrypt all the time")]
}

fn first_login(node: &Node, number: usize) -> Duration {
    use base64::Engine as _;
    let pair = format!("{}:{}", account(number), crate::federation::PASSWORD);
    let authorization = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
    ask(node.host(), &format!("/people/{}", account(number)), &authorization).took
}
