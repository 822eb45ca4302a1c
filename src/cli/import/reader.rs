//! Floor 5. The rows of a file in any format that is read, one at a time: the file may be larger than memory.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;

use super::wrapping::{Wrapping, of_others, rows_in, wrapping_of, wrapping_of_file};
use crate::cli::archive::ndjson::{Documents, Place, TEXT_BYTES_MAX, Text, Wrong, too_long};
use crate::domain::encoding::{is_bson, unmarked};
use crate::domain::exported::dump::{DumpLine, DumpReader};
use crate::domain::exported::layout::{Escapes, Layout, escapes_of, layout_of, may_be_copied};
use crate::domain::exported::{Cell, Column, columns_named, copy, csv, is_heading};
use crate::domain::record::Kind;
use crate::files::open_regular;

/// So much of a file tells its format.
const HEAD_BYTES: u64 = 64 << 10;
const BUFFER_BYTES: usize = 64 << 10;
const GZIP_MARK: &[u8] = b"\x1f\x8b";
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const EITHER: &str = "whether its backslashes are escaped twice, as COPY does it, cannot be told; say --format copy or --format json";
const BSON: &str =
    "this is BSON, as mongodump writes it: take mongoexport, or make text of it with `bsondump FILE`";
const COPIED_LIST: &str =
    "a list of rows that COPY wrote is not read: export it with psql -At, or row by row";

/// What the operator says about the format of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Told from the file.
    Auto,
    /// Documents in JSON, extended JSON or the syntax of MongoDB's shell.
    Json,
    /// Rows as COPY writes them.
    Copy,
    /// Rows in CSV.
    Csv,
}

/// A row before it is understood.
#[derive(Debug)]
pub(super) enum Raw {
    Json(Text),
    Row {
        place: Place,
        /// As a heading names them.
        columns: Option<Arc<[Column]>>,
        cells: Vec<Cell>,
    },
}

pub(super) type Found = Result<Raw, Wrong>;
pub(super) type Rows = Box<dyn Iterator<Item = io::Result<Found>>>;

/// The rows of a file; those of one table, if it is a dump.
pub(super) fn rows_of(
    path: &Path,
    kind: Kind,
    table: Option<&DumpTable>,
    format: Format,
) -> io::Result<Rows> {
    let mut input = unpacked(path)?;
    let mut head = Vec::new();
    // What was read before an error is not lost with it: the error comes after it.
    if let Err(error) = input.by_ref().take(HEAD_BYTES).read_to_end(&mut head) {
        input = Box::new(BufReader::new(Failing(Some(error))));
    }
    if unmarked(head.get(..2).unwrap_or(&head)).is_ok() && head.starts_with(BYTE_ORDER_MARK) {
        head.drain(..BYTE_ORDER_MARK.len());
    }
    let again = || -> io::Result<Box<dyn BufRead>> {
        let mut input = unpacked(path)?;
        if input.fill_buf()?.starts_with(BYTE_ORDER_MARK) {
            input.consume(BYTE_ORDER_MARK.len());
        }
        Ok(input)
    };
    let layout = match format {
        _ if table.is_some() => Layout::Dump,
        _ if is_bson(&head) => Layout::Unknown(BSON),
        Format::Auto if unmarked(head.get(..2).unwrap_or(&head)).is_err() => Layout::Json,
        Format::Auto => match told_layout(path, &head, kind)? {
            Layout::Dump => Layout::Unknown("this is a dump of a database: give it the ending .sql"),
            layout => layout,
        },
        Format::Json => Layout::Json,
        Format::Copy => Layout::Copy,
        Format::Csv => match layout_of(&head, false) {
            Layout::Csv(delimiter) => Layout::Csv(delimiter),
            _ => Layout::Csv(b','),
        },
    };
    let wrapping = match layout {
        Layout::Json => wrapping_of_file(&head, kind, again)?,
        _ => Wrapping::None,
    };
    let input = Cursor::new(head).chain(input);
    Ok(match (layout, wrapping) {
        (Layout::Json, Wrapping::None) => json_rows(Documents::new(input), kind),
        (Layout::Json, Wrapping::List { before, depth }) => {
            json_rows(Documents::of_member(input, Place { line: 1, column: 1 }, before, depth)?, kind)
        }
        (Layout::Json, Wrapping::OfOthers(name)) => {
            Box::new(std::iter::once(Ok(Err(at_line(1, of_others(&name, kind))))))
        }
        (Layout::Unknown(why), _) => Box::new(std::iter::once(Ok(Err(at_line(1, why.to_owned()))))),
        (layout, _) => Box::new(TableRows::new(input, kind, layout, table)),
    })
}

/// The rows of these documents, of which each may be a list of them.
fn json_rows(documents: Documents<impl BufRead + 'static>, kind: Kind) -> Rows {
    Box::new(documents.flat_map(move |found| {
        let found = match found {
            Ok(Ok(text)) => rows_in(text, kind).into_iter().map(Ok).collect(),
            Ok(Err(wrong)) => vec![Ok(Err(wrong))],
            Err(error) => vec![Err(error)],
        };
        found.into_iter()
    }))
}

/// A text that ends with an error.
struct Failing(Option<io::Error>);

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

/// The file's text, unpacked if it is packed with gzip.
fn unpacked(path: &Path) -> io::Result<Box<dyn BufRead>> {
    let mut file = BufReader::with_capacity(BUFFER_BYTES, open_regular(path)?);
    if file.fill_buf()?.starts_with(GZIP_MARK) {
        return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(file))));
    }
    Ok(Box::new(file))
}

/// The format of a file, which may take reading all of it: where COPY escapes the backslashes of JSON, every line may have
/// none, or may be JSON either way.
fn told_layout(path: &Path, head: &[u8], kind: Kind) -> io::Result<Layout> {
    let layout = layout_of(head, false);
    let first = head.split(|byte| *byte == b'\n').find(|line| !line.trim_ascii().is_empty());
    let first = first.unwrap_or_default().trim_ascii();
    let is_wrapped = first.starts_with(b"[") || wrapping_of(first, kind) != Wrapping::None;
    let is_list = layout == Layout::Json && is_wrapped;
    let is_to_read = match layout {
        Layout::Json => may_be_copied(first) && copy::end_of_object(first) == first.len(),
        Layout::Copy | Layout::Unaligned(_) => true,
        Layout::Csv(_) | Layout::Dump | Layout::Unknown(_) => false,
    };
    let mut lines = Lines::new(unpacked(path)?);
    let mut is_either = false;
    while is_to_read && let Some(line) = lines.next() {
        match line.map(|(_, line)| line.map_or(Escapes::Nothing, |line| escapes_of(line.trim_ascii_end()))) {
            Ok(Escapes::Nothing) => {}
            Ok(Escapes::Either) => is_either = true,
            Ok(Escapes::Once) => {
                return Ok(if layout == Layout::Copy { Layout::Unaligned(b'\t') } else { layout });
            }
            Ok(Escapes::Twice) if is_list => return Ok(Layout::Unknown(COPIED_LIST)),
            Ok(Escapes::Twice) => return Ok(Layout::Copy),
            // Reading it again ends there again, and says so.
            Err(_) => break,
        }
    }
    Ok(match layout {
        Layout::Json | Layout::Unaligned(_) if is_either => Layout::Unknown(EITHER),
        layout => layout,
    })
}

fn at_line(line: usize, message: String) -> Wrong {
    Wrong { place: Place { line, column: 1 }, message }
}

/// The number of a line, and the line with its end.
type Line = (usize, Result<Vec<u8>, Wrong>);

/// The lines of a text with their numbers, each with its end; `Err` of the inner kind if one is too long.
struct Lines<R> {
    input: R,
    line: usize,
    /// Longest record in bytes.
    bytes_max: usize,
}

impl<R: BufRead> Lines<R> {
    fn new(input: R) -> Lines<R> {
        Lines { input, line: 0, bytes_max: TEXT_BYTES_MAX }
    }

    fn next(&mut self) -> Option<io::Result<Line>> {
        let mut line = Vec::new();
        self.append(&mut line).map(|read| {
            read.map(|is_whole| {
                let place = Place { line: self.line, column: 1 };
                (self.line, if is_whole { Ok(line) } else { Err(too_long(place)) })
            })
        })
    }

    /// Appends the next line; false if there is no room for all of it.
    fn append(&mut self, line: &mut Vec<u8>) -> Option<io::Result<bool>> {
        let room = (self.bytes_max + 1).saturating_sub(line.len()) as u64;
        if room == 0 {
            return Some(Ok(false));
        }
        match self.input.by_ref().take(room).read_until(b'\n', line) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) => return Some(Err(error)),
        }
        self.line += 1;
        if line.ends_with(b"\n") || line.len() <= self.bytes_max {
            return Some(Ok(true));
        }
        // Passes over the rest.
        loop {
            let (read, is_end) = match self.input.fill_buf() {
                Ok([]) => return Some(Ok(false)),
                Ok(bytes) => match bytes.iter().position(|byte| *byte == b'\n') {
                    Some(at) => (at + 1, true),
                    None => (bytes.len(), false),
                },
                Err(error) => return Some(Err(error)),
            };
            self.input.consume(read);
            if is_end {
                return Some(Ok(false));
            }
        }
    }
}

/// Rows of a table, a line each, in CSV over several lines.
struct TableRows<R> {
    lines: Lines<R>,
    kind: Kind,
    layout: Layout,
    columns: Option<Arc<[Column]>>,
    /// The table of a dump that is read.
    table: Option<DumpTable>,
    /// In a dump, where in it this is, and whether the rows of that table stand here.
    dump: DumpReader,
    is_within: bool,
    is_first: bool,
    /// After the mark that ends the rows, where empty lines are none.
    is_past_rows: bool,
    rows: u64,
    has_ended: bool,
}

impl<R: BufRead> Iterator for TableRows<R> {
    type Item = io::Result<Found>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.has_ended {
            let (line, text) = match self.lines.next() {
                None => {
                    self.has_ended = true;
                    let message = "the file ends within the rows of the table".to_owned();
                    return self.is_within.then(|| Ok(Err(at_line(self.lines.line, message))));
                }
                Some(Err(error)) => {
                    self.has_ended = true;
                    return Some(Err(error));
                }
                Some(Ok((line, text))) => (line, text),
            };
            let found = match text {
                Ok(text) => match self.record(line, text) {
                    Ok(found) => found,
                    Err(error) => return Some(Err(error)),
                },
                Err(wrong) => Some(Err(wrong)),
            };
            if let Some(found) = found {
                return Some(Ok(found));
            }
        }
        None
    }
}

impl<R: BufRead> TableRows<R> {
    fn new(input: R, kind: Kind, layout: Layout, table: Option<&DumpTable>) -> TableRows<R> {
        TableRows {
            lines: Lines::new(input),
            kind,
            layout,
            columns: None,
            table: table.cloned(),
            dump: DumpReader::default(),
            is_within: false,
            // A dump has no headings.
            is_first: table.is_none(),
            is_past_rows: false,
            rows: 0,
            has_ended: false,
        }
    }

    /// What begins with this line; `None` if that is no row.
    fn record(&mut self, line: usize, mut text: Vec<u8>) -> io::Result<Option<Found>> {
        if let Layout::Csv(_) = self.layout {
            let mut is_open = csv::has_odd_quotes(&text);
            while is_open {
                let before = text.len();
                let problem = match self.lines.append(&mut text) {
                    Some(Ok(true)) => {
                        is_open ^= csv::has_odd_quotes(text.get(before..).unwrap_or_default());
                        continue;
                    }
                    Some(Ok(false)) => "a cell in quotation marks is too long",
                    Some(Err(error)) => {
                        self.has_ended = true;
                        return Err(error);
                    }
                    None => "the file ends within a cell in quotation marks",
                };
                // Where the next row begins cannot be told: the cell may hold what looks like one.
                self.has_ended = true;
                let message = format!(
                    "{problem}: everything from line {line} on stands in it, and the rest of the file was not read"
                );
                return Ok(Some(Err(at_line(line, message))));
            }
        }
        let text = text.strip_suffix(b"\n").unwrap_or(&text);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if self.layout == Layout::Dump && !self.is_row_of_dump(line, text)? {
            return Ok(None);
        }
        if text.trim_ascii().is_empty() {
            let message = "the line is empty: a row whose only column is NULL, or a line too many".to_owned();
            self.rows += u64::from(!self.is_past_rows);
            return Ok((!self.is_past_rows).then(|| Err(at_line(line, message))));
        }
        if let Some(found) = self.end_of_rows(line, text) {
            self.is_past_rows = true;
            return Ok(found.err().map(Err));
        }
        let cells = match self.layout {
            Layout::Csv(delimiter) => csv::cells(text, delimiter),
            Layout::Unaligned(delimiter) => copy::unaligned_cells(text, delimiter),
            Layout::Copy | Layout::Dump | Layout::Json | Layout::Unknown(_) => copy::cells(text),
        };
        let cells = match cells {
            Ok(cells) => cells,
            Err(message) if self.lines.line > line => {
                let last = self.lines.line;
                let message = format!("{message}; by its quotation marks the row goes on to line {last}");
                return Ok(Some(Err(at_line(line, message))));
            }
            Err(message) => return Ok(Some(Err(at_line(line, message.to_owned())))),
        };
        if std::mem::take(&mut self.is_first) && self.columns.is_none() {
            match self.heading(&cells) {
                Ok(true) => return Ok(None),
                Ok(false) => {}
                Err(message) => {
                    self.has_ended = true;
                    return Ok(Some(Err(at_line(line, format!("{message}; the rest was not read")))));
                }
            }
        }
        self.rows += 1;
        self.is_past_rows = false;
        let columns = self.columns.clone();
        Ok(Some(Ok(Raw::Row { place: Place { line, column: 1 }, columns, cells })))
    }

    /// Reads the first line; false if it is a row.
    fn heading(&mut self, cells: &[Cell]) -> Result<bool, String> {
        if is_heading(cells) {
            let name = |cell: &Cell| if let Cell::Text(name) = cell { name.clone() } else { String::new() };
            let names: Vec<String> = cells.iter().map(name).collect();
            self.columns = Some(columns_named(self.kind, &names)?.into());
            return Ok(true);
        }
        let is_json = |cell: &Cell| !matches!(cell, Cell::Text(text) if !text.trim_start().starts_with('{'));
        if cells.iter().any(is_json) {
            return Ok(false);
        }
        Err("the first line is neither a heading with `data` nor a row with a document in JSON; files of single fields \
             have no types, export JSON instead"
            .to_owned())
    }

    /// Whether the line ends the rows: COPY's mark, or how many rows psql says there were.
    fn end_of_rows(&self, line: usize, text: &[u8]) -> Option<Result<(), Wrong>> {
        match self.layout {
            Layout::Copy if text == copy::END => Some(Ok(())),
            Layout::Unaligned(_) => {
                let said = text.strip_prefix(b"(")?;
                let said = said.strip_suffix(b" rows)").or_else(|| said.strip_suffix(b" row)"))?;
                let said: u64 = std::str::from_utf8(said).ok()?.parse().ok()?;
                let message = || format!("psql says that there were {said} rows, and here are {}", self.rows);
                Some(if said == self.rows { Ok(()) } else { Err(at_line(line, message())) })
            }
            _ => None,
        }
    }

    /// Whether this is the table of the dump that is read.
    fn is_of(&self, name: &str) -> bool {
        self.table.as_ref().is_some_and(|table| table.name == name && table.database == self.dump.database())
    }

    /// Whether a line of a dump is a row of the table that is read. Others tell where its rows begin and end.
    fn is_row_of_dump(&mut self, line: usize, text: &[u8]) -> io::Result<bool> {
        match self.dump.line(text) {
            DumpLine::Row => return Ok(self.is_within),
            DumpLine::Begin { table, columns } if self.is_of(&table) => {
                let columns = columns.map(|names| columns_named(self.kind, &names)).transpose();
                let columns =
                    columns.map_err(|message| io::Error::other(format!("line {line}: {message}")))?;
                (self.columns, self.is_within) = (columns.map(Into::into), true);
            }
            DumpLine::End => self.is_within = false,
            DumpLine::Begin { .. } | DumpLine::Unread(_) | DumpLine::Other => {}
        }
        Ok(false)
    }
}

/// A table of a dump, as the dump names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DumpTable {
    /// The database that it is of; empty where the dump does not say.
    pub(super) database: String,
    pub(super) name: String,
    /// As the dump names them, if it does.
    pub(super) columns: Option<Vec<String>>,
}

/// What a dump holds.
pub(super) struct DumpTables {
    /// The tables that have rows in it.
    pub(super) tables: Vec<DumpTable>,
    /// A table that stands in it twice, in two dumps that were put together.
    pub(super) twice: Option<DumpTable>,
    /// Why the dump is not all there.
    pub(super) cut_off: Option<&'static str>,
}

/// Looks through a dump for its tables.
pub(super) fn tables_of_dump(path: &Path) -> io::Result<DumpTables> {
    let mut lines = Lines::new(unpacked(path)?);
    let (mut tables, mut reader) = (Vec::new(), DumpReader::default());
    let mut numbers = Vec::new();
    let (mut cut_off, mut twice) = (None, None);
    while let Some(line) = lines.next() {
        let (number, line) = match line {
            Ok(line) => line,
            // A packed file that was cut off: what came before is taken, and reading the rows ends there again.
            Err(error) if !tables.is_empty() => {
                tracing::debug!(%error, "a dump cannot be read to its end");
                cut_off = Some("the file cannot be read to its end: tables or rows may be missing");
                break;
            }
            Err(error) => return Err(error),
        };
        let line = line.unwrap_or_default();
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        match reader.line(line.strip_suffix(b"\r").unwrap_or(line)) {
            DumpLine::Begin { table: name, columns } => {
                let table = DumpTable { database: reader.database().to_owned(), name, columns };
                let is_it = |known: &DumpTable| known.database == table.database && known.name == table.name;
                match tables.iter().position(is_it) {
                    None => {
                        tables.push(table);
                        numbers.push(reader.number());
                    }
                    Some(at) if numbers.get(at) != Some(&reader.number()) => twice = Some(table),
                    Some(_) => {}
                }
            }
            DumpLine::Unread(why) => return Err(io::Error::other(format!("line {number}: {why}"))),
            DumpLine::Row | DumpLine::End | DumpLine::Other => {}
        }
    }
    Ok(DumpTables { tables, twice, cut_off: cut_off.or(reader.cut_off()) })
}

#[cfg(test)]
mod tests;
