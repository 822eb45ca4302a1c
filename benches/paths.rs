//! The paths that every record takes: to JSON and from it, compared, and merged.
//!
//!     cargo bench --bench paths

use bson::{Document, RawDocumentBuf, doc};
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use serde_json::{Map, Value};
use thalamus_edge::domain::diff::diff;
use thalamus_edge::domain::json::{DateFormat, Shown, adopt, parse_object};
use thalamus_edge::domain::merge::merge;
use thalamus_edge::domain::record::Kind;
use thalamus_edge::domain::value::same_document;

fn main() {
    divan::main();
}

/// A page of life as the field writes them.
fn page() -> Document {
    doc! {
        "_id": "5c4f6a1e-9b0d-4e0f-8a86-3a0b8a9f1c11", "book": "ESPGNU777ORG",
        "page_date": "2026-05-04T10:05:00Z", "age": "33y 4m 1d", "page_type": "medical",
        "medical_context": "encounter", "health_condition_text": "Essential (primary) hypertension",
        "health_condition_code": "I10", "relevance": "important", "summary": "Revisión — contrôle",
        "info": "Patient seen at the outpatient clinic. Vital signs within normal limits. ".repeat(4),
        "measurements": [{"bp": {"systolic": 128_i64, "diastolic": 80}, "wt": 70.5}],
        "node": "Hospital Lola Mora", "author": "Cameron Cordara", "active": true,
    }
}

fn changed(field: &str, value: &str) -> Document {
    let mut page = page();
    page.insert(field, value);
    page
}

fn raw(document: &Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(document).expect("a document")
}

fn json() -> Vec<u8> {
    let document = raw(&page());
    let shown = Shown { document: &document, dates: DateFormat::Http, hidden: &[] };
    serde_json::to_vec(&shown).expect("JSON")
}

/// Stored bytes to what clients see.
#[divan::bench]
fn to_json(bencher: Bencher<'_, '_>) {
    let document = raw(&page());
    bencher.counter(BytesCount::new(document.as_bytes().len())).bench(|| {
        let shown = Shown { document: &document, dates: DateFormat::Http, hidden: &["password"] };
        serde_json::to_vec(black_box(&shown))
    });
}

/// A body of a client to a checked object.
#[divan::bench]
fn from_json(bencher: Bencher<'_, '_>) {
    let body = json();
    bencher.counter(BytesCount::new(body.len())).bench(|| parse_object(black_box(&body)));
}

/// An object's values, with the types of what is stored.
#[divan::bench]
fn adopt_all(bencher: Bencher<'_, '_>) {
    let object: Map<String, Value> = parse_object(&json()).expect("an object");
    let stored = page();
    bencher.bench(|| {
        for (key, value) in black_box(&object) {
            black_box(adopt(value, stored.get(key), key)).expect("a value");
        }
    });
}

#[divan::bench]
fn compare(bencher: Bencher<'_, '_>) {
    let (one, other) = (page(), page());
    bencher.bench(|| same_document(black_box(&one), black_box(&other)));
}

/// The changed paths with what they held: all that a compare-and-set is made of.
#[divan::bench]
fn compare_and_set(bencher: Bencher<'_, '_>) {
    let (from, to) = (page(), changed("summary", "Control visit"));
    bencher.bench(|| diff(black_box(&from), black_box(&to)));
}

/// Both sides changed different fields.
#[divan::bench]
fn merge_fields(bencher: Bencher<'_, '_>) {
    let (base, local, remote) =
        (page(), changed("summary", "Control visit"), changed("relevance", "critical"));
    let schema = Kind::Page.schema();
    bencher.bench(|| merge(schema, Some(black_box(&base)), Some(&local), Some(&remote)));
}

/// Both sides changed the same field.
#[divan::bench]
fn merge_clash(bencher: Bencher<'_, '_>) {
    let (base, local, remote) = (page(), changed("summary", "Here"), changed("summary", "There"));
    let schema = Kind::Page.schema();
    bencher.bench(|| merge(schema, Some(black_box(&base)), Some(&local), Some(&remote)));
}

/// Stored bytes to a document and back.
#[divan::bench]
fn decode_and_encode(bencher: Bencher<'_, '_>) {
    let bytes = raw(&page()).into_bytes();
    bencher.counter(BytesCount::new(bytes.len())).bench(|| {
        let document = Document::from_reader(black_box(bytes.as_slice())).expect("a document");
        document.to_vec()
    });
}
