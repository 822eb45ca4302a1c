//! Floor 1. A mark beside the store: access rules have ended something, and the store does not say so yet.
//!
//! A store that takes nothing cannot be told, and the process that knows may end. An empty file takes next to no room.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use crate::files::{create_private, directory_of, give_to_owner_of_directory, suffixed, sync_directory};
use crate::store::engine::Store;
use crate::store::error::StoreError;

const ENDING: &str = ".rules-unsettled";

impl Store {
    /// Where the mark is; a store in memory is over with the process.
    fn mark(&self) -> Option<PathBuf> {
        self.inner.file.as_ref().map(|file| suffixed(&file.path, ENDING))
    }

    /// Whether access rules ended something that the store may not know of.
    pub fn are_rules_unsettled(&self) -> bool {
        // What cannot be looked at may be there.
        self.mark().is_some_and(|mark| mark.try_exists().unwrap_or(true))
    }

    /// Makes the mark, or removes it.
    pub fn set_rules_unsettled(&self, is_unsettled: bool) -> Result<(), StoreError> {
        let Some(mark) = self.mark() else {
            return Ok(());
        };
        let done = match is_unsettled {
            true => create_private(&mark).and_then(|_| give_to_owner_of_directory(&mark)),
            false => fs::remove_file(&mark),
        };
        let is_so =
            |error: &io::Error| matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound);
        match done {
            Err(error) if is_so(&error) => Ok(()),
            done => done
                .and_then(|()| sync_directory(directory_of(&mark)))
                .map_err(|error| StoreError::of_io(&error)),
        }
    }
}
