//! Floor 5. The composition root: opens the store, wires the floors together, serves, shuts down.
//!
//! The only place that reads the clock of the machine.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::middleware::{self, Next};
use axum::serve::IncomingStream;
use axum_server::Handle;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use hyper_util::rt::TokioTimer;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::accounts::Accounts;
use crate::central::Hub;
use crate::central::mongo::MongoHub;
use crate::config::{Config, ConfigError};
use crate::http::{ApiSettings, Node, Peer, router};
use crate::store::{Store, StoreError, StoreOptions};
use crate::sync::schedule::Schedule;
use crate::sync::{Reconciler, SyncSettings};
use crate::tls::{Tls, TlsError};

/// Longest silence while the head of a request arrives.
const HEADER_READ_S_MAX: u64 = 15;
/// Streams of one HTTP/2 connection.
const HTTP2_STREAMS_MAX: u32 = 64;
/// How long requests in flight may take to end after the signal to stop.
const SHUTDOWN_S_MAX: u64 = 30;
/// How often the certificate's files are compared with what is served.
const TLS_RELOAD_S: u64 = 60;
/// Name of the store's file in the data directory.
const STORE_FILE: &str = "store.redb";
/// Name of the Unix socket that commands talk to.
const SOCKET_FILE: &str = "control.sock";

/// Why a node did not start or stopped serving.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{}: {cause}", path.display())]
    Path { path: PathBuf, cause: io::Error },
    #[error("{}: {cause}", path.display())]
    Store { path: PathBuf, cause: StoreError },
    #[error("cannot listen on {address}: {cause}")]
    Listen { address: SocketAddr, cause: io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("central.schedule: {0}")]
    Schedule(String),
    #[error("{0}")]
    System(#[from] io::Error),
}

/// Milliseconds since 1970 by the machine's clock.
#[allow(clippy::disallowed_methods, reason = "the one place that reads the clock")]
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn at_path(path: &Path) -> impl Fn(io::Error) -> AppError {
    move |cause| AppError::Path { path: path.to_owned(), cause }
}

/// A node that is wired together but not serving: what `serve` and the commands work on.
pub struct App {
    pub config: Config,
    pub node: Arc<Node>,
    /// Warnings about the access rules, for whoever started the node.
    pub warnings: Vec<String>,
}

impl App {
    /// Opens the store and wires everything. Fails with [`StoreError::Held`] while another process has it.
    pub fn open(config: Config) -> Result<App, AppError> {
        // Both providers may be in the dependency graph one day; the choice is made here.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (acl, warnings) = config.acl()?;
        let store = open_store(&config)?;
        let hub = config.centre()?.map(|address| Arc::new(MongoHub::new(address)) as Arc<dyn Hub>);
        let settings =
            SyncSettings { node_name: config.node.name.clone(), round_timeout: config.central.round_timeout() };
        let sync = Reconciler::new(store.clone(), hub, settings);
        let mut form_key = [0; 32];
        getrandom::fill(&mut form_key).map_err(|e| io::Error::other(e.to_string()))?;
        let node = Node {
            store,
            accounts: Accounts::new(config.accounts_settings())?,
            acl: RwLock::new(Arc::new(acl)),
            settings: api_settings(&config),
            sync,
            form_key,
        };
        Ok(App { config, node: Arc::new(node), warnings })
    }

    /// Serves until SIGTERM or SIGINT, then finishes what is in flight.
    pub async fn serve(self) -> Result<(), AppError> {
        for warning in &self.warnings {
            tracing::warn!("access rules: {warning}");
        }
        let handle = Handle::new();
        let api = router(Arc::clone(&self.node));
        let listener = self.listen()?;
        let tls = self.config.tls_settings().map(|settings| Tls::load(settings, clock())).transpose()?;
        let control = tokio::spawn(serve_control(bind_control(&self.config.data_dir)?, api.clone()));
        let schedule = self.start_schedule().await?;
        let tls = tls.map(Arc::new);
        let signals = tokio::spawn(watch_signals(self.config.clone(), Arc::clone(&self.node), tls.clone(), handle.clone()));
        announce(&handle, tls.is_some());
        serve_tcp(listener, api, tls.as_deref(), handle).await?;
        signals.abort();
        if let Some(schedule) = schedule {
            schedule.stop().await;
        }
        control.abort();
        let _ = fs::remove_file(self.config.data_dir.join(SOCKET_FILE));
        tracing::info!("stopped");
        Ok(())
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
        let schedule = Schedule::start(sync, &central.schedule, central.jitter()).await;
        schedule.map(Some).map_err(|error| AppError::Schedule(error.to_string()))
    }
}

fn api_settings(config: &Config) -> ApiSettings {
    ApiSettings {
        date_format: config.api.date_format,
        collection_shape: config.api.collection_shape,
        expose_password_hashes: config.api.expose_password_hashes,
        cors_allowed_origins: config.api.cors_allowed_origins.clone(),
        body_limit_bytes: usize::try_from(config.api.body_limit_bytes).unwrap_or(usize::MAX),
        content_limit_bytes: usize::try_from(config.api.content_limit_bytes).unwrap_or(usize::MAX),
        central_roles: config.accounts.central_roles.clone(),
    }
}

fn open_store(config: &Config) -> Result<Store, AppError> {
    let directory = &config.data_dir;
    fs::create_dir_all(directory).map_err(at_path(directory))?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o750)).map_err(at_path(directory))?;
    let path = directory.join(STORE_FILE);
    let options = StoreOptions {
        cache_bytes: usize::try_from(config.store.cache_bytes).unwrap_or(usize::MAX),
        journal_keep_rows: config.store.journal_keep_rows,
        clock: now_ms,
    };
    let store = Store::open(&path, options).map_err(|cause| AppError::Store { path: path.clone(), cause })?;
    // Records of patients: for the service's own user only.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(at_path(&path))?;
    Ok(store)
}

/// The machine's time, for certificates.
#[allow(clippy::disallowed_methods, reason = "the one place that reads the clock")]
fn clock() -> SystemTime {
    SystemTime::now()
}

/// The control socket of a node with this data directory.
pub fn control_socket(data_dir: &Path) -> PathBuf {
    data_dir.join(SOCKET_FILE)
}

/// Binds the control socket; a leftover of a killed process is replaced, which the store's lock makes safe.
fn bind_control(data_dir: &Path) -> Result<UnixListener, AppError> {
    let path = control_socket(data_dir);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at_path(&path)(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(at_path(&path))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(at_path(&path))?;
    Ok(listener)
}

/// Who connected to the control socket.
#[derive(Debug, Clone, Copy)]
struct ControlPeer {
    uid: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for ControlPeer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        ControlPeer { uid: stream.io().peer_cred().ok().map(|credentials| credentials.uid()) }
    }
}

async fn serve_control(listener: UnixListener, api: Router) {
    let mark = |ConnectInfo(peer): ConnectInfo<ControlPeer>, mut request: Request, next: Next| async move {
        if let Some(uid) = peer.uid {
            request.extensions_mut().insert(Peer::Operator { uid });
        }
        next.run(request).await
    };
    let service = api.layer(middleware::from_fn(mark)).into_make_service_with_connect_info::<ControlPeer>();
    if let Err(error) = axum::serve(listener, service).await {
        tracing::error!(%error, "the control socket failed");
    }
}

async fn serve_tcp(
    listener: TcpListener,
    api: Router,
    tls: Option<&Tls>,
    handle: Handle<SocketAddr>,
) -> Result<(), AppError> {
    let mark = |ConnectInfo(peer): ConnectInfo<SocketAddr>, mut request: Request, next: Next| async move {
        request.extensions_mut().insert(Peer::Address(peer.ip().to_canonical()));
        next.run(request).await
    };
    let service = api.layer(middleware::from_fn(mark)).into_make_service_with_connect_info::<SocketAddr>();
    let mut server = axum_server::from_tcp(listener)?.handle(handle);
    let http = server.http_builder();
    let timer = TokioTimer::new();
    http.http1().timer(timer.clone()).header_read_timeout(Duration::from_secs(HEADER_READ_S_MAX));
    http.http2().timer(timer).max_concurrent_streams(HTTP2_STREAMS_MAX);
    match tls {
        Some(tls) => {
            let acceptor = RustlsAcceptor::new(RustlsConfig::from_config(tls.server_config()?));
            server.acceptor(acceptor).serve(service).await?;
        }
        None => server.serve(service).await?,
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

/// SIGTERM and SIGINT stop, SIGHUP reloads access rules and certificates; time renews certificates.
async fn watch_signals(config: Config, node: Arc<Node>, tls: Option<Arc<Tls>>, handle: Handle<SocketAddr>) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut minutes = tokio::time::interval(Duration::from_secs(TLS_RELOAD_S));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload_rules(&config, &node),
            _ = minutes.tick() => {}
        }
        if let Some(tls) = &tls {
            refresh_certificate(tls);
        }
    }
    tracing::info!("stopping");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    handle.graceful_shutdown(Some(Duration::from_secs(SHUTDOWN_S_MAX)));
    Ok(())
}

fn reload_rules(config: &Config, node: &Node) {
    match config.acl() {
        Ok((acl, warnings)) => {
            for warning in warnings {
                tracing::warn!("access rules: {warning}");
            }
            let mut rules = node.acl.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            *rules = Arc::new(acl);
            tracing::info!("access rules reloaded");
        }
        Err(error) => tracing::error!(%error, "the access rules were not reloaded; the old ones stay in force"),
    }
}

fn refresh_certificate(tls: &Tls) {
    let outcome = tls.renew_if_due(clock()).and_then(|renewed| Ok(tls.reload()? || renewed));
    match outcome {
        Ok(true) => tracing::info!("the certificate has been replaced"),
        Ok(false) => {}
        Err(error) => tracing::error!(%error, "the certificate was not reloaded; the old one stays in force"),
    }
}
