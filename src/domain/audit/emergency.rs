//! Floor 0. Emergency access: how far it reaches, and what a reason must be.
//!
//! Whoever has a role with `"emergency": true` may read what belongs to one other person, for a while, if they say
//! why. [`crate::domain::access::Acl::may_open`] says who and which kinds.

use bson::Document;
use percent_encoding::percent_decode_str;

use super::TEXT_CHARS_MAX;
use crate::domain::text::encoding::decoded;
use crate::domain::text::visible::{Visible, turns_or_breaks};

/// How long an opening lasts, counted from the request that opened it.
pub const OPEN_S_MAX: u64 = 15 * 60;
/// Fewest characters of a reason that can be seen ([`Visible`]).
pub const REASON_CHARS_MIN: usize = 10;
/// So many of its characters are letters or digits at least: dots are no reason.
const REASON_LETTERS_MIN: usize = 5;
/// Longest reason: the audit trail keeps all of it.
pub const REASON_CHARS_MAX: usize = TEXT_CHARS_MAX;
/// Before a text with percent signs, as RFC 8187 (and 5987 before it) has it, in front of the language: `UTF-8'es'`.
const CHARSETS: [&str; 2] = ["UTF-8'", "ISO-8859-1'"];
/// Openings of one account that nobody has reviewed; then somebody has to, before there is another one.
pub const UNREVIEWED_EACH_MAX: usize = 32;
/// The same for all accounts together.
pub const UNREVIEWED_MAX: usize = 1024;

/// An opening that nobody has reviewed.
#[derive(Debug, Clone, PartialEq)]
pub struct Emergency {
    /// The number of its entry in the audit trail.
    pub id: u64,
    /// Whoever opened it, as the audit trail names them.
    pub who: String,
    /// Folded account of the person whose records were opened.
    pub person: String,
    /// The fields by which the human being is told apart for whom it was opened; empty if nobody was known.
    pub identity: Document,
    pub reason: String,
    /// Address that the request came from.
    pub peer: String,
    /// Milliseconds since 1970 by the clock of the box.
    pub at_ms: i64,
    /// The account or the access rules were changed meanwhile, which ended the access at once.
    pub is_ended: bool,
}

/// Why somebody needs to see a record, in their own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason(String);

/// What is wrong with a reason, in words for whoever gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReasonError {
    #[error("must not hold control characters, new lines or changes of direction")]
    Control,
    #[error("must say in {REASON_CHARS_MIN} to {REASON_CHARS_MAX} characters why the record is needed now")]
    Length,
}

impl Reason {
    /// From the bytes of a header, in UTF-8, windows-1252 (which contains Latin-1), or with percent signs (RFC 3986, 2.1), also with the charset and language
    /// of RFC 8187 before it: browsers put nothing but Latin-1 into a header. Blanks around it do not count.
    pub fn parse(bytes: &[u8]) -> Result<Reason, ReasonError> {
        let text = decoded(bytes);
        let text = without_charset(&text).unwrap_or(&text);
        // A percent sign that no two digits follow stands for itself.
        let text = decoded(&percent_decode_str(text).collect::<Vec<u8>>()).into_owned();
        let text = text.trim();
        if text.chars().any(|c| c.is_control() || turns_or_breaks(c)) {
            return Err(ReasonError::Control);
        }
        let visible = Visible::of(text);
        let is_long = text.chars().count() > REASON_CHARS_MAX;
        if is_long || visible.chars < REASON_CHARS_MIN || visible.letters < REASON_LETTERS_MIN {
            return Err(ReasonError::Length);
        }
        Ok(Reason(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text behind a charset and a language.
fn without_charset(text: &str) -> Option<&str> {
    let rest = CHARSETS.into_iter().find_map(|charset| {
        let (prefix, rest) = text.split_at_checked(charset.len())?;
        prefix.eq_ignore_ascii_case(charset).then_some(rest)
    })?;
    let (language, rest) = rest.split_once('\'')?;
    language.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-').then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons() {
        let longest = "ñ".repeat(REASON_CHARS_MAX);
        for (given, kept) in [
            ("unconscious", "unconscious"),
            ("  0123456789\t", "0123456789"),
            ("¡infarto, ya!", "¡infarto, ya!"),
            ("می\u{200C}خواهد بمیرد", "می\u{200C}خواهد بمیرد"),
            ("患者昏迷需要立即查看", "患者昏迷需要立即查看"),
            ("रोगी बेहोश है", "रोगी बेहोश है"),
            (longest.as_str(), longest.as_str()),
        ] {
            assert_eq!(Reason::parse(given.as_bytes()).as_ref().map(Reason::as_str), Ok(kept));
        }
        for (given, kept) in [
            (&b"coma diab\xe9tico"[..], "coma diabético"),
            ("coma diabético".as_bytes(), "coma diabético"),
            (b"coma%20diab%C3%A9tico", "coma diabético"),
            (b"coma diab%E9tico", "coma diabético"),
            (b"utf-8''%D8%A5%D8%BA%D9%85%D8%A7%D8%A1%20shock", "إغماء shock"),
            (b"UTF-8''unconscious", "unconscious"),
            (b"UTF-8'es-MX'coma%20diab%C3%A9tico", "coma diabético"),
            (b"iso-8859-1''coma%20diab%E9tico", "coma diabético"),
            (b"UTF-8' is what she said", "UTF-8' is what she said"),
            (b"utf-8'a b'c is no charset", "utf-8'a b'c is no charset"),
            (b"sats at 80% and falling", "sats at 80% and falling"),
        ] {
            assert_eq!(Reason::parse(given).as_ref().map(Reason::as_str), Ok(kept));
        }
        for (given, wrong) in [
            (&b""[..], ReasonError::Length),
            (b"012345678", ReasonError::Length),
            (b"     012345678     ", ReasonError::Length),
            (b"..........", ReasonError::Length),
            ("\u{200B}".repeat(12).as_bytes(), ReasonError::Length),
            ("ab\u{2060}\u{200D}\u{FE0F}\u{3164}\u{34F}\u{115F}cdefgh".as_bytes(), ReasonError::Length),
            ("\u{345}".repeat(12).as_bytes(), ReasonError::Length),
            (format!("{}aaaaa", "\u{2800}".repeat(10)).as_bytes(), ReasonError::Length),
            (format!("abcd {}", "\u{93F}".repeat(12)).as_bytes(), ReasonError::Length),
            ("abcde          f".as_bytes(), ReasonError::Length),
            ("\u{202E}esaelp won deen".as_bytes(), ReasonError::Control),
            ("a reason\u{2028}with lines".as_bytes(), ReasonError::Control),
            (format!("{longest}x").as_bytes(), ReasonError::Length),
            (b"a reason %0d%0a with lines", ReasonError::Control),
            (b"%20%20%20%20%20%20%20%20%20%20", ReasonError::Length),
            (b"a reason\twith a tab", ReasonError::Control),
            (b"a reason \x1b[2J", ReasonError::Control),
            ("a reason \u{85} of C1".as_bytes(), ReasonError::Control),
        ] {
            assert_eq!(Reason::parse(given), Err(wrong), "{}", String::from_utf8_lossy(given));
        }
    }
}
