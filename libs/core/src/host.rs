//! The state machine of one host in one rollout, shared by the agent and the reducer.
//!
//! [`transition`] is the transition table. [`step`] and [`step_agent`] return the same next record and
//! differ only in their effects.
//!
//! Source: docs/semantics.md, host machine.

mod convergence;
mod effect;
mod input;
mod probe_results;
mod transition;
mod validate;

use nixfleet_proto::event::HostEventBody;
use nixfleet_proto::{
    HostRecord, HostState, Producer, Reason, Rejection, RolloutState, mutation_testing,
};

pub use convergence::convergence_fault;
pub use effect::{AgentEffect, ControlEffect};
pub use input::{HostInput, StepCtx};
pub use validate::{Fault, validate};

use transition::{Transition, believed};

/// Result of an accepted input.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Step<E> {
    /// The next record.
    pub next: HostRecord,
    /// Effects, in order.
    pub effects: Vec<E>,
}

/// Applies one input in the reducer.
///
/// # Errors
/// `stale`, `illegal` or `invariant`; the record stays as it is.
pub fn step(
    record: &HostRecord,
    input: &HostInput<'_>,
    ctx: &StepCtx,
) -> Result<Step<ControlEffect>, Rejection> {
    let transition = checked(record, input, ctx)?;
    let effects = effect::control(record, &transition);
    let next = transition.next;
    Ok(Step { next, effects })
}

/// Applies one input on the agent.
pub fn step_agent(
    record: &HostRecord,
    input: &HostInput<'_>,
    ctx: &StepCtx,
) -> Result<Step<AgentEffect>, Rejection> {
    let transition = checked(record, input, ctx)?;
    let effects = effect::agent(record, input, &transition);
    let next = transition.next;
    Ok(Step { next, effects })
}

/// Checks the sequence and the state of the rollout, then applies the table.
fn checked(
    record: &HostRecord,
    input: &HostInput<'_>,
    ctx: &StepCtx,
) -> Result<Transition, Rejection> {
    match *input {
        HostInput::Event { producer, event } => {
            check_sequence(record, producer, event.seq)?;
            check_rollout(input, ctx.rollout_state)?;
            let mut transition = transition(record, &event.body, ctx)?;
            match producer {
                Producer::Agent => transition.next.last_event_seq = event.seq,
                Producer::Recovery => transition.next.recovery_seq = event.seq,
            }
            Ok(transition)
        }
        HostInput::SoakElapsed => {
            check_rollout(input, ctx.rollout_state)?;
            convergence::soak_elapsed(record, ctx.received_at)
        }
        HostInput::ConvergeUnchanged { current_closure } => {
            check_rollout(input, ctx.rollout_state)?;
            convergence::unchanged(record, current_closure, ctx.received_at)
        }
    }
}

fn check_sequence(record: &HostRecord, producer: Producer, seq: u64) -> Result<(), Rejection> {
    let last = match producer {
        Producer::Agent => record.last_event_seq,
        Producer::Recovery => record.recovery_seq,
    };
    if seq > last || mutation_testing::is_active("fold-accept-stale") {
        Ok(())
    } else {
        Err(Rejection::new(
            Reason::Stale,
            format!("sequence {seq} is not above {last}"),
        ))
    }
}

fn check_rollout(input: &HostInput<'_>, state: RolloutState) -> Result<(), Rejection> {
    let legal = match input {
        HostInput::Event { event, .. } => match state {
            RolloutState::Pruned => false,
            RolloutState::Superseded => !matches!(event.body, HostEventBody::DispatchAck { .. }),
            RolloutState::Opening
            | RolloutState::Active
            | RolloutState::Converging
            | RolloutState::Terminal
            | RolloutState::Reverted
            | RolloutState::Failed => true,
        },
        HostInput::SoakElapsed => state != RolloutState::Pruned,
        HostInput::ConvergeUnchanged { .. } => state.is_running(),
    };
    if legal {
        Ok(())
    } else {
        let rollout = format!("a rollout in {}", state.name());
        Err(Rejection::illegal(&rollout, input.name()))
    }
}

#[expect(clippy::too_many_lines, reason = "the transition table is one match")]
fn transition(
    record: &HostRecord,
    body: &HostEventBody,
    ctx: &StepCtx,
) -> Result<Transition, Rejection> {
    use HostEventBody as E;
    let illegal = || Err(Rejection::illegal(record.state.name(), body.name()));
    match record.state {
        HostState::Pending => match body {
            E::DispatchAck {
                current_closure_at_dispatch: before,
                received_at,
            } => Ok(transition::acknowledge(record, before, *received_at)),
            E::ActivationStarted { .. } | E::ActivationCompleted { .. } => illegal(),
            E::ActivationDeferred { .. } | E::ActivationFailed { .. } => illegal(),
            E::ProbeTopologyDeclared { .. } | E::ProbeObservedFirst { .. } => illegal(),
            E::ProbeResult { .. } | E::ProbeFailureFirst { .. } => illegal(),
            E::Failed { .. } | E::RollbackComplete { .. } => illegal(),
            E::RollbackFailed { .. } | E::Converged { .. } => illegal(),
        },
        HostState::Activating => match body {
            E::ActivationStarted { started_at, .. } => Ok(transition::start(record, *started_at)),
            E::ActivationCompleted {
                observed_current_closure: observed,
                completed_at,
                ..
            } => Ok(transition::complete(record, observed, *completed_at, ctx)),
            E::ActivationDeferred { deferred_at, .. } => {
                Ok(transition::defer(record, *deferred_at))
            }
            E::ActivationFailed { failed_at, .. } => {
                let failed_at = believed(*failed_at, ctx);
                Ok(transition::fail_activation(record, failed_at, ctx))
            }
            E::DispatchAck { .. } => illegal(),
            E::ProbeTopologyDeclared { .. } | E::ProbeObservedFirst { .. } => illegal(),
            E::ProbeResult { .. } | E::ProbeFailureFirst { .. } => illegal(),
            E::Failed { .. } | E::RollbackComplete { .. } => illegal(),
            E::RollbackFailed { .. } | E::Converged { .. } => illegal(),
        },
        HostState::Deferred => match body {
            E::ActivationCompleted {
                observed_current_closure: observed,
                completed_at,
                ..
            } => Ok(transition::complete(record, observed, *completed_at, ctx)),
            E::ActivationFailed { failed_at, .. } => {
                let failed_at = believed(*failed_at, ctx);
                Ok(transition::fail_activation(record, failed_at, ctx))
            }
            E::DispatchAck { .. } | E::ActivationStarted { .. } => illegal(),
            E::ActivationDeferred { .. } => illegal(),
            E::ProbeTopologyDeclared { .. } | E::ProbeObservedFirst { .. } => illegal(),
            E::ProbeResult { .. } | E::ProbeFailureFirst { .. } => illegal(),
            E::Failed { .. } | E::RollbackComplete { .. } => illegal(),
            E::RollbackFailed { .. } | E::Converged { .. } => illegal(),
        },
        HostState::Soaking => match body {
            E::ProbeTopologyDeclared { .. }
            | E::ProbeObservedFirst { .. }
            | E::ProbeResult { .. }
            | E::ProbeFailureFirst { .. } => probe_results::record_event(record, body),
            E::Failed {
                failed_at,
                policy_applied,
                ..
            } => {
                let failed_at = believed(*failed_at, ctx);
                Ok(transition::fail(record, failed_at, *policy_applied))
            }
            E::Converged {
                converged_at,
                current_closure,
            } => {
                let converged_at = believed(*converged_at, ctx);
                convergence::report(record, current_closure, converged_at)
            }
            E::DispatchAck { .. } | E::ActivationStarted { .. } => illegal(),
            E::ActivationCompleted { .. } | E::ActivationDeferred { .. } => illegal(),
            E::ActivationFailed { .. } => illegal(),
            E::RollbackComplete { .. } | E::RollbackFailed { .. } => illegal(),
        },
        HostState::Converged => match body {
            E::ProbeTopologyDeclared { .. }
            | E::ProbeObservedFirst { .. }
            | E::ProbeResult { .. }
            | E::ProbeFailureFirst { .. } => probe_results::record_event(record, body),
            E::DispatchAck { .. } | E::ActivationStarted { .. } => illegal(),
            E::ActivationCompleted { .. } | E::ActivationDeferred { .. } => illegal(),
            E::ActivationFailed { .. } | E::Failed { .. } => illegal(),
            E::RollbackComplete { .. } | E::RollbackFailed { .. } => illegal(),
            E::Converged { .. } => illegal(),
        },
        HostState::Failed => match body {
            E::RollbackComplete {
                reverted_to_closure: reverted_to,
                completed_at,
                ..
            } => Ok(transition::roll_back(record, reverted_to, *completed_at)),
            E::RollbackFailed {
                reason, failed_at, ..
            } if record.expects_rollback() => {
                let failed_at = believed(*failed_at, ctx);
                Ok(transition::give_up_rollback(record, *reason, failed_at))
            }
            E::RollbackFailed { .. } => illegal(),
            E::DispatchAck { .. } | E::ActivationStarted { .. } => illegal(),
            E::ActivationCompleted { .. } | E::ActivationDeferred { .. } => illegal(),
            E::ActivationFailed { .. } | E::ProbeTopologyDeclared { .. } => illegal(),
            E::ProbeObservedFirst { .. } | E::ProbeResult { .. } => illegal(),
            E::ProbeFailureFirst { .. } | E::Failed { .. } | E::Converged { .. } => illegal(),
        },
        HostState::Reverted => illegal(),
    }
}
