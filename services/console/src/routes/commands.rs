//! What operators command: entries in the log, decided by the fold like everything else.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::routing::{delete, post};
use axum::{Extension, Json, Router};
use http::{HeaderMap, StatusCode};
use nixfleet_http::{ApiError, Identity, check_text, not_appended, parse, require_channel};
use nixfleet_proto::{
    Actor, ActorKind, ChannelName, CommandOrigin, Hostname, OperatorCommand, Position, RolloutId,
    id::is_channel_name,
};
use nixfleet_trust::sign_command;
use serde::{Deserialize, Serialize};

use super::parameters::rollout_id;
use crate::app_state::App;

const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// An operator has to act first.
const NOT_CONFIGURED_RETRY_SECONDS: u32 = 60;
/// Longest reason: people write sentences, not files.
const MAX_REASON_BYTES: usize = 4 * 1024;
/// Longest name of a closure or host.
const MAX_NAME_BYTES: usize = 1024;

pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/rollouts/{id}/clearance", post(clear_rollout))
        .route(
            "/v1/quarantines/{channel}/{closure}",
            delete(clear_quarantine),
        )
}

/// Where a command is in the log; its outcome is among the events of the rollout.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Appended {
    partition: u16,
    position: Position,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Clearance {
    reason: String,
    #[serde(default)]
    waived_hosts: BTreeSet<Hostname>,
}

async fn clear_rollout(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Arc<Identity>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    request: Request,
) -> Result<(StatusCode, Json<Appended>), ApiError> {
    let rollout_id: RolloutId = rollout_id(id)?;
    require_channel(&identity, &rollout_id.channel())?;
    let key = idempotency_key(&headers)?;
    let mut body = app.access.json_body(request, app.config.command_body())?;
    let bytes = body.read().await?;
    let clearance: Clearance = parse(&bytes)?;
    check_reason(&clearance.reason)?;
    check_waived(&clearance.waived_hosts)?;
    let command = OperatorCommand::OperatorClearance {
        rollout_id: rollout_id.clone(),
        reason: clearance.reason,
        waived_hosts: clearance.waived_hosts,
    };
    append(&app, &rollout_id.channel(), (&identity, key), command).await
}

/// The fold refuses more than this over all clearances of a rollout; one request can say so at once.
fn check_waived(hosts: &BTreeSet<Hostname>) -> Result<(), ApiError> {
    for hostname in hosts {
        check_text("waivedHosts", hostname.as_str(), MAX_NAME_BYTES)?;
    }
    let bytes: usize = hosts.iter().map(|name| name.as_str().len()).sum();
    let max = OperatorCommand::WAIVED_BYTES_MAX;
    if bytes > max {
        let message = format!("the names take {bytes} bytes together, more than {max}");
        return Err(ApiError::field("out-of-bounds", "waivedHosts", message));
    }
    Ok(())
}

#[derive(Debug, Deserialize)]
struct Reason {
    reason: Option<String>,
}

/// The reason comes in the query, because not everything on the way passes the body of a DELETE on.
async fn clear_quarantine(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Arc<Identity>>,
    path: Result<Path<(ChannelName, String)>, PathRejection>,
    query: Result<Query<Reason>, QueryRejection>,
    headers: HeaderMap,
) -> Result<(StatusCode, Json<Appended>), ApiError> {
    let unreadable = |name: &str, error: String| ApiError::field("invalid-parameter", name, error);
    let Path((channel, closure)) = path.map_err(|error| unreadable("path", error.to_string()))?;
    let Query(query) = query.map_err(|error| unreadable("reason", error.to_string()))?;
    if !is_channel_name(channel.as_str()) {
        let message = "must be one or more of a-z, 0-9, '_' and '-'";
        return Err(ApiError::field("invalid-parameter", "channel", message));
    }
    require_channel(&identity, &channel)?;
    check_text("closure", &closure, MAX_NAME_BYTES)?;
    let key = idempotency_key(&headers)?;
    let reason = query.reason.unwrap_or_default();
    check_reason(&reason)?;
    let command = OperatorCommand::ClearQuarantine {
        channel: channel.clone(),
        closure_hash: closure.into(),
        reason,
    };
    append(&app, &channel, (&identity, key), command).await
}

fn check_reason(reason: &str) -> Result<(), ApiError> {
    if reason.trim().is_empty() {
        let message = "a reason is required, it goes into the record";
        return Err(ApiError::field("invalid-field", "reason", message));
    }
    check_text("reason", reason, MAX_REASON_BYTES)
}

/// The client's name for this command, or a new one.
fn idempotency_key(headers: &HeaderMap) -> Result<String, ApiError> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(nuid::next().to_string());
    };
    let key = value.to_str().unwrap_or_default();
    if key.is_empty() || key.len() > CommandOrigin::KEY_BYTES_MAX {
        let message = "must be 1 to 256 printable ASCII characters";
        return Err(ApiError::field("invalid-field", IDEMPOTENCY_KEY, message));
    }
    Ok(key.to_owned())
}

async fn append(
    app: &App,
    channel: &ChannelName,
    (identity, idempotency_key): (&Identity, String),
    command: OperatorCommand,
) -> Result<(StatusCode, Json<Appended>), ApiError> {
    let Some(key) = &app.key else {
        let message = "this console has no key that signs commands: set operators.key_file";
        return Err(ApiError::unavailable(
            "not-configured",
            message,
            NOT_CONFIGURED_RETRY_SECONDS,
        ));
    };
    let actor = Actor {
        kind: ActorKind::Certificate,
        issuer: identity.issuer.clone(),
        subject: identity.name.to_string(),
    };
    let fleet = app.backends.bus.names().prefix();
    let at = app.backends.received_at()?;
    let signed = sign_command(key, (fleet, at), (actor, idempotency_key), command);
    let entry =
        signed.map_err(|error| ApiError::field("invalid-field", "reason", error.to_string()))?;
    let name = entry.body.name();
    let partition = app.backends.partition(channel);
    let appended = app.entries.append_entry(partition, entry).await;
    let position = appended.map_err(|error| not_appended(&error))?;
    tracing::info!(command = name, %partition, seq = position.seq, "operator command appended");
    let partition = partition.number();
    Ok((
        StatusCode::ACCEPTED,
        Json(Appended {
            partition,
            position,
        }),
    ))
}
