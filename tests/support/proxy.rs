//! A proxy between a node and a MongoDB server that knows the protocol: it reads each command, and answers, delays,
//! changes or cuts off replies as rules say. What other servers reply is tried with it. It speaks no TLS, and takes
//! compression out of the handshake, so that every command can be read.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bson::{Bson, Document, doc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Operation code of the protocol's only message since version 5.1.
const OP_MSG: i32 = 2013;
/// Bytes of a message's header: length, number, number of the request, operation code.
const HEADER_BYTES: usize = 16;
/// The flag of a request that wants no reply.
const MORE_TO_COME: u32 = 2;
/// Commands by which a driver gets to know the server.
const HANDSHAKES: [&str; 3] = ["hello", "isMaster", "ismaster"];

/// What happens to a command.
#[derive(Clone)]
pub(crate) enum Act {
    /// This is the reply; the server is not asked.
    Answer(Document),
    /// The reply comes so much later.
    Delay(Duration),
    /// The reply is changed on its way.
    Alter(fn(&mut Document)),
    /// Statements with this text in them are taken out and fail with this code; the rest goes on to the server.
    FailStatements(&'static str, i32),
    /// The connection ends, before or after the server has carried out the command.
    CutBefore,
    CutAfter,
}

/// What is done with commands of a name.
#[derive(Clone)]
pub(crate) struct Rule {
    /// Empty: any but the handshake.
    command: &'static str,
    condition: fn(&Document) -> bool,
    act: Act,
    /// How often; `None`: always.
    left: Option<usize>,
}

impl Rule {
    pub(crate) fn new(command: &'static str, act: Act) -> Rule {
        Rule { command, condition: |_| true, act, left: None }
    }

    /// Only for commands that look so.
    pub(crate) fn when(mut self, condition: fn(&Document) -> bool) -> Rule {
        self.condition = condition;
        self
    }

    pub(crate) fn times(mut self, times: usize) -> Rule {
        self.left = Some(times);
        self
    }

    pub(crate) fn is_of_every_command(&self) -> bool {
        self.command.is_empty()
    }

    fn is_for(&self, name: &str, command: &Document) -> bool {
        let is_named = if self.command.is_empty() { !is_handshake(name) } else { self.command == name };
        is_named && self.left != Some(0) && (self.condition)(command)
    }
}

fn is_handshake(name: &str) -> bool {
    HANDSHAKES.contains(&name)
}

/// The reply of a command that failed.
pub(crate) fn failure(code: i32) -> Act {
    Act::Answer(
        doc! {"ok": 0.0, "code": code, "codeName": format!("Code{code}"), "errmsg": "the proxy says so"},
    )
}

/// The reply of a writing command whose statements all failed alike.
pub(crate) fn statement_failures(count: i32, code: i32, message: &str) -> Act {
    let failures: Vec<Document> =
        (0..count).map(|index| doc! {"index": index, "code": code, "errmsg": message}).collect();
    Act::Answer(doc! {"ok": 1.0, "n": 0, "nModified": 0, "writeErrors": failures})
}

/// Whether the command opens a change feed that goes on from a position.
pub(crate) fn resumes_feed(command: &Document) -> bool {
    change_stream(command).is_some_and(|stream| stream.contains_key("resumeAfter"))
}

/// Whether the command opens a change feed.
pub(crate) fn opens_feed(command: &Document) -> bool {
    change_stream(command).is_some()
}

fn change_stream(command: &Document) -> Option<&Document> {
    let first = command.get_array("pipeline").ok()?.first()?.as_document()?;
    first.get_document("$changeStream").ok()
}

#[derive(Default)]
struct Shared {
    rules: Vec<Rule>,
    seen: Vec<Document>,
}

/// The running proxy; it ends with the test's runtime.
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Mutex<Shared>>,
}

impl Proxy {
    /// Stands in front of the server on `server` of this machine.
    pub(crate) async fn start(server: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let rules = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let rules = Arc::clone(&rules);
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await {
                        // Whichever side ends, ends both.
                        let _ = carry(client, server, &rules).await;
                    }
                });
            }
        });
        Proxy { port, shared }
    }

    pub(crate) fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The rules from now on, the first that fits counts.
    pub(crate) fn set_rules(&self, rules: Vec<Rule>) {
        self.shared.lock().unwrap().rules = rules;
    }

    /// The commands that passed since this was asked last, handshakes left out.
    pub(crate) fn seen(&self) -> Vec<Document> {
        std::mem::take(&mut self.shared.lock().unwrap().seen)
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, shared: &Mutex<Shared>) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    loop {
        let request = read_message(&mut client).await?;
        let (command, flags) = decode(&request);
        let name = command.keys().next().cloned().unwrap_or_default();
        let act = act_for(&mut shared.lock().unwrap(), &name, &command);
        match &act {
            Some(Act::CutBefore) => return Ok(()),
            Some(Act::Answer(reply)) => {
                client.write_all(&encode(&request, reply)).await?;
                continue;
            }
            _ => {}
        }
        if let Some(Act::FailStatements(text, code)) = act {
            let parted = parted(&command, text);
            let (left, failed) = (parted.left.len(), parted.failed.len());
            let mut reply = match command.contains_key("ops") {
                false => doc! {"ok": 1.0, "n": 0, "nModified": 0},
                true => {
                    let counts = doc! {"nErrors": 0, "nInserted": 0, "nMatched": 0, "nModified": 0, "nUpserted": 0, "nDeleted": 0};
                    let cursor = doc! {"id": 0_i64, "firstBatch": [], "ns": "admin.$cmd.bulkWrite"};
                    let mut reply = doc! {"ok": 1.0, "cursor": cursor};
                    reply.extend(counts);
                    reply
                }
            };
            if left > 0 {
                server.write_all(&encode_request(&request, &parted.command)).await?;
                (reply, _) = decode(&read_message(&mut server).await?);
            }
            if failed > 0 {
                parted.add_failures(&mut reply, code);
            }
            client.write_all(&encode(&request, &reply)).await?;
            continue;
        }
        server.write_all(&request).await?;
        if flags & MORE_TO_COME != 0 {
            continue;
        }
        let mut reply = read_message(&mut server).await?;
        if is_handshake(&name) {
            reply = altered(&request, &reply, |reply| drop(reply.remove("compression")));
        }
        match act {
            Some(Act::CutAfter) => return Ok(()),
            Some(Act::Delay(delay)) => tokio::time::sleep(delay).await,
            Some(Act::Alter(alter)) => reply = altered(&request, &reply, alter),
            Some(Act::Answer(_) | Act::FailStatements(..) | Act::CutBefore) | None => {}
        }
        client.write_all(&reply).await?;
    }
}

/// A writing command without the statements that are to fail; places of both in the whole.
struct Parted {
    command: Document,
    left: Vec<usize>,
    failed: Vec<usize>,
}

impl Parted {
    fn add_failures(&self, reply: &mut Document, code: i32) {
        if let Ok(cursor) = reply.get_document_mut("cursor") {
            let results = cursor.get_array_mut("firstBatch").unwrap();
            for result in results.iter_mut().filter_map(Bson::as_document_mut) {
                let index = result.get_i32("idx").unwrap();
                result.insert("idx", self.left[index as usize] as i32);
            }
            results.extend(self.failed.iter().map(|index| {
                let failure = doc! {"ok": 0.0, "idx": *index as i32, "code": code, "errmsg": "the proxy says so", "n": 0};
                Bson::from(failure)
            }));
            let errors = reply.get_i32("nErrors").unwrap();
            reply.insert("nErrors", errors + self.failed.len() as i32);
            return;
        }
        let mut failures: Vec<Bson> = reply.get_array("writeErrors").cloned().unwrap_or_default();
        for failure in failures.iter_mut().filter_map(Bson::as_document_mut) {
            let index = failure.get_i32("index").unwrap();
            failure.insert("index", self.left[index as usize] as i32);
        }
        failures.extend(self.failed.iter().map(|index| {
            Bson::from(doc! {"index": *index as i32, "code": code, "errmsg": "the proxy says so"})
        }));
        reply.insert("writeErrors", failures);
    }
}

fn parted(command: &Document, text: &str) -> Parted {
    let mut parted = Parted { command: command.clone(), left: Vec::new(), failed: Vec::new() };
    for list in ["documents", "updates", "deletes", "ops"] {
        let Ok(statements) = command.get_array(list) else { continue };
        (parted.failed, parted.left) =
            (0..statements.len()).partition(|at| statements[*at].to_string().contains(text));
        let left: Vec<Bson> = parted.left.iter().map(|at| statements[*at].clone()).collect();
        parted.command.insert(list, left);
    }
    parted
}

fn act_for(shared: &mut Shared, name: &str, command: &Document) -> Option<Act> {
    if !is_handshake(name) {
        shared.seen.push(command.clone());
    }
    let rule = shared.rules.iter_mut().find(|rule| rule.is_for(name, command))?;
    rule.left = rule.left.map(|left| left - 1);
    Some(rule.act.clone())
}

async fn read_message(from: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = from.read_u32_le().await?;
    let mut message = length.to_le_bytes().to_vec();
    message.resize((length as usize).max(HEADER_BYTES), 0);
    from.read_exact(&mut message[4..]).await?;
    Ok(message)
}

fn number_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The command or reply with its lists in their places, and its flags.
fn decode(message: &[u8]) -> (Document, u32) {
    if number_at(message, 12) != OP_MSG {
        return (Document::new(), 0);
    }
    let flags = number_at(message, HEADER_BYTES) as u32;
    let checksum_bytes = if flags & 1 == 0 { 0 } else { 4 };
    let mut rest = &message[HEADER_BYTES + 4..message.len() - checksum_bytes];
    let (mut body, mut lists) = (Document::new(), Document::new());
    while let Some((section, content)) = rest.split_first() {
        let length = number_at(content, 0) as usize;
        let (content, after) = content.split_at(length);
        rest = after;
        if *section == 0 {
            body = Document::try_from(bson::RawDocument::from_bytes(content).unwrap()).unwrap();
            continue;
        }
        let name_end = 4 + content[4..].iter().position(|byte| *byte == 0).unwrap();
        let name = String::from_utf8(content[4..name_end].to_vec()).unwrap();
        let (mut documents, mut list) = (&content[name_end + 1..], Vec::new());
        while !documents.is_empty() {
            let (document, after) = documents.split_at(number_at(documents, 0) as usize);
            let document = bson::RawDocument::from_bytes(document).unwrap();
            list.push(Bson::Document(Document::try_from(document).unwrap_or_default()));
            documents = after;
        }
        lists.insert(name, list);
    }
    body.extend(lists);
    (body, flags)
}

/// `reply` as the answer to `request`.
fn encode(request: &[u8], reply: &Document) -> Vec<u8> {
    let body = reply.to_vec().unwrap();
    let length = HEADER_BYTES + 4 + 1 + body.len();
    let mut message = (length as u32).to_le_bytes().to_vec();
    message.extend(0_u32.to_le_bytes());
    message.extend(&request[4..8]);
    message.extend(OP_MSG.to_le_bytes());
    message.extend(0_u32.to_le_bytes());
    message.push(0);
    message.extend(body);
    message
}

/// `command` in the place of `request`.
fn encode_request(request: &[u8], command: &Document) -> Vec<u8> {
    let mut message = encode(request, command);
    message[4..8].copy_from_slice(&request[4..8]);
    message[8..12].fill(0);
    message
}

fn altered(request: &[u8], reply: &[u8], alter: impl Fn(&mut Document)) -> Vec<u8> {
    if number_at(reply, 12) != OP_MSG {
        return reply.to_vec();
    }
    let (mut document, _) = decode(reply);
    alter(&mut document);
    encode(request, &document)
}
