//! Reports of the hosts, as entries of the input log.

use chrono::Utc;
use nixfleet_harness::agent_event_sequence::{activation, probe_round, rollback};
use nixfleet_harness::synthetic_release::{closure, hostname};
use nixfleet_proto::{Entry, EntryBody, HostEvent, HostEventBody, Producer, RolloutId};

/// All hosts in one rollout.
#[derive(Debug)]
pub struct Hosts {
    release: u32,
    rollout_id: RolloutId,
    /// Last sequence of each host in the rollout; 0 before its dispatch.
    last_seqs: Vec<u64>,
    /// The host whose activation fails.
    failing: Option<usize>,
}

impl Hosts {
    /// Hosts at the beginning of a rollout.
    pub fn new(
        count: usize,
        (release, rollout_id): (u32, RolloutId),
        failing: Option<usize>,
    ) -> Self {
        Self {
            release,
            rollout_id,
            last_seqs: vec![0; count],
            failing,
        }
    }

    /// Number of hosts.
    pub fn count(&self) -> usize {
        self.last_seqs.len()
    }

    /// The rollout.
    pub fn rollout_id(&self) -> &RolloutId {
        &self.rollout_id
    }

    /// The host whose activation fails.
    pub fn failing(&self) -> Option<usize> {
        self.failing
    }

    /// The events of an activation; none when the host was dispatched before.
    pub fn activate(&mut self, number: usize) -> Vec<Entry> {
        if self.last_seqs.get(number) != Some(&0) {
            return Vec::new();
        }
        let target = closure(self.release, number);
        let running = closure(self.release.saturating_sub(1), number);
        let events = if self.failing == Some(number) {
            rollback(&target, &running, Utc::now())
        } else {
            activation(&target, &running, Utc::now())
        };
        self.entries(number, events)
    }

    /// A round of probe results of a host, if it has been dispatched.
    pub fn probe(&mut self, number: usize) -> Vec<Entry> {
        if self.last_seqs[number] == 0 {
            return Vec::new();
        }
        let events = probe_round(&closure(self.release, number), Utc::now());
        self.entries(number, events)
    }

    fn entries(&mut self, number: usize, events: Vec<HostEventBody>) -> Vec<Entry> {
        let last = &mut self.last_seqs[number];
        let events = events.into_iter().map(|body| {
            *last += 1;
            let event = EntryBody::HostEvent {
                rollout_id: self.rollout_id.clone(),
                hostname: hostname(number),
                producer: Producer::Agent,
                event: HostEvent { seq: *last, body },
            };
            Entry::new(Utc::now(), event)
        });
        events.collect()
    }
}
