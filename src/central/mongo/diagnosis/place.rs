//! Floor 2. Where in a conversation something failed: the command, its collection, the member, and what mends it.

use super::probe::LOGIN;
use crate::central::mongo::{MongoCentral, error};
use crate::central::survey::{Stage, Trouble};
use crate::central::{Cause, CentralError, DUPLICATE_KEY_CODE, Write, Written};

const LATER: &str = "it is tried again in the next round; the server's log says why if it lasts";
const ASSERTED: &str = "at the centre: its log says what it does not take, at this time and with this code; it is tried \
                        again in the next rounds";
const BUSY: &str =
    "see how busy the server is; its log says what it waits for. It is tried again in the next round";

/// MongoDB's own names of the codes that nodes meet (`src/mongo/base/error_codes.yml`).
const NAMES: [(i32, &str); 50] = [
    (1, "InternalError"),
    (2, "BadValue"),
    (6, "HostUnreachable"),
    (7, "HostNotFound"),
    (8, "UnknownError"),
    (9, "FailedToParse"),
    (11, "UserNotFound"),
    (13, "Unauthorized"),
    (14, "TypeMismatch"),
    (18, "AuthenticationFailed"),
    (20, "IllegalOperation"),
    (26, "NamespaceNotFound"),
    (43, "CursorNotFound"),
    (50, "MaxTimeMSExpired"),
    (59, "CommandNotFound"),
    (64, "WriteConcernFailed"),
    (66, "ImmutableField"),
    (89, "NetworkTimeout"),
    (91, "ShutdownInProgress"),
    (94, "NotYetInitialized"),
    (96, "OperationFailed"),
    (100, "UnsatisfiableWriteConcern"),
    (112, "WriteConflict"),
    (115, "CommandNotSupported"),
    (121, "DocumentValidationFailure"),
    (133, "FailedToSatisfyReadPreference"),
    (134, "ReadConcernMajorityNotAvailableYet"),
    (136, "CappedPositionLost"),
    (175, "QueryPlanKilled"),
    (189, "PrimarySteppedDown"),
    (202, "NetworkInterfaceExceededTimeLimit"),
    (237, "CursorKilled"),
    (238, "NotImplemented"),
    (260, "InvalidResumeToken"),
    (262, "ExceededTimeLimit"),
    (280, "ChangeStreamFatalError"),
    (286, "ChangeStreamHistoryLost"),
    (371, "UserWritesBlocked"),
    (391, "ReauthenticationRequired"),
    (8000, "AtlasError"),
    (9001, "SocketException"),
    (10_107, "NotWritablePrimary"),
    (10_334, "BSONObjectTooLarge"),
    (11_000, "DuplicateKey"),
    (11_600, "InterruptedAtShutdown"),
    (11_601, "Interrupted"),
    (11_602, "InterruptedDueToReplStateChange"),
    (13_435, "NotPrimaryNoSecondaryOk"),
    (13_436, "NotPrimaryOrSecondary"),
    (14_031, "OutOfDiskSpace"),
];

/// From here on codes belong to single assertions in the server, which have no names of their own.
const ASSERTION_CODE_MIN: i32 = 10_000;

/// What MongoDB calls a code, as far as nodes know.
pub(super) fn name_of(code: i32) -> Option<String> {
    let known = NAMES.iter().find(|(known, _)| *known == code).map(|(_, name)| (*name).to_owned());
    known.or_else(|| (code >= ASSERTION_CODE_MIN).then(|| format!("Location{code}")))
}

fn remedy_of(code: Option<i32>) -> &'static str {
    match code {
        None => BUSY,
        Some(50 | 202 | 262) => {
            "the server is slow: its log says what it is busy with. It is tried again in the next round"
        }
        Some(112) => {
            "others write the same there at this moment; it is tried again in the next round. If it lasts: see at the \
             centre what writes there all the time"
        }
        Some(121) => {
            "at the centre: the validator of this collection refuses the node's rows; let them in with collMod \
             (docs/SYNC.md: What a node needs)"
        }
        Some(DUPLICATE_KEY_CODE) => {
            "at the centre: drop the index that is named here (dropIndex on this collection): the nodes' own collections \
             must have no unique index but that on _id, and fs.chunks that on files_id and n"
        }
        Some(11 | 18 | 391) => LOGIN,
        Some(260 | 280 | 286) => {
            "it is tried again in the next round. If it lasts: at the centre: rs.printReplicationInfo() and the server's log; \
             its history (the oplog) must reach back over the longest absence of a node (docs/SYNC.md: What a node needs)"
        }
        Some(13 | 8000) => {
            "at the centre: the role in docs/SYNC.md (What a node needs) for this user, for this database and this \
             collection"
        }
        Some(64 | 100 | 134) => "at the centre: rs.status(); a majority of its members must run",
        Some(371) => "at the centre: its administrator has blocked writes (setUserWriteBlockMode)",
        Some(14_031) => "at the centre: make room on its disk",
        Some(91 | 189 | 10_107 | 11_602 | 13_435 | 13_436) => {
            "if it lasts longer than a minute: rs.status() at the centre; a majority of its members must run"
        }
        Some(code) if code >= ASSERTION_CODE_MIN => ASSERTED,
        Some(_) => LATER,
    }
}

/// What a command was about, where it failed.
pub(in crate::central::mongo) fn trouble(
    stage: Stage,
    member: Option<String>,
    command: &str,
    what: &str,
    cause: &Cause,
) -> Trouble {
    let who = member.as_deref().unwrap_or("the centre");
    let name = cause.known_code().and_then(name_of).map_or_else(String::new, |name| format!(", {name}"));
    let reason = match cause.known_code().is_some() {
        true => format!("{who} answers {command} on {what} with an error ({cause}{name})"),
        false => format!("{who} gives no answer to {command} on {what} ({cause})"),
    };
    Trouble { stage, member, reason, remedy: remedy_of(cause.known_code()) }
}

impl MongoCentral {
    pub(in crate::central::mongo) fn reading<T>(
        &self,
        command: &str,
        what: &str,
        answer: Result<T, CentralError>,
    ) -> Result<T, CentralError> {
        self.placed(Stage::Reading, command, what, answer)
    }

    pub(in crate::central::mongo) fn writing<T>(
        &self,
        command: &str,
        what: &str,
        answer: Result<T, CentralError>,
    ) -> Result<T, CentralError> {
        self.placed(Stage::Writing, command, what, answer)
    }

    /// Keeps the first error about a single record, for what the round says.
    pub(in crate::central::mongo) fn note_faults(&mut self, batch: &[Write], answers: &[Written]) {
        let of_answer = |(write, answer): (&Write, &Written)| match answer {
            Written::Refused { code, .. } | Written::Faulty { code } => Some((write.key().kind, *code)),
            _ => None,
        };
        let Some((kind, code)) =
            batch.iter().zip(answers).find_map(of_answer).filter(|_| self.fault.is_none())
        else {
            return;
        };
        let command = if self.bulk_write { "bulkWrite" } else { "insert, update or delete" };
        let cause = Cause::answered(code, format!("MongoDB error {code}"), false);
        let told: Result<(), _> =
            self.writing(command, self.address.collection(kind), Err(CentralError::Failed(cause)));
        self.fault = told.err();
    }

    /// Keeps that writes of this batch were not confirmed, for what the round says.
    pub(in crate::central::mongo) fn note_unconfirmed(&mut self, batch: &[Write], code: i32) {
        let Some(kind) = batch.first().map(|write| write.key().kind).filter(|_| self.fault.is_none()) else {
            return;
        };
        let command = if self.bulk_write { "bulkWrite" } else { "insert, update or delete" };
        let told: Result<(), _> =
            self.writing(command, self.address.collection(kind), Err(error::unconfirmed(code)));
        self.fault = told.err();
    }

    fn placed<T>(
        &self,
        stage: Stage,
        command: &str,
        what: &str,
        answer: Result<T, CentralError>,
    ) -> Result<T, CentralError> {
        answer.map_err(|error| error.at(|cause| trouble(stage, self.counters.member(), command, what, cause)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_command_collection_code_member_and_remedy() {
        let member = || Some("a:1".to_owned());
        for (code, name, remedy) in [
            (112, "WriteConflict", "next round"),
            (50, "MaxTimeMSExpired", "the server is slow"),
            (121, "DocumentValidationFailure", "the validator of this collection"),
            (13, "Unauthorized", "the role in docs/SYNC.md"),
            (8000, "AtlasError", "the role in docs/SYNC.md"),
            (40_671, "Location40671", "its log says what it does not take"),
        ] {
            let cause = Cause::answered(code, format!("MongoDB error {code}"), false);
            let told = trouble(Stage::Writing, member(), "update", "edge_trash", &cause);
            let reason =
                format!("a:1 answers update on edge_trash with an error (MongoDB error {code}, {name})");
            assert_eq!(told.reason, reason);
            assert_eq!((told.stage, told.member), (Stage::Writing, member()));
            assert!(told.remedy.contains(remedy), "{}", told.remedy);
        }
        let silent = Cause::from("no answer within 30 seconds");
        let told = trouble(Stage::Reading, member(), "find", "people", &silent);
        assert_eq!(told.reason, "a:1 gives no answer to find on people (no answer within 30 seconds)");
        assert!(told.remedy.contains("how busy"), "{}", told.remedy);
    }

    #[test]
    fn what_is_not_confirmed_and_a_login_on_the_way_are_told_with_their_code() {
        let refused = CentralError::Refused(Cause::told(18, "authentication failed".to_owned()));
        for (error, what, words, remedy) in [
            (
                error::unconfirmed(64),
                "people",
                "(the write is not confirmed: MongoDB error 64, WriteConcernFailed)",
                "rs.status()",
            ),
            (
                error::unconfirmed(91),
                "people",
                "(the write is not confirmed: MongoDB error 91, ShutdownInProgress)",
                "rs.status()",
            ),
            (refused, "its change feed", "(authentication failed, AuthenticationFailed)", "authSource"),
            (
                error::of_code(286),
                "its change feed",
                "(MongoDB error 286, ChangeStreamHistoryLost)",
                "rs.printReplicationInfo()",
            ),
            (
                error::of_code(280),
                "its change feed",
                "(MongoDB error 280, ChangeStreamFatalError)",
                "rs.printReplicationInfo()",
            ),
        ] {
            let placed =
                error.at(|cause| trouble(Stage::Writing, Some("a:1".to_owned()), "update", what, cause));
            let told = placed.told();
            let begin = format!("(writing) a:1 answers update on {what} with an error {words}. Remedy: ");
            assert!(told.starts_with(&begin) && told.contains(remedy), "{told}");
        }
        // Nothing is concluded from the code.
        assert_eq!(error::unconfirmed(64).code(), None);
    }

    /// What happened first says more than what it led to.
    #[test]
    fn a_place_is_kept() {
        let error = CentralError::Offline("x".into());
        let at = |stage| move |cause: &Cause| trouble(stage, None, "find", "people", cause);
        let error = error.at(at(Stage::Reading)).at(at(Stage::Writing));
        assert_eq!(error.place().map(|place| place.stage), Some(Stage::Reading));
        assert!(error.told().starts_with("(reading) the centre gives no answer"), "{}", error.told());
    }
}
