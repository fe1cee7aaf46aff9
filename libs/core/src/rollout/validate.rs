//! What holds for every rollout record that the machine produced.

use nixfleet_proto::{RolloutId, RolloutRecord, RolloutState};

use crate::host::Fault;

/// Checks a record that was read back.
///
/// # Errors
/// Names the first invariant that does not hold.
pub fn validate(record: &RolloutRecord) -> Result<(), Fault> {
    let check = |holds: bool, fault| if holds { Ok(()) } else { Err(Fault(fault)) };
    check(
        record.rollout_id == RolloutId::new(&record.channel, &record.target_ref),
        "the id is not made of channel and ref",
    )?;
    let superseded = record.superseded_at.is_some() && record.superseded_by.is_some();
    match record.state {
        RolloutState::Opening => Err(Fault("Opening is never stored")),
        RolloutState::Terminal => check(record.terminal_at.is_some(), "Terminal at no time"),
        RolloutState::Superseded | RolloutState::Pruned => {
            check(superseded, "superseded at no time or by nobody")
        }
        RolloutState::Active
        | RolloutState::Converging
        | RolloutState::Reverted
        | RolloutState::Failed => check(
            record.superseded_at.is_none() && record.terminal_at.is_none(),
            "stamped with an end it has not reached",
        ),
    }
}
