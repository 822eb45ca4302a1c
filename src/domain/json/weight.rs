//! Floor 0. How much memory JSON text and stored documents take once they are read into trees of values.
//!
//! Texts take about their length. What takes many times its length are short values: `{"a":1}` is 7 bytes of JSON and more
//! than a kilobyte as a `serde_json::Value` and a BSON value. The numbers here are what the allocator hands out for the
//! tables and texts of these, with the slack of tables that grow.

use bson::{Bson, RawBsonRef, RawDocument};
use serde_json::Value;

/// Least that the allocator hands out.
const PIECE: usize = 32;
/// Place in a table of fields: beside the value its name, its hash, and its number in the index.
const fn place(value: usize) -> usize {
    value + size_of::<String>() + 2 * size_of::<usize>() + 2
}
const JSON_VALUE: usize = size_of::<Value>();
const BSON_VALUE: usize = size_of::<Bson>();
/// Tables of fields begin with so many places, and grow by doubling. The index of one takes so much beside.
const PLACES_MIN: usize = 3;
const INDEX: usize = 64;

/// What a record may take beside its bytes while it is changed.
pub const RECORD_MAX: usize = 16 << 20;
/// What documents of a reconciliation may take together, their bytes and their values decoded, before the others wait
/// for their turn.
pub const TOGETHER_MAX: usize = 8 << 20;

/// A value in a list.
const ELEMENT: usize = json_element() + bson_element();
/// A field of an object, without its value's own contents.
const FIELD: usize = json_field() + bson_field();
/// An object that has fields.
const OBJECT: usize = json_object() + bson_object();
/// A text, or the name of a field, beside its bytes.
const TEXT: usize = 2 * PIECE;

const fn json_element() -> usize {
    JSON_VALUE + JSON_VALUE / 4
}
const fn bson_element() -> usize {
    BSON_VALUE + BSON_VALUE / 4
}
const fn json_field() -> usize {
    place(JSON_VALUE) + place(JSON_VALUE) / 4
}
const fn bson_field() -> usize {
    place(BSON_VALUE) + place(BSON_VALUE) / 4
}
const fn json_object() -> usize {
    (PLACES_MIN - 1) * place(JSON_VALUE) + INDEX
}
const fn bson_object() -> usize {
    (PLACES_MIN - 1) * place(BSON_VALUE) + INDEX
}

/// What a JSON text takes once it is read and made BSON, beside the text itself: about, and not less where it is JSON.
/// Looks only for what separates values.
pub fn of_text(text: &[u8]) -> usize {
    let (mut weight, mut depth, mut objects) = (text.len().saturating_mul(2), 0_u32, [0_u64; 2]);
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'"' => {
                weight += TEXT;
                while let Some(byte) = text.get(at).filter(|byte| **byte != b'"') {
                    at += if *byte == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'[' | b'{' => {
                let is_object = *byte == b'{';
                if !is_empty_after(text, at) {
                    weight += if is_object { OBJECT } else { ELEMENT };
                }
                depth = depth.saturating_add(1);
                note(&mut objects, depth, is_object);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b':' => weight += FIELD,
            // In an object each field has its colon.
            b',' if !is_noted(&objects, depth) => weight += ELEMENT,
            _ => {}
        }
    }
    weight
}

/// How many values a JSON text has, of the text itself, its fields and the elements of its lists: exactly where it is JSON.
/// Looks no further than at one more than `most`, or at what is nested deeper than `depth_max`.
pub(super) fn values_in(text: &[u8], most: usize, depth_max: usize) -> usize {
    let (mut values, mut depth, mut at) = (1, 0_usize, 0);
    while let Some(byte) = text.get(at).filter(|_| values <= most && depth <= depth_max) {
        at += 1;
        match byte {
            b'"' => {
                while let Some(byte) = text.get(at).filter(|byte| **byte != b'"') {
                    at += if *byte == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'[' | b'{' => {
                depth += 1;
                values += usize::from(!is_empty_after(text, at));
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
    }
    values
}

/// Whether a list or object ends where it has begun: then it has no table.
fn is_empty_after(text: &[u8], at: usize) -> bool {
    let rest = text.get(at..).unwrap_or_default();
    rest.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| b"]}".contains(byte))
}

/// Remembers whether a level is an object's. Deeper ones than are taken are not remembered.
fn note(objects: &mut [u64; 2], depth: u32, is_object: bool) {
    let Some(bits) = objects.get_mut(depth as usize / 64) else {
        return;
    };
    let bit = 1 << (depth % 64);
    *bits = if is_object { *bits | bit } else { *bits & !bit };
}

fn is_noted(objects: &[u64; 2], depth: u32) -> bool {
    objects.get(depth as usize / 64).is_some_and(|bits| bits & 1 << (depth % 64) != 0)
}

/// What a stored document takes once it is decoded, beside its bytes. Ends where that is more than `most`.
pub fn of_document(document: &RawDocument, most: usize) -> usize {
    let mut weight = 0;
    add_document(document, most, &mut weight);
    weight
}

/// What a stored document takes while it is worked with: its bytes and its values decoded. Looks no further than at what
/// makes it [`TOGETHER_MAX`].
pub fn of_decoded(document: &RawDocument) -> usize {
    document.as_bytes().len() + of_document(document, TOGETHER_MAX)
}

/// Documents that are worked with together: the first, and others as long as all of them take no more than
/// [`TOGETHER_MAX`]. One alone may be heavier.
#[derive(Debug, Default)]
pub struct Together {
    weight: usize,
    is_begun: bool,
}

impl Together {
    /// Whether a document that takes so much goes with those before it, and counts it then.
    pub fn takes(&mut self, weight: usize) -> bool {
        let sum = self.weight.saturating_add(weight);
        if self.is_begun && sum > TOGETHER_MAX {
            return false;
        }
        (self.weight, self.is_begun) = (sum, true);
        true
    }

    /// Whether they take so much that no other goes with them.
    pub fn is_full(&self) -> bool {
        self.weight >= TOGETHER_MAX
    }
}

/// Cuts a list into parts that are worked with one after the other, in their order, by what each entry takes.
pub fn parts<T>(entries: Vec<T>, weight: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let (mut parts, mut part, mut together) = (Vec::new(), Vec::new(), Together::default());
    for entry in entries {
        let weight = weight(&entry);
        if !together.takes(weight) {
            parts.push(std::mem::take(&mut part));
            together = Together::default();
            together.takes(weight);
        }
        part.push(entry);
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

fn add_document(document: &RawDocument, most: usize, weight: &mut usize) {
    if !document.is_empty() {
        *weight += bson_object();
    }
    for (_, value) in document.iter().filter_map(Result::ok) {
        *weight += bson_field() + PIECE;
        add_value(value, most, weight);
        if *weight > most {
            return;
        }
    }
}

fn add_value(value: RawBsonRef<'_>, most: usize, weight: &mut usize) {
    match value {
        RawBsonRef::Document(document) => add_document(document, most, weight),
        RawBsonRef::Array(array) => {
            for value in array.into_iter().filter_map(Result::ok) {
                *weight += bson_element();
                add_value(value, most, weight);
                if *weight > most {
                    return;
                }
            }
        }
        RawBsonRef::String(_) | RawBsonRef::Binary(_) => *weight += PIECE,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::json::parse;
    use bson::{doc, serialize_to_raw_document_buf};

    fn list_of(row: &str, rows: usize) -> String {
        format!("{{\"x\":[{}]}}", vec![row; rows].join(","))
    }

    #[test]
    fn short_values_weigh_what_they_take() {
        let rows = 1000;
        for (row, least) in [
            ("1", JSON_VALUE + BSON_VALUE),
            ("null", JSON_VALUE + BSON_VALUE),
            ("[]", JSON_VALUE + BSON_VALUE),
            ("\"\"", JSON_VALUE + BSON_VALUE),
            // A table of three places, of which one is filled, and its name.
            ("{\"a\":1}", PLACES_MIN * (place(JSON_VALUE) + place(BSON_VALUE)) + 2 * PIECE),
        ] {
            let text = list_of(row, rows);
            let weight = of_text(text.as_bytes());
            assert!(weight >= rows * least, "{row}: {weight}");
            assert!(weight <= rows * least * 2 + 4096, "{row}: {weight}");
        }
    }

    #[test]
    fn long_texts_weigh_little_more_than_their_bytes() {
        for text in ["x".repeat(1_000_000), "[{,:".repeat(250_000), "\\\"".repeat(500_000)] {
            let text = format!("{{\"note\":\"{text}\"}}");
            assert!(of_text(text.as_bytes()) < text.len() * 2 + 4096);
        }
        assert_eq!(of_text(b""), 0);
        assert_eq!(of_text(b"{ }"), 6);
    }

    #[test]
    fn commas_of_objects_are_no_values() {
        let fields: Vec<_> = (0..100).map(|number| format!("\"f{number}\":1")).collect();
        let text = format!("{{{}}}", fields.join(","));
        assert_eq!(of_text(text.as_bytes()), text.len() * 2 + OBJECT + 100 * (FIELD + TEXT));
        let nested = "{\"a\":[1,2],\"b\":3}";
        assert_eq!(of_text(nested.as_bytes()), nested.len() * 2 + OBJECT + 2 * (FIELD + TEXT) + 2 * ELEMENT);
    }

    #[test]
    fn a_document_weighs_as_the_part_of_its_text_that_is_bson() {
        for row in ["1", "null", "{}", "[]", "\"some text\"", "{\"a\":1,\"b\":[2,{}]}"] {
            let text = list_of(row, 500);
            let document = Bson::try_from(parse(text.as_bytes()).unwrap()).unwrap();
            let raw = serialize_to_raw_document_buf(document.as_document().unwrap()).unwrap();
            let (weight, of_text) = (of_document(&raw, usize::MAX), of_text(text.as_bytes()));
            assert!(weight * 3 > of_text && weight < of_text, "{row}: {weight} of {of_text}");
        }
    }

    #[test]
    fn what_is_worked_with_together_is_bounded_by_values() {
        let empty = vec![Bson::Document(doc! {"a": {}}); 9300];
        let heavy = serialize_to_raw_document_buf(&doc! {"m": empty}).unwrap();
        let bytes = heavy.as_bytes().len();
        assert!(bytes < 200_000 && of_decoded(&heavy) > 20 * bytes);
        let light = serialize_to_raw_document_buf(&doc! {"m": "text"}).unwrap();
        let list = [vec![&light; 1000], vec![&heavy; 10], vec![&light; 10]].concat();
        let cut = parts(list.clone(), |document| of_decoded(document));
        assert_eq!(cut.concat(), list);
        for part in &cut {
            let weight: usize = part.iter().map(|document| of_decoded(document)).sum();
            assert!(part.len() == 1 || weight <= TOGETHER_MAX, "{} of {weight}", part.len());
        }
        assert!((5..=11).contains(&cut.len()), "{}", cut.len());
        assert!(parts(Vec::new(), |weight| *weight).is_empty());
        // One that is heavier than all that go together goes alone.
        assert_eq!(parts(vec![1, TOGETHER_MAX + 1, 1], |weight| *weight).len(), 3);
    }

    #[test]
    fn no_more_is_looked_at_than_is_of_interest() {
        let raw = serialize_to_raw_document_buf(&doc! {"x": vec![1; 100_000], "y": 1}).unwrap();
        let most = 1000 * BSON_VALUE;
        assert!((most..most + 1000).contains(&of_document(&raw, most)));
    }
}
