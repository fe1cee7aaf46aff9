//! The host machine: exact next records and effects.

use std::collections::BTreeSet;

use nixfleet_core::host::{self, AgentEffect, ControlEffect, HostInput, StepCtx};
use nixfleet_proto::event::SubResult;
use nixfleet_proto::host::{ConvergenceClaim, FailedControl, ProbeRecord};
use nixfleet_proto::{
    HostEventBody, HostRecord, HostState, Minutes, OnHealthFailure, ProbeMode, ProbeStatus,
    Producer, Reason, RollbackFault, RolloutState, Timestamp,
};

use crate::sample_records::{
    agent_input, at, before, ctx, declared, event, events, probe, record, target,
};

fn control(
    record: &HostRecord,
    body: HostEventBody,
    policy: OnHealthFailure,
) -> (HostRecord, Vec<ControlEffect>) {
    let event = event(11, body);
    let step = host::step(record, &agent_input(&event), &ctx(policy)).unwrap();
    (step.next, step.effects)
}

fn agent(
    record: &HostRecord,
    body: HostEventBody,
    policy: OnHealthFailure,
) -> (HostRecord, Vec<AgentEffect>) {
    let event = event(11, body);
    let step = host::step_agent(record, &agent_input(&event), &ctx(policy)).unwrap();
    (step.next, step.effects)
}

fn reason(record: &HostRecord, input: &HostInput<'_>, ctx: &StepCtx) -> Reason {
    host::step(record, input, ctx).unwrap_err().reason
}

fn completed(at: Timestamp) -> HostEventBody {
    HostEventBody::ActivationCompleted {
        observed_current_closure: target(),
        exit_code: 0,
        completed_at: at,
    }
}

fn converged(minutes: i64) -> HostEventBody {
    HostEventBody::Converged {
        converged_at: at(minutes),
        current_closure: target(),
    }
}

fn result(mode: ProbeMode, status: ProbeStatus, controls: Option<Vec<SubResult>>) -> HostEventBody {
    HostEventBody::ProbeResult {
        probe_name: "http".into(),
        mode,
        status,
        observed_at: at(40),
        failure_reason: None,
        sub_results: controls,
    }
}

fn failing(id: &str) -> SubResult {
    SubResult {
        control_id: id.to_owned(),
        status: ProbeStatus::Fail,
        framework: "cis".to_owned(),
        article: None,
        effective_mode: ProbeMode::Enforce,
        override_reason: None,
    }
}

fn moved(from: HostState, to: HostState) -> ControlEffect {
    ControlEffect::RecordTransition {
        from,
        to,
        at: at(40),
    }
}

#[test]
fn an_acknowledgement_stores_where_a_rollback_goes() {
    let pending = record(HostState::Pending);
    let (next, effects) = control(&pending, events().remove(0), OnHealthFailure::Halt);
    let expected = HostRecord {
        state: HostState::Activating,
        current_closure_at_dispatch: Some(before()),
        dispatch_acked_at: Some(at(40)),
        last_event_seq: 11,
        ..pending
    };
    assert_eq!(next, expected);
    assert_eq!(effects, [moved(HostState::Pending, HostState::Activating)]);
}

#[test]
fn completion_starts_the_soak_and_forgets_probes() {
    let mut activating = record(HostState::Activating);
    let old = probe(ProbeStatus::Pass, ProbeMode::Enforce);
    activating.probes.insert("http".into(), old);
    activating.declared_probes = Some([].into());
    let (next, effects) = control(&activating, completed(at(40)), OnHealthFailure::Halt);
    let expected = HostRecord {
        state: HostState::Soaking,
        current_closure: Some(target()),
        activation_completed_at: Some(at(40)),
        soak_due_at: Some(at(70)),
        declared_probes: None,
        probes: Default::default(),
        last_event_seq: 11,
        ..activating
    };
    assert_eq!(next, expected);
    assert_eq!(effects, [moved(HostState::Activating, HostState::Soaking)]);
}

#[test]
fn the_soak_counts_from_completion_within_a_minute_of_receipt() {
    let second = chrono::TimeDelta::seconds(1);
    let minute = chrono::TimeDelta::minutes(1);
    let due = |completed_at| {
        let (next, _) = control(
            &record(HostState::Activating),
            completed(completed_at),
            OnHealthFailure::Halt,
        );
        next.soak_due_at.unwrap() - at(70)
    };
    assert_eq!(due(at(41)), minute);
    assert_eq!(due(at(41) + second), minute);
    assert_eq!(due(at(41) - second), minute - second);
    assert_eq!(due(at(39)), -minute);
    assert_eq!(due(at(39) - second), -minute);
    assert_eq!(due(at(39) + second), second - minute);
    assert_eq!(due(at(-100_000)), -minute);
}

#[test]
fn the_soak_saturates_at_the_end_of_the_calendar() {
    let mut activating = record(HostState::Activating);
    activating.soak_minutes = Minutes::from_minutes(u64::MAX);
    let event = event(11, completed(Timestamp::MAX_UTC));
    let ctx = StepCtx {
        received_at: Timestamp::MAX_UTC,
        ..ctx(OnHealthFailure::Halt)
    };
    let next = host::step(&activating, &agent_input(&event), &ctx)
        .unwrap()
        .next;
    assert_eq!(next.soak_due_at, Some(Timestamp::MAX_UTC));
    let text = serde_json::to_string(&next).unwrap();
    assert_eq!(serde_json::from_str::<HostRecord>(&text).unwrap(), next);
}

#[test]
fn failing_rolls_back_only_when_told_to_a_known_closure() {
    for state in [HostState::Activating, HostState::Deferred] {
        for policy in [OnHealthFailure::Halt, OnHealthFailure::RollbackAndHalt] {
            for known in [true, false] {
                let mut sample = record(state);
                if !known {
                    sample.current_closure_at_dispatch = None;
                }
                let (next, effects) = agent(&sample, events().remove(4), policy);
                let expected = HostRecord {
                    state: HostState::Failed,
                    activation_failed_at: Some(at(40)),
                    failed_at: Some(at(40)),
                    policy_applied: Some(policy),
                    last_event_seq: 11,
                    ..sample
                };
                assert_eq!(next, expected);
                let fires = effects
                    .iter()
                    .any(|effect| matches!(effect, AgentEffect::FireRollbackTo { .. }));
                let wanted = known && policy == OnHealthFailure::RollbackAndHalt;
                assert_eq!(fires, wanted);
            }
        }
    }
}

#[test]
fn sustained_failure_keeps_the_policy_it_was_told_and_drops_the_claim() {
    let mut soaking = record(HostState::Soaking);
    soaking.convergence_claim = Some(claim(20).into());
    let (next, effects) = control(&soaking, events().remove(9), OnHealthFailure::Halt);
    assert_eq!(next.policy_applied, Some(OnHealthFailure::RollbackAndHalt));
    assert_eq!(next.convergence_claim, None);
    assert_eq!(next.activation_failed_at, None);
    assert_eq!(effects, [moved(HostState::Soaking, HostState::Failed)]);
}

#[test]
fn a_rollback_quarantines_the_target_before_it_moves() {
    let (next, effects) = control(
        &record(HostState::Failed),
        events().remove(10),
        OnHealthFailure::Halt,
    );
    assert_eq!(next.reverted_to, Some(before()));
    assert_eq!(next.current_closure, Some(before()));
    assert_eq!(
        effects,
        [
            ControlEffect::InsertQuarantine {
                channel: "stable".into(),
                closure_hash: target(),
            },
            moved(HostState::Failed, HostState::Reverted),
        ]
    );
}

#[test]
fn a_rollback_that_will_not_come_ends_what_is_expected() {
    let failed = record(HostState::Failed);
    assert!(failed.expects_rollback());
    let (next, effects) = control(&failed, events().remove(11), OnHealthFailure::Halt);
    let expected = HostRecord {
        rollback_failed: Some(RollbackFault::Impossible),
        last_event_seq: 11,
        ..failed
    };
    assert_eq!((&next, effects), (&expected, vec![]));
    assert!(!next.expects_rollback());
    host::validate(&next).unwrap();
    let again = event(12, events().remove(11));
    let ctx = ctx(OnHealthFailure::Halt);
    assert_eq!(reason(&next, &agent_input(&again), &ctx), Reason::Illegal);

    let back = event(12, events().remove(10));
    let reverted = host::step(&next, &agent_input(&back), &ctx).unwrap().next;
    assert_eq!(reverted.state, HostState::Reverted, "it came after all");
    assert_eq!(reverted.rollback_failed, None);
}

#[test]
fn a_rollback_that_nobody_expects_cannot_fail() {
    let halted = HostRecord {
        policy_applied: Some(OnHealthFailure::Halt),
        ..record(HostState::Failed)
    };
    let unknown = HostRecord {
        current_closure_at_dispatch: None,
        ..record(HostState::Failed)
    };
    let event = event(11, events().remove(11));
    for sample in [halted, unknown] {
        let ctx = ctx(OnHealthFailure::RollbackAndHalt);
        assert_eq!(reason(&sample, &agent_input(&event), &ctx), Reason::Illegal);
    }
}

fn claim(minutes: i64) -> ConvergenceClaim {
    ConvergenceClaim {
        converged_at: at(minutes),
        current_closure: target(),
    }
}

#[test]
fn a_report_that_cannot_complete_is_kept_as_a_claim() {
    let soaking = record(HostState::Soaking);
    let undeclared = HostRecord {
        declared_probes: None,
        ..soaking.clone()
    };
    let unreported = HostRecord {
        declared_probes: Some([declared("http", ProbeMode::Enforce)].into()),
        ..soaking.clone()
    };
    for (sample, minutes) in [(soaking, 34), (undeclared, 40), (unreported, 40)] {
        let (next, effects) = control(&sample, converged(minutes), OnHealthFailure::Halt);
        let expected = HostRecord {
            convergence_claim: Some(claim(minutes).into()),
            last_event_seq: 11,
            ..sample
        };
        assert_eq!(next, expected);
        assert_eq!(effects, []);
    }
}

#[test]
fn convergence_is_due_at_the_very_moment() {
    let (next, _) = control(
        &record(HostState::Soaking),
        converged(35),
        OnHealthFailure::Halt,
    );
    assert_eq!(next.state, HostState::Converged);
    assert_eq!(next.converged_at, Some(at(35)));
}

#[test]
fn a_wrong_closure_is_no_claim() {
    let event = event(
        11,
        HostEventBody::Converged {
            converged_at: at(40),
            current_closure: before(),
        },
    );
    let sample = record(HostState::Soaking);
    let input = agent_input(&event);
    assert_eq!(
        reason(&sample, &input, &ctx(OnHealthFailure::Halt)),
        Reason::Invariant
    );
}

#[test]
fn soak_elapsed_completes_a_claim_at_its_own_time_and_keeps_it() {
    let mut soaking = record(HostState::Soaking);
    soaking.convergence_claim = Some(claim(20).into());
    let step = host::step(
        &soaking,
        &HostInput::SoakElapsed,
        &ctx(OnHealthFailure::Halt),
    )
    .unwrap();
    let expected = HostRecord {
        state: HostState::Converged,
        converged_at: Some(at(40)),
        current_closure: Some(target()),
        ..soaking
    };
    assert_eq!(step.next, expected);
    assert_eq!(
        step.effects,
        [moved(HostState::Soaking, HostState::Converged)]
    );
}

#[test]
fn soak_elapsed_needs_everything() {
    let claimed = HostRecord {
        convergence_claim: Some(claim(20).into()),
        ..record(HostState::Soaking)
    };
    let cases = [
        record(HostState::Soaking),
        HostRecord {
            soak_due_at: Some(at(41)),
            ..claimed.clone()
        },
        HostRecord {
            soak_due_at: None,
            ..claimed.clone()
        },
        HostRecord {
            declared_probes: None,
            ..claimed.clone()
        },
        HostRecord {
            declared_probes: Some([declared("http", ProbeMode::Enforce)].into()),
            ..claimed
        },
    ];
    for sample in cases {
        let reason = reason(
            &sample,
            &HostInput::SoakElapsed,
            &ctx(OnHealthFailure::Halt),
        );
        assert_eq!(reason, Reason::Invariant, "{sample:?}");
    }
}

#[test]
fn the_declared_mode_decides_and_any_pass_counts() {
    let cases = [
        (
            ProbeMode::Enforce,
            ProbeStatus::Pass,
            ProbeMode::Observe,
            HostState::Converged,
        ),
        (
            ProbeMode::Enforce,
            ProbeStatus::Fail,
            ProbeMode::Observe,
            HostState::Soaking,
        ),
        (
            ProbeMode::Observe,
            ProbeStatus::Fail,
            ProbeMode::Enforce,
            HostState::Converged,
        ),
        (
            ProbeMode::Disabled,
            ProbeStatus::Fail,
            ProbeMode::Enforce,
            HostState::Converged,
        ),
    ];
    for (mode, status, reported, expected) in cases {
        let mut soaking = record(HostState::Soaking);
        soaking.declared_probes = Some([declared("http", mode)].into());
        soaking
            .probes
            .insert("http".into(), probe(status, reported));
        let (next, _) = control(&soaking, converged(40), OnHealthFailure::Halt);
        assert_eq!(next.state, expected);
    }
}

#[test]
fn sequences_of_agent_and_recovery_are_apart() {
    let sample = record(HostState::Activating);
    for (producer, seq, fresh) in [
        (Producer::Agent, 10, false),
        (Producer::Agent, 11, true),
        (Producer::Agent, u64::MAX, true),
        (Producer::Recovery, 2, false),
        (Producer::Recovery, 3, true),
    ] {
        let event = event(seq, completed(at(40)));
        let input = HostInput::Event {
            producer,
            event: &event,
        };
        let step = host::step(&sample, &input, &ctx(OnHealthFailure::Halt));
        assert_eq!(step.is_ok(), fresh, "{producer:?} {seq}");
        if let Ok(step) = step {
            let expected = match producer {
                Producer::Agent => (seq, 2),
                Producer::Recovery => (10, seq),
            };
            assert_eq!((step.next.last_event_seq, step.next.recovery_seq), expected);
        }
    }
}

#[test]
fn stale_comes_before_the_state_of_the_rollout() {
    let event = event(10, completed(at(40)));
    let ctx = StepCtx {
        rollout_state: RolloutState::Pruned,
        ..ctx(OnHealthFailure::Halt)
    };
    let sample = record(HostState::Pending);
    assert_eq!(reason(&sample, &agent_input(&event), &ctx), Reason::Stale);
}

#[test]
fn each_result_replaces_the_outstanding_failures() {
    let whole = vec![FailedControl::default()];
    let one = |id: &str| FailedControl {
        control_id: Some(id.to_owned()),
        framework: Some("cis".to_owned()),
    };
    let passing = SubResult {
        status: ProbeStatus::Pass,
        ..failing("ok")
    };
    let observed = SubResult {
        effective_mode: ProbeMode::Observe,
        ..failing("seen")
    };
    let (enforce, observe) = (ProbeMode::Enforce, ProbeMode::Observe);
    let (pass, fail) = (ProbeStatus::Pass, ProbeStatus::Fail);
    let cases = [
        (enforce, pass, None, vec![]),
        (enforce, fail, None, whole.clone()),
        (enforce, fail, Some(vec![]), whole),
        (observe, fail, None, vec![]),
        (ProbeMode::Disabled, fail, None, vec![]),
        (enforce, fail, Some(vec![passing, observed]), vec![]),
        (
            observe,
            pass,
            Some(vec![failing("b"), failing("a")]),
            vec![one("b"), one("a")],
        ),
    ];
    for (mode, status, controls, failures) in cases {
        for state in [HostState::Soaking, HostState::Converged] {
            let body = result(mode, status, controls.clone());
            let (next, effects) = control(&record(state), body, OnHealthFailure::Halt);
            assert_eq!(next.state, state);
            assert_eq!(
                effects,
                [ControlEffect::ReplaceProbeFailures {
                    probe_name: "http".into(),
                    failures: failures.clone(),
                    observed_at: at(40),
                }]
            );
        }
    }
}

#[test]
fn only_news_is_durable() {
    let with = |probe: ProbeRecord, ids: &[&str]| ProbeRecord {
        failing_controls: Some(
            ids.iter()
                .map(|id| FailedControl {
                    control_id: Some((*id).to_owned()),
                    framework: Some("cis".to_owned()),
                })
                .collect::<BTreeSet<_>>()
                .into(),
        ),
        ..probe
    };
    let (enforce, observe) = (ProbeMode::Enforce, ProbeMode::Observe);
    let (pass, fail) = (ProbeStatus::Pass, ProbeStatus::Fail);
    let controls = |ids: &[&str]| Some(ids.iter().map(|id| failing(id)).collect::<Vec<_>>());
    let cases = [
        (None, enforce, pass, None, true),
        (None, enforce, fail, None, true),
        (None, observe, pass, None, false),
        (Some(probe(pass, enforce)), enforce, pass, None, false),
        (Some(probe(fail, enforce)), enforce, pass, None, true),
        (Some(probe(pass, enforce)), enforce, fail, None, true),
        (Some(probe(fail, enforce)), enforce, fail, None, false),
        (Some(probe(fail, observe)), enforce, fail, None, true),
        (Some(probe(pass, observe)), enforce, pass, None, true),
        (
            Some(probe(fail, enforce)),
            enforce,
            fail,
            controls(&["a"]),
            true,
        ),
        (
            Some(with(probe(fail, enforce), &["a"])),
            enforce,
            fail,
            controls(&["a"]),
            false,
        ),
        (
            Some(with(probe(fail, enforce), &["a"])),
            enforce,
            fail,
            controls(&["a", "b"]),
            true,
        ),
        (
            Some(with(probe(fail, enforce), &["a", "b"])),
            enforce,
            fail,
            controls(&["b", "a"]),
            false,
        ),
    ];
    for (before, mode, status, controls, expected) in cases {
        let mut soaking = record(HostState::Soaking);
        if let Some(probe) = before.clone() {
            soaking.probes.insert("http".into(), probe);
        }
        let body = result(mode, status, controls);
        let (_, effects) = agent(&soaking, body.clone(), OnHealthFailure::Halt);
        let AgentEffect::EmitEvent { durable, .. } = &effects[0] else {
            panic!("{effects:?}");
        };
        assert_eq!(*durable, expected, "{before:?} then {body:?}");
        assert_eq!(effects.len(), 1);
    }
}

#[test]
fn first_stamps_are_kept() {
    let mut soaking = record(HostState::Soaking);
    for index in [6, 8] {
        let (next, effects) = control(&soaking, events().remove(index), OnHealthFailure::Halt);
        assert_eq!(effects, []);
        soaking = HostRecord {
            last_event_seq: 10,
            ..next
        };
    }
    assert_eq!(soaking.probe_observed_first_at, Some(at(40)));
    assert_eq!(soaking.probe_failure_first_at, Some(at(40)));
    soaking.probe_observed_first_at = Some(at(7));
    soaking.probe_failure_first_at = Some(at(8));
    for index in [6, 8] {
        let (next, _) = control(&soaking, events().remove(index), OnHealthFailure::Halt);
        assert_eq!(next.probe_observed_first_at, Some(at(7)));
        assert_eq!(next.probe_failure_first_at, Some(at(8)));
    }
}

#[test]
fn every_record_the_machine_makes_is_valid() {
    for state in HostState::ALL {
        host::validate(&record(state)).unwrap();
        for body in events() {
            let event = event(11, body);
            for policy in [OnHealthFailure::Halt, OnHealthFailure::RollbackAndHalt] {
                let step = host::step(&record(state), &agent_input(&event), &ctx(policy));
                if let Ok(step) = step {
                    host::validate(&step.next).unwrap();
                }
            }
        }
    }
    let mut broken = record(HostState::Converged);
    broken.current_closure = Some(before());
    assert!(host::validate(&broken).is_err());
}
