//! What one turn of the applier writes, and what came of it.

use nixfleet_proto::fleet::ResolvedBudget;
use nixfleet_proto::minutes::Minutes;
use nixfleet_proto::rollout::{PinnedHost, PinnedWave};
use nixfleet_proto::{ClosureHash, OnHealthFailure, Pinned, Timestamp};
use serde::{Deserialize, Serialize};

pub use nixfleet_proto::turn_rows::{
    BlockChange, BlockKey, DispatchChange, FailureSet, HostChange, HostKey, OpenedRollout,
    ProbeKey, QuarantineKey, RolloutChange, Stamp, TurnRows,
};

/// The stored form of a dispatch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DispatchRecord {
    pub(crate) target_closure: ClosureHash,
    pub(crate) soak_minutes: Minutes,
    pub(crate) enqueued_at: Timestamp,
}

/// The stored form of what is pinned; the hosts are rows of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PinnedTerms {
    on_health_failure: OnHealthFailure,
    waves: Vec<PinnedWave>,
    disruption_budgets: Vec<ResolvedBudget>,
}

impl From<&Pinned> for PinnedTerms {
    fn from(pinned: &Pinned) -> Self {
        Self {
            on_health_failure: pinned.on_health_failure,
            waves: pinned.waves.clone(),
            disruption_budgets: pinned.disruption_budgets.clone(),
        }
    }
}

impl PinnedTerms {
    /// Puts the hosts back, in their order.
    pub(crate) fn with_hosts(self, mut host_set: Vec<PinnedHost>) -> Pinned {
        host_set.sort_by(|a, b| a.hostname.cmp(&b.hostname));
        Pinned {
            on_health_failure: self.on_health_failure,
            waves: self.waves,
            host_set,
            disruption_budgets: self.disruption_budgets,
        }
    }
}

/// What a turn did to the tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rows inserted, updated or deleted.
    pub rows: u64,
    /// Changes without a row to change: they belong to rollouts whose opening is no longer in the
    /// log. Always 0 unless the tables were rebuilt from a trimmed log.
    pub orphans: u64,
}
