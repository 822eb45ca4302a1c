//! Floor 1. The tables of the store and how their rows are spelled in bytes.
//!
//! Values are BSON, so that every MongoDB type survives; keys sort the way MongoDB sorts strings.

use std::borrow::Cow;

use bson::{Document, RawDocument, RawDocumentBuf};
use redb::{Key, ReadableTable, TableDefinition, Value};

use super::StoreError;
pub(crate) use super::fields::Fields;
use super::rows::{Checked, RowName, RowsDefinition};
use crate::domain::record::{Kind, RecordKey, fold_account};

/// Version of the file's layout; a store with a higher one is refused. In format 1 rows had no checksums (`upgrade.rs`).
pub const FORMAT_VERSION: u32 = 2;

/// A record's key in the tables: the kind's code and the id.
pub(crate) type RowKey = (u8, &'static str);
type Bytes = &'static [u8];

/// (kind, id) -> the current document.
pub(crate) const DOCS: RowsDefinition<RowKey> = RowsDefinition::new("docs");
/// (kind, id) -> [`BaseRow`]; exists exactly while the record differs from the centre's version or has an
/// unsettled intent.
pub(crate) const BASE: RowsDefinition<RowKey> = RowsDefinition::new("base");
/// (push rank, sequence, kind, id) -> milliseconds since 1970 of the first unpushed edit, and who made the
/// last one.
pub(crate) const DIRTY: TableDefinition<(u8, u64, u8, &str), (i64, &str)> = TableDefinition::new("dirty");
/// (kind, id) -> the write that was sent to the centre and is not settled.
pub(crate) const INTENT: RowsDefinition<RowKey> = RowsDefinition::new("intent");
/// (kind, id) -> why the centre refused the record, or why it could not be pulled.
pub(crate) const DEAD: RowsDefinition<RowKey> = RowsDefinition::new("dead");
/// folded account -> the hold of two people under it: [`super::Hold`].
pub(crate) const HOLD: RowsDefinition<&'static str> = RowsDefinition::new("hold");
/// (kind, id) -> a document of the centre that waits behind a hold, and the hold's account.
pub(crate) const HELD: RowsDefinition<RowKey> = RowsDefinition::new("held");
/// (folded account, kind, id): the documents that wait behind a hold.
pub(crate) const HELD_OF: TableDefinition<(&str, u8, &str), ()> = TableDefinition::new("held_of");
/// (kind, id) -> what was agreed and what was delivered of a record under the old name of this node, until it is read.
pub(crate) const DELIVERED: RowsDefinition<RowKey> = RowsDefinition::new("delivered");
/// (kind, id) -> an unsent record as earlier processes left it (`unsent_versions.rs`). Only where a later one has changed it.
pub(crate) const UNSENT_VERSIONS: RowsDefinition<RowKey> = RowsDefinition::new("unsent_versions");
/// (kind, id) -> [`super::Undecided`]: records that wait for a decision between the version here and the centre's.
pub(crate) const UNDECIDED: RowsDefinition<RowKey> = RowsDefinition::new("undecided");
/// (kind, id) -> [`super::Waiting`]: records that are not sent before something else has happened.
pub(crate) const WAITING: RowsDefinition<RowKey> = RowsDefinition::new("waiting");
/// (kind, id) -> where the record had dates that were taken away ([`crate::domain::former_dates`]).
pub(crate) const FORMER_DATES: RowsDefinition<RowKey> = RowsDefinition::new("former_dates");
/// folded account -> who had it last, if that person is gone, and when in terms of the journal.
pub(crate) const DEPARTED: RowsDefinition<&'static str> = RowsDefinition::new("departed");
/// folded account -> who had it when what waits for them began to wait: the fields by which people are told apart. Only
/// where one of them has changed since.
pub(crate) const MEANT: RowsDefinition<&'static str> = RowsDefinition::new("meant");
/// folded account -> who has come to have it beside somebody else, in another spelling, and in which round.
pub(crate) const NEWCOMER: RowsDefinition<&'static str> = RowsDefinition::new("newcomer");
/// Folded accounts under which more than one person is stored, in different spellings.
pub(crate) const DUPLICATE: TableDefinition<&str, ()> = TableDefinition::new("duplicate");
/// sequence -> one change of a record.
pub(crate) const JOURNAL: RowsDefinition<u64> = RowsDefinition::new("journal");
/// (kind, id, sequence) -> the body of a deleted record.
pub(crate) const TRASH: RowsDefinition<(u8, &'static str, u64)> = RowsDefinition::new("trash");
/// (sequence, kind, id): the rows of `trash` in the order in which the records were deleted.
pub(crate) const TRASH_ORDER: TableDefinition<(u64, u8, &str), ()> = TableDefinition::new("trash_order");
/// conflict id -> the conflict.
pub(crate) const CONFLICT: RowsDefinition<&'static str> = RowsDefinition::new("conflict");
/// (kind, id, conflict id): the open conflicts of a record.
pub(crate) const CONFLICT_OPEN: TableDefinition<(u8, &str, &str), ()> = TableDefinition::new("conflict_open");
/// Conflicts that the centre does not know yet in their present state.
pub(crate) const CONFLICT_OUTBOX: TableDefinition<&str, ()> = TableDefinition::new("conflict_outbox");
/// conflict id -> lease number of the round that closed its row at the centre. For some rounds the node reads that row
/// again, because somebody may write a second decision into it.
pub(crate) const CONFLICT_WATCHED: TableDefinition<&str, i64> = TableDefinition::new("conflict_watched");
/// (kind, folded owner, id): records by the account they belong to; under the empty one those that name nobody.
pub(crate) const BY_OWNER: TableDefinition<(u8, &str, &str), ()> = TableDefinition::new("by_owner");
/// (kind, id) -> folded account that the record belongs to, empty if it names nobody: of the kinds whose records name it in a
/// field. With it rights are decided without reading the record (`noted_owners.rs`).
pub(crate) const OWNER_OF: TableDefinition<RowKey, &str> = TableDefinition::new("owner_of");
/// sequence of a row of `trash` -> folded account that the body in it belongs to, empty if it names nobody.
pub(crate) const TRASH_OWNER: TableDefinition<u64, &str> = TableDefinition::new("trash_owner");
/// conflict id -> kind and id of the record that it is about, [`super::Subject`] as a number, and whose the record was when
/// it was found, empty if that is not known.
pub(crate) const CONFLICT_ABOUT: TableDefinition<&str, (u8, &str, u8, &str)> =
    TableDefinition::new("conflict_about");
/// (folded word, person id): people by id and by the words of their names.
pub(crate) const BY_NAME: TableDefinition<(&str, &str), ()> = TableDefinition::new("by_name");
/// (canonical spelling, person id): people whose id at the centre is spelled otherwise.
pub(crate) const BY_SPELLING: TableDefinition<(&str, &str), ()> = TableDefinition::new("by_spelling");
/// folded account -> roles granted on this node; never synchronized.
pub(crate) const GRANTS: RowsDefinition<&'static str> = RowsDefinition::new("grants");
/// name -> a technician's account of this node; never synchronized.
pub(crate) const LOCAL_ACCOUNTS: RowsDefinition<&'static str> = RowsDefinition::new("local_accounts");
/// `person:` and a folded account, or `local:` and a technician's name -> how often the rights of that account have
/// changed; `person:` alone: those of all people at once. Never synchronized.
pub(crate) const RIGHTS: TableDefinition<&str, u64> = TableDefinition::new("rights");
/// id of a person -> closed on this node. Never synchronized.
pub(crate) const CLOSED_HERE: TableDefinition<&str, ()> = TableDefinition::new("closed_here");
/// folded account -> the last number of `audit`, of the journal and of the trash before who has it now had it, and the time. Only where somebody
/// else had it before. Never synchronized.
pub(crate) const HOLDER_SINCE: TableDefinition<&str, (u64, u64, u64, i64)> =
    TableDefinition::new("holder_since");
/// id of a person -> the fields by which people are told apart, as they were when the present holder came to have the account
/// or was confirmed (`holder_identity.rs`). Only where one of them is another one now. While another human being is written over the
/// one whom the centre has, also the body of that one (`written_over.rs`), with a checksum of its own. Never synchronized.
pub(crate) const HOLDER_IDENTITY: TableDefinition<&str, Bytes> = TableDefinition::new("holder_identity");
/// (folded account, another one that they had before, after which number of `audit`) -> through which number what is said of that
/// other account is about who has the first one now. Never synchronized.
pub(crate) const FORMER_TRAIL: TableDefinition<(&str, &str, u64), u64> = TableDefinition::new("former_trail");
/// id of a person in `closed_here` -> their record said so already, so that nothing travelled; false: it travelled, and another
/// side has opened the account since. Never synchronized.
pub(crate) const CLOSED_UNSENT: TableDefinition<&str, bool> = TableDefinition::new("closed_unsent");
/// (SHA-256, chunk number) -> a chunk of content. Content is all here if it has chunks and is not wanted.
pub(crate) const CONTENT: RowsDefinition<(&'static str, u32)> = RowsDefinition::new("content");
/// (kind, id) -> [`super::Reread`] in bits: records to be read from the centre again.
pub(crate) const REREAD: TableDefinition<RowKey, u8> = TableDefinition::new("reread");
/// (kind, id) -> whether the operator agrees: clean records that the centre no longer has.
pub(crate) const VANISHED: TableDefinition<RowKey, bool> = TableDefinition::new("vanished");
/// (kind, id): those of `vanished` whose delete the change feed has told.
pub(crate) const VANISHED_TOLD: TableDefinition<RowKey, ()> = TableDefinition::new("vanished_told");
/// sequence -> an own write that landed at the centre, without bodies; the latest are kept.
pub(crate) const SENT: RowsDefinition<u64> = RowsDefinition::new("sent");
/// (kind, id, sequence in `sent`): own landed writes of which the change feed is still to tell.
pub(crate) const ECHO: TableDefinition<(u8, &str, u64), ()> = TableDefinition::new("echo");
/// (kind, id) -> push number of the open write, and [`super::Landing`] in bits: writes that landed since the last seal.
pub(crate) const LANDED: TableDefinition<RowKey, (u64, u8)> = TableDefinition::new("landed");
/// (kind, id) -> whether a seal on its way covers it: records taken from the centre since the last seal.
pub(crate) const TAKEN: TableDefinition<RowKey, bool> = TableDefinition::new("taken");
/// (kind, id) -> the last write that was given up without an answer.
pub(crate) const GHOST: RowsDefinition<RowKey> = RowsDefinition::new("ghost");
/// (SHA-256, kind, id): the records whose documents name this content.
pub(crate) const CONTENT_NAMED: TableDefinition<(&str, u8, &str), ()> = TableDefinition::new("content_named");
/// SHA-256 -> length as a document says, and the lease number of the round whose fetch came out wrong (0:
/// none). Exists exactly while a record's document names content that is not all here.
pub(crate) const CONTENT_WANTED: TableDefinition<&str, (u64, i64)> = TableDefinition::new("content_wanted");
/// SHA-256 -> length and media type as a document says: content that is here, that a record's document
/// names, and that the centre is not known to have.
pub(crate) const CONTENT_OWED: TableDefinition<&str, (u64, &str)> = TableDefinition::new("content_owed");
/// SHA-256 -> lease number of the round from which on it is worth a look: content that is here and that no
/// record's document names any more.
pub(crate) const CONTENT_IDLE: TableDefinition<&str, i64> = TableDefinition::new("content_idle");
/// (kind, id) -> own writes that a restored centre may have forgotten, as `own`; an empty document once the
/// record was brought together with it.
pub(crate) const RESTORE: RowsDefinition<RowKey> = RowsDefinition::new("restore");
/// sequence -> an entry of the audit trail ([`crate::domain::audit::Entry`]).
pub(crate) const AUDIT: RowsDefinition<u64> = RowsDefinition::new("audit");
/// (account whose data it is about, sequence): entries by person.
pub(crate) const AUDIT_OF: TableDefinition<(&str, u64), ()> = TableDefinition::new("audit_of");
/// number of its entry in `audit` -> an opening of somebody's records that nobody has reviewed: [`super::Emergency`].
pub(crate) const EMERGENCY: RowsDefinition<u64> = RowsDefinition::new("emergency");
/// name -> single values: format version, node id, lease, scan position, last report.
pub(crate) const META: TableDefinition<&str, Bytes> = TableDefinition::new("meta");

/// Something that is done with one table after the other, whatever its rows are.
pub(crate) trait EachTable {
    type Error;

    fn table<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<(), Self::Error>;

    /// One whose rows end in checksums.
    fn rows<K: RowName>(&mut self, rows: RowsDefinition<K>) -> Result<(), Self::Error>;
}

/// Visits every table of the store, always in this order. A table that does not stand here is in no backup, and
/// therefore no backup is made of a store that has one.
pub(crate) fn each_table<E: EachTable>(visitor: &mut E) -> Result<(), E::Error> {
    visitor.table(META)?;
    visitor.rows(DOCS)?;
    visitor.rows(BASE)?;
    visitor.table(DIRTY)?;
    visitor.rows(INTENT)?;
    visitor.rows(DEAD)?;
    visitor.rows(HOLD)?;
    visitor.rows(HELD)?;
    visitor.table(HELD_OF)?;
    visitor.rows(DELIVERED)?;
    visitor.rows(UNSENT_VERSIONS)?;
    visitor.rows(UNDECIDED)?;
    visitor.rows(WAITING)?;
    visitor.rows(FORMER_DATES)?;
    visitor.rows(DEPARTED)?;
    visitor.rows(MEANT)?;
    visitor.rows(NEWCOMER)?;
    visitor.table(DUPLICATE)?;
    visitor.rows(JOURNAL)?;
    visitor.rows(TRASH)?;
    visitor.table(TRASH_ORDER)?;
    visitor.table(TRASH_OWNER)?;
    visitor.rows(CONFLICT)?;
    visitor.table(CONFLICT_OPEN)?;
    visitor.table(CONFLICT_ABOUT)?;
    visitor.table(CONFLICT_OUTBOX)?;
    visitor.table(CONFLICT_WATCHED)?;
    visitor.table(BY_OWNER)?;
    visitor.table(OWNER_OF)?;
    visitor.table(BY_NAME)?;
    visitor.table(BY_SPELLING)?;
    visitor.rows(GRANTS)?;
    visitor.rows(LOCAL_ACCOUNTS)?;
    visitor.table(RIGHTS)?;
    visitor.table(CLOSED_HERE)?;
    visitor.table(HOLDER_SINCE)?;
    visitor.table(HOLDER_IDENTITY)?;
    visitor.table(FORMER_TRAIL)?;
    visitor.table(CLOSED_UNSENT)?;
    visitor.rows(CONTENT)?;
    visitor.table(REREAD)?;
    visitor.table(VANISHED)?;
    visitor.table(VANISHED_TOLD)?;
    visitor.rows(SENT)?;
    visitor.table(ECHO)?;
    visitor.rows(GHOST)?;
    visitor.table(LANDED)?;
    visitor.table(TAKEN)?;
    visitor.table(CONTENT_NAMED)?;
    visitor.table(CONTENT_WANTED)?;
    visitor.table(CONTENT_OWED)?;
    visitor.table(CONTENT_IDLE)?;
    visitor.rows(AUDIT)?;
    visitor.table(AUDIT_OF)?;
    visitor.rows(EMERGENCY)?;
    visitor.rows(RESTORE)
}

/// In `meta`: the version of the file's layout, four bytes, which every version can read.
pub(crate) const META_FORMAT: &str = "format";
/// In `meta`: the number after which the journal begins, if it does not begin with the first change.
pub(crate) const META_JOURNAL_START: &str = "journal_start";

/// The number of the last change: that of the journal's last row, or where it is to begin.
pub(crate) fn last_sequence(
    journal: &Checked<impl ReadableTable<u64, Bytes>, u64>,
    meta: &impl ReadableTable<&'static str, Bytes>,
) -> Result<u64, StoreError> {
    if let Some(sequence) = journal.last_number()? {
        return Ok(sequence);
    }
    let Some(start) = meta.get(META_JOURNAL_START)? else {
        return Ok(0);
    };
    let start = start.value().try_into().map_err(|_| damaged("the beginning of the journal"))?;
    Ok(u64::from_be_bytes(start))
}

/// The version of a record that the node and the centre last agreed on.
#[derive(Debug, Clone, PartialEq)]
pub enum Base {
    /// The centre had no such record.
    Absent,
    Document(Document),
}

impl Base {
    pub fn document(&self) -> Option<&Document> {
        match self {
            Base::Absent => None,
            Base::Document(document) => Some(document),
        }
    }

    /// Whether the centre is known to have had the record `key`, as one of this account.
    pub fn is_under(&self, key: &RecordKey, account: &str) -> bool {
        let owner = self.document().and_then(|base| key.kind.schema().owner_of(base));
        self.is_at_centre() && owner.is_some_and(|owner| owner == fold_account(account))
    }

    /// Whether the centre is known to have had the record. An empty document stands for one of which nobody knows
    /// whether it was there.
    pub fn is_at_centre(&self) -> bool {
        self.document().is_some_and(|document| !document.is_empty())
    }
}

impl From<Option<Document>> for Base {
    fn from(document: Option<Document>) -> Self {
        document.map_or(Base::Absent, Base::Document)
    }
}

/// A row of `base`: where the record stands in `dirty`, and the agreed version (empty bytes: absent).
pub(crate) struct BaseRow {
    pub(crate) rank: u8,
    pub(crate) sequence: u64,
    pub(crate) base: Base,
}

const BASE_HEADER_BYTES: usize = 9;

impl BaseRow {
    pub(crate) fn decode(bytes: &[u8]) -> Result<BaseRow, StoreError> {
        let (rank, sequence) = BaseRow::place(bytes)?;
        let body = &bytes[BASE_HEADER_BYTES..];
        let base = if body.is_empty() { Base::Absent } else { Base::Document(decode(body)?) };
        Ok(BaseRow { rank, sequence, base })
    }

    /// Whether the row holds an agreed version.
    pub(crate) fn is_agreed(bytes: &[u8]) -> Result<bool, StoreError> {
        BaseRow::place(bytes)?;
        Ok(bytes.len() > BASE_HEADER_BYTES)
    }

    /// The agreed version, not decoded.
    pub(crate) fn body(bytes: &[u8]) -> Result<Option<&RawDocument>, StoreError> {
        if BaseRow::is_agreed(bytes)? { raw(&bytes[BASE_HEADER_BYTES..]).map(Some) } else { Ok(None) }
    }

    /// Rank and sequence alone.
    pub(crate) fn place(bytes: &[u8]) -> Result<(u8, u64), StoreError> {
        let header = bytes.first_chunk::<BASE_HEADER_BYTES>().ok_or_else(|| damaged("a base row"))?;
        let [rank, sequence @ ..] = *header;
        Ok((rank, u64::from_be_bytes(sequence)))
    }

    pub(crate) fn encode(rank: u8, sequence: u64, base: &Base) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![rank];
        bytes.extend_from_slice(&sequence.to_be_bytes());
        if let Base::Document(document) = base {
            bytes.extend_from_slice(&encode(document)?);
        }
        Ok(bytes)
    }
}

/// A version of a record, decoded and as it is stored: coding takes longer than most of what is done with either.
pub(crate) struct Version<'d> {
    document: Cow<'d, Document>,
    bytes: Vec<u8>,
}

impl<'d> Version<'d> {
    pub(crate) fn of(document: Cow<'d, Document>) -> Result<Version<'d>, StoreError> {
        Ok(Version { bytes: encode(&document)?, document })
    }

    pub(crate) fn stored(bytes: Vec<u8>) -> Result<Version<'d>, StoreError> {
        Ok(Version { document: Cow::Owned(decode(&bytes)?), bytes })
    }

    pub(crate) fn document(&self) -> &Document {
        &self.document
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

pub(crate) fn encode(document: &Document) -> Result<Vec<u8>, StoreError> {
    document.to_vec().map_err(|e| StoreError::Unstorable(e.to_string()))
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Document, StoreError> {
    Document::try_from(raw(bytes)?).map_err(|e| StoreError::Damaged(e.to_string()))
}

/// Stored bytes as the document that they are, not decoded.
pub(crate) fn raw(bytes: &[u8]) -> Result<&RawDocument, StoreError> {
    RawDocument::from_bytes(bytes).map_err(|e| StoreError::Damaged(e.to_string()))
}

pub(crate) fn decode_raw(bytes: &[u8]) -> Result<RawDocumentBuf, StoreError> {
    Ok(raw(bytes)?.to_owned())
}

pub(crate) fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(format!("{what} cannot be read"))
}

pub(crate) fn row_key(key: &RecordKey) -> (u8, &str) {
    (key.kind.schema().code, key.id.as_str())
}

pub(crate) fn kind_of(code: u8) -> Result<Kind, StoreError> {
    Kind::from_code(code).ok_or_else(|| StoreError::Damaged(format!("unknown kind {code}")))
}

/// Where a record stands in the push order: edits by rank, then deletes in reverse, so that nothing is
/// deleted at the centre before what refers to it.
pub(crate) fn push_rank(kind: Kind, is_delete: bool) -> u8 {
    use crate::domain::schema::PUSH_RANK_MAX;
    let rank = kind.schema().push_rank;
    if is_delete { DELETE_RANK_MIN + (PUSH_RANK_MAX - rank) } else { rank }
}

/// Lowest value of [`push_rank`] of a delete.
pub(crate) const DELETE_RANK_MIN: u8 = crate::domain::schema::PUSH_RANK_MAX + 1;

/// Highest value of [`push_rank`].
pub(crate) const PUSH_ORDER_MAX: u8 = 2 * crate::domain::schema::PUSH_RANK_MAX + 1;
