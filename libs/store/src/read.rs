//! Reads of services for operators and agents. None of them is part of a turn.

use chrono::{DateTime, Utc};
use nixfleet_proto::minutes::Minutes;
use nixfleet_proto::snapshot::{BlockRow, Cursor};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{
    ChannelName, ClosureHash, Gate, HostRecord, HostState, Hostname, ManifestHash, OnHealthFailure,
    Position, RolloutId, RolloutRecord, RolloutState, Timestamp,
};

pub use nixfleet_proto::turn_rows::HostKey;

mod dispatches;
mod events;
mod hosts;
mod rollouts;

/// One host in one rollout with all derived data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostView {
    /// The record.
    pub record: HostRecord,
    /// Pinned wave, from 0.
    pub wave: u32,
    /// False for a host that is never dispatched.
    pub staged: bool,
    /// Time at which the pending dispatch was queued.
    pub queued_at: Option<Timestamp>,
    /// Target closure that a Pending host already ran.
    pub recovery_candidate: Option<ClosureHash>,
    /// The entry that last changed the record.
    pub position: Position,
    /// Trace context of that entry.
    pub traceparent: Option<String>,
    /// Time of the last heartbeat, in microseconds.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// The closure the last heartbeat named.
    pub seen_closure: Option<ClosureHash>,
    /// True when the target is quarantined on the channel.
    pub quarantined: bool,
    /// Outstanding failures of controls.
    pub compliance_failures: u64,
    /// Outstanding failures of probes without controls.
    pub health_failures: u64,
}

impl HostView {
    /// The closure to which the host is moving, if it is.
    pub fn pending_closure(&self) -> Option<&ClosureHash> {
        match self.record.state {
            HostState::Pending
            | HostState::Activating
            | HostState::Deferred
            | HostState::Soaking => Some(&self.record.target_closure),
            HostState::Converged | HostState::Failed | HostState::Reverted => None,
        }
    }

    /// What the host runs, by its last event or heartbeat, whichever is newer.
    pub fn running_closure(&self) -> Option<&ClosureHash> {
        let record = &self.record;
        let (reported, reported_at) = match (&record.reverted_to, record.reverted_at) {
            (Some(closure), Some(at)) => (Some(closure), Some(at)),
            _ => (
                record.current_closure.as_ref(),
                record.converged_at.max(record.activation_completed_at),
            ),
        };
        match &self.seen_closure {
            Some(seen) if reported.is_none() || self.last_seen_at >= reported_at => Some(seen),
            _ => reported,
        }
    }

    /// The target closure, when it is quarantined.
    pub fn quarantined_closure(&self) -> Option<&ClosureHash> {
        self.quarantined.then_some(&self.record.target_closure)
    }

    /// True when the switch waits for a reboot.
    pub fn pending_reboot(&self) -> bool {
        self.record.state == HostState::Deferred
    }
}

/// Last-seen time and closure of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenHost {
    /// Its name.
    pub hostname: Hostname,
    /// Its channel in the verified fleet.
    pub channel: ChannelName,
    /// Time of the last heartbeat, in microseconds.
    pub last_seen_at: DateTime<Utc>,
    /// The closure it reported.
    pub current_closure: Option<ClosureHash>,
}

/// Everything about one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostDetail {
    /// Last heartbeat; absent when there was none.
    pub seen: Option<SeenHost>,
    /// Its records, by rollout, in any state.
    pub records: Vec<HostView>,
    /// The rollouts of those records, newest first.
    pub rollouts: Vec<RolloutView>,
    /// Holds of this host, without the reasons for other hosts.
    pub blocks: Vec<BlockRow>,
}

/// One rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutView {
    /// Its record.
    pub record: RolloutRecord,
    /// The manifest it was opened with.
    pub manifest_hash: ManifestHash,
    /// Number of pinned hosts.
    pub host_count: u64,
    /// Number of pinned waves.
    pub wave_count: u64,
    /// Policy for failing hosts.
    pub on_health_failure: OnHealthFailure,
    /// The entry that last changed it.
    pub position: Position,
    /// Trace context of that entry.
    pub traceparent: Option<String>,
}

/// Which rollouts to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolloutFilter {
    /// All of them.
    All,
    /// Neither Superseded nor Pruned.
    Current,
    /// Neither Superseded nor Pruned nor Terminal.
    InFlight,
}

impl RolloutFilter {
    /// The states that the filter accepts.
    pub fn states(self) -> impl Iterator<Item = RolloutState> {
        RolloutState::ALL
            .into_iter()
            .filter(move |state| match self {
                Self::All => true,
                Self::Current => !matches!(state, RolloutState::Superseded | RolloutState::Pruned),
                Self::InFlight => !matches!(
                    state,
                    RolloutState::Superseded | RolloutState::Pruned | RolloutState::Terminal
                ),
            })
    }
}

/// One host held by one gate for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deferral {
    /// The host.
    pub hostname: Hostname,
    /// The rollout it is held in.
    pub rollout_id: RolloutId,
    /// Its wave.
    pub wave: u32,
    /// The gate.
    pub gate: Gate,
    /// Reason, for operators.
    pub reason: String,
    /// Start of the hold, in microseconds.
    pub observed_at: DateTime<Utc>,
    /// The entry that reported it.
    pub position: Position,
    /// The entry that caused it, when there is one in the partition.
    pub cause: Option<Position>,
}

/// All pending dispatches and the known rollouts of one partition, with the cursors of the output logs that
/// they reflect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewaySnapshot {
    /// Cursors at the instant of reading; the logs are followed from there.
    pub cursors: Vec<(Partition, Cursor)>,
    /// The dispatches, by rollout and host.
    pub dispatches: Vec<DispatchRow>,
    /// The rollouts of the partition that are not Pruned, by id.
    pub rollouts: Vec<RolloutId>,
}

/// Whether a host belongs to a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// The rollout has a record of the host.
    Member,
    /// The rollout has none.
    NotMember,
    /// The rows do not have the rollout: it was never opened, its opening is not applied yet, or its
    /// retention elapsed.
    UnknownRollout,
}

/// One pending dispatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DispatchRow {
    /// The host it is for.
    pub hostname: Hostname,
    /// The rollout.
    pub rollout_id: RolloutId,
    /// Closure to switch to.
    pub target_closure: ClosureHash,
    /// Minutes of soak after activation.
    pub soak_minutes: Minutes,
    /// When it was queued.
    pub enqueued_at: Timestamp,
    /// The entry that queued it.
    pub position: Position,
    /// Trace context of that entry.
    pub traceparent: Option<String>,
}

/// Entries about one rollout with their outcomes.
#[derive(Debug, Clone, PartialEq)]
pub struct EventPage {
    /// In the order of the log.
    pub events: Vec<EventView>,
    /// Position of the next page; `None` when this page was not full.
    pub next: Option<Position>,
}

/// One archived entry.
#[derive(Debug, Clone, PartialEq)]
pub struct EventView {
    /// Its place in the input log.
    pub position: Position,
    /// When the stream stored it, in microseconds.
    pub ts: DateTime<Utc>,
    /// Kind of the archive row.
    pub kind: String,
    /// The host it is about.
    pub hostname: Option<Hostname>,
    /// The entry.
    pub payload: serde_json::Value,
    /// The outcome; absent until it is archived.
    pub outcome: Option<serde_json::Value>,
    /// Trace context of the entry.
    pub traceparent: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_runs_what_the_newer_of_event_and_heartbeat_says() {
        let record = serde_json::json!({
            "rolloutId": "stable@4f", "hostname": "a", "channel": "stable", "targetClosure": "new",
            "dispatchedAt": "2026-05-01T10:00:00Z", "state": "Converged", "soakMinutes": 5, "probes": {},
            "lastEventSeq": 5, "recoverySeq": 0, "currentClosureAtDispatch": "old",
            "dispatchAckedAt": "2026-05-01T10:01:00Z", "activationStartedAt": "2026-05-01T10:02:00Z",
            "activationCompletedAt": "2026-05-01T10:05:00Z", "currentClosure": "new",
            "soakDueAt": "2026-05-01T10:10:00Z", "declaredProbes": [],
            "convergedAt": "2026-05-01T10:10:00Z",
        });
        let mut view = HostView {
            record: serde_json::from_value(record).unwrap(),
            wave: 0,
            staged: true,
            queued_at: None,
            recovery_candidate: None,
            position: Position { seq: 1, index: 0 },
            traceparent: None,
            last_seen_at: Some("2026-05-01T10:09:50Z".parse().unwrap()),
            seen_closure: Some("old".into()),
            quarantined: false,
            compliance_failures: 0,
            health_failures: 0,
        };
        let runs = |view: &HostView| view.running_closure().map(ToString::to_string);
        assert_eq!(runs(&view).as_deref(), Some("new"));
        view.last_seen_at = Some("2026-05-01T10:10:20Z".parse().unwrap());
        assert_eq!(
            runs(&view).as_deref(),
            Some("old"),
            "it booted an older one"
        );
        view.record.reverted_to = Some("old".into());
        view.record.reverted_at = Some("2026-05-01T10:20:00Z".parse().unwrap());
        view.seen_closure = Some("new".into());
        assert_eq!(runs(&view).as_deref(), Some("old"));
        view.seen_closure = None;
        view.last_seen_at = None;
        assert_eq!(runs(&view).as_deref(), Some("old"));
    }
}
