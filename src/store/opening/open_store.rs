//! Floor 1. Opening a store: in a file, in memory, or on bytes of the caller's own.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::watch;

use super::file_repair::{Found, look_at_file};
use super::prepare::prepare;
use super::upgrade::upgrade;
use crate::store::engine::{Engine, Inner, Notes, RecordLocks, Store, StoreOptions, Writer, WriterLoop};
use crate::store::error::StoreError;
use crate::store::file::{Again, GIVEN_UP, StoreFile, StoreKey, Watched, unpanicked, unreadable};

impl Store {
    /// Opens or creates the store in this file and takes it for this process alone. A file that is no store, or a
    /// damaged one, is [`StoreError::Damaged`] and stays as it is.
    pub fn open(path: &Path, options: StoreOptions) -> Result<Store, StoreError> {
        Store::open_with_key(path, None, options)
    }

    /// The same for an encrypted store; a new one is made encrypted with this key.
    pub fn open_with_key(
        path: &Path,
        key: Option<&StoreKey>,
        options: StoreOptions,
    ) -> Result<Store, StoreError> {
        let opened = unpanicked(|| {
            let found = look_at_file(path, key, options)?;
            upgrade(path, key, options.cache_bytes)?;
            let file = StoreFile::at(path, key);
            let opened = file.clone();
            let open = move |has_failed| opened.open(options.cache_bytes, has_failed);
            let engine = Engine::new(Box::new(open), file.ledger())?;
            Store::start(engine, options, Writer::on_thread, (found, Some(file)))
        });
        opened.map_err(|error| match error {
            StoreError::Damaged(cause) if cause == GIVEN_UP => unreadable(&cause),
            other => other,
        })
    }

    /// A store that lives in memory, for tests.
    pub fn in_memory(options: StoreOptions) -> Result<Store, StoreError> {
        Store::on_backend(redb::backends::InMemoryBackend::new(), options)
    }

    /// Opens or creates a store in bytes of the caller's own, for tests: bytes that can be copied, rolled back
    /// or full. Such a store has no thread and carries out each write where it is asked for, so a test in
    /// virtual time runs the same way every time.
    pub fn on_backend(
        backend: impl redb::StorageBackend,
        options: StoreOptions,
    ) -> Result<Store, StoreError> {
        let backend = Mutex::new(Some(backend));
        Store::on_backends(options, move || {
            let mut backend = backend.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            backend.take().ok_or_else(|| StoreError::Failed("its disk failed".to_owned()))
        })
    }

    /// The same on a disk that can be opened again after it failed.
    pub fn on_backends<B: redb::StorageBackend>(
        options: StoreOptions,
        next: impl Fn() -> Result<B, StoreError> + Send + Sync + 'static,
    ) -> Result<Store, StoreError> {
        let open = move |has_failed| {
            let backend = Watched { backend: next()?, has_failed };
            Ok(redb::Builder::new().set_cache_size(options.cache_bytes).create_with_backend(backend)?)
        };
        Store::start(
            Engine::new(Box::new(open), Arc::default())?,
            options,
            Writer::inline,
            (Found::default(), None),
        )
    }

    /// A store on bytes that are forgotten, to see what becomes of them.
    pub(in crate::store) fn rehearsed(
        backend: Again,
        options: StoreOptions,
        found: Found,
    ) -> Result<Store, StoreError> {
        let backend = Mutex::new(Some(backend));
        let open = move |_| {
            let mut backend = backend.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let backend = backend.take().ok_or_else(|| StoreError::Failed("its disk failed".to_owned()))?;
            Ok(redb::Builder::new().set_cache_size(options.cache_bytes).create_with_backend(backend)?)
        };
        Store::start(Engine::new(Box::new(open), Arc::default())?, options, Writer::inline, (found, None))
    }

    pub(in crate::store) fn start(
        engine: Engine,
        options: StoreOptions,
        writer: fn(WriterLoop) -> Result<Writer, StoreError>,
        (found, file): (Found, Option<StoreFile>),
    ) -> Result<Store, StoreError> {
        let engine = Arc::new(engine);
        let last = {
            let mut tried = engine.writing();
            prepare(&engine.begin_read()?, || engine.begin_write(&mut tried))?
        };
        let (announce, changes) = watch::channel(last);
        let writer = writer(WriterLoop::new(Arc::clone(&engine), options, announce))?;
        let store = Store {
            inner: Arc::new(Inner {
                writer,
                engine,
                changes,
                clock: options.clock,
                options,
                record_locks: RecordLocks::default(),
                notes: Notes::default(),
                space: OnceLock::new(),
                file,
            }),
        };
        store.recall_damage()?;
        found.note(&store)?;
        Ok(store)
    }
}
