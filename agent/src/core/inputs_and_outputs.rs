//! Messages of the core: inputs, commands and notifications.

#![expect(missing_docs, reason = "most fields say what they are")]

use nixfleet_proto::bounded_reply::Bounded;
use nixfleet_proto::host::ProbeDeclaration;
use nixfleet_proto::wire::{Dispatch, EventRequest, HeartbeatReply, HeartbeatRequest};
use nixfleet_proto::{ClosureHash, HostState, ProbeName, Rejection, RolloutId, Timestamp};

use super::local_rollout_state::Journal;
use super::probe_tracker::ProbeReading;
use crate::admitted_closure::AdmittedClosure;
use crate::agent_memory::AgentMemory;
use crate::release_check::SignedRelease;

/// An event outside the core.
#[derive(Debug, Clone)]
pub enum Input {
    /// The agent process started; the first input, once.
    Started { current_closure: ClosureHash },
    /// What the machine runs: before a walk may begin, and after a switch or rollback, whatever its outcome.
    MachineObserved { current_closure: ClosureHash },
    /// A dispatch arrived.
    DispatchReceived(Bounded<Dispatch>),
    /// The artifacts of a rollout were fetched and their signatures hold.
    ReleaseVerified {
        rollout_id: RolloutId,
        release: SignedRelease,
    },
    /// The artifacts of a rollout were not fetched, or did not verify.
    ReleaseRefused {
        rollout_id: RolloutId,
        fault: ReleaseFault,
    },
    /// The switch started.
    SwitchStarted {
        rollout_id: RolloutId,
        /// Switch method of the host, opaque to the core.
        method: String,
    },
    /// The switch ended.
    SwitchEnded {
        rollout_id: RolloutId,
        outcome: SwitchOutcome,
    },
    /// The rollback ended.
    RollbackEnded {
        rollout_id: RolloutId,
        outcome: RollbackOutcome,
    },
    /// The host's probes were read; `None` when they could not be.
    ProbesListed {
        rollout_id: RolloutId,
        /// Activation that the probes belong to.
        generation: u64,
        /// The declared probes, disabled ones included.
        probes: Option<Vec<ProbeDeclaration>>,
    },
    /// A probe ran.
    ProbeRan {
        rollout_id: RolloutId,
        /// Activation that the probe belongs to.
        generation: u64,
        probe_name: ProbeName,
        reading: ProbeReading,
    },
    /// Result of a request with events.
    EventsAnswered {
        rollout_id: RolloutId,
        /// Delivery result of each event, by sequence.
        answers: Vec<(u64, DeliveryResult)>,
    },
    /// The control plane replied to a heartbeat.
    HeartbeatAnswered(Bounded<HeartbeatReply>),
    /// No reply to a heartbeat arrived.
    HeartbeatFailed,
    /// Time passed.
    Tick,
}

/// Reason why a rollout has no verified artifacts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseFault {
    /// Kebab-case name.
    pub reason: String,
    pub message: String,
    /// True when a retry may succeed, because no check failed.
    pub retryable: bool,
}

/// Result of a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwitchOutcome {
    /// The host runs a new closure.
    Completed {
        observed_closure: ClosureHash,
        exit_code: i32,
    },
    /// The closure is staged for the next boot.
    Deferred {
        /// Component that cannot be replaced without a reboot.
        component: String,
    },
    /// The switch failed.
    Failed {
        exit_code: i32,
        /// End of its output.
        stderr_tail: String,
    },
}

/// Result of a rollback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RollbackOutcome {
    /// The host runs its old closure.
    Completed {
        observed_closure: ClosureHash,
        exit_code: i32,
    },
    /// The rollback failed and is retried.
    Failed { message: String },
}

/// Result of the delivery of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryResult {
    /// 2xx: the control plane holds it durably.
    Delivered,
    /// The control plane refused the event permanently.
    Refused {
        status: u16,
        code: String,
        message: String,
    },
    /// Not now.
    Unavailable { message: String },
    /// A request with several events was refused as a whole; single events may be accepted.
    BatchRefused,
}

/// An action for the shell, in order. `Save`, `Remember` and `Forget` complete before the next command starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Make the rollout's state durable.
    Save(Box<Journal>),
    /// Make the memory durable.
    Remember(Box<AgentMemory>),
    /// The rollout's durable state is not needed any more.
    Forget { rollout_id: RolloutId },
    /// Start asking for dispatches.
    Listen,
    /// Fetch and verify the artifacts of a rollout.
    FetchRelease { rollout_id: RolloutId },
    /// Switch the host to the closure of a verified manifest.
    Switch {
        rollout_id: RolloutId,
        closure: AdmittedClosure,
    },
    /// Take the host back to the closure it ran before.
    Rollback {
        rollout_id: RolloutId,
        closure: AdmittedClosure,
    },
    /// Read the host's probes.
    ListProbes {
        rollout_id: RolloutId,
        /// To be given back.
        generation: u64,
    },
    /// Run one probe.
    RunProbe {
        rollout_id: RolloutId,
        /// To be given back.
        generation: u64,
        probe_name: ProbeName,
    },
    /// Send events of one rollout in one request, in this order; one or more.
    Send(Vec<EventRequest>),
    /// Send a heartbeat.
    Heartbeat(HeartbeatRequest),
    /// Notify the operator, without a state change.
    Notify(Notification),
}

/// A notification for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notification {
    /// A dispatch is held for the first time.
    DispatchHeld {
        rollout_id: RolloutId,
        /// Time from its queueing to now.
        latency_ms: u64,
    },
    /// A dispatch, or a part of a snapshot, was refused.
    Refused {
        rollout_id: RolloutId,
        /// Kebab-case name.
        reason: String,
        message: String,
    },
    /// The host changed state in a rollout.
    Transition {
        rollout_id: RolloutId,
        from: HostState,
        to: HostState,
        at: Timestamp,
    },
    /// The state was corrected from what the control plane holds.
    Recovered {
        rollout_id: RolloutId,
        from: HostState,
        to: HostState,
    },
    /// The control plane holds an event durably.
    Delivered {
        rollout_id: RolloutId,
        seq: u64,
        kind: &'static str,
    },
    /// The control plane refused an event permanently.
    EventRefused {
        rollout_id: RolloutId,
        seq: u64,
        kind: &'static str,
        status: u16,
        code: String,
        message: String,
    },
    /// An event was dropped because the queue is full.
    Dropped { rollout_id: RolloutId, seq: u64 },
    /// The machine refused what the agent observed.
    Unexpected {
        rollout_id: RolloutId,
        kind: &'static str,
        rejection: Rejection,
    },
    /// The protocol has no higher sequence for a rollout: nothing more is reported about it.
    OutOfSequences { rollout_id: RolloutId },
    /// A rollback failed and will be retried.
    RollbackFailed {
        rollout_id: RolloutId,
        message: String,
    },
}
