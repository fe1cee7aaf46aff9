//! The rows that an applier would have written for a state.

use nixfleet_core::partition::PartitionState;
use nixfleet_proto::HostRecord;
use nixfleet_proto::snapshot::{Cursor, HostRow, Origin, PartitionSnapshot, RolloutRow};

use crate::fleet::epoch;

/// Cursor, rollouts and hosts; the made-up logs leave nothing else.
pub fn rows(state: &PartitionState) -> PartitionSnapshot {
    let mut rows = PartitionSnapshot {
        cursor: Some(Cursor {
            out_seq: 1,
            input: None,
            input_msg_id: None,
            stream_created: epoch(),
            epoch: 1,
            leader_epoch: state.leader_epoch(),
            clock: state.clock(),
            origin: Origin::default(),
        }),
        ..PartitionSnapshot::default()
    };
    for rollout in state.rollouts().values() {
        rows.rollouts.push(RolloutRow {
            record: rollout.record.clone(),
            manifest_hash: rollout.manifest_hash.clone(),
            pinned: Some(std::sync::Arc::clone(&rollout.pinned)),
            position: rollout.position,
        });
        rows.hosts
            .extend(rollout.hosts.values().map(|host| HostRow {
                record: HostRecord::clone(&host.record),
                queued_at: host.queued_at,
                recovery_candidate: host.recovery_candidate().cloned(),
                position: host.position,
            }));
    }
    rows
}
