//! Floor 4. Questions that the records themselves ask, for as long as they do, over HTTP: accounts that two records have, and
//! people who are gone whose records are here. They are listed with the conflicts. Nothing is decided about them there: whoever
//! changes the records ends them, on every node.

use serde_json::{Map, Value, json};

use crate::domain::record::{Kind, RecordKey};
use crate::http::error::ApiError;
use crate::http::records::render::to_document;
use crate::http::state::app_state::AppState;
use crate::http::sync::identity_holds::shown_person;
use crate::store::{LeftBehind, Snapshot};

/// What the id of a question begins with; the account follows.
const DUPLICATE: &str = "duplicate:";
const LEFT_BEHIND: &str = "left-behind:";

/// A place in the list of them: behind the question about this account, whether or not it is still asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Duplicate(String),
    LeftBehind(String),
}

impl Place {
    /// Before the first one.
    pub(crate) fn start() -> Place {
        Place::Duplicate(String::new())
    }

    /// Behind the question with this id; `None` if no question has such an id.
    pub(crate) fn behind(id: &str) -> Option<Place> {
        let duplicate = id.strip_prefix(DUPLICATE).map(|account| Place::Duplicate(account.to_owned()));
        duplicate
            .or_else(|| id.strip_prefix(LEFT_BEHIND).map(|account| Place::LeftBehind(account.to_owned())))
    }

    /// The id of the question.
    pub(crate) fn id(&self) -> String {
        match self {
            Place::Duplicate(account) => format!("{DUPLICATE}{account}"),
            Place::LeftBehind(account) => format!("{LEFT_BEHIND}{account}"),
        }
    }
}

/// The first question behind this place as a list shows it, and the place behind it; `None` if there are no more.
pub(crate) fn next(
    node: &AppState,
    snapshot: &Snapshot,
    after: &Place,
) -> Result<Option<(Value, Place)>, ApiError> {
    let after = match after {
        Place::Duplicate(after) => match snapshot.duplicates_after(after, 1)?.pop() {
            Some((account, ids)) => {
                let shown = shown_duplicate(node, snapshot, &account, &ids)?;
                return Ok(Some((shown, Place::Duplicate(account))));
            }
            None => "",
        },
        Place::LeftBehind(after) => after,
    };
    let left = snapshot.left_behind_after(after, 1)?.pop();
    Ok(left.map(|left| (shown_left_behind(&left), Place::LeftBehind(left.account))))
}

/// The one that this id names, as it is shown; `None` for other ids, and if there is no such question.
pub(crate) fn find(node: &AppState, snapshot: &Snapshot, id: &str) -> Result<Option<Value>, ApiError> {
    if let Some(account) = id.strip_prefix(LEFT_BEHIND) {
        return Ok(snapshot.left_behind_of(account)?.as_ref().map(shown_left_behind));
    }
    let Some(account) = id.strip_prefix(DUPLICATE) else {
        return Ok(None);
    };
    let ids = snapshot.spellings(account)?;
    if ids.len() < 2 {
        return Ok(None);
    }
    shown_duplicate(node, snapshot, &Kind::Person.schema().canonical_id(account), &ids).map(Some)
}

/// What ends it, said to who tries to decide it.
pub(crate) fn remedy(shown: &Value) -> &'static str {
    match shown["type"].as_str() {
        Some("left_behind") => "Restore the person from the trash, or delete the records too",
        _ => "Both records are at the centre: correct or delete one of them",
    }
}

fn shown_duplicate(
    node: &AppState,
    snapshot: &Snapshot,
    account: &str,
    ids: &[String],
) -> Result<Value, ApiError> {
    let mut people = Vec::new();
    for id in ids {
        if let Some(record) = snapshot.record(&RecordKey::new(Kind::Person, id.as_str()))? {
            people.push(shown_person(node, &to_document(&record.document)?));
        }
    }
    let mut shown = shown(DUPLICATE, "duplicate", account);
    shown["records"] = people.into();
    Ok(shown)
}

fn shown_left_behind(left: &LeftBehind) -> Value {
    let counts = left.counts.iter().map(|(kind, count)| (kind.schema().collection.to_owned(), json!(count)));
    let mut shown = shown(LEFT_BEHIND, "left_behind", &left.account);
    shown["counts"] = counts.collect::<Map<_, _>>().into();
    shown
}

fn shown(prefix: &str, name: &str, account: &str) -> Value {
    json!({
        "id": format!("{prefix}{account}"),
        "type": name,
        "collection": Kind::Person.schema().collection,
        "record": account,
        "path": [],
        "status": "open",
    })
}
