//! Each event counts once: an event of a host is accepted at most once, however often it is sent.
//!
//! Source: docs/semantics.md, host machine, sequence.

use std::collections::BTreeMap;

use nixfleet_proto::subject::Partition;
use nixfleet_proto::{EntryBody, Hostname, Producer, RolloutId};

use super::folded_entry::{CheckResult, FoldedEntry};

/// Accepted events.
#[derive(Debug, Default)]
pub struct AcceptedEvents {
    /// Partition and sequence of each event.
    accepted: BTreeMap<(RolloutId, Hostname, Producer, u64), (Partition, u64)>,
}

impl AcceptedEvents {
    /// Checks an entry.
    ///
    /// # Errors
    /// Names the event.
    pub fn check(&mut self, folded: FoldedEntry<'_>) -> CheckResult {
        let EntryBody::HostEvent {
            rollout_id,
            hostname,
            producer,
            event,
        } = &folded.entry.body
        else {
            return Ok(());
        };
        let key = (rollout_id.clone(), hostname.clone(), *producer, event.seq);
        let place = (folded.partition, folded.outcome.position.seq);
        if folded.accepted().is_some() && self.accepted.insert(key, place).is_some() {
            return Err(format!(
                "event {} of {hostname} in {rollout_id} ({producer:?}) was accepted twice",
                event.seq
            ));
        }
        Ok(())
    }

    /// A log lost all messages after a sequence.
    pub fn forget(&mut self, partition: Partition, last: u64) {
        self.accepted
            .retain(|_, (of, seq)| *of != partition || *seq <= last);
    }
}
