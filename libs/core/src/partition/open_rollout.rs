//! Opens a rollout and supersedes its predecessors in the same outcome.

use nixfleet_proto::outcome::Opened;
use nixfleet_proto::{
    Accepted, ChannelName, ChannelRef, ManifestHash, Rejection, RolloutEvent, RolloutId,
    RolloutState, Timestamp,
};

use super::entry_lookup::{Decided, invariant};
use super::host_counters::RolloutProgress;
use super::rollout_update::RolloutUpdate;
use super::{PartitionState, PinnedSet, Rollout};
use crate::rollout::{self, NewRollout};

/// The fields of an `OpenRollout`.
pub(super) struct Opening<'a> {
    pub(super) rollout_id: &'a RolloutId,
    pub(super) channel: &'a ChannelName,
    pub(super) target_ref: &'a ChannelRef,
    pub(super) manifest_hash: &'a ManifestHash,
}

pub(super) fn decide(
    state: &PartitionState,
    at: Timestamp,
    opening: &Opening<'_>,
    pinned: &PinnedSet,
) -> Decided {
    let rollout_id = opening.rollout_id;
    if let Some(existing) = state.rollouts.get(rollout_id) {
        let state = format!("a rollout in {}", existing.record.state.name());
        return Err(Rejection::illegal(&state, "OpenRollout"));
    }
    if *rollout_id != RolloutId::new(opening.channel, opening.target_ref) {
        return invariant("the rollout id is not made of the channel and the ref");
    }
    let Some(manifest) = pinned.get(opening.manifest_hash) else {
        return invariant("the manifest does not verify against its hash");
    };
    if manifest.rollout_id != *rollout_id {
        return invariant("the manifest is that of another rollout");
    }
    let pinned = &manifest.pinned;
    let record = rollout::open(
        NewRollout {
            rollout_id: rollout_id.clone(),
            channel: opening.channel.clone(),
            target_ref: opening.target_ref.clone(),
            opened_at: at,
        },
        pinned,
    )?;
    let mut update = RolloutUpdate::new(record, RolloutProgress::pending(pinned), at);
    update.accepted().opened = Some(Opened {
        rollout_id: rollout_id.clone(),
        manifest_hash: opening.manifest_hash.clone(),
    });
    update.accepted().events.push(RolloutEvent::RolloutOpened {
        rollout_id: rollout_id.clone(),
        channel: opening.channel.clone(),
        target_ref: opening.target_ref.clone(),
        at,
    });
    update.apply_event(RolloutEvent::HostJoined {
        rollout_id: rollout_id.clone(),
        at,
    })?;
    update.advance_or_finish()?;
    let mut accepted = update.finish();
    for predecessor in predecessors(state, opening.channel) {
        supersede(&mut accepted, predecessor, rollout_id, at)?;
    }
    Ok(accepted)
}

fn predecessors<'a>(
    state: &'a PartitionState,
    channel: &'a ChannelName,
) -> impl Iterator<Item = &'a Rollout> {
    state.rollouts.values().filter(move |rollout| {
        let over = matches!(
            rollout.record.state,
            RolloutState::Superseded | RolloutState::Pruned
        );
        rollout.record.channel == *channel && !over
    })
}

fn supersede(
    accepted: &mut Accepted,
    predecessor: &Rollout,
    successor: &RolloutId,
    at: Timestamp,
) -> Result<(), Rejection> {
    let mut update = RolloutUpdate::of(predecessor, at);
    update.apply_event(RolloutEvent::SuccessorOpened {
        superseded_rollout_id: predecessor.record.rollout_id.clone(),
        successor_rollout_id: successor.clone(),
        at,
    })?;
    let superseded = update.finish();
    accepted.rollouts.extend(superseded.rollouts);
    accepted.events.extend(superseded.events);
    accepted.effects.extend(superseded.effects);
    Ok(())
}
