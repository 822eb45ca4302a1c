//! Floor 2. Why a call to the centre came to nothing.

use std::fmt;

use super::survey::Trouble;

/// MongoDB's code of a duplicate key.
pub(crate) const DUPLICATE_KEY_CODE: i32 = 11_000;
/// Code of a server, before MongoDB 5.0, that does not store a name which begins with `$`.
pub(crate) const DOLLAR_NAME_CODE: i32 = 52;

/// Why the centre gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CentralError {
    /// Not reachable, cut off, too slow, or without a primary: try again in the next round. Writes that
    /// were on the way may or may not have happened.
    #[error("the centre cannot be reached: {0}")]
    Offline(Cause),
    /// The centre refuses this node: credentials, privileges or the address are wrong.
    #[error("the centre refuses this node: {0}")]
    Refused(Cause),
    /// Anything else; nothing is assumed about writes on the way.
    #[error("the centre failed: {0}")]
    Failed(Cause),
}

impl CentralError {
    fn cause(&self) -> &Cause {
        let (CentralError::Offline(cause) | CentralError::Refused(cause) | CentralError::Failed(cause)) =
            self;
        cause
    }

    /// With the place where it happened, unless that is known, or it happened before any command: a connection is made
    /// when it is needed, and a login or a certificate that is refused has a stage of its own.
    pub(crate) fn at(mut self, place: impl FnOnce(&Cause) -> Trouble) -> CentralError {
        if matches!(&self, CentralError::Refused(cause) if cause.known_code().is_none()) {
            return self;
        }
        let (CentralError::Offline(cause) | CentralError::Refused(cause) | CentralError::Failed(cause)) =
            &mut self;
        if cause.place.is_none() {
            cause.place = Some(Box::new(place(cause)));
        }
        self
    }

    /// At which stage, at which member, and what mends it: known of every command that was sent or waited for.
    pub(crate) fn place(&self) -> Option<&Trouble> {
        self.cause().place.as_deref()
    }

    /// All that is known, for people; without a full stop.
    pub(crate) fn told(&self) -> String {
        match self.place() {
            Some(place) => format!("{place}. Remedy: {}", place.remedy),
            None => self.to_string(),
        }
    }

    /// The code of the error that a server has answered, 0 for one without; `None` if nobody answered.
    pub(crate) fn code(&self) -> Option<i32> {
        self.cause().code
    }

    /// Whether a unique index keeps a row of the node's own out.
    pub(crate) fn is_of_index(&self) -> bool {
        self.code() == Some(DUPLICATE_KEY_CODE)
    }

    /// Whether a server has answered, with an error: then the line works.
    pub(crate) fn is_answer(&self) -> bool {
        self.code().is_some()
    }

    /// Whether the centre would answer everything of this node so now: it takes no writes, or none of this node.
    pub(crate) fn is_of_centre(&self) -> bool {
        matches!(self, CentralError::Refused(_)) || self.cause().is_of_centre
    }

    /// Whether it says something about what was asked: not if nobody was reached who could answer.
    pub(crate) fn is_about_call(&self) -> bool {
        matches!(self, CentralError::Failed(_)) || self.is_answer()
    }
}

/// What happened, in words written here, and the code if a server has answered: 0 where the answer has none, or the call was
/// found wrong before it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    words: String,
    code: Option<i32>,
    /// A code that only says what mends it: a write that was carried out and is not confirmed, a login that failed on the way.
    told_code: Option<i32>,
    is_of_centre: bool,
    place: Option<Box<Trouble>>,
}

impl Cause {
    /// A server has answered with this error, about what was asked or about all that it is asked now.
    pub(crate) fn answered(code: i32, words: String, is_of_centre: bool) -> Cause {
        Cause { words, code: Some(code), told_code: None, is_of_centre, place: None }
    }

    /// A server has said this, and nothing is concluded from the code about what was asked.
    pub(crate) fn told(code: i32, words: String) -> Cause {
        Cause { told_code: Some(code), ..Cause::from(words) }
    }

    /// The code of the answer, or the one that was told with it.
    pub(crate) fn known_code(&self) -> Option<i32> {
        self.code.or(self.told_code)
    }

    pub(crate) fn is_answer(&self) -> bool {
        self.code.is_some()
    }
}

impl From<&str> for Cause {
    fn from(words: &str) -> Cause {
        Cause::from(words.to_owned())
    }
}

impl From<String> for Cause {
    fn from(words: String) -> Cause {
        Cause { words, code: None, told_code: None, is_of_centre: false, place: None }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}
