//! A centre that cannot be used as it is: what the log and `setup` say, and servers that the driver drops.

use bson::{Document, doc};

use super::centre::{DATABASE, answering, clinic_of, closed_port, make_reader, on_runtime, saying, stops_at};
use super::*;
use crate::cli_support::Ran;
use crate::support::mongo::{MongoServer, Setup};

/// What a server says of itself that takes writes.
fn greeting() -> Document {
    doc! {
        "ok": 1, "isWritablePrimary": true, "ismaster": true, "maxWireVersion": 21, "minWireVersion": 0,
        "maxBsonObjectSize": 16_777_216, "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000,
    }
}

fn with(fields: Document) -> Document {
    let mut greeting = greeting();
    greeting.extend(fields);
    greeting
}

fn secondary(port: u16) -> Document {
    let member = format!("127.0.0.1:{port}");
    let fields = doc! {"secondary": true, "isWritablePrimary": false, "ismaster": false, "setName": "rs0"};
    let mut secondary = with(fields);
    secondary.extend(doc! {"hosts": [&member], "me": member});
    secondary
}

/// A server that asks for a login, with a user who may only read.
fn with_reader() -> MongoServer {
    let setup = Setup { user: Some(("administrator".to_owned(), "of-users".to_owned())), ..Setup::default() };
    let server = on_runtime(MongoServer::start_own(setup));
    let uri =
        format!("mongodb://administrator:of-users@127.0.0.1:{}/?authSource=admin", server.public_port());
    on_runtime(make_reader(&uri));
    server
}

/// At each stage: the stage in its words, and the member beside them; never the password.
#[test]
fn the_log_says_it_too() {
    let server = with_reader();
    let no_tls = answering(|_| greeting(), |_| true);
    let closed = closed_port();
    let second = saying(secondary);
    let at = |port: u16| format!("127.0.0.1:{port}");
    let of_user =
        |password: &str| format!("north-clinic:{password}@{}/?authSource=admin", at(server.public_port()));
    for (address, stage, member, words) in [
        (
            "north-clinic:hunter2@no-such-centre.invalid:27018".to_owned(),
            "name",
            "no-such-centre.invalid:27018".to_owned(),
            "cannot be resolved",
        ),
        (format!("north-clinic:hunter2@{}", at(closed)), "connection", at(closed), "nobody listens at"),
        (format!("{}/?tls=true", at(no_tls)), "TLS", at(no_tls), "it does not speak TLS"),
        (at(second), "not primary", at(second), "is secondary"),
        (format!("{}/?replicaSet=rs1", at(second)), "address", at(second), "belongs to the replica set"),
        (of_user("hunter2"), "login", at(server.public_port()), "does not accept user and password"),
        (of_user("right"), "privilege", at(server.public_port()), "update"),
    ] {
        let clinic = clinic_of(&format!("mongodb://{address}"));
        let node = clinic.serve(&[]);
        let told = format!("({stage})");
        clinic.run(&["sync", "now"]).says(&told);
        // One line has all of it.
        let is_said = |line: &str| {
            line.contains(&told) && line.contains(words) && line.contains(&format!("member=\"{member}\""))
        };
        node.wait_until(|| node.log().lines().any(is_said));
        let log = node.log();
        assert!(!log.contains("hunter2") && !log.contains("north-clinic"), "{stage}: {log}");
        node.stop();
    }
}

/// The driver drops servers that do not fit the address, although they answer.
#[test]
fn a_server_that_the_driver_drops_is_told() {
    let no_set = "names no replica set, and the address asks for \"rs0\"";
    let other = "belongs to the replica set \"rs1\" and not to \"rs0\"";
    let balanced = "is behind no load balancer, and the address asks for one";
    for (hello, options, words) in [
        (greeting(), "replicaSet=rs0", no_set),
        (greeting(), "replicaSet=rs0&directConnection=true", no_set),
        (with(doc! {"msg": "isdbgrid"}), "replicaSet=rs0", no_set),
        (with(doc! {"msg": "isdbgrid"}), "replicaSet=rs0&directConnection=true", no_set),
        (with(doc! {"setName": "rs1"}), "replicaSet=rs0", other),
        (with(doc! {"setName": "rs1"}), "replicaSet=rs0&directConnection=true", other),
        (with(doc! {"msg": "isdbgrid"}), "loadBalanced=true", balanced),
    ] {
        let member = format!("127.0.0.1:{}", saying(move |_| hello.clone()));
        stops_at(&format!("mongodb://{member}/?{options}"), "address", &member, words);
    }
    let (first, second) = (saying(|_| greeting()), saying(|_| greeting()));
    let member = format!("127.0.0.1:{second}");
    let words = "belongs to no replica set, and the address names 2 servers";
    stops_at(&format!("mongodb://127.0.0.1:{first},{member}"), "address", &member, words);
    // A member that was started without its set, as its set tells.
    let alone = saying(|_| greeting());
    let of_set = saying(move |port| {
        let mut member = secondary(port);
        member.insert("hosts", vec![format!("127.0.0.1:{port}"), format!("127.0.0.1:{alone}")]);
        member
    });
    let words = format!("127.0.0.1:{alone} names no replica set, and \"rs0\" calls it a member");
    stops_at(&format!("mongodb://127.0.0.1:{of_set}"), "not primary", &format!("127.0.0.1:{alone}"), &words);
}

/// In a site file, which is all that an unattended setup knows.
fn setup_with(uri: &str) -> Ran {
    let clinic = Clinic::new();
    let (site, config) = (clinic.path("site.toml"), clinic.path("config.toml"));
    let central = format!("[central]\nuri = {uri:?}\ndatabase = {DATABASE:?}\n");
    fs::write(&site, central).unwrap();
    let args = ["setup", "--from", site.to_str().unwrap(), "--yes", "--config", config.to_str().unwrap()];
    clinic.run(&args).ends(0)
}

#[test]
fn setup_tries_the_centre_before_anybody_relies_on_it() {
    let server = on_runtime(MongoServer::start_own(Setup::default()));
    let uri = format!("mongodb://127.0.0.1:{}", server.public_port());
    let ran = setup_with(&uri);
    ran.says("is reached");
    assert!(!format!("{}{}", ran.out, ran.err).contains("Another node is called"), "{}", ran.out);
    setup_with(&format!("mongodb://127.0.0.1:{}", closed_port())).says("(connection) nobody listens at");
    // A name that is taken; the centre is reached all the same.
    let other = clinic_of(&uri);
    other.make_store();
    other.run(&["sync", "now"]).ends(0).says("complete");
    setup_with(&uri).says("is reached").says("Another node is called \"clinic\" too");
    drop(server);
    // A user who may not write: the collections and what is missing there are named.
    let server = with_reader();
    let of_user = |password: &str| {
        format!("mongodb://north-clinic:{password}@127.0.0.1:{}/?authSource=admin", server.public_port())
    };
    let ran = setup_with(&of_user("right"));
    ran.says("(privilege)").says("update on edge_conflicts").says("docs/SYNC.md");
    setup_with(&of_user("hunter2")).says("(login)");
}
