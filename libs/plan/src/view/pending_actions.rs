//! Pending actions: actions in the log that the view treats as done until their outcome arrives.
//!
//! Keyed by position: only the own outcome of an action, accepted or rejected, removes it. A rejected
//! action is not planned again for a while, so that a planner and a fold that disagree do not fill the log.

use std::collections::BTreeMap;
use std::ops::Bound;

use chrono::TimeDelta;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{PlanAction, Position, Timestamp, mutation_testing};

use super::FleetView;
use super::rejected_action_key::RejectedActionKey;

/// Delay before a rejected action is planned again.
pub const REJECTION_BACKOFF: TimeDelta = TimeDelta::seconds(15);

impl FleetView {
    /// Adds an action that the log acknowledged. Must precede the application of its outcome.
    pub fn action_appended(
        &mut self,
        partition: Partition,
        position: Position,
        action: PlanAction,
    ) {
        if mutation_testing::is_active("plan-forget-pending") {
            return;
        }
        self.mark(&action, Mark::Set);
        self.in_log.insert((partition, position), action);
    }

    /// True when the entry at a position is a pending action.
    pub fn is_in_log(&self, partition: Partition, position: Position) -> bool {
        self.in_log.contains_key(&(partition, position))
    }

    /// The oldest pending action of each partition that has one.
    pub fn oldest_in_log(&self) -> BTreeMap<Partition, Position> {
        const LAST: Position = Position {
            seq: u64::MAX,
            index: u32::MAX,
        };
        let mut oldest = BTreeMap::new();
        let mut from = Bound::Unbounded;
        while let Some((key, _)) = self.in_log.range((from, Bound::Unbounded)).next() {
            let (partition, position) = *key;
            oldest.insert(partition, position);
            from = Bound::Excluded((partition, LAST));
        }
        oldest
    }

    /// Removes the action at a position; `rejected_at` for a rejected one.
    pub(crate) fn action_answered(
        &mut self,
        partition: Partition,
        position: Position,
        rejected_at: Option<Timestamp>,
    ) {
        let Some(action) = self.in_log.remove(&(partition, position)) else {
            return;
        };
        self.mark(&action, Mark::Clear);
        if let Some(at) = rejected_at {
            self.rejected.retain(|_, until| *until > at);
            let until = at + REJECTION_BACKOFF;
            self.rejected.insert(RejectedActionKey::of(&action), until);
        }
    }

    /// Time of the next attempt, for a recently rejected action.
    pub(crate) fn rejected_until(&self, action: &PlanAction, now: Timestamp) -> Option<Timestamp> {
        if self.rejected.is_empty() {
            return None;
        }
        let until = self.rejected.get(&RejectedActionKey::of(action))?;
        (*until > now).then_some(*until)
    }

    fn mark(&mut self, action: &PlanAction, mark: Mark) {
        match action {
            PlanAction::OpenRollout { rollout_id, .. } => mark.on(&mut self.opening, rollout_id),
            PlanAction::Barrier {} => {}
            PlanAction::AdvanceWave { .. }
            | PlanAction::SoakElapsed { .. }
            | PlanAction::ConvergeUnchanged { .. }
            | PlanAction::QueueDispatch { .. }
            | PlanAction::RetentionExpired { .. }
            | PlanAction::BlocksChanged { .. } => self.mark_rollout(action, mark),
        }
    }

    fn mark_rollout(&mut self, action: &PlanAction, mark: Mark) {
        let rollout = action.rollout_id().and_then(|id| self.rollouts.get_mut(id));
        let Some(rollout) = rollout else {
            return;
        };
        let pending = &mut rollout.pending;
        match action {
            PlanAction::AdvanceWave { to_wave, .. } => {
                pending.advance = mark.then(*to_wave);
            }
            PlanAction::SoakElapsed { hostname, .. } => mark.on(&mut pending.soaked, hostname),
            PlanAction::ConvergeUnchanged { hostname, .. } => {
                mark.on(&mut pending.unchanged, hostname);
            }
            PlanAction::QueueDispatch {
                rollout_id,
                hostname,
                ..
            } => {
                match mark {
                    Mark::Set => pending.dispatched.insert(hostname.clone()),
                    Mark::Clear => pending.dispatched.swap_remove(hostname),
                };
                self.refresh_host(rollout_id, hostname);
            }
            PlanAction::RetentionExpired { .. } => pending.expired = mark == Mark::Set,
            PlanAction::BlocksChanged {
                wave, gate, holds, ..
            } => match mark {
                Mark::Set => {
                    pending.blocks.insert((*wave, *gate), holds.clone());
                }
                Mark::Clear => {
                    pending.blocks.remove(&(*wave, *gate));
                }
            },
            PlanAction::OpenRollout { .. } | PlanAction::Barrier {} => {}
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Set,
    Clear,
}

impl Mark {
    fn on<T: Clone + Ord>(self, set: &mut std::collections::BTreeSet<T>, item: &T) {
        match self {
            Self::Set => {
                set.insert(item.clone());
            }
            Self::Clear => {
                set.remove(item);
            }
        }
    }

    fn then<T>(self, value: T) -> Option<T> {
        match self {
            Self::Set => Some(value),
            Self::Clear => None,
        }
    }
}
