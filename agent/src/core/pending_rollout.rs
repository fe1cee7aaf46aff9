//! Rollouts whose manifest is being fetched or that wait for another rollout on the host.

use nixfleet_proto::wire::Dispatch;
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
    /// A snapshot of the control plane lists the rollout, and the agent has no state of it.
    Snapshot {
        /// The last sequence that the control plane has.
        seq_floor: u64,
        purpose: SnapshotPurpose,
    },
    /// The restored state contains an activation that did not take place.
    SwitchAgain {
        /// The target of the record.
        target_closure: ClosureHash,
    },
}

/// What the agent does about a listed rollout that it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SnapshotPurpose {
    /// Walks, as for a dispatch.
    Walk,
    /// Says that no rollback will come: without a journal the agent knows no closure to go back to.
    DenyRollback,
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

    /// The closure that the manifest must have; a snapshot's is not taken.
    pub(super) fn target_closure(&self) -> Option<&ClosureHash> {
        match &self.cause {
            FetchReason::Dispatch(dispatch) => Some(&dispatch.target_closure),
            FetchReason::Snapshot { .. } => None,
            FetchReason::SwitchAgain { target_closure } => Some(target_closure),
        }
    }

    /// True when following the manifest begins a walk.
    pub(super) fn begins_walk(&self) -> bool {
        match &self.cause {
            FetchReason::Dispatch(_) => true,
            FetchReason::Snapshot { purpose, .. } => *purpose == SnapshotPurpose::Walk,
            FetchReason::SwitchAgain { .. } => false,
        }
    }
}
