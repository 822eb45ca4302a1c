//! Rust source as the checks read it: without comments, texts and the items of tests.

/// The text without comments and without what stands in strings and character literals.
pub(crate) fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let (mut code, mut i) = (String::new(), 0);
    while i < chars.len() {
        match (at(i), at(i + 1)) {
            ('/', '/') => i = end_of_line(&chars, i),
            ('/', '*') => i = end_of_block(&chars, i),
            ('r', '"' | '#') if !is_word(before(&chars, i)) || before(&chars, i) == 'b' => {
                match end_of_raw_string(&chars, i) {
                    Some(end) => i = end,
                    // A raw identifier: r#type.
                    None => {
                        code.push('r');
                        i += 1;
                    }
                }
            }
            ('"', _) => i = end_of_string(&chars, i),
            // 'x' or '\x': a character; anything else with this mark is a lifetime.
            ('\'', '\\') => i = (i + 3..chars.len()).find(|&j| at(j) == '\'').map_or(chars.len(), |j| j + 1),
            ('\'', _) if at(i + 2) == '\'' => i += 3,
            (c, _) => {
                code.push(c);
                i += 1;
            }
        }
    }
    code
}

fn before(chars: &[char], i: usize) -> char {
    i.checked_sub(1).map_or(' ', |j| chars[j])
}

pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn end_of_line(chars: &[char], start: usize) -> usize {
    (start..chars.len()).find(|&j| chars[j] == '\n').unwrap_or(chars.len())
}

/// Block comments nest.
fn end_of_block(chars: &[char], start: usize) -> usize {
    let (mut depth, mut i) = (0, start);
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    i
}

fn end_of_string(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

fn end_of_raw_string(chars: &[char], start: usize) -> Option<usize> {
    let hashes = chars[start + 1..].iter().take_while(|&&c| c == '#').count();
    let open = start + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let closes = |j: &usize| {
        chars[*j] == '"' && chars[*j + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes
    };
    Some((open + 1..chars.len()).find(closes).map_or(chars.len(), |j| j + 1 + hashes))
}

/// Code without the items that only tests have: to the end of the block, or of the line that ends before one.
pub(crate) fn without_tests(code: &str) -> String {
    const TEST_ITEMS: [&str; 2] = ["#[cfg(test", "#[cfg(all(test"];
    let mut shipped = String::new();
    let mut rest = code;
    while let Some(start) = TEST_ITEMS.iter().filter_map(|mark| rest.find(mark)).min() {
        shipped += &rest[..start];
        let mut depth = 0_usize;
        let end = rest[start..].find(|sign| {
            match sign {
                '{' | '(' | '[' => depth += 1,
                '}' | ')' | ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && (sign == ';' || sign == '}')
        });
        rest = end.and_then(|end| rest.get(start + end + 1..)).unwrap_or_default();
    }
    shipped + rest
}

#[test]
fn only_tests_are_left_out() {
    let code = "a; #[cfg(test)] use b; c; #[cfg(test)] mod d { fn e() { f; } } g; #[cfg(test)] mod h; i";
    assert_eq!(without_tests(code), "a;  c;  g;  i");
    let code = "a; #[cfg(all(test, feature = ))] fn b(c: [u8; 4]) -> [u8; 4] { c } d #[cfg(testing)] ; e";
    assert_eq!(without_tests(code), "a;  d  e");
    assert_eq!(
        without_tests("a; #[cfg(not(test))] b; #[cfg(any(unix, test))] c;"),
        "a; #[cfg(not(test))] b; #[cfg(any(unix, test))] c;"
    );
}
