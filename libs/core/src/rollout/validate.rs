//! Invariants of rollout records.

use nixfleet_proto::{RolloutId, RolloutRecord, RolloutState};

use crate::host::Fault;

/// Checks a stored record.
///
/// # Errors
/// The first violated invariant.
pub fn validate(record: &RolloutRecord) -> Result<(), Fault> {
    let check = |holds: bool, fault| if holds { Ok(()) } else { Err(Fault(fault)) };
    check(
        record.rollout_id == RolloutId::new(&record.channel, &record.target_ref),
        "the id does not consist of channel and ref",
    )?;
    let superseded = record.superseded_at.is_some() && record.superseded_by.is_some();
    match record.state {
        RolloutState::Opening => Err(Fault("Opening is never stored")),
        RolloutState::Terminal => check(record.terminal_at.is_some(), "Terminal without a time"),
        RolloutState::Superseded | RolloutState::Pruned => {
            check(superseded, "superseded without a time or a successor")
        }
        RolloutState::Active
        | RolloutState::Converging
        | RolloutState::Reverted
        | RolloutState::Failed => check(
            record.superseded_at.is_none() && record.terminal_at.is_none(),
            "has the time of a final state that it has not reached",
        ),
    }
}
