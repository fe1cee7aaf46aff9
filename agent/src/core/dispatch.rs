//! From a dispatch to its acknowledgement.
//!
//! A dispatch is advice: it makes the agent fetch the signed manifest, and the manifest decides.

use chrono::TimeDelta;
use nixfleet_proto::host::NewHost;
use nixfleet_proto::wire::{Dispatch, HostSnapshot};
use nixfleet_proto::{ClosureHash, HostEventBody, HostRecord, HostState, RolloutId, Timestamp};

use super::outbox::Outbox;
use super::pending_rollout::{FetchReason, FetchStage, PendingRollout, SnapshotPurpose};
use super::{AgentCore, Command, LocalRollout, Notification, ReleaseFault, Work};
use crate::agent_memory::MemoryConflict;
use crate::release_check::{Admitted, ExpectedRelease, SignedRelease, Walk};

/// Fetches of one dispatch before the agent waits for its redelivery.
const FETCHES_MAX: u32 = 10;
/// Rollouts whose first delivery is remembered, to take each latency once.
const HELD_MAX: usize = 32;
/// How far ahead of this host's clock the queueing of a dispatch may be for later ones to count as later.
const QUEUED_AHEAD_MAX: TimeDelta = TimeDelta::days(1);

impl AgentCore {
    pub(super) fn take_dispatch(&mut self, dispatch: Dispatch, now: Timestamp) {
        let id = dispatch.rollout_id.clone();
        if dispatch.hostname != self.hostname {
            let message = format!("it is for host {}", dispatch.hostname);
            return self.refuse(&id, "other-host", message);
        }
        if !self.held.contains(&id) && !self.rollouts.contains_key(&id) {
            let latency = (now - dispatch.enqueued_at).num_milliseconds();
            self.note(Notification::DispatchHeld {
                rollout_id: id.clone(),
                latency_ms: u64::try_from(latency).unwrap_or(0),
            });
            self.held.push_back(id.clone());
            if self.held.len() > HELD_MAX {
                self.held.pop_front();
            }
        }
        if self.pending.contains_key(&id) || !self.is_new_dispatch(&dispatch) {
            return;
        }
        if self.pending.len() >= self.config.dispatches_max {
            return self.refuse(&id, "too-many-dispatches", "others are waiting".to_owned());
        }
        self.fetch(id, FetchReason::Dispatch(dispatch));
    }

    /// True for a dispatch that is no redelivery. A dispatch of a rollout that failed on this host is new
    /// if it was queued after the failure: then the control plane has lost the host's reports.
    fn is_new_dispatch(&self, dispatch: &Dispatch) -> bool {
        let Some(rollout) = self.rollouts.get(&dispatch.rollout_id) else {
            return true;
        };
        let record = &rollout.record;
        let ended_at = match record.state {
            // The agent only had something to report.
            HostState::Pending => return rollout.outbox.is_empty(),
            HostState::Failed => record.failed_at,
            HostState::Reverted => record.reverted_at.or(record.failed_at),
            HostState::Activating
            | HostState::Deferred
            | HostState::Soaking
            | HostState::Converged => None,
        };
        rollout.outbox.is_empty()
            && !rollout.is_working()
            && dispatch.enqueued_at > record.dispatched_at
            && ended_at.is_some_and(|ended_at| dispatch.enqueued_at > ended_at)
    }

    /// Follows a rollout that the control plane lists and the agent does not know, once the manifest confirms
    /// it. The times of the snapshot only spare a fetch: the manifest decides what is newer.
    pub(super) fn adopt(&mut self, snapshot: &HostSnapshot) {
        let id = &snapshot.rollout_id;
        let purpose = match snapshot.state {
            // A dispatch begins the walk.
            HostState::Pending => return,
            HostState::Failed | HostState::Reverted => SnapshotPurpose::DenyRollback,
            HostState::Activating
            | HostState::Deferred
            | HostState::Soaking
            | HostState::Converged => SnapshotPurpose::Walk,
        };
        let newer = self
            .rollouts
            .values()
            .any(|known| known.record.dispatched_at >= snapshot.dispatched_at);
        if newer
            || self.pending.contains_key(id)
            || self.pending.len() >= self.config.dispatches_max
        {
            return;
        }
        let seq_floor = snapshot.last_event_seq;
        self.fetch(id.clone(), FetchReason::Snapshot { seq_floor, purpose });
    }

    pub(super) fn fetch_for_switch(&mut self, id: &RolloutId, target_closure: ClosureHash) {
        self.fetch(id.clone(), FetchReason::SwitchAgain { target_closure });
    }

    fn fetch(&mut self, rollout_id: RolloutId, cause: FetchReason) {
        self.pending.insert(
            rollout_id.clone(),
            PendingRollout {
                cause,
                stage: FetchStage::Fetching,
                attempts: 0,
            },
        );
        self.commands.push(Command::FetchRelease { rollout_id });
    }

    pub(super) fn fetch_again(&mut self, now: Timestamp) {
        for (rollout_id, pending) in &mut self.pending {
            if pending.next_due().is_some_and(|due| due <= now) {
                pending.stage = FetchStage::Fetching;
                self.commands.push(Command::FetchRelease {
                    rollout_id: rollout_id.clone(),
                });
            }
        }
    }

    pub(super) fn take_release(&mut self, id: &RolloutId, release: &SignedRelease, now: Timestamp) {
        let Some(pending) = self.pending.get(id) else {
            return;
        };
        if !matches!(pending.stage, FetchStage::Fetching) {
            return;
        }
        let walk = if pending.begins_walk() {
            Walk::Start {
                now,
                age_max: self.config.manifest_age_max,
                memory: &self.memory,
            }
        } else {
            Walk::Resume
        };
        let admitted = release.admit(ExpectedRelease {
            hostname: &self.hostname,
            rollout_id: id,
            target_closure: pending.target_closure(),
            walk,
        });
        if let Ok(admitted) = &admitted {
            self.memory_changed |= self.memory.remember_manifest(&admitted.manifest);
        }
        match admitted {
            Ok(admitted) if self.is_busy() => {
                self.set_stage(id, FetchStage::WaitingForHost(admitted))
            }
            Ok(admitted) => self.follow(id, admitted, now),
            Err(refusal) => {
                self.refuse(id, refusal.name(), refusal.to_string());
                self.give_up(id, now);
            }
        }
    }

    pub(super) fn refuse_release(&mut self, id: &RolloutId, fault: ReleaseFault, now: Timestamp) {
        let Some(pending) = self.pending.get_mut(id) else {
            return;
        };
        if !matches!(pending.stage, FetchStage::Fetching) {
            return;
        }
        pending.attempts = pending.attempts.saturating_add(1);
        if fault.retryable && pending.attempts < FETCHES_MAX {
            let pause = self.config.backoff(pending.attempts, self.salt);
            pending.stage = FetchStage::RetryAt(now + pause);
            return;
        }
        self.refuse(id, &fault.reason, fault.message);
        self.give_up(id, now);
    }

    /// Ends a fetch. The control plane repeats a dispatch; a pending activation has to be retried here.
    fn give_up(&mut self, id: &RolloutId, now: Timestamp) {
        let Some(pending) = self.pending.get_mut(id) else {
            return;
        };
        match pending.cause {
            FetchReason::Dispatch(_) | FetchReason::Snapshot { .. } => {
                self.pending.remove(id);
            }
            FetchReason::SwitchAgain { .. } => {
                pending.attempts = pending.attempts.saturating_add(1);
                let pause = self.config.backoff(pending.attempts, self.salt);
                pending.stage = FetchStage::RetryAt(now + pause);
            }
        }
    }

    fn set_stage(&mut self, id: &RolloutId, stage: FetchStage) {
        if let Some(pending) = self.pending.get_mut(id) {
            pending.stage = stage;
        }
    }

    /// True while a switch or rollback runs; there is one at a time.
    fn is_busy(&self) -> bool {
        self.rollouts
            .values()
            .any(|rollout| matches!(rollout.work, Work::Switching | Work::RollingBack))
    }

    /// The host became free: the newest manifest that waits is followed.
    pub(super) fn follow_waiting(&mut self, now: Timestamp) {
        while !self.is_busy() {
            let newest = self
                .pending
                .iter()
                .filter_map(|(id, pending)| match &pending.stage {
                    FetchStage::WaitingForHost(admitted) => Some((admitted.manifest.signed_at, id)),
                    FetchStage::Fetching | FetchStage::RetryAt(_) => None,
                })
                .max();
            let Some(id) = newest.map(|(_, id)| id.clone()) else {
                return;
            };
            let Some(FetchStage::WaitingForHost(admitted)) =
                self.pending.get(&id).map(|i| i.stage.clone())
            else {
                return;
            };
            match self.check_memory(&id, &admitted) {
                Ok(()) => self.follow(&id, admitted, now),
                Err(refusal) => {
                    self.pending.remove(&id);
                    self.refuse(&id, refusal.name(), refusal.to_string());
                }
            }
        }
    }

    /// A newer manifest may have been verified while this one waited.
    fn check_memory(&self, id: &RolloutId, admitted: &Admitted) -> Result<(), MemoryConflict> {
        match self.pending.get(id) {
            Some(pending) if pending.begins_walk() => {
                let target = admitted.target.closure_hash();
                self.memory.check(&admitted.manifest, target)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn follow(&mut self, id: &RolloutId, admitted: Admitted, now: Timestamp) {
        let Some(pending) = self.pending.remove(id) else {
            return;
        };
        match pending.cause {
            FetchReason::Dispatch(dispatch) => self.acknowledge(&dispatch, &admitted, now),
            FetchReason::Snapshot { seq_floor, purpose } => {
                self.follow_snapshot(id, (seq_floor, purpose), &admitted, now);
            }
            FetchReason::SwitchAgain { .. } => self.switch_again(id, admitted.target),
        }
    }

    /// Starts the rollout: the running closure becomes the target of a rollback.
    fn acknowledge(&mut self, dispatch: &Dispatch, admitted: &Admitted, now: Timestamp) {
        let id = &dispatch.rollout_id;
        let queued_at = dispatch.enqueued_at.min(now + QUEUED_AHEAD_MAX);
        let mut rollout = self.new_rollout(id, admitted, queued_at);
        rollout.target = Some(admitted.target.clone());
        if let Some(before) = self.rollouts.get(id) {
            rollout.raise_seq_floor(before.highest_seq());
        }
        self.walk(rollout, now);
    }

    /// Follows a rollout of which the agent has no state. A host that runs the target already is not
    /// switched again; what ran before is not known then, and nothing that the control plane says replaces it.
    fn follow_snapshot(
        &mut self,
        id: &RolloutId,
        (seq_floor, purpose): (u64, SnapshotPurpose),
        admitted: &Admitted,
        now: Timestamp,
    ) {
        let mut rollout = self.new_rollout(id, admitted, now);
        if !rollout.raise_seq_floor(seq_floor) {
            return self.refuse_seq_floor(id, seq_floor);
        }
        // The next boot would run another closure: a switch to the running one changes that.
        let mut others = self.rollouts.values();
        let is_staged =
            others.any(|other| !other.replaced && other.record.state == HostState::Deferred);
        let runs_target = rollout.record.target_closure == *self.current_closure();
        match purpose {
            SnapshotPurpose::DenyRollback => {
                self.rollouts.insert(id.clone(), rollout);
                self.deny_rollback(id, now);
            }
            SnapshotPurpose::Walk if runs_target && !is_staged => {
                let completed = HostEventBody::ActivationCompleted {
                    observed_current_closure: self.current_closure().clone(),
                    exit_code: 0,
                    completed_at: now,
                };
                self.walk(rollout, now);
                self.observe(id, completed, now);
            }
            SnapshotPurpose::Walk => {
                rollout.target = Some(admitted.target.clone());
                self.walk(rollout, now);
            }
        }
    }

    fn new_rollout(
        &self,
        id: &RolloutId,
        admitted: &Admitted,
        dispatched_at: Timestamp,
    ) -> LocalRollout {
        let record = HostRecord::pending(NewHost {
            rollout_id: id.clone(),
            hostname: self.hostname.clone(),
            channel: id.channel(),
            target_closure: admitted.target.closure_hash().clone(),
            soak_minutes: admitted.soak_minutes,
            dispatched_at,
        });
        let signed_at = admitted.manifest.signed_at;
        LocalRollout::new(record, admitted.on_health_failure, signed_at)
    }

    /// The host moves on: it follows one rollout at a time.
    fn walk(&mut self, mut rollout: LocalRollout, now: Timestamp) {
        for other in self.rollouts.values_mut().filter(|other| !other.replaced) {
            other.replaced = true;
            other.work = Work::Idle;
            other.probes.stop();
            other.mark_dirty();
        }
        self.pending
            .retain(|_, pending| !matches!(pending.cause, FetchReason::SwitchAgain { .. }));
        let differs = rollout.record.target_closure != *self.current_closure();
        let id = rollout.id().clone();
        let earlier_walk = self.rollouts.get(&id);
        if let Some(earlier) = earlier_walk {
            rollout.outbox = Outbox::after(&earlier.outbox);
        }
        rollout.predecessor = if differs {
            Some(self.running.clone())
        } else {
            earlier_walk.and_then(|walk| walk.predecessor.clone())
        };
        self.rollouts.insert(id.clone(), rollout);
        let body = HostEventBody::DispatchAck {
            current_closure_at_dispatch: self.current_closure().clone(),
            received_at: now,
        };
        self.observe(&id, body, now);
    }

    pub(super) fn refuse(&mut self, id: &RolloutId, reason: &str, message: String) {
        self.note(Notification::Refused {
            rollout_id: id.clone(),
            reason: reason.to_owned(),
            message,
        });
    }
}
