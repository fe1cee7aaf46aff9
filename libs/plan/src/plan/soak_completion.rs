//! Completes claims with an elapsed soak.

use nixfleet_proto::PlanAction;

use super::plan_run::{Admitted, PlanRun};

impl PlanRun<'_> {
    /// Completes every due claim, in any rollout; halts and gates do not apply.
    pub(super) fn plan_soaks(&mut self) {
        let mut due = Vec::new();
        for rollout in self.view.rollouts().values() {
            for (due_at, hostname) in &rollout.due {
                if *due_at > self.now {
                    self.note_deadline(*due_at);
                    break;
                }
                if rollout.pending.soaked.contains(hostname) {
                    continue;
                }
                let wave = rollout.hosts.get(hostname).map_or(0, |host| host.wave);
                let record = &rollout.record;
                due.push((&record.channel, wave, hostname, &record.rollout_id));
            }
        }
        due.sort_unstable();
        for (_, _, hostname, rollout_id) in due {
            let action = PlanAction::SoakElapsed {
                hostname: hostname.clone(),
                rollout_id: rollout_id.clone(),
            };
            match self.admit(&action) {
                Admitted::Yes => self.soaks.push(action),
                Admitted::NotAgain => {}
                Admitted::NoRoom => return,
            }
        }
    }
}
