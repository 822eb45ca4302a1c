//! Floor 0. Whether an account is open, as its document says.
//!
//! Thalamus and the HMIS leave `active` out of many records, which then count as open. Where the field is there, only
//! `true` is: hubs up to 0.9.8 store `false` for everybody, and other software has stored `"false"`, `0` and `null`.

use bson::raw::RawBsonRef;
use bson::{Bson, Document, RawDocument};
use serde::Deserialize;

/// The field that says it.
pub const ACTIVE: &str = "active";

/// Why an account is closed on this node, whatever its record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// By a change of its record, which travels: another side may have opened it since, and knew of the closing.
    Travelled,
    /// Its record said so already, so that nothing travelled: no other side knows of it, or can mean it.
    Unsent,
    /// Its person was deleted at the centre, and is here only until it is decided what becomes of records that were never sent.
    Gone,
}

/// Whether an account is open on this node: what its record says, and how somebody closed it here, if somebody has.
///
/// Where the centre's `active` counts, it opens what a change of the record had closed, and nothing that it was never told of, nor
/// an account that it has deleted.
/// Where it does not count, every closing here does.
pub fn is_open_here(counts: ActiveFromCentre, is_active: bool, closing: Option<Closing>) -> bool {
    match counts {
        ActiveFromCentre::Honour => is_active && matches!(closing, None | Some(Closing::Travelled)),
        ActiveFromCentre::Ignore => closing.is_none(),
    }
}

/// What counts of an account that came here inactive (`accounts.active_from_centre`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActiveFromCentre {
    /// It is closed.
    #[default]
    Honour,
    /// It is open, unless it was closed on this node: for federations whose hub stores `false` and never looks at it.
    Ignore,
}

pub fn is_active(account: &Document) -> bool {
    opens(account.get(ACTIVE))
}

/// Whether an account with this value of the field is open.
pub fn opens(active: Option<&Bson>) -> bool {
    matches!(active, None | Some(Bson::Boolean(true)))
}

/// [`is_active`] of a document as it lies in the store.
pub fn is_active_raw(account: &RawDocument) -> bool {
    // A damaged document opens nothing.
    account.get(ACTIVE).is_ok_and(|value| matches!(value, None | Some(RawBsonRef::Boolean(true))))
}

#[cfg(test)]
mod tests {
    use bson::{doc, rawdoc};

    use super::*;

    #[test]
    fn a_closing_that_nobody_was_told_of_is_overruled_by_nobody() {
        use ActiveFromCentre::{Honour, Ignore};
        use Closing::{Gone, Travelled, Unsent};
        for (counts, closing, open_if_active, open_if_not) in [
            (Honour, None, true, false),
            (Honour, Some(Travelled), true, false),
            (Honour, Some(Unsent), false, false),
            (Honour, Some(Gone), false, false),
            (Ignore, Some(Gone), false, false),
            (Ignore, None, true, true),
            (Ignore, Some(Travelled), false, false),
            (Ignore, Some(Unsent), false, false),
        ] {
            let found = [true, false].map(|is_active| is_open_here(counts, is_active, closing));
            assert_eq!(found, [open_if_active, open_if_not], "{counts:?} {closing:?}");
        }
    }

    #[test]
    fn only_true_and_nothing_are_open() {
        for (account, expected) in [
            (doc! {}, true),
            (doc! {"active": true}, true),
            (doc! {"active": false}, false),
            (doc! {"active": "false"}, false),
            (doc! {"active": "true"}, false),
            (doc! {"active": 0}, false),
            (doc! {"active": 1}, false),
            (doc! {"active": Bson::Null}, false),
            (doc! {"active": []}, false),
            (doc! {"active": {}}, false),
        ] {
            assert_eq!(is_active(&account), expected, "{account}");
            let raw = bson::RawDocumentBuf::try_from(&account).unwrap();
            assert_eq!(is_active_raw(&raw), expected, "{account}");
        }
        assert!(is_active_raw(&rawdoc! {"inactive": true}));
    }
}
