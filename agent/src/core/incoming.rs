//! Rollouts that the agent was told of and does not follow yet.

use nixfleet_proto::wire::{Dispatch, HostSnapshot};
use nixfleet_proto::{ClosureHash, Timestamp};

use crate::release::Admitted;

/// A rollout whose manifest is being fetched or that waits for the host.
#[derive(Debug, Clone)]
pub(super) struct Incoming {
    pub(super) cause: Cause,
    pub(super) stage: Stage,
    pub(super) attempts: u32,
}

/// Why a manifest is wanted.
#[derive(Debug, Clone)]
pub(super) enum Cause {
    /// The control plane dispatched it.
    Dispatch(Dispatch),
    /// The control plane says the host is in the middle of it, and the agent does not remember.
    Adopt(Box<HostSnapshot>),
    /// The agent remembers an activation that did not take place.
    SwitchAgain {
        /// The target of the record.
        target_closure: ClosureHash,
    },
}

/// How far it is.
#[derive(Debug, Clone)]
pub(super) enum Stage {
    /// The fetch runs.
    Fetching,
    /// The fetch is tried again.
    Again(Timestamp),
    /// The host is busy with another rollout.
    Waiting(Admitted),
}

impl Incoming {
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        match self.stage {
            Stage::Again(due) => Some(due),
            Stage::Fetching | Stage::Waiting(_) => None,
        }
    }

    pub(super) fn target_closure(&self) -> &ClosureHash {
        match &self.cause {
            Cause::Dispatch(dispatch) => &dispatch.target_closure,
            Cause::Adopt(snapshot) => &snapshot.target_closure,
            Cause::SwitchAgain { target_closure } => target_closure,
        }
    }
}
