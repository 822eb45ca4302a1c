//! Floor 0. Rows of a table, and objects and lists in JSON, made the fields of records.

use serde_json::{Map, Value};

use super::table::{Cell, Column, column_named, columns_of, is_same, name_of, object_of, says};
use super::{bytea, misplaced};
use crate::domain::json::parse_object;
use crate::domain::record::Kind;
use crate::domain::record::schema::{DOCUMENT_PAGE_FIELD, Owner, Schema};

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
