//! `GET /state`, `GET /summary`, `GET /healthz`, `POST /stop` on a plain local listener.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::state_recorder::SwarmStateRecorder;
use crate::swarm_state::SwarmState;

#[derive(Clone)]
struct Admin {
    observer: Arc<SwarmStateRecorder>,
    shutdown: CancellationToken,
}

/// Serves until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    observer: Arc<SwarmStateRecorder>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let admin = Admin {
        observer,
        shutdown: shutdown.clone(),
    };
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/state", get(state))
        .route("/summary", get(summary))
        .route("/stop", post(stop))
        .with_state(admin);
    axum::serve(listener, router)
        .with_graceful_shutdown(async move { shutdown.cancelled().await })
        .await
}

/// Thousands of hosts take long enough to write down to hold up the agents.
async fn state(State(admin): State<Admin>) -> Response {
    let written = tokio::task::spawn_blocking(move || {
        serde_json::to_vec(&admin.observer.state(chrono::Utc::now()))
    });
    match written.await {
        Ok(Ok(bytes)) => ([(CONTENT_TYPE, "application/json")], bytes).into_response(),
        Ok(Err(_)) | Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn summary(State(admin): State<Admin>) -> Json<SwarmState> {
    Json(admin.observer.summary(chrono::Utc::now()))
}

async fn stop(State(admin): State<Admin>) -> StatusCode {
    admin.shutdown.cancel();
    StatusCode::ACCEPTED
}
