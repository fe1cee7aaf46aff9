//! What passed the admission: the right of a host to report, and events under it.

use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Entry, EntryBody, HostEvent, Hostname, Producer, RolloutId, Timestamp};
use nixfleet_service::trace_context;

/// The right of a host to report about a rollout. Only the admission gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    hostname: Hostname,
    rollout_id: RolloutId,
    partition: Partition,
}

/// An event that may be appended.
#[derive(Debug)]
pub struct AdmittedEvent {
    partition: Partition,
    entry: Entry,
    bytes: usize,
}

/// Events of one host about one rollout, in order, that may be appended.
#[derive(Debug)]
pub struct AdmittedEvents {
    partition: Partition,
    entries: Vec<Entry>,
    bytes: usize,
}

impl Admitted {
    pub(super) fn new(hostname: &Hostname, rollout_id: &RolloutId, partition: Partition) -> Self {
        Self {
            hostname: hostname.clone(),
            rollout_id: rollout_id.clone(),
            partition,
        }
    }

    /// An event that was received at this time, whose request has so many bytes.
    pub fn event(self, event: HostEvent, received_at: Timestamp, bytes: usize) -> AdmittedEvent {
        let partition = self.partition;
        let mut entry = Entry::new(received_at, self.body(event));
        entry.traceparent = trace_context::current_traceparent();
        AdmittedEvent {
            partition,
            entry,
            bytes,
        }
    }

    /// Events of one request that was received at this time, whose items have so many bytes together.
    pub fn events(
        &self,
        events: Vec<HostEvent>,
        received_at: Timestamp,
        bytes: usize,
    ) -> AdmittedEvents {
        let traceparent = trace_context::current_traceparent();
        let entries = events.into_iter().map(|event| {
            let mut entry = Entry::new(received_at, self.clone().body(event));
            entry.traceparent.clone_from(&traceparent);
            entry
        });
        AdmittedEvents {
            partition: self.partition,
            entries: entries.collect(),
            bytes,
        }
    }

    fn body(self, event: HostEvent) -> EntryBody {
        EntryBody::HostEvent {
            rollout_id: self.rollout_id,
            hostname: self.hostname,
            producer: Producer::Agent,
            event,
        }
    }
}

impl AdmittedEvent {
    pub fn into_parts(self) -> (Partition, Entry, usize) {
        (self.partition, self.entry, self.bytes)
    }
}

impl AdmittedEvents {
    pub fn partition(&self) -> Partition {
        self.partition
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
