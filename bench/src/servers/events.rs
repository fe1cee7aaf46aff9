//! What an agent has to say, ready to be sent.

use bytes::Bytes;
use chrono::Utc;
use nixfleet_proto::wire::{EventRequest, WireEvent};

use crate::fleet::Fleet;
use crate::life::report;

/// Stands for the number of an event until it is sent; no other number looks like it.
const PLACEHOLDER: u64 = 987_654_321_987_654_321;
/// Steps of a life that lead to the first probe result.
const UNTIL_RESULTS: std::ops::Range<usize> = 1..5;
/// Steps that may come again and again: probe results.
const RESULTS: std::ops::Range<usize> = 5..8;

/// The step in which a host says that it has converged.
const CLAIM: usize = 8;

/// The events of a host: acknowledgement, start, completion, declared probes, then results of its
/// three probes for ever. Numbers rise, so every event is accepted once the host was dispatched.
#[derive(Debug, Clone)]
pub struct Events {
    hostname: String,
    first: Vec<(String, String)>,
    results: Vec<(String, String)>,
    claim: (String, String),
    sent: u64,
}

impl Events {
    /// Those of a host of the fleet.
    pub fn of(fleet: &Fleet, number: usize) -> Self {
        let host = &fleet.pinned.host_set[number];
        let text = |step| {
            let request = EventRequest {
                hostname: host.hostname.clone(),
                rollout_id: fleet.rollout_id.clone(),
                event: WireEvent {
                    seq: PLACEHOLDER,
                    body: report(host, number, step, Utc::now()),
                },
            };
            let text = serde_json::to_string(&request).unwrap_or_default();
            let (before, after) = text
                .split_once(&PLACEHOLDER.to_string())
                .unwrap_or_default();
            (before.to_owned(), after.to_owned())
        };
        Self {
            hostname: host.hostname.to_string(),
            first: UNTIL_RESULTS.map(text).collect(),
            results: RESULTS.map(text).collect(),
            claim: text(CLAIM),
            sent: 0,
        }
    }

    /// The host.
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    /// How many were taken.
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
        let (before, after) = &self.claim;
        Bytes::from(format!("{before}{}{after}", self.sent))
    }

    fn push(&mut self, body: &mut String) {
        let place = self.sent as usize;
        let (before, after) = match self.first.get(place) {
            Some(text) => text,
            None => &self.results[(place - self.first.len()) % self.results.len()],
        };
        self.sent += 1;
        body.push_str(before);
        body.push_str(&self.sent.to_string());
        body.push_str(after);
    }
}
