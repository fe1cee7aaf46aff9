//! Holding partitions, and the budgets that cannot be read meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_proto::Hostname;
use nixfleet_proto::subject::Partition;

use super::FleetView;
use super::budget_counts::BudgetId;
use super::held_partitions::HeldPartitions;

impl FleetView {
    /// Sets the partitions, out of so many, that take no entries.
    pub fn set_held(&mut self, held: BTreeSet<Partition>, partitions: u16) {
        if held == self.held.held {
            return;
        }
        self.held = HeldPartitions {
            partitions,
            held,
            unreadable: BTreeMap::new(),
        };
        self.find_unreadable_budgets();
    }

    /// The held partition because of which a budget cannot be read.
    pub(crate) fn unreadable_budget(&self, id: BudgetId) -> Option<Partition> {
        self.held.unreadable.get(&id).copied()
    }

    /// Needed after each change of budgets or of the hosts of channels.
    pub(super) fn find_unreadable_budgets(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let lists = self.budgets.lists();
        let unreadable = lists.filter_map(|(id, mut hosts)| {
            let partition = hosts.find_map(|hostname| self.held_partition(hostname))?;
            Some((id, partition))
        });
        self.held.unreadable = unreadable.collect();
    }

    fn held_partition(&self, hostname: &Hostname) -> Option<Partition> {
        let host = self
            .release
            .as_ref()
            .and_then(|release| release.fleet().hosts.get(hostname));
        let named = host.and_then(|host| self.held.of(&host.channel));
        named.or_else(|| {
            let mut rollouts = self.presences.get(hostname)?.rollouts.iter();
            rollouts.find_map(|id| self.held.of(&self.rollouts.get(id)?.record.channel))
        })
    }
}
