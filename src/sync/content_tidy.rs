//! Floor 3. CONTENT: keeping the queues true, and letting go of bytes that nothing names any more.

use bson::{Document, doc};

use super::content::{ASK_NAMES_MAX, Lane, RETRY_AFTER_ROUNDS};
use super::round::RoundError;
use super::step;
use crate::central::Central;
use crate::domain::record::{Kind, RecordKey};
use crate::store::{StoreError, Tx};

/// Records or contents that one transaction looks at to fill the queues.
const QUEUE_ROWS_MAX: usize = 500;
/// Rounds after which it is asked again whether the centre still has all that is here.
const LOOK_AGAIN_ROUNDS: i64 = 500;
/// Idle contents that a round looks at.
const TIDY_MAX: usize = 50;
/// Rounds after which content is looked at again that a record on its way to the centre still names.
const MOVING_ROUNDS: i64 = 10;

/// How far the queues of a store from before there were queues are filled.
const META_QUEUE: &str = "content_queue";
/// When it was last asked whether the centre has what is here, and how far that came.
const META_LOOK: &str = "content_look";

/// Where filling the queues stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Filling {
    Records { after: Option<RecordKey> },
    Bytes { after: String },
    Done,
}

impl Filling {
    fn decode(row: Option<&Document>) -> Filling {
        let text = |field| row.and_then(|row: &Document| row.get_str(field).ok());
        let key = || Some(RecordKey::new(Kind::from_collection(text("collection")?)?, text("id")?));
        match text("at") {
            Some("done") => Filling::Done,
            Some("bytes") => Filling::Bytes { after: text("after").unwrap_or_default().to_owned() },
            _ => Filling::Records { after: key() },
        }
    }

    fn encode(&self) -> Document {
        match self {
            Filling::Records { after: None } => doc! {"at": "records"},
            Filling::Records { after: Some(key) } => {
                doc! {"at": "records", "collection": key.kind.schema().collection, "id": &key.id}
            }
            Filling::Bytes { after } => doc! {"at": "bytes", "after": after},
            Filling::Done => doc! {"at": "done"},
        }
    }

    /// Some more of it.
    fn go_on(self, tx: &mut Tx<'_>) -> Result<Filling, StoreError> {
        Ok(match self {
            Filling::Records { after } => match tx.queue_contents(after.as_ref(), QUEUE_ROWS_MAX)? {
                Some(last) => Filling::Records { after: Some(last) },
                None => Filling::Bytes { after: String::new() },
            },
            Filling::Bytes { after } => match tx.note_idle(&after, QUEUE_ROWS_MAX)? {
                Some(last) => Filling::Bytes { after: last },
                None => Filling::Done,
            },
            Filling::Done => Filling::Done,
        })
    }
}

/// It is asked in the next rounds whether the centre still has all that is here: it may be another one.
pub(super) fn look_again_soon(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    tx.set_meta(META_LOOK, Some(&doc! {"after": ""}))
}

impl Lane<'_> {
    /// Fills the queues once, if the store was filled by a version that had none.
    pub(super) async fn queue(&self) -> Result<(), StoreError> {
        let is_done = Filling::decode(self.store.read()?.meta(META_QUEUE)?.as_ref()) == Filling::Done;
        let mut is_done = is_done;
        while !is_done {
            is_done = self
                .store
                .transact(|tx| -> Result<bool, StoreError> {
                    let filling = Filling::decode(tx.meta(META_QUEUE)?.as_ref()).go_on(tx)?;
                    tx.set_meta(META_QUEUE, Some(&filling.encode()))?;
                    Ok(filling == Filling::Done)
                })
                .await?;
        }
        Ok(())
    }

    /// Asks from time to time, some names a round, whether the centre still has what is here: one restored
    /// from a copy without its attachments says nothing about that by itself.
    pub(super) async fn look_again(&mut self, central: &mut dyn Central) -> Result<(), RoundError> {
        let row = self.store.read()?.meta(META_LOOK)?.unwrap_or_default();
        let last = row.get_i64("at").unwrap_or(self.number);
        let is_due = self.number < last || self.number >= last + LOOK_AGAIN_ROUNDS;
        let after = match row.get_str("after") {
            Ok(after) => after.to_owned(),
            Err(_) if is_due => String::new(),
            // Everything is asked about anyway when it comes here; from then on time counts.
            Err(_) if row.is_empty() => return Ok(self.keep_look(None).await?),
            Err(_) => return Ok(()),
        };
        let held = self.store.read()?.content_held(&after, ASK_NAMES_MAX)?;
        let found = central.content_files(&held).await?;
        let lost: Vec<String> =
            held.iter().filter(|name| !found.iter().any(|file| file.sha256 == **name)).cloned().collect();
        if !lost.is_empty() {
            self.store.transact(move |tx| lost.iter().try_for_each(|sha256| tx.owe_content(sha256))).await?;
        }
        let next = held.last().filter(|_| held.len() == ASK_NAMES_MAX).cloned();
        Ok(self.keep_look(next).await?)
    }

    async fn keep_look(&self, after: Option<String>) -> Result<(), StoreError> {
        let row = match after {
            Some(after) => doc! {"after": after},
            None => doc! {"at": self.number},
        };
        self.store.transact(move |tx| tx.set_meta(META_LOOK, Some(&row))).await
    }

    /// Removes bytes that nothing here names and that the centre has.
    pub(super) async fn tidy(&mut self, central: &mut dyn Central) -> Result<(), RoundError> {
        let idle = self.store.read()?.content_idle(self.number, RETRY_AFTER_ROUNDS, TIDY_MAX)?;
        let files = central.content_files(&idle.free).await?;
        let is_there = |name: &String| files.iter().any(|file| file.sha256 == *name && !file.is_marked);
        let (there, lacking): (Vec<String>, Vec<String>) = idle.free.into_iter().partition(is_there);
        let kept: Vec<String> = idle.kept.into_iter().chain(lacking).collect();
        self.put_off(idle.moving, MOVING_ROUNDS).await?;
        self.put_off(kept, RETRY_AFTER_ROUNDS).await?;
        for sha256 in there {
            self.store.transact(move |tx| tx.remove_idle(&sha256)).await?;
            step("content.let_go");
        }
        Ok(())
    }

    async fn put_off(&self, names: Vec<String>, rounds: i64) -> Result<(), StoreError> {
        if names.is_empty() {
            return Ok(());
        }
        let next = self.number + rounds;
        self.store.transact(move |tx| names.iter().try_for_each(|sha256| tx.keep_idle(sha256, next))).await
    }
}
