//! Floor 3. What a backup is called: whose it is, the how manieth, when it was made.
//!
//! Within a directory a node's backups are in order of their numbers, whatever its clock said.

use chrono::{DateTime, NaiveDateTime, Utc};
use sha2::{Digest, Sha256};

const ENDING: &str = ".backup";
const ENCRYPTED_ENDING: &str = ".backup.age";
/// A backup that is not complete yet.
pub(super) const PART_ENDING: &str = ".part";
/// The SHA-256 beside a backup, as `sha256sum` writes and checks it.
pub(super) const CHECKSUM_ENDING: &str = ".sha256";
const TIME_FORMAT: &str = "%Y%m%dT%H%M%SZ";
/// Longest part of the node's name in the name of a file.
const NODE_CHARS_MAX: usize = 40;

/// Characters of a store's id in the name of a file.
const STORE_CHARS: usize = 8;

/// `NODE-00000007-20261127T030000Z-5f0c21ab.backup`, with `.age` behind it if it is encrypted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) node: String,
    pub(super) number: u64,
    /// Seconds since 1970 by the node's clock, for people.
    pub(super) created_s: i64,
    /// The beginning of the id of the store or of the node: two boxes may have one name and one directory. Nothing in
    /// backups of earlier versions, and in those of a store that has neither yet.
    pub(super) store: Option<String>,
    pub(super) is_encrypted: bool,
}

/// Whose backups count as one's own.
#[derive(Debug, Clone)]
pub struct Owner {
    /// As in the names of files.
    pub(super) node: String,
    /// The beginnings of the ids of the node and of its store, as in the names of files; `None` where nobody knows them: then all
    /// under the node's name count.
    stores: Option<Vec<String>>,
}

impl Owner {
    /// `ids`: of the node at the centre and of its store, the one that goes into names first.
    pub fn new(node_name: &str, ids: impl IntoIterator<Item = String>) -> Owner {
        let stores = ids.into_iter().filter_map(|id| store_part(&id)).collect();
        Owner { node: node_part(node_name), stores: Some(stores) }
    }

    /// Where the ids are not known: to look only, never to remove.
    pub fn of_any_store(node_name: &str) -> Owner {
        Owner { node: node_part(node_name), stores: None }
    }

    /// What goes into the names of new ones.
    pub(super) fn store(&self) -> Option<String> {
        self.stores.iter().flatten().next().cloned()
    }

    /// Whether backups of this name and this store are its own; one that tells no store may be anybody's of the name.
    pub(super) fn has(&self, node: &str, store: Option<&str>) -> bool {
        self.node == node && store.is_none_or(|store| self.is_own(store))
    }

    /// Whether backups of this name are of another store.
    pub(super) fn is_others(&self, node: &str, store: Option<&str>) -> bool {
        self.node == node && store.is_some_and(|store| !self.is_own(store))
    }

    fn is_own(&self, store: &str) -> bool {
        self.stores.as_ref().is_none_or(|stores| stores.iter().any(|own| own == store))
    }
}

/// The beginning of an id, if names can hold it.
fn store_part(id: &str) -> Option<String> {
    let part: String = id.chars().filter(char::is_ascii_hexdigit).take(STORE_CHARS).collect();
    (part.len() == STORE_CHARS).then(|| part.to_ascii_lowercase())
}

impl Name {
    pub(super) fn parse(file: &str) -> Option<Name> {
        let (stem, is_encrypted) = match file.strip_suffix(ENCRYPTED_ENDING) {
            Some(stem) => (stem, true),
            None => (file.strip_suffix(ENDING)?, false),
        };
        let (before, last) = stem.rsplit_once('-')?;
        let (stem, store) = match store_part(last).filter(|part| part == last) {
            Some(store) => (before, Some(store)),
            None => (stem, None),
        };
        let (stem, time) = stem.rsplit_once('-')?;
        let (node, number) = stem.rsplit_once('-')?;
        let created_s = NaiveDateTime::parse_from_str(time, TIME_FORMAT).ok()?.and_utc().timestamp();
        let name =
            Name { node: node.to_owned(), number: number.parse().ok()?, created_s, store, is_encrypted };
        // Other spellings of the same are somebody else's files.
        (name.to_string() == file).then_some(name)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = DateTime::<Utc>::from_timestamp(self.created_s, 0).unwrap_or_default();
        let ending = if self.is_encrypted { ENCRYPTED_ENDING } else { ENDING };
        write!(f, "{}-{:08}-{}", self.node, self.number, time.format(TIME_FORMAT))?;
        if let Some(store) = &self.store {
            write!(f, "-{store}")?;
        }
        f.write_str(ending)
    }
}

/// The node's name as every file system takes it; names that would look alike stay apart.
pub(super) fn node_part(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_' || c == '-';
    let part: String = name.chars().take(NODE_CHARS_MAX).map(|c| if fits(c) { c } else { '_' }).collect();
    if part == name && !part.starts_with(['.', '-']) {
        return part;
    }
    let digest = hex::encode(Sha256::digest(name));
    format!("{}_{}", part.trim_start_matches(['.', '-']), &digest[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let name = Name {
            node: "clinic-3".to_owned(),
            number: 7,
            created_s: 1_795_748_400,
            store: None,
            is_encrypted: false,
        };
        assert_eq!(name.to_string(), "clinic-3-00000007-20261127T030000Z.backup");
        let of_store = Name { store: Some("5f0c21ab".to_owned()), ..name.clone() };
        assert_eq!(of_store.to_string(), "clinic-3-00000007-20261127T030000Z-5f0c21ab.backup");
        for name in [
            Name { is_encrypted: true, ..of_store.clone() },
            Name { node: "5f0c21ab-5f0c21ab".to_owned(), ..of_store.clone() },
            of_store,
            Name { is_encrypted: true, ..name.clone() },
            Name { number: 1_234_567_890, ..name.clone() },
            Name { created_s: 0, ..name },
        ] {
            assert_eq!(Name::parse(&name.to_string()), Some(name));
        }
        for other in [
            "clinic-00000007-20261127T030000Z.backup.part",
            "clinic-00000007-20261127T030000Z.backup.sha256",
            "clinic-7-20261127T030000Z.backup",
            "clinic-00000007-yesterday.backup",
            "clinic-00000007-20261127T030000Z-5F0C21AB.backup",
            "clinic-00000007-20261127T030000Z-5f0c21a.backup",
            "store.redb",
            ".backup",
        ] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }

    #[test]
    fn ones_own_are_of_the_name_and_the_store() {
        let ids = ["5f0c21ab-0000-4000-8000-000000000000", "77c0aa00-1111"].map(str::to_owned);
        let own = Owner::new("clinic", ids);
        for store in [None, Some("5f0c21ab"), Some("77c0aa00")] {
            assert!(own.has("clinic", store), "{store:?}");
            assert!(!own.has("clinic-2", store), "{store:?}");
        }
        assert!(!own.has("clinic", Some("00000000")));
        assert!(own.is_others("clinic", Some("00000000")) && !own.is_others("clinic", None));
        assert!(!Owner::new("clinic", []).has("clinic", Some("00000000")), "a store that has no id yet");
        assert!(Owner::of_any_store("clinic").has("clinic", Some("00000000")));
    }

    #[test]
    fn any_name_of_a_node_makes_a_file_of_its_own() {
        assert_eq!(node_part("clinic-3.local"), "clinic-3.local");
        let odd =
            ["Clínica", "Cl_nica", "../etc", ".hidden", "-rf", "a/b", "a b", &"x".repeat(100)].map(node_part);
        for part in &odd {
            assert!(part.len() <= 60 && !part.contains('/') && !part.starts_with(['.', '-']), "{part}");
        }
        assert_eq!(odd.iter().collect::<std::collections::BTreeSet<_>>().len(), odd.len());
    }
}
