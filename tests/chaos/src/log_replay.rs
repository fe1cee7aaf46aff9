//! A replay of the input logs from their first entries, compared with the outcomes and the tables.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use nixfleet_bus::{Bus, ManifestStore};
use nixfleet_core::partition::{PartitionState, PinnedSet};
use nixfleet_harness::console_key;
use nixfleet_proto::record_deduplication::drop_repeated_records;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{EntryBody, ManifestHash, Outcome, PlanAction, Position};
use nixfleet_store::{DatabaseConfig, Store};
use nixfleet_trust::UnpinnedManifest;

use crate::partition_logs::PartitionLogs;

/// A partition after the replay.
pub struct Replayed {
    /// The partition.
    pub partition: Partition,
    /// Outcome of each entry.
    pub outcomes: BTreeMap<Position, Outcome>,
    /// State after the last entry.
    pub state: PartitionState,
    pinned: PinnedSet,
}

/// Folds every partition.
///
/// # Errors
/// When a manifest is not in the object store.
pub async fn fold(bus: &Bus, logs: &[PartitionLogs]) -> Result<Vec<Replayed>> {
    let store = bus.manifests();
    let keys = console_key::trusted()?;
    let mut all = Vec::new();
    for log in logs {
        let mut replayed = Replayed {
            partition: log.partition,
            outcomes: BTreeMap::new(),
            state: PartitionState::new(),
            pinned: PinnedSet::new(),
        };
        for (position, stored_at, entry) in log.entries() {
            if let EntryBody::Plan {
                action: PlanAction::OpenRollout { manifest_hash, .. },
                ..
            } = &entry.body
            {
                pin(&store, &mut replayed.pinned, manifest_hash).await?;
            }
            let mut entry = entry.clone();
            keys.check_entry(bus.names().prefix(), &mut entry);
            let outcome = replayed
                .state
                .apply(position, stored_at, &entry, &replayed.pinned);
            replayed.outcomes.insert(position, outcome);
        }
        all.push(replayed);
    }
    Ok(all)
}

async fn pin(store: &ManifestStore, pinned: &mut PinnedSet, hash: &ManifestHash) -> Result<()> {
    if pinned.contains_key(hash) {
        return Ok(());
    }
    let manifest = bytes(store, hash).await?;
    let unpinned = UnpinnedManifest::read(&manifest, hash)?;
    let fleet = bytes(store, unpinned.fleet_hash()).await?;
    pinned.insert(hash.clone(), unpinned.pin(&fleet)?);
    Ok(())
}

async fn bytes(store: &ManifestStore, hash: &ManifestHash) -> Result<Vec<u8>> {
    let found = store.get(hash).await?;
    let bytes = found.with_context(|| format!("the artifact {hash} is not in the object store"))?;
    Ok(bytes.to_vec())
}

/// Differences between published and replayed outcomes: each entry has exactly one, in order, and epochs
/// never fall.
pub fn against_output(log: &PartitionLogs, replayed: &Replayed) -> Vec<String> {
    let stream = &log.output_stream;
    let mut faults = Vec::new();
    let mut wanted = replayed.outcomes.values();
    let mut epoch = 0;
    for output in &log.outputs {
        if output.frame.epoch < epoch {
            faults.push(format!(
                "{stream} {}: epoch {} after {epoch}",
                output.seq, output.frame.epoch
            ));
        }
        epoch = epoch.max(output.frame.epoch);
        let published = &output.frame.outcomes;
        let mut folded: Vec<Outcome> = wanted.by_ref().take(published.len()).cloned().collect();
        drop_repeated_records(&mut folded);
        for outcome in published.iter().skip(folded.len()) {
            let position = outcome.position;
            faults.push(format!(
                "{stream} {}: an outcome too many, for {position:?}",
                output.seq
            ));
        }
        for (outcome, folded) in published.iter().zip(&folded) {
            if outcome != folded {
                let position = folded.position;
                faults.push(format!(
                    "{stream} {}: published {outcome:?}, the fold of {position:?} gives {folded:?}",
                    output.seq
                ));
            }
        }
    }
    let missing = wanted.count();
    if missing > 0 {
        faults.push(format!("{stream}: {missing} entries have no outcome"));
    }
    faults
}

/// Differences between the tables and the replayed state.
///
/// # Errors
/// When the database does not answer.
pub async fn against_tables(database_url: &str, replayed: &[Replayed]) -> Result<Vec<String>> {
    let store = Store::connect(&DatabaseConfig {
        url: database_url.to_owned(),
        ..DatabaseConfig::default()
    })?;
    let mut faults = Vec::new();
    for partition in replayed {
        let snapshot = store.load_partition(partition.partition).await?;
        match PartitionState::restore(snapshot, &partition.pinned) {
            Ok(rows) if rows == partition.state => {}
            Ok(rows) => faults.push(difference(partition, &rows)),
            Err(error) => faults.push(format!(
                "partition {}: {:#}",
                partition.partition,
                anyhow::Error::from(error)
            )),
        }
    }
    store.close();
    Ok(faults)
}

/// The first difference between two states.
fn difference(replayed: &Replayed, rows: &PartitionState) -> String {
    let partition = replayed.partition;
    let (folded, stored) = (replayed.state.rollouts(), rows.rollouts());
    for (id, rollout) in folded {
        let Some(other) = stored.get(id) else {
            return format!("partition {partition}: {id} has no row");
        };
        if rollout.record != other.record {
            return format!(
                "{id}: the log gives {:?}, the row has {:?}",
                rollout.record, other.record
            );
        }
        for (hostname, host) in rollout.hosts.keys().zip(rollout.hosts.values()) {
            if other.hosts.get(hostname) != Some(host) {
                return format!(
                    "{hostname} in {id}: the log gives {host:?}, the row has {:?}",
                    other.hosts.get(hostname)
                );
            }
        }
        if rollout != other {
            return format!("{id}: failures, holds or positions differ");
        }
    }
    if let Some(id) = stored.keys().find(|id| !folded.contains_key(*id)) {
        return format!("partition {partition}: {id} has a row and is not in the log");
    }
    format!(
        "partition {partition}: the log gives epoch {}, clock {:?}, quarantines {:?}; the rows have \
         {}, {:?}, {:?}",
        replayed.state.leader_epoch(),
        replayed.state.clock(),
        replayed.state.quarantines(),
        rows.leader_epoch(),
        rows.clock(),
        rows.quarantines()
    )
}
