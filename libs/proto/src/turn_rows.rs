//! The rows that one turn of the applier writes.
//!
//! Each map holds one value per key, the last one of the turn: an UNNEST statement must not touch a
//! row twice, and ordered maps make every turn take its row locks in the same order.

mod from_snapshot;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::Timestamp;
use crate::action::{Gate, Hold};
use crate::host::{FailedControl, HostRecord};
use crate::id::{ChannelName, ClosureHash, Hostname, ManifestHash, ProbeName, RolloutId};
use crate::minutes::Minutes;
use crate::position::Position;
use crate::rollout::{Pinned, RolloutRecord};

pub use from_snapshot::turns_from_snapshot;

/// A host in a rollout.
pub type HostKey = (RolloutId, Hostname);
/// A probe of a host in a rollout.
pub type ProbeKey = (RolloutId, Hostname, ProbeName);
/// A closure on a channel.
pub type QuarantineKey = (ChannelName, ClosureHash);
/// A gate in a wave of a rollout.
pub type BlockKey = (RolloutId, u32, Gate);

/// The entry behind a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// Position in the input log.
    pub position: Position,
    /// Fold time after it.
    pub at: Timestamp,
    /// Its trace context.
    pub traceparent: Option<String>,
}

/// All changes of one turn, applied in the order of the fields: a rollout that opens in a turn is
/// inserted before later changes of the same turn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TurnRows {
    /// Rollouts that opened, with their whole host sets.
    pub opened: Vec<OpenedRollout>,
    /// Next records of rollouts.
    pub rollouts: BTreeMap<RolloutId, RolloutChange>,
    /// Next records of hosts.
    pub hosts: BTreeMap<HostKey, HostChange>,
    /// Candidates for recovery; `None` removes one. They are no part of the record and leave the
    /// row's position as it is.
    pub recovery_candidates: BTreeMap<HostKey, Option<ClosureHash>>,
    /// Quarantines lifted, before those set.
    pub quarantines_removed: BTreeSet<QuarantineKey>,
    /// Quarantines set; an existing one keeps its cause.
    pub quarantines_inserted: BTreeMap<QuarantineKey, Stamp>,
    /// Outstanding failures, replaced per probe.
    pub probe_failures: BTreeMap<ProbeKey, FailureSet>,
    /// Rollouts whose queued dispatches are all removed, before the inserts below.
    pub dispatches_cancelled: BTreeSet<RolloutId>,
    /// Dispatches queued; `None` removes one.
    pub dispatches: BTreeMap<HostKey, Option<DispatchChange>>,
    /// Holds, replaced per gate; an empty list removes the row.
    pub blocks: BTreeMap<BlockKey, BlockChange>,
}

/// An opened rollout. Its host rows are derived from the pinned set during the write, so that a
/// million of them are never in memory at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedRollout {
    /// The record as opened; a later change of the same turn is in [`TurnRows::rollouts`].
    pub record: RolloutRecord,
    /// The manifest it was opened with.
    pub manifest_hash: ManifestHash,
    /// What is pinned, with the host set.
    pub pinned: Arc<Pinned>,
    /// The entry that opened it; its fold time is the `dispatchedAt` of every host.
    pub stamp: Stamp,
}

/// The next record of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutChange {
    /// The record.
    pub record: RolloutRecord,
    /// The entry that changed it.
    pub stamp: Stamp,
}

/// The next record of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostChange {
    /// The record.
    pub record: Arc<HostRecord>,
    /// The entry that changed it.
    pub stamp: Stamp,
}

/// All outstanding failures of one probe of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureSet {
    /// The failing controls; empty when none is left. Stored sorted, each once.
    pub failures: Vec<FailedControl>,
    /// When the host observed them.
    pub observed_at: Timestamp,
    /// The entry that reported them.
    pub stamp: Stamp,
}

/// A queued dispatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DispatchChange {
    /// The closure to switch to.
    pub target_closure: ClosureHash,
    /// Minutes of soak after activation.
    pub soak_minutes: Minutes,
    /// The entry that queued it; its fold time is the time of queueing.
    pub stamp: Stamp,
}

/// The holds of one gate in one wave of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockChange {
    /// The holds; empty when no host is held.
    pub holds: Vec<Hold>,
    /// The causing entry.
    pub stamp: Stamp,
}

impl TurnRows {
    /// True when only the cursor moves.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Rows named, host sets of opened rollouts not counted.
    pub fn len(&self) -> usize {
        self.opened.len()
            + self.rollouts.len()
            + self.hosts.len()
            + self.recovery_candidates.len()
            + self.quarantines_removed.len()
            + self.quarantines_inserted.len()
            + self.probe_failures.len()
            + self.dispatches_cancelled.len()
            + self.dispatches.len()
            + self.blocks.len()
    }
}
