//! Heartbeats of hosts: what they prove, and when each host was seen last.

pub mod last_seen;
pub mod missed_transitions;
