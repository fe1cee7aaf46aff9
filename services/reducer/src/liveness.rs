//! Last-seen times, collected between two flushes.

use std::collections::BTreeMap;

use nixfleet_bus::Bus;
use nixfleet_proto::Hostname;
use nixfleet_proto::wire::{LivenessReport, OwnerHeartbeat};

/// One report per host, the newest.
#[derive(Default)]
pub struct Seen {
    hosts: BTreeMap<Hostname, LivenessReport>,
}

impl Seen {
    /// Notes a heartbeat.
    pub fn note(&mut self, heartbeat: &OwnerHeartbeat) {
        let hostname = heartbeat.request.hostname.clone();
        let report = LivenessReport {
            hostname: hostname.clone(),
            channel: heartbeat.channel.clone(),
            last_seen_at: heartbeat.received_at,
            current_closure: heartbeat.request.current_closure.clone(),
        };
        self.hosts.insert(hostname, report);
    }

    /// Publishes what was noted; a failure keeps it for the next flush.
    pub async fn flush(&mut self, bus: &Bus) {
        if self.hosts.is_empty() {
            return;
        }
        let reports: Vec<_> = self.hosts.values().cloned().collect();
        match bus.publish_liveness(&reports).await {
            Ok(()) => self.hosts.clear(),
            Err(error) => tracing::warn!(%error, "last-seen times are kept for the next flush"),
        }
    }
}
