//! Event requests of an agent, encoded in advance.

use bytes::Bytes;
use chrono::Utc;
use nixfleet_proto::wire::{EventRequest, WireEvent};

use crate::synthetic_fleet::SyntheticFleet;
use crate::workload::event_at_step;

/// Stands for the sequence of an event until it is sent; no other number contains these digits.
const PLACEHOLDER: u64 = 987_654_321_987_654_321;
/// Steps of a host that lead to the first probe result.
const UNTIL_RESULTS: std::ops::Range<usize> = 1..5;
/// Steps that may be repeated: probe results.
const RESULTS: std::ops::Range<usize> = 5..8;

/// The step in which a host claims convergence.
const CLAIM: usize = 8;

/// The events of a host: acknowledgement, start, completion, declared probes, then results of its
/// three probes, repeated. Sequences rise, so every event is accepted once the host was dispatched.
#[derive(Debug, Clone)]
pub struct AgentEvents {
    hostname: String,
    first: Vec<Template>,
    results: Vec<Template>,
    claim: Template,
    sent: u64,
}

/// The JSON of an event around its sequence.
#[derive(Debug, Clone)]
struct Template {
    before: String,
    after: String,
}

impl Template {
    fn push(&self, seq: u64, body: &mut String) {
        body.push_str(&self.before);
        body.push_str(&seq.to_string());
        body.push_str(&self.after);
    }
}

impl AgentEvents {
    /// Encodes the events of a host of the fleet.
    pub fn of(fleet: &SyntheticFleet, number: usize) -> Self {
        let host = &fleet.pinned.host_set[number];
        let text = |step| {
            let request = EventRequest {
                hostname: host.hostname.clone(),
                rollout_id: fleet.rollout_id.clone(),
                event: WireEvent {
                    seq: PLACEHOLDER,
                    body: event_at_step(host, number, step, Utc::now()),
                },
            };
            let text = serde_json::to_string(&request).unwrap_or_default();
            let (before, after) = text
                .split_once(&PLACEHOLDER.to_string())
                .unwrap_or_default();
            Template {
                before: before.to_owned(),
                after: after.to_owned(),
            }
        };
        Self {
            hostname: host.hostname.to_string(),
            first: UNTIL_RESULTS.map(text).collect(),
            results: RESULTS.map(text).collect(),
            claim: text(CLAIM),
            sent: 0,
        }
    }

    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// The body of the next request.
    pub fn next(&mut self, count: usize) -> Bytes {
        let mut body = String::new();
        if count == 1 {
            self.push(&mut body);
            return Bytes::from(body);
        }
        for number in 0..count {
            body.push(if number == 0 { '[' } else { ',' });
            self.push(&mut body);
        }
        body.push(']');
        Bytes::from(body)
    }

    /// The body that claims convergence.
    pub fn claim(&mut self) -> Bytes {
        self.sent += 1;
        let mut body = String::new();
        self.claim.push(self.sent, &mut body);
        Bytes::from(body)
    }

    fn push(&mut self, body: &mut String) {
        let index = self.sent as usize;
        let template = match self.first.get(index) {
            Some(template) => template,
            None => &self.results[(index - self.first.len()) % self.results.len()],
        };
        self.sent += 1;
        template.push(self.sent, body);
    }
}
