//! What tables hold beside the state: when and through which entry a row came about, where the state
//! has no place for it.

use std::collections::BTreeMap;

use nixfleet_core::partition::PartitionState;
use nixfleet_proto::minutes::Minutes;
use nixfleet_proto::{
    ChannelName, ClosureHash, Effect, Gate, Hostname, Outcome, Position, ProbeName, RolloutId,
    Timestamp, Verdict,
};

/// A dispatch that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dispatch {
    pub(crate) target_closure: ClosureHash,
    pub(crate) soak_minutes: Minutes,
    pub(crate) enqueued_at: Timestamp,
    pub(crate) position: Position,
}

/// When a probe's outstanding failures were observed, and the entry that said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) at: Timestamp,
    pub(crate) position: Position,
}

type HostKey = (RolloutId, Hostname);

#[derive(Debug, Default)]
pub(crate) struct Beside {
    pub(crate) opened_by: BTreeMap<RolloutId, Position>,
    pub(crate) quarantined_at: BTreeMap<(ChannelName, ClosureHash), Timestamp>,
    pub(crate) failures: BTreeMap<(RolloutId, Hostname, ProbeName), Observed>,
    pub(crate) dispatches: BTreeMap<HostKey, Dispatch>,
    pub(crate) blocked_at: BTreeMap<(RolloutId, u32, Gate), Timestamp>,
}

impl Beside {
    /// Follows an outcome that the state has absorbed.
    pub(crate) fn follow(&mut self, outcome: &Outcome, state: &PartitionState) {
        let Verdict::Accepted(accepted) = &outcome.verdict else {
            return;
        };
        if let Some(opened) = &accepted.opened {
            let position = outcome.position;
            self.opened_by.insert(opened.rollout_id.clone(), position);
        }
        for effect in &accepted.effects {
            // A rollout that the state does not know has no rows.
            let is_known = rollout_of(effect).is_none_or(|id| state.rollout(id).is_some());
            if is_known {
                self.take(effect, outcome);
            }
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm per effect, read as a whole")]
    fn take(&mut self, effect: &Effect, outcome: &Outcome) {
        match effect {
            Effect::ReplaceProbeFailures {
                rollout_id,
                hostname,
                probe_name,
                failures,
                observed_at,
            } => {
                let key = (rollout_id.clone(), hostname.clone(), probe_name.clone());
                if failures.is_empty() {
                    self.failures.remove(&key);
                } else {
                    let observed = Observed {
                        at: *observed_at,
                        position: outcome.position,
                    };
                    self.failures.insert(key, observed);
                }
            }
            Effect::InsertQuarantine {
                channel,
                closure_hash,
            } => {
                let key = (channel.clone(), closure_hash.clone());
                self.quarantined_at.entry(key).or_insert(outcome.at);
            }
            Effect::RemoveQuarantine {
                channel,
                closure_hash,
            } => {
                let key = (channel.clone(), closure_hash.clone());
                self.quarantined_at.remove(&key);
            }
            Effect::InsertDispatch {
                rollout_id,
                hostname,
                target_closure,
                soak_minutes,
            } => {
                let dispatch = Dispatch {
                    target_closure: target_closure.clone(),
                    soak_minutes: *soak_minutes,
                    enqueued_at: outcome.at,
                    position: outcome.position,
                };
                let key = (rollout_id.clone(), hostname.clone());
                self.dispatches.insert(key, dispatch);
            }
            Effect::RemoveDispatch {
                rollout_id,
                hostname,
            } => {
                let key = (rollout_id.clone(), hostname.clone());
                self.dispatches.remove(&key);
            }
            Effect::CancelDispatches { rollout_id } => {
                self.dispatches.retain(|(id, _), _| id != rollout_id);
            }
            Effect::ReplaceBlocks {
                rollout_id,
                wave,
                gate,
                holds,
            } => {
                let key = (rollout_id.clone(), *wave, *gate);
                if holds.is_empty() {
                    self.blocked_at.remove(&key);
                } else {
                    self.blocked_at.insert(key, outcome.at);
                }
            }
            // The state holds these, or the records say so already.
            Effect::SetRecoveryCandidate { .. } | Effect::RecordTransition { .. } => {}
            Effect::RecordRolloutTransition { .. } | Effect::UpdateCurrentWave { .. } => {}
            Effect::HaltLifted { .. } => {}
        }
    }
}

/// The rollout whose rows an effect changes.
fn rollout_of(effect: &Effect) -> Option<&RolloutId> {
    match effect {
        Effect::ReplaceProbeFailures { rollout_id, .. }
        | Effect::InsertDispatch { rollout_id, .. }
        | Effect::RemoveDispatch { rollout_id, .. }
        | Effect::CancelDispatches { rollout_id }
        | Effect::SetRecoveryCandidate { rollout_id, .. }
        | Effect::RecordTransition { rollout_id, .. }
        | Effect::RecordRolloutTransition { rollout_id, .. }
        | Effect::UpdateCurrentWave { rollout_id, .. }
        | Effect::ReplaceBlocks { rollout_id, .. } => Some(rollout_id),
        Effect::InsertQuarantine { .. } | Effect::RemoveQuarantine { .. } => None,
        Effect::HaltLifted { .. } => None,
    }
}
