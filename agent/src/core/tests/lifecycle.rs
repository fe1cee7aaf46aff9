//! From the dispatch to convergence, failure or rollback.

use nixfleet_proto::{HostState, ProbeMode, ProbeStatus};

use super::test_agent::*;
use crate::core::{DeliveryResult, Input, RollbackOutcome, SwitchOutcome};

fn ended(outcome: SwitchOutcome) -> Input {
    Input::SwitchEnded {
        rollout_id: rollout("1"),
        outcome,
    }
}

fn state(agent: &TestAgent) -> HostState {
    agent.core.rollouts()[&rollout("1")].record.state
}

#[test]
fn the_first_heartbeat_precedes_the_first_poll() {
    let mut agent = TestAgent::crashed(Default::default(), "a").crash("a");
    let started = Input::Started {
        current_closure: "a".into(),
    };
    assert_eq!(agent.give(started), ["Heartbeat a"]);
    assert!(agent.give(Input::Tick).is_empty());
    assert_eq!(agent.give(Input::HeartbeatFailed), ["Listen"]);
}

#[test]
fn an_acknowledgement_contains_the_previous_closure() {
    let mut agent = TestAgent::running();
    assert_eq!(
        agent.give(Input::DispatchReceived(dispatch("1", "b", -1))),
        ["held after 1000 ms", "Fetch stable@1"]
    );
    assert_eq!(
        agent.verified("1", "b", 0),
        [
            "Save Activating waiting 1",
            "Pending > Activating",
            "Switch b",
            "Send 1 DispatchAck"
        ]
    );
    let record = &agent.core.rollouts()[&rollout("1")].record;
    assert_eq!(record.current_closure_at_dispatch, Some("a".into()));
}

#[test]
fn each_event_of_a_rollout_waits_for_the_previous_one() {
    let mut agent = TestAgent::running();
    agent.switching();
    assert_eq!(
        agent.give(ended(completed("b"))),
        [
            "Save Soaking waiting 3",
            "ListProbes",
            "Activating > Soaking"
        ]
    );
    assert_eq!(
        agent.answer("1", 1),
        [
            "Save Soaking waiting 2",
            "delivered 1",
            "Send 2 ActivationStarted, 3 ActivationCompleted"
        ]
    );
    assert!(agent.answer("1", 1).is_empty(), "answered already");
    assert_eq!(
        agent.answer("1", 2),
        ["Save Soaking waiting 0", "delivered 2", "delivered 3"]
    );
}

#[test]
fn a_host_converges_after_soak_and_passed_probes() {
    let mut agent = TestAgent::running();
    agent.soaking(vec![probe(ProbeMode::Enforce)]);
    assert_eq!(
        agent.probed("1", ProbeStatus::Pass),
        [
            "Save Soaking waiting 2",
            "Send 5 ProbeObservedFirst, 6 ProbeResult"
        ]
    );
    agent.drain("1");
    assert_eq!(agent.core.next_deadline(), Some(at(10)), "the next probe");
    assert_eq!(agent.after(10), ["RunProbe http"]);
    assert_eq!(
        agent.probed("1", ProbeStatus::Pass),
        ["Save Soaking waiting 0", "Send 7 ProbeResult"],
        "a repeated result is not durable; its number is"
    );
    agent.drain("1");
    assert_eq!(
        agent.after(50),
        [
            "Save Converged waiting 1",
            "RunProbe http",
            "Soaking > Converged",
            "Send 8 Converged"
        ]
    );
}

#[test]
fn a_host_without_probes_declares_none_and_converges_after_its_soak() {
    let mut agent = TestAgent::running();
    agent.switching();
    agent.give(ended(completed("b")));
    assert_eq!(
        agent.list("1", Some(Vec::new())),
        ["Save Soaking waiting 4"]
    );
    agent.drain("1");
    assert_eq!(agent.core.next_deadline(), Some(at(60)));
    assert_eq!(
        agent.after(60),
        [
            "Save Converged waiting 1",
            "Soaking > Converged",
            "Send 5 Converged"
        ]
    );
}

#[test]
fn unreadable_probes_are_not_declared_and_block_convergence() {
    let mut agent = TestAgent::running();
    agent.switching();
    agent.give(ended(completed("b")));
    agent.drain("1");
    assert!(agent.list("1", None).is_empty());
    assert_eq!(agent.after(100), ["ListProbes"]);
    assert_eq!(state(&agent), HostState::Soaking);
}

#[test]
fn a_disabled_probe_is_declared_and_not_run() {
    let mut agent = TestAgent::running();
    agent.soaking(vec![probe(ProbeMode::Disabled)]);
    let record = &agent.core.rollouts()[&rollout("1")].record;
    assert_eq!(
        record.declared_probes.as_ref().map(|list| list.len()),
        Some(1)
    );
    assert_eq!(agent.after(30), Vec::<String>::new());
    assert_eq!(agent.after(30).last().unwrap(), "Send 5 Converged");
}

#[test]
fn a_sustained_failure_rolls_back_under_the_signed_policy() {
    let mut agent = TestAgent::running();
    agent.soaking(vec![probe(ProbeMode::Enforce)]);
    assert_eq!(
        agent.probed("1", ProbeStatus::Fail),
        [
            "Save Soaking waiting 3",
            "Send 5 ProbeObservedFirst, 6 ProbeFailureFirst, 7 ProbeResult"
        ]
    );
    agent.drain("1");
    assert_eq!(agent.after(29), ["RunProbe http"]);
    assert_eq!(
        agent.after(1),
        [
            "Save Failed waiting 1",
            "Soaking > Failed",
            "Rollback a",
            "Send 8 Failed"
        ]
    );
    agent.drain("1");
    let outcome = RollbackOutcome::Completed {
        observed_closure: "a".into(),
        exit_code: 0,
    };
    assert_eq!(
        agent.give(Input::RollbackEnded {
            rollout_id: rollout("1"),
            outcome
        }),
        [
            "Save Reverted waiting 1",
            "Failed > Reverted",
            "Send 9 RollbackComplete"
        ]
    );
    assert_eq!(agent.core.current_closure(), &"a".into());
}

#[test]
fn a_pass_clears_the_timer_of_a_sustained_failure() {
    let mut agent = TestAgent::running();
    agent.soaking(vec![probe(ProbeMode::Enforce)]);
    for (seconds, status) in [
        (10, ProbeStatus::Fail),
        (10, ProbeStatus::Pass),
        (10, ProbeStatus::Fail),
        (10, ProbeStatus::Fail),
    ] {
        agent.probed("1", status);
        agent.after(seconds);
    }
    assert_eq!(state(&agent), HostState::Soaking);
}

#[test]
fn an_observed_probe_never_fails_the_host() {
    let mut agent = TestAgent::running();
    agent.soaking(vec![probe(ProbeMode::Observe)]);
    agent.probed("1", ProbeStatus::Fail);
    agent.after(59);
    assert_eq!(state(&agent), HostState::Soaking);
    agent.after(1);
    assert_eq!(state(&agent), HostState::Converged);
}

#[test]
fn a_failed_switch_restores_the_previous_closure() {
    let mut agent = TestAgent::running();
    agent.switching();
    let failed = SwitchOutcome::Failed {
        exit_code: 4,
        stderr_tail: "no".to_owned(),
    };
    assert_eq!(
        agent.give(ended(failed)),
        ["Save Failed waiting 3", "Activating > Failed", "Rollback a"]
    );
}

#[test]
fn what_runs_after_a_failed_switch_is_what_the_machine_says() {
    let mut agent = TestAgent::running();
    agent.switching();
    agent.give(Input::MachineObserved {
        current_closure: "b".into(),
    });
    agent.give(ended(SwitchOutcome::Failed {
        exit_code: 4,
        stderr_tail: String::new(),
    }));
    assert_eq!(agent.core.current_closure().as_str(), "b");
}

#[test]
fn a_failed_rollback_is_retried() {
    let mut agent = TestAgent::running();
    agent.switching();
    agent.give(ended(SwitchOutcome::Failed {
        exit_code: 4,
        stderr_tail: String::new(),
    }));
    let outcome = RollbackOutcome::Failed {
        message: "busy".to_owned(),
    };
    assert_eq!(
        agent.give(Input::RollbackEnded {
            rollout_id: rollout("1"),
            outcome
        }),
        ["rollback failed"]
    );
    assert_eq!(agent.after(2), ["Rollback a"]);
}

#[test]
fn a_rollback_that_never_succeeds_is_reported() {
    let mut agent = TestAgent::running();
    agent.switching();
    agent.give(ended(SwitchOutcome::Failed {
        exit_code: 4,
        stderr_tail: String::new(),
    }));
    agent.drain("1");
    let mut attempts = 0;
    let names = loop {
        attempts += 1;
        let names = agent.give(Input::RollbackEnded {
            rollout_id: rollout("1"),
            outcome: RollbackOutcome::Failed {
                message: "busy".to_owned(),
            },
        });
        if names != ["rollback failed"] {
            break names;
        }
        let again = agent.after(60);
        assert!(again.contains(&"Rollback a".to_owned()), "{again:?}");
    };
    assert_eq!(attempts, 20);
    assert_eq!(names, ["Save Failed waiting 1", "Send 4 RollbackFailed"]);
    let names = agent.after(10_000);
    assert!(
        !names.iter().any(|name| name.starts_with("Rollback")),
        "{names:?}"
    );
}

#[test]
fn a_closure_that_keeps_failing_is_not_tried_for_ever() {
    let mut agent = TestAgent::running();
    for attempt in 1..=4 {
        agent.now += chrono::TimeDelta::seconds(10);
        let queued = (agent.now - at(0)).num_seconds();
        agent.give(Input::DispatchReceived(dispatch("1", "b", queued)));
        let names = agent.verified("1", "b", 0);
        if attempt == 4 {
            assert_eq!(names, ["refused failed-here"]);
            break;
        }
        assert!(
            names.contains(&"Switch b".to_owned()),
            "{attempt}: {names:?}"
        );
        agent.give(ended(SwitchOutcome::Failed {
            exit_code: 4,
            stderr_tail: String::new(),
        }));
        agent.give(Input::RollbackEnded {
            rollout_id: rollout("1"),
            outcome: RollbackOutcome::Completed {
                observed_closure: "a".into(),
                exit_code: 0,
            },
        });
        agent.drain("1");
    }
    agent.give(Input::DispatchReceived(dispatch("2", "b", 100)));
    let names = agent.verified("2", "b", 50);
    assert!(
        names.contains(&"Switch b".to_owned()),
        "a newer release: {names:?}"
    );
}

#[test]
fn a_deferral_uses_a_sequence_number() {
    let mut agent = TestAgent::running();
    agent.switching();
    let deferred = SwitchOutcome::Deferred {
        component: "kernel".to_owned(),
    };
    assert_eq!(
        agent.give(ended(deferred)),
        ["Save Deferred waiting 3", "Activating > Deferred"]
    );
    assert_eq!(
        agent.answer("1", 1).last().unwrap(),
        "Send 2 ActivationStarted, 3 ActivationDeferred"
    );
}

fn refused() -> DeliveryResult {
    DeliveryResult::Refused {
        status: 404,
        code: "unknown-rollout".to_owned(),
        message: String::new(),
    }
}

fn unavailable() -> DeliveryResult {
    DeliveryResult::Unavailable {
        message: String::new(),
    }
}

#[test]
fn a_permanently_refused_event_is_dropped_and_the_next_is_sent() {
    let mut agent = TestAgent::running();
    agent.switching();
    let refused = Input::EventsAnswered {
        rollout_id: rollout("1"),
        answers: vec![(1, refused())],
    };
    assert_eq!(
        agent.give(refused),
        [
            "Save Activating waiting 1",
            "dead 1 404",
            "Send 2 ActivationStarted"
        ]
    );
}

#[test]
fn an_unacknowledged_event_is_sent_again_after_a_pause() {
    let mut agent = TestAgent::running();
    agent.switching();
    let unavailable = Input::EventsAnswered {
        rollout_id: rollout("1"),
        answers: vec![(1, unavailable())],
    };
    assert!(agent.give(unavailable).is_empty());
    let due = agent.core.next_deadline().unwrap();
    assert!(due > at(0) && due <= at(1), "{due}");
    assert_eq!(agent.after(1), ["Send 1 DispatchAck, 2 ActivationStarted"]);
}

#[test]
fn unsettled_events_of_an_array_are_sent_again_and_refused_arrays_are_split() {
    let mut agent = TestAgent::running();
    agent.switching();
    agent.give(ended(completed("b")));
    agent.list("1", Some(Vec::new()));
    agent.answer("1", 1);
    let answers = |answers: Vec<(u64, DeliveryResult)>| Input::EventsAnswered {
        rollout_id: rollout("1"),
        answers,
    };
    let mixed = vec![(2, refused()), (3, unavailable()), (4, unavailable())];
    assert_eq!(
        agent.give(answers(mixed)),
        ["Save Soaking waiting 2", "dead 2 404"]
    );
    let both = "Send 3 ActivationCompleted, 4 ProbeTopologyDeclared";
    assert_eq!(agent.after(1), [both]);
    let refused = vec![
        (3, DeliveryResult::BatchRefused),
        (4, DeliveryResult::BatchRefused),
    ];
    assert_eq!(
        agent.give(answers(refused)),
        ["Send 3 ActivationCompleted"],
        "at once, and alone"
    );
    assert_eq!(
        agent.answer("1", 3).last().unwrap(),
        "Send 4 ProbeTopologyDeclared"
    );
}

#[test]
fn a_converged_host_reports_only_changes() {
    let mut agent = TestAgent::running();
    agent.soaking(vec![probe(ProbeMode::Enforce)]);
    agent.probed("1", ProbeStatus::Pass);
    agent.after(60);
    agent.drain("1");
    assert_eq!(state(&agent), HostState::Converged);
    assert!(agent.probed("1", ProbeStatus::Pass).is_empty());
    agent.after(10);
    assert_eq!(
        agent.probed("1", ProbeStatus::Fail).last().unwrap(),
        "Send 8 ProbeFailureFirst, 9 ProbeResult"
    );
    agent.after(1_000);
    assert_eq!(state(&agent), HostState::Converged);
}
