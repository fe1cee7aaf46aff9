//! From a dispatch to its acknowledgement.
//!
//! A dispatch is advice: it makes the agent fetch the signed manifest, and the manifest decides.

use nixfleet_proto::host::NewHost;
use nixfleet_proto::wire::{Dispatch, HostSnapshot};
use nixfleet_proto::{ClosureHash, HostEventBody, HostRecord, HostState, RolloutId, Timestamp};

use super::incoming::{Cause, Incoming, Stage};
use super::{AgentCore, Command, LocalRollout, Note, ReleaseFault, Work};
use crate::release::{Admitted, Asked, Refusal, SignedRelease};

/// Fetches of one dispatch before the agent waits for the control plane to say it again.
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
            self.note(Note::DispatchHeld {
                rollout_id: id.clone(),
                latency_ms: u64::try_from(latency).unwrap_or(0),
            });
            self.held.push_back(id.clone());
            if self.held.len() > HELD_MAX {
                self.held.pop_front();
            }
        }
        if self.incoming.contains_key(&id) || !self.is_news(&dispatch) {
            return;
        }
        if self.incoming.len() >= self.config.dispatches_max {
            return self.refuse(&id, "too-many-dispatches", "others are waiting".to_owned());
        }
        self.fetch(id, Cause::Dispatch(dispatch));
    }

    /// A dispatch of a rollout that ended badly on this host counts again when it was queued after
    /// that: then the control plane has lost what the host reported. Any other repetition is a
    /// redelivery.
    fn is_news(&self, dispatch: &Dispatch) -> bool {
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

    /// The control plane knows more than the agent remembers: go on from there, once the manifest
    /// says the same.
    pub(super) fn adopt(&mut self, snapshot: &HostSnapshot) {
        let id = &snapshot.rollout_id;
        let newer = self
            .rollouts
            .values()
            .any(|known| known.record.dispatched_at >= snapshot.dispatched_at);
        if snapshot.state == HostState::Pending
            || newer
            || self.incoming.contains_key(id)
            || self.incoming.len() >= self.config.dispatches_max
        {
            return;
        }
        self.fetch(id.clone(), Cause::Adopt(Box::new(snapshot.clone())));
    }

    pub(super) fn fetch_for_switch(&mut self, id: &RolloutId, target_closure: ClosureHash) {
        self.fetch(id.clone(), Cause::SwitchAgain { target_closure });
    }

    fn fetch(&mut self, rollout_id: RolloutId, cause: Cause) {
        self.incoming.insert(
            rollout_id.clone(),
            Incoming {
                cause,
                stage: Stage::Fetching,
                attempts: 0,
            },
        );
        self.commands.push(Command::FetchRelease { rollout_id });
    }

    pub(super) fn fetch_again(&mut self, now: Timestamp) {
        for (rollout_id, incoming) in &mut self.incoming {
            if incoming.next_due().is_some_and(|due| due <= now) {
                incoming.stage = Stage::Fetching;
                self.commands.push(Command::FetchRelease {
                    rollout_id: rollout_id.clone(),
                });
            }
        }
    }

    pub(super) fn take_release(&mut self, id: &RolloutId, release: &SignedRelease, now: Timestamp) {
        let Some(incoming) = self.incoming.get(id) else {
            return;
        };
        if !matches!(incoming.stage, Stage::Fetching) {
            return;
        }
        let admitted = release
            .admit(Asked {
                hostname: &self.hostname,
                rollout_id: id,
                target_closure: incoming.target_closure(),
                now,
                age_max: self.config.manifest_age_max,
            })
            .and_then(|admitted| self.refuse_outdated(id, admitted));
        match admitted {
            Ok(admitted) if self.is_busy() => self.set_stage(id, Stage::Waiting(admitted)),
            Ok(admitted) => self.follow(id, admitted, now),
            Err(refusal) => {
                self.refuse(id, refusal.name(), refusal.to_string());
                self.give_up(id, now);
            }
        }
    }

    /// An old manifest stays validly signed for its whole window; following it again after a newer
    /// one would let the control plane choose between releases.
    fn refuse_outdated(&self, id: &RolloutId, admitted: Admitted) -> Result<Admitted, Refusal> {
        let others = self.rollouts.values().filter(|known| known.id() != id);
        match others.map(|known| known.signed_at).max() {
            Some(newest) if newest > admitted.signed_at => Err(Refusal::Outdated { newest }),
            Some(_) | None => Ok(admitted),
        }
    }

    pub(super) fn refuse_release(&mut self, id: &RolloutId, fault: ReleaseFault, now: Timestamp) {
        let Some(incoming) = self.incoming.get_mut(id) else {
            return;
        };
        if !matches!(incoming.stage, Stage::Fetching) {
            return;
        }
        incoming.attempts += 1;
        if fault.retryable && incoming.attempts < FETCHES_MAX {
            let pause = self.config.backoff(incoming.attempts, self.salt);
            incoming.stage = Stage::Again(now + pause);
            return;
        }
        self.refuse(id, &fault.reason, fault.message);
        self.give_up(id, now);
    }

    /// A dispatch is said again by the control plane; an activation the agent remembers is not.
    fn give_up(&mut self, id: &RolloutId, now: Timestamp) {
        let Some(incoming) = self.incoming.get_mut(id) else {
            return;
        };
        match incoming.cause {
            Cause::Dispatch(_) | Cause::Adopt(_) => {
                self.incoming.remove(id);
            }
            Cause::SwitchAgain { .. } => {
                incoming.attempts += 1;
                let pause = self.config.backoff(incoming.attempts, self.salt);
                incoming.stage = Stage::Again(now + pause);
            }
        }
    }

    fn set_stage(&mut self, id: &RolloutId, stage: Stage) {
        if let Some(incoming) = self.incoming.get_mut(id) {
            incoming.stage = stage;
        }
    }

    /// One switch or rollback at a time.
    fn is_busy(&self) -> bool {
        self.rollouts
            .values()
            .any(|rollout| matches!(rollout.work, Work::Switching | Work::RollingBack))
    }

    /// The host became free: the newest manifest that waits is followed.
    pub(super) fn follow_waiting(&mut self, now: Timestamp) {
        while !self.is_busy() {
            let newest = self
                .incoming
                .iter()
                .filter_map(|(id, incoming)| match &incoming.stage {
                    Stage::Waiting(admitted) => Some((admitted.signed_at, id)),
                    Stage::Fetching | Stage::Again(_) => None,
                })
                .max();
            let Some(id) = newest.map(|(_, id)| id.clone()) else {
                return;
            };
            let Some(Stage::Waiting(admitted)) = self.incoming.get(&id).map(|i| i.stage.clone())
            else {
                return;
            };
            match self.refuse_outdated(&id, admitted) {
                Ok(admitted) => self.follow(&id, admitted, now),
                Err(refusal) => {
                    self.incoming.remove(&id);
                    self.refuse(&id, refusal.name(), refusal.to_string());
                }
            }
        }
    }

    fn follow(&mut self, id: &RolloutId, admitted: Admitted, now: Timestamp) {
        let Some(incoming) = self.incoming.remove(id) else {
            return;
        };
        match incoming.cause {
            Cause::Dispatch(dispatch) => self.acknowledge(&dispatch, &admitted, now),
            Cause::Adopt(snapshot) => self.follow_snapshot(&snapshot, &admitted),
            Cause::SwitchAgain { .. } => self.switch_again(id, admitted.target_closure),
        }
    }

    /// Begins the rollout: what runs now is what a rollback goes back to.
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
            other.touch();
        }
        self.incoming
            .retain(|_, incoming| !matches!(incoming.cause, Cause::SwitchAgain { .. }));
        self.rollouts.insert(
            record.rollout_id.clone(),
            LocalRollout::new(record, admitted.on_health_failure, admitted.signed_at),
        );
    }

    fn refuse(&mut self, id: &RolloutId, reason: &str, message: String) {
        self.note(Note::Refused {
            rollout_id: id.clone(),
            reason: reason.to_owned(),
            message,
        });
    }
}
