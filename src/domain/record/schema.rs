//! Floor 0. The one table that says what kinds of record there are.
//!
//! Routes, names in `roles.cfg`, validation, central collections, push order and merge rules all read
//! this table: a new kind of record is one more row.

use super::{Kind, fold_account};
use bson::{Document, RawDocument};

/// Longest identifier accepted from clients for anything but a person.
pub const RECORD_ID_CHARS_MAX: usize = 128;
/// Longest federation account accepted for a new person.
pub const PERSON_ID_CHARS_MAX: usize = 32;
/// Shortest federation account accepted for a new person.
pub const PERSON_ID_CHARS_MIN: usize = 3;

/// Everything that is particular to one kind of record.
#[derive(Debug)]
pub struct Schema {
    pub kind: Kind,
    /// The kind's number in store keys; never reused, never changed.
    pub code: u8,
    /// What messages call one record; the wording of Thalamus where it has one.
    pub noun: &'static str,
    /// Default name of the collection at the centre, and the kind's name in `/changes`.
    pub collection: &'static str,
    pub id_rule: IdRule,
    pub owner: Owner,
    /// Records are pushed in this order, so that nothing arrives at the centre before what it refers to.
    pub push_rank: u8,
    /// Fields that hold sets: concurrent additions and removals combine.
    pub set_fields: &'static [&'static str],
    /// Fields whose parts belong together: they are merged as one value.
    pub whole_fields: &'static [&'static str],
    /// Fields that only describe the last writer: the centre's value stands, without a conflict.
    pub last_writer_fields: &'static [&'static str],
    /// Fields that are never shown and never copied into conflict records.
    pub secret_fields: &'static [&'static str],
    /// Fields that PUT keeps when the body leaves them out.
    pub kept_by_put: &'static [&'static str],
    pub routes: &'static [Route],
}

/// How identifiers of a kind are spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdRule {
    /// A federation account: any case is accepted, upper case is stored.
    Account,
    /// Case-sensitive: UUIDs and the like.
    Opaque,
}

/// Whom a record belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Nobody,
    /// A person's own record.
    Itself,
    /// The federation account in this field.
    Field(&'static str),
}

/// One path of the API and the name that `roles.cfg` uses for it.
#[derive(Debug)]
pub struct Route {
    pub path: &'static str,
    pub acl: &'static str,
    pub shape: Shape,
}

/// What a path addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// All records of the kind.
    Collection,
    /// The records of the person in the path.
    OfPerson,
    /// The personal documents of a person that belong to one page of life.
    OfPage,
    /// One record by its id.
    Item,
    /// One record by its owner and id.
    ItemOfPerson,
    /// The bytes that belong to a personal document.
    Content,
}

/// The field of a personal document that names the page of life it belongs to (as in Thalamus).
pub const DOCUMENT_PAGE_FIELD: &str = "pol";

const NONE: &[&str] = &[];
/// Stamps: two of them are no conflict, the centre's stands.
const LAST_WRITER: &[&str] = &["modification_info"];

pub const SCHEMAS: [Schema; 9] = [
    Schema {
        kind: Kind::Person,
        code: 1,
        noun: "User",
        collection: "people",
        id_rule: IdRule::Account,
        owner: Owner::Itself,
        push_rank: 2,
        set_fields: &["roles"],
        whole_fields: NONE,
        last_writer_fields: LAST_WRITER,
        secret_fields: &["password"],
        kept_by_put: &["password", "roles", "active"],
        routes: &[
            Route { path: "/people", acl: "people", shape: Shape::Collection },
            Route { path: "/people/{person_id}", acl: "person", shape: Shape::Item },
        ],
    },
    Schema {
        kind: Kind::Page,
        code: 2,
        noun: "Page",
        collection: "pols",
        id_rule: IdRule::Opaque,
        owner: Owner::Field("book"),
        push_rank: 4,
        set_fields: NONE,
        whole_fields: NONE,
        last_writer_fields: LAST_WRITER,
        secret_fields: NONE,
        kept_by_put: NONE,
        routes: &[
            Route { path: "/pols/{person_id}", acl: "book", shape: Shape::OfPerson },
            Route { path: "/pols/{person_id}/{id}", acl: "page", shape: Shape::ItemOfPerson },
        ],
    },
    Schema {
        kind: Kind::PersonalDocument,
        code: 3,
        noun: "Document",
        collection: "personal_document",
        id_rule: IdRule::Opaque,
        owner: Owner::Field("fedacct"),
        push_rank: 3,
        set_fields: NONE,
        whole_fields: &["content"],
        last_writer_fields: LAST_WRITER,
        secret_fields: NONE,
        kept_by_put: &["content"],
        routes: &[
            Route { path: "/personal-documents", acl: "personaldocs", shape: Shape::Collection },
            Route { path: "/personal-documents/{id}", acl: "personaldoc", shape: Shape::Item },
            Route { path: "/personal-documents/{id}/content", acl: "personaldoc", shape: Shape::Content },
            Route { path: "/personal_docs/{person_id}", acl: "personaldocs", shape: Shape::OfPerson },
            Route { path: "/personal_docs/{person_id}/{id}", acl: "poldocs", shape: Shape::OfPage },
        ],
    },
    Schema {
        kind: Kind::DomiciliaryUnit,
        code: 4,
        noun: "Domiciliary unit",
        collection: "domiciliary_unit",
        id_rule: IdRule::Opaque,
        owner: Owner::Nobody,
        push_rank: 1,
        set_fields: NONE,
        whole_fields: NONE,
        last_writer_fields: LAST_WRITER,
        secret_fields: NONE,
        kept_by_put: NONE,
        routes: &[
            Route { path: "/domiciliary-units", acl: "domiciliaryunits", shape: Shape::Collection },
            Route { path: "/domiciliary-units/{id}", acl: "domiciliaryunit", shape: Shape::Item },
        ],
    },
    Schema {
        kind: Kind::Institution,
        code: 5,
        noun: "Institution",
        collection: "institution",
        id_rule: IdRule::Opaque,
        owner: Owner::Nobody,
        push_rank: 0,
        set_fields: NONE,
        whole_fields: NONE,
        last_writer_fields: LAST_WRITER,
        secret_fields: NONE,
        kept_by_put: NONE,
        routes: &[
            Route { path: "/institutions", acl: "institutions", shape: Shape::Collection },
            Route { path: "/institutions/{id}", acl: "institution", shape: Shape::Item },
        ],
    },
    Schema {
        kind: Kind::Encounter,
        code: 6,
        noun: "Encounter",
        collection: "encounter",
        id_rule: IdRule::Opaque,
        owner: Owner::Field("person"),
        push_rank: 5,
        set_fields: NONE,
        whole_fields: NONE,
        last_writer_fields: LAST_WRITER,
        secret_fields: NONE,
        kept_by_put: NONE,
        routes: &[
            Route { path: "/encounters", acl: "encounters", shape: Shape::Collection },
            Route { path: "/encounters/{id}", acl: "encounter", shape: Shape::Item },
        ],
    },
    Schema {
        kind: Kind::Event,
        code: 7,
        noun: "Event",
        collection: "event",
        id_rule: IdRule::Opaque,
        owner: Owner::Field("person"),
        push_rank: 6,
        set_fields: NONE,
        whole_fields: NONE,
        last_writer_fields: LAST_WRITER,
        secret_fields: NONE,
        kept_by_put: NONE,
        routes: &[
            Route { path: "/events", acl: "events", shape: Shape::Collection },
            Route { path: "/events/{id}", acl: "event", shape: Shape::Item },
        ],
    },
    Schema {
        kind: Kind::Measurement,
        code: 8,
        noun: "Measurement",
        collection: "measurements",
        id_rule: IdRule::Opaque,
        owner: Owner::Field("person"),
        push_rank: 7,
        set_fields: NONE,
        whole_fields: NONE,
        last_writer_fields: LAST_WRITER,
        secret_fields: NONE,
        kept_by_put: NONE,
        routes: &[
            Route { path: "/measurements", acl: "measurements", shape: Shape::Collection },
            Route { path: "/measurements/{id}", acl: "measurement", shape: Shape::Item },
        ],
    },
    Schema {
        kind: Kind::Hospitalization,
        code: 9,
        noun: "Hospitalization",
        collection: "hospitalization",
        id_rule: IdRule::Opaque,
        owner: Owner::Field("person"),
        push_rank: 8,
        set_fields: NONE,
        whole_fields: NONE,
        last_writer_fields: LAST_WRITER,
        secret_fields: NONE,
        kept_by_put: NONE,
        routes: &[
            Route { path: "/hospitalizations", acl: "hospitalizations", shape: Shape::Collection },
            Route { path: "/hospitalizations/{id}", acl: "hospitalization", shape: Shape::Item },
        ],
    },
];

/// Names that `roles.cfg` may use besides those of record routes.
pub const NODE_ACL_NAMES: &[&str] =
    &["login", "password", "sync", "conflicts", "changes", "audit", "metrics", "users", "backups", "trash"];

/// Highest push rank in the table.
pub const PUSH_RANK_MAX: u8 = 8;

impl Kind {
    /// The kind's row of the table.
    pub fn schema(self) -> &'static Schema {
        &SCHEMAS[self as usize]
    }

    /// The kind with this number in store keys.
    pub fn from_code(code: u8) -> Option<Kind> {
        SCHEMAS.iter().find(|s| s.code == code).map(|s| s.kind)
    }

    /// The kind whose records live in this collection (default name).
    pub fn from_collection(name: &str) -> Option<Kind> {
        SCHEMAS.iter().find(|s| s.collection == name).map(|s| s.kind)
    }
}

fn folded(account: Option<&str>) -> Option<String> {
    account.filter(|account| !account.is_empty()).map(fold_account)
}

/// Whether an id of a person is a federation account, in some spelling. People pulled from the centre may have others;
/// with those nobody logs in.
pub fn is_account(id: &str) -> bool {
    (PERSON_ID_CHARS_MIN..=PERSON_ID_CHARS_MAX).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

impl Schema {
    /// The account that owns `document`, folded; `None` for ownerless kinds and documents that name nobody.
    pub fn owner_of(&self, document: &Document) -> Option<String> {
        folded(document.get_str(self.owner_field()?).ok())
    }

    /// [`Schema::owner_of`] without decoding.
    pub fn owner_in(&self, document: &RawDocument) -> Option<String> {
        folded(document.get_str(self.owner_field()?).ok())
    }

    /// The account that owns `document` as it is written there.
    pub fn owner_spelled_in<'d>(&self, document: &'d RawDocument) -> Option<&'d str> {
        document.get_str(self.owner_field()?).ok()
    }

    /// Whether a record is in a book whose records spell their owner like this, see `Snapshot::book_spelling`.
    pub fn is_in_book(&self, document: &RawDocument, spelling: Option<&str>) -> bool {
        spelling.is_none_or(|spelling| self.owner_spelled_in(document) == Some(spelling))
    }

    fn owner_field(&self) -> Option<&'static str> {
        match self.owner {
            Owner::Nobody => None,
            Owner::Itself => Some("_id"),
            Owner::Field(field) => Some(field),
        }
    }

    /// The spelling under which a new record is stored.
    pub fn canonical_id(&self, id: &str) -> String {
        match self.id_rule {
            IdRule::Account => fold_account(id),
            IdRule::Opaque => id.to_owned(),
        }
    }

    /// Whether two spellings name the same record.
    pub fn same_id(&self, a: &str, b: &str) -> bool {
        match self.id_rule {
            IdRule::Account => a.eq_ignore_ascii_case(b),
            IdRule::Opaque => a == b,
        }
    }

    /// Checks the identifier of a new record, canonical spelling.
    pub fn check_new_id(&self, id: &str) -> Result<(), String> {
        match self.id_rule {
            IdRule::Account => {
                let chars = PERSON_ID_CHARS_MIN..=PERSON_ID_CHARS_MAX;
                let alphabet = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit();
                if chars.contains(&id.len()) && id.bytes().all(alphabet) {
                    return Ok(());
                }
                Err(format!(
                    "a federation account has {PERSON_ID_CHARS_MIN} to {PERSON_ID_CHARS_MAX} letters and digits"
                ))
            }
            IdRule::Opaque => {
                let alphabet = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
                if (1..=RECORD_ID_CHARS_MAX).contains(&id.len()) && id.bytes().all(alphabet) {
                    return Ok(());
                }
                Err(format!("an id has 1 to {RECORD_ID_CHARS_MAX} letters, digits or . _ : -"))
            }
        }
    }

    /// The name in `roles.cfg` that governs one record of the kind.
    pub fn item_acl(&self) -> &'static str {
        self.routes
            .iter()
            .find(|r| matches!(r.shape, Shape::Item | Shape::ItemOfPerson))
            .map_or("", |r| r.acl)
    }

    pub fn is_secret(&self, field: &str) -> bool {
        self.secret_fields.contains(&field)
    }

    /// A body without the fields that are never shown.
    pub fn without_secrets(&self, body: &Document) -> Document {
        let shown = body.iter().filter(|(field, _)| !self.is_secret(field));
        shown.map(|(field, value)| (field.clone(), value.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_at_their_kinds_index() {
        for (index, kind) in Kind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, index);
            assert_eq!(kind.schema().kind, *kind);
            assert_eq!(Kind::from_code(kind.schema().code), Some(*kind));
            assert_eq!(Kind::from_collection(kind.schema().collection), Some(*kind));
            assert!(kind.schema().push_rank <= PUSH_RANK_MAX);
        }
    }

    #[test]
    fn new_ids() {
        let person = Kind::Person.schema();
        assert!(person.check_new_id("ESPGNU777ORG").is_ok());
        for bad in ["AB", "esp", "A<B>C", "ÑANDU", &"A".repeat(33)] {
            assert!(person.check_new_id(bad).is_err(), "{bad}");
        }
        let page = Kind::Page.schema();
        assert!(page.check_new_id("a.B_c:d-1").is_ok());
        for bad in ["", "a b", "a/b", "é", &"x".repeat(129)] {
            assert!(page.check_new_id(bad).is_err(), "{bad}");
        }
    }
}
