//! Floor 5. The composition root: opens the store, wires the floors together, serves, shuts down.
//!
//! The only place that reads the clock of the machine.

mod clients;
mod connections;
mod control;
mod heads;
mod held;
mod pace;
mod plain_http;
mod proxies;
mod reading;
mod scrub;
mod tls_records;

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use axum::ServiceExt;
use axum::extract::Request;
use axum_server::Handle;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use chrono::{DateTime, Local, TimeZone as _, Utc};
use hyper_util::rt::TokioTimer;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::connections::Connections;
use self::heads::WatchingHeads;
use self::proxies::Proxies;
use crate::accounts::{Accounts, ENTRIES_AT_START};
use crate::backup::{Backups, Clocks, keep_schedule, parse_schedule};
use crate::central::Hub;
use crate::central::mongo::MongoHub;
use crate::config::{Config, ConfigError};
use crate::files::give_to_owner_of_directory;
use crate::http::{Api, ApiSettings, AppState, BrowserSessions, ClientStore, KnownAccounts, api};
use crate::store::{Store, StoreError, StoreOptions, free_bytes_at};
use crate::sync::schedule::{Schedule, Times};
use crate::sync::{Reconciler, SyncSettings};
use crate::tls::{Tls, TlsError};

/// Longest silence while the head of a request arrives.
const HEADER_READ_S_MAX: u64 = 15;
/// Streams of one HTTP/2 connection.
const HTTP2_STREAMS_MAX: u32 = 32;
/// Bytes of a request's head.
const HEAD_BYTES_MAX: u32 = 16 << 10;
/// The same in HTTP/2, as it counts them: 32 bytes for each field beside its name and value (RFC 9113, 10.5.1). Browsers send
/// 2 KiB with a session. In memory a head takes six times as much.
const HTTP2_HEAD_BYTES_MAX: u32 = 8 << 10;
/// Bytes of bodies that an HTTP/2 client may send before they are read: of a stream, and of a connection. The least that
/// the protocol allows for a connection is one byte less.
const HTTP2_STREAM_WINDOW: u32 = 64 << 10;
const HTTP2_CONNECTION_WINDOW: u32 = 64 << 10;
/// Bytes of an answer that HTTP/2 takes over before they are sent.
const HTTP2_SEND_BYTES_MAX: usize = 64 << 10;
/// How often an HTTP/2 client is asked whether it is still there, and how long it may take to say so.
const HTTP2_PING: Duration = Duration::from_secs(20);
/// How long requests in flight may take to end after the signal to stop.
const SHUTDOWN_S_MAX: u64 = 30;
const SHUTDOWN_MAX: Duration = Duration::from_secs(SHUTDOWN_S_MAX);
/// How often the certificate's files are compared with what is served.
const TLS_RELOAD_S: u64 = 60;
/// How long the centre may have nothing to say on a connection that stays open: each answer is some hundred
/// bytes.
const CONTINUOUS_FEED_WAIT: Duration = Duration::from_secs(10);
/// How long a read may be known in memory only.
const NOTES_FLUSH: Duration = Duration::from_secs(1);
/// How often the costs of password hashes are counted.
const COSTS_STEP: Duration = Duration::from_secs(60 * 60);
/// How long a node whose store has given up says so before it ends.
const GIVEN_UP_PAUSE: Duration = Duration::from_secs(2);
/// Name of the store's file in the data directory.
const STORE_FILE: &str = "store.redb";
/// What the group may not do in the data directory, and others nothing at all.
const DIRECTORY_FORBIDDEN_MODE: u32 = 0o027;

pub(crate) use control::LISTENS_HEADER;
pub use control::control_socket;

/// Why a node did not start or stopped serving.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{}: {cause}", path.display())]
    Path { path: PathBuf, cause: io::Error },
    #[error("{}: {cause}", path.display())]
    Store { path: PathBuf, cause: StoreError },
    #[error("cannot listen on {address}: {cause}{}", listen_advice(cause))]
    Listen { address: SocketAddr, cause: io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("central.schedule or central.verify_schedule: {0}")]
    Schedule(String),
    #[error("{0}")]
    System(#[from] io::Error),
}

fn listen_advice(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::AddrInUse => ": another program listens there; `ss -ltnp` says which",
        io::ErrorKind::PermissionDenied => {
            ": ports below 1024 are for root: take a higher one, or give the service \
             AmbientCapabilities=CAP_NET_BIND_SERVICE"
        }
        _ => "",
    }
}

/// Milliseconds since 1970 by the machine's clock.
#[allow(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Seconds that the machine's local time is ahead of UTC at `ms` since 1970: people's day, for what waits for
/// an hour of it.
pub fn local_ahead_s(ms: i64) -> i32 {
    let at = DateTime::<Utc>::from_timestamp_millis(ms).unwrap_or_default();
    Local.offset_from_utc_datetime(&at.naive_utc()).local_minus_utc()
}

fn at_path(path: &Path) -> impl Fn(io::Error) -> AppError {
    move |cause| AppError::Path { path: path.to_owned(), cause }
}

/// A node that is wired together but not serving: what `serve` and the commands work on.
pub struct App {
    pub config: Config,
    pub node: Arc<AppState>,
}

impl App {
    /// Opens the store and wires everything. Fails with [`StoreError::Held`] while another process has it.
    pub fn open(config: Config) -> Result<App, AppError> {
        // Both providers may be in the dependency graph one day; the choice is made here.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (acl, _) = config.acl()?;
        let store = open_store(&config)?;
        let settings = SyncSettings { utc_offset: local_ahead_s, ..config.sync_settings() };
        let hub = config.centre()?.map(|address| {
            let hub = MongoHub::new(address).counting_command_bytes(tracing::enabled!(tracing::Level::DEBUG));
            let hub = if settings.continuous { hub.with_feed_wait(CONTINUOUS_FEED_WAIT) } else { hub };
            Arc::new(hub) as Arc<dyn Hub>
        });
        let sync = Reconciler::new(store.clone(), hub, settings);
        let mut form_key = [0; 32];
        getrandom::fill(&mut form_key).map_err(|e| io::Error::other(e.to_string()))?;
        let node = AppState {
            backups: Backups::new(store.clone(), config.backup_settings()),
            store: ClientStore::new(store),
            accounts: Accounts::new(config.accounts_settings())?,
            known_accounts: KnownAccounts::default(),
            acl: RwLock::new(Arc::new(acl)),
            settings: api_settings(&config),
            sync,
            form_key,
            unsettled_rules: Default::default(),
        };
        Ok(App { config, node: Arc::new(node) })
    }

    /// Serves until SIGTERM or SIGINT, then finishes what is in flight.
    ///
    /// Whatever fails at the start, nothing stays behind: sockets and tasks end with this call.
    pub async fn serve(self) -> Result<(), AppError> {
        // Before anything else, so that no signal is lost that comes during the start.
        let signals = Signals::install()?;
        let api = api(Arc::clone(&self.node));
        let listener = self.listen()?;
        let tls = self.config.tls_settings().map(|settings| Tls::load(settings, clock())).transpose()?;
        let tls = tls.map(Arc::new);
        // Only a node that has its port answers commands.
        let control = control::bind(&self.config.data_dir, listener.local_addr()?)?;
        let schedule = self.start_schedule().await?;
        let _backups = self.start_backups();
        let handle = Handle::new();
        let stop = CancellationToken::new();
        let watch = signals.watch(
            self.config.clone(),
            Arc::clone(&self.node),
            tls.clone(),
            handle.clone(),
            stop.clone(),
        );
        let _watch = AbortOnDropHandle::new(tokio::spawn(watch));
        let store = self.node.store.unguarded().clone();
        // A node whose disk is full serves reads all the same.
        if let Err(error) = store.begin_service(env!("CARGO_PKG_VERSION")).await {
            tracing::error!(%error, "the start is not in the audit trail");
        }
        if let Err(error) = self.node.begin_with_rules().await {
            tracing::error!(%error, "{RULES_UNSETTLED}");
        }
        let _scrub = self.start_scrub(&store);
        if let Err(error) = self.node.accounts.prepare_costs(&store).await {
            tracing::warn!(%error, "names that nobody has take other times with each start");
        }
        remember_logins(Arc::clone(&self.node), ENTRIES_AT_START).await;
        let _costs = AbortOnDropHandle::new(tokio::spawn(learn_costs(Arc::clone(&self.node))));
        let _given_up =
            AbortOnDropHandle::new(tokio::spawn(end_with(store.clone(), handle.clone(), stop.clone())));
        let _notes = AbortOnDropHandle::new(tokio::spawn(flush_notes(store.clone())));
        let _logins =
            AbortOnDropHandle::new(tokio::spawn(remember_logins(Arc::clone(&self.node), usize::MAX)));
        announce(&handle, tls.is_some());
        let tcp = async {
            let proxies = Proxies::new(self.config.trusted_proxies(), self.config.server.proxy_header);
            let body_bytes_max =
                self.node.settings.content_limit_bytes.max(self.node.settings.body_limit_bytes);
            let connections = Connections::within_descriptors(proxies, body_bytes_max);
            let served = serve_tcp(listener, api.clone(), tls.as_deref(), handle, connections).await;
            stop.cancel();
            served
        };
        let (served, ()) = tokio::join!(tcp, control.serve(api.clone(), stop.clone(), SHUTDOWN_MAX));
        if let Some(schedule) = schedule {
            schedule.stop().await;
        }
        if store.has_given_up() {
            return Err(AppError::Store {
                path: store_file(&self.config.data_dir),
                cause: StoreError::GivenUp,
            });
        }
        if let Err(error) = store.settle_damage().await {
            tracing::warn!(%error, "which rows are damaged is not noted");
        }
        if let Err(error) = store.end_service().await {
            tracing::error!(%error, "the audit trail has no orderly end: the next start will say so");
        }
        served?;
        tracing::info!("stopped");
        Ok(())
    }

    /// `None` if no backups are to be made.
    fn start_backups(&self) -> Option<AbortOnDropHandle<()>> {
        let schedule = parse_schedule(&self.config.backup.schedule)?;
        let clocks = Clocks { now_ms, utc_offset: local_ahead_s };
        let kept = keep_schedule(Arc::clone(&self.node.backups), schedule, clocks);
        Some(AbortOnDropHandle::new(tokio::spawn(kept)))
    }

    /// Reads every row once in `scrub_days`; `None` if that is 0.
    fn start_scrub(&self, store: &Store) -> Option<AbortOnDropHandle<()>> {
        let days = self.config.store.scrub_days;
        let path = store_file(&self.config.data_dir);
        (days > 0).then(|| AbortOnDropHandle::new(tokio::spawn(scrub::scrub(store.clone(), path, days))))
    }

    fn listen(&self) -> Result<TcpListener, AppError> {
        let address = self.config.server.listen;
        let listen = |cause| AppError::Listen { address, cause };
        let listener = TcpListener::bind(address).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        Ok(listener)
    }

    async fn start_schedule(&self) -> Result<Option<Schedule>, AppError> {
        if !self.node.sync.is_configured() {
            return Ok(None);
        }
        let central = &self.config.central;
        let sync = Arc::clone(&self.node.sync);
        let times = Times {
            rounds: &central.schedule,
            rounds_without_feed: central.schedule_without_feed(),
            verification: &central.verify_schedule,
            jitter: central.jitter(),
        };
        let schedule = Schedule::start(sync, times).await;
        if self.config.sync_settings().continuous {
            // Not only when the schedule says so: the first round makes the connection that then stays.
            let sync = Arc::clone(&self.node.sync);
            tokio::spawn(async move { sync.round().await });
        }
        schedule.map(Some).map_err(|error| AppError::Schedule(error.to_string()))
    }
}

/// Writes what was noted for the audit trail, every second and sooner when it is much.
async fn flush_notes(store: Store) {
    let (mut is_failing, mut damaged) = (false, store.damaged_rows());
    loop {
        tokio::select! {
            () = tokio::time::sleep(NOTES_FLUSH) => {}
            () = store.notes_are_many() => {}
        }
        // What readers came upon is known to the next process too.
        if store.damaged_rows() != damaged && store.settle_damage().await.is_ok() {
            damaged = store.damaged_rows();
        }
        match store.flush_notes().await {
            Ok(()) => is_failing = false,
            Err(error) => {
                if !is_failing {
                    tracing::error!(%error, "reads cannot be written to the audit trail: it will say that there is a gap");
                }
                is_failing = true;
            }
        }
    }
}

/// Reads from the latest entries of the trail from where people have logged in.
async fn remember_logins(node: Arc<AppState>, entries_max: usize) {
    let store = node.store.unguarded();
    if let Err(error) = node.accounts.remember_logins(store, now_ms(), entries_max).await {
        tracing::warn!(%error, "from where people have logged in is not known before they do so again");
    }
}

/// Looks now and then at what logins cost, so that names that nobody has cost as much.
async fn learn_costs(node: Arc<AppState>) {
    loop {
        if let Err(error) = node.accounts.learn_costs(node.store.unguarded()).await {
            tracing::warn!(%error, "the costs of password hashes could not be counted");
        }
        tokio::time::sleep(COSTS_STEP).await;
    }
}

fn api_settings(config: &Config) -> ApiSettings {
    ApiSettings {
        date_format: config.api.date_format,
        collection_shape: config.api.collection_shape,
        expose_password_hashes: config.api.expose_password_hashes,
        serves_https: config.server.tls,
        cors_allowed_origins: config.api.cors_allowed_origins.clone(),
        body_limit_bytes: usize::try_from(config.api.body_limit_bytes).unwrap_or(usize::MAX),
        content_limit_bytes: usize::try_from(config.api.content_limit_bytes).unwrap_or(usize::MAX),
        record_limit_bytes: usize::try_from(config.api.record_limit_bytes).unwrap_or(usize::MAX),
        central_roles: config.accounts.central_roles.clone(),
        active_from_centre: config.accounts.active_from_centre,
        emergency_access: config.accounts.emergency_access,
        browser_sessions: browser_sessions(config),
    }
}

/// On the machine itself, where a proxy may stand that speaks HTTPS, plain HTTP is read by nobody else.
fn browser_sessions(config: &Config) -> BrowserSessions {
    let is_private = config.server.tls || config.server.listen.ip().is_loopback();
    match (config.accounts.browser_sessions, is_private) {
        (false, _) => BrowserSessions::Off,
        (true, false) => BrowserSessions::OverPlainHttp,
        (true, true) => BrowserSessions::On,
    }
}

/// Why a data directory that is open to others cannot be closed by this user.
pub fn not_ours_to_close(directory: &Path) -> Option<String> {
    let about = fs::metadata(directory).ok()?;
    let user = rustix::process::geteuid().as_raw();
    let is_open = about.mode() & DIRECTORY_FORBIDDEN_MODE != 0;
    (is_open && user != 0 && about.uid() != user).then(|| {
        format!(
            "{} is open to other users (mode {:03o}) and belongs to user {}, not to user {user}, who runs this: as root, \
             chown {user} and chmod 750 it",
            directory.display(),
            about.mode() & 0o777,
            about.uid()
        )
    })
}

/// Makes the data directory if it is not there, and closes it to others.
pub fn make_data_dir(directory: &Path) -> Result<(), AppError> {
    fs::create_dir_all(directory).map_err(at_path(directory))?;
    let mode = fs::metadata(directory).map_err(at_path(directory))?.mode();
    if mode & DIRECTORY_FORBIDDEN_MODE != 0 {
        if let Some(why) = not_ours_to_close(directory) {
            let cause = io::Error::new(io::ErrorKind::PermissionDenied, why);
            return Err(AppError::System(cause));
        }
        fs::set_permissions(directory, fs::Permissions::from_mode(0o750)).map_err(at_path(directory))?;
    }
    Ok(())
}

/// How the store is opened.
pub fn store_options(config: &Config) -> StoreOptions {
    StoreOptions {
        cache_bytes: usize::try_from(config.store.cache_bytes).unwrap_or(usize::MAX),
        journal_keep_rows: config.store.journal_keep_rows,
        audit_keep_rows: config.store.audit_keep_rows,
        clock: now_ms,
    }
}

fn open_store(config: &Config) -> Result<Store, AppError> {
    let directory = &config.data_dir;
    make_data_dir(directory)?;
    let path = store_file(directory);
    let options = store_options(config);
    let key = config.store_key()?;
    let store = Store::open_with_key(&path, key.as_ref(), options)
        .map_err(|cause| AppError::Store { path: path.clone(), cause })?;
    store.keep_free(config.store.reserve_bytes, free_bytes_at(&path));
    store.keep_audit_for(config.store.audit_keep_days);
    store.set_active_from_centre(config.accounts.active_from_centre);
    // Records of patients: for the service's own user only.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(at_path(&path))?;
    // A command that root runs may have made it.
    give_to_owner_of_directory(&path).map_err(at_path(&path))?;
    Ok(store)
}

/// The store's file in this data directory.
pub fn store_file(data_dir: &Path) -> PathBuf {
    data_dir.join(STORE_FILE)
}

/// The machine's time, for certificates.
#[allow(clippy::disallowed_methods, reason = "the one place that reads the clock")]
fn clock() -> SystemTime {
    SystemTime::now()
}

async fn serve_tcp(
    listener: TcpListener,
    api: Api,
    tls: Option<&Tls>,
    handle: Handle<SocketAddr>,
    connections: Connections,
) -> Result<(), AppError> {
    let service = ServiceExt::<Request>::into_make_service(api);
    let header_read = Duration::from_secs(HEADER_READ_S_MAX);
    let mut server = axum_server::from_tcp(listener)?.handle(handle).first_request_timeout(header_read);
    let http = server.http_builder();
    let timer = TokioTimer::new();
    let head_bytes = usize::try_from(HEAD_BYTES_MAX).unwrap_or(usize::MAX);
    http.http1().timer(timer.clone()).header_read_timeout(header_read).max_buf_size(head_bytes);
    http.http2()
        .timer(timer)
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_header_list_size(HTTP2_HEAD_BYTES_MAX)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
        .max_send_buf_size(HTTP2_SEND_BYTES_MAX)
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING);
    let _watch = AbortOnDropHandle::new(tokio::spawn(Arc::clone(connections.clients()).watch()));
    match tls {
        Some(tls) => {
            let acceptor = RustlsAcceptor::new(RustlsConfig::from_config(tls.server_config()?));
            server.acceptor(WatchingHeads(acceptor.acceptor(connections.for_https()))).serve(service).await?;
        }
        None => server.acceptor(WatchingHeads(connections)).serve(service).await?,
    }
    Ok(())
}

/// Says where the node listens, to people and to systemd, once it does.
fn announce(handle: &Handle<SocketAddr>, is_tls: bool) {
    let handle = handle.clone();
    tokio::spawn(async move {
        if let Some(address) = handle.listening().await {
            let scheme = if is_tls { "https" } else { "http" };
            // Plain on standard error, whatever the log's format: scripts wait for this line.
            eprintln!("listening on {scheme}://{address}");
            if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
                tracing::warn!(%error, "systemd was not told that the node is ready");
            }
        }
    });
}

/// What the machine tells the node.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn install() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// SIGTERM and SIGINT stop, SIGHUP reloads access rules and certificates; time renews certificates.
    async fn watch(
        mut self,
        config: Config,
        node: Arc<AppState>,
        tls: Option<Arc<Tls>>,
        handle: Handle<SocketAddr>,
        stop: CancellationToken,
    ) {
        let mut minutes = tokio::time::interval(Duration::from_secs(TLS_RELOAD_S));
        loop {
            let is_asked = tokio::select! {
                _ = self.terminate.recv() => break,
                _ = self.interrupt.recv() => break,
                _ = self.hangup.recv() => {
                    reload_rules(&config, &node).await;
                    true
                }
                _ = minutes.tick() => {
                    node.end_old_sessions();
                    settle_rules(&node).await;
                    false
                }
            };
            if let Some(tls) = &tls {
                tls.refresh(clock(), is_asked);
            }
        }
        tracing::info!("stopping");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        stop.cancel();
        handle.graceful_shutdown(Some(SHUTDOWN_MAX));
    }
}

/// Ends the node once its store takes nothing any more; the service manager starts it again.
async fn end_with(store: Store, handle: Handle<SocketAddr>, stop: CancellationToken) {
    if store.given_up().wait_for(|given_up| *given_up).await.is_ok() {
        // Time for those who were writing to be told.
        tokio::time::sleep(GIVEN_UP_PAUSE).await;
        tracing::error!("stopping, because the store takes nothing any more");
        stop.cancel();
        handle.graceful_shutdown(Some(SHUTDOWN_MAX));
    }
}

const RULES_UNSETTLED: &str = "which emergencies and links the access rules have ended is not in the store yet: they are \
                               over, and it is tried again every minute";

async fn settle_rules(node: &Arc<AppState>) {
    if let Err(error) = node.settle_rules().await {
        tracing::error!(%error, "{RULES_UNSETTLED}");
    }
}

async fn reload_rules(config: &Config, node: &Arc<AppState>) {
    match config.acl() {
        Ok((acl, warnings)) => {
            for warning in warnings {
                tracing::warn!("access rules: {warning}");
            }
            if let Err(error) = node.replace_rules(acl).await {
                tracing::error!(%error, "{RULES_UNSETTLED}");
            }
            tracing::info!("access rules reloaded");
        }
        Err(error) => {
            tracing::error!(%error, "the access rules were not reloaded; the old ones stay in force")
        }
    }
}
