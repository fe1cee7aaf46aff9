//! Invariants of host records.

use nixfleet_proto::{HostRecord, HostState};

/// A violated invariant: no sequence of inputs produces the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub(crate) &'static str);

/// Checks a stored record.
///
/// # Errors
/// The first violated invariant.
pub fn validate(record: &HostRecord) -> Result<(), Fault> {
    let check = |holds: bool, fault| if holds { Ok(()) } else { Err(Fault(fault)) };
    check(
        record.channel == record.rollout_id.channel(),
        "the channel is not that of the rollout",
    )?;
    let on_target = record.current_closure.as_ref() == Some(&record.target_closure);
    check(
        record.rollback_failed.is_none() || record.state == HostState::Failed,
        "a failed rollback of a host that is not Failed",
    )?;
    match record.state {
        HostState::Pending => check(
            record.current_closure_at_dispatch.is_none() && record.dispatch_acked_at.is_none(),
            "Pending with an acknowledged dispatch",
        ),
        HostState::Activating | HostState::Deferred => check(
            record.dispatch_acked_at.is_some(),
            "an activation without an acknowledged dispatch",
        ),
        HostState::Soaking => check(
            record.soak_due_at.is_some() && record.activation_completed_at.is_some(),
            "Soaking without a completed activation",
        ),
        HostState::Converged => check(
            on_target && record.converged_at.is_some(),
            "Converged on another closure or without a time",
        ),
        HostState::Failed => check(
            record.failed_at.is_some()
                && record.policy_applied.is_some()
                && record.convergence_claim.is_none(),
            "Failed without a time or a policy, or with a claim",
        ),
        HostState::Reverted => check(
            record.reverted_at.is_some()
                && record.reverted_to.is_some()
                && record.reverted_to == record.current_closure,
            "Reverted without a closure or a time",
        ),
    }
}
