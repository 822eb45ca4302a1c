//! Floor 0. Edits of an old image that were delivered, and that others have changed at the centre since.
//!
//! A node that goes on from an old image has edits that were sent after the image was made. They are not sent again: where
//! the centre holds another value by now, that stands, and the image's becomes a conflict. A conflict never shows a value
//! that the node does not have: what somebody has edited here since is compared by the merge, from the delivered version.

use bson::{Bson, Document};

use super::diff::get;
use super::merge::{Clash, Side, differing_values};
use super::same_meaning::same_edit_option;
use crate::domain::record::schema::Schema;
use crate::domain::record::value::{same_document, same_option};

/// The conflicts over edits that led from `base` to `delivered` and that the centre, which holds `remote`, has not any more;
/// `local` is what the node holds. Absent records are `None`.
///
/// No conflict where both hold the same value, or one of the same meaning; nor where `local` is not `delivered` any more.
pub fn overwritten(
    schema: &Schema,
    base: Option<&Document>,
    delivered: Option<&Document>,
    local: Option<&Document>,
    remote: Option<&Document>,
) -> Vec<Clash> {
    let value = |document: Option<&Document>| document.cloned().map(Bson::Document);
    match (delivered, remote) {
        (None, None) => Vec::new(),
        (Some(delivered), Some(remote)) => {
            let mut changes = differing_values(schema, delivered, remote);
            changes.retain(|change| {
                let is_edit =
                    !same_option(base.and_then(|base| get(base, &change.path)), change.from.as_ref());
                let is_held =
                    same_option(local.and_then(|local| get(local, &change.path)), change.from.as_ref());
                // Of a record that was deleted here since, nothing is held.
                is_edit
                    && is_held
                    && local.is_some()
                    && !same_edit_option(schema, &change.path, change.to.as_ref(), change.from.as_ref())
            });
            let clash = |change: super::diff::Change| Clash {
                base: base.and_then(|base| get(base, &change.path)).cloned(),
                local: change.from,
                remote: change.to,
                path: change.path,
                stands: Side::Remote,
            };
            changes.into_iter().map(clash).collect()
        }
        _ => {
            let is_held = match (local, delivered) {
                (Some(local), Some(delivered)) => same_document(local, delivered),
                (local, delivered) => local.is_none() && delivered.is_none(),
            };
            let whole = Clash {
                path: Vec::new(),
                base: value(base),
                local: value(delivered),
                remote: value(remote),
                stands: Side::Remote,
            };
            is_held.then_some(whole).into_iter().collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;
    use crate::domain::record::Kind;

    /// Path, local and central value of each conflict.
    type Found = Vec<(String, Option<Bson>, Option<Bson>)>;

    fn found(
        kind: Kind,
        base: Option<Document>,
        delivered: Option<Document>,
        local: Option<Document>,
        remote: Option<Document>,
    ) -> Found {
        let clashes =
            overwritten(kind.schema(), base.as_ref(), delivered.as_ref(), local.as_ref(), remote.as_ref());
        clashes.into_iter().map(|clash| (clash.path.join("."), clash.local, clash.remote)).collect()
    }

    fn bp(systolic: i32, diastolic: i32) -> Document {
        doc! {"_id": "m", "person": "P", "bp": {"systolic": systolic, "diastolic": diastolic}}
    }

    fn at(
        path: &str,
        local: impl Into<Bson>,
        remote: impl Into<Bson>,
    ) -> (String, Option<Bson>, Option<Bson>) {
        (path.to_owned(), Some(local.into()), Some(remote.into()))
    }

    #[test]
    fn a_conflict_shows_what_both_hold_and_nothing_that_they_have_in_common() {
        let kind = Kind::Measurement;
        let with = |remote, local| found(kind, None, Some(bp(120, 80)), Some(local), Some(remote));
        assert_eq!(with(bp(120, 80), bp(120, 80)), []);
        assert_eq!(with(bp(130, 80), bp(120, 80)), [at("bp.systolic", 120, 130)]);
        // Edited here since: a matter for the merge.
        assert_eq!(with(bp(120, 80), bp(150, 80)), []);
        assert_eq!(with(bp(130, 80), bp(150, 80)), []);
        assert_eq!(with(bp(130, 85), bp(150, 80)), [at("bp.diastolic", 80, 85)]);
        // What was not edited in the image is theirs.
        assert_eq!(
            found(kind, Some(bp(110, 80)), Some(bp(120, 80)), Some(bp(120, 80)), Some(bp(120, 85))),
            []
        );
        // What others have added is no conflict.
        let mut more = bp(120, 80);
        more.insert("hr", 70);
        assert_eq!(with(more, bp(120, 80)), []);
    }

    #[test]
    fn an_attachment_is_one_value_and_who_wrote_last_is_none() {
        let content = |sha: &str| doc! {"sha256": sha, "length": 7, "type": "a/b"};
        let with = |sha: &str, at: i64| {
            doc! {"_id": "d", "fedacct": "P", "content": content(sha), "modification_info": {"timestamp": at}}
        };
        let found = found(
            Kind::PersonalDocument,
            Some(with("a", 1)),
            Some(with("b", 2)),
            Some(with("b", 2)),
            Some(with("c", 3)),
        );
        assert_eq!(found, [at("content", content("b"), content("c"))]);
    }

    #[test]
    fn records_that_one_side_does_not_have() {
        let (kind, old, new) = (Kind::Measurement, bp(120, 80), bp(150, 80));
        let whole = |local: &Document| vec![(String::new(), Some(Bson::Document(local.clone())), None)];
        assert_eq!(found(kind, None, Some(old.clone()), Some(old.clone()), None), whole(&old));
        // Edited since, or deleted since: a matter for the merge.
        assert_eq!(found(kind, None, Some(old.clone()), Some(new.clone()), None), []);
        assert_eq!(found(kind, None, Some(old.clone()), None, None), []);
        assert_eq!(found(kind, None, Some(old.clone()), None, Some(new.clone())), []);
        // A delete that was delivered, and somebody has put the record back.
        let put_back = vec![(String::new(), None, Some(Bson::Document(new.clone())))];
        assert_eq!(found(kind, Some(old.clone()), None, None, Some(new.clone())), put_back);
        assert_eq!(found(kind, Some(old), None, None, None), []);
    }
}
