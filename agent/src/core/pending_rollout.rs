//! Rollouts whose manifest is being fetched or that wait for another rollout on the host.

use nixfleet_proto::wire::{Dispatch, HostSnapshot};
use nixfleet_proto::{ClosureHash, Timestamp};

use crate::release_check::Admitted;

/// A rollout whose manifest is being fetched or that waits for the host.
#[derive(Debug, Clone)]
pub(super) struct PendingRollout {
    pub(super) cause: FetchReason,
    pub(super) stage: FetchStage,
    pub(super) attempts: u32,
}

#[derive(Debug, Clone)]
pub(super) enum FetchReason {
    /// The control plane dispatched it.
    Dispatch(Dispatch),
    /// A snapshot of the control plane has the host in the rollout, and the agent has no state of it.
    Adopt(Box<HostSnapshot>),
    /// The restored state contains an activation that did not take place.
    SwitchAgain {
        /// The target of the record.
        target_closure: ClosureHash,
    },
}

/// Stage of the fetch.
#[derive(Debug, Clone)]
pub(super) enum FetchStage {
    Fetching,
    /// The fetch is to be retried.
    RetryAt(Timestamp),
    /// Another rollout is activating or rolling back.
    WaitingForHost(Admitted),
}

impl PendingRollout {
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        match self.stage {
            FetchStage::RetryAt(due) => Some(due),
            FetchStage::Fetching | FetchStage::WaitingForHost(_) => None,
        }
    }

    pub(super) fn target_closure(&self) -> &ClosureHash {
        match &self.cause {
            FetchReason::Dispatch(dispatch) => &dispatch.target_closure,
            FetchReason::Adopt(snapshot) => &snapshot.target_closure,
            FetchReason::SwitchAgain { target_closure } => target_closure,
        }
    }
}
