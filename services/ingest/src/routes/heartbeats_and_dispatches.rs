//! What agents call besides events: heartbeats, dispatches.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Json, Router};
use http::{HeaderValue, StatusCode};
use nixfleet_http::{ApiError, Identity, check_text, now, parse};
use nixfleet_proto::wire::{Dispatch, HeartbeatRequest, OwnerHeartbeat, REPLAY_HEADER};
use serde::Deserialize;
use tokio::time::Instant;

use super::paths::{DISPATCH_ROUTE, EVENTS_ROUTE};
use crate::app_state::App;
use crate::dispatch::QueuedDispatch;
use crate::events::{check_time, own_host, require_own_host, require_strict_id};

/// Largest closure name in a heartbeat.
const MAX_CLOSURE_BYTES: usize = 1024;

pub fn routes() -> Router<Arc<App>> {
    Router::new()
        // Only its other methods come here.
        .route(EVENTS_ROUTE, MethodRouter::new())
        .route("/v1/agent/heartbeat", post(answer_heartbeat))
        .route(DISPATCH_ROUTE, get(deliver_dispatch))
}

/// Asks the owner of the host's partition and passes its answer on.
async fn answer_heartbeat(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Arc<Identity>>,
    request: Request,
) -> Result<Response, ApiError> {
    let mut body = app.access.json_body(request, app.config.body_limit())?;
    let bytes = body.read().await?;
    let request: HeartbeatRequest = parse(&bytes)?;
    drop((bytes, body));
    require_own_host(&identity, &request.hostname)?;
    if let Some(rollout_id) = &request.rollout_id {
        require_strict_id(rollout_id)?;
    }
    check_time("at", request.at)?;
    if let Some(closure) = &request.current_closure {
        check_text("current_closure", closure.as_str(), MAX_CLOSURE_BYTES)?;
    }
    let release = app.releases.current()?;
    let named = release.host_channels();
    let Some(channel) = named.channel_of(request.hostname.as_str()) else {
        return Err(ApiError::refused(
            StatusCode::NOT_FOUND,
            "unknown-host",
            format!("{} is not a host of the current release", request.hostname),
        ));
    };
    let heartbeat = OwnerHeartbeat {
        channel: channel.clone(),
        received_at: app.backends.received_at()?,
        request,
    };
    let partition = app.backends.partition(&heartbeat.channel);
    let deadline = Duration::from_secs(app.config.agents.heartbeat_timeout_seconds);
    let answer = app
        .backends
        .bus
        .request_heartbeat(partition, &heartbeat, deadline)
        .await;
    let answer = answer.map_err(|error| {
        tracing::debug!(%error, "a heartbeat was not answered");
        ApiError::unavailable("owner-unavailable", error.to_string(), 5)
    })?;
    let mut response = Json(answer.reply).into_response();
    if let Some(seq) = answer.replay_from {
        let value = HeaderValue::from(seq);
        response.headers_mut().insert(REPLAY_HEADER, value);
    }
    Ok(response)
}

#[derive(Debug, Deserialize)]
struct Wait {
    /// Seconds.
    wait: Option<u64>,
}

/// Holds the request until there is something to do, or the time is over.
async fn deliver_dispatch(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Arc<Identity>>,
    query: Result<Query<Wait>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query
        .map_err(|_| ApiError::field("invalid-parameter", "wait", "must be a number of seconds"))?;
    let wait = query
        .wait
        .map_or(app.config.poll_max(), Duration::from_secs);
    let deadline = Instant::now() + wait.min(app.config.poll_max());
    let hostname = own_host(&identity)?;
    let found = tokio::select! {
        found = app.dispatches.next(hostname, deadline) => found,
        () = app.shutdown.cancelled() => None,
    };
    match found {
        Some(dispatch) => {
            metrics::counter!("nixfleet_dispatches_delivered_total").increment(1);
            tracing::debug!(rollout = %dispatch.rollout_id, "dispatch delivered");
            Ok(Json(delivered(dispatch)).into_response())
        }
        None if app.dispatches.is_loaded() => Ok(StatusCode::NO_CONTENT.into_response()),
        None => Err(ApiError::unavailable(
            "not-ready",
            "the dispatch queue is not loaded yet",
            5,
        )),
    }
}

fn delivered(dispatch: QueuedDispatch) -> Dispatch {
    Dispatch {
        soak_due_at: now() + dispatch.soak_minutes.delta(),
        hostname: dispatch.hostname,
        rollout_id: dispatch.rollout_id,
        target_closure: dispatch.target_closure,
        soak_minutes: dispatch.soak_minutes,
        enqueued_at: dispatch.enqueued_at,
    }
}
