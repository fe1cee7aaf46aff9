//! Schedule of heartbeats, and the content of the one in flight.

use nixfleet_proto::Timestamp;

#[derive(Debug, Clone, Default)]
pub(super) struct Heartbeat {
    pub(super) due: Option<Timestamp>,
    pub(super) in_flight: Option<Sent>,
    pub(super) failures: u32,
    pub(super) acknowledged_at: Option<Timestamp>,
}

/// Content of a heartbeat in flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) names_closure: bool,
}

impl Heartbeat {
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.next_due().is_some_and(|due| due <= now)
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        if self.in_flight.is_some() {
            return None;
        }
        self.due
    }
}
