//! Floor 0. Lines that PostgreSQL's `COPY ... TO STDOUT` writes in its text format, and `psql -At`.

use super::Cell;

/// The line after which nothing follows.
pub const END: &[u8] = b"\\.";

/// The cells of a line of COPY's text format. Its line end is not part of it.
pub fn cells(line: &[u8]) -> Result<Vec<Cell>, &'static str> {
    line.split(|byte| *byte == b'\t').map(cell).collect()
}

fn cell(text: &[u8]) -> Result<Cell, &'static str> {
    match unescaped(text) {
        None => Ok(Cell::Null),
        Some(text) => String::from_utf8(text).map(Cell::Text).map_err(|_| "this is not UTF-8"),
    }
}

/// What an escaped cell stands for; `None` is NULL. A backslash before any other character stands for that character, and
/// one at the end for itself.
pub fn unescaped(text: &[u8]) -> Option<Vec<u8>> {
    if text == b"\\N" {
        return None;
    }
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text);
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        let Some((next, after)) = after.split_first() else {
            out.push(b'\\');
            break;
        };
        rest = after;
        match next {
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(11),
            b'0'..=b'7' => rest = number(&mut out, *next, after, 8, 3),
            b'x' if after.first().is_some_and(u8::is_ascii_hexdigit) => {
                rest = number(&mut out, b'0', after, 16, 3)
            }
            other => out.push(*other),
        }
    }
    Some(out)
}

/// Adds the byte of a number of at most `digits` digits, of which the first has been read.
fn number<'a>(out: &mut Vec<u8>, first: u8, rest: &'a [u8], radix: u32, digits: usize) -> &'a [u8] {
    let of = |byte: &u8| char::from(*byte).to_digit(radix);
    let more = rest.iter().take(digits - 1).take_while(|byte| of(byte).is_some()).count();
    let (number, rest) = rest.split_at(more);
    let value =
        number.iter().fold(of(&first).unwrap_or(0), |value, byte| value * radix + of(byte).unwrap_or(0));
    // As PostgreSQL does it.
    out.push((value & 0xFF) as u8);
    rest
}

/// The cells of a line of `psql -At`, which escapes nothing: of the JSON in it nothing is taken for a delimiter. What is
/// empty is NULL.
pub fn unaligned_cells(line: &[u8], delimiter: u8) -> Result<Vec<Cell>, &'static str> {
    let (mut cells, mut at) = (Vec::new(), 0);
    loop {
        let rest = line.get(at..).unwrap_or_default();
        let end = match rest.first() {
            Some(b'{') => end_of_object(rest),
            _ => rest.iter().position(|byte| *byte == delimiter).unwrap_or(rest.len()),
        };
        let text = rest.get(..end).unwrap_or_default();
        cells.push(match text {
            [] => Cell::Null,
            text => Cell::Text(std::str::from_utf8(text).map_err(|_| "this is not UTF-8")?.to_owned()),
        });
        at += end;
        match line.get(at) {
            None => return Ok(cells),
            Some(byte) if *byte == delimiter => at += 1,
            Some(_) => return Err("something follows the document"),
        }
    }
}

/// How long the JSON object is with which a text begins; all of it, if it does not end.
pub fn end_of_object(text: &[u8]) -> usize {
    let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_what_postgresql_says() {
        for (text, expected) in [
            ("", ""),
            ("a\\tb\\nc\\rd\\\\e", "a\tb\nc\rd\\e"),
            ("\\b\\f\\v", "\u{8}\u{c}\u{b}"),
            ("\\101\\x42\\x4g\\x", "AB\u{4}gx"),
            ("\\q\\\"\\", "q\"\\"),
            ("\\\\N", "\\N"),
            (r#"{"a": "x\\ny", "b": "\\"\\\\"}"#, r#"{"a": "x\ny", "b": "\"\\"}"#),
        ] {
            assert_eq!(unescaped(text.as_bytes()), Some(expected.as_bytes().to_vec()), "{text}");
        }
        assert_eq!(unescaped(b"\\N"), None);
        let row = cells(b"A\t\\N\t\t{}").unwrap();
        assert_eq!(
            row,
            [Cell::Text("A".into()), Cell::Null, Cell::Text(String::new()), Cell::Text("{}".into())]
        );
        assert!(cells(b"\\377").is_err(), "that is no UTF-8");
    }

    #[test]
    fn delimiters_within_json_are_none() {
        let text = |text: &str| Cell::Text(text.to_owned());
        for (line, expected) in [
            ("A|{\"a\": \"|\\\"}|\"}|", Ok(vec![text("A"), text("{\"a\": \"|\\\"}|\"}"), Cell::Null])),
            ("{}", Ok(vec![text("{}")])),
            ("A||{}", Ok(vec![text("A"), Cell::Null, text("{}")])),
            ("A|{} x", Err("something follows the document")),
            ("A|{\"a\": 1", Ok(vec![text("A"), text("{\"a\": 1")])),
        ] {
            assert_eq!(unaligned_cells(line.as_bytes(), b'|'), expected, "{line}");
        }
    }
}
