//! Inputs and context of the host machine.

use nixfleet_proto::{ClosureHash, HostEvent, OnHealthFailure, Producer, RolloutState, Timestamp};

/// An input of the host machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostInput<'a> {
    /// An event of the agent, or one recovered by the partition owner.
    Event {
        /// Selects the sequence counter.
        producer: Producer,
        /// The event.
        event: &'a HostEvent,
    },
    /// The planner completes a claim.
    SoakElapsed,
    /// The planner converges a Pending host that already runs its target.
    ConvergeUnchanged {
        /// The running closure.
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

/// Context of a transition, besides the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepCtx {
    /// Pinned policy of the rollout.
    pub on_health_failure: OnHealthFailure,
    /// State of the host's rollout.
    pub rollout_state: RolloutState,
    /// Fold time; on the agent, the time the event was made.
    pub received_at: Timestamp,
}
