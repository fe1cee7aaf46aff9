//! No wrong clock of a service or a host moves the time of a partition: whatever is accepted is dated within a minute of the
//! broker's time, and so are the soaks that follow from it.
//!
//! Source: docs/semantics.md, time.

use chrono::TimeDelta;
use nixfleet_proto::{EntryBody, HostEventBody, HostRecord, HostState, PlanAction, Timestamp};

use super::folded_entry::{CheckResult, FoldedEntry};

/// Clocks may differ from the broker's by this much.
const SLACK: TimeDelta = TimeDelta::seconds(60);

/// Checks an entry that the broker stored at `stored`.
///
/// # Errors
/// Says which time is off.
pub fn check(folded: FoldedEntry<'_>, stored: Timestamp) -> CheckResult {
    let (received, outcome) = (folded.entry.received_at, folded.outcome);
    let is_near = (received - stored).abs() <= SLACK;
    if is_near == (outcome.decision.name() == "clock") {
        return Err(format!(
            "an entry dated {received} and stored at {stored} is {}",
            outcome.decision.name()
        ));
    }
    if outcome.at > stored + SLACK {
        return Err(format!("at {stored} the fold is at {}", outcome.at));
    }
    let Some(accepted) = folded.accepted() else {
        return Ok(());
    };
    for record in &accepted.hosts {
        check_soak(folded, record, stored)?;
    }
    Ok(())
}

/// A soak begins and ends by the clocks of two services, each within the slack; a host's time moves its
/// beginning by as much.
fn check_soak(folded: FoldedEntry<'_>, record: &HostRecord, stored: Timestamp) -> CheckResult {
    let Some(due) = record.soak_due_at else {
        return Ok(());
    };
    let host = &record.hostname;
    match &folded.entry.body {
        EntryBody::HostEvent { event, .. }
            if matches!(event.body, HostEventBody::ActivationCompleted { .. }) =>
        {
            let expected = stored + record.soak_minutes.delta();
            if (due - expected).abs() > SLACK * 2 {
                return Err(format!("{host} soaks from {stored} until {due}"));
            }
        }
        EntryBody::HostEvent { event, .. }
            if matches!(event.body, HostEventBody::Converged { .. })
                && record.state == HostState::Converged
                && due > folded.outcome.at + SLACK =>
        {
            let at = folded.outcome.at;
            return Err(format!(
                "{host} ends its soak at {at}, before {due}, by its own clock"
            ));
        }
        EntryBody::Plan {
            action: PlanAction::SoakElapsed { .. },
            ..
        } if due > stored + SLACK => {
            return Err(format!("the soak of {host} ends at {stored}, before {due}"));
        }
        EntryBody::HostEvent { .. }
        | EntryBody::RecoveryCandidate { .. }
        | EntryBody::Plan { .. }
        | EntryBody::Operator { .. } => {}
    }
    Ok(())
}
