//! Floor 5. The demo records: the same people on every node, so that clients can be tried at once.

use bson::{Bson, DateTime, Document, doc};
use sha2::{Digest, Sha256};

use crate::accounts::PUBLIC_PASSWORD_HASHES;
use crate::domain::access::{Grant, Verb};
use crate::domain::active::is_active_raw;
use crate::domain::record::Kind;
use crate::store::{Edit, EditError, Snapshot, Store};

const PICTURE: &[u8] = include_bytes!("demo/cradle.png");
const PATIENT: &str = "ESPGNU777ORG";
const ADMINISTRATOR: &str = "ARGBUE111FAV";

const PROFESSIONAL_HASH: &str = PUBLIC_PASSWORD_HASHES[0];
const PATIENT_HASH: &str = PUBLIC_PASSWORD_HASHES[1];
const ADMINISTRATOR_HASH: &str = PUBLIC_PASSWORD_HASHES[2];

/// Fills an empty store; returns false and changes nothing if there are records already. All of it is there or nothing,
/// whenever the process ends.
pub async fn fill(store: &Store, uid: u32) -> Result<bool, EditError> {
    if !store.read()?.is_empty()? {
        return Ok(false);
    }
    let edits = records().into_iter().map(|(kind, document)| {
        let id = document.get_str("_id").unwrap_or_default().to_owned();
        let grants = (id == ADMINISTRATOR).then(|| vec!["root".to_owned()]);
        let content = document.contains_key("content").then(|| (picture_hash(), PICTURE.into()));
        Edit {
            grant: Grant::operator(uid, Verb::Post, kind),
            id,
            expected: None,
            document: Some(document),
            requires: Vec::new(),
            grants,
            content,
            closes: None,
        }
    });
    store.edit_all(edits.collect()).await?;
    Ok(true)
}

/// The demo's open accounts that still have the password which everybody knows.
pub fn accounts_with_public_password(snapshot: &Snapshot) -> Vec<String> {
    let mut found = Vec::new();
    for person in people() {
        let id = person.get_str("_id").unwrap_or_default();
        // A damaged row opens no account, and keeps no node from starting.
        let Ok(Some(record)) = snapshot.find(Kind::Person, id) else {
            continue;
        };
        let person = record.document.as_ref();
        let is_public = person.get_str("password").is_ok_and(|hash| PUBLIC_PASSWORD_HASHES.contains(&hash));
        if is_public && is_active_raw(person) {
            found.push(id.to_owned());
        }
    }
    found
}

/// What to say as long as there are such accounts.
pub fn public_password_words(accounts: &[String]) -> String {
    format!(
        "the passwords of {} came with the demo and everybody knows them: anyone who reaches this node reads and changes \
         everything. Give these accounts passwords of their own (thalamus-edge user passwd ACCOUNT) or close them \
         (thalamus-edge user disable ACCOUNT)",
        accounts.join(", ")
    )
}

fn picture_hash() -> String {
    hex::encode(Sha256::digest(PICTURE))
}

fn records() -> Vec<(Kind, Document)> {
    let mut records: Vec<(Kind, Document)> =
        people().into_iter().map(|person| (Kind::Person, person)).collect();
    records.extend(pages().into_iter().map(|page| (Kind::Page, page)));
    let document = doc! {
        "_id": "8789981f-4e31-48d5-8eb8-1774dac8b8f6",
        "fedacct": PATIENT,
        "pol": "119b352e-8e4f-4847-9f05-53462cf94f10",
        "type": "picture",
        "extension": "png",
        "context": "identification",
        "description": "Picture at birth",
        "active": true,
        "content": {"sha256": picture_hash(), "length": PICTURE.len() as i64, "type": "image/png"},
    };
    records.push((Kind::PersonalDocument, document));
    records
}

fn people() -> Vec<Document> {
    let person =
        |id: &str, name: &str, lastname: &str, gender: &str, dob: Bson, roles: &[&str], hash: &str| {
            doc! {
                "_id": id, "name": name, "lastname": lastname, "gender": gender, "dob": dob,
                "marital_status": "married", "ethnicity": "latino", "education": "tertiary",
                "profession": if id == ADMINISTRATOR { "System Administrator" } else { "teacher" },
                "roles": roles, "password": hash, "active": true,
            }
        };
    let professional = &["end_user", "health_professional"][..];
    let born = |ms| Bson::DateTime(DateTime::from_millis(ms));
    // 1984-10-05T09:00Z and 1985-10-04T13:05Z.
    let cameron_born = born(465_814_800_000);
    let ana_born = born(497_279_100_000);
    let mut people = vec![
        person("ITPYT999HON", "Cameron", "Cordara", "female", cameron_born, professional, PROFESSIONAL_HASH),
        person("ESGNU777ORG", "Ana", "Betz", "female", ana_born, &["end_user"], PATIENT_HASH),
    ];
    for person in &mut people {
        person.insert("biological_sex", "female");
    }
    people.extend([
        person(
            "ITAPYT999HON",
            "Cameron",
            "Cordara",
            "f",
            "1984-10-05".into(),
            professional,
            PROFESSIONAL_HASH,
        ),
        person(PATIENT, "Ana", "Betz", "f", "1985-10-04".into(), &["end_user"], PATIENT_HASH),
        person(ADMINISTRATOR, "Admin", "Root", "f", "2008-10-12".into(), &["root"], ADMINISTRATOR_HASH),
    ]);
    people
}

fn pages() -> Vec<Document> {
    vec![
        doc! {
            "_id": "119b352e-8e4f-4847-9f05-53462cf94f10", "book": PATIENT,
            "page_date": "1985-10-04T13:05:00Z", "age": "0m 0y 0d", "page_type": "medical",
            "medical_context": "birth", "health_condition_text": "Single spontaneous delivery",
            "health_condition_code": "O80", "relevance": "important", "summary": "Birth",
            "info": "Ana was born in Italy in 1985", "node": "Milano General Hospital", "active": true,
        },
        doc! {
            "_id": "919c352f-7e4f-5341-7c22-8423acf76b32", "book": PATIENT,
            "page_date": "1985-10-06T10:00:00Z", "age": "0y 0m 5d", "page_type": "biographical",
            "relevance": "informational", "summary": "Birth Certificate",
            "info": "Issued in the city of Milano", "node": "Milano City Hall", "active": true,
        },
    ]
}
