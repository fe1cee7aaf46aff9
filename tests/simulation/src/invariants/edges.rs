//! No edge is bypassed: a host starts only when every channel before its own has finished the same release,
//! and every host before it is done.
//!
//! Source: docs/semantics.md, channel-edges and host-edge.

use std::collections::BTreeSet;

use nixfleet_proto::subject::Partition;
use nixfleet_proto::{ChannelName, Hostname, RolloutId};

use super::folded_entry::{CheckResult, FoldedEntry, is_done};

/// Hosts that were done in a rollout at any time.
#[derive(Debug)]
pub struct Edges {
    partitions: u16,
    done: BTreeSet<(RolloutId, Hostname)>,
}

impl Edges {
    /// No host is done yet.
    pub fn new(partitions: u16) -> Self {
        Self {
            partitions,
            done: BTreeSet::new(),
        }
    }

    /// Partitions of the fleet.
    pub fn partitions(&self) -> u16 {
        self.partitions
    }

    /// Checks an entry.
    ///
    /// # Errors
    /// Names the edge.
    pub fn check(&mut self, folded: FoldedEntry<'_>) -> CheckResult {
        self.record(folded);
        let Some(started) = folded.started_host() else {
            return Ok(());
        };
        let record = &started.host.record;
        let Some(release) = folded.release_of(&record.rollout_id) else {
            return Err(format!("{} belongs to no release", record.rollout_id));
        };
        let fleet = release.plan.fleet();
        for edge in fleet
            .channel_edges
            .iter()
            .filter(|e| e.gated == record.channel)
        {
            if let Some(before) = release.rollouts.get(&edge.gates)
                && !self.is_finished(folded, &edge.gates, before)
            {
                return Err(format!(
                    "{} in {} starts before {before} has finished",
                    record.hostname, record.rollout_id
                ));
            }
        }
        for edge in fleet.edges.iter().filter(|e| e.gated == record.hostname) {
            let same_channel = fleet
                .hosts
                .get(&edge.gates)
                .is_some_and(|host| host.channel == record.channel);
            let done = (record.rollout_id.clone(), edge.gates.clone());
            if same_channel && !self.done.contains(&done) {
                return Err(format!(
                    "{} in {} starts before {} is done",
                    record.hostname, record.rollout_id, edge.gates
                ));
            }
        }
        Ok(())
    }

    fn record(&mut self, folded: FoldedEntry<'_>) {
        let Some(accepted) = folded.accepted() else {
            return;
        };
        for record in &accepted.rollouts {
            if let Some(rollout) = folded.rollout(&record.rollout_id) {
                for hostname in &record.waived_hosts {
                    self.insert(rollout.record.rollout_id.clone(), hostname);
                }
            }
        }
        for record in &accepted.hosts {
            let rollout = folded.rollout(&record.rollout_id);
            if rollout.is_some_and(|rollout| is_done(rollout, &record.hostname)) {
                self.insert(record.rollout_id.clone(), &record.hostname);
            }
        }
    }

    fn insert(&mut self, rollout_id: RolloutId, hostname: &Hostname) {
        self.done.insert((rollout_id, hostname.clone()));
    }

    /// The rollout was Terminal at any time.
    fn is_finished(
        &self,
        folded: FoldedEntry<'_>,
        channel: &ChannelName,
        rollout_id: &RolloutId,
    ) -> bool {
        let partition = Partition::of(channel, self.partitions);
        let state = folded.reference.state(partition);
        let rollout = state.and_then(|state| state.rollout(rollout_id));
        rollout.is_some_and(|rollout| rollout.record.terminal_at.is_some())
    }
}
