//! No acknowledged event is lost: an event that was answered with 2xx is in the log.

use std::collections::BTreeSet;

use nixfleet_proto::{Entry, EntryBody, Hostname, Producer, RolloutId};

use super::folded_entry::CheckResult;

/// Events in the log.
#[derive(Debug, Default)]
pub struct Acknowledged {
    logged: BTreeSet<(Hostname, RolloutId, u64)>,
    count: u64,
}

impl Acknowledged {
    /// Records an entry.
    pub fn record(&mut self, entry: &Entry) {
        if let EntryBody::HostEvent {
            rollout_id,
            hostname,
            producer: Producer::Agent,
            event,
        } = &entry.body
        {
            let key = (hostname.clone(), rollout_id.clone(), event.seq);
            self.logged.insert(key);
        }
    }

    /// An agent was told that its event is durable.
    ///
    /// # Errors
    /// Names the event.
    pub fn check(&mut self, hostname: &Hostname, rollout_id: &RolloutId, seq: u64) -> CheckResult {
        self.count += 1;
        let key = (hostname.clone(), rollout_id.clone(), seq);
        if self.logged.contains(&key) {
            Ok(())
        } else {
            Err(format!(
                "event {seq} of {hostname} in {rollout_id} was acknowledged and is in no log"
            ))
        }
    }

    /// Events acknowledged so far.
    pub fn count(&self) -> u64 {
        self.count
    }
}
