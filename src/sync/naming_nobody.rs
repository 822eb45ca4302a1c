//! Floor 3. Records that say of nobody that they are theirs, such as pages of life without `book`, and records of people who are
//! gone, in words. Nobody looks for them, so it is said that they are there.

use std::collections::BTreeMap;

use crate::domain::record::Kind;
use crate::domain::schema::Owner;

/// For people; `None` if there are none.
pub(super) fn words(counts: &BTreeMap<Kind, u64>) -> Option<String> {
    let total: u64 = counts.values().sum();
    let said = match total {
        0 => return None,
        1 => "One record says of nobody that it is theirs, so it is in nobody's book".to_owned(),
        total => format!("{total} records say of nobody that they are theirs, so they are in nobody's book"),
    };
    let places = counts.iter().filter(|(_, count)| **count > 0).map(|(kind, count)| {
        let schema = kind.schema();
        match schema.owner {
            Owner::Field(field) => format!("{count} in {} (`{field}`)", schema.collection),
            Owner::Nobody | Owner::Itself => format!("{count} in {}", schema.collection),
        }
    });
    Some(format!("{said}: {}.", places.collect::<Vec<_>>().join(", ")))
}

/// For people; `None` if there are none.
pub(super) fn left_behind_words(counts: &BTreeMap<Kind, u64>) -> Option<String> {
    let said = match counts.values().sum() {
        0_u64 => return None,
        1 => "One record is of a person who has been deleted".to_owned(),
        total => format!("{total} records are of people who have been deleted"),
    };
    let places = counts.iter().map(|(kind, count)| format!("{count} in {}", kind.schema().collection));
    Some(format!("{said}: {}.", places.collect::<Vec<_>>().join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_nobody_are_said_by_collection() {
        assert_eq!(words(&BTreeMap::new()), None);
        let one = words(&BTreeMap::from([(Kind::Page, 1)]));
        let said =
            "One record says of nobody that it is theirs, so it is in nobody's book: 1 in pols (`book`).";
        assert_eq!(one.as_deref(), Some(said));
        let many = words(&BTreeMap::from([(Kind::Page, 2), (Kind::PersonalDocument, 1)])).unwrap();
        assert!(
            many.starts_with("3 records say") && many.ends_with("1 in personal_document (`fedacct`)."),
            "{many}"
        );
        assert_eq!(left_behind_words(&BTreeMap::new()), None);
        let one = left_behind_words(&BTreeMap::from([(Kind::Event, 1)]));
        assert_eq!(one.as_deref(), Some("One record is of a person who has been deleted: 1 in event."));
        let many = left_behind_words(&BTreeMap::from([(Kind::Page, 2), (Kind::Event, 1)]));
        let said = "3 records are of people who have been deleted: 2 in pols, 1 in event.";
        assert_eq!(many.as_deref(), Some(said));
    }
}
