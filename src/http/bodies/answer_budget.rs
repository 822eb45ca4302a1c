//! Floor 4. What one answer holds beside what its client has taken: counted before it is given to the connection.
//!
//! Text is counted as work while it is made ([`crate::http::workload`]), and as an answer from then on, until its last byte is
//! sent. Where there is no room for it as an answer, it is dropped, and made again when there is: so nobody holds text that
//! nothing counts, and nobody keeps work while waiting for a slow reader.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use axum::extract::Request;

use crate::http::bodies::arrivals::{Arrivals, Received};
use crate::http::error::ApiError;

/// What the server counts for the answer to a request. Where no server stands before the API, nothing is counted.
#[derive(Clone, Default)]
pub(crate) struct AnswerBudget(Option<Arc<dyn Arrivals>>);

impl AnswerBudget {
    pub(crate) fn of(request: &Request) -> AnswerBudget {
        AnswerBudget(request.extensions().get::<Received>().map(|Received(counted)| Arc::clone(counted)))
    }

    /// Counts so many bytes of the next piece; false where there is no room for them.
    pub(crate) fn place(&self, bytes: usize) -> bool {
        self.0.as_ref().is_none_or(|counted| counted.place(bytes))
    }

    /// Returns once there is a place for so many bytes of the next piece.
    ///
    /// [`ApiError::Overloaded`] after some seconds without room, longer for an answer that has begun. Who waits must hold no
    /// work, and must compare the rights of the reader again.
    pub(crate) async fn wait_for_place(&self, bytes: usize) -> Result<(), ApiError> {
        match &self.0 {
            Some(counted) if !counted.place(bytes) => {
                counted.wait_for_place(bytes).await.map_err(|_| ApiError::Overloaded)
            }
            _ => Ok(()),
        }
    }

    /// Counts an answer that was made as work, from the moment when that work is given back.
    pub(crate) fn made(&self, bytes: usize) {
        if let Some(counted) = &self.0 {
            counted.made(bytes);
        }
    }

    /// Counts what an answer keeps between its pieces, for as long as what is returned lives; nothing where there is no room
    /// for so much.
    pub(crate) fn keep(&self, bytes: usize) -> Option<KeptBytes> {
        self.place(bytes).then(|| KeptBytes { _counted: self.0.as_ref().map(|counted| counted.keep(bytes)) })
    }
}

impl fmt::Debug for AnswerBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnswerBudget")
    }
}

/// Bytes that an answer keeps, counted until this is dropped.
#[derive(Default)]
pub(crate) struct KeptBytes {
    _counted: Option<Box<dyn Any + Send + Sync>>,
}
