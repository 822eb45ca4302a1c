//! Floor 2. Carrying out compare-and-set writes and telling what became of each.
//!
//! Hides that servers before 8.0 count what a command did but not which of its statements did it.

use std::collections::BTreeSet;
use std::future::{Future, IntoFuture};
use std::sync::atomic::Ordering;
use std::time::Duration;

use bson::{Bson, Document, doc};
use mongodb::Namespace;
use mongodb::error::{BulkWriteError, ErrorKind, PartialBulkWriteResult};
use mongodb::options::{
    DeleteOneModel, InsertOneModel, ReplaceOneModel, UpdateModifications, UpdateOneModel, WriteModel,
};
use mongodb::results::VerboseBulkWriteResult;

use super::counters::Counters;
use super::filter::{Statement, Unsendable};
use super::line::Patience;
use super::{MongoCentral, confirmed_document, error, number, unconfirmed_code};
use crate::central::{NOBODY, Result, Write, Written};

/// Most statements that one command carries.
const COMMAND_STATEMENTS_MAX: usize = 1000;
/// Most bytes of statements that one command carries, if it carries more than one: the server takes a
/// command of 16 MiB and a little for its frame.
const COMMAND_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How long a write waits for a server that is looked at again, as after every error about its state.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(1);

/// Why a statement was refused that the engine does not understand in any form.
const NOT_UNDERSTOOD: &str = "the centre does not understand how the record is compared";

/// A statement on its way, with its place in the caller's batch.
struct Sent {
    at: usize,
    collection: String,
    statement: Statement,
}

/// Where the answer to a statement belongs, and whether a schema was part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    at: usize,
    has_schema: bool,
}

impl Sent {
    fn place(&self) -> Place {
        Place { at: self.at, has_schema: self.statement.has_schema() }
    }
}

/// Places of statements that failed because the engine does not understand them, perhaps.
#[derive(Default)]
struct Failures {
    /// It says that it does not support them.
    unsupported: BTreeSet<usize>,
    /// A schema was part of them.
    with_schema: BTreeSet<usize>,
    /// The code with which the server says that what it did is not confirmed.
    unconfirmed: Option<i32>,
}

impl Failures {
    fn note(&mut self, place: Place, code: i32) {
        if error::is_not_supported(code) {
            self.unsupported.insert(place.at);
        }
        if place.has_schema && error::is_not_understood(code) {
            self.with_schema.insert(place.at);
        }
    }

    /// Whether anything could be left out of a command whose statements stand in these places.
    fn can_be_simpler(&self, places: &[Place], collation: &Option<Document>) -> bool {
        collation.is_some() || places.iter().any(|place| place.has_schema)
    }
}

/// A write goes out within a second or not at all. The driver would keep it while no server answers, or send it a second time
/// when the line is back, up to half a minute later. Meanwhile its person may have become somebody else, and only a
/// round reads that before it writes.
async fn write_now<T>(
    patience: &Patience,
    counters: &Counters,
    exchange: impl Future<Output = mongodb::error::Result<T>>,
) -> Result<mongodb::error::Result<T>> {
    let taken = || counters.round_trips.load(Ordering::Relaxed);
    let before = taken();
    let lost = async {
        counters.lost().await;
        tokio::time::sleep(WRITE_WAIT_MAX).await;
        // It is on its way on a connection that was there: the answer may still come.
        if taken() != before {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        answer = patience.attempt(exchange) => answer,
        () = lost => Err(error::offline("the line was gone when a record was to be sent")),
    }
}

impl MongoCentral {
    pub(super) async fn write_batch(&mut self, batch: &[Write]) -> Result<Vec<Written>> {
        let mut answers = vec![Written::Unknown; batch.len()];
        let mut places: Vec<usize> = (0..batch.len()).collect();
        while !places.is_empty() {
            let sent = self.statements(batch, &places, &mut answers);
            if sent.is_empty() {
                break;
            }
            let collation = self.collation_of(sent.len()).await?.map(|_| doc! {"locale": "simple"});
            let mut failures = Failures::default();
            if self.bulk_write {
                self.bulk_write = self.write_in_bulk(&sent, &collation, &mut answers, &mut failures).await?;
            }
            if !self.bulk_write {
                self.write_by_commands(sent, &collation, &mut answers, &mut failures).await?;
            }
            if let Some(code) = failures.unconfirmed {
                self.note_unconfirmed(batch, code);
            }
            places = self.simplified(failures, collation.is_some());
        }
        self.find_missed_inserts(batch, &mut answers).await?;
        if let Some(code) = error::of_all(&answers) {
            self.find_fault(batch, code).await?;
        }
        Ok(answers)
    }

    /// All statements of a call failed as if the centre took no writes. Of one statement alone nobody knows whether it is the
    /// record: then a write that changes nothing is tried beside it, and if that is taken, it is the record's error.
    async fn find_fault(&mut self, batch: &[Write], code: i32) -> Result<()> {
        let [write] = batch else {
            return Err(error::of_code(code));
        };
        let nothing = doc! {"q": {"_id": NOBODY}, "u": {"$set": {"name": NOBODY}}, "upsert": false};
        let command = doc! {
            "update": self.address.collection(write.key().kind),
            "updates": [nothing],
            "writeConcern": confirmed_document(),
        };
        let reply = self.command(command).await?;
        match write_errors(&reply).next() {
            Some(_) => Err(error::of_code(code)),
            None => Ok(()),
        }
    }

    /// The statements for the writes at `places`; what cannot be sent is answered at once.
    fn statements(&self, batch: &[Write], places: &[usize], answers: &mut [Written]) -> Vec<Sent> {
        let mut sent = Vec::with_capacity(places.len());
        for at in places.iter().copied() {
            match Statement::of(&batch[at], self.has_schemas) {
                Ok(statement) => sent.push(Sent {
                    at,
                    collection: self.address.collection(batch[at].key().kind).to_owned(),
                    statement,
                }),
                Err(Unsendable { code, message }) => {
                    answers[at] = Written::Refused { code, message: message.to_owned() };
                }
            }
        }
        sent
    }

    /// Leaves out of later statements what the engine has shown not to understand. Returns the places of the writes to be
    /// tried again without it: nothing was done of them.
    fn simplified(&mut self, failures: Failures, is_collated: bool) -> Vec<usize> {
        if is_collated && !failures.unsupported.is_empty() {
            self.has_collations = Some(false);
            return failures.unsupported.into_iter().collect();
        }
        if self.has_schemas && !failures.with_schema.is_empty() {
            self.has_schemas = false;
            return failures.with_schema.into_iter().collect();
        }
        Vec::new()
    }

    /// One `bulkWrite` with a result per statement; `false` if the server has no such command, in which
    /// case nothing was sent.
    async fn write_in_bulk(
        &mut self,
        sent: &[Sent],
        collation: &Option<Document>,
        answers: &mut [Written],
        failures: &mut Failures,
    ) -> Result<bool> {
        let database = self.address.database.as_str();
        let models: Vec<WriteModel> = sent.iter().map(|sent| model(database, sent, collation)).collect();
        let writing =
            self.client.bulk_write(models).ordered(false).verbose_results().session(&mut self.writing);
        let written = write_now(&self.patience, &self.counters, writing.into_future()).await?;
        self.read_after_writes();
        match written {
            Ok(results) => {
                for (index, sent) in sent.iter().enumerate() {
                    answers[sent.at] = counted(&results, index, &sent.statement);
                }
                Ok(true)
            }
            // Also servers whose version has it, if they are set up as an older one.
            Err(failure) if error::is_unsupported(&failure) => Ok(false),
            Err(failure) => match failure.kind.as_ref() {
                ErrorKind::BulkWrite(bulk) if std::error::Error::source(&failure).is_none() => {
                    read_partial(bulk, sent, answers, failures);
                    Ok(true)
                }
                _ => Err(error::of_call(&failure)),
            },
        }
    }

    /// `insert`, `update` and `delete` commands, each for one collection.
    async fn write_by_commands(
        &mut self,
        sent: Vec<Sent>,
        collation: &Option<Document>,
        answers: &mut [Written],
        failures: &mut Failures,
    ) -> Result<()> {
        for group in grouped(sent, collation) {
            let mut command = doc! {group.verb: group.collection};
            command.insert(group.list, group.statements);
            command.insert("ordered", false);
            command.insert("writeConcern", confirmed_document());
            let running = self.database.run_command(command).session(&mut self.writing);
            match write_now(&self.patience, &self.counters, running.into_future()).await? {
                Ok(reply) => {
                    self.read_after_writes();
                    read_reply(&reply, group.verb, &group.places, answers, failures)?;
                }
                Err(failure) => {
                    let of_call = error::of_call(&failure);
                    let code = error::command_code(&failure).filter(|code| error::is_not_understood(*code));
                    let Some(code) = code.filter(|_| failures.can_be_simpler(&group.places, collation))
                    else {
                        return Err(of_call);
                    };
                    for place in &group.places {
                        answers[place.at] = Written::Refused { code, message: NOT_UNDERSTOOD.to_owned() };
                        failures.note(*place, code);
                    }
                }
            }
        }
        Ok(())
    }

    /// An insert that was repeated because its acknowledgement got lost meets itself in every unique index,
    /// and not each server names that of `_id` then. If the identifier is there, it missed.
    async fn find_missed_inserts(&mut self, batch: &[Write], answers: &mut [Written]) -> Result<()> {
        for (write, answer) in batch.iter().zip(answers) {
            let Write::Insert { key, .. } = write else {
                continue;
            };
            if matches!(answer, Written::Refused { code, .. } if error::is_duplicate_key(*code)) {
                match self.fetch_records(key.kind, std::slice::from_ref(&key.id)).await {
                    Ok(found) if found.is_empty() => {}
                    Ok(_) => *answer = Written::Miss,
                    // Of the others more is known.
                    Err(failure) if failure.is_about_call() => *answer = Written::Unknown,
                    Err(failure) => return Err(failure),
                }
            }
        }
        Ok(())
    }
}

// --------------------------------------------------------------------------------------------- bulkWrite

fn model(database: &str, sent: &Sent, collation: &Option<Document>) -> WriteModel {
    let namespace = Namespace::new(database, sent.collection.as_str());
    let update_one = |filter: &Document, update: UpdateModifications| {
        UpdateOneModel::builder()
            .namespace(namespace.clone())
            .filter(filter.clone())
            .update(update)
            .collation(collation.clone())
            .build()
            .into()
    };
    match &sent.statement {
        Statement::Insert(document) => {
            InsertOneModel::builder().namespace(namespace).document(document.clone()).build().into()
        }
        Statement::Update { filter, update } => {
            update_one(filter, UpdateModifications::Document(update.clone()))
        }
        Statement::ReplaceLiterally { filter, document } => {
            update_one(filter, UpdateModifications::Pipeline(vec![literal(document.clone())]))
        }
        Statement::Replace { filter, document } => ReplaceOneModel::builder()
            .namespace(namespace)
            .filter(filter.clone())
            .replacement(document.clone())
            .collation(collation.clone())
            .build()
            .into(),
        Statement::Delete(filter) => DeleteOneModel::builder()
            .namespace(namespace)
            .filter(filter.clone())
            .collation(collation.clone())
            .build()
            .into(),
    }
}

/// A pipeline stage that puts `document` in place of what is there, whatever its keys mean elsewhere. The identifier stays
/// by itself; not every engine takes it again.
fn literal(mut document: Document) -> Document {
    document.remove("_id");
    doc! {"$replaceWith": {"$literal": document}}
}

/// What the server counted for one statement.
fn counted(results: &VerboseBulkWriteResult, index: usize, statement: &Statement) -> Written {
    let count = match statement {
        Statement::Insert(_) => results.insert_results.get(&index).map(|_| 1),
        Statement::Update { .. } | Statement::Replace { .. } | Statement::ReplaceLiterally { .. } => {
            results.update_results.get(&index).map(|result| result.matched_count)
        }
        Statement::Delete(_) => results.delete_results.get(&index).map(|result| result.deleted_count),
    };
    match count {
        Some(1) => Written::Hit,
        Some(0) => Written::Miss,
        _ => Written::Unknown,
    }
}

fn read_partial(bulk: &BulkWriteError, sent: &[Sent], answers: &mut [Written], failures: &mut Failures) {
    failures.unconfirmed = bulk.write_concern_errors.first().map(|failure| failure.code);
    let confirmed = failures.unconfirmed.is_none();
    for (index, sent) in sent.iter().enumerate() {
        let answer = match (bulk.write_errors.get(&index), &bulk.partial_result) {
            (Some(failure), _) => {
                failures.note(sent.place(), failure.code);
                error::of_write(failure.code, &failure.message)
            }
            (None, Some(PartialBulkWriteResult::Verbose(results))) => {
                counted(results, index, &sent.statement)
            }
            (None, _) => Written::Unknown,
        };
        answers[sent.at] = as_confirmed(answer, confirmed);
    }
}

/// Without a majority behind it neither a hit nor a miss is certain to stay.
fn as_confirmed(answer: Written, confirmed: bool) -> Written {
    match answer {
        Written::Hit | Written::Miss if !confirmed => Written::Unknown,
        answer => answer,
    }
}

// ---------------------------------------------------------------------------------------------- commands

/// The statements of one command.
struct Group {
    verb: &'static str,
    /// What the command calls its statements.
    list: &'static str,
    collection: String,
    statements: Vec<Document>,
    places: Vec<Place>,
    bytes: usize,
}

fn grouped(sent: Vec<Sent>, collation: &Option<Document>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for sent in sent {
        let at = sent.place();
        let Sent { collection, statement, .. } = sent;
        let (verb, list, statement) = command_statement(statement, collation);
        let bytes = statement.to_vec().map_or(0, |encoded| encoded.len());
        let takes_one_more = |group: &&mut Group| {
            group.verb == verb
                && group.collection == collection
                && group.statements.len() < COMMAND_STATEMENTS_MAX
                && group.bytes + bytes <= COMMAND_BYTES_MAX
        };
        match groups.iter_mut().find(takes_one_more) {
            Some(group) => {
                group.statements.push(statement);
                group.places.push(at);
                group.bytes += bytes;
            }
            None => groups.push(Group {
                verb,
                list,
                collection,
                statements: vec![statement],
                places: vec![at],
                bytes,
            }),
        }
    }
    groups
}

/// The command for a statement, the name of its list, and the statement as it stands there.
fn command_statement(
    statement: Statement,
    collation: &Option<Document>,
) -> (&'static str, &'static str, Document) {
    let (verb, list, mut statement) = match statement {
        Statement::Insert(document) => return ("insert", "documents", document),
        Statement::Update { filter, update } => ("update", "updates", doc! {"q": filter, "u": update}),
        Statement::Replace { filter, document } => ("update", "updates", doc! {"q": filter, "u": document}),
        Statement::ReplaceLiterally { filter, document } => {
            ("update", "updates", doc! {"q": filter, "u": [literal(document)]})
        }
        Statement::Delete(filter) => ("delete", "deletes", doc! {"q": filter, "limit": 1}),
    };
    if let Some(collation) = collation {
        statement.insert("collation", collation);
    }
    (verb, list, statement)
}

/// The reply to a command with several statements: errors by index, and one count for all others. If that
/// count is neither all nor none, which of them hit is open.
fn read_reply(
    reply: &Document,
    verb: &str,
    places: &[Place],
    answers: &mut [Written],
    failures: &mut Failures,
) -> Result<()> {
    let code = unconfirmed_code(reply);
    failures.unconfirmed = failures.unconfirmed.or(code);
    let confirmed = code.is_none();
    let mut open = places.to_vec();
    for (index, code, message) in write_errors(reply) {
        let Some(place) = places.get(index) else {
            return Err(error::about_call("the answer cannot be read"));
        };
        failures.note(*place, code);
        answers[place.at] = error::of_write(code, message);
        open.retain(|other| other != place);
    }
    let answer = match number(reply, "n") {
        Some(n) if n == open.len() as u64 => Written::Hit,
        // An insert without an error of its own happened.
        Some(0) if verb != "insert" => Written::Miss,
        _ => Written::Unknown,
    };
    for place in open {
        answers[place.at] = as_confirmed(answer.clone(), confirmed);
    }
    Ok(())
}

/// Index, code and message of each statement that failed.
pub(super) fn write_errors(reply: &Document) -> impl Iterator<Item = (usize, i32, &str)> {
    let errors = reply.get_array("writeErrors").map_or(&[][..], Vec::as_slice);
    errors.iter().filter_map(Bson::as_document).map(|failure| {
        let index = number(failure, "index").and_then(|n| usize::try_from(n).ok());
        let code = number(failure, "code").and_then(|n| i32::try_from(n).ok());
        (index.unwrap_or(usize::MAX), code.unwrap_or(0), failure.get_str("errmsg").unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(reply: Document, verb: &str, statements: usize) -> Result<Vec<Written>> {
        let places: Vec<Place> = (0..statements).map(|at| Place { at, has_schema: false }).collect();
        let mut answers = vec![Written::Unknown; statements];
        read_reply(&reply, verb, &places, &mut answers, &mut Failures::default())?;
        Ok(answers)
    }

    #[test]
    fn a_count_for_all_tells_only_all_or_none() {
        use Written::{Hit, Miss, Unknown};
        let answers = |n: i32| read(doc! {"n": n, "ok": 1}, "update", 2).unwrap();
        assert_eq!(answers(2), [Hit, Hit]);
        assert_eq!(answers(0), [Miss, Miss]);
        assert_eq!(answers(1), [Unknown, Unknown]);
        assert_eq!(read(doc! {"ok": 1}, "delete", 1).unwrap(), [Unknown]);
    }

    #[test]
    fn statements_with_an_error_are_not_part_of_the_count() {
        let path = doc! {"index": 1, "code": 28, "errmsg": "Cannot create field"};
        let reply = doc! {"n": 2, "ok": 1, "writeErrors": [path]};
        let answers = read(reply, "update", 3).unwrap();
        assert_eq!(answers, [Written::Hit, Written::Miss, Written::Hit]);
        let denied = doc! {"n": 1, "writeErrors": [{"index": 0, "code": 13}]};
        assert_eq!(read(denied, "update", 2).unwrap(), [Written::Faulty { code: 13 }, Written::Hit]);
    }

    #[test]
    fn nothing_is_certain_without_a_majority() {
        let reply = doc! {"n": 1, "ok": 1, "writeConcernError": {"code": 64}};
        assert_eq!(read(reply, "insert", 1).unwrap(), [Written::Unknown]);
    }
}
