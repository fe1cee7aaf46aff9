//! Reports are sent in order: each sequence is given once, requests do not overlap, and no event is sent
//! for the first time behind a later one.
//!
//! Source: docs/semantics.md, host machine, sequence.

use std::collections::BTreeMap;

use nixfleet_agent::core::{Command, Input};
use nixfleet_proto::RolloutId;
use nixfleet_proto::wire::{EventRequest, WireEvent};

use super::walks::CheckResult;

/// Largest sequence that a control plane stores.
const SEQ_MAX: u64 = i64::MAX as u64;

/// What one host sent since it has its disk.
#[derive(Debug, Default)]
pub struct Reports {
    host: String,
    rollouts: BTreeMap<RolloutId, Sent>,
}

#[derive(Debug, Default)]
struct Sent {
    events: BTreeMap<u64, WireEvent>,
    in_flight: bool,
}

impl Reports {
    /// Of a host with a new disk.
    pub fn new(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            ..Self::default()
        }
    }

    /// The agent started; no request of its predecessor matters to it.
    pub fn started(&mut self) {
        for sent in self.rollouts.values_mut() {
            sent.in_flight = false;
        }
    }

    /// The agent is about to get an input.
    pub fn input(&mut self, input: &Input) {
        if let Input::EventsAnswered { rollout_id, .. } = input
            && let Some(sent) = self.rollouts.get_mut(rollout_id)
        {
            sent.in_flight = false;
        }
    }

    /// The shell executes a command.
    ///
    /// # Errors
    /// A report out of order.
    pub fn executed(&mut self, command: &Command) -> CheckResult {
        if let Command::Forget { rollout_id } = command {
            self.rollouts.remove(rollout_id);
        }
        if let Command::Send(requests) = command {
            self.send(requests)?;
        }
        Ok(())
    }

    fn send(&mut self, requests: &[EventRequest]) -> CheckResult {
        let host = &self.host;
        let Some(first) = requests.first() else {
            return Err(format!("{host} sends a request without events"));
        };
        let rollout_id = &first.rollout_id;
        let sent = self.rollouts.entry(rollout_id.clone()).or_default();
        if std::mem::replace(&mut sent.in_flight, true) {
            return Err(format!("{host} has two requests of {rollout_id} in flight"));
        }
        if !requests.is_sorted_by_key(|request| request.event.seq) {
            return Err(format!("{host} sends events of {rollout_id} out of order"));
        }
        for EventRequest { event, .. } in requests {
            let seq = event.seq;
            if seq == 0 || seq > SEQ_MAX {
                return Err(format!(
                    "{host} gives an event of {rollout_id} number {seq}"
                ));
            }
            let last = sent.events.last_key_value().map_or(0, |(seq, _)| *seq);
            match sent.events.get(&seq) {
                Some(before) if before != event => {
                    return Err(format!(
                        "{host} gives number {seq} of {rollout_id} to {} and to {}",
                        before.body.name(),
                        event.body.name()
                    ));
                }
                None if seq < last => {
                    return Err(format!(
                        "{host} sends event {seq} of {rollout_id} for the first time, after {last}"
                    ));
                }
                Some(_) | None => {}
            }
            sent.events.insert(seq, event.clone());
        }
        Ok(())
    }
}
