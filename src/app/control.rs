//! Floor 5. The control socket: commands on the same machine reach the running node through it.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::http::HeaderValue;
use axum::middleware::{self, Next};
use axum::serve::IncomingStream;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::{AppError, at_path};
use crate::http::{Api, Peer};

/// In every answer over the control socket: the address on which the node listens, as `127.0.0.1:8443`. The configuration may
/// leave the port to the kernel, or the command line may name another address.
pub(crate) const LISTENS_HEADER: &str = "x-listens-on";
/// Name of the Unix socket in the data directory.
const SOCKET_FILE: &str = "control.sock";

/// The control socket of a node with this data directory.
pub fn control_socket(data_dir: &Path) -> PathBuf {
    data_dir.join(SOCKET_FILE)
}

/// The bound socket; its file goes with it.
pub(super) struct Control {
    listener: UnixListener,
    file: SocketFile,
    /// Where the node listens for clients.
    listens_on: SocketAddr,
}

/// Removes the socket's file while the process still has the store, so that nobody else's can be there.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Binds the control socket of a node that listens for clients on `listens_on`; a leftover of a killed process is replaced, which
/// the store's lock makes safe.
pub(super) fn bind(data_dir: &Path, listens_on: SocketAddr) -> Result<Control, AppError> {
    let path = control_socket(data_dir);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at_path(&path)(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(at_path(&path))?;
    let file = SocketFile(path.clone());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(at_path(&path))?;
    Ok(Control { listener, file, listens_on })
}

/// Who connected to the control socket; nobody if the machine does not say.
#[derive(Debug, Clone, Copy)]
struct ControlPeer {
    uid: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for ControlPeer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        ControlPeer { uid: stream.io().peer_cred().ok().map(|credentials| credentials.uid()) }
    }
}

impl Control {
    /// Answers commands until `stop`, and then those under way for at most `drain_max`.
    pub(super) async fn serve(self, api: Api, stop: CancellationToken, drain_max: Duration) {
        let own = rustix::process::geteuid().as_raw();
        let listens_on = self.listens_on;
        let mark = move |ConnectInfo(peer): ConnectInfo<ControlPeer>, mut request: Request, next: Next| async move {
            // The mode of the file says the same, but only once it has been set.
            if let Some(uid) = peer.uid.filter(|uid| *uid == own || *uid == 0) {
                request.extensions_mut().insert(Peer::Operator { uid });
            }
            let mut response = next.run(request).await;
            if let Ok(address) = HeaderValue::from_str(&listens_on.to_string()) {
                response.headers_mut().insert(LISTENS_HEADER, address);
            }
            response
        };
        let marked = Router::new().fallback_service(api).layer(middleware::from_fn(mark));
        let service = marked.into_make_service_with_connect_info::<ControlPeer>();
        let Control { listener, file: _file, .. } = self;
        let served = axum::serve(listener, service).with_graceful_shutdown(stop.clone().cancelled_owned());
        let too_long = async {
            stop.cancelled().await;
            tokio::time::sleep(drain_max).await;
        };
        tokio::select! {
            served = served.into_future() => if let Err(error) = served {
                tracing::error!(%error, "the control socket failed");
            },
            () = too_long => {}
        }
    }
}
