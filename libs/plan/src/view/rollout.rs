//! The planner's view of one rollout, with its indices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use nixfleet_proto::host::FailedControl;
use nixfleet_proto::{
    ClosureHash, Gate, Hold, HostState, Hostname, Pinned, Position, ProbeName, RolloutRecord,
    RolloutState, Timestamp,
};

use super::budget_counts::BudgetId;
use super::host::{GroupKey, HostView, Indexed, Slot, completes_at};
use super::hostname_maps::{HostList, HostViews};

/// One rollout.
#[derive(Debug, Clone)]
pub struct RolloutView {
    /// Its record.
    pub record: RolloutRecord,
    /// The pinned terms.
    pub pinned: Arc<Pinned>,
    pub(crate) hosts: HostViews,
    /// Outstanding failures with the entry that reported them.
    pub(crate) failures: BTreeMap<Hostname, BTreeMap<ProbeName, Failures>>,
    /// Holds recorded in the log.
    pub(crate) blocks: BTreeMap<(u32, Gate), Vec<Hold>>,
    /// Pinned hosts by target closure, sorted. Built lazily, when the first closure of the rollout is
    /// quarantined: most rollouts never need it.
    pub(crate) by_target: OnceLock<Vec<(ClosureHash, Hostname)>>,
    /// Counted lists of the pinned budgets, in pinned order; empty once nothing is dispatched.
    pub(crate) budgets: Vec<BudgetId>,
    /// Distinct sets of budgets, as indices into the pinned budgets.
    pub(crate) memberships: Vec<Vec<usize>>,
    pub(crate) waves: BTreeMap<u32, WaveIndex>,
    /// Failed hosts that are not waived.
    pub(crate) failed: BTreeSet<Hostname>,
    /// Reverted hosts that are not waived.
    pub(crate) reverted: BTreeSet<Hostname>,
    /// Hosts whose claim completes at a time.
    pub(crate) due: BTreeSet<(Timestamp, Hostname)>,
    pub(crate) queued: BTreeSet<Hostname>,
    pub(crate) pending: PendingActions,
}

/// Outstanding failing controls of one probe.
#[derive(Debug, Clone)]
pub(crate) struct Failures {
    pub position: Position,
    pub controls: BTreeSet<FailedControl>,
}

/// Actions in the log without an outcome so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct PendingActions {
    pub advance: Option<u32>,
    pub dispatched: HostList,
    pub unchanged: BTreeSet<Hostname>,
    pub soaked: BTreeSet<Hostname>,
    pub expired: bool,
    pub blocks: BTreeMap<(u32, Gate), Vec<Hold>>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct WaveIndex {
    /// Staged hosts of the pinned set.
    pub staged: usize,
    /// Those of them that are done.
    pub done: usize,
    /// Outstanding failures of staged hosts that are not waived, by host.
    pub failing: BTreeMap<Hostname, usize>,
    pub failures: usize,
    pub groups: BTreeMap<GroupKey, BTreeSet<Hostname>>,
    pub singles: BTreeSet<Hostname>,
    pub candidates: BTreeSet<Hostname>,
}

/// Fleet-wide facts about a host that its index slot depends on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HostContext {
    /// The target closure is quarantined on the channel.
    pub quarantined: bool,
    /// The current release has a host edge onto it.
    pub gated: bool,
    /// It is in flight for another rollout.
    pub in_flight: bool,
}

impl RolloutView {
    pub(crate) fn new(record: RolloutRecord, pinned: Arc<Pinned>) -> Self {
        let mut waves: BTreeMap<u32, WaveIndex> = BTreeMap::new();
        for host in pinned.host_set.iter().filter(|host| host.staged) {
            waves.entry(host.wave_index).or_default().staged += 1;
        }
        Self {
            record,
            pinned,
            hosts: HostViews::default(),
            failures: BTreeMap::new(),
            blocks: BTreeMap::new(),
            by_target: OnceLock::new(),
            budgets: Vec::new(),
            memberships: Vec::new(),
            waves,
            failed: BTreeSet::new(),
            reverted: BTreeSet::new(),
            due: BTreeSet::new(),
            queued: BTreeSet::new(),
            pending: PendingActions::default(),
        }
    }

    /// The hosts with a record, in no particular order.
    pub fn hosts(&self) -> &HostViews {
        &self.hosts
    }

    /// The wave that may be dispatched, including a pending advance.
    pub fn cursor(&self) -> u32 {
        let advanced = self.pending.advance.unwrap_or(0);
        self.record.current_wave.max(advanced)
    }

    /// Recorded holds, including pending updates.
    pub fn stated_holds(&self, wave: u32, gate: Gate) -> &[Hold] {
        let key = (wave, gate);
        let stated = self.pending.blocks.get(&key).or(self.blocks.get(&key));
        stated.map_or(&[], Vec::as_slice)
    }

    /// True while hosts may be planned or held: neither Superseded nor Pruned.
    pub fn is_open(&self) -> bool {
        match self.record.state {
            RolloutState::Opening
            | RolloutState::Active
            | RolloutState::Converging
            | RolloutState::Terminal
            | RolloutState::Failed
            | RolloutState::Reverted => true,
            RolloutState::Superseded | RolloutState::Pruned => false,
        }
    }

    /// True when a dispatch of the host is queued or pending.
    pub fn is_dispatched(&self, hostname: &Hostname) -> bool {
        let host = self.hosts.get(hostname);
        host.is_some_and(|host| self.has_dispatch(hostname, host))
    }

    /// Like [`RolloutView::is_dispatched`], for a known host.
    pub(crate) fn has_dispatch(&self, hostname: &Hostname, host: &HostView) -> bool {
        self.is_open() && (host.queued || self.pending.dispatched.contains(hostname))
    }

    /// True when the wave no longer waits for the host.
    pub fn is_done(&self, hostname: &Hostname) -> bool {
        let record = self.hosts.get(hostname);
        record.is_some_and(|host| host.state.is_done()) || self.is_waived(hostname)
    }

    /// True when an operator waived the host.
    pub fn is_waived(&self, hostname: &Hostname) -> bool {
        self.record.waived_hosts.contains(hostname)
    }

    /// True when no host may start: a host that is not waived is Failed, or the rollout is Failed or
    /// Reverted. A Reverted host halts the rollout through the state of the rollout, which a clearance
    /// lifts.
    pub fn is_halted(&self) -> bool {
        !self.failed.is_empty() || self.record.state.is_halted()
    }

    /// The first Failed or Reverted host by name that is not waived.
    pub fn first_broken(&self) -> Option<(&Hostname, &HostView)> {
        let candidates = [self.failed.first(), self.reverted.first()];
        let hostname = candidates.into_iter().flatten().min()?;
        self.hosts.get_key_value(hostname)
    }

    /// The first non-empty wave after `wave`.
    pub(crate) fn wave_after(&self, wave: u32) -> Option<u32> {
        let after = wave.checked_add(1)?;
        let mut later = self.waves.range(after..);
        later.find(|(_, index)| index.staged > 0).map(|(n, _)| *n)
    }

    /// True when every staged host of the wave is done; an empty wave has nothing to wait for.
    pub(crate) fn is_wave_done(&self, wave: u32) -> bool {
        let index = self.waves.get(&wave);
        index.is_none_or(|index| index.done >= index.staged)
    }

    pub(crate) fn budgets_of(&self, host: &HostView) -> &[usize] {
        let budgets = self.memberships.get(host.membership as usize);
        budgets.map_or(&[], Vec::as_slice)
    }

    pub(crate) fn targeting(&self, closure: &ClosureHash) -> Vec<Hostname> {
        let by_target = self.by_target.get_or_init(|| by_target(&self.pinned));
        let from = by_target.partition_point(|(other, _)| other < closure);
        let same = by_target[from..].iter();
        same.take_while(|(other, _)| other == closure)
            .map(|(_, hostname)| hostname.clone())
            .collect()
    }

    pub(crate) fn reindex(&mut self, hostname: &Hostname, context: HostContext) {
        if let Some(index) = self.hosts.get_index_of(hostname) {
            self.reindex_at(index, context);
        }
    }

    pub(crate) fn reindex_at(&mut self, index: usize, context: HostContext) {
        let Some((hostname, host)) = self.hosts.get_index(index) else {
            return;
        };
        let next = self.index_entry(hostname, host, context);
        if next == host.indexed {
            return;
        }
        let (hostname, wave, before) = (hostname.clone(), host.wave, host.indexed.clone());
        self.remove_from_indices(&hostname, wave, &before);
        self.add_to_indices(&hostname, wave, &next);
        self.hosts[index].indexed = next;
    }

    fn index_entry(&self, hostname: &Hostname, host: &HostView, context: HostContext) -> Indexed {
        let waived = self.is_waived(hostname);
        let failures = if host.staged && !waived {
            let probes = self.failures.get(hostname);
            probes.map_or(0, |probes| probes.values().map(|f| f.controls.len()).sum())
        } else {
            0
        };
        Indexed {
            slot: self.slot(hostname, host, context),
            done: host.staged && (waived || host.state.is_done()),
            failed: host.state == HostState::Failed && !waived,
            reverted: host.state == HostState::Reverted && !waived,
            failures,
            due_at: host.record.as_deref().and_then(completes_at),
        }
    }

    fn slot(&self, hostname: &Hostname, host: &HostView, context: HostContext) -> Slot {
        if host.state != HostState::Pending || !self.is_open() {
            Slot::None
        } else if host.is_candidate() {
            Slot::Candidate
        } else if self.has_dispatch(hostname, host) {
            Slot::None
        } else if context.quarantined || context.gated {
            Slot::Single
        } else {
            Slot::Group(GroupKey {
                membership: host.membership,
                staged: host.staged,
                in_flight: context.in_flight,
            })
        }
    }

    fn remove_from_indices(&mut self, hostname: &Hostname, wave: u32, indexed: &Indexed) {
        let index = self.waves.entry(wave).or_default();
        match indexed.slot {
            Slot::None => {}
            Slot::Group(key) => {
                if let Some(group) = index.groups.get_mut(&key) {
                    group.remove(hostname);
                    if group.is_empty() {
                        index.groups.remove(&key);
                    }
                }
            }
            Slot::Single => {
                index.singles.remove(hostname);
            }
            Slot::Candidate => {
                index.candidates.remove(hostname);
            }
        }
        index.done -= usize::from(indexed.done);
        if indexed.failures > 0 {
            index.failing.remove(hostname);
            index.failures -= indexed.failures;
        }
        if indexed.failed {
            self.failed.remove(hostname);
        }
        if indexed.reverted {
            self.reverted.remove(hostname);
        }
        if let Some(due_at) = indexed.due_at {
            self.due.remove(&(due_at, hostname.clone()));
        }
    }

    fn add_to_indices(&mut self, hostname: &Hostname, wave: u32, indexed: &Indexed) {
        let index = self.waves.entry(wave).or_default();
        match indexed.slot {
            Slot::None => {}
            Slot::Group(key) => {
                let group = index.groups.entry(key).or_default();
                group.insert(hostname.clone());
            }
            Slot::Single => {
                index.singles.insert(hostname.clone());
            }
            Slot::Candidate => {
                index.candidates.insert(hostname.clone());
            }
        }
        index.done += usize::from(indexed.done);
        if indexed.failures > 0 {
            index.failing.insert(hostname.clone(), indexed.failures);
            index.failures += indexed.failures;
        }
        if indexed.failed {
            self.failed.insert(hostname.clone());
        }
        if indexed.reverted {
            self.reverted.insert(hostname.clone());
        }
        if let Some(due_at) = indexed.due_at {
            self.due.insert((due_at, hostname.clone()));
        }
    }
}

fn by_target(pinned: &Pinned) -> Vec<(ClosureHash, Hostname)> {
    let hosts = pinned.host_set.iter();
    let mut by_target: Vec<_> = hosts
        .map(|host| (host.target_closure.clone(), host.hostname.clone()))
        .collect();
    by_target.sort_unstable();
    by_target
}
