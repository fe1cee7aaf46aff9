//! Schedule of heartbeats, the content of the one in flight, and what the first reply tells.

use nixfleet_proto::wire::HeartbeatReply;
use nixfleet_proto::{HostState, RolloutId, Timestamp};

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

/// The reply to the first heartbeat: tells what the control plane knows already, and nothing else.
#[derive(Debug, Clone, Copy)]
pub(super) struct StartReply<'a> {
    /// Absent when the heartbeat failed.
    pub(super) reply: Option<&'a HeartbeatReply>,
    /// True when the heartbeat named the running closure, from which the control plane infers transitions.
    pub(super) named_closure: bool,
}

impl StartReply<'_> {
    fn state_of(&self, id: &RolloutId) -> Option<HostState> {
        let mut snapshots = self
            .reply
            .iter()
            .flat_map(|reply| &reply.bootstrap_rollouts);
        let snapshot = snapshots.find(|snapshot| snapshot.rollout_id == *id)?;
        Some(snapshot.state)
    }

    /// True when the control plane has the host Soaking.
    pub(super) fn knows_completion(&self, id: &RolloutId) -> bool {
        self.state_of(id) == Some(HostState::Soaking)
    }

    /// A host that went back has no open record.
    pub(super) fn knows_rollback(&self, id: &RolloutId) -> bool {
        self.reply.is_some() && self.named_closure && self.state_of(id).is_none()
    }
}
