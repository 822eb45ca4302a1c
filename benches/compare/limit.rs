//! The least that has to be done for the same: servers, stores and drivers with nothing around them. Each runs in a
//! process of its own and says `ready` when it is.

mod driver;
mod redb_alone;
mod web;

use std::process::Command;

use crate::process::Process;

/// First argument of this program when it is to be one of these.
pub(crate) const COMMAND: &str = "limit";

pub(crate) fn run(arguments: &[String]) {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["web", answers] => web::from_memory(answers, None),
        ["web", answers, certificate, key] => web::from_memory(answers, Some((certificate, key))),
        ["table", bodies] => web::from_table(bodies),
        ["commit", store, how, seconds] => redb_alone::commit(store, how, seconds.parse().unwrap()),
        ["pull", uri, database, store] => driver::pull(uri, database, store, false),
        ["pull-rows", uri, database, store] => driver::pull(uri, database, store, true),
        ["push", uri, database, people, turn] => {
            driver::push(uri, database, people.parse().unwrap(), turn.parse().unwrap());
        }
        other => panic!("{other:?}"),
    }
}

fn itself(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(COMMAND).args(arguments);
    command
}

/// Starts one that serves; gives its address.
pub(crate) fn serve(arguments: &[&str]) -> (Process, String) {
    let (process, address, _) = Process::start(&mut itself(arguments), "ready ", false);
    (process, address)
}

/// Runs one that ends by itself; gives the numbers that it says.
pub(crate) fn measure(arguments: &[&str]) -> Vec<f64> {
    let (process, numbers, _) = Process::start(&mut itself(arguments), "measured ", false);
    process.wait();
    numbers.split_whitespace().map(|number| number.parse().unwrap()).collect()
}
