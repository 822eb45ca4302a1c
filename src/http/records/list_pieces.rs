//! Floor 4. The text of a list, piece by piece as its client takes it.
//!
//! Each piece is read in a transaction of its own that ends before the piece is sent, and has its place among the answers
//! before the connection gets it ([`crate::http::bodies::answer_budget`]).

use std::sync::Arc;

use axum::body::Body;
use bson::RawDocument;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use crate::domain::record::Kind;
use crate::domain::schema::{DOCUMENT_PAGE_FIELD, Owner};
use crate::http::access::caller::Caller;
use crate::http::bodies::answer_budget::KeptBytes;
use crate::http::error::ApiError;
use crate::http::records::render::{show_into, uncovered};
use crate::http::state::app_state::AppState;
use crate::http::state::settings::CollectionShape;
use crate::http::workload::{self, LARGE_BYTES, Work, is_large};
use crate::store::{Kept, KeptKey, KeptOf, Part, Snapshot, StoreError};

/// Most records read from the store at once.
const BATCH_RECORDS_MAX: usize = 500;
/// Most records of a person that are read where the request is: a thread of its own would take longer than reading
/// a book of so many pages does.
const SHORT_RECORDS_MAX: usize = 16;
/// Roughly the most bytes read from the store at once, and of text in a piece; a list that nobody takes holds so much.
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// Which records a request lists.
pub(crate) struct Selection {
    pub(crate) kind: Kind,
    pub(crate) who: Who,
    /// Only documents of this page of life.
    pub(crate) page_id: Option<String>,
}

pub(crate) enum Who {
    Everyone,
    /// Records of this account.
    Owner(String),
    /// People found by their names, in order of `_id`.
    Found(Vec<String>),
}

impl Selection {
    /// Shows the next records that were asked for, at most so many. Returns where to go on; `None` at the end.
    fn visit(
        &self,
        snapshot: &Snapshot,
        after: Option<&str>,
        max: usize,
        mut show: impl FnMut(&str, &RawDocument) -> Result<(), ApiError>,
    ) -> Result<Option<String>, ApiError> {
        let part = Part { after, max, bytes_max: BATCH_BYTES_MAX, is_without_damaged: true };
        let kind = self.kind;
        let mut shown = Ok(());
        let spelling = match &self.who {
            Who::Owner(owner) => snapshot.book_spelling(owner)?,
            Who::Everyone | Who::Found(_) => None,
        };
        let mut include = |id: &str, document: &RawDocument| {
            if shown.is_ok() && self.includes(document) && kind.schema().is_in_book(document, spelling) {
                shown = show(id, document);
            }
        };
        let next = match &self.who {
            Who::Everyone => snapshot.visit(kind, part, include)?,
            Who::Owner(owner) if kind.schema().owner == Owner::Itself => {
                snapshot.look(kind, owner, |id, own| {
                    if after.is_none_or(|after| id > after) {
                        include(id, own);
                    }
                })?;
                None
            }
            Who::Owner(owner) => snapshot.visit_of(kind, owner, part, include)?,
            Who::Found(ids) => {
                let start = ids.partition_point(|id| after.is_some_and(|after| id.as_str() <= after));
                let (now, later) = ids[start..].split_at(max.min(ids.len() - start));
                for id in now {
                    match snapshot.look_at(kind, id, &mut include) {
                        Ok(_) | Err(StoreError::DamagedRow(_)) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                now.last().filter(|_| !later.is_empty()).cloned()
            }
        };
        shown.map(|()| next)
    }

    /// What it takes while the list is sent.
    pub(crate) fn kept_bytes(&self) -> usize {
        match &self.who {
            Who::Found(ids) => ids.iter().map(|id| id.len() + size_of::<String>()).sum(),
            Who::Everyone | Who::Owner(_) => 0,
        }
    }

    fn includes(&self, document: &RawDocument) -> bool {
        let Some(page_id) = &self.page_id else {
            return true;
        };
        document.get_str(DOCUMENT_PAGE_FIELD).is_ok_and(|page| page == page_id)
    }

    /// The id of the last of `limit` records after `after`, if others come after it.
    pub(crate) fn end_of_page(
        &self,
        node: &AppState,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Option<String>, ApiError> {
        let (mut cursor, mut left, mut last) = (after.map(str::to_owned), limit, None);
        loop {
            let mut is_beyond = false;
            let view = node.store.read()?;
            cursor = self.visit(
                &view,
                cursor.as_deref(),
                BATCH_RECORDS_MAX.min(left.saturating_add(1)),
                |id, _| {
                    match left.checked_sub(1) {
                        Some(less) => (left, last) = (less, Some(id.to_owned())),
                        None => is_beyond = true,
                    }
                    Ok(())
                },
            )?;
            if is_beyond {
                return Ok(last);
            }
            if cursor.is_none() {
                return Ok(None);
            }
        }
    }
}

/// What comes next of a list's text.
pub(crate) enum Piece {
    Text(Bytes),
    /// A large record, for which so much has to be waited for.
    Large(usize),
    /// Nothing.
    End,
}

#[derive(Clone, Copy)]
pub(crate) enum State {
    Start,
    Middle,
    End,
}

/// Renders the selected records batch by batch.
pub(crate) struct Lister {
    pub(crate) node: Arc<AppState>,
    pub(crate) selection: Selection,
    pub(crate) hidden: &'static [&'static str],
    pub(crate) cursor: Option<String>,
    /// The last id wanted, when the client gave a limit and there is more.
    pub(crate) until: Option<String>,
    pub(crate) state: State,
    /// The count of what the selection keeps.
    pub(crate) keeps: KeptBytes,
}

/// Where a piece of a list begins.
#[derive(Clone)]
pub(crate) struct Marker {
    cursor: Option<String>,
    state: State,
}

impl Lister {
    /// The rest is read as the client takes it.
    pub(crate) fn into_body(self, first: Bytes, caller: &Caller) -> Body {
        if matches!(self.state, State::End) {
            return Body::from(first);
        }
        let rest = stream::try_unfold((self, caller.clone()), |(lister, caller)| async move {
            let read = lister.read_on(&caller).await;
            // The connection is cut, so that the client sees an incomplete answer.
            let (text, lister) =
                read.map_err(|_| std::io::Error::other("the list could not be read to its end"))?;
            Ok::<_, std::io::Error>((!text.is_empty()).then_some((text, (lister, caller))))
        });
        Body::from_stream(stream::once(async move { Ok(first) }).chain(rest))
    }

    /// The next piece of the JSON text, empty after the end.
    async fn read_on(self, caller: &Caller) -> Result<(Bytes, Lister), ApiError> {
        let work = workload::take_for_list(&self.node, caller).await?;
        let begin = self.marker();
        let (piece, lister) = self.made().await?;
        lister.placed(begin, piece, work, caller).await
    }

    /// Reading may wait for the disk; the async workers must not.
    async fn made(mut self) -> Result<(Piece, Lister), ApiError> {
        let made = tokio::task::spawn_blocking(move || self.next_long().map(|piece| (piece, self)));
        made.await.map_err(|_| ApiError::Internal)?
    }

    /// The next piece of a list that may be long.
    pub(crate) fn next_long(&mut self) -> Result<Piece, ApiError> {
        self.next_piece(BATCH_RECORDS_MAX, None)
    }

    /// The text of a piece that begins there, once it has its place. Until then it is counted as `work`; where there is no
    /// place, it is dropped, and made again when there is.
    pub(crate) async fn placed(
        mut self,
        begin: Marker,
        mut piece: Piece,
        mut work: Work,
        caller: &Caller,
    ) -> Result<(Bytes, Lister), ApiError> {
        let node = Arc::clone(&self.node);
        loop {
            let text = match piece {
                Piece::End => Bytes::new(),
                Piece::Large(bytes) => {
                    drop(work);
                    return Ok((self.large_piece(caller, bytes).await?, self));
                }
                Piece::Text(text) => text,
            };
            if caller.answer.place(text.len()) {
                return Ok((text, self));
            }
            let bytes = text.len();
            drop((text, work));
            self.go_back(begin.clone());
            workload::wait_for_place(&node, caller, bytes).await?;
            work = workload::take_for_list(&node, caller).await?;
            (piece, self) = self.made().await?;
        }
    }

    /// The first piece of a list that is not long. Made where the request is: a thread of its own would take longer.
    pub(crate) async fn read_short(mut self, caller: &Caller) -> Result<(Bytes, Lister), ApiError> {
        let begin = self.marker();
        match self.next_piece(SHORT_RECORDS_MAX, None)? {
            Piece::End => Ok((Bytes::new(), self)),
            Piece::Large(bytes) => Ok((self.large_piece(caller, bytes).await?, self)),
            Piece::Text(text) if caller.answer.place(text.len()) => Ok((text, self)),
            Piece::Text(text) => {
                let bytes = text.len();
                drop(text);
                self.go_back(begin);
                workload::wait_for_place(&Arc::clone(&self.node), caller, bytes).await?;
                Box::pin(self.read_on(caller)).await
            }
        }
    }

    pub(crate) fn marker(&self) -> Marker {
        Marker { cursor: self.cursor.clone(), state: self.state }
    }

    fn go_back(&mut self, begin: Marker) {
        (self.cursor, self.state) = (begin.cursor, begin.state);
    }

    /// The next piece, with what the large record in it takes. It is read only when its text has a place.
    async fn large_piece(&mut self, caller: &Caller, mut bytes: usize) -> Result<Bytes, ApiError> {
        let node = Arc::clone(&self.node);
        let begin = self.marker();
        let mut text_bytes = workload::text_of(bytes);
        loop {
            workload::wait_for_place(&node, caller, text_bytes).await?;
            let work = workload::take(&node, caller, bytes).await?;
            match work.run(|| self.next_piece(BATCH_RECORDS_MAX, Some(&work)))? {
                Piece::Text(text) if caller.answer.place(text.len()) => return Ok(text),
                Piece::Text(text) => {
                    text_bytes = text.len();
                    self.go_back(begin.clone());
                }
                Piece::End => return Ok(Bytes::new()),
                Piece::Large(needed) => (bytes, text_bytes) = (needed, needed),
            }
        }
    }

    /// The next piece of the JSON text, of at most so many records.
    ///
    /// Pieces of whole lists are kept with the view that they were made of, which makes the second list of ten thousand
    /// people several times faster than the first.
    fn next_piece(&mut self, max: usize, work: Option<&Work>) -> Result<Piece, ApiError> {
        let view = self.node.store.read()?;
        let key = self.key(max);
        if let Some(kept) = key.as_ref().and_then(|key| view.kept(key)) {
            self.state = if kept.next.is_some() { State::Middle } else { State::End };
            self.cursor.clone_from(&kept.next);
            return Ok(Piece::Text(kept.text.clone()));
        }
        let made = self.made_piece(&view, max, work)?;
        if let (Piece::Text(text), Some(key)) = (&made, key) {
            let (text, next) = (text.clone(), self.cursor.clone());
            let kept = Kept { text, etag: String::new(), id: String::new(), owner: None, next };
            view.keep(key, Arc::new(kept));
        }
        Ok(made)
    }

    /// What the next piece is kept under, if it is a part of a whole list.
    fn key(&self, max: usize) -> Option<KeptKey> {
        let owner = match &self.selection.who {
            Who::Everyone => None,
            Who::Owner(owner) => Some(owner.clone()),
            Who::Found(_) => return None,
        };
        if self.until.is_some() || self.selection.page_id.is_some() || matches!(self.state, State::End) {
            return None;
        }
        let of = KeptOf::Part { owner, after: self.cursor.clone(), max };
        // A part that begins a list begins otherwise than one in its middle after the same id.
        let form = u8::from(self.hidden.is_empty()) | u8::from(matches!(self.state, State::Middle)) << 1;
        Some(KeptKey { kind: self.selection.kind, of, form })
    }

    fn made_piece(&mut self, view: &Snapshot, max: usize, work: Option<&Work>) -> Result<Piece, ApiError> {
        let mut text = match self.state {
            State::Start => vec![b'['],
            State::Middle => vec![b','],
            State::End => return Ok(Piece::End),
        };
        let before = text.len();
        loop {
            let (until, cursor) = (self.until.as_deref(), self.cursor.as_deref());
            let (mut before_large, mut last) = (None, None);
            let next = self.selection.visit(view, cursor, max, |id, document| {
                if before_large.is_some() || until.is_some_and(|until| id > until) {
                    return Ok(());
                }
                let begin = text.len();
                // One large record in a piece: what was waited for is for one. Signs that are written as escapes make long
                // text of short records.
                let is_full = begin - before >= BATCH_BYTES_MAX || is_large(document);
                before_large = match (&last, is_full) {
                    (Some(_), true) => Some(0),
                    _ => uncovered(&self.node, document, self.hidden, work)?,
                };
                if before_large.is_some() {
                    return Ok(());
                }
                if begin > before {
                    text.push(b',');
                }
                self.render(document, &mut text)?;
                let needed = document.as_bytes().len() + text.len() - begin;
                if text.len() - begin > LARGE_BYTES && !work.is_some_and(|work| work.covers(needed)) {
                    text.truncate(begin);
                    before_large = Some(needed);
                    return Ok(());
                }
                last = Some(id.to_owned());
                Ok(())
            })?;
            if let Some(bytes) = before_large {
                let Some(last) = last else {
                    return Ok(Piece::Large(bytes));
                };
                (self.cursor, self.state) = (Some(last), State::Middle);
                return Ok(Piece::Text(text.into()));
            }
            let is_over = next.as_deref().is_none_or(|next| until.is_some_and(|until| next >= until));
            self.cursor = next;
            if is_over {
                if text == b"," {
                    text.clear();
                }
                text.push(b']');
                self.state = State::End;
                return Ok(Piece::Text(text.into()));
            }
            // A batch may hold nothing that was asked for; a chunk does, or the comma would be wrong.
            if text.len() > before {
                self.state = State::Middle;
                return Ok(Piece::Text(text.into()));
            }
        }
    }

    fn render(&self, document: &RawDocument, text: &mut Vec<u8>) -> Result<(), ApiError> {
        match self.node.settings.collection_shape {
            CollectionShape::Flat => show_into(&self.node, document, self.hidden, text),
            CollectionShape::Rows => {
                text.push(b'[');
                show_into(&self.node, document, self.hidden, &mut *text)?;
                text.push(b']');
                Ok(())
            }
        }
    }
}
