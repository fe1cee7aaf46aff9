//! State of the hosts, the tables and the archive at one time.

mod tables;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use nixfleet_swarm::swarm_state::SwarmState;

pub use tables::{ArchiveCounts, HostRow, RolloutRow};

use crate::database;

/// A consistent observation of hosts, tables and archive.
#[derive(Debug)]
pub struct ObservedState {
    /// The hosts' own view.
    pub swarm: SwarmState,
    /// Host records by rollout and host.
    pub hosts: BTreeMap<(String, String), HostRow>,
    /// Rollouts by id.
    pub rollouts: BTreeMap<String, RolloutRow>,
    /// Quarantined closures, as `channel closure`.
    pub quarantines: Vec<String>,
    /// Dispatches still queued.
    pub queued: i64,
    /// The archive.
    pub archive: ArchiveCounts,
    /// Messages that could not be read.
    pub dead_letters: i64,
}

/// Reads the database at `url`. The hosts' state has to be read first: every event with a 2xx response is
/// in the log by then, and soon in the tables.
///
/// # Errors
/// When the database is unreachable.
pub async fn observe(url: &str, swarm: SwarmState) -> Result<ObservedState> {
    let undecodable = "SELECT count(*) FROM event_log WHERE kind IN ('dead-letter', 'undecodable')";
    Ok(ObservedState {
        swarm,
        hosts: tables::hosts(url).await?,
        rollouts: tables::rollouts(url).await?,
        quarantines: database::quarantines(url).await?,
        queued: tables::count(url, "SELECT count(*) FROM dispatch_queue").await?,
        archive: tables::archive(url).await?,
        dead_letters: tables::count(url, undecodable).await?,
    })
}

impl ObservedState {
    /// True when no event or dispatch is in transit between the hosts, the tables and the archive.
    pub fn is_quiescent(&self) -> bool {
        self.swarm.totals.pending_events == 0
            && self.archive.entries == self.archive.outcomes
            && self.missing_in_archive().is_empty()
            && self.differences().is_empty()
    }

    /// Rollouts that are neither superseded nor pruned.
    pub fn current_rollouts(&self) -> BTreeSet<&str> {
        self.rollouts
            .iter()
            .filter(|(_, row)| !matches!(row.state.as_str(), "Superseded" | "Pruned"))
            .map(|(rollout_id, _)| rollout_id.as_str())
            .collect()
    }

    /// Differences between hosts and tables, one line each.
    pub fn differences(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (hostname, host) in &self.swarm.hosts {
            for (rollout_id, own) in &host.rollouts {
                let key = (rollout_id.to_string(), hostname.to_string());
                match self.hosts.get(&key) {
                    None => lines.push(format!("{hostname} in {rollout_id}: no row")),
                    // The host stopped looking at a rollout that a newer dispatch replaced.
                    Some(_) if own.replaced => {}
                    Some(row) => {
                        if row.state != own.state.name() {
                            lines.push(format!(
                                "{hostname} in {rollout_id}: the host is {}, the row has {}",
                                own.state.name(),
                                row.state
                            ));
                        }
                    }
                }
            }
        }
        let current = self.current_rollouts();
        for ((rollout_id, hostname), row) in &self.hosts {
            if !current.contains(rollout_id.as_str()) {
                continue;
            }
            let runs = self
                .swarm
                .hosts
                .iter()
                .find(|(name, _)| name.as_str() == hostname)
                .map(|(_, host)| host.current_closure.to_string());
            if runs.as_ref() != Some(&row.target_closure) || row.current_closure != runs {
                lines.push(format!(
                    "{hostname} in {rollout_id}: runs {runs:?}, the row has {:?}, its target is {}",
                    row.current_closure, row.target_closure
                ));
            }
        }
        lines
    }

    /// Events with a 2xx response that are missing in the archive, one line per host.
    pub fn missing_in_archive(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (hostname, host) in &self.swarm.hosts {
            for (rollout_id, own) in &host.rollouts {
                let key = (rollout_id.to_string(), hostname.to_string());
                let archived = self.archive.events.get(&key).copied().unwrap_or(0);
                if archived < own.accepted_events {
                    lines.push(format!(
                        "{hostname} in {rollout_id}: {} accepted, {archived} archived",
                        own.accepted_events
                    ));
                }
            }
        }
        lines
    }
}
