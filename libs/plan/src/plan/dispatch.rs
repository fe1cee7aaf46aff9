//! Recoveries and dispatches of the current rollouts. Checks hosts that are equal for every gate as one
//! group.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, btree_set};

use nixfleet_proto::{Gate, Hostname, PlanAction};

use super::plan_run::{Admitted, PlanRun};
use crate::gates::{self, Block, Candidate};
use crate::host_report::{BlockReport, HostReport};
use crate::view::{HostView, RolloutView, WaveIndex};

pub(super) struct HeldWave<'a> {
    pub rollout: &'a RolloutView,
    pub wave: u32,
    /// Pending hosts without a dispatch, after this run.
    pub members: usize,
    pub held: Vec<HeldHosts<'a>>,
    /// False when the run reached its limit before the last host.
    pub is_complete: bool,
}

pub(super) struct HeldHosts<'a> {
    hosts: HostSelection<'a>,
    pub blocks: Vec<Block>,
}

enum HostSelection<'a> {
    One(&'a Hostname),
    /// The hosts of a group from `from` on.
    Rest {
        group: &'a BTreeSet<Hostname>,
        from: &'a Hostname,
        count: usize,
    },
}

impl HeldHosts<'_> {
    pub fn count(&self) -> usize {
        match &self.hosts {
            HostSelection::One(_) => 1,
            HostSelection::Rest { count, .. } => *count,
        }
    }

    pub fn hostnames(&self) -> Box<dyn Iterator<Item = &Hostname> + '_> {
        match &self.hosts {
            HostSelection::One(hostname) => Box::new(std::iter::once(*hostname)),
            HostSelection::Rest { group, from, .. } => {
                Box::new(group.range::<Hostname, _>(*from..))
            }
        }
    }
}

/// Hosts of a wave in order: a group that is checked by its first host, or hosts that are checked one by one.
struct CandidateQueue<'a> {
    hosts: btree_set::Iter<'a, Hostname>,
    group: Option<&'a BTreeSet<Hostname>>,
    passed: usize,
}

pub(super) fn reports(waves: &[HeldWave<'_>]) -> Vec<HostReport> {
    let mut reports = Vec::new();
    for wave in waves {
        for held in &wave.held {
            let blocks: Vec<_> = held.blocks.iter().map(BlockReport::from).collect();
            reports.extend(held.hostnames().map(|hostname| HostReport {
                hostname: hostname.clone(),
                rollout_id: wave.rollout.record.rollout_id.clone(),
                blocks: blocks.clone(),
                waiting: Vec::new(),
            }));
        }
    }
    reports
}

impl<'a> PlanRun<'a> {
    /// Checks the gates of every waiting host, in the order of channel, wave and name.
    pub(super) fn plan_dispatches(&mut self) -> Vec<HeldWave<'a>> {
        let mut waves = Vec::new();
        let view = self.view;
        for rollout in view.current_rollouts() {
            let state = rollout.record.state;
            if !rollout.is_open()
                || (state.is_final() && !state.is_halted())
                || self.is_held(&rollout.record.rollout_id)
            {
                continue;
            }
            for (wave, index) in &rollout.waves {
                let mut held = HeldWave {
                    rollout,
                    wave: *wave,
                    members: 0,
                    held: Vec::new(),
                    is_complete: true,
                };
                self.plan_recoveries(index, &mut held);
                self.plan_wave(index, &mut held);
                waves.push(held);
            }
        }
        waves
    }

    fn candidate<'b>(
        &'b self,
        rollout: &'b RolloutView,
        hostname: &'b Hostname,
        host: &'b HostView,
    ) -> Candidate<'b> {
        Candidate {
            hostname,
            host,
            rollout,
            cursor: self.cursor(rollout),
            planned_dispatches: &self.planned_dispatches,
            now: self.now,
        }
    }

    fn plan_recoveries(&mut self, index: &'a WaveIndex, wave: &mut HeldWave<'a>) {
        let rollout = wave.rollout;
        for hostname in &index.candidates {
            let Some(host) = rollout.hosts.get(hostname) else {
                continue;
            };
            if rollout.pending.unchanged.contains(hostname) {
                continue;
            }
            let candidate = self.candidate(rollout, hostname, host);
            let blocks = gates::blocks_of_recovery(self.view, &candidate);
            if !blocks.is_empty() {
                if !rollout.is_dispatched(hostname) {
                    wave.hold(HostSelection::One(hostname), blocks);
                }
                continue;
            }
            let action = PlanAction::ConvergeUnchanged {
                hostname: hostname.clone(),
                rollout_id: rollout.record.rollout_id.clone(),
                current_closure: host.target_closure.clone(),
            };
            match self.admit(&action) {
                Admitted::Yes => {
                    self.taken.push((&rollout.record.rollout_id, hostname));
                    self.recoveries.push(action);
                }
                Admitted::NotAgain => {}
                Admitted::NoRoom => {
                    wave.is_complete = false;
                    return;
                }
            }
        }
    }

    fn plan_wave(&mut self, index: &'a WaveIndex, wave: &mut HeldWave<'a>) {
        let mut queues: Vec<CandidateQueue<'a>> = Vec::with_capacity(index.groups.len() + 1);
        queues.extend(index.groups.values().map(|group| CandidateQueue {
            hosts: group.iter(),
            group: Some(group),
            passed: 0,
        }));
        queues.push(CandidateQueue {
            hosts: index.singles.iter(),
            group: None,
            passed: 0,
        });
        let mut next = BinaryHeap::new();
        for (number, queue) in queues.iter_mut().enumerate() {
            next.extend(
                queue
                    .hosts
                    .next()
                    .map(|hostname| Reverse((hostname, number))),
            );
        }
        while let Some(Reverse((hostname, number))) = next.pop() {
            let queue = &mut queues[number];
            let host = wave.rollout.hosts.get(hostname);
            let blocks = host.map_or_else(Vec::new, |host| {
                self.blocks_of(wave.rollout, (hostname, host), queue)
            });
            let continues = if blocks.is_empty() {
                queue.passed += 1;
                host.is_none_or(|host| self.plan_dispatch((hostname, host), wave))
            } else {
                wave.hold(queue.held_from(hostname), blocks);
                queue.group.is_none()
            };
            if !wave.is_complete {
                return;
            }
            if continues {
                next.extend(
                    queue
                        .hosts
                        .next()
                        .map(|hostname| Reverse((hostname, number))),
                );
            }
        }
    }

    /// The blocks of the next host of a queue. Hosts of a group are equal for every gate: after the first one
    /// passed, only the budgets can have changed.
    fn blocks_of(
        &self,
        rollout: &RolloutView,
        (hostname, host): (&Hostname, &HostView),
        queue: &CandidateQueue<'_>,
    ) -> Vec<Block> {
        let candidate = self.candidate(rollout, hostname, host);
        if queue.group.is_some() && queue.passed > 0 {
            let budget = gates::check(Gate::DisruptionBudget, self.view, &candidate);
            return budget.err().into_iter().collect();
        }
        gates::blocks_of_dispatch(self.view, &candidate)
    }

    /// Plans the dispatch of a host without blocks; true to continue with the next host.
    fn plan_dispatch(
        &mut self,
        (hostname, host): (&'a Hostname, &HostView),
        wave: &mut HeldWave<'a>,
    ) -> bool {
        let rollout = wave.rollout;
        let action = PlanAction::QueueDispatch {
            hostname: hostname.clone(),
            rollout_id: rollout.record.rollout_id.clone(),
            target_closure: host.target_closure.clone(),
            soak_minutes: host.soak_minutes,
        };
        match self.admit(&action) {
            Admitted::Yes => {
                self.planned_dispatches.dispatch(self.view, hostname);
                self.taken.push((&rollout.record.rollout_id, hostname));
                self.dispatches.push(action);
                true
            }
            Admitted::NotAgain => true,
            Admitted::NoRoom => {
                wave.is_complete = false;
                false
            }
        }
    }
}

impl<'a> CandidateQueue<'a> {
    fn held_from(&self, hostname: &'a Hostname) -> HostSelection<'a> {
        match self.group {
            Some(group) => HostSelection::Rest {
                group,
                from: hostname,
                count: group.len() - self.passed,
            },
            None => HostSelection::One(hostname),
        }
    }
}

impl<'a> HeldWave<'a> {
    fn hold(&mut self, hosts: HostSelection<'a>, blocks: Vec<Block>) {
        let held = HeldHosts { hosts, blocks };
        self.members += held.count();
        self.held.push(held);
    }
}
