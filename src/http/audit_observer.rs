//! Floor 4. What requests leave in the audit trail besides their writes: reads, and refusals.
//!
//! Every answer to somebody who is logged in passes [`AuditObserver::note_answer`]. A read is noted whatever handler made it;
//! handlers only say more about it than the path does. Paths are looked at through their pattern, so nothing that
//! a client made up gets in but ids, and those are cut to size.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::{Method, Uri};
use axum::response::{IntoResponse as _, Response};
use percent_encoding::percent_decode_str;

use crate::accounts::{LoginError, Writer};
use crate::domain::access::{Actor, Verb};
use crate::domain::audit::{ACCOUNT_KIND, Event, Outcome, TEXT_CHARS_MAX, What};
use crate::domain::record::{Kind, fold_account};
use crate::domain::schema::{Owner, SCHEMAS, Schema};
use crate::http::access::caller::Caller;
use crate::http::error::{ApiError, Refused};
use crate::http::extract::Pattern;
use crate::http::state::app_state::AppState;
use crate::store::{Unnoted, under};

/// Paths that tell nothing about anybody but the caller.
const SILENT_ROUTES: &[&str] =
    &["/", "/healthz", "/readyz", "/login", "/authorization", "/sync/status", "/password/{person_id}"];

/// Notes an attempt to prove to be `account`, if there is such an account: what was typed as a name may be a
/// password.
pub(crate) fn login_failed(
    node: &AppState,
    who: &Actor,
    account: Option<&Actor>,
    from: Option<IpAddr>,
    error: LoginError,
) {
    let (what, outcome) = match error {
        LoginError::Refused => (What::LoginFailed, Outcome::Refused),
        LoginError::Busy { .. } => (What::Throttled, Outcome::TooManyAttempts),
    };
    let event = Event::new(what, who).at(from).ended(outcome);
    node.store.note(match account {
        Some(account) => about_account(event, account),
        None => event,
    });
}

/// Notes a read before it is answered; an error is the answer instead.
pub(crate) async fn note_read(node: &AppState, event: Event) -> Result<(), ApiError> {
    let take = |who: &str| node.accounts.reads().take(who, Writer::Reader);
    let noted = match node.store.note_read(event, take) {
        Err(Unnoted::Full(event)) => Box::pin(node.store.note_read_in_time(event, take)).await,
        noted => noted,
    };
    noted.map_err(|unnoted| match unnoted {
        Unnoted::TooMany { retry_after_s } => ApiError::TooManyReads { retry_after_s },
        Unnoted::Full(_) => ApiError::Overloaded,
    })
}

/// [`note_read`] of what an emergency shows: it is on disk before.
async fn note_emergency(node: &AppState, event: Event) -> Result<(), ApiError> {
    let taken = node.accounts.reads().take(&event.who, Writer::Reader);
    taken.map_err(|retry_after_s| ApiError::TooManyReads { retry_after_s })?;
    Ok(node.store.note_on_disk(event).await?)
}

/// Notes refusals within the answer to one request: as one event, which names the first id that was refused.
pub(crate) fn note_refusals(
    node: &AppState,
    caller: &Caller,
    path: &'static str,
    refused: &[(&str, Outcome)],
) {
    for outcome in [Outcome::Hidden, Outcome::Forbidden] {
        let mut ids = refused.iter().filter(|(_, of_one)| *of_one == outcome).map(|(id, _)| *id);
        let Some(first) = ids.next() else { continue };
        let said = format!("POST {path}, {} of them", 1 + ids.count());
        let event = Event::new(What::Denied, &caller.principal.actor).at(caller.from()).ended(outcome);
        node.store.note(event.about("", if is_plain(first) { first } else { "" }, None).saying(&said));
    }
}

/// The event, as one about somebody's account.
pub(crate) fn about_account(event: Event, account: &Actor) -> Event {
    match account {
        Actor::Person(id) => event.about(Kind::Person.schema().collection, id, Some(&fold_account(id))),
        other => event.about(ACCOUNT_KIND, &other.login_name().unwrap_or_default(), None),
    }
}

/// What an answer shows, for the audit: put into its extensions by handlers that know it.
#[derive(Debug, Clone)]
pub(crate) struct AuditEvent {
    what: What,
    kind: &'static str,
    id: String,
    owner: Option<String>,
    /// Of all people.
    is_of_everybody: bool,
    /// The emergency without which it would not have been shown.
    opening: Option<u64>,
    /// Where it was read, if not among the records.
    place: String,
}

impl AuditEvent {
    fn new(what: What, kind: &'static str, id: &str, owner: Option<String>) -> AuditEvent {
        AuditEvent {
            what,
            kind,
            id: id.to_owned(),
            owner,
            is_of_everybody: false,
            opening: None,
            place: String::new(),
        }
    }

    pub(crate) fn record(schema: &Schema, id: &str, owner: Option<String>) -> AuditEvent {
        AuditEvent::new(What::Read, schema.collection, id, owner)
    }

    /// Records of one account, or of everybody.
    pub(crate) fn list(schema: &Schema, owner: Option<String>) -> AuditEvent {
        let owner = match schema.owner {
            Owner::Nobody => None,
            _ => owner.as_deref().map(fold_account),
        };
        let is_of_everybody = schema.owner != Owner::Nobody && owner.is_none();
        AuditEvent { is_of_everybody, ..AuditEvent::new(What::List, schema.collection, "", owner) }
    }

    /// A list of something else: about one account, about everybody, or about no person.
    pub(crate) fn other(kind: &'static str, owner: Option<String>) -> AuditEvent {
        AuditEvent::new(What::List, kind, "", owner)
    }

    /// About the data of all people.
    pub(crate) fn of_everybody(self) -> AuditEvent {
        AuditEvent { is_of_everybody: true, ..self }
    }

    pub(crate) fn read_from(self, place: String) -> AuditEvent {
        AuditEvent { place, ..self }
    }

    pub(crate) fn in_emergency(self, opening: Option<u64>) -> AuditEvent {
        AuditEvent { opening, ..self }
    }

    /// The emergency without which it would not have been shown.
    pub(crate) fn opening(&self) -> Option<u64> {
        self.opening
    }

    pub(crate) fn event(&self, who: &Actor) -> Event {
        let event = Event::new(self.what, who).about(self.kind, &self.id, self.owner.as_deref());
        let event = if self.is_of_everybody { event.of_everybody() } else { event };
        match self.opening {
            Some(opening) => event.saying(&under(opening)),
            None => event.saying(&self.place),
        }
    }

    /// The response with this beside it.
    pub(crate) fn attach_to(self, mut response: Response) -> Response {
        response.extensions_mut().insert(self);
        response
    }
}

fn is_plain(id: &str) -> bool {
    id.len() <= TEXT_CHARS_MAX
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-@".contains(&byte))
}

/// What a request was, kept while it is answered.
pub(crate) struct AuditObserver {
    method: Method,
    uri: Uri,
    pattern: Pattern,
}

impl AuditObserver {
    pub(crate) fn of(request: &Request, pattern: Pattern) -> AuditObserver {
        AuditObserver { method: request.method().clone(), uri: request.uri().clone(), pattern }
    }

    /// Notes what an answer to `caller` shows or refuses, and returns it; what cannot be noted is not shown. What an
    /// emergency shows is on disk before.
    pub(crate) async fn note_answer(&self, node: &AppState, caller: &Caller, response: Response) -> Response {
        if let Some(Refused(outcome)) = response.extensions().get::<Refused>() {
            self.refused(node, &caller.principal.actor, caller.from(), *outcome);
            return response;
        }
        let status = response.status();
        if !(status.is_success() || status == axum::http::StatusCode::NOT_MODIFIED) {
            return response;
        }
        let is_read = [Method::GET, Method::HEAD].contains(&self.method);
        let seen = response.extensions().get::<AuditEvent>();
        let mut login = None;
        let event = match seen {
            Some(seen) => seen.event(&caller.principal.actor),
            None if is_read && !SILENT_ROUTES.contains(&self.pattern) => {
                Event::new(What::Read, &caller.principal.actor).saying(self.pattern)
            }
            None => {
                login = self.login_to_note(node, caller);
                if login.is_none() {
                    return response;
                }
                let actor = &caller.principal.actor;
                about_account(Event::new(What::Login, actor), actor).saying(self.pattern)
            }
        };
        let event = event.at(caller.from());
        let noted = match seen.and_then(|seen| seen.opening) {
            None => note_read(node, event).await,
            Some(_) => Box::pin(note_emergency(node, event)).await,
        };
        match noted {
            Ok(()) => {
                if let Some(user) = login {
                    node.accounts.note_login(&user, caller.peer);
                }
                response
            }
            Err(error) => {
                if matches!(error, ApiError::TooManyReads { .. }) {
                    self.refused(node, &caller.principal.actor, caller.from(), Outcome::TooManyAttempts);
                }
                error.into_response()
            }
        }
    }

    /// Who has logged in, where the answer shows nothing and no such answer was noted from there today. A session has an entry
    /// of its own.
    fn login_to_note(&self, node: &AppState, caller: &Caller) -> Option<String> {
        let is_silent = SILENT_ROUTES.contains(&self.pattern) && caller.session.is_none();
        let user = caller.principal.actor.login_name().filter(|_| caller.principal.actor.has_account())?;
        (is_silent && !node.accounts.is_login_noted(&user, caller.peer)).then_some(user)
    }

    /// Notes a request that was turned away.
    pub(crate) fn refused(&self, node: &AppState, who: &Actor, peer: Option<IpAddr>, outcome: Outcome) {
        let (kind, id, owner) = self.subject();
        let event = Event::new(What::Denied, who).at(peer).ended(outcome);
        // A method that nobody knows may be any text.
        let method = Verb::of_method(self.method.as_str()).map_or("?", Verb::name);
        let said = format!("{method} {}", self.pattern);
        node.store.note(event.about(kind, &id, owner.as_deref()).saying(&said));
    }

    /// Collection, id and person, as far as the path names them.
    fn subject(&self) -> (&'static str, String, Option<String>) {
        let (mut id, mut person) = (String::new(), None);
        // What is no id may be anything, also somebody's name.
        let decoded = |part: &str| {
            let part = percent_decode_str(part).decode_utf8_lossy().into_owned();
            if is_plain(&part) { part } else { String::new() }
        };
        for (name, part) in self.pattern.split('/').zip(self.uri.path().split('/')) {
            match name {
                "{id}" => id = decoded(part),
                "{person_id}" => person = Some(fold_account(&decoded(part))),
                _ => {}
            }
        }
        let of_route = |schema: &&Schema| schema.routes.iter().any(|route| route.path == self.pattern);
        match SCHEMAS.iter().find(of_route) {
            Some(schema) if schema.owner == Owner::Itself => {
                (schema.collection, person.clone().unwrap_or_default(), person)
            }
            Some(schema) => (schema.collection, id, person),
            None => ("", id, person),
        }
    }
}
