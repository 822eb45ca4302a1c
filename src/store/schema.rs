//! Floor 1. Every table of the store, declared once: name, key, value, and how it is made anew when it is lost.
//!
//! Everything that lists tables is derived from here: their definitions, the fields of a transaction, the content of backups,
//! the checks and the repairs. Every table that stands here is in every backup, in this order; no backup is made of a store
//! with another table.

use redb::{Key, TableDefinition, Value};

use crate::store::rows::{RowKey, RowName, RowsDefinition};

/// Version of the file's layout; a store with a higher one is refused. In format 1 rows had no checksums (`opening/upgrade.rs`).
pub const FORMAT_VERSION: u32 = 2;
/// In `meta`: the version of the file's layout, four bytes, which every version can read.
pub(crate) const META_FORMAT: &str = "format";
/// In `meta`: the number after which the journal begins, if it does not begin with the first change.
pub(crate) const META_JOURNAL_START: &str = "journal_start";

/// How a table is made anew when its pages are damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Its rows are known nowhere else, and cannot be made anew.
    Data,
    /// It follows from other tables, and is made anew from them.
    Index,
    /// It notes how this node stands with the centre, without checksums, and can be done without: everything is asked, read
    /// or published once more.
    Note,
}

/// Calls the macro `$with` with all tables. A row says: the field of a transaction, which is the table's name in the file; the
/// constant; whether its rows end in checksums (`rows`) or are stored as they are (`plain`), with the types of key and
/// value; its [`Role`]; `counted` if the counts of the node's status depend on it; `bulky` if it is most of a large file.
macro_rules! tables {
    ($with:ident) => {
        $with! {
            /// name -> single values: format version, node id, lease, scan position, last report.
            meta META: [plain &'static str => &'static [u8]] data;
            /// (kind, id) -> the current document.
            docs DOCS: [rows RowKey] data counted bulky;
            /// (kind, id) -> `BaseRow`; exists exactly while the record differs from the centre's version or has an
            /// unsettled intent.
            base BASE: [rows RowKey] data;
            /// (push rank, sequence, kind, id) -> milliseconds since 1970 of the first unpushed edit, and who made the
            /// last one.
            dirty DIRTY: [plain (u8, u64, u8, &'static str) => (i64, &'static str)] index;
            /// (kind, id) -> the write that was sent to the centre and is not settled.
            intent INTENT: [rows RowKey] data;
            /// (kind, id) -> why the centre refused the record, or why it could not be pulled.
            dead DEAD: [rows RowKey] data;
            /// folded account -> the hold of two people under it: `Hold`.
            hold HOLD: [rows &'static str] data;
            /// (kind, id) -> a document of the centre that waits behind a hold, and the hold's account.
            held HELD: [rows RowKey] data;
            /// (folded account, kind, id): the documents that wait behind a hold.
            held_of HELD_OF: [plain (&'static str, u8, &'static str) => ()] index;
            /// (kind, id) -> what was agreed and what was delivered of a record under the old name of this node, until
            /// it is read.
            delivered DELIVERED: [rows RowKey] data;
            /// (kind, id) -> an unsent record as earlier processes left it (`sync/unsent_versions.rs`). Only where a
            /// later one has changed it.
            unsent_versions UNSENT_VERSIONS: [rows RowKey] data;
            /// (kind, id) -> `Undecided`: records that wait for a decision between the version here and the centre's.
            undecided UNDECIDED: [rows RowKey] data;
            /// (kind, id) -> `Waiting`: records that are not sent before something else has happened.
            waiting WAITING: [rows RowKey] data;
            /// (kind, id) -> where the record had dates that were taken away ([`crate::domain::former_dates`]).
            former_dates FORMER_DATES: [rows RowKey] data;
            /// folded account -> who had it last, if that person is gone, and when in terms of the journal.
            departed DEPARTED: [rows &'static str] data counted;
            /// folded account -> who had it when what waits for them began to wait: the fields by which people are told
            /// apart. Only where one of them has changed since.
            meant MEANT: [rows &'static str] data;
            /// folded account -> who has come to have it beside somebody else, in another spelling, and in which round.
            newcomer NEWCOMER: [rows &'static str] data;
            /// Folded accounts under which more than one person is stored, in different spellings.
            duplicate DUPLICATE: [plain &'static str => ()] index;
            /// sequence -> one change of a record.
            journal JOURNAL: [rows u64] data bulky;
            /// (kind, id, sequence) -> the body of a deleted record.
            trash TRASH: [rows (u8, &'static str, u64)] data bulky;
            /// (sequence, kind, id): the rows of `trash` in the order in which the records were deleted.
            trash_order TRASH_ORDER: [plain (u64, u8, &'static str) => ()] index;
            /// sequence of a row of `trash` -> folded account that the body in it belongs to, empty if it names nobody.
            trash_owner TRASH_OWNER: [plain u64 => &'static str] index;
            /// conflict id -> the conflict.
            conflict CONFLICT: [rows &'static str] data bulky;
            /// (kind, id, conflict id): the open conflicts of a record.
            conflict_open CONFLICT_OPEN: [plain (u8, &'static str, &'static str) => ()] index;
            /// conflict id -> kind and id of the record that it is about, `Subject` as a number, and whose the record
            /// was when it was found, empty if that is not known.
            conflict_about CONFLICT_ABOUT: [plain &'static str => (u8, &'static str, u8, &'static str)] index;
            /// Conflicts that the centre does not know yet in their present state.
            conflict_outbox CONFLICT_OUTBOX: [plain &'static str => ()] note;
            /// conflict id -> lease number of the round that closed its row at the centre. For some rounds the node
            /// reads that row again, because somebody may write a second decision into it.
            conflict_watched CONFLICT_WATCHED: [plain &'static str => i64] note;
            /// (kind, folded owner, id): records by the account they belong to; under the empty one those that name
            /// nobody.
            by_owner BY_OWNER: [plain (u8, &'static str, &'static str) => ()] index counted;
            /// (kind, id) -> folded account that the record belongs to, empty if it names nobody: of the kinds whose
            /// records name it in a field. With it rights are decided without reading the record
            /// (`records/noted_owners.rs`).
            owner_of OWNER_OF: [plain RowKey => &'static str] index;
            /// (folded word, person id): people by id and by the words of their names.
            by_name BY_NAME: [plain (&'static str, &'static str) => ()] index;
            /// (canonical spelling, person id): people whose id at the centre is spelled otherwise.
            by_spelling BY_SPELLING: [plain (&'static str, &'static str) => ()] index;
            /// folded account -> roles granted on this node; never synchronized.
            grants GRANTS: [rows &'static str] data;
            /// name -> a technician's account of this node; never synchronized.
            local_accounts LOCAL_ACCOUNTS: [rows &'static str] data;
            /// `person:` and a folded account, or `local:` and a technician's name -> how often the rights of that
            /// account have changed; `person:` alone: those of all people at once. Never synchronized.
            rights RIGHTS: [plain &'static str => u64] note;
            /// id of a person -> closed on this node. Never synchronized.
            closed_here CLOSED_HERE: [plain &'static str => ()] note;
            /// folded account -> the last number of `audit`, of the journal and of the trash before who has it now had
            /// it, and the time. Only where somebody else had it before. Never synchronized.
            holder_since HOLDER_SINCE: [plain &'static str => (u64, u64, u64, i64)] note;
            /// id of a person -> the fields by which people are told apart, as they were when the present holder came
            /// to have the account or was confirmed (`holders/holder_identity.rs`). Only where one of them is another
            /// one now. While another human being is written over the one whom the centre has, also the body of that
            /// one (`holders/written_over.rs`), with a checksum of its own. Never synchronized.
            holder_identity HOLDER_IDENTITY: [plain &'static str => &'static [u8]] note;
            /// (folded account, another one that they had before, after which number of `audit`) -> through which
            /// number what is said of that other account is about who has the first one now. Never synchronized.
            former_trail FORMER_TRAIL: [plain (&'static str, &'static str, u64) => u64] note;
            /// id of a person in `closed_here` -> their record said so already, so that nothing travelled; false: it
            /// travelled, and another side has opened the account since. Never synchronized.
            closed_unsent CLOSED_UNSENT: [plain &'static str => bool] note;
            /// (SHA-256, chunk number) -> a chunk of content. Content is all here if it has chunks and is not wanted.
            content CONTENT: [rows (&'static str, u32)] data bulky;
            /// (kind, id) -> `Reread` in bits: records to be read from the centre again.
            reread REREAD: [plain RowKey => u8] note;
            /// (kind, id) -> whether the operator agrees: clean records that the centre no longer has.
            vanished VANISHED: [plain RowKey => bool] note;
            /// (kind, id): those of `vanished` whose delete the change feed has told.
            vanished_told VANISHED_TOLD: [plain RowKey => ()] note;
            /// sequence -> an own write that landed at the centre, without bodies; the latest are kept.
            sent SENT: [rows u64] data;
            /// (kind, id, sequence in `sent`): own landed writes of which the change feed is still to tell.
            echo ECHO: [plain (u8, &'static str, u64) => ()] note;
            /// (kind, id) -> the last write that was given up without an answer.
            ghost GHOST: [rows RowKey] data;
            /// (kind, id) -> push number of the open write, and `Landing` in bits: writes that landed since the last
            /// seal.
            landed LANDED: [plain RowKey => (u64, u8)] note;
            /// (kind, id) -> whether a seal on its way covers it: records taken from the centre since the last seal.
            taken TAKEN: [plain RowKey => bool] note;
            /// (SHA-256, kind, id): the records whose documents name this content.
            content_named CONTENT_NAMED: [plain (&'static str, u8, &'static str) => ()] index;
            /// SHA-256 -> length as a document says, and the lease number of the round whose fetch came out wrong (0:
            /// none). Exists exactly while a record's document names content that is not all here.
            content_wanted CONTENT_WANTED: [plain &'static str => (u64, i64)] note;
            /// SHA-256 -> length and media type as a document says: content that is here, that a record's document
            /// names, and that the centre is not known to have.
            content_owed CONTENT_OWED: [plain &'static str => (u64, &'static str)] note;
            /// SHA-256 -> lease number of the round from which on it is worth a look: content that is here and that no
            /// record's document names any more.
            content_idle CONTENT_IDLE: [plain &'static str => i64] note;
            /// sequence -> an entry of the audit trail ([`crate::domain::audit::Entry`]).
            audit AUDIT: [rows u64] data bulky;
            /// (account whose data it is about, sequence): entries by person.
            audit_of AUDIT_OF: [plain (&'static str, u64) => ()] index;
            /// number of its entry in `audit` -> an opening of somebody's records that nobody has reviewed:
            /// `Emergency`.
            emergency EMERGENCY: [rows u64] data;
            /// (kind, id) -> own writes that a restored centre may have forgotten, as `own`; an empty document once the
            /// record was brought together with it.
            restore RESTORE: [rows RowKey] data;
        }
    };
}
pub(in crate::store) use tables;

macro_rules! definition {
    ([rows $key:ty]) => { RowsDefinition<$key> };
    ([plain $key:ty => $value:ty]) => { TableDefinition<'static, $key, $value> };
}

macro_rules! visit {
    ($visitor:ident, $table:ident, [rows $($of:tt)*]) => {
        $visitor.rows($table)
    };
    ($visitor:ident, $table:ident, [plain $($of:tt)*]) => {
        $visitor.table($table)
    };
}

macro_rules! role {
    (data) => {
        Role::Data
    };
    (index) => {
        Role::Index
    };
    (note) => {
        Role::Note
    };
}

macro_rules! is_bulky {
    (counted $($marks:ident)*) => { is_bulky!($($marks)*) };
    (bulky) => { true };
    () => { false };
}

macro_rules! declare {
    ($($(#[$doc:meta])* $field:ident $table:ident: $form:tt $role:ident $($marks:ident)*;)*) => {
        $($(#[$doc])* pub(crate) const $table: definition!($form) = <definition!($form)>::new(stringify!($field));)*

        /// Name and role of every table, and whether it is bulky.
        const TABLES: &[(&str, Role, bool)] = &[$((stringify!($field), role!($role), is_bulky!($($marks)*)),)*];

        /// Visits every table of the store, always in this order.
        pub(crate) fn each_table<E: EachTable>(visitor: &mut E) -> Result<(), E::Error> {
            $(visit!(visitor, $table, $form)?;)*
            Ok(())
        }
    };
}

tables!(declare);

/// Work that is done with one table after the other, whatever its rows are.
pub(crate) trait EachTable {
    type Error;

    fn table<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<(), Self::Error>;

    /// One whose rows end in checksums.
    fn rows<K: RowName>(&mut self, rows: RowsDefinition<K>) -> Result<(), Self::Error>;
}

/// The role of the table with this name.
pub(crate) fn role_of(name: &str) -> Option<Role> {
    TABLES.iter().find(|(table, ..)| *table == name).map(|(_, role, _)| *role)
}

/// Names of all tables of a role.
#[cfg(test)]
pub(crate) fn names_of(role: Role) -> impl Iterator<Item = &'static str> {
    TABLES.iter().filter(move |(_, of, _)| *of == role).map(|(table, ..)| *table)
}

/// Whether a table is most of a large file, with checksums in its rows.
pub(crate) fn is_bulky_table(name: &str) -> bool {
    TABLES.iter().any(|(table, _, is_bulky)| *table == name && *is_bulky)
}

/// Whether a table can be made anew when its pages are damaged. `said` may be what is said about it, after its name.
pub(crate) fn is_index(said: &str) -> bool {
    role_of(said.split(':').next().unwrap_or_default()).is_some_and(|role| role != Role::Data)
}

/// Whether the next start makes these tables anew, which are named as those with damaged pages are.
pub fn is_made_anew(tables: &str) -> bool {
    tables.split(", ").all(is_index)
}
