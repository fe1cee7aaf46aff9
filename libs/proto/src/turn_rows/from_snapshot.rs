//! Converts the rows of a partition into turns that write them to empty tables.
//!
//! The turns carry no trace contexts: the archive has those of every entry.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::RolloutId;
use crate::snapshot::{Cause, HostRow, PartitionSnapshot, RolloutRow};
use crate::turn_rows::{
    BlockChange, DispatchChange, FailureSet, HostChange, OpenedRollout, RolloutChange, Stamp,
    TurnRows,
};
use crate::{Position, Timestamp};

/// Hosts of one turn: bounds the size of a statement.
const HOSTS_MAX: usize = 5_000;
/// Failures and holds of one turn.
const ROWS_MAX: usize = 5_000;

/// All rows of the partition as turns, to be written in order to empty tables.
pub fn turns_from_snapshot(rows: &PartitionSnapshot) -> impl Iterator<Item = TurnRows> {
    let openings = Openings::of(rows);
    let opened = rows.rollouts.iter().filter_map({
        let openings = openings.clone();
        move |row| opened(row, openings.of_rollout(&row.record.rollout_id))
    });
    let hosts = rows
        .hosts
        .chunks(HOSTS_MAX)
        .map(move |hosts| changes(hosts, &openings));
    std::iter::once(quarantines(rows))
        .chain(opened)
        .chain(hosts)
        .chain(failures(rows))
        .chain(rows.blocks.chunks(ROWS_MAX).map(|blocks| {
            let mut turn = TurnRows::default();
            for row in blocks {
                let change = BlockChange {
                    holds: row.holds.clone(),
                    stamp: stamp(row.cause),
                };
                let key = (row.rollout_id.clone(), row.wave, row.gate);
                turn.blocks.insert(key, change);
            }
            turn
        }))
}

/// The entries that opened the rollouts, with their fold times.
#[derive(Debug, Clone)]
struct Openings(Arc<BTreeMap<RolloutId, (Position, Timestamp)>>);

impl Openings {
    /// The earliest position of a rollout and its hosts: no host changes before its rollout opens, and an
    /// unchanged host keeps the position of the opening.
    fn of(rows: &PartitionSnapshot) -> Self {
        let opened = rows.rollouts.iter().map(|row| {
            let record = &row.record;
            (record.rollout_id.clone(), (row.position, record.opened_at))
        });
        let mut openings: BTreeMap<_, _> = opened.collect();
        for host in &rows.hosts {
            if let Some((first, _)) = openings.get_mut(&host.record.rollout_id) {
                *first = (*first).min(host.position);
            }
        }
        Self(Arc::new(openings))
    }

    fn of_rollout(&self, rollout_id: &RolloutId) -> Option<Position> {
        self.0.get(rollout_id).map(|(position, _)| *position)
    }

    /// True for a host that has not changed since its rollout opened.
    fn is_unchanged(&self, host: &HostRow) -> bool {
        let record = &host.record;
        let opening = self.0.get(&record.rollout_id);
        record.state == crate::HostState::Pending
            && opening == Some(&(host.position, record.dispatched_at))
    }
}

fn stamp(cause: Cause) -> Stamp {
    stamp_at(cause.position, cause.at)
}

fn stamp_at(position: Position, at: Timestamp) -> Stamp {
    Stamp {
        position,
        at,
        traceparent: None,
    }
}

fn quarantines(rows: &PartitionSnapshot) -> TurnRows {
    let mut turn = TurnRows::default();
    for row in &rows.quarantines {
        let key = (row.channel.clone(), row.closure_hash.clone());
        turn.quarantines_inserted.insert(key, stamp(row.cause));
    }
    turn
}

/// A rollout with its hosts as they were when it opened.
fn opened(row: &RolloutRow, opening: Option<Position>) -> Option<TurnRows> {
    let mut turn = TurnRows::default();
    let record = &row.record;
    turn.opened.push(OpenedRollout {
        record: record.clone(),
        manifest_hash: row.manifest_hash.clone(),
        pinned: Arc::clone(row.pinned.as_ref()?),
        stamp: stamp_at(opening.unwrap_or(row.position), record.opened_at),
    });
    let last = RolloutChange {
        record: record.clone(),
        stamp: stamp_at(row.position, record.opened_at),
    };
    turn.rollouts.insert(record.rollout_id.clone(), last);
    Some(turn)
}

/// The changes of some hosts since the opening, and their dispatches.
fn changes(hosts: &[HostRow], openings: &Openings) -> TurnRows {
    let mut turn = TurnRows::default();
    for host in hosts {
        let record = &host.record;
        let key = (record.rollout_id.clone(), record.hostname.clone());
        if !openings.is_unchanged(host) {
            let change = HostChange {
                record: Arc::clone(record),
                stamp: stamp_at(host.position, record.dispatched_at),
            };
            turn.hosts.insert(key.clone(), change);
        }
        if let Some(closure) = &host.recovery_candidate {
            let candidate = Some(closure.clone());
            turn.recovery_candidates.insert(key.clone(), candidate);
        }
        if let Some(queued) = host.queued {
            let change = DispatchChange {
                target_closure: record.target_closure.clone(),
                soak_minutes: record.soak_minutes,
                stamp: stamp(queued),
            };
            turn.dispatches.insert(key, Some(change));
        }
    }
    turn
}

/// The failures of one probe stay in one turn: each replaces those before it.
fn failures(rows: &PartitionSnapshot) -> impl Iterator<Item = TurnRows> {
    let mut sets = BTreeMap::new();
    for row in &rows.probe_failures {
        let key = (
            row.rollout_id.clone(),
            row.hostname.clone(),
            row.probe_name.clone(),
        );
        let set = sets.entry(key).or_insert_with(|| FailureSet {
            failures: Vec::new(),
            observed_at: row.cause.at,
            stamp: stamp(row.cause),
        });
        set.failures.push(row.control.clone());
    }
    let mut sets = sets.into_iter();
    std::iter::from_fn(move || {
        let turn = TurnRows {
            probe_failures: sets.by_ref().take(ROWS_MAX).collect(),
            ..TurnRows::default()
        };
        (!turn.is_empty()).then_some(turn)
    })
}
