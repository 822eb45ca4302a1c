//! Lines of files as examples: where rows begin and end, and what is wrong with them.

use super::*;

/// What is found in CSV with records of at most so many bytes: lines of rows, or faults.
fn csv_rows(text: &str, bytes_max: usize) -> Vec<String> {
    let mut rows = TableRows::new(text.as_bytes(), Kind::Page, Layout::Csv(b','), None);
    rows.lines.bytes_max = bytes_max;
    let shown = |found: Found| match found {
        Ok(Raw::Row { place, .. }) => place.line.to_string(),
        Ok(Raw::Json(_)) => "JSON".to_owned(),
        Err(wrong) => format!("{}: {}", wrong.place.line, wrong.message),
    };
    rows.map(|found| shown(found.unwrap())).collect()
}

#[test]
fn an_open_quotation_mark_ends_the_file_and_is_named() {
    // The record has one byte more than it may, and a line ends there.
    for bytes_max in 11..40 {
        let found = csv_rows("data\n\"{a\n{b\n{c\n{d\n{e\n{f\n{g\n{h\n{i\n{j\n{k\n{l\n{m\n", bytes_max);
        let [fault] = found.as_slice() else { panic!("{bytes_max}: {found:?}") };
        assert!(
            fault.contains("2: a cell in quotation marks is too long: everything from line 2"),
            "{fault}"
        );
    }
    let found = csv_rows("data\n\"{a\n{b\n", 40);
    assert!(found[0].contains("the file ends within a cell in quotation marks: everything from line 2"));
    let found = csv_rows("data\n\"{}\"\n\"{\n\"x\n\"{}\"\n", 40);
    assert_eq!(found[0], "2");
    assert!(found[1].starts_with("3: ") && found[1].ends_with("goes on to line 4"), "{found:?}");
    assert_eq!(found[2], "5");
}

/// Counting all of a record again at each of its lines takes minutes here.
#[test]
fn a_long_cell_is_read_once() {
    let text = format!("data\n\"{{{}", "x\n".repeat(1 << 20));
    let begin = std::time::Instant::now();
    assert_eq!(csv_rows(&text, TEXT_BYTES_MAX).len(), 1);
    assert!(begin.elapsed().as_secs() < 30, "{:?}", begin.elapsed());
}
