//! The parts of console's answers that tables show; everything else passes through with `--json`.
//!
//! Source: docs/wire-protocol.md, console endpoints.

use std::collections::BTreeMap;

use nixfleet_plan::AwaitedStep;
use nixfleet_proto::{
    ChannelName, ClosureHash, Gate, HostRecord, HostState, Hostname, Position, RolloutId,
    RolloutState, Timestamp,
};
use serde::Deserialize;
use serde_json::Value;

/// `GET /v1/status`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub at: Timestamp,
    pub release: Option<ReleaseStatus>,
    pub channels: Vec<ChannelStatus>,
    pub partitions: Vec<PartitionStatus>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseStatus {
    pub commit: Option<String>,
    pub signed_at: Timestamp,
    pub hosts: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChannelStatus {
    pub channel: ChannelName,
    pub expected_rollout_id: Option<RolloutId>,
    pub rollouts: Vec<RolloutStatus>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    pub rollout_id: RolloutId,
    pub state: RolloutState,
    pub current_wave: u32,
    pub waves: u64,
    pub hosts: u64,
    #[serde(default)]
    pub hosts_by_state: BTreeMap<HostState, u64>,
    pub opened_at: Timestamp,
}

/// Progress of fold and applier in a partition.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionStatus {
    pub partition: u16,
    pub lag_messages: u64,
}

/// `GET /v1/rollouts`.
#[derive(Debug, Deserialize)]
pub struct Rollouts {
    pub rollouts: Vec<RolloutEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutEntry {
    pub rollout_id: RolloutId,
    pub state: RolloutState,
    pub current_wave: u32,
    pub waves: u64,
    pub host_count: u64,
    #[serde(default)]
    pub state_counts: BTreeMap<HostState, u64>,
    pub created_at: Timestamp,
}

/// A host in one rollout, of `GET /v1/hosts`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostEntry {
    pub hostname: Hostname,
    pub channel: ChannelName,
    pub last_rollout_id: RolloutId,
    pub rollout_state: HostState,
    pub wave: u32,
    pub current_closure_hash: Option<ClosureHash>,
    pub last_checkin_at: Option<Timestamp>,
    pub quarantined_closure: Option<ClosureHash>,
    #[serde(default)]
    pub pending_reboot: bool,
    #[serde(default)]
    pub outstanding_health_failures: u64,
    #[serde(default)]
    pub outstanding_compliance_failures: u64,
}

/// An entry of the log, of `GET /v1/rollouts/{id}/events`.
#[derive(Debug, Deserialize)]
pub struct Event {
    pub seq: u64,
    pub index: u32,
    pub ts: Timestamp,
    pub kind: String,
    pub host: Option<Hostname>,
    #[serde(default)]
    pub payload: Value,
    #[serde(default)]
    pub outcome: Option<Value>,
}

impl Event {
    /// The kind of the reported event of a host, otherwise the kind of the entry.
    pub fn name(&self) -> &str {
        let reported = self.payload.pointer("/body/event/body/kind");
        reported.and_then(Value::as_str).unwrap_or(&self.kind)
    }
}

/// `GET /v1/hosts/{hostname}`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    pub hostname: Hostname,
    pub declared: Option<Declared>,
    pub last_seen_at: Option<Timestamp>,
    pub running_closure: Option<ClosureHash>,
    /// Why nothing is planned for its channel.
    pub held: Option<String>,
    pub records: Vec<RecordExplanation>,
}

/// Declaration of a host in the accepted release.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Declared {
    pub channel: ChannelName,
    pub closure_hash: Option<ClosureHash>,
    pub rollout_id: Option<RolloutId>,
    pub opened: bool,
}

/// A host's record in one rollout, and why it stands there.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordExplanation {
    pub record: HostRecord,
    pub rollout_state: RolloutState,
    pub current_wave: u32,
    pub wave: u32,
    pub staged: bool,
    pub blocks: Vec<Block>,
    pub waiting: Vec<AwaitedStep>,
    #[serde(default)]
    pub waived: bool,
    pub position: Position,
}

/// A gate that holds a host.
#[derive(Debug, Deserialize)]
pub struct Block {
    pub gate: Gate,
    pub reason: String,
    pub cause: Option<Position>,
}

/// `GET /v1/deferrals`.
#[derive(Debug, Deserialize)]
pub struct Deferrals {
    pub deferrals: Vec<Deferral>,
    #[serde(default)]
    pub truncated: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deferral {
    pub host: Hostname,
    pub rollout: RolloutId,
    pub blocked_by: Gate,
    pub reason: String,
    pub observed_at: Timestamp,
    pub wave: u32,
}

/// Answer to an operator's command: where it is in the log.
#[derive(Debug, Deserialize)]
pub struct Appended {
    pub partition: u16,
    pub position: Position,
}

/// Answer to a push.
#[derive(Debug, Deserialize)]
pub struct Accepted {
    #[serde(default)]
    pub renewed: bool,
    #[serde(default)]
    pub notices: Vec<Value>,
}

/// `3 Converged, 1 Soaking`, in the order of the states.
pub fn states(counts: &BTreeMap<HostState, u64>) -> String {
    let parts: Vec<String> = counts
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(state, count)| format!("{count} {}", state.name()))
        .collect();
    if parts.is_empty() {
        "-".to_owned()
    } else {
        parts.join(", ")
    }
}

/// `1 of 3`: waves are counted from 0, as in the reasons of gates.
pub fn wave_of(current_wave: u32, waves: u64) -> String {
    format!("{current_wave} of {waves}")
}
