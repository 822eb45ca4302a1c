//! Floor 1. Which attachments are here as a whole, after the table that says it was lost.
//!
//! Their names are hashes of their bytes, so the bytes tell. Those that are shorter than a document says are looked at in
//! the transaction that makes the tables anew: they are being fetched, and are few. All others have come to their end, and
//! are compared afterwards, one by one and outside of any write: it reads every byte of them.

use bson::doc;
use sha2::{Digest as _, Sha256};

use crate::domain::content::{CONTENT_CHUNK_BYTES, Content};
use crate::store::engine::{Snapshot, Store, Tx};
use crate::store::error::{StoreError, unless_damaged};
use crate::store::schema::CONTENT;

/// How far the comparison has come, while there is one.
const META_UNCHECKED: &str = "content_unchecked";

impl Tx<'_> {
    /// Which contents are here as a whole is not known any more.
    pub(in crate::store) fn want_unfinished(&mut self) -> Result<(), StoreError> {
        let whole = self.whole_contents()?;
        for (sha256, content) in self.named_contents()? {
            let Some(content) = content.filter(|_| whole.contains(&sha256)) else {
                continue;
            };
            if self.content_length(&sha256)? < content.length && !self.is_as_named(&sha256)? {
                self.content_wanted.insert(sha256.as_str(), (content.length, 0))?;
            }
        }
        self.set_meta(META_UNCHECKED, Some(&doc! {"after": ""}))
    }

    /// Bytes of the chunks that are here; all but the last are full. A damaged last one counts as full.
    fn content_length(&self, sha256: &str) -> Result<u64, StoreError> {
        let last = self.content.keys((sha256, 0)..=(sha256, u32::MAX))?.next_back().transpose()?;
        let Some(last) = last.map(|at| at.value().1) else {
            return Ok(0);
        };
        let chunk = unless_damaged(self.content.get((sha256, last)))?.flatten();
        let bytes = chunk.map_or(CONTENT_CHUNK_BYTES, |chunk| chunk.value().len());
        Ok(u64::from(last) * CONTENT_CHUNK_BYTES as u64 + bytes as u64)
    }

    fn is_as_named(&self, sha256: &str) -> Result<bool, StoreError> {
        let mut sum = Sha256::new();
        for row in self.content.range((sha256, 0)..=(sha256, u32::MAX))?.sound() {
            sum.update(row?.1.value());
        }
        Ok(hex::encode(sum.finalize()) == sha256)
    }

    /// Content whose bytes are not what its name says is fetched again, if a record still names it.
    fn want_again(&mut self, sha256: &str) -> Result<(), StoreError> {
        let Some(key) = self.named_by(sha256)? else {
            return Ok(());
        };
        if !self.has_content(sha256)? {
            return Ok(());
        }
        let document = unless_damaged(self.document(&key))?.flatten();
        let Some(content) = document.and_then(|document| Content::of(key.kind, &document)) else {
            return Ok(());
        };
        self.content_owed.remove(sha256)?;
        self.content_idle.remove(sha256)?;
        self.content_wanted.insert(sha256, (content.length, 0))?;
        self.wrote();
        Ok(())
    }
}

impl Snapshot {
    /// Compares contents after `after` with their names, until about so many bytes are read. Returns those that differ, and
    /// the last one that was looked at; `None` at the end.
    fn differing_contents(
        &self,
        after: &str,
        bytes: u64,
    ) -> Result<(Vec<String>, Option<String>), StoreError> {
        let content = self.transaction.open_table(CONTENT)?;
        let (mut differing, mut read, mut at) = (Vec::new(), 0, after.to_owned());
        while read < bytes {
            let Some(sha256) = self.content_held(&at, 1)?.pop() else {
                return Ok((differing, None));
            };
            let (mut sum, mut is_damaged) = (Sha256::new(), false);
            for row in content.range((sha256.as_str(), 0)..=(sha256.as_str(), u32::MAX))? {
                match row {
                    Ok((_, row)) => {
                        read += row.value().len() as u64;
                        sum.update(row.value());
                    }
                    // That is dealt with as damage.
                    Err(StoreError::DamagedRow(_)) => is_damaged = true,
                    Err(error) => return Err(error),
                }
            }
            read += 1;
            if !is_damaged && hex::encode(sum.finalize()) != sha256 {
                differing.push(sha256.clone());
            }
            at = sha256;
        }
        Ok((differing, Some(at)))
    }
}

impl Store {
    /// Goes on with the comparison of contents and their names, if there is one, for about so many bytes.
    pub(in crate::store) async fn check_contents(&self, bytes: u64) -> Result<(), StoreError> {
        let snapshot = self.read()?;
        let Some(row) = snapshot.meta(META_UNCHECKED)? else {
            return Ok(());
        };
        let after = row.get_str("after").unwrap_or_default().to_owned();
        let compared = tokio::task::spawn_blocking(move || snapshot.differing_contents(&after, bytes));
        let (differing, last) = compared
            .await
            .map_err(|error| StoreError::Damaged(format!("a table cannot be followed: {error}")))??;
        self.transact(move |tx| -> Result<(), StoreError> {
            for sha256 in &differing {
                tx.want_again(sha256)?;
            }
            let row = last.as_ref().map(|last| doc! {"after": last});
            tx.set_meta(META_UNCHECKED, row.as_ref())
        })
        .await
    }
}
