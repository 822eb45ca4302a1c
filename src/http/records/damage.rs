//! Floor 4. Tells clients how many damaged records a list leaves out.

use axum::http::{HeaderValue, header};
use axum::response::Response;

use crate::store::DamagedRow;

/// How many records of the kind are damaged on the node's disk, and therefore in no list.
pub(crate) const X_DAMAGED: header::HeaderName = header::HeaderName::from_static("x-damaged");

/// A list in which rows of these tables are left out if they are damaged: says how many.
pub(crate) fn counting_damaged(rows: &[DamagedRow], tables: &[&str], mut list: Response) -> Response {
    let damaged = rows.iter().filter(|row| tables.contains(&row.table.as_str())).count();
    if damaged > 0 {
        list.headers_mut().insert(X_DAMAGED, HeaderValue::from(damaged));
    }
    list
}
