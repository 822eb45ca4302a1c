//! Floor 0. What a client's create, patch or replace makes of a record.
//!
//! Pure: takes the stored document and the parsed body, gives the new document or says which field is
//! wrong. Authorization came before; a clear password arrives here already hashed.

use bson::{Bson, Document};
use serde_json::{Map, Value};

use super::access::{Acl, END_USER};
use super::json::{JsonError, adopt_like, check_key};
use super::record::Kind;
use super::record::content::CONTENT_FIELD;
use super::record::schema::{Owner, Schema};
use super::record::value::same;

/// A body that is understood but cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    /// Dotted path of the field, empty for the record as a whole.
    pub field: String,
    pub message: String,
}

impl Invalid {
    pub fn new(field: &str, message: impl Into<String>) -> Self {
        Invalid { field: field.to_owned(), message: message.into() }
    }
}

impl From<JsonError> for Invalid {
    fn from(error: JsonError) -> Self {
        let message = error.to_string();
        match error {
            JsonError::Invalid { field, .. } => Invalid { field, message },
            JsonError::Syntax { .. } => Invalid { field: String::new(), message },
        }
    }
}

/// Whose edit it is, as far as the content of a record depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Editor<'a> {
    pub acl: &'a Acl,
    /// Root may set roles, activation and ready-made password hashes.
    pub is_root: bool,
}

/// The record that POST creates.
///
/// `id` is canonical; `path_owner` is the person in the path, where the path has one.
pub fn create(
    schema: &Schema,
    id: &str,
    path_owner: Option<&str>,
    body: &Map<String, Value>,
    editor: Editor<'_>,
) -> Result<Document, Invalid> {
    check_identity(schema, id, body)?;
    let mut document = Document::new();
    document.insert("_id", id);
    fill(schema, &mut document, None, &Document::new(), body)?;
    set_owner(schema, &mut document, path_owner)?;
    if schema.kind == Kind::Person && !document.contains_key("roles") {
        document.insert("roles", vec![END_USER]);
    }
    check_change(schema, None, &document, editor)?;
    Ok(document)
}

/// The record that PATCH leaves: the given fields replace the stored ones, null included. `former_dates`: where the record
/// had dates that were taken away ([`super::dates::former_dates`]).
///
/// The body may repeat the id, as GET shows it, and cannot change it.
pub fn patch(
    schema: &Schema,
    stored: &Document,
    former_dates: &Document,
    body: &Map<String, Value>,
    editor: Editor<'_>,
) -> Result<Document, Invalid> {
    if let Some(field) = differing_id(schema, stored.get_str("_id").unwrap_or_default(), body) {
        let noun = if schema.kind == Kind::Person { "person".to_owned() } else { schema.noun.to_lowercase() };
        return Err(Invalid::new(field, format!("Not allowed to change the {noun} ID")));
    }
    let mut document = stored.clone();
    fill(schema, &mut document, Some(stored), former_dates, body)?;
    check_change(schema, Some(stored), &document, editor)?;
    Ok(document)
}

/// The record that PUT leaves in place of `stored`; `former_dates` as for [`patch`].
pub fn replace(
    schema: &Schema,
    stored: &Document,
    former_dates: &Document,
    body: &Map<String, Value>,
    editor: Editor<'_>,
) -> Result<Document, Invalid> {
    let id = stored.get_str("_id").unwrap_or_default();
    check_identity(schema, id, body)?;
    let mut document = Document::new();
    // The order of stored fields is kept, so that writing back what was read changes no byte.
    for (key, old) in stored {
        if key == "_id" || key == "id" {
            document.insert(key, old.clone());
        } else if let Some(value) = body.get(key) {
            document.insert(key, adopt_field(schema, key, value, Some(old), former_dates.get(key))?);
        } else if schema.kept_by_put.contains(&key.as_str()) || is_owner_field(schema, key) {
            document.insert(key, old.clone());
        }
    }
    fill(schema, &mut document, Some(stored), former_dates, body)?;
    check_change(schema, Some(stored), &document, editor)?;
    Ok(document)
}

/// Takes null out of the field of the owner, where the path names the person: MyGNUHealth sends `"book": null` with pages that
/// were made before its account was set.
pub fn leave_out_null_owner(schema: &Schema, body: &mut Map<String, Value>) {
    if let Owner::Field(field) = schema.owner
        && body.get(field).is_some_and(Value::is_null)
    {
        body.shift_remove(field);
    }
}

fn is_owner_field(schema: &Schema, key: &str) -> bool {
    matches!(schema.owner, Owner::Field(field) if field == key)
}

/// Puts the body's fields into `document`; `id` and `_id` are addresses, not content.
fn fill(
    schema: &Schema,
    document: &mut Document,
    stored: Option<&Document>,
    former_dates: &Document,
    body: &Map<String, Value>,
) -> Result<(), Invalid> {
    for (key, value) in body.iter().filter(|(key, _)| *key != "id" && *key != "_id") {
        let old = stored.and_then(|stored| stored.get(key));
        if old.is_none() {
            check_key(key, key)?;
        }
        document.insert(key, adopt_field(schema, key, value, old, former_dates.get(key))?);
    }
    Ok(())
}

/// The value of a field. An owner keeps the stored spelling: accounts are the same in any case.
fn adopt_field(
    schema: &Schema,
    key: &str,
    value: &Value,
    old: Option<&Bson>,
    former_dates: Option<&Bson>,
) -> Result<Bson, JsonError> {
    match (value, old) {
        (Value::String(given), Some(Bson::String(owner)))
            if is_owner_field(schema, key) && given.eq_ignore_ascii_case(owner) =>
        {
            Ok(Bson::String(owner.clone()))
        }
        _ => adopt_like(value, old, former_dates.as_slice(), key),
    }
}

/// A body may repeat the id of its path, and nothing else.
fn check_identity(schema: &Schema, id: &str, body: &Map<String, Value>) -> Result<(), Invalid> {
    match differing_id(schema, id, body) {
        Some(field) => Err(Invalid::new(field, format!("{field} must be the id in the path"))),
        None => Ok(()),
    }
}

/// The field of the body that names another id than the record's.
fn differing_id(schema: &Schema, id: &str, body: &Map<String, Value>) -> Option<&'static str> {
    let is_same = |given: &Value| given.as_str().is_some_and(|given| schema.same_id(given, id));
    ["_id", "id"].into_iter().find(|field| body.get(*field).is_some_and(|given| !is_same(given)))
}

/// Spells the owner of a record as `stored` does if it is the same account there, and else as the person is stored, of whom
/// `person` gives the id. An account that nobody has stays as it is written.
pub fn spell_owner<E>(
    schema: &Schema,
    document: &mut Document,
    stored: Option<&Document>,
    person: impl FnOnce(&str) -> Result<Option<String>, E>,
) -> Result<(), E> {
    let Owner::Field(field) = schema.owner else {
        return Ok(());
    };
    let Some(given) = document.get_str(field).ok().filter(|given| !given.is_empty()) else {
        return Ok(());
    };
    let of_stored = stored.and_then(|stored| stored.get_str(field).ok());
    let spelled = match of_stored.filter(|stored| stored.eq_ignore_ascii_case(given)) {
        Some(stored) => Some(stored.to_owned()),
        None => person(given)?,
    };
    if let Some(spelled) = spelled {
        document.insert(field, spelled);
    }
    Ok(())
}

/// A document with the stored spelling of its id and owner, where both name the same.
pub fn spelled_like(schema: &Schema, mut document: Document, stored: &Document) -> Document {
    let is_same_id = |a: &str, b: &str| schema.same_id(a, b);
    let is_same_account = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
    let mut respell = |field: &str, is_same: &dyn Fn(&str, &str) -> bool| {
        if let (Ok(given), Ok(known)) = (document.get_str(field), stored.get_str(field))
            && is_same(given, known)
        {
            document.insert(field, known);
        }
    };
    respell("_id", &is_same_id);
    if let Owner::Field(field) = schema.owner {
        respell(field, &is_same_account);
    }
    document
}

fn set_owner(schema: &Schema, document: &mut Document, path_owner: Option<&str>) -> Result<(), Invalid> {
    let Owner::Field(field) = schema.owner else {
        return Ok(());
    };
    match (document.get(field), path_owner) {
        (None, Some(owner)) => {
            document.insert(field, owner);
        }
        (Some(Bson::String(given)), Some(owner)) if given.eq_ignore_ascii_case(owner) => {
            document.insert(field, owner);
        }
        (Some(_), Some(_)) => {
            return Err(Invalid::new(field, format!("{field} must be the person in the path")));
        }
        (Some(Bson::String(given)), None) => {
            let folded = super::record::fold_account(given);
            Kind::Person
                .schema()
                .check_new_id(&folded)
                .map_err(|e| Invalid::new(field, format!("{field}: {e}")))?;
            document.insert(field, folded);
        }
        _ => return Err(Invalid::new(field, format!("{field}: the record needs the account it belongs to"))),
    }
    Ok(())
}

/// What must hold for any change of a record, however it came about; without `stored` it is a new one.
pub fn check_change(
    schema: &Schema,
    stored: Option<&Document>,
    document: &Document,
    editor: Editor<'_>,
) -> Result<(), Invalid> {
    if let (Some(stored), Owner::Field(field)) = (stored, schema.owner) {
        let equal = match (stored.get(field), document.get(field)) {
            (Some(Bson::String(old)), Some(Bson::String(new))) => old.eq_ignore_ascii_case(new),
            (old, new) => super::record::value::same_option(old, new),
        };
        if !equal {
            return Err(Invalid::new(field, format!("Not allowed to change {field}")));
        }
    }
    check_content(schema, stored, document)?;
    check_person(schema, stored, document, editor)
}

/// A reference to uploaded bytes cannot be written by hand: it would open another person's document.
fn check_content(schema: &Schema, stored: Option<&Document>, document: &Document) -> Result<(), Invalid> {
    if !super::record::content::has_content(schema.kind) {
        return Ok(());
    }
    let refers = |value: Option<&Bson>| {
        value.and_then(Bson::as_document).is_some_and(|content| content.contains_key("sha256"))
    };
    let (old, new) = (stored.and_then(|s| s.get(CONTENT_FIELD)), document.get(CONTENT_FIELD));
    if (refers(old) || refers(new)) && !super::record::value::same_option(old, new) {
        return Err(Invalid::new(CONTENT_FIELD, "content changes only by uploading it"));
    }
    Ok(())
}

fn check_person(
    schema: &Schema,
    stored: Option<&Document>,
    document: &Document,
    editor: Editor<'_>,
) -> Result<(), Invalid> {
    if schema.kind != Kind::Person {
        return Ok(());
    }
    let changed = |field: &str| {
        let (old, new) = (stored.and_then(|stored| stored.get(field)), document.get(field));
        match (old, new) {
            (Some(old), Some(new)) => !same(old, new),
            (None, None) => false,
            _ => true,
        }
    };
    if changed("roles") {
        check_roles(document.get("roles"), stored.is_none(), editor)?;
    }
    if changed("active") {
        if stored.is_some() && !editor.is_root {
            return Err(Invalid::new("active", "active: only root may change it"));
        }
        if !matches!(document.get("active"), Some(Bson::Boolean(_)) | None) {
            return Err(Invalid::new("active", "active: must be true or false"));
        }
    }
    Ok(())
}

fn check_roles(roles: Option<&Bson>, created: bool, editor: Editor<'_>) -> Result<(), Invalid> {
    let invalid = |message: &str| Err(Invalid::new("roles", format!("roles: {message}")));
    let Some(Bson::Array(roles)) = roles else {
        return invalid("must be a list of role names");
    };
    let mut seen: Vec<&str> = Vec::new();
    for role in roles {
        match role {
            Bson::String(role) if seen.contains(&role.as_str()) => return invalid("a role stands twice"),
            Bson::String(role) if editor.acl.knows_role(role) => seen.push(role),
            _ => return invalid("must be names of known roles"),
        }
    }
    if seen.is_empty() {
        return invalid("must name at least one role");
    }
    let is_plain_newcomer = created && seen == [END_USER];
    if editor.is_root || is_plain_newcomer { Ok(()) } else { invalid("only root may give roles") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;
    use serde_json::json;

    fn body(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn editor(acl: &Acl, is_root: bool) -> Editor<'_> {
        Editor { acl, is_root }
    }

    #[test]
    fn an_owner_is_spelled_as_the_record_was_or_as_the_person_is() {
        let known = |account: &str| -> Result<Option<String>, ()> {
            Ok(account.eq_ignore_ascii_case("juan").then(|| "Juan".to_owned()))
        };
        let page = Kind::Page.schema();
        for (stored, given, spelled) in [
            (None, "JUAN", "Juan"),
            (Some("JUAN"), "juan", "JUAN"),
            (Some("ANA"), "juan", "Juan"),
            (None, "Nobody", "Nobody"),
        ] {
            let stored = stored.map(|owner| bson::doc! {"book": owner});
            let mut document = bson::doc! {"book": given};
            spell_owner(page, &mut document, stored.as_ref(), known).unwrap();
            assert_eq!(document, bson::doc! {"book": spelled}, "{given}");
        }
        for mut document in [bson::doc! {}, bson::doc! {"book": ""}, bson::doc! {"book": 5}] {
            let before = document.clone();
            spell_owner(page, &mut document, None, known).unwrap();
            assert_eq!(document, before);
        }
    }

    #[test]
    fn roles_and_activation_belong_to_root() {
        let acl = Acl::built_in();
        let schema = Kind::Person.schema();
        let stored = doc! {"_id": "ANA", "roles": ["end_user"], "active": true};
        let cases = [
            (json!({"roles": ["root"]}), "roles"),
            (json!({"active": false}), "active"),
            (json!({"roles": "root"}), "roles"),
            (json!({"roles": null}), "roles"),
            (json!({"roles": []}), "roles"),
        ];
        for (change, field) in cases {
            let error =
                patch(schema, &stored, &doc! {}, &body(change.clone()), editor(&acl, false)).unwrap_err();
            assert_eq!(error.field, field, "{change}");
        }
        let equal = body(json!({"roles": ["end_user"], "active": true}));
        assert_eq!(patch(schema, &stored, &doc! {}, &equal, editor(&acl, false)).unwrap(), stored);
        let root = body(json!({"roles": ["root", "end_user"]}));
        assert!(patch(schema, &stored, &doc! {}, &root, editor(&acl, true)).is_ok());
        for bad in [json!({"roles": ["root", "root"]}), json!({"roles": ["wizard"]}), json!({"active": 1})] {
            assert!(
                patch(schema, &stored, &doc! {}, &body(bad.clone()), editor(&acl, true)).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn ids_and_owners_do_not_change() {
        let acl = Acl::built_in();
        let schema = Kind::Page.schema();
        let stored = doc! {"_id": "p1", "book": "ANA", "info": "x"};
        for field in ["id", "_id"] {
            let same = body(json!({field: "p1", "book": "ana"}));
            assert_eq!(patch(schema, &stored, &doc! {}, &same, editor(&acl, true)).unwrap(), stored);
            let replaced = replace(schema, &stored, &doc! {}, &same, editor(&acl, true)).unwrap();
            assert_eq!(replaced, doc! {"_id": "p1", "book": "ANA"});
            for other in [json!("P1"), json!("p2"), json!(null), json!(1)] {
                let e = patch(schema, &stored, &doc! {}, &body(json!({field: other})), editor(&acl, true))
                    .unwrap_err();
                assert_eq!(
                    (e.field.as_str(), e.message.as_str()),
                    (field, "Not allowed to change the page ID")
                );
            }
        }
        assert!(patch(schema, &stored, &doc! {}, &body(json!({"book": "BOB"})), editor(&acl, true)).is_err());
        assert!(
            replace(schema, &stored, &doc! {}, &body(json!({"book": "BOB"})), editor(&acl, true)).is_err()
        );
        let replaced =
            replace(schema, &stored, &doc! {}, &body(json!({"n": 1, "book": "ANA"})), editor(&acl, true))
                .unwrap();
        assert_eq!(replaced, doc! {"_id": "p1", "book": "ANA", "n": 1});
    }

    #[test]
    fn uploaded_content_cannot_be_claimed() {
        let acl = Acl::built_in();
        let schema = Kind::PersonalDocument.schema();
        let claim = body(json!({"fedacct": "ANA", "content": {"sha256": "00"}}));
        assert_eq!(create(schema, "d1", None, &claim, editor(&acl, true)).unwrap_err().field, "content");
        let text = body(json!({"fedacct": "ana", "content": "just text"}));
        let made = create(schema, "d1", None, &text, editor(&acl, true)).unwrap();
        assert_eq!(made.get_str("fedacct").unwrap(), "ANA");
    }
}
