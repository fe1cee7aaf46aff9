//! The signed artifacts, byte for byte as they were received.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use http::{HeaderMap, StatusCode, header};
use nixfleet_http::{ApiError, Artifact, Identity, unknown_rollout};
use nixfleet_proto::{ManifestHash, RolloutId};

use crate::app_state::App;
use crate::events::own_host;

/// The routes; the bytes prove themselves. A host reads what its agent needs to verify its own dispatch: the
/// fleet of a release that names it, and the manifests that list it.
///
/// Source: docs/adr/0019-what-an-agent-may-read.md.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/fleet.resolved", get(fleet))
        .route("/v1/fleet.resolved/sig", get(fleet_signature))
        .route("/v1/rollouts/{id}", get(rollout))
        .route("/v1/rollouts/{id}/sig", get(rollout_signature))
}

type Client = Extension<Arc<Identity>>;

async fn fleet(
    State(app): State<Arc<App>>,
    Extension(identity): Client,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    Ok(document(&headers, fleet_of(&app, &identity)?))
}

async fn fleet_signature(
    State(app): State<Arc<App>>,
    Extension(identity): Client,
) -> Result<Response, ApiError> {
    Ok(signature(fleet_of(&app, &identity)?))
}

async fn rollout(
    State(app): State<Arc<App>>,
    Extension(identity): Client,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let artifact = rollout_of(&app, &identity, &artifact_id(id)?).await?;
    Ok(document(&headers, artifact))
}

async fn rollout_signature(
    State(app): State<Arc<App>>,
    Extension(identity): Client,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    Ok(signature(
        rollout_of(&app, &identity, &artifact_id(id)?).await?,
    ))
}

fn fleet_of(app: &App, identity: &Identity) -> Result<Artifact, ApiError> {
    let release = app.releases.current()?;
    let hostname = own_host(identity)?;
    let named = release.host_channels();
    if named.channel_of(hostname.as_str()).is_some() {
        return Ok(release.fleet.clone());
    }
    let message = format!("{hostname} is not a host of the current release");
    Err(ApiError::refused(
        StatusCode::NOT_FOUND,
        "unknown-host",
        message,
    ))
}

async fn rollout_of(app: &App, identity: &Identity, id: &RolloutId) -> Result<Artifact, ApiError> {
    let hostname = own_host(identity)?;
    let rollout = app.releases.rollout(id).await?;
    if rollout.hosts.contains(hostname) {
        return Ok(rollout.artifact);
    }
    Err(unknown_rollout(id))
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
