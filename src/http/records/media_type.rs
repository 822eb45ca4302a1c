//! Floor 4. How the bytes of attachments are labelled, so that a browser that opens one runs nothing of it.
//!
//! The uploaded type stays in the record. What is sent is another matter: types that browsers run, or take apart into
//! parts of other types, are sent as `application/octet-stream`, and everything but pictures and PDF as a download.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

const OCTETS: &str = "application/octet-stream";
/// The other top-level types (RFC 6838) are `multipart` and `message`, which are mixtures, and `model` and `example`.
const TOP_LEVEL: [&str; 6] = ["application", "audio", "font", "image", "text", "video"];
/// Parts of a subtype, between `.`, `+` and `-`, of which one is enough: documents that can hold scripts, styles,
/// programs, archives with pages in them.
const ACTIVE_PARTS: [&str; 26] = [
    "xml",
    "xhtml",
    "html",
    "htm",
    "svg",
    "xsl",
    "xslt",
    "xul",
    "mathml",
    "css",
    "wasm",
    "hta",
    "php",
    "java",
    "class",
    "flash",
    "futuresplash",
    "xpinstall",
    "mht",
    "mhtml",
    "mimearchive",
    "mixed",
    "manifest",
    "component",
    "http",
    "xbl",
];
/// `javascript1.2`, `ecmascript`, `x-scriptlet`, `server-parsed-html` and their like.
const ACTIVE_WITHIN: [&str; 3] = ["script", "html", "shockwave"];
const FILE_NAME_CHARS_MAX: usize = 120;
/// What stands in `filename*` as it is (RFC 8187, `attr-char`).
const ATTR_CHARS: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// The Content-Type with which bytes of a stored type are sent.
///
/// A comma makes two types of one header for browsers, and the last one counts; parameters with one, or with anything
/// else that is not plain, are left out.
pub(crate) fn sent_type(stored: &str) -> String {
    let (essence, parameters) = stored.split_once(';').unwrap_or((stored, ""));
    let essence = essence.trim().to_ascii_lowercase();
    if !is_plain(&essence) || is_active(&essence) {
        return OCTETS.to_owned();
    }
    let is_simple = |c: char| c.is_ascii_alphanumeric() || " ;=._+-/:".contains(c);
    match parameters.trim() {
        "" => essence,
        shown if parameters.chars().all(is_simple) => format!("{essence}; {shown}"),
        _ => essence,
    }
}

fn is_plain(essence: &str) -> bool {
    let is_token = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
    };
    essence.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
}

/// Whether browsers run something of this type, or parts of it.
fn is_active(essence: &str) -> bool {
    let (kind, subtype) = essence.split_once('/').unwrap_or_default();
    !TOP_LEVEL.contains(&kind)
        || subtype.split(['.', '+', '-', '_']).any(|part| ACTIVE_PARTS.contains(&part))
        || ACTIVE_WITHIN.iter().any(|word| subtype.contains(word))
}

/// The Content-Disposition (RFC 6266) of bytes that are sent as `sent_type`, under a name that somebody else chose.
pub(crate) fn disposition(sent_type: &str, name: &str) -> String {
    let essence = sent_type.split(';').next().unwrap_or_default();
    let is_shown = essence.starts_with("image/") || essence == "application/pdf";
    let way = if is_shown { "inline" } else { "attachment" };
    let name = file_name(name);
    let plain = |c: char| if c.is_ascii() && c != '%' { c } else { '_' };
    let fallback: String = name.chars().map(plain).collect();
    if fallback == name {
        return format!("{way}; filename=\"{name}\"");
    }
    format!("{way}; filename=\"{fallback}\"; filename*=UTF-8''{}", utf8_percent_encode(&name, ATTR_CHARS))
}

/// The name without what has a meaning in paths, in headers, or for the direction of text, which hides endings.
fn file_name(name: &str) -> String {
    let is_direction =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let safe = |c: char| {
        let is_special = c.is_control() || is_direction(c) || "/\\:*?\"<>|;\u{2028}\u{2029}".contains(c);
        if is_special { '_' } else { c }
    };
    let name: String = name.chars().take(FILE_NAME_CHARS_MAX).map(safe).collect();
    let name = name.trim_matches([' ', '.']);
    if name.is_empty() { "attachment".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_browser_runs_or_takes_apart_keeps_its_type() {
        for active in [
            "text/html",
            "TEXT/HTML; charset=utf-8",
            " text/html",
            "application/xhtml+xml",
            "image/svg+xml",
            "image/svg",
            "IMAGE/SVG+XML",
            "image/x-svg",
            "text/xml",
            "application/xml",
            "application/rss+xml",
            "application/mathml+xml",
            "application/xml-dtd",
            "application/vnd.mozilla.xul+xml",
            "text/xsl",
            "text/javascript",
            "application/javascript",
            "application/x-javascript",
            "text/javascript1.5",
            "text/ecmascript",
            "text/jscript",
            "text/livescript",
            "text/vbscript",
            "text/x-scriptlet",
            "text/x-component",
            "text/x-server-parsed-html",
            "text/css",
            "text/cache-manifest",
            "application/manifest+json",
            "application/wasm",
            "application/hta",
            "application/x-shockwave-flash",
            "application/java-archive",
            "application/x-java-applet",
            "application/x-xpinstall",
            "application/x-mimearchive",
            "application/http",
            "multipart/x-mixed-replace; boundary=x",
            "multipart/related",
            "Multipart/Mixed",
            "message/rfc822",
            "message/http",
            "model/x3d+xml",
            "x-unknown/thing",
            "chemical/x-pdb",
            // What somebody left at the centre.
            "",
            "html",
            "/",
            "image/",
            "image/png, text/html",
            "image/png\r\nX: y",
            "imäge/png",
        ] {
            assert_eq!(sent_type(active), OCTETS, "{active:?}");
        }
    }

    #[test]
    fn other_types_are_sent_as_they_are() {
        for (stored, sent) in [
            ("image/png", "image/png"),
            ("Image/PNG; x=1", "image/png; x=1"),
            ("application/pdf", "application/pdf"),
            ("application/dicom", "application/dicom"),
            ("application/json", "application/json"),
            ("text/plain; charset=UTF-8", "text/plain; charset=UTF-8"),
            ("text/csv", "text/csv"),
            ("video/mp4", "video/mp4"),
            ("application/vnd.oasis.opendocument.text", "application/vnd.oasis.opendocument.text"),
            (
                "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
                "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            ),
            // The last of two types would count.
            ("image/png; x=1, text/html", "image/png"),
            ("image/png;x=\"a,text/html\"", "image/png"),
            ("image/png;\r\nX: y", "image/png"),
        ] {
            assert_eq!(sent_type(stored), sent, "{stored:?}");
        }
    }

    #[test]
    fn only_pictures_and_pdf_are_shown() {
        for shown in ["image/png", "image/jpeg; x=1", "application/pdf"] {
            assert_eq!(disposition(shown, "d1"), "inline; filename=\"d1\"", "{shown}");
        }
        for saved in [OCTETS, "text/plain", "application/pdfx", "application/json", "video/mp4", "audio/ogg"]
        {
            assert_eq!(disposition(saved, "d1"), "attachment; filename=\"d1\"", "{saved}");
        }
    }

    #[test]
    fn names_are_encoded_and_lead_nowhere() {
        for (name, header) in [
            ("Röntgen Knie.png", "filename=\"R_ntgen Knie.png\"; filename*=UTF-8''R%C3%B6ntgen%20Knie.png"),
            ("100%.txt", "filename=\"100_.txt\"; filename*=UTF-8''100%25.txt"),
            ("胸部", "filename=\"__\"; filename*=UTF-8''%E8%83%B8%E9%83%A8"),
            ("a\"; filename=\"evil.exe", "filename=\"a__ filename=_evil.exe\""),
            ("a\r\nSet-Cookie: x=y", "filename=\"a__Set-Cookie_ x=y\""),
            ("../../etc/passwd", "filename=\"_.._etc_passwd\""),
            ("C:\\x\\y", "filename=\"C__x_y\""),
            ("photo\u{202e}gnp.exe", "filename=\"photo_gnp.exe\""),
            (".htaccess", "filename=\"htaccess\""),
            (" .. ", "filename=\"attachment\""),
            ("", "filename=\"attachment\""),
        ] {
            assert_eq!(disposition(OCTETS, name), format!("attachment; {header}"), "{name:?}");
        }
        assert!(disposition(OCTETS, &"ñ".repeat(5000)).len() < 1000);
    }
}
