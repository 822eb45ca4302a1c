//! Floor 4. Middleware around all handlers.
//!
//! - `error_page`: error pages for browsers
//! - `every_request`: request id, log line, panics, limits, login
//! - `known_caller`: quotas, audit and rights of a known caller
//! - `long_answer`: compares the caller's rights again while an answer is sent

pub(super) mod error_page;
pub(super) mod every_request;
pub(super) mod known_caller;
pub(super) mod long_answer;
