//! Transitions of the host machine, except for probes and convergence.

use chrono::TimeDelta;
use nixfleet_proto::host::{FailedControl, Probes};
use nixfleet_proto::{
    ClosureHash, HostRecord, HostState, Minutes, OnHealthFailure, ProbeName, RollbackFault,
    Timestamp, mutation_testing,
};

use super::StepCtx;

/// Largest accepted difference between the clock of a host and the time of receipt.
///
/// Source: docs/semantics.md, host machine, activation completed.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::seconds(60);

/// The next record and the cause, from which both sides derive their effects.
pub(super) struct Transition {
    pub(super) next: HostRecord,
    pub(super) at: Timestamp,
    pub(super) cause: Cause,
}

/// Cause of a transition, as far as effects depend on it.
pub(super) enum Cause {
    Acknowledged,
    Completed,
    /// The closure to roll back to, when the applied policy rolls back and the closure is known.
    Failed {
        roll_back_to: Option<ClosureHash>,
    },
    RolledBack,
    /// A first observation or first failure.
    ProbeSeen {
        durable: bool,
    },
    ProbeResult {
        probe_name: ProbeName,
        failures: Vec<FailedControl>,
        durable: bool,
    },
    /// No effect but the transition itself, if any.
    Plain,
}

impl Transition {
    pub(super) fn plain(next: HostRecord, at: Timestamp) -> Self {
        let cause = Cause::Plain;
        Self { next, at, cause }
    }
}

pub(super) fn acknowledge(
    record: &HostRecord,
    before: &ClosureHash,
    received_at: Timestamp,
) -> Transition {
    let next = HostRecord {
        state: HostState::Activating,
        current_closure_at_dispatch: Some(before.clone()),
        dispatch_acked_at: Some(received_at),
        ..record.clone()
    };
    Transition {
        next,
        at: received_at,
        cause: Cause::Acknowledged,
    }
}

pub(super) fn start(record: &HostRecord, started_at: Timestamp) -> Transition {
    let next = HostRecord {
        activation_started_at: Some(started_at),
        ..record.clone()
    };
    Transition::plain(next, started_at)
}

/// Does not compare the observed closure with the target: convergence does.
pub(super) fn complete(
    record: &HostRecord,
    observed: &ClosureHash,
    completed_at: Timestamp,
    ctx: &StepCtx,
) -> Transition {
    let next = HostRecord {
        state: HostState::Soaking,
        current_closure: Some(shared(observed, record)),
        activation_completed_at: Some(completed_at),
        soak_due_at: Some(soak_due_at(
            completed_at,
            ctx.received_at,
            record.soak_minutes,
        )),
        probes: Probes::default(),
        declared_probes: None,
        ..record.clone()
    };
    Transition {
        next,
        at: completed_at,
        cause: Cause::Completed,
    }
}

pub(super) fn defer(record: &HostRecord, deferred_at: Timestamp) -> Transition {
    let next = HostRecord {
        state: HostState::Deferred,
        ..record.clone()
    };
    Transition::plain(next, deferred_at)
}

pub(super) fn fail_activation(
    record: &HostRecord,
    failed_at: Timestamp,
    ctx: &StepCtx,
) -> Transition {
    let mut transition = fail(record, failed_at, ctx.on_health_failure);
    transition.next.activation_failed_at = Some(failed_at);
    transition
}

pub(super) fn fail(
    record: &HostRecord,
    failed_at: Timestamp,
    policy: OnHealthFailure,
) -> Transition {
    let roll_back_to = match policy {
        OnHealthFailure::Halt => None,
        OnHealthFailure::RollbackAndHalt => record.current_closure_at_dispatch.clone(),
    };
    let next = HostRecord {
        state: HostState::Failed,
        failed_at: Some(failed_at),
        policy_applied: Some(policy),
        rollback_failed: None,
        convergence_claim: None,
        ..record.clone()
    };
    Transition {
        next,
        at: failed_at,
        cause: Cause::Failed { roll_back_to },
    }
}

pub(super) fn roll_back(
    record: &HostRecord,
    reverted_to: &ClosureHash,
    completed_at: Timestamp,
) -> Transition {
    let reverted_to = shared(reverted_to, record);
    let next = HostRecord {
        state: HostState::Reverted,
        reverted_at: Some(completed_at),
        rollback_failed: None,
        current_closure: Some(reverted_to.clone()),
        reverted_to: Some(reverted_to),
        ..record.clone()
    };
    Transition {
        next,
        at: completed_at,
        cause: Cause::RolledBack,
    }
}

/// The host stays Failed, and nothing is expected of it any more.
pub(super) fn give_up_rollback(
    record: &HostRecord,
    reason: RollbackFault,
    failed_at: Timestamp,
) -> Transition {
    let next = HostRecord {
        rollback_failed: Some(reason),
        ..record.clone()
    };
    Transition::plain(next, failed_at)
}

/// The equal closure of the record, if any, to share its allocation: a fleet of a million hosts names
/// each closure many times.
pub(super) fn shared(closure: &ClosureHash, record: &HostRecord) -> ClosureHash {
    let known = [
        Some(&record.target_closure),
        record.current_closure_at_dispatch.as_ref(),
    ];
    let same = known.into_iter().flatten().find(|known| *known == closure);
    same.unwrap_or(closure).clone()
}

/// A time by which a host would shorten a wait or date a failure: no later than the tolerance after receipt.
pub(super) fn believed(at: Timestamp, ctx: &StepCtx) -> Timestamp {
    if mutation_testing::is_active("fold-believes-hosts") {
        return at;
    }
    at.min(latest(ctx.received_at))
}

fn latest(received_at: Timestamp) -> Timestamp {
    received_at
        .checked_add_signed(CLOCK_TOLERANCE)
        .unwrap_or(Timestamp::MAX_UTC)
}

/// End of the soak: the completion time, clamped to the tolerance around receipt, plus the soak.
/// Saturates at the end of the calendar.
fn soak_due_at(completed_at: Timestamp, received_at: Timestamp, soak: Minutes) -> Timestamp {
    let earliest = received_at
        .checked_sub_signed(CLOCK_TOLERANCE)
        .unwrap_or(Timestamp::MIN_UTC);
    completed_at
        .clamp(earliest, latest(received_at))
        .checked_add_signed(soak.delta())
        .unwrap_or(Timestamp::MAX_UTC)
}
