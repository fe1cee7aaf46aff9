//! No rollout opens and no host starts by a manifest that is too old by the clock of the planner.
//!
//! Source: docs/semantics.md, freshness.

use chrono::TimeDelta;
use nixfleet_proto::{PlanAction, RolloutId};

use super::folded_entry::{CheckResult, FoldedEntry};

/// Clocks may differ by this much.
const SLACK: TimeDelta = TimeDelta::seconds(60);

/// Checks an entry.
///
/// # Errors
/// Names the rollout.
pub fn check(folded: FoldedEntry<'_>) -> CheckResult {
    let rollout_id: &RolloutId = match folded.action() {
        Some(
            PlanAction::QueueDispatch { rollout_id, .. }
            | PlanAction::ConvergeUnchanged { rollout_id, .. }
            | PlanAction::OpenRollout { rollout_id, .. },
        ) => rollout_id,
        Some(
            PlanAction::AdvanceWave { .. }
            | PlanAction::SoakElapsed { .. }
            | PlanAction::RetentionExpired { .. }
            | PlanAction::BlocksChanged { .. }
            | PlanAction::Barrier {},
        )
        | None => return Ok(()),
    };
    let Some(release) = folded.release_of(rollout_id) else {
        return Err(format!("{rollout_id} belongs to no release"));
    };
    let channel = release.plan.fleet().channels.get(&rollout_id.channel());
    let Some(minutes) = channel.and_then(|c| i64::try_from(c.freshness_window).ok()) else {
        return Err(format!("{rollout_id} belongs to no channel"));
    };
    let until = release.signed_at + TimeDelta::minutes(minutes) + SLACK;
    if folded.entry.received_at > until {
        return Err(format!(
            "{rollout_id} starts at {}, its manifest was fresh until {until}",
            folded.entry.received_at
        ));
    }
    Ok(())
}
