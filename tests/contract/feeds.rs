//! The change feed: what a node is told, from where, and when it cannot be told.

use bson::{Bson, bson, doc};
use thalamus_edge::central::{
    Central, Changes, Effect, Event, Feed, Lease, LeaseAnswer, NODES_COLLECTION, Token, Watched, Write,
    Written,
};
use thalamus_edge::domain::diff::Change;
use thalamus_edge::domain::record::{Kind, RecordKey};

use super::{Behind, insert, person, set};

/// Empty answers after which nothing more is expected.
pub(crate) const QUIET_ANSWERS: usize = 2;
const EVENTS_MAX: usize = 64;

pub(crate) async fn watch(
    central: &mut dyn Central,
    after: Option<&Token>,
    bodies: &[RecordKey],
) -> Box<dyn Feed> {
    match central.watch("me", after, bodies, EVENTS_MAX).await.expect("an answer") {
        Watched::Open(feed) => feed,
        Watched::Lost => panic!("the history is lost"),
        Watched::Unsupported => panic!("no change feed"),
    }
}

/// Everything that the feed tells until it is quiet.
async fn all(feed: &mut dyn Feed) -> Changes {
    let mut changes = Changes::default();
    let mut quiet = 0;
    while quiet < QUIET_ANSWERS && !changes.is_lost {
        let next = feed.next().await.expect("changes");
        quiet = if next.events.is_empty() { quiet + 1 } else { 0 };
        changes.events.extend(next.events);
        changes.is_lost = next.is_lost;
    }
    compare_as_told(&mut changes.events);
    changes
}

/// Makes events comparable: the paths of an update in order, and no moments, which must be in order.
fn compare_as_told(events: &mut [Event]) {
    let mut last = None;
    for event in events {
        if let Event::Record { at, .. } = event {
            assert!(at.is_some() && *at >= last, "{at:?} after {last:?}");
            last = at.take();
        }
        if let Event::Record { effect: Effect::Updated { set, unset }, .. } = event {
            set.sort_by(|a, b| a.0.cmp(&b.0));
            unset.sort();
        }
    }
}

fn record(key: RecordKey, effect: Effect) -> Event {
    Event::Record { key, effect, at: None }
}

fn updated(set: Vec<(&str, Bson)>, unset: &[&str]) -> Effect {
    let set = set.into_iter().map(|(path, value)| (path.to_owned(), value)).collect();
    Effect::Updated { set, unset: unset.iter().map(|path| (*path).to_owned()).collect() }
}

/// What was seen before a write was sent happened before it, and is told to have.
pub(crate) async fn moments(central: &mut dyn Central, behind: &dyn Behind) {
    let mut feed = watch(central, None, &[]).await;
    behind.put(Kind::Person, doc! {"_id": "seen"}).await;
    let mut beside = central.beside().await.expect("a conversation beside");
    assert_eq!(beside.fetch(Kind::Person, &["seen".to_owned()]).await.expect("it").len(), 1);
    let seen = central.moment().expect("a moment");
    central.write(&[insert("own", doc! {})]).await.expect("an answer");
    behind.put(Kind::Person, doc! {"_id": "later"}).await;
    let mut told = Vec::new();
    while told.len() < 3 {
        let events = feed.next().await.expect("changes").events.into_iter();
        told.extend(events.filter_map(|event| match event {
            Event::Record { key, at, .. } => Some((key.id, at.expect("a moment") > seen)),
            Event::Lease(_) => None,
        }));
    }
    let expected = [("seen", false), ("own", true), ("later", true)];
    assert_eq!(told, expected.map(|(id, is_later)| (id.to_owned(), is_later)));
}

/// What others do is told in order, and what is nobody's business is not.
pub(crate) async fn told_in_order(central: &mut dyn Central, behind: &dyn Behind) {
    behind.put(Kind::Person, doc! {"_id": "a", "f": 1, "n": {"x": 1, "y": 2}}).await;
    let mut feed = watch(central, None, &[]).await;
    assert!(feed.token().is_some(), "a fresh feed knows where it begins");
    behind.update(Kind::Person, "a", doc! {"n.x": 5}, &["f"]).await;
    behind.put(Kind::Page, doc! {"_id": "p", "page": 1}).await;
    behind.replace(Kind::Person, doc! {"_id": "a", "f": 2}).await;
    behind.remove(Kind::Person, "a").await;
    // Not told: ids that are no text, other collections, files, other nodes.
    behind.put(Kind::Person, doc! {"_id": 5}).await;
    for collection in ["others", "fs.files", "fs.chunks"] {
        behind.put_elsewhere(collection, vec![doc! {"_id": "a"}]).await;
    }
    behind.set_row(NODES_COLLECTION, doc! {"_id": "other", "lease": {"number": 1_i64, "nonce": "n"}}).await;
    let told = all(feed.as_mut()).await;
    let page = RecordKey::new(Kind::Page, "p");
    let expected = [
        record(person("a"), updated(vec![("n.x", bson!(5))], &["f"])),
        record(page, Effect::Inserted(None)),
        record(person("a"), Effect::Replaced(None)),
        record(person("a"), Effect::Deleted),
    ];
    assert_eq!(told.events, expected);
    assert!(!told.is_lost);
}

/// Own writes are told like those of others, as they were sent: that is the proof that they landed.
pub(crate) async fn own_writes_and_lease(central: &mut dyn Central, behind: &dyn Behind) {
    behind.put(Kind::Person, doc! {"_id": "a", "f": "old", "n": {"x": 1}, "gone": 1}).await;
    behind.put(Kind::Person, doc! {"_id": "r", "f": 1}).await;
    behind.put(Kind::Person, doc! {"_id": "d", "f": 1}).await;
    let bodies = [person("new"), person("r")];
    let first = Lease { number: 1, nonce: "one".to_owned() };
    let second = Lease { number: 2, nonce: "two".to_owned() };
    let mut before = watch(central, None, &[]).await;
    let taken = central.take_lease("me", &[], &first, &doc! {"name": "n"}).await.expect("an answer");
    assert_eq!(taken, LeaseAnswer::Taken);
    // A row that is new does not show its lease; one that is changed does.
    assert_eq!(all(before.as_mut()).await, Changes::default());
    let mut feed = watch(central, None, &bodies).await;
    let expected = std::slice::from_ref(&first);
    central.take_lease("me", expected, &second, &doc! {"name": "n"}).await.expect("an answer");
    central.report("me", &second, &doc! {"pending": 1}).await.expect("reported");
    let change = |path: &[&str], from: Option<Bson>, to: Option<Bson>| {
        let path = path.iter().map(|step| (*step).to_owned()).collect();
        Change { path, from, to }
    };
    let changes = vec![
        change(&["f"], Some(bson!("old")), Some(bson!("new"))),
        change(&["gone"], Some(bson!(1)), None),
        change(&["n", "x"], Some(bson!(1)), Some(bson!(2_i64))),
    ];
    let replaced = doc! {"_id": "r", "a.b": 1};
    let base = doc! {"_id": "d", "f": 1};
    // What is deleted has been archived.
    let archived = doc! {"_id": "t", "id": "d", "state": "pending", "document": base.clone()};
    central.archive(&[archived]).await.expect("archived");
    let batch = [
        insert("new", doc! {"f": "1"}),
        insert("unasked", doc! {"f": "1"}),
        Write::Update { key: person("a"), changes },
        Write::Replace { key: person("r"), base: doc! {"_id": "r", "f": 1}, document: replaced.clone() },
        Write::Delete { key: person("d"), base },
    ];
    for write in batch {
        let answer = central.write(std::slice::from_ref(&write)).await.expect("an answer");
        assert_eq!(answer, [Written::Hit], "{write:?}");
    }
    let told = all(feed.as_mut()).await;
    let set = vec![("f", bson!("new")), ("n.x", bson!(2_i64))];
    let expected = [
        Event::Lease(second),
        record(person("new"), Effect::Inserted(Some(doc! {"_id": "new", "f": "1"}))),
        record(person("unasked"), Effect::Inserted(None)),
        record(person("a"), updated(set, &["gone"])),
        record(person("r"), Effect::Replaced(Some(replaced))),
        record(person("d"), Effect::Deleted),
    ];
    assert_eq!(told.events, expected);
}

/// What changes nothing is not told; a document made for a path is told as a whole.
pub(crate) async fn told_as_changed(central: &mut dyn Central, behind: &dyn Behind) {
    behind.put(Kind::Person, doc! {"_id": "a", "f": 1}).await;
    let mut feed = watch(central, None, &[]).await;
    behind.update(Kind::Person, "a", doc! {"f": 1}, &["none"]).await;
    behind.update(Kind::Person, "a", doc! {"n.x.y": 1, "f": 1_i64}, &[]).await;
    behind.replace(Kind::Person, behind.get(Kind::Person, "a").await.expect("a record")).await;
    let set = vec![("f", bson!(1_i64)), ("n", bson!({"x": {"y": 1}}))];
    assert_eq!(all(feed.as_mut()).await.events, [record(person("a"), updated(set, &[]))]);
}

/// A token goes on where it was taken.
pub(crate) async fn continuation(central: &mut dyn Central, other: &mut dyn Central, behind: &dyn Behind) {
    let mut feed = watch(central, None, &[]).await;
    let start = feed.token().expect("a token");
    for n in 0..40 {
        behind.put(Kind::Person, doc! {"_id": format!("{n:02}")}).await;
    }
    let everything = all(feed.as_mut()).await.events;
    assert_eq!(everything.len(), 40);
    let end = feed.token().expect("a token");
    assert_ne!(start, end);
    drop(feed);
    // From the start again, and from wherever a token was given: nothing is lost and nothing comes twice.
    let mut again = watch(other, Some(&start), &[]).await;
    let mut seen = Vec::new();
    while seen.len() < everything.len() {
        let token = again.token().expect("a token");
        let mut rest = watch(central, Some(&token), &[]).await;
        assert_eq!(all(rest.as_mut()).await.events, everything[seen.len()..]);
        let mut next = again.next().await.expect("changes").events;
        compare_as_told(&mut next);
        seen.extend(next);
    }
    assert_eq!(seen, everything);
    behind.put(Kind::Person, doc! {"_id": "later"}).await;
    let mut later = watch(central, Some(&end), &[]).await;
    let told = all(later.as_mut()).await.events;
    assert_eq!(told, [record(person("later"), Effect::Inserted(None))]);
}

/// No answer tells more than was asked for, the first neither, and together they tell everything.
pub(crate) async fn small_answers(central: &mut dyn Central, behind: &dyn Behind) {
    let start = watch(central, None, &[]).await.token().expect("a token");
    let ids: Vec<String> = (0..7).map(|n| n.to_string()).collect();
    for id in &ids {
        behind.put(Kind::Person, doc! {"_id": id}).await;
    }
    let Watched::Open(mut feed) = central.watch("me", Some(&start), &[], 2).await.expect("an answer") else {
        panic!("no change feed");
    };
    let (mut told, mut quiet) = (Vec::new(), 0);
    while quiet < QUIET_ANSWERS {
        let events = feed.next().await.expect("changes").events;
        assert!(events.len() <= 2, "{events:?}");
        quiet = if events.is_empty() { quiet + 1 } else { 0 };
        told.extend(events);
    }
    compare_as_told(&mut told);
    let expected: Vec<Event> = ids.iter().map(|id| record(person(id), Effect::Inserted(None))).collect();
    assert_eq!(told, expected);
}

/// An idle feed moves on, past what is nobody's business.
pub(crate) async fn idling(central: &mut dyn Central, behind: &dyn Behind) {
    behind.put(Kind::Person, doc! {"_id": "a"}).await;
    let token = watch(central, None, &[]).await.token().expect("a token");
    behind.put_elsewhere("others", (0..50).map(|n| doc! {"_id": n}).collect()).await;
    let before = central.traffic();
    let mut feed = watch(central, Some(&token), &[]).await;
    assert_eq!(feed.next().await.expect("an answer"), Changes::default());
    assert_ne!(feed.token().expect("a token"), token);
    let after = central.traffic();
    let cost = after.since(before);
    let (trips, sent, received) = (cost.round_trips, cost.command_bytes_sent, cost.command_bytes_received);
    println!("opening and empty answers: {trips} trips, {sent} bytes sent, {received} received");
    assert!(trips <= 1 + QUIET_ANSWERS as u64, "{trips}");
    assert!(sent + received < 3_000, "{sent} {received}");
}

/// The centre has forgotten what happened since the token.
pub(crate) async fn forgotten(central: &mut dyn Central, token: &Token) {
    let is_lost = match central.watch("me", Some(token), &[], EVENTS_MAX).await.expect("an answer") {
        Watched::Lost => true,
        Watched::Open(mut feed) => all(feed.as_mut()).await.is_lost,
        Watched::Unsupported => false,
    };
    assert!(is_lost);
}

/// A token that makes no sense is no better; one from now on is to be had.
pub(crate) async fn nonsense(central: &mut dyn Central) {
    let nonsense = Token(doc! {"_data": "00"});
    assert!(!matches!(central.watch("me", Some(&nonsense), &[], EVENTS_MAX).await, Ok(Watched::Open(_))));
    assert!(matches!(central.watch("me", None, &[], EVENTS_MAX).await, Ok(Watched::Open(_))));
}

/// Collections that are dropped or renamed lose the thread, if they are any of a node's business. Leaves
/// nothing behind.
pub(crate) async fn upheavals(central: &mut dyn Central, behind: &dyn Behind) {
    behind.put(Kind::Person, doc! {"_id": "a"}).await;
    behind.put_elsewhere("others", vec![doc! {"_id": "a"}]).await;
    let mut feed = watch(central, None, &[]).await;
    behind.drop_collection("others").await;
    behind.put_elsewhere("others", vec![doc! {"_id": "a"}]).await;
    behind.rename("others", "more").await;
    assert_eq!(all(feed.as_mut()).await, Changes::default(), "nobody's business");
    behind.rename("people", "persons").await;
    assert!(all(feed.as_mut()).await.is_lost);
    let mut feed = watch(central, None, &[]).await;
    behind.rename("persons", "people").await;
    assert!(all(feed.as_mut()).await.is_lost, "renamed to what nodes read");
    let mut feed = watch(central, None, &[]).await;
    behind.drop_collection("people").await;
    assert!(all(feed.as_mut()).await.is_lost);
    behind.put(Kind::Person, doc! {"_id": "a"}).await;
    let mut feed = watch(central, None, &[]).await;
    behind.drop_everything().await;
    assert!(all(feed.as_mut()).await.is_lost, "the whole database");
}

/// A server without history says so, and the conversation goes on.
pub(crate) async fn unsupported(central: &mut dyn Central) {
    assert!(matches!(central.watch("me", None, &[], EVENTS_MAX).await, Ok(Watched::Unsupported)));
    let hit = central.write(&[insert("a", doc! {"f": 1})]).await.expect("an answer");
    assert_eq!(hit, [Written::Hit]);
    let hit = central.write(&[set("a", "f", Some(bson!(1)), 2)]).await.expect("an answer");
    assert_eq!(hit, [Written::Hit]);
}
