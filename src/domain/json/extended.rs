//! Floor 0. MongoDB extended JSON of every version made BSON.

use bson::Bson;
use serde_json::{Value, json};

use crate::domain::dates::parse_date;

/// The BSON value that extended JSON stands for: version 2, canonical or relaxed, and what mongoexport wrote before
/// MongoDB 4.2. `None` if a `$` type is not what it should be.
pub fn bson_of_extended(value: Value) -> Option<Bson> {
    Bson::try_from(modern(value)).ok()
}

/// Extended JSON of version 2 out of what mongoexport wrote before MongoDB 4.2 ("strict mode"): `$binary` beside `$type`,
/// `$regex` beside `$options`, `$date` with `+0000`.
fn modern(value: Value) -> Value {
    let Value::Object(fields) = value else {
        return match value {
            Value::Array(values) => Value::Array(values.into_iter().map(modern).collect()),
            other => other,
        };
    };
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    match (fields.len(), text("$binary"), text("$regex"), text("$date")) {
        (2, Some(base64), ..) => {
            let subtype = match fields.get("$type") {
                Some(Value::Number(number)) => number.as_u64().map(|number| format!("{number:02x}")),
                Some(Value::String(hex)) => Some(format!("{hex:0>2}")),
                _ => None,
            };
            if let Some(subtype) = subtype {
                return json!({"$binary": {"base64": base64, "subType": subtype}});
            }
        }
        (2, _, Some(pattern), _) => {
            if let Some(options) = text("$options") {
                return json!({"$regularExpression": {"pattern": pattern, "options": options}});
            }
        }
        (1, None, None, None) => {
            // Some tools write the number as a number.
            if let Some(number) = fields.get("$numberLong").or_else(|| fields.get("$numberInt"))
                && let Some(whole) = number.as_i64()
            {
                let name = if fields.contains_key("$numberLong") { "$numberLong" } else { "$numberInt" };
                return json!({name: whole.to_string()});
            }
            if let Some(number) = fields.get("$numberDouble").filter(|number| number.is_number()) {
                return json!({"$numberDouble": number.to_string()});
            }
            if let Some(number) = fields.get("$numberDecimal").filter(|number| number.is_number()) {
                return json!({"$numberDecimal": number.to_string()});
            }
        }
        (1, .., Some(date)) => {
            if let Some(date) = parse_date(date) {
                return json!({"$date": {"$numberLong": date.timestamp_millis().to_string()}});
            }
        }
        _ => {}
    }
    Value::Object(fields.into_iter().map(|(key, value)| (key, modern(value))).collect())
}
