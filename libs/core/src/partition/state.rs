//! The state of one partition.

use std::collections::BTreeMap;

use nixfleet_proto::snapshot::Cause;
use nixfleet_proto::{ChannelName, ClosureHash, RolloutId, Timestamp};

use super::Rollout;

/// The state after folding the log of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionState {
    pub(super) rollouts: BTreeMap<RolloutId, Rollout>,
    pub(super) quarantines: BTreeMap<ChannelName, BTreeMap<ClosureHash, Cause>>,
    pub(super) leader_epoch: u64,
    pub(super) clock: Option<Timestamp>,
}

impl PartitionState {
    /// A partition whose log is empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every rollout, in any state.
    pub fn rollouts(&self) -> &BTreeMap<RolloutId, Rollout> {
        &self.rollouts
    }

    /// One rollout.
    pub fn rollout(&self, rollout_id: &RolloutId) -> Option<&Rollout> {
        self.rollouts.get(rollout_id)
    }

    /// Quarantined closures by channel, with the entry that caused each.
    pub fn quarantines(&self) -> &BTreeMap<ChannelName, BTreeMap<ClosureHash, Cause>> {
        &self.quarantines
    }

    /// True when the closure is quarantined on the channel.
    pub fn is_quarantined(&self, channel: &ChannelName, closure: &ClosureHash) -> bool {
        self.quarantines
            .get(channel)
            .is_some_and(|closures| closures.contains_key(closure))
    }

    /// Highest planner epoch seen; 0 before the first barrier.
    pub fn leader_epoch(&self) -> u64 {
        self.leader_epoch
    }

    /// Fold time; absent before the first entry.
    pub fn clock(&self) -> Option<Timestamp> {
        self.clock
    }
}
