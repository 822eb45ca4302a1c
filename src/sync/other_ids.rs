//! Floor 3. What the centre holds under ids that are no text: it stays where it is and is left alone, but not kept secret.
//!
//! Counted collection by collection when a scan begins, and whenever the feed tells that something happened to one, a delete
//! included.

use std::collections::BTreeMap;

use bson::{Bson, Document, doc};

use super::round::{Round, RoundError};
use crate::central::content::FILES_COLLECTION;
use crate::central::{Central, CentralError};
use crate::domain::record::Kind;
use crate::store::{Snapshot, StoreError};

/// Counted up to here in each collection.
const COUNT_MAX: usize = 100;
const META_OTHER_IDS: &str = "unsupported_ids";

/// How many there were when they were counted last.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct OtherIds {
    /// By the usual name of the collection; none that has no such ids.
    pub(super) collections: BTreeMap<String, u64>,
    /// In all.
    total: u64,
}

impl OtherIds {
    pub(super) fn known(snapshot: &Snapshot) -> Result<OtherIds, StoreError> {
        Ok(snapshot.meta(META_OTHER_IDS)?.as_ref().map(OtherIds::decode).unwrap_or_default())
    }

    fn of(collections: BTreeMap<String, u64>) -> OtherIds {
        OtherIds { total: collections.values().sum(), collections }
    }

    /// Earlier versions kept nothing but the sum.
    fn decode(row: &Document) -> OtherIds {
        let number = |value: &Bson| value.as_i64().and_then(|count| u64::try_from(count).ok());
        let collections: BTreeMap<String, u64> = match row.get_document("collections") {
            Ok(counts) => {
                counts.iter().filter_map(|(name, count)| Some((name.clone(), number(count)?))).collect()
            }
            Err(_) => BTreeMap::new(),
        };
        match collections.is_empty() {
            true => OtherIds { collections, total: row.get("count").and_then(number).unwrap_or(0) },
            false => OtherIds::of(collections),
        }
    }

    fn encode(&self) -> Document {
        let number = |count: u64| Bson::Int64(i64::try_from(count).unwrap_or(i64::MAX));
        let collections: Document =
            self.collections.iter().map(|(name, count)| (name.clone(), number(*count))).collect();
        doc! {"count": number(self.total), "collections": collections}
    }

    /// For people; `None` if there are none.
    pub(super) fn words(&self) -> Option<String> {
        let said = match self.total {
            0 => return None,
            1 => "One record at the centre has an id that is no text, and is left alone".to_owned(),
            total => format!("{total} records at the centre have ids that are no text, and are left alone"),
        };
        let places = self.collections.iter().map(|(name, count)| match *count >= COUNT_MAX as u64 {
            true => format!("{count} or more in {name}"),
            false => format!("{count} in {name}"),
        });
        let places: Vec<_> = places.collect();
        Some(match places.is_empty() {
            true => format!("{said}."),
            false => format!("{said}: {}.", places.join(", ")),
        })
    }
}

impl Round<'_> {
    pub(super) async fn count_other_ids(&mut self, central: &mut dyn Central) -> Result<(), RoundError> {
        let mut collections = BTreeMap::new();
        let mut note = |name: &str, ids: Vec<String>| {
            if !ids.is_empty() {
                collections.insert(name.to_owned(), ids.len() as u64);
            }
        };
        for kind in Kind::ALL {
            note(kind.schema().collection, central.unsupported_ids(kind, COUNT_MAX).await?);
        }
        match central.unsupported_content_ids(COUNT_MAX).await {
            Ok(ids) => note(FILES_COLLECTION, ids),
            // What the centre answers about attachments ends no round.
            Err(error @ CentralError::Offline(_)) if !error.is_answer() || error.is_of_centre() => {
                return Err(error.into());
            }
            Err(error) => tracing::warn!(%error, "attachments at the centre cannot be counted"),
        }
        let counted = OtherIds::of(collections);
        // A round in which nothing happened writes nothing.
        if counted == OtherIds::known(&*self.store.read()?)? {
            return Ok(());
        }
        let row = counted.encode();
        Ok(self.store.transact(move |tx| tx.set_meta(META_OTHER_IDS, Some(&row))).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_are_no_text_are_said_by_collection() {
        let of = |counts: &[(&str, u64)]| {
            OtherIds::of(counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect())
        };
        assert_eq!(of(&[]).words(), None);
        let one = "One record at the centre has an id that is no text, and is left alone: 1 in pols.";
        assert_eq!(of(&[("pols", 1)]).words().as_deref(), Some(one));
        let many = "103 records at the centre have ids that are no text, and are left alone: 3 in fs.files, 100 or more in \
                    people.";
        let found = of(&[("people", 100), ("fs.files", 3)]);
        assert_eq!(found.words().as_deref(), Some(many));
        assert_eq!(OtherIds::decode(&found.encode()), found);
        let earlier = OtherIds::decode(&doc! {"count": 2_i64});
        let words = "2 records at the centre have ids that are no text, and are left alone.";
        assert_eq!(earlier.words().as_deref(), Some(words));
    }
}
