//! Floor 3. An account that one side has closed stays closed until somebody decides about the account itself.
//!
//! The merge compares values, and knows only what both sides had agreed on. Two more closings stand over an opening:
//!
//! | closed | stands over the centre's opening, because |
//! |---|---|
//! | here, by somebody, while the centre had no such person or an open one | nobody there can have known of it |
//! | on either side of two records that somebody took for one human being | that was no decision about the account |
//!
//! What stands is a conflict over `active`, which names the account: whoever decides it decides about that alone.

use bson::{Bson, Document};

use crate::domain::active::{ACTIVE, ActiveFromCentre, is_active};
use crate::domain::merge::{Clash, Merged, Side, merge};
use crate::domain::record::{Kind, RecordKey};
use crate::store::{StoreError, Tx};

/// Two versions of one person meet, of whom at most one says that the account is closed.
#[derive(Clone, Copy)]
pub(super) enum Meeting {
    /// In a round, or because a decision about somebody else let the record in.
    Round,
    /// Somebody has decided that the two are one human being. `is_closed`: the account is closed on this node.
    Same { is_closed: bool },
}

/// The side whose closing stands over the other side's opening, if there is one.
pub(super) fn closed_by(
    tx: &Tx<'_>,
    key: &RecordKey,
    (base, local, remote): (Option<&Document>, Option<&Document>, Option<&Document>),
    meeting: Meeting,
) -> Result<Option<Side>, StoreError> {
    let (Kind::Person, Some(remote)) = (key.kind, remote) else {
        return Ok(None);
    };
    Ok(match meeting {
        Meeting::Same { is_closed } => side_of_same(is_closed, remote),
        Meeting::Round => {
            let is_news_there = base.is_none_or(is_active);
            let is_closed_here = local.is_none_or(|local| !is_active(local));
            (is_active(remote) && is_closed_here && is_news_there && tx.is_closed_here(&key.id)?)
                .then_some(Side::Local)
        }
    })
}

/// [`closed_by`] of two records that somebody takes for one human being.
fn side_of_same(is_closed_here: bool, remote: &Document) -> Option<Side> {
    match (is_closed_here, is_active(remote)) {
        (true, true) => Some(Side::Local),
        (_, false) => Some(Side::Remote),
        (false, true) => None,
    }
}

/// The merge of three versions of a person, with the account closed if the closing of one side `stands`.
pub(super) fn merge_closed(
    (base, local, remote): (Option<&Document>, Option<&Document>, Option<&Document>),
    stands: Side,
) -> Merged {
    let mut merged = merge(Kind::Person.schema(), base, local, remote);
    let Some(document) = merged.document.as_mut().filter(|document| is_active(document)) else {
        return merged;
    };
    let said = |person: Option<&Document>| person.and_then(|person| person.get(ACTIVE)).cloned();
    let closed = |person: Option<&Document>| match person {
        Some(person) if !is_active(person) => said(Some(person)),
        _ => Some(Bson::Boolean(false)),
    };
    let (local, remote) = match stands {
        Side::Local => (closed(local), said(remote)),
        Side::Remote => (said(local), closed(remote)),
    };
    let value = if stands == Side::Local { &local } else { &remote };
    document.insert(ACTIVE, value.clone().unwrap_or(Bson::Boolean(false)));
    merged.clashes.retain(|clash| clash.path != [ACTIVE]);
    merged.clashes.push(Clash { path: vec![ACTIVE.to_owned()], base: said(base), local, remote, stands });
    merged
}

/// What becomes of the account of this node if somebody decides that its person and the centre's are one human being, as
/// sentences for the one who decides. Empty if the account stays what it is.
pub fn told_of_same(
    base: Option<&Document>,
    local: &Document,
    is_closed_here: bool,
    remote: &Document,
    counts: ActiveFromCentre,
) -> Vec<String> {
    let sides = (base, Some(local), Some(remote));
    let merged = match side_of_same(is_closed_here, remote) {
        Some(stands) => merge_closed(sides, stands),
        None => merge(Kind::Person.schema(), base, Some(local), Some(remote)),
    };
    let united = merged.document.unwrap_or_default();
    let mut told = Vec::new();
    match (is_closed_here, is_active(remote)) {
        (true, true) => told.push(
            "the account stays closed, because it is closed on this node: the conflict over active opens it"
                .to_owned(),
        ),
        (false, false) if counts == ActiveFromCentre::Ignore => told.push(
            "the record says that the account is inactive from then on, as the centre has it, and the account stays open here \
             (accounts.active_from_centre is \"ignore\"): `thalamus-edge user disable` closes it"
                .to_owned(),
        ),
        (false, false) => told.push(
            "the account is inactive from then on, as the centre has it: the conflict over active opens it"
                .to_owned(),
        ),
        _ => {}
    }
    let is_conflict =
        |field: &str| merged.clashes.iter().any(|clash| clash.path.first().is_some_and(|at| at == field));
    let then = |field: &str| if is_conflict(field) { "; this node's becomes a conflict" } else { "" };
    if united.get("password") != local.get("password") {
        told.push(format!("the password becomes the centre's{}", then("password")));
    }
    if united.get("roles") != local.get("roles") {
        let names: Vec<&str> = match united.get("roles") {
            Some(Bson::Array(roles)) => roles.iter().filter_map(Bson::as_str).collect(),
            _ => Vec::new(),
        };
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        told.push(format!("the roles become {names}{}", then("roles")));
    }
    told
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn a_closing_on_either_side_stands_once_two_are_one() {
        let open = [doc! {"_id": "A"}, doc! {"_id": "A", "active": true}];
        let closed = [doc! {"_id": "A", "active": false}, doc! {"_id": "A", "active": "false"}];
        let bases = [None, Some(doc! {"_id": "A"}), Some(doc! {"_id": "A", "active": false})];
        let both: Vec<&Document> = open.iter().chain(&closed).collect();
        for base in &bases {
            for local in &both {
                for remote in &both {
                    let is_open = is_active(local) && is_active(remote);
                    let sides = (base.as_ref(), Some(*local), Some(*remote));
                    let merged = match side_of_same(!is_active(local), remote) {
                        Some(stands) => merge_closed(sides, stands),
                        None => merge(Kind::Person.schema(), sides.0, sides.1, sides.2),
                    };
                    let found = merged.document.as_ref().is_some_and(is_active);
                    assert_eq!(found, is_open, "{sides:?}");
                }
            }
        }
    }

    #[test]
    fn who_decides_is_told_what_becomes_of_the_account() {
        let local = doc! {"_id": "A", "active": false, "password": "x", "roles": ["end_user"]};
        let remote = doc! {"_id": "A", "password": "y", "roles": ["health_professional"]};
        assert_eq!(
            told_of_same(None, &local, true, &remote, ActiveFromCentre::Honour),
            [
                "the account stays closed, because it is closed on this node: the conflict over active opens it",
                "the password becomes the centre's; this node's becomes a conflict",
                "the roles become health_professional; this node's becomes a conflict",
            ]
        );
        assert_eq!(told_of_same(None, &local, true, &local, ActiveFromCentre::Honour), Vec::<String>::new());
        let (open, inactive) = (doc! {"_id": "A"}, doc! {"_id": "A", "active": false});
        for (counts, words) in [
            (ActiveFromCentre::Honour, "the account is inactive from then on"),
            (ActiveFromCentre::Ignore, "the account stays open here"),
        ] {
            let told = told_of_same(None, &open, false, &inactive, counts);
            assert!(told.len() == 1 && told[0].contains(words), "{told:?}");
            // A closing on this node counts under both.
            let told = told_of_same(None, &inactive, true, &open, counts);
            assert!(told.len() == 1 && told[0].contains("the account stays closed"), "{told:?}");
        }
    }
}
