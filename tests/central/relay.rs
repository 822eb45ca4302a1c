//! Documents that cannot be kept as they are, made by a relay between the node and the server.

use thalamus_edge::domain::record::Kind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::{Ground, hub, open};
use crate::contract::reading;
use crate::support::mongo::{MongoServer, Setup};

/// Servers differ in whether they store such documents, so they are made on the way.
#[tokio::test]
async fn documents_that_cannot_be_kept_are_named() {
    let server = MongoServer::start_own(Setup::default()).await;
    let ground = Ground::new(&server).await;
    let spoiling = [
        reading::KEY_TO_REPEAT,
        reading::TEXT_TO_SPOIL,
        // What is compressed cannot be changed: the offer to compress gets lost.
        (b"compression".as_slice(), b"xompression".as_slice()),
    ];
    let port = relay(server.port(), spoiling.to_vec()).await;
    let uri = format!("mongodb://127.0.0.1:{port}/?directConnection=true");
    let mut central = open(&hub(&uri, ground.database.name())).await;
    reading::unreadable(central.as_mut(), &ground, Kind::Page).await;
}

/// Passes messages between clients and the server on `port`, with words of equal length replaced.
async fn relay(port: u16, replaced: Vec<(&'static [u8], &'static [u8])>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let own_port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", port)).await.expect("the server");
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::spawn(pass(from_client, to_server, replaced.clone()));
            tokio::spawn(pass(from_server, to_client, replaced.clone()));
        }
    });
    own_port
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    replaced: Vec<(&'static [u8], &'static [u8])>,
) -> std::io::Result<()> {
    loop {
        let length = from.read_u32_le().await?;
        let mut message = length.to_le_bytes().to_vec();
        message.resize(length as usize, 0);
        from.read_exact(&mut message[4..]).await?;
        for (word, instead) in &replaced {
            for at in 0..message.len().saturating_sub(word.len()) {
                if message[at..].starts_with(word) {
                    message[at..at + word.len()].copy_from_slice(instead);
                }
            }
        }
        to.write_all(&message).await?;
    }
}
