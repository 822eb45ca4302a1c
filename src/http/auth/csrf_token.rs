//! Floor 4. Tokens in forms: what a page of another site cannot know.
//!
//! A token is an HMAC over what it is for and when it ends, under a key of this process.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::http::state::app_state::AppState;

/// How long a form may stay open before it is sent.
const TOKEN_MS_MAX: i64 = 30 * 60 * 1000;

fn mac(node: &AppState, purpose: &str, expires_ms: i64) -> Hmac<Sha256> {
    #[allow(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(&node.form_key).expect("any key length");
    mac.update(format!("{purpose}\n{expires_ms}").as_bytes());
    mac
}

/// A token that is good for `purpose`, which no two uses may share, and for half an hour.
pub(crate) fn make(node: &AppState, purpose: &str) -> String {
    let expires_ms = node.store.now_ms() + TOKEN_MS_MAX;
    let code = mac(node, purpose, expires_ms).finalize().into_bytes();
    format!("{expires_ms}.{}", hex::encode(code))
}

pub(crate) fn is_valid(node: &AppState, purpose: &str, token: &str) -> bool {
    let Some((expires, code)) = token.split_once('.') else {
        return false;
    };
    let (Ok(expires_ms), Ok(code)) = (expires.parse::<i64>(), hex::decode(code)) else {
        return false;
    };
    expires_ms >= node.store.now_ms() && mac(node, purpose, expires_ms).verify_slice(&code).is_ok()
}
