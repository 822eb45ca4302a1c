//! What errors of writes and calls come to.

use bson::{Document, bson, doc};
use thalamus_edge::central::{CentralError, Lease, Written};
use thalamus_edge::domain::record::Kind;

use super::{Ground, insert, open, set};
use crate::contract::Behind;
use crate::support::mongo::{MongoServer, Setup};

fn refused(answer: &Written) -> Option<i32> {
    match answer {
        Written::Refused { code, message } => {
            assert!(!message.contains("secret"), "{message}");
            Some(*code)
        }
        _ => None,
    }
}

#[tokio::test]
async fn a_refused_record_delays_no_other() {
    let server = MongoServer::start().await;
    for bulk in [true, false] {
        let ground = Ground::new(&server).await;
        let hub = if bulk { ground.hub() } else { ground.hub().without_bulk_write() };
        let mut central = open(&hub).await;
        ground.put(Kind::Person, doc! {"_id": "a", "ref": "secret"}).await;
        ground.put(Kind::Person, doc! {"_id": "b", "ref": "b"}).await;
        ground.put(Kind::Person, doc! {"_id": "big", "ref": "c", "text": "x".repeat(10 << 20)}).await;
        let unique = doc! {"unique": true, "key": {"ref": 1}, "name": "ref_1"};
        let index = doc! {"createIndexes": "people", "indexes": [unique]};
        ground.database.run_command(index).await.expect("an index");
        let validator = doc! {"active": {"$ne": "secret"}};
        let validated = doc! {"collMod": "people", "validator": validator};
        ground.database.run_command(validated).await.expect("a validator");

        // Updates and inserts each hit or fail, so that the counts of commands are certain as well.
        let batch = [
            insert("c", doc! {"ref": "secret"}),
            insert("d", doc! {"ref": "d", "active": "secret"}),
            insert("e", doc! {"ref": "e"}),
            insert("a", doc! {"ref": "secret"}),
            insert("f", doc! {"ref": "f", "text": "x".repeat(17 << 20)}),
            set("b", "ref", Some(bson!("b")), "secret"),
            set("b", "active", None, "secret"),
            set("big", "more", None, "y".repeat(8 << 20)),
            set("a", "name", None, "n"),
        ];
        let answers = central.write(&batch).await.expect("answers");
        assert_eq!(refused(&answers[0]), Some(11_000), "{answers:?}");
        assert_eq!(refused(&answers[1]), Some(121), "{answers:?}");
        assert_eq!(answers[2], Written::Hit);
        assert_eq!(answers[3], Written::Miss, "the identifier is taken, whatever else is");
        assert_eq!(refused(&answers[4]), Some(10_334), "{answers:?}");
        assert_eq!(refused(&answers[5]), Some(11_000), "{answers:?}");
        assert_eq!(refused(&answers[6]), Some(121), "{answers:?}");
        assert!(matches!(refused(&answers[7]), Some(10_334 | 17_419 | 17_420)), "{answers:?}");
        assert_eq!(answers[8], Written::Hit);
        assert!(ground.get(Kind::Person, "e").await.is_some());
        ground.clear().await;
    }
}

/// A server whose next command of some name fails as told.
async fn fail_next(ground: &Ground, command: &str, how: Document) {
    let mut data = doc! {"failCommands": [command]};
    data.extend(how);
    let fail = doc! {"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": data};
    let admin = ground.database.client().database("admin");
    admin.run_command(fail).await.expect("a fail point");
}

#[tokio::test]
async fn errors_of_a_call_are_told_from_errors_of_a_write() {
    let server = MongoServer::start_own(Setup::default()).await;
    let ground = Ground::new(&server).await;
    let has_bulk_write = ground.has_bulk_write().await;
    for (bulk, command) in [(true, "bulkWrite"), (false, "insert")] {
        if bulk && !has_bulk_write {
            // The driver does not send it, and the other way is what remains.
            continue;
        }
        let hub = if bulk { ground.hub() } else { ground.hub().without_bulk_write() };
        let mut central = open(&hub).await;
        let mut write = async |id: &str| central.write(&[insert(id, doc! {})]).await;
        fail_next(&ground, command, doc! {"errorCode": 13}).await;
        let answer = write("denied").await;
        assert!(matches!(answer, Err(CentralError::Refused(_))), "{answer:?}");
        fail_next(&ground, command, doc! {"errorCode": 8}).await;
        let answer = write("unknown").await;
        assert!(matches!(answer, Err(CentralError::Failed(_))), "{answer:?}");
        let unconfirmed = doc! {"writeConcernError": {"code": 64, "errmsg": "waiting timed out"}};
        fail_next(&ground, command, unconfirmed).await;
        let id = format!("unconfirmed {command}");
        assert_eq!(write(&id).await.expect("answers"), [Written::Unknown]);
        assert!(ground.get(Kind::Person, &id).await.is_some(), "it happened all the same");
        assert_eq!(write(&id).await.expect("answers"), [Written::Miss]);
    }
    // Not primary: commands are not repeated by the driver, and the round ends.
    let mut central = open(&ground.hub().without_bulk_write()).await;
    fail_next(&ground, "insert", doc! {"errorCode": 10_107}).await;
    let answer = central.write(&[insert("moved", doc! {})]).await;
    assert!(matches!(answer, Err(CentralError::Offline(_))), "{answer:?}");
    // A lease that is not confirmed is not taken.
    let unconfirmed = doc! {"writeConcernError": {"code": 64, "errmsg": "waiting timed out"}};
    fail_next(&ground, "update", unconfirmed).await;
    let lease = Lease { number: 1, nonce: "a".to_owned() };
    let taken = central.take_lease("n", &[], &lease, &doc! {}).await;
    assert!(matches!(taken, Err(CentralError::Offline(_))), "{taken:?}");
    fail_next(&ground, "update", doc! {"writeConcernError": {"code": 64, "errmsg": ""}}).await;
    let archived = central.archive(&[doc! {"_id": "t"}]).await;
    assert!(matches!(archived, Err(CentralError::Offline(_))), "{archived:?}");
}
