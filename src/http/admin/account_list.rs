//! Floor 4. The list of accounts, for those who administer the node.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use bson::{Bson, Document, RawDocument};
use chrono::DateTime;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::accounts::PUBLIC_PASSWORD_HASHES;
use crate::domain::access::Verb;
use crate::domain::active::{ACTIVE, Closing, is_active};
use crate::domain::record::Kind;
use crate::domain::schema::is_account;
use crate::http::access::account::Account;
use crate::http::access::account_lookup::{is_open, strings};
use crate::http::access::caller::Caller;
use crate::http::audit_observer::AuditEvent;
use crate::http::bodies::answer_budget::KeptBytes;
use crate::http::error::ApiError;
use crate::http::extract::query_pairs;
use crate::http::state::app_state::AppState;
use crate::http::workload;
use crate::store::{ActiveChange, Granted, Part, Snapshot, StoreError};

/// People read from the store at once.
const BATCH_PEOPLE_MAX: usize = 500;
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// Everybody who has an account here: technicians, and people with a password. People whose id is no account have
/// `"is_account": false`: with those nobody logs in. Those whose records say that they are inactive have `closed_here`, which
/// tells whether somebody closed them on this node; and `active_stored` if that is no boolean. So have those who are closed here
/// although their record is active by now, with `opened_elsewhere`.
///
/// `?inactive=true`: those people only, with `became_inactive`: whether something changed their `active` after they were made,
/// and `came_from`, `"centre"` or `"import"`: from where the value is that they have;
/// both null if the journal does not go back so far. `&since=MOMENT`: only those who were made or changed so then or later.
pub(crate) async fn list(
    State(node): State<Arc<AppState>>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    node.acl().authorize_global(&caller.principal, Verb::Get, "users")?;
    let (only, keeps) = loop {
        let only = match asked_for(&request)? {
            Asked::All => None,
            Asked::Inactive { since_ms } => {
                let reading = Arc::clone(&node);
                let changes = spawn_blocking(move || changes_since(&reading, since_ms));
                Some(changes.await.map_err(|_| ApiError::Internal)??)
            }
        };
        let kept_bytes = only.as_ref().map_or(0, Only::bytes);
        if let Some(keeps) = caller.answer.keep(kept_bytes) {
            break (only, keeps);
        }
        drop(only);
        workload::wait_for_place(&node, &caller, kept_bytes).await?;
    };
    let place = if only.is_some() { Place::People(String::new()) } else { Place::Technicians };
    let at = Position { place, has_begun: false, has_shown: false };
    let accounts = Accounts { node, at, only, _keeps: keeps };
    let (first, accounts) = accounts.next_piece(&caller).await?;
    let body = match accounts.at.place {
        Place::End => Body::from(first),
        _ => accounts.into_body(first, caller),
    };
    let json = HeaderValue::from_static("application/json");
    Ok(AuditEvent::other("users", None).attach_to(([(header::CONTENT_TYPE, json)], body).into_response()))
}

/// Which accounts a request asks for.
enum Asked {
    All,
    Inactive { since_ms: Option<i64> },
}

fn asked_for(request: &Request) -> Result<Asked, ApiError> {
    let (mut is_inactive, mut since_ms) = (false, None);
    for (name, value) in query_pairs(request.uri()) {
        match name.as_str() {
            "inactive" if value == "true" => is_inactive = true,
            "inactive" => return Err(ApiError::invalid(&name, "inactive: must be true")),
            "since" => {
                let moment = DateTime::parse_from_rfc3339(&value).map_err(|_| {
                    ApiError::invalid(&name, "since: must be a moment such as 2026-11-29T00:00:00Z")
                })?;
                since_ms = Some(moment.timestamp_millis());
            }
            _ => {
                let message = format!("{name}: no parameter of this list; inactive and since are");
                return Err(ApiError::invalid(&name, message));
            }
        }
    }
    match (is_inactive, since_ms) {
        (true, since_ms) => Ok(Asked::Inactive { since_ms }),
        (false, None) => Ok(Asked::All),
        (false, Some(_)) => Err(ApiError::invalid("since", "since: needs inactive=true")),
    }
}

fn changes_since(node: &AppState, since_ms: Option<i64>) -> Result<Only, ApiError> {
    let changes = node.store.read()?.active_changes()?;
    let is_covered = match (since_ms, changes.kept_since_ms) {
        (Some(since_ms), Some(kept_since_ms)) => kept_since_ms < since_ms,
        _ => true,
    };
    if !is_covered {
        let message = "the changes since then are not all kept here: name a later moment, or none";
        return Err(ApiError::invalid("since", message));
    }
    Ok(Only { changes: changes.people, since_ms })
}

/// Inactive people only.
struct Only {
    changes: BTreeMap<String, ActiveChange>,
    since_ms: Option<i64>,
}

impl Only {
    /// What it takes, roughly.
    fn bytes(&self) -> usize {
        const ENTRY_BYTES: usize = 2 * size_of::<(String, ActiveChange)>();
        self.changes.keys().map(|id| id.len() + ENTRY_BYTES).sum()
    }

    /// What is shown of a person; nothing if they are not asked for.
    fn shown(&self, id: &str, mut account: Value) -> Option<Value> {
        let change = self.changes.get(id);
        let is_late = |since_ms: i64| change.is_some_and(|change| change.at_ms >= since_ms);
        if account.get("closed_here").is_none() || self.since_ms.is_some_and(|since_ms| !is_late(since_ms)) {
            return None;
        }
        account["became_inactive"] = json!(change.map(|change| change.is_later));
        let from = |change: &ActiveChange| if change.is_from_centre { "centre" } else { "import" };
        account["came_from"] = json!(change.map(from));
        Some(account)
    }
}

/// Where the list of accounts goes on: technicians come first, and then people behind an id.
#[derive(Clone)]
enum Place {
    Technicians,
    People(String),
    End,
}

/// The list of accounts as JSON text, made piece by piece as the client takes it.
struct Accounts {
    node: Arc<AppState>,
    at: Position,
    only: Option<Only>,
    /// The count of what `only` keeps.
    _keeps: KeptBytes,
}

/// How far the text has come.
#[derive(Clone)]
struct Position {
    place: Place,
    has_begun: bool,
    /// Whether an account stands in the text already.
    has_shown: bool,
}

impl Accounts {
    fn into_body(self, first: Vec<u8>, caller: Caller) -> Body {
        let rest = stream::try_unfold((self, caller), |(accounts, caller)| async move {
            if matches!(accounts.at.place, Place::End) {
                return Ok(None);
            }
            // The connection is cut, so that the client sees an incomplete answer.
            let read = accounts.next_piece(&caller).await;
            let (text, accounts) =
                read.map_err(|_| io::Error::other("the accounts could not be read to their end"))?;
            Ok::<_, io::Error>(Some((text, (accounts, caller))))
        });
        Body::from_stream(stream::once(async move { Ok(first) }).chain(rest))
    }

    async fn next_piece(mut self, caller: &Caller) -> Result<(Vec<u8>, Accounts), ApiError> {
        let node = Arc::clone(&self.node);
        let begin = self.at.clone();
        loop {
            let work = workload::take_for_list(&node, caller).await?;
            let read = spawn_blocking(move || self.read().map(|text| (text, self)));
            let (text, accounts) = read.await.map_err(|_| ApiError::Internal)??;
            self = accounts;
            if caller.answer.place(text.len()) {
                return Ok((text, self));
            }
            let bytes = text.len();
            drop((text, work));
            self.at = begin.clone();
            workload::wait_for_place(&node, caller, bytes).await?;
        }
    }

    /// The next piece; never an empty one before the end.
    fn read(&mut self) -> Result<Vec<u8>, ApiError> {
        let mut text = Vec::new();
        while text.is_empty() && !matches!(self.at.place, Place::End) {
            self.read_on(&mut text)?;
        }
        Ok(text)
    }

    fn read_on(&mut self, text: &mut Vec<u8>) -> Result<(), ApiError> {
        let snapshot = self.node.store.read()?;
        let mut shown = Vec::new();
        if !std::mem::replace(&mut self.at.has_begun, true) {
            text.push(b'[');
        }
        let after = match std::mem::replace(&mut self.at.place, Place::End) {
            Place::Technicians => {
                let accounts = snapshot.local_accounts()?;
                shown.extend(accounts.into_iter().map(|(name, account)| shown_technician(name, &account)));
                None
            }
            Place::People(after) => Some(after),
            Place::End => return Ok(()),
        };
        let part = Part {
            after: after.as_deref(),
            max: BATCH_PEOPLE_MAX,
            bytes_max: BATCH_BYTES_MAX,
            is_without_damaged: true,
        };
        let mut people = Vec::new();
        let show = |id: &str, person: &RawDocument| people.push((id.to_owned(), account_of(person)));
        let next = snapshot.visit(Kind::Person, part, show)?;
        for (id, account) in people {
            let account = shown_person(&self.node, &snapshot, &id, &account?)?;
            shown.extend(match &self.only {
                Some(only) => account.and_then(|account| only.shown(&id, account)),
                None => account,
            });
        }
        for account in shown {
            if std::mem::replace(&mut self.at.has_shown, true) {
                text.push(b',');
            }
            serde_json::to_writer(&mut *text, &account).map_err(|_| ApiError::Internal)?;
        }
        match next {
            Some(next) => self.at.place = Place::People(next),
            None => text.push(b']'),
        }
        Ok(())
    }
}

fn shown_technician(name: String, account: &Document) -> Value {
    json!({
        "id": Account::Local(name).to_string(), "local": true, "active": is_active(account),
        "roles": strings(account.get("roles")), "not_honoured": [],
    })
}

/// What the list says is made of these fields of a person, whose record may have many megabytes.
fn account_of(person: &RawDocument) -> Result<Document, ApiError> {
    let mut account = Document::new();
    for name in ["password", "roles", ACTIVE] {
        if let Some(value) = person.get(name).map_err(|_| ApiError::Damaged)? {
            account.insert(name, Bson::try_from(value).map_err(|_| ApiError::Damaged)?);
        }
    }
    Ok(account)
}

fn shown_person(
    node: &AppState,
    snapshot: &Snapshot,
    id: &str,
    person: &Document,
) -> Result<Option<Value>, ApiError> {
    if !person.contains_key("password") {
        return Ok(None);
    }
    // Roles that nobody can read are not honoured, and keep nobody from the list.
    let granted = match snapshot.grants(id, person.get_str("password").unwrap_or_default()) {
        Err(StoreError::DamagedRow(_)) => Granted::default(),
        granted => granted?,
    };
    let of_record = strings(person.get("roles"));
    let roles = granted.counting(of_record.clone(), &node.settings.central_roles);
    let not_honoured: Vec<String> = of_record.into_iter().filter(|role| !roles.contains(role)).collect();
    let is_active = is_active(person);
    let is_open = is_open(node, is_active, || snapshot.closing(id))?;
    let mut shown = json!({
        "id": id, "local": false, "active": is_open, "roles": roles, "not_honoured": not_honoured,
    });
    if !is_open && snapshot.closing(id)? == Some(Closing::Gone) {
        // Nobody of this node has closed it, and nobody opens it but by a decision of the conflict.
        shown["deleted_at_centre"] = json!(true);
    } else if !is_active || !is_open {
        shown["closed_here"] = json!(snapshot.is_closed_here(id)?);
        if is_active {
            shown["opened_elsewhere"] = json!(true);
        }
        if let Some(value) = person.get(ACTIVE).filter(|value| value.as_bool().is_none()) {
            shown["active_stored"] = json!(short(value));
        }
    }
    if !is_account(id) {
        shown["is_account"] = json!(false);
    }
    if person.get_str("password").is_ok_and(|hash| PUBLIC_PASSWORD_HASHES.contains(&hash)) {
        shown["public_password"] = json!(true);
    }
    Ok(Some(shown))
}

/// A value in a few characters.
fn short(value: &Bson) -> String {
    const CHARS_MAX: usize = 40;
    value.to_string().chars().take(CHARS_MAX).collect()
}
