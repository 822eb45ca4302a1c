//! Floor 4. Bodies as they come and go: read within limits, thrown away after a refusal, sent in pieces, and counted for as long as they
//! take memory.
//!
//! - `answer_budget`: what one answer holds
//! - `arrivals`: how the server counts a request
//! - `decoding`: reads the body of a request
//! - `pieces`: a body in pieces, by a rule
//! - `unread_body`: what a refusal leaves unread

pub(super) mod answer_budget;
pub(super) mod arrivals;
pub(super) mod decoding;
pub(super) mod pieces;
pub(super) mod unread_body;
