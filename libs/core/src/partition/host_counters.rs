//! Counters over the hosts of a rollout, which make a scan for waves, halts and the end unnecessary.

use std::collections::BTreeSet;

use nixfleet_proto::{HostState, Hostname, Pinned};

use super::{HostTable, RolloutHost};

/// Counters derived from the hosts and waivers of a rollout.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostCounters {
    by_state: [u64; HostState::ALL.len()],
    progress: RolloutProgress,
    halting: BTreeSet<Hostname>,
}

/// Hosts that the rollout still waits for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RolloutProgress {
    /// Staged hosts that are neither Converged nor waived.
    unconverged: u64,
    /// Every wave that has hosts, in order.
    waves: Vec<WaveCounter>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WaveCounter {
    wave: u32,
    unfinished: u64,
}

impl RolloutProgress {
    /// True when the rollout can become Terminal.
    pub fn is_complete(&self) -> bool {
        self.unconverged == 0
    }

    /// True when every host of the wave is done; a wave without hosts is.
    pub fn is_wave_done(&self, wave: u32) -> bool {
        let index = self.waves.binary_search_by_key(&wave, |of| of.wave);
        index.map_or(true, |index| self.waves[index].unfinished == 0)
    }

    /// The first wave with hosts above `wave`.
    pub fn next_wave(&self, wave: u32) -> Option<u32> {
        let above = self.waves.partition_point(|of| of.wave <= wave);
        self.waves.get(above).map(|of| of.wave)
    }

    /// The progress of a new rollout, with every host Pending.
    pub(super) fn pending(pinned: &Pinned) -> Self {
        let mut progress = Self::default();
        for host in pinned.host_set.iter().filter(|host| host.staged) {
            progress.unconverged += 1;
            *progress.unfinished_of(host.wave_index) += 1;
        }
        progress
    }

    /// The progress after a host that is not waived changed its state.
    pub(super) fn after(&self, host: &RolloutHost, to: HostState) -> Self {
        let mut progress = self.clone();
        progress.count(host, host.record.state, Change::Leave);
        progress.count(host, to, Change::Enter);
        progress
    }

    fn count(&mut self, host: &RolloutHost, state: HostState, change: Change) {
        if !host.staged {
            return;
        }
        if state != HostState::Converged {
            change.apply(&mut self.unconverged);
        }
        let unfinished = self.unfinished_of(host.wave);
        if !state.is_done() {
            change.apply(unfinished);
        }
    }

    fn unfinished_of(&mut self, wave: u32) -> &mut u64 {
        let index = self.waves.binary_search_by_key(&wave, |of| of.wave);
        let index = index.unwrap_or_else(|index| {
            let unfinished = 0;
            self.waves.insert(index, WaveCounter { wave, unfinished });
            index
        });
        &mut self.waves[index].unfinished
    }
}

impl HostCounters {
    /// Counts from scratch.
    pub(super) fn of(hosts: &HostTable, waived: &BTreeSet<Hostname>) -> Self {
        let mut counters = Self::default();
        for host in hosts.values() {
            let hostname = &host.record.hostname;
            counters.enter(hostname, host, waived.contains(hostname));
        }
        counters
    }

    /// Number of hosts in a state.
    pub fn in_state(&self, state: HostState) -> u64 {
        self.by_state[state as usize]
    }

    /// Hosts that the rollout still waits for.
    pub fn progress(&self) -> &RolloutProgress {
        &self.progress
    }

    /// Failed hosts that are not waived. A Reverted host halts through the rollout's own state,
    /// which a clearance lifts.
    pub fn halting(&self) -> &BTreeSet<Hostname> {
        &self.halting
    }

    pub(super) fn enter(&mut self, hostname: &Hostname, host: &RolloutHost, waived: bool) {
        let state = host.record.state;
        Change::Enter.apply(&mut self.by_state[state as usize]);
        if waived {
            // The wave still counts as one with hosts.
            if host.staged {
                self.progress.unfinished_of(host.wave);
            }
            return;
        }
        self.progress.count(host, state, Change::Enter);
        if state == HostState::Failed {
            self.halting.insert(hostname.clone());
        }
    }

    pub(super) fn leave(&mut self, hostname: &Hostname, host: &RolloutHost, waived: bool) {
        let state = host.record.state;
        Change::Leave.apply(&mut self.by_state[state as usize]);
        if waived {
            return;
        }
        self.progress.count(host, state, Change::Leave);
        self.halting.remove(hostname);
    }
}

#[derive(Clone, Copy)]
enum Change {
    Enter,
    Leave,
}

impl Change {
    fn apply(self, count: &mut u64) {
        *count = match self {
            Self::Enter => *count + 1,
            // Every leave follows an enter, so the count is above zero.
            Self::Leave => count.saturating_sub(1),
        };
    }
}
