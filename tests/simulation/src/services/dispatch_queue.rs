//! Queued dispatches as a gateway knows them: rows from the database, then outcomes from the log.

use std::collections::BTreeMap;
use std::time::Duration;

use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Decision, Effect, Hostname, Outcome, RolloutId};

use crate::engine::Time;
use crate::simulated_servers::DispatchRow;

/// Pause until the same dispatch is offered again; doubles.
const PAUSE: Duration = Duration::from_secs(60);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// Every queued dispatch.
#[derive(Debug, Default)]
pub struct DispatchQueue {
    rows: BTreeMap<(Hostname, RolloutId), Row>,
}

#[derive(Debug)]
struct Row {
    partition: Partition,
    dispatch: DispatchRow,
    pause: Duration,
    due: Time,
}

impl DispatchQueue {
    /// Replaces the dispatches of a partition; unchanged ones keep their pauses.
    pub fn load(&mut self, partition: Partition, rows: Vec<DispatchRow>) {
        self.rows
            .retain(|_, row| row.partition != partition || rows.contains(&row.dispatch));
        for row in rows {
            self.insert(partition, row);
        }
    }

    fn insert(&mut self, partition: Partition, dispatch: DispatchRow) {
        let key = (dispatch.hostname.clone(), dispatch.rollout_id.clone());
        if self
            .rows
            .get(&key)
            .is_some_and(|row| row.dispatch == dispatch)
        {
            return;
        }
        let row = Row {
            partition,
            dispatch,
            pause: PAUSE,
            due: Time::ZERO,
        };
        self.rows.insert(key, row);
    }

    /// Applies an outcome.
    pub fn follow(&mut self, partition: Partition, outcome: &Outcome) {
        let Decision::Accepted(accepted) = &outcome.decision else {
            return;
        };
        for effect in &accepted.effects {
            match effect {
                Effect::InsertDispatch {
                    rollout_id,
                    hostname,
                    target_closure,
                    soak_minutes,
                } => self.insert(
                    partition,
                    DispatchRow {
                        rollout_id: rollout_id.clone(),
                        hostname: hostname.clone(),
                        target_closure: target_closure.clone(),
                        soak_minutes: *soak_minutes,
                        enqueued_at: outcome.at,
                    },
                ),
                Effect::RemoveDispatch {
                    rollout_id,
                    hostname,
                } => {
                    self.rows.remove(&(hostname.clone(), rollout_id.clone()));
                }
                Effect::CancelDispatches { rollout_id } => {
                    self.rows.retain(|(_, id), _| id != rollout_id);
                }
                Effect::ReplaceProbeFailures { .. }
                | Effect::InsertQuarantine { .. }
                | Effect::RemoveQuarantine { .. }
                | Effect::SetRecoveryCandidate { .. }
                | Effect::RecordTransition { .. }
                | Effect::RecordRolloutTransition { .. }
                | Effect::UpdateCurrentWave { .. }
                | Effect::HaltLifted { .. }
                | Effect::ReplaceBlocks { .. } => {}
            }
        }
    }

    /// The newest dispatch that may be offered to a host now; counts as an offer.
    pub fn fetch(&mut self, hostname: &Hostname, now: Time) -> Option<DispatchRow> {
        let of_host = self
            .rows
            .iter_mut()
            .filter(|((name, _), _)| name == hostname);
        let due = of_host.filter(|(_, row)| row.due <= now);
        let (_, row) = due.max_by_key(|(_, row)| row.dispatch.enqueued_at)?;
        row.due = now + row.pause;
        row.pause = (row.pause * 2).min(PAUSE_MAX);
        Some(row.dispatch.clone())
    }
}
