//! State of a partition that must be equal before and after its rows are lost and rebuilt.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use nixfleet_core::partition::{PartitionState, PinnedSet};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{ClosureHash, Hostname, RolloutId, RolloutState};
use nixfleet_store::Store;

/// A rollout in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutSummary {
    /// State of the rollout.
    pub state: RolloutState,
    /// Wave, from 0.
    pub current_wave: u32,
    /// Hosts waived by an operator.
    pub waived_hosts: BTreeSet<Hostname>,
}

/// Decisions of a partition and the hash of its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionSummary {
    /// Every rollout, any state.
    pub rollouts: BTreeMap<RolloutId, RolloutSummary>,
    /// Quarantined closures, as `channel closure`.
    pub quarantines: BTreeSet<String>,
    /// Hash of the state restored from the rows. Fold time and planner epoch are left out: a planner that
    /// reloads its view starts a new term, which changes no decision.
    pub state_hash: String,
}

impl PartitionSummary {
    /// Reads the rows of a partition.
    ///
    /// # Errors
    /// When the database is unreachable, or rows contradict each other.
    pub async fn read(store: &Store, partition: Partition) -> Result<Self> {
        let mut snapshot = store.load_partition(partition).await?;
        snapshot.cursor = None;
        let rollouts = snapshot.rollouts.iter().map(|row| {
            let record = &row.record;
            let summary = RolloutSummary {
                state: record.state,
                current_wave: record.current_wave,
                waived_hosts: record.waived_hosts.clone(),
            };
            (record.rollout_id.clone(), summary)
        });
        let rollouts = rollouts.collect();
        let quarantines = snapshot.quarantines.iter();
        let quarantines = quarantines.map(|row| format!("{} {}", row.channel, row.closure_hash));
        Ok(Self {
            rollouts,
            quarantines: quarantines.collect(),
            state_hash: PartitionState::restore(snapshot, &PinnedSet::new())?.hash(),
        })
    }

    /// True when this closure is in quarantine on the channel.
    pub fn is_quarantined(&self, channel: &str, closure: &ClosureHash) -> bool {
        self.quarantines.contains(&format!("{channel} {closure}"))
    }

    /// Differences from another summary, one line each.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        let ids = self.rollouts.keys().chain(other.rollouts.keys());
        for rollout_id in ids.collect::<BTreeSet<_>>() {
            let (before, after) = (
                self.rollouts.get(rollout_id),
                other.rollouts.get(rollout_id),
            );
            if before != after {
                lines.push(format!("{rollout_id}: {before:?}, now {after:?}"));
            }
        }
        if self.quarantines != other.quarantines {
            let (before, after) = (&self.quarantines, &other.quarantines);
            lines.push(format!("quarantines: {before:?}, now {after:?}"));
        }
        if self.state_hash != other.state_hash {
            let (before, after) = (&self.state_hash, &other.state_hash);
            lines.push(format!("state hash: {before}, now {after}"));
        }
        lines
    }
}
