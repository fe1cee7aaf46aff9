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
        agent.give(Input::HeartbeatAnswered(reply(vec![open]))),
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
        agent.give(Input::HeartbeatAnswered(reply(vec![recovered]))),
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
fn the_closure_is_reported_after_all_unsent_events() {
    let mut agent = TestAgent::running();
    agent.switching();
    let mut agent = agent.crash("b");
    assert_eq!(started(&mut agent), ["Heartbeat"], "no closure");
    assert_eq!(
        agent.give(Input::HeartbeatAnswered(reply(Vec::new()))),
        ["Listen", "Send 1 DispatchAck, 2 ActivationStarted"]
    );
    assert_eq!(
        agent.answer("1", 1),
        [
            "Save Activating waiting 0",
            "delivered 1",
            "delivered 2",
            "Heartbeat b"
        ]
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
    let names = agent.give(Input::HeartbeatAnswered(reply(vec![open])));
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
        agent.give(Input::HeartbeatAnswered(reply(Vec::new()))),
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
    assert_eq!(
        agent.give(Input::HeartbeatAnswered(reply(vec![open]))),
        ["Rollback a", "Listen"]
    );
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
    agent.give(Input::HeartbeatAnswered(reply(vec![recovered])));
    assert_eq!(state(&agent), HostState::Soaking);
}

#[test]
fn a_rollout_missing_in_a_stale_reply_is_followed_again() {
    let agent = deferred();
    let mut agent = agent.crash("b");
    started(&mut agent);
    agent.give(Input::HeartbeatAnswered(reply(Vec::new())));
    assert!(agent.core.rollouts()[&rollout("1")].replaced);
    agent.after(1_000);
    let recovered = snapshot(&agent, HostState::Soaking, 3);
    let names = agent.give(Input::HeartbeatAnswered(reply(vec![recovered])));
    assert!(names.contains(&"ListProbes".to_owned()), "{names:?}");
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
    let names = agent.give(Input::HeartbeatAnswered(reply(vec![open])));
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
    agent.give(Input::HeartbeatAnswered(reply(vec![old])));
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
        sent.push(agent.give(Input::HeartbeatAnswered(reply(vec![old]))));
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
        names.extend(agent.give(Input::HeartbeatAnswered(reply(vec![ahead]))));
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
        names.extend(agent.give(Input::HeartbeatAnswered(reply(vec![soaking]))));
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

#[test]
fn an_agent_without_state_adopts_a_rollout_confirmed_by_the_manifest() {
    let mut agent = TestAgent::running();
    agent.soaking(Vec::new());
    let open = snapshot(&agent, HostState::Soaking, 4);
    let mut agent = TestAgent::crashed(Default::default(), "b");
    assert_eq!(
        agent.give(Input::HeartbeatAnswered(reply(vec![open]))),
        ["Fetch stable@1", "Listen"]
    );
    let names = agent.verified("1", "b", 0);
    assert_eq!(
        names,
        ["Save Soaking waiting 0", "Pending >> Soaking", "ListProbes"]
    );
    agent.list("1", Some(Vec::new()));
    assert_eq!(
        agent.core.rollouts()[&rollout("1")].record.last_event_seq,
        5
    );
}

#[test]
fn a_single_contradicting_snapshot_does_not_reset_a_converged_host() {
    let mut agent = TestAgent::running();
    agent.soaking(Vec::new());
    agent.after(1_000);
    agent.drain("1");
    for expected in [HostState::Converged, HostState::Soaking] {
        let waiting = snapshot(&agent, HostState::Soaking, 5);
        agent.give(Input::HeartbeatAnswered(reply(vec![waiting])));
        assert_eq!(state(&agent), expected);
        agent.now += chrono::TimeDelta::seconds(1_000);
        agent.give(Input::Tick);
    }
}
