//! Floor 0. Bytes that others sent as text: their encoding, and marks of byte order.

use std::borrow::Cow;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Bytes that are not the UTF-8 that they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    /// What Windows calls "Unicode".
    #[error("this is UTF-16; save or send it as UTF-8")]
    Utf16,
    #[error("this is UTF-32; save or send it as UTF-8")]
    Utf32,
    /// At this byte, counted from 1.
    #[error("this is not UTF-8 (byte {0}); save or send it as UTF-8")]
    Other(usize),
}

/// Text that has to be UTF-8, without a mark of byte order. Told from UTF-16 and UTF-32 as for JSON: by their marks, or by
/// a zero byte among the first two.
pub fn unmarked(bytes: &[u8]) -> Result<&[u8], EncodingError> {
    match bytes {
        [0xFF, 0xFE, 0, 0, ..] | [0, 0, 0xFE, 0xFF, ..] | [0, 0, 0, _, ..] | [_, 0, 0, 0, ..] => {
            Err(EncodingError::Utf32)
        }
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] | [0, _, ..] | [_, 0, ..] => Err(EncodingError::Utf16),
        _ => Ok(bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)),
    }
}

/// Whether bytes begin as a document in BSON, which has zero bytes at the places where UTF-16 has them: its length, then the
/// type and the name of a field.
pub fn is_bson(bytes: &[u8]) -> bool {
    const TYPE_MAX: u8 = 0x13;
    const LENGTH_MAX: usize = 17 << 20;
    let Some((length, fields)) = bytes.split_first_chunk::<4>() else {
        return false;
    };
    let Some((1..=TYPE_MAX | 0x7F | 0xFF, rest)) = fields.split_first() else {
        return false;
    };
    let name = rest.split(|byte| *byte == 0).next().unwrap_or_default();
    let end = usize::try_from(i32::from_le_bytes(*length)).ok().and_then(|length| length.checked_sub(1));
    let is_ended = end.is_some_and(|end| end < LENGTH_MAX && bytes.get(end).is_none_or(|byte| *byte == 0));
    is_ended && name.len() < rest.len() && !name.is_empty() && !name.iter().any(u8::is_ascii_control)
}

/// [`unmarked`] as text.
pub fn utf8(bytes: &[u8]) -> Result<&str, EncodingError> {
    let text = unmarked(bytes)?;
    std::str::from_utf8(text)
        .map_err(|error| EncodingError::Other(error.valid_up_to() + bytes.len() - text.len() + 1))
}

/// The characters of bytes 0x80 to 0x9F in windows-1252, as the Encoding Standard (WHATWG) has them. Every other byte is
/// the same in Latin-1; the five bytes that windows-1252 leaves open are control characters in both.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8D}', 'Ž', '\u{8F}', //
    '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9D}', 'ž', 'Ÿ',
];
const WINDOWS_1252_FIRST: u8 = 0x80;

/// Decodes bytes as UTF-8 or, if they are not UTF-8, as windows-1252, which contains the printable Latin-1 that older
/// clients send.
pub fn decoded(bytes: &[u8]) -> Cow<'_, str> {
    let of_byte = |byte: &u8| {
        let place = byte.checked_sub(WINDOWS_1252_FIRST).map(usize::from);
        place.and_then(|place| WINDOWS_1252.get(place)).copied().unwrap_or(char::from(*byte))
    };
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().map(of_byte).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bson_is_no_utf_16() {
        let document = bson::doc! {"_id": "ARGAAA001AAA", "name": "x"}.to_vec().unwrap();
        assert!(is_bson(&document) && is_bson(&[document.clone(), document.clone()].concat()));
        // Only the beginning of a long one is looked at.
        assert!(is_bson(document.get(..12).unwrap()));
        for text in ["{}", "{\"a\": 1}", "{\r\n}", "[\n{", "\n\n", "1", "a\tb", "ñ\u{1}a"] {
            let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
            assert!(!is_bson(&little) && !is_bson(&big) && !is_bson(text.as_bytes()), "{text:?}");
        }
    }

    #[test]
    fn marks_are_skipped_and_other_encodings_named() {
        for plain in ["{}", "", "a", "ñ", "\u{FEFF}{}"] {
            assert_eq!(utf8(plain.as_bytes()), Ok(plain.trim_start_matches('\u{FEFF}')));
        }
        let utf16 = |text: &str| text.encode_utf16().collect::<Vec<u16>>();
        for text in ["{}", "\u{FEFF}{}", "\u{FEFF}ñ", "\u{FEFF}年", "1"] {
            let little: Vec<u8> = utf16(text).into_iter().flat_map(u16::to_le_bytes).collect();
            let big: Vec<u8> = utf16(text).into_iter().flat_map(u16::to_be_bytes).collect();
            assert_eq!(
                (utf8(&little), utf8(&big)),
                (Err(EncodingError::Utf16), Err(EncodingError::Utf16)),
                "{text}"
            );
            let wide: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
            assert_eq!(utf8(&wide), Err(EncodingError::Utf32), "{text}");
        }
        assert_eq!(utf8(b"ab\xF1"), Err(EncodingError::Other(3)));
        assert_eq!(utf8(b"\xEF\xBB\xBFab\xF1"), Err(EncodingError::Other(6)));
        assert_eq!(decoded(b"Nu\xF1ez"), "Nuñez");
    }

    /// Pairs of byte and code point of the Encoding Standard's index of windows-1252.
    #[test]
    fn bytes_that_are_not_utf_8_are_windows_1252() {
        for (byte, code) in [
            (0x7E, 0x7E),
            (0x80, 0x20AC),
            (0x81, 0x81),
            (0x82, 0x201A),
            (0x83, 0x0192),
            (0x84, 0x201E),
            (0x85, 0x2026),
            (0x86, 0x2020),
            (0x87, 0x2021),
            (0x88, 0x02C6),
            (0x89, 0x2030),
            (0x8A, 0x0160),
            (0x8B, 0x2039),
            (0x8C, 0x0152),
            (0x8D, 0x8D),
            (0x8E, 0x017D),
            (0x8F, 0x8F),
            (0x90, 0x90),
            (0x91, 0x2018),
            (0x92, 0x2019),
            (0x93, 0x201C),
            (0x94, 0x201D),
            (0x95, 0x2022),
            (0x96, 0x2013),
            (0x97, 0x2014),
            (0x98, 0x02DC),
            (0x99, 0x2122),
            (0x9A, 0x0161),
            (0x9B, 0x203A),
            (0x9C, 0x0153),
            (0x9D, 0x9D),
            (0x9E, 0x017E),
            (0x9F, 0x0178),
            (0xA0, 0xA0),
            (0xF1, 0xF1),
            (0xFF, 0xFF),
        ] {
            // 0xFF keeps the text from being UTF-8.
            let text = decoded(&[byte, 0xFF]).into_owned();
            assert_eq!(text.chars().map(u32::from).collect::<Vec<_>>(), [code, 0xFF], "{byte:#X}");
        }
        assert_eq!(decoded("€ Œuvre".as_bytes()), "€ Œuvre");
    }
}
