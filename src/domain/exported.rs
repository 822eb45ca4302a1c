//! Floor 0. Rows of the tables that Thalamus has on PostgreSQL, made the fields of records.
//!
//! There a record is a row: its key in `id`, whose it is in `book` or `fedacct`, the bytes of a document in `document`,
//! and everything else as JSON in `data`. Upstream looks rows up by these columns and never by `data`. Where the two say
//! different things, nobody can tell which is right, and the row is refused: it may be about another person.
//!
//! `layout` tells the formats of files apart, `copy` and `csv` take their lines apart, `dump` finds the rows in a dump, `bytea` reads bytes,
//! `misplaced` tells records of another collection.

pub mod bytea;
pub mod copy;
pub mod csv;
pub mod dump;
pub mod layout;
mod misplaced;

use serde_json::{Map, Value};

use super::json::{JsonError, parse_object};
use super::record::Kind;
use super::schema::{DOCUMENT_PAGE_FIELD, Owner, Schema, is_account};

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

/// A record as a file has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    pub fields: Map<String, Value>,
    /// The bytes of a document, if the file has them.
    pub bytes: Option<Vec<u8>>,
    /// Whether the file says that there are bytes, or that there are none.
    pub tells_bytes: bool,
    /// The document's `hash` is that of other bytes.
    pub is_other_than_hash: bool,
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
fn column_named(schema: &Schema, name: &str) -> Option<Column> {
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
fn name_of(schema: &Schema) -> &'static str {
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
fn columns_of(schema: &Schema, cells: &[Cell]) -> Result<Vec<Column>, String> {
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

fn object_of(cell: Cell) -> Result<Map<String, Value>, String> {
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
fn says(schema: &Schema, column: Column, body: &Map<String, Value>) -> Result<Option<String>, String> {
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

fn is_same(schema: &Schema, column: Column, a: &str, b: &str) -> bool {
    match column {
        Column::Id => schema.same_id(a, b),
        Column::Owner => a.eq_ignore_ascii_case(b),
        Column::Page | Column::Document | Column::Data => a == b,
    }
}

/// The record in a row of a table. Without `columns` they are told by what stands in them.
///
/// `owner` is the account that the operator says the file belongs to.
pub fn take_row(
    kind: Kind,
    columns: Option<&[Column]>,
    cells: Vec<Cell>,
    owner: Option<&str>,
) -> Result<Taken, String> {
    let schema = kind.schema();
    let inferred;
    let columns = match columns {
        Some(columns) => columns,
        None => {
            inferred = columns_of(schema, &cells)?;
            &inferred
        }
    };
    if columns.len() != cells.len() {
        return Err(format!("the row has {} columns, not {}", cells.len(), columns.len()));
    }
    let (mut body, mut keys, mut document) = (None, Vec::new(), None);
    for (column, cell) in columns.iter().zip(cells) {
        match (column, cell) {
            (Column::Data, cell) => body = Some(object_of(cell)?),
            (Column::Document, cell) => document = Some(cell),
            (_, Cell::Object(_)) => return Err("a document stands where a key belongs".to_owned()),
            (column, Cell::Text(text)) => keys.push((*column, Some(text))),
            (column, Cell::Null) => keys.push((*column, None)),
        }
    }
    let mut body = body.ok_or("the row has no document in it")?;
    // COPY (SELECT row_to_json(...)): the document is the row.
    if columns.len() == 1 && is_row(schema, &body) {
        return take(kind, body, owner);
    }
    for (column, value) in keys {
        agree(schema, column, value, &mut body)?;
    }
    let mut taken = take_flat(schema, body, owner)?;
    match document {
        None => {}
        Some(Cell::Null) => taken.tells_bytes = true,
        // With `NULL ''` that is NULL; an empty column of bytes is `\\x`, but in the older form.
        Some(Cell::Text(text)) if text.is_empty() && !is_hash_of_nothing(&taken) => taken.tells_bytes = true,
        Some(Cell::Text(text)) => add_bytes(&mut taken, &text)?,
        Some(Cell::Object(_)) => return Err("document: must be bytes".to_owned()),
    }
    Ok(taken)
}

/// The record in a JSON object: a row of a table, or the document itself.
pub fn take(kind: Kind, mut fields: Map<String, Value>, owner: Option<&str>) -> Result<Taken, String> {
    let schema = kind.schema();
    if !is_row(schema, &fields) {
        if has_table(schema) && !fields.contains_key("_id") && fields.get("data").is_some_and(is_document) {
            let others = fields.keys().filter(|name| column_named(schema, name).is_none());
            let others: Vec<_> = others.map(String::as_str).collect();
            return Err(format!(
                "a row with columns that are not of Thalamus's table: {}; export its own columns, as in SELECT \
                 row_to_json(r) FROM (SELECT id, data FROM ...) r",
                others.join(", ")
            ));
        }
        let is_column = |name: &String| name != "_id" && column_named(schema, name).is_some();
        let is_of_table = has_table(schema) && fields.keys().all(is_column);
        match fields.get("data") {
            Some(Value::Array(_)) if is_of_table => {
                return Err("data: a list stands where the row has one document".to_owned());
            }
            Some(_) if is_of_table => {
                return Err("data: must be a JSON object: the row has no document in it".to_owned());
            }
            _ => return take_flat(schema, fields, owner),
        }
    }
    let (mut columns, mut cells) = (Vec::new(), Vec::new());
    for (name, value) in std::mem::take(&mut fields) {
        columns.push(column_named(schema, &name).ok_or_else(|| format!("{name}: not understood"))?);
        cells.push(match value {
            Value::Null => Cell::Null,
            Value::String(text) => Cell::Text(text),
            Value::Object(fields) => Cell::Object(fields),
            _ => return Err(format!("{name}: must be text")),
        });
    }
    if columns.len() == 1 {
        let fields = object_of(cells.pop().unwrap_or(Cell::Null))?;
        return take_flat(schema, fields, owner);
    }
    take_row(kind, Some(&columns), cells, owner)
}

/// The record in a JSON array: a row of a query, as an API answers.
pub fn take_list(kind: Kind, values: Vec<Value>, owner: Option<&str>) -> Result<Taken, String> {
    let mut cells = Vec::new();
    for value in values {
        cells.push(match value {
            Value::Null => Cell::Null,
            Value::String(text) => Cell::Text(text),
            Value::Object(fields) => Cell::Object(fields),
            _ => return Err("expected a document, or a row of a table".to_owned()),
        });
    }
    match cells.as_mut_slice() {
        [Cell::Object(fields)] => take(kind, std::mem::take(fields), owner),
        _ => take_row(kind, None, cells, owner),
    }
}

/// Whether Thalamus keeps records of a kind in a table.
fn has_table(schema: &Schema) -> bool {
    matches!(
        schema.kind,
        Kind::Person | Kind::Page | Kind::PersonalDocument | Kind::DomiciliaryUnit | Kind::Institution
    )
}

/// Whether a value is a document in JSON with something in it, or the text of one.
fn is_document(value: &Value) -> bool {
    match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::String(text) => parse_object(text.as_bytes()).is_ok_and(|fields| !fields.is_empty()),
        _ => false,
    }
}

/// Whether an object is a row of a table: `data` and nothing beside it but columns of the table. A document of MongoDB is
/// none, because it has `_id`.
fn is_row(schema: &Schema, fields: &Map<String, Value>) -> bool {
    let has_data = matches!(fields.get("data"), Some(Value::Object(_) | Value::Null | Value::String(_)));
    let is_column = |name: &String| name != "_id" && column_named(schema, name).is_some();
    has_table(schema) && has_data && fields.keys().all(is_column)
}

/// Compares a key column with what the document says, and adds it if that says nothing.
fn agree(
    schema: &Schema,
    column: Column,
    value: Option<String>,
    body: &mut Map<String, Value>,
) -> Result<(), String> {
    let field = match column {
        Column::Id => "id",
        Column::Owner => name_of(schema),
        Column::Page => DOCUMENT_PAGE_FIELD,
        Column::Document | Column::Data => return Ok(()),
    };
    match (says(schema, column, body)?, value) {
        (Some(said), Some(value)) if is_same(schema, column, &said, &value) => {}
        (Some(said), value) => {
            let value = value.map_or_else(|| "NULL".to_owned(), |value| format!("\"{value}\""));
            return Err(format!(
                "the column `{field}` is {value}, and the document says \"{said}\": which is right cannot be told"
            ));
        }
        // Where COPY was told `NULL ''`, that is NULL. An empty key says no more than none.
        (None, Some(value)) if value.is_empty() => {}
        (None, Some(value)) => {
            let field = if column == Column::Id && body.contains_key("_id") { "_id" } else { field };
            body.insert(field.to_owned(), Value::String(value));
        }
        (None, None) => {}
    }
    Ok(())
}

/// A document of which nothing stands beside it but, perhaps, whose it is.
fn take_flat(schema: &Schema, mut fields: Map<String, Value>, owner: Option<&str>) -> Result<Taken, String> {
    if let Some((field, others)) = misplaced::mark_of_others(schema, &fields) {
        return Err(format!(
            "`{field}` stands in records of {}, not of {}: call the file after them, or say --collection",
            others.join(", "),
            schema.collection
        ));
    }
    // Anything else that is no id is found by who makes a document of it.
    if let (Some(Value::String(a)), Some(Value::String(b))) = (fields.get("_id"), fields.get("id"))
        && !schema.same_id(a, b)
    {
        return Err(format!("`_id` is \"{a}\" and `id` is \"{b}\": which record this is cannot be told"));
    }
    if let Owner::Field(field) = schema.owner {
        match (fields.get(field), owner) {
            (None | Some(Value::Null), Some(owner)) => {
                fields.insert(field.to_owned(), Value::String(owner.to_owned()));
            }
            (Some(Value::String(said)), Some(owner)) if !said.eq_ignore_ascii_case(owner) => {
                return Err(format!("`{field}` is \"{said}\", and --owner says \"{owner}\""));
            }
            (Some(Value::String(said)), _) if !said.trim().is_empty() => {}
            (None | Some(Value::Null | Value::String(_)), _) => {
                return Err(format!(
                    "`{field}` is missing: nobody would see the record. Name its person in the file, or with --owner if all \
                     of the file is of one person"
                ));
            }
            (Some(_), _) => return Err(format!("{field}: must be text")),
        }
    }
    let mut taken = Taken { fields, bytes: None, tells_bytes: false, is_other_than_hash: false };
    // SELECT data || jsonb_build_object('document', document)
    if schema.kind == Kind::PersonalDocument
        && let Some(Value::String(text)) = taken.fields.get("document")
        && text.starts_with(bytea::HEX_MARK)
    {
        let text = text.clone();
        taken.fields.shift_remove("document");
        add_bytes(&mut taken, &text)?;
    }
    Ok(taken)
}

fn is_hash_of_nothing(taken: &Taken) -> bool {
    let hash = taken.fields.get("hash").and_then(Value::as_str);
    hash.is_some_and(|hash| bytea::is_hash(hash, b""))
}

fn add_bytes(taken: &mut Taken, text: &str) -> Result<(), String> {
    let hash = taken.fields.get("hash").and_then(Value::as_str);
    let bytes = bytea::decode(text, hash).map_err(|error| format!("document: {error}"))?;
    taken.is_other_than_hash = hash.is_some_and(|hash| bytea::is_of_others(hash, &bytes));
    (taken.bytes, taken.tells_bytes) = (Some(bytes), true);
    Ok(())
}

#[cfg(test)]
mod tests;
