//! State of the announced release in this process.

use std::collections::BTreeSet;
use std::sync::Arc;

use nixfleet_proto::RolloutId;
use nixfleet_trust::Newest;

/// The announced release, as far as it was verified.
#[derive(Debug, Clone, Default)]
pub struct ReleaseState {
    pub current: Option<Arc<AnnouncedRelease>>,
    /// A later announcement that was refused.
    pub refused: Option<RefusedAnnouncement>,
}

/// An announcement that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusedAnnouncement {
    pub seq: u64,
    pub reason: RefusalReason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// It does not verify here. It may be a release that others accept.
    Unverified,
    /// It verifies, and an earlier release was announced again.
    NotNewer,
}

/// A verified announcement.
#[derive(Debug)]
pub struct AnnouncedRelease {
    pub seq: u64,
    /// The release that admission compares the next one with.
    pub newest: Newest,
    /// The release that plans read.
    pub release: nixfleet_plan::Release,
}

/// Rollouts whose refs must not be released again.
pub type SupersededRollouts = Arc<BTreeSet<RolloutId>>;
