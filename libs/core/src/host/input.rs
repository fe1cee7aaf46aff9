//! What the machine of a host takes in, and what it may read besides.

use nixfleet_proto::{ClosureHash, HostEvent, OnHealthFailure, Producer, RolloutState, Timestamp};

/// What the machine takes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostInput<'a> {
    /// A report of the host, or one the partition owner recovered.
    Event {
        /// Chooses the sequence counter.
        producer: Producer,
        /// The report.
        event: &'a HostEvent,
    },
    /// The planner saw that a claim can be completed.
    SoakElapsed,
    /// The planner lets a Pending host that already runs its target converge.
    ConvergeUnchanged {
        /// The closure the host runs.
        current_closure: &'a ClosureHash,
    },
}

impl HostInput<'_> {
    /// Name of the event kind or planner input.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Event { event, .. } => event.body.name(),
            Self::SoakElapsed => "SoakElapsed",
            Self::ConvergeUnchanged { .. } => "ConvergeUnchanged",
        }
    }
}

/// What a transition may read besides the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepCtx {
    /// Pinned policy of the rollout.
    pub on_health_failure: OnHealthFailure,
    /// State of the host's rollout.
    pub rollout_state: RolloutState,
    /// Fold time; on the agent, the time the event was made.
    pub received_at: Timestamp,
}
