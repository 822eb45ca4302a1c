//! Floor 0. Bytes as PostgreSQL writes them in text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256, Sha512};

/// Begins bytes in hexadecimal digits, PostgreSQL's default since 9.0.
pub const HEX_MARK: &str = "\\x";

/// Reads bytes: `\x` and hexadecimal digits; the older form, in which `\377` is a byte and `\\` a backslash; or base64.
///
/// Base64 looks like the older form without a backslash. `hash`, the document's SHA-256 or SHA-512 in hexadecimal digits,
/// tells them apart; without it such a text is refused.
pub fn decode(text: &str, hash: Option<&str>) -> Result<Vec<u8>, &'static str> {
    if let Some(digits) = text.strip_prefix(HEX_MARK) {
        return hex::decode(digits).map_err(|_| "the hexadecimal digits of its bytes are damaged");
    }
    if text.strip_prefix("\\\\x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        return Err("the backslashes of its bytes are escaped twice");
    }
    if text.contains('\\') {
        return escaped(text).ok_or("its bytes are not understood");
    }
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let compact: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let candidates = [BASE64.decode(compact).ok(), Some(text.as_bytes().to_vec()), hex::decode(text).ok()];
    let right = hash.and_then(|hash| candidates.into_iter().flatten().find(|bytes| is_hash(hash, bytes)));
    right.ok_or("whether its bytes are base64 cannot be told: export with `SET bytea_output = 'hex'`")
}

/// Whether `hash` is a SHA-256 or SHA-512 in hexadecimal digits, and not that of these bytes.
pub fn is_of_others(hash: &str, bytes: &[u8]) -> bool {
    const DIGITS: [usize; 2] = [64, 128];
    let is_digest = DIGITS.contains(&hash.len()) && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest && !is_hash(hash, bytes)
}

/// Whether `hash` is the SHA-256 or SHA-512 of these bytes.
pub fn is_hash(hash: &str, bytes: &[u8]) -> bool {
    let is = |digest: String| digest.eq_ignore_ascii_case(hash);
    is(hex::encode(Sha512::digest(bytes))) || is(hex::encode(Sha256::digest(bytes)))
}

fn escaped(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (b'\\', [b'\\', after @ ..]) => {
                bytes.push(b'\\');
                after
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                after
            }
            (b'\\', _) => return None,
            (byte, after) => {
                bytes.push(*byte);
                after
            }
        };
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_in_each_form() {
        let hash = hex::encode(Sha512::digest([1, 2, 3]));
        for (text, hash, bytes) in [
            ("\\xffd8", None, Some(&[0xFF, 0xD8][..])),
            ("\\xFFD8", None, Some(&[0xFF, 0xD8])),
            ("\\x", None, Some(&[])),
            ("", None, Some(&[])),
            ("\\377\\330a\\\\", None, Some(&[0xFF, 0xD8, b'a', b'\\'])),
            ("AQID", Some(hash.as_str()), Some(&[1, 2, 3])),
            ("AQ\nID", Some(&hash), Some(&[1, 2, 3])),
            ("010203", Some(&hash), Some(&[1, 2, 3])),
            ("AQID", None, None),
            ("AQIE", Some(&hash), None),
            ("\\xff0", None, None),
            ("\\xfg", None, None),
            ("\\\\xffd8", None, None),
            ("\\400", None, None),
            ("\\8", None, None),
        ] {
            assert_eq!(decode(text, hash).ok().as_deref(), bytes, "{text}");
        }
        for (hash, is_other) in [
            (hash.as_str(), false),
            (&hash.to_uppercase(), false),
            (&hex::encode(Sha256::digest([1, 2, 3])), false),
            (&hex::encode(Sha256::digest([1, 2])), true),
            (&"0".repeat(128), true),
            // No digest that is known here.
            (&"0".repeat(32), false),
            ("", false),
        ] {
            assert_eq!(is_of_others(hash, &[1, 2, 3]), is_other, "{hash}");
        }
    }
}
