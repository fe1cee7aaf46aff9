//! The queue of dispatches that agents have not fetched yet, by host.
//!
//! A plain value: rows come from the database and the output log, time is an argument. Fetching does
//! not remove a row; the fold does, when the host leaves Pending or the rollout ends.

use std::collections::BTreeMap;
use std::time::Duration;

use nixfleet_proto::effects_frame::OutcomeEffects;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{ClosureHash, Effect, Hostname, Minutes, RolloutId, Timestamp};
use tokio::time::Instant;

/// Pause before the same row is offered to the same host again; doubles up to [`PAUSE_MAX`], so that
/// a host that cannot act does not spin.
///
/// Source: docs/semantics.md, dispatch delivery.
const PAUSE_MIN: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedDispatch {
    pub rollout_id: RolloutId,
    pub hostname: Hostname,
    pub target_closure: ClosureHash,
    pub soak_minutes: Minutes,
    /// Fold time of the entry that queued it.
    pub enqueued_at: Timestamp,
}

#[derive(Debug)]
struct Row {
    partition: Partition,
    dispatch: QueuedDispatch,
    deliveries: u32,
    /// Not offered before.
    due: Instant,
}

#[derive(Debug, Default)]
pub struct DispatchQueue {
    hosts: BTreeMap<Hostname, BTreeMap<RolloutId, Row>>,
    rollouts: BTreeMap<RolloutId, std::collections::BTreeSet<Hostname>>,
}

/// What a host may do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// Fetch this.
    Now(QueuedDispatch),
    /// Ask again then.
    At(Instant),
    Nothing,
}

impl DispatchQueue {
    /// Replaces all rows of a partition. Rows that were there keep their pauses.
    pub fn load(&mut self, partition: Partition, rows: Vec<QueuedDispatch>, now: Instant) {
        let keys: std::collections::BTreeSet<_> = rows
            .iter()
            .map(|row| (row.hostname.clone(), row.rollout_id.clone()))
            .collect();
        let gone: Vec<_> = self
            .hosts
            .values()
            .flat_map(BTreeMap::values)
            .filter(|row| row.partition == partition)
            .map(|row| {
                (
                    row.dispatch.hostname.clone(),
                    row.dispatch.rollout_id.clone(),
                )
            })
            .filter(|key| !keys.contains(key))
            .collect();
        for (hostname, rollout_id) in gone {
            self.remove(&hostname, &rollout_id);
        }
        for row in rows {
            self.insert(partition, row, now);
        }
    }

    /// Follows one outcome; returns the hosts that have something new to fetch.
    pub fn follow(
        &mut self,
        partition: Partition,
        outcome: &OutcomeEffects,
        now: Instant,
    ) -> Vec<Hostname> {
        let mut wake = Vec::new();
        for effect in &outcome.accepted.effects {
            match effect {
                Effect::InsertDispatch {
                    rollout_id,
                    hostname,
                    target_closure,
                    soak_minutes,
                } => {
                    let dispatch = QueuedDispatch {
                        rollout_id: rollout_id.clone(),
                        hostname: hostname.clone(),
                        target_closure: target_closure.clone(),
                        soak_minutes: *soak_minutes,
                        enqueued_at: outcome.at,
                    };
                    self.insert(partition, dispatch, now);
                    wake.push(hostname.clone());
                }
                Effect::RemoveDispatch {
                    rollout_id,
                    hostname,
                } => self.remove(hostname, rollout_id),
                Effect::CancelDispatches { rollout_id } => self.cancel(rollout_id),
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
        wake
    }

    /// What `hostname` may fetch; the newest dispatch first, because older ones may be outdated.
    /// An offer of [`Offer::Now`] counts as a delivery.
    pub fn fetch(&mut self, hostname: &Hostname, now: Instant) -> Offer {
        let Some(rows) = self.hosts.get_mut(hostname) else {
            return Offer::Nothing;
        };
        let due = rows
            .values_mut()
            .filter(|row| row.due <= now)
            .max_by_key(|row| row.dispatch.enqueued_at);
        if let Some(row) = due {
            row.due = now + pause(row.deliveries);
            row.deliveries = row.deliveries.saturating_add(1);
            return Offer::Now(row.dispatch.clone());
        }
        match rows.values().map(|row| row.due).min() {
            Some(due) => Offer::At(due),
            None => Offer::Nothing,
        }
    }

    pub fn len(&self) -> usize {
        self.rollouts
            .values()
            .map(std::collections::BTreeSet::len)
            .sum()
    }

    fn insert(&mut self, partition: Partition, dispatch: QueuedDispatch, now: Instant) {
        let rows = self.hosts.entry(dispatch.hostname.clone()).or_default();
        if rows
            .get(&dispatch.rollout_id)
            .is_some_and(|row| row.dispatch == dispatch)
        {
            return;
        }
        let rollout = self.rollouts.entry(dispatch.rollout_id.clone());
        rollout.or_default().insert(dispatch.hostname.clone());
        let row = Row {
            partition,
            deliveries: 0,
            due: now,
            dispatch,
        };
        rows.insert(row.dispatch.rollout_id.clone(), row);
    }

    fn remove(&mut self, hostname: &Hostname, rollout_id: &RolloutId) {
        if let Some(rows) = self.hosts.get_mut(hostname) {
            rows.remove(rollout_id);
            if rows.is_empty() {
                self.hosts.remove(hostname);
            }
        }
        if let Some(hosts) = self.rollouts.get_mut(rollout_id) {
            hosts.remove(hostname);
            if hosts.is_empty() {
                self.rollouts.remove(rollout_id);
            }
        }
    }

    fn cancel(&mut self, rollout_id: &RolloutId) {
        for hostname in self.rollouts.remove(rollout_id).unwrap_or_default() {
            self.remove(&hostname, rollout_id);
        }
    }
}

fn pause(deliveries: u32) -> Duration {
    PAUSE_MIN
        .saturating_mul(2_u32.saturating_pow(deliveries))
        .min(PAUSE_MAX)
}

#[cfg(test)]
mod tests;
