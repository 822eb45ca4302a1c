//! Answers that are longer than all that one client may have are given, one at a time: records that the centre made large, and
//! whose text is longer still.

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, doc};
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::merge::{Clash, Side};
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::Base;

use super::cli_support::{Clinic, Node, PROFESSIONAL, ROOT};

/// More than one client may have.
const LONG: usize = 13 << 20;

/// What is as long as text as it is as BSON, twice as long, and a third longer.
fn values() -> [(&'static str, Bson, usize); 3] {
    let binary = Binary { subtype: BinarySubtype::Generic, bytes: vec![7; LONG] };
    [
        ("PLAIN01", "x".repeat(LONG).into(), LONG),
        ("BREAKS01", "\n".repeat(LONG).into(), 2 * LONG),
        ("BINARY01", Bson::Binary(binary), LONG / 3 * 4),
    ]
}

fn person(id: &str, note: Bson) -> Document {
    doc! {"_id": id, "name": "Ana", "active": true, "roles": ["end_user"], "note": note}
}

/// The answer is whole and as long as that.
fn is_whole(node: &Node, (method, path, login, body): (&str, &str, &str, &str), text_bytes: usize) -> String {
    let mut exchange = node.begin(method, path, login, body.len());
    exchange.send(body);
    let (head, body) = exchange.head_and_body();
    assert!(head.contains(" 200 "), "{method} {path}: {head}\n{}", node.log());
    assert!(body.len() > text_bytes, "{method} {path}: {}", body.len());
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        assert!(body.ends_with("\r\n0\r\n\r\n"), "{method} {path} is cut after {} bytes", body.len());
    }
    body
}

#[test]
fn one_answer_of_any_length_is_given() {
    let clinic = Clinic::new().with("API__BODY_LIMIT_BYTES", "16 MiB");
    clinic.serve(&["--demo"]).stop();
    clinic.write(|tx| {
        for (id, note, _) in values() {
            let person = person(id, note.clone());
            let key = RecordKey::new(Kind::Person, id);
            tx.put(&key, Some(&person), &Base::Document(person.clone()), &Actor::Centre)?;
            let key = RecordKey::new(Kind::Event, id);
            let event = doc! {"_id": id, "person": id, "note": note.clone()};
            tx.put(&key, Some(&event), &Base::Document(event.clone()), &Actor::Centre)?;
            tx.edit(&key, None, &Actor::Operator(0))?;
            let clash = Clash {
                path: vec!["note".to_owned()],
                base: None,
                local: Some(note),
                remote: Some("short".into()),
                stands: Side::Remote,
            };
            tx.add_conflict(&RecordKey::new(Kind::Person, id), &clash, None)?;
        }
        Ok(())
    });
    let node = clinic.serve(&[]);
    let ids = |path: &str, of: &str| -> String {
        let list: serde_json::Value = serde_json::from_str(&node.request("GET", path, ROOT, "").1).unwrap();
        let rows = list.as_array().unwrap_or_else(|| panic!("{list}"));
        let own = rows.iter().find(|row| row["record"] == of || row["record_id"] == of);
        own.unwrap_or_else(|| panic!("{of} in {list}"))["id"].to_string().replace('"', "")
    };
    for (id, _, text_bytes) in values() {
        let path = format!("/people/{id}");
        is_whole(&node, ("GET", &path, PROFESSIONAL, ""), text_bytes);
        let changed = is_whole(&node, ("PATCH", &path, PROFESSIONAL, r#"{"name": "Eva"}"#), text_bytes);
        assert!(changed.contains("Eva"));
        if id == "BINARY01" {
            // These make text of it as of any other value.
            continue;
        }
        let trash = format!("/trash/{}", ids("/trash?limit=10", id));
        is_whole(&node, ("GET", &trash, ROOT, ""), text_bytes);
        let conflict = format!("/sync/conflicts/{}", ids("/sync/conflicts?limit=10", id));
        is_whole(&node, ("GET", &conflict, ROOT, ""), text_bytes);
    }
    is_whole(&node, ("GET", "/people", PROFESSIONAL, ""), 4 * LONG);
    node.stop();
}
