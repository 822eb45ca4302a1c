//! Floor 2. What a conversation costs, and who answers it, as the driver's events tell.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bson::{Document, RawDocumentBuf};
use mongodb::ServerType;
use mongodb::event::command::CommandEvent;
use mongodb::event::sdam::SdamEvent;
use tokio::sync::watch;

use super::lock;

/// Bytes around the BSON of a command or reply: message header, flags, section, checksum.
const MESSAGE_HEADER_BYTES: u64 = 26;
/// Commands with which the driver opens and closes connections, not counted as traffic of the conversation.
const HANDSHAKE_COMMANDS: [&str; 6] =
    ["hello", "isMaster", "ismaster", "saslStart", "saslContinue", "endSessions"];

/// What a conversation costs, before compression and TLS.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) round_trips: AtomicU64,
    /// What is said at the end, to leave nothing behind at the server, is no part of the work.
    pub(super) is_closing: AtomicBool,
    pub(super) bytes_sent: AtomicU64,
    pub(super) bytes_received: AtomicU64,
    /// The process of the server that was the primary last.
    pub(super) process: Mutex<Option<String>>,
    /// What answers is a router of a sharded cluster.
    pub(super) is_router: AtomicBool,
    /// The servers that take writes; nothing before the first was found.
    writable: watch::Sender<Option<BTreeSet<String>>>,
    /// The one that was found last, `host:port`; it stays when it takes none any more.
    member: Mutex<Option<String>>,
}

impl Counters {
    /// What the driver tells of the servers.
    pub(super) fn note(&self, event: &SdamEvent) {
        match event {
            SdamEvent::ServerHeartbeatSucceeded(_) => self.note_process(event),
            SdamEvent::ServerDescriptionChanged(event) => {
                let server = event.address.to_string();
                let takes_writes = matches!(
                    event.new_description.server_type(),
                    ServerType::RsPrimary
                        | ServerType::Standalone
                        | ServerType::Mongos
                        | ServerType::LoadBalancer
                );
                if takes_writes {
                    *lock(&self.member) = Some(server.clone());
                }
                self.writable.send_modify(|writable| {
                    if takes_writes {
                        writable.get_or_insert_default().insert(server);
                    } else if let Some(writable) = writable {
                        writable.remove(&server);
                    }
                });
            }
            _ => {}
        }
    }

    /// The member that took writes last.
    pub(super) fn member(&self) -> Option<String> {
        lock(&self.member).clone()
    }

    /// Ends once a server was found that takes writes.
    pub(super) async fn found(&self) {
        let mut writable = self.writable.subscribe();
        let waited = writable.wait_for(Option::is_some).await.is_ok();
        debug_assert!(waited, "the sender lives as long as this");
    }

    /// Ends when no server takes writes any more.
    pub(super) async fn lost(&self) {
        let mut writable = self.writable.subscribe();
        let waited = writable.wait_for(|servers| servers.as_ref().is_some_and(BTreeSet::is_empty)).await;
        debug_assert!(waited.is_ok(), "the sender lives as long as this");
    }

    /// The driver looks at a server again after every broken connection, before it sends the next command, so a
    /// process that has changed is known in time.
    fn note_process(&self, event: &SdamEvent) {
        let SdamEvent::ServerHeartbeatSucceeded(event) = event else {
            return;
        };
        // Routers of a sharded centre say nothing about the servers behind them.
        if event.reply.get_str("msg").is_ok_and(|message| message == "isdbgrid") {
            self.is_router.store(true, Ordering::Relaxed);
            return;
        }
        let is_primary = ["isWritablePrimary", "ismaster"]
            .iter()
            .any(|field| event.reply.get_bool(field).unwrap_or(false));
        let version = event.reply.get_document("topologyVersion");
        if let (true, Ok(id)) = (is_primary, version.and_then(|version| version.get_object_id("processId"))) {
            *lock(&self.process) = Some(id.to_hex());
        }
    }

    pub(super) fn count_bytes(&self, event: CommandEvent) {
        let is_handshake = |name: &str| HANDSHAKE_COMMANDS.contains(&name);
        match event {
            CommandEvent::Started(event) if !is_handshake(&event.command_name) => {
                self.bytes_sent.fetch_add(message_bytes(&event.command), Ordering::Relaxed);
            }
            CommandEvent::Succeeded(event) if !is_handshake(&event.command_name) => {
                self.bytes_received.fetch_add(message_bytes(&event.reply), Ordering::Relaxed);
            }
            CommandEvent::Failed(event) if !is_handshake(&event.command_name) => {
                if let Some(reply) = event.failure.server_response() {
                    let bytes = reply.as_bytes().len() as u64 + MESSAGE_HEADER_BYTES;
                    self.bytes_received.fetch_add(bytes, Ordering::Relaxed);
                }
            }
            _ => {}
        }
    }
}

fn message_bytes(body: &Document) -> u64 {
    RawDocumentBuf::try_from(body).map_or(0, |raw| raw.as_bytes().len() as u64) + MESSAGE_HEADER_BYTES
}
