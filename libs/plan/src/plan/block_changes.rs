//! Records changes of holds in the log.
//!
//! A hold applies only to Pending hosts without a dispatch. A hold that names a dispatched host therefore
//! stays valid and needs no update.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_proto::{Gate, Hold, Hostname, PlanAction, Position};

use super::dispatch::{HeldHosts, HeldWave};
use super::plan_run::{Admitted, PlanRun};
use crate::view::RolloutView;

/// Most hosts named by one action, so that it fits a frame with names of maximum length. When more hosts are
/// held for different reasons, the action names the others after half of these are released.
pub const NAMED_HOSTS_MAX: usize = 1_500;

/// Hosts held by one gate for one reason.
struct Group<'w, 'a> {
    count: usize,
    held: Vec<&'w HeldHosts<'a>>,
}

type ByReason<'w, 'a> = BTreeMap<(&'w str, Option<Position>), Group<'w, 'a>>;

impl<'a> PlanRun<'a> {
    /// Plans an update for every gate and wave whose holds differ from the recorded ones.
    pub(super) fn plan_block_changes(&mut self, waves: &[HeldWave<'a>]) {
        let mut unfinished = BTreeSet::new();
        for wave in waves {
            if !wave.is_complete {
                unfinished.insert(&wave.rollout.record.rollout_id);
                continue;
            }
            let by_gate = group_by_gate(wave);
            for (gate, by_reason) in &by_gate {
                let count: usize = by_reason.values().map(|group| group.count).sum();
                *self.held.entry(*gate).or_default() += count;
            }
            let no_holds = ByReason::new();
            for gate in Gate::ALL {
                let by_reason = by_gate.get(&gate).unwrap_or(&no_holds);
                let stated = wave.rollout.stated_holds(wave.wave, gate);
                if !self.is_recorded(wave, stated, by_reason) {
                    let holds = holds_of(wave, by_reason);
                    self.change_blocks(wave.rollout, (wave.wave, gate), holds);
                }
            }
        }
        self.clear_finished(&unfinished);
    }

    /// Clears the recorded holds of rollouts whose hosts are no longer checked.
    fn clear_finished(&mut self, unfinished: &BTreeSet<&nixfleet_proto::RolloutId>) {
        for rollout in self.view.current_rollouts() {
            let state = rollout.record.state;
            let is_asked = !state.is_final() || state.is_halted();
            if is_asked || !rollout.is_open() || unfinished.contains(&rollout.record.rollout_id) {
                continue;
            }
            for (wave, gate) in rollout.blocks.keys() {
                if !rollout.stated_holds(*wave, *gate).is_empty() {
                    self.change_blocks(rollout, (*wave, *gate), Vec::new());
                }
            }
        }
    }

    fn change_blocks(&mut self, rollout: &RolloutView, key: (u32, Gate), holds: Vec<Hold>) {
        let (wave, gate) = key;
        // A pending update must return first: two updates in the log could be reordered.
        if rollout.pending.blocks.contains_key(&key) {
            return;
        }
        let action = PlanAction::BlocksChanged {
            rollout_id: rollout.record.rollout_id.clone(),
            wave,
            gate,
            holds,
        };
        if self.admit(&action) == Admitted::Yes {
            self.changes.push(action);
        }
    }

    fn is_recorded(
        &self,
        wave: &HeldWave<'a>,
        stated: &[Hold],
        by_reason: &ByReason<'_, 'a>,
    ) -> bool {
        if by_reason.is_empty() || stated.is_empty() {
            return by_reason.is_empty() && stated.is_empty();
        }
        if let Some((reason, cause)) = reason_of_all(wave, by_reason) {
            return matches!(stated, [hold] if hold.hosts.is_none()
                && hold.reason == reason
                && hold.cause == cause);
        }
        let mut named: BTreeMap<&Hostname, (&str, Option<Position>)> = BTreeMap::new();
        for hold in stated {
            let Some(hosts) = &hold.hosts else {
                return false;
            };
            let reason = (hold.reason.as_str(), hold.cause);
            named.extend(hosts.iter().map(|hostname| (hostname, reason)));
        }
        let held = by_reason
            .iter()
            .flat_map(|(reason, group)| group.hostnames().map(move |hostname| (hostname, *reason)));
        let (mut total, mut covered) = (0, 0);
        for (hostname, reason) in held {
            total += 1;
            match named.remove(hostname) {
                Some(stated) if stated == reason => covered += 1,
                Some(_) => return false,
                None => {}
            }
        }
        // The remaining names are hosts that this gate does not hold: wrong for waiting hosts.
        let is_false = named
            .keys()
            .any(|hostname| self.is_waiting(wave.rollout, hostname));
        let enough = if total > NAMED_HOSTS_MAX {
            NAMED_HOSTS_MAX / 2
        } else {
            total
        };
        !is_false && covered >= enough
    }

    /// True for a Pending host without a dispatch or recovery, after this run.
    fn is_waiting(&self, rollout: &RolloutView, hostname: &Hostname) -> bool {
        let host = rollout.hosts.get(hostname);
        host.is_some_and(|host| host.state == nixfleet_proto::HostState::Pending)
            && !rollout.is_dispatched(hostname)
            && self
                .taken
                .binary_search(&(&rollout.record.rollout_id, hostname))
                .is_err()
    }
}

impl Group<'_, '_> {
    fn hostnames(&self) -> impl Iterator<Item = &Hostname> {
        self.held.iter().flat_map(|held| held.hostnames())
    }
}

fn group_by_gate<'w, 'a>(wave: &'w HeldWave<'a>) -> BTreeMap<Gate, ByReason<'w, 'a>> {
    let mut by_gate: BTreeMap<Gate, ByReason<'w, 'a>> = BTreeMap::new();
    for held in &wave.held {
        for block in &held.blocks {
            let by_reason = by_gate.entry(block.gate).or_default();
            let key = (block.reason.as_str(), block.cause);
            let group = by_reason.entry(key).or_insert_with(|| Group {
                count: 0,
                held: Vec::new(),
            });
            group.count += held.count();
            group.held.push(held);
        }
    }
    by_gate
}

/// The common reason, when one reason holds every waiting host of the wave.
fn reason_of_all<'w>(
    wave: &HeldWave<'_>,
    by_reason: &ByReason<'w, '_>,
) -> Option<(&'w str, Option<Position>)> {
    let (reason, group) = by_reason.first_key_value()?;
    (by_reason.len() == 1 && group.count == wave.members).then_some(*reason)
}

fn holds_of(wave: &HeldWave<'_>, by_reason: &ByReason<'_, '_>) -> Vec<Hold> {
    let holds_all = reason_of_all(wave, by_reason).is_some();
    let mut remaining = NAMED_HOSTS_MAX;
    let mut holds = Vec::with_capacity(by_reason.len());
    for ((reason, cause), group) in by_reason {
        let hosts = if holds_all {
            None
        } else {
            let mut named: Vec<Hostname> = group.hostnames().take(remaining).cloned().collect();
            remaining -= named.len();
            named.sort_unstable();
            Some(named)
        };
        holds.push(Hold {
            reason: (*reason).to_owned(),
            hosts,
            cause: *cause,
        });
    }
    holds
}
