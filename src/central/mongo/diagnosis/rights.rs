//! Floor 2. Login and privileges: whether a node may do at the centre what it has to do.
//!
//! The role in docs/SYNC.md says the same; a test compares the two. Nothing is written to find it out.

use std::collections::BTreeMap;
use std::time::Duration;

use bson::{Document, doc};
use mongodb::error::{Error, ErrorKind};
use mongodb::{Client, Database};

use super::probe::{LOGIN, Primary};
use crate::central::content::{CHUNKS_COLLECTION, FILES_COLLECTION};
use crate::central::mongo::error;
use crate::central::survey::{Stage, Trouble};
use crate::central::{
    CONFLICTS_COLLECTION, Cause, CentralError, CentreAddress, NOBODY, NODES_COLLECTION, TRASH_COLLECTION,
};
use crate::domain::record::Kind;

const UNAUTHORIZED: i32 = 13;
/// How long one command may take: `doctor` and `setup` say then where it ended.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);
const BUSY: &str = "try again; the server's log says why if it lasts";
const BROKEN_OFF: &str =
    "try again; look at the network, and at what stands between this node and the server";
/// Of what is missing, as much as somebody reads.
const MISSING_SHOWN_MAX: usize = 5;
const ROLE: &str = "at the centre: the role in docs/SYNC.md (What a node needs) for this user, for this database and \
                    these collections";

/// What a node needs, by collection; the empty name is the whole database.
pub(super) fn needed(address: &CentreAddress, is_standalone: bool) -> BTreeMap<String, Vec<&'static str>> {
    let whole: &[_] = match is_standalone {
        true => &["find", "listCollections"],
        false => &["find", "changeStream", "listCollections"],
    };
    let mut needed = BTreeMap::from([(String::new(), whole.to_vec())]);
    for kind in Kind::ALL {
        needed.insert(address.collection(kind).to_owned(), vec!["insert", "update", "remove"]);
    }
    for own in [NODES_COLLECTION, CONFLICTS_COLLECTION, TRASH_COLLECTION] {
        needed.insert(own.to_owned(), vec!["insert", "update"]);
    }
    for of_contents in [FILES_COLLECTION, CHUNKS_COLLECTION] {
        needed.insert(of_contents.to_owned(), vec!["insert", "update", "createIndex"]);
    }
    needed
}

/// Which of these none of the privileges gives, as `connectionStatus` lists them.
fn missing(
    needed: &BTreeMap<String, Vec<&'static str>>,
    privileges: &[&Document],
    database: &str,
) -> BTreeMap<String, Vec<&'static str>> {
    let gives = |privilege: &Document, collection: &str, action: &str| {
        let Ok(resource) = privilege.get_document("resource") else {
            return false;
        };
        let names = |field: &str, wanted: &str| {
            resource.get_str(field).is_ok_and(|name| name.is_empty() || name == wanted)
        };
        let is_about = resource.get_bool("anyResource").unwrap_or(false)
            // One collection is not the whole database.
            || names("db", database) && names("collection", collection);
        let actions = privilege.get_array("actions");
        is_about
            && actions.is_ok_and(|actions| {
                actions.iter().any(|given| [Some(action), Some("anyAction")].contains(&given.as_str()))
            })
    };
    let mut missing = BTreeMap::new();
    for (collection, actions) in needed {
        let lacking = actions
            .iter()
            .copied()
            .filter(|action| !privileges.iter().any(|privilege| gives(privilege, collection, action)));
        let lacking: Vec<_> = lacking.collect();
        if !lacking.is_empty() {
            missing.insert(collection.clone(), lacking);
        }
    }
    missing
}

fn name(collection: &str) -> String {
    if collection.is_empty() { "the whole database".to_owned() } else { collection.to_owned() }
}

fn words(missing: &BTreeMap<String, Vec<&'static str>>) -> String {
    let mut words: Vec<_> = missing
        .iter()
        .take(MISSING_SHOWN_MAX)
        .map(|(collection, actions)| format!("{} on {}", actions.join(", "), name(collection)))
        .collect();
    if missing.len() > MISSING_SHOWN_MAX {
        words.push(format!("and more on {} others", missing.len() - MISSING_SHOWN_MAX));
    }
    words.join("; ")
}

/// Asks a server that answered before, for no longer than [`COMMAND_LIMIT`]. Nothing: it did not answer.
pub(super) async fn asked(database: &Database, command: Document) -> Option<Result<Document, Error>> {
    tokio::time::timeout(COMMAND_LIMIT, database.run_command(command)).await.ok()
}

/// What is said of a server that does not answer, and what it was asked.
pub(super) fn late(member: &str, what: &str) -> String {
    format!("{member} does not answer within {} seconds when {what}", COMMAND_LIMIT.as_secs())
}

/// A client that has logged in at the primary, and whether the server asked for that.
pub(super) struct Entered {
    pub(super) client: Client,
    pub(super) is_open_to_all: bool,
}

/// Logs in, and looks whether everything is allowed that a node does.
pub(super) async fn enter(primary: &Primary, address: &CentreAddress) -> Result<Entered, Trouble> {
    let at =
        |stage, reason: String, remedy| Trouble { stage, member: Some(primary.name.clone()), reason, remedy };
    let has_user = primary.options.credential.is_some();
    let unusable = |_| at(Stage::Address, "its address cannot be used".to_owned(), LOGIN);
    let client = Client::with_options(primary.options.clone()).map_err(unusable)?;
    let status = doc! {"connectionStatus": 1, "showPrivileges": true};
    let Some(answer) = asked(&client.database("admin"), status).await else {
        let what = if has_user { "the user logs in" } else { "asked who the user is" };
        return Err(at(Stage::Answer, late(&primary.name, what), BUSY));
    };
    let info = match answer {
        Ok(reply) => reply.get_document("authInfo").cloned().unwrap_or_default(),
        Err(failure) => {
            return Err(match (error::of_call(&failure), has_user) {
                (CentralError::Refused(_), true) => at(
                    Stage::Login,
                    format!(
                        "{} does not accept user and password of the address, or its authSource is not where the \
                         user was made",
                        primary.name
                    ),
                    LOGIN,
                ),
                (CentralError::Refused(_), false) => at(
                    Stage::Login,
                    format!("{} asks for a login, and the address names no user", primary.name),
                    LOGIN,
                ),
                (CentralError::Offline(cause) | CentralError::Failed(cause), _) => {
                    at(Stage::Answer, unanswered(&primary.name, &cause), BUSY)
                }
            });
        }
    };
    let list = |field: &str| info.get_array(field).map_or(&[][..], |list| list);
    let privileges: Vec<&Document> =
        list("authenticatedUserPrivileges").iter().filter_map(|row| row.as_document()).collect();
    let needed = needed(address, primary.is_standalone);
    let missing = match (list("authenticatedUsers").is_empty(), privileges.is_empty()) {
        // Who is nobody gets no list: whether the server asks for logins is seen when something is read.
        (true, _) | (false, true) => {
            let database = client.database(&address.database);
            tried(&database, &needed).await.map_err(|untried| match untried {
                Untried::Late(what) => at(Stage::Answer, late(&primary.name, &what), BUSY),
                Untried::Failed(cause) => {
                    let remedy = if cause.is_answer() { LOGIN } else { BROKEN_OFF };
                    at(Stage::Answer, unanswered(&primary.name, &cause), remedy)
                }
            })?
        }
        (false, false) => missing(&needed, &privileges, &address.database),
    };
    if missing.is_empty() {
        return Ok(Entered { client, is_open_to_all: list("authenticatedUsers").is_empty() });
    }
    // A server that asks for logins shows nothing without.
    let reads = !missing.get("").is_some_and(|lacking| lacking.contains(&"find"));
    if !has_user && !reads {
        let reason = format!("{} asks for a login, and the address names no user", primary.name);
        return Err(at(Stage::Login, reason, LOGIN));
    }
    if !has_user {
        let reason = format!(
            "{} does not allow {} in {:?} without a login, and the address names no user",
            primary.name,
            words(&missing),
            address.database
        );
        return Err(at(Stage::Privilege, reason, LOGIN));
    }
    let reason = format!("the user has not the privilege to {} in {:?}", words(&missing), address.database);
    Err(at(Stage::Privilege, reason, ROLE))
}

/// A question without a useful answer.
fn unanswered(member: &str, cause: &Cause) -> String {
    match cause.is_answer() {
        true => format!("{member} answers with an error ({cause})"),
        false => format!("{member} answers no question ({cause})"),
    }
}

/// Why privileges could not be tried.
enum Untried {
    /// The server did not answer: what it was asked.
    Late(String),
    Failed(Cause),
}

/// Where the server does not list privileges: what can be tried without writing. `insert` cannot, nor `createIndex`.
/// One refusal is enough for a collection, and one error of another kind for all of them.
async fn tried(
    database: &Database,
    needed: &BTreeMap<String, Vec<&'static str>>,
) -> Result<BTreeMap<String, Vec<&'static str>>, Untried> {
    let nobody = doc! {"_id": NOBODY};
    let mut missing: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
    for (collection, actions) in needed {
        for action in actions {
            let command = match (*action, collection.as_str()) {
                ("find", _) => doc! {"find": NODES_COLLECTION, "limit": 1, "projection": {"_id": 1}},
                ("listCollections", _) => doc! {"listCollections": 1, "nameOnly": true},
                ("update", name) => {
                    let update = doc! {"q": nobody.clone(), "u": {"$set": {"name": NOBODY}}, "upsert": false};
                    doc! {"update": name, "updates": [update]}
                }
                ("remove", name) => {
                    doc! {"delete": name, "deletes": [{"q": nobody.clone(), "limit": 1}]}
                }
                _ => continue,
            };
            let Some(answer) = asked(database, command).await else {
                let what = format!("{action} on {} is tried", name(collection));
                return Err(Untried::Late(what));
            };
            match answer {
                Ok(_) => {}
                Err(failure) if code_of(&failure) == Some(UNAUTHORIZED) => {
                    missing.entry(collection.clone()).or_default().push(action);
                    if !collection.is_empty() {
                        break;
                    }
                }
                Err(failure) => match error::of_call(&failure) {
                    // Whatever else a server has against it, it is not that the user may not.
                    CentralError::Failed(_) => return Ok(missing),
                    CentralError::Offline(_) if code_of(&failure).is_some() => return Ok(missing),
                    CentralError::Offline(cause) | CentralError::Refused(cause) => {
                        return Err(Untried::Failed(cause));
                    }
                },
            }
        }
    }
    Ok(missing)
}

fn code_of(failure: &Error) -> Option<i32> {
    match failure.kind.as_ref() {
        ErrorKind::Command(command) => Some(command.code),
        _ => None,
    }
}

/// The first document of a reply with a cursor.
pub(super) fn first_of(reply: &Document) -> Option<&Document> {
    let batch = reply.get_document("cursor").ok()?.get_array("firstBatch").ok()?;
    batch.first()?.as_document()
}

/// Hours between two moments of the server's history, as `ts` fields tell them.
pub(super) fn hours_between(first: &Document, last: &Document) -> Option<u64> {
    let seconds = |row: &Document| row.get_timestamp("ts").ok().map(|ts| u64::from(ts.time));
    Some(seconds(last)?.saturating_sub(seconds(first)?) / 3600)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> CentreAddress {
        CentreAddress {
            uri: String::new(),
            database: "federation".to_owned(),
            collections: BTreeMap::from([(Kind::Person, "patients".to_owned())]),
            app_name: String::new(),
        }
    }

    fn lacking(privileges: &[Document]) -> String {
        let privileges: Vec<&Document> = privileges.iter().collect();
        words(&missing(&needed(&address(), false), &privileges, "federation"))
    }

    fn on(database: &str, collection: &str, actions: &[&str]) -> Document {
        doc! {"resource": {"db": database, "collection": collection}, "actions": actions.to_vec()}
    }

    #[test]
    fn what_the_role_of_the_manual_gives_is_what_a_node_needs() {
        let manual = include_str!("../../../../docs/SYNC.md");
        let role = manual.split("```json").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let role: serde_json::Value = serde_json::from_str(role).unwrap();
        let role: Document = bson::serialize_to_document(&role).unwrap();
        let plain = CentreAddress { collections: BTreeMap::new(), ..address() };
        let given: BTreeMap<String, Vec<&str>> = role
            .get_array("privileges")
            .unwrap()
            .iter()
            .map(|privilege| {
                let privilege = privilege.as_document().unwrap();
                let collection = privilege.get_document("resource").unwrap().get_str("collection").unwrap();
                let actions = privilege.get_array("actions").unwrap();
                (collection.to_owned(), actions.iter().map(|a| a.as_str().unwrap()).collect())
            })
            .collect();
        assert_eq!(given, needed(&plain, false));
    }

    #[test]
    fn privileges_are_looked_for_wherever_they_may_come_from() {
        let all = ["find", "changeStream", "listCollections", "insert", "update", "remove", "createIndex"];
        for given in [
            on("federation", "", &all),
            on("", "", &all),
            doc! {"resource": {"anyResource": true}, "actions": ["anyAction"]},
        ] {
            assert_eq!(lacking(&[given]), "");
        }
        // Other databases, clusters, and single collections for the whole.
        for given in [
            on("other", "", &all),
            doc! {"resource": {"cluster": true}, "actions": all.to_vec()},
            on("federation", "people", &all),
        ] {
            assert!(lacking(&[given]).contains("find, changeStream, listCollections on the whole database"));
        }
        let reading = on("federation", "", &["find", "changeStream", "listCollections"]);
        assert!(lacking(std::slice::from_ref(&reading)).contains("insert, update on edge_conflicts"));
        let but_one = [reading, on("federation", "", &["insert", "update", "createIndex"])];
        assert!(lacking(&but_one).starts_with("remove on domiciliary_unit; remove on encounter"));
        assert!(lacking(&but_one).ends_with("and more on 4 others"), "{}", lacking(&but_one));
        let others = on(
            "federation",
            "",
            &["find", "changeStream", "listCollections", "insert", "update", "createIndex"],
        );
        let mut given = vec![others];
        given.extend(Kind::ALL.map(|kind| on("federation", kind.schema().collection, &["remove"])));
        assert_eq!(lacking(&given), "remove on patients");
    }
}
