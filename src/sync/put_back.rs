//! Floor 3. Records that were deleted at the centre and are there again, before this node took the delete.
//!
//! Who puts a record back may not know what others had written last: another node whose edit stands against the delete, a
//! technician, an application with an older copy. To this node it looks like one ordinary change, and what that takes away
//! would be nowhere. So where the record is back at what one of the node's own writes had found there, the node's value becomes
//! a conflict; what else is taken away is kept in the trash, as it would be if the delete had been seen. Nothing is sent again by
//! itself: who deleted the record may have seen it.
//!
//! While nobody has the account of the record, what is there again may be anybody's ([`super::ownerless`]): the delete is
//! carried out here, and the centre's record waits apart. If the one here has unsent edits, it is asked which of the two
//! is to have the id ([`super::undecided`]).

use std::collections::HashSet;

use bson::Document;

use super::merge_in::{are_of_two, is_held};
use super::ownerless::is_nobodys;
use super::restore::changed_since;
use super::round::Tally;
use crate::domain::access::Actor;
use crate::domain::diff::{Change, Diff, Path, diff, get, set};
use crate::domain::merge::{Clash, conflict_path};
use crate::domain::rebuild::{OwnWrite, is_earlier, set_back};
use crate::domain::record::{Kind, RecordKey};
use crate::domain::schema::Owner;
use crate::domain::value::{same_document, same_option};
use crate::store::{Base, StoreError, Tx};

/// The record was deleted at the centre, and `remote` is there again. Counts the conflicts.
///
/// Records are read ahead of the feed: what was put back may have been taken before the delete is told. So what counts is
/// what the node has written last, not what it takes for agreed.
pub(super) fn note_put_back(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    remote: &Document,
) -> Result<Tally, StoreError> {
    let Some((local, agreed)) = compared(tx, key, remote)? else {
        return Ok(Tally::default());
    };
    if is_nobodys_now(tx, key, remote)? {
        return part(tx, key, &local);
    }
    let own = tx.own_writes(key)?;
    keep(tx, key, (&local, &agreed), remote, &own)
}

/// Whether nobody has the account of a record, so that it need not be of whom it was of before the delete.
fn is_nobodys_now(tx: &Tx<'_>, key: &RecordKey, remote: &Document) -> Result<bool, StoreError> {
    match (key.kind.schema().owner, key.kind.schema().owner_of(remote)) {
        // What becomes of a write on its way is not known.
        (Owner::Field(_), Some(account)) => Ok(!tx.has_intent(key)? && is_nobodys(tx, &account)?),
        _ => Ok(false),
    }
}

/// The record here and the one that is there again are two.
fn part(tx: &mut Tx<'_>, key: &RecordKey, local: &Document) -> Result<Tally, StoreError> {
    if !tx.is_clean(key)? {
        tx.put(key, Some(local), &Base::Absent, &Actor::Centre)?;
        return Ok(Tally::default());
    }
    tx.discard(key, local)?;
    tx.put(key, None, &Base::Absent, &Actor::Centre)?;
    tx.clear_dead(key)?;
    tx.note_taken(key)?;
    Ok(Tally { deleted: 1, ..Tally::default() })
}

/// The history of changes has a gap: a collection may have been dropped in it, and filled from an older copy. It counts as
/// put back if the centre holds exactly what one of the node's own writes had replaced there.
pub(super) fn note_older(tx: &mut Tx<'_>, key: &RecordKey, remote: &Document) -> Result<Tally, StoreError> {
    let Some((local, agreed)) = compared(tx, key, remote)? else {
        return Ok(Tally::default());
    };
    let own = tx.own_writes(key)?;
    match !same_document(&agreed, remote) && is_earlier(&agreed, remote, &own) {
        true => keep(tx, key, (&local, &agreed), remote, &own),
        false => Ok(Tally::default()),
    }
}

/// The record as it is here and as it was agreed on, if there is something to compare: with a restored centre everything is,
/// and of another person nothing.
fn compared(
    tx: &Tx<'_>,
    key: &RecordKey,
    remote: &Document,
) -> Result<Option<(Document, Document)>, StoreError> {
    let (Some(local), Base::Document(agreed)) = (tx.document(key)?, tx.base(key)?) else {
        return Ok(None);
    };
    let is_otherwise = are_of_two(key, Some(&local), Some(remote))
        || (key.kind != Kind::Person && is_held(tx, key, [Some(&local), Some(remote)])?)
        || tx.to_bring_together(key)?.is_some();
    Ok((!is_otherwise).then_some((local, agreed)))
}

fn keep(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    (local, agreed): (&Document, &Document),
    remote: &Document,
    own: &[OwnWrite],
) -> Result<Tally, StoreError> {
    let mut back = set_back(remote, own);
    // What was edited here since is a matter for the merge.
    back.retain(|change| {
        let here = get(local, &change.path);
        same_option(here, change.from.as_ref()) || same_option(here, change.to.as_ref())
    });
    let back = as_decided(key.kind, back, local, remote);
    let told: Vec<Clash> = back.iter().map(changed_since).collect();
    tx.add_conflicts_of_sent(key, &told, Some(remote))?;
    let tally = Tally { conflicts: told.len() as u64, ..Tally::default() };
    let told: HashSet<&Path> = told.iter().map(|clash| &clash.path).collect();
    let is_taken_away = match diff(agreed, remote) {
        Diff::Fields(changes) => {
            let is_told = |change: &Change| told.contains(&conflict_path(key.kind.schema(), &change.path));
            changes.iter().any(|change| change.from.is_some() && !is_told(change))
        }
        _ => !same_document(agreed, remote),
    };
    if is_taken_away {
        tx.keep_in_trash(key, agreed)?;
    }
    Ok(tally)
}

/// The changes as conflicts over them are decided: parts of a field that is one value become one, with what the node had
/// written and what stands there.
fn as_decided(kind: Kind, changes: Vec<Change>, local: &Document, remote: &Document) -> Vec<Change> {
    let mut written = local.clone();
    for change in &changes {
        set(&mut written, &change.path, change.from.clone());
    }
    let (mut decided, mut known) = (Vec::new(), HashSet::new());
    for change in changes {
        let path = conflict_path(kind.schema(), &change.path);
        if known.insert(path.clone()) {
            let (from, to) = (get(&written, &path).cloned(), get(remote, &path).cloned());
            decided.push(Change { path, from, to });
        }
    }
    decided
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn an_attachment_that_was_put_back_is_one_conflict() {
        let content = |sha: &str, length: i32| doc! {"sha256": sha, "length": length, "type": "a/b"};
        let with = |content: Document| doc! {"_id": "d", "fedacct": "P", "content": content};
        let path = |field: &str| vec!["content".to_owned(), field.to_owned()];
        let changes = vec![
            Change { path: path("sha256"), from: Some("new".into()), to: Some("old".into()) },
            Change { path: path("length"), from: Some(9.into()), to: Some(7.into()) },
        ];
        let remote = with(content("old", 7));
        for local in [with(content("new", 9)), remote.clone()] {
            let whole = Change {
                path: vec!["content".to_owned()],
                from: Some(content("new", 9).into()),
                to: Some(content("old", 7).into()),
            };
            assert_eq!(as_decided(Kind::PersonalDocument, changes.clone(), &local, &remote), [whole]);
        }
        let name = vec![Change { path: vec!["f".to_owned()], from: Some(1.into()), to: None }];
        assert_eq!(as_decided(Kind::Event, name.clone(), &doc! {"f": 1}, &Document::new()), name);
    }
}
