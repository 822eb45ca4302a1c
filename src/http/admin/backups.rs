//! Floor 4. Backups for those who administer the node: the running node makes them itself.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};

use crate::domain::access::Verb;
use crate::http::access::caller::Caller;
use crate::http::access::rights::Rights;
use crate::http::error::ApiError;
use crate::http::state::app_state::AppState;
use crate::http::{request_id, response};

/// Makes a backup in the configured directory and says what is in it.
pub(crate) async fn create(State(node): State<Arc<AppState>>, caller: Caller) -> Result<Response, ApiError> {
    node.acl().authorize_global(&caller.principal, Verb::Post, "backups")?;
    // In a task of its own: a caller that goes away does not break it off.
    let (backups, rights) = (Arc::clone(&node.backups), Rights::of(&node, &caller));
    let made = tokio::spawn(async move { backups.create_if(|| rights.check_now()).await });
    match made.await.map_err(|_| ApiError::Internal)?? {
        Ok(made) => Ok((StatusCode::CREATED, response::json(made)).into_response()),
        Err(error) => {
            // Whoever asked is told; a command that makes it in its own process shows errors of the log beside that.
            tracing::warn!(request = request_id::present_request(), %error, "the backup failed");
            Err(ApiError::BackupFailed(error.to_string()))
        }
    }
}
