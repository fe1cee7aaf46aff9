//! The rollouts that the fold knows, by partition: rows at the cursor, then outcomes of the log behind it.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use nixfleet_proto::effects_frame::OutcomeEffects;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Effect, RolloutId, RolloutState};

/// Rollouts that are not Pruned.
#[derive(Debug)]
pub struct KnownRollouts {
    partitions: Vec<RwLock<Followed>>,
}

#[derive(Debug, Default)]
struct Followed {
    /// Last output sequence that is in `rollouts`; `None` before the first load.
    out_seq: Option<u64>,
    rollouts: HashSet<RolloutId>,
}

impl KnownRollouts {
    /// Nothing is known yet.
    pub fn new(partitions: u16) -> Self {
        let partitions = Partition::all(partitions).map(|_| RwLock::default());
        Self {
            partitions: partitions.collect(),
        }
    }

    /// Replaces what is known of a partition by rows that cover the output log up to a sequence.
    pub fn load(&self, partition: Partition, rows: Vec<RolloutId>, out_seq: u64) {
        self.change(partition, |followed| {
            followed.rollouts = rows.into_iter().collect();
            followed.out_seq = Some(out_seq);
        });
    }

    /// Follows the outcomes of the message at a sequence of the output log.
    pub fn follow(&self, partition: Partition, out_seq: u64, outcomes: &[OutcomeEffects]) {
        let changes = || {
            let effects = outcomes
                .iter()
                .flat_map(|outcome| &outcome.accepted.effects);
            effects.filter_map(rollout_change)
        };
        self.change(partition, |followed| {
            followed.out_seq = Some(out_seq);
            for (rollout_id, state) in changes() {
                if state == RolloutState::Pruned {
                    followed.rollouts.remove(rollout_id);
                } else {
                    followed.rollouts.insert(rollout_id.clone());
                }
            }
        });
    }

    /// True when the fold has the rollout, as far as this gateway followed it.
    pub fn knows(&self, partition: Partition, rollout_id: &RolloutId) -> bool {
        let followed = self.read(partition);
        followed.is_some_and(|followed| followed.rollouts.contains(rollout_id))
    }

    /// Last output sequence of a partition that was followed; `None` before the first load.
    pub fn followed_to(&self, partition: Partition) -> Option<u64> {
        self.read(partition)?.out_seq
    }

    fn read(&self, partition: Partition) -> Option<std::sync::RwLockReadGuard<'_, Followed>> {
        let followed = self.partitions.get(usize::from(partition.number()))?;
        Some(followed.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, partition: Partition, change: impl FnOnce(&mut Followed)) {
        if let Some(followed) = self.partitions.get(usize::from(partition.number())) {
            let count = {
                let mut followed = followed.write().unwrap_or_else(PoisonError::into_inner);
                change(&mut followed);
                followed.rollouts.len()
            };
            let partition = partition.to_string();
            metrics::gauge!("nixfleet_known_rollouts", "partition" => partition).set(count as f64);
        }
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
