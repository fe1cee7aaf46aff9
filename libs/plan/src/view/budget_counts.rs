//! Counts of hosts in flight by disruption budget.

use std::collections::BTreeMap;
use std::sync::Arc;

use nixfleet_proto::fleet::ResolvedBudget;
use nixfleet_proto::{Hostname, Pinned, RolloutId};

use super::HostnameMap;

pub(crate) type BudgetId = u32;

/// In-flight counts by host list. Rollouts of one release pin equal lists, which share one count.
#[derive(Debug, Clone, Default)]
pub(crate) struct BudgetCounts {
    next_id: BudgetId,
    lists: BTreeMap<BudgetId, CountedList>,
}

#[derive(Debug, Clone)]
struct CountedList {
    /// Owner of the list, which is that of the budget at `index`.
    pinned: Arc<Pinned>,
    index: usize,
    users: usize,
    in_flight: usize,
}

impl CountedList {
    fn budget(&self) -> &ResolvedBudget {
        &self.pinned.disruption_budgets[self.index]
    }
}

/// Rollouts and budget lists of a host, fleet-wide.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostMembership {
    pub rollouts: Vec<RolloutId>,
    pub budgets: Vec<BudgetId>,
    pub in_flight: bool,
}

impl HostMembership {
    /// Adds a rollout with a record of the host, without spare capacity: most hosts have one or two.
    pub fn join(&mut self, rollout_id: &RolloutId) {
        self.rollouts.reserve_exact(1);
        self.rollouts.push(rollout_id.clone());
    }
}

impl BudgetCounts {
    /// Every list with its hosts.
    pub fn lists(&self) -> impl Iterator<Item = (BudgetId, impl Iterator<Item = &Hostname>)> {
        let lists = self.lists.iter();
        lists.map(|(id, list)| (*id, list.budget().hosts.iter()))
    }

    pub fn in_flight(&self, id: BudgetId) -> usize {
        self.lists.get(&id).map_or(0, |list| list.in_flight)
    }

    /// Adds a rollout to the users of the list of one pinned budget.
    pub fn add_list(
        &mut self,
        pinned: &Arc<Pinned>,
        index: usize,
        presences: &mut HostnameMap<HostMembership>,
    ) -> BudgetId {
        let hosts = &pinned.disruption_budgets[index].hosts;
        let known = self
            .lists
            .iter_mut()
            .find(|(_, list)| list.budget().hosts == *hosts);
        if let Some((id, list)) = known {
            list.users += 1;
            return *id;
        }
        let id = self.next_id;
        self.next_id += 1;
        let mut in_flight = 0;
        presences.reserve(hosts.len().saturating_sub(presences.len()));
        for hostname in hosts {
            let presence = presences.entry(hostname.clone()).or_default();
            if presence.budgets.last() != Some(&id) {
                presence.budgets.push(id);
                in_flight += usize::from(presence.in_flight);
            }
        }
        let list = CountedList {
            pinned: Arc::clone(pinned),
            index,
            users: 1,
            in_flight,
        };
        self.lists.insert(id, list);
        id
    }

    pub fn release(&mut self, id: BudgetId, presences: &mut HostnameMap<HostMembership>) {
        let Some(list) = self.lists.get_mut(&id) else {
            return;
        };
        list.users -= 1;
        if list.users > 0 {
            return;
        }
        for hostname in &list.budget().hosts {
            if let Some(presence) = presences.get_mut(hostname) {
                presence.budgets.retain(|other| *other != id);
                if presence.budgets.is_empty() && presence.rollouts.is_empty() {
                    presences.remove(hostname);
                }
            }
        }
        self.lists.remove(&id);
    }

    pub fn set_in_flight(&mut self, presence: &mut HostMembership, in_flight: bool) {
        if presence.in_flight == in_flight {
            return;
        }
        presence.in_flight = in_flight;
        for id in &presence.budgets {
            if let Some(list) = self.lists.get_mut(id) {
                if in_flight {
                    list.in_flight += 1;
                } else {
                    list.in_flight -= 1;
                }
            }
        }
    }
}

/// The stricter limit of a budget in hosts; absent when it declares none. A percentage applies to the
/// resolved hosts, rounds down and allows at least one.
pub(crate) fn limit(budget: &ResolvedBudget) -> Option<u64> {
    let by_share = budget.max_in_flight_pct.map(|percent| {
        let share = budget.hosts.len() as u128 * u128::from(percent) / 100;
        u64::try_from(share).unwrap_or(u64::MAX).max(1)
    });
    match (budget.max_in_flight, by_share) {
        (Some(count), Some(share)) => Some(count.min(share)),
        (count, share) => count.or(share),
    }
}
