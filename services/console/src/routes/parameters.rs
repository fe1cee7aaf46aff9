//! Parameters that several routes have.

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use nixfleet_http::ApiError;
use nixfleet_proto::RolloutId;

/// A rollout id of a path.
///
/// # Errors
/// 400.
pub(super) fn rollout_id(id: Result<Path<String>, PathRejection>) -> Result<RolloutId, ApiError> {
    let illegal = |message: String| ApiError::field("invalid-rollout-id", "rolloutId", message);
    let Path(id) = id.map_err(|error| illegal(error.to_string()))?;
    RolloutId::parse_strict(&id).map_err(|error| illegal(error.to_string()))
}

/// Most rows of one answer: some megabytes of JSON, a second of the database.
pub(super) const MAX_PAGE: u32 = 10_000;
/// Rows of one answer when nothing is asked for.
const DEFAULT_PAGE: u32 = 1_000;

/// Rows of a page; above the maximum means the maximum.
///
/// # Errors
/// 400 for a page of nothing.
pub(super) fn page_limit(limit: Option<u32>) -> Result<u32, ApiError> {
    match limit {
        Some(0) => Err(ApiError::field(
            "invalid-parameter",
            "limit",
            "must be at least 1",
        )),
        Some(limit) => Ok(limit.min(MAX_PAGE)),
        None => Ok(DEFAULT_PAGE),
    }
}
