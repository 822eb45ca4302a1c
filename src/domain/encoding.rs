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

/// The same as text.
pub fn utf8(bytes: &[u8]) -> Result<&str, EncodingError> {
    let text = unmarked(bytes)?;
    std::str::from_utf8(text)
        .map_err(|error| EncodingError::Other(error.valid_up_to() + bytes.len() - text.len() + 1))
}

/// Bytes as text: UTF-8 or, if they are none, Latin-1, which older clients send.
pub fn decoded(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().map(|byte| char::from(*byte)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
