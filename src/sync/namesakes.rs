//! Floor 3. Other nodes under this node's name: people who read the name at the centre take two clinics for one.
//!
//! Each of them finds the other: in the round in which it enrols, and from then on once an hour. Ids are never the
//! same, so records do not suffer.

use bson::{Bson, Document, doc};
use serde::Serialize;

use super::round::{Round, RoundError};
use super::time_text;
use crate::central::survey::Namesake;
use crate::central::{Central, CentralError};
use crate::store::{Snapshot, StoreError};

const META_NAMESAKES: &str = "namesakes";
/// An exchange of some hundred bytes each time.
const LOOK_EVERY_MS: i64 = 60 * 60 * 1000;

/// Another node under this node's name, as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SameName {
    /// Its id at the centre.
    pub node: String,
    pub last_round_at: Option<String>,
}

impl SameName {
    pub(crate) fn of(namesake: &Namesake) -> SameName {
        SameName { node: namesake.node.clone(), last_round_at: namesake.last_round_ms.map(time_text) }
    }
}

/// What is to be said of them; `None` if there are none.
pub fn words(name: &str, others: &[SameName]) -> Option<String> {
    let list = others.iter().map(|other| match &other.last_round_at {
        Some(at) => format!("{}, last round {at}", other.node),
        None => other.node.clone(),
    });
    let list: Vec<_> = list.collect();
    (!list.is_empty()).then(|| {
        format!(
            "Another node is called {name:?} too ({}): give one of them another name ([node] name), or have the \
             federation's administrator revoke what is no more.",
            list.join("; ")
        )
    })
}

/// The others, as of the last look at the centre under this name.
pub(super) fn known(snapshot: &Snapshot, name: &str) -> Result<Vec<SameName>, StoreError> {
    let row = snapshot.meta(META_NAMESAKES)?.filter(|row| is(row, "name", name));
    let row = row.unwrap_or_default();
    let others = row.get_array("others").map_or(&[][..], |others| others);
    let others = others.iter().filter_map(Bson::as_document).filter_map(|other| {
        let last_round_at = other.get_i64("last_round_at").ok().map(time_text);
        Some(SameName { node: other.get_str("node").ok()?.to_owned(), last_round_at })
    });
    Ok(others.collect())
}

fn is(row: &Document, field: &str, value: &str) -> bool {
    row.get_str(field).is_ok_and(|found| found == value)
}

/// Whether it is time to look: what was found has to be seen to end.
fn is_due(row: Option<&Document>, name: &str, node: &str, now_ms: i64) -> bool {
    let Some(row) = row.filter(|row| is(row, "name", name) && is(row, "own", node)) else {
        return true;
    };
    let since_ms = now_ms - row.get_i64("at").unwrap_or_default();
    !(0..LOOK_EVERY_MS).contains(&since_ms) || row.get_array("others").is_ok_and(|others| !others.is_empty())
}

impl Round<'_> {
    /// Looks for others, if that is due. A centre that does not answer this question ends no round.
    pub(crate) async fn look_for_namesakes(
        &mut self,
        central: &mut dyn Central,
        node: &str,
    ) -> Result<(), RoundError> {
        let (name, now_ms) = (self.settings.node_name.clone(), self.store.now_ms());
        if !is_due(self.store.read()?.meta(META_NAMESAKES)?.as_ref(), &name, node, now_ms) {
            return Ok(());
        }
        let others = match central.namesakes(node, &name, now_ms).await {
            Ok(others) => others,
            Err(offline @ CentralError::Offline(_)) if !offline.is_answer() || offline.is_of_centre() => {
                return Err(offline.into());
            }
            // It is asked again in the next round.
            Err(error) => {
                self.note_aside("Other nodes of the same name could not be looked for", &error);
                tracing::warn!(%error, "other nodes of the same name could not be looked for");
                return Ok(());
            }
        };
        let shown: Vec<SameName> = others.iter().map(SameName::of).collect();
        if let Some(words) = words(&name, &shown) {
            tracing::warn!("{words}");
        }
        let rows = others.iter().map(|other| {
            let mut row = doc! {"node": &other.node};
            row.extend(other.last_round_ms.map(|ms| ("last_round_at".to_owned(), Bson::Int64(ms))));
            Bson::Document(row)
        });
        let row = doc! {"name": name, "own": node, "at": now_ms, "others": rows.collect::<Vec<_>>()};
        self.store.transact(move |tx| tx.set_meta(META_NAMESAKES, Some(&row))).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_looked_again_in_time_and_for_as_long_as_there_are_others() {
        let is_due = |row: &Document, name, node, now_ms| is_due(Some(row), name, node, now_ms);
        let row_at = |others: &[&str]| {
            doc! {"name": "north", "own": "n", "at": 1_000_i64, "others": others.to_vec()}
        };
        assert!(super::is_due(None, "north", "n", 1_000));
        assert!(!is_due(&row_at(&[]), "north", "n", 1_000 + LOOK_EVERY_MS - 1));
        assert!(is_due(&row_at(&[]), "north", "n", 1_000 + LOOK_EVERY_MS));
        // A clock that was set back, another name, another id.
        assert!(is_due(&row_at(&[]), "north", "n", 999));
        assert!(is_due(&row_at(&[]), "south", "n", 1_001));
        assert!(is_due(&row_at(&[]), "north", "m", 1_001));
        assert!(is_due(&row_at(&["m"]), "north", "n", 1_001));
    }

    #[test]
    fn both_what_and_what_to_do_are_said() {
        assert_eq!(words("north", &[]), None);
        let other =
            SameName { node: "6f0c".to_owned(), last_round_at: Some("2027-01-01T00:00:00Z".to_owned()) };
        let said = words("north", &[other]).unwrap();
        assert!(said.contains("\"north\" too (6f0c, last round 2027-01-01T00:00:00Z)"), "{said}");
    }
}
