//! Messages that no stream stores: heartbeats and last-seen times of hosts.

pub(crate) mod heartbeat;
pub(crate) mod liveness;
