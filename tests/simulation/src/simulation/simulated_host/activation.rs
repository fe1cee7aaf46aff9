//! Switches and rollbacks of a host, which its machine finishes whether or not the agent runs.

use nixfleet_agent::core::Input;
use nixfleet_proto::{ClosureHash, RolloutId};

use super::SimulatedHost;
use crate::simulation::environment::Environment;
use crate::simulation::event::{SimulatedHostEvent, SimulationEvent};

impl SimulatedHost {
    pub(super) fn switch(
        &mut self,
        rollout_id: RolloutId,
        closure: ClosureHash,
        env: &mut Environment,
    ) {
        let switch_time = self.machine.behavior(&closure).switch_time;
        env.trace(format_args!("{} switches to {closure}", self.name));
        let event = SimulatedHostEvent::SwitchFinished(self.life, rollout_id, closure);
        env.schedule(switch_time, SimulationEvent::Host(self.id, event));
    }

    /// The machine finishes a switch, whether or not the agent still runs.
    pub(super) fn switched(
        &mut self,
        life: u32,
        rollout_id: RolloutId,
        closure: ClosureHash,
        env: &mut Environment,
    ) {
        let (outcome, reboot) = self.machine.finish_switch(closure, env.now);
        if let Some(after) = reboot {
            env.schedule(
                after,
                SimulationEvent::Host(self.id, SimulatedHostEvent::Reboot),
            );
        }
        if life == self.life {
            let input = Input::SwitchEnded {
                rollout_id,
                outcome,
            };
            self.feed_observed(input, env);
        }
    }

    pub(super) fn roll_back(
        &mut self,
        rollout_id: RolloutId,
        closure: ClosureHash,
        env: &mut Environment,
    ) {
        let switch_time = self.machine.behavior(&closure).switch_time;
        env.trace(format_args!("{} goes back to {closure}", self.name));
        let event = SimulatedHostEvent::RollbackFinished(self.life, rollout_id, closure);
        env.schedule(switch_time, SimulationEvent::Host(self.id, event));
    }

    pub(super) fn rolled_back(
        &mut self,
        life: u32,
        rollout_id: RolloutId,
        closure: ClosureHash,
        env: &mut Environment,
    ) {
        let fails = env.chance(env.fault_rates.rollback_fails);
        let outcome = self.machine.finish_rollback(closure, fails, env.now);
        if life == self.life {
            let input = Input::RollbackEnded {
                rollout_id,
                outcome,
            };
            self.feed_observed(input, env);
        }
    }
}
