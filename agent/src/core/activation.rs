//! Switches and rollbacks, and their resumption after a restart.

use nixfleet_core::host::{self, HostInput, StepCtx};
use nixfleet_proto::{
    HostEvent, HostEventBody, HostState, Producer, RollbackFault, RolloutId, RolloutState,
    Timestamp,
};

use super::heartbeat_schedule::StartReply;
use super::{AgentCore, Command, Notification, RollbackOutcome, SwitchOutcome, Work};
use crate::admitted_closure::{AdmittedClosure, ObservedClosure};

/// Longest output of a failed switch or rollback that is reported, in bytes.
const OUTPUT_BYTES_MAX: usize = 2048;

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
                self.running = ObservedClosure::of_machine(observed_closure.clone());
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
                self.running = ObservedClosure::of_machine(observed_closure.clone());
                let body = HostEventBody::RollbackComplete {
                    reverted_to_closure: observed_closure,
                    exit_code,
                    completed_at: now,
                };
                self.observe(id, body, now);
            }
            RollbackOutcome::Failed { message } => self.rollback_failed(id, message, now),
        }
        self.follow_waiting(now);
    }

    fn rollback_failed(&mut self, id: &RolloutId, message: String, now: Timestamp) {
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return;
        };
        rollout.rollbacks_failed = rollout.rollbacks_failed.saturating_add(1);
        let attempts = rollout.rollbacks_failed;
        if attempts >= self.config.rollback_attempts_max {
            rollout.work = Work::Idle;
            let detail = format!("{attempts} attempts failed, the last one: {message}");
            return self.give_up_rollback(id, RollbackFault::Failed, detail, now);
        }
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
            self.roll_back(id, now);
        }
    }

    /// Resumes the work that a restart interrupted. What took effect is concluded from the running closure;
    /// the reply decides only whether the control plane still has to be told.
    pub(super) fn resume(&mut self, id: &RolloutId, reply: StartReply<'_>, now: Timestamp) {
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return;
        };
        let running = self.running.closure_hash().clone();
        let on_target = rollout.record.target_closure == running;
        match rollout.record.state {
            HostState::Activating | HostState::Deferred if on_target => {
                let body = HostEventBody::ActivationCompleted {
                    observed_current_closure: running,
                    exit_code: 0,
                    completed_at: now,
                };
                if reply.knows_completion(id) {
                    self.conclude(id, body, now);
                    self.list_probes(id);
                } else {
                    self.observe(id, body, now);
                }
            }
            HostState::Activating if rollout.work == Work::Idle => {
                rollout.work = Work::SwitchAgain;
                let target = rollout.record.target_closure.clone();
                self.fetch_for_switch(id, target);
            }
            HostState::Soaking | HostState::Converged if on_target => self.list_probes(id),
            HostState::Failed if rollout.rollback_target() == Some(&self.running) => {
                let body = HostEventBody::RollbackComplete {
                    reverted_to_closure: running,
                    exit_code: 0,
                    completed_at: now,
                };
                if reply.knows_rollback(id) {
                    self.conclude(id, body, now);
                } else {
                    self.observe(id, body, now);
                }
            }
            HostState::Failed
                if rollout.work == Work::Idle && rollout.record.expects_rollback() =>
            {
                self.roll_back(id, now);
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
    pub(super) fn switch_again(&mut self, id: &RolloutId, target: AdmittedClosure) {
        if self.work_of(id) == Some(Work::SwitchAgain)
            && let Some(rollout) = self.rollouts.get_mut(id)
        {
            rollout.target = Some(target);
            self.switch(id);
        }
    }

    /// Switches to the verified target.
    pub(super) fn switch(&mut self, id: &RolloutId) {
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return;
        };
        let Some(closure) = rollout.target.clone() else {
            return;
        };
        rollout.work = Work::Switching;
        self.commands.push(Command::Switch {
            rollout_id: id.clone(),
            closure,
        });
    }

    /// Goes back to what ran before, or says that this cannot be done.
    pub(super) fn roll_back(&mut self, id: &RolloutId, now: Timestamp) {
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return;
        };
        let Some(closure) = rollout.rollback_target().map(AdmittedClosure::from) else {
            rollout.work = Work::Idle;
            let detail = "the agent saw no other closure run here before".to_owned();
            return self.give_up_rollback(id, RollbackFault::Impossible, detail, now);
        };
        rollout.work = Work::RollingBack;
        self.commands.push(Command::Rollback {
            rollout_id: id.clone(),
            closure,
        });
    }

    fn give_up_rollback(
        &mut self,
        id: &RolloutId,
        reason: RollbackFault,
        detail: String,
        now: Timestamp,
    ) {
        let body = HostEventBody::RollbackFailed {
            reason,
            detail: tail(detail),
            failed_at: now,
        };
        self.observe(id, body, now);
    }

    /// Applies what the agent sees and the control plane already knows: nothing is reported.
    fn conclude(&mut self, id: &RolloutId, body: HostEventBody, now: Timestamp) {
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return;
        };
        let from = rollout.record.state;
        let event = HostEvent {
            seq: rollout.record.recovery_seq.saturating_add(1),
            body,
        };
        let ctx = StepCtx {
            on_health_failure: rollout.on_health_failure,
            rollout_state: RolloutState::Active,
            received_at: now,
        };
        let input = HostInput::Event {
            producer: Producer::Recovery,
            event: &event,
        };
        match host::step_agent(&rollout.record, &input, &ctx) {
            Ok(step) => {
                rollout.record = step.next;
                rollout.mark_dirty();
                let to = rollout.record.state;
                self.note(Notification::Recovered {
                    rollout_id: id.clone(),
                    from,
                    to,
                });
            }
            Err(rejection) => self.note(Notification::Unexpected {
                rollout_id: id.clone(),
                kind: event.body.name(),
                rejection,
            }),
        }
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
    if text.len() <= OUTPUT_BYTES_MAX {
        return text;
    }
    let mut start = text.len() - OUTPUT_BYTES_MAX;
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}
