//! Floor 4. What surrounds the handlers of all requests.
//!
//! - `error_page`: errors for people who look at them in a browser
//! - `every_request`: id, log line, panics, limits, login
//! - `known_caller`: quotas, audit and rights of a known caller
//! - `long_answer`: rights, compared again while an answer is sent

pub(super) mod error_page;
pub(super) mod every_request;
pub(super) mod known_caller;
pub(super) mod long_answer;
