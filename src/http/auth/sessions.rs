//! Floor 4. Logging in with a browser: a form, a cookie, and an end to it.
//!
//! A browser keeps HTTP Basic credentials until it is closed, which on a shared computer is too long. A session is
//! another way to the same [`Caller`], and ends by itself. Its cookie is sent by the browser whatever
//! page asks, so a write needs besides it a token that only a page of this node can have read.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::accounts::{Ended, SessionId, StoredAccount};
use crate::domain::access::Actor;
use crate::domain::audit::{Event, Outcome, What};
use crate::http::access::account_lookup::account_now;
use crate::http::access::caller::{Caller, Peer};
use crate::http::access::request_body::RequestBody;
use crate::http::access::write_quota;
use crate::http::audit_observer::{AuditObserver, about_account};
use crate::http::auth::basic_login::log_in;
use crate::http::auth::csrf_token;
use crate::http::auth::origins::is_foreign;
use crate::http::error::ApiError;
use crate::http::extract::{Pattern, form_pairs};
use crate::http::response::{escape, page};
use crate::http::state::app_state::AppState;
use crate::http::state::settings::BrowserSessions;

pub(crate) const SESSION_ROUTE: &str = "/session";
pub(crate) const SESSION_END_ROUTE: &str = "/session/end";
/// Browsers take a cookie of this name only over HTTPS, for this host alone and all its paths.
const COOKIE: &str = "__Host-session";
const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Strict";
/// Where scripts get the token, and send it.
const TOKEN_HEADER: &str = "x-csrf-token";
/// Writes whose form has a token that their handlers look at.
const FORM_ROUTES: &[&str] = &["/password/{person_id}", SESSION_END_ROUTE];
const PAGE: &str = include_str!("../pages/session.html");
const LOGIN_FORM: &str = r#"<form method="post" action="/session">
<label>Account
<input name="account" required maxlength="128" autocapitalize="none" spellcheck="false" autocomplete="username"></label>
<label>Password
<input type="password" name="password" required maxlength="72" autocomplete="current-password"></label>
<button type="submit">Log in</button>
</form>"#;
const PASSWORD_LINK: &str = r#"<p><a href="/password/{{path}}">Change the password</a></p>"#;
const END_FORM: &str = r#"{{password}}
<form method="post" action="/session/end">
<input type="hidden" name="token" value="{{token}}">
<button type="submit">Log off</button>
</form>"#;

/// A session that a request has shown and that goes on.
struct Live {
    id: SessionId,
    account: StoredAccount,
}

/// What a request has shown as its session.
enum Shown {
    Nothing,
    /// Two cookies of this name, or something that is no session's.
    Unknown,
    Ended,
    Live(Live),
}

/// Whether the request may pass without login: these handlers look for themselves.
pub(crate) fn is_open(node: &AppState, pattern: Pattern, request: &Request) -> bool {
    let read = [Method::GET, Method::HEAD].contains(request.method());
    let post = request.method() == Method::POST;
    let is_from_somewhere = request.extensions().get::<Peer>().is_some();
    is_from_somewhere
        && node.settings.browser_sessions != BrowserSessions::Off
        && match pattern {
            SESSION_ROUTE => read || post,
            SESSION_END_ROUTE => post,
            _ => false,
        }
}

/// Whom the session of a request lets in; `None` if it shows none, or credentials, which count before it.
pub(crate) fn caller(
    node: &AppState,
    pattern: Pattern,
    request: &Request,
    peer: IpAddr,
) -> Option<Result<Caller, ApiError>> {
    if request.headers().contains_key(header::AUTHORIZATION) {
        return None;
    }
    match shown(node, request.headers(), Some(peer)) {
        Ok(Shown::Nothing) => None,
        Ok(Shown::Unknown) => {
            let event = Event::by_nobody(What::LoginFailed).at(Some(peer));
            node.store.note(event.ended(Outcome::UnknownSession));
            Some(Err(ApiError::Unauthorized))
        }
        Ok(Shown::Ended) => Some(Err(ApiError::Unauthorized)),
        Ok(Shown::Live(live)) => Some(checked(node, pattern, request, peer, live)),
        Err(error) => Some(Err(error)),
    }
}

/// Lets reads pass, and writes that bring the token; nothing that a page of another site asks for, because the browser
/// sends the cookie to every port of this host.
fn checked(
    node: &AppState,
    pattern: Pattern,
    request: &Request,
    peer: IpAddr,
    live: Live,
) -> Result<Caller, ApiError> {
    let who = &live.account.principal.actor;
    if is_of_foreign_page(node, request.headers(), request.uri()) {
        AuditObserver::of(request, pattern).refused(node, who, Some(peer), Outcome::CrossOrigin);
        return Err(ApiError::CrossOrigin);
    }
    let is_read = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    let has_form = request.method() == Method::POST && FORM_ROUTES.contains(&pattern);
    let token = request.headers().get(TOKEN_HEADER).and_then(|token| token.to_str().ok());
    if is_read || has_form || token.is_some_and(|token| is_token_of(node, &live.id, token)) {
        return Ok(Caller::of_account(node, live.account, peer, Some(live.id)));
    }
    AuditObserver::of(request, pattern).refused(node, who, Some(peer), Outcome::Expired);
    Err(ApiError::NoToken)
}

/// A page that fetches names its origin. One that shows a picture, or runs a script, does not; but browsers say from which
/// site the request comes. People may come from another site by a link.
fn is_of_foreign_page(node: &AppState, headers: &HeaderMap, uri: &Uri) -> bool {
    let says =
        |name: &str, value: &str| headers.get(name).is_some_and(|said| said.as_bytes() == value.as_bytes());
    let is_link = says("sec-fetch-mode", "navigate") && says("sec-fetch-dest", "document");
    (headers.contains_key(header::ORIGIN) || !is_link) && is_foreign(&node.settings, headers, uri)
}

fn shown(node: &AppState, headers: &HeaderMap, from: Option<IpAddr>) -> Result<Shown, ApiError> {
    if node.settings.browser_sessions.for_request(headers) != BrowserSessions::On {
        return Ok(Shown::Nothing);
    }
    let mut secrets = cookies(headers);
    let Some(secret) = secrets.next() else {
        return Ok(Shown::Nothing);
    };
    // Which of two would count is for whoever put the other there to choose.
    if secrets.next().is_some() {
        return Ok(Shown::Unknown);
    }
    let sessions = node.accounts.sessions();
    let id = SessionId::of(secret);
    let Some(actor) = sessions.actor(&id) else {
        return Ok(Shown::Unknown);
    };
    let stored = account_now(node, &actor)?;
    match (sessions.resume(&id, stored.as_ref()), stored) {
        (Ok(_), Some(account)) => Ok(Shown::Live(Live { id, account })),
        (Ok(_), None) => Ok(Shown::Unknown),
        (Err(ended), _) => {
            note_ended(node, ended, from);
            Ok(Shown::Ended)
        }
    }
}

/// The values of all cookies of the name; browsers may send several headers (RFC 9113, 8.2.3).
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).filter_map(|pair| match pair.trim().split_once('=') {
        Some((COOKIE, value)) => Some(value),
        _ => None,
    })
}

fn purpose(id: &SessionId) -> String {
    format!("session {id}")
}

fn is_token_of(node: &AppState, id: &SessionId, token: &str) -> bool {
    csrf_token::is_valid(node, &purpose(id), token)
}

fn note_ended(node: &AppState, ended: impl IntoIterator<Item = Ended>, from: Option<IpAddr>) {
    for Ended { actor, why } in ended {
        let event = about_account(Event::new(What::SessionEnd, &actor), &actor);
        node.store.note(event.at(from).saying(why.name()));
    }
}

fn note_logoff(node: &AppState, actor: &Actor, from: Option<IpAddr>) {
    node.store.note(about_account(Event::new(What::Logoff, actor), actor).at(from));
}

impl AppState {
    /// Ends the sessions whose time is over, or whose account is not what it was; to be called now and then, so that the
    /// audit trail tells it in time.
    pub fn end_old_sessions(&self) {
        let sessions = self.accounts.sessions();
        note_ended(self, sessions.end_old(), None);
        for (actor, of) in sessions.by_actor() {
            match account_now(self, &actor) {
                Ok(stored) => note_ended(self, sessions.end_changed(&of, stored.as_ref()), None),
                Err(error) => tracing::warn!(%error, "whose sessions are over is not known"),
            }
        }
    }
}

/// A cookie that a browser may send in clear is no use to anybody but others.
fn require_private_line(node: &AppState, headers: &HeaderMap) -> Result<(), ApiError> {
    match node.settings.browser_sessions.for_request(headers) {
        BrowserSessions::OverPlainHttp => Err(ApiError::PlainHttp),
        _ => Ok(()),
    }
}

pub(crate) async fn form(
    State(node): State<Arc<AppState>>,
    Extension(peer): Extension<Peer>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    require_private_line(&node, &headers)?;
    Ok(match shown(&node, &headers, peer.from())? {
        Shown::Live(live) if !is_of_foreign_page(&node, &headers, &uri) => open_page(&node, &live),
        _ => login_page(StatusCode::OK, None),
    })
}

/// Logs in: `account` and `password`, as `application/x-www-form-urlencoded`.
pub(crate) async fn submit(
    State(node): State<Arc<AppState>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Response, ApiError> {
    require_private_line(&node, &headers)?;
    let (mut account, mut password) = (String::new(), zeroize::Zeroizing::new(String::new()));
    for (name, value) in form_pairs(&body.0?) {
        match name.as_str() {
            "account" => account = value.trim().to_owned(),
            "password" => *password = value,
            _ => {}
        }
    }
    let stored = match log_in(&node, &account, password.as_bytes(), peer.address()).await {
        Ok(stored) => stored,
        // With 401 browsers would ask for credentials of their own, and keep them.
        Err(ApiError::Unauthorized) => {
            let message = "The account or the password is wrong.";
            return Ok(login_page(StatusCode::FORBIDDEN, Some(message)));
        }
        Err(ApiError::Busy { retry_after_s }) => return Ok(too_early(retry_after_s)),
        Err(error) => return Err(error),
    };
    // Each login is an entry of the audit trail, as a write is.
    let principal = &stored.principal;
    let writer = write_quota::writer(&node, principal);
    if let Err(retry_after_s) = node.accounts.writes().take(&principal.actor.to_string(), writer) {
        let event = about_account(Event::new(What::Throttled, &principal.actor), &principal.actor);
        node.store.note(event.at(peer.from()).ended(Outcome::TooManyAttempts));
        return Ok(too_early(retry_after_s));
    }
    begin(&node, &headers, peer, &stored)
}

fn too_early(retry_after_s: u64) -> Response {
    let message = format!("Too many attempts. Please try again in {retry_after_s} seconds.");
    let mut response = login_page(StatusCode::TOO_MANY_REQUESTS, Some(&message));
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s));
    response
}

/// The session is always a new one, and the browser's former one ends: whoever knows that gains nothing.
fn begin(
    node: &AppState,
    headers: &HeaderMap,
    peer: Peer,
    stored: &StoredAccount,
) -> Result<Response, ApiError> {
    let (secret, ended) = node.accounts.sessions().begin(stored).map_err(|error| {
        tracing::error!(%error, "no randomness for a session");
        ApiError::Internal
    })?;
    note_ended(node, ended, None);
    // The account may have changed since its password was looked at: then others have ended its sessions before this one
    // was there.
    let (id, actor) = (SessionId::of(&secret), &stored.principal.actor);
    let ended = node.accounts.sessions().end_changed(&[id], account_now(node, actor)?.as_ref());
    if !ended.is_empty() {
        note_ended(node, ended, peer.from());
        return Err(ApiError::Unauthorized);
    }
    for former in cookies(headers) {
        if let Some(actor) = node.accounts.sessions().end(&SessionId::of(former)) {
            note_logoff(node, &actor, peer.from());
        }
    }
    node.store.note(about_account(Event::new(What::Login, actor), actor).at(peer.from()));
    Ok(with_cookie(
        Redirect::to(SESSION_ROUTE).into_response(),
        &format!("{COOKIE}={}; {ATTRIBUTES}", *secret),
    ))
}

/// Logs off by the form; a session that has ended already is as good.
pub(crate) async fn submit_end(
    State(node): State<Arc<AppState>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Response, ApiError> {
    if let Shown::Live(live) = shown(&node, &headers, peer.from())? {
        let token = form_pairs(&body.0?).into_iter().find(|(name, _)| name == "token");
        if !token.is_some_and(|(_, token)| is_token_of(&node, &live.id, &token)) {
            let event = Event::new(What::Denied, &live.account.principal.actor)
                .at(peer.from())
                .ended(Outcome::Expired);
            node.store.note(event.saying(&format!("POST {SESSION_END_ROUTE}")));
            return Err(ApiError::NoToken);
        }
        end(&node, &live.id, peer.from());
    }
    Ok(without_cookie(Redirect::to(SESSION_ROUTE).into_response()))
}

/// Logs off.
pub(crate) async fn delete(State(node): State<Arc<AppState>>, caller: Caller) -> Result<Response, ApiError> {
    let Some(id) = caller.session else {
        return Err(ApiError::NotFound("This request has no session".into()));
    };
    end(&node, &id, caller.from());
    Ok(without_cookie(StatusCode::NO_CONTENT.into_response()))
}

fn end(node: &AppState, id: &SessionId, from: Option<IpAddr>) {
    if let Some(actor) = node.accounts.sessions().end(id) {
        note_logoff(node, &actor, from);
    }
}

fn with_cookie(mut response: Response, cookie: &str) -> Response {
    if let Ok(mut cookie) = HeaderValue::from_str(cookie) {
        cookie.set_sensitive(true);
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

fn without_cookie(response: Response) -> Response {
    with_cookie(response, &format!("{COOKIE}=; {ATTRIBUTES}; Max-Age=0"))
}

fn login_page(status: StatusCode, message: Option<&str>) -> Response {
    let message = message.map(|text| format!("<p class=\"message\" role=\"alert\">{}</p>", escape(text)));
    let html = PAGE
        .replace("{{heading}}", "Log in")
        .replace("{{message}}", &message.unwrap_or_default())
        .replace("{{content}}", LOGIN_FORM);
    page(status, html)
}

/// For whoever is logged in; scripts read the token from the header.
fn open_page(node: &AppState, live: &Live) -> Response {
    let token = csrf_token::make(node, &purpose(&live.id));
    let account = live.account.principal.actor.login_name().unwrap_or_default();
    let path = utf8_percent_encode(&account, NON_ALPHANUMERIC).to_string();
    let password = PASSWORD_LINK.replace("{{path}}", &path);
    let content = END_FORM.replace("{{token}}", &token).replace("{{password}}", &password);
    // The account comes last: an id is the only text here that others choose.
    let html = PAGE
        .replace("{{message}}", "")
        .replace("{{content}}", &content)
        .replace("{{heading}}", &escape(&account));
    let mut response = page(StatusCode::OK, html);
    if let Ok(token) = HeaderValue::from_str(&token) {
        response.headers_mut().insert(TOKEN_HEADER, token);
    }
    response
}
