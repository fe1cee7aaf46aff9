//! The fleet as a whole: the client's identity, channels, held hosts, status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Extension, Json, Router};
use futures::future::try_join_all;
use http::StatusCode;
use nixfleet_http::{ApiError, Current, Identity, now, require_channel};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{
    ChannelName, ChannelRef, Gate, HostState, Hostname, ManifestHash, Position, RolloutId,
    RolloutState, Timestamp,
};
use nixfleet_store::RolloutFilter;
use serde::Serialize;

use super::parameters::MAX_PAGE;
use crate::app_state::App;

pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/channels", get(channels))
        .route("/v1/channels/{name}", get(channel))
        .route("/v1/deferrals", get(deferrals))
        .route("/v1/status", get(status))
        .route("/v1/whoami", get(whoami))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WhoAmI {
    cn: String,
    issued_at: Timestamp,
    role: &'static str,
    name: String,
    certificate_ends_at: Timestamp,
    /// Absent for every channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    channels: Option<BTreeSet<ChannelName>>,
}

async fn whoami(Extension(identity): Extension<Arc<Identity>>) -> Json<WhoAmI> {
    Json(WhoAmI {
        cn: identity.common_name.clone(),
        issued_at: now(),
        role: identity.role.name(),
        name: identity.name.to_string(),
        certificate_ends_at: identity.not_after,
        channels: identity.channels.names().cloned(),
    })
}

/// One channel; snake case for those who read the endpoint already.
#[derive(Debug, Serialize)]
struct ChannelEntry {
    name: ChannelName,
    declared_ci_commit: Option<String>,
    signed_at: Timestamp,
    freshness_window_minutes: u64,
    rollout_id: Option<RolloutId>,
    rollout_policy: String,
    hosts: usize,
}

#[derive(Debug, Serialize)]
struct Channels {
    channels: Vec<ChannelEntry>,
}

async fn channels(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Arc<Identity>>,
) -> Result<Json<Channels>, ApiError> {
    let current = app.releases.current()?;
    let names = current.fleet().channels.keys();
    let channels = names
        .filter(|name| identity.sees(name))
        .filter_map(|name| channel_entry(&current, name))
        .collect();
    Ok(Json(Channels { channels }))
}

async fn channel(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Arc<Identity>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<ChannelEntry>, ApiError> {
    let Path(name) = name.map_err(|error| ApiError::field("invalid-parameter", "name", error))?;
    let current = app.releases.current()?;
    let name = ChannelName::from(name);
    require_channel(&identity, &name)?;
    channel_entry(&current, &name).map(Json).ok_or_else(|| {
        let message = format!("the current release has no channel {name}");
        ApiError::refused(StatusCode::NOT_FOUND, "unknown-channel", message)
    })
}

fn channel_entry(current: &Current, name: &ChannelName) -> Option<ChannelEntry> {
    let fleet = current.fleet();
    let channel = fleet.channels.get(name)?;
    let manifest = current.release.rollouts().get(name);
    Some(ChannelEntry {
        name: name.clone(),
        declared_ci_commit: fleet.meta.ci_commit.clone(),
        signed_at: current.release.signed_at(),
        freshness_window_minutes: channel.freshness_window,
        rollout_id: manifest.map(|manifest| manifest.payload().rollout_id()),
        rollout_policy: channel.rollout_policy.clone(),
        hosts: manifest.map_or(0, |manifest| manifest.payload().host_set.len()),
    })
}

#[derive(Debug, Serialize)]
struct Deferrals {
    deferrals: Vec<DeferralEntry>,
    /// True when there are more than are listed.
    truncated: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DeferralEntry {
    host: Hostname,
    rollout: RolloutId,
    blocked_by: Gate,
    reason: String,
    observed_at: Timestamp,
    wave: u32,
    /// The entry that stated it.
    position: Position,
    /// The entry that caused it, when there is one in the partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<Position>,
}

async fn deferrals(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Arc<Identity>>,
) -> Result<Json<Deferrals>, ApiError> {
    let is_shown = |channel: &ChannelName| identity.sees(channel);
    let store = &app.backends.store;
    let found = store.deferrals(MAX_PAGE as usize, is_shown).await?;
    let truncated = found.len() >= MAX_PAGE as usize;
    let deferrals = found.into_iter().map(|deferral| DeferralEntry {
        host: deferral.hostname,
        rollout: deferral.rollout_id,
        blocked_by: deferral.gate,
        reason: deferral.reason,
        observed_at: deferral.observed_at,
        wave: deferral.wave,
        position: deferral.position,
        cause: deferral.cause,
    });
    Ok(Json(Deferrals {
        deferrals: deferrals.collect(),
        truncated,
    }))
}

/// Where everything stands.
///
/// Source: docs/wire-protocol.md, status.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    at: Timestamp,
    release: Option<ReleaseStatus>,
    channels: Vec<ChannelStatus>,
    partitions: Vec<PartitionStatus>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReleaseStatus {
    seq: u64,
    commit: Option<String>,
    signed_at: Timestamp,
    fleet_hash: ManifestHash,
    hosts: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ChannelStatus {
    channel: ChannelName,
    /// The rollout of the current release; null for a channel without hosts.
    expected_rollout_id: Option<RolloutId>,
    /// Its rollouts that are neither Superseded nor Pruned, newest first.
    rollouts: Vec<RolloutStatus>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RolloutStatus {
    rollout_id: RolloutId,
    target_ref: ChannelRef,
    state: RolloutState,
    current_wave: u32,
    waves: u64,
    hosts: u64,
    hosts_by_state: BTreeMap<HostState, u64>,
    opened_at: Timestamp,
}

/// How far a partition's log is folded and applied.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PartitionStatus {
    partition: u16,
    input_seq: u64,
    /// Last input message that the database covers.
    applied_input_seq: u64,
    /// Input messages that the database does not cover yet.
    lag_messages: u64,
    output_seq: u64,
    /// Last frame in the database.
    applied_output_seq: u64,
}

async fn status(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Arc<Identity>>,
) -> Result<Json<Status>, ApiError> {
    let mut views = app.backends.store.rollouts(RolloutFilter::Current).await?;
    views.retain(|view| identity.sees(&view.record.channel));
    let ids: Vec<RolloutId> = views
        .iter()
        .map(|view| view.record.rollout_id.clone())
        .collect();
    let mut counts = app.backends.store.state_counts(&ids).await?;
    let mut channels = BTreeMap::<ChannelName, Vec<RolloutStatus>>::new();
    for view in views {
        let record = view.record;
        let rollouts = channels.entry(record.channel).or_default();
        rollouts.push(RolloutStatus {
            hosts_by_state: counts.remove(&record.rollout_id).unwrap_or_default(),
            target_ref: record.target_ref,
            state: record.state,
            current_wave: record.current_wave,
            waves: view.wave_count,
            hosts: view.host_count,
            opened_at: record.opened_at,
            rollout_id: record.rollout_id,
        });
    }
    let current = app.releases.current().ok();
    for name in current
        .iter()
        .flat_map(|current| current.fleet().channels.keys())
        .filter(|name| identity.sees(name))
    {
        channels.entry(name.clone()).or_default();
    }
    let expected = |channel: &ChannelName| {
        let manifest = current.as_ref()?.release.rollouts().get(channel)?;
        Some(manifest.payload().rollout_id())
    };
    let channels = channels
        .into_iter()
        .map(|(channel, rollouts)| ChannelStatus {
            expected_rollout_id: expected(&channel),
            channel,
            rollouts,
        });
    Ok(Json(Status {
        at: now(),
        channels: channels.collect(),
        release: current.as_deref().map(release_status),
        partitions: partitions(&app).await?,
    }))
}

fn release_status(current: &Current) -> ReleaseStatus {
    ReleaseStatus {
        seq: current.seq,
        commit: current.fleet().meta.ci_commit.clone(),
        signed_at: current.release.signed_at(),
        fleet_hash: current.fleet.hash.clone(),
        hosts: current.fleet().hosts.len(),
    }
}

async fn partitions(app: &App) -> Result<Vec<PartitionStatus>, ApiError> {
    let cursors: BTreeMap<Partition, _> = app.backends.store.cursors().await?.into_iter().collect();
    let unavailable = |error: nixfleet_bus::LeaderReadError| {
        ApiError::unavailable("log-unavailable", error.to_string(), 2)
    };
    let each = Partition::all(app.backends.bus.partitions()).map(async |partition| {
        let names = app.backends.bus.names();
        let input = app
            .backends
            .bus
            .stream_identity(&names.input_stream(partition))
            .await;
        let output = app
            .backends
            .bus
            .stream_identity(&names.output_stream(partition))
            .await;
        let (input_seq, output_seq) = (
            input.map_err(unavailable)?.last_seq,
            output.map_err(unavailable)?.last_seq,
        );
        let cursor = cursors.get(&partition);
        // A message that is folded in part is not covered yet.
        let applied = cursor
            .and_then(|cursor| cursor.input)
            .map_or(0, |mark| mark.next().seq - 1);
        Ok::<_, ApiError>(PartitionStatus {
            partition: partition.number(),
            input_seq,
            applied_input_seq: applied,
            lag_messages: input_seq.saturating_sub(applied),
            output_seq,
            applied_output_seq: cursor.map_or(0, |cursor| cursor.out_seq),
        })
    });
    try_join_all(each).await
}
