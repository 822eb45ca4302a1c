//! Floor 4. Converts errors of lower floors into [`ApiError`].

use serde_json::Value;

use crate::accounts::{HashError, LoginError};
use crate::domain::access::Denied;
use crate::domain::edit::Invalid;
use crate::domain::json::{BodyError, JsonError};
use crate::http::error::ApiError;
use crate::http::request_id::present_request;
use crate::store::{EditError, Stale, Stays, StoreError};

/// The field of a JSON body that gives the caller's current password.
pub(crate) const CURRENT_FIELD_NAME: &str = "current_password";

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::DiskFull | StoreError::Short(_) => ApiError::StorageFull,
            StoreError::Unstorable(message) => ApiError::invalid("", message),
            StoreError::GivenUp => ApiError::StoreGivenUp,
            StoreError::Reopening => {
                tracing::warn!(request = present_request(), %error, "a request came while the store is opened again");
                ApiError::StoreReopening
            }
            StoreError::Stale(Stale::PasswordNotGiven) => not_given(),
            StoreError::Stale(stale) => ApiError::Stale(stale),
            StoreError::DamagedRow(_) | StoreError::Damaged(_) => {
                tracing::error!(request = present_request(), error = %error, "the store is damaged");
                ApiError::Damaged
            }
            other => {
                tracing::error!(request = present_request(), error = %other, "the store failed a request");
                ApiError::Internal
            }
        }
    }
}

/// What a session is told that would give its own account another password without the present one.
fn not_given() -> ApiError {
    let message = format!(
        "{CURRENT_FIELD_NAME}: this would give your own account another password, for which a session must give the \
         present one. A request without such a field is made with account and password (HTTP Basic), or by another \
         administrator"
    );
    ApiError::invalid(CURRENT_FIELD_NAME, message)
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Forbidden => ApiError::Forbidden,
            Denied::Hidden => ApiError::Hidden("Not found".into()),
        }
    }
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> Self {
        ApiError::Invalid { field: invalid.field, message: invalid.message }
    }
}

impl From<JsonError> for ApiError {
    fn from(error: JsonError) -> Self {
        let message = error.to_string();
        match error {
            JsonError::Syntax { .. } => ApiError::NotJson(message),
            JsonError::Invalid { field, .. } => ApiError::Invalid { field, message },
        }
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Json(error) => error.into(),
            BodyError::TooManyValues => ApiError::TooLarge(error.to_string()),
        }
    }
}

impl From<LoginError> for ApiError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Refused => ApiError::Unauthorized,
            LoginError::Busy { retry_after_s } => ApiError::Busy { retry_after_s },
        }
    }
}

impl From<HashError> for ApiError {
    fn from(error: HashError) -> Self {
        match error {
            HashError::Busy { retry_after_s } => ApiError::Busy { retry_after_s },
            HashError::Unacceptable(message) => ApiError::invalid("password", format!("password: {message}")),
            HashError::Failed(message) => {
                tracing::error!(request = present_request(), error = %message, "a password could not be hashed");
                ApiError::Internal
            }
        }
    }
}

/// Why a record is not made now.
pub(crate) const UNSENT: &str = "A record of another person was deleted under this id, which has not reached the centre: \
                                 take another id, or wait for the next round";

const REWRITTEN: &str = "This person was made another human being than the one whom the centre has. The next round asks whether \
                         the two are one: decide that first (thalamus-edge conflicts list)";

impl From<EditError> for ApiError {
    fn from(error: EditError) -> Self {
        match error {
            EditError::Store(error) => error.into(),
            EditError::Stays(Stays::Held { conflict }) => ApiError::DecisionPending { conflict },
            EditError::Stays(Stays::Rewritten) => {
                ApiError::Conflict { message: REWRITTEN.into(), current: serde_json::Value::Null }
            }
            EditError::Stays(Stays::LogsIn) => ApiError::invalid("active", "The user is active."),
            EditError::Stays(Stays::HasRecords) => {
                ApiError::invalid("", "The user has records of their own.")
            }
            EditError::Departed => ApiError::Conflict {
                message:
                    "The account was another person's, whose records are still here, or whose delete or those of their records \
                          have not reached the centre: take another account, or restore that person from the trash"
                        .into(),
                current: serde_json::Value::Null,
            },
            EditError::Unsent => ApiError::Conflict { message: UNSENT.into(), current: Value::Null },
            EditError::Moved | EditError::Unmet(_) => ApiError::Conflict {
                message: "The record is being changed by others; try again".into(),
                current: Value::Null,
            },
        }
    }
}
