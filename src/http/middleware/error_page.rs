//! Floor 4. Errors for people who look at them in a browser: a page instead of JSON, and a way on.
//!
//! A browser that navigates asks for `text/html`; the HMIS, scripts and pages that fetch do not. It never gets a
//! challenge for HTTP Basic where it can log in for a session: the box that browsers show for that would keep the
//! credentials until the browser is closed.

use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};

use crate::http::auth::links::LINK_ROUTE;
use crate::http::auth::sessions::SESSION_ROUTE;
use crate::http::error::{ApiError, Problem};
use crate::http::extract::Pattern;
use crate::http::response::{escape, page};
use crate::http::state::settings::BrowserSessions;

const PAGE: &str = include_str!("../pages/error.html");
const LOGIN_LINK: &str = "<p><a href=\"/session\">Log in</a></p>\n";
const UNUSABLE_LINK: &str = "This link was used already, has run out, or is not complete. It works once, within 24 hours. \
     An administrator of this node can make another one.";
const LOGIN_NEEDED: &str = "Account or password are wrong, or the login has ended.";

/// What a request says about who will look at the answer.
pub(crate) struct Reader {
    wants_page: bool,
    wants_problem_json: bool,
    /// Asked for a page and showed no credentials.
    may_be_led: bool,
    can_log_in: bool,
    pattern: Pattern,
}

impl Reader {
    pub(crate) fn of<B>(request: &Request<B>, pattern: Pattern, sessions: BrowserSessions) -> Reader {
        let headers = request.headers();
        let is_read = [Method::GET, Method::HEAD].contains(request.method());
        let accept = accepted(headers);
        Reader {
            wants_page: request.method() != Method::OPTIONS && prefers_page(&accept),
            wants_problem_json: accept.contains("application/problem+json"),
            may_be_led: is_read && !headers.contains_key(header::AUTHORIZATION),
            can_log_in: sessions.for_request(headers) == BrowserSessions::On,
            pattern,
        }
    }

    /// Who was refused before it was looked at what they asked for.
    fn unasked(wish: Unasked) -> Reader {
        let Unasked { wants_page, wants_problem_json } = wish;
        Reader { wants_page, wants_problem_json, may_be_led: false, can_log_in: false, pattern: "" }
    }

    /// The answer in the form that its reader wants.
    pub(crate) fn shown(&self, mut response: Response, request_id: &str) -> Response {
        let problem = response.extensions_mut().remove::<Problem>();
        let status = response.status();
        if !(status.is_client_error() || status.is_server_error()) {
            return response;
        }
        if !self.wants_page {
            return match problem {
                Some(problem) if self.wants_problem_json => problem.into_problem_json(response),
                _ => response,
            };
        }
        let is_page = |value: &header::HeaderValue| value.as_bytes().starts_with(b"text/html");
        if response.headers().get(header::CONTENT_TYPE).is_some_and(is_page) {
            return response;
        }
        let is_login_missing = status == StatusCode::UNAUTHORIZED;
        if is_login_missing && self.can_log_in && self.may_be_led && self.pattern != LINK_ROUTE {
            return Redirect::to(SESSION_ROUTE).into_response();
        }
        self.error_page(response, problem, request_id)
    }

    fn error_page(&self, response: Response, problem: Option<Problem>, request_id: &str) -> Response {
        let status = response.status();
        let is_login_missing = status == StatusCode::UNAUTHORIZED;
        let is_challenged = is_login_missing && !self.can_log_in && self.pattern != LINK_ROUTE;
        let reason = status.canonical_reason().unwrap_or("Error");
        let sentence = problem.map_or_else(|| reason.to_owned(), |problem| problem.sentence());
        let (heading, sentence) = match self.pattern {
            LINK_ROUTE if is_login_missing => ("This link does not work", UNUSABLE_LINK.to_owned()),
            _ if is_login_missing => ("Log in", LOGIN_NEEDED.to_owned()),
            _ => (reason, sentence),
        };
        let html = PAGE
            .replace("{{heading}}", heading)
            .replace("{{links}}", if is_login_missing && self.can_log_in { LOGIN_LINK } else { "" })
            .replace("{{status}}", status.as_str())
            .replace(
                "{{request}}",
                &if request_id.is_empty() { String::new() } else { format!(" &middot; {request_id}") },
            )
            // Last: it may repeat what somebody has sent.
            .replace("{{message}}", &escape(&sentence));
        let mut shown = page(status, html);
        for (name, value) in response.headers() {
            let is_of_body =
                [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::CONTENT_ENCODING].contains(name);
            let is_box = *name == header::WWW_AUTHENTICATE && !is_challenged;
            if !is_of_body && !is_box {
                shown.headers_mut().append(name, value.clone());
            }
        }
        // What the audit notes of a refusal was noted further inside.
        shown
    }
}

/// Why a request is refused before it is looked at what it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    NoHost,
    TooManyFields,
    Overloaded,
}

/// What the head of a request says about who will look at such a refusal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unasked {
    wants_page: bool,
    wants_problem_json: bool,
}

impl Unasked {
    pub(crate) fn of(headers: &HeaderMap) -> Unasked {
        let accept = accepted(headers);
        Unasked {
            wants_page: prefers_page(&accept),
            wants_problem_json: accept.contains("application/problem+json"),
        }
    }

    pub(crate) fn refuse(self, refusal: Refusal) -> Response {
        let error = match refusal {
            Refusal::NoHost => ApiError::NoHost,
            Refusal::TooManyFields => ApiError::TooManyFields,
            Refusal::Overloaded => ApiError::Overloaded,
        };
        Reader::unasked(self).shown(error.into_response(), "")
    }
}

fn accepted(headers: &HeaderMap) -> String {
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    lines.collect::<Vec<_>>().join(",").to_ascii_lowercase()
}

/// Whether a page is named and wanted more than JSON.
fn prefers_page(accept: &str) -> bool {
    let weight = |types: &[&str]| {
        let of = |part: &str| {
            let mut words = part.split(';').map(str::trim);
            let is_it = words.next().is_some_and(|kind| types.contains(&kind));
            let quality =
                words.find_map(|word| word.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse::<f32>().ok());
            is_it.then_some(quality.unwrap_or(0.0))
        };
        accept.split(',').filter_map(of).fold(0.0, f32::max)
    };
    let page = weight(&["text/html", "application/xhtml+xml"]);
    page > 0.0 && page > weight(&["application/json", "application/problem+json"])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each is an error with a code for programs, and a page for people.
    #[tokio::test]
    async fn who_is_refused_unasked_gets_what_others_get() {
        for (refusal, status, code) in [
            (Refusal::NoHost, 400, "bad_request"),
            (Refusal::TooManyFields, 431, "too_many_fields"),
            (Refusal::Overloaded, 503, "overloaded"),
        ] {
            let answer = |accept: &'static str| async move {
                let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().expect("a value"))]);
                let (head, body) = Unasked::of(&headers).refuse(refusal).into_parts();
                let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
                let kind = head.headers[header::CONTENT_TYPE].to_str().expect("text").to_owned();
                (head.status.as_u16(), kind, String::from_utf8(body.to_vec()).expect("text"))
            };
            let (seen, kind, page) = answer("text/html,*/*;q=0.8").await;
            assert!(seen == status && kind.starts_with("text/html") && page.contains("<h1>"), "{page}");
            assert!(page.contains(&format!("<footer>{status}</footer>")), "{page}");
            let (seen, kind, json) = answer("*/*").await;
            let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
            assert!(seen == status && kind == "application/json" && json["code"] == code, "{kind} {json}");
            assert_eq!(answer("application/problem+json").await.1, "application/problem+json");
        }
    }

    #[test]
    fn only_who_names_pages_before_json_gets_them() {
        for accept in [
            "text/html",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "text/html;q=0.9, application/json;q=0.5",
            "image/png, text/html; q=0.1",
        ] {
            assert!(prefers_page(accept), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "application/json",
            "application/json, text/html",
            "application/json, text/html;q=0.9",
            "text/html;q=0",
            "text/html;q=x",
            "text/*",
            "application/problem+json, text/html",
        ] {
            assert!(!prefers_page(accept), "{accept}");
        }
    }
}
