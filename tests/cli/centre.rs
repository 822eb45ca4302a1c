//! A centre that cannot be used: every command and the log say at which stage, and with which member.

use std::net::TcpStream;

use bson::{Document, doc};
use rcgen::generate_simple_self_signed;

use super::*;
use crate::support::mongo::{MongoServer, Setup};

pub(super) const DATABASE: &str = "federation";
/// The tests do not wait for a primary that never comes.
const SOON: &str = "serverSelectionTimeoutMS=500&connectTimeoutMS=5000";

pub(super) fn on_runtime<T>(job: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(job)
}

pub(super) fn clinic_of(uri: &str) -> Clinic {
    let separator = if uri.contains('?') { "&" } else { "/?" };
    Clinic::new().with("CENTRAL__URI", &format!("{uri}{separator}{SOON}")).with("CENTRAL__DATABASE", DATABASE)
}

/// What `sync now`, `sync status` and `doctor` say, which has to be the same.
pub(super) fn stops_at(uri: &str, stage: &str, member: &str, words: &str) {
    let clinic = clinic_of(uri);
    clinic.make_store();
    let ran = clinic.run(&["sync", "now", "--json"]);
    let is_lasting = ["address", "TLS", "version", "login", "privilege"].contains(&stage);
    let ran = ran.ends(if is_lasting { 1 } else { 4 });
    let report = ran.json();
    assert_eq!(report["stage"], stage, "{uri}: {report}");
    assert_eq!(report["member"].as_str().unwrap_or_default(), member, "{uri}: {report}");
    let message = report["message"].as_str().unwrap();
    assert!(message.contains(words) && message.contains(&format!("({stage})")), "{uri}: {message}");
    let status = clinic.run(&["sync", "status", "--json"]).ends(0).json();
    assert_eq!(status["state"], if is_lasting { "failed" } else { "offline" }, "{status}");
    assert_eq!(status["message"], message);
    assert_eq!(status["last_round"]["stage"], stage);
    let doctor = clinic.run(&["doctor", "--json"]).json();
    let findings = doctor["findings"].as_array().unwrap();
    let centre = findings.iter().find(|finding| finding["about"] == "centre").unwrap();
    assert_eq!(centre["health"], if is_lasting { "wrong" } else { "warning" }, "{centre}");
    let finding = centre["finding"].as_str().unwrap();
    assert!(finding.contains(words) && finding.starts_with(&format!("({stage})")), "{finding}");
    assert!(centre["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{centre}");
    for said in [message, finding, &ran.err] {
        assert!(!said.contains("hunter2") && !said.contains("north-clinic"), "{said}");
    }
}

pub(super) fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server that does this with every connection.
fn listening(answer: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = std::sync::Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = std::sync::Arc::clone(&answer);
            std::thread::spawn(move || answer(stream));
        }
    });
    port
}

/// A server that says this of itself, and nothing else to anybody.
pub(super) fn saying(hello: impl Fn(u16) -> Document + Send + Sync + 'static) -> u16 {
    answering(hello, |_| true)
}

/// The same; it answers these messages only.
pub(super) fn answering(
    hello: impl Fn(u16) -> Document + Send + Sync + 'static,
    is_answered: fn(&[u8]) -> bool,
) -> u16 {
    listening(move |mut stream| {
        let port = stream.local_addr().unwrap().port();
        let mut header = [0; 16];
        while stream.read_exact(&mut header).is_ok() {
            let number = |at: usize| i32::from_le_bytes(header[at..at + 4].try_into().unwrap());
            let mut message = vec![0; number(0) as usize - 16];
            if stream.read_exact(&mut message).is_err() {
                return;
            }
            if !is_answered(&message) {
                continue;
            }
            let document = hello(port).to_vec().unwrap();
            // Drivers begin in an older form of the protocol.
            let (kind, between) = match number(12) {
                2004 => (1, [[0; 16], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat()),
                _ => (2013, vec![0; 5]),
            };
            let between = if kind == 1 { between[..20].to_vec() } else { between };
            let length = 16 + between.len() + document.len();
            let mut reply = Vec::new();
            for field in [length as i32, 0, number(4), kind] {
                reply.extend(field.to_le_bytes());
            }
            reply.extend(between);
            reply.extend(document);
            if stream.write_all(&reply).is_err() {
                return;
            }
        }
    })
}

#[test]
fn names_ports_and_silence_are_told_apart() {
    let nowhere = "no-such-centre.invalid";
    stops_at(&format!("mongodb://{nowhere}:27018"), "name", &format!("{nowhere}:27018"), nowhere);
    let port = closed_port();
    let words = format!("nobody listens at 127.0.0.1:{port}");
    stops_at(&format!("mongodb://127.0.0.1:{port}"), "connection", &format!("127.0.0.1:{port}"), &words);
    // Of two, each is told, and the one that came furthest is the member.
    let uri = format!("mongodb://{nowhere}:1,127.0.0.1:{port}");
    stops_at(&uri, "connection", &format!("127.0.0.1:{port}"), &words);
    stops_at(
        &uri,
        "connection",
        &format!("127.0.0.1:{port}"),
        &format!("the name {nowhere} cannot be resolved"),
    );
    let port = listening(|mut stream| while matches!(stream.read(&mut [0; 1024]), Ok(1..)) {});
    let member = format!("127.0.0.1:{port}");
    stops_at(&format!("mongodb://{member}"), "answer", &member, "takes the connection and does not answer");
    stops_at(
        &format!("mongodb://{member}/?tls=true"),
        "answer",
        &member,
        "does not answer when asked for TLS",
    );
}

/// A server that says hello and then answers nothing must not keep `doctor` waiting.
#[test]
fn a_server_that_answers_no_command_is_given_up_with_its_stage() {
    let primary = |_| {
        doc! {
            "ok": 1, "isWritablePrimary": true, "ismaster": true, "maxWireVersion": 21, "minWireVersion": 0,
            "maxBsonObjectSize": 16_777_216, "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000,
        }
    };
    let says_hello = |message: &[u8]| {
        let has = |word: &[u8]| message.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word));
        has(b"hello\0") || has(b"ismaster\0")
    };
    let port = answering(primary, says_hello);
    let clinic = clinic_of(&format!("mongodb://127.0.0.1:{port}/?directConnection=true"));
    let begun = std::time::Instant::now();
    let doctor = clinic.run(&["doctor"]);
    let words = format!("centre: (answer) 127.0.0.1:{port} does not answer within 10 seconds when asked who");
    doctor.says(&words);
    assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
}

/// Servers of another protocol that wait for more instead of closing: with the limits of the program, not of the tests.
#[test]
fn another_protocol_is_told_within_seconds() {
    let begins = |awaited: &'static [u8], answer: &'static [u8]| {
        listening(move |mut stream| {
            let (mut read, mut piece) = (Vec::new(), [0; 1024]);
            while let Ok(length @ 1..) = stream.read(&mut piece) {
                read.extend_from_slice(&piece[..length]);
                if read.starts_with(awaited) {
                    let _ = stream.write_all(answer);
                }
            }
        })
    };
    // MongoDB without TLS takes the first message of TLS for the beginning of 32 MiB.
    let mongo = answering(|_| doc! {"ok": 1, "isWritablePrimary": true, "maxWireVersion": 21}, |_| true);
    let http = begins(b"GET ", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let alert: &[u8] = b"\x15\x03\x03\x00\x02\x02\x28";
    let tls = begins(b"\x16\x03", alert);
    for (port, options, stage, words) in [
        (mongo, "tls=true", "TLS", "it does not speak TLS"),
        (mongo, "tls=true&tlsInsecure=true", "TLS", "it does not speak TLS"),
        (http, "tls=true", "TLS", "it does not speak TLS but HTTP"),
        (http, "tls=false", "answer", "is no MongoDB server: it speaks HTTP"),
        (tls, "tls=false", "TLS", "speaks TLS only, and the address does not ask for it"),
    ] {
        let uri = format!("mongodb://127.0.0.1:{port}/?{options}");
        let clinic = Clinic::new().with("CENTRAL__URI", &uri).with("CENTRAL__DATABASE", DATABASE);
        clinic.make_store();
        let told = format!("({stage})");
        for command in [&["sync", "now"][..], &["doctor"]] {
            let begun = std::time::Instant::now();
            let ran = clinic.run(command);
            ran.says(&told);
            ran.says(words);
            assert!(begun.elapsed().as_secs() < 9, "{uri}: {command:?} took {:?}", begun.elapsed());
        }
        let clinic = Clinic::new();
        let (site, config) = (clinic.path("site.toml"), clinic.path("config.toml"));
        fs::write(&site, format!("[central]\nuri = {uri:?}\n")).unwrap();
        let begun = std::time::Instant::now();
        let args = ["setup", "--from", site.to_str().unwrap(), "--yes", "--config", config.to_str().unwrap()];
        let ran = clinic.run(&args);
        ran.says(&told);
        ran.says(words);
        assert!(begun.elapsed().as_secs() < 9, "{uri}: setup took {:?}", begun.elapsed());
    }
}

/// Silence says nothing about why, and may be a busy server: it is waited for as long as a connection may take.
#[test]
fn a_silent_port_is_given_up_after_one_limit() {
    let port = listening(|mut stream| while matches!(stream.read(&mut [0; 1024]), Ok(1..)) {});
    for options in ["tls=true", "tls=false"] {
        let uri = format!("mongodb://127.0.0.1:{port}/?{options}");
        let clinic = Clinic::new().with("CENTRAL__URI", &uri).with("CENTRAL__DATABASE", DATABASE);
        clinic.make_store();
        for command in [&["sync", "now"][..], &["doctor"]] {
            let begun = std::time::Instant::now();
            clinic.run(command).says("does not answer");
            let seconds = begun.elapsed().as_secs();
            assert!((9..15).contains(&seconds), "{uri}: {command:?} took {seconds} s");
        }
    }
}

#[test]
fn what_is_no_member_to_write_to_is_told() {
    let web = listening(|mut stream| {
        let _ = stream.read(&mut [0; 100]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    });
    let member = format!("127.0.0.1:{web}");
    stops_at(&format!("mongodb://{member}"), "answer", &member, "is no MongoDB server");
    let old = saying(|_| doc! {"ok": 1, "isWritablePrimary": true, "maxWireVersion": 6, "minWireVersion": 0});
    let member = format!("127.0.0.1:{old}");
    stops_at(&format!("mongodb://{member}"), "version", &member, "older than MongoDB 4.4");
    let secondary = saying(|port| {
        doc! {
            "ok": 1, "secondary": true, "isWritablePrimary": false, "maxWireVersion": 21, "minWireVersion": 0,
            "setName": "rs0", "hosts": [format!("127.0.0.1:{port}")], "me": format!("127.0.0.1:{port}"),
        }
    });
    let member = format!("127.0.0.1:{secondary}");
    stops_at(&format!("mongodb://{member}"), "not primary", &member, "is secondary");
    let direct = format!("mongodb://{member}/?directConnection=true");
    stops_at(&direct, "not primary", &member, "directConnection=true keeps to it");
    // rs.initiate() without members: the set knows a name that clinics do not.
    let named = saying(|_| {
        doc! {
            "ok": 1, "isWritablePrimary": true, "maxWireVersion": 21, "minWireVersion": 0, "setName": "rs0",
            "hosts": ["db-internal.invalid:27017"], "me": "db-internal.invalid:27017",
        }
    });
    let words = "the replica set calls one of its members db-internal.invalid:27017";
    stops_at(&format!("mongodb://127.0.0.1:{named}"), "name", "db-internal.invalid:27017", words);
    let other = format!("mongodb://127.0.0.1:{named}/?replicaSet=rs1");
    let words = "belongs to the replica set \"rs0\" and not to \"rs1\"";
    stops_at(&other, "address", &format!("127.0.0.1:{named}"), words);
}

/// A user who may read everything and write nothing, `north-clinic` with the password `right`.
pub(super) async fn make_reader(uri: &str) {
    let client = mongodb::Client::with_uri_str(uri).await.unwrap();
    let admin = client.database("admin");
    let reading = doc! {
        "createRole": "reader", "roles": [],
        "privileges": [{
            "resource": {"db": DATABASE, "collection": ""}, "actions": ["find", "changeStream", "listCollections"],
        }],
        "writeConcern": {"w": "majority", "j": true},
    };
    admin.run_command(reading).await.unwrap();
    let user = doc! {
        "createUser": "north-clinic", "pwd": "right", "roles": ["reader"],
        "writeConcern": {"w": "majority", "j": true},
    };
    admin.run_command(user).await.unwrap();
}

#[test]
fn certificates_logins_and_privileges_are_told_apart() {
    let certified = generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let other = generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let setup = Setup {
        tls: Some((certified.cert.pem(), certified.signing_key.serialize_pem())),
        user: Some(("administrator".to_owned(), "of-users".to_owned())),
        ..Setup::default()
    };
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: String| {
        let path = directory.path().join(name);
        fs::write(&path, pem).unwrap();
        path.display().to_string()
    };
    let right = file("right.pem", certified.cert.pem());
    let wrong = file("wrong.pem", other.cert.pem());
    let empty = file("empty.pem", String::new());
    let server = on_runtime(MongoServer::start_own(setup));
    let member = format!("127.0.0.1:{}", server.public_port());
    let uri = |user: &str, options: &str| format!("mongodb://{user}{member}/?authSource=admin&{options}");
    let trusted = format!("tls=true&tlsCAFile={right}");
    on_runtime(make_reader(&uri("administrator:of-users@", &trusted)));
    let unknown = "signed by an authority that this node does not trust";
    stops_at(&uri("north-clinic:right@", &format!("tls=true&tlsCAFile={wrong}")), "TLS", &member, unknown);
    stops_at(&uri("north-clinic:right@", "tls=true"), "TLS", &member, unknown);
    let no_one = format!("tls=true&tlsCAFile={empty}");
    stops_at(&uri("north-clinic:right@", &no_one), "TLS", "", "has no certificate in it");
    let named = uri("north-clinic:right@", &trusted).replace("127.0.0.1", "localhost");
    let by_name = member.replace("127.0.0.1", "localhost");
    stops_at(&named, "TLS", &by_name, "its certificate is for");
    stops_at(&uri("north-clinic:right@", "retryReads=true"), "TLS", &member, "speaks TLS only");
    stops_at(&uri("north-clinic:hunter2@", &trusted), "login", &member, "does not accept user and password");
    stops_at(&uri("", &trusted), "login", &member, "the address names no user");
    stops_at(&uri("north-clinic:right@", &trusted), "privilege", &member, "update");
    drop(server);

    let plain = on_runtime(MongoServer::start_own(Setup::default()));
    let member = format!("127.0.0.1:{}", plain.public_port());
    stops_at(
        &format!("mongodb://{member}/?tls=true&tlsCAFile={right}"),
        "TLS",
        &member,
        "does not speak TLS",
    );
}

#[test]
fn a_centre_that_works_is_said_to_and_what_may_not_tomorrow() {
    let server = on_runtime(MongoServer::start_own(Setup::default()));
    let member = format!("127.0.0.1:{}", server.public_port());
    let clinic = clinic_of(&format!("mongodb://no-such-member.invalid:1,{member}"));
    clinic.make_store();
    clinic.run(&["sync", "now"]).ends(0).says("complete");
    let doctor = clinic.run(&["doctor"]);
    doctor.says(&format!("ok       centre: {member} is reached"));
    doctor.says(&format!("ok       member of the centre: {member} is primary"));
    doctor.says("warning  member of the centre: (name) the name no-such-member.invalid cannot be resolved");
    doctor.says("warning  centre: the server asks for no login");
    doctor.says("ok       name at the centre: \"clinic\" is this node's alone");
    on_runtime(async {
        let client = mongodb::Client::with_uri_str(server.uri()).await.unwrap();
        let create = doc! {"create": "people", "collation": {"locale": "en", "strength": 2}};
        let database = client.database(DATABASE);
        let _ = database.collection::<Document>("people").drop().await;
        database.run_command(create).await.unwrap();
    });
    clinic.run(&["doctor"]).says("collections with a collation of their own: people");
}

#[test]
fn two_nodes_under_one_name_are_told_so_at_both_ends() {
    let server = on_runtime(MongoServer::start_own(Setup::default()));
    let uri = format!("mongodb://127.0.0.1:{}", server.public_port());
    let (first, second) = (clinic_of(&uri), clinic_of(&uri));
    for clinic in [&first, &second] {
        clinic.make_store();
    }
    let words = "Another node is called \"clinic\" too";
    let silent = |ran: &str| assert!(!ran.contains(words), "{ran}");
    silent(&first.run(&["sync", "now"]).ends(0).out);
    // The second is told before it takes the name, and when it has it.
    second.run(&["doctor"]).says(words);
    second.run(&["sync", "now"]).ends(0).says("complete").says(words);
    second.run(&["sync", "status"]).ends(0).says(words);
    first.run(&["doctor"]).says(words);
    // The first looks once an hour: here its clock stands still, and its name is given anew.
    let first = first.with("NODE__NAME", "other");
    silent(&first.run(&["sync", "now"]).ends(0).out);
    let first = first.with("NODE__NAME", "clinic");
    first.run(&["sync", "now"]).ends(0).says(words);
    let status = first.run(&["sync", "status", "--json"]).ends(0).json();
    let own = second.run(&["sync", "status", "--json"]).ends(0).json();
    assert_eq!(status["namesakes"][0]["node"], own["node"], "{status}");
    // A new name ends it at both ends.
    let second = second.with("NODE__NAME", "south");
    silent(&second.run(&["sync", "now"]).ends(0).out);
    silent(&first.run(&["sync", "now"]).ends(0).out);
    silent(&first.run(&["sync", "status"]).ends(0).out);
}
