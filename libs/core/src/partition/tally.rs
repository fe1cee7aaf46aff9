//! Counters over the hosts of a rollout, so that waves, halts and the end are known without a walk.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_proto::{HostState, Hostname, Pinned};

use super::HostEntry;

/// Derived from the hosts and the waivers of a rollout.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    by_state: BTreeMap<HostState, u64>,
    progress: Progress,
    halting: BTreeSet<Hostname>,
}

/// What is left to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Staged hosts that are neither Converged nor waived.
    unconverged: u64,
    /// Hosts that are not done, for every wave that has hosts.
    unfinished: BTreeMap<u32, u64>,
}

impl Progress {
    /// True when nothing keeps the rollout from Terminal.
    pub fn is_complete(&self) -> bool {
        self.unconverged == 0
    }

    /// True when every host of the wave is done; a wave without hosts is.
    pub fn is_wave_done(&self, wave: u32) -> bool {
        self.unfinished.get(&wave).is_none_or(|left| *left == 0)
    }

    /// The first wave with hosts above `wave`.
    pub fn next_wave(&self, wave: u32) -> Option<u32> {
        let above = wave.checked_add(1)?;
        self.unfinished.range(above..).next().map(|(next, _)| *next)
    }

    /// Where a rollout starts: every host is Pending.
    pub(super) fn pending(pinned: &Pinned) -> Self {
        let mut progress = Self::default();
        for host in pinned.host_set.iter().filter(|host| host.staged) {
            progress.unconverged += 1;
            *progress.unfinished.entry(host.wave_index).or_default() += 1;
        }
        progress
    }

    /// The same after a host that is not waived went from one state to another.
    pub(super) fn after(&self, host: &HostEntry, to: HostState) -> Self {
        let mut progress = self.clone();
        progress.count(host, host.record.state, Change::Leave);
        progress.count(host, to, Change::Enter);
        progress
    }

    fn count(&mut self, host: &HostEntry, state: HostState, change: Change) {
        if !host.staged {
            return;
        }
        if state != HostState::Converged {
            change.apply(&mut self.unconverged);
        }
        let unfinished = self.unfinished.entry(host.wave).or_default();
        if !state.is_done() {
            change.apply(unfinished);
        }
    }
}

impl Tally {
    /// Counts from scratch.
    pub(super) fn of(hosts: &BTreeMap<Hostname, HostEntry>, waived: &BTreeSet<Hostname>) -> Self {
        let mut tally = Self::default();
        for (hostname, host) in hosts {
            tally.enter(hostname, host, waived.contains(hostname));
        }
        tally
    }

    /// How many hosts are in each state; a state without hosts may be absent.
    pub fn by_state(&self) -> &BTreeMap<HostState, u64> {
        &self.by_state
    }

    /// What is left to do.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Failed hosts that are not waived. A Reverted host halts through the rollout's own state,
    /// which a clearance lifts.
    pub fn halting(&self) -> &BTreeSet<Hostname> {
        &self.halting
    }

    pub(super) fn enter(&mut self, hostname: &Hostname, host: &HostEntry, waived: bool) {
        let state = host.record.state;
        Change::Enter.apply(self.by_state.entry(state).or_default());
        if waived {
            // The wave still has hosts, although nothing of them is left to do.
            if host.staged {
                self.progress.unfinished.entry(host.wave).or_default();
            }
            return;
        }
        self.progress.count(host, state, Change::Enter);
        if state == HostState::Failed {
            self.halting.insert(hostname.clone());
        }
    }

    pub(super) fn leave(&mut self, hostname: &Hostname, host: &HostEntry, waived: bool) {
        let state = host.record.state;
        Change::Leave.apply(self.by_state.entry(state).or_default());
        self.by_state.retain(|_, count| *count > 0);
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
            // Only what entered before leaves, so the count is above zero.
            Self::Leave => count.saturating_sub(1),
        };
    }
}
