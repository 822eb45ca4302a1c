//! Floor 3. The position in the change feed: where it is kept, what goes with a seal, and when it is given up.
//!
//! A feed that does not get on in three rounds, or that the centre refuses in three, is given up. Then everything is read
//! instead, and once that has come to its end the feed is tried again, whether it is refused at its beginning or when it
//! goes on.

use bson::{Document, doc};

use super::kept_rows::or_anew;
use super::no_feed::{self, Standing};
use super::round::{Round, RoundError};
use super::scan::{self, Reason};
use crate::central::{CentralError, Token};
use crate::flaw::{Flaw, planted};
use crate::store::{Fields, StoreError, Tx};

/// Rounds in a row in which the feed did not get on at all before it is given up.
const STALLED_ROUNDS_MAX: i32 = 3;

const META_FEED: &str = "feed";
/// Fields of the row of the feed. Rounds in a row that ended before the feed had told anything.
const STALLED: &str = "stalled";
/// The centre refuses the feed: everything is read instead.
const REFUSED: &str = "refused";
const TOKEN: &str = "token";
/// The position that goes with a seal on its way, and with the last one that the centre has.
const SEALING: &str = "sealing";
const SEALED: &str = "sealed";

impl Round<'_> {
    pub(super) fn saved_token(&self) -> Result<Option<Token>, StoreError> {
        let row = self.store.read()?.meta(META_FEED)?;
        Ok(row.and_then(|row| row.get_document(TOKEN).ok().cloned()).map(Token))
    }

    /// Whether the centre refuses the feed as far as is known, and everything is being read for that reason: a new position
    /// would begin that anew.
    pub(super) fn is_reading_all_instead(&self) -> Result<bool, StoreError> {
        let snapshot = self.store.read()?;
        let is_refused = snapshot.meta(META_FEED)?.is_some_and(|row| row.contains_key(REFUSED));
        Ok(is_refused && scan::is_under_way(&snapshot)?)
    }

    /// Begins with a fresh position, before anything is known of what happened until then.
    pub(super) async fn begin_position(&mut self, token: Option<Token>) -> Result<(), StoreError> {
        self.store
            .transact(move |tx| -> Result<(), StoreError> {
                let is_first = tx.meta(scan::META_EVER_SWEPT)?.is_none();
                let known = tx.meta(META_FEED)?.unwrap_or_default();
                lose_history(tx, if is_first { Reason::First } else { Reason::Lost })?;
                save_token(tx, token.as_ref())?;
                // Whether it is any better is seen when it goes on.
                let kept =
                    [STALLED, REFUSED].into_iter().filter_map(|field| Some((field, known.get(field)?)));
                let kept: Document = kept.map(|(field, value)| (field.to_owned(), value.clone())).collect();
                if let (false, Some(mut row)) = (kept.is_empty(), tx.meta(META_FEED)?) {
                    row.extend(kept);
                    tx.set_meta(META_FEED, Some(&row))?;
                }
                Ok(())
            })
            .await
    }

    /// The feed took all of its time, or was refused, where it was to go on from `begun`, or without a position where it
    /// was to begin. If it told nothing at all, and that again and again, it never will: its position is given up, and
    /// everything is looked at instead. Returns whether it is given up.
    pub(super) async fn note_stalled(&mut self, begun: Option<&Token>) -> Result<bool, StoreError> {
        let begun = begun.map(|Token(token)| token.clone());
        self.store
            .transact(move |tx| -> Result<bool, StoreError> {
                let mut row = tx.meta(META_FEED)?.unwrap_or_default();
                if row.get_document(TOKEN).ok() != begun.as_ref() {
                    return Ok(false);
                }
                let stalled = row.get_i32(STALLED).unwrap_or(0) + 1;
                if stalled >= STALLED_ROUNDS_MAX {
                    tracing::warn!("the centre cannot tell what has changed: its position is given up");
                    if begun.is_some() {
                        lose_history(tx, Reason::Lost)?;
                    }
                    return Ok(true);
                }
                row.insert(STALLED, stalled);
                tx.set_meta(META_FEED, Some(&row))?;
                Ok(false)
            })
            .await
    }

    /// The centre refuses the feed again and again: this round reads everything.
    pub(super) async fn read_all_instead(&mut self, error: &CentralError) -> Result<(), RoundError> {
        tracing::warn!(%error, "the centre refuses its change feed: everything is read instead");
        self.sweep_only().await?;
        let code = error.code();
        self.store
            .transact(move |tx| -> Result<(), StoreError> {
                no_feed::note(tx, Standing::Refused(code))?;
                // One more refusal is enough the next time.
                tx.set_meta(META_FEED, Some(&doc! {STALLED: STALLED_ROUNDS_MAX - 1, REFUSED: true}))
            })
            .await?;
        Ok(())
    }

    /// The feed has told everything: there is one.
    pub(super) async fn note_feed(&mut self) -> Result<(), StoreError> {
        if self.without_feed().is_none() {
            return Ok(());
        }
        self.store.transact(|tx| no_feed::note(tx, Standing::Told)).await
    }
}

/// Whether the row of the feed can be read.
pub(super) fn check(row: &[u8]) -> Result<(), StoreError> {
    let row = Fields::of(row, "the position in the change feed")?;
    for token in [TOKEN, SEALING, SEALED] {
        row.document_if_any(token)?;
    }
    row.int32_if_any(STALLED)?;
    row.flag_if_any(REFUSED)?;
    Ok(())
}

/// A position that cannot be read is given up when a round begins, with all that goes with it: everything is read, and a new
/// position is asked for.
pub(super) fn mend(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    let Some(row) = tx.meta_row(META_FEED)? else {
        return Ok(());
    };
    if or_anew(check(&row).map(Some), || None)?.is_some() {
        return Ok(());
    }
    let is_first = tx.meta_row(scan::META_EVER_SWEPT)?.is_none();
    lose_history(tx, if is_first { Reason::First } else { Reason::Lost })
}

/// A position means nothing any more, and neither do writes whose echo was to come behind it.
pub(super) fn forget_position(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    if tx.meta(META_FEED)?.is_some() {
        tx.set_meta(META_FEED, None)?;
    }
    tx.forget_echoes()
}

/// The position that goes with a seal that is about to be sent.
pub(crate) fn begin_seal(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    let Some(mut row) = tx.meta(META_FEED)? else {
        return Ok(());
    };
    let token = row.get(TOKEN).cloned();
    if row.get(SEALING) == token.as_ref() {
        return Ok(());
    }
    row.extend(token.map(|token| (SEALING.to_owned(), token)));
    tx.set_meta(META_FEED, Some(&row))
}

/// The centre has the seal, so it has come at least as far.
pub(crate) fn complete_seal(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    let Some(mut row) = tx.meta(META_FEED)? else {
        return Ok(());
    };
    match row.remove(SEALING) {
        Some(sealed) if row.get(SEALED) != Some(&sealed) => {
            row.insert(SEALED, sealed);
            tx.set_meta(META_FEED, Some(&row))
        }
        _ => Ok(()),
    }
}

/// The centre may not have come as far as the position that is saved: goes on from that of the last seal.
pub(crate) fn return_to_seal(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    let Some(mut row) = tx.meta(META_FEED)? else {
        return Ok(());
    };
    match row.remove(SEALED) {
        Some(sealed) => {
            row = doc! {TOKEN: sealed.clone(), SEALED: sealed};
            tx.set_meta(META_FEED, Some(&row))
        }
        None => lose_history(tx, Reason::Lost),
    }
}

pub(super) fn save_token(tx: &mut Tx<'_>, token: Option<&Token>) -> Result<(), StoreError> {
    let Some(Token(token)) = token else {
        return Ok(());
    };
    let mut row: Document = tx.meta(META_FEED)?.unwrap_or_default();
    if row.get_document(TOKEN).ok() != Some(token) {
        row.insert(TOKEN, token);
        row.remove(STALLED);
        row.remove(REFUSED);
        tx.set_meta(META_FEED, Some(&row))?;
    }
    Ok(())
}

/// The position in the feed is worth nothing any more: a fresh one is needed, and a look at everything.
pub(crate) fn lose_history(tx: &mut Tx<'_>, reason: Reason) -> Result<(), StoreError> {
    tx.set_meta(META_FEED, None)?;
    tx.forget_echoes()?;
    tx.doubt_intents()?;
    if reason == Reason::Lost && planted(Flaw::NoRescanAfterLostHistory) {
        return Ok(());
    }
    scan::make_due(tx, reason)
}
