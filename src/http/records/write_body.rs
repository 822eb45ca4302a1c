//! Floor 4. Parses the body of a write, hashes its password, and limits the size of the record.

use bson::{Document, RawDocument, RawDocumentBuf};
use serde_json::{Map, Value};

use crate::accounts::is_acceptable_hash;
use crate::domain::access::Verb;
use crate::domain::edit;
use crate::domain::json::parse_body;
use crate::domain::json::weight::{self, RECORD_MAX};
use crate::domain::record::Kind;
use crate::http::access::caller::Caller;
use crate::http::auth::current_password::require_current;
use crate::http::error::ApiError;
use crate::http::error::conversion::CURRENT_FIELD_NAME;
use crate::http::records::item::ItemTarget;
use crate::http::state::app_state::AppState;
use crate::store::StoreError;

pub(crate) const PASSWORD: &str = "password";
/// What the node adds to a client's record beside the limit: ids, owners, types of fields.
const ADDED_BYTES_MAX: usize = 4 << 10;

pub(crate) type Fields = Map<String, Value>;

/// What a body says: what is written, and what is asked about a password.
pub(crate) fn read_body(target: &ItemTarget<'_>, text: &[u8]) -> Result<(Fields, Fields), ApiError> {
    let mut body = parse_body(text)?;
    if target.path_owner.is_some() {
        edit::leave_out_null_owner(target.schema, &mut body);
    }
    let secrets = secrets_of(target.schema.kind, &mut body)?;
    Ok((body, secrets))
}

/// What a body says of a person's password: the new one, which stays in the body, and the current one, which leaves it
/// because it would be stored as it is. What is no text is left out: it may be large, and these are kept while passwords wait
/// to be computed.
fn secrets_of(kind: Kind, body: &mut Fields) -> Result<Fields, ApiError> {
    let mut secrets = Map::new();
    if kind != Kind::Person {
        return Ok(secrets);
    }
    let text = |value: &Value| value.as_str().map_or(Value::Null, Value::from);
    if let Some(password) = body.get(PASSWORD) {
        secrets.insert(PASSWORD.into(), text(password));
    }
    if let Some(current) = body.shift_remove(CURRENT_FIELD_NAME) {
        if secrets.is_empty() {
            let message = format!("{CURRENT_FIELD_NAME}: goes with a new password only");
            return Err(ApiError::invalid(CURRENT_FIELD_NAME, message));
        }
        secrets.insert(CURRENT_FIELD_NAME.into(), text(&current));
    }
    Ok(secrets)
}

/// Checks a password in a body and returns its hash.
pub(crate) async fn new_password(
    node: &AppState,
    target: &ItemTarget<'_>,
    caller: &Caller,
    verb: Verb,
    secrets: &mut Fields,
) -> Result<String, ApiError> {
    let is_root = caller.principal.is_root();
    if verb != Verb::Post && !is_root && !caller.principal.is(target.id) {
        return Err(ApiError::Forbidden);
    }
    require_current(node, caller, target.id, secrets).await?;
    let Some(Value::String(password)) = secrets.get(PASSWORD) else {
        return Err(ApiError::invalid("password", "password: must be text"));
    };
    let password = password.clone();
    if password.starts_with("$2") {
        if !is_root {
            return Err(ApiError::invalid("password", "password: ready-made hashes are not accepted"));
        }
        if !is_acceptable_hash(&password) {
            return Err(ApiError::invalid("password", "password: not a bcrypt hash of cost 4 to 14"));
        }
        return Ok(password);
    }
    Ok(node.accounts.hash(target.id, &password, caller.peer).await?)
}

/// Refuses a record that grows beyond what clients may make: one request may add little, and many add up. What the
/// centre has made larger may be changed as long as it does not grow.
pub(crate) fn check_size(
    node: &AppState,
    after: Option<&RawDocumentBuf>,
    before: Option<&[u8]>,
) -> Result<(), ApiError> {
    let Some(after) = after else {
        return Ok(());
    };
    let limit = node.settings.record_limit_bytes;
    let own = limit.saturating_add(ADDED_BYTES_MAX);
    let (bytes, before_bytes) = (after.as_bytes().len(), before.map_or(0, <[u8]>::len));
    if bytes > own.max(before_bytes) {
        return Err(ApiError::TooLarge(format!(
            "The record would have {bytes} bytes, and this node takes none beyond {limit} (api.record_limit_bytes): keep \
             pictures and letters as personal documents, whose content has a limit of its own"
        )));
    }
    let weight = weight::of_document(after, RECORD_MAX);
    let weight_before = || {
        let before = before.and_then(|before| RawDocument::from_bytes(before).ok());
        before.map_or(0, |before| weight::of_document(before, usize::MAX))
    };
    if weight > RECORD_MAX && weight::of_document(after, usize::MAX) > weight_before() {
        return Err(ApiError::TooLarge(
            "The record would have more values than this node takes in one (about 100,000 numbers or texts in lists, \
             70,000 fields, or 20,000 objects): spread them over several records"
                .into(),
        ));
    }
    Ok(())
}

pub(crate) fn to_raw(document: &Document) -> Result<RawDocumentBuf, ApiError> {
    bson::serialize_to_raw_document_buf(document).map_err(|e| StoreError::Unstorable(e.to_string()).into())
}
