//! Hosts: the list, and everything about one of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::routing::get;
use axum::{Extension, Json, Router};
use http::StatusCode;
use nixfleet_bus::lease::Record;
use nixfleet_http::{ApiError, Current, Identity, now, require_channel};
use nixfleet_plan::awaited_step::{AwaitedStep, Queued, awaited_steps};
use nixfleet_proto::fleet::{Fleet, Pin};
use nixfleet_proto::snapshot::BlockRow;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{
    ChannelName, ClosureHash, Gate, HostRecord, Hostname, Position, RolloutId, RolloutState,
    Timestamp,
};
use nixfleet_store::{HostDetail, HostKey, HostView, RolloutView};
use serde::{Deserialize, Serialize};

use super::parameters::page_limit;
use crate::app_state::App;

/// Time for the leases, which say what is held; without them the answer lacks it.
const LEASES_TIMEOUT: Duration = Duration::from_secs(1);

pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/hosts", get(list))
        .route("/v1/hosts/{hostname}", get(explain))
}

#[derive(Debug, Deserialize)]
struct Page {
    /// Where the page before ended.
    after: Option<String>,
    limit: Option<u32>,
}

#[derive(Debug, Serialize)]
struct Hosts {
    hosts: Vec<RolloutHost>,
    /// For the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Source: docs/wire-protocol.md, host entry.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RolloutHost {
    hostname: Hostname,
    channel: ChannelName,
    declared_closure_hash: Option<ClosureHash>,
    current_closure_hash: Option<ClosureHash>,
    pending_closure_hash: Option<ClosureHash>,
    last_checkin_at: Option<Timestamp>,
    last_rollout_id: RolloutId,
    converged: bool,
    outstanding_compliance_failures: u64,
    outstanding_runtime_gate_errors: u64,
    verified_event_count: u64,
    last_uptime_secs: Option<u64>,
    rollout_state: &'static str,
    pending_reboot: bool,
    quarantined_closure: Option<ClosureHash>,
    pin: Option<Pin>,
    outstanding_health_failures: u64,
    wave: u32,
    staged: bool,
}

async fn list(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Arc<Identity>>,
    query: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Hosts>, ApiError> {
    let Query(page) =
        query.map_err(|error| ApiError::field("invalid-parameter", "limit", error))?;
    let limit = page_limit(page.limit)?;
    let after = page.after.as_deref().map(read_token).transpose()?;
    let channels = identity.channels.names();
    let views = app
        .backends
        .store
        .hosts(after.as_ref(), limit, channels)
        .await?;
    let next = (views.len() == limit as usize)
        .then(|| views.last().map(|view| write_token(&view.record)))
        .flatten();
    let current = app.releases.current().ok();
    let fleet = current.as_deref().map(|current| current.fleet());
    let hosts = views.iter().map(|view| entry(view, fleet)).collect();
    Ok(Json(Hosts { hosts, next }))
}

/// `hostname/rolloutId`; a rollout id has no slash.
fn write_token(record: &HostRecord) -> String {
    format!("{}/{}", record.hostname, record.rollout_id)
}

fn read_token(token: &str) -> Result<HostKey, ApiError> {
    let illegal = || ApiError::field("invalid-parameter", "after", "must be a `next` of before");
    let (hostname, rollout_id) = token.rsplit_once('/').ok_or_else(illegal)?;
    let rollout_id = rollout_id.parse::<RolloutId>().map_err(|_| illegal())?;
    Ok((rollout_id, hostname.parse().map_err(|_| illegal())?))
}

fn entry(view: &HostView, fleet: Option<&Fleet>) -> RolloutHost {
    let record = &view.record;
    let declared = fleet.and_then(|fleet| fleet.hosts.get(&record.hostname));
    RolloutHost {
        hostname: record.hostname.clone(),
        channel: record.channel.clone(),
        declared_closure_hash: declared.and_then(|host| host.closure_hash.clone()),
        current_closure_hash: view.running_closure().cloned(),
        pending_closure_hash: view.pending_closure().cloned(),
        last_checkin_at: view.last_seen_at,
        last_rollout_id: record.rollout_id.clone(),
        converged: record.state == nixfleet_proto::HostState::Converged,
        outstanding_compliance_failures: view.compliance_failures,
        outstanding_runtime_gate_errors: 0,
        verified_event_count: record.last_event_seq,
        last_uptime_secs: None,
        rollout_state: record.state.name(),
        pending_reboot: view.pending_reboot(),
        quarantined_closure: view.quarantined_closure().cloned(),
        pin: declared.and_then(|host| host.pin.as_deref().cloned()),
        outstanding_health_failures: view.health_failures,
        wave: view.wave,
        staged: view.staged,
    }
}

/// Why a host is where it is.
///
/// Source: docs/wire-protocol.md, explain.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explanation {
    hostname: Hostname,
    /// What the current release says; absent when it does not know the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    declared: Option<Declared>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    running_closure: Option<ClosureHash>,
    /// Why nothing is planned for its channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<String>,
    /// Records of rollouts that are neither Superseded nor Pruned.
    records: Vec<RecordExplanation>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Declared {
    channel: ChannelName,
    closure_hash: Option<ClosureHash>,
    tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pin: Option<Pin>,
    /// The rollout of the channel in this release.
    #[serde(skip_serializing_if = "Option::is_none")]
    rollout_id: Option<RolloutId>,
    /// True once that rollout has a record of this host.
    opened: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RecordExplanation {
    record: HostRecord,
    rollout_state: RolloutState,
    current_wave: u32,
    wave: u32,
    staged: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    queued_at: Option<Timestamp>,
    /// Every gate that holds the host, in gate order.
    blocks: Vec<Block>,
    /// What it waits for when nothing holds it.
    waiting: Vec<AwaitedStep>,
    waived: bool,
    quarantined: bool,
    outstanding_compliance_failures: u64,
    outstanding_health_failures: u64,
    /// The entry that last changed the record.
    position: Position,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Block {
    gate: Gate,
    reason: String,
    /// The entry that caused it, when there is one in the partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<Position>,
    /// The entry that stated it.
    position: Position,
}

async fn explain(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Arc<Identity>>,
    hostname: Result<Path<String>, PathRejection>,
) -> Result<Json<Explanation>, ApiError> {
    let Path(hostname) =
        hostname.map_err(|error| ApiError::field("invalid-parameter", "hostname", error))?;
    let hostname: Hostname = hostname
        .parse()
        .map_err(|error| ApiError::field("invalid-parameter", "hostname", error))?;
    let detail = app.backends.store.host_detail(&hostname).await?;
    let current = app.releases.current().ok();
    let declared = current
        .as_deref()
        .and_then(|current| declared(current, &hostname, &detail));
    let records = || detail.records.iter().map(|view| &view.record.channel);
    let channels = declared.iter().map(|host| &host.channel).chain(records());
    channels
        .into_iter()
        .try_for_each(|channel| require_channel(&identity, channel))?;
    if declared.is_none() && detail.seen.is_none() && detail.records.is_empty() {
        let message = format!("nobody knows a host {hostname}");
        return Err(ApiError::refused(
            StatusCode::NOT_FOUND,
            "unknown-host",
            message,
        ));
    }
    let channels = declared.iter().map(|host| &host.channel).chain(records());
    let partitions = channels.map(|channel| app.backends.partition(channel));
    let held = held(&app, partitions.collect()).await;
    let records = detail
        .records
        .iter()
        .filter_map(|view| {
            let rollout = rollout_of(view, &detail)?;
            Some(explain_record(view, rollout, &detail.blocks))
        })
        .collect();
    Ok(Json(Explanation {
        declared,
        last_seen_at: detail.seen.as_ref().map(|seen| seen.last_seen_at),
        running_closure: detail.seen.and_then(|seen| seen.current_closure),
        held,
        records,
        hostname,
    }))
}

/// What the leading planner says of the first of these partitions in which it plans nothing; absent when it
/// plans in all of them, or cannot be asked.
async fn held(app: &App, partitions: BTreeSet<Partition>) -> Option<String> {
    let records = tokio::time::timeout(LEASES_TIMEOUT, app.backends.bus.lease_records());
    let records = records.await.ok()?.ok()?;
    let held = records.into_iter().filter(|view| view.service == "planner");
    let held: BTreeSet<String> = held
        .filter_map(|view| match view.record? {
            Record::Lease(lease) => Some(lease.held),
            Record::Member(_) => None,
        })
        .flatten()
        .collect();
    let mut partitions = partitions.iter().map(Partition::to_string);
    let partition = partitions.find(|partition| held.contains(partition))?;
    Some(format!(
        "nothing is planned: partition {partition} takes no entries, or folds none"
    ))
}

fn declared(current: &Current, hostname: &Hostname, detail: &HostDetail) -> Option<Declared> {
    let host = current.fleet().hosts.get(hostname)?;
    let manifest = current.release.rollouts().get(&host.channel);
    let rollout_id = manifest.map(|manifest| manifest.payload().rollout_id());
    let opened = detail
        .records
        .iter()
        .any(|view| Some(&view.record.rollout_id) == rollout_id.as_ref());
    Some(Declared {
        channel: host.channel.clone(),
        closure_hash: host.closure_hash.clone(),
        tags: host.tags.clone(),
        pin: host.pin.as_deref().cloned(),
        rollout_id,
        opened,
    })
}

/// The rollout of a record, unless it is over for good.
fn rollout_of<'d>(view: &HostView, detail: &'d HostDetail) -> Option<&'d RolloutView> {
    detail.rollouts.iter().find(|rollout| {
        rollout.record.rollout_id == view.record.rollout_id
            && !matches!(
                rollout.record.state,
                RolloutState::Superseded | RolloutState::Pruned
            )
    })
}

fn explain_record(
    view: &HostView,
    rollout: &RolloutView,
    blocks: &[BlockRow],
) -> RecordExplanation {
    let record = &view.record;
    let queued = if view.queued_at.is_some() {
        Queued::Yes
    } else {
        Queued::No
    };
    let mut blocks: Vec<Block> = blocks
        .iter()
        .filter(|block| block.rollout_id == record.rollout_id)
        .flat_map(|block| {
            block.holds.iter().map(|hold| Block {
                gate: block.gate,
                reason: hold.reason.clone(),
                cause: hold.cause,
                position: block.cause.position,
            })
        })
        .collect();
    blocks.sort_by_key(|block| block.gate);
    RecordExplanation {
        rollout_state: rollout.record.state,
        current_wave: rollout.record.current_wave,
        waived: rollout.record.waived_hosts.contains(&record.hostname),
        wave: view.wave,
        staged: view.staged,
        queued_at: view.queued_at,
        waiting: awaited_steps(record, queued, now()),
        blocks,
        quarantined: view.quarantined,
        outstanding_compliance_failures: view.compliance_failures,
        outstanding_health_failures: view.health_failures,
        position: view.position,
        traceparent: view.traceparent.clone(),
        record: record.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_tokens_survive_the_round_trip() {
        let (rollout_id, hostname) = read_token("web-1.rack/stable@4f").unwrap();
        assert_eq!(hostname.as_str(), "web-1.rack");
        assert_eq!(rollout_id.as_str(), "stable@4f");
        assert!(read_token("nonsense").is_err());
        assert!(read_token("a/b").is_err());
        assert!(read_token("rack/web-1/stable@4f").is_err());
    }
}
