//! What this process knows of the announced release, and what of earlier ones.

use std::collections::BTreeSet;
use std::sync::Arc;

use nixfleet_proto::RolloutId;
use nixfleet_trust::AcceptedRelease;

/// The announced release, as far as this process believes it.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The last one that was verified.
    pub current: Option<Arc<Current>>,
    /// Sequence of an announcement after it that was refused here.
    pub refused_seq: Option<u64>,
}

/// A verified announcement.
#[derive(Debug)]
pub struct Current {
    /// Its sequence.
    pub seq: u64,
    /// What admission compares the next release with.
    pub accepted: AcceptedRelease,
    /// What plans read.
    pub release: nixfleet_plan::Release,
}

/// Rollouts whose refs must not come back.
pub type Superseded = Arc<BTreeSet<RolloutId>>;
