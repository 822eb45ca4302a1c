//! Floor 5. How commands reach a node: the running one through its control socket, or else its store.
//!
//! Both ways lead to the same API as the operator of the machine, so a command does the same on both.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt as _;

use super::terminal::show::plain;
use super::terminal::{EXIT_FAILED, EXIT_REFUSED, Failure};
use crate::app::{App, AppError, LISTENS_HEADER, control_socket, store_file};
use crate::config::Config;
use crate::http::{Api, Peer, api};
use crate::store::{Store, StoreError};
use crate::sync::damaged::set_aside_command;

/// How long a node that holds the store may take to open its socket, or another command to end.
const HELD_S_MAX: u64 = 5;
/// How long a running node may take to say that it lives.
const HELLO_S_MAX: u64 = 10;
/// Pause between two looks at who holds the store.
const LOOK_AGAIN_MS: u64 = 100;
/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Why a command did not reach a node.
#[derive(Debug, thiserror::Error)]
pub(super) enum ControlError {
    #[error(
        "{}: permission denied: run this as root or as the user that runs the node (sudo -u thalamus-edge ...)",
        .0.display()
    )]
    Denied(PathBuf),
    #[error("the store is in use by another thalamus-edge, but no node answers at {}", .0.display())]
    Silent(PathBuf),
    #[error("the store in {} is in use by another thalamus-edge: stop it first", .0.display())]
    Held(PathBuf),
    #[error("there is no store in {}: is this the configuration of the node that you mean?", .0.display())]
    NoStore(PathBuf),
    #[error("the audit trail cannot be written: {0}")]
    NotAudited(StoreError),
    #[error("the node did not answer to the end: {0}")]
    Broken(String),
    #[error(transparent)]
    App(#[from] AppError),
}

/// What becomes of a data directory without a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Create,
    Refuse,
}

/// The way to a node.
pub(super) enum Client {
    /// Through the socket of the running one.
    Running {
        socket: PathBuf,
        /// Where it listens for clients; nothing if it is of a version that does not say.
        listens_on: Option<SocketAddr>,
    },
    /// In this process, which holds the store as long as the client lives.
    Own { api: Api, store: Store, uid: u32 },
}

/// What the API answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Value,
    /// Path of the next page, if the answer is a page and not the last.
    pub(super) next: Option<String>,
    /// Where the running node listens.
    listens_on: Option<SocketAddr>,
}

impl Client {
    /// Finds the running node, or opens its store if there is none.
    pub(super) async fn connect(config: &Config, missing: Missing) -> Result<Client, ControlError> {
        let socket = control_socket(&config.data_dir);
        let deadline = Instant::now() + Duration::from_secs(HELD_S_MAX);
        loop {
            if let Some(running) = answers(&socket).await? {
                return Ok(running);
            }
            match open(config, missing) {
                Ok(app) => {
                    let uid = rustix::process::getuid().as_raw();
                    let store = app.node.store.unguarded().clone();
                    return Ok(Client::Own { api: api(app.node), store, uid });
                }
                Err(ControlError::Held(_)) if Instant::now() < deadline => {}
                Err(ControlError::Held(_)) => return Err(ControlError::Silent(socket)),
                Err(error) => return Err(error),
            }
            sleep(Duration::from_millis(LOOK_AGAIN_MS)).await;
        }
    }

    pub(super) fn is_node_running(&self) -> bool {
        matches!(self, Client::Running { .. })
    }

    /// Where clients find the node: [`Config::base_url`], of the running node by the address on which it listens.
    pub(super) fn base_url(&self, config: &Config) -> String {
        match self {
            Client::Running { listens_on: Some(address), .. } => config.base_url_of(*address),
            Client::Running { listens_on: None, .. } | Client::Own { .. } => config.base_url(),
        }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Answer, ControlError> {
        self.send(Method::GET, path, None, None).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Answer, ControlError> {
        self.send(Method::POST, path, Some(body), None).await
    }

    /// One request; `if_match` is the version that the caller saw.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        if_match: Option<&str>,
    ) -> Result<Answer, ControlError> {
        let broken = |error: String| ControlError::Broken(error);
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
        if let Some(tag) = if_match {
            request = request.header(header::IF_MATCH, tag);
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let mut request = request.body(body).map_err(|e| broken(e.to_string()))?;
        let response = match self {
            Client::Running { socket, .. } => over_socket(socket, request).await?,
            Client::Own { api, store, uid } => {
                request.extensions_mut().insert(Peer::Operator { uid: *uid });
                let response = match api.clone().oneshot(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                };
                store.flush_notes().await.map_err(ControlError::NotAudited)?;
                response
            }
        };
        let status = response.status();
        let next = next_page(response.headers());
        let listens_on = response.headers().get(LISTENS_HEADER).and_then(|at| at.to_str().ok()?.parse().ok());
        let bytes = axum::body::to_bytes(response.into_body(), ANSWER_BYTES_MAX).await;
        let bytes = bytes.map_err(|e| broken(e.to_string()))?;
        let body = match bytes.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        };
        Ok(Answer { status, body, next, listens_on })
    }
}

/// Tables whose rows say what waits, for what, and who is asked about.
pub(super) const OF_QUESTIONS: [(&str, Option<&str>); 8] = [
    ("conflict", None),
    ("hold", None),
    ("held", None),
    ("undecided", None),
    ("waiting", None),
    ("departed", None),
    ("meant", None),
    ("newcomer", None),
];

impl Client {
    /// The rows of these tables that are damaged, so that no list shows them: (table, collection). Each with what takes it
    /// out of the way. What a list came upon is known afterwards.
    pub(super) async fn unreadable(&self, of: &[(&str, Option<&str>)]) -> anyhow::Result<Vec<String>> {
        let status = self.get("/sync/status").await?.accepted()?;
        let rows = status["damaged_rows"].as_array().map_or(&[][..], |rows| rows);
        let is_of = |row: &&Value| {
            of.iter()
                .any(|(table, kind)| row["table"] == *table && kind.is_none_or(|kind| row["kind"] == kind))
        };
        Ok(rows.iter().filter(is_of).map(named).collect())
    }
}

fn named(row: &Value) -> String {
    let [table, id] = ["table", "id"].map(|field| row[field].as_str().unwrap_or_default());
    let command = set_aside_command(table, row["kind"].as_str(), id);
    let what: Vec<_> = [table, row["kind"].as_str().unwrap_or_default(), id].into_iter().map(plain).collect();
    let what: Vec<_> = what.iter().map(String::as_str).filter(|word| !word.is_empty()).collect();
    format!("{}: {}", what.join(" "), command.as_deref().unwrap_or("thalamus-edge doctor"))
}

impl Answer {
    /// The body, or what the API said against it.
    pub(super) fn accepted(self) -> Result<Value, Failure> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        let code = match self.status {
            StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => EXIT_REFUSED,
            _ => EXIT_FAILED,
        };
        let message = match self.body["error"].as_str() {
            Some(sentence) => sentence.to_owned(),
            None => format!("the node answered {}", self.status),
        };
        Err(Failure { code, message })
    }
}

/// The path in a header `Link: <PATH>; rel="next"`.
fn next_page(headers: &HeaderMap) -> Option<String> {
    let link = headers.get(header::LINK)?.to_str().ok()?;
    link.strip_prefix('<')?.strip_suffix(">; rel=\"next\"").map(str::to_owned)
}

/// A path segment that holds any text.
pub(super) fn segment(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Opens the store for this process alone.
pub(super) fn open(config: &Config, missing: Missing) -> Result<App, ControlError> {
    let directory = &config.data_dir;
    let file = store_file(directory);
    match file.try_exists() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(ControlError::Denied(file));
        }
        Ok(false) if missing == Missing::Refuse => return Err(ControlError::NoStore(directory.clone())),
        _ => {}
    }
    App::open(config.clone()).map_err(|error| match error {
        AppError::Store { cause: StoreError::Held, .. } => ControlError::Held(directory.clone()),
        other => ControlError::App(other),
    })
}

/// The node that lives behind the socket, if one does. One that takes connections but says nothing is an error.
async fn answers(socket: &Path) -> Result<Option<Client>, ControlError> {
    match UnixStream::connect(socket).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(ControlError::Denied(socket.to_owned()));
        }
        // No socket, or one that a killed node left behind.
        Err(_) => return Ok(None),
    }
    let client = |listens_on| Client::Running { socket: socket.to_owned(), listens_on };
    match timeout(Duration::from_secs(HELLO_S_MAX), client(None).get("/healthz")).await {
        Ok(Ok(answer)) => Ok(answer.status.is_success().then(|| client(answer.listens_on))),
        // It ended just now.
        Ok(Err(_)) => Ok(None),
        Err(_) => Err(ControlError::Silent(socket.to_owned())),
    }
}

async fn over_socket(
    socket: &Path,
    request: Request<Body>,
) -> Result<axum::response::Response, ControlError> {
    let broken = |error: String| ControlError::Broken(error);
    let stream = UnixStream::connect(socket).await.map_err(|e| broken(e.to_string()))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| broken(e.to_string()))?;
    // Ends with the answer, or with the node.
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(|e| broken(e.to_string()))?;
    Ok(response.map(Body::new))
}
