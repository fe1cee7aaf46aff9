//! Switches and rollbacks, and their resumption after a restart.

use nixfleet_proto::{ClosureHash, HostEventBody, HostState, RolloutId, Timestamp};

use super::{AgentCore, Command, Notification, RollbackOutcome, SwitchOutcome, Work};

/// Longest output of a failed switch that is reported, in bytes.
const STDERR_BYTES_MAX: usize = 2048;

impl AgentCore {
    pub(super) fn switch_started(&mut self, id: &RolloutId, method: String, now: Timestamp) {
        if self.work_of(id) == Some(Work::Switching) {
            let body = HostEventBody::ActivationStarted {
                started_at: now,
                switch_method: method,
            };
            self.observe(id, body, now);
        }
    }

    pub(super) fn switch_ended(&mut self, id: &RolloutId, outcome: SwitchOutcome, now: Timestamp) {
        if self.work_of(id) != Some(Work::Switching) {
            return;
        }
        self.set_work(id, Work::Idle);
        let body = match outcome {
            SwitchOutcome::Completed {
                observed_closure,
                exit_code,
            } => {
                self.current_closure = observed_closure.clone();
                HostEventBody::ActivationCompleted {
                    observed_current_closure: observed_closure,
                    exit_code,
                    completed_at: now,
                }
            }
            SwitchOutcome::Deferred { component } => HostEventBody::ActivationDeferred {
                component,
                deferred_at: now,
            },
            SwitchOutcome::Failed {
                exit_code,
                stderr_tail,
            } => HostEventBody::ActivationFailed {
                exit_code,
                stderr_tail: tail(stderr_tail),
                failed_at: now,
            },
        };
        self.observe(id, body, now);
        self.follow_waiting(now);
    }

    pub(super) fn rollback_ended(
        &mut self,
        id: &RolloutId,
        outcome: RollbackOutcome,
        now: Timestamp,
    ) {
        if self.work_of(id) != Some(Work::RollingBack) {
            return;
        }
        match outcome {
            RollbackOutcome::Completed {
                observed_closure,
                exit_code,
            } => {
                self.set_work(id, Work::Idle);
                self.current_closure = observed_closure.clone();
                let body = HostEventBody::RollbackComplete {
                    reverted_to_closure: observed_closure,
                    exit_code,
                    completed_at: now,
                };
                self.observe(id, body, now);
            }
            RollbackOutcome::Failed { message } => self.schedule_rollback_retry(id, message, now),
        }
        self.follow_waiting(now);
    }

    fn schedule_rollback_retry(&mut self, id: &RolloutId, message: String, now: Timestamp) {
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return;
        };
        rollout.rollbacks_failed += 1;
        let attempts = rollout.rollbacks_failed;
        let due = now + self.config.backoff(attempts, self.salt);
        rollout.work = Work::RollbackAgain { due };
        self.note(Notification::RollbackFailed {
            rollout_id: id.clone(),
            message,
        });
    }

    pub(super) fn retry_due_rollback(&mut self, id: &RolloutId, now: Timestamp) {
        if let Some(Work::RollbackAgain { due }) = self.work_of(id)
            && due <= now
        {
            self.roll_back(id);
        }
    }

    /// Resumes the work that a restart interrupted. A switch or rollback that took effect is left to the
    /// heartbeat, because the control plane infers it from the running closure.
    pub(super) fn resume(&mut self, id: &RolloutId) {
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return;
        };
        let on_target = rollout.record.target_closure == self.current_closure;
        match rollout.record.state {
            HostState::Activating if !on_target && rollout.work == Work::Idle => {
                rollout.work = Work::SwitchAgain;
                let target = rollout.record.target_closure.clone();
                self.fetch_for_switch(id, target);
            }
            HostState::Soaking | HostState::Converged if on_target => self.list_probes(id),
            HostState::Failed if rollout.work == Work::Idle => {
                if rollout
                    .rollback_target()
                    .is_some_and(|closure| *closure != self.current_closure)
                {
                    self.roll_back(id);
                }
            }
            HostState::Pending
            | HostState::Activating
            | HostState::Deferred
            | HostState::Soaking
            | HostState::Converged
            | HostState::Failed
            | HostState::Reverted => {}
        }
    }

    /// Repeats a switch interrupted by a restart, after the manifest was verified again.
    pub(super) fn switch_again(&mut self, id: &RolloutId, closure_hash: ClosureHash) {
        if self.work_of(id) == Some(Work::SwitchAgain) {
            self.set_work(id, Work::Switching);
            self.commands.push(Command::Switch {
                rollout_id: id.clone(),
                closure_hash,
            });
        }
    }

    fn roll_back(&mut self, id: &RolloutId) {
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return;
        };
        let Some(closure_hash) = rollout.rollback_target().cloned() else {
            return;
        };
        rollout.work = Work::RollingBack;
        self.commands.push(Command::Rollback {
            rollout_id: id.clone(),
            closure_hash,
        });
    }

    fn work_of(&self, id: &RolloutId) -> Option<Work> {
        self.rollouts.get(id).map(|rollout| rollout.work)
    }

    fn set_work(&mut self, id: &RolloutId, work: Work) {
        if let Some(rollout) = self.rollouts.get_mut(id) {
            rollout.work = work;
        }
    }
}

/// The end of a text, from a character boundary on.
fn tail(text: String) -> String {
    if text.len() <= STDERR_BYTES_MAX {
        return text;
    }
    let mut start = text.len() - STDERR_BYTES_MAX;
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}
