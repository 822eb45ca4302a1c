//! Floor 0. Attachments: the bytes that a document names instead of holding them.
//!
//! A name is the SHA-256 of the bytes, so bytes under a name never change, equal ones are kept once, and
//! whoever holds them can tell whether they are right.

use bson::{Bson, Document, RawDocument};

use super::Kind;
use super::schema::Shape;

/// The bytes of a personal document are described by this field, which only their upload changes.
pub const CONTENT_FIELD: &str = "content";
/// Size of every chunk but the last, in the store and at the centre.
pub const CONTENT_CHUNK_BYTES: usize = 64 * 1024;
/// The name of no bytes at all, which are everywhere.
pub const EMPTY_CONTENT: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

const NAME_CHARS: usize = 64;

/// What a document says about the bytes that belong to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// 64 hexadecimal digits in lower case.
    pub sha256: String,
    /// In bytes; a claim until the bytes are here.
    pub length: u64,
    pub media_type: String,
}

impl Content {
    /// [`Content::of`] a document that is not decoded.
    pub fn named_in(kind: Kind, document: &RawDocument) -> Option<Content> {
        let is_any = has_content(kind) && document.get(CONTENT_FIELD).ok()?.is_some();
        if is_any { Content::of(kind, &Document::try_from(document).ok()?) } else { None }
    }

    /// The content that a record of this kind names, if it names any.
    pub fn of(kind: Kind, document: &Document) -> Option<Content> {
        if !has_content(kind) {
            return None;
        }
        let content = document.get_document(CONTENT_FIELD).ok()?;
        let length = match content.get("length")? {
            Bson::Int64(length) => u64::try_from(*length).ok()?,
            Bson::Int32(length) => u64::try_from(*length).ok()?,
            _ => return None,
        };
        Some(Content {
            sha256: content.get_str("sha256").ok().filter(|name| is_content_name(name))?.to_owned(),
            length,
            media_type: content.get_str("type").unwrap_or("application/octet-stream").to_owned(),
        })
    }
}

/// Whether records of this kind have bytes of their own.
pub fn has_content(kind: Kind) -> bool {
    kind.schema().routes.iter().any(|route| route.shape == Shape::Content)
}

/// Whether a text can name content: 64 digits, and so no path.
pub fn is_content_name(text: &str) -> bool {
    text.len() == NAME_CHARS && text.bytes().all(is_digit)
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

/// The media type of bytes of which nobody said it: by how they begin, then by the ending of the file that they were.
pub fn media_type_of(bytes: &[u8], ending: &str) -> &'static str {
    const BEGINNINGS: [(&[u8], &str); 7] = [
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"%PDF-", "application/pdf"),
        (b"GIF8", "image/gif"),
        (b"II*\0", "image/tiff"),
        (b"MM\0*", "image/tiff"),
        (b"RIFF", "image/webp"),
    ];
    const ENDINGS: [(&str, &str); 5] = [
        ("txt", "text/plain"),
        ("csv", "text/csv"),
        ("xml", "application/xml"),
        ("json", "application/json"),
        ("dcm", "application/dicom"),
    ];
    let by_beginning = BEGINNINGS.into_iter().find(|(beginning, media_type)| {
        bytes.starts_with(beginning) && (*media_type != "image/webp" || bytes.get(8..12) == Some(b"WEBP"))
    });
    let ending = ending.trim_start_matches('.');
    let by_ending = || ENDINGS.into_iter().find(|(known, _)| ending.eq_ignore_ascii_case(known));
    match by_beginning {
        Some((_, media_type)) => media_type,
        None => by_ending().map_or("application/octet-stream", |(_, media_type)| media_type),
    }
}

/// Every name of content that stands anywhere in these bytes, whatever they are: what is kept beside the
/// records (bases, conflicts, bodies in the trash) is looked through without a list of where it names what.
pub fn names_within(bytes: &[u8]) -> impl Iterator<Item = &str> {
    bytes
        .split(|byte| !is_digit(*byte))
        .flat_map(|digits| digits.windows(NAME_CHARS))
        .filter_map(|name| std::str::from_utf8(name).ok())
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn only_a_sound_name_is_one() {
        let name = "0f".repeat(32);
        let named = |sha256: &str| doc! {"content": {"sha256": sha256, "length": 5}};
        let content = Content::of(Kind::PersonalDocument, &named(&name)).unwrap();
        assert_eq!((content.sha256.as_str(), content.length), (name.as_str(), 5));
        assert_eq!(content.media_type, "application/octet-stream");
        assert_eq!(Content::of(Kind::Person, &named(&name)), None, "people have no bytes");
        for bad in ["", "../../etc", &name.to_uppercase(), &name[1..], &format!("{name}0")] {
            assert_eq!(Content::of(Kind::PersonalDocument, &named(bad)), None, "{bad}");
        }
        for length in [Bson::Null, Bson::Int64(-1), Bson::Double(1.0)] {
            let document = doc! {"content": {"sha256": &name, "length": length}};
            assert_eq!(Content::of(Kind::PersonalDocument, &document), None);
        }
    }

    #[test]
    fn media_types_are_told_from_the_bytes() {
        for (bytes, ending, media_type) in [
            (&b"\xff\xd8\xff\xe0"[..], "png", "image/jpeg"),
            (b"\x89PNG\r\n\x1a\n", "", "image/png"),
            (b"%PDF-1.7", "", "application/pdf"),
            (b"RIFF....WEBP", "", "image/webp"),
            (b"RIFF....WAVE", "", "application/octet-stream"),
            (b"text", ".TXT", "text/plain"),
            (b"text", "exe", "application/octet-stream"),
            (b"", "", "application/octet-stream"),
        ] {
            assert_eq!(media_type_of(bytes, ending), media_type, "{bytes:?}");
        }
    }

    #[test]
    fn names_are_found_wherever_they_stand() {
        let (a, b) = ("a1".repeat(32), "b2".repeat(32));
        let document =
            doc! {"x": [{"content": {"sha256": &a, "length": 1}}], "y": format!("see {b}."), "z": "c"};
        let bytes = document.to_vec().unwrap();
        let found: Vec<&str> = names_within(&bytes).collect();
        assert_eq!(found, [a.as_str(), b.as_str()]);
        assert_eq!(names_within(&a.as_bytes()[1..]).count(), 0);
        // Digits before or after a name hide none.
        let joined = format!("0{a}");
        assert!(names_within(joined.as_bytes()).any(|name| name == a));
    }
}
