//! The node beside the machine's limit: `benches/run`.
//!
//! Absolute times differ from machine to machine, so every figure here is a ratio of two things that were
//! measured in turns in one run. The other side does the same work with nothing that could be left out: a bare
//! server with the same bytes, redb with the same rows, the driver with the same cursors. It runs in a process of
//! its own, which is this program again ([`limit`]).

#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock and its environment")]

mod federation;
mod limit;
mod load;
#[allow(dead_code, reason = "shared with the tests")]
#[path = "../../tests/support/mongo.rs"]
mod mongo;
mod node;
mod process;
mod rows;
mod table;

use rows::{ROWS, Settings};

const USAGE: &str = "benches/run [--list] [--quick] [--scale RECORDS] [--against PROGRAM] [ROW ...]";

fn main() {
    let mut arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().is_some_and(|first| first == limit::COMMAND) {
        limit::run(&arguments[1..]);
        return;
    }
    let mut settings = Settings::default();
    let mut wanted = Vec::new();
    arguments.reverse();
    while let Some(argument) = arguments.pop() {
        match argument.as_str() {
            "--list" => {
                ROWS.iter().for_each(|row| println!("{:8} {}", row.name, row.about));
                return;
            }
            "--quick" => {
                settings = Settings { scale: settings.scale, against: settings.against, ..Settings::QUICK };
            }
            "--scale" => match arguments.pop().and_then(|scale| scale.parse().ok()) {
                Some(scale) => settings.scale = scale,
                None => give_up("--scale needs a number of records"),
            },
            "--against" => match arguments.pop().map(std::fs::canonicalize) {
                Some(Ok(program)) => settings.against = Some(program),
                _ => give_up("--against needs another build of the program, by its path"),
            },
            name if ROWS.iter().any(|row| row.name == name) => wanted.push(name.to_owned()),
            other => give_up(&format!("{other} is neither an option nor a row")),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _context = runtime.enter();
    let mut table = table::Table::default();
    for row in ROWS.iter().filter(|row| wanted.is_empty() || wanted.iter().any(|name| name == row.name)) {
        eprintln!("== {}: {}", row.name, row.about);
        for figure in (row.measure)(&settings) {
            eprintln!("   {figure}");
            table.add(figure);
        }
    }
    print!("{table}");
}

fn give_up(why: &str) -> ! {
    eprintln!("{why}\n{USAGE}");
    std::process::exit(2)
}
