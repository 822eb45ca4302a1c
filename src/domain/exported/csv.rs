//! Floor 0. Records of CSV as PostgreSQL writes them (RFC 4180).

use super::Cell;

/// Whether a line opens or closes a cell in quotation marks. A record is complete if an even number of its lines do.
pub fn has_odd_quotes(line: &[u8]) -> bool {
    line.iter().filter(|byte| **byte == b'"').count() % 2 == 1
}

/// What stands for NULL, not in quotation marks: nothing as PostgreSQL writes it, `\N` as with `NULL '\N'`, and the word that
/// other programs write. Nobody and nothing is called so.
fn is_null(text: &[u8]) -> bool {
    text.is_empty() || text == b"\\N" || text.eq_ignore_ascii_case(b"null")
}

/// The cells of a record without its line end. What stands for NULL and is not in quotation marks is NULL.
pub fn cells(record: &[u8], delimiter: u8) -> Result<Vec<Cell>, &'static str> {
    let (mut cells, mut rest) = (Vec::new(), record);
    loop {
        let end = if rest.first() == Some(&b'"') {
            let (text, end) = quoted(rest).ok_or("a cell in quotation marks does not end")?;
            cells.push(text_of(text)?);
            end
        } else {
            let end = rest.iter().position(|byte| *byte == delimiter).unwrap_or(rest.len());
            let text = rest.get(..end).unwrap_or_default();
            if text.contains(&b'"') {
                return Err("a quotation mark within a cell that does not begin with one");
            }
            cells.push(if is_null(text) { Cell::Null } else { text_of(text.to_vec())? });
            end
        };
        rest = match rest.get(end..) {
            None | Some([]) => return Ok(cells),
            Some([byte, after @ ..]) if *byte == delimiter => after,
            Some(_) => return Err("something follows a cell in quotation marks"),
        };
    }
}

fn text_of(text: Vec<u8>) -> Result<Cell, &'static str> {
    String::from_utf8(text).map(Cell::Text).map_err(|_| "this is not UTF-8")
}

/// The text of a cell in quotation marks, and how long the cell is.
fn quoted(cell: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut text, mut at) = (Vec::new(), 1);
    loop {
        match (cell.get(at)?, cell.get(at + 1)) {
            (b'"', Some(b'"')) => {
                text.push(b'"');
                at += 2;
            }
            (b'"', _) => return Some((text, at + 1)),
            (byte, _) => {
                text.push(*byte);
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_taken_apart() {
        let text = |text: &str| Cell::Text(text.to_owned());
        for (record, expected) in [
            ("", Ok(vec![Cell::Null])),
            ("a,\"\",,b", Ok(vec![text("a"), text(""), Cell::Null, text("b")])),
            ("\"{\"\"a\"\": \"\"x,\ny\"\"}\",b", Ok(vec![text("{\"a\": \"x,\ny\"}"), text("b")])),
            ("a,", Ok(vec![text("a"), Cell::Null])),
            (
                "\\N,NULL,null,\"null\",\"\\N\"",
                Ok(vec![Cell::Null, Cell::Null, Cell::Null, text("null"), text("\\N")]),
            ),
            ("a,\"b", Err("a cell in quotation marks does not end")),
            ("\"a\"b", Err("something follows a cell in quotation marks")),
            ("a\"b\"", Err("a quotation mark within a cell that does not begin with one")),
        ] {
            assert_eq!(cells(record.as_bytes(), b','), expected, "{record}");
        }
        assert_eq!(cells(b"a;b,c", b';').unwrap(), [text("a"), text("b,c")]);
        assert!(cells(b"\xFF", b',').is_err());
        assert!(!has_odd_quotes(b"a,\"b\"\"\"") && has_odd_quotes(b"a,\"b\n"));
    }
}
