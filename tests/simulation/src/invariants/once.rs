//! Each event counts once: an event of a host is accepted at most once, however often it is sent.
//!
//! Source: docs/semantics.md, host machine, sequence.

use std::collections::BTreeSet;

use nixfleet_proto::{EntryBody, Hostname, Producer, RolloutId};

use super::fact::{Fact, Found};

/// Accepted events.
#[derive(Debug, Default)]
pub struct Once {
    accepted: BTreeSet<(RolloutId, Hostname, Producer, u64)>,
}

impl Once {
    /// Looks at an entry.
    ///
    /// # Errors
    /// Names the event.
    pub fn check(&mut self, fact: Fact<'_>) -> Found {
        let EntryBody::HostEvent {
            rollout_id,
            hostname,
            producer,
            event,
        } = &fact.entry.body
        else {
            return Ok(());
        };
        let key = (rollout_id.clone(), hostname.clone(), *producer, event.seq);
        if fact.accepted().is_some() && !self.accepted.insert(key) {
            return Err(format!(
                "event {} of {hostname} in {rollout_id} ({producer:?}) was accepted twice",
                event.seq
            ));
        }
        Ok(())
    }
}
