//! Pushing releases.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::routing::put;
use axum::{Extension, Json, Router};
use http::StatusCode;
use nixfleet_http::{ApiError, Identity, parse_in_place};
use nixfleet_trust::{BorrowedText, ReleaseBundle, ReleaseUpload};

use crate::app_state::App;
use crate::release_push::{Accepted, push};

pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/manifests", put(take_release))
}

async fn take_release(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Arc<Identity>>,
    request: Request,
) -> Result<Json<Accepted>, ApiError> {
    let limit = app.config.release_body();
    let mut body = app.access.json_body(request, limit)?;
    let bytes = body.read().await?;
    let one_at_a_time = Arc::clone(&app.pushing).try_acquire_owned();
    let _turn = one_at_a_time
        .map_err(|_| ApiError::unavailable("too-busy", "another release is being pushed", 5))?;
    // Reading hundreds of megabytes would keep other requests waiting.
    let bundle = tokio::task::spawn_blocking(move || read(&bytes)).await;
    let bundle = bundle.map_err(|error| ApiError::internal("reading a release", &error))?;
    push(&app, &identity, bundle?).await.map(Json)
}

fn read(bytes: &[u8]) -> Result<ReleaseBundle, ApiError> {
    let upload = parse_in_place::<ReleaseUpload<BorrowedText<'_>>, ReleaseUpload>(bytes)?;
    ReleaseBundle::try_from(&upload).map_err(|error| {
        ApiError::refused(StatusCode::BAD_REQUEST, "invalid-field", error.to_string())
    })
}
