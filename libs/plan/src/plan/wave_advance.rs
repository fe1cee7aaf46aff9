//! Advances the waves of rollouts.

use nixfleet_proto::PlanAction;

use super::plan_run::{Admitted, PlanRun};

impl PlanRun<'_> {
    pub(super) fn plan_advances(&mut self) {
        for rollout in self.view.current_rollouts() {
            let from_wave = rollout.record.current_wave;
            let is_moving = rollout.pending.advance.is_some();
            let is_ready = rollout.record.state.is_running() && rollout.is_wave_done(from_wave);
            let (true, false, Some(to_wave)) = (is_ready, is_moving, rollout.wave_after(from_wave))
            else {
                continue;
            };
            let action = PlanAction::AdvanceWave {
                rollout_id: rollout.record.rollout_id.clone(),
                from_wave,
                to_wave,
            };
            if self.admit(&action) == Admitted::Yes {
                self.advanced.insert(&rollout.record.rollout_id, to_wave);
                self.advances.push(action);
            }
        }
    }
}
