//! The rollouts that the fold knows, by partition: rows at the cursor, then outcomes of the log behind it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use nixfleet_proto::effects_frame::OutcomeEffects;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Effect, RolloutId, RolloutState};

/// Value of `followed_to` before the first load.
const NOT_LOADED: u64 = u64::MAX;

/// Rollouts that are not Pruned.
#[derive(Debug)]
pub struct KnownRollouts {
    partitions: Vec<PartitionRollouts>,
}

struct PartitionRollouts {
    rollouts: RwLock<HashSet<RolloutId>>,
    /// Last output sequence that is in `rollouts`.
    followed_to: AtomicU64,
    count: metrics::Gauge,
}

impl std::fmt::Debug for PartitionRollouts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartitionRollouts")
            .field("rollouts", &self.rollouts)
            .field("followed_to", &self.followed_to)
            .finish_non_exhaustive()
    }
}

impl KnownRollouts {
    /// Nothing is known yet.
    pub fn new(partitions: u16) -> Self {
        let partitions = Partition::all(partitions).map(|partition| {
            let partition = partition.to_string();
            PartitionRollouts {
                rollouts: RwLock::default(),
                followed_to: AtomicU64::new(NOT_LOADED),
                count: metrics::gauge!("nixfleet_known_rollouts", "partition" => partition),
            }
        });
        Self {
            partitions: partitions.collect(),
        }
    }

    /// Replaces what is known of a partition by rows that cover the output log up to a sequence.
    pub fn load(&self, partition: Partition, rows: Vec<RolloutId>, out_seq: u64) {
        if let Some(known) = self.of(partition) {
            known.change(|rollouts| *rollouts = rows.into_iter().collect());
            known.followed_to.store(out_seq, Ordering::Release);
        }
    }

    /// Follows the outcomes of the message at a sequence of the output log. Few messages change a rollout.
    pub fn follow(&self, partition: Partition, out_seq: u64, outcomes: &[OutcomeEffects]) {
        let Some(known) = self.of(partition) else {
            return;
        };
        let effects = outcomes
            .iter()
            .flat_map(|outcome| &outcome.accepted.effects);
        let mut changes = effects.filter_map(rollout_change).peekable();
        if changes.peek().is_some() {
            known.change(|rollouts| {
                for (rollout_id, state) in changes {
                    if state == RolloutState::Pruned {
                        rollouts.remove(rollout_id);
                    } else {
                        rollouts.insert(rollout_id.clone());
                    }
                }
            });
        }
        known.followed_to.store(out_seq, Ordering::Release);
    }

    /// True when the fold has the rollout, as far as this gateway followed it.
    pub fn knows(&self, partition: Partition, rollout_id: &RolloutId) -> bool {
        self.of(partition).is_some_and(|known| {
            let rollouts = known.rollouts.read();
            let rollouts = rollouts.unwrap_or_else(PoisonError::into_inner);
            rollouts.contains(rollout_id)
        })
    }

    /// Last output sequence of a partition that was followed; `None` before the first load.
    pub fn followed_to(&self, partition: Partition) -> Option<u64> {
        let followed_to = self.of(partition)?.followed_to.load(Ordering::Acquire);
        (followed_to != NOT_LOADED).then_some(followed_to)
    }

    fn of(&self, partition: Partition) -> Option<&PartitionRollouts> {
        self.partitions.get(usize::from(partition.number()))
    }
}

impl PartitionRollouts {
    fn change(&self, change: impl FnOnce(&mut HashSet<RolloutId>)) {
        let rollouts = self.rollouts.write();
        let mut rollouts = rollouts.unwrap_or_else(PoisonError::into_inner);
        change(&mut rollouts);
        self.count.set(rollouts.len() as f64);
    }
}

/// The next state of a rollout, if the effect is one. Opening a rollout is such a change, too.
fn rollout_change(effect: &Effect) -> Option<(&RolloutId, RolloutState)> {
    match effect {
        Effect::RecordRolloutTransition { rollout_id, to, .. } => Some((rollout_id, *to)),
        Effect::ReplaceProbeFailures { .. }
        | Effect::InsertQuarantine { .. }
        | Effect::RemoveQuarantine { .. }
        | Effect::InsertDispatch { .. }
        | Effect::RemoveDispatch { .. }
        | Effect::CancelDispatches { .. }
        | Effect::SetRecoveryCandidate { .. }
        | Effect::RecordTransition { .. }
        | Effect::UpdateCurrentWave { .. }
        | Effect::HaltLifted { .. }
        | Effect::ReplaceBlocks { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::Timestamp;
    use nixfleet_proto::effects_frame::AcceptedEffects;

    use super::*;

    fn becomes(rollout: &str, to: RolloutState) -> OutcomeEffects {
        let effect = Effect::RecordRolloutTransition {
            rollout_id: rollout.parse().unwrap(),
            from: RolloutState::Opening,
            to,
            at: Timestamp::UNIX_EPOCH,
        };
        OutcomeEffects {
            at: Timestamp::UNIX_EPOCH,
            accepted: AcceptedEffects {
                effects: vec![effect],
            },
        }
    }

    #[test]
    fn rollouts_are_known_from_their_opening_until_their_retention_ends() {
        let known = KnownRollouts::new(2);
        let [here, there] = [0, 1].map(Partition::new);
        let id = |rollout: &str| -> RolloutId { rollout.parse().unwrap() };
        assert_eq!(known.followed_to(here), None);
        known.load(here, vec![id("a@1")], 7);
        assert_eq!(known.followed_to(here), Some(7));
        assert!(known.knows(here, &id("a@1")) && !known.knows(here, &id("a@2")));
        assert!(!known.knows(there, &id("a@1")));
        known.follow(here, 8, &[becomes("a@2", RolloutState::Active)]);
        let superseded = becomes("a@2", RolloutState::Superseded);
        known.follow(here, 9, &[superseded]);
        assert!(known.knows(here, &id("a@2")));
        assert_eq!(known.followed_to(here), Some(9));
        known.follow(here, 10, &[becomes("a@1", RolloutState::Pruned)]);
        assert!(!known.knows(here, &id("a@1")));
        known.load(here, Vec::new(), 0);
        assert!(!known.knows(here, &id("a@2")));
    }
}
