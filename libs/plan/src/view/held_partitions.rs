//! Partitions that take no entries: nothing is planned for their channels. The log of such a partition may hold
//! actions of an earlier leader without outcomes, so budgets that its hosts share cannot be read.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_proto::ChannelName;
use nixfleet_proto::subject::Partition;

use super::budget_counts::BudgetId;

#[derive(Debug, Clone, Default)]
pub(crate) struct HeldPartitions {
    /// Number of partitions of the fleet.
    pub partitions: u16,
    pub held: BTreeSet<Partition>,
    /// Budgets with a host of a held partition.
    pub unreadable: BTreeMap<BudgetId, Partition>,
}

impl HeldPartitions {
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The held partition of a channel.
    pub fn of(&self, channel: &ChannelName) -> Option<Partition> {
        if self.is_empty() {
            return None;
        }
        let partition = Partition::of(channel, self.partitions);
        self.held.contains(&partition).then_some(partition)
    }
}
