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
    pub refused_seq: Option<u64>,
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
