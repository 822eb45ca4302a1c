//! Floor 3. Records that say of nobody that they are theirs, such as pages of life without `book`, in words. Nobody finds
//! them in anybody's book, so it is said that they are there.

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
    }
}
