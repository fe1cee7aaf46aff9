//! Rollouts: the list, lifecycles, hosts, events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::routing::get;
use axum::{Extension, Json, Router};
use http::StatusCode;
use nixfleet_http::{ApiError, Identity, require_channel};
use nixfleet_proto::{
    ChannelName, ChannelRef, ClosureHash, HostState, Hostname, ManifestHash, OnHealthFailure,
    Position, RolloutId, RolloutState, Timestamp,
};
use nixfleet_store::{HostView, RolloutFilter, RolloutView};
use serde::{Deserialize, Serialize};

use super::parameters::{MAX_PAGE, page_limit, rollout_id};
use crate::app_state::App;

pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/rollouts", get(list))
        .route("/v1/rollouts/{id}/lifecycle", get(lifecycle))
        .route("/v1/rollouts/{id}/hosts", get(hosts))
        .route("/v1/rollouts/{id}/events", get(events))
}

type Id = Result<Path<String>, PathRejection>;

/// Which rollouts a client wants.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Which {
    /// Neither Superseded nor Pruned nor Terminal.
    #[default]
    InFlight,
    /// Neither Superseded nor Pruned.
    Current,
    All,
}

#[derive(Debug, Deserialize)]
struct ListQuery {
    #[serde(default)]
    filter: Which,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rollouts {
    rollouts: Vec<RolloutEntry>,
    /// True when `hostStates` lacks hosts because there are too many to list.
    host_states_truncated: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RolloutEntry {
    rollout_id: RolloutId,
    channel: ChannelName,
    current_wave: u32,
    created_at: Timestamp,
    host_states: BTreeMap<Hostname, HostState>,
    state: RolloutState,
    waves: u64,
    host_count: u64,
    state_counts: BTreeMap<HostState, u64>,
}

async fn list(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Arc<Identity>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Rollouts>, ApiError> {
    let Query(query) = query.map_err(|_| {
        let message = "must be in-flight, current or all";
        ApiError::field("invalid-parameter", "filter", message)
    })?;
    let filter = match query.filter {
        Which::InFlight => RolloutFilter::InFlight,
        Which::Current => RolloutFilter::Current,
        Which::All => RolloutFilter::All,
    };
    let mut views = app.backends.store.rollouts(filter).await?;
    views.retain(|view| identity.sees(&view.record.channel));
    let ids: Vec<RolloutId> = views
        .iter()
        .map(|view| view.record.rollout_id.clone())
        .collect();
    let mut counts = app.backends.store.state_counts(&ids).await?;
    let mut states = app.backends.store.host_states(&ids, MAX_PAGE).await?;
    let listed: usize = states.values().map(BTreeMap::len).sum();
    let rollouts = views
        .into_iter()
        .map(|view| RolloutEntry {
            host_states: states.remove(&view.record.rollout_id).unwrap_or_default(),
            state_counts: counts.remove(&view.record.rollout_id).unwrap_or_default(),
            rollout_id: view.record.rollout_id,
            channel: view.record.channel,
            current_wave: view.record.current_wave,
            created_at: view.record.opened_at,
            state: view.record.state,
            waves: view.wave_count,
            host_count: view.host_count,
        })
        .collect();
    Ok(Json(Rollouts {
        rollouts,
        host_states_truncated: listed >= MAX_PAGE as usize,
    }))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Lifecycle {
    rollout_id: RolloutId,
    state: RolloutState,
    superseded_at: Option<Timestamp>,
    superseded_by: Option<RolloutId>,
    terminal_at: Option<Timestamp>,
    channel: ChannelName,
    target_ref: ChannelRef,
    opened_at: Timestamp,
    current_wave: u32,
    waves: u64,
    host_count: u64,
    on_health_failure: OnHealthFailure,
    waived_hosts: BTreeSet<Hostname>,
    manifest_hash: ManifestHash,
    /// The entry that last changed it.
    position: Position,
}

async fn lifecycle(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Arc<Identity>>,
    id: Id,
) -> Result<Json<Lifecycle>, ApiError> {
    let view = load(&app, &seen_rollout(&identity, id)?).await?;
    let record = view.record;
    Ok(Json(Lifecycle {
        rollout_id: record.rollout_id,
        state: record.state,
        superseded_at: record.superseded_at,
        superseded_by: record.superseded_by,
        terminal_at: record.terminal_at,
        channel: record.channel,
        target_ref: record.target_ref,
        opened_at: record.opened_at,
        current_wave: record.current_wave,
        waves: view.wave_count,
        host_count: view.host_count,
        on_health_failure: view.on_health_failure,
        waived_hosts: record.waived_hosts,
        manifest_hash: view.manifest_hash,
        position: view.position,
    }))
}

/// A rollout id of a path, of a channel that the client may see.
fn seen_rollout(identity: &Identity, id: Id) -> Result<RolloutId, ApiError> {
    let rollout_id = rollout_id(id)?;
    require_channel(identity, &rollout_id.channel())?;
    Ok(rollout_id)
}

async fn load(app: &App, rollout_id: &RolloutId) -> Result<RolloutView, ApiError> {
    app.backends
        .store
        .rollout_lifecycle(rollout_id)
        .await?
        .ok_or_else(|| {
            let message = format!("no rollout {rollout_id} was opened");
            ApiError::refused(StatusCode::NOT_FOUND, "unknown-rollout", message)
        })
}

#[derive(Debug, Deserialize)]
struct PageQuery {
    after: Option<String>,
    limit: Option<u32>,
}

fn page(query: Result<Query<PageQuery>, QueryRejection>) -> Result<PageQuery, ApiError> {
    let Query(query) =
        query.map_err(|error| ApiError::field("invalid-parameter", "limit", error))?;
    Ok(query)
}

#[derive(Debug, Serialize)]
struct RolloutHosts {
    rollout_id: RolloutId,
    hosts: Vec<RolloutHost>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Hostname>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RolloutHost {
    host: Hostname,
    channel: ChannelName,
    wave: u32,
    target_closure_hash: ClosureHash,
    target_channel_ref: ChannelRef,
    dispatched_at: Timestamp,
    terminal_state: Option<&'static str>,
    terminal_at: Option<Timestamp>,
    state: HostState,
    staged: bool,
}

async fn hosts(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Arc<Identity>>,
    id: Id,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<RolloutHosts>, ApiError> {
    let rollout_id = seen_rollout(&identity, id)?;
    let page = page(query)?;
    let limit = page_limit(page.limit)?;
    let after = page
        .after
        .map(|after| after.parse::<Hostname>())
        .transpose();
    let after = after.map_err(|error| ApiError::field("invalid-parameter", "after", error))?;
    let views = app
        .backends
        .store
        .rollout_hosts(&rollout_id, after.as_ref(), limit)
        .await?;
    if views.is_empty() {
        load(&app, &rollout_id).await?;
    }
    let full = views.len() == limit as usize;
    let next = views
        .last()
        .filter(|_| full)
        .map(|view| view.record.hostname.clone());
    let mut hosts: Vec<RolloutHost> = views.into_iter().map(rollout_host).collect();
    hosts.sort_by(|a, b| (a.wave, &a.host).cmp(&(b.wave, &b.host)));
    Ok(Json(RolloutHosts {
        rollout_id,
        hosts,
        next,
    }))
}

fn rollout_host(view: HostView) -> RolloutHost {
    let record = view.record;
    let (terminal_state, terminal_at) = match record.state {
        HostState::Converged => (Some("converged"), record.converged_at),
        HostState::Reverted => (Some("rolled-back"), record.reverted_at),
        HostState::Failed => {
            let failed_at = record.failed_at.or(record.activation_failed_at);
            (Some("failed"), failed_at)
        }
        HostState::Pending | HostState::Activating | HostState::Deferred | HostState::Soaking => {
            (None, None)
        }
    };
    RolloutHost {
        host: record.hostname,
        channel: record.channel,
        wave: view.wave,
        target_closure_hash: record.target_closure,
        target_channel_ref: record.rollout_id.target_ref(),
        dispatched_at: record.dispatched_at,
        terminal_state,
        terminal_at,
        state: record.state,
        staged: view.staged,
    }
}

#[derive(Debug, Serialize)]
struct Events {
    rollout_id: RolloutId,
    events: Vec<Event>,
    /// For the next page; absent when the log has no more at the moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Debug, Serialize)]
struct Event {
    seq: u64,
    index: u32,
    ts: Timestamp,
    kind: String,
    host: Option<Hostname>,
    payload: serde_json::Value,
    /// What the fold made of it; null until it is archived.
    outcome: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
}

async fn events(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Arc<Identity>>,
    id: Id,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<Events>, ApiError> {
    let rollout_id = seen_rollout(&identity, id)?;
    let page = page(query)?;
    let limit = page_limit(page.limit)?;
    let after = page.after.as_deref().map(read_position).transpose()?;
    let partition = app.backends.partition(&rollout_id.channel());
    let outcomes = app.backends.bus.names().output_stream(partition);
    let found = app
        .backends
        .store
        .rollout_events(&rollout_id, &outcomes, after, limit)
        .await?;
    let events = found.events.into_iter().map(|event| Event {
        seq: event.position.seq,
        index: event.position.index,
        ts: event.ts,
        kind: event.kind,
        host: event.hostname,
        payload: event.payload,
        outcome: event.outcome,
        traceparent: event.traceparent,
    });
    Ok(Json(Events {
        events: events.collect(),
        next: found
            .next
            .map(|next| format!("{}.{}", next.seq, next.index)),
        rollout_id,
    }))
}

/// `seq.index`, or `seq` for everything of that message.
fn read_position(text: &str) -> Result<Position, ApiError> {
    let illegal = || ApiError::field("invalid-parameter", "after", "must be seq or seq.index");
    let (seq, index) = match text.split_once('.') {
        Some((seq, index)) => (seq, index.parse().map_err(|_| illegal())?),
        None => (text, u32::MAX),
    };
    let seq: u64 = seq.parse().map_err(|_| illegal())?;
    // The database has no column for more.
    if seq > i64::MAX as u64 {
        return Err(illegal());
    }
    Ok(Position { seq, index })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_they_are_written() {
        let position = |text| read_position(text).ok().map(|p| (p.seq, p.index));
        assert_eq!(position("7.3"), Some((7, 3)));
        assert_eq!(position("7"), Some((7, u32::MAX)));
        for text in ["", "x", "7.", "7.x", "-1", "9223372036854775808"] {
            assert_eq!(position(text), None, "{text}");
        }
    }
}
