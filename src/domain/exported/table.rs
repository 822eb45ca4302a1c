//! Floor 0. The columns of Thalamus's tables, and which cells of a row they are.

use serde_json::{Map, Value};

use super::bytea;
use crate::domain::json::{JsonError, parse_object};
use crate::domain::record::Kind;
use crate::domain::record::schema::{DOCUMENT_PAGE_FIELD, Owner, Schema, is_account};

/// A column of Thalamus's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    Id,
    /// The account that the record belongs to: `book` or `fedacct`.
    Owner,
    /// The page of life that a document belongs to: `pol`.
    Page,
    /// The bytes of a document.
    Document,
    /// The record as JSON.
    Data,
}

/// What stands in a column of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Null,
    Text(String),
    Object(Map<String, Value>),
}

/// Names that PostgreSQL gives to a column that a function of JSON makes.
const JSON_FUNCTIONS: &[&str] = &[
    "row_to_json",
    "to_json",
    "to_jsonb",
    "json_agg",
    "jsonb_agg",
    "json_build_object",
    "jsonb_build_object",
    "json_build_array",
    "jsonb_build_array",
    "?column?",
];

const NAME_THEM: &str = "name the columns: COPY ... TO STDOUT WITH (FORMAT csv, HEADER), or row_to_json";

/// The columns of a kind's table in their order. Kinds that Thalamus has no table for have its usual columns here.
fn table_of(schema: &Schema) -> Vec<Column> {
    match (schema.kind, schema.owner) {
        (Kind::PersonalDocument, _) => {
            vec![Column::Id, Column::Owner, Column::Page, Column::Document, Column::Data]
        }
        (_, Owner::Field(_)) => vec![Column::Id, Column::Owner, Column::Data],
        _ => vec![Column::Id, Column::Data],
    }
}

/// The column of this name in a kind's table.
pub(super) fn column_named(schema: &Schema, name: &str) -> Option<Column> {
    let is_document = schema.kind == Kind::PersonalDocument;
    match name {
        "id" | "_id" => Some(Column::Id),
        "data" => Some(Column::Data),
        "document" if is_document => Some(Column::Document),
        DOCUMENT_PAGE_FIELD if is_document => Some(Column::Page),
        name if schema.owner == Owner::Field(name_of(schema)) && name == name_of(schema) => {
            Some(Column::Owner)
        }
        _ => None,
    }
}

/// The field in which the owner stands; empty if records of the kind have none.
pub(super) fn name_of(schema: &Schema) -> &'static str {
    match schema.owner {
        Owner::Field(field) => field,
        Owner::Nobody | Owner::Itself => "",
    }
}

/// Whether PostgreSQL calls a column of JSON so that a query gives no name.
pub fn is_json_function(name: &str) -> bool {
    JSON_FUNCTIONS.contains(&name)
}

/// The columns that a heading names.
pub fn columns_named(kind: Kind, names: &[String]) -> Result<Vec<Column>, String> {
    let schema = kind.schema();
    let mut columns = Vec::new();
    for name in names {
        let name = name.trim().to_ascii_lowercase();
        let is_json = is_json_function(&name);
        let column = column_named(schema, &name).or(is_json.then_some(Column::Data));
        let column = column.ok_or_else(|| format!("the column `{name}` is not one of Thalamus's table"))?;
        if columns.contains(&column) {
            return Err(format!("the column `{name}` stands twice"));
        }
        columns.push(column);
    }
    if columns.contains(&Column::Data) {
        Ok(columns)
    } else {
        Err("there is no column `data`, in which Thalamus has the record".to_owned())
    }
}

/// Whether a line of cells is a heading. It names `data`, or a function that makes JSON.
pub fn is_heading(cells: &[Cell]) -> bool {
    cells.iter().any(|cell| match cell {
        Cell::Text(name) => {
            let name = name.trim().to_ascii_lowercase();
            name == "data" || is_json_function(&name)
        }
        Cell::Null | Cell::Object(_) => false,
    })
}

/// Which columns the cells of a row without a heading are.
pub(super) fn columns_of(schema: &Schema, cells: &[Cell]) -> Result<Vec<Column>, String> {
    let columns = columns_by_place(schema, cells)?;
    if is_told(schema, &columns, cells)? {
        Ok(columns)
    } else {
        Err(format!("which columns these are cannot be told; {NAME_THEM}"))
    }
}

/// Whether the keys of a row are certain. One key that the document does not confirm is what is left over. Of two, the
/// owner's is certain only if it can be an account and the other cannot: a query may name columns in any order, and the
/// record would land with another person.
fn is_told(schema: &Schema, columns: &[Column], cells: &[Cell]) -> Result<bool, String> {
    let at = columns.iter().position(|column| *column == Column::Data);
    let body = object_of(at.and_then(|at| cells.get(at)).cloned().unwrap_or(Cell::Null))?;
    let mut unconfirmed = Vec::new();
    for (column, cell) in columns.iter().zip(cells) {
        if let (Column::Id | Column::Owner | Column::Page, Cell::Text(text)) = (column, cell)
            && !text.is_empty()
            && says(schema, *column, &body)?.is_none()
        {
            unconfirmed.push((*column, text.as_str()));
        }
    }
    let is_apart = |(column, text): &(Column, &str)| (*column == Column::Owner) == is_account(text);
    let others = unconfirmed.iter().filter(|(column, _)| *column != Column::Owner).count();
    Ok(unconfirmed.len() < 2 || (others == 1 && unconfirmed.iter().all(is_apart)))
}

/// The columns in the order of the kind's table, of an answer of the API, or as the document confirms them.
fn columns_by_place(schema: &Schema, cells: &[Cell]) -> Result<Vec<Column>, String> {
    let is_data = |cell: &Cell| match cell {
        Cell::Object(_) => true,
        Cell::Text(text) => text.trim_start().starts_with('{'),
        Cell::Null => false,
    };
    let table = table_of(schema);
    let mut objects = cells.iter().enumerate().filter(|(_, cell)| is_data(cell)).map(|(at, _)| at);
    let at = match (objects.next(), objects.next()) {
        (Some(at), None) => at,
        (None, _) => return Err("the row has no document in it".to_owned()),
        (Some(_), Some(_)) => return Err("the row has several documents in it".to_owned()),
    };
    if cells.len() == table.len() && table.get(at) == Some(&Column::Data) {
        return Ok(table);
    }
    // As `/personal_docs/{person_id}` answers.
    if schema.kind == Kind::PersonalDocument && cells.len() == 4 && at == 2 {
        return Ok(vec![Column::Owner, Column::Page, Column::Data, Column::Document]);
    }
    let body = object_of(cells.get(at).cloned().unwrap_or(Cell::Null))?;
    let keys: Vec<Column> =
        table.iter().copied().filter(|column| !matches!(column, Column::Data | Column::Document)).collect();
    let others: Vec<&Cell> =
        cells.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, cell)| cell).collect();
    let is_bytes = |cell: &&&Cell| matches!(cell, Cell::Text(text) if text.starts_with(bytea::HEX_MARK));
    let (mut chosen, keyed) = (Vec::new(), others.iter().filter(|cell| !is_bytes(cell)).count());
    for set in 0..1_u32 << keys.len() {
        let some: Vec<Column> = keys
            .iter()
            .enumerate()
            .filter(|(number, _)| set & 1 << number != 0)
            .map(|(_, key)| *key)
            .collect();
        let agrees = |(column, cell): (&Column, &&&Cell)| match cell {
            Cell::Text(text) => says(schema, *column, &body) == Ok(Some(text.clone())),
            _ => false,
        };
        let is_all = some.len() == keys.len();
        let values = || others.iter().filter(|cell| !is_bytes(cell));
        if some.len() == keyed && (is_all || some.iter().zip(&values().collect::<Vec<_>>()).all(agrees)) {
            chosen.push(some);
        }
    }
    let [chosen] = chosen.as_slice() else {
        return Err(format!("which columns these are cannot be told; {NAME_THEM}"));
    };
    let mut chosen = chosen.iter();
    let mut columns = Vec::new();
    for (number, cell) in cells.iter().enumerate() {
        columns.push(match cell {
            _ if number == at => Column::Data,
            cell if is_bytes(&&cell) => Column::Document,
            _ => *chosen.next().unwrap_or(&Column::Id),
        });
    }
    Ok(columns)
}

pub(super) fn object_of(cell: Cell) -> Result<Map<String, Value>, String> {
    match cell {
        Cell::Object(fields) => Ok(fields),
        Cell::Text(text) => parse_object(text.as_bytes()).map_err(|error| match error {
            JsonError::Syntax { .. } => format!("data: {error}"),
            JsonError::Invalid { message, .. } => format!("data: {message}"),
        }),
        Cell::Null => Err("the row has no document in it: `data` is NULL".to_owned()),
    }
}

/// What the document itself says about a column; `None` if it says nothing.
pub(super) fn says(
    schema: &Schema,
    column: Column,
    body: &Map<String, Value>,
) -> Result<Option<String>, String> {
    let fields: &[&str] = match column {
        Column::Id => &["_id", "id"],
        Column::Owner => &[name_of(schema)],
        Column::Page => &[DOCUMENT_PAGE_FIELD],
        Column::Document | Column::Data => &[],
    };
    let mut said: Option<&str> = None;
    for field in fields {
        match body.get(*field) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) if said.is_none_or(|other| is_same(schema, column, other, text)) => {
                said = said.or(Some(text));
            }
            Some(Value::String(_)) => return Err("`_id` and `id` name different records".to_owned()),
            Some(_) => return Err(format!("{field}: must be text")),
        }
    }
    Ok(said.map(str::to_owned))
}

pub(super) fn is_same(schema: &Schema, column: Column, a: &str, b: &str) -> bool {
    match column {
        Column::Id => schema.same_id(a, b),
        Column::Owner => a.eq_ignore_ascii_case(b),
        Column::Page | Column::Document | Column::Data => a == b,
    }
}
