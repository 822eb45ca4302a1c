//! Floor 0. Records that stand in the file of another collection: pages in a file of people would become people.

use serde_json::{Map, Value};

use super::table::name_of;
use crate::domain::record::Kind;
use crate::domain::record::schema::{Owner, SCHEMAS, Schema};

/// Fields of people that units and institutions do not have.
const PERSONS_OWN: [&str; 2] = ["lastname", "password"];
/// Fields of people, units and institutions: a record with one of them is theirs, and its other fields are free.
const NAMED: [&str; 4] = ["name", "lastname", "roles", "password"];

/// Returns a field that shows the record to be of other collections, and these collections. A record without an owner that
/// stands in a collection of owned records is refused elsewhere, because it lacks the owner.
pub(super) fn mark_of_others(
    schema: &Schema,
    fields: &Map<String, Value>,
) -> Option<(&'static str, Vec<&'static str>)> {
    if matches!(schema.owner, Owner::Field(_)) {
        return None;
    }
    let is_text = |field: &str| matches!(fields.get(field), Some(Value::String(text)) if !text.is_empty());
    if schema.kind != Kind::Person
        && let Some(field) = PERSONS_OWN.into_iter().find(|field| is_text(field))
    {
        return Some((field, vec![Kind::Person.schema().collection]));
    }
    if NAMED.iter().any(|field| fields.contains_key(*field)) {
        return None;
    }
    let field = SCHEMAS.iter().map(name_of).filter(|field| !field.is_empty()).find(|field| is_text(field))?;
    let others = SCHEMAS.iter().filter(|other| name_of(other) == field);
    Some((field, others.map(|other| other.collection).collect()))
}
