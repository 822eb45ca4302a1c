//! Floor 2. What a round asks of the centre, call by call, and where each of them failed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bson::Document;

use super::diagnosis::look;
use super::{MongoCentral, feed, lock, read, sessions};
use crate::central::survey::Namesake;
use crate::central::{
    ArchiveState, CONFLICTS_COLLECTION, Central, CentralError, ConflictAnswer, Fetched, Lease, LeaseAnswer,
    Moment, NODES_COLLECTION, Resolutions, Result, TRASH_COLLECTION, Token, Traffic, WaitingConflicts,
    Watched, Write, Written,
};
use crate::domain::record::{Kind, RecordKey};

#[async_trait]
impl Central for MongoCentral {
    async fn fetch(&mut self, kind: Kind, ids: &[String]) -> Result<Vec<Fetched>> {
        let answer = self.fetch_records(kind, ids).await;
        self.reading("find", self.address.collection(kind), answer)
    }

    async fn identities(&mut self, ids: &[String]) -> Result<Vec<Document>> {
        let answer = self.find_identities(ids).await;
        self.reading("find", self.address.collection(Kind::Person), answer)
    }

    async fn scan(&mut self, kind: Kind, after: Option<&str>, without: &[String]) -> Result<()> {
        self.scan = Some(read::Scan::new(kind, after, without));
        Ok(())
    }

    async fn large_ids(&mut self, kind: Kind, after: Option<&str>) -> Result<Vec<String>> {
        let answer = self.list_large_ids(kind, after).await;
        self.reading("find", self.address.collection(kind), answer)
    }

    async fn scan_next(&mut self, max: usize) -> Result<Vec<Fetched>> {
        let answer = self.continue_scan(max).await;
        self.reading("find", "the records", answer)
    }

    async fn estimated_count(&mut self, kind: Kind) -> Result<u64> {
        let records = self.records(kind);
        let counting = async { records.estimated_document_count().await };
        let answer = self.patience.limited(counting).await;
        self.reading("count", self.address.collection(kind), answer)
    }

    async fn watch(
        &mut self,
        node: &str,
        after: Option<&Token>,
        bodies: &[RecordKey],
        max: usize,
    ) -> Result<Watched> {
        let answer = self.open_feed(node, after, bodies, max).await;
        self.reading("aggregate", "its change feed", answer)
    }

    async fn unsupported_ids(&mut self, kind: Kind, max: usize) -> Result<Vec<String>> {
        let collection = self.address.collection(kind).to_owned();
        let answer = self.list_unsupported_ids(&collection, max).await;
        self.reading("find", &collection, answer)
    }

    async fn write(&mut self, batch: &[Write]) -> Result<Vec<Written>> {
        let answer = self.write_batch(batch).await;
        if let Ok(answers) = &answer {
            self.note_faults(batch, answers);
            return answer;
        }
        let kinds: BTreeSet<Kind> = batch.iter().map(|write| write.key().kind).collect();
        let names: Vec<&str> = kinds.into_iter().map(|kind| self.address.collection(kind)).collect();
        let command = if self.bulk_write { "bulkWrite" } else { "insert, update or delete" };
        self.writing(command, &names.join(", "), answer)
    }

    fn take_fault(&mut self) -> Option<CentralError> {
        self.fault.take()
    }

    async fn archive(&mut self, rows: &[Document]) -> Result<()> {
        let answer = self.archive_rows(rows).await;
        let command = if self.replaces_dollar_names { "update" } else { "update or insert" };
        self.writing(command, TRASH_COLLECTION, answer)
    }

    async fn settle_archive(&mut self, settled: &[(String, ArchiveState)]) -> Result<()> {
        let answer = self.settle_archived_rows(settled).await;
        self.writing("update", TRASH_COLLECTION, answer)
    }

    async fn publish_conflicts(&mut self, rows: &[Document]) -> Result<()> {
        let answer = self.publish_conflict_rows(rows).await;
        self.writing("update", CONFLICTS_COLLECTION, answer)
    }

    async fn resolutions(&mut self, ids: &[String]) -> Result<Resolutions> {
        let answer = self.conflict_rows(ids).await;
        self.reading("find", CONFLICTS_COLLECTION, answer)
    }

    async fn waiting_conflicts(&mut self, nodes: &[String], after: Option<&str>) -> Result<WaitingConflicts> {
        let answer = self.waiting_conflict_rows(nodes, after).await;
        self.reading("find", CONFLICTS_COLLECTION, answer)
    }

    async fn answer_conflicts(&mut self, answers: &[ConflictAnswer]) -> Result<()> {
        let answer = self.answer_conflict_rows(answers).await;
        self.writing("update", CONFLICTS_COLLECTION, answer)
    }

    async fn take_lease(
        &mut self,
        node: &str,
        expected: &[Lease],
        proposed: &Lease,
        announcement: &Document,
    ) -> Result<LeaseAnswer> {
        let answer = self.take_node_lease(node, expected, proposed, announcement).await;
        self.writing("update", NODES_COLLECTION, answer)
    }

    async fn node_rows(&mut self, node: &str, store: Option<&str>) -> Result<Vec<Document>> {
        let answer = self.find_node_rows(node, store).await;
        self.reading("find", NODES_COLLECTION, answer)
    }

    async fn report(&mut self, node: &str, lease: &Lease, report: &Document) -> Result<()> {
        let answer = self.report_under_lease(node, lease, report).await;
        self.writing("update", NODES_COLLECTION, answer)
    }

    async fn namesakes(&mut self, node: &str, name: &str, now_ms: i64) -> Result<Vec<Namesake>> {
        let command = look::namesakes_command(name, Some(node));
        let running = self.database.run_command(command).session(&mut self.reading);
        let answer = self.patience.limited(async { running.await }).await;
        let reply = self.reading("find", NODES_COLLECTION, answer)?;
        Ok(look::namesakes(&reply, now_ms))
    }

    fn moment(&self) -> Option<Moment> {
        let times = [self.told.time(), self.reading.operation_time(), self.writing.operation_time()];
        times.into_iter().flatten().max().map(feed::moment)
    }

    fn process(&self) -> Option<String> {
        lock(&self.counters.process).clone()
    }

    async fn beside(&mut self) -> Result<Box<dyn Central>> {
        let (reading, writing) = sessions(&self.client, &self.patience).await?;
        Ok(Box::new(MongoCentral {
            client: self.client.clone(),
            database: self.database.clone(),
            reading,
            writing,
            address: self.address.clone(),
            patience: self.patience.clone(),
            feed_wait: self.feed_wait,
            line: Arc::clone(&self.line),
            bulk_write: self.bulk_write,
            has_collations: self.has_collations,
            has_schemas: self.has_schemas,
            replaces_dollar_names: self.replaces_dollar_names,
            has_content_indexes: self.has_content_indexes,
            scan: None,
            told: self.told.clone(),
            counters: Arc::clone(&self.counters),
            fault: None,
            seen: Arc::clone(&self.seen),
        }))
    }

    async fn close(&mut self) {
        self.keep_seen();
        self.counters.is_closing.store(true, Ordering::Relaxed);
        // Whatever waits for this client to end, a cursor say, ends with it and is not told apart.
        let closing = async {
            self.client.clone().shutdown().immediate(true).await;
            Ok(())
        };
        // A line that is dead by now is no worse for it.
        let _ = self.patience.attempt(closing).await;
    }

    fn traffic(&self) -> Traffic {
        Traffic {
            round_trips: self.counters.round_trips.load(Ordering::Relaxed),
            command_bytes_sent: self.counters.bytes_sent.load(Ordering::Relaxed),
            command_bytes_received: self.counters.bytes_received.load(Ordering::Relaxed),
            line_bytes_sent: self.patience.meter.sent(),
            line_bytes_received: self.patience.meter.received(),
        }
    }
}
