//! Decides entries about one host: a step of its state machine, or a recovery candidate.

use std::sync::Arc;

use nixfleet_proto::{
    Accepted, ClosureHash, Effect, HostState, Rejection, RolloutState, Timestamp,
};

use super::entry_lookup::{Decided, about, invariant};
use super::rollout_update::RolloutUpdate;
use super::{Rollout, RolloutHost};
use crate::host::{self, HostInput, StepCtx};

/// Applies one input to the host machine and the result to the rollout.
pub(super) fn step_host(
    (rollout, host): (&Rollout, &RolloutHost),
    input: &HostInput<'_>,
    at: Timestamp,
) -> Decided {
    let ctx = StepCtx {
        on_health_failure: rollout.pinned.on_health_failure,
        rollout_state: rollout.record.state,
        received_at: at,
    };
    let mut step = host::step(&host.record, input, &ctx)?;
    rollout.probe_lists.intern_probes(&mut step.next);
    let gives_up = host.record.expects_rollback() && !step.next.expects_rollback();
    if step.next.state == host.record.state && !gives_up {
        // Most entries do not change the state: the rollout is unaffected.
        return Ok(Accepted {
            effects: about(host, step.effects),
            hosts: vec![Arc::new(step.next)],
            ..Accepted::default()
        });
    }
    let mut update = RolloutUpdate::of(rollout, at);
    update.apply_host_step(host, step)?;
    update.advance_or_finish()?;
    Ok(update.finish())
}

/// Marks a Pending host that runs its target as a candidate, and unmarks one that stopped running it.
pub(super) fn recovery_candidate(
    (rollout, host): (&Rollout, &RolloutHost),
    current_closure: &ClosureHash,
) -> Decided {
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
