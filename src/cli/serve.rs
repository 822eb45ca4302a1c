//! Floor 5. The `serve` command: the node itself.

use std::net::Ipv4Addr;

use super::check;
use super::terminal::show::plain;
use super::terminal::{Done, Failure};
use crate::app::{App, AppError};
use crate::config::{ConfigError, Loaded};
use crate::demo;
use crate::files::is_no_room;

pub(super) async fn serve(loaded: Loaded, is_demo: bool) -> anyhow::Result<Done> {
    let examined = check::startable(&loaded)?;
    for warning in examined.logged_before_start() {
        tracing::warn!("{}", plain(&warning));
    }
    let is_told_where = loaded.has("server.listen");
    let config = loaded.config;
    if is_demo && !config.is_centre_local()? {
        let message = "--demo: the centre (central.uri) is not on this machine, and demo people must not reach a real one";
        return Err(Failure::usage(message).into());
    }
    let mut app = App::open(config).map_err(start_failure)?;
    if is_demo {
        let uid = rustix::process::getuid().as_raw();
        // The demo is the first to write, so it finds what every client would find.
        let reserve =
            examined.faults.iter().find(|fault| fault.key.as_deref() == Some("store.reserve_bytes"));
        let filled = demo::fill(app.node.store.unguarded(), uid).await;
        if let (Err(_), Some(fault)) = (&filled, reserve) {
            return Err(ConfigError::Faults(vec![fault.clone()]).into());
        }
        if filled? {
            eprintln!("--demo: demo records added");
            eprintln!("--demo: their passwords are public: everybody who reaches this node is root on it");
        } else {
            eprintln!("--demo: the store has records already and was left as it is");
            eprintln!("--demo: if they are the demo's, their passwords are public");
        }
    }
    // As long as everybody knows how to log in, nobody but this machine gets to the login, unless somebody decided so.
    let listen = &mut app.config.server.listen;
    let public = {
        // Let go at once: as long as there is a view, its pages are not used again.
        let view = app.node.store.read()?;
        demo::accounts_with_public_password(&view)
    };
    if !public.is_empty() && !is_told_where && !listen.ip().is_loopback() {
        listen.set_ip(Ipv4Addr::LOCALHOST.into());
        tracing::warn!(
            "listening on {listen} only, because of accounts of the demo with public passwords; [server] listen changes that"
        );
    }
    app.serve().await.map_err(start_failure)?;
    Ok(Done::text(""))
}

/// What keeps a node from starting until somebody changes the configuration or what it points to ends with the code of a
/// wrong configuration, whether `check` can find it or not: starting again would not help. What may pass does not.
fn start_failure(error: AppError) -> anyhow::Error {
    let is_lasting = match &error {
        AppError::Config(_) | AppError::Listen { .. } | AppError::Tls(_) | AppError::Schedule(_) => true,
        AppError::Path { cause, .. } => !is_no_room(cause),
        AppError::Store { cause, .. } => cause.is_lasting(),
        AppError::System(_) => false,
    };
    match is_lasting {
        true => Failure::usage(format!("{error:#}")).into(),
        false => error.into(),
    }
}
