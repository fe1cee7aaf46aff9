//! Result of every event that a host got a 2xx for.

use std::collections::BTreeMap;

use nixfleet_proto::{Decision, EntryBody, Hostname, Outcome, Position, Producer, RolloutId};
use nixfleet_swarm::swarm_state::SwarmState;

use crate::partition_logs::PartitionLogs;

/// Identity of an event.
type EventId = (RolloutId, Hostname, Producer, u64);

/// Totals of acknowledged events, and the violations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventAccounting {
    /// Events answered with 2xx.
    pub acknowledged: u64,
    /// Entries of agents' events in the logs, duplicates included.
    pub entries: u64,
    /// Acknowledged events with an accepted outcome.
    pub applied: u64,
    /// Acknowledged events all of whose entries were rejected.
    pub rejected: u64,
    /// Acknowledged events that are in no log.
    pub lost: Vec<String>,
    /// Events with more than one accepted outcome.
    pub applied_twice: Vec<String>,
}

/// Outcomes of one event.
#[derive(Debug, Default)]
struct EventOutcomes {
    entries: u64,
    accepted: Vec<Position>,
}

impl EventAccounting {
    /// Compares the acknowledged events of the hosts with the logs.
    pub fn of(swarm: &SwarmState, logs: &[PartitionLogs]) -> Self {
        let outcomes_by_event = outcomes_by_event(logs);
        let mut accounting = Self::default();
        for ((rollout_id, hostname, producer, seq), outcomes) in &outcomes_by_event {
            if *producer == Producer::Agent {
                accounting.entries += outcomes.entries;
            }
            if outcomes.accepted.len() > 1 {
                accounting.applied_twice.push(format!(
                    "event {seq} of {hostname} in {rollout_id} at {:?}",
                    outcomes.accepted
                ));
            }
        }
        for (hostname, host) in &swarm.hosts {
            for (rollout_id, rollout) in &host.rollouts {
                let seqs = rollout.accepted_seqs.iter();
                for seq in seqs.flat_map(|(first, last)| *first..=*last) {
                    let id = (rollout_id.clone(), hostname.clone(), Producer::Agent, seq);
                    accounting.add(&id, outcomes_by_event.get(&id));
                }
            }
        }
        accounting
    }

    fn add(&mut self, (rollout_id, hostname, _, seq): &EventId, outcomes: Option<&EventOutcomes>) {
        self.acknowledged += 1;
        match outcomes {
            None => self
                .lost
                .push(format!("event {seq} of {hostname} in {rollout_id}")),
            Some(outcomes) if outcomes.accepted.is_empty() => self.rejected += 1,
            Some(_) => self.applied += 1,
        }
    }
}

fn outcomes_by_event(logs: &[PartitionLogs]) -> BTreeMap<EventId, EventOutcomes> {
    let mut outcomes_by_event: BTreeMap<EventId, EventOutcomes> = BTreeMap::new();
    for log in logs {
        let outcomes = log.outputs.iter().flat_map(|output| &output.frame.outcomes);
        let mut accepted: BTreeMap<Position, u64> = BTreeMap::new();
        for outcome in outcomes.filter(|outcome| is_accepted(outcome)) {
            *accepted.entry(outcome.position).or_default() += 1;
        }
        for (position, _, entry) in log.entries() {
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
            let outcomes = outcomes_by_event.entry(id).or_default();
            outcomes.entries += 1;
            let times = accepted.get(&position).copied().unwrap_or(0);
            outcomes.accepted.extend((0..times).map(|_| position));
        }
    }
    outcomes_by_event
}

fn is_accepted(outcome: &Outcome) -> bool {
    match outcome.decision {
        Decision::Accepted(_) => true,
        Decision::Rejected(_) => false,
    }
}
