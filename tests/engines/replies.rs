//! Replies of other versions and states of a server, and what the next round makes of them.

use super::*;
use crate::support::proxy::{Act, Rule, failure};

/// A server 8.0 that is set up as 7.0 has the version of the protocol, not the command.
#[tokio::test]
async fn a_server_that_does_not_take_bulk_writes_is_written_to_by_the_older_commands() {
    let newest: fn(&mut Document) = |reply| drop(reply.insert("maxWireVersion", 25));
    for code in [115, 59] {
        let ground = Ground::agreed().await;
        let hellos = ["hello", "isMaster", "ismaster"].map(|name| Rule::new(name, Act::Alter(newest)));
        let mut rules = hellos.to_vec();
        rules.push(Rule::new("bulkWrite", failure(code)));
        ground.proxy.set_rules(rules);
        ground.set("NEW", "mine").await;
        ground.set("ANA", "mine").await;
        ground.edit("BOB", None).await;
        let report = ground.ends(Outcome::Complete).await;
        assert_eq!((report.pushed, report.dead), (3, 0), "{code}: {report:?}");
        let seen = names(&ground.proxy.seen());
        let of = |name: &str| seen.iter().filter(|seen| *seen == name).count();
        assert_eq!(of("bulkWrite"), 1, "once in a conversation: {seen:?}");
        assert_eq!(ground.at("ANA").await.unwrap().get_str("f").ok(), Some("mine"));
        assert_eq!(ground.at("BOB").await, None);
        // Refused again and again, the delete is archived under one name.
        ground.put("EVA", "old").await;
        ground.ends(Outcome::Complete).await;
        ground.edit("EVA", None).await;
        ground.proxy.set_rules(vec![Rule::new("bulkWrite", failure(8)), Rule::new("delete", failure(8))]);
        for _ in 0..3 {
            ground.sync.round().await;
        }
        ground.proxy.set_rules(Vec::new());
        ground.ends(Outcome::Complete).await;
        let trash = ground.rows("edge_trash").await;
        let of_eva: Vec<_> = trash.iter().filter(|row| row.get_str("id").ok() == Some("EVA")).collect();
        assert_eq!(of_eva.len(), 1, "{trash:?}");
        assert_eq!(of_eva[0].get_str("state").ok(), Some("done"));
    }
}
