//! Builds the rows of a turn: one row per record, however often it changed within the turn.

use std::sync::Arc;

use nixfleet_proto::turn_rows::{
    BlockChange, DispatchChange, FailureSet, HostChange, OpenedRollout, RolloutChange, Stamp,
    TurnRows,
};
use nixfleet_proto::{Accepted, Decision, Effect, ManifestHash, Outcome, PinnedSet, RolloutId};

/// Why an outcome gives no rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The pinned content of an opened rollout was not fetched.
    #[error("the pinned content of manifest {0} was not fetched")]
    UnknownManifest(ManifestHash),
    /// The outcome opens a rollout without the rollout's record.
    #[error("the outcome opens rollout {0} without its record")]
    OpenedWithoutRecord(RolloutId),
}

/// Manifests of the rollouts that these outcomes open; they must be fetched before [`build_rows`].
pub fn opened_manifests<'a>(
    outcomes: impl IntoIterator<Item = &'a Outcome>,
) -> impl Iterator<Item = &'a ManifestHash> {
    outcomes
        .into_iter()
        .filter_map(|outcome| match &outcome.decision {
            Decision::Accepted(accepted) => Some(&accepted.opened.as_ref()?.manifest_hash),
            Decision::Rejected(_) => None,
        })
}

/// Builds the rows of a turn with these outcomes in order.
///
/// # Errors
/// [`RowError`]. Both are faults of the log or of the caller; a retry does not help.
pub fn build_rows<'a>(
    outcomes: impl IntoIterator<Item = &'a Outcome>,
    pinned: &PinnedSet,
) -> Result<TurnRows, RowError> {
    let mut rows = TurnRows::default();
    for outcome in outcomes {
        let Decision::Accepted(accepted) = &outcome.decision else {
            continue;
        };
        let stamp = Stamp {
            position: outcome.position,
            at: outcome.at,
            traceparent: outcome.traceparent.clone(),
        };
        add_opened(&mut rows, accepted, pinned, &stamp)?;
        for record in &accepted.hosts {
            let key = (record.rollout_id.clone(), record.hostname.clone());
            let change = HostChange {
                record: Arc::clone(record),
                stamp: stamp.clone(),
            };
            rows.hosts.insert(key, change);
        }
        for effect in &accepted.effects {
            add_effect(&mut rows, effect, &stamp);
        }
    }
    Ok(rows)
}

fn add_opened(
    rows: &mut TurnRows,
    accepted: &Accepted,
    pinned: &PinnedSet,
    stamp: &Stamp,
) -> Result<(), RowError> {
    let opened_id = accepted.opened.as_ref().map(|opened| &opened.rollout_id);
    for record in &accepted.rollouts {
        if Some(&record.rollout_id) == opened_id {
            continue;
        }
        let change = RolloutChange {
            record: record.clone(),
            stamp: stamp.clone(),
        };
        rows.rollouts.insert(record.rollout_id.clone(), change);
    }
    let Some(opened) = &accepted.opened else {
        return Ok(());
    };
    let record = accepted
        .rollouts
        .iter()
        .find(|record| record.rollout_id == opened.rollout_id)
        .ok_or_else(|| RowError::OpenedWithoutRecord(opened.rollout_id.clone()))?;
    let manifest = pinned
        .get(&opened.manifest_hash)
        .ok_or_else(|| RowError::UnknownManifest(opened.manifest_hash.clone()))?;
    rows.opened.push(OpenedRollout {
        record: record.clone(),
        manifest_hash: opened.manifest_hash.clone(),
        pinned: Arc::clone(&manifest.pinned),
        stamp: stamp.clone(),
    });
    Ok(())
}

#[expect(clippy::too_many_lines, reason = "one arm per effect, read as a whole")]
fn add_effect(rows: &mut TurnRows, effect: &Effect, stamp: &Stamp) {
    match effect {
        Effect::ReplaceProbeFailures {
            rollout_id,
            hostname,
            probe_name,
            failures,
            observed_at,
        } => {
            let key = (rollout_id.clone(), hostname.clone(), probe_name.clone());
            let set = FailureSet {
                failures: failures.clone(),
                observed_at: *observed_at,
                stamp: stamp.clone(),
            };
            rows.probe_failures.insert(key, set);
        }
        Effect::InsertQuarantine {
            channel,
            closure_hash,
        } => {
            let key = (channel.clone(), closure_hash.clone());
            rows.quarantines_inserted
                .entry(key)
                .or_insert_with(|| stamp.clone());
        }
        Effect::RemoveQuarantine {
            channel,
            closure_hash,
        } => {
            let key = (channel.clone(), closure_hash.clone());
            rows.quarantines_inserted.remove(&key);
            rows.quarantines_removed.insert(key);
        }
        Effect::InsertDispatch {
            rollout_id,
            hostname,
            target_closure,
            soak_minutes,
        } => {
            let change = DispatchChange {
                target_closure: target_closure.clone(),
                soak_minutes: *soak_minutes,
                stamp: stamp.clone(),
            };
            let key = (rollout_id.clone(), hostname.clone());
            rows.dispatches.insert(key, Some(change));
        }
        Effect::RemoveDispatch {
            rollout_id,
            hostname,
        } => {
            let key = (rollout_id.clone(), hostname.clone());
            rows.dispatches.insert(key, None);
        }
        Effect::CancelDispatches { rollout_id } => {
            rows.dispatches.retain(|(id, _), _| id != rollout_id);
            rows.dispatches_cancelled.insert(rollout_id.clone());
        }
        Effect::SetRecoveryCandidate {
            rollout_id,
            hostname,
            current_closure,
        } => {
            let key = (rollout_id.clone(), hostname.clone());
            rows.recovery_candidates
                .insert(key, current_closure.clone());
        }
        Effect::ReplaceBlocks {
            rollout_id,
            wave,
            gate,
            holds,
        } => {
            let change = BlockChange {
                holds: holds.clone(),
                stamp: stamp.clone(),
            };
            rows.blocks
                .insert((rollout_id.clone(), *wave, *gate), change);
        }
        // The next records state the same.
        Effect::RecordTransition { .. } | Effect::RecordRolloutTransition { .. } => {}
        Effect::UpdateCurrentWave { .. } | Effect::HaltLifted { .. } => {}
    }
}

#[cfg(test)]
mod tests;
