//! Leases, reports, conflicts and archived bodies.

use bson::{Bson, Document, bson, doc};
use thalamus_edge::central::{
    ArchiveState, CONFLICTS_COLLECTION, Central, CentralError, ConflictAnswer, Lease, LeaseAnswer,
    NODES_COLLECTION, RESOLUTION_FIELDS, Resolutions, TRASH_COLLECTION, WaitingConflicts,
};
use thalamus_edge::domain::value::same_document;

use super::Behind;

fn lease(number: i64, nonce: &str) -> Lease {
    Lease { number, nonce: nonce.to_owned() }
}

pub(crate) async fn leases(central: &mut dyn Central, behind: &dyn Behind) {
    let announcement = doc! {"name": "Clinic", "status": "revoked", "_id": "x", "lease": 1};
    let (first, second, third) = (lease(1, "a"), lease(2, "b"), lease(3, "c"));
    let mut take = async |expected: &[Lease], proposed: &Lease| {
        let taken = central.take_lease("n1", expected, proposed, &announcement).await;
        taken.expect("an answer")
    };
    assert_eq!(take(std::slice::from_ref(&first), &second).await, LeaseAnswer::Other(None));
    assert_eq!(behind.row(NODES_COLLECTION, "n1").await, None);
    assert_eq!(take(&[], &first).await, LeaseAnswer::Taken);
    let row = doc! {
        "_id": "n1",
        "lease": {"number": 1_i64, "nonce": "a"},
        "name": "Clinic",
        "status": "active",
    };
    let found = behind.row(NODES_COLLECTION, "n1").await.expect("a row");
    assert!(same_document(&found, &row), "{found:?}");
    // Somebody enrolled under this name meanwhile.
    assert_eq!(take(&[], &second).await, LeaseAnswer::Other(Some(first.clone())));
    // The number alone does not make a lease, nor does the nonce.
    let strangers = [lease(1, "b"), lease(2, "a")];
    assert_eq!(take(&strangers, &second).await, LeaseAnswer::Other(Some(first.clone())));
    // The acknowledgement was lost: the proposed one is expected as well.
    assert_eq!(take(std::slice::from_ref(&first), &second).await, LeaseAnswer::Taken);
    assert_eq!(take(&[first.clone(), second.clone()], &third).await, LeaseAnswer::Taken);
    // A clone that still holds the second.
    let clone = take(std::slice::from_ref(&second), &lease(3, "clone")).await;
    assert_eq!(clone, LeaseAnswer::Other(Some(third.clone())));

    central.report("n1", &third, &doc! {"pending": 4, "status": "x", "lease": 0}).await.expect("reported");
    central.report("n1", &second, &doc! {"pending": 5}).await.expect("passed over");
    central.report("n1", &third, &doc! {}).await.expect("nothing to do");
    let mut row = behind.row(NODES_COLLECTION, "n1").await.expect("a row");
    assert_eq!(row.get_i32("pending").ok(), Some(4));
    assert_eq!(row.get_str("status").ok(), Some("active"));

    row.insert("status", "revoked");
    behind.set_row(NODES_COLLECTION, row.clone()).await;
    let revoked = central.take_lease("n1", &[third], &lease(4, "d"), &doc! {}).await;
    assert_eq!(revoked.expect("an answer"), LeaseAnswer::Revoked);
    assert_eq!(behind.row(NODES_COLLECTION, "n1").await, Some(row));
    let revoked = central.take_lease("n1", &[], &lease(4, "d"), &doc! {}).await;
    assert_eq!(revoked.expect("an answer"), LeaseAnswer::Revoked);

    // A row prepared by the administrator.
    behind.set_row(NODES_COLLECTION, doc! {"_id": "n2", "status": "welcome"}).await;
    let taken = central.take_lease("n2", &[], &lease(1, "e"), &doc! {}).await;
    assert_eq!(taken.expect("an answer"), LeaseAnswer::Taken);
    let row = behind.row(NODES_COLLECTION, "n2").await.expect("a row");
    assert_eq!(row.get_str("status").ok(), Some("welcome"));
}

/// Two conversations ask for the first lease at once: one has it.
pub(crate) async fn lease_race(one: &mut dyn Central, other: &mut dyn Central) {
    for round in 0..20 {
        let node = format!("race {round}");
        let (a, b) = (lease(1, "a"), lease(1, "b"));
        let nothing = Document::new();
        let taken = tokio::join!(
            one.take_lease(&node, &[], &a, &nothing),
            other.take_lease(&node, &[], &b, &nothing),
        );
        let answers = (taken.0.expect("an answer"), taken.1.expect("an answer"));
        let expected = [
            (LeaseAnswer::Taken, LeaseAnswer::Other(Some(a))),
            (LeaseAnswer::Other(Some(b)), LeaseAnswer::Taken),
        ];
        assert!(expected.contains(&answers), "{answers:?}");
    }
}

pub(crate) async fn conflicts(central: &mut dyn Central, behind: &dyn Behind) {
    let row = async |id: &str| {
        let row = behind.row(CONFLICTS_COLLECTION, id).await.expect("a row");
        let text = |key: &str| row.get_str(key).unwrap_or("-").to_owned();
        [text("status"), text("node"), text("resolution")].join(" ")
    };
    let open = |id: &str, node: &str| doc! {"_id": id, "status": "open", "node": node};
    let closed = |id: &str, node: &str, resolution: &str| {
        doc! {"_id": id, "status": "closed", "node": node, "resolution": resolution}
    };
    central.publish_conflicts(&[]).await.expect("nothing to do");
    let batch = [open("c1", "a"), open("c2", "a"), closed("c3", "a", "theirs"), open("c4", "a")];
    central.publish_conflicts(&batch).await.expect("published");
    assert_eq!(row("c1").await, "open a -");
    assert_eq!(row("c3").await, "closed a theirs");
    // The same from another node changes nothing; a resolution closes.
    let batch = [open("c1", "b"), closed("c2", "b", "ours"), open("c3", "b"), open("c5", "b")];
    central.publish_conflicts(&batch).await.expect("published");
    assert_eq!(row("c1").await, "open a -");
    assert_eq!(row("c2").await, "closed b ours");
    assert_eq!(row("c3").await, "closed a theirs");
    assert_eq!(row("c5").await, "open b -");
    // The second resolution does not replace the first, and one repeated does no harm.
    let batch = [closed("c2", "a", "theirs"), closed("c3", "a", "theirs")];
    central.publish_conflicts(&batch).await.expect("published");
    assert_eq!(row("c2").await, "closed b ours");
    // The administrator has written a resolution that no node has carried out yet.
    let decided = doc! {"_id": "c4", "status": "open", "node": "a", "resolution": "theirs"};
    behind.set_row(CONFLICTS_COLLECTION, decided).await;
    central.publish_conflicts(&[open("c4", "b"), closed("c4", "b", "ours")]).await.expect("published");
    assert_eq!(row("c4").await, "open a theirs");
    central.publish_conflicts(&[closed("c4", "b", "theirs")]).await.expect("published");
    assert_eq!(row("c4").await, "closed b theirs");
}

/// A conflict that was closed and is found again.
pub(crate) async fn reopened_conflicts(central: &mut dyn Central, behind: &dyn Behind) {
    let again = |id: &str, node: &str| doc! {"_id": id, "status": "reopened", "node": node, "n": 2};
    let open = |id: &str, node: &str| doc! {"_id": id, "status": "open", "node": node, "n": 2};
    let closed = doc! {"status": "closed", "node": "a", "n": 1, "resolution": "theirs", "resolved_by": "x"};
    let pending = doc! {"status": "open", "node": "a", "n": 1, "resolution": "theirs"};
    let unread = doc! {"status": "open", "node": "a", "n": 1};
    for (what, stored, by, replaced) in [
        ("one that is not there", None, "a", true),
        ("a closed one", Some(closed.clone()), "a", true),
        ("another node's closed one", Some(closed), "b", true),
        ("one's own that the node has to close", Some(pending.clone()), "a", true),
        ("another node's that it has yet to close", Some(pending), "b", false),
        ("an open one", Some(unread), "a", false),
    ] {
        let id = format!("again {what}");
        let stored = stored.map(|fields| {
            let mut row = doc! {"_id": &id};
            row.extend(fields);
            row
        });
        if let Some(row) = &stored {
            behind.set_row(CONFLICTS_COLLECTION, row.clone()).await;
        }
        for _ in 0..2 {
            central.publish_conflicts(&[again(&id, by)]).await.expect("published");
            let found = behind.row(CONFLICTS_COLLECTION, &id).await.expect("a row");
            let expected = if replaced { open(&id, by) } else { stored.clone().expect("a row") };
            assert!(same_document(&found, &expected), "{what}: {found}");
        }
    }
}

/// What was decided about rows, and which rows there are.
pub(crate) async fn resolutions(central: &mut dyn Central, behind: &dyn Behind) {
    let ids = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(central.resolutions(&[]).await.expect("nothing"), Resolutions::default());
    let nothing = Resolutions { missing: ids(&["r1"]), ..Resolutions::default() };
    assert_eq!(central.resolutions(&ids(&["r1"])).await.expect("nothing"), nothing);
    let rows = [
        doc! {"_id": "r1", "status": "open", "node": "a", "local": 1},
        doc! {"_id": "r2", "status": "open", "node": "a", "local": 1, "resolution": null},
        doc! {"_id": "r3", "status": "open", "node": "a", "local": 1, "resolution": "local"},
        doc! {"_id": "r4", "status": "resolved", "node": "a", "local": 1, "resolution": "value", "value": {"x": [1, 1.0]},
        "resolved_by": "office", "applied_by": "b", "fingerprint": "f"},
        doc! {"_id": "r5", "status": 5, "resolution": ["strange"]},
        doc! {"_id": "r6", "resolution": "local"},
        doc! {"_id": "r7", "status": "declined", "resolution": "local", "declined_fingerprint": "d",
        "identities": [{"name": "Ana"}, {"name": "Anne"}]},
        doc! {"_id": "r8", "status": "resolved", "resolution": "local"},
    ];
    for row in &rows {
        behind.set_row(CONFLICTS_COLLECTION, row.clone()).await;
    }
    let asked = ids(&["r1", "r2", "r3", "none", "r4", "r5", "r6", "r7", "nothing"]);
    let mut found = central.resolutions(&asked).await.expect("rows");
    assert_eq!(found.missing, ids(&["none", "nothing"]));
    found.decided.sort_by_key(|row| row.get_str("_id").unwrap_or_default().to_owned());
    let names: Vec<_> = found.decided.iter().map(|row| row.get_str("_id").unwrap_or_default()).collect();
    assert_eq!(names, ["r3", "r4", "r5", "r6", "r7"]);
    for (row, stored) in found.decided.iter().zip(&rows[2..]) {
        for field in RESOLUTION_FIELDS {
            assert_eq!(row.get(field), stored.get(field), "{field} of {row}");
        }
    }
    // What was written just now is seen.
    central.publish_conflicts(&[doc! {"_id": "r9", "status": "open"}]).await.expect("published");
    let closed = doc! {"_id": "r9", "status": "resolved", "resolution": "central"};
    central.publish_conflicts(&[closed]).await.expect("published");
    let found = central.resolutions(&ids(&["r9", "r1"])).await.expect("rows");
    assert_eq!((found.decided.len(), found.missing.len()), (1, 0));
    let many: Vec<String> = (0..1_000).map(|n| format!("many {n}")).collect();
    let rows: Vec<Document> = many.iter().map(|id| doc! {"_id": id, "status": "resolved"}).collect();
    assert_eq!(central.resolutions(&many).await.expect("rows").missing, many);
    central.publish_conflicts(&rows).await.expect("published");
    let found = central.resolutions(&many).await.expect("rows");
    assert_eq!((found.decided.len(), found.missing.len(), found.left), (1_000, 0, Vec::new()));
}

/// Rows that wait, of some nodes, piece by piece.
pub(crate) async fn waiting_conflicts(central: &mut dyn Central, behind: &dyn Behind) {
    let nodes = ["waits a".to_owned(), "waits b".to_owned()];
    let found = central.waiting_conflicts(&nodes, None).await.expect("nothing");
    assert_eq!(found, WaitingConflicts::default());
    let rows = [
        doc! {"_id": "w1", "status": "open", "node": "waits a", "local": {"x": [1, 1.0]}, "path": ["f"]},
        doc! {"_id": "w2", "status": "open", "node": "waits b", "resolution": "local"},
        doc! {"_id": "w3", "status": "declined", "node": "waits a", "resolution": "local", "declined": "no"},
        doc! {"_id": "w4", "status": "resolved", "node": "waits a", "resolution": "local"},
        doc! {"_id": "w5", "node": "waits b"},
    ];
    let others = [
        doc! {"_id": "v1", "status": "open", "node": "waits c"},
        doc! {"_id": "v2", "status": "open"},
        doc! {"_id": "w33", "status": "resolved", "node": "waits a", "resolution": "local", "applied_by": "x"},
    ];
    for row in rows.iter().chain(&others) {
        behind.set_row(CONFLICTS_COLLECTION, row.clone()).await;
    }
    let (mut read, mut after) = (Vec::new(), None::<String>);
    loop {
        let found = central.waiting_conflicts(&nodes, after.as_deref()).await.expect("rows");
        read.extend(found.rows);
        let Some(next) = found.next else {
            break;
        };
        assert!(after.is_none_or(|after| after < next), "it goes on");
        after = Some(next);
    }
    assert_eq!(read, rows);
    let found = central.waiting_conflicts(&nodes[..1], Some("w1")).await.expect("rows");
    let ids: Vec<_> = found.rows.iter().map(|row| row.get_str("_id").unwrap_or_default()).collect();
    assert_eq!(ids, ["w3", "w4"]);
}

/// More rows that wait than one answer takes.
pub(crate) async fn large_waiting_conflicts(central: &mut dyn Central, behind: &dyn Behind) {
    let (nodes, large) = (["waits much".to_owned()], "x".repeat(700 << 10));
    for n in 0..12 {
        let row = doc! {"_id": format!("much {n:02}"), "status": "open", "node": &nodes[0], "local": &large};
        behind.set_row(CONFLICTS_COLLECTION, row).await;
    }
    let first = central.waiting_conflicts(&nodes, None).await.expect("rows");
    assert!((1..12).contains(&first.rows.len()), "{}", first.rows.len());
    let mut count = first.rows.len();
    let mut after = first.next;
    while let Some(at) = after {
        let found = central.waiting_conflicts(&nodes, Some(&at)).await.expect("rows");
        count += found.rows.len();
        after = found.next;
    }
    assert_eq!(count, 12);
}

/// More decided rows than one answer takes: the others are named, and the next answer has them.
pub(crate) async fn large_resolutions(central: &mut dyn Central, behind: &dyn Behind) {
    let large: Vec<String> = (0..40).map(|n| format!("large {n}")).collect();
    let value = "x".repeat(1 << 20);
    for id in &large {
        let row = doc! {"_id": id, "status": "resolved", "resolution": "value", "value": &value};
        behind.set_row(CONFLICTS_COLLECTION, row).await;
    }
    let mut left = [large.clone(), vec!["none".to_owned()]].concat();
    let (mut decided, mut missing, mut answers) = (Vec::new(), Vec::new(), 0);
    while !left.is_empty() {
        let found = central.resolutions(&left).await.expect("rows");
        assert!(found.left.len() < left.len(), "{} of {} are left", found.left.len(), left.len());
        decided.extend(found.decided.iter().map(|row| row.get_str("_id").unwrap_or_default().to_owned()));
        missing.extend(found.missing);
        (left, answers) = (found.left, answers + 1);
    }
    decided.sort();
    let mut expected = large;
    expected.sort();
    assert_eq!((decided, missing), (expected, vec!["none".to_owned()]));
    assert!(answers > 1, "all of it came at once");
}

/// A row that a node or the administrator has decided, and a node closes.
pub(crate) async fn closed_conflicts(central: &mut dyn Central, behind: &dyn Behind) {
    let closed =
        doc! {"status": "resolved", "node": "b", "resolution": "value", "value": {"x": 1}, "applied_by": "b"};
    let decided = |status: &str, value: Bson| doc! {"status": status, "resolution": "value", "value": value};
    let value = || bson!({"x": 1});
    let declined = doc! {"status": "declined", "declined": "because", "declined_fingerprint": "f"};
    for (what, stored, is_closed) in [
        ("an open one", doc! {"status": "open"}, true),
        ("one decided alike and not carried out", decided("resolved", value()), true),
        ("one decided alike and left open", decided("open", value()), true),
        ("one with another value", decided("resolved", bson!({"x": 1.5})), false),
        ("one with a value of another type", decided("resolved", bson!({"x": "1"})), false),
        ("one without the value", doc! {"status": "resolved", "resolution": "value"}, false),
        ("one decided otherwise", doc! {"status": "resolved", "resolution": "local"}, false),
        ("one spelled otherwise", doc! {"status": "resolved", "resolution": " Value"}, false),
        (
            "one closed by a node",
            doc! {"status": "resolved", "resolution": "value", "value": {"x": 1}, "applied_by": "a"},
            false,
        ),
        ("one without a decision, declined", declined.clone(), true),
    ] {
        let id = format!("closed {what}");
        let mut stored = stored;
        stored.insert("_id", &id);
        behind.set_row(CONFLICTS_COLLECTION, stored.clone()).await;
        let mut row = doc! {"_id": &id};
        row.extend(closed.clone());
        central.publish_conflicts(std::slice::from_ref(&row)).await.expect("published");
        let found = behind.row(CONFLICTS_COLLECTION, &id).await.expect("a row");
        let expected = if is_closed { &row } else { &stored };
        assert!(same_document(&found, expected), "{what}: {found}");
    }
}

/// Answers are written only into rows that hold what the node read.
pub(crate) async fn answers(central: &mut dyn Central, behind: &dyn Behind) {
    central.answer_conflicts(&[]).await.expect("nothing to do");
    let row = |id: &str| doc! {"_id": id, "status": "resolved", "resolution": ["local"], "value": {"$x": 1}, "n": 1};
    let answer = |id: &str, seen: &[(&'static str, Option<Bson>)]| ConflictAnswer {
        id: id.to_owned(),
        seen: seen.to_vec(),
        set: doc! {"status": "declined", "declined": "because"},
        unset: vec!["n"],
    };
    let as_read = || {
        vec![
            ("status", Some(bson!("resolved"))),
            ("resolution", Some(bson!(["local"]))),
            ("value", Some(bson!({"$x": 1}))),
            ("resolved_by", None),
        ]
    };
    let with = |field: &'static str, value: Option<Bson>| {
        let mut seen = as_read();
        seen.retain(|(name, _)| *name != field);
        seen.push((field, value));
        seen
    };
    let cases = [
        ("as read", as_read(), true),
        ("nothing compared", Vec::new(), true),
        ("another status", with("status", Some(bson!("open"))), false),
        ("an element of an array", with("resolution", Some(bson!("local"))), false),
        ("not there", with("value", None), false),
        ("there", with("resolved_by", Some(Bson::Null)), false),
    ];
    let answers: Vec<ConflictAnswer> =
        cases.iter().map(|(what, seen, _)| answer(&format!("answer {what}"), seen)).collect();
    for answer in &answers {
        behind.set_row(CONFLICTS_COLLECTION, row(&answer.id)).await;
    }
    let missing = answer("answer nobody", &[]);
    central.answer_conflicts(&[answers.clone(), vec![missing]].concat()).await.expect("answered");
    for ((what, _, is_written), answer) in cases.iter().zip(&answers) {
        let mut expected = row(&answer.id);
        if *is_written {
            expected.extend(answer.set.clone());
            expected.remove("n");
        }
        let found = behind.row(CONFLICTS_COLLECTION, &answer.id).await.expect("a row");
        assert!(same_document(&found, &expected), "{what}: {found}");
    }
    assert_eq!(behind.row(CONFLICTS_COLLECTION, "answer nobody").await, None);
}

pub(crate) async fn archive(central: &mut dyn Central, behind: &dyn Behind) {
    let row = async |id: &str| behind.row(TRASH_COLLECTION, id).await;
    let body = doc! {"_id": "r", "password": null, "$x": {"a.b": 1, "": [1.0, 1]}};
    let pending =
        |id: &str, number: i64| doc! {"_id": id, "state": "pending", "n": number, "body": body.clone()};
    central.archive(&[]).await.expect("nothing to do");
    let rows = [pending("t1", 1), pending("t2", 2)];
    central.archive(&rows).await.expect("archived");
    assert_eq!(row("t1").await, Some(rows[0].clone()));
    // Written again when the delete is tried again, the same at every server.
    central.archive(&rows).await.expect("archived");
    assert_eq!(row("t1").await, Some(rows[0].clone()));
    let again = central.archive(&[pending("t1", 7)]).await;
    if behind.takes_dollar_names().await {
        again.expect("archived");
        assert_eq!(row("t1").await, Some(pending("t1", 7)));
    } else {
        // It cannot be replaced there, and nobody takes it for what was sent.
        assert!(matches!(again, Err(CentralError::Failed(_))), "{again:?}");
        assert_eq!(row("t1").await, Some(rows[0].clone()));
    }
    let settled = [
        ("t1".to_owned(), ArchiveState::Done),
        ("t2".to_owned(), ArchiveState::Void),
        ("none".to_owned(), ArchiveState::Done),
    ];
    central.settle_archive(&settled).await.expect("settled");
    let state = |row: Option<Document>| row.expect("a row").get_str("state").unwrap_or("-").to_owned();
    assert_eq!(state(row("t1").await), "done");
    assert_eq!(state(row("t2").await), "void");
    assert_eq!(row("none").await, None);
    // More than one command carries.
    let large = |n: i32| doc! {"_id": format!("large {n}"), "body": "x".repeat(5 * 1024 * 1024)};
    let rows: Vec<Document> = (0..4).map(large).collect();
    central.archive(&rows).await.expect("archived");
    assert!(row("large 3").await.is_some());
    assert!(central.archive(&[doc! {"body": 1}]).await.is_err());
    // What no document can hold is refused, and the conversation goes on.
    let too_large = |id: &str| doc! {"_id": id, "status": "open", "body": "x".repeat((16 << 20) + 1)};
    let refused = central.archive(&[too_large("t3")]).await;
    assert!(matches!(refused, Err(CentralError::Failed(_))), "{refused:?}");
    let refused = central.publish_conflicts(&[too_large("c9")]).await;
    assert!(matches!(refused, Err(CentralError::Failed(_))), "{refused:?}");
    central.archive(&[pending("t4", 1)]).await.expect("archived");
    assert_eq!(row("t4").await, Some(pending("t4", 1)));
}
