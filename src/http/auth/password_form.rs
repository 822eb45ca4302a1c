//! Floor 4. The form that changes a password in a browser.
//!
//! The new password twice, and the current one when it is one's own. Another person's password is
//! changed only by root. The hidden token is for one caller and one path, so that a form of another site cannot
//! post here.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use bson::Document;

use crate::accounts::{HashError, canonical};
use crate::domain::access::{Acl, Denied, Grant, Principal, Target, Verb};
use crate::domain::audit::Outcome;
use crate::domain::record::{Kind, fold_account};
use crate::http::access::account::{ACCOUNT_BYTES, Account, store_password, unknown};
use crate::http::access::caller::Caller;
use crate::http::access::request_body::RequestBody;
use crate::http::auth::csrf_token;
use crate::http::auth::current_password::{find, held, is_current, is_own};
use crate::http::error::{ApiError, Refused};
use crate::http::extract::{PathParams, form_pairs};
use crate::http::response::{escape, page};
use crate::http::state::app_state::AppState;
use crate::http::state::settings::BrowserSessions;
use crate::http::workload::{self, changing};
use crate::store::{Edit, EditError, StoreError};

const PAGE: &str = include_str!("../pages/password.html");
const FORM: &str = include_str!("../pages/password_form.html");
const CURRENT_FIELD: &str = "<label>Current password\n<input type=\"password\" name=\"current\" required autocomplete=\"current-password\"></label>";
const LOGIN_LINK: &str = "<p><a href=\"/session\">Log in</a></p>\n";
const SAVE_TRIES_MAX: usize = 8;

pub(crate) async fn form(
    State(node): State<Arc<AppState>>,
    caller: Caller,
    params: PathParams,
) -> Result<Response, ApiError> {
    let person = params.person();
    authorize(&node.acl(), &caller.principal, Verb::Get, person)?;
    held(&node, person)?;
    let purpose = purpose(&node, &caller, person)?;
    Ok(render(&node, &caller, person, &purpose, StatusCode::OK, None))
}

pub(crate) async fn submit(
    State(node): State<Arc<AppState>>,
    caller: Caller,
    params: PathParams,
    body: RequestBody,
) -> Result<Response, ApiError> {
    let person = params.person();
    authorize(&node.acl(), &caller.principal, Verb::Post, person)?;
    let fields = Fields::parse(&body.0?);
    let purpose = purpose(&node, &caller, person)?;
    let refuse = |message: &str| {
        let message = Some((false, message));
        render(&node, &caller, person, &purpose, StatusCode::UNPROCESSABLE_ENTITY, message)
    };
    if !csrf_token::is_valid(&node, &purpose, &fields.token) {
        let message = Some((false, "The form had expired. Please try again."));
        let mut response = render(&node, &caller, person, &purpose, StatusCode::FORBIDDEN, message);
        response.extensions_mut().insert(Refused(Outcome::Expired));
        return Ok(response);
    }
    if canonical(&fields.password) != canonical(&fields.again) {
        return Ok(refuse("The two new passwords differ."));
    }
    if is_own(&caller.principal, person) && !is_current(&node, &caller, person, &fields.current).await? {
        return Ok(refuse("The current password is wrong."));
    }
    let hash = match node.accounts.hash(person, &fields.password, caller.peer).await {
        Ok(hash) => hash,
        Err(HashError::Unacceptable(message)) => return Ok(refuse(&message)),
        Err(error) => return Err(error.into()),
    };
    save(&node, &caller, person, &hash).await?;
    let message = Some((true, "The password has been changed."));
    Ok(render(&node, &caller, person, &purpose, StatusCode::OK, message))
}

/// The name alone is not enough for another's password. A technician's account is no record, so there is no grant for
/// it; the rules count all the same.
pub(crate) fn authorize(acl: &Acl, who: &Principal, verb: Verb, account: &str) -> Result<(), Denied> {
    if let Account::Local(_) = Account::named(account) {
        acl.authorize_node(who, verb, "password")?;
        return if is_own(who, account) || who.is_root() { Ok(()) } else { Err(Denied::Forbidden) };
    }
    authorize_person(acl, who, verb, account).map(|_| ())
}

/// As [`authorize`], for people's accounts.
fn authorize_person(acl: &Acl, who: &Principal, verb: Verb, person: &str) -> Result<Grant, Denied> {
    let grant = acl.authorize(who, verb, "password", Kind::Person, Target::PathPerson(person))?;
    if who.is(person) || who.is_root() { Ok(grant) } else { Err(Denied::Forbidden) }
}

async fn save(node: &Arc<AppState>, caller: &Caller, person: &str, hash: &str) -> Result<(), ApiError> {
    if let account @ Account::Local(_) = Account::named(person) {
        return save_local(node, caller, account, hash).await;
    }
    for _ in 0..SAVE_TRIES_MAX {
        let grant = authorize_person(&node.acl(), &caller.principal, Verb::Post, person)?;
        let stored = node.store.read()?.look(Kind::Person, person, |_, stored| changing(stored))?;
        let work = Arc::new(workload::take(node, caller, stored.unwrap_or(0)).await?);
        let found = find(node, person)?;
        let expected = Some(found.document.as_bytes().to_vec());
        let mut document =
            Document::try_from(&*found.document).map_err(|e| StoreError::Damaged(e.to_string()))?;
        document.insert("password", hash);
        let (requires, grants, content) = (Vec::new(), None, None);
        let edit = Edit {
            grant,
            id: found.id,
            expected,
            document: Some(document),
            requires,
            grants,
            content,
            closes: None,
        };
        match caller.writes(node).charged(&work).edit(edit).await {
            Ok(()) => return Ok(()),
            Err(EditError::Moved) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(EditError::Moved.into())
}

async fn save_local(
    node: &Arc<AppState>,
    caller: &Caller,
    account: Account,
    hash: &str,
) -> Result<(), ApiError> {
    let actor = caller.principal.actor.clone();
    let _claim = node.store.claim(ACCOUNT_BYTES)?;
    let hash = hash.to_owned();
    let set = caller
        .writes(node)
        .transact(move |tx| -> Result<bool, StoreError> { store_password(tx, &account, &hash, &actor) });
    if set.await? { Ok(()) } else { Err(unknown()) }
}

/// The fields of the form, as `application/x-www-form-urlencoded`.
#[derive(Default)]
pub(crate) struct Fields {
    token: String,
    current: String,
    pub(crate) password: String,
    pub(crate) again: String,
}

impl Fields {
    pub(crate) fn parse(body: &[u8]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in form_pairs(body) {
            match name.as_str() {
                // The second ones are Thalamus's, for programs that fill in its form.
                "token" | "csrf_token" => fields.token = value,
                "current" => fields.current = value,
                "password" => fields.password = value,
                "again" | "pconfirm" => fields.again = value,
                _ => {}
            }
        }
        fields
    }
}

/// What the token of a form is for: this caller and this account, as both are now.
fn purpose(node: &AppState, caller: &Caller, person: &str) -> Result<String, ApiError> {
    let count = node.store.read()?.rights_count(&Account::named(person).actor())?;
    let (who, own_count) = (&caller.principal.actor, caller.rights_count);
    Ok(format!("{who} {own_count}\n/password/{} {count}", fold_account(person)))
}

fn render(
    node: &AppState,
    caller: &Caller,
    person: &str,
    purpose: &str,
    status: StatusCode,
    message: Option<(bool, &str)>,
) -> Response {
    let form = FormPage {
        account: person.to_owned(),
        token: csrf_token::make(node, purpose),
        asks_current: is_own(&caller.principal, person),
        chars_min: node.accounts.password_chars_min(),
        can_log_in: node.settings.browser_sessions == BrowserSessions::On,
    };
    form.render(status, message)
}

/// The page with the form.
pub(crate) struct FormPage {
    pub(crate) account: String,
    pub(crate) token: String,
    pub(crate) asks_current: bool,
    pub(crate) chars_min: usize,
    /// Whether there is a page to log in with the new password.
    pub(crate) can_log_in: bool,
}

impl FormPage {
    /// With a message, and whether it is a good one.
    pub(crate) fn render(&self, status: StatusCode, message: Option<(bool, &str)>) -> Response {
        let is_done = message.is_some_and(|(good, _)| good);
        let tone = if is_done { "#dff3e6" } else { "#fde5df" };
        let message = message
            .map(|(_, text)| format!("<p class=\"message\" role=\"status\">{}</p>", escape(text)))
            .unwrap_or_default();
        // The account comes last: an id is the only text here that others choose.
        let html = PAGE
            .replace(
                "{{form}}",
                match (is_done, self.can_log_in) {
                    (false, _) => FORM,
                    // The session of before ended with the password of before.
                    (true, true) => LOGIN_LINK,
                    (true, false) => "",
                },
            )
            .replace("{{tone}}", tone)
            .replace("{{message}}", &message)
            .replace("{{current}}", if self.asks_current { CURRENT_FIELD } else { "" })
            .replace("{{min}}", &self.chars_min.to_string())
            .replace("{{token}}", &self.token)
            .replace("{{person}}", &escape(&self.account));
        page(status, html)
    }
}
