//! Switches and rollbacks, which the machine finishes whether or not the agent runs.

use nixfleet_agent::core::Input;
use nixfleet_proto::{ClosureHash, RolloutId};

use super::AttackedHost;
use crate::byzantine::host_event::HostEvent;
use crate::byzantine::scene::Scene;

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
        let (outcome, reboot) = self.machine.finish_switch(closure, scene.now);
        if let Some(after) = reboot {
            scene.schedule(after, self.number, HostEvent::Reboot);
        }
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
        let fails = scene.rng.chance(ROLLBACK_FAILS);
        let outcome = self.machine.finish_rollback(closure, fails, scene.now);
        if life == self.life {
            let input = Input::RollbackEnded {
                rollout_id,
                outcome,
            };
            self.feed(input, scene);
        }
    }
}
