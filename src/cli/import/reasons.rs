//! Floor 5. Why an import leaves a record as it is, in words: one sentence for each state of the store.

use crate::store::{Deletion, OwnerDoubt, StoreError, Tx, UndeleteError};
use crate::sync::time_text;

/// What makes it certain whose a record is.
const WITH_PERSON: &str = "import it together with the person whose record it is";

/// Where a person here differs from the files about who may log in, and stays as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeptOpen {
    /// The files name the account as one that was closed on the node that they come from, and nobody closed it here.
    /// Otherwise they have another `active`.
    pub(super) is_closing: bool,
    /// Whether the account is open here.
    pub(super) is_open: bool,
}

impl KeptOpen {
    pub(super) fn say(self, id: &str) -> String {
        let state = if self.is_open { "open" } else { "closed" };
        match self.is_closing {
            true => format!(
                "{id}: was closed on the node that the files come from, and was not closed here, which stays so: the account is \
                 {state}"
            ),
            false => format!("{id}: `active` stays as it is here: the account is {state}"),
        }
    }
}

/// Why a record is not taken whose account may not be its person's.
pub(super) fn of_doubt(account: &str, doubt: &OwnerDoubt) -> String {
    match doubt {
        OwnerDoubt::Held => format!(
            "of {account}, an account that two people have: decide who is who (`thalamus-edge conflicts list`), or {WITH_PERSON}"
        ),
        OwnerDoubt::Shared => format!(
            "of {account}, an account that two people have here in two spellings: correct or delete one of them, or {WITH_PERSON}"
        ),
        OwnerDoubt::Deleted(deletion) if deletion.row.is_some() => {
            format!("of {account}, who {}: put that person back first", how(deletion))
        }
        OwnerDoubt::Deleted(deletion) => {
            format!("of {account}, who {}: make that person again first", how(deletion))
        }
        OwnerDoubt::Succeeded(deletion) if deletion.row.is_some() => {
            format!("of {account}, who {}, and which another person has now: {WITH_PERSON}", how(deletion))
        }
        OwnerDoubt::Succeeded(deletion) => {
            format!("of {account}, an account whose person before {}: {WITH_PERSON}", how(deletion))
        }
        OwnerDoubt::Moved(to) => {
            format!(
                "of {account}, an account whose person has {to} here now: give it that account, or {WITH_PERSON}"
            )
        }
        OwnerDoubt::Gone(true) => {
            format!("of {account}, an account that somebody else had before: {WITH_PERSON}")
        }
        OwnerDoubt::Unknown => format!(
            "of {account}, an account of which it is not known here whether somebody else had it before: {WITH_PERSON}"
        ),
        OwnerDoubt::Gone(false) => format!("of {account}, an account whose person is gone: {WITH_PERSON}"),
    }
}

/// How a record was deleted, and where its body is.
pub(super) fn how(deletion: &Deletion) -> String {
    let place = format!("lies in the trash ({})", deletion.sequence);
    match &deletion.row {
        Some((about, _)) => {
            format!("was deleted at {} by {} and {place}", time_text(about.at_ms), about.actor)
        }
        None => format!("was deleted and {place}, where it is damaged"),
    }
}

/// A deleted record is left out; what puts it back, if anything does.
pub(super) fn left_out(tx: &Tx<'_>, deletion: &Deletion) -> Result<String, StoreError> {
    let how = how(deletion);
    if deletion.row.is_none() {
        return Ok(format!("{how}: left out"));
    }
    match tx.check_put_back(deletion) {
        Ok(()) => Ok(format!(
            "{how}: left out. `thalamus-edge trash restore {}` puts it back as it was, `--restore-deleted` as the file has it",
            deletion.sequence
        )),
        Err(UndeleteError::Store(error)) => Err(error),
        Err(why) => Ok(format!("{how}: left out. It cannot be put back as things are: {why}")),
    }
}

/// It was to be put back.
pub(super) fn not_restored(deletion: &Deletion, why: &UndeleteError) -> String {
    match deletion.row {
        Some(_) => format!("{} and cannot be put back: {why}", how(deletion)),
        None => format!("{} and cannot be put back", how(deletion)),
    }
}
