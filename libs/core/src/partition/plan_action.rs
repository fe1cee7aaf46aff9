//! Decides actions of the planner. Checks them again, except for budgets, freshness, edges and compliance
//! waves, for which the leader epoch is the only fence.

use nixfleet_proto::{
    Accepted, ClosureHash, Effect, HostState, PlanAction, Reason, Rejection, RolloutEvent,
    RolloutState, Timestamp, mutation_testing,
};

use super::entry_lookup::{Decided, find_host, find_rollout, invariant};
use super::host_step::step_host;
use super::rollout_update::RolloutUpdate;
use super::{PartitionState, PinnedSet, Rollout, RolloutHost, open_rollout};
use crate::host::HostInput;

#[expect(clippy::too_many_lines, reason = "one arm per action, read as a whole")]
pub(super) fn decide(
    state: &PartitionState,
    at: Timestamp,
    (epoch, action): (u64, &PlanAction),
    pinned: &PinnedSet,
) -> Decided {
    check_epoch(state, at, epoch, action)?;
    match action {
        PlanAction::Barrier {} => barrier(state, epoch, at),
        PlanAction::OpenRollout {
            rollout_id,
            channel,
            target_ref,
            manifest_hash,
        } => {
            let opening = open_rollout::Opening {
                rollout_id,
                channel,
                target_ref,
                manifest_hash,
            };
            open_rollout::decide(state, at, &opening, pinned)
        }
        PlanAction::QueueDispatch {
            rollout_id,
            hostname,
            target_closure,
            ..
        } => {
            let target = find_host(state, rollout_id, hostname)?;
            queue_dispatch(state, target, target_closure)
        }
        PlanAction::AdvanceWave {
            rollout_id,
            from_wave,
            to_wave,
        } => {
            let rollout = find_rollout(state, rollout_id)?;
            advance_wave(rollout, (*from_wave, *to_wave), at)
        }
        PlanAction::SoakElapsed {
            rollout_id,
            hostname,
        } => {
            let target = find_host(state, rollout_id, hostname)?;
            step_host(target, &HostInput::SoakElapsed, at)
        }
        PlanAction::ConvergeUnchanged {
            rollout_id,
            hostname,
            current_closure,
        } => {
            let target = find_host(state, rollout_id, hostname)?;
            let decision = step_host(
                target,
                &HostInput::ConvergeUnchanged { current_closure },
                at,
            )?;
            check_may_start(state, target)?;
            Ok(decision)
        }
        PlanAction::RetentionExpired { rollout_id } => {
            let rollout = find_rollout(state, rollout_id)?;
            let mut update = RolloutUpdate::of(rollout, at);
            let rollout_id = rollout_id.clone();
            update.apply_event(RolloutEvent::RetentionExpired { rollout_id, at })?;
            Ok(update.finish())
        }
        PlanAction::BlocksChanged {
            rollout_id,
            wave,
            gate,
            holds,
        } => {
            let rollout = find_rollout(state, rollout_id)?;
            if rollout.record.state == RolloutState::Pruned {
                return Err(illegal_in(rollout, action.name()));
            }
            Ok(Accepted {
                effects: vec![Effect::ReplaceBlocks {
                    rollout_id: rollout_id.clone(),
                    wave: *wave,
                    gate: *gate,
                    holds: holds.clone(),
                }],
                ..Accepted::default()
            })
        }
    }
}

/// An epoch is the time of its leadership in milliseconds, or the one after the epoch before. One that is further
/// ahead would leave no epochs for later leaders.
const EPOCH_AHEAD_MILLIS_MAX: i64 = 24 * 60 * 60 * 1_000;

/// Rejects epochs below the highest known one (older leaders), and epochs above it without a barrier.
fn check_epoch(
    state: &PartitionState,
    at: Timestamp,
    epoch: u64,
    action: &PlanAction,
) -> Result<(), Rejection> {
    if mutation_testing::is_active("fold-ignore-epoch") {
        return Ok(());
    }
    let seen = state.leader_epoch;
    let is_barrier = matches!(action, PlanAction::Barrier {});
    if epoch < seen || (is_barrier && epoch == seen) {
        return Err(Rejection::new(
            Reason::Fenced,
            format!("epoch {epoch} of {} is not above {seen}", action.name()),
        ));
    }
    let latest = at.timestamp_millis().saturating_add(EPOCH_AHEAD_MILLIS_MAX);
    if is_barrier && i64::try_from(epoch).map_or(true, |epoch| epoch > latest) {
        return invariant(format!(
            "epoch {epoch} is more than a day ahead of the time"
        ));
    }
    if epoch > seen && !is_barrier {
        return invariant(format!("epoch {epoch} was not announced by a barrier"));
    }
    Ok(())
}

/// Most rollouts that one barrier advances: its outcome must fit into a frame. The next barrier
/// advances the others.
const ADVANCED_MAX: usize = 8;

/// Accepts a new leader, and applies transitions that the counters call for.
fn barrier(state: &PartitionState, epoch: u64, at: Timestamp) -> Decided {
    let mut accepted = Accepted {
        leader_epoch: Some(epoch),
        ..Accepted::default()
    };
    for rollout in state.rollouts.values() {
        if !rollout.record.state.is_running() {
            continue;
        }
        let mut update = RolloutUpdate::of(rollout, at);
        update.advance_or_finish()?;
        let settled = update.finish();
        accepted.rollouts.extend(settled.rollouts);
        accepted.events.extend(settled.events);
        accepted.effects.extend(settled.effects);
        if accepted.rollouts.len() == ADVANCED_MAX {
            break;
        }
    }
    Ok(accepted)
}

fn queue_dispatch(
    state: &PartitionState,
    (rollout, host): (&Rollout, &RolloutHost),
    target_closure: &ClosureHash,
) -> Decided {
    let record = &host.record;
    if !rollout.record.state.is_running() {
        return Err(illegal_in(rollout, "QueueDispatch"));
    }
    if record.state != HostState::Pending {
        return Err(Rejection::illegal(record.state.name(), "QueueDispatch"));
    }
    if host.is_queued() {
        let state = "Pending with a queued dispatch";
        return Err(Rejection::illegal(state, "QueueDispatch"));
    }
    if *target_closure != record.target_closure {
        return invariant("the closure is not the target");
    }
    check_may_start(state, (rollout, host))?;
    Ok(Accepted {
        effects: vec![Effect::InsertDispatch {
            rollout_id: record.rollout_id.clone(),
            hostname: record.hostname.clone(),
            target_closure: record.target_closure.clone(),
            soak_minutes: record.soak_minutes,
        }],
        ..Accepted::default()
    })
}

/// Whether the host may start: not halted, wave reached, closure not quarantined.
fn check_may_start(
    state: &PartitionState,
    (rollout, host): (&Rollout, &RolloutHost),
) -> Result<(), Rejection> {
    if rollout.is_halted() && !mutation_testing::is_active("halt-ignored") {
        return invariant("the rollout is halted");
    }
    if !host.staged {
        return invariant("the host is in no wave");
    }
    if host.wave > rollout.record.current_wave {
        return invariant(format!(
            "wave {} has not come, the rollout is at {}",
            host.wave, rollout.record.current_wave
        ));
    }
    if state.is_quarantined(&host.record.channel, &host.record.target_closure) {
        return invariant("the target closure is quarantined");
    }
    Ok(())
}

fn advance_wave(rollout: &Rollout, (from, to): (u32, u32), at: Timestamp) -> Decided {
    if !rollout.record.state.is_running() {
        return Err(illegal_in(rollout, "AdvanceWave"));
    }
    let current = rollout.record.current_wave;
    if from != current {
        return invariant(format!("the current wave is {current}, not {from}"));
    }
    if !rollout.is_current_wave_done() {
        return invariant(format!("wave {current} is not done"));
    }
    if rollout.next_wave() != Some(to) {
        return invariant(format!("{to} is not the next wave with hosts"));
    }
    let mut update = RolloutUpdate::of(rollout, at);
    update.apply_event(RolloutEvent::WaveAdvanced {
        rollout_id: rollout.record.rollout_id.clone(),
        from_wave: from,
        to_wave: to,
        at,
    })?;
    update.advance_or_finish()?;
    Ok(update.finish())
}

fn illegal_in(rollout: &Rollout, entry: &str) -> Rejection {
    let rollout = format!("a rollout in {}", rollout.record.state.name());
    Rejection::illegal(&rollout, entry)
}
