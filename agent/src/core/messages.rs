//! Messages of the core: inputs, commands and notifications.

use nixfleet_proto::host::ProbeDeclaration;
use nixfleet_proto::wire::{Dispatch, EventRequest, HeartbeatReply, HeartbeatRequest};
use nixfleet_proto::{ClosureHash, HostState, ProbeName, Rejection, RolloutId, Timestamp};

use super::local_rollout::Journal;
use super::probe_schedule::ProbeReading;
use crate::release_check::SignedRelease;

/// An event outside the core.
#[derive(Debug, Clone)]
pub enum Input {
    /// The agent process started; the first input, once.
    Started {
        /// The running closure.
        current_closure: ClosureHash,
    },
    /// A dispatch arrived.
    DispatchReceived(Dispatch),
    /// The artifacts of a rollout were fetched and their signatures hold.
    ReleaseVerified {
        /// The rollout they were fetched for.
        rollout_id: RolloutId,
        /// The artifacts.
        release: SignedRelease,
    },
    /// The artifacts of a rollout were not fetched, or did not verify.
    ReleaseRefused {
        /// The rollout they were fetched for.
        rollout_id: RolloutId,
        /// Reason.
        fault: ReleaseFault,
    },
    /// The switch started.
    SwitchStarted {
        /// The rollout it is for.
        rollout_id: RolloutId,
        /// Switch method of the host, opaque to the core.
        method: String,
    },
    /// The switch ended.
    SwitchEnded {
        /// The rollout it was for.
        rollout_id: RolloutId,
        /// Result of the switch.
        outcome: SwitchOutcome,
    },
    /// The rollback ended.
    RollbackEnded {
        /// The rollout it was for.
        rollout_id: RolloutId,
        /// Result of the rollback.
        outcome: RollbackOutcome,
    },
    /// The host's probes were read; `None` when they could not be.
    ProbesListed {
        /// The rollout they are for.
        rollout_id: RolloutId,
        /// Activation that the probes belong to.
        generation: u64,
        /// The declared probes, disabled ones included.
        probes: Option<Vec<ProbeDeclaration>>,
    },
    /// A probe ran.
    ProbeRan {
        /// The rollout it is for.
        rollout_id: RolloutId,
        /// Activation that the probe belongs to.
        generation: u64,
        /// The probe.
        probe_name: ProbeName,
        /// Result of the run.
        reading: ProbeReading,
    },
    /// Result of a request with events.
    EventsAnswered {
        /// The rollout of the events.
        rollout_id: RolloutId,
        /// Delivery result of each event, by sequence.
        answers: Vec<(u64, DeliveryResult)>,
    },
    /// The control plane replied to a heartbeat.
    HeartbeatAnswered(HeartbeatReply),
    /// No reply to a heartbeat arrived.
    HeartbeatFailed,
    /// The control plane requests all events above a sequence.
    ReplayRequested {
        /// The rollout.
        rollout_id: RolloutId,
        /// The last sequence it has.
        after: u64,
    },
    /// Time passed.
    Tick,
}

/// Reason why a rollout has no verified artifacts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseFault {
    /// Kebab-case name.
    pub reason: String,
    /// Explanation in plain text.
    pub message: String,
    /// True when a retry may succeed, because no check failed.
    pub retryable: bool,
}

/// Result of a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwitchOutcome {
    /// The host runs a new closure.
    Completed {
        /// The closure that runs now.
        observed_closure: ClosureHash,
        /// Exit code of the switch.
        exit_code: i32,
    },
    /// The closure is staged for the next boot.
    Deferred {
        /// Component that cannot be replaced without a reboot.
        component: String,
    },
    /// The switch failed.
    Failed {
        /// Exit code of the switch.
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
        /// The closure that runs now.
        observed_closure: ClosureHash,
        /// Exit code of the switch.
        exit_code: i32,
    },
    /// The rollback failed and is retried.
    Failed {
        /// Explanation in plain text.
        message: String,
    },
}

/// Result of the delivery of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryResult {
    /// 2xx: the control plane holds it durably.
    Delivered,
    /// The control plane refused the event permanently.
    Refused {
        /// HTTP status.
        status: u16,
        /// Code of the error body.
        code: String,
        /// Message of the error body.
        message: String,
    },
    /// Not now.
    Unavailable {
        /// Explanation in plain text.
        message: String,
    },
    /// A request with several events was refused as a whole; single events may be accepted.
    BatchRefused,
}

/// An action for the shell, in order. `Save` and `Forget` complete before the next command starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Make the rollout's state durable.
    Save(Box<Journal>),
    /// The rollout's durable state is not needed any more.
    Forget {
        /// The rollout.
        rollout_id: RolloutId,
    },
    /// Start asking for dispatches.
    Listen,
    /// Fetch and verify the artifacts of a rollout.
    FetchRelease {
        /// The rollout.
        rollout_id: RolloutId,
    },
    /// Switch the host to a closure of a verified manifest.
    Switch {
        /// The rollout it is for.
        rollout_id: RolloutId,
        /// The closure.
        closure_hash: ClosureHash,
    },
    /// Take the host back to the closure it ran before.
    Rollback {
        /// The rollout it is for.
        rollout_id: RolloutId,
        /// The closure.
        closure_hash: ClosureHash,
    },
    /// Read the host's probes.
    ListProbes {
        /// The rollout they are for.
        rollout_id: RolloutId,
        /// To be given back.
        generation: u64,
    },
    /// Run one probe.
    RunProbe {
        /// The rollout it is for.
        rollout_id: RolloutId,
        /// To be given back.
        generation: u64,
        /// The probe.
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
        /// The rollout.
        rollout_id: RolloutId,
        /// Time from its queueing to now.
        latency_ms: u64,
    },
    /// A dispatch, or a snapshot of an open rollout, was refused.
    Refused {
        /// The rollout.
        rollout_id: RolloutId,
        /// Kebab-case name.
        reason: String,
        /// Explanation in plain text.
        message: String,
    },
    /// The host changed state in a rollout.
    Transition {
        /// The rollout.
        rollout_id: RolloutId,
        /// Previous state.
        from: HostState,
        /// New state.
        to: HostState,
        /// Time of the transition.
        at: Timestamp,
    },
    /// The state was corrected from what the control plane holds.
    Recovered {
        /// The rollout.
        rollout_id: RolloutId,
        /// Previous state.
        from: HostState,
        /// New state.
        to: HostState,
    },
    /// The control plane holds an event durably.
    Delivered {
        /// The rollout.
        rollout_id: RolloutId,
        /// The event.
        seq: u64,
        /// Kind of the event.
        kind: &'static str,
    },
    /// The control plane refused an event permanently.
    EventRefused {
        /// The rollout.
        rollout_id: RolloutId,
        /// The event.
        seq: u64,
        /// Kind of the event.
        kind: &'static str,
        /// HTTP status of the response.
        status: u16,
        /// Code of the error body.
        code: String,
        /// Message of the error body.
        message: String,
    },
    /// An event was dropped because the queue is full.
    Dropped {
        /// The rollout.
        rollout_id: RolloutId,
        /// The event.
        seq: u64,
    },
    /// The machine refused what the agent observed.
    Unexpected {
        /// The rollout.
        rollout_id: RolloutId,
        /// Kind of the event that was not sent.
        kind: &'static str,
        /// Rejection of the host machine.
        rejection: Rejection,
    },
    /// A rollback failed and will be retried.
    RollbackFailed {
        /// The rollout.
        rollout_id: RolloutId,
        /// Reason.
        message: String,
    },
}
