//! Restores the state of a partition from its rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use nixfleet_proto::snapshot::{HostRow, PartitionSnapshot, RolloutRow};
use nixfleet_proto::{Hostname, ManifestHash, RolloutId};

use super::host_counters::HostCounters;
use super::interning::ProbeListPool;
use super::{GateHolds, HostTable, PartitionState, PinnedSet, Rollout, RolloutHost};
use crate::host::Fault;
use crate::{host, rollout};

/// The rows are not the state of a partition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum RestoreError {
    #[error("manifest {manifest_hash} of rollout {rollout_id} is missing")]
    UnknownManifest {
        rollout_id: RolloutId,
        manifest_hash: ManifestHash,
    },
    #[error("a row names rollout {0}, which has no row")]
    UnknownRollout(RolloutId),
    #[error(
        "host {hostname} of rollout {rollout_id} is in the rows or in the manifest, not in both"
    )]
    UnknownHost {
        rollout_id: RolloutId,
        hostname: Hostname,
    },
    #[error("the record of rollout {rollout_id} is invalid")]
    InvalidRollout {
        rollout_id: RolloutId,
        #[source]
        fault: Fault,
    },
    #[error("the record of host {hostname} in rollout {rollout_id} is invalid")]
    InvalidHost {
        rollout_id: RolloutId,
        hostname: Hostname,
        #[source]
        fault: Fault,
    },
}

impl PartitionState {
    /// Restores the state. `pinned` supplies the manifests that the rows do not have.
    ///
    /// # Errors
    /// When a manifest is missing, or the rows contradict it, each other or the machines.
    pub fn restore(snapshot: PartitionSnapshot, pinned: &PinnedSet) -> Result<Self, RestoreError> {
        let mut state = Self::new();
        if let Some(cursor) = &snapshot.cursor {
            state.leader_epoch = cursor.leader_epoch;
            state.clock = cursor.clock;
        }
        for row in snapshot.rollouts {
            let rollout = restore_rollout(row, pinned)?;
            let rollout_id = rollout.record.rollout_id.clone();
            state.rollouts.insert(rollout_id, rollout);
        }
        restore_hosts(&mut state, snapshot.hosts)?;
        for row in snapshot.quarantines {
            let closures = state.quarantines.entry(row.channel).or_default();
            closures.insert(row.closure_hash, row.cause);
        }
        for row in snapshot.probe_failures {
            let rollout = rollout_mut(&mut state, &row.rollout_id)?;
            let host = rollout.hosts.get_mut(&row.hostname);
            let host = host.ok_or_else(|| unknown_host(&row.rollout_id, &row.hostname))?;
            host.add_failure(row.probe_name, row.control, row.cause);
        }
        for row in snapshot.blocks {
            let rollout = rollout_mut(&mut state, &row.rollout_id)?;
            let held = GateHolds {
                holds: row.holds,
                cause: row.cause,
            };
            rollout.blocks.insert((row.wave, row.gate), Arc::new(held));
        }
        for rollout in state.rollouts.values_mut() {
            rollout.counters = HostCounters::of(&rollout.hosts, &rollout.record.waived_hosts);
        }
        Ok(state)
    }
}

fn restore_rollout(row: RolloutRow, pinned: &PinnedSet) -> Result<Rollout, RestoreError> {
    let RolloutRow {
        record,
        manifest_hash,
        pinned: kept,
        position,
    } = row;
    let rollout_id = &record.rollout_id;
    rollout::validate(&record).map_err(|fault| RestoreError::InvalidRollout {
        rollout_id: rollout_id.clone(),
        fault,
    })?;
    let named = || pinned.get(&manifest_hash).map(|m| Arc::clone(&m.pinned));
    let pinned = kept
        .or_else(named)
        .ok_or_else(|| RestoreError::UnknownManifest {
            rollout_id: rollout_id.clone(),
            manifest_hash: manifest_hash.clone(),
        })?;
    Ok(Rollout {
        record,
        manifest_hash,
        pinned,
        position,
        hosts: HostTable::default(),
        blocks: BTreeMap::new(),
        probe_lists: ProbeListPool::default(),
        counters: HostCounters::default(),
    })
}

/// Joins host rows with the hosts of the manifest; both must name the same hosts.
fn restore_hosts(state: &mut PartitionState, rows: Vec<HostRow>) -> Result<(), RestoreError> {
    let mut by_rollout: BTreeMap<RolloutId, BTreeMap<Hostname, HostRow>> = BTreeMap::new();
    for row in rows {
        let rollout_id = row.record.rollout_id.clone();
        let hosts = by_rollout.entry(rollout_id).or_default();
        hosts.insert(row.record.hostname.clone(), row);
    }
    for (rollout_id, rows) in by_rollout {
        let rollout = rollout_mut(state, &rollout_id)?;
        rollout.hosts = join_hosts(rollout, rows)?;
    }
    for (rollout_id, rollout) in &state.rollouts {
        if let (true, Some(host)) = (rollout.hosts.is_empty(), rollout.pinned.host_set.first()) {
            return Err(unknown_host(rollout_id, &host.hostname));
        }
    }
    Ok(())
}

fn join_hosts(
    rollout: &mut Rollout,
    mut rows: BTreeMap<Hostname, HostRow>,
) -> Result<HostTable, RestoreError> {
    let rollout_id = &rollout.record.rollout_id;
    let mut hosts = Vec::with_capacity(rows.len());
    for host in &rollout.pinned.host_set {
        let hostname = &host.hostname;
        let row = rows
            .remove(hostname)
            .ok_or_else(|| unknown_host(rollout_id, hostname))?;
        host::validate(&row.record).map_err(|fault| RestoreError::InvalidHost {
            rollout_id: rollout_id.clone(),
            hostname: hostname.clone(),
            fault,
        })?;
        let mut record = Arc::unwrap_or_clone(row.record);
        record.hostname = hostname.clone();
        record.rollout_id = rollout.record.rollout_id.clone();
        record.channel = rollout.record.channel.clone();
        if record.target_closure == host.target_closure {
            record.target_closure = host.target_closure.clone();
        }
        rollout.probe_lists.intern(&mut record);
        let mut entry = RolloutHost {
            record: Arc::new(record),
            wave: host.wave_index,
            staged: host.staged,
            candidate: row.recovery_candidate.is_some(),
            position: row.position,
            outstanding: None,
        };
        entry.set_queued(row.queued);
        hosts.push(entry);
    }
    match rows.keys().next() {
        Some(hostname) => Err(unknown_host(rollout_id, hostname)),
        None => Ok(hosts.into_iter().collect()),
    }
}

fn unknown_host(rollout_id: &RolloutId, hostname: &Hostname) -> RestoreError {
    RestoreError::UnknownHost {
        rollout_id: rollout_id.clone(),
        hostname: hostname.clone(),
    }
}

fn rollout_mut<'a>(
    state: &'a mut PartitionState,
    rollout_id: &RolloutId,
) -> Result<&'a mut Rollout, RestoreError> {
    state
        .rollouts
        .get_mut(rollout_id)
        .ok_or_else(|| RestoreError::UnknownRollout(rollout_id.clone()))
}
