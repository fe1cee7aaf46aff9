//! A budget limits the hosts of a group that are in flight.

use nixfleet_proto::Gate;

use super::{Block, Candidate};
use crate::view::{FleetView, limit};

/// Holds a host while a budget that lists it is exhausted, by hosts in flight for any rollout. The host
/// itself does not count.
///
/// # Errors
/// The block; names the first full budget in the order of the manifest.
///
/// Source: docs/semantics.md, gate `disruption-budget`.
pub fn check(view: &FleetView, candidate: &Candidate<'_>) -> Result<(), Block> {
    let rollout = candidate.rollout;
    let hostname = candidate.hostname;
    let counts_itself =
        || view.is_in_flight(hostname) || candidate.planned_dispatches.is_dispatched(hostname);
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
        if let Some(partition) = view.unreadable_budget(id) {
            let reason = format!("disruption-budget: unknown use, partition {partition} is held");
            return Err(Block::new(Gate::DisruptionBudget, reason));
        }
        let all = view.budget_in_flight(id) + candidate.planned_dispatches.added(id);
        if (all as u64) < max {
            continue;
        }
        let others = all.saturating_sub(usize::from(counts_itself()));
        if others as u64 >= max {
            let summary = budget.selector.summary();
            let reason = format!("disruption-budget: {others}/{max} in flight ({summary})");
            return Err(Block::new(Gate::DisruptionBudget, reason));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::HostState;
    use nixfleet_proto::subject::Partition;

    use super::super::test_fleet::{CURRENT, Fixture, OLD, PARTITIONS};
    use super::*;

    const ALL: [&str; 3] = ["a", "b", "e"];

    fn reason(fixture: &Fixture) -> Option<String> {
        fixture.reason(Gate::DisruptionBudget, "a")
    }

    fn used(used: u32, max: u32) -> Option<String> {
        Some(format!(
            "disruption-budget: {used}/{max} in flight (tags:web)"
        ))
    }

    #[test]
    fn only_activating_and_soaking_hosts_are_in_flight() {
        for state in HostState::ALL {
            let fixture = Fixture::new().budget(&ALL, (Some(1), None));
            let fixture = fixture.host("edge@b2", "e", state);
            let wanted = if state.is_in_flight() {
                used(1, 1)
            } else {
                None
            };
            assert_eq!(reason(&fixture), wanted, "{}", state.name());
        }
    }

    #[test]
    fn queued_hosts_count_and_the_newest_record_decides() {
        let budget = || Fixture::new().budget(&ALL, (Some(1), None));
        for (fixture, wanted) in [
            (budget().queued(CURRENT, "b"), used(1, 1)),
            (budget().host(OLD, "b", HostState::Soaking), used(1, 1)),
            (
                budget().host(OLD, "b", HostState::Soaking).host(
                    CURRENT,
                    "b",
                    HostState::Converged,
                ),
                None,
            ),
            // Never against itself.
            (budget().host(OLD, "a", HostState::Soaking), None),
        ] {
            assert_eq!(reason(&fixture), wanted);
        }
    }

    #[test]
    fn the_stricter_limit_counts() {
        for (limits, max) in [
            ((Some(0), None), Some(0)),
            ((None, Some(67)), None),
            ((None, Some(1)), Some(1)),
            ((None, Some(0)), Some(1)),
            ((Some(1), Some(100)), Some(1)),
            ((Some(5), Some(34)), Some(1)),
            ((None, None), None),
        ] {
            let fixture = Fixture::new().budget(&ALL, limits).queued(CURRENT, "b");
            let wanted = max.and_then(|max| used(1, max));
            assert_eq!(reason(&fixture), wanted, "{limits:?}");
        }
    }

    #[test]
    fn a_host_that_no_budget_lists_is_free() {
        let fixture = Fixture::new().budget(&["b", "e"], (Some(0), None));
        assert_eq!(reason(&fixture), None);
    }

    #[test]
    fn a_budget_with_hosts_of_a_held_partition_cannot_be_read() {
        let held = |channel: &str, budget: &[&str]| {
            let partition = Partition::of(&channel.into(), PARTITIONS);
            let fixture = Fixture::new().budget(budget, (Some(3), None));
            fixture.held(partition).reason(Gate::DisruptionBudget, "a")
        };
        let edge = Partition::of(&"edge".into(), PARTITIONS);
        assert_ne!(edge, Partition::of(&"stable".into(), PARTITIONS));
        let unknown = format!("disruption-budget: unknown use, partition {edge} is held");
        assert_eq!(held("edge", &ALL), Some(unknown));
        assert_eq!(held("edge", &["a", "b"]), None);
    }

    #[test]
    fn every_budget_must_have_room() {
        let fixture = Fixture::new()
            .budget(&ALL, (Some(3), None))
            .budget(&["a", "b"], (Some(1), None))
            .queued(CURRENT, "b");
        assert_eq!(reason(&fixture), used(1, 1));
    }
}
