//! Floor 5. Streams and bodies that count what they hold (see [`super::clients`]).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::BoxError;
use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_io_timeout::TimeoutStream;

use super::HTTP2_SEND_BYTES_MAX;
use super::clients::{Clients, Connected, Connection, Holding, STALLED, Turn, Unread};
use super::reading::{Readers, Reading};
use super::tls_records::TlsRecords;
use crate::http::{Overloaded, PieceRule, Pieces};

/// What a connection is given of an answer at once. HTTP/2 keeps what it was given until the client's window lets it go.
const PIECE_BYTES_MAX: usize = 32 << 10;

/// A long piece of memory goes back before the last of it is sent: so much of its end is copied. It is what a connection of
/// HTTP/2 has taken over, and one more piece, when it asks for the next one.
const TAIL_BYTES: usize = HTTP2_SEND_BYTES_MAX + PIECE_BYTES_MAX;
/// From how many bytes on memory is long.
const LONG_BYTES: usize = 2 * TAIL_BYTES;

/// What a connection reads before others come next. HTTP/2 and HTTP/1 go on as long as there are bytes, and many frames make
/// no request, for which somebody would have to be waited for.
const READ_AT_ONCE_BYTES_MAX: usize = 32 << 10;
/// Bytes that may come over the line without one of them being HTTP's: handshakes, and the begin of a record. TLS keeps
/// messages of its own in pieces up to 64 KiB; a client's hello with all its extensions has 2 KiB, a record 16 KiB.
const MUTE_BYTES_MAX: usize = 32 << 10;

/// A connection's bytes, until it is ended.
pub(super) struct Watched {
    stream: Pin<Box<TimeoutStream<TcpStream>>>,
    clients: Arc<Clients>,
    connection: Arc<Connection>,
    reading: Reading,
    /// Bytes read since others came next.
    read_at_once: usize,
    /// Of a line with TLS.
    records: Option<TlsRecords>,
}

/// A piece of what has come.
fn count_mute(connection: &Connection, bytes: usize) -> io::Result<()> {
    // What has just come may be HTTP's, who has not seen it yet.
    if connection.came_mute(bytes).saturating_sub(bytes) > MUTE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "much has come, and nothing of it is HTTP"));
    }
    Ok(())
}

impl Watched {
    pub(super) fn new(
        stream: TcpStream,
        connected: &Connected,
        readers: &Readers,
        is_https: bool,
    ) -> Watched {
        let mut stream = Box::pin(TimeoutStream::new(stream));
        stream.as_mut().set_write_timeout_pinned(Some(STALLED));
        let (clients, connection) = (Arc::clone(&connected.clients), Arc::clone(&connected.connection));
        let (reading, records) = (readers.reading(), is_https.then(TlsRecords::default));
        Watched { stream, clients, connection, reading, read_at_once: 0, records }
    }

    pub(super) fn clients(&self) -> &Arc<Clients> {
        &self.clients
    }

    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// An error if the connection is to end. Reading sees to it that its task is woken then.
    fn check(&self) -> io::Result<()> {
        if self.connection.is_ended() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.connection.has_ended(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let this = &mut *self;
        if this.read_at_once >= READ_AT_ONCE_BYTES_MAX {
            this.read_at_once = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        // HTTP/1 has one request at a time, which is begun at once.
        if !this.connection.speaks_http1() {
            // A connection that says nothing waits for its bytes, not for its turn.
            ready!(this.stream.get_ref().poll_read_ready(context))?;
            ready!(this.reading.poll(context))?;
        }
        let before = buffer.filled().len();
        let read = this.stream.as_mut().poll_read(context, buffer);
        let bytes = buffer.filled().len().saturating_sub(before);
        this.read_at_once = if read.is_pending() { 0 } else { this.read_at_once + bytes };
        ready!(read)?;
        if bytes > 0 {
            this.clients.has_moved(&this.connection);
            if let Some(records) = &mut this.records {
                records.follow(buffer.filled().get(before..).unwrap_or_default());
                this.connection.has_part_of_record(records.is_within());
            }
        }
        Poll::Ready(count_mute(&this.connection, bytes))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        self.stream.as_mut().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        self.stream.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        self.stream.as_mut().poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        self.stream.as_mut().poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// A request's body; fails with [`Overloaded`] where there is no room for more of it.
pub(super) struct Arriving<B> {
    pub(super) body: B,
    pub(super) turn: Arc<Turn>,
    /// What its connection may take in of it ahead, until all has come.
    pub(super) unread: Option<Unread>,
    /// Its place among those that are waited for.
    pub(super) place: Option<u64>,
}

impl<B> Drop for Arriving<B> {
    fn drop(&mut self) {
        self.turn.awaits_no_more(&mut self.place);
    }
}

impl<B> Arriving<B> {
    fn has_arrived(&mut self) {
        self.turn.has_arrived();
        self.unread = None;
        self.turn.awaits_no_more(&mut self.place);
    }
}

impl<B> HttpBody for Arriving<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if polled.is_pending() {
            let this = &mut *self;
            return match this.turn.awaits(&mut this.place, context) {
                Ok(()) => Poll::Pending,
                Err(_) => Poll::Ready(Some(Err(Overloaded.into()))),
            };
        }
        let frame = match ready!(polled) {
            Some(Ok(frame)) if !frame.is_trailers() => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            // Nothing here reads trailers.
            Some(Ok(_)) | None => {
                self.has_arrived();
                return Poll::Ready(None);
            }
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        let arrived = self.turn.has_come(bytes);
        if self.body.is_end_stream() {
            self.has_arrived();
        }
        Poll::Ready(Some(arrived.map(|()| frame).map_err(|_| Overloaded.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body: given piece by piece, and counted until the last byte is sent.
pub(super) type Held = Pieces<Counting>;

impl Held {
    pub(super) fn of(body: Body, turn: Arc<Turn>) -> Held {
        Pieces::new(body, Counting { turn, whole: None, memory_bytes: 0, behind: 0 })
    }
}

/// Counts what a connection was given of an answer.
pub(super) struct Counting {
    turn: Arc<Turn>,
    /// The count of what is behind the last frame as well: parts of one piece of memory, which is there until the last of them
    /// is sent.
    whole: Option<Arc<Holding>>,
    /// Bytes of the memory of which the last frame is a part; of these, what is behind that frame.
    memory_bytes: usize,
    behind: usize,
}

impl PieceRule for Counting {
    const BYTES_MAX: usize = PIECE_BYTES_MAX;

    fn asked(&mut self) {
        self.turn.asked();
    }

    /// Frames that come from one piece of memory are counted with the first one.
    fn frame(&mut self, bytes: Bytes, behind: usize) -> Bytes {
        self.behind = behind;
        let holding = self.whole.take().unwrap_or_else(|| {
            self.memory_bytes = bytes.len().saturating_add(behind);
            Arc::new(self.turn.holding_piece(self.memory_bytes))
        });
        self.whole = (behind > 0).then(|| Arc::clone(&holding));
        Bytes::from_owner(Counted { bytes, _holding: holding })
    }

    /// The end of a long one is a copy: who takes it slowly keeps no more than that.
    fn piece(&mut self, piece: Bytes, left: usize) -> Bytes {
        self.turn.gave(piece.len());
        let left = left.saturating_add(piece.len()).saturating_add(self.behind);
        if self.memory_bytes < LONG_BYTES || left > TAIL_BYTES {
            return piece;
        }
        let holding = Arc::new(self.turn.holding_beside(piece.len()));
        Bytes::from_owner(Counted { bytes: Bytes::copy_from_slice(&piece), _holding: holding })
    }

    fn ended(&mut self) {
        self.whole = None;
    }
}

/// Bytes that are counted until nobody needs them any more.
struct Counted {
    bytes: Bytes,
    _holding: Arc<Holding>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
