//! The rows that follow from a replayed state, in the form in which the applier writes its turns.
//!
//! Trace contexts are not among them: the archive keeps those of every entry.

use nixfleet_core::partition::{HostEntry, Rollout};
use nixfleet_proto::rows::{
    BlockChange, DispatchChange, FailureSet, HostChange, OpenedRollout, RolloutChange, Stamp,
    TurnRows,
};
use nixfleet_proto::{Position, Timestamp};

use crate::replay::Replay;

/// Hosts of one batch: what a statement takes well.
const HOSTS_MAX: usize = 5_000;

/// Everything the tables of the partition hold, in batches that are written in order.
pub fn rows(replay: &Replay) -> impl Iterator<Item = TurnRows> {
    let rollouts = replay.state().rollouts().values();
    let rollouts = rollouts.flat_map(move |rollout| of_rollout(replay, rollout));
    std::iter::once(quarantines(replay)).chain(rollouts)
}

fn stamp(position: Position, at: Timestamp) -> Stamp {
    Stamp {
        position,
        at,
        traceparent: None,
    }
}

fn quarantines(replay: &Replay) -> TurnRows {
    let mut rows = TurnRows::default();
    for (channel, closures) in replay.state().quarantines() {
        for (closure, position) in closures {
            let key = (channel.clone(), closure.clone());
            let at = replay.beside.quarantined_at.get(&key).copied();
            let at = at.unwrap_or_default();
            rows.quarantines_inserted.insert(key, stamp(*position, at));
        }
    }
    rows
}

fn of_rollout<'a>(
    replay: &'a Replay,
    rollout: &'a Rollout,
) -> impl Iterator<Item = TurnRows> + use<'a> {
    let hosts: &[HostEntry] = rollout.hosts.values().as_slice();
    let changed = hosts
        .chunks(HOSTS_MAX)
        .map(move |hosts| changes(replay, rollout, hosts));
    std::iter::once(opened(replay, rollout)).chain(changed)
}

/// The rollout with its hosts as they were when it opened, and what lies beside them.
fn opened(replay: &Replay, rollout: &Rollout) -> TurnRows {
    let mut rows = TurnRows::default();
    let (id, record) = (&rollout.record.rollout_id, &rollout.record);
    rows.opened.push(OpenedRollout {
        record: record.clone(),
        manifest_hash: rollout.manifest_hash.clone(),
        pinned: rollout.pinned.clone(),
        stamp: stamp(opening_of(replay, rollout), record.opened_at),
    });
    let last = RolloutChange {
        record: record.clone(),
        stamp: stamp(rollout.position, record.opened_at),
    };
    rows.rollouts.insert(id.clone(), last);
    for ((hostname, probe), failures) in &rollout.probe_failures {
        let key = (id.clone(), hostname.clone(), probe.clone());
        if let Some(observed) = replay.beside.failures.get(&key) {
            let set = FailureSet {
                failures: failures.clone(),
                observed_at: observed.at,
                stamp: stamp(observed.position, observed.at),
            };
            rows.probe_failures.insert(key, set);
        }
    }
    for ((wave, gate), (position, holds)) in &rollout.blocks {
        let key = (id.clone(), *wave, *gate);
        let at = replay.beside.blocked_at.get(&key).copied();
        let change = BlockChange {
            holds: holds.clone(),
            stamp: stamp(*position, at.unwrap_or_default()),
        };
        rows.blocks.insert(key, change);
    }
    rows
}

/// What became of some hosts since, and their dispatches.
fn changes(replay: &Replay, rollout: &Rollout, hosts: &[HostEntry]) -> TurnRows {
    let mut rows = TurnRows::default();
    let opening = opening_of(replay, rollout);
    for host in hosts {
        let record = &host.record;
        let key = (record.rollout_id.clone(), record.hostname.clone());
        if host.position != opening {
            let change = HostChange {
                record: record.clone(),
                stamp: stamp(host.position, record.dispatched_at),
            };
            rows.hosts.insert(key.clone(), change);
        }
        if let Some(closure) = host.recovery_candidate() {
            let candidate = Some(closure.clone());
            rows.recovery_candidates.insert(key.clone(), candidate);
        }
        if let Some(dispatch) = replay.beside.dispatches.get(&key) {
            let change = DispatchChange {
                target_closure: dispatch.target_closure.clone(),
                soak_minutes: dispatch.soak_minutes,
                stamp: stamp(dispatch.position, dispatch.enqueued_at),
            };
            rows.dispatches.insert(key, Some(change));
        }
    }
    rows
}

fn opening_of(replay: &Replay, rollout: &Rollout) -> Position {
    let id = &rollout.record.rollout_id;
    let opening = replay.beside.opened_by.get(id);
    opening.copied().unwrap_or(rollout.position)
}
