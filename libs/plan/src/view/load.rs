//! Building the view from rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use nixfleet_proto::snapshot::{HostRow, PartitionSnapshot, ProbeFailureRow};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Hostname, Pinned, Position, RolloutId, RolloutRecord, RolloutState};

use super::host::{HostView, Indexed, UNKNOWN_WAVE};
use super::rollout::{Failures, RolloutView};
use super::{FleetView, PinnedSet};

/// Rows that do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A rollout was opened with a manifest that was not supplied.
    #[error("manifest {manifest_hash} of rollout {rollout_id} is missing")]
    ManifestMissing {
        /// The rollout.
        rollout_id: RolloutId,
        /// Its manifest.
        manifest_hash: nixfleet_proto::ManifestHash,
    },
    /// A row names a rollout that has no row.
    #[error("a row names rollout {rollout_id}, which has no row")]
    RolloutMissing {
        /// The rollout.
        rollout_id: RolloutId,
    },
}

impl FleetView {
    /// Adds everything one partition holds; `pinned` is asked for what rows do not hold themselves.
    /// Each partition may be loaded once.
    ///
    /// # Errors
    /// When a manifest is missing or a row names an unknown rollout.
    pub fn load(
        &mut self,
        partition: Partition,
        snapshot: PartitionSnapshot,
        pinned: &PinnedSet,
    ) -> Result<(), LoadError> {
        if let Some(cursor) = &snapshot.cursor {
            self.leader_epochs.insert(partition, cursor.leader_epoch);
        }
        for row in snapshot.quarantines {
            let closures = self.quarantines.entry(row.channel).or_default();
            closures.insert(row.closure_hash, row.position);
        }
        for row in snapshot.rollouts {
            let named = || {
                pinned
                    .get(&row.manifest_hash)
                    .map(|m| Arc::clone(&m.pinned))
            };
            let Some(pinned) = row.pinned.or_else(named) else {
                return Err(LoadError::ManifestMissing {
                    rollout_id: row.record.rollout_id,
                    manifest_hash: row.manifest_hash,
                });
            };
            self.insert_rollout(row.record, pinned);
        }
        for row in snapshot.probe_failures {
            self.load_failure(row)?;
        }
        for row in snapshot.blocks {
            let rollout = self.rollouts.get_mut(&row.rollout_id);
            let rollout = rollout.ok_or(LoadError::RolloutMissing {
                rollout_id: row.rollout_id,
            })?;
            if !row.holds.is_empty() {
                rollout.blocks.insert((row.wave, row.gate), row.holds);
            }
        }
        self.load_hosts(snapshot.hosts)
    }

    fn load_failure(&mut self, row: ProbeFailureRow) -> Result<(), LoadError> {
        let rollout = self.rollouts.get_mut(&row.rollout_id);
        let rollout = rollout.ok_or(LoadError::RolloutMissing {
            rollout_id: row.rollout_id,
        })?;
        let probes = rollout.failures.entry(row.hostname).or_default();
        let failures = probes.entry(row.probe_name).or_insert_with(|| Failures {
            position: row.position,
            controls: std::collections::BTreeSet::new(),
        });
        failures.controls.insert(row.control);
        Ok(())
    }

    fn load_hosts(&mut self, rows: Vec<HostRow>) -> Result<(), LoadError> {
        let mut places: BTreeMap<RolloutId, Places> = BTreeMap::new();
        let mut loaded = Vec::with_capacity(rows.len());
        for row in rows {
            let rollout_id = row.record.rollout_id.clone();
            let Some(rollout) = self.rollouts.get_mut(&rollout_id) else {
                return Err(LoadError::RolloutMissing { rollout_id });
            };
            if rollout.record.state == RolloutState::Pruned {
                continue;
            }
            let places = places
                .entry(rollout_id.clone())
                .or_insert_with(|| Places::of(rollout));
            let hostname = row.record.hostname.clone();
            rollout.add_host(row, places);
            let presence = self.presences.entry(hostname.clone()).or_default();
            presence.rollouts.push(rollout_id.clone());
            loaded.push((rollout_id, hostname));
        }
        for (rollout_id, hostname) in loaded {
            self.refresh_host(&rollout_id, &hostname);
        }
        Ok(())
    }

    /// Adds a rollout without hosts; budgets are counted while it is open.
    pub(crate) fn insert_rollout(&mut self, record: RolloutRecord, pinned: Arc<Pinned>) {
        let rollout_id = record.rollout_id.clone();
        let mut rollout = RolloutView::new(record, pinned);
        if rollout.is_open() {
            for place in 0..rollout.pinned.disruption_budgets.len() {
                let id = self
                    .budgets
                    .enlist(&rollout.pinned, place, &mut self.presences);
                rollout.budgets.push(id);
            }
        }
        self.note_superseded(&rollout.record);
        self.rollouts.insert(rollout_id, rollout);
    }

    /// Adds the fresh records of a rollout that just opened.
    pub(crate) fn open_hosts(&mut self, rollout_id: &RolloutId, position: Position) {
        let Some(rollout) = self.rollouts.get(rollout_id) else {
            return;
        };
        let opened_at = rollout.record.opened_at;
        let pinned = Arc::clone(&rollout.pinned);
        let rows = pinned
            .pending_hosts(rollout_id, opened_at)
            .map(|record| HostRow {
                record,
                queued_at: None,
                recovery_candidate: None,
                position,
            });
        self.load_hosts(rows.collect())
            .expect("the rollout was inserted just before");
    }

    pub(crate) fn note_superseded(&mut self, record: &RolloutRecord) {
        let Some(at) = record.superseded_at else {
            return;
        };
        let key = (at, record.rollout_id.clone());
        if record.state == RolloutState::Superseded {
            self.superseded.insert(key);
        } else {
            self.superseded.remove(&key);
        }
    }
}

/// Wave, staged flag and membership of every pinned host, while hosts are being added.
struct Places(BTreeMap<Hostname, Place>);

#[derive(Clone, Copy)]
struct Place {
    wave: u32,
    staged: bool,
    membership: u32,
}

impl Places {
    /// Reads the pinned set and numbers the distinct sets of budgets its hosts are on.
    fn of(rollout: &mut RolloutView) -> Self {
        let mut budgets_of: BTreeMap<&Hostname, Vec<usize>> = BTreeMap::new();
        for (place, budget) in rollout.pinned.disruption_budgets.iter().enumerate() {
            for hostname in &budget.hosts {
                let places = budgets_of.entry(hostname).or_default();
                if places.last() != Some(&place) {
                    places.push(place);
                }
            }
        }
        let mut numbers: BTreeMap<Vec<usize>, u32> = BTreeMap::new();
        let mut places = BTreeMap::new();
        for host in &rollout.pinned.host_set {
            let budgets = budgets_of.remove(&host.hostname).unwrap_or_default();
            let next = numbers.len() as u32;
            let membership = *numbers.entry(budgets).or_insert(next);
            let place = Place {
                wave: host.wave_index,
                staged: host.staged,
                membership,
            };
            places.insert(host.hostname.clone(), place);
        }
        let mut memberships = vec![Vec::new(); numbers.len()];
        for (budgets, number) in numbers {
            memberships[number as usize] = budgets;
        }
        rollout.memberships = memberships;
        Self(places)
    }
}

impl RolloutView {
    fn add_host(&mut self, row: HostRow, places: &Places) {
        let place = places.0.get(&row.record.hostname).copied();
        let place = place.unwrap_or(Place {
            wave: UNKNOWN_WAVE,
            staged: true,
            membership: u32::MAX,
        });
        let hostname = row.record.hostname.clone();
        let mut host = HostView {
            state: row.record.state,
            wave: place.wave,
            staged: place.staged,
            target_closure: row.record.target_closure.clone(),
            soak_minutes: row.record.soak_minutes,
            created_at: row.record.dispatched_at,
            queued: row.queued_at.is_some(),
            candidate: row.recovery_candidate,
            position: row.position,
            record: None,
            membership: place.membership,
            indexed: Indexed::default(),
        };
        host.update(&Arc::new(row.record), row.position);
        if host.queued {
            self.queued.insert(hostname.clone());
        }
        self.hosts.insert(hostname, host);
    }
}
