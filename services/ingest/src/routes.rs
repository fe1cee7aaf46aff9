//! All routes and what they have in common.

use std::sync::Arc;

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::{Router, middleware};
use http::{Method, StatusCode, Uri};
use nixfleet_proto::RolloutId;

use crate::access::guard;
use crate::error::ApiError;
use crate::state::App;

mod agent;
mod artifacts;
mod cluster;
mod commands;
mod hosts;
mod overview;
mod releases;
mod rollouts;

/// Path of events, which the gateway answers before its router is asked.
pub const EVENTS_ROUTE: &str = "/v1/agent/events";

/// Everything else behind [`guard`], unknown paths included: strangers learn nothing.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .merge(agent::routes())
        .merge(artifacts::routes())
        .merge(releases::routes())
        .merge(commands::routes())
        .merge(hosts::routes())
        .merge(rollouts::routes())
        .merge(overview::routes())
        .merge(cluster::routes())
        .fallback(unknown_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), guard))
        .with_state(app)
}

async fn unknown_path(uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    ApiError::refused(
        StatusCode::NOT_FOUND,
        "unknown-path",
        format!("there is nothing at {path}"),
    )
}

async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    ApiError::refused(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        format!("{path} does not take {method}"),
    )
}

/// A rollout id of a path.
///
/// # Errors
/// 400.
fn rollout_id(id: Result<Path<String>, PathRejection>) -> Result<RolloutId, ApiError> {
    let illegal = |message: String| ApiError::field("invalid-rollout-id", "rolloutId", message);
    let Path(id) = id.map_err(|error| illegal(error.to_string()))?;
    RolloutId::parse_strict(&id).map_err(|error| illegal(error.to_string()))
}

/// Most rows of one answer: some megabytes of JSON, a second of the database.
const MAX_PAGE: u32 = 10_000;
/// Rows of one answer when nothing is asked for.
const DEFAULT_PAGE: u32 = 1_000;

/// Rows of a page; above the maximum means the maximum.
///
/// # Errors
/// 400 for a page of nothing.
fn page_limit(limit: Option<u32>) -> Result<u32, ApiError> {
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
