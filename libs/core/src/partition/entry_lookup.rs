//! The result type of deciding an entry, and lookups of the rollout and host of an entry.

use nixfleet_proto::{Accepted, Effect, Hostname, Reason, Rejection, RolloutId};

use super::{PartitionState, Rollout, RolloutHost};
use crate::host::ControlEffect;

pub(super) type Decided = Result<Accepted, Rejection>;

/// Converts the effects of a step into outcome effects, which name the host.
pub(super) fn about(host: &RolloutHost, effects: Vec<ControlEffect>) -> Vec<Effect> {
    let effects = effects.into_iter();
    effects.map(|effect| effect.about(&host.record)).collect()
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
) -> Result<(&'a Rollout, &'a RolloutHost), Rejection> {
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
