//! Expires superseded rollouts.

use chrono::TimeDelta;
use nixfleet_proto::PlanAction;

use super::plan_run::{Admitted, PlanRun};

/// Retention of superseded rollouts in days.
pub const RETENTION_DAYS: i64 = 90;

impl PlanRun<'_> {
    pub(super) fn plan_expiries(&mut self) {
        let retention = TimeDelta::days(RETENTION_DAYS);
        let mut expired = Vec::new();
        for (superseded_at, rollout_id) in &self.view.superseded {
            let Some(expires_at) = superseded_at.checked_add_signed(retention) else {
                continue;
            };
            if expires_at > self.now {
                self.note_deadline(expires_at);
                break;
            }
            let rollout = self.view.rollout(rollout_id);
            if rollout.is_some_and(|rollout| !rollout.pending.expired) {
                expired.push(rollout_id);
            }
        }
        expired.sort_unstable_by_key(|id| (id.channel(), *id));
        for rollout_id in expired {
            let action = PlanAction::RetentionExpired {
                rollout_id: rollout_id.clone(),
            };
            if self.admit(&action) == Admitted::Yes {
                self.expiries.push(action);
            }
        }
    }
}
