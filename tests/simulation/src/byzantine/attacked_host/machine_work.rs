//! Switches and rollbacks, which the machine finishes whether or not the agent runs.

use nixfleet_agent::core::Input;
use nixfleet_proto::{ClosureHash, RolloutId};

use super::AttackedHost;
use crate::byzantine::host_event::HostEvent;
use crate::byzantine::run_state::RunState;

/// Of 1,000 rollbacks, how many fail once.
const ROLLBACK_FAILS: u32 = 100;

impl AttackedHost {
    pub(super) fn switch(
        &mut self,
        rollout_id: RolloutId,
        closure: ClosureHash,
        run_state: &mut RunState,
    ) {
        let proven = self.guard.check_switch(&rollout_id, &closure);
        run_state.check("guard", proven.map_err(|unverified| unverified.to_string()));
        let running = self.machine.running();
        if self.guard.observe_before(&rollout_id, &closure, running) {
            self.observations = self.guard.observations().clone();
        }
        run_state.coverage.switches += 1;
        run_state.trace(format_args!("{} switches to {closure}", self.name));
        let switch_time = self.machine.behavior(&closure).switch_time;
        let event = HostEvent::SwitchFinished(self.life, rollout_id, closure);
        run_state.schedule(switch_time, self.number, event);
    }

    pub(super) fn switch_finished(
        &mut self,
        life: u32,
        rollout_id: RolloutId,
        closure: ClosureHash,
        run_state: &mut RunState,
    ) {
        let (outcome, reboot) = self.machine.finish_switch(closure, run_state.now);
        if let Some(after) = reboot {
            run_state.schedule(after, self.number, HostEvent::Reboot);
        }
        if life == self.life {
            let input = Input::SwitchEnded {
                rollout_id,
                outcome,
            };
            self.feed_observed(input, run_state);
        }
    }

    pub(super) fn roll_back(
        &mut self,
        rollout_id: RolloutId,
        closure: ClosureHash,
        run_state: &mut RunState,
    ) {
        let proven = self.guard.check_rollback(&rollout_id, &closure);
        run_state.check("guard", proven.map_err(|unverified| unverified.to_string()));
        run_state.coverage.rollbacks += 1;
        run_state.trace(format_args!("{} goes back to {closure}", self.name));
        let switch_time = self.machine.behavior(&closure).switch_time;
        let event = HostEvent::RollbackFinished(self.life, rollout_id, closure);
        run_state.schedule(switch_time, self.number, event);
    }

    pub(super) fn rollback_finished(
        &mut self,
        life: u32,
        rollout_id: RolloutId,
        closure: ClosureHash,
        run_state: &mut RunState,
    ) {
        let fails = run_state.rng.chance(ROLLBACK_FAILS);
        let outcome = self.machine.finish_rollback(closure, fails, run_state.now);
        if life == self.life {
            let input = Input::RollbackEnded {
                rollout_id,
                outcome,
            };
            self.feed_observed(input, run_state);
        }
    }
}
