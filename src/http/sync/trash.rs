//! Floor 4. The trash over HTTP: listing deleted records, showing one, putting one back.
//!
//! A row is for those who have the name `trash` and could read the record if it existed; of what was their own only who
//! had the account then, not who has it now. The operator of the machine
//! sees every row and may put every record back, but reads no body: that is enough to undo somebody's mistake.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use bson::Document;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::domain::access::{Acl, Actor, Grant, Principal, Target, Verb};
use crate::domain::content::CONTENT_FIELD;
use crate::domain::edit::{self, Editor};
use crate::domain::json::show_value;
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::domain::schema::Owner;
use crate::http::access::caller::Caller;
use crate::http::access::kept_values::{is_operator, may_read_all, may_read_kept};
use crate::http::audit_observer::AuditEvent;
use crate::http::error::ApiError;
use crate::http::error::conversion::UNSENT;
use crate::http::extract::{PathParams, query_pairs};
use crate::http::records::damage::X_DAMAGED;
use crate::http::records::render::item_path;
use crate::http::response;
use crate::http::state::app_state::AppState;
use crate::http::workload::{self, showing};
use crate::store::{Snapshot, StoreError, TrashSummary, UndeleteError};

/// The name in `roles.cfg`.
const ACL_NAME: &str = "trash";
/// Rows in one answer, if nothing is said and at most.
const LIMIT_ROWS_DEFAULT: usize = 100;
const LIMIT_ROWS_MAX: usize = 1000;
/// What a thousand rows take, about.
const ROWS_WORK: usize = 2 << 20;

struct Query {
    limit: usize,
    /// Only rows that are older than this one.
    after: Option<u64>,
    kind: Option<Kind>,
    /// Folded account.
    person: Option<String>,
}

impl Query {
    fn parse(uri: &Uri) -> Result<Query, ApiError> {
        let mut query = Query { limit: LIMIT_ROWS_DEFAULT, after: None, kind: None, person: None };
        for (name, value) in query_pairs(uri) {
            let invalid = |message: &str| ApiError::invalid(&name, format!("{name}: {message}"));
            match name.as_str() {
                "limit" => match value.parse::<usize>() {
                    Ok(limit) if limit > 0 => query.limit = limit.min(LIMIT_ROWS_MAX),
                    _ => return Err(invalid("must be a whole number above 0")),
                },
                "after" => {
                    let id = value.parse().map_err(|_| invalid("must be the id of a deleted record"))?;
                    query.after = Some(id);
                }
                "collection" => {
                    let kind = Kind::from_collection(&value);
                    query.kind = Some(kind.ok_or_else(|| invalid("there is no such collection"))?);
                }
                "person" => query.person = Some(value),
                _ => {}
            }
        }
        Ok(query)
    }

    /// `spelling`: how the owner has to be spelled, see [`Snapshot::book_spelling`].
    fn wants(&self, row: &TrashSummary, spelling: Option<&str>) -> bool {
        self.kind.is_none_or(|kind| row.key.kind == kind)
            && self.person.as_ref().is_none_or(|person| row.owner == Some(fold_account(person)))
            && spelling.is_none_or(|spelling| row.owner_spelled.as_deref() == Some(spelling))
    }

    fn next_link(&self, last: u64) -> String {
        let collection = self.kind.map(|kind| kind.schema().collection);
        let more: String = [("collection", collection), ("person", self.person.as_deref())]
            .into_iter()
            .filter_map(|(name, value)| {
                value.map(|value| (name, utf8_percent_encode(value, NON_ALPHANUMERIC)))
            })
            .map(|(name, value)| format!("&{name}={value}"))
            .collect();
        format!("</trash?limit={}&after={last}{more}>; rel=\"next\"", self.limit)
    }
}

/// Deleted records, the last one first.
pub(crate) async fn list(
    State(node): State<Arc<AppState>>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let (acl, who) = (node.acl(), Arc::clone(&caller.principal));
    acl.authorize_node(&who, Verb::Get, ACL_NAME)?;
    let query = Query::parse(request.uri())?;
    if let Some(person) = &query.person {
        acl.permits(&who, Verb::Get, ACL_NAME, Kind::Person, Target::PathPerson(person))?;
    }
    let about = query.person.as_deref().map(fold_account);
    let work = workload::take(&node, &caller, ROWS_WORK).await?;
    // Rows that the caller may not see are looked at too, and there may be many.
    let listed = tokio::task::spawn_blocking(move || {
        let view = node.store.read()?;
        let reach = |kind: Kind, owner: Option<&str>| may_use(&acl, &who, Verb::Get, kind, owner);
        let spelling = match &query.person {
            Some(person) => view.book_spelling(person)?,
            None => None,
        };
        let is_shown = |row: &TrashSummary| {
            Ok(query.wants(row, spelling) && may_use_row(&view, &acl, &who, Verb::Get, row)?)
        };
        let page = view.trash_page(query.after, query.limit, reach, is_shown)?;
        let rows: Vec<Value> = page.rows.iter().map(summary).collect();
        let link = page.next.map(|last| query.next_link(last));
        Ok::<_, ApiError>((rows, link, node.store.damaged_trash()))
    });
    let (rows, link, damaged) = listed.await.map_err(|_| ApiError::Internal)??;
    drop(work);
    let mut response = response::json(rows);
    if damaged > 0 {
        response.headers_mut().insert(X_DAMAGED, HeaderValue::from(damaged));
    }
    if let Some(link) = link.and_then(|link| HeaderValue::from_str(&link).ok()) {
        response.headers_mut().insert(header::LINK, link);
    }
    let is_of_everybody = about.is_none();
    let seen = AuditEvent::other(ACL_NAME, about);
    Ok(if is_of_everybody { seen.of_everybody() } else { seen }.attach_to(response))
}

/// One deleted record with its body, as far as the caller could read the record.
pub(crate) async fn show(
    State(node): State<Arc<AppState>>,
    caller: Caller,
    params: PathParams,
) -> Result<Response, ApiError> {
    let acl = node.acl();
    acl.authorize_node(&caller.principal, Verb::Get, ACL_NAME)?;
    let work =
        workload::take(&node, &caller, body_work(&node, &acl, &caller, Verb::Get, params.id())?).await?;
    work.run(|| shown(&node, &acl, &caller, params.id()))
}

/// What showing or restoring the body takes that the path names, if the caller may use `verb` on it.
fn body_work(node: &AppState, acl: &Acl, caller: &Caller, verb: Verb, id: &str) -> Result<usize, ApiError> {
    let Ok(sequence) = id.parse() else {
        return Ok(0);
    };
    let view = node.store.read()?;
    check_noted(&view, acl, caller, verb, sequence)?;
    Ok(showing(view.trashed_bytes(sequence)?))
}

/// Refuses by the note of whose a body is, before it is read, who may not use `verb` on it: see [`crate::store::NotedOwner`].
fn check_noted(
    view: &Snapshot,
    acl: &Acl,
    caller: &Caller,
    verb: Verb,
    sequence: u64,
) -> Result<(), ApiError> {
    match view.noted_owner_of_trash(sequence)? {
        Some((kind, noted)) if !may_use(acl, &caller.principal, verb, kind, noted.account()) => {
            Err(ApiError::Hidden(ABSENT.into()))
        }
        _ => Ok(()),
    }
}

fn shown(node: &AppState, acl: &Acl, caller: &Caller, id: &str) -> Result<Response, ApiError> {
    let (row, document) = find(&*node.store.read()?, acl, caller, Verb::Get, id)?;
    let schema = row.key.kind.schema();
    let seen = AuditEvent::record(schema, &row.key.id, row.owner.clone());
    let mut shown = summary(&row);
    let mut place = format!("trash {}", row.sequence);
    if is_operator(&caller.principal) {
        place.push_str(", without its content");
    } else {
        shown["document"] = show_value(&schema.without_secrets(&document).into(), node.settings.date_format);
    }
    Ok(seen.read_from(place).attach_to(response::json(shown)))
}

/// Makes a record of the body, under the same conditions as POST of such a record.
pub(crate) async fn restore(
    State(node): State<Arc<AppState>>,
    caller: Caller,
    params: PathParams,
) -> Result<Response, ApiError> {
    let acl = node.acl();
    acl.authorize_node(&caller.principal, Verb::Post, ACL_NAME)?;
    let bytes = body_work(&node, &acl, &caller, Verb::Post, params.id())?;
    let work = workload::take(&node, &caller, bytes).await?;
    let (row, grant) = work.run(|| {
        let (row, document) = find(&*node.store.read()?, &acl, &caller, Verb::Post, params.id())?;
        let grant = authorize(&acl, &caller.principal, &row, &document)?;
        Ok::<_, ApiError>((row, grant))
    })?;
    // Before it waits for others who edit that record: they may wait for room.
    drop(work);
    let key = caller
        .writes(&node)
        .through(async |store| store.undelete(grant, row.sequence).await)
        .await
        .map_err(|error| refusal(&node, &caller, &row, error))?;
    // As it is now: a delete that had not reached the centre is void.
    let now = node.store.read()?.trashed(row.sequence)?.map_or(row, |(now, _)| now);
    let path = item_path(key.kind.schema(), &key.id, now.owner.as_deref());
    let mut response = (StatusCode::CREATED, response::json(summary(&now))).into_response();
    if let Ok(path) = HeaderValue::from_str(&path) {
        response.headers_mut().insert(header::LOCATION, path);
    }
    Ok(response)
}

/// The row that the path names, if the caller may use `verb` on it.
fn find(
    snapshot: &Snapshot,
    acl: &Acl,
    caller: &Caller,
    verb: Verb,
    id: &str,
) -> Result<(TrashSummary, Document), ApiError> {
    let sequence = id.parse().map_err(|_| absent())?;
    check_noted(snapshot, acl, caller, verb, sequence)?;
    let (row, document) = snapshot.trashed(sequence)?.ok_or_else(absent)?;
    match may_use_row(snapshot, acl, &caller.principal, verb, &row)? {
        true => Ok((row, document)),
        false => Err(ApiError::Hidden(ABSENT.into())),
    }
}

/// Whether the name `trash` reaches a row of such a record, and the record itself could be read.
fn may_use(acl: &Acl, who: &Principal, verb: Verb, kind: Kind, owner: Option<&str>) -> bool {
    let is_in_reach = match kind.schema().owner {
        // What belongs to nobody can be read by everybody who has the name of its kind.
        Owner::Nobody => acl.authorize_node(who, verb, ACL_NAME).is_ok(),
        _ => acl.permits(who, verb, ACL_NAME, kind, Target::Record { owner }).is_ok(),
    };
    is_in_reach && (is_operator(who) || acl.may_read(who, kind, owner))
}

/// [`may_use`] of a row that was read: also whose it was who had the account then.
fn may_use_row(
    view: &Snapshot,
    acl: &Acl,
    who: &Principal,
    verb: Verb,
    row: &TrashSummary,
) -> Result<bool, StoreError> {
    let kind = row.key.kind;
    Ok(may_use(acl, who, verb, kind, row.owner.as_deref())
        && may_read_kept(view, acl, who, kind, Some(&row.whose))?)
}

/// The right to create the record that is to be put back.
fn authorize(acl: &Acl, who: &Principal, row: &TrashSummary, document: &Document) -> Result<Grant, ApiError> {
    let (kind, owner) = (row.key.kind, row.owner.as_deref());
    if let Actor::Operator(uid) = who.actor {
        return Ok(Grant::operator(uid, Verb::Post, kind));
    }
    let schema = kind.schema();
    let target = match (kind, owner) {
        (Kind::Person, Some(person)) => Target::PathPerson(person),
        _ => Target::Record { owner },
    };
    let grant = acl.authorize(who, Verb::Post, schema.item_acl(), kind, target);
    let grant = grant.map_err(|_| ApiError::Forbidden)?;
    if !who.administers() {
        // With the body comes its password, and only root sets the password of somebody else.
        if schema.secret_fields.iter().any(|field| document.contains_key(field)) {
            return Err(ApiError::Forbidden);
        }
        // The bytes that it names were uploaded to this record.
        let mut document = document.clone();
        document.remove(CONTENT_FIELD);
        edit::check_change(schema, None, &document, Editor { acl, is_root: false })?;
    }
    Ok(grant)
}

fn refusal(node: &AppState, caller: &Caller, row: &TrashSummary, error: UndeleteError) -> ApiError {
    let (acl, who) = (node.acl(), &caller.principal);
    match error {
        UndeleteError::Unknown => absent(),
        // What is there by now may be somebody else's, of which the caller may not know.
        UndeleteError::Exists(key) if !may_know(node, &acl, who, &key) => ApiError::Taken,
        UndeleteError::Unsent(_) if !may_read_all(&acl, who, row.key.kind) => ApiError::Taken,
        UndeleteError::Exists(key) => {
            let message = format!("There is a record {key}: it has been made again since, or was put back");
            ApiError::Conflict { message, current: Value::Null }
        }
        UndeleteError::OwnerChanged(person) => ApiError::Conflict {
            message: format!(
                "The account {person} is another person's now, or it is not known whose the record was: enter it \
                 where it belongs. If it is the same person, whose name, gender or day of birth was corrected meanwhile, write \
                 those as they were, take the record out of the trash, and correct them again"
            ),
            current: Value::Null,
        },
        UndeleteError::OwnerAbsent(person) => {
            let field = match row.key.kind.schema().owner {
                Owner::Field(field) => field,
                Owner::Itself | Owner::Nobody => "",
            };
            let message =
                format!("{field}: the person {person} does not exist here; restore that person first");
            ApiError::invalid(field, message)
        }
        UndeleteError::Unsent(_) => ApiError::Conflict { message: UNSENT.into(), current: Value::Null },
        UndeleteError::Held { conflict } => ApiError::DecisionPending { conflict },
        UndeleteError::Store(error) => error.into(),
    }
}

/// Whether somebody may know that there is this record.
fn may_know(node: &AppState, acl: &Acl, who: &Principal, key: &RecordKey) -> bool {
    if may_read_all(acl, who, key.kind) || !matches!(key.kind.schema().owner, Owner::Field(_)) {
        return true;
    }
    let noted = node.store.read().and_then(|view| view.noted_owner(key.kind, &key.id));
    noted.is_ok_and(|noted| noted.is_some_and(|noted| acl.may_read(who, key.kind, noted.account())))
}

const ABSENT: &str = "There is no such record in the trash";

fn absent() -> ApiError {
    ApiError::NotFound(ABSENT.into())
}

/// A row as clients see it, without the body.
fn summary(row: &TrashSummary) -> Value {
    json!({
        "id": row.sequence,
        "collection": row.key.kind.schema().collection,
        "record": row.key.id,
        "owner": row.owner,
        "state": row.state.name(),
        "deleted_by": row.actor,
        "deleted_at": crate::sync::time_text(row.at_ms),
    })
}
