//! Floor 3. Damaged rows of the store, named for people, with what takes them out of the way.
//!
//! Which rows are damaged is for root and the operator: keys hold accounts. Everybody else, and the log, gets to know how
//! many there are, and in which tables.

use std::collections::BTreeSet;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::domain::folding::is_invisible;
use crate::store::DamagedRow;

/// What stands for the id of a row where pages of a table are damaged.
pub const PAGES: &str = "(pages)";
/// Tables whose damaged rows are healed from the centre, or set aside with their record.
pub const OF_RECORDS: [&str; 6] = ["docs", "base", "intent", "delivered", "undecided", "ghost"];
/// Rows that one message names; `doctor` names them all.
const NAMED_MAX: usize = 5;

/// What takes a damaged row out of the way; nothing does that with pages.
pub fn set_aside_command(table: &str, collection: Option<&str>, id: &str) -> Option<String> {
    if id == PAGES {
        return None;
    }
    // A damaged key may hold what no terminal shows.
    let is_shown = !id.chars().any(|c| c.is_control() || is_invisible(c));
    let (encoded, id) = match is_shown {
        true => ("", quoted(id)),
        false => (" --encoded", utf8_percent_encode(id, NON_ALPHANUMERIC).to_string()),
    };
    Some(match collection {
        Some(collection) if OF_RECORDS.contains(&table) => {
            format!("thalamus-edge db set-aside{encoded} {collection} {id}")
        }
        _ => {
            let of = collection.map_or_else(String::new, |collection| format!(" {collection}"));
            format!("thalamus-edge db set-aside{encoded} --table {table}{of} {id}")
        }
    })
}

/// As a shell takes it.
fn quoted(id: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if !id.is_empty() && id.chars().all(is_plain) {
        id.to_owned()
    } else {
        format!("'{}'", id.replace('\'', "'\\''"))
    }
}

/// How many rows are damaged, and of which tables; `None` if none is known.
pub(super) fn counted(rows: &[DamagedRow]) -> Option<String> {
    let what = match rows.len() {
        0 => return None,
        1 => "One row of the node's store is".to_owned(),
        count => format!("{count} rows of the node's store are"),
    };
    let tables: BTreeSet<&str> = rows.iter().map(|row| row.table.as_str()).collect();
    let tables = tables.into_iter().collect::<Vec<_>>().join(", ");
    Some(format!(
        "{what} damaged on the disk ({tables}) and neither shown nor sent: `thalamus-edge doctor` says which, and what to do."
    ))
}

/// The damaged rows themselves, each with its remedy; `None` if none is known.
pub fn named(rows: &[DamagedRow]) -> Option<String> {
    let mut words: Vec<String> = rows.iter().take(NAMED_MAX).map(named_one).collect();
    match rows.len().saturating_sub(NAMED_MAX) {
        0 => {}
        more => words.push(format!("and {more} more")),
    }
    (!rows.is_empty()).then(|| format!("Damaged: {}.", words.join("; ")))
}

fn named_one(row: &DamagedRow) -> String {
    let collection = row.kind.map(|kind| kind.schema().collection);
    let of = collection.map_or_else(String::new, |collection| format!(" {collection}"));
    let Some(command) = set_aside_command(&row.table, collection, &row.id) else {
        return format!("pages of {} (`thalamus-edge doctor` says what to do)", row.table);
    };
    let heals = match (row.table.as_str(), collection) {
        (table, Some(_)) if OF_RECORDS.contains(&table) => "a round may heal it, otherwise ",
        ("content", _) => "a round may fetch it, otherwise ",
        _ => "",
    };
    let id: String = row.id.chars().flat_map(shown).collect();
    format!("{}{of} {id} ({heals}`{command}`)", row.table)
}

fn shown(c: char) -> Box<dyn Iterator<Item = char>> {
    if c.is_control() || is_invisible(c) {
        Box::new(c.escape_unicode())
    } else {
        Box::new(std::iter::once(c))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::record::Kind;

    #[test]
    fn each_row_is_named_with_what_takes_it_out_of_the_way() {
        let row =
            |table: &str, kind, id: &str| DamagedRow { table: table.to_owned(), kind, id: id.to_owned() };
        let rows =
            [row("hold", None, "XAC001"), row("base", Some(Kind::Person), "a b"), row("docs", None, PAGES)];
        let said = named(&rows).unwrap_or_default();
        assert_eq!(
            said,
            "Damaged: hold XAC001 (`thalamus-edge db set-aside --table hold XAC001`); base people a b (a round may heal it, \
             otherwise `thalamus-edge db set-aside people 'a b'`); pages of docs (`thalamus-edge doctor` says what to do)."
        );
        let said = counted(&rows).unwrap_or_default();
        assert!(said.contains("(base, docs, hold)") && !said.contains("XAC001"), "{said}");
        let many: Vec<DamagedRow> = (0..7).map(|n| row("hold", None, &n.to_string())).collect();
        assert!(named(&many).is_some_and(|said| said.ends_with("; and 2 more.")));
        assert_eq!((named(&[]), counted(&[])), (None, None));
    }
}
