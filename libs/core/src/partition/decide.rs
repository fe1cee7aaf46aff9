//! Which entries are legal, and what each leads to.
//!
//! Source: docs/semantics.md, legality.

use std::sync::Arc;

use nixfleet_proto::{
    Accepted, ClosureHash, Effect, EntryBody, HostState, Hostname, Reason, Rejection, RolloutId,
    RolloutState, Timestamp,
};

use super::draft::Draft;
use super::{HostEntry, PartitionState, PinnedSet, Rollout, operator, plan};
use crate::host::{self, ControlEffect, HostInput, StepCtx};

pub(super) type Decision = Result<Accepted, Rejection>;

/// Decides one entry at fold time `at`, changing nothing.
pub(super) fn decide(
    state: &PartitionState,
    at: Timestamp,
    body: &EntryBody,
    pinned: &PinnedSet,
) -> Decision {
    match body {
        EntryBody::HostEvent {
            rollout_id,
            hostname,
            producer,
            event,
        } => {
            let target = find_host(state, rollout_id, hostname)?;
            let producer = *producer;
            step_host(target, &HostInput::Event { producer, event }, at)
        }
        EntryBody::RecoveryCandidate {
            rollout_id,
            hostname,
            current_closure,
        } => {
            let target = find_host(state, rollout_id, hostname)?;
            recovery_candidate(target, current_closure)
        }
        EntryBody::Plan { epoch, action } => plan::decide(state, at, (*epoch, action), pinned),
        EntryBody::Operator { command } => operator::decide(state, at, command),
    }
}

/// Folds one input of the host machine and what it means for the rollout.
pub(super) fn step_host(
    (rollout, host): (&Rollout, &HostEntry),
    input: &HostInput<'_>,
    at: Timestamp,
) -> Decision {
    let ctx = StepCtx {
        on_health_failure: rollout.pinned.on_health_failure,
        rollout_state: rollout.record.state,
        received_at: at,
    };
    let mut step = host::step(&host.record, input, &ctx)?;
    rollout.topologies.share(&mut step.next);
    if step.next.state == host.record.state {
        // Most entries: nothing that the rollout looks at has changed.
        return Ok(Accepted {
            effects: about(host, step.effects),
            hosts: vec![Arc::new(step.next)],
            ..Accepted::default()
        });
    }
    let mut draft = Draft::of(rollout, at);
    draft.host(host, step)?;
    draft.settle()?;
    Ok(draft.finish())
}

/// The effects of a step with the host they are about.
pub(super) fn about(host: &HostEntry, effects: Vec<ControlEffect>) -> Vec<Effect> {
    let effects = effects.into_iter();
    effects.map(|effect| effect.about(&host.record)).collect()
}

/// A Pending host was seen running its target; seen elsewhere again, it is no candidate any more.
fn recovery_candidate(
    (rollout, host): (&Rollout, &HostEntry),
    current_closure: &ClosureHash,
) -> Decision {
    let state = rollout.record.state;
    if matches!(state, RolloutState::Superseded | RolloutState::Pruned) {
        let rollout = format!("a rollout in {}", state.name());
        return Err(Rejection::illegal(&rollout, "RecoveryCandidate"));
    }
    if host.record.state != HostState::Pending {
        let state = host.record.state.name();
        return Err(Rejection::illegal(state, "RecoveryCandidate"));
    }
    let on_target = *current_closure == host.record.target_closure;
    if !on_target && !host.candidate {
        return invariant("the current closure is not the target");
    }
    Ok(Accepted {
        effects: vec![Effect::SetRecoveryCandidate {
            rollout_id: rollout.record.rollout_id.clone(),
            hostname: host.record.hostname.clone(),
            current_closure: on_target.then(|| current_closure.clone()),
        }],
        ..Accepted::default()
    })
}

pub(super) fn find_rollout<'a>(
    state: &'a PartitionState,
    rollout_id: &RolloutId,
) -> Result<&'a Rollout, Rejection> {
    state.rollouts.get(rollout_id).ok_or_else(|| {
        Rejection::new(
            Reason::Unknown,
            format!("rollout {rollout_id} does not exist"),
        )
    })
}

pub(super) fn find_host<'a>(
    state: &'a PartitionState,
    rollout_id: &RolloutId,
    hostname: &Hostname,
) -> Result<(&'a Rollout, &'a HostEntry), Rejection> {
    let rollout = find_rollout(state, rollout_id)?;
    match rollout.hosts.get(hostname) {
        Some(host) => Ok((rollout, host)),
        None => Err(Rejection::new(
            Reason::Unknown,
            format!("host {hostname} is not in rollout {rollout_id}"),
        )),
    }
}

pub(super) fn invariant<T>(message: impl Into<String>) -> Result<T, Rejection> {
    Err(Rejection::new(Reason::Invariant, message))
}
