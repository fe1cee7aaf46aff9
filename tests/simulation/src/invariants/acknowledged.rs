//! No acknowledged event is lost: an event that was answered with 2xx is in the log, dated within a minute of the
//! broker's time, so that the fold decides it.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use nixfleet_proto::{Entry, EntryBody, Hostname, Producer, RolloutId, Timestamp};

use super::folded_entry::CheckResult;

/// Events in the log.
#[derive(Debug, Default)]
pub struct Acknowledged {
    logged: BTreeSet<(Hostname, RolloutId, u64)>,
    count: u64,
}

impl Acknowledged {
    /// Records an entry that the broker stored at `stored`.
    pub fn record(&mut self, entry: &Entry, stored: Timestamp) {
        if (entry.received_at - stored).abs() > TimeDelta::seconds(60) {
            return;
        }
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
                "event {seq} of {hostname} in {rollout_id} was acknowledged and is in no log with a time that counts"
            ))
        }
    }

    /// Events acknowledged so far.
    pub fn count(&self) -> u64 {
        self.count
    }
}
