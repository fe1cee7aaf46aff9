//! The signed artifacts, byte for byte as they were received.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, StatusCode, header};
use nixfleet_http::{ApiError, Artifact};
use nixfleet_proto::{ManifestHash, RolloutId};

use crate::app_state::App;

/// The routes; the bytes prove themselves.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/fleet.resolved", get(fleet))
        .route("/v1/fleet.resolved/sig", get(fleet_signature))
        .route("/v1/rollouts/{id}", get(rollout))
        .route("/v1/rollouts/{id}/sig", get(rollout_signature))
}

async fn fleet(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, ApiError> {
    Ok(document(&headers, app.releases.current()?.fleet.clone()))
}

async fn fleet_signature(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    Ok(signature(app.releases.current()?.fleet.clone()))
}

async fn rollout(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let artifact = app.releases.rollout(&artifact_id(id)?).await?;
    Ok(document(&headers, artifact))
}

async fn rollout_signature(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    Ok(signature(app.releases.rollout(&artifact_id(id)?).await?))
}

/// An id that is none names nothing: 404, as of old.
fn artifact_id(id: Result<Path<String>, PathRejection>) -> Result<RolloutId, ApiError> {
    let unknown =
        |message: String| ApiError::refused(StatusCode::NOT_FOUND, "unknown-rollout", message);
    let Path(id) = id.map_err(|error| unknown(error.to_string()))?;
    RolloutId::parse_strict(&id).map_err(|error| unknown(error.to_string()))
}

fn document(headers: &HeaderMap, artifact: Artifact) -> Response {
    let tag = entity_tag(&artifact.hash);
    let known = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == tag.as_bytes());
    if known {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
    }
    let content_type = (header::CONTENT_TYPE, "application/json".to_owned());
    ([content_type, (header::ETAG, tag)], artifact.bytes).into_response()
}

fn signature(artifact: Artifact) -> Response {
    let content_type = (header::CONTENT_TYPE, "application/octet-stream");
    ([content_type], artifact.signature).into_response()
}

fn entity_tag(hash: &ManifestHash) -> String {
    format!("\"{hash}\"")
}
