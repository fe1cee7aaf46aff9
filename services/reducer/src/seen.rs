//! Last-seen times, collected between two flushes.

use std::collections::BTreeMap;

use nixfleet_proto::Hostname;
use nixfleet_proto::wire::{LivenessReport, OwnerHeartbeat};

/// One report per host, the newest.
#[derive(Debug, Default)]
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

    /// What is to be flushed, one report per host.
    pub fn reports(&self) -> Vec<LivenessReport> {
        self.hosts.values().cloned().collect()
    }

    /// What was noted is told; a flush that failed keeps it for the next.
    pub fn flushed(&mut self) {
        self.hosts.clear();
    }
}
