//! An immutable copy of the state, for slow readers during the fold.

use std::sync::Arc;

use nixfleet_proto::snapshot::{
    BlockRow, Cursor, HostRow, PartitionSnapshot, ProbeFailureRow, QuarantineRow, RolloutRow,
};

use super::host_counters::HostCounters;
use super::interning::ProbeListPool;
use super::{PartitionState, Rollout, state_hash};

/// An immutable copy of a state, which shares its hosts with the original (copy on write).
#[derive(Debug, Clone)]
pub struct FrozenState(PartitionState);

impl PartitionState {
    /// Copies the state. Takes a fraction of a millisecond for a million hosts; afterwards the first change
    /// of each chunk of hosts copies that chunk.
    #[must_use]
    pub fn freeze(&self) -> FrozenState {
        let rollouts = self.rollouts.iter();
        let rollouts = rollouts.map(|(id, rollout)| (id.clone(), without_derived(rollout)));
        FrozenState(Self {
            rollouts: rollouts.collect(),
            quarantines: self.quarantines.clone(),
            leader_epoch: self.leader_epoch,
            clock: self.clock,
        })
    }
}

fn without_derived(rollout: &Rollout) -> Rollout {
    Rollout {
        record: rollout.record.clone(),
        manifest_hash: rollout.manifest_hash.clone(),
        pinned: Arc::clone(&rollout.pinned),
        position: rollout.position,
        hosts: rollout.hosts.clone(),
        blocks: rollout.blocks.clone(),
        counters: HostCounters::default(),
        probe_lists: ProbeListPool::default(),
    }
}

impl FrozenState {
    /// Like [`PartitionState::hash`].
    pub fn hash(&self) -> String {
        state_hash::hash(&self.0)
    }

    /// The rows that [`PartitionState::restore`] reads. Sets the leader epoch and the clock of the cursor.
    pub fn rows(&self, cursor: Cursor) -> PartitionSnapshot {
        let mut rows = PartitionSnapshot {
            cursor: Some(Cursor {
                leader_epoch: self.0.leader_epoch,
                clock: self.0.clock,
                ..cursor
            }),
            ..PartitionSnapshot::default()
        };
        for rollout in self.0.rollouts.values() {
            add_rollout(&mut rows, rollout);
        }
        for (channel, closures) in &self.0.quarantines {
            rows.quarantines
                .extend(closures.iter().map(|(closure, cause)| QuarantineRow {
                    channel: channel.clone(),
                    closure_hash: closure.clone(),
                    cause: *cause,
                }));
        }
        rows
    }
}

fn add_rollout(rows: &mut PartitionSnapshot, rollout: &Rollout) {
    let rollout_id = &rollout.record.rollout_id;
    rows.rollouts.push(RolloutRow {
        record: rollout.record.clone(),
        manifest_hash: rollout.manifest_hash.clone(),
        pinned: Some(Arc::clone(&rollout.pinned)),
        position: rollout.position,
    });
    rows.hosts
        .extend(rollout.hosts.values().map(|host| HostRow {
            record: Arc::clone(&host.record),
            queued: host.queued(),
            recovery_candidate: host.recovery_candidate().cloned(),
            position: host.position,
        }));
    for host in rollout.hosts.values() {
        for (probe_name, failures) in host.probe_failures() {
            let controls = failures.controls.iter();
            rows.probe_failures
                .extend(controls.map(|control| ProbeFailureRow {
                    rollout_id: rollout_id.clone(),
                    hostname: host.record.hostname.clone(),
                    probe_name: probe_name.clone(),
                    control: control.clone(),
                    cause: failures.cause,
                }));
        }
    }
    rows.blocks
        .extend(rollout.blocks.iter().map(|((wave, gate), held)| BlockRow {
            rollout_id: rollout_id.clone(),
            wave: *wave,
            gate: *gate,
            holds: held.holds.clone(),
            cause: held.cause,
        }));
}
