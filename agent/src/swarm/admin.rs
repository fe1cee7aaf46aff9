//! `GET /state`, `GET /healthz`, `POST /stop` on a plain local listener.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::knowledge::Knowledge;
use super::state::SwarmState;

#[derive(Clone)]
struct Admin {
    knowledge: Arc<Knowledge>,
    shutdown: CancellationToken,
}

/// Serves until `shutdown`.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: TcpListener,
    knowledge: Arc<Knowledge>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let admin = Admin {
        knowledge,
        shutdown: shutdown.clone(),
    };
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/state", get(state))
        .route("/stop", post(stop))
        .with_state(admin);
    axum::serve(listener, router)
        .with_graceful_shutdown(async move { shutdown.cancelled().await })
        .await
}

async fn state(State(admin): State<Admin>) -> Json<SwarmState> {
    Json(admin.knowledge.state(chrono::Utc::now()))
}

async fn stop(State(admin): State<Admin>) -> StatusCode {
    admin.shutdown.cancel();
    StatusCode::ACCEPTED
}
