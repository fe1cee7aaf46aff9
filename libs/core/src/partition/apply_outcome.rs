//! Applies outcomes to the state, without decisions.

use std::sync::Arc;

use nixfleet_proto::outcome::Opened;
use nixfleet_proto::snapshot::Cause;
use nixfleet_proto::{
    Decision, Effect, HostRecord, Hostname, ManifestHash, Outcome, Pinned, Position, RolloutId,
    RolloutRecord, Timestamp, column_time,
};

use super::host_counters::HostCounters;
use super::interning::ProbeListPool;
use super::{GateHolds, PartitionState, PinnedSet, ProbeFailures, Rollout, RolloutHost};

/// The outcome does not fit the state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum ApplyOutcomeError {
    #[error("manifest {0} is missing")]
    UnknownManifest(ManifestHash),
    #[error("the outcome opens {0} without its record")]
    OpenedWithoutRecord(RolloutId),
    #[error("rollout {0} does not exist")]
    UnknownRollout(RolloutId),
    #[error("host {1} does not exist in rollout {0}")]
    UnknownHost(RolloutId, Hostname),
}

/// Treatment of changes to unknown rollouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnknownRollouts {
    /// An error.
    Reject,
    /// Ignored: the owner had more rollouts.
    Skip,
}

impl UnknownRollouts {
    fn filter(self, applied: Result<(), ApplyOutcomeError>) -> Result<(), ApplyOutcomeError> {
        match (self, applied) {
            (Self::Skip, Err(ApplyOutcomeError::UnknownRollout(_))) => Ok(()),
            (Self::Skip | Self::Reject, applied) => applied,
        }
    }
}

pub(super) fn apply_outcome(
    state: &mut PartitionState,
    outcome: &Outcome,
    pinned: &PinnedSet,
    unknown: UnknownRollouts,
) -> Result<(), ApplyOutcomeError> {
    state.clock = Some(
        state
            .clock
            .map_or(outcome.at, |clock| clock.max(outcome.at)),
    );
    let accepted = match &outcome.decision {
        Decision::Rejected(_) => return Ok(()),
        Decision::Accepted(accepted) => accepted,
    };
    if let Some(opened) = &accepted.opened {
        let record = accepted
            .rollouts
            .iter()
            .find(|record| record.rollout_id == opened.rollout_id)
            .ok_or_else(|| ApplyOutcomeError::OpenedWithoutRecord(opened.rollout_id.clone()))?;
        let manifest = pinned
            .get(&opened.manifest_hash)
            .ok_or_else(|| ApplyOutcomeError::UnknownManifest(opened.manifest_hash.clone()))?;
        let rollout = opened_rollout(opened, record, &manifest.pinned, outcome);
        state.rollouts.insert(opened.rollout_id.clone(), rollout);
    }
    for record in &accepted.hosts {
        unknown.filter(apply_host(state, record, outcome.position))?;
    }
    for record in &accepted.rollouts {
        unknown.filter(apply_rollout(state, record, outcome.position))?;
    }
    for effect in &accepted.effects {
        unknown.filter(apply_effect(state, effect, outcome))?;
    }
    if let Some(epoch) = accepted.leader_epoch {
        state.leader_epoch = epoch;
    }
    Ok(())
}

fn opened_rollout(
    opened: &Opened,
    record: &RolloutRecord,
    pinned: &Arc<Pinned>,
    outcome: &Outcome,
) -> Rollout {
    let hosts = pinned
        .pending_hosts(&opened.rollout_id, outcome.at)
        .zip(&pinned.host_set)
        .map(|(record, host)| RolloutHost {
            record: Arc::new(record),
            wave: host.wave_index,
            staged: host.staged,
            candidate: false,
            position: outcome.position,
            outstanding: None,
        })
        .collect();
    Rollout {
        counters: HostCounters::of(&hosts, &record.waived_hosts),
        record: record.clone(),
        manifest_hash: opened.manifest_hash.clone(),
        pinned: Arc::clone(pinned),
        position: outcome.position,
        hosts,
        blocks: Default::default(),
        probe_lists: ProbeListPool::default(),
    }
}

fn apply_host(
    state: &mut PartitionState,
    record: &Arc<HostRecord>,
    position: Position,
) -> Result<(), ApplyOutcomeError> {
    let rollout = rollout_mut(state, &record.rollout_id)?;
    let waived = rollout.is_waived(&record.hostname);
    let Rollout {
        hosts,
        counters,
        probe_lists,
        ..
    } = rollout;
    let host = hosts.get_mut(&record.hostname).ok_or_else(|| {
        ApplyOutcomeError::UnknownHost(record.rollout_id.clone(), record.hostname.clone())
    })?;
    let next = probe_lists.intern_next(record, &host.record);
    if host.record.state == next.state {
        host.record = next;
    } else {
        counters.leave(&record.hostname, host, waived);
        host.record = next;
        counters.enter(&record.hostname, host, waived);
    }
    host.position = position;
    Ok(())
}

fn apply_rollout(
    state: &mut PartitionState,
    record: &RolloutRecord,
    position: Position,
) -> Result<(), ApplyOutcomeError> {
    let rollout = rollout_mut(state, &record.rollout_id)?;
    let waivers_changed = rollout.record.waived_hosts != record.waived_hosts;
    rollout.record = record.clone();
    rollout.position = position;
    if waivers_changed {
        rollout.counters = HostCounters::of(&rollout.hosts, &record.waived_hosts);
    }
    Ok(())
}

#[expect(clippy::too_many_lines, reason = "one arm per effect, read as a whole")]
fn apply_effect(
    state: &mut PartitionState,
    effect: &Effect,
    outcome: &Outcome,
) -> Result<(), ApplyOutcomeError> {
    match effect {
        Effect::ReplaceProbeFailures {
            rollout_id,
            hostname,
            probe_name,
            failures,
            observed_at,
        } => {
            let cause = cause_in_columns(outcome, *observed_at);
            let controls = failures.clone();
            let failures = ProbeFailures { controls, cause };
            // Rows of an unknown host cannot be written either.
            let rollout = rollout_mut(state, rollout_id)?;
            if let Some(host) = rollout.hosts.get_mut(hostname) {
                host.set_failures(probe_name.clone(), failures);
            }
        }
        Effect::InsertQuarantine {
            channel,
            closure_hash,
        } => {
            let closures = state.quarantines.entry(channel.clone()).or_default();
            closures
                .entry(closure_hash.clone())
                .or_insert(cause_in_columns(outcome, outcome.at));
        }
        Effect::RemoveQuarantine {
            channel,
            closure_hash,
        } => {
            if let Some(closures) = state.quarantines.get_mut(channel) {
                closures.remove(closure_hash);
            }
            state.quarantines.retain(|_, closures| !closures.is_empty());
        }
        Effect::InsertDispatch {
            rollout_id,
            hostname,
            ..
        } => {
            // Exact time: the column has the dispatch as a record.
            let queued = Some(Cause {
                position: outcome.position,
                at: outcome.at,
            });
            host_mut(state, rollout_id, hostname)?.set_queued(queued);
        }
        Effect::RemoveDispatch {
            rollout_id,
            hostname,
        } => host_mut(state, rollout_id, hostname)?.set_queued(None),
        Effect::CancelDispatches { rollout_id } => {
            rollout_mut(state, rollout_id)?.hosts.cancel_dispatches();
        }
        Effect::SetRecoveryCandidate {
            rollout_id,
            hostname,
            current_closure,
        } => host_mut(state, rollout_id, hostname)?.candidate = current_closure.is_some(),
        Effect::ReplaceBlocks {
            rollout_id,
            wave,
            gate,
            holds,
        } => {
            let rollout = rollout_mut(state, rollout_id)?;
            if holds.is_empty() {
                rollout.blocks.remove(&(*wave, *gate));
            } else {
                let held = GateHolds {
                    holds: holds.clone(),
                    cause: cause_in_columns(outcome, outcome.at),
                };
                rollout.blocks.insert((*wave, *gate), Arc::new(held));
            }
        }
        // The records have these changes.
        Effect::RecordTransition { .. } | Effect::RecordRolloutTransition { .. } => {}
        Effect::UpdateCurrentWave { .. } | Effect::HaltLifted { .. } => {}
    }
    Ok(())
}

/// The cause with its time rounded as in a column: rows without a record have the time in a column only,
/// and a restored state must equal the folded one.
fn cause_in_columns(outcome: &Outcome, at: Timestamp) -> Cause {
    Cause {
        position: outcome.position,
        at: column_time(at),
    }
}

fn rollout_mut<'a>(
    state: &'a mut PartitionState,
    rollout_id: &RolloutId,
) -> Result<&'a mut Rollout, ApplyOutcomeError> {
    state
        .rollouts
        .get_mut(rollout_id)
        .ok_or_else(|| ApplyOutcomeError::UnknownRollout(rollout_id.clone()))
}

fn host_mut<'a>(
    state: &'a mut PartitionState,
    rollout_id: &RolloutId,
    hostname: &Hostname,
) -> Result<&'a mut RolloutHost, ApplyOutcomeError> {
    rollout_mut(state, rollout_id)?
        .hosts
        .get_mut(hostname)
        .ok_or_else(|| ApplyOutcomeError::UnknownHost(rollout_id.clone(), hostname.clone()))
}
