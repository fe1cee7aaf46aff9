//! Heartbeats of hosts: what they prove, and when each host was seen last.

pub mod heartbeat_recovery;
pub mod last_seen;
