//! Restarts, and agreeing with the control plane.

use nixfleet_proto::wire::HostSnapshot;
use nixfleet_proto::{HostState, ProbeMode, ProbeStatus};

use super::bench::*;
use crate::core::{Input, RollbackOutcome, SwitchOutcome};

fn snapshot(bench: &Bench, state: HostState, seq: u64) -> HostSnapshot {
    let mut snapshot = HostSnapshot::from(&bench.core.rollouts()[&rollout("1")].record);
    snapshot.state = state;
    snapshot.last_event_seq = seq;
    if state == HostState::Soaking {
        snapshot.current_closure = Some("b".into());
        snapshot.soak_due_at = Some(at(60));
    }
    snapshot
}

fn started(bench: &mut Bench) -> Vec<String> {
    let current_closure = bench.running.as_str().into();
    bench.give(Input::Started { current_closure })
}

/// A host whose switch was deferred, and who told so.
fn deferred() -> Bench {
    let mut bench = Bench::running();
    bench.switching();
    bench.give(Input::SwitchEnded {
        rollout_id: rollout("1"),
        outcome: SwitchOutcome::Deferred {
            component: "kernel".to_owned(),
        },
    });
    bench.drain("1");
    bench
}

fn state(bench: &Bench) -> HostState {
    bench.core.rollouts()[&rollout("1")].record.state
}

#[test]
fn a_crash_before_the_switch_switches_again_after_verifying_again() {
    let mut bench = Bench::running();
    bench.switching();
    bench.drain("1");
    let mut bench = bench.crash("a");
    assert_eq!(started(&mut bench), ["Heartbeat a"]);
    let open = snapshot(&bench, HostState::Activating, 2);
    assert_eq!(
        bench.give(Input::HeartbeatAnswered(reply(vec![open]))),
        ["Fetch stable@1", "Listen"]
    );
    assert_eq!(bench.verified("1", "b", 0), ["Switch b"]);
    let names = bench.give(Input::SwitchStarted {
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
    let mut bench = Bench::running();
    bench.switching();
    bench.drain("1");
    let mut bench = bench.crash("b");
    assert_eq!(started(&mut bench), ["Heartbeat b"]);
    let recovered = snapshot(&bench, HostState::Soaking, 2);
    assert_eq!(
        bench.give(Input::HeartbeatAnswered(reply(vec![recovered]))),
        [
            "Save Soaking waiting 0",
            "Activating >> Soaking",
            "ListProbes",
            "Listen"
        ]
    );
    assert_eq!(
        bench.list("1", Some(Vec::new())),
        ["Save Soaking waiting 1", "Send 3 ProbeTopologyDeclared"]
    );
}

#[test]
fn unsent_events_go_first_and_then_the_closure_is_named() {
    let mut bench = Bench::running();
    bench.switching();
    let mut bench = bench.crash("b");
    assert_eq!(started(&mut bench), ["Heartbeat"], "no closure");
    assert_eq!(
        bench.give(Input::HeartbeatAnswered(reply(Vec::new()))),
        ["Listen", "Send 1 DispatchAck, 2 ActivationStarted"]
    );
    assert_eq!(
        bench.answer("1", 1),
        [
            "Save Activating waiting 0",
            "delivered 1",
            "delivered 2",
            "Heartbeat b"
        ]
    );
}

#[test]
fn a_completion_nobody_recovered_is_reported_by_the_agent() {
    let mut bench = Bench::running();
    bench.switching();
    bench.drain("1");
    let mut bench = bench.crash("b");
    started(&mut bench);
    let open = snapshot(&bench, HostState::Activating, 2);
    let names = bench.give(Input::HeartbeatAnswered(reply(vec![open])));
    assert!(
        names.contains(&"Send 3 ActivationCompleted".to_owned()),
        "{names:?}"
    );
}

#[test]
fn a_crash_during_the_rollback_is_closed_by_the_control_plane() {
    let mut bench = Bench::running();
    bench.switching();
    bench.give(Input::SwitchEnded {
        rollout_id: rollout("1"),
        outcome: SwitchOutcome::Failed {
            exit_code: 1,
            stderr_tail: String::new(),
        },
    });
    bench.drain("1");
    let mut bench = bench.crash("a");
    assert_eq!(started(&mut bench), ["Heartbeat a"]);
    assert_eq!(
        bench.give(Input::HeartbeatAnswered(reply(Vec::new()))),
        ["Save Reverted waiting 0", "Failed >> Reverted", "Listen"]
    );
}

#[test]
fn a_crash_before_the_rollback_rolls_back_again() {
    let mut bench = Bench::running();
    bench.soaking(vec![probe(ProbeMode::Enforce)]);
    bench.probed("1", ProbeStatus::Fail);
    bench.after(30);
    bench.drain("1");
    assert_eq!(state(&bench), HostState::Failed);
    let mut bench = bench.crash("b");
    started(&mut bench);
    let open = snapshot(&bench, HostState::Failed, 8);
    assert_eq!(
        bench.give(Input::HeartbeatAnswered(reply(vec![open]))),
        ["Rollback a", "Listen"]
    );
    let outcome = RollbackOutcome::Completed {
        observed_closure: "a".into(),
        exit_code: 0,
    };
    bench.give(Input::RollbackEnded {
        rollout_id: rollout("1"),
        outcome,
    });
    assert_eq!(state(&bench), HostState::Reverted);
}

#[test]
fn a_reboot_ends_a_deferral() {
    let bench = deferred();
    let mut bench = bench.crash("b");
    assert_eq!(started(&mut bench), ["Heartbeat b"]);
    let recovered = snapshot(&bench, HostState::Soaking, 3);
    bench.give(Input::HeartbeatAnswered(reply(vec![recovered])));
    assert_eq!(state(&bench), HostState::Soaking);
}

#[test]
fn a_rollout_that_somebody_behind_did_not_know_is_followed_again() {
    let bench = deferred();
    let mut bench = bench.crash("b");
    started(&mut bench);
    bench.give(Input::HeartbeatAnswered(reply(Vec::new())));
    assert!(bench.core.rollouts()[&rollout("1")].replaced);
    bench.after(1_000);
    let recovered = snapshot(&bench, HostState::Soaking, 3);
    let names = bench.give(Input::HeartbeatAnswered(reply(vec![recovered])));
    assert!(names.contains(&"ListProbes".to_owned()), "{names:?}");
    assert!(!bench.core.rollouts()[&rollout("1")].replaced);
}

#[test]
fn a_restart_while_soaking_probes_anew_and_uses_no_number_twice() {
    let mut bench = Bench::running();
    bench.soaking(vec![probe(ProbeMode::Enforce)]);
    bench.probed("1", ProbeStatus::Pass);
    bench.drain("1");
    bench.after(10);
    bench.probed("1", ProbeStatus::Pass);
    let used = bench.core.rollouts()[&rollout("1")].record.last_event_seq;
    let mut bench = bench.crash("b");
    started(&mut bench);
    let open = snapshot(&bench, HostState::Soaking, 6);
    let names = bench.give(Input::HeartbeatAnswered(reply(vec![open])));
    assert_eq!(names, ["ListProbes", "Listen"]);
    bench.list("1", Some(vec![probe(ProbeMode::Enforce)]));
    let next = bench.core.rollouts()[&rollout("1")].record.last_event_seq;
    assert!(next > used, "{next} must be above {used}");
}

#[test]
fn an_older_snapshot_changes_nothing() {
    let mut bench = Bench::running();
    bench.soaking(Vec::new());
    bench.after(2_000);
    assert_eq!(state(&bench), HostState::Converged);
    let before = bench.core.rollouts()[&rollout("1")].record.clone();
    let old = snapshot(&bench, HostState::Activating, 2);
    bench.give(Input::HeartbeatAnswered(reply(vec![old])));
    assert_eq!(bench.core.rollouts()[&rollout("1")].record, before);
}

#[test]
fn what_the_control_plane_lost_is_sent_again_once() {
    let mut bench = Bench::running();
    bench.soaking(Vec::new());
    let mut sent = Vec::new();
    for _ in 0..4 {
        let names = bench.after(1_000);
        assert!(names.iter().any(|name| name.starts_with("Heartbeat")));
        bench.drain("1");
        let old = snapshot(&bench, HostState::Activating, 2);
        sent.push(bench.give(Input::HeartbeatAnswered(reply(vec![old]))));
        bench.drain("1");
    }
    let resent = sent
        .iter()
        .flatten()
        .filter(|name| name.starts_with("Send 3 ActivationCompleted"));
    assert_eq!(resent.count(), 1, "{sent:?}");
}

#[test]
fn what_the_control_plane_lost_is_sent_again_after_a_crash_and_not_waited_for() {
    let bench = deferred();
    // The control plane lost the end of its log, and saw only that the target runs.
    let mut bench = bench.crash("b");
    started(&mut bench);
    let mut names = Vec::new();
    for _ in 0..3 {
        let ahead = snapshot(&bench, HostState::Soaking, 1);
        names.extend(bench.give(Input::HeartbeatAnswered(reply(vec![ahead]))));
        bench.drain("1");
        bench.after(1_000);
    }
    let resent = names.iter().filter(|name| name.starts_with("Send 2 "));
    assert_eq!(resent.count(), 1, "{names:?}");
    assert_eq!(state(&bench), HostState::Soaking, "{names:?}");
}

/// The control plane keeps taking the host for soaking; names what the agent does about it.
fn contradicted(bench: &mut Bench) -> Vec<String> {
    let mut names = Vec::new();
    for _ in 0..6 {
        bench.after(1_000);
        bench.drain("1");
        let soaking = snapshot(bench, HostState::Soaking, 2);
        names.extend(bench.give(Input::HeartbeatAnswered(reply(vec![soaking]))));
    }
    names.retain(|name| !name.starts_with("Save"));
    names
}

/// A host whose switch failed, and who told so.
fn failed() -> Bench {
    let mut bench = Bench::running();
    bench.switching();
    bench.give(Input::SwitchEnded {
        rollout_id: rollout("1"),
        outcome: SwitchOutcome::Failed {
            exit_code: 4,
            stderr_tail: String::new(),
        },
    });
    bench.drain("1");
    bench
}

#[test]
fn a_failure_that_does_not_fit_is_told_anew() {
    let mut bench = failed();
    let outcome = RollbackOutcome::Completed {
        observed_closure: "a".into(),
        exit_code: 0,
    };
    bench.give(Input::RollbackEnded {
        rollout_id: rollout("1"),
        outcome,
    });
    bench.drain("1");
    assert_eq!(
        contradicted(&mut bench),
        [
            "Send 3 ActivationFailed, 4 RollbackComplete",
            "Send 5 Failed, 6 RollbackComplete",
            "Send 7 Failed, 8 RollbackComplete",
        ],
        "nothing is done again"
    );
    assert_eq!(state(&bench), HostState::Reverted);
}

#[test]
fn an_agent_that_forgot_everything_takes_up_what_the_manifest_confirms() {
    let mut bench = Bench::running();
    bench.soaking(Vec::new());
    let open = snapshot(&bench, HostState::Soaking, 4);
    let mut bench = Bench::crashed(Default::default(), "b");
    assert_eq!(
        bench.give(Input::HeartbeatAnswered(reply(vec![open]))),
        ["Fetch stable@1", "Listen"]
    );
    let names = bench.verified("1", "b", 0);
    assert_eq!(
        names,
        ["Save Soaking waiting 0", "Pending >> Soaking", "ListProbes"]
    );
    bench.list("1", Some(Vec::new()));
    assert_eq!(
        bench.core.rollouts()[&rollout("1")].record.last_event_seq,
        5
    );
}

#[test]
fn a_claim_that_waits_does_not_pull_a_converged_host_back_at_once() {
    let mut bench = Bench::running();
    bench.soaking(Vec::new());
    bench.after(1_000);
    bench.drain("1");
    for expected in [HostState::Converged, HostState::Soaking] {
        let waiting = snapshot(&bench, HostState::Soaking, 5);
        bench.give(Input::HeartbeatAnswered(reply(vec![waiting])));
        assert_eq!(state(&bench), expected);
        bench.now += chrono::TimeDelta::seconds(1_000);
        bench.give(Input::Tick);
    }
}
