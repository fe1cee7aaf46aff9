//! State of a rollout on this host, in memory and as journal.

use nixfleet_proto::wire::WireEvent;
use nixfleet_proto::{HostRecord, HostState, OnHealthFailure, RolloutId, Timestamp};
use serde::{Deserialize, Serialize};

use super::outbox::Outbox;
use super::probe_tracker::ProbeTracker;

/// Block of sequence numbers reserved for events that are not persisted: after a crash the agent continues
/// above the reservation, so that no number is reused.
const SEQ_RESERVATION: u64 = 64;

/// A rollout on this host.
#[derive(Debug, Clone)]
pub struct LocalRollout {
    /// The record, by the same machine as the control plane's.
    pub record: HostRecord,
    /// From the signed policy.
    pub on_health_failure: OnHealthFailure,
    /// Signing time of the manifest.
    pub signed_at: Timestamp,
    /// True after a newer rollout replaced this one: no probes, decisions or reports follow.
    pub replaced: bool,
    /// Unacknowledged events.
    pub outbox: Outbox,
    /// The probes since the last activation.
    pub probes: ProbeTracker,
    /// Current work on the host.
    pub work: Work,
    /// Consecutive replies of the control plane that disagree; see `heartbeat`.
    pub disagreements: u32,
    /// Sequence after which all events were sent again; once per value.
    pub replayed_after: Option<u64>,
    /// Rollbacks that failed since the start.
    pub rollbacks_failed: u32,
    /// No new event has this sequence or a lower one.
    seq_floor: u64,
    /// The floor as persisted.
    seq_reserved: u64,
    dirty: bool,
}

/// Work on the host for a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// No work.
    Idle,
    /// The switch is to be repeated after a restart, once the manifest is verified again.
    SwitchAgain,
    /// A switch runs.
    Switching,
    /// A rollback runs.
    RollingBack,
    /// A failed rollback is to be retried.
    RollbackAgain {
        /// Time of the next attempt.
        due: Timestamp,
    },
}

/// The persistent form of a rollout: record and unacknowledged events are saved together, so that they stay
/// consistent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Journal {
    /// Layout version, always 1.
    pub v: u32,
    /// The record.
    pub record: HostRecord,
    /// From the signed policy.
    pub on_health_failure: OnHealthFailure,
    /// Signing time of the manifest.
    pub signed_at: Timestamp,
    /// True once the host moved on.
    pub replaced: bool,
    /// Highest sequence that may be in use.
    pub seq_floor: u64,
    /// Durable unacknowledged events, in order.
    pub waiting: Vec<WireEvent>,
    /// Durable events acknowledged last, in order, for a control plane that lost the end of its log.
    #[serde(default)]
    pub kept: Vec<WireEvent>,
}

impl LocalRollout {
    /// A rollout the agent begins to follow.
    pub fn new(record: HostRecord, policy: OnHealthFailure, signed_at: Timestamp) -> Self {
        Self {
            seq_floor: record.last_event_seq,
            seq_reserved: record.last_event_seq,
            record,
            on_health_failure: policy,
            signed_at,
            replaced: false,
            outbox: Outbox::default(),
            probes: ProbeTracker::default(),
            work: Work::Idle,
            disagreements: 0,
            replayed_after: None,
            rollbacks_failed: 0,
            dirty: true,
        }
    }

    /// A rollout from before a restart.
    pub fn restored(journal: Journal) -> Self {
        Self {
            record: journal.record,
            on_health_failure: journal.on_health_failure,
            signed_at: journal.signed_at,
            replaced: journal.replaced,
            outbox: Outbox::restored(journal.waiting, journal.kept),
            probes: ProbeTracker::default(),
            work: Work::Idle,
            disagreements: 0,
            replayed_after: None,
            rollbacks_failed: 0,
            seq_floor: journal.seq_floor,
            seq_reserved: journal.seq_floor,
            dirty: false,
        }
    }

    /// The rollout.
    pub fn id(&self) -> &RolloutId {
        &self.record.rollout_id
    }

    /// The next sequence number: last + 1, or above all numbers that a crashed process may have used.
    pub fn next_seq(&self) -> u64 {
        self.record.last_event_seq.max(self.seq_floor) + 1
    }

    /// Notes that `seq` was given to an event; what is persisted covers it before it is sent.
    pub fn reserve_seq(&mut self, seq: u64, durable: bool) {
        if seq > self.seq_reserved {
            self.seq_reserved = if durable { seq } else { seq + SEQ_RESERVATION };
            self.dirty = true;
        }
        self.dirty |= durable;
    }

    /// Requests that the state is saved before any other command.
    pub fn mark_dirty(&mut self) {
        self.dirty = true;
    }

    /// The journal to save, when the state changed since the last call.
    pub fn take_journal(&mut self) -> Option<Journal> {
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        Some(Journal {
            v: 1,
            record: self.record.clone(),
            on_health_failure: self.on_health_failure,
            signed_at: self.signed_at,
            replaced: self.replaced,
            seq_floor: self.seq_reserved,
            waiting: self.outbox.durable(),
            kept: self.outbox.kept(),
        })
    }

    /// True while a switch or rollback runs or must run.
    pub fn is_working(&self) -> bool {
        match self.work {
            Work::Idle => false,
            Work::SwitchAgain
            | Work::Switching
            | Work::RollingBack
            | Work::RollbackAgain { .. } => true,
        }
    }

    /// The closure that a failed host must roll back to; `None` when it stays.
    pub fn rollback_target(&self) -> Option<&nixfleet_proto::ClosureHash> {
        let rolls_back = self.record.state == HostState::Failed
            && self.record.policy_applied == Some(OnHealthFailure::RollbackAndHalt);
        self.record
            .current_closure_at_dispatch
            .as_ref()
            .filter(|_| rolls_back)
    }
}
