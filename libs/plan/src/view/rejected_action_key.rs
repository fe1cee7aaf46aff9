//! Identity of planned actions, to delay the retry of rejected ones.

use nixfleet_proto::{Gate, Hostname, PlanAction, RolloutId};

/// Identifies an action for its retry delay.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RejectedActionKey {
    name: &'static str,
    rollout_id: Option<RolloutId>,
    hostname: Option<Hostname>,
    stated: Option<(u32, Gate)>,
}

impl RejectedActionKey {
    pub fn of(action: &PlanAction) -> Self {
        let stated = match action {
            PlanAction::BlocksChanged { wave, gate, .. } => Some((*wave, *gate)),
            PlanAction::AdvanceWave { .. }
            | PlanAction::SoakElapsed { .. }
            | PlanAction::ConvergeUnchanged { .. }
            | PlanAction::QueueDispatch { .. }
            | PlanAction::OpenRollout { .. }
            | PlanAction::RetentionExpired { .. }
            | PlanAction::Barrier {} => None,
        };
        Self {
            name: action.name(),
            rollout_id: action.rollout_id().cloned(),
            hostname: action.hostname().cloned(),
            stated,
        }
    }
}
