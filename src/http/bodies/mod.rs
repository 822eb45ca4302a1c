//! Floor 4. Bodies of requests and answers: reading within limits, discarding after a refusal, sending in pieces, and counting the
//! memory that they take.
//!
//! - `answer_budget`: counts the memory of one answer
//! - `arrivals`: the counts that the server keeps of a request
//! - `decoding`: reads and decodes the body of a request
//! - `pieces`: sends a body in pieces under a rule
//! - `unread_body`: discards the rest of a body after a refusal

pub(super) mod answer_budget;
pub(super) mod arrivals;
pub(super) mod decoding;
pub(super) mod pieces;
pub(super) mod unread_body;
