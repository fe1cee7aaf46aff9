//! Restarts, and agreeing with the control plane.

use nixfleet_proto::wire::HostSnapshot;
use nixfleet_proto::{HostState, ProbeMode, ProbeStatus};

use super::test_agent::*;
use crate::core::{Input, RollbackOutcome, SwitchOutcome};

fn snapshot(agent: &TestAgent, state: HostState, seq: u64) -> HostSnapshot {
    let mut snapshot = HostSnapshot::from(&agent.core.rollouts()[&rollout("1")].record);
    snapshot.state = state;
    snapshot.last_event_seq = seq;
    if state == HostState::Soaking {
        snapshot.current_closure = Some("b".into());
        snapshot.soak_due_at = Some(at(60));
    }
    snapshot
}

fn started(agent: &mut TestAgent) -> Vec<String> {
    let current_closure = agent.running.as_str().into();
    agent.give(Input::Started { current_closure })
}

/// A host that reported a deferred switch.
fn deferred() -> TestAgent {
    let mut agent = TestAgent::running();
    agent.switching();
    agent.give(Input::SwitchEnded {
        rollout_id: rollout("1"),
        outcome: SwitchOutcome::Deferred {
            component: "kernel".to_owned(),
        },
    });
    agent.drain("1");
    agent
}

fn state(agent: &TestAgent) -> HostState {
    agent.core.rollouts()[&rollout("1")].record.state
}

#[test]
fn a_crash_before_the_switch_switches_again_after_verifying_again() {
    let mut agent = TestAgent::running();
    agent.switching();
    agent.drain("1");
    let mut agent = agent.crash("a");
    assert_eq!(started(&mut agent), ["Heartbeat a"]);
    let open = snapshot(&agent, HostState::Activating, 2);
    assert_eq!(
        agent.give(answered(vec![open])),
        ["Fetch stable@1", "Listen"]
    );
    assert_eq!(agent.verified("1", "b", 0), ["Switch b"]);
    let names = agent.give(Input::SwitchStarted {
        rollout_id: rollout("1"),
        method: "switch".to_owned(),
    });
    assert_eq!(
        names,
        ["Save Activating waiting 1", "Send 3 ActivationStarted"]
    );
}

#[test]
fn a_crash_after_the_switch_is_recovered_by_the_heartbeat() {
    let mut agent = TestAgent::running();
    agent.switching();
    agent.drain("1");
    let mut agent = agent.crash("b");
    assert_eq!(started(&mut agent), ["Heartbeat b"]);
    let recovered = snapshot(&agent, HostState::Soaking, 2);
    assert_eq!(
        agent.give(answered(vec![recovered])),
        [
            "Save Soaking waiting 0",
            "Activating >> Soaking",
            "ListProbes",
            "Listen"
        ]
    );
    assert_eq!(
        agent.list("1", Some(Vec::new())),
        ["Save Soaking waiting 1", "Send 3 ProbeTopologyDeclared"]
    );
}

#[test]
fn a_completed_switch_is_reported_after_all_unsent_events() {
    let mut agent = TestAgent::running();
    agent.switching();
    let mut agent = agent.crash("b");
    assert_eq!(started(&mut agent), ["Heartbeat"], "no closure");
    assert_eq!(
        agent.give(answered(Vec::new())),
        [
            "Save Soaking waiting 3",
            "ListProbes",
            "Activating > Soaking",
            "Listen",
            "Send 1 DispatchAck, 2 ActivationStarted, 3 ActivationCompleted"
        ]
    );
}

#[test]
fn a_completed_switch_is_reported_without_a_reply() {
    let mut agent = TestAgent::running();
    agent.switching();
    agent.drain("1");
    let mut agent = agent.crash("b");
    started(&mut agent);
    let names = agent.give(Input::HeartbeatFailed);
    assert!(
        names.contains(&"Send 3 ActivationCompleted".to_owned()),
        "{names:?}"
    );
}

#[test]
fn the_agent_reports_a_completion_that_was_not_inferred() {
    let mut agent = TestAgent::running();
    agent.switching();
    agent.drain("1");
    let mut agent = agent.crash("b");
    started(&mut agent);
    let open = snapshot(&agent, HostState::Activating, 2);
    let names = agent.give(answered(vec![open]));
    assert!(
        names.contains(&"Send 3 ActivationCompleted".to_owned()),
        "{names:?}"
    );
}

#[test]
fn a_crash_during_the_rollback_is_closed_by_the_control_plane() {
    let mut agent = TestAgent::running();
    agent.switching();
    agent.give(Input::SwitchEnded {
        rollout_id: rollout("1"),
        outcome: SwitchOutcome::Failed {
            exit_code: 1,
            stderr_tail: String::new(),
        },
    });
    agent.drain("1");
    let mut agent = agent.crash("a");
    assert_eq!(started(&mut agent), ["Heartbeat a"]);
    assert_eq!(
        agent.give(answered(Vec::new())),
        ["Save Reverted waiting 0", "Failed >> Reverted", "Listen"]
    );
}

#[test]
fn a_crash_before_the_rollback_rolls_back_again() {
    let mut agent = TestAgent::running();
    agent.soaking(vec![probe(ProbeMode::Enforce)]);
    agent.probed("1", ProbeStatus::Fail);
    agent.after(30);
    agent.drain("1");
    assert_eq!(state(&agent), HostState::Failed);
    let mut agent = agent.crash("b");
    started(&mut agent);
    let open = snapshot(&agent, HostState::Failed, 8);
    assert_eq!(agent.give(answered(vec![open])), ["Rollback a", "Listen"]);
    let outcome = RollbackOutcome::Completed {
        observed_closure: "a".into(),
        exit_code: 0,
    };
    agent.give(Input::RollbackEnded {
        rollout_id: rollout("1"),
        outcome,
    });
    assert_eq!(state(&agent), HostState::Reverted);
}

#[test]
fn a_reboot_ends_a_deferral() {
    let agent = deferred();
    let mut agent = agent.crash("b");
    assert_eq!(started(&mut agent), ["Heartbeat b"]);
    let recovered = snapshot(&agent, HostState::Soaking, 3);
    agent.give(answered(vec![recovered]));
    assert_eq!(state(&agent), HostState::Soaking);
}

#[test]
fn a_reboot_ends_a_deferral_that_a_reply_does_not_list() {
    let agent = deferred();
    let mut agent = agent.crash("b");
    started(&mut agent);
    let names = agent.give(answered(Vec::new()));
    assert!(
        names.contains(&"Send 4 ActivationCompleted".to_owned()),
        "{names:?}"
    );
    assert!(!agent.core.rollouts()[&rollout("1")].replaced);
}

#[test]
fn a_restart_while_soaking_repeats_probes_and_reuses_no_sequence() {
    let mut agent = TestAgent::running();
    agent.soaking(vec![probe(ProbeMode::Enforce)]);
    agent.probed("1", ProbeStatus::Pass);
    agent.drain("1");
    agent.after(10);
    agent.probed("1", ProbeStatus::Pass);
    let used = agent.core.rollouts()[&rollout("1")].record.last_event_seq;
    let mut agent = agent.crash("b");
    started(&mut agent);
    let open = snapshot(&agent, HostState::Soaking, 6);
    let names = agent.give(answered(vec![open]));
    assert_eq!(names, ["ListProbes", "Listen"]);
    agent.list("1", Some(vec![probe(ProbeMode::Enforce)]));
    let next = agent.core.rollouts()[&rollout("1")].record.last_event_seq;
    assert!(next > used, "{next} must be above {used}");
}

#[test]
fn an_older_snapshot_changes_nothing() {
    let mut agent = TestAgent::running();
    agent.soaking(Vec::new());
    agent.after(2_000);
    assert_eq!(state(&agent), HostState::Converged);
    let before = agent.core.rollouts()[&rollout("1")].record.clone();
    let old = snapshot(&agent, HostState::Activating, 2);
    agent.give(answered(vec![old]));
    assert_eq!(agent.core.rollouts()[&rollout("1")].record, before);
}

#[test]
fn events_lost_by_the_control_plane_are_sent_again_once() {
    let mut agent = TestAgent::running();
    agent.soaking(Vec::new());
    let mut sent = Vec::new();
    for _ in 0..4 {
        let names = agent.after(1_000);
        assert!(names.iter().any(|name| name.starts_with("Heartbeat")));
        agent.drain("1");
        let old = snapshot(&agent, HostState::Activating, 2);
        sent.push(agent.give(answered(vec![old])));
        agent.drain("1");
    }
    let resent = sent
        .iter()
        .flatten()
        .filter(|name| name.starts_with("Send 3 ActivationCompleted"));
    assert_eq!(resent.count(), 1, "{sent:?}");
}

#[test]
fn events_lost_by_the_control_plane_are_sent_again_after_a_crash_without_waiting() {
    let agent = deferred();
    // The control plane lost the end of its log, and infers only that the target runs.
    let mut agent = agent.crash("b");
    started(&mut agent);
    let mut names = Vec::new();
    for _ in 0..3 {
        let ahead = snapshot(&agent, HostState::Soaking, 1);
        names.extend(agent.give(answered(vec![ahead])));
        agent.drain("1");
        agent.after(1_000);
    }
    let resent = names.iter().filter(|name| name.starts_with("Send 2 "));
    assert_eq!(resent.count(), 1, "{names:?}");
    assert_eq!(state(&agent), HostState::Soaking, "{names:?}");
}

/// The control plane keeps the host in soaking; returns the names of the agent's reactions.
fn contradicted(agent: &mut TestAgent) -> Vec<String> {
    let mut names = Vec::new();
    for _ in 0..6 {
        agent.after(1_000);
        agent.drain("1");
        let soaking = snapshot(agent, HostState::Soaking, 2);
        names.extend(agent.give(answered(vec![soaking])));
    }
    names.retain(|name| !name.starts_with("Save"));
    names
}

/// A host that reported a failed switch.
fn failed() -> TestAgent {
    let mut agent = TestAgent::running();
    agent.switching();
    agent.give(Input::SwitchEnded {
        rollout_id: rollout("1"),
        outcome: SwitchOutcome::Failed {
            exit_code: 4,
            stderr_tail: String::new(),
        },
    });
    agent.drain("1");
    agent
}

#[test]
fn a_failure_rejected_by_the_control_plane_is_rereported() {
    let mut agent = failed();
    let outcome = RollbackOutcome::Completed {
        observed_closure: "a".into(),
        exit_code: 0,
    };
    agent.give(Input::RollbackEnded {
        rollout_id: rollout("1"),
        outcome,
    });
    agent.drain("1");
    assert_eq!(
        contradicted(&mut agent),
        [
            "Send 3 ActivationFailed, 4 RollbackComplete",
            "Send 5 Failed, 6 RollbackComplete",
            "Send 7 Failed, 8 RollbackComplete",
        ],
        "nothing is done again"
    );
    assert_eq!(state(&agent), HostState::Reverted);
}

/// The open record of rollout 1, as a control plane has it.
fn open(state: HostState, seq: u64) -> HostSnapshot {
    let mut agent = TestAgent::running();
    agent.soaking(Vec::new());
    snapshot(&agent, state, seq)
}

/// An agent with a new disk on a machine that runs `running`.
fn fresh(running: &str) -> TestAgent {
    TestAgent::crashed(Default::default(), running)
}

#[test]
fn an_agent_without_state_walks_once_the_manifest_confirms_the_rollout() {
    let mut agent = fresh("b");
    assert_eq!(
        agent.give(answered(vec![open(HostState::Soaking, 4)])),
        ["Fetch stable@1", "Listen"]
    );
    assert_eq!(
        agent.verified("1", "b", 0),
        [
            "Save Soaking waiting 2",
            "Pending > Activating",
            "ListProbes",
            "Activating > Soaking",
            "Send 5 DispatchAck, 6 ActivationCompleted"
        ],
        "the target runs already, so there is no switch"
    );
    agent.list("1", Some(Vec::new()));
    agent.drain("1");
    let names = agent.after(60);
    assert!(names.contains(&"Send 8 Converged".to_owned()), "{names:?}");
}

#[test]
fn an_agent_without_state_switches_only_to_the_target_of_the_manifest() {
    let mut agent = fresh("a");
    let mut made_up = open(HostState::Activating, 4);
    made_up.target_closure = "evil".into();
    agent.give(answered(vec![made_up]));
    let names = agent.verified("1", "b", 0);
    assert!(names.contains(&"Switch b".to_owned()), "{names:?}");
    let record = &agent.core.rollouts()[&rollout("1")].record;
    assert_eq!(record.current_closure_at_dispatch, Some("a".into()));
}

#[test]
fn an_agent_without_state_asks_for_the_age_of_a_manifest() {
    let mut agent = fresh("a");
    agent.give(answered(vec![open(HostState::Activating, 4)]));
    agent.now = at(2 * 3600);
    let names = agent.verified("1", "b", 0);
    assert!(names.contains(&"refused too-old".to_owned()), "{names:?}");
    assert!(agent.core.rollouts().is_empty());
}

#[test]
fn an_acknowledged_walk_goes_on_with_an_old_manifest() {
    let mut agent = TestAgent::running();
    agent.switching();
    agent.drain("1");
    let mut agent = agent.crash("a");
    started(&mut agent);
    agent.give(answered(Vec::new()));
    agent.now = at(2 * 3600);
    let names = agent.verified("1", "b", 0);
    assert!(names.contains(&"Switch b".to_owned()), "{names:?}");
}

/// Answers heartbeats with a snapshot until the agent would act on it; returns what it did.
fn told(agent: &mut TestAgent, snapshot: &HostSnapshot) -> Vec<String> {
    let mut names = Vec::new();
    for _ in 0..6 {
        names.extend(agent.after(1_000));
        names.extend(agent.give(answered(vec![snapshot.clone()])));
        agent.drain("1");
    }
    names.retain(|name| !name.starts_with("Save") && !name.starts_with("delivered"));
    names.retain(|name| !name.starts_with("Heartbeat"));
    names
}

fn made_up_failure(seq: u64) -> HostSnapshot {
    let mut snapshot = open(HostState::Failed, seq);
    snapshot.current_closure_at_dispatch = Some("evil".into());
    snapshot
}

#[test]
fn a_failure_that_a_gateway_refused_is_reported_again() {
    let mut agent = failed();
    let outcome = RollbackOutcome::Completed {
        observed_closure: "a".into(),
        exit_code: 0,
    };
    agent.give(Input::RollbackEnded {
        rollout_id: rollout("1"),
        outcome,
    });
    agent.drain("1");
    let names = told(&mut agent, &open(HostState::Activating, 2));
    assert_eq!(
        names[..2],
        [
            "Send 3 ActivationFailed, 4 RollbackComplete",
            "Send 5 ActivationFailed, 6 RollbackComplete"
        ],
        "{names:?}"
    );
    assert_eq!(state(&agent), HostState::Reverted);
}

#[test]
fn a_made_up_failure_does_not_move_a_converged_host() {
    let mut agent = TestAgent::running();
    agent.soaking(Vec::new());
    agent.after(60);
    agent.drain("1");
    let before = agent.core.rollouts()[&rollout("1")].record.clone();
    assert_eq!(before.state, HostState::Converged);
    let names = told(&mut agent, &made_up_failure(1_000));
    let repeated = "Send 1001 RollbackFailed";
    assert_eq!(
        names,
        [repeated, repeated],
        "said once, and again as it is not counted; nothing is done"
    );
    let mut after = agent.core.rollouts()[&rollout("1")].record.clone();
    after.last_event_seq = before.last_event_seq;
    assert_eq!(after, before, "only the sequence moved");
    let mut agent = agent.crash("b");
    started(&mut agent);
    let names = told(&mut agent, &made_up_failure(2_000));
    assert_eq!(names, ["ListProbes", "Listen"], "also not after a restart");
}

#[test]
fn a_made_up_failure_does_not_move_a_fresh_host() {
    let mut agent = fresh("b");
    let made_up = made_up_failure(1_000);
    assert_eq!(
        agent.give(answered(vec![made_up.clone()])),
        ["Fetch stable@1", "Listen"]
    );
    assert_eq!(
        agent.verified("1", "b", 0),
        ["Save Pending waiting 1", "Send 1001 RollbackFailed"]
    );
    agent.drain("1");
    assert_eq!(
        told(&mut agent, &made_up),
        ["Send 1001 RollbackFailed"],
        "again, as it is not counted"
    );
    agent.give(Input::DispatchReceived(dispatch("1", "b", 5_000)));
    let names = agent.verified("1", "b", 0);
    assert!(
        names.contains(&"refused too-old".to_owned()),
        "a walk may begin: {names:?}"
    );
}

#[test]
fn a_fresh_host_that_fails_reports_that_it_cannot_go_back() {
    let mut agent = fresh("b");
    agent.give(answered(vec![open(HostState::Soaking, 4)]));
    agent.verified("1", "b", 0);
    agent.list("1", Some(vec![probe(ProbeMode::Enforce)]));
    agent.drain("1");
    agent.after(1);
    agent.probed("1", ProbeStatus::Fail);
    agent.drain("1");
    let names = agent.after(30);
    assert_eq!(
        names.last().unwrap(),
        "Send 11 Failed, 12 RollbackFailed",
        "{names:?}"
    );
    assert!(
        !names.iter().any(|name| name.starts_with("Rollback")),
        "{names:?}"
    );
    let mut agent = agent.crash("b");
    started(&mut agent);
    let names = agent.give(Input::HeartbeatFailed);
    assert!(
        !names.iter().any(|name| name.starts_with("Rollback")),
        "{names:?}"
    );
}

#[test]
fn a_genuine_predecessor_is_refused_whoever_offers_it_also_after_a_restart() {
    let mut agent = TestAgent::running();
    agent.give(Input::DispatchReceived(dispatch("2", "c", 20)));
    agent.verified("2", "c", 20);
    agent.give(Input::SwitchEnded {
        rollout_id: rollout("2"),
        outcome: completed("c"),
    });
    agent.drain("2");
    // Even the journal is gone: the memory is enough.
    agent.saved.clear();
    let mut agent = agent.crash("c");
    started(&mut agent);
    agent.give(answered(vec![open(HostState::Activating, 4)]));
    assert_eq!(agent.verified("1", "b", 10), ["refused outdated"]);
    agent.give(Input::DispatchReceived(dispatch("1", "b", 30)));
    assert_eq!(agent.verified("1", "b", 10), ["refused outdated"]);
    agent.give(Input::DispatchReceived(dispatch("2", "c", 30)));
    let names = agent.verified("2", "c", 15);
    assert!(
        names.contains(&"Switch c".to_owned()),
        "the same release is: {names:?}"
    );
}

#[test]
fn a_snapshot_cannot_use_up_the_sequences() {
    let last = i64::MAX as u64;
    let mut agent = TestAgent::running();
    agent.soaking(Vec::new());
    let own = agent.core.rollouts()[&rollout("1")].record.last_event_seq;
    let names = told(&mut agent, &open(HostState::Soaking, last));
    assert!(
        names.contains(&"refused sequence-floor".to_owned()),
        "{names:?}"
    );
    assert!(agent.core.rollouts()[&rollout("1")].record.last_event_seq < own + 10);
    told(&mut agent, &open(HostState::Soaking, last - (1 << 32)));
    agent.probed("1", ProbeStatus::Pass);
    let floor = agent.saved[&rollout("1")].seq_floor;
    assert!(floor < last, "{floor} leaves room");

    let mut agent = fresh("b");
    agent.give(answered(vec![open(HostState::Soaking, last)]));
    assert_eq!(agent.verified("1", "b", 0), ["refused sequence-floor"]);
}

#[test]
fn a_journal_with_an_unusable_number_ends_reports_and_nothing_else() {
    let mut agent = TestAgent::running();
    agent.soaking(Vec::new());
    for journal in agent.saved.values_mut() {
        journal.seq_floor = u64::MAX;
        journal.record.last_event_seq = u64::MAX;
    }
    let mut agent = agent.crash("b");
    started(&mut agent);
    agent.give(Input::HeartbeatFailed);
    let names = agent.list("1", Some(Vec::new()));
    assert_eq!(names, ["out of sequences"]);
    agent.give(Input::DispatchReceived(dispatch("2", "c", 10)));
    let names = agent.verified("2", "c", 10);
    assert!(names.contains(&"Switch c".to_owned()), "{names:?}");
}

#[test]
fn a_converged_host_whose_claim_still_waits_reports_again() {
    let mut agent = TestAgent::running();
    agent.soaking(vec![probe(ProbeMode::Enforce)]);
    agent.probed("1", ProbeStatus::Pass);
    agent.drain("1");
    agent.after(60);
    agent.drain("1");
    assert_eq!(state(&agent), HostState::Converged);
    for expected in [
        &[][..],
        &["Send 8 ProbeTopologyDeclared, 9 ProbeResult, 10 Converged"],
    ] {
        agent.now += chrono::TimeDelta::seconds(1_000);
        agent.give(Input::Tick);
        let waiting = snapshot(&agent, HostState::Soaking, 7);
        let mut names = agent.give(answered(vec![waiting]));
        names.retain(|name| name.starts_with("Send"));
        assert_eq!(names, expected);
        assert_eq!(state(&agent), HostState::Converged);
    }
}
