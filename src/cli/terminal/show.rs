//! Floor 5. Answers as text for people. What came from elsewhere cannot move the terminal's cursor.

use serde_json::Value;

use crate::domain::folding::is_invisible;

/// The text with control characters, changes of direction, other ends of lines and what nobody would see spelled out.
pub(crate) fn plain(text: &str) -> String {
    // Persian and Indic scripts need the joiners.
    let is_joiner = |c: char| matches!(c, '\u{200C}' | '\u{200D}');
    let is_end_of_line = |c: char| matches!(c, '\u{2028}' | '\u{2029}');
    let is_harmful =
        |c: char| (c.is_control() && c != '\n') || is_end_of_line(c) || (is_invisible(c) && !is_joiner(c));
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if is_harmful(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
        out
    })
}

/// What to do about a message of the system that something is not permitted, unless it says so itself.
pub(crate) fn denied_advice(message: &str) -> Option<&'static str> {
    const ADVICE: &str = "run this as root or as the user that runs the node (sudo -u thalamus-edge ...)";
    let says_so = message.contains("as root") || message.contains("for root");
    let is_denied = message.contains("Permission denied") || message.contains("Operation not permitted");
    (is_denied && !says_so).then_some(ADVICE)
}

/// A JSON value in a cell: text as it is, nothing for null, the rest as JSON.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => plain(text).replace('\n', " "),
        Value::Array(values) if values.iter().all(Value::is_string) => {
            values.iter().map(cell).collect::<Vec<_>>().join(", ")
        }
        other => plain(&other.to_string()),
    }
}

/// Characters of a cell that are shown: names of fields and ids may be as long as records, and a longer one would move all others out
/// of sight.
const CELL_CHARS_MAX: usize = 200;

fn cut(cell: &str) -> String {
    match cell.char_indices().nth(CELL_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &cell[..end]),
        None => cell.to_owned(),
    }
}

/// Rows under a heading, in columns.
pub(crate) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let heading = heading.map(str::to_owned);
    let rows: Vec<[String; N]> = rows.iter().map(|row| std::array::from_fn(|at| cut(&row[at]))).collect();
    let all = || std::iter::once(&heading).chain(&rows);
    let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    all().map(line).collect::<Vec<_>>().join("\n")
}

/// Names and what is known under them, one a line; without a line for what is empty.
pub(crate) fn facts(facts: &[(&str, String)]) -> String {
    let shown: Vec<_> = facts.iter().filter(|(_, value)| !value.is_empty()).collect();
    let width = shown.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let lines = shown.iter().map(|(name, value)| format!("{name:<width$}  {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_moves_the_cursor() {
        assert_eq!(plain("Núñez \u{1b}[2J\u{202e}x"), "Núñez \\u{1b}[2J\\u{202e}x");
        assert_eq!(cell(&json!("a\nb\tc")), "a b\\u{9}c");
        assert_eq!(cell(&json!({"a": "\u{7f}"})), "{\"a\":\"\\u{7f}\"}");
    }

    #[test]
    fn long_cells_are_cut() {
        let rows = [["x".repeat(70_000), "1".to_owned()], ["é".repeat(200), "2".to_owned()]];
        let shown = table(["ID", "N"], &rows);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[1], format!("{}…  1", "x".repeat(200)));
        assert_eq!(lines[2], format!("{}   2", "é".repeat(200)));
    }

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let rows = [["Ñandú".to_owned(), "1".to_owned()], ["x".to_owned(), String::new()]];
        assert_eq!(table(["ID", "N"], &rows), "ID     N\nÑandú  1\nx");
        assert_eq!(
            facts(&[("state", "idle".into()), ("message", String::new()), ("n", "1".into())]),
            "state  idle\nn      1"
        );
    }
}
