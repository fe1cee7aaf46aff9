use std::collections::{BTreeMap, BTreeSet};

use chrono::{TimeDelta, Utc};
use nixfleet_proto::host::{FailedControl, NewHost};
use nixfleet_proto::minutes::Minutes;
use nixfleet_proto::outcome::{Opened, OutcomeSubject};
use nixfleet_proto::turn_rows::{BlockKey, HostKey, ProbeKey, QuarantineKey};
use nixfleet_proto::{
    ClosureHash, Gate, Hold, HostRecord, Hostname, OnHealthFailure, Pinned, PinnedManifest,
    Position, Rejection, RolloutRecord, RolloutState, Timestamp, rejection::Reason,
};
use proptest::prelude::*;

use super::*;

/// Model of the tables, updated one outcome at a time.
#[derive(Debug, Default, PartialEq)]
struct Tables {
    rollouts: BTreeMap<RolloutId, (RolloutRecord, Position)>,
    hosts: BTreeMap<HostKey, (HostRecord, Position)>,
    candidates: BTreeMap<HostKey, ClosureHash>,
    quarantines: BTreeMap<QuarantineKey, Stamp>,
    failures: BTreeMap<ProbeKey, FailureSet>,
    dispatches: BTreeMap<HostKey, DispatchChange>,
    blocks: BTreeMap<BlockKey, BlockChange>,
}

impl Tables {
    fn write(&mut self, rows: &TurnRows) {
        for opened in &rows.opened {
            let record = (opened.record.clone(), opened.stamp.position);
            let id = opened.record.rollout_id.clone();
            self.rollouts.insert(id.clone(), record);
            for record in opened.pinned.pending_hosts(&id, opened.stamp.at) {
                let key = (id.clone(), record.hostname.clone());
                self.hosts.insert(key, (record, opened.stamp.position));
            }
        }
        for (id, change) in &rows.rollouts {
            let record = (change.record.clone(), change.stamp.position);
            self.rollouts.insert(id.clone(), record);
        }
        for (key, change) in &rows.hosts {
            let record = (HostRecord::clone(&change.record), change.stamp.position);
            self.hosts.insert(key.clone(), record);
        }
        for (key, candidate) in &rows.recovery_candidates {
            put(&mut self.candidates, key, candidate.clone());
        }
        self.quarantines
            .retain(|key, _| !rows.quarantines_removed.contains(key));
        for (key, stamp) in &rows.quarantines_inserted {
            let inserted = self.quarantines.entry(key.clone());
            inserted.or_insert_with(|| stamp.clone());
        }
        for (key, set) in &rows.probe_failures {
            let kept = Some(set.clone()).filter(|set| !set.failures.is_empty());
            put(&mut self.failures, key, kept);
        }
        self.dispatches
            .retain(|(id, _), _| !rows.dispatches_cancelled.contains(id));
        for (key, change) in &rows.dispatches {
            put(&mut self.dispatches, key, change.clone());
        }
        for (key, change) in &rows.blocks {
            let kept = Some(change.clone()).filter(|change| !change.holds.is_empty());
            put(&mut self.blocks, key, kept);
        }
    }
}

fn put<K: Ord + Clone, V>(table: &mut BTreeMap<K, V>, key: &K, value: Option<V>) {
    match value {
        Some(value) => table.insert(key.clone(), value),
        None => table.remove(key),
    };
}

fn at(seconds: u64) -> Timestamp {
    chrono::DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(seconds as i64)
}

fn rollout(number: u8) -> RolloutId {
    format!("stable@{number}").parse().unwrap()
}

fn host(number: u8) -> Hostname {
    format!("h{number}").parse::<Hostname>().unwrap()
}

fn closure(number: u8) -> ClosureHash {
    ClosureHash::from(format!("c{number}"))
}

fn record(id: &RolloutId, wave: u32) -> RolloutRecord {
    RolloutRecord {
        rollout_id: id.clone(),
        channel: id.channel(),
        target_ref: id.target_ref(),
        state: RolloutState::Active,
        current_wave: wave,
        opened_at: at(0),
        terminal_at: None,
        superseded_at: None,
        superseded_by: None,
        waived_hosts: BTreeSet::new(),
    }
}

fn host_record(id: &RolloutId, hostname: Hostname, seq: u64) -> HostRecord {
    HostRecord {
        last_event_seq: seq,
        ..HostRecord::pending(NewHost {
            rollout_id: id.clone(),
            hostname,
            channel: id.channel(),
            target_closure: closure(0),
            soak_minutes: Minutes::ZERO,
            dispatched_at: at(0),
        })
    }
}

fn pinned() -> PinnedSet {
    let host_set = (0..3)
        .map(|number| nixfleet_proto::rollout::PinnedHost {
            hostname: host(number),
            wave_index: 0,
            target_closure: closure(0),
            staged: true,
        })
        .collect();
    let pinned = Pinned {
        on_health_failure: OnHealthFailure::Halt,
        waves: Vec::new(),
        host_set,
        disruption_budgets: Vec::new(),
    };
    let manifest = PinnedManifest {
        rollout_id: rollout(0),
        pinned: Arc::new(pinned),
    };
    PinnedSet::from([("m".into(), manifest)])
}

fn accepted(number: u64, accepted: Accepted) -> Outcome {
    outcome(number, Decision::Accepted(Box::new(accepted)))
}

fn outcome(number: u64, decision: Decision) -> Outcome {
    Outcome {
        position: Position {
            seq: number,
            index: 0,
        },
        at: at(number),
        subject: OutcomeSubject {
            entry: "HostEvent".into(),
            event: None,
            producer: None,
            rollout_id: None,
            hostname: None,
            actor: None,
        },
        traceparent: Some(format!("trace-{number}")),
        decision,
    }
}

fn opening(number: u64, id: &RolloutId) -> Outcome {
    let opened = Opened {
        rollout_id: id.clone(),
        manifest_hash: "m".into(),
    };
    let change = Accepted {
        opened: Some(opened),
        rollouts: vec![record(id, 0)],
        ..Accepted::default()
    };
    accepted(number, change)
}

fn effect() -> impl Strategy<Value = Effect> {
    let keys = (0..2_u8, 0..3_u8, 0..2_u8, 0..3_usize);
    (0..8_u8, keys).prop_map(|(kind, (r, h, c, count))| {
        let (rollout_id, hostname, closure_hash) = (rollout(r), host(h), closure(c));
        let channel = rollout_id.channel();
        match kind {
            0 => Effect::ReplaceProbeFailures {
                rollout_id,
                hostname,
                probe_name: "p".into(),
                failures: vec![FailedControl::default(); count],
                observed_at: at(1),
            },
            1 => Effect::InsertQuarantine {
                channel,
                closure_hash,
            },
            2 => Effect::RemoveQuarantine {
                channel,
                closure_hash,
            },
            3 => Effect::InsertDispatch {
                rollout_id,
                hostname,
                target_closure: closure_hash,
                soak_minutes: Minutes::ZERO,
            },
            4 => Effect::RemoveDispatch {
                rollout_id,
                hostname,
            },
            5 => Effect::CancelDispatches { rollout_id },
            6 => Effect::SetRecoveryCandidate {
                rollout_id,
                hostname,
                current_closure: (count > 0).then_some(closure_hash),
            },
            _ => Effect::ReplaceBlocks {
                rollout_id,
                wave: 0,
                gate: Gate::ALL[usize::from(c)],
                holds: vec![
                    Hold {
                        reason: "r".to_owned(),
                        hosts: None,
                        cause: None
                    };
                    count
                ],
            },
        }
    })
}

fn turn() -> impl Strategy<Value = Vec<Outcome>> {
    let change = (
        any::<bool>(),
        proptest::collection::vec((0..2_u8, 0..3_u8), 0..3),
        proptest::collection::vec(0..2_u8, 0..2),
        proptest::collection::vec(effect(), 0..4),
    );
    proptest::collection::vec(change, 0..24).prop_map(|changes| {
        let mut outcomes = vec![opening(1, &rollout(0)), opening(2, &rollout(1))];
        for (number, (rejected, hosts, rollouts, effects)) in (3..).zip(changes) {
            if rejected && effects.is_empty() {
                let rejection = Rejection::new(Reason::Stale, "no");
                outcomes.push(outcome(number, Decision::Rejected(rejection)));
                continue;
            }
            let hosts = hosts.into_iter();
            let rollouts = rollouts.into_iter();
            let change = Accepted {
                hosts: hosts
                    .map(|(r, h)| host_record(&rollout(r), host(h), number).into())
                    .collect(),
                rollouts: rollouts
                    .map(|r| record(&rollout(r), number as u32))
                    .collect(),
                effects,
                ..Accepted::default()
            };
            outcomes.push(accepted(number, change));
        }
        outcomes
    })
}

proptest! {
    #[test]
    fn one_turn_writes_the_same_rows_as_single_outcomes(outcomes in turn(), cut in 0..26_usize) {
        let pinned = pinned();
        let mut single = Tables::default();
        for outcome in &outcomes {
            single.write(&build_rows([outcome], &pinned).unwrap());
        }
        let (before, after) = outcomes.split_at(cut.min(outcomes.len()));
        let mut together = Tables::default();
        together.write(&build_rows(before, &pinned).unwrap());
        together.write(&build_rows(after, &pinned).unwrap());
        prop_assert_eq!(together, single);
    }
}

#[test]
fn a_rejected_entry_leaves_no_row() {
    let rejected = outcome(1, Decision::Rejected(Rejection::new(Reason::Unknown, "x")));
    let rows = build_rows([&rejected], &PinnedSet::new()).unwrap();
    assert!(rows.is_empty());
}

#[test]
fn an_opening_needs_its_manifest_and_its_record() {
    let id = rollout(0);
    let named = [opening(1, &id)];
    assert_eq!(opened_manifests(&named).count(), 1);
    let missing = build_rows(&named, &PinnedSet::new());
    assert_eq!(missing, Err(RowError::UnknownManifest("m".into())));
    let opened = Opened {
        rollout_id: id.clone(),
        manifest_hash: "m".into(),
    };
    let bare = accepted(
        1,
        Accepted {
            opened: Some(opened),
            ..Accepted::default()
        },
    );
    assert_eq!(
        build_rows([&bare], &pinned()),
        Err(RowError::OpenedWithoutRecord(id))
    );
}

#[test]
fn the_trace_of_the_last_change_stays_with_the_row() {
    let id = rollout(0);
    let change = |number| {
        let hosts = vec![host_record(&id, host(1), number).into()];
        accepted(
            number,
            Accepted {
                hosts,
                ..Accepted::default()
            },
        )
    };
    let rows = build_rows(&[change(4), change(5)], &PinnedSet::new()).unwrap();
    let row = &rows.hosts[&(id.clone(), host(1))];
    assert_eq!(row.stamp.traceparent.as_deref(), Some("trace-5"));
    assert_eq!(rows.hosts.len(), 1);
}
