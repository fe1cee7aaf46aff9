//! Switches and rollbacks, which the machine finishes whether or not the agent runs.

use nixfleet_agent::core::{Input, RollbackOutcome, SwitchOutcome};
use nixfleet_proto::{ClosureHash, RolloutId};

use super::AttackedHost;
use crate::byzantine::host_event::HostEvent;
use crate::byzantine::scene::Scene;
use crate::simulation::closure_behavior::ActivationResult;

/// Of 1,000 rollbacks, how many fail once.
const ROLLBACK_FAILS: u32 = 100;

impl AttackedHost {
    pub(super) fn switch(
        &mut self,
        rollout_id: RolloutId,
        closure: ClosureHash,
        scene: &mut Scene,
    ) {
        let proven = self.guard.check_switch(&rollout_id, &closure);
        scene.check("guard", proven.map_err(|unproven| unproven.to_string()));
        let running = self.machine.running();
        if self.guard.observe_before(&rollout_id, &closure, running) {
            self.observations = self.guard.observations().clone();
        }
        scene.coverage.switches += 1;
        scene.trace(format_args!("{} switches to {closure}", self.name));
        let switch_time = self.machine.behavior(&closure).switch_time;
        let event = HostEvent::SwitchFinished(self.life, rollout_id, closure);
        scene.schedule(switch_time, self.number, event);
    }

    pub(super) fn switch_finished(
        &mut self,
        life: u32,
        rollout_id: RolloutId,
        closure: ClosureHash,
        scene: &mut Scene,
    ) {
        let runs = *self.machine.running() == closure;
        let outcome = match self.machine.behavior(&closure).result {
            ActivationResult::SwitchFails => SwitchOutcome::Failed {
                exit_code: 1,
                stderr_tail: "no".to_owned(),
            },
            ActivationResult::Deferred(after) if !runs => {
                self.machine.staged = Some(closure);
                scene.schedule(after, self.number, HostEvent::Reboot);
                SwitchOutcome::Deferred {
                    component: "kernel".to_owned(),
                }
            }
            ActivationResult::Healthy
            | ActivationResult::ProbeFails(_)
            | ActivationResult::Deferred(_) => {
                if !runs {
                    self.machine.run(closure.clone(), scene.now);
                }
                SwitchOutcome::Completed {
                    observed_closure: closure,
                    exit_code: 0,
                }
            }
        };
        if life == self.life {
            let input = Input::SwitchEnded {
                rollout_id,
                outcome,
            };
            self.feed(input, scene);
        }
    }

    pub(super) fn roll_back(
        &mut self,
        rollout_id: RolloutId,
        closure: ClosureHash,
        scene: &mut Scene,
    ) {
        let proven = self.guard.check_rollback(&rollout_id, &closure);
        scene.check("guard", proven.map_err(|unproven| unproven.to_string()));
        scene.coverage.rollbacks += 1;
        scene.trace(format_args!("{} goes back to {closure}", self.name));
        let switch_time = self.machine.behavior(&closure).switch_time;
        let event = HostEvent::RollbackFinished(self.life, rollout_id, closure);
        scene.schedule(switch_time, self.number, event);
    }

    pub(super) fn rollback_finished(
        &mut self,
        life: u32,
        rollout_id: RolloutId,
        closure: ClosureHash,
        scene: &mut Scene,
    ) {
        let outcome = if scene.rng.chance(ROLLBACK_FAILS) {
            RollbackOutcome::Failed {
                message: "no".to_owned(),
            }
        } else {
            self.machine.run(closure.clone(), scene.now);
            RollbackOutcome::Completed {
                observed_closure: closure,
                exit_code: 0,
            }
        };
        if life == self.life {
            let input = Input::RollbackEnded {
                rollout_id,
                outcome,
            };
            self.feed(input, scene);
        }
    }
}
