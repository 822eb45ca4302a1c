//! Floor 2. What MongoDB's errors mean to a node.
//!
//! Hides error codes and the driver's error types. Messages are written here and never copied from the
//! server or the driver, because those can carry values of documents and the address with its password.

use bson::Bson;
use mongodb::error::{Error, ErrorKind, WriteFailure};

use crate::central::{Cause, CentralError, DOLLAR_NAME_CODE, DUPLICATE_KEY_CODE, Written};

/// Interrupted, a cursor that is gone, a member that is not ready or a lock that is held, or overtaken by a time limit:
/// later it may work.
const PASSING_CODES: [i32; 26] = [
    24, 43, 46, 50, 63, 64, 94, 100, 112, 117, 134, 136, 150, 175, 202, 234, 237, 246, 262, 279, 290, 317,
    365, 384, 11_601, 13_388,
];

/// What a centre answers that takes no write of anybody now: behind a router that reaches no server, shutting down, without
/// a primary, overloaded, closed to writes, with a full disk.
const WHOLE_CENTRE_CODES: [i32; 16] = [
    6,
    7,
    89,
    91,
    133,
    189,
    USER_WRITES_BLOCKED,
    462,
    9001,
    10_058,
    10_107,
    11_600,
    11_602,
    13_435,
    13_436,
    OUT_OF_DISK_SPACE,
];

/// Labels by which server or driver say that the same may succeed later.
const OFFLINE_LABELS: [&str; 3] =
    ["RetryableWriteError", "ResumableChangeStreamError", "SystemOverloadedError"];

/// The server does not know the command, or does not support it as it is set up.
const NOT_SUPPORTED_CODES: [i32; 3] = [59, 115, 238];

/// Not found, wrong, or without the privilege: user not found, unauthorized, authentication failed,
/// reauthentication required, and the hosted service's own refusal.
const REFUSED_CODES: [i32; 5] = [11, 13, 18, 391, 8000];

const AUTHENTICATION_FAILED: i32 = 18;
const OUT_OF_DISK_SPACE: i32 = 14_031;
const USER_WRITES_BLOCKED: i32 = 371;
const CURSOR_NOT_FOUND: i32 = 43;
const BAD_VALUE: i32 = 2;
const PATH_NOT_VIABLE: i32 = 28;
const DUPLICATE_KEY_CODES: [i32; 3] = [DUPLICATE_KEY_CODE, 11_001, 12_582];

/// Values that the centre will never take: bad value, failed to parse, type mismatch, overflow, invalid
/// length, invalid BSON, conflicting update, bad field names (52-57), changed `_id`, document validation.
const BAD_VALUE_CODES: [i32; 16] = [2, 9, 14, 15, 16, 22, 40, 52, 53, 54, 55, 56, 57, 66, 121, 10_334];

/// From here on codes belong to single assertions in the server: a key too long for an index, a document
/// too large after the update, no shape in a geographical index. They repeat with the same value.
const ASSERTION_CODE_MIN: i32 = 10_000;

pub(super) fn offline(why: &str) -> CentralError {
    CentralError::Offline(why.into())
}

pub(super) fn failed(why: &str) -> CentralError {
    CentralError::Failed(why.into())
}

/// A write that was carried out, and that no majority confirms: whether it stays is not known, whatever the code.
pub(super) fn unconfirmed(code: i32) -> CentralError {
    CentralError::Offline(Cause::told(code, format!("the write is not confirmed: MongoDB error {code}")))
}

/// The line works, and it failed over what was asked; nobody named a code.
pub(super) fn about_call(why: &str) -> CentralError {
    CentralError::Failed(Cause::answered(0, why.to_owned(), false))
}

/// An error of a whole call.
pub(super) fn of_call(error: &Error) -> CentralError {
    let meaning = of_kind(error);
    match meaning {
        CentralError::Failed(why) if OFFLINE_LABELS.iter().any(|label| error.contains_label(label)) => {
            CentralError::Offline(why)
        }
        meaning => meaning,
    }
}

fn of_kind(error: &Error) -> CentralError {
    use mongodb::error::Error as E;
    let source =
        |error: &E| std::error::Error::source(error).and_then(|s| s.downcast_ref::<E>()).map(of_call);
    match error.kind.as_ref() {
        ErrorKind::Io(io) => of_transport(&io.to_string(), &format!("{:?}", io.kind())),
        ErrorKind::ServerSelection { message, .. } => of_transport(message, "no server answers"),
        ErrorKind::DnsResolve { .. } => offline("its name cannot be resolved"),
        ErrorKind::ConnectionPoolCleared { .. } => offline("the connection was given up"),
        ErrorKind::Shutdown => offline("the connection is closed"),
        ErrorKind::Authentication { .. } => {
            CentralError::Refused(Cause::told(AUTHENTICATION_FAILED, "authentication failed".to_owned()))
        }
        ErrorKind::InvalidTlsConfig { .. } => {
            CentralError::Refused("the TLS files named in its address cannot be used".into())
        }
        ErrorKind::Command(command) => of_code(command.code),
        ErrorKind::Write(WriteFailure::WriteError(error)) => of_code(error.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(failure)) => unconfirmed(failure.code),
        ErrorKind::BulkWrite(bulk) => match source(error) {
            Some(source) => source,
            None => match bulk.write_concern_errors.first() {
                Some(failure) => unconfirmed(failure.code),
                None => about_call("a batch of writes failed"),
            },
        },
        ErrorKind::InvalidArgument { .. } => about_call("the driver takes an argument for wrong"),
        ErrorKind::InvalidResponse { .. } => about_call("the answer cannot be read"),
        ErrorKind::IncompatibleServer { .. } => failed("the server's version is not supported"),
        ErrorKind::SessionsNotSupported => failed("the server has no sessions"),
        _ => failed("the driver failed"),
    }
}

/// An address that cannot be used, or cannot be looked up at the moment.
pub(super) fn of_address(error: &Error) -> CentralError {
    match error.kind.as_ref() {
        ErrorKind::DnsResolve { .. } | ErrorKind::InvalidTlsConfig { .. } => of_call(error),
        ErrorKind::Io(_) => CentralError::Refused("a file named in its address cannot be read".into()),
        _ => CentralError::Refused("its address is not a valid connection string".into()),
    }
}

/// A connection that is not made: because nobody is there, or because one of the two does not trust the
/// other's certificate. The TLS library's words are the only sign of the latter.
fn of_transport(message: &str, why: &str) -> CentralError {
    if message.contains("invalid peer certificate") {
        return CentralError::Refused("its TLS certificate is not trusted".into());
    }
    let of_own = ["CertificateRequired", "BadCertificate", "UnknownCA", "CertificateExpired"];
    if message.contains("fatal alert") && of_own.iter().any(|alert| message.contains(alert)) {
        return CentralError::Refused("this node's TLS certificate is not accepted".into());
    }
    offline(why)
}

/// Whether the same may work later.
fn is_passing(code: i32) -> bool {
    PASSING_CODES.contains(&code) || WHOLE_CENTRE_CODES.contains(&code)
}

pub(super) fn of_code(code: i32) -> CentralError {
    let mut message = format!("MongoDB error {code}");
    if code == OUT_OF_DISK_SPACE {
        message.push_str(": its disk is full");
    }
    let message = Cause::answered(code, message, WHOLE_CENTRE_CODES.contains(&code));
    if REFUSED_CODES.contains(&code) {
        CentralError::Refused(message)
    } else if is_passing(code) {
        CentralError::Offline(message)
    } else {
        CentralError::Failed(message)
    }
}

/// An error of one statement. It never speaks for the line or for the centre, whatever its code: the rest of the call and
/// of the round goes on, and the record is refused once the same happened in several rounds. Only [`of_all`] may say more.
pub(super) fn of_write(code: i32, message: &str) -> Written {
    if is_duplicate_key(code) {
        return match index_of(message) {
            Some(INDEX_OF_ID) => Written::Miss,
            Some(index) => Written::Refused {
                code,
                message: format!("another record has the same key in the index {index}"),
            },
            // Not for good where the identifier turns out to be the key.
            None => Written::Refused { code, message: "another record has the same key".to_owned() },
        };
    }
    let refused = |message: &str| Written::Refused { code, message: message.to_owned() };
    match code {
        PATH_NOT_VIABLE => Written::Miss,
        // In the way of others, of an operator, or of the whole centre: the next try is another one.
        _ if is_passing(code) => Written::Faulty { code },
        121 => refused("the centre's validation does not accept the record"),
        _ if code == DOLLAR_NAME_CODE || code == BAD_VALUE && is_about_dollar_names(message) => refused(
            "a name in the record begins with `$`, which the centre does not store (MongoDB before 5.0)",
        ),
        10_334 | 17_419 | 17_420 => refused("the record would be larger than 16 MiB"),
        _ if NOT_SUPPORTED_CODES.contains(&code) => {
            refused("the centre does not support what is needed to compare the record")
        }
        _ if BAD_VALUE_CODES.contains(&code) || code >= ASSERTION_CODE_MIN => {
            refused("the centre does not accept the record")
        }
        _ => Written::Faulty { code },
    }
}

/// What servers before 5.0 say of an insert, under a code that they have for much else.
fn is_about_dollar_names(message: &str) -> bool {
    message.contains("$ prefixed field names")
}

/// The code by which the answers to all statements of a call say that the centre takes no write now, or none of this node.
/// One statement with any other answer disproves it.
pub(super) fn of_all(answers: &[Written]) -> Option<i32> {
    let code_of = |answer: &Written| match answer {
        Written::Faulty { code } if WHOLE_CENTRE_CODES.contains(code) || REFUSED_CODES.contains(code) => {
            Some(*code)
        }
        _ => None,
    };
    let codes: Option<Vec<i32>> = answers.iter().map(code_of).collect();
    codes?.first().copied()
}

/// An error of a statement about a row that is no record.
pub(super) fn of_row(code: i32, what: &str) -> CentralError {
    match WHOLE_CENTRE_CODES.contains(&code) || REFUSED_CODES.contains(&code) {
        true => of_code(code),
        false => CentralError::Failed(Cause::answered(code, format!("{what} (MongoDB error {code})"), false)),
    }
}

/// Whether the server has no such command, so that nothing was done.
pub(super) fn is_unsupported(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Error>());
    match (error.kind.as_ref(), source) {
        (ErrorKind::IncompatibleServer { .. }, _) => true,
        (ErrorKind::Command(command), _) => NOT_SUPPORTED_CODES.contains(&command.code),
        (_, Some(source)) => is_unsupported(source),
        _ => false,
    }
}

/// The code of an error that answers a whole command.
pub(super) fn command_code(error: &Error) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => Some(command.code),
        _ => None,
    }
}

/// The code that a server has answered with, also where the driver only tells it as the reason for which it takes no server
/// for usable: then in words, `Error code 91 (ShutdownInProgress): ...`.
pub(super) fn answered_code(error: &Error) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => Some(command.code),
        ErrorKind::ServerSelection { message, .. } => code_in(message),
        _ => None,
    }
}

fn code_in(message: &str) -> Option<i32> {
    let (_, rest) = message.split_once("Error code ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

pub(super) fn is_not_supported(code: i32) -> bool {
    NOT_SUPPORTED_CODES.contains(&code)
}

/// Whether a statement may have failed because the engine does not know an operator: bad value, failed to parse, and
/// whatever is not supported.
pub(super) fn is_not_understood(code: i32) -> bool {
    [2, 9].contains(&code) || is_not_supported(code)
}

/// Whether the server has given up the cursor.
pub(super) fn is_cursor_lost(error: &Error) -> bool {
    command_code(error) == Some(CURSOR_NOT_FOUND)
}

pub(super) fn is_duplicate_key(code: i32) -> bool {
    DUPLICATE_KEY_CODES.contains(&code)
}

/// A unique index other than the one on `_id` keeps one of the node's own rows out, because of another row.
pub(super) fn of_index(index: Option<&str>, row: &Bson) -> CentralError {
    let index =
        index.map_or_else(|| "a unique index".to_owned(), |index| format!("the unique index {index}"));
    let row = match row {
        Bson::String(id) => id.clone(),
        other => other.to_string(),
    };
    let words = format!("{index} does not let the row {row} in");
    CentralError::Failed(Cause::answered(DUPLICATE_KEY_CODE, words, false))
}

/// How servers call the index on `_id`.
pub(super) const INDEX_OF_ID: &str = "_id_";

/// The index that a duplicate was found in. MongoDB says `E11000 duplicate key error collection: db.people index: ref_1
/// dup key: { ref: "..." }`, DocumentDB `Duplicate key violation on the requested collection: Index 'ref_1'`. The name of
/// the collection comes before it, the value after.
pub(super) fn index_of(message: &str) -> Option<&str> {
    if let Some((_, rest)) = message.split_once(" index: ")
        && let Some((index, _)) = rest.split_once(" dup key")
    {
        return Some(index.trim());
    }
    let (_, rest) = message.split_once("Index '")?;
    rest.split_once('\'').map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duplicate_is_a_miss_only_on_the_identifier() {
        let on_id = r#"E11000 duplicate key error collection: f.people index: _id_ dup key: { _id: "a" }"#;
        assert_eq!(of_write(11_000, on_id), Written::Miss);
        let on_name = r#"E11000 duplicate key error collection: f.people index: name_1 dup key: { name: "x index: _id_ dup key" }"#;
        let Written::Refused { code, message } = of_write(11_000, on_name) else {
            panic!("not refused");
        };
        assert_eq!(code, 11_000);
        assert_eq!(message, "another record has the same key in the index name_1");
        let documentdb =
            |index| format!("Duplicate key violation on the requested collection: Index '{index}'");
        assert_eq!(of_write(11_000, &documentdb("_id_")), Written::Miss);
        // In whatever words: refused, and not tried for ever.
        for words in [documentdb("name_1"), "Duplicate key".to_owned(), String::new()] {
            let answer = of_write(11_000, &words);
            assert!(matches!(answer, Written::Refused { code: 11_000, .. }), "{words}: {answer:?}");
        }
    }

    #[test]
    fn a_name_that_an_older_server_does_not_store_is_the_reason() {
        let reason = |code, message| match of_write(code, message) {
            Written::Refused { message, .. } => message,
            other => panic!("{code}: {other:?}"),
        };
        let of_update = "The dollar ($) prefixed field '$x' in 'f.$x' is not valid for storage.";
        let of_insert = "Document can't have $ prefixed field names: $x";
        for (code, message) in [(52, of_update), (52, ""), (2, of_insert)] {
            assert!(reason(code, message).contains("begins with `$`"), "{code}: {message}");
        }
        assert_eq!(reason(2, "something else"), "the centre does not accept the record");
    }

    #[test]
    fn only_all_statements_of_a_call_speak_for_the_centre() {
        let whole = [10_107, 189, 91, 11_600, 11_602, 13_435, 13_436, 10_058, 462, 14_031, 371, 6, 13, 18];
        for code in whole {
            let alone = of_write(code, "");
            assert_eq!(alone, Written::Faulty { code }, "{code}");
            assert_eq!(of_all(&[alone.clone(), alone.clone()]), Some(code));
            for other in [Written::Hit, Written::Miss, Written::Unknown, of_write(121, ""), of_write(50, "")]
            {
                assert_eq!(of_all(&[alone.clone(), other]), None, "{code}");
            }
        }
        assert_eq!(of_all(&[]), None);
    }

    #[test]
    fn values_are_refused_and_everything_else_is_counted() {
        for code in [2, 9, 14, 52, 53, 54, 55, 56, 57, 66, 121, 10_334, 17_280, 17_419, 16_755] {
            assert!(matches!(of_write(code, ""), Written::Refused { .. }), "{code}");
        }
        assert_eq!(of_write(28, ""), Written::Miss);
        for code in [
            1, 8, 20, 96, 24, 43, 46, 50, 64, 94, 117, 246, 384, 100, 112, 136, 150, 175, 234, 237, 365,
            11_601, 13_388,
        ] {
            assert_eq!(of_write(code, ""), Written::Faulty { code }, "{code}");
            assert_eq!(of_all(&[Written::Faulty { code }]), None, "{code}");
        }
    }

    #[test]
    fn the_code_of_a_server_that_is_not_usable_is_kept() {
        let message = "Server selection timeout: No available servers. Topology: { Servers: [ { Address: a:1, Type: \
                       Unknown, Error: Kind: Command failed: Error code 11600 (InterruptedAtShutdown): x } ] }";
        assert_eq!(code_in(message), Some(11_600));
        assert_eq!(code_in("Server selection timeout: No available servers"), None);
    }

    #[test]
    fn certificates_are_told_apart_from_absence() {
        let refused = |message| matches!(of_transport(message, ""), CentralError::Refused(_));
        assert!(refused("Kind: I/O error: invalid peer certificate: UnknownIssuer"));
        assert!(refused("I/O error: received fatal alert: CertificateRequired"));
        assert!(!refused("I/O error: received fatal alert: InternalError"));
        assert!(!refused("Connection refused"));
    }
}
