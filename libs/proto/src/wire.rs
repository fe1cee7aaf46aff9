//! Wire types of the agent protocol, with its own field names and casing.
//!
//! Source: docs/wire-protocol.md.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::Timestamp;
use crate::event::{HostEvent, HostEventBody};
use crate::host::{HostRecord, HostState};
use crate::id::{ChannelName, ClosureHash, Hostname, RolloutId};
use crate::internally_tagged::deserialize::TaggedDeserializer;
use crate::minutes::Minutes;

/// Header that carries the protocol version.
pub const PROTOCOL_HEADER: &str = "x-nixfleet-protocol";
/// The only supported version.
pub const PROTOCOL_VERSION: u32 = 1;
/// Header of a heartbeat reply: resend everything above this sequence.
pub const REPLAY_HEADER: &str = "x-nixfleet-replay-from";

/// A host event in wire form: `seq` among the fields of the event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WireEvent {
    /// Number of the event in its (host, rollout) pair.
    pub seq: u64,
    /// Kind and fields.
    #[serde(flatten)]
    pub body: HostEventBody,
}

impl<'de> Deserialize<'de> for WireEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut seq = None;
        let tagged = TaggedDeserializer::new("kind", deserializer).with_number("seq", &mut seq);
        let body = HostEventBody::deserialize(tagged)?;
        let seq = seq.ok_or_else(|| D::Error::missing_field("seq"))?;
        Ok(Self { seq, body })
    }
}

impl From<WireEvent> for HostEvent {
    fn from(event: WireEvent) -> Self {
        Self {
            seq: event.seq,
            body: event.body,
        }
    }
}

impl From<HostEvent> for WireEvent {
    fn from(event: HostEvent) -> Self {
        Self {
            seq: event.seq,
            body: event.body,
        }
    }
}

/// Most events of one request.
pub const EVENTS_PER_REQUEST_MAX: usize = 100;

/// Body of `POST /v1/agent/events`: one, or an array of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventRequest {
    /// Must be the certificate's host.
    pub hostname: Hostname,
    /// The rollout the event is about.
    pub rollout_id: RolloutId,
    /// The event.
    pub event: WireEvent,
}

/// Result of one event of an array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventAnswer {
    /// Status of the same event sent alone.
    pub status: u16,
    /// Of a refusal.
    #[serde(flatten)]
    pub error: Option<ErrorBody>,
}

/// Body of `POST /v1/agent/heartbeat`; snake case on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatRequest {
    /// Must be the certificate's host.
    pub hostname: Hostname,
    /// When present, the reply may ask for a replay and carries no snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout_id: Option<RolloutId>,
    /// The running closure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_closure: Option<ClosureHash>,
    /// The agent's clock.
    pub at: Timestamp,
}

/// Reply to a heartbeat; snake case on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatReply {
    /// Echo of the request's `at`.
    pub received_at: Timestamp,
    /// The host's open records.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bootstrap_rollouts: Vec<HostSnapshot>,
}

/// Reply of a partition owner to `ingest`; the replay value becomes a header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerReply {
    /// Body for the agent.
    pub reply: HeartbeatReply,
    /// Resend everything above this sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_from: Option<u64>,
}

/// The part of a record that an agent restores from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "same names and meanings as in `HostRecord`")]
pub struct HostSnapshot {
    pub rollout_id: RolloutId,
    pub hostname: Hostname,
    pub channel: ChannelName,
    pub state: HostState,
    pub target_closure: ClosureHash,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_closure_at_dispatch: Option<ClosureHash>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_closure: Option<ClosureHash>,
    pub dispatched_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatch_acked_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation_started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation_completed_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak_due_at: Option<Timestamp>,
    pub last_event_seq: u64,
}

impl From<&HostRecord> for HostSnapshot {
    fn from(record: &HostRecord) -> Self {
        Self {
            rollout_id: record.rollout_id.clone(),
            hostname: record.hostname.clone(),
            channel: record.channel.clone(),
            state: record.state,
            target_closure: record.target_closure.clone(),
            current_closure_at_dispatch: record.current_closure_at_dispatch.clone(),
            current_closure: record.current_closure.clone(),
            dispatched_at: record.dispatched_at,
            dispatch_acked_at: record.dispatch_acked_at,
            activation_started_at: record.activation_started_at,
            activation_completed_at: record.activation_completed_at,
            soak_due_at: record.soak_due_at,
            last_event_seq: record.last_event_seq,
        }
    }
}

/// Response to `GET /v1/agent/dispatch`; snake case on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispatch {
    /// The host.
    pub hostname: Hostname,
    /// The rollout.
    pub rollout_id: RolloutId,
    /// The closure to switch to, when the signed manifest has the same.
    pub target_closure: ClosureHash,
    /// Advisory: time of delivery plus the soak minutes.
    pub soak_due_at: Timestamp,
    /// Minutes of soak after activation.
    pub soak_minutes: Minutes,
    /// When the planner queued it.
    pub enqueued_at: Timestamp,
}

/// Error body of every endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What machines branch on, kebab case.
    pub code: String,
    /// What people read.
    pub message: String,
    /// True when the same request may succeed later.
    pub retryable: bool,
}

/// Last-seen times of hosts, on `fleet.liveness`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LivenessFlush {
    /// Layout version.
    pub v: u32,
    /// One per host seen since the last flush.
    pub hosts: Vec<LivenessReport>,
}

/// Last-seen time and closure of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the keys say what they are")]
pub struct LivenessReport {
    pub hostname: Hostname,
    pub channel: ChannelName,
    pub last_seen_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_closure: Option<ClosureHash>,
}

/// A heartbeat that `ingest` forwards to the partition owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerHeartbeat {
    /// Channel of the host in the verified fleet.
    pub channel: ChannelName,
    /// Time of receipt, by ingest's clock.
    pub received_at: Timestamp,
    /// What the agent sent.
    pub request: HeartbeatRequest,
}
