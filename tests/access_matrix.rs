//! Who may do what: every role, on every route, with every method, on what is theirs, another's, absent
//! or in another's book. What is expected is worked out from the tables below, which say what API.md says
//! and know nothing of the code.

#![allow(clippy::unwrap_used)]

mod support;
#[path = "access_matrix/trash.rs"]
mod trash;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bson::{Document, doc};
use serde_json::{Value, json};
use support::api::{Answer, Call, PASSWORD, PASSWORD_HASH, TestNode, elapse, pass_time, person};
use thalamus_edge::domain::access::{Actor, BUILT_IN_ROLES, Grant, Verb};
use thalamus_edge::domain::audit::{Entry, Event};
use thalamus_edge::domain::record::Kind;
use thalamus_edge::store::{AuditQuery, Edit, StoreError};

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"];

// ------------------------------------------------------------------------------------------------- rules

/// What a role may do, by the names of `roles.cfg`.
#[derive(Clone, Copy)]
struct Rights {
    get: &'static str,
    post: &'static str,
    patch: &'static str,
    put: &'static str,
    delete: &'static str,
    global: bool,
    /// May change accounts of others.
    root: bool,
}

const NO_RIGHTS: Rights =
    Rights { get: "", post: "", patch: "", put: "", delete: "", global: false, root: false };

impl Rights {
    fn allow(&self, method: &str, name: &str) -> bool {
        let names = match method {
            "GET" => self.get,
            "POST" => self.post,
            "PATCH" => self.patch,
            "PUT" => self.put,
            "DELETE" => self.delete,
            _ => "",
        };
        (method, name) == ("GET", "login") || names.split(' ').any(|given| given == name)
    }

    /// Whether records of everybody may be read under this name.
    fn reads_all(&self, name: &str) -> bool {
        self.global && self.allow("GET", name)
    }
}

const OWN_READS: &str = "person book page password personaldocs personaldoc poldocs encounters encounter \
     events event measurements measurement hospitalizations hospitalization login";
const ALL_READS: &str = "login people person book page password personaldocs personaldoc poldocs \
     domiciliaryunits domiciliaryunit institutions institution encounters encounter events event \
     measurements measurement hospitalizations hospitalization sync conflicts";
const EVERYTHING: &str = "login people person book page password personaldocs personaldoc poldocs \
     domiciliaryunits domiciliaryunit institutions institution encounters encounter events event \
     measurements measurement hospitalizations hospitalization sync conflicts changes audit metrics users \
     trash";
const ITEMS: &str =
    "person page personaldoc domiciliaryunit institution encounter event measurement hospitalization";
const ITEMS_PASSWORD_CONFLICTS: &str = "person page personaldoc domiciliaryunit institution encounter event \
     measurement hospitalization password conflicts";

const SHIPPED: &[(&str, Rights)] = &[
    ("end_user", Rights { get: OWN_READS, post: "page password", patch: "person page", ..NO_RIGHTS }),
    (
        "health_professional",
        Rights { get: ALL_READS, post: ITEMS_PASSWORD_CONFLICTS, patch: ITEMS, global: true, ..NO_RIGHTS },
    ),
    (
        "root",
        Rights {
            get: EVERYTHING,
            post: EVERYTHING,
            patch: EVERYTHING,
            put: EVERYTHING,
            delete: EVERYTHING,
            global: true,
            root: true,
        },
    ),
    ("laboratory", Rights { post: "measurement page", global: true, ..NO_RIGHTS }),
    ("civil_office", Rights { get: "person", patch: "person", post: "page", global: true, ..NO_RIGHTS }),
    (
        "research",
        Rights {
            get: "domiciliaryunits domiciliaryunit institutions institution",
            global: true,
            ..NO_RIGHTS
        },
    ),
    (
        "keeper",
        Rights {
            get: EVERYTHING,
            post: EVERYTHING,
            patch: EVERYTHING,
            put: EVERYTHING,
            delete: EVERYTHING,
            global: false,
            root: false,
        },
    ),
    ("technician", Rights { get: "sync conflicts users", post: "sync users", global: true, ..NO_RIGHTS }),
];

/// The rules file of Thalamus 0.9.18.
const UPSTREAM: &[(&str, Rights)] = &[
    (
        "end_user",
        Rights {
            get: "login person book page password",
            patch: "person page",
            post: "page password",
            ..NO_RIGHTS
        },
    ),
    (
        "health_professional",
        Rights {
            get: "login people person book page",
            patch: "person page",
            post: "person page",
            global: true,
            ..NO_RIGHTS
        },
    ),
    (
        "root",
        Rights {
            // Its own file names no function of a node, and no documents, units and institutions.
            get: "login people person book page password sync conflicts changes audit metrics users trash personaldocs \
                  personaldoc poldocs domiciliaryunits domiciliaryunit institutions institution",
            patch: "person page users",
            post: "person page password sync conflicts users trash",
            delete: "person page users",
            global: true,
            root: true,
            ..NO_RIGHTS
        },
    ),
];

/// What whoever runs commands on the machine may use.
const OPERATOR: Rights = Rights {
    get: "sync conflicts changes audit metrics users trash",
    post: "sync conflicts users backups trash",
    patch: "users",
    delete: "users",
    global: true,
    root: true,
    put: "",
};

/// The roles of a clinic that adds to the shipped ones, as a file says it.
const SAMPLE_ROLES: &str = r#"
    {"role": "laboratory", "permissions": {"POST": ["measurement", "page"], "global": "True"}},
    {"role": "civil_office",
     "permissions": {"GET": ["person"], "PATCH": ["person"], "POST": ["page"], "global": true}},
    {"role": "research",
     "permissions": {"GET": ["domiciliaryunits", "domiciliaryunit", "institutions", "institution"],
                     "global": "True"}},
    {"role": "technician",
     "permissions": {"GET": ["sync", "conflicts", "users"], "POST": ["sync", "users"], "global": true}}
"#;

const UPSTREAM_ROLES: &str = r#"[
    {"role": "end_user",
     "permissions": {
        "GET": ["login", "person", "book", "page", "password"],
        "PATCH": ["person", "page"],
        "POST": ["page", "password"],
        "DELETE": [],
        "global": "False"
        }
    },
    {"role": "health_professional",
     "permissions": {
        "GET": ["login", "people", "person", "book", "page"],
        "PATCH": ["person", "page"],
        "POST": ["person", "page"],
        "DELETE": [],
        "global": "True"
        }
    },
    {"role": "root",
     "permissions": {
        "GET": ["login", "people", "person", "book", "page", "password"],
        "PATCH": ["person", "page"],
        "POST": ["person", "page", "password"],
        "DELETE": ["person", "page"],
        "global": "True"
        }
    }
]"#;

fn shipped_and_samples() -> String {
    // A role that may use everything, but only on what is its own.
    let names: Vec<&str> = EVERYTHING.split_whitespace().collect();
    let keeper = json!({"role": "keeper", "permissions": {
        "GET": names, "POST": names, "PATCH": names, "PUT": names, "DELETE": names, "global": "False"}});
    let shipped = BUILT_IN_ROLES.trim_end().strip_suffix(']').unwrap();
    format!("{shipped}, {SAMPLE_ROLES}, {keeper}]")
}

// ------------------------------------------------------------------------------------------------ callers

#[derive(Clone, Copy, PartialEq)]
enum Login {
    None,
    WrongPassword,
    Right,
    Operator,
}

struct Caller {
    what: &'static str,
    login: Login,
    account: &'static str,
    /// `None`: not let in.
    rights: Option<Rights>,
    /// Whether `account` is a federation account, which owns records.
    is_person: bool,
}

impl Caller {
    /// As the audit trail calls them.
    fn name(&self) -> String {
        match self.account.strip_suffix("@local") {
            _ if self.login == Login::Operator => "operator:0".to_owned(),
            Some(technician) => format!("local:{technician}"),
            None => format!("person:{}", self.account),
        }
    }

    /// What it says of them who are not let in.
    fn failed_login(&self) -> Option<String> {
        (self.login != Login::None).then(|| "nobody login_failed refused".to_owned())
    }
}

fn role(table: &[(&str, Rights)], name: &str) -> Rights {
    table.iter().find(|(role, _)| *role == name).unwrap().1
}

fn everybody(table: &[(&'static str, Rights)]) -> Vec<Caller> {
    let outside = |what, login, account| Caller { what, login, account, rights: None, is_person: true };
    let mut callers = vec![
        outside("no credentials", Login::None, "ANA001"),
        outside("wrong password", Login::WrongPassword, "ANA001"),
        outside("inactive", Login::Right, "INA005"),
    ];
    let accounts = [
        ("end_user", "ANA001"),
        ("health_professional", "DOC003"),
        ("root", "ROOT004"),
        ("keeper", "KEE006"),
        ("laboratory", "LAB007"),
        ("civil_office", "CIV008"),
        ("research", "RES009"),
    ];
    for (what, account) in accounts {
        if table.iter().any(|(role, _)| *role == what) {
            let rights = Some(role(table, what));
            callers.push(Caller { what, login: Login::Right, account, rights, is_person: true });
        }
    }
    callers.push(Caller {
        what: "root from the centre only",
        login: Login::Right,
        account: "CEN010",
        rights: Some(NO_RIGHTS),
        is_person: true,
    });
    callers.push(Caller {
        what: "operator",
        login: Login::Operator,
        account: "ANA001",
        rights: Some(OPERATOR),
        is_person: false,
    });
    if table.iter().any(|(role, _)| *role == "technician") {
        let rights = Some(role(table, "technician"));
        callers.push(Caller {
            what: "technician",
            login: Login::Right,
            account: "tess@local",
            rights,
            is_person: false,
        });
    }
    callers
}

// ------------------------------------------------------------------------------------------------- places

#[derive(Clone, Copy, PartialEq, Debug)]
enum Shape {
    List,
    ListOfPerson,
    ListOfPage,
    Item,
    Page,
    Content,
}

struct Route {
    kind: Kind,
    /// Name of the collection, as `/changes` says it.
    collection: &'static str,
    path: &'static str,
    name: &'static str,
    shape: Shape,
    owner_field: Option<&'static str>,
}

const fn route(
    kind: Kind,
    collection: &'static str,
    path: &'static str,
    name: &'static str,
    shape: Shape,
    owner_field: Option<&'static str>,
) -> Route {
    Route { kind, collection, path, name, shape, owner_field }
}

const PEOPLE: Option<&str> = Some("_id");
const ROUTES: &[Route] = &[
    route(Kind::Person, "people", "/people", "people", Shape::List, PEOPLE),
    route(Kind::Person, "people", "/people/{p}", "person", Shape::Item, PEOPLE),
    route(Kind::Page, "pols", "/pols/{p}", "book", Shape::ListOfPerson, Some("book")),
    route(Kind::Page, "pols", "/pols/{p}/{i}", "page", Shape::Page, Some("book")),
    route(
        Kind::PersonalDocument,
        "personal_document",
        "/personal-documents",
        "personaldocs",
        Shape::List,
        Some("fedacct"),
    ),
    route(
        Kind::PersonalDocument,
        "personal_document",
        "/personal-documents/{i}",
        "personaldoc",
        Shape::Item,
        Some("fedacct"),
    ),
    route(
        Kind::PersonalDocument,
        "personal_document",
        "/personal-documents/{i}/content",
        "personaldoc",
        Shape::Content,
        Some("fedacct"),
    ),
    route(
        Kind::PersonalDocument,
        "personal_document",
        "/personal_docs/{p}",
        "personaldocs",
        Shape::ListOfPerson,
        Some("fedacct"),
    ),
    route(
        Kind::PersonalDocument,
        "personal_document",
        "/personal_docs/{p}/{i}",
        "poldocs",
        Shape::ListOfPage,
        Some("fedacct"),
    ),
    route(
        Kind::DomiciliaryUnit,
        "domiciliary_unit",
        "/domiciliary-units",
        "domiciliaryunits",
        Shape::List,
        None,
    ),
    route(
        Kind::DomiciliaryUnit,
        "domiciliary_unit",
        "/domiciliary-units/{i}",
        "domiciliaryunit",
        Shape::Item,
        None,
    ),
    route(Kind::Institution, "institution", "/institutions", "institutions", Shape::List, None),
    route(Kind::Institution, "institution", "/institutions/{i}", "institution", Shape::Item, None),
    route(Kind::Encounter, "encounter", "/encounters", "encounters", Shape::List, Some("person")),
    route(Kind::Encounter, "encounter", "/encounters/{i}", "encounter", Shape::Item, Some("person")),
    route(Kind::Event, "event", "/events", "events", Shape::List, Some("person")),
    route(Kind::Event, "event", "/events/{i}", "event", Shape::Item, Some("person")),
    route(Kind::Measurement, "measurements", "/measurements", "measurements", Shape::List, Some("person")),
    route(Kind::Measurement, "measurements", "/measurements/{i}", "measurement", Shape::Item, Some("person")),
    route(
        Kind::Hospitalization,
        "hospitalization",
        "/hospitalizations",
        "hospitalizations",
        Shape::List,
        Some("person"),
    ),
    route(
        Kind::Hospitalization,
        "hospitalization",
        "/hospitalizations/{i}",
        "hospitalization",
        Shape::Item,
        Some("person"),
    ),
];

const OTHER: &str = "BOB002";
const NOBODY: &str = "NEW099";

/// What a request is about, from the caller's point of view.
#[derive(Clone, Copy, PartialEq, Debug, Eq, PartialOrd, Ord)]
enum Target {
    Own,
    Other,
    Absent,
    /// A new page in the caller's own book.
    NewPage,
    /// Another's page, asked for in the caller's own book.
    Misfiled,
}

impl Route {
    fn targets(&self) -> &'static [Target] {
        match self.shape {
            Shape::List => &[Target::Own],
            Shape::Page => &[Target::Own, Target::Other, Target::Absent, Target::NewPage, Target::Misfiled],
            _ if self.owner_field.is_none() => &[Target::Other, Target::Absent],
            _ => &[Target::Own, Target::Other, Target::Absent],
        }
    }

    /// The person whose record, list or book it is.
    fn person(&self, caller: &Caller, target: Target) -> &'static str {
        match target {
            Target::Own | Target::NewPage | Target::Misfiled if caller.is_person => caller.account,
            Target::Own | Target::NewPage | Target::Misfiled => "ANA001",
            Target::Other => OTHER,
            Target::Absent => NOBODY,
        }
    }

    fn id(&self, caller: &Caller, target: Target) -> String {
        let person = match target {
            Target::Misfiled => OTHER,
            other => self.person(caller, other),
        };
        match (self.kind, self.shape, target) {
            (Kind::Person, ..) => person.to_owned(),
            (_, Shape::ListOfPage, _) => record_id(Kind::Page, person),
            (.., Target::NewPage) => "new-page".to_owned(),
            (.., Target::Absent) => "absent".to_owned(),
            _ if self.owner_field.is_none() => "shared".to_owned(),
            _ => record_id(self.kind, person),
        }
    }

    fn url(&self, caller: &Caller, target: Target) -> String {
        self.path.replace("{p}", self.person(caller, target)).replace("{i}", &self.id(caller, target))
    }

    fn offers(&self, method: &str) -> bool {
        match self.shape {
            Shape::Item | Shape::Page => true,
            Shape::Content => ["GET", "HEAD", "PUT"].contains(&method),
            _ => ["GET", "HEAD"].contains(&method),
        }
    }

    fn body(&self, caller: &Caller, target: Target, method: &str) -> Value {
        let mut body = json!({"note": "from the matrix"});
        match (self.kind, self.owner_field, method) {
            (_, _, "PATCH") | (Kind::Person, ..) | (_, None, _) => {}
            (Kind::Page, ..) => body["id"] = json!(self.id(caller, target)),
            (_, Some(field), _) => {
                let absent_belongs_to = if caller.is_person { caller.account } else { "ANA001" };
                let owner =
                    if target == Target::Absent { absent_belongs_to } else { self.person(caller, target) };
                body[field] = json!(owner);
            }
        }
        body
    }
}

fn record_id(kind: Kind, person: &str) -> String {
    format!("{}-{person}", kind.schema().collection)
}

// ------------------------------------------------------------------------------------------ expectations

/// The status and what the journal says.
type Expected = (u16, Option<&'static str>);

/// The whole of "Who may do what", for records.
fn expected(caller: &Caller, route: &Route, target: Target, method: &str) -> Expected {
    let Some(rights) = &caller.rights else {
        return (401, None);
    };
    if method == "OPTIONS" {
        return (204, None);
    }
    if !route.offers(method) {
        return (405, None);
    }
    let right = match (method, route.shape) {
        ("HEAD", _) => "GET",
        // Uploading changes the document.
        ("PUT", Shape::Content) => "PATCH",
        _ => method,
    };
    if !rights.allow(right, route.name) {
        return (403, None);
    }
    let is_own = caller.is_person && route.person(caller, target) == caller.account;
    if route.path.contains("{p}") && !rights.global && !is_own {
        return (403, None);
    }
    let writes = right != "GET";
    if route.owner_field.is_none() && !rights.global && writes {
        return (403, None);
    }
    match (route.shape, target) {
        (Shape::List | Shape::ListOfPerson | Shape::ListOfPage, _) => (200, None),
        (_, Target::Misfiled) if method == "POST" => (422, None),
        (_, Target::Misfiled) => (404, None),
        (Shape::Page, Target::Absent) => (404, None),
        (shape, Target::Absent | Target::NewPage) => match method {
            "POST" | "PUT" if shape != Shape::Content => (201, Some("create")),
            _ => (404, None),
        },
        (shape, Target::Own | Target::Other) => {
            let may_see = rights.global || is_own || route.owner_field.is_none();
            match method {
                // The body names another owner.
                "POST" if !may_see => (403, None),
                _ if !may_see => (404, None),
                "GET" | "HEAD" => (200, None),
                "POST" => (422, None),
                "DELETE" if route.kind == Kind::Person => (422, None),
                "DELETE" => (204, Some("delete")),
                _ if shape == Shape::Content => (200, Some("update")),
                _ => (200, Some("update")),
            }
        }
    }
}

/// The entry of the audit trail that a request leaves, answered so.
fn expected_entry(caller: &Caller, route: &Route, target: Target, (status, op): Expected) -> Option<String> {
    let who = caller.name();
    let record = format!("{}/{}", route.collection, route.id(caller, target));
    let is_own = caller.is_person && route.person(caller, target) == caller.account;
    let is_there = target == Target::Misfiled || (target == Target::Other && !is_own);
    match (status, op) {
        (401, _) => caller.failed_login(),
        (403, _) => Some(format!("{who} denied forbidden")),
        // Said to be absent, because it is somebody else's.
        (404, _) if is_there && route.owner_field.is_some() && !caller.rights?.global => {
            Some(format!("{who} denied hidden"))
        }
        // The id is another record's, and they may not learn that there is one.
        (422, _) if target == Target::Misfiled && !caller.rights.as_ref()?.reads_all(route.name) => {
            Some(format!("{who} denied hidden"))
        }
        (_, Some(op)) => Some(format!("{who} {op} {record}")),
        (200, None) => match route.shape {
            Shape::List | Shape::ListOfPerson | Shape::ListOfPage => {
                Some(format!("{who} list {}/", route.collection))
            }
            _ => Some(format!("{who} read {record}")),
        },
        _ => None,
    }
}

/// What `/authorization` says of a request that is answered with `status`.
fn is_allowed(caller: &Caller, route: &Route, method: &str, status: u16) -> bool {
    let rights = caller.rights.unwrap();
    let is_about_anybody = rights.global || route.path.contains("{p}") || route.owner_field.is_none();
    // Whether PUT would make a record shows only when it is tried.
    let is_new = method == "POST" || (method == "PUT" && !matches!(route.shape, Shape::Content));
    match status {
        405 => false,
        // The body decides whose record it would be, and it is not asked for.
        _ if is_new && !is_about_anybody => rights.allow(method, route.name),
        403 => false,
        // To those who may have their own only, another's record is as absent as one that is not there.
        404 => is_about_anybody,
        _ => true,
    }
}

// -------------------------------------------------------------------------------------------------- world

struct World {
    node: TestNode,
    records: BTreeMap<(Kind, String), Document>,
    /// Each wrong login comes from an address of its own, so that none is throttled.
    strangers: u32,
    /// The last entry of the audit trail that was looked at.
    audited: u64,
}

impl World {
    async fn new(roles: String, callers: &[Caller]) -> World {
        let node = TestNode::start_with(|setup| setup.roles = roles);
        let technician = doc! {"password": PASSWORD_HASH.as_str(), "roles": ["technician"]};
        let added = node.node.store.unguarded().transact(move |tx| -> Result<(), StoreError> {
            tx.set_local_account("tess", Some(&technician), &Actor::Operator(0))
        });
        added.await.unwrap();
        let mut people = vec!["ANA001", OTHER, "INA005", "CEN010"];
        for caller in callers.iter().filter(|caller| caller.is_person) {
            if !people.contains(&caller.account) {
                people.push(caller.account);
                node.person(caller.account, &[caller.what]).await;
            }
        }
        node.person("ANA001", &["end_user"]).await;
        node.person(OTHER, &["end_user"]).await;
        let mut inactive = person("INA005", &["end_user"]);
        inactive.insert("active", false);
        node.record(Kind::Person, inactive).await;
        node.from_centre(Kind::Person, person("CEN010", &["root"])).await;
        let mut world = World { node, records: BTreeMap::new(), strangers: 0, audited: 0 };
        for person in &people {
            world.keep(Kind::Person, person);
            for kind in Kind::ALL {
                world.add_record(kind, person).await;
            }
        }
        for kind in [Kind::DomiciliaryUnit, Kind::Institution] {
            world.node.record(kind, doc! {"_id": "shared", "note": "from the start"}).await;
            world.keep(kind, "shared");
        }
        world.audited().await;
        // Once a day a request that shows nothing leaves an entry that its caller has logged in.
        for caller in callers.iter().filter(|caller| caller.login == Login::Right && caller.rights.is_some())
        {
            let ask = async |world: &mut World| {
                world.call(caller, "GET", "/authorization?method=GET&path=/people").send().await;
                world.audited().await
            };
            let kind = if caller.account.ends_with("@local") { "account" } else { "people" };
            let entry = format!("{} login {kind}/{}", caller.name(), caller.account);
            assert_eq!(ask(&mut world).await, [entry], "{}", caller.what);
            assert_eq!(ask(&mut world).await, [""; 0], "{}", caller.what);
        }
        world
    }

    async fn add_record(&mut self, kind: Kind, owner: &str) {
        let field = match kind {
            Kind::Person | Kind::DomiciliaryUnit | Kind::Institution => return,
            Kind::Page => "book",
            Kind::PersonalDocument => "fedacct",
            _ => "person",
        };
        let id = record_id(kind, owner);
        let mut document = doc! {"_id": &id, field: owner, "note": "from the start"};
        let mut content = None;
        if kind == Kind::PersonalDocument {
            document.insert("pol", record_id(Kind::Page, owner));
            document.insert("content", doc! {"sha256": "277089d91c0bdf4f2e6862ba7e4a07605119431f5d13f726dd352b06f1b206a9", "length": 5, "type": "text/plain"});
            content = Some((
                "277089d91c0bdf4f2e6862ba7e4a07605119431f5d13f726dd352b06f1b206a9".to_owned(),
                b"bytes"[..].into(),
            ));
        }
        let edit = Edit {
            grant: Grant::operator(0, Verb::Post, kind),
            id: id.clone(),
            expected: None,
            document: Some(document),
            requires: Vec::new(),
            grants: None,
            content,
            closes: None,
        };
        self.node.node.store.unguarded().edit(edit).await.unwrap();
        self.keep(kind, &id);
    }

    fn keep(&mut self, kind: Kind, id: &str) {
        let document = self.node.stored(kind, id).unwrap();
        self.records.insert((kind, id.to_owned()), document);
    }

    /// What was audited since the last look: who, what, about which record, and how it ended.
    async fn audited(&mut self) -> Vec<String> {
        let store = self.node.node.store.unguarded();
        store.flush_notes().await.unwrap();
        let query = AuditQuery { after: Some(self.audited), limit: usize::MAX, ..AuditQuery::default() };
        let page = store.read().unwrap().audit(&query).unwrap();
        let entries: Vec<Entry> = page.rows.into_iter().map(Result::unwrap).collect();
        self.audited = entries.last().map_or(self.audited, |entry| entry.seq);
        let line = |Entry { event: Event { who, verb, kind, id, outcome, .. }, .. }| match &*outcome {
            "ok" => format!("{who} {verb} {kind}/{id}"),
            _ => format!("{who} {verb} {outcome}"),
        };
        entries.into_iter().map(line).collect()
    }

    fn call(&mut self, caller: &Caller, method: &str, path: &str) -> Call<'_> {
        // Repeats within a minute would share an entry.
        pass_time(Duration::from_secs(61));
        // All guesses at one account share their waits, wherever they come from.
        elapse(Duration::from_secs(6));
        self.strangers += 1;
        let stranger = IpAddr::from(self.strangers.to_be_bytes());
        let call = self.node.request(method, path);
        match caller.login {
            Login::None => call,
            Login::WrongPassword => call.login(caller.account, "not the password").from(stranger),
            // To be inactive is to have a wrong password.
            Login::Right if caller.rights.is_none() => call.by(caller.account).from(stranger),
            Login::Right => call.by(caller.account),
            Login::Operator => call.by_operator(),
        }
    }

    /// Puts back what a request has changed.
    async fn restore(&self, kind: Kind, id: &str) {
        self.node.restore(kind, id, self.records.get(&(kind, id.to_owned())).cloned()).await;
    }

    /// The ids that a list must hold.
    fn listed(&self, caller: &Caller, route: &Route, target: Target) -> Vec<String> {
        let owner = match route.shape {
            Shape::List if caller.rights.unwrap().global || route.owner_field.is_none() => None,
            Shape::List => Some(caller.account),
            _ => Some(route.person(caller, target)),
        };
        let belongs = |document: &Document| match (owner, route.owner_field) {
            (Some(owner), Some(field)) => document.get_str(field).is_ok_and(|found| found == owner),
            _ => true,
        };
        let of_kind =
            self.records.iter().filter(|((kind, _), document)| *kind == route.kind && belongs(document));
        of_kind.map(|((_, id), _)| id.clone()).collect()
    }

    async fn check_record_route(&mut self, caller: &Caller, route: &Route) -> usize {
        let mut refusals: BTreeMap<(&str, u16), (Target, bytes::Bytes)> = BTreeMap::new();
        let mut cells = 0;
        for target in route.targets() {
            for method in METHODS {
                let (path, id) = (route.url(caller, *target), route.id(caller, *target));
                let call = self.call(caller, method, &path);
                let call = match method {
                    "POST" | "PATCH" | "PUT" => call.json(&route.body(caller, *target, method)),
                    _ => call,
                };
                let call = if route.shape == Shape::Content && method == "PUT" {
                    call.header("content-type", "text/plain").bytes("other")
                } else {
                    call
                };
                let answer = call.send().await;
                let cell = format!("{}, {target:?}: {method} {path}", caller.what);
                let (status, op) = expected(caller, route, *target, method);
                assert_eq!(answer.status, status, "{cell}: {}", answer.text());
                let change = op.map(|op| format!("{op} {}/{id}", route.collection));
                assert_eq!(answer.changes, change.into_iter().collect::<Vec<_>>(), "{cell}");
                check_head(&answer, &cell);
                let entry = expected_entry(caller, route, *target, (status, op));
                assert_eq!(self.audited().await, Vec::from_iter(entry), "{cell}: audited");
                if method == "GET"
                    && status == 200
                    && !matches!(route.shape, Shape::Item | Shape::Page | Shape::Content)
                {
                    assert_eq!(answer.ids(), self.listed(caller, route, *target), "{cell}");
                }
                if op.is_some() {
                    self.restore(route.kind, &id).await;
                }
                if caller.rights.is_some() && method != "OPTIONS" {
                    let question = format!("/authorization?method={method}&path={path}");
                    let answer = self.call(caller, "GET", &question).send().await.is(200, &[]);
                    let allowed = is_allowed(caller, route, method, status);
                    assert_eq!(answer.json()["allowed"], allowed, "{cell}: {}", answer.text());
                }
                cells += 1;
                // Whether the record exists must not show in how it is refused; that a book's person is
                // absent may show to whoever may write pages there.
                if [403, 404].contains(&status)
                    && !(route.shape == Shape::Page && ["POST", "PUT"].contains(&method))
                {
                    let (earlier, body) =
                        refusals.entry((method, status)).or_insert((*target, answer.body.clone()));
                    assert_eq!(*body, answer.body, "{cell} can be told from {earlier:?}");
                }
            }
        }
        cells
    }
}

fn check_head(answer: &Answer, cell: &str) {
    match answer.status {
        401 => {
            assert_eq!(
                answer.header("www-authenticate"),
                "Basic realm=\"Authentication Required\", charset=\"UTF-8\"",
                "{cell}"
            )
        }
        405 | 204 if !answer.headers.contains_key("allow") => assert_eq!(answer.status, 204, "{cell}"),
        _ => {}
    }
    assert!(!answer.text().contains("$2b$"), "{cell}: a hash got out");
}

async fn check_records(table: &'static [(&'static str, Rights)], roles: String) -> usize {
    let callers = everybody(table);
    let mut world = World::new(roles, &callers).await;
    let mut cells = 0;
    for caller in &callers {
        for route in ROUTES {
            cells += world.check_record_route(caller, route).await;
        }
    }
    cells
}

#[tokio::test]
async fn records_with_the_shipped_and_the_sample_roles() {
    let cells = check_records(SHIPPED, shipped_and_samples()).await;
    // Callers, methods, places.
    assert_eq!(cells, 13 * 7 * 47);
}

#[tokio::test]
async fn records_with_the_rules_file_of_thalamus() {
    let cells = check_records(UPSTREAM, UPSTREAM_ROLES.to_owned()).await;
    assert_eq!(cells, 8 * 7 * 47);
}

// ------------------------------------------------------------------------------------------ node functions

/// What it takes besides the name.
#[derive(Clone, Copy, PartialEq)]
enum Needs {
    /// A login and no name.
    Login,
    Name,
    /// The name in a role with `global`.
    Global,
    /// The name, and to be root or the operator.
    Root,
    /// The name, and the path to be one's own or to be root.
    OwnOrRoot,
    /// The path to be one's own, or the name in a role with `global`.
    OwnOrGlobal,
}

struct NodeRoute {
    path: &'static str,
    method: &'static str,
    name: &'static str,
    needs: Needs,
    body: &'static str,
    /// For those who may.
    status: u16,
    change: Option<&'static str>,
}

const fn reads(path: &'static str, name: &'static str, needs: Needs, status: u16) -> NodeRoute {
    NodeRoute { path, method: "GET", name, needs, body: "", status, change: None }
}

const fn posts(
    path: &'static str,
    name: &'static str,
    needs: Needs,
    body: &'static str,
    status: u16,
) -> NodeRoute {
    NodeRoute { path, method: "POST", name, needs, body, status, change: None }
}

const NODE_ROUTES: &[NodeRoute] = &[
    reads("/login", "login", Needs::Login, 200),
    reads("/authorization?method=GET&path=/people", "", Needs::Login, 200),
    reads("/password/{own}", "password", Needs::OwnOrRoot, 200),
    reads("/password/BOB002", "password", Needs::OwnOrRoot, 200),
    reads("/password/NEW099", "password", Needs::OwnOrRoot, 404),
    // Without the token of a form nobody gets further.
    posts("/password/{own}", "password", Needs::OwnOrRoot, "password=a&again=a", 403),
    posts("/password/BOB002", "password", Needs::OwnOrRoot, "password=a&again=a", 403),
    posts("/password/NEW099", "password", Needs::OwnOrRoot, "password=a&again=a", 403),
    reads("/changes", "changes", Needs::Name, 200),
    reads("/audit", "audit", Needs::Global, 200),
    reads("/audit?person=BOB002", "audit", Needs::Global, 200),
    reads("/audit?person={own}", "audit", Needs::OwnOrGlobal, 200),
    reads("/users", "users", Needs::Global, 200),
    NodeRoute {
        path: "/users/NEW099",
        method: "POST",
        name: "users",
        needs: Needs::Root,
        body: r#"{"roles": ["end_user"], "password": "a cradle in Milano"}"#,
        status: 201,
        change: Some("create people/NEW099"),
    },
    NodeRoute {
        path: "/users/BOB002/password",
        method: "POST",
        name: "users",
        needs: Needs::Root,
        body: r#"{"password": "another cradle"}"#,
        status: 204,
        change: Some("update people/BOB002"),
    },
    posts("/users/NEW099/password", "users", Needs::Root, r#"{"password": "another cradle"}"#, 404),
    posts("/backups", "backups", Needs::Global, "", 201),
    reads("/emergencies", "users", Needs::Root, 200),
    posts("/emergencies/1/review", "users", Needs::Root, "", 404),
    reads("/sync/status", "sync", Needs::Name, 200),
    posts("/sync/rounds", "sync", Needs::Name, "", 200),
    posts("/sync/pause", "sync", Needs::Global, "", 204),
    posts("/sync/resume", "sync", Needs::Global, r#"{"accept_deletes": true}"#, 204),
    reads("/sync/conflicts", "conflicts", Needs::Name, 200),
    reads("/sync/conflicts/none", "conflicts", Needs::Name, 404),
    posts("/sync/conflicts/none/resolution", "conflicts", Needs::Name, r#"{"take": "local"}"#, 404),
    posts("/sync/conflicts/none/resolution/trial", "conflicts", Needs::Name, r#"{"take": "local"}"#, 404),
    posts("/sync/conflicts/trial", "conflicts", Needs::Name, r#"{"decisions": []}"#, 200),
    reads("/sync/dead", "sync", Needs::Global, 200),
    reads("/sync/waiting", "sync", Needs::Global, 200),
    posts("/sync/dead/people:NEW099/retry", "sync", Needs::Global, "", 404),
    posts("/sync/damaged/people:NEW099/set-aside", "sync", Needs::Root, "", 404),
    reads("/trash", "trash", Needs::Name, 200),
    // Another's account in the query is refused as one in a path is.
    reads("/trash?person=BOB002", "trash", Needs::Global, 200),
    reads("/trash/999999999", "trash", Needs::Name, 404),
    posts("/trash/999999999/restore", "trash", Needs::Name, "", 404),
];

fn expected_of_node(caller: &Caller, route: &NodeRoute, method: &str) -> (u16, Option<&'static str>) {
    let Some(rights) = &caller.rights else {
        return (401, None);
    };
    // Some paths have two methods.
    let path = route.path;
    let same = NODE_ROUTES.iter().find(|other| {
        other.path == path && (other.method == method || (other.method == "GET" && method == "HEAD"))
    });
    let Some(route) = same else {
        return (if method == "OPTIONS" { 204 } else { 405 }, None);
    };
    let is_own = caller.is_person && route.path.contains("{own}");
    let may = match route.needs {
        Needs::Login => true,
        Needs::Name => rights.allow(route.method, route.name),
        Needs::Global => rights.allow(route.method, route.name) && rights.global,
        Needs::Root => rights.allow(route.method, route.name) && rights.root,
        Needs::OwnOrRoot => rights.allow(route.method, route.name) && (is_own || rights.root),
        Needs::OwnOrGlobal => is_own || (rights.allow(route.method, route.name) && rights.global),
    };
    if may { (route.status, route.change) } else { (403, None) }
}

/// Whether the caller may use the form for the password, which then lacks its token.
fn has_form(caller: &Caller, route: &NodeRoute) -> bool {
    let may = |rights: Rights| {
        let is_own = caller.is_person && route.path.contains("{own}");
        rights.allow("POST", route.name) && (is_own || rights.root)
    };
    route.name == "password" && caller.rights.is_some_and(may)
}

/// What a request to a path of the node leaves in the audit trail when it is fulfilled.
fn node_entries(path: &str, method: &str) -> &'static [&'static str] {
    match (method, path) {
        ("OPTIONS", _) => &[],
        ("POST", "/users/NEW099") => &["create people/NEW099"],
        ("POST", "/users/BOB002/password") => &["password people/BOB002"],
        ("POST", "/sync/pause") => &["pause /"],
        ("POST", "/sync/resume") => &["accept_deletes /", "resume /"],
        (_, "/changes" | "/sync/dead" | "/sync/waiting") => &["read /"],
        (_, "/users") => &["list users/"],
        (_, "/emergencies") => &["list emergencies/"],
        (_, "/sync/conflicts") | ("POST", "/sync/conflicts/trial") => &["list conflicts/"],
        (_, "/trash" | "/trash?person=BOB002") => &["list trash/"],
        (_, path) if path.starts_with("/audit") => &["list audit/"],
        _ => &[],
    }
}

async fn check_node_routes(table: &'static [(&'static str, Rights)], roles: String) {
    let callers = everybody(table);
    let mut world = World::new(roles, &callers).await;
    for caller in &callers {
        for route in NODE_ROUTES {
            for method in METHODS {
                let own = if caller.is_person { caller.account } else { "ANA001" };
                let path = route.path.replace("{own}", own);
                let mut call = world.call(caller, method, &path);
                if method == route.method && !route.body.is_empty() {
                    call = call.bytes(route.body);
                }
                let answer = call.send().await;
                let cell = format!("{}: {method} {path}", caller.what);
                let (status, change) = expected_of_node(caller, route, method);
                assert_eq!(answer.status, status, "{cell}: {}", answer.text());
                assert_eq!(answer.changes, change.into_iter().collect::<Vec<_>>(), "{cell}");
                check_head(&answer, &cell);
                let entries = match status {
                    401 => Vec::from_iter(caller.failed_login()),
                    // Those who may not; and for those who may, what is missing is the form's token.
                    403 if method == "POST" && has_form(caller, route) => {
                        vec![format!("{} denied form_expired", caller.name())]
                    }
                    403 => vec![format!("{} denied forbidden", caller.name())],
                    200..300 => {
                        let audit = node_entries(&path, method).iter();
                        audit.map(|said| format!("{} {said}", caller.name())).collect()
                    }
                    _ => Vec::new(),
                };
                assert_eq!(world.audited().await, entries, "{cell}: audited");
                if change.is_some() {
                    world.restore(Kind::Person, NOBODY).await;
                    world.restore(Kind::Person, OTHER).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn node_functions_with_the_shipped_and_the_sample_roles() {
    check_node_routes(SHIPPED, shipped_and_samples()).await;
}

#[tokio::test]
async fn node_functions_with_the_rules_file_of_thalamus() {
    check_node_routes(UPSTREAM, UPSTREAM_ROLES.to_owned()).await;
}

/// Paths that need no login, and paths that do not exist: the same for everybody.
#[tokio::test]
async fn paths_without_rights() {
    let callers = everybody(SHIPPED);
    let mut world = World::new(shipped_and_samples(), &callers).await;
    for caller in &callers {
        for method in METHODS {
            for path in ["/", "/healthz", "/readyz"] {
                let status = match method {
                    "GET" | "HEAD" => 200,
                    "OPTIONS" => 204,
                    _ => 405,
                };
                let answer = world.call(caller, method, path).send().await;
                assert_eq!(answer.status, status, "{}: {method} {path}", caller.what);
                assert!(answer.changes.is_empty());
            }
            for path in ["/nothing", "/people/A/B/C", "/pols", "/healthz/", "//nothing", "/static/x"] {
                let status = if caller.rights.is_some() { 404 } else { 401 };
                let answer = world.call(caller, method, path).send().await;
                assert_eq!(answer.status, status, "{}: {method} {path}", caller.what);
            }
        }
    }
}

/// Everybody's password is the same here; this is the one place that says so.
#[tokio::test]
async fn everybody_is_who_they_say() {
    let callers = everybody(SHIPPED);
    let mut world = World::new(shipped_and_samples(), &callers).await;
    for caller in callers.iter().filter(|caller| caller.rights.is_some()) {
        let answer = world.call(caller, "GET", "/authorization?method=GET&path=/login").send().await;
        let user = if caller.login == Login::Operator { "operator:0" } else { caller.account };
        let roles = match caller.what {
            "root from the centre only" | "operator" => json!([]),
            role => json!([role]),
        };
        assert_eq!(answer.json()["user"], user, "{PASSWORD}");
        assert_eq!(answer.json()["roles"], roles, "{}", caller.what);
    }
}
