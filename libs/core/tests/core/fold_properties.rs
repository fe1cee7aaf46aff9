//! Properties of the fold over random logs.

use nixfleet_core::partition::{PartitionState, PinnedSet};
use nixfleet_core::{host, rollout};
use nixfleet_proto::snapshot::{Cursor, PartitionSnapshot};
use nixfleet_proto::{
    Decision, Entry, EntryBody, Gate, Hold, HostEvent, HostState, OnHealthFailure, OperatorCommand,
    Outcome, PlanAction, Position, Producer, RolloutState, StoredAt,
};
use proptest::prelude::*;

use crate::sample_records::{ROLLOUTS, add, at, events, id, open, origin, pinned, set};

const HOSTS: [&str; 5] = ["a", "b", "c", "x", "nobody"];

fn manifests() -> PinnedSet {
    let hosts = [
        ("a", 0, true),
        ("b", 2, true),
        ("c", 2, true),
        ("x", 0, false),
    ];
    let mut all = set(pinned(OnHealthFailure::RollbackAndHalt, &hosts));
    add(&mut all, "m2", pinned(OnHealthFailure::Halt, &hosts[..1]));
    add(&mut all, "m3", pinned(OnHealthFailure::Halt, &[]));
    all
}

fn host_event() -> impl Strategy<Value = EntryBody> {
    let bodies = events().len();
    (
        0..bodies,
        0..ROLLOUTS.len(),
        0..HOSTS.len(),
        0_u64..12,
        any::<bool>(),
    )
        .prop_map(
            |(body, rollout, host, seq, recovered)| EntryBody::HostEvent {
                rollout_id: id(ROLLOUTS[rollout]),
                hostname: HOSTS[host].into(),
                producer: if recovered {
                    Producer::Recovery
                } else {
                    Producer::Agent
                },
                event: HostEvent {
                    seq,
                    // Targets differ by host, so the sample's closures are made to fit.
                    body: fitted(events().swap_remove(body), HOSTS[host]),
                },
            },
        )
}

fn fitted(body: nixfleet_proto::HostEventBody, host: &str) -> nixfleet_proto::HostEventBody {
    let text = serde_json::to_string(&body).unwrap();
    serde_json::from_str(&text.replace("target-web-01", &format!("target-{host}"))).unwrap()
}

fn action() -> impl Strategy<Value = PlanAction> {
    let rollout = (0..ROLLOUTS.len()).prop_map(|index| id(ROLLOUTS[index]));
    let host = (0..HOSTS.len()).prop_map(|index| HOSTS[index]);
    (0..8, rollout, host, (0_u32..4, 0_u32..4), 0..4_usize).prop_map(
        |(kind, rollout_id, host, (from_wave, to_wave), manifest)| match kind {
            0 => open(rollout_id.as_str(), ["m1", "m2", "m3", "m4"][manifest]),
            1 => PlanAction::QueueDispatch {
                hostname: host.into(),
                rollout_id,
                target_closure: format!("target-{host}").into(),
                soak_minutes: Default::default(),
            },
            2 => PlanAction::AdvanceWave {
                rollout_id,
                from_wave,
                to_wave,
            },
            3 => PlanAction::SoakElapsed {
                hostname: host.into(),
                rollout_id,
            },
            4 => PlanAction::ConvergeUnchanged {
                hostname: host.into(),
                rollout_id,
                current_closure: format!("target-{host}").into(),
            },
            5 => PlanAction::RetentionExpired { rollout_id },
            6 => PlanAction::BlocksChanged {
                rollout_id,
                wave: from_wave,
                gate: Gate::ALL[to_wave as usize],
                holds: (0..manifest)
                    .map(|hold| Hold {
                        reason: format!("reason {hold}"),
                        hosts: Some(vec![host.into()]),
                        cause: None,
                    })
                    .collect(),
            },
            _ => PlanAction::Barrier {},
        },
    )
}

fn other() -> impl Strategy<Value = EntryBody> {
    (0..3, 0..ROLLOUTS.len(), 0..HOSTS.len()).prop_map(|(kind, rollout, host)| {
        let rollout_id = id(ROLLOUTS[rollout]);
        let closure = format!("target-{}", HOSTS[host]);
        match kind {
            0 => EntryBody::RecoveryCandidate {
                rollout_id,
                hostname: HOSTS[host].into(),
                current_closure: closure.into(),
            },
            1 => EntryBody::Operator {
                command: OperatorCommand::OperatorClearance {
                    rollout_id,
                    reason: "repaired".to_owned(),
                    waived_hosts: [HOSTS[host].into()].into(),
                },
                origin: origin(),
            },
            _ => EntryBody::Operator {
                command: OperatorCommand::ClearQuarantine {
                    channel: rollout_id.channel(),
                    closure_hash: closure.into(),
                    reason: "fixed".to_owned(),
                },
                origin: origin(),
            },
        }
    })
}

/// Logs that begin with a leader and an open rollout, so that much of what follows is legal.
fn log() -> impl Strategy<Value = Vec<Entry>> {
    let body = prop_oneof![
        6 => host_event(),
        5 => action().prop_map(|action| EntryBody::Plan { epoch: 1, action }),
        1 => (0_u64..4, action()).prop_map(|(epoch, action)| EntryBody::Plan { epoch, action }),
        2 => other(),
    ];
    proptest::collection::vec((0_i64..120, body), 0..120).prop_map(|tail| {
        let head = [PlanAction::Barrier {}, open("stable@4f", "m1")];
        let head = head.map(|action| (0, EntryBody::Plan { epoch: 1, action }));
        head.into_iter()
            .chain(tail)
            .map(|(minutes, body)| Entry::new(at(minutes), body))
            .collect()
    })
}

fn fold(log: &[Entry], pinned: &PinnedSet) -> (PartitionState, Vec<Outcome>) {
    let mut state = PartitionState::new();
    let outcomes = log
        .iter()
        .zip(1..)
        .map(|(entry, seq)| {
            let position = Position { seq, index: 0 };
            state.apply(position, StoredAt::new(entry.received_at), entry, pinned)
        })
        .collect();
    (state, outcomes)
}

/// The rows an applier would have written for a state.
fn rows(state: &PartitionState) -> PartitionSnapshot {
    state.freeze().rows(Cursor::empty(at(0)))
}

fn check_invariants(state: &PartitionState) {
    for partition_rollout in state.rollouts().values() {
        rollout::validate(&partition_rollout.record).unwrap();
        for entry in partition_rollout.hosts.values() {
            host::validate(&entry.record).unwrap();
            assert!(!entry.is_queued() || entry.record.state == HostState::Pending);
            let candidate = entry.candidate;
            assert!(!candidate || entry.record.state == HostState::Pending);
        }
        if partition_rollout.record.state.is_final() {
            let mut hosts = partition_rollout.hosts.values();
            assert!(!hosts.any(|entry| entry.is_queued()));
        }
        let running = partition_rollout.record.state.is_running();
        assert!(!(running && partition_rollout.counters.progress().is_complete()));
    }
    for channel in ["stable", "edge"] {
        let current = state.rollouts().values().filter(|rollout| {
            let over = matches!(
                rollout.record.state,
                RolloutState::Superseded | RolloutState::Pruned
            );
            rollout.record.channel.as_str() == channel && !over
        });
        assert!(current.count() <= 1, "two current rollouts on {channel}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn applying_the_outcomes_gives_the_state_of_the_fold(log in log()) {
        let pinned = manifests();
        let (state, outcomes) = fold(&log, &pinned);
        let mut follower = PartitionState::new();
        for outcome in &outcomes {
            let text = serde_json::to_string(outcome).unwrap();
            let sent: Outcome = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&sent, outcome);
            follower.apply_outcome(&sent, &pinned).unwrap();
        }
        prop_assert_eq!(&follower, &state);
        prop_assert_eq!(follower.hash(), state.hash());
    }

    #[test]
    fn two_folds_of_one_log_are_alike(log in log()) {
        let pinned = manifests();
        prop_assert_eq!(fold(&log, &pinned), fold(&log, &pinned));
    }

    #[test]
    fn a_rejected_entry_changes_nothing_but_the_clock(log in log()) {
        let pinned = manifests();
        let mut state = PartitionState::new();
        let mut clock = None;
        for (entry, seq) in log.iter().zip(1..) {
            let before = state.clone();
            let outcome = state.apply(Position { seq, index: 0 }, StoredAt::new(entry.received_at), entry, &pinned);
            clock = clock.max(Some(entry.received_at));
            prop_assert_eq!(state.clock(), clock);
            if matches!(outcome.decision, Decision::Rejected(_)) {
                prop_assert_eq!(state.rollouts(), before.rollouts());
                prop_assert_eq!(state.quarantines(), before.quarantines());
                prop_assert_eq!(state.leader_epoch(), before.leader_epoch());
            }
            check_invariants(&state);
        }
    }

    #[test]
    fn a_restored_state_goes_on_like_the_one_that_wrote_the_rows(log in log(), cut in 0.0..1.0_f64) {
        let pinned = manifests();
        let cut = (log.len() as f64 * cut) as usize;
        let (mut state, _) = fold(&log[..cut], &pinned);
        let mut snapshot = rows(&state);
        snapshot.hosts.reverse();
        snapshot.probe_failures.reverse();
        let mut restored = PartitionState::restore(snapshot, &pinned).unwrap();
        prop_assert_eq!(&restored, &state);
        for (entry, seq) in log[cut..].iter().zip(cut as u64 + 1..) {
            let position = Position { seq, index: 0 };
            let stored_at = StoredAt::new(entry.received_at);
            let expected = state.apply(position, stored_at, entry, &pinned);
            prop_assert_eq!(restored.apply(position, stored_at, entry, &pinned), expected);
        }
        prop_assert_eq!(restored.hash(), state.hash());
    }
}
