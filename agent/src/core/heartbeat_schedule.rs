//! When the next heartbeat is due, and what the one under way said.

use nixfleet_proto::Timestamp;

/// The schedule of heartbeats.
#[derive(Debug, Clone, Default)]
pub(super) struct Heartbeat {
    pub(super) due: Option<Timestamp>,
    pub(super) in_flight: Option<Sent>,
    pub(super) failures: u32,
    pub(super) answered_at: Option<Timestamp>,
}

/// What a heartbeat under way said.
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
