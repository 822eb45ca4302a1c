//! Floor 5. What `doctor` says of the store's file: rows and pages that are damaged, and bits that were put right.

use std::collections::BTreeSet;

use serde_json::Value;

use super::findings::Findings;
use crate::cli::terminal::show::cell;
use crate::store::is_made_anew;
use crate::sync::damaged::{OF_RECORDS, PAGES, set_aside_command};

const ROWS: &str = "stored rows";
/// Rows and blocks that rotted on the disk, by what the node says of itself.
pub(super) fn look(found: &mut Findings, status: &Value) {
    let Some(rows) = status["damaged_rows"].as_array() else {
        return;
    };
    let mut commands = BTreeSet::new();
    for row in rows {
        let (finding, remedy) = of_row(row);
        // Two rows of one record.
        let remedy = match command(row) {
            Some(command) if !commands.insert(command.clone()) => {
                "what is said of this record above takes this row along".to_owned()
            }
            _ => remedy,
        };
        found.wrong(ROWS, finding, remedy);
    }
    let put_right = &status["bits_put_right"];
    if put_right["unreadable"] == true {
        found.warning(
            ROWS,
            "bits of the store's file were put right, and the row that counts them cannot be read any more"
                .to_owned(),
            "the disk or the memory of this machine is failing: replace it while all is well",
        );
    }
    let at = cell(&put_right["last_at"]);
    if let Some(bits) = put_right["bits"].as_u64().filter(|bits| *bits > 0) {
        found.warning(
            ROWS,
            format!("{bits} wrong bits of the store's file were put right, the last at {at}"),
            "the disk or the memory of this machine is failing: replace it while all is well",
        );
    }
    if let Some(blocks) = put_right["blocks"].as_u64().filter(|blocks| *blocks > 0) {
        found.warning(
            "blocks of the store",
            format!(
                "{blocks} blocks of the encrypted store did not open, the last at {at}: more than one bit of each was \
                 wrong. Every row in them counts as damaged until it is read from the centre again or set aside; all \
                 others are served"
            ),
            "first thalamus-edge sync now, then what is said of each row that is still damaged. The disk is failing: \
             replace it",
        );
    }
    if rows.is_empty() {
        let finding = match status["scrubbed_at"].as_str() {
            Some(at) => format!("good; all of them were last read through by {at}"),
            None => "none is known to be damaged; they have not all been read through yet".to_owned(),
        };
        found.ok(ROWS, finding);
    }
}

/// What there is to say of a damaged row, and what to do.
fn of_row(row: &Value) -> (String, String) {
    let (id, table) = (cell(&row["id"]), cell(&row["table"]));
    if id == PAGES && is_made_anew(&table) {
        let finding = format!(
            "pages of {table} are damaged; no record is in them. Nothing is backed up or deleted meanwhile, and the next \
             start makes them anew"
        );
        return (
            finding,
            "restart the node (systemctl restart thalamus-edge), then look again. The disk may be failing"
                .to_owned(),
        );
    }
    if id == PAGES {
        let finding = format!(
            "pages of {table} are damaged beyond repair: rows of it may be missing. Nothing is backed up or deleted \
             meanwhile, and the next start will refuse this file"
        );
        let remedy = "stop the node, keep a copy of store.redb, thalamus-edge export DIR for what can still be read, \
                      then thalamus-edge restore FILE; without a backup move the file away and let the node enrol anew \
                      (docs/OPERATIONS.md: When the disk forgets)";
        return (finding, remedy.to_owned());
    }
    let kind = row["kind"].as_str();
    let what = kind.map_or_else(|| id.clone(), |kind| format!("{kind} {id}"));
    let finding =
        format!("{what} is damaged on the disk (table {table}): not shown, not sent, not backed up");
    let command = command(row).unwrap_or_default();
    let remedy = match (kind, table.as_str()) {
        (Some(_), table) if OF_RECORDS.contains(&table) => format!(
            "thalamus-edge sync now reads it from the centre again; if it stays, restore the last good backup, or take it \
             out of the way: {command}. The disk may be failing"
        ),
        (_, table) => {
            let heals = match table {
                "content" => {
                    "thalamus-edge sync now fetches the attachment again, if the centre has it; if it stays: "
                }
                _ => "no round brings it back. ",
            };
            format!(
                "{heals}restore the last good backup, or take it out of the way: {command} (docs/OPERATIONS.md says what \
                 follows). The disk may be failing"
            )
        }
    };
    (finding, remedy)
}

/// What takes a damaged row out of the way; nothing does that with pages.
fn command(row: &Value) -> Option<String> {
    set_aside_command(row["table"].as_str()?, row["kind"].as_str(), row["id"].as_str()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_damaged_thing_has_the_remedy_that_helps() {
        let remedy =
            |table: &str, kind: Value, id: &str| of_row(&json!({"table": table, "kind": kind, "id": id})).1;
        let said = remedy("docs", json!("people"), "ANA");
        assert!(said.contains("sync now") && said.contains("db set-aside people ANA."), "{said}");
        let mut found = Findings::default();
        let of = |table: &str| json!({"table": table, "kind": "people", "id": "AN\u{1b}A"});
        look(&mut found, &json!({"damaged_rows": [of("base"), of("docs")]}));
        let said = found.lines();
        assert_eq!(said.matches("db set-aside --encoded people AN%1BA. ").count(), 1, "{said}");
        assert!(said.contains("takes this row along"), "{said}");
        let said = of_row(&json!({"table": "held_of, dirty", "kind": null, "id": PAGES}));
        assert!(said.0.contains("makes them anew") && said.1.contains("restart"), "{said:?}");
        let said = of_row(&json!({"table": "held_of, meta", "kind": null, "id": PAGES}));
        assert!(said.0.contains("will refuse"), "{said:?}");
        let said = remedy("audit", json!(null), "17");
        assert!(said.contains("db set-aside --table audit 17 ") && !said.contains("sync now"), "{said}");
        let said = remedy("trash", json!("pols"), "a b'c");
        assert!(said.contains(r"db set-aside --table trash pols 'a b'\''c' "), "{said}");
        let said = remedy("docs", json!(null), PAGES);
        assert!(!said.contains("set-aside") && said.contains("export DIR"), "{said}");
        assert!(said.contains("restore FILE") && said.contains("enrol anew"), "{said}");
        let said = remedy("held_of", json!(null), PAGES);
        assert!(said.contains("restart the node") && !said.contains("restore"), "{said}");
    }

    #[test]
    fn bits_and_blocks_are_told_apart() {
        let said = |put_right: Value| {
            let mut found = Findings::default();
            look(&mut found, &json!({"damaged_rows": [], "bits_put_right": put_right}));
            found.0.iter().map(|finding| finding.finding.clone()).collect::<Vec<_>>().join("\n")
        };
        assert!(!said(json!(null)).contains("bits"));
        let bits = said(json!({"bits": 2, "blocks": 0, "last_at": "then"}));
        assert!(bits.contains("2 wrong bits") && !bits.contains("blocks"), "{bits}");
        assert!(said(json!({"unreadable": true})).contains("cannot be read any more"));
        let blocks = said(json!({"bits": 0, "blocks": 3, "last_at": "then"}));
        assert!(blocks.contains("3 blocks") && !blocks.contains("wrong bits of"), "{blocks}");
    }
}
