//! Floor 4. Bodies that are given in pieces, by a rule that sees each frame and each piece.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

/// What is done with the pieces of a body.
pub(crate) trait PieceRule: Send + Unpin {
    /// Most bytes of a piece.
    const BYTES_MAX: usize;

    /// The next piece is asked for.
    fn asked(&mut self) {}

    /// Whether the next piece may be given; an error ends the body as a broken one.
    fn check(&mut self) -> Result<(), axum::Error> {
        Ok(())
    }

    /// A frame of the body. `behind`: how many bytes are known to come behind it.
    fn frame(&mut self, bytes: Bytes, _behind: usize) -> Bytes {
        bytes
    }

    /// A piece that is given now. `left`: how many bytes of its frame come behind it.
    fn piece(&mut self, bytes: Bytes, _left: usize) -> Bytes {
        bytes
    }

    /// Nothing comes any more.
    fn ended(&mut self) {}
}

/// A body in pieces of at most [`PieceRule::BYTES_MAX`]. Its length stays known, so that a client notices that the end is
/// missing.
pub(crate) struct Pieces<R> {
    body: Body,
    /// What is still to be given of the last frame.
    rest: Bytes,
    rule: R,
    /// After an error.
    is_over: bool,
}

impl<R> Pieces<R> {
    pub(crate) fn new(body: Body, rule: R) -> Pieces<R> {
        Pieces { body, rest: Bytes::new(), rule, is_over: false }
    }
}

impl<R: PieceRule> HttpBody for Pieces<R> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        self.rule.asked();
        let mut frame = None;
        if self.rest.is_empty() {
            let Some(next) = ready!(Pin::new(&mut self.body).poll_frame(context)) else {
                self.rule.ended();
                return Poll::Ready(None);
            };
            frame = Some(next.map(Frame::into_data));
        }
        // Before the error that a body may have ended with by itself.
        let checked = self.rule.check();
        match checked.and_then(|()| frame.transpose()) {
            Err(error) => {
                self.is_over = true;
                (self.rest, self.body) = (Bytes::new(), Body::empty());
                self.rule.ended();
                return Poll::Ready(Some(Err(error)));
            }
            Ok(Some(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
            Ok(Some(Ok(bytes))) => {
                let behind = usize::try_from(self.body.size_hint().lower()).unwrap_or(usize::MAX);
                self.rest = self.rule.frame(bytes, behind);
            }
            Ok(None) => {}
        }
        let most = self.rest.len().min(R::BYTES_MAX);
        let piece = self.rest.split_to(most);
        let left = self.rest.len();
        let piece = self.rule.piece(piece, left);
        if self.is_end_stream() {
            self.rule.ended();
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || (self.rest.is_empty() && self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower().saturating_add(rest));
        if let Some(upper) = body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}
