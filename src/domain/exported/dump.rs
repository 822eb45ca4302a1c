//! Floor 0. What the lines of a dump in SQL are, as `pg_dump` writes it: where the rows of a table begin and end, and
//! whether the dump is all there.
//!
//! A line that reads like a command is one only outside of comments, of texts in quotation marks and of the bodies of
//! functions. Between `COPY` and its mark of the end, every line is a row.
//!
//! A file may hold several databases one behind the other: `pg_dumpall` and `pg_dump -C` say with `\connect` where the next
//! one begins, and two dumps that were put together each have a head.

use super::copy;

/// Begins the line before the rows of a table.
const COPY: &str = "COPY ";
/// Ends it.
const FROM_STDIN: &str = " FROM stdin;";
const INSERT: &str = "INSERT INTO ";
/// Commands of psql behind which what follows is of another database.
const CONNECT: [&[u8]; 2] = [b"\\connect", b"\\c"];
/// How a dump of one database begins, and how it ends.
const HEAD: &[u8] = b"-- PostgreSQL database dump";
const TAIL: &[u8] = b"-- PostgreSQL database dump complete";
/// The same of all databases of a server.
const HEAD_OF_ALL: &[u8] = b"-- PostgreSQL database cluster dump";
const TAIL_OF_ALL: &[u8] = b"-- PostgreSQL database cluster dump complete";
/// What Windows puts before a text.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// What a line of a dump is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DumpLine {
    /// Before the first row of a table, and its columns if the line names them.
    Begin {
        table: String,
        columns: Option<Vec<String>>,
    },
    Row,
    /// The mark behind the last row.
    End,
    /// Rows in a form that is not read, and why.
    Unread(&'static str),
    Other,
}

/// Where the end of a line leaves a reader of SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Within {
    /// Commands; whether one has begun.
    Commands {
        has_begun: bool,
    },
    /// A text in single quotation marks, with backslashes that escape or without.
    Text {
        has_escapes: bool,
    },
    /// A name in double quotation marks.
    Name,
    /// Comments, so many within each other.
    Comment(usize),
    /// A text between two marks such as `$_$`: the body of a function.
    Body(Vec<u8>),
    Rows,
}

/// Follows the lines of a dump, from the first to the last.
#[derive(Debug)]
pub struct DumpReader {
    within: Within,
    /// A head was met whose end was not.
    is_open: bool,
    /// As `is_open`, of all databases together.
    is_all_open: bool,
    /// Another dump begins before the one before has ended.
    is_one_cut_off: bool,
    /// A line was met that can be of a dump.
    is_begun: bool,
    /// The database that the lines are of; empty before the first `\connect`.
    database: String,
    /// How many heads were met.
    heads: usize,
}

impl Default for DumpReader {
    fn default() -> DumpReader {
        DumpReader {
            within: START,
            is_open: false,
            is_all_open: false,
            is_one_cut_off: false,
            is_begun: false,
            database: String::new(),
            heads: 0,
        }
    }
}

const START: Within = Within::Commands { has_begun: false };

impl DumpReader {
    /// The next line, without its end.
    pub fn line(&mut self, line: &[u8]) -> DumpLine {
        if self.within == Within::Rows {
            if line != copy::END {
                return DumpLine::Row;
            }
            self.within = START;
            return DumpLine::End;
        }
        let line = line.strip_prefix(MARK).unwrap_or(line);
        if !self.is_begun && [HEAD, HEAD_OF_ALL].contains(&line.trim_ascii_end()) {
            // What stood before it is what a program has said on the way.
            (self.is_begun, self.within) = (true, START);
        }
        if self.within == START {
            let line = line.trim_ascii_end();
            match line {
                HEAD => {
                    self.is_one_cut_off |= self.is_open;
                    self.is_open = true;
                    self.heads += 1;
                }
                TAIL => self.is_open = false,
                HEAD_OF_ALL => {
                    self.is_one_cut_off |= self.is_all_open;
                    self.is_all_open = true;
                }
                TAIL_OF_ALL => self.is_all_open = false,
                // A command to psql.
                [b'\\', ..] => {
                    if let Some(database) = connected(line) {
                        self.database = database;
                    }
                    return DumpLine::Other;
                }
                _ => {}
            }
            if let Some((table, columns)) = copied_table(line) {
                self.is_begun = true;
                self.within = Within::Rows;
                return DumpLine::Begin { table, columns };
            }
            if begins_with(line, COPY) {
                self.pass(line);
                return DumpLine::Unread(
                    "rows of this COPY are not read: only `COPY TABLE (COLUMNS) FROM stdin;` in one line is, as pg_dump \
                     writes it",
                );
            }
            if begins_with(line, INSERT) {
                self.pass(line);
                return DumpLine::Unread("rows as INSERT are not read: run pg_dump without --inserts");
            }
        }
        self.pass(line);
        DumpLine::Other
    }

    /// The database that the lines are of; empty before the first `\connect`.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Which of several dumps in one file this is.
    pub fn number(&self) -> usize {
        self.heads
    }

    /// Why the dump is not all there, once its last line was read; `None` if it is, or does not say.
    pub fn cut_off(&self) -> Option<&'static str> {
        match self.within {
            Within::Rows => Some("the dump ends within the rows of a table: it was cut off"),
            _ if self.is_one_cut_off => Some(
                "another dump begins in it before the one before has ended: that one was cut off, and tables or rows may be \
                 missing",
            ),
            _ if self.is_all_open && !self.is_open => Some(
                "the dump has no `-- PostgreSQL database cluster dump complete` at its end: it was cut off, and databases may \
                 be missing",
            ),
            _ if self.is_open => Some(
                "the dump has no `-- PostgreSQL database dump complete` at its end: it was cut off, and tables or rows may \
                 be missing",
            ),
            _ => None,
        }
    }

    /// Follows quotation marks and comments through a line.
    fn pass(&mut self, line: &[u8]) {
        let mut at = 0;
        while let Some(byte) = line.get(at) {
            let rest = line.get(at..).unwrap_or_default();
            at += match &mut self.within {
                Within::Commands { has_begun } => match byte {
                    b'-' if rest.starts_with(b"--") => return,
                    b'/' if rest.starts_with(b"/*") => {
                        // A command that has begun goes on behind it, and a comment in one is rare: what follows counts as
                        // its rest either way once a sign does.
                        self.within = Within::Comment(1);
                        2
                    }
                    b'\'' => {
                        let has_escapes = is_escape_mark(line.get(..at).unwrap_or_default());
                        self.within = Within::Text { has_escapes };
                        1
                    }
                    b'"' => {
                        self.within = Within::Name;
                        1
                    }
                    b'$' => {
                        match body_mark(rest).filter(|_| !ends_in_word(line.get(..at).unwrap_or_default())) {
                            Some(mark) => {
                                let length = mark.len();
                                self.within = Within::Body(mark.to_vec());
                                length
                            }
                            None => 1,
                        }
                    }
                    b';' => {
                        *has_begun = false;
                        1
                    }
                    byte => {
                        *has_begun |= !byte.is_ascii_whitespace();
                        1
                    }
                },
                Within::Text { has_escapes: true } if *byte == b'\\' => 2,
                Within::Text { .. } if *byte == b'\'' => {
                    if rest.starts_with(b"''") {
                        2
                    } else {
                        self.within = Within::Commands { has_begun: true };
                        1
                    }
                }
                Within::Name if *byte == b'"' => {
                    self.within = Within::Commands { has_begun: true };
                    1
                }
                Within::Comment(depth) if rest.starts_with(b"*/") => {
                    *depth -= 1;
                    if *depth == 0 {
                        self.within = START;
                    }
                    2
                }
                Within::Comment(depth) if rest.starts_with(b"/*") => {
                    *depth += 1;
                    2
                }
                Within::Body(mark) if rest.starts_with(mark.as_slice()) => {
                    let length = mark.len();
                    self.within = Within::Commands { has_begun: true };
                    length
                }
                Within::Text { .. } | Within::Name | Within::Comment(_) | Within::Body(_) | Within::Rows => 1,
            };
        }
    }
}

/// Whether a text that opens behind this has backslashes that escape: `E'...'`.
fn is_escape_mark(before: &[u8]) -> bool {
    match before {
        [rest @ .., b'e' | b'E'] => !ends_in_word(rest),
        _ => false,
    }
}

fn ends_in_word(before: &[u8]) -> bool {
    before.last().is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 0x80)
}

/// The mark with which the body of a function begins and ends: `$$`, `$_$`, `$body$`.
fn body_mark(text: &[u8]) -> Option<&[u8]> {
    let end = 1 + text.get(1..)?.iter().position(|byte| *byte == b'$')?;
    let name = text.get(1..end)?;
    let is_name = name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 0x80);
    (is_name && !name.first().is_some_and(u8::is_ascii_digit)).then(|| text.get(..=end)).flatten()
}

/// The database that a command to psql changes to: `\connect NAME`, `\c "a name" user`, `\connect -reuse-previous=on
/// "dbname='a name'"`. Nothing if it is another command, or stays in the database.
fn connected(line: &[u8]) -> Option<String> {
    let blank = |byte: &u8| byte.is_ascii_whitespace();
    let end = line.iter().position(blank).unwrap_or(line.len());
    let (command, rest) = line.split_at_checked(end)?;
    if !CONNECT.contains(&command) {
        return None;
    }
    let mut rest = String::from_utf8_lossy(rest).trim().to_owned();
    if rest.starts_with("-reuse-previous") {
        rest = rest.split_once(char::is_whitespace)?.1.trim_start().to_owned();
    }
    let named = match rest.strip_prefix(['"', '\'']) {
        Some(quoted) => {
            let mark = rest.chars().next()?;
            quoted.rsplit_once(mark).map_or(quoted, |(name, _)| name)
        }
        None => rest.split(char::is_whitespace).next().unwrap_or_default(),
    };
    let name = match named.split_once("dbname=") {
        Some((_, name)) => {
            name.strip_prefix('\'').and_then(|name| name.rsplit_once('\'')).map_or(name, |(name, _)| name)
        }
        None => named,
    };
    (!name.is_empty() && name != "-").then(|| name.to_owned())
}

fn begins_with(line: &[u8], mark: &str) -> bool {
    line.get(..mark.len()).is_some_and(|start| start.eq_ignore_ascii_case(mark.as_bytes()))
}

/// The table whose rows follow a line of a dump, and its columns if the line names them.
fn copied_table(line: &[u8]) -> Option<(String, Option<Vec<String>>)> {
    let text = std::str::from_utf8(line).ok()?.trim_end();
    let name = |text: &str| text.trim().replace('"', "");
    let rest = text.get(COPY.len()..).filter(|_| begins_with(line, COPY))?;
    let before = rest.len().checked_sub(FROM_STDIN.len())?;
    let end = rest.get(before..)?;
    if !end.eq_ignore_ascii_case(FROM_STDIN) {
        return None;
    }
    let said = rest.get(..before)?.trim();
    match said.split_once('(') {
        None => (!said.contains(char::is_whitespace)).then(|| (name(said), None)),
        Some((table, names)) => {
            let names = names.strip_suffix(')')?.split(',').map(name).collect();
            Some((name(table), Some(names)))
        }
    }
}

/// The schema and the name of a table as a dump names it: `public.people`.
pub fn schema_and_name(table: &str) -> (&str, &str) {
    table.rsplit_once('.').unwrap_or(("", table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_dumps_name_their_table() {
        let table = |line: &str| copied_table(line.as_bytes());
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let found = table("COPY public.pols (id, book, data) FROM stdin;");
        assert_eq!(found, Some(("public.pols".to_owned(), Some(names(&["id", "book", "data"])))));
        assert_eq!(
            table("COPY \"people\" (\"id\") FROM stdin;"),
            Some(("people".to_owned(), Some(names(&["id"]))))
        );
        assert_eq!(table("copy people from STDIN;\r"), Some(("people".to_owned(), None)));
        for other in [
            "COPY people (id) TO stdout;",
            "COPY people (id, FROM stdin;",
            "COPY people FROM stdin WITH (FORMAT csv);",
            "COPY people FROM 'x';",
            "COPY",
        ] {
            assert_eq!(table(other), None, "{other}");
        }
    }

    #[test]
    fn a_dump_that_was_cut_off_is_told_of_whatever_stands_before_it() {
        let (head, tail) = ("-- PostgreSQL database dump\n", "-- PostgreSQL database dump complete\n");
        let rows = "COPY people (id) FROM stdin;\nA\n\\.\n";
        let all = "-- PostgreSQL database cluster dump\n";
        for (text, is_whole) in [
            (format!("{head}{rows}{tail}"), true),
            (format!("{head}{rows}"), false),
            (format!("\u{feff}{head}{rows}{tail}"), true),
            (format!("\u{feff}{head}{rows}"), false),
            (format!("could not change directory to \"/root\": it's closed\n{head}{rows}{tail}"), true),
            (format!("could not change directory to \"/root\": it's closed\n{head}{rows}"), false),
            (format!("{head}{rows}{head}{rows}{tail}"), false),
            (format!("{head}{rows}{tail}{head}{rows}{tail}"), true),
            (format!("{all}{head}{rows}{tail}"), false),
            (format!("{all}{head}{rows}{tail}-- PostgreSQL database cluster dump complete\n"), true),
            (format!("\u{feff}{rows}"), true),
        ] {
            let mut reader = DumpReader::default();
            let lines: Vec<_> = text.lines().map(|line| reader.line(line.as_bytes())).collect();
            assert!(lines.contains(&DumpLine::Row), "{text}");
            assert_eq!(reader.cut_off().is_none(), is_whole, "{text}");
        }
    }

    #[test]
    fn the_database_of_each_line_is_known() {
        for (line, database) in [
            ("\\connect clinic", Some("clinic")),
            ("\\c clinic", Some("clinic")),
            ("\\c clinic postgres /tmp 5432", Some("clinic")),
            ("\\connect \"Clinic A\"", Some("Clinic A")),
            ("\\connect 'clinic'", Some("clinic")),
            ("\\connect -reuse-previous=on \"dbname='a test'\"", Some("a test")),
            ("\\connect -reuse-previous=on \"dbname=clinic\"", Some("clinic")),
            ("\\connect - postgres", None),
            ("\\connect", None),
            ("\\copy people from x", None),
            ("\\conninfo", None),
            ("\\restrict clinic", None),
        ] {
            assert_eq!(connected(line.as_bytes()).as_deref(), database, "{line}");
        }
        let mut reader = DumpReader::default();
        let mut found = Vec::new();
        let text = "COPY a FROM stdin;\n\\connect row\n\\.\n/*\n\\connect comment\n*/\n\\connect b\nCOPY a FROM stdin;\n\\.\n\
                    \\c c\nCOPY a FROM stdin;\n\\.\n";
        for line in text.lines() {
            if let DumpLine::Begin { .. } = reader.line(line.as_bytes()) {
                found.push(reader.database().to_owned());
            }
        }
        assert_eq!(found, ["", "b", "c"]);
    }

    /// The lines that count as rows, and the tables that begin.
    fn read(text: &str) -> (Vec<&str>, Vec<String>, Option<&'static str>) {
        let mut reader = DumpReader::default();
        let (mut rows, mut tables) = (Vec::new(), Vec::new());
        for line in text.lines() {
            match reader.line(line.as_bytes()) {
                DumpLine::Row => rows.push(line),
                DumpLine::Begin { table, .. } => tables.push(table),
                DumpLine::Unread(_) => tables.push(format!("unread: {line}")),
                DumpLine::End | DumpLine::Other => {}
            }
        }
        (rows, tables, reader.cut_off())
    }

    #[test]
    fn what_reads_like_copy_within_texts_and_comments_is_none() {
        const FAKE: &str =
            "COPY public.people (id, data) FROM stdin;\nFAKE\t{}\n\\.\nINSERT INTO x VALUES (1);\n";
        for (begin, end) in [
            ("/* a comment\n", "*/"),
            ("/* one /* within */ another\n", "*/"),
            ("CREATE FUNCTION f() RETURNS text AS $$\n", "$$ LANGUAGE sql;"),
            ("CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $_$\n $$ \n", "$_$;"),
            ("COMMENT ON TABLE x IS 'it''s\n", "';"),
            ("SELECT E'it\\'s\n", "';"),
            ("SELECT 'C:\\\\\n", "';"),
            ("CREATE TABLE \"odd\n", "\" (id text);"),
            ("CREATE VIEW v AS SELECT 1 AS\n", ";"),
        ] {
            let text =
                format!("{begin}{FAKE}{end}\nCOPY public.people (id, data) FROM stdin;\nA\t{{}}\n\\.\n");
            if begin.starts_with("CREATE VIEW") {
                // A command that goes on over several lines.
                let (_, tables, _) = read(&format!("{begin}COPY x FROM stdin;\n{end}\n"));
                assert_eq!(tables, [""; 0], "{begin}");
                continue;
            }
            assert_eq!(read(&text), (vec!["A\t{}"], vec!["public.people".to_owned()], None), "{begin}");
        }
        // Signs that open nothing.
        for before in [
            "-- it's a comment with $$ and /* in it",
            "SELECT price$1, a$b$ FROM t;",
            "SELECT 'it''s', E'\\\\', \"a name\" /* and a comment */;",
            "\\restrict it's$$",
            "SET x = 'C:\\';",
        ] {
            let text = format!("{before}\nCOPY people FROM stdin;\nA\t{{}}\n\\.\n");
            assert_eq!(read(&text).0, ["A\t{}"], "{before}");
        }
        // In rows nothing opens anything.
        let text = "COPY a FROM stdin;\nit's $$ /*\n\\.\nCOPY b FROM stdin;\nB\n\\.\n";
        assert_eq!(read(text), (vec!["it's $$ /*", "B"], vec!["a".to_owned(), "b".to_owned()], None));
        assert_eq!(read("INSERT INTO a VALUES (1);").1, ["unread: INSERT INTO a VALUES (1);"]);
    }

    #[test]
    fn a_dump_that_begins_and_does_not_end_was_cut_off() {
        let head = "--\n-- PostgreSQL database dump\n--\n\n\\restrict x\n";
        let table = "COPY a (id) FROM stdin;\nA\n\\.\n";
        let tail = "--\n-- PostgreSQL database dump complete\n--\n";
        assert_eq!(read(&format!("{head}{table}{tail}")).2, None);
        assert!(read(&format!("{head}{table}")).2.is_some_and(|why| why.contains("dump complete")));
        assert!(read(&format!("{head}{table}{tail}{head}{table}")).2.is_some(), "a second database");
        assert!(read(&format!("{head}COPY a (id) FROM stdin;\nA\n")).2.is_some());
        assert_eq!(read(table).2, None, "what somebody put together says nothing of its end");
        // What stands in a row is no end.
        let text = format!("{head}COPY a (id) FROM stdin;\n-- PostgreSQL database dump complete\n\\.\n");
        assert!(read(&text).2.is_some());
    }
}
