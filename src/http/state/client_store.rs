//! Floor 4. The store as requests have it: all may read, and every write goes by the right of its caller.

use std::sync::Arc;

use crate::domain::audit::Event;
use crate::store::{Asker, Charge, Edit, EditError, Snapshot, Store, StoreError, Tx, Unnoted, asked_by};

/// The store as requests have it: everything can be read. Writes go through `Caller::writes`, so that none is made
/// without the rights by which it may be.
#[derive(Clone)]
pub struct ClientStore(Store);

impl ClientStore {
    pub fn new(store: Store) -> ClientStore {
        ClientStore(store)
    }

    /// The store itself, for the process that serves it. In `http` only `auth/access_rules.rs` calls it, for what new
    /// rules end (`tests/architecture.rs`).
    pub fn unguarded(&self) -> &Store {
        &self.0
    }

    pub fn read(&self) -> Result<Arc<Snapshot>, StoreError> {
        self.0.read()
    }

    pub fn now_ms(&self) -> i64 {
        self.0.now_ms()
    }

    /// [`Store::changes`].
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.changes()
    }

    /// [`Store::note`].
    pub fn note(&self, event: Event) {
        self.0.note(event);
    }

    /// [`Store::note_read`].
    pub fn note_read(&self, event: Event, take: impl FnOnce(&str) -> Result<(), u64>) -> Result<(), Unnoted> {
        self.0.note_read(event, take)
    }

    /// [`Store::note_read_in_time`].
    pub async fn note_read_in_time(
        &self,
        event: Box<Event>,
        take: impl Fn(&str) -> Result<(), u64>,
    ) -> Result<(), Unnoted> {
        self.0.note_read_in_time(event, take).await
    }

    /// [`Store::note_on_disk`].
    pub async fn note_on_disk(&self, event: Event) -> Result<(), StoreError> {
        self.0.note_on_disk(event).await
    }

    /// [`Store::flush_notes`].
    pub async fn flush_notes(&self) -> Result<(), StoreError> {
        self.0.flush_notes().await
    }

    /// [`Store::claim`].
    pub fn claim(&self, bytes: u64) -> Result<crate::store::Claim<'_>, StoreError> {
        self.0.claim(bytes)
    }

    /// [`Store::turn`].
    pub async fn turn(&self, kind: crate::domain::record::Kind, id: &str) -> Option<crate::store::Share> {
        self.0.turn(kind, id).await
    }

    pub(crate) fn shortage(&self) -> Option<crate::store::Shortage> {
        self.0.shortage()
    }

    pub(crate) fn has_given_up(&self) -> bool {
        self.0.has_given_up()
    }

    pub(crate) fn has_broken_pages(&self) -> bool {
        self.0.has_broken_pages()
    }

    pub(crate) fn damaged_trash(&self) -> usize {
        self.0.damaged_trash()
    }

    pub(crate) fn damaged_rows(&self) -> Vec<crate::store::DamagedRow> {
        self.0.damaged_rows()
    }

    pub(crate) fn damaged_records(&self, kind: crate::domain::record::Kind) -> usize {
        self.0.damaged_records(kind)
    }

    pub(crate) fn bits_put_right(&self) -> Result<Option<crate::store::BitsPutRight>, StoreError> {
        self.0.bits_put_right()
    }
}

/// The store for the writes of one request, each of which is refused once its right no longer holds.
pub(crate) struct Writes<'a> {
    store: &'a Store,
    asker: Asker,
}

impl<'a> Writes<'a> {
    /// By another right than that of a caller.
    pub(crate) fn by(store: &'a ClientStore, asker: Asker) -> Writes<'a> {
        Writes { store: &store.0, asker }
    }

    /// [`Store::transact`].
    pub(crate) async fn transact<T, E, F>(self, job: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        asked_by(self.asker, self.store.transact(job)).await
    }

    /// [`Store::edit`].
    pub(crate) async fn edit(self, edit: Edit) -> Result<(), EditError> {
        asked_by(self.asker, self.store.edit(edit)).await
    }

    /// With what is counted for it until it is done, also if the client goes away meanwhile.
    pub(crate) fn charged<W: Send + Sync + 'static>(mut self, work: &Arc<W>) -> Self {
        self.asker.charge = Charge::of(Arc::clone(work));
        self
    }

    /// Work of the floors below that writes.
    pub(crate) async fn through<F, T>(self, work: F) -> T
    where
        F: AsyncFnOnce(&Store) -> T,
    {
        asked_by(self.asker, work(self.store)).await
    }
}
