//! Floor 0. What is audited: who did what to whose data, and how it ended.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::domain::access::Actor;
use crate::domain::record::schema::is_account;

/// Stands for the records of everybody: [`Event::owner`].
pub const EVERYBODY: &str = "*";
/// [`Event::kind`] of technicians' accounts, which are no records.
pub const ACCOUNT_KIND: &str = "account";
/// Longest text of one field; what is longer ends in an ellipsis.
pub const TEXT_CHARS_MAX: usize = 128;
/// Most paths in one entry; further ones are counted in the last.
pub const PATHS_MAX: usize = 32;
macro_rules! verbs {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What somebody did, or tried to.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum What { $($(#[$doc])* $name,)* }

        impl What {
            pub const ALL: &[What] = &[$(What::$name,)*];

            /// The word for it in entries.
            pub fn name(self) -> &'static str {
                match self { $(What::$name => $text,)* }
            }
        }
    };
}

verbs! {
    /// A name and a password that do not belong together, or a link that is none.
    LoginFailed = "login_failed",
    /// An attempt to log in that had to wait.
    Throttled = "throttled",
    /// A request of somebody who may not do that.
    Denied = "denied",
    /// Somebody began a session with a browser; or has given their password from an address, once a day, with a request that
    /// leaves no other entry.
    Login = "login",
    /// Somebody ended their session.
    Logoff = "logoff",
    /// A session ended by itself.
    SessionEnd = "session_end",
    Read = "read",
    List = "list",
    /// All records were written to files.
    Export = "export",
    /// The records of one person were opened in an emergency, see [`super::emergency`].
    Emergency = "emergency",
    /// Somebody answers for having looked at an emergency.
    Review = "review",
    /// An emergency ended before its time, because an account or the access rules were changed.
    EmergencyEnd = "emergency_end",
    Create = "create",
    Update = "update",
    Delete = "delete",
    /// An update of a person that changes their password.
    Password = "password",
    /// An update of a person that changes their roles.
    Roles = "roles",
    /// Roles that count on this node were given or taken.
    Grant = "grant",
    /// A technician's account was made or changed.
    Account = "account",
    /// A one-time link was made.
    Link = "link",
    Decision = "decision",
    /// A refused record gets another try.
    Retry = "retry",
    /// The local version of a refused record was given up for the centre's.
    TakeCentral = "take_central",
    /// The local version of a refused record was put into the trash.
    Discard = "discard",
    /// A damaged record was taken out of the store; `detail` names the file with its rows.
    SetAside = "set_aside",
    Verify = "verify",
    Pause = "pause",
    Resume = "resume",
    AcceptDeletes = "accept_deletes",
    RestoreDeleted = "restore_deleted",
    CentreRestored = "centre_restored",
    /// The store was put back to what a backup holds.
    Restore = "restore",
    Start = "start",
    Stop = "stop",
    /// The node had ended without [`What::Stop`].
    UncleanStop = "unclean_stop",
    /// Entries that could not be written; `count` says how many.
    Gap = "gap",
}

impl What {
    pub fn from_name(name: &str) -> Option<What> {
        What::ALL.iter().copied().find(|what| what.name() == name)
    }

    /// Whether strangers can cause it as often as they like.
    pub fn is_refusal(self) -> bool {
        matches!(self, What::LoginFailed | What::Throttled | What::Denied)
    }
}

/// Why a request came to nothing, or [`Outcome::Ok`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    /// Wrong, unknown, inactive or unusable.
    Refused,
    UnknownLink,
    /// A session that is none, or no longer.
    UnknownSession,
    TooManyAttempts,
    Forbidden,
    /// The record was said to be absent.
    Hidden,
    CrossOrigin,
    /// A form without a valid token.
    Expired,
    /// The rights by which a request was let in were gone before it took effect.
    Stale,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Refused => "refused",
            Outcome::UnknownLink => "unknown_link",
            Outcome::UnknownSession => "unknown_session",
            Outcome::TooManyAttempts => "too_many_attempts",
            Outcome::Forbidden => "forbidden",
            Outcome::Hidden => "hidden",
            Outcome::CrossOrigin => "cross_origin",
            Outcome::Expired => "form_expired",
            Outcome::Stale => "rights_ended",
        }
    }
}

/// Something that is audited, apart from when and how often. Never holds a value of a record, nor a secret; what
/// people type gets in nowhere but as the reason of [`What::Emergency`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Event {
    /// An [`Actor`], written as it is. Entries of versions up to 0.1.0 have the forms that [`Actor::read`] names.
    pub who: String,
    /// [`What::name`]; other words may come from later versions.
    pub verb: Cow<'static, str>,
    /// Collection of the record, or what else it is about; may be empty.
    pub kind: Cow<'static, str>,
    pub id: String,
    /// Person whose data it is, as [`owner_text`] writes them, [`EVERYBODY`], or empty.
    pub owner: String,
    /// Address that the request came from; empty for the machine's own.
    pub peer: String,
    /// [`Outcome::name`].
    pub outcome: Cow<'static, str>,
    /// More about it, in the node's own words, or the reason of an emergency in somebody else's.
    pub detail: String,
    /// Fields that changed.
    pub paths: Vec<String>,
}

impl Event {
    pub fn new(what: What, who: &Actor) -> Event {
        Event {
            who: shortened(who.to_string()),
            verb: what.name().into(),
            kind: "".into(),
            id: String::new(),
            owner: String::new(),
            peer: String::new(),
            outcome: Outcome::Ok.name().into(),
            detail: String::new(),
            paths: Vec::new(),
        }
    }

    /// By somebody who is not known.
    pub fn by_nobody(what: What) -> Event {
        Event::new(what, &Actor::Nobody)
    }

    pub fn about(mut self, kind: &'static str, id: &str, owner: Option<&str>) -> Event {
        (self.kind, self.id) = (kind.into(), shortened(id));
        self.owner = owner.map(|owner| shortened(owner_text(owner).as_ref())).unwrap_or_default();
        self
    }

    /// About the data of all people.
    pub fn of_everybody(mut self) -> Event {
        self.owner = EVERYBODY.to_owned();
        self
    }

    pub fn at(mut self, peer: Option<std::net::IpAddr>) -> Event {
        self.peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
        self
    }

    pub fn ended(mut self, outcome: Outcome) -> Event {
        self.outcome = outcome.name().into();
        self
    }

    pub fn saying(mut self, detail: &str) -> Event {
        self.detail = shortened(detail);
        self
    }

    /// The names of changed fields; an empty one stands for the whole record and says nothing.
    pub fn changing(mut self, paths: &[String]) -> Event {
        let named: Vec<&String> = paths.iter().filter(|path| !path.is_empty()).collect();
        let shown = if named.len() > PATHS_MAX { PATHS_MAX - 1 } else { named.len() };
        self.paths = named[..shown].iter().map(|path| shortened(path.as_str())).collect();
        if shown < named.len() {
            self.paths.push(format!("and {} more", named.len() - shown));
        }
        self
    }
}

/// How [`Event::owner`] names the person with this folded id: an account by itself, every other id so that it is neither
/// [`EVERYBODY`] nor nobody.
pub fn owner_text(id: &str) -> Cow<'_, str> {
    if is_account(id) { id.into() } else { format!("person:{id}").into() }
}

fn shortened(text: impl Into<String> + AsRef<str>) -> String {
    // Nearly everything is short; characters are at most as many as bytes.
    if text.as_ref().len() <= TEXT_CHARS_MAX {
        return text.into();
    }
    let text = text.as_ref();
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
