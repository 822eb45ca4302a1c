//! Floor 0. In which line of a JSON text a value stands.

/// A step into a JSON value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step<'a> {
    /// An item of a list, from 0.
    Item(usize),
    Key(&'a str),
}

/// The line, from 1, in which the value at the end of the path begins; that of the last step that there is. The text
/// must be JSON.
pub(crate) fn line_of(text: &str, path: &[Step<'_>]) -> usize {
    let mut cursor = Cursor { bytes: text.as_bytes(), at: 0 };
    for step in path {
        cursor.blank();
        let Some(at) = cursor.inside(*step) else {
            break;
        };
        cursor.at = at;
    }
    cursor.blank();
    1 + cursor.bytes.iter().take(cursor.at).filter(|byte| **byte == b'\n').count()
}

#[derive(Clone, Copy)]
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn here(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn blank(&mut self) {
        while self.here().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// Goes on if this byte stands here.
    fn take(&mut self, byte: u8) -> Option<()> {
        self.blank();
        (self.here() == Some(byte)).then(|| self.at += 1)
    }

    /// Where the value begins to which a step leads. Of a key that stands twice the last one counts.
    fn inside(mut self, step: Step<'_>) -> Option<usize> {
        match step {
            Step::Item(number) => {
                self.take(b'[')?;
                for _ in 0..number {
                    self.value();
                    self.take(b',')?;
                }
                self.blank();
                Some(self.at)
            }
            Step::Key(wanted) => {
                self.take(b'{')?;
                let mut found = None;
                loop {
                    self.blank();
                    let start = self.at;
                    self.value();
                    let name =
                        self.bytes.get(start..self.at).and_then(|name| serde_json::from_slice(name).ok());
                    self.take(b':')?;
                    self.blank();
                    if name.is_some_and(|name: String| name == wanted) {
                        found = Some(self.at);
                    }
                    self.value();
                    if self.take(b',').is_none() {
                        return found;
                    }
                }
            }
        }
    }

    /// Passes over a value.
    fn value(&mut self) {
        self.blank();
        let mut depth = 0_usize;
        while let Some(byte) = self.here() {
            match byte {
                b'"' => self.string(),
                b'[' | b'{' => (depth, self.at) = (depth + 1, self.at + 1),
                b']' | b'}' if depth == 0 => return,
                b']' | b'}' => (depth, self.at) = (depth - 1, self.at + 1),
                b',' | b':' if depth == 0 => return,
                _ => self.at += 1,
            }
        }
    }

    fn string(&mut self) {
        self.at += 1;
        while let Some(byte) = self.here() {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_path() {
        use Step::{Item, Key};
        let text =
            "[\n {\"a, [\\\"\": 1,\n  \"b\":\n {\"c\": [1,\n [2, {}],\n 3]}},\n {\"b\": 1, \"b\":\n 2}]\n";
        for (path, line) in [
            (vec![], 1),
            (vec![Item(0)], 2),
            (vec![Item(0), Key("a, [\"")], 2),
            (vec![Item(0), Key("b")], 4),
            (vec![Item(0), Key("b"), Key("c")], 4),
            (vec![Item(0), Key("b"), Key("c"), Item(1)], 5),
            (vec![Item(0), Key("b"), Key("c"), Item(2)], 6),
            (vec![Item(1)], 7),
            (vec![Item(1), Key("b")], 8),
            (vec![Item(1), Key("absent")], 7),
            (vec![Item(9)], 1),
        ] {
            assert_eq!(line_of(text, &path), line, "{path:?}");
        }
        for odd in ["", "[", "{\"", "[{\"a\":"] {
            line_of(odd, &[Item(0), Key("a"), Item(1)]);
        }
    }
}
