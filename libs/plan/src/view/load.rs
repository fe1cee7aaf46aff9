//! Loads the view from rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use nixfleet_proto::snapshot::{HostRow, PartitionSnapshot, ProbeFailureRow};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Pinned, Position, RolloutId, RolloutRecord, RolloutState};

use super::host::{HostView, Indexed, is_kept};
use super::rollout::{Failures, HostContext, RolloutView};
use super::wave_and_budgets::{WaveAndBudgets, WavesAndBudgets};
use super::{FleetView, HostnameMap, PinnedSet};

/// The rows are inconsistent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum LoadError {
    #[error("manifest {manifest_hash} of rollout {rollout_id} is missing")]
    ManifestMissing {
        rollout_id: RolloutId,
        manifest_hash: nixfleet_proto::ManifestHash,
    },
    #[error("a row names rollout {rollout_id}, which has no row")]
    RolloutMissing { rollout_id: RolloutId },
}

impl FleetView {
    /// Adds the rows of one partition; `pinned` supplies the manifests that the rows do not have. Load each
    /// partition once.
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
            closures.insert(row.closure_hash, row.cause.position);
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
            position: row.cause.position,
            controls: std::collections::BTreeSet::new(),
        });
        failures.controls.insert(row.control);
        Ok(())
    }

    fn load_hosts(&mut self, rows: Vec<HostRow>) -> Result<(), LoadError> {
        let mut placements: BTreeMap<RolloutId, HostnameMap<WaveAndBudgets>> = BTreeMap::new();
        let mut loaded = Vec::with_capacity(rows.len());
        for row in rows {
            let rollout_id = row.record.rollout_id.clone();
            let Some(rollout) = self.rollouts.get_mut(&rollout_id) else {
                return Err(LoadError::RolloutMissing { rollout_id });
            };
            if rollout.record.state == RolloutState::Pruned {
                continue;
            }
            let placements = placements
                .entry(rollout_id.clone())
                .or_insert_with(|| rollout.placements_by_name());
            let hostname = row.record.hostname.clone();
            let placement = placements.get(&hostname).copied();
            rollout.add_host(row, placement.unwrap_or(WaveAndBudgets::UNKNOWN));
            self.presences
                .entry(hostname.clone())
                .or_default()
                .join(&rollout_id);
            loaded.push((rollout_id, hostname));
        }
        for (rollout_id, hostname) in loaded {
            self.refresh_host(&rollout_id, &hostname);
        }
        Ok(())
    }

    /// Adds a rollout without hosts, and counts its budgets while it is open.
    pub(crate) fn insert_rollout(&mut self, record: RolloutRecord, pinned: Arc<Pinned>) {
        let rollout_id = record.rollout_id.clone();
        let mut rollout = RolloutView::new(record, pinned);
        if rollout.is_open() {
            for place in 0..rollout.pinned.disruption_budgets.len() {
                let id = self
                    .budgets
                    .add_list(&rollout.pinned, place, &mut self.presences);
                rollout.budgets.push(id);
            }
        }
        self.note_superseded(&rollout.record);
        self.rollouts.insert(rollout_id, rollout);
    }

    pub(crate) fn open_hosts(&mut self, rollout_id: &RolloutId, position: Position) {
        let Some(rollout) = self.rollouts.get_mut(rollout_id) else {
            return;
        };
        let pinned = Arc::clone(&rollout.pinned);
        let count = pinned.host_set.len();
        let WavesAndBudgets { of, memberships } = WavesAndBudgets::of(&pinned);
        rollout.memberships = memberships;
        rollout.hosts.reserve(count);
        self.presences
            .reserve(count.saturating_sub(self.presences.len()));
        let closures = self.quarantines.get(&rollout.record.channel);
        let closures = closures.filter(|closures| !closures.is_empty());
        let release = self.release.as_ref();
        // Hosts with records in other rollouts, on which their being in flight depends.
        let mut elsewhere = Vec::new();
        let records = pinned.pending_hosts(rollout_id, rollout.record.opened_at);
        for (record, place) in records.zip(of) {
            let (hostname, target) = (record.hostname.clone(), record.target_closure.clone());
            let row = HostRow {
                record: Arc::new(record),
                queued: None,
                recovery_candidate: None,
                position,
            };
            let at = rollout.add_host(row, place);
            let presence = self.presences.entry(hostname.clone()).or_default();
            presence.join(rollout_id);
            if presence.rollouts.len() > 1 || presence.in_flight {
                elsewhere.push(hostname);
                continue;
            }
            let context = HostContext {
                quarantined: closures.is_some_and(|closures| closures.contains_key(&target)),
                gated: release.is_some_and(|release| !release.gating_hosts(&hostname).is_empty()),
                in_flight: false,
            };
            rollout.reindex_at(at, context);
        }
        for hostname in elsewhere {
            self.refresh_host(rollout_id, &hostname);
        }
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

impl RolloutView {
    fn placements_by_name(&mut self) -> HostnameMap<WaveAndBudgets> {
        let WavesAndBudgets { of, memberships } = WavesAndBudgets::of(&self.pinned);
        self.memberships = memberships;
        let names = self.pinned.host_set.iter();
        let names = names.map(|host| host.hostname.clone());
        names.zip(of).collect()
    }

    /// Adds a host to the table, but to no index; returns its position in the table.
    fn add_host(&mut self, row: HostRow, place: WaveAndBudgets) -> usize {
        let hostname = row.record.hostname.clone();
        if row.queued.is_some() {
            self.queued.insert(hostname.clone());
        }
        let host = HostView {
            state: row.record.state,
            wave: place.wave,
            staged: place.staged,
            target_closure: row.record.target_closure.clone(),
            soak_minutes: row.record.soak_minutes,
            created_at: row.record.dispatched_at,
            queued: row.queued.is_some(),
            candidate: row.recovery_candidate,
            position: row.position,
            record: is_kept(row.record.state).then_some(row.record),
            membership: place.membership,
            indexed: Indexed::default(),
        };
        self.hosts.insert_full(hostname, host).0
    }
}
