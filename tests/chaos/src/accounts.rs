//! What became of every event a host got a 2xx for.

use std::collections::BTreeMap;

use nixfleet_proto::{EntryBody, Hostname, Outcome, Position, Producer, RolloutId, Verdict};
use nixfleet_swarm::state::SwarmState;

use crate::logs::Logs;

/// Names an event for good.
type EventId = (RolloutId, Hostname, Producer, u64);

/// The sums and what is wrong with them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Events answered with 2xx.
    pub acknowledged: u64,
    /// Entries of agents' events in the logs, repetitions included.
    pub entries: u64,
    /// Acknowledged events with an accepted outcome.
    pub applied: u64,
    /// Acknowledged events that were rejected, each time they came.
    pub rejected: u64,
    /// Acknowledged events that are in no log.
    pub lost: Vec<String>,
    /// Events with more than one accepted outcome.
    pub twice: Vec<String>,
}

/// Outcomes of one event.
#[derive(Debug, Default)]
struct Fate {
    entries: u64,
    accepted: Vec<Position>,
}

impl Accounts {
    /// Adds it all up.
    pub fn of(swarm: &SwarmState, logs: &[Logs]) -> Self {
        let fates = fates(logs);
        let mut accounts = Self::default();
        for ((rollout_id, hostname, producer, seq), fate) in &fates {
            if *producer == Producer::Agent {
                accounts.entries += fate.entries;
            }
            if fate.accepted.len() > 1 {
                accounts.twice.push(format!(
                    "event {seq} of {hostname} in {rollout_id} at {:?}",
                    fate.accepted
                ));
            }
        }
        for (hostname, host) in &swarm.hosts {
            for (rollout_id, rollout) in &host.rollouts {
                let seqs = rollout.accepted_seqs.iter();
                for seq in seqs.flat_map(|(first, last)| *first..=*last) {
                    let id = (rollout_id.clone(), hostname.clone(), Producer::Agent, seq);
                    accounts.add(&id, fates.get(&id));
                }
            }
        }
        accounts
    }

    fn add(&mut self, (rollout_id, hostname, _, seq): &EventId, fate: Option<&Fate>) {
        self.acknowledged += 1;
        match fate {
            None => self
                .lost
                .push(format!("event {seq} of {hostname} in {rollout_id}")),
            Some(fate) if fate.accepted.is_empty() => self.rejected += 1,
            Some(_) => self.applied += 1,
        }
    }
}

fn fates(logs: &[Logs]) -> BTreeMap<EventId, Fate> {
    let mut fates: BTreeMap<EventId, Fate> = BTreeMap::new();
    for log in logs {
        let outcomes = log.outputs.iter().flat_map(|output| &output.frame.outcomes);
        let mut accepted: BTreeMap<Position, u64> = BTreeMap::new();
        for outcome in outcomes.filter(|outcome| is_accepted(outcome)) {
            *accepted.entry(outcome.position).or_default() += 1;
        }
        for (position, entry) in log.entries() {
            let EntryBody::HostEvent {
                rollout_id,
                hostname,
                producer,
                event,
            } = &entry.body
            else {
                continue;
            };
            let id = (rollout_id.clone(), hostname.clone(), *producer, event.seq);
            let fate = fates.entry(id).or_default();
            fate.entries += 1;
            let times = accepted.get(&position).copied().unwrap_or(0);
            fate.accepted.extend((0..times).map(|_| position));
        }
    }
    fates
}

fn is_accepted(outcome: &Outcome) -> bool {
    match outcome.verdict {
        Verdict::Accepted(_) => true,
        Verdict::Rejected(_) => false,
    }
}
