//! Who may see and put back what: every role, for a deleted record of every kind, their own and another's.

use thalamus_edge::domain::record::Kind;

use super::{
    Caller, OTHER, Rights, SHIPPED, UPSTREAM, UPSTREAM_ROLES, World, everybody, record_id,
    shipped_and_samples,
};
use crate::support::api::NOTHING;

/// A person who is deleted: everybody else has to log in.
const GONE: &str = "GON099";

struct Deleted {
    kind: Kind,
    id: String,
    owner: Option<&'static str>,
}

/// The name in `roles.cfg` of one record of the kind.
fn item_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Person => "person",
        Kind::Page => "page",
        Kind::PersonalDocument => "personaldoc",
        Kind::DomiciliaryUnit => "domiciliaryunit",
        Kind::Institution => "institution",
        Kind::Encounter => "encounter",
        Kind::Event => "event",
        Kind::Measurement => "measurement",
        Kind::Hospitalization => "hospitalization",
    }
}

fn deleted(caller: &Caller) -> Vec<Deleted> {
    let mut all = Vec::new();
    for kind in Kind::ALL {
        match kind {
            Kind::Person => all.push(Deleted { kind, id: GONE.to_owned(), owner: Some(GONE) }),
            Kind::DomiciliaryUnit | Kind::Institution => {
                all.push(Deleted { kind, id: "shared".to_owned(), owner: None });
            }
            _ => {
                let own = if caller.is_person { caller.account } else { "ANA001" };
                for owner in [own, OTHER] {
                    all.push(Deleted { kind, id: record_id(kind, owner), owner: Some(owner) });
                }
            }
        }
    }
    all
}

impl Deleted {
    /// Whether a right to this name with this method reaches the record.
    fn reaches(&self, caller: &Caller, rights: &Rights, method: &str, name: &str) -> bool {
        let is_own = caller.is_person && self.owner == Some(caller.account);
        let is_read = method == "GET" || name == "trash";
        rights.allow(method, name) && (rights.global || is_own || (self.owner.is_none() && is_read))
    }

    fn is_seen(&self, caller: &Caller, rights: &Rights, method: &str) -> bool {
        let reads = caller.is_operator() || self.reaches(caller, rights, "GET", item_name(self.kind));
        reads && self.reaches(caller, rights, method, "trash")
    }

    fn status_of_show(&self, caller: &Caller) -> u16 {
        match &caller.rights {
            None => 401,
            Some(rights) if !rights.allow("GET", "trash") => 403,
            Some(rights) if self.is_seen(caller, rights, "GET") => 200,
            Some(_) => 404,
        }
    }

    fn status_of_restore(&self, caller: &Caller) -> u16 {
        let Some(rights) = &caller.rights else { return 401 };
        if !rights.allow("POST", "trash") {
            return 403;
        }
        if !self.is_seen(caller, rights, "POST") {
            return 404;
        }
        let may = caller.is_operator() || self.reaches(caller, rights, "POST", item_name(self.kind));
        // With the body of a person comes a password.
        if may && (self.kind != Kind::Person || rights.root) { 201 } else { 403 }
    }
}

async fn check(table: &'static [(&'static str, Rights)], roles: String) -> usize {
    let callers = everybody(table);
    let mut world = World::new(roles, &callers).await;
    world.node.person(GONE, &["end_user"]).await;
    world.keep(Kind::Person, GONE);
    let mut cells = 0;
    for caller in &callers {
        for record in deleted(caller) {
            let stored = world.records[&(record.kind, record.id.clone())].clone();
            world.node.restore(record.kind, &record.id, None).await;
            let row = newest(&world, &record);
            let cell = format!("{}: {}/{}", caller.what, record.kind.schema().collection, record.id);
            let path = format!("/trash/{row}");
            let shown = world.call(caller, "GET", &path).send().await;
            let status = record.status_of_show(caller);
            assert_eq!(shown.status, status, "{cell}: {}", shown.text());
            assert!(shown.changes.is_empty() && !shown.text().contains("$2b$"), "{cell}");
            if status == 200 {
                let has_body = shown.json().get("document").is_some();
                assert_eq!(has_body, !caller.is_operator(), "{cell}");
            }
            if caller.rights.is_some_and(|rights| rights.allow("GET", "trash")) {
                let list = world.call(caller, "GET", "/trash?limit=1000").send().await.is(200, NOTHING);
                let is_listed = list.json().as_array().unwrap().iter().any(|listed| listed["id"] == row);
                assert_eq!(is_listed, status == 200, "{cell}");
                let question = format!("/authorization?method=GET&path={path}");
                let answer = world.call(caller, "GET", &question).send().await.is(200, NOTHING);
                assert_eq!(answer.json()["allowed"], true, "{cell}");
            }
            let restored = world.call(caller, "POST", &format!("{path}/restore")).send().await;
            let status = record.status_of_restore(caller);
            assert_eq!(restored.status, status, "{cell}: {}", restored.text());
            let created = format!("create {}/{}", record.kind.schema().collection, record.id);
            let changes = if status == 201 { vec![created] } else { Vec::new() };
            assert_eq!(restored.changes, changes, "{cell}");
            if status == 201 {
                assert_eq!(world.node.stored(record.kind, &record.id), Some(stored), "{cell}");
            } else {
                world.restore(record.kind, &record.id).await;
            }
            cells += 2;
        }
    }
    cells
}

fn newest(world: &World, record: &Deleted) -> u64 {
    let rows = world.node.node.store.read().unwrap().trash().unwrap();
    let rows = rows.into_iter().filter(|row| row.key.kind == record.kind && row.key.id == record.id);
    rows.map(|row| row.sequence).max().unwrap()
}

impl Caller {
    fn is_operator(&self) -> bool {
        self.login == super::Login::Operator
    }
}

#[tokio::test]
async fn deleted_records_with_the_shipped_and_the_sample_roles() {
    // Callers, records, to see and to put back.
    assert_eq!(check(SHIPPED, shipped_and_samples()).await, 13 * 15 * 2);
}

#[tokio::test]
async fn deleted_records_with_the_rules_file_of_thalamus() {
    assert_eq!(check(UPSTREAM, UPSTREAM_ROLES.to_owned()).await, 8 * 15 * 2);
}
