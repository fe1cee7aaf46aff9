//! The view of the fleet, and the facts about a host that derive from it.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_proto::subject::Partition;
use nixfleet_proto::{
    ChannelName, ClosureHash, HostState, Hostname, PlanAction, Position, RolloutId, Timestamp,
    mutation_testing,
};

use super::budget_counts::{BudgetCounts, BudgetId, HostMembership};
use super::held_partitions::HeldPartitions;
use super::hostname_maps::HostnameMap;
use super::rejected_action_key::RejectedActionKey;
use super::rollout::{HostContext, RolloutView};
use crate::release::Release;

/// Input of a plan, besides the time.
#[derive(Debug, Clone, Default)]
pub struct FleetView {
    pub(crate) release: Option<Release>,
    pub(crate) rollouts: BTreeMap<RolloutId, RolloutView>,
    pub(crate) quarantines: BTreeMap<ChannelName, BTreeMap<ClosureHash, Position>>,
    pub(crate) presences: HostnameMap<HostMembership>,
    pub(crate) budgets: BudgetCounts,
    /// Superseded rollouts by the time it happened.
    pub(crate) superseded: BTreeSet<(Timestamp, RolloutId)>,
    /// Rollouts with a pending opening.
    pub(crate) opening: BTreeSet<RolloutId>,
    pub(crate) in_log: BTreeMap<(Partition, Position), PlanAction>,
    pub(crate) rejected: BTreeMap<RejectedActionKey, Timestamp>,
    pub(crate) leader_epochs: BTreeMap<Partition, u64>,
    pub(crate) held: HeldPartitions,
}

impl FleetView {
    /// An empty view.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the current release.
    pub fn set_release(&mut self, release: Release) {
        let mut gated: BTreeSet<Hostname> = release.gated_hosts().cloned().collect();
        if let Some(before) = self.release.take() {
            gated.extend(before.gated_hosts().cloned());
        }
        self.release = Some(release);
        for hostname in gated {
            self.refresh_everywhere(&hostname);
        }
        self.find_unreadable_budgets();
    }

    /// The current release.
    pub fn release(&self) -> Option<&Release> {
        self.release.as_ref()
    }

    /// Every known rollout, pruned ones included.
    pub fn rollouts(&self) -> &BTreeMap<RolloutId, RolloutView> {
        &self.rollouts
    }

    /// One rollout.
    pub fn rollout(&self, rollout_id: &RolloutId) -> Option<&RolloutView> {
        self.rollouts.get(rollout_id)
    }

    /// The rollout of the channel's current manifest, once it is open.
    pub fn current_rollout(&self, channel: &ChannelName) -> Option<&RolloutView> {
        let rollout_id = self.release.as_ref()?.current_rollout(channel)?;
        self.rollouts.get(&rollout_id)
    }

    /// Current rollouts in the order of their channels.
    pub(crate) fn current_rollouts(&self) -> impl Iterator<Item = &RolloutView> {
        let manifests = self.release.iter().flat_map(|release| release.manifests());
        manifests.filter_map(|(_, of)| self.rollouts.get(&of.manifest.rollout_id()))
    }

    /// The entry that quarantined a closure on a channel.
    pub fn quarantine(&self, channel: &ChannelName, closure: &ClosureHash) -> Option<Position> {
        self.quarantines.get(channel)?.get(closure).copied()
    }

    /// The highest leader epoch a partition has accepted; 0 before the first.
    pub fn leader_epoch(&self, partition: Partition) -> u64 {
        self.leader_epochs.get(&partition).copied().unwrap_or(0)
    }

    /// The highest leader epoch any partition has accepted.
    pub fn highest_leader_epoch(&self) -> u64 {
        self.leader_epochs.values().copied().max().unwrap_or(0)
    }

    /// True when the host counts against its disruption budgets.
    pub fn is_in_flight(&self, hostname: &Hostname) -> bool {
        let presence = self.presences.get(hostname);
        presence.is_some_and(|presence| presence.in_flight)
    }

    pub(crate) fn budget_lists_of(&self, hostname: &Hostname) -> &[BudgetId] {
        let presence = self.presences.get(hostname);
        presence.map_or(&[], |presence| presence.budgets.as_slice())
    }

    pub(crate) fn budget_in_flight(&self, id: BudgetId) -> usize {
        self.budgets.in_flight(id)
    }

    /// Updates indices and budgets to the record of a host.
    pub(crate) fn refresh_host(&mut self, rollout_id: &RolloutId, hostname: &Hostname) {
        let in_flight = self.derive_in_flight(hostname);
        let flipped = match self.presences.get_mut(hostname) {
            Some(presence) if presence.in_flight != in_flight => {
                self.budgets.set_in_flight(presence, in_flight);
                presence.rollouts.len() > 1
            }
            Some(_) | None => false,
        };
        if flipped {
            self.refresh_everywhere(hostname);
        } else {
            self.reindex(rollout_id, hostname);
        }
    }

    pub(crate) fn refresh_everywhere(&mut self, hostname: &Hostname) {
        let presence = self.presences.get(hostname);
        let rollouts = presence.map_or_else(Vec::new, |presence| presence.rollouts.clone());
        for rollout_id in rollouts {
            self.reindex(&rollout_id, hostname);
        }
    }

    fn reindex(&mut self, rollout_id: &RolloutId, hostname: &Hostname) {
        let Some(rollout) = self.rollouts.get_mut(rollout_id) else {
            return;
        };
        let closures = self.quarantines.get(&rollout.record.channel);
        let closures = closures.filter(|closures| !closures.is_empty());
        let target = closures.and(rollout.hosts.get(hostname));
        let target = target.map(|host| &host.target_closure);
        let release = self.release.as_ref();
        let presence = self.presences.get(hostname);
        let context = HostContext {
            quarantined: closures
                .zip(target)
                .is_some_and(|(closures, target)| closures.contains_key(target)),
            gated: release.is_some_and(|release| !release.gating_hosts(hostname).is_empty()),
            in_flight: presence.is_some_and(|presence| presence.in_flight),
        };
        rollout.reindex(hostname, context);
    }

    /// A host is in flight when a dispatch is queued for it, or when its newest record that has left
    /// Pending is Activating or Soaking.
    ///
    /// Source: docs/semantics.md, disruption-budget.
    fn derive_in_flight(&self, hostname: &Hostname) -> bool {
        let Some(presence) = self.presences.get(hostname) else {
            return false;
        };
        let mut newest: Option<(Timestamp, &RolloutId, HostState)> = None;
        for rollout_id in &presence.rollouts {
            let Some(rollout) = self.rollouts.get(rollout_id) else {
                continue;
            };
            let Some(host) = rollout.hosts.get(hostname) else {
                continue;
            };
            if host.state == HostState::Pending {
                if rollout.has_dispatch(hostname, host)
                    && !mutation_testing::is_active("plan-forget-queued")
                {
                    return true;
                }
                continue;
            }
            let is_newer = |(at, other, _): (Timestamp, &RolloutId, HostState)| {
                host.created_at > at
                    || (host.created_at == at && !self.supersedes(other, rollout_id))
            };
            if newest.is_none_or(is_newer) {
                newest = Some((host.created_at, rollout_id, host.state));
            }
        }
        newest.is_some_and(|(.., state)| state.is_in_flight())
    }

    /// True when one rollout superseded another, directly or not. Rollouts can have equal opening times,
    /// while the fold clock is ahead of the wall clock; then only the order in the log decides.
    fn supersedes(&self, newer: &RolloutId, older: &RolloutId) -> bool {
        let next = |id: &RolloutId| self.rollouts.get(id)?.record.superseded_by.as_ref();
        let mut after = std::iter::successors(next(older), |id| next(id));
        after.any(|id| id == newer)
    }
}
