//! No disruption budget is exceeded: when a dispatch is accepted, the hosts in flight by a dispatch are at most
//! as many as each budget allows.
//!
//! Hosts in flight without a dispatch (a deferred host that rebooted, one that acknowledged a withdrawn
//! dispatch) are not counted: no planner can prevent them.
//!
//! Source: docs/semantics.md, disruption-budget.

use std::collections::BTreeMap;

use nixfleet_core::partition::{PartitionState, Rollout};
use nixfleet_proto::fleet::ResolvedBudget;
use nixfleet_proto::{Effect, HostState, Hostname, RolloutRecord};

use super::folded_entry::{CheckResult, FoldedEntry};
use crate::reference_fold::ReferenceFold;

/// Hosts in flight; true: by a dispatch.
#[derive(Debug, Default)]
pub struct Budgets {
    in_flight: BTreeMap<Hostname, bool>,
}

impl Budgets {
    /// Checks an entry.
    ///
    /// # Errors
    /// Names the budget.
    pub fn check(&mut self, folded: FoldedEntry<'_>) -> CheckResult {
        let Some(accepted) = folded.accepted() else {
            return Ok(());
        };
        for record in &accepted.hosts {
            self.refresh(&record.hostname, folded.reference, false);
        }
        for effect in &accepted.effects {
            if let Effect::RemoveDispatch { hostname, .. } = effect {
                self.refresh(hostname, folded.reference, false);
            }
            if let Effect::CancelDispatches { rollout_id } = effect {
                let rollout = folded.rollout(rollout_id);
                for hostname in rollout.iter().flat_map(|rollout| rollout.hosts.keys()) {
                    self.refresh(hostname, folded.reference, false);
                }
            }
        }
        let Some(started) = folded.started_host().filter(|started| started.is_dispatch) else {
            return Ok(());
        };
        let hostname = &started.host.record.hostname;
        self.refresh(hostname, folded.reference, true);
        let budgets = &started.rollout.pinned.disruption_budgets;
        for budget in budgets
            .iter()
            .filter(|budget| budget.hosts.contains(hostname))
        {
            self.check_budget(budget, hostname)?;
        }
        Ok(())
    }

    fn refresh(&mut self, hostname: &Hostname, reference: &ReferenceFold, by_dispatch: bool) {
        if is_in_flight(hostname, reference) {
            self.in_flight
                .entry(hostname.clone())
                .or_insert(by_dispatch);
        } else {
            self.in_flight.remove(hostname);
        }
    }

    fn check_budget(&self, budget: &ResolvedBudget, newest: &Hostname) -> CheckResult {
        let others = budget
            .hosts
            .iter()
            .filter(|hostname| *hostname != newest && self.in_flight.get(*hostname) == Some(&true));
        let count = others.count() as u64 + 1;
        match allowed(budget) {
            Some(most) if count > most => Err(format!(
                "{newest} is dispatched as number {count} of a budget that allows {most}"
            )),
            Some(_) | None => Ok(()),
        }
    }
}

/// The stricter of the two limits; a percentage is rounded down and allows at least one host.
fn allowed(budget: &ResolvedBudget) -> Option<u64> {
    let share = budget
        .max_in_flight_pct
        .map(|percent| (budget.hosts.len() as u64 * percent / 100).max(1));
    budget.max_in_flight.into_iter().chain(share).min()
}

/// A dispatch is queued for the host, or its newest record after Pending is Activating or Soaking.
fn is_in_flight(hostname: &Hostname, reference: &ReferenceFold) -> bool {
    let mut newest: Option<(&Rollout, HostState)> = None;
    for (_, state) in reference.states() {
        for rollout in state.rollouts().values() {
            let Some(host) = rollout.hosts.get(hostname) else {
                continue;
            };
            if host.record.state == HostState::Pending {
                if host.is_queued() {
                    return true;
                }
                continue;
            }
            if newest.is_none_or(|(known, _)| is_newer(&rollout.record, &known.record, state)) {
                newest = Some((rollout, host.record.state));
            }
        }
    }
    newest.is_some_and(|(_, state)| matches!(state, HostState::Activating | HostState::Soaking))
}

/// Rollouts that opened at the same time are in the order in which one superseded the other.
fn is_newer(rollout: &RolloutRecord, known: &RolloutRecord, state: &PartitionState) -> bool {
    if rollout.opened_at != known.opened_at {
        return rollout.opened_at > known.opened_at;
    }
    let mut older = Some(rollout);
    while let Some(record) = older {
        if record.superseded_by.as_ref() == Some(&known.rollout_id) {
            return false;
        }
        let next = record.superseded_by.as_ref();
        older = next.and_then(|id| Some(&state.rollout(id)?.record));
    }
    true
}
