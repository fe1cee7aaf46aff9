//! A view that followed the log plans what a view built from the rows plans, and asking a group of
//! hosts at once plans what asking every host plans.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod simulated_fleet;

use std::collections::BTreeMap;

use nixfleet_plan::gates::{self, PlannedDispatches};
use nixfleet_plan::{Candidate, FleetView, explain, plan};
use nixfleet_proto::{Gate, Hostname, PlanAction, RolloutId};
use proptest::prelude::*;

use simulated_fleet::SimulatedFleet;

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn following_the_log_equals_loading_the_rows(choices in prop::collection::vec(any::<u32>(), 1..120)) {
        let mut simulated = SimulatedFleet::new();
        for choice in choices {
            simulated.step(choice);
            let fresh = simulated.fresh();
            let now = simulated.now;
            prop_assert_eq!(plan(&simulated.view, now), plan(&fresh, now), "after {:?}", simulated.history);
            prop_assert_eq!(explain(&simulated.view, now).1, explain(&fresh, now).1);
        }
    }

    #[test]
    fn groups_are_dispatched_like_single_hosts(choices in prop::collection::vec(any::<u32>(), 1..120)) {
        let mut simulated = SimulatedFleet::new();
        for choice in choices {
            simulated.step(choice);
            if simulated.has_refusals() {
                continue;
            }
            let fresh = simulated.fresh();
            let planned = plan(&simulated.view, simulated.now).actions;
            let started: Vec<_> = planned
                .iter()
                .filter(|action| matches!(action, PlanAction::ConvergeUnchanged { .. } | PlanAction::QueueDispatch { .. }))
                .cloned()
                .collect();
            let reference = host_by_host(&fresh, &planned, &simulated);
            prop_assert_eq!(started, reference, "after {:?}: {:?} {:?}", simulated.history, explain(&fresh, simulated.now), simulated.in_log);
        }
    }
}

/// The plan as it reads in the documentation, without any index.
fn host_by_host(
    view: &FleetView,
    planned: &[PlanAction],
    simulated: &SimulatedFleet,
) -> Vec<PlanAction> {
    let mut cursors: BTreeMap<&RolloutId, u32> = BTreeMap::new();
    for action in planned {
        if let PlanAction::AdvanceWave {
            rollout_id,
            to_wave,
            ..
        } = action
        {
            cursors.insert(rollout_id, *to_wave);
        }
    }
    let in_log = |name: &str, id: &RolloutId, hostname: &Hostname| {
        simulated.in_log.iter().any(|(_, action)| {
            action.name() == name
                && action.rollout_id() == Some(id)
                && action.hostname() == Some(hostname)
        })
    };
    let (mut recoveries, mut dispatches) = (Vec::new(), Vec::new());
    let mut planned_dispatches = PlannedDispatches::default();
    let release = view.release().unwrap();
    for channel in release.manifests().keys() {
        let Some(rollout) = view.current_rollout(channel) else {
            continue;
        };
        if !rollout.record.state.is_running() {
            continue;
        }
        let rollout_id = &rollout.record.rollout_id;
        let cursor = cursors.get(rollout_id).copied().unwrap_or(rollout.cursor());
        let mut hosts: Vec<_> = rollout.hosts().iter().collect();
        hosts.sort_by_key(|(hostname, host)| (host.wave, (*hostname).clone()));
        for (hostname, host) in hosts {
            let candidate = Candidate {
                hostname,
                host,
                rollout,
                cursor,
                planned_dispatches: &planned_dispatches,
                now: simulated.now,
            };
            if host.is_candidate() {
                let is_free = gates::blocks_of_recovery(view, &candidate).is_empty();
                if is_free && !in_log("ConvergeUnchanged", rollout_id, hostname) {
                    recoveries.push(PlanAction::ConvergeUnchanged {
                        hostname: hostname.clone(),
                        rollout_id: rollout_id.clone(),
                        current_closure: host.target_closure.clone(),
                    });
                }
            } else if host.state == nixfleet_proto::HostState::Pending
                && !rollout.is_dispatched(hostname)
                && gates::blocks_of_dispatch(view, &candidate).is_empty()
            {
                planned_dispatches.dispatch(view, hostname);
                dispatches.push(PlanAction::QueueDispatch {
                    hostname: hostname.clone(),
                    rollout_id: rollout_id.clone(),
                    target_closure: host.target_closure.clone(),
                    soak_minutes: host.soak_minutes,
                });
            }
        }
    }
    recoveries.extend(dispatches);
    recoveries
}

#[test]
fn holds_are_stated_once_and_taken_back() {
    let mut simulated = SimulatedFleet::new();
    simulated.settle();
    let stated = simulated
        .view
        .rollouts()
        .values()
        .filter(|r| !r.stated_holds(1, Gate::WavePromotion).is_empty());
    assert!(stated.count() > 0, "later waves are held");
    assert_eq!(
        plan(&simulated.view, simulated.now).actions,
        [],
        "nothing is stated twice"
    );
}

#[test]
fn a_rejected_action_is_left_alone_for_a_while() {
    let mut simulated = SimulatedFleet::new();
    simulated.settle();
    let action = simulated.dispatch_out_of_turn();
    simulated.publish(action.clone());
    simulated.fold_all();
    assert!(simulated.has_refusals());
    let again = plan(&simulated.view, simulated.now);
    assert!(!again.actions.contains(&action));
}

#[test]
fn budgets_hold_over_a_whole_release() {
    let mut simulated = SimulatedFleet::new();
    for step in 0..400_u32 {
        simulated.step(step.wrapping_mul(2_654_435_761));
        let in_flight = simulated.hosts_in_flight();
        assert!(
            in_flight <= simulated_fleet::BUDGET,
            "{in_flight} in flight after {:?}",
            simulated.history
        );
    }
}
