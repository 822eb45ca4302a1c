//! What a round says, and what is said of it later.

use super::*;

#[tokio::test]
async fn what_is_left_over_is_said_once() {
    let sim = Sim::with_history();
    sim.put(Kind::Page, doc! {"_id": "P1", "info": "of nobody"});
    let node = Node::agreed(&sim).await;
    let report = node.complete().await;
    for message in [report.message, node.sync.status().unwrap().message] {
        assert_eq!(message.matches("One record says of nobody that it is theirs").count(), 1, "{message}");
    }
}
