//! Floor 0. Documents whose bytes are kept as they came.
//!
//! What the centre holds is stored byte for byte, or not at all: a document that would come out differently when it is
//! written again could not be compared with itself. Most are of few types, and looking at their bytes is enough to
//! know; they are decoded only where something has to be decided about them, one at a time, and not kept so: many short
//! values take dozens of times their bytes. In a first sync nothing has to be decided, which makes it a quarter cheaper.

use std::collections::HashSet;

use bson::spec::BinarySubtype;
use bson::{Document, RawBsonRef, RawDocument, RawDocumentBuf};

use super::depth::{CENTRE_DEPTH_MAX, is_deeper_than};
use crate::domain::json::weight;

/// Keys of a document that are compared each with each; more are put into a set.
const PAIRS_KEYS_MAX: usize = 24;

/// What a document may take once its values are decoded. A megabyte of small objects takes thirty, and a node holds a
/// document several times while it merges, deletes or restores it: 16 MiB of them would take gigabytes.
const DECODED_MIB_MAX: usize = 192;
/// A smaller document cannot take so much.
const LARGE_BYTES: usize = 1 << 20;

/// The bytes of a document, which encoding it again would give.
#[derive(Debug, Clone, PartialEq)]
pub struct Verbatim {
    bytes: RawDocumentBuf,
}

/// Why a document cannot be kept as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    #[error("its text or structure is not valid, or it nests deeper than {CENTRE_DEPTH_MAX} levels")]
    Unreadable,
    #[error("it has the same key twice or an encoding of its own")]
    Changed,
    #[error(
        "it has so many small values that it would take more than {DECODED_MIB_MAX} MiB of memory to work with it: spread them \
         over several records"
    )]
    TooManyValues,
}

impl Verbatim {
    /// The document in these bytes, if it can be kept byte for byte.
    pub fn read(raw: &RawDocument) -> Result<Verbatim, NotKept> {
        let most = DECODED_MIB_MAX << 20;
        if raw.as_bytes().len() > LARGE_BYTES && weight::of_document(raw, most) > most {
            return Err(NotKept::TooManyValues);
        }
        let verbatim = Verbatim { bytes: raw.to_owned() };
        if is_plain(raw, CENTRE_DEPTH_MAX) {
            return Ok(verbatim);
        }
        if is_deeper_than(CENTRE_DEPTH_MAX, raw) {
            return Err(NotKept::Unreadable);
        }
        let document = Document::try_from(raw).map_err(|_| NotKept::Unreadable)?;
        match document.to_vec() {
            Ok(bytes) if bytes == raw.as_bytes() => {}
            _ => return Err(NotKept::Changed),
        }
        Ok(verbatim)
    }

    pub fn bytes(&self) -> &RawDocument {
        &self.bytes
    }

    /// The document with its values. It is for one step of work: bytes are what is kept.
    pub fn decode(&self) -> Document {
        // What cannot be decoded is refused when it is read.
        Document::try_from(&*self.bytes).unwrap_or_default()
    }

    /// What it takes while it is worked with, see [`weight::of_decoded`].
    pub fn weight(&self) -> usize {
        weight::of_decoded(&self.bytes)
    }
}

impl TryFrom<Document> for Verbatim {
    type Error = bson::error::Error;

    /// Fails for keys and texts that BSON cannot hold.
    fn try_from(document: Document) -> Result<Verbatim, Self::Error> {
        Ok(Verbatim { bytes: RawDocumentBuf::try_from(&document)? })
    }
}

/// Whether these bytes are surely what encoding the document again would give: of types that are spelled in one way
/// only, no key twice, arrays numbered, at most so many levels. That it says no means nothing.
fn is_plain(document: &RawDocument, levels: usize) -> bool {
    let mut keys = Vec::new();
    for element in document.iter_elements() {
        let Ok(element) = element else {
            return false;
        };
        keys.push(element.key().as_str());
        if !element.value().is_ok_and(|value| is_plain_value(value, levels)) {
            return false;
        }
    }
    if keys.len() > PAIRS_KEYS_MAX {
        let mut seen = HashSet::with_capacity(keys.len());
        return keys.into_iter().all(|key| seen.insert(key));
    }
    (1..keys.len()).all(|at| !keys[..at].contains(&keys[at]))
}

/// A value at so many levels above the deepest.
fn is_plain_value(value: RawBsonRef<'_>, levels: usize) -> bool {
    match value {
        RawBsonRef::Double(_)
        | RawBsonRef::String(_)
        | RawBsonRef::Boolean(_)
        | RawBsonRef::Null
        | RawBsonRef::Int32(_)
        | RawBsonRef::Int64(_)
        | RawBsonRef::DateTime(_)
        | RawBsonRef::ObjectId(_) => true,
        RawBsonRef::Binary(binary) => binary.subtype == BinarySubtype::Generic,
        RawBsonRef::Document(document) => levels > 1 && is_plain(document, levels - 1),
        RawBsonRef::Array(array) => {
            // As a document it says under which keys its values stand.
            let elements = RawDocument::from_bytes(array.as_bytes());
            levels > 1 && elements.is_ok_and(|elements| is_plain_array(elements, levels - 1))
        }
        _ => false,
    }
}

fn is_plain_array(elements: &RawDocument, levels: usize) -> bool {
    elements.iter_elements().enumerate().all(|(at, element)| {
        element.is_ok_and(|element| {
            element.key().as_str() == at.to_string()
                && element.value().is_ok_and(|value| is_plain_value(value, levels))
        })
    })
}

#[cfg(test)]
mod tests {
    use bson::spec::ElementType;
    use bson::{Bson, doc};
    use proptest::prelude::*;

    use super::*;

    fn raw(document: &Document) -> Vec<u8> {
        document.to_vec().unwrap()
    }

    fn is_plain_document(document: &Document) -> bool {
        is_plain(RawDocument::from_bytes(&raw(document)).unwrap(), CENTRE_DEPTH_MAX)
    }

    #[test]
    fn what_clinics_write_is_plain() {
        assert!(is_plain_document(&doc! {
            "_id": "ANA", "n": 1, "l": 1_i64, "d": f64::NAN, "b": true, "z": null, "s": "Ñ", "t": bson::DateTime::from_millis(1),
            "a": [1, [2, {"x": []}]], "e": {}, "o": bson::oid::ObjectId::new(),
        }));
        let many: Document = (0..100).map(|n| (format!("k{n}"), Bson::Int32(n))).collect();
        assert!(is_plain_document(&many));
        assert!(!is_plain_document(&doc! {"r": Bson::Symbol("x".into())}));
    }

    #[test]
    fn a_document_of_too_many_small_values_is_not_decoded() {
        let listed = |value: Bson, times: usize| doc! {"_id": "x", "a": vec![value; times]};
        // An hour of a curve, and text of many megabytes, are no more than can be worked with.
        for document in [
            listed(1.5.into(), 900_000),
            listed("x".repeat(1 << 20).into(), 14),
            listed(doc! {"a": 1}.into(), 100_000),
        ] {
            let bytes = raw(&document);
            let raw = RawDocument::from_bytes(&bytes).unwrap();
            assert!(Verbatim::read(raw).is_ok(), "{} bytes", bytes.len());
        }
        let bytes = raw(&listed(doc! {"a": 1}.into(), 750_000));
        let read = Verbatim::read(RawDocument::from_bytes(&bytes).unwrap());
        assert_eq!(read, Err(NotKept::TooManyValues));
    }

    #[test]
    fn a_key_that_stands_twice_is_found_in_few_and_in_many() {
        for count in [2, 30] {
            let keys: Document = (0..count).map(|n| (format!("k{n:02}"), Bson::Int32(n))).collect();
            let mut bytes = raw(&keys);
            let at = bytes.windows(3).position(|w| w == b"k01").unwrap();
            bytes[at + 2] = b'0';
            let twice = RawDocument::from_bytes(&bytes).unwrap();
            assert!(!is_plain(twice, CENTRE_DEPTH_MAX));
            assert_eq!(Verbatim::read(twice), Err(NotKept::Changed));
        }
    }

    #[test]
    fn depth_is_limited_as_for_documents_that_are_decoded() {
        let mut document = doc! {};
        for depth in 1.. {
            let bytes = raw(&document);
            let deep = RawDocument::from_bytes(&bytes).unwrap();
            assert_eq!(is_plain(deep, CENTRE_DEPTH_MAX), !is_deeper_than(CENTRE_DEPTH_MAX, deep), "{depth}");
            if depth > CENTRE_DEPTH_MAX {
                return;
            }
            document = if depth % 2 == 0 {
                doc! {"a": document}
            } else {
                doc! {"a": [document]}
            };
        }
    }

    fn value() -> impl Strategy<Value = Bson> {
        let leaf = prop_oneof![
            any::<i32>().prop_map(Bson::Int32),
            any::<f64>().prop_map(Bson::Double),
            any::<bool>().prop_map(Bson::Boolean),
            "[a-z\u{0}é]{0,6}".prop_map(Bson::String),
            Just(Bson::Null),
            Just(Bson::Timestamp(bson::Timestamp { time: 1, increment: 2 })),
            prop::collection::vec(any::<u8>(), 0..6).prop_map(|bytes| {
                let subtype = match bytes.len() % 3 {
                    0 => BinarySubtype::Generic,
                    1 => BinarySubtype::BinaryOld,
                    _ => BinarySubtype::Md5,
                };
                Bson::Binary(bson::Binary { subtype, bytes })
            }),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Bson::Array),
                prop::collection::vec(("[ab01]{1,2}", inner), 0..4)
                    .prop_map(|fields| Bson::Document(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

        /// However bytes are spoiled: what counts as plain comes out of decoding and encoding as it went in.
        #[test]
        fn what_is_plain_keeps_its_bytes(
            value in value(),
            spoiled in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_usize), 0..3),
        ) {
            let mut bytes = raw(&doc! {"_id": "a", "v": value});
            for (at, byte, how) in spoiled {
                let at = at.index(bytes.len());
                // Small numbers are lengths and types, and letters are keys.
                bytes[at] = match how {
                    0 => byte,
                    1 => byte % 20,
                    2 => ElementType::String as u8,
                    _ => b'0' + byte % 2,
                };
            }
            if let Ok(raw) = RawDocument::from_bytes(&bytes) {
                if is_plain(raw, CENTRE_DEPTH_MAX) {
                    let decoded = Document::try_from(raw).unwrap();
                    prop_assert_eq!(decoded.to_vec().unwrap(), bytes.clone());
                }
                if let Ok(verbatim) = Verbatim::read(raw) {
                    prop_assert_eq!(verbatim.decode().to_vec().unwrap(), bytes);
                }
            }
        }
    }
}
