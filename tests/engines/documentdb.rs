//! DocumentDB on PostgreSQL speaks MongoDB's protocol and says that it is 7.0. What it replies otherwise: no change
//! feed, no collations, no schemas in filters, cursors that are gone after ten seconds, other words for duplicates, and
//! no second mention of `_id`. A node keeps all its promises there, at the price of reading everything in every round.

use bson::Bson;
use thalamus_edge::central::{Write, Written};
use thalamus_edge::domain::diff::Change;

use super::*;
use crate::support::proxy::{Act, Rule, failure, opens_feed, statement_failures};

fn statements(command: &Document) -> Vec<&Document> {
    let lists = ["updates", "deletes"].into_iter().filter_map(|list| command.get_array(list).ok());
    lists.flatten().filter_map(Bson::as_document).collect()
}

fn is_collated(command: &Document) -> bool {
    command.contains_key("collation") || statements(command).iter().any(|one| one.contains_key("collation"))
}

fn has_schema(command: &Document) -> bool {
    let filter =
        |one: &&Document| one.get_document("q").is_ok_and(|filter| filter.contains_key("$jsonSchema"));
    statements(command).iter().any(filter)
}

fn repeats_id(command: &Document) -> bool {
    statements(command).iter().any(|one| {
        let stage = one.get_array("u").ok().and_then(|pipeline| pipeline.first()?.as_document());
        let literal =
            stage.and_then(|stage| stage.get_document("$replaceWith").ok()?.get_document("$literal").ok());
        literal.is_some_and(|literal| literal.contains_key("_id"))
    })
}

/// Whether a branch of a condition would be an error if it were worked out although it is not taken.
fn measures_anything(command: &Document) -> bool {
    format!("{command}").contains(r#""$binarySize": "$data""#)
}

/// The profile of the engine.
pub(super) fn documentdb() -> Vec<Rule> {
    let version: fn(&mut Document) = |reply| {
        reply.insert("maxWireVersion", 21);
        for absent in ["setName", "hosts", "me", "primary", "topologyVersion", "setVersion", "electionId"] {
            reply.remove(absent);
        }
        // A single server, as far as drivers can tell: `msg` tells a router, which may write retryably.
        reply.insert("msg", "isdbgrid");
    };
    let duplicate: fn(&mut Document) = |reply| {
        for failure in reply.get_array_mut("writeErrors").into_iter().flatten() {
            let Bson::Document(failure) = failure else { continue };
            let Ok(text) = failure.get_str("errmsg") else { continue };
            let Some(index) = text.split(" index: ").nth(1).and_then(|rest| rest.split(" dup key").next())
            else {
                continue;
            };
            let text = format!("Duplicate key violation on the requested collection: Index '{index}'");
            failure.insert("errmsg", text);
        }
    };
    let mut rules: Vec<Rule> =
        ["hello", "isMaster", "ismaster"].map(|name| Rule::new(name, Act::Alter(version))).to_vec();
    rules.extend([
        Rule::new("aggregate", failure(115)).when(opens_feed),
        Rule::new("bulkWrite", failure(59)),
        Rule::new("aggregate", failure(2)).when(measures_anything),
        Rule::new("find", failure(2)).when(measures_anything),
        Rule::new("", failure(115)).when(is_collated),
        Rule::new("", failure(9)).when(has_schema),
        Rule::new("", failure(66)).when(repeats_id),
        Rule::new("insert", Act::Alter(duplicate)),
        Rule::new("update", Act::Alter(duplicate)),
    ]);
    rules
}

async fn ground(settings: SyncSettings) -> Ground {
    let ground = Ground::with(Setup::default(), settings).await;
    ground.proxy.set_rules(documentdb());
    ground
}

#[tokio::test]
async fn a_node_takes_and_sends_everything() {
    let ground = ground(SyncSettings::default()).await;
    ground.put("ANA", "old").await;
    ground.put("BOB", "old").await;
    ground.people().insert_one(doc! {"_id": "ODD", "a.b": 1}).await.unwrap();
    ground.ends(Outcome::Complete).await;
    assert_eq!(ground.person("ANA").unwrap().get_str("f").ok(), Some("old"));
    // An insert, an update, a delete, replacements of a document by its fields and as a whole.
    ground.set("NEW", "mine").await;
    ground.set("ANA", "mine").await;
    ground.edit("BOB", None).await;
    ground.edit("ODD", Some(doc! {"_id": "ODD", "a.b": 2})).await;
    let report = ground.ends(Outcome::Complete).await;
    assert_eq!((report.pushed, report.dead), (4, 0), "{report:?}");
    assert_eq!(ground.at("NEW").await.unwrap().get_str("f").ok(), Some("mine"));
    assert_eq!(ground.at("ANA").await.unwrap().get_str("f").ok(), Some("mine"));
    assert_eq!(ground.at("BOB").await, None);
    assert_eq!(ground.at("ODD").await, Some(doc! {"_id": "ODD", "a.b": 2}));
    // What others do comes with the next round, and edits of both sides meet.
    ground.change("ANA", "theirs").await;
    ground.people().delete_one(doc! {"_id": "NEW"}).await.unwrap();
    ground.set("ANA", "mine again").await;
    ground.ends(Outcome::Complete).await;
    ground.ends(Outcome::Complete).await;
    assert_eq!(ground.person("NEW"), None);
    assert_eq!(ground.person("ANA"), ground.at("ANA").await);
    assert_eq!(ground.person("ANA").unwrap().get_str("g").ok(), Some("theirs"));
    assert_eq!((ground.pending(), ground.dead()), (0, vec![]));
    // What the engine does not know is asked for only where it is needed, and once in a conversation.
    for (rights, collated) in [(true, 0), (false, 1)] {
        let mut rules = documentdb();
        if !rights {
            // Nobody knows whether collections have collations of their own, so comparing by bytes is asked for.
            rules.insert(0, Rule::new("listCollections", failure(13)));
        }
        ground.proxy.set_rules(rules);
        ground.set("ANA", &format!("last, {rights}")).await;
        ground.set("EVA", &format!("first, {rights}")).await;
        ground.proxy.seen();
        let report = ground.ends(Outcome::Complete).await;
        assert_eq!((report.pushed, report.dead), (2, 0), "{report:?}");
        let seen = ground.proxy.seen();
        assert_eq!(seen.iter().filter(|command| is_collated(command)).count(), collated, "{seen:?}");
        assert_eq!(seen.iter().filter(|command| has_schema(command)).count(), 0, "{seen:?}");
    }
}

/// No member of a replica set is there for the driver, under either way to connect: the round says what to take out.
#[tokio::test]
async fn an_address_that_asks_for_a_replica_set_is_told() {
    for options in ["replicaSet=rs0", "replicaSet=rs0&directConnection=true"] {
        let mut ground = ground(SyncSettings::default()).await;
        ground.set("ANA", "mine").await;
        let member = format!("127.0.0.1:{}", ground.proxy.port());
        let wrong: Arc<dyn Hub> =
            Arc::new(hub(&format!("mongodb://{member}/?{options}"), ground.centre.name()));
        let right = std::mem::replace(
            &mut ground.sync,
            Reconciler::new(ground.store.clone(), Some(wrong), SyncSettings::default()),
        );
        let begun = std::time::Instant::now();
        let report = ground.ends(Outcome::Failed).await;
        assert!(begun.elapsed() < Duration::from_secs(10), "{options}: {:?}", begun.elapsed());
        assert_eq!(
            (report.stage, report.member.as_deref()),
            (Some("address"), Some(member.as_str())),
            "{report:?}"
        );
        let words = format!("{member} names no replica set, and the address asks for \"rs0\"");
        assert!(report.message.contains(&words), "{report:?}");
        assert_eq!(ground.pending(), 1, "{options}");
        ground.sync = right;
        ground.ends(Outcome::Complete).await;
        assert_eq!(ground.at("ANA").await.unwrap().get_str("f").ok(), Some("mine"));
    }
}

/// The statements themselves, where a round has not read anything before that told it.
#[tokio::test]
async fn statements_are_sent_again_in_a_form_that_is_understood() {
    let ground = ground(SyncSettings::default()).await;
    for id in ["A", "B", "C", "D"] {
        ground.put(id, "old").await;
    }
    let write = |id: &str| Write::Delete { key: person_key(id), base: person(id, "old") };
    let set = |id: &str| Write::Update {
        key: person_key(id),
        changes: vec![Change { path: vec!["f".into()], from: Some("old".into()), to: Some("new".into()) }],
    };
    let mut central = ground.hub().open().await.unwrap();
    let batch = [write("A"), set("B"), write("none"), set("none")];
    let answers = central.write(&batch).await.unwrap();
    // Updates and deletes each have one count for both.
    assert_eq!(answers, vec![Written::Unknown; 4], "none of them is taken for what it is not");
    assert_eq!(ground.at("A").await, None);
    assert_eq!(ground.at("B").await.unwrap().get_str("f").ok(), Some("new"));
    assert_eq!(central.write(&[write("C"), set("D")]).await.unwrap(), [Written::Hit, Written::Hit]);
    // Where it says so statement by statement.
    let mut other = ground.hub().open().await.unwrap();
    let mut rules = documentdb();
    rules.retain(|rule| !rule.is_of_every_command());
    rules.insert(0, Rule::new("update", statement_failures(1, 115, "no collation")).when(is_collated));
    rules.insert(1, Rule::new("delete", statement_failures(1, 115, "no collation")).when(is_collated));
    rules.insert(2, Rule::new("delete", statement_failures(1, 9, "unknown operator")).when(has_schema));
    ground.proxy.set_rules(rules);
    for id in ["E", "F"] {
        ground.put(id, "old").await;
    }
    assert_eq!(other.write(&[write("E"), set("F")]).await.unwrap(), [Written::Hit, Written::Hit]);
    assert_eq!(ground.at("E").await, None);
    // One that is understood in no form is refused, and not left open for ever.
    let rules = vec![
        Rule::new("bulkWrite", failure(59)),
        Rule::new("update", statement_failures(1, 115, "no such thing")),
    ];
    ground.proxy.set_rules(rules);
    ground.put("G", "old").await;
    let answers = other.write(&[set("G")]).await.unwrap();
    assert!(matches!(answers[..], [Written::Refused { code: 115, .. }]), "{answers:?}");
}

/// A key that no filter can name: the document is replaced by a literal, which must not name `_id` again.
#[tokio::test]
async fn a_replacement_does_not_repeat_the_identifier() {
    let ground = ground(SyncSettings::default()).await;
    ground.people().insert_one(doc! {"_id": "ODD", "x": 1}).await.unwrap();
    ground.ends(Outcome::Complete).await;
    ground.edit("ODD", Some(doc! {"_id": "ODD", "x": 1, "$y": 2})).await;
    if !takes_dollar_names(&ground.centre).await {
        ground.ends(Outcome::Partial).await;
        assert_eq!(ground.dead(), [52]);
        return;
    }
    let report = ground.ends(Outcome::Complete).await;
    assert_eq!((report.pushed, report.dead), (1, 0), "{report:?}");
    let there = ground.at("ODD").await.unwrap();
    assert_eq!((there.get_str("_id").ok(), there.get_i32("$y").ok()), (Some("ODD"), Some(2)));
    let seen = ground.proxy.seen();
    assert!(!seen.iter().any(repeats_id), "{seen:?}");
}

#[tokio::test]
async fn that_there_is_no_feed_is_said_everywhere_and_what_it_costs() {
    let settings =
        SyncSettings { continuous: true, budget_bytes_per_day: 100_000_000, ..SyncSettings::default() };
    let ground = ground(settings).await;
    assert!(ground.sync.status().unwrap().change_feed);
    ground.put("ANA", "old").await;
    for code in [115, 59, 238, 40_573] {
        let mut rules = documentdb();
        rules.insert(0, Rule::new("aggregate", failure(code)).when(opens_feed));
        ground.proxy.set_rules(rules);
        let report = ground.ends(Outcome::Complete).await;
        let status = ground.sync.status().unwrap();
        for said in [&report.message, &status.message] {
            for words in [
                "This centre has no change feed: every round reads everything, less than 1 MB.",
                "The budget of 100 MB a day is enough for",
                "`continuous` does nothing here",
            ] {
                assert_eq!(said.matches(words).count(), 1, "{code}: {said}");
            }
        }
        assert!(!status.change_feed && status.full_read_bytes.unwrap() > 0, "{status:?}");
        assert!(!ground.sync.is_connected());
    }
    // The same centre is given a replica set.
    ground.proxy.set_rules(Vec::new());
    let report = ground.ends(Outcome::Complete).await;
    assert!(!report.message.contains("no change feed"), "{report:?}");
    assert!(ground.sync.status().unwrap().change_feed);
    ground.sync.pause(&Actor::Local("tech".to_owned())).await.unwrap();
}

/// A cursor that is gone is opened again behind what it has told, in the same round.
#[tokio::test]
async fn a_lost_cursor_costs_no_round() {
    let ground = ground(SyncSettings::default()).await;
    let people: Vec<Document> = (0..900).map(|n| person(&format!("P{n:03}"), "old")).collect();
    ground.people().insert_many(people).await.unwrap();
    let mut rules = vec![Rule::new("getMore", failure(43)).times(2)];
    rules.extend(documentdb());
    ground.proxy.set_rules(rules);
    let report = ground.ends(Outcome::Complete).await;
    assert_eq!(report.pulled, 900, "{report:?}");
    let seen = ground.proxy.seen();
    let of_people = seen.iter().filter(|command| command.get_str("find").ok() == Some("people"));
    let begins: Vec<_> = of_people.map(|command| command.get_document("filter").unwrap().clone()).collect();
    let behind = begins.iter().filter(|filter| format!("{filter}").contains("$gt"));
    assert!(behind.count() >= 2, "{begins:?}");
    // Also where each cursor gives one batch and no more.
    let mut rules = vec![Rule::new("getMore", failure(43))];
    rules.extend(documentdb());
    ground.proxy.set_rules(rules);
    ground.change("P250", "theirs").await;
    ground.ends(Outcome::Complete).await;
    assert_eq!(ground.person("P250").unwrap().get_str("g").ok(), Some("theirs"));
}

/// The same of everything else that is read through a cursor: rows of nodes, attachments, identifiers of other types.
#[tokio::test]
async fn a_lost_cursor_is_opened_again_whatever_it_reads() {
    // Two documents in the first batch, and the others behind a cursor that is gone.
    let shorten: fn(&mut Document) = |reply| {
        let Ok(cursor) = reply.get_document_mut("cursor") else { return };
        let Ok(batch) = cursor.get_array_mut("firstBatch") else { return };
        if batch.len() > 2 {
            batch.truncate(2);
            cursor.insert("id", 777_i64);
        }
    };
    let ground = ground(SyncSettings::default()).await;
    let numbered = |number: i32| format!("{number:064}");
    let (files, sha256) = ((0..7).map(numbered).collect::<Vec<_>>(), numbered(0));
    let chunk = |n: i32| doc! {"_id": n, "files_id": &sha256, "n": n, "data": binary(&[n as u8; 3])};
    let file = |name: &String| {
        doc! {"_id": name, "length": 3_i64, "chunkSize": 65_536, "metadata": {"suspect": {"node": "x"}}}
    };
    ground.centre.collection("fs.files").insert_many(files.iter().map(file)).await.unwrap();
    ground.centre.collection("fs.chunks").insert_many((0..7).map(chunk)).await.unwrap();
    let odd = (0..7).map(|n| doc! {"_id": n});
    ground.people().insert_many(odd).await.unwrap();
    let nodes = (0..7).map(|n| doc! {"_id": format!("n{n}"), "store": "s1"});
    ground.centre.collection("edge_nodes").insert_many(nodes).await.unwrap();
    let mut central = ground.hub().open().await.unwrap();
    let mut rules = vec![Rule::new("find", Act::Alter(shorten)), Rule::new("getMore", failure(43))];
    rules.extend(documentdb());
    ground.proxy.set_rules(rules.clone());
    let rows = central.content_files(&files).await.unwrap();
    let mut found: Vec<_> = rows.into_iter().map(|file| file.sha256).collect();
    found.sort();
    assert_eq!(found, files);
    assert_eq!(central.marked_contents(5).await.unwrap().len(), 5, "as many as are asked for, and each once");
    let lengths = central.content_chunk_lengths(&sha256).await.unwrap();
    assert_eq!(lengths, (0..7).map(|n| (n, Some(3))).collect());
    let chunks = central.content_chunks(&sha256, 1, 6).await.unwrap();
    assert_eq!(chunks, (1..7).map(|n| (n, vec![n as u8; 3])).collect::<Vec<_>>());
    let mut ids = central.unsupported_ids(Kind::Person, 100).await.unwrap();
    ids.sort();
    assert_eq!(ids, ["0", "1", "2", "3", "4", "5", "6"]);
    let rows = central.node_rows("n0", Some("s1")).await.unwrap();
    let ids: std::collections::BTreeSet<_> = rows.iter().filter_map(|row| row.get_str("_id").ok()).collect();
    assert_eq!((rows.len(), ids.len()), (7, 7));
    // One that tells nothing at all is not asked for ever.
    let nothing: fn(&mut Document) = |reply| {
        let Ok(cursor) = reply.get_document_mut("cursor") else { return };
        cursor.insert("firstBatch", Bson::Array(Vec::new()));
        cursor.insert("id", 777_i64);
    };
    rules[0] = Rule::new("find", Act::Alter(nothing));
    ground.proxy.set_rules(rules);
    ground.proxy.seen();
    let answer = central.node_rows("n0", Some("s1")).await;
    assert!(matches!(answer, Err(CentralError::Offline(_))), "{answer:?}");
    let asked = names(&ground.proxy.seen()).iter().filter(|name| *name == "find").count();
    assert!((2..=5).contains(&asked), "{asked}");
}

fn binary(bytes: &[u8]) -> Bson {
    Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: bytes.to_vec() })
}

/// A unique index of the centre's: the record is refused and listed, in whatever words the engine says it.
#[tokio::test]
async fn a_duplicate_is_refused_in_any_words() {
    for words in [
        "Duplicate key violation on the requested collection: Index 'ref_1'",
        "E11000 duplicate key error collection: f.people index: ref_1 dup key: { ref: 1 }",
        "duplicate key value violates a unique constraint",
        "",
    ] {
        let ground = ground(SyncSettings::default()).await;
        ground.ends(Outcome::Complete).await;
        let mut rules = vec![Rule::new("insert", statement_failures(1, 11_000, words))];
        rules.extend(documentdb());
        ground.proxy.set_rules(rules);
        ground.set("NEW", "mine").await;
        let report = ground.ends(Outcome::Complete).await;
        assert_eq!((report.pushed, report.dead), (0, 1), "{words}: {report:?}");
        assert_eq!(ground.dead(), [11_000]);
        ground.proxy.seen();
        let later = ground.ends(Outcome::Complete).await;
        // In the round that was refused and in all later ones.
        let status = ground.sync.status().unwrap();
        for said in [&report.message, &later.message, &status.message] {
            assert!(said.contains("is refused"), "{words}: {said}");
            assert!(!said.contains("up to date"), "{words}: {said}");
        }
        assert!(!names(&ground.proxy.seen()).contains(&"insert".to_owned()), "not tried for ever");
    }
}

/// Somebody else was quicker: no matter how the engine calls the index of the identifier.
#[tokio::test]
async fn an_identifier_that_is_taken_is_merged_with() {
    let ground = ground(SyncSettings::default()).await;
    ground.ends(Outcome::Complete).await;
    for (id, words) in [("A", "Index '_id_'"), ("B", "Index '_id'"), ("C", "duplicate")] {
        ground.edit(id, Some(doc! {"_id": id, "f": "mine"})).await;
        // Not seen by this round's reading, because it comes just before the insert.
        ground.put(id, "theirs").await;
        let hidden: fn(&mut Document) = |reply| {
            let cursor = reply.get_document_mut("cursor").unwrap();
            cursor.insert("firstBatch", Bson::Array(Vec::new()));
        };
        let mut rules = vec![
            Rule::new("find", Act::Alter(hidden)).when(|c| c.get_str("find").ok() == Some("people")).times(1),
            Rule::new("insert", statement_failures(1, 11_000, words)),
        ];
        rules.extend(documentdb());
        ground.proxy.set_rules(rules);
        let report = ground.sync.round().await;
        assert_eq!(report.dead, 0, "{words}: {report:?}");
        ground.proxy.set_rules(documentdb());
        ground.ends(Outcome::Complete).await;
        assert_eq!(ground.person(id), ground.at(id).await, "{words}");
        assert!(!ground.store.read().unwrap().conflicts().unwrap().is_empty());
    }
}

/// What is measured of an attachment's chunks is measured of bytes only.
#[tokio::test]
async fn no_branch_of_a_condition_fails() {
    let ground = ground(SyncSettings::default()).await;
    let chunks = ground.centre.collection::<Document>("fs.chunks");
    let bytes = bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![7; 10] };
    let id = "ab".repeat(32);
    chunks.insert_one(doc! {"files_id": &id, "n": 0, "data": bytes}).await.unwrap();
    chunks.insert_one(doc! {"files_id": &id, "n": 1, "data": "text"}).await.unwrap();
    let mut central = ground.hub().open().await.unwrap();
    let lengths = central.content_chunk_lengths(&id).await.unwrap();
    assert_eq!(lengths, BTreeMap::from([(0, Some(10)), (1, None)]));
}
