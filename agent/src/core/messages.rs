//! What goes into the core and what comes out of it.

use nixfleet_proto::host::ProbeDeclaration;
use nixfleet_proto::wire::{Dispatch, EventRequest, HeartbeatReply, HeartbeatRequest};
use nixfleet_proto::{ClosureHash, HostState, ProbeName, Rejection, RolloutId, Timestamp};

use super::local_rollout::Journal;
use super::probe_schedule::ProbeReading;
use crate::release_check::SignedRelease;

/// What happened around the core.
#[derive(Debug, Clone)]
pub enum Input {
    /// The agent process started; the first input, once.
    Started {
        /// What the host runs.
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
    /// They were not fetched, or did not verify.
    ReleaseRefused {
        /// The rollout they were fetched for.
        rollout_id: RolloutId,
        /// Why.
        fault: ReleaseFault,
    },
    /// The switch began.
    SwitchStarted {
        /// The rollout it is for.
        rollout_id: RolloutId,
        /// How the host switches; carried, not interpreted.
        method: String,
    },
    /// The switch ended.
    SwitchEnded {
        /// The rollout it was for.
        rollout_id: RolloutId,
        /// How.
        outcome: SwitchOutcome,
    },
    /// The rollback ended.
    RollbackEnded {
        /// The rollout it was for.
        rollout_id: RolloutId,
        /// How.
        outcome: RollbackOutcome,
    },
    /// The host's probes were read; `None` when they could not be.
    ProbesListed {
        /// The rollout they are for.
        rollout_id: RolloutId,
        /// Which activation they belong to.
        generation: u64,
        /// The declared probes, disabled ones included.
        probes: Option<Vec<ProbeDeclaration>>,
    },
    /// A probe ran.
    ProbeRan {
        /// The rollout it is for.
        rollout_id: RolloutId,
        /// Which activation it belongs to.
        generation: u64,
        /// The probe.
        probe_name: ProbeName,
        /// What it found.
        reading: ProbeReading,
    },
    /// The control plane answered a request with events, or could not be asked.
    EventsAnswered {
        /// The rollout of the events.
        rollout_id: RolloutId,
        /// What became of each event, by its sequence.
        answers: Vec<(u64, DeliveryResult)>,
    },
    /// The control plane answered a heartbeat.
    HeartbeatAnswered(HeartbeatReply),
    /// It did not.
    HeartbeatFailed,
    /// The control plane asks for everything above a sequence.
    ReplayRequested {
        /// The rollout.
        rollout_id: RolloutId,
        /// The last sequence it has.
        after: u64,
    },
    /// Time passed.
    Tick,
}

/// Why the artifacts of a rollout are not at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseFault {
    /// Kebab-case name.
    pub reason: String,
    /// For people.
    pub message: String,
    /// True when another attempt may succeed: nothing was found wrong.
    pub retryable: bool,
}

/// How a switch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwitchOutcome {
    /// The host runs a new closure.
    Completed {
        /// What it runs now.
        observed_closure: ClosureHash,
        /// Of the switch.
        exit_code: i32,
    },
    /// The closure is staged for the next boot.
    Deferred {
        /// What cannot be replaced live.
        component: String,
    },
    /// The switch failed.
    Failed {
        /// Of the switch.
        exit_code: i32,
        /// End of its output.
        stderr_tail: String,
    },
}

/// How a rollback ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RollbackOutcome {
    /// The host runs its old closure.
    Completed {
        /// What it runs now.
        observed_closure: ClosureHash,
        /// Of the switch.
        exit_code: i32,
    },
    /// It does not; the agent tries again.
    Failed {
        /// For people.
        message: String,
    },
}

/// The answer to an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryResult {
    /// 2xx: the control plane holds it durably.
    Delivered,
    /// It will never be taken.
    Refused {
        /// HTTP status.
        status: u16,
        /// Of the error body.
        code: String,
        /// Of the error body.
        message: String,
    },
    /// Not now.
    Unavailable {
        /// For people.
        message: String,
    },
    /// The request with several events was refused as a whole; each may be taken on its own.
    BatchRefused,
}

/// What the shell shall do, in order. `Save` and `Forget` are done before the next command begins.
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
    /// Nothing to do: something an operator wants to know.
    Notify(Notification),
}

/// What an operator wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notification {
    /// A dispatch is held for the first time.
    DispatchHeld {
        /// The rollout.
        rollout_id: RolloutId,
        /// Time from its queueing to now.
        latency_ms: u64,
    },
    /// A dispatch, or what the control plane says of an open rollout, was not followed.
    Refused {
        /// The rollout.
        rollout_id: RolloutId,
        /// Kebab-case name.
        reason: String,
        /// For people.
        message: String,
    },
    /// The host changed state in a rollout.
    Transition {
        /// The rollout.
        rollout_id: RolloutId,
        /// Where it was.
        from: HostState,
        /// Where it is.
        to: HostState,
        /// When.
        at: Timestamp,
    },
    /// The state was corrected from what the control plane holds.
    Recovered {
        /// The rollout.
        rollout_id: RolloutId,
        /// Where it was.
        from: HostState,
        /// Where it is.
        to: HostState,
    },
    /// The control plane holds an event durably.
    Delivered {
        /// The rollout.
        rollout_id: RolloutId,
        /// The event.
        seq: u64,
        /// Its kind.
        kind: &'static str,
    },
    /// The control plane will never take an event.
    EventRefused {
        /// The rollout.
        rollout_id: RolloutId,
        /// The event.
        seq: u64,
        /// Its kind.
        kind: &'static str,
        /// HTTP status of the answer.
        status: u16,
        /// Of the error body.
        code: String,
        /// Of the error body.
        message: String,
    },
    /// An event was dropped because too many wait.
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
        /// Why.
        rejection: Rejection,
    },
    /// A rollback failed and is tried again.
    RollbackFailed {
        /// The rollout.
        rollout_id: RolloutId,
        /// Why.
        message: String,
    },
}
