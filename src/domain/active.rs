//! Floor 0. Whether an account is open, as its document says.
//!
//! Thalamus and the HMIS leave `active` out of many records, which then count as open. Where the field is there, only
//! `true` is: hubs up to 0.9.8 store `false` for everybody, and other software has stored `"false"`, `0` and `null`.

use bson::raw::RawBsonRef;
use bson::{Bson, Document, RawDocument};
use serde::Deserialize;

/// The field that says it.
pub const ACTIVE: &str = "active";

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

impl ActiveFromCentre {
    /// Whether the account of a person is open: whether they can log in, and so whether they may be deleted.
    pub fn is_open<E>(
        self,
        is_active: bool,
        is_closed_here: impl FnOnce() -> Result<bool, E>,
    ) -> Result<bool, E> {
        match self {
            ActiveFromCentre::Honour => Ok(is_active),
            ActiveFromCentre::Ignore => Ok(!is_closed_here()?),
        }
    }
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
