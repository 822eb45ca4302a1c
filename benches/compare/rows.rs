//! The rows: what is measured, how, and what it has to reach.

mod reads;
mod reconciling;
mod size;
mod writes;

use std::path::PathBuf;
use std::time::Duration;

use crate::table::Figure;

/// How much is done.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Turns of both sides.
    pub(crate) turns: usize,
    /// Length of one side's turn.
    pub(crate) length: Duration,
    /// Records of the grown store.
    pub(crate) scale: usize,
    /// Another build of the program, to read from beside this one.
    pub(crate) against: Option<PathBuf>,
}

impl Settings {
    pub(crate) const QUICK: Settings =
        Settings { turns: 1, length: Duration::from_secs(2), scale: 1_000_000, against: None };
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { turns: 3, length: Duration::from_secs(6), scale: 1_000_000, against: None }
    }
}

/// People whose records are in the ordinary store, with five pages each.
const PEOPLE: usize = 10_000;

pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) measure: fn(&Settings) -> Vec<Figure>,
}

const fn row(name: &'static str, about: &'static str, measure: fn(&Settings) -> Vec<Figure>) -> Row {
    Row { name, about, measure }
}

pub(crate) const ROWS: [Row; 12] = [
    row(
        "person",
        "GET /people/{id}, 64 connections, HTTP and TLS, beside a bare server with the same bytes",
        reads::person,
    ),
    row("book", "GET /pols/{id}, five pages, beside a bare server with the same bytes", reads::book),
    row(
        "list",
        "GET /people, all of them, beside a bare server that streams them out of a table",
        reads::list,
    ),
    row("login", "first logins, and what others notice of them", reads::login),
    row("patch", "PATCH, 64 connections, beside redb committing the same rows", writes::patch),
    row("post", "POST, 64 connections, beside redb committing the same rows", writes::post),
    row("busy", "writes beside a long read and beside backups, and alone", writes::busy),
    row("pull", "a first sync, and edits from elsewhere, beside the driver alone", reconciling::pull),
    row("push", "edits sent to the centre, beside the driver alone", reconciling::push),
    row("beside", "reads while a round pulls, and alone", reconciling::beside),
    row("growth", "a grown store beside a small one, and its start", size::growth),
    row("size", "memory and the program itself", size::footprint),
];
