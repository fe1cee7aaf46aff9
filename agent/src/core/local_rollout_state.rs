//! State of a rollout on this host, in memory and as journal.

use nixfleet_proto::bounds::INTEGER_MAX;
use nixfleet_proto::wire::WireEvent;
use nixfleet_proto::{
    HostRecord, HostState, OnHealthFailure, RolloutId, Timestamp, mutation_testing,
};
use serde::{Deserialize, Serialize};

use super::outbox::Outbox;
use super::probe_tracker::ProbeTracker;
use crate::admitted_closure::{AdmittedClosure, ObservedClosure};

/// Block of sequence numbers reserved for events that are not persisted: after a crash the agent continues
/// above the reservation, so that no number is reused.
const SEQ_RESERVATION: u64 = 64;
/// Highest sequence that the control plane may ask the agent to continue above: enough numbers remain for
/// the rest of any rollout.
const SEQ_FLOOR_MAX: u64 = INTEGER_MAX - (1 << 32);

/// A rollout on this host.
#[derive(Debug, Clone)]
pub struct LocalRollout {
    /// The record, by the same machine as the control plane's.
    pub record: HostRecord,
    /// From the signed policy.
    pub on_health_failure: OnHealthFailure,
    /// Signing time of the manifest.
    pub signed_at: Timestamp,
    /// The verified target; absent when this process does not switch to it.
    pub target: Option<AdmittedClosure>,
    /// What ran before the walk began: the only closure that a rollback restores.
    pub predecessor: Option<ObservedClosure>,
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
    /// True once the agent told the control plane not to expect a rollback of a host that is not Failed here.
    pub rollback_denied: bool,
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
    /// The record; its closures serve reports and not activations.
    pub record: HostRecord,
    /// What ran before the walk began; absent when the agent does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predecessor: Option<ObservedClosure>,
    /// From the signed policy.
    pub on_health_failure: OnHealthFailure,
    /// Signing time of the manifest.
    pub signed_at: Timestamp,
    /// True once the host moved on.
    pub replaced: bool,
    /// See [`LocalRollout::rollback_denied`].
    #[serde(default)]
    pub rollback_denied: bool,
    /// Highest sequence that may be in use.
    pub seq_floor: u64,
    /// Durable unacknowledged events, in order.
    pub waiting: Vec<WireEvent>,
    /// Durable events acknowledged last, in order, for a control plane that lost the end of its log.
    #[serde(default)]
    pub kept: Vec<WireEvent>,
}

impl LocalRollout {
    /// True when another walk replaced this one, or none began and only a rollback was denied.
    pub fn is_over(&self) -> bool {
        self.replaced || (self.rollback_denied && self.record.state == HostState::Pending)
    }

    /// A rollout of a verified manifest.
    pub fn new(record: HostRecord, policy: OnHealthFailure, signed_at: Timestamp) -> Self {
        Self {
            seq_floor: record.last_event_seq,
            seq_reserved: record.last_event_seq,
            record,
            on_health_failure: policy,
            signed_at,
            target: None,
            predecessor: None,
            replaced: false,
            outbox: Outbox::default(),
            probes: ProbeTracker::default(),
            work: Work::Idle,
            disagreements: 0,
            replayed_after: None,
            rollbacks_failed: 0,
            rollback_denied: false,
            dirty: true,
        }
    }

    /// A rollout from before a restart.
    pub fn restored(journal: Journal) -> Self {
        let mut record = journal.record;
        record.last_event_seq = record.last_event_seq.min(INTEGER_MAX);
        Self {
            record,
            on_health_failure: journal.on_health_failure,
            signed_at: journal.signed_at,
            target: None,
            predecessor: journal.predecessor,
            replaced: journal.replaced,
            outbox: Outbox::restored(journal.waiting, journal.kept),
            probes: ProbeTracker::default(),
            work: Work::Idle,
            disagreements: 0,
            replayed_after: None,
            rollbacks_failed: 0,
            rollback_denied: journal.rollback_denied,
            seq_floor: journal.seq_floor.min(INTEGER_MAX),
            seq_reserved: journal.seq_floor.min(INTEGER_MAX),
            dirty: false,
        }
    }

    /// The rollout.
    pub fn id(&self) -> &RolloutId {
        &self.record.rollout_id
    }

    /// The highest sequence in use, or that a crashed process may have used.
    pub fn highest_seq(&self) -> u64 {
        self.record.last_event_seq.max(self.seq_floor)
    }

    /// The next sequence number; `None` when the protocol has no higher one.
    pub fn next_seq(&self) -> Option<u64> {
        let highest = self.highest_seq();
        (highest < INTEGER_MAX).then(|| highest + 1)
    }

    /// Continues above a sequence that the control plane has; false when it leaves too few numbers.
    pub fn raise_seq_floor(&mut self, seq: u64) -> bool {
        if seq > SEQ_FLOOR_MAX && !mutation_testing::is_active("agent-takes-any-floor") {
            return false;
        }
        if seq > self.record.last_event_seq {
            self.record.last_event_seq = seq;
            self.dirty = true;
        }
        true
    }

    /// Notes that `seq` was given to an event; what is persisted covers it before it is sent.
    pub fn reserve_seq(&mut self, seq: u64, durable: bool) {
        let forgets = !durable && mutation_testing::is_active("agent-reuses-sequences");
        if seq > self.seq_reserved && !forgets {
            let reserved = seq.saturating_add(if durable { 0 } else { SEQ_RESERVATION });
            self.seq_reserved = reserved.min(INTEGER_MAX);
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
            predecessor: self.predecessor.clone(),
            on_health_failure: self.on_health_failure,
            signed_at: self.signed_at,
            replaced: self.replaced,
            rollback_denied: self.rollback_denied,
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

    /// The closure that a failed host rolls back to; `None` when it stays or knows none.
    pub fn rollback_target(&self) -> Option<&ObservedClosure> {
        let expected = self.record.expects_rollback();
        self.predecessor.as_ref().filter(|_| expected)
    }
}
