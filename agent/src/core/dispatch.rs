//! From a dispatch to its acknowledgement.
//!
//! A dispatch is advice: it makes the agent fetch the signed manifest, and the manifest decides.

use nixfleet_proto::host::NewHost;
use nixfleet_proto::wire::{Dispatch, HostSnapshot};
use nixfleet_proto::{ClosureHash, HostEventBody, HostRecord, HostState, RolloutId, Timestamp};

use super::pending_rollout::{FetchReason, FetchStage, PendingRollout};
use super::{AgentCore, Command, LocalRollout, Notification, ReleaseFault, Work};
use crate::release_check::{Admitted, ExpectedRelease, Refusal, SignedRelease};

/// Fetches of one dispatch before the agent waits for its redelivery.
const FETCHES_MAX: u32 = 10;
/// Rollouts whose first delivery is remembered, to take each latency once.
const HELD_MAX: usize = 32;

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
            HostState::Failed => record.failed_at,
            HostState::Reverted => record.reverted_at.or(record.failed_at),
            HostState::Pending
            | HostState::Activating
            | HostState::Deferred
            | HostState::Soaking
            | HostState::Converged => None,
        };
        rollout.outbox.is_empty()
            && !rollout.is_working()
            && dispatch.enqueued_at > record.dispatched_at
            && ended_at.is_some_and(|ended_at| dispatch.enqueued_at > ended_at)
    }

    /// Adopts a rollout that the control plane has and the agent does not, once the manifest confirms it.
    pub(super) fn adopt(&mut self, snapshot: &HostSnapshot) {
        let id = &snapshot.rollout_id;
        let newer = self
            .rollouts
            .values()
            .any(|known| known.record.dispatched_at >= snapshot.dispatched_at);
        if snapshot.state == HostState::Pending
            || newer
            || self.pending.contains_key(id)
            || self.pending.len() >= self.config.dispatches_max
        {
            return;
        }
        self.fetch(id.clone(), FetchReason::Adopt(Box::new(snapshot.clone())));
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
        let admitted = release
            .admit(ExpectedRelease {
                hostname: &self.hostname,
                rollout_id: id,
                target_closure: pending.target_closure(),
                now,
                age_max: self.config.manifest_age_max,
            })
            .and_then(|admitted| self.refuse_outdated(id, admitted));
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

    /// An old manifest stays validly signed for its whole window; following it after a newer one would let
    /// the control plane choose between releases.
    fn refuse_outdated(&self, id: &RolloutId, admitted: Admitted) -> Result<Admitted, Refusal> {
        let others = self.rollouts.values().filter(|known| known.id() != id);
        match others.map(|known| known.signed_at).max() {
            Some(newest) if newest > admitted.signed_at => Err(Refusal::Outdated { newest }),
            Some(_) | None => Ok(admitted),
        }
    }

    pub(super) fn refuse_release(&mut self, id: &RolloutId, fault: ReleaseFault, now: Timestamp) {
        let Some(pending) = self.pending.get_mut(id) else {
            return;
        };
        if !matches!(pending.stage, FetchStage::Fetching) {
            return;
        }
        pending.attempts += 1;
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
            FetchReason::Dispatch(_) | FetchReason::Adopt(_) => {
                self.pending.remove(id);
            }
            FetchReason::SwitchAgain { .. } => {
                pending.attempts += 1;
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
                    FetchStage::WaitingForHost(admitted) => Some((admitted.signed_at, id)),
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
            match self.refuse_outdated(&id, admitted) {
                Ok(admitted) => self.follow(&id, admitted, now),
                Err(refusal) => {
                    self.pending.remove(&id);
                    self.refuse(&id, refusal.name(), refusal.to_string());
                }
            }
        }
    }

    fn follow(&mut self, id: &RolloutId, admitted: Admitted, now: Timestamp) {
        let Some(pending) = self.pending.remove(id) else {
            return;
        };
        match pending.cause {
            FetchReason::Dispatch(dispatch) => self.acknowledge(&dispatch, &admitted, now),
            FetchReason::Adopt(snapshot) => self.follow_snapshot(&snapshot, &admitted),
            FetchReason::SwitchAgain { .. } => self.switch_again(id, admitted.target_closure),
        }
    }

    /// Starts the rollout: the running closure becomes the target of a rollback.
    fn acknowledge(&mut self, dispatch: &Dispatch, admitted: &Admitted, now: Timestamp) {
        let id = &dispatch.rollout_id;
        let mut record = HostRecord::pending(self.new_host(id, admitted, dispatch.enqueued_at));
        if let Some(before) = self.rollouts.get(id) {
            record.last_event_seq = before.next_seq() - 1;
        }
        self.begin(record, admitted);
        let body = HostEventBody::DispatchAck {
            current_closure_at_dispatch: self.current_closure.clone(),
            received_at: now,
        };
        self.observe(id, body, now);
    }

    fn follow_snapshot(&mut self, snapshot: &HostSnapshot, admitted: &Admitted) {
        let id = &snapshot.rollout_id;
        let record = HostRecord::pending(self.new_host(id, admitted, snapshot.dispatched_at));
        self.begin(record, admitted);
        self.apply_snapshot(snapshot);
    }

    fn new_host(&self, id: &RolloutId, admitted: &Admitted, dispatched_at: Timestamp) -> NewHost {
        NewHost {
            rollout_id: id.clone(),
            hostname: self.hostname.clone(),
            channel: id.channel(),
            target_closure: admitted.target_closure.clone(),
            soak_minutes: admitted.soak_minutes,
            dispatched_at,
        }
    }

    /// The host moves on: it follows one rollout at a time.
    fn begin(&mut self, record: HostRecord, admitted: &Admitted) {
        for other in self.rollouts.values_mut().filter(|other| !other.replaced) {
            other.replaced = true;
            other.work = Work::Idle;
            other.probes.stop();
            other.mark_dirty();
        }
        self.pending
            .retain(|_, pending| !matches!(pending.cause, FetchReason::SwitchAgain { .. }));
        self.rollouts.insert(
            record.rollout_id.clone(),
            LocalRollout::new(record, admitted.on_health_failure, admitted.signed_at),
        );
    }

    fn refuse(&mut self, id: &RolloutId, reason: &str, message: String) {
        self.note(Notification::Refused {
            rollout_id: id.clone(),
            reason: reason.to_owned(),
            message,
        });
    }
}
