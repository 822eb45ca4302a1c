//! A bare server: the bytes of known answers from memory, or records' bytes straight out of a table.

use std::collections::HashMap;
use std::io::BufRead as _;
use std::net::TcpListener;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use bytes::Bytes;
use futures_util::stream;
use redb::{Database, ReadableDatabase as _, TableDefinition};

const BODIES: TableDefinition<u32, &[u8]> = TableDefinition::new("bodies");
/// Records read in one transaction, as in the node.
const BATCH: usize = 500;

/// Answers that the node has given: a line of JSON each, `[path, [[header, value]...], body]`.
pub(super) fn from_memory(answers: &str, tls: Option<(&str, &str)>) {
    let file = std::io::BufReader::new(std::fs::File::open(answers).unwrap());
    let known: HashMap<String, (HeaderMap, Bytes)> = file
        .lines()
        .map(|line| {
            let (path, headers, body): (String, Vec<(String, String)>, String) =
                serde_json::from_str(&line.unwrap()).unwrap();
            let headers = headers.into_iter().map(|(name, value)| {
                (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap())
            });
            (path, (headers.collect(), Bytes::from(body)))
        })
        .collect();
    let known = Arc::new(known);
    let router = Router::new().fallback(move |request: Request| {
        let known = Arc::clone(&known);
        async move {
            match known.get(request.uri().path()) {
                Some((headers, body)) => (headers.clone(), body.clone()).into_response(),
                None => StatusCode::NOT_FOUND.into_response(),
            }
        }
    });
    serve(router, tls);
}

/// One list, streamed out of a redb file: the lines of a file of bodies.
pub(super) fn from_table(bodies: &str) {
    let path = format!("{bodies}.redb");
    let _ = std::fs::remove_file(&path);
    let database = Arc::new(Database::create(path).unwrap());
    let writing = database.begin_write().unwrap();
    {
        let mut table = writing.open_table(BODIES).unwrap();
        for (number, line) in
            std::io::BufReader::new(std::fs::File::open(bodies).unwrap()).lines().enumerate()
        {
            table.insert(number as u32, line.unwrap().as_bytes()).unwrap();
        }
    }
    writing.commit().unwrap();
    let router = Router::new().fallback(move || {
        let database = Arc::clone(&database);
        async move {
            let parts = stream::unfold(Some(0), move |at| {
                let database = Arc::clone(&database);
                async move {
                    let from: u32 = at?;
                    tokio::task::spawn_blocking(move || part(&database, from)).await.ok()
                }
            });
            let parts = futures_util::StreamExt::map(parts, Ok::<Bytes, std::io::Error>);
            Response::builder()
                .header(CONTENT_TYPE, "application/json")
                .body(Body::from_stream(parts))
                .unwrap()
        }
    });
    serve(router, None);
}

/// A batch of the list, and where the next one begins.
fn part(database: &Database, from: u32) -> (Bytes, Option<u32>) {
    let transaction = database.begin_read().unwrap();
    let table = transaction.open_table(BODIES).unwrap();
    let mut bytes = Vec::with_capacity(256 * 1024);
    bytes.push(if from == 0 { b'[' } else { b',' });
    let mut next = from;
    for row in table.range(from..).unwrap().take(BATCH) {
        if next != from {
            bytes.push(b',');
        }
        bytes.extend_from_slice(row.unwrap().1.value());
        next += 1;
    }
    if next - from == BATCH as u32 {
        return (bytes.into(), Some(next));
    }
    bytes.push(b']');
    (bytes.into(), None)
}

fn serve(router: Router, tls: Option<(&str, &str)>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let service = router.into_make_service();
        let server = axum_server::from_tcp(listener).unwrap();
        match tls {
            Some((certificate, key)) => {
                let config = RustlsConfig::from_pem_file(certificate, key).await.unwrap();
                println!("ready https://{address}");
                let acceptor = RustlsAcceptor::new(config).acceptor(NoDelayAcceptor);
                server.acceptor(acceptor).serve(service).await.unwrap();
            }
            None => {
                println!("ready http://{address}");
                server.acceptor(NoDelayAcceptor).serve(service).await.unwrap();
            }
        }
    });
}
