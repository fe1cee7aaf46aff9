//! The candidate of a gate check, and the dispatches that the run has planned so far.

use std::collections::BTreeMap;

use nixfleet_proto::{Hostname, Timestamp};

use crate::view::{BudgetId, FleetView, HostView, HostnameSet, RolloutView};

/// A host that may start.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Its name.
    pub hostname: &'a Hostname,
    /// Its view.
    pub host: &'a HostView,
    /// The rollout it would start in.
    pub rollout: &'a RolloutView,
    /// The wave that may be dispatched, advances of this run included.
    pub cursor: u32,
    /// Dispatches of this run so far.
    pub planned_dispatches: &'a PlannedDispatches,
    /// Time of the run.
    pub now: Timestamp,
}

/// Hosts that this run puts in flight, by budget list.
#[derive(Debug, Clone, Default)]
pub struct PlannedDispatches {
    dispatched: HostnameSet,
    added: BTreeMap<BudgetId, usize>,
}

impl PlannedDispatches {
    /// Counts a dispatch; a host that is in flight already takes no new slot.
    pub fn dispatch(&mut self, view: &FleetView, hostname: &Hostname) {
        if view.is_in_flight(hostname) || !self.dispatched.insert(hostname.clone()) {
            return;
        }
        for id in view.budget_lists_of(hostname) {
            *self.added.entry(*id).or_default() += 1;
        }
    }

    pub(super) fn is_dispatched(&self, hostname: &Hostname) -> bool {
        self.dispatched.contains(hostname)
    }

    pub(super) fn added(&self, id: BudgetId) -> usize {
        self.added.get(&id).copied().unwrap_or(0)
    }
}
