//! Only so many hosts of a group may be away at once.

use nixfleet_proto::Gate;

use super::{Block, Candidate};
use crate::view::{FleetView, limit};

/// Holds a host while a budget that lists it is used up, by whatever rollouts its hosts are in flight
/// for. The host itself is never counted.
///
/// # Errors
/// The block; names the first full budget in the order of the manifest.
///
/// Source: docs/semantics.md, gate `disruption-budget`.
pub fn check(view: &FleetView, candidate: &Candidate<'_>) -> Result<(), Block> {
    let rollout = candidate.rollout;
    let hostname = candidate.hostname;
    let counts_itself = view.is_in_flight(hostname) || candidate.ledger.is_dispatched(hostname);
    for place in rollout.budgets_of(candidate.host) {
        let budget = &rollout.pinned.disruption_budgets[*place];
        let Some(max) = limit(budget) else {
            continue;
        };
        let Some(id) = rollout.budgets.get(*place).copied() else {
            return Err(Block::new(
                Gate::DisruptionBudget,
                "disruption-budget: unknown use, the rollout is closed",
            ));
        };
        let all = view.budget_in_flight(id) + candidate.ledger.added(id);
        let others = all.saturating_sub(usize::from(counts_itself));
        if others as u64 >= max {
            let summary = budget.selector.summary();
            let reason = format!("disruption-budget: {others}/{max} in flight ({summary})");
            return Err(Block::new(Gate::DisruptionBudget, reason));
        }
    }
    Ok(())
}
