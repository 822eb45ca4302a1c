//! Floor 3. Records that say of nobody that they are theirs, such as pages of life without `book`, and records of people who are
//! gone, in words. Nobody looks for them, so it is said that they are there.

use std::collections::BTreeMap;

use crate::domain::record::Kind;
use crate::domain::schema::Owner;
use crate::store::LeftBehindCount;

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

/// For people, with the accounts; `None` if there are none.
pub(super) fn left_behind_words(all: &LeftBehindCount) -> Option<String> {
    let said = match all.counts.values().sum() {
        0_u64 => return None,
        1 => "One record is of a person who has been deleted".to_owned(),
        total => format!("{total} records are of people who have been deleted"),
    };
    let places = all.counts.iter().map(|(kind, count)| format!("{count} in {}", kind.schema().collection));
    let mut accounts = all.first.clone();
    if let Some(more @ 1..) = all.accounts.checked_sub(all.first.len() as u64) {
        accounts.push(format!("{more} more"));
    }
    Some(format!(
        "{said}: {} (of {}). Restore the person from the trash, or delete the records too: see the conflicts.",
        places.collect::<Vec<_>>().join(", "),
        accounts.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::LeftBehind;

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

    #[test]
    fn records_of_deleted_people_are_said_with_their_accounts() {
        let words = |all: &[(&str, Kind, u64)]| {
            let mut count = LeftBehindCount::default();
            for (account, kind, records) in all {
                count.add(LeftBehind { account: (*account).to_owned(), counts: [(*kind, *records)].into() });
            }
            left_behind_words(&count)
        };
        assert_eq!(words(&[]), None);
        let remedy = "Restore the person from the trash, or delete the records too: see the conflicts.";
        let one = words(&[("ANA", Kind::Event, 1)]).unwrap();
        assert_eq!(
            one,
            format!("One record is of a person who has been deleted: 1 in event (of ANA). {remedy}")
        );
        let many = [("A", Kind::Page, 2), ("B", Kind::Page, 2), ("C", Kind::Page, 2), ("D", Kind::Event, 1)];
        let said =
            "7 records are of people who have been deleted: 6 in pols, 1 in event (of A, B, C, 1 more).";
        assert_eq!(words(&many).unwrap(), format!("{said} {remedy}"));
    }
}
