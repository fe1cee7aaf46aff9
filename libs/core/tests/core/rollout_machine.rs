//! The rollout machine: exact next records and effects.

use std::collections::BTreeSet;

use nixfleet_core::rollout::{self, NewRollout};
use nixfleet_proto::rollout::Rollback;
use nixfleet_proto::{
    Effect, HostState, OnHealthFailure, Reason, RolloutEvent, RolloutRecord, RolloutState,
};

use crate::sample_records::{
    at, clearance, host_changed, id, pinned, rollout_events, rollout_record, wave_advanced,
};

fn check(record: &RolloutRecord, event: &RolloutEvent, next: RolloutRecord, effects: &[Effect]) {
    let step = rollout::step(record, event).unwrap();
    assert_eq!(step.next, next);
    assert_eq!(step.effects, effects);
}

fn moved(from: RolloutState, to: RolloutState) -> Effect {
    Effect::RecordRolloutTransition {
        rollout_id: id("stable@4f"),
        from,
        to,
        at: at(40),
    }
}

fn cancel() -> Effect {
    Effect::CancelDispatches {
        rollout_id: id("stable@4f"),
    }
}

fn lifted() -> Effect {
    Effect::HaltLifted {
        channel: "stable".into(),
    }
}

fn wave(wave: u32) -> Effect {
    Effect::UpdateCurrentWave {
        rollout_id: id("stable@4f"),
        wave,
    }
}

#[test]
fn supersession_stores_the_successor_cancels_and_lifts() {
    let event = rollout_events().remove(9).1;
    for from in [
        RolloutState::Opening,
        RolloutState::Active,
        RolloutState::Converging,
        RolloutState::Terminal,
        RolloutState::Reverted,
        RolloutState::Failed,
    ] {
        let record = rollout_record(from);
        let next = RolloutRecord {
            state: RolloutState::Superseded,
            superseded_at: Some(at(40)),
            superseded_by: Some(id("stable@5b")),
            ..record.clone()
        };
        let mut effects = vec![moved(from, RolloutState::Superseded), cancel()];
        if matches!(from, RolloutState::Failed | RolloutState::Reverted) {
            effects.push(lifted());
        }
        check(&record, &event, next, &effects);
    }
    let superseded = rollout_record(RolloutState::Superseded);
    check(&superseded, &event, superseded.clone(), &[]);
}

#[test]
fn a_clearance_waives_and_lifts() {
    for from in [RolloutState::Failed, RolloutState::Reverted] {
        let mut record = rollout_record(from);
        record.current_wave = 2;
        record.waived_hosts = BTreeSet::from(["web-01".into()]);
        let next = RolloutRecord {
            state: RolloutState::Active,
            waived_hosts: BTreeSet::from(["web-01".into(), "web-02".into()]),
            ..record.clone()
        };
        let effects = [moved(from, RolloutState::Active), lifted()];
        check(&record, &clearance(&["web-02"]), next, &effects);
    }
    for from in [RolloutState::Active, RolloutState::Converging] {
        let record = rollout_record(from);
        let next = RolloutRecord {
            waived_hosts: BTreeSet::from(["web-02".into()]),
            ..record.clone()
        };
        check(&record, &clearance(&["web-02"]), next, &[]);
    }
}

#[test]
fn waves_rise_and_never_fall() {
    let at_wave = |state, current_wave| RolloutRecord {
        current_wave,
        ..rollout_record(state)
    };
    let (active, converging) = (RolloutState::Active, RolloutState::Converging);
    let back = moved(converging, active);
    let cases = [
        (active, 0, (0, 1), active, 1, vec![wave(1)]),
        (active, 2, (0, 1), active, 2, vec![]),
        (active, 1, (0, 1), active, 1, vec![]),
        (
            active,
            1,
            (1, 1),
            converging,
            1,
            vec![moved(active, converging)],
        ),
        (
            active,
            1,
            (1, 0),
            converging,
            1,
            vec![moved(active, converging)],
        ),
        (
            converging,
            0,
            (0, 2),
            active,
            2,
            vec![back.clone(), wave(2)],
        ),
        (converging, 2, (0, 1), active, 2, vec![back]),
        (converging, 1, (1, 1), converging, 1, vec![]),
    ];
    for (state, current, (from, to), next, next_wave, effects) in cases {
        check(
            &at_wave(state, current),
            &wave_advanced(from, to),
            at_wave(next, next_wave),
            &effects,
        );
    }
}

#[test]
fn hosts_decide_unless_waived() {
    let (active, converging) = (RolloutState::Active, RolloutState::Converging);
    let (failed, reverted) = (RolloutState::Failed, RolloutState::Reverted);
    let to_failed = |rollback| host_changed(HostState::Failed, rollback);
    let to_reverted = host_changed(HostState::Reverted, None);
    let cases = [
        (active, to_failed(Some(Rollback::None)), failed),
        (converging, to_failed(Some(Rollback::None)), failed),
        (active, to_failed(None), failed),
        (active, to_failed(Some(Rollback::Expected)), active),
        (active, to_reverted.clone(), reverted),
        (converging, to_reverted.clone(), reverted),
        (failed, to_reverted.clone(), reverted),
        (failed, to_failed(Some(Rollback::None)), failed),
        (reverted, to_failed(Some(Rollback::None)), reverted),
        (RolloutState::Terminal, to_reverted, RolloutState::Terminal),
    ];
    for (from, event, to) in cases {
        let record = rollout_record(from);
        let next = RolloutRecord {
            state: to,
            ..record.clone()
        };
        let effects = if from == to {
            vec![]
        } else {
            vec![moved(from, to), cancel()]
        };
        check(&record, &event, next, &effects);
        let waived = RolloutRecord {
            waived_hosts: BTreeSet::from(["web-01".into()]),
            ..record
        };
        check(&waived, &event, waived.clone(), &[]);
    }
}

#[test]
fn a_rollout_opens_at_its_first_wave_with_hosts() {
    let new = || NewRollout {
        rollout_id: id("stable@4f"),
        channel: "stable".into(),
        target_ref: "4f".into(),
        opened_at: at(0),
    };
    let first = |hosts: &[(&str, u32, bool)]| {
        rollout::open(new(), &pinned(OnHealthFailure::Halt, hosts))
            .map(|record| record.current_wave)
    };
    assert_eq!(first(&[("a", 2, true), ("b", 1, true)]), Ok(1));
    assert_eq!(first(&[("a", 0, false), ("b", 3, true)]), Ok(3));
    assert_eq!(first(&[("a", 0, false)]), Ok(0));
    assert_eq!(first(&[]).unwrap_err().reason, Reason::Invariant);
}

#[test]
fn every_record_the_machine_makes_is_valid() {
    for state in RolloutState::ALL {
        for (label, event) in rollout_events() {
            if let Ok(step) = rollout::step(&rollout_record(state), &event) {
                rollout::validate(&step.next)
                    .unwrap_or_else(|fault| panic!("{label} in {}: {fault}", state.name()));
            }
        }
    }
}
