//! Convergence: the four invariants, claims, and the inputs of the planner.
//!
//! Source: docs/semantics.md, host machine, convergence invariants.

use nixfleet_proto::host::ConvergenceClaim;
use nixfleet_proto::{
    ClosureHash, HostRecord, HostState, ProbeMode, ProbeStatus, Reason, Rejection, Timestamp,
};

use super::transition::{Transition, shared};

/// The first violated convergence invariant, in order; `None` when all hold.
///
/// A soak without a due time is not over: unknown input blocks.
pub fn convergence_fault(
    record: &HostRecord,
    current_closure: &ClosureHash,
    converged_at: Timestamp,
) -> Option<&'static str> {
    if *current_closure != record.target_closure {
        return Some("the current closure is not the target");
    }
    if record.soak_due_at.is_none_or(|due| converged_at < due) {
        return Some("the soak is not over");
    }
    let Some(declared) = &record.declared_probes else {
        return Some("no probe topology was declared since activation");
    };
    let passes = |name| {
        record
            .probes
            .get(name)
            .is_some_and(|probe| probe.status == ProbeStatus::Pass)
    };
    let all_pass = declared
        .iter()
        .filter(|probe| probe.mode == ProbeMode::Enforce)
        .all(|probe| passes(&probe.probe_name));
    (!all_pass).then_some("a declared enforce probe has not passed since activation")
}

/// Applies a `Converged` event: converges, stores a claim, or rejects the wrong closure.
pub(super) fn report(
    record: &HostRecord,
    current_closure: &ClosureHash,
    converged_at: Timestamp,
) -> Result<Transition, Rejection> {
    let fault = convergence_fault(record, current_closure, converged_at);
    let next = match fault {
        None => converged(record, current_closure, converged_at),
        Some(fault) if *current_closure != record.target_closure => return broken(fault),
        Some(_) => HostRecord {
            // The reported closure is the target: see the arm above.
            convergence_claim: Some(Box::new(ConvergenceClaim {
                converged_at,
                current_closure: record.target_closure.clone(),
            })),
            ..record.clone()
        },
    };
    Ok(Transition::plain(next, converged_at))
}

/// Completes a claim.
pub(super) fn soak_elapsed(record: &HostRecord, at: Timestamp) -> Result<Transition, Rejection> {
    match record.state {
        HostState::Soaking => {}
        HostState::Pending
        | HostState::Activating
        | HostState::Deferred
        | HostState::Converged
        | HostState::Failed
        | HostState::Reverted => {
            return Err(Rejection::illegal(record.state.name(), "SoakElapsed"));
        }
    }
    let Some(claim) = &record.convergence_claim else {
        return broken("the host claims no convergence");
    };
    match convergence_fault(record, &claim.current_closure, at) {
        Some(fault) => broken(fault),
        None => {
            let next = converged(record, &claim.current_closure, at);
            Ok(Transition::plain(next, at))
        }
    }
}

/// Converges a Pending host that already runs its target.
pub(super) fn unchanged(
    record: &HostRecord,
    current_closure: &ClosureHash,
    at: Timestamp,
) -> Result<Transition, Rejection> {
    match record.state {
        HostState::Pending => {}
        HostState::Activating
        | HostState::Deferred
        | HostState::Soaking
        | HostState::Converged
        | HostState::Failed
        | HostState::Reverted => {
            return Err(Rejection::illegal(record.state.name(), "ConvergeUnchanged"));
        }
    }
    if *current_closure != record.target_closure {
        return broken("the current closure is not the target");
    }
    let next = HostRecord {
        unchanged: true,
        ..converged(record, current_closure, at)
    };
    Ok(Transition::plain(next, at))
}

fn converged(
    record: &HostRecord,
    current_closure: &ClosureHash,
    converged_at: Timestamp,
) -> HostRecord {
    HostRecord {
        state: HostState::Converged,
        converged_at: Some(converged_at),
        current_closure: Some(shared(current_closure, record)),
        ..record.clone()
    }
}

fn broken<T>(fault: &str) -> Result<T, Rejection> {
    Err(Rejection::new(Reason::Invariant, fault))
}
