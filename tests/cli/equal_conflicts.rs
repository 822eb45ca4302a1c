//! When two values that mean the same are a conflict, and `--where-equal-by-meaning` decides it: on the real program, beside a
//! centre that a hub writes to as well.

use bson::{Bson, DateTime, Document, bson, doc};
use serde_json::{Value, json};

use crate::cli_support::{Clinic, IS_RUNNING};
use crate::imports::{import, put};
use crate::support::mongo::{MongoServer, Setup};

const DATABASE: &str = "federation";

struct Centre {
    runtime: tokio::runtime::Runtime,
    server: MongoServer,
}

impl Centre {
    fn new() -> Centre {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let server = runtime.block_on(MongoServer::start_own(Setup::default()));
        Centre { runtime, server }
    }

    fn clinic(&self) -> Clinic {
        Clinic::new()
            .with("CENTRAL__URI", &format!("mongodb://127.0.0.1:{}", self.server.public_port()))
            .with("CENTRAL__DATABASE", DATABASE)
    }

    /// What a hub does to a record.
    fn set(&self, collection: &str, id: &str, fields: Document) {
        self.runtime.block_on(async {
            let client = mongodb::Client::with_uri_str(self.server.uri()).await.unwrap();
            let collection = client.database(DATABASE).collection::<Document>(collection);
            let done = collection.update_one(doc! {"_id": id}, doc! {"$set": fields}).await.unwrap();
            assert_eq!(done.matched_count, 1);
        });
    }
}

fn date(text: &str) -> Bson {
    Bson::DateTime(DateTime::parse_rfc3339_str(text).unwrap())
}

fn open_conflicts(clinic: &Clinic) -> Vec<(String, bool)> {
    let listed = clinic.run(&["conflicts", "list", "--json"]).ends(0).json();
    let mut found: Vec<(String, bool)> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|conflict| {
            let path: Vec<&str> =
                conflict["path"].as_array().unwrap().iter().map(|step| step.as_str().unwrap()).collect();
            (path.join("."), conflict["equal_by_meaning"] == true)
        })
        .collect();
    found.sort();
    found
}

/// Both had agreed on the record, and both have written the same since, each in its own form.
#[test]
fn the_same_edit_on_both_sides_in_two_forms_is_a_conflict_equal_by_meaning() {
    for is_running in IS_RUNNING {
        let centre = Centre::new();
        let clinic = centre.clinic();
        let page = |fields: Value| {
            let mut page = json!({"_id": "P1", "book": "ANA001"});
            page.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            page.to_string()
        };
        let person = |dob: &str, lastname: &str| {
            json!({"_id": "ANA001", "name": "Ana", "lastname": lastname, "dob": dob}).to_string()
        };
        put(&clinic, "people.jsonl", person("1985-10-04", "Betz"));
        clinic.run(&["import", "people.jsonl"]).ends(0);
        let before = page(json!({
            "weight": 70, "measurements": [{"bp": {"systolic": 120}}], "info": {"seen": {"at": "2026-11-01"}},
            "social_context": "home", "tags": [1], "note": "a",
        }));
        import(&clinic, "pols.jsonl", before, &[]).ends(0);
        clinic.run(&["sync", "now"]).ends(0).says("complete");

        // One after the other: who has another name and another day of birth is somebody else.
        for lastname in ["Betz", "O\u{2019}Brien"] {
            import(&clinic, "people.jsonl", person("1986-10-04", lastname), &["--replace"]).ends(0);
        }
        let here = page(json!({
            "weight": 71, "measurements": [{"bp": {"systolic": "121"}}],
            "info": {"seen": {"at": "Sat, 28 Nov 2026 10:00:00 GMT"}}, "social_context": "transport", "tags": [2],
            "note": "b", "added": 5,
        }));
        import(&clinic, "pols.jsonl", here, &["--replace"]).ends(0);
        centre.set("people", "ANA001", doc! {"dob": date("1986-10-04T00:00:00Z"), "lastname": "O'Brien"});
        centre.set(
            "pols",
            "P1",
            doc! {
                "weight": 71.0, "measurements": bson!([{"bp": {"systolic": 121.0}}]),
                "info.seen.at": date("2026-11-28T10:00:00Z"), "social_context": "transportation", "tags": [2.0],
                "note": "c", "added": 5.0,
            },
        );
        clinic.run(&["sync", "now"]).ends(0).says("9 conflicts");
        let node = is_running.then(|| clinic.serve(&[]));
        let equal = ["added", "dob", "info.seen.at", "measurements", "social_context", "tags", "weight"]
            .map(str::to_owned);
        // To write a name otherwise is an edit, once both had agreed on it.
        let others = [("lastname".to_owned(), false), ("note".to_owned(), false)];
        let mut all: Vec<_> = equal.into_iter().map(|path| (path, true)).chain(others.clone()).collect();
        all.sort();
        assert_eq!(open_conflicts(&clinic), all);

        let resolve = ["conflicts", "resolve", "--all", "--where-equal-by-meaning", "--take", "central"];
        let dry = clinic.run(&[&resolve[..], &["--dry-run", "--json"]].concat()).ends(0).json();
        assert_eq!((&dry["matched"], &dry["decided"]), (&json!(7), &json!(7)), "{dry}");
        assert_eq!(open_conflicts(&clinic), all);
        clinic.run(&resolve).ends(0).says("7 decided: central");
        assert_eq!(open_conflicts(&clinic), others);
        clinic.run(&resolve).ends(0).says("no conflict matches");
        drop(node);
        clinic.run(&["sync", "now"]).ends(0).says("complete");
        assert_eq!(open_conflicts(&clinic), others);
    }
}

/// Where nothing was agreed on, such values are no conflict at all: the centre's stand.
#[test]
fn a_node_that_joins_has_none_of_them() {
    let centre = Centre::new();
    let (first, second) = (centre.clinic(), centre.clinic());
    let page = |weight: Value, at: &str| json!({"_id": "I1", "weight": weight, "at": at}).to_string();
    import(&first, "institutions.jsonl", page(json!(70), "2026-11-28T10:00:00Z"), &[]).ends(0);
    first.run(&["sync", "now"]).ends(0);
    import(&second, "institutions.jsonl", page(json!(70.0), "Sat, 28 Nov 2026 10:00:00 GMT"), &[]).ends(0);
    second.run(&["sync", "now"]).ends(0).says("complete");
    assert_eq!(open_conflicts(&second), []);
    let resolve = ["conflicts", "resolve", "--all", "--where-equal-by-meaning", "--take", "central"];
    second.run(&resolve).ends(0).says("no conflict matches");
}
