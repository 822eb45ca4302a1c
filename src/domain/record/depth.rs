//! Floor 0. How deep a document of the centre may nest: what walks through one calls itself, and stacks end.

use bson::{RawBsonRef, RawDocument};

/// Deepest nesting of a document that is taken from the centre, the document itself being level 1. MongoDB
/// stores none deeper; other servers that speak its protocol may.
pub const CENTRE_DEPTH_MAX: usize = 200;

/// Whether `document` has more than `levels` levels; arrays count. Looks no deeper than that.
pub fn is_deeper_than(levels: usize, document: &RawDocument) -> bool {
    let nested = |value| match value {
        RawBsonRef::Document(nested) => Some(nested),
        RawBsonRef::Array(nested) => RawDocument::from_bytes(nested.as_bytes()).ok(),
        RawBsonRef::JavaScriptCodeWithScope(code) => Some(code.scope),
        _ => None,
    };
    let mut nested = document.iter().filter_map(|entry| nested(entry.ok()?.1));
    nested.any(|nested| levels <= 1 || is_deeper_than(levels - 1, nested))
}

#[cfg(test)]
mod tests {
    use bson::spec::ElementType;
    use bson::{Bson, JavaScriptCodeWithScope, RawDocumentBuf, bson, doc, rawdoc};

    use super::*;

    fn depth(document: &bson::Document) -> usize {
        let raw = RawDocumentBuf::try_from(document).unwrap();
        (1..).find(|levels| !is_deeper_than(*levels, &raw)).unwrap()
    }

    #[test]
    fn documents_arrays_and_scopes_are_levels() {
        assert_eq!(depth(&doc! {}), 1);
        assert_eq!(depth(&doc! {"a": 1, "b": "x"}), 1);
        assert_eq!(depth(&doc! {"a": {}, "b": [[{}], 1]}), 4);
        let code = JavaScriptCodeWithScope { code: "f()".to_owned(), scope: doc! {"a": bson!([1])} };
        assert_eq!(depth(&doc! {"a": Bson::JavaScriptCodeWithScope(code)}), 3);
    }

    /// More levels than any stack stands: what looks must not itself go down there.
    #[test]
    fn the_deepest_document_is_only_looked_into() {
        let around = |inner: Vec<u8>, levels: usize| {
            let (mut heads, mut length) = (Vec::new(), inner.len());
            for _ in 0..levels {
                // Length, type, a key of one letter; one byte ends it.
                length += 8;
                let length = u32::try_from(length).unwrap();
                heads.push(
                    [&length.to_le_bytes()[..], &[ElementType::EmbeddedDocument as u8], b"a\0"].concat(),
                );
            }
            heads.reverse();
            [heads.concat(), inner, vec![0; levels]].concat()
        };
        let deepest = around(rawdoc! {}.into_bytes(), 200_000);
        assert!(is_deeper_than(CENTRE_DEPTH_MAX, RawDocument::from_bytes(&deepest).unwrap()));
        let allowed = around(rawdoc! {}.into_bytes(), CENTRE_DEPTH_MAX - 1);
        assert!(!is_deeper_than(CENTRE_DEPTH_MAX, RawDocument::from_bytes(&allowed).unwrap()));
    }
}
