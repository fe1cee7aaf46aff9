//! The state hash, which detects owners that diverge.

use std::io::{self, Write};

use nixfleet_proto::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{PartitionState, Rollout};

/// Hashes JSON without buffering it.
struct Hasher(Sha256);

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Hasher {
    /// Adds one value and a separator that JSON text never contains.
    fn add<T: Serialize>(&mut self, value: &T) {
        serde_json::to_writer(&mut *self, value)
            .expect("records have text keys only, and hashing cannot fail");
        self.0.update([0]);
    }
}

pub(super) fn hash(state: &PartitionState) -> String {
    let mut hasher = Hasher(Sha256::new());
    let clock: Option<Timestamp> = state.clock;
    hasher.add(&(state.leader_epoch, clock, state.rollouts.len()));
    for rollout in state.rollouts.values() {
        add_rollout(&mut hasher, rollout);
    }
    for (channel, closures) in &state.quarantines {
        hasher.add(&(channel, closures.keys().collect::<Vec<_>>()));
    }
    let digest = hasher.0.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn add_rollout(hasher: &mut Hasher, rollout: &Rollout) {
    hasher.add(&(&rollout.record, &rollout.manifest_hash, rollout.hosts.len()));
    for host in rollout.hosts.values() {
        let queued_at = host.queued().map(|queued| queued.at);
        hasher.add(&(&host.record, queued_at, host.recovery_candidate()));
    }
    for host in rollout.hosts.values() {
        for (probe, failures) in host.probe_failures() {
            hasher.add(&((&host.record.hostname, probe), &failures.controls));
        }
    }
    for (gate, held) in &rollout.blocks {
        hasher.add(&(gate, &held.holds));
    }
}
