//! All routes and what they have in common.

use std::sync::Arc;

use axum::{Router, middleware};
use http::{Method, StatusCode, Uri};

use crate::access::guard;
use crate::error::ApiError;
use crate::state::App;

mod agent;
mod artifacts;
mod cluster;
mod commands;
mod hosts;
mod overview;
mod parameters;
mod releases;
mod rollouts;

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
