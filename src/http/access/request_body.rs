//! Floor 4. The body of a request as handlers take it.

use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use bytes::Bytes;

use crate::http::access::rights::Rights;
use crate::http::access::write_quota::Allowance;
use crate::http::bodies::decoding::IncomingBody;
use crate::http::error::ApiError;

/// The body without its content coding, or why it could not be read: handlers say who may not come in before they look.
pub(crate) struct RequestBody(pub(crate) Result<Bytes, ApiError>);

impl<S: Send + Sync> FromRequest<S> for RequestBody {
    type Rejection = ApiError;

    /// Fails if the rights of the caller have ended while the body came: then the handler is not run at all.
    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let rights = request.extensions().get::<Arc<Rights>>().cloned();
        let sent = RequestBody(read(request).await);
        if let Some(rights) = rights {
            rights.check_now()?;
        }
        Ok(sent)
    }
}

async fn read(request: Request) -> Result<Bytes, ApiError> {
    let allowance = request.extensions().get::<Allowance>().cloned();
    let body = IncomingBody::of(request)?;
    if let Some(allowance) = &allowance {
        allowance.check(body.announced_bytes())?;
    }
    let body = body.read().await?;
    if let Some(allowance) = allowance {
        allowance.take(body.len() as u64)?;
    }
    Ok(body)
}
