//! Floor 2. The reconciliation's own collections: leases and conflicts, and writing rows of any of them.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bson::{Bson, Document, doc};
use mongodb::options::FindOptions;

use super::cursors::{Question, lost_cursor};
use super::filter::holds;
use super::read::{Next, batch_size, next_batch};
use super::write::write_errors;
use super::{MongoCentral, confirmed_document, error, number, unconfirmed};
use crate::central::{
    CONFLICTS_COLLECTION, ConflictAnswer, DOLLAR_NAME_CODE, Fetched, Lease, LeaseAnswer, NODES_COLLECTION,
    RESOLUTION_FIELDS, Resolutions, Result, WaitingConflicts, lease_of,
};
use crate::domain::json::weight;
use crate::domain::value::same_option;
use crate::store::STORE_FIELD;

/// `status` of a row of `edge_nodes` whose node may write, and of one that may not.
const ACTIVE: &str = "active";
const REVOKED: &str = "revoked";
/// `status` of a row of `edge_conflicts` that nobody has resolved yet.
const OPEN: &str = "open";
/// `status` of one whose decision was not carried out.
const DECLINED: &str = "declined";
/// `resolution` of a row of `edge_conflicts` that holds the decided value in `value`.
const VALUE: &str = "value";
/// `status` with which a row is handed in that is to be open again.
const REOPENED: &str = "reopened";
/// Fields of a row of `edge_conflicts` that say that a decision was not carried out.
const DECLINED_FIELDS: [&str; 2] = ["declined", "declined_fingerprint"];
/// Fields of a row of `edge_trash` that are not the same in each try. A row that was there already may say that an earlier
/// delete did not happen.
const RETRIED_FIELDS: [&str; 2] = ["number", "at"];
const RETRIED_AND_SETTLED_FIELDS: [&str; 3] = ["number", "at", "state"];
/// Most bytes of rows that one command carries, if it carries more than one.
const ROWS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most rows that one command carries.
const ROWS_MAX: usize = 500;
/// What rows of `edge_nodes` that are read at once may take, bytes and values ([`weight::of_decoded`]), if it is more
/// than one.
const NODE_ROWS_WEIGHT_MAX: usize = 16 << 20;
/// What decided rows of `edge_conflicts` take after which the others are left to be asked for again.
const DECIDED_WEIGHT_MAX: usize = 32 << 20;
/// Rows that wait, and what they take, after which the others are left to be asked for again.
const WAITING_ROWS_MAX: usize = 500;
const WAITING_WEIGHT_MAX: usize = 4 << 20;
/// Such rows that a server is asked for at once: each may have three values of 256 KiB.
const WAITING_BATCH: usize = 16;
/// Fields of a node's row that announcements and reports leave alone.
const NODE_OWN_FIELDS: [&str; 3] = ["_id", "lease", "status"];

/// What a command carries out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListOf {
    Updates,
    /// Of each statement, what an update would put in the place of the row.
    Inserts,
}

impl ListOf {
    /// What may be another in a row that is there already.
    fn retried(self) -> &'static [&'static str] {
        match self {
            ListOf::Updates => &RETRIED_FIELDS,
            ListOf::Inserts => &RETRIED_AND_SETTLED_FIELDS,
        }
    }
}

impl MongoCentral {
    pub(super) async fn take_node_lease(
        &mut self,
        node: &str,
        expected: &[Lease],
        proposed: &Lease,
        announcement: &Document,
    ) -> Result<LeaseAnswer> {
        let mut filter = doc! {"_id": node, "status": {"$ne": REVOKED}};
        if expected.is_empty() {
            filter.insert("lease", doc! {"$exists": false});
        } else {
            let any: Vec<Document> = expected.iter().map(lease_filter).collect();
            filter.insert("$or", any);
        }
        let mut set = doc! {"lease": {"number": proposed.number, "nonce": &proposed.nonce}};
        set.extend(free_fields(announcement));
        let mut update = doc! {"$set": set};
        if expected.is_empty() {
            update.insert("$setOnInsert", doc! {"status": ACTIVE});
        }
        let mut statement = doc! {"q": filter, "u": update};
        if expected.is_empty() {
            statement.insert("upsert", true);
        }
        if self.update_nodes(statement).await? {
            return Ok(LeaseAnswer::Taken);
        }
        let nodes = self.database.collection::<Document>(NODES_COLLECTION);
        let reading = nodes
            .find_one(doc! {"_id": node})
            .projection(doc! {"lease": 1, "status": 1})
            .session(&mut self.reading);
        let row = self.patience.limited(async { reading.await }).await?;
        Ok(match row {
            Some(row) if has_status(&row, REVOKED) => LeaseAnswer::Revoked,
            row => LeaseAnswer::Other(row.as_ref().and_then(lease_of)),
        })
    }

    pub(super) async fn find_node_rows(&mut self, node: &str, store: Option<&str>) -> Result<Vec<Document>> {
        let mut any = vec![doc! {"_id": node}];
        any.extend(store.map(|store| doc! {STORE_FIELD: store}));
        let question = Question {
            collection: NODES_COLLECTION,
            filter: doc! {"$or": any},
            key: "_id",
            options: FindOptions::default(),
        };
        let (mut rows, mut weight) = (Vec::new(), 0);
        self.each_row(question, |row| {
            weight += weight::of_decoded(row);
            if weight > NODE_ROWS_WEIGHT_MAX && !rows.is_empty() {
                return Err(error::failed("the rows of edge_nodes about this store are more than are read"));
            }
            let unreadable = |_| error::failed("a row of edge_nodes cannot be read");
            rows.push(Document::try_from(row).map_err(unreadable)?);
            Ok(ControlFlow::Continue(()))
        })
        .await?;
        Ok(rows)
    }

    /// Carries out one update in `edge_nodes`; returns whether it hit, or inserted, a row.
    async fn update_nodes(&mut self, statement: Document) -> Result<bool> {
        let id = id_in(&statement);
        let command = doc! {
            "update": NODES_COLLECTION,
            "updates": [statement],
            "writeConcern": confirmed_document(),
        };
        let reply = self.command(command).await?;
        if let Some((_, code, message)) = write_errors(&reply).next() {
            if error::is_duplicate_key(code) {
                // The row exists and is not the one to be inserted. In any other index another one's is in the way.
                return match error::index_of(message) {
                    Some(error::INDEX_OF_ID) => Ok(false),
                    index => match self.row(NODES_COLLECTION, &id).await? {
                        Some(_) if index.is_none() => Ok(false),
                        _ => Err(error::of_index(index, &id)),
                    },
                };
            }
            return Err(error::of_row(code, "the node's row is not accepted"));
        }
        match unconfirmed(&reply) {
            Some(unconfirmed) => Err(unconfirmed),
            None => Ok(number(&reply, "n").is_some_and(|rows| rows > 0)),
        }
    }

    pub(super) async fn report_under_lease(
        &mut self,
        node: &str,
        lease: &Lease,
        report: &Document,
    ) -> Result<()> {
        let set = free_fields(report);
        if set.is_empty() {
            return Ok(());
        }
        let mut filter = doc! {"_id": node};
        filter.extend(lease_filter(lease));
        let statement = doc! {"q": filter, "u": {"$set": set}};
        self.update_rows(NODES_COLLECTION, vec![statement]).await
    }

    pub(super) async fn publish_conflict_rows(&mut self, rows: &[Document]) -> Result<()> {
        let statements = rows.iter().map(conflict_statements).collect::<Result<Vec<_>>>()?;
        self.update_rows(CONFLICTS_COLLECTION, statements.concat()).await
    }

    pub(super) async fn conflict_rows(&mut self, ids: &[String]) -> Result<Resolutions> {
        let mut found = Resolutions::default();
        if ids.is_empty() {
            return Ok(found);
        }
        // Open rows are read too, because a row that is missing must be noticed.
        let shown = RESOLUTION_FIELDS.iter().map(|field| ((*field).to_owned(), Bson::from(1)));
        let projection: Document = shown.collect();
        let (mut present, mut left, mut weight) = (BTreeSet::new(), ids.to_vec(), 0);
        while !left.is_empty() {
            let before = present.len();
            let rows = self.database.collection::<Document>(CONFLICTS_COLLECTION);
            let finding = rows
                .find(doc! {"_id": {"$in": &left}})
                .projection(projection.clone())
                .batch_size(batch_size(left.len() + 1))
                .session(&mut self.reading);
            let mut cursor = self.patience.limited(async { finding.batch().await }).await?;
            let is_lost = loop {
                match next_batch(&mut cursor, &mut self.reading, &self.patience).await? {
                    Next::Batch(batch) => {
                        for row in batch {
                            if weight >= DECIDED_WEIGHT_MAX {
                                left.retain(|id| !present.contains(id));
                                found.left = left;
                                return Ok(found);
                            }
                            present.insert(row.id().to_owned());
                            let row_weight = row.weight();
                            let decided = decided(row);
                            weight += decided.as_ref().map_or(0, |_| row_weight);
                            found.decided.extend(decided);
                        }
                    }
                    Next::End => break false,
                    Next::Lost => break true,
                }
            };
            if !is_lost {
                break;
            }
            if present.len() == before {
                return Err(lost_cursor());
            }
            left.retain(|id| !present.contains(id));
        }
        found.missing = ids.iter().filter(|id| !present.contains(*id)).cloned().collect();
        Ok(found)
    }

    pub(super) async fn waiting_conflict_rows(
        &mut self,
        nodes: &[String],
        after: Option<&str>,
    ) -> Result<WaitingConflicts> {
        let filter = doc! {
            "_id": {"$gt": after.unwrap_or_default()},
            "node": {"$in": nodes},
            "$or": [{"status": {"$in": [OPEN, DECLINED]}}, {"applied_by": {"$exists": false}}],
        };
        let rows = self.database.collection::<Document>(CONFLICTS_COLLECTION);
        let finding = rows
            .find(filter)
            .sort(doc! {"_id": 1})
            .batch_size(batch_size(WAITING_BATCH))
            .session(&mut self.reading);
        let mut cursor = self.patience.limited(async { finding.batch().await }).await?;
        let (mut found, mut read, mut weight) = (WaitingConflicts::default(), 0, 0);
        loop {
            match next_batch(&mut cursor, &mut self.reading, &self.patience).await? {
                Next::Batch(batch) => {
                    for row in batch {
                        (read, weight) = (read + 1, weight + row.weight());
                        found.next = Some(row.id().to_owned());
                        match row {
                            Fetched::Document { document, .. } => found.rows.push(document.decode()),
                            Fetched::Unreadable { id, .. } | Fetched::Deferred { id } => {
                                found.unreadable.push(id);
                            }
                        }
                        if read >= WAITING_ROWS_MAX || weight >= WAITING_WEIGHT_MAX {
                            return Ok(found);
                        }
                    }
                }
                Next::Lost if read == 0 => return Err(lost_cursor()),
                Next::Lost => return Ok(found),
                Next::End => {
                    found.next = None;
                    return Ok(found);
                }
            }
        }
    }

    pub(super) async fn answer_conflict_rows(&mut self, answers: &[ConflictAnswer]) -> Result<()> {
        let statement = |answer: &ConflictAnswer| {
            let mut filter = doc! {"_id": &answer.id};
            filter.extend(
                answer
                    .seen
                    .iter()
                    .map(|(field, value)| ((*field).to_owned(), Bson::Document(holds(value.as_ref())))),
            );
            let mut update = doc! {"$set": &answer.set};
            if !answer.unset.is_empty() {
                update.insert("$unset", fields_of(&answer.unset));
            }
            doc! {"q": filter, "u": update}
        };
        self.update_rows(CONFLICTS_COLLECTION, answers.iter().map(statement).collect()).await
    }

    async fn update_rows(&mut self, collection: &str, statements: Vec<Document>) -> Result<()> {
        self.write_rows(collection, ListOf::Updates, statements).await
    }

    /// Carries out statements as they stand in an update, and returns when all are durable.
    pub(super) async fn write_rows(
        &mut self,
        collection: &str,
        list: ListOf,
        statements: Vec<Document>,
    ) -> Result<()> {
        for part in parts(statements) {
            let mut command = match list {
                ListOf::Updates => doc! {"update": collection, "updates": part.clone()},
                ListOf::Inserts => {
                    let rows = part.iter().filter_map(|statement| statement.get_document("u").ok());
                    doc! {"insert": collection, "documents": rows.cloned().collect::<Vec<_>>()}
                }
            };
            command.extend(doc! {"ordered": false, "writeConcern": confirmed_document()});
            let reply = self.command(command).await?;
            let mut failures = write_errors(&reply).map(|(_, code, _)| code);
            if let Some(code) = failures.find(|code| !error::is_duplicate_key(*code)) {
                return Err(error::of_row(code, "a row is not accepted"));
            }
            if let Some(unconfirmed) = unconfirmed(&reply) {
                return Err(unconfirmed);
            }
            for (at, _, message) in write_errors(&reply) {
                let statement = part.get(at).ok_or_else(|| error::about_call("the answer cannot be read"))?;
                let found = self.find_double(collection, list, statement, error::index_of(message)).await;
                let is_of_id = error::index_of(message) == Some(error::INDEX_OF_ID);
                found.map_err(|failure| match list {
                    // Of an earlier try, which held something else. It cannot be replaced.
                    ListOf::Inserts if is_of_id && failure.is_of_index() => {
                        error::of_row(DOLLAR_NAME_CODE, "a row is not accepted")
                    }
                    _ => failure,
                })?;
            }
        }
        Ok(())
    }

    /// A duplicate key: the row is there after all, or another one is in the way in a unique index, and this one is not
    /// there. Only the row itself tells, because not every server names the index, and a repeated statement meets itself
    /// in each.
    ///
    /// It has to be there as it was sent. Only of a conflict whose row was to be put in if none matched, another one may be
    /// there: one that somebody has decided, which stays.
    async fn find_double(
        &mut self,
        collection: &str,
        list: ListOf,
        statement: &Document,
        index: Option<&str>,
    ) -> Result<()> {
        let id = id_in(statement);
        let may_stay = collection == CONFLICTS_COLLECTION && statement.get_bool("upsert").unwrap_or(false);
        match (self.row(collection, &id).await?, index) {
            (Some(row), _) if is_as_sent(statement, &row, list.retried()) => Ok(()),
            (Some(_), Some(error::INDEX_OF_ID)) if may_stay => Ok(()),
            // Which index it is nobody says; a row that was decided is not the one that this statement was about.
            (Some(row), None) if may_stay && is_decided(&row) => Ok(()),
            _ => Err(error::of_index(index, &id)),
        }
    }

    async fn row(&mut self, collection: &str, id: &Bson) -> Result<Option<Document>> {
        let rows = self.database.collection::<Document>(collection);
        let finding = rows.find_one(doc! {"_id": id.clone()}).session(&mut self.reading);
        self.patience.limited(async { finding.await }).await
    }
}

/// The `_id` that a statement is about.
fn id_in(statement: &Document) -> Bson {
    let query = statement.get_document("q").ok();
    query.and_then(|query| query.get("_id")).cloned().unwrap_or(Bson::Null)
}

/// Whether a row holds what the statement was to put there. When it was sent may differ from one try to the next.
fn is_as_sent(statement: &Document, row: &Document, retried: &[&str]) -> bool {
    let Ok(update) = statement.get_document("u") else {
        return false;
    };
    let sets: Vec<&Document> =
        ["$set", "$setOnInsert"].into_iter().filter_map(|set| update.get_document(set).ok()).collect();
    let sets = if sets.is_empty() { vec![update] } else { sets };
    let mut fields = sets.into_iter().flatten().filter(|(field, _)| !retried.contains(&field.as_str()));
    fields.all(|(field, value)| same_option(Some(value), row.get(field)))
}

fn is_decided(row: &Document) -> bool {
    row.contains_key("applied_by") || !matches!(row.get("resolution"), None | Some(Bson::Null))
}

/// The row if something was decided in it. One that cannot be kept decides nothing, whatever an administrator's tool wrote
/// there.
fn decided(row: Fetched) -> Option<Document> {
    let Fetched::Document { document, .. } = row else {
        return None;
    };
    let row = document.decode();
    let is_undecided = matches!(row.get("resolution"), None | Some(Bson::Null));
    (!(has_status(&row, OPEN) && is_undecided)).then_some(row)
}

fn has_status(row: &Document, status: &str) -> bool {
    row.get_str("status").is_ok_and(|found| found == status)
}

fn lease_filter(lease: &Lease) -> Document {
    doc! {"lease.number": lease.number, "lease.nonce": &lease.nonce}
}

/// The fields that a node may set in its row.
fn free_fields(fields: &Document) -> Document {
    let free = fields.iter().filter(|(key, _)| !NODE_OWN_FIELDS.contains(&key.as_str()));
    free.map(|(key, value)| (key.clone(), value.clone())).collect()
}

pub(super) fn split_id(row: &Document) -> Result<(Bson, Document)> {
    let mut fields = row.clone();
    match fields.remove("_id") {
        Some(id) => Ok((id, fields)),
        None => Err(error::failed("a row without an identifier")),
    }
}

/// The fields with an empty value each, as `$unset` takes them.
fn fields_of(names: &[&str]) -> Document {
    names.iter().map(|name| ((*name).to_owned(), Bson::from(""))).collect()
}

/// The statements that publish one row. An open conflict is inserted if it is new. A reopened one is written
/// over a closed row as well. A closed one closes the row, unless a node has closed it or somebody decided
/// differently: the first decision stands.
fn conflict_statements(row: &Document) -> Result<Vec<Document>> {
    let (id, mut fields) = split_id(row)?;
    let insert = |fields: &Document| doc! {"q": {"_id": &id}, "u": {"$setOnInsert": fields}, "upsert": true};
    if has_status(row, OPEN) {
        return Ok(vec![insert(&fields)]);
    }
    if has_status(row, REOPENED) {
        fields.insert("status", OPEN);
        let node = fields.get("node").cloned().unwrap_or(Bson::Null);
        let own = doc! {"node": node, "resolution": {"$ne": Bson::Null}};
        let filter = doc! {"_id": &id, "$or": [{"status": {"$ne": OPEN}}, own]};
        return Ok(vec![insert(&fields), doc! {"q": filter, "u": fields}]);
    }
    // Null stands for a missing field as well.
    let mut free = vec![doc! {"resolution": Bson::Null}];
    if let Some(resolution) = fields.get("resolution") {
        let mut same = doc! {"resolution": holds(Some(resolution))};
        if resolution.as_str() == Some(VALUE) {
            same.insert("value", holds(fields.get("value")));
        }
        free.push(same);
    }
    let filter = doc! {"_id": &id, "applied_by": {"$exists": false}, "$or": free};
    let update = doc! {"$set": fields, "$unset": fields_of(&DECLINED_FIELDS)};
    Ok(vec![doc! {"q": filter, "u": update, "upsert": true}])
}

/// `statements` cut into what one command takes.
fn parts(statements: Vec<Document>) -> Vec<Vec<Document>> {
    let mut parts: Vec<Vec<Document>> = Vec::new();
    let mut bytes = 0;
    for statement in statements {
        let size = statement.to_vec().map_or(0, |encoded| encoded.len());
        match parts.last_mut() {
            Some(part) if part.len() < ROWS_MAX && bytes + size <= ROWS_BYTES_MAX => {
                part.push(statement);
                bytes += size;
            }
            _ => {
                parts.push(vec![statement]);
                bytes = size;
            }
        }
    }
    parts
}
