//! Last-seen times of hosts, collected between two publishes.

use std::collections::BTreeMap;

use nixfleet_proto::Hostname;
use nixfleet_proto::wire::{LivenessReport, OwnerHeartbeat};

/// The newest liveness report of each host since the last publish.
#[derive(Debug, Default)]
pub struct LastSeen {
    hosts: BTreeMap<Hostname, LivenessReport>,
}

impl LastSeen {
    /// Records the time and the closure of a heartbeat.
    pub fn record(&mut self, heartbeat: &OwnerHeartbeat) {
        let hostname = heartbeat.request.hostname.clone();
        let report = LivenessReport {
            hostname: hostname.clone(),
            channel: heartbeat.channel.clone(),
            last_seen_at: heartbeat.received_at,
            current_closure: heartbeat.request.current_closure.clone(),
        };
        self.hosts.insert(hostname, report);
    }

    /// The reports to publish, one per host.
    pub fn reports(&self) -> Vec<LivenessReport> {
        self.hosts.values().cloned().collect()
    }

    /// Drops the reports, which are published. After a failed publish they stay for the next one.
    pub fn clear(&mut self) {
        self.hosts.clear();
    }
}
