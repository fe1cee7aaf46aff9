//! What the planner keeps of one host in one rollout.

use std::sync::Arc;

use nixfleet_proto::{ClosureHash, HostRecord, HostState, Minutes, Position, Timestamp};

use crate::wait_reason::{Queued, WaitReason, unpassed_probes, wait_reasons};

/// Wave of a host that the rollout's pinned set does not list; no cursor ever reaches it.
pub const UNKNOWN_WAVE: u32 = u32::MAX;

/// One host in one rollout, without what no decision needs: a fleet of a million hosts stays in
/// memory.
#[derive(Debug, Clone)]
pub struct HostView {
    /// Where it stands.
    pub state: HostState,
    /// Pinned wave.
    pub wave: u32,
    /// False: in no wave of a channel that declares waves.
    pub staged: bool,
    /// The closure it shall run.
    pub target_closure: ClosureHash,
    /// Soak of its wave.
    pub soak_minutes: Minutes,
    /// When the record was created.
    pub created_at: Timestamp,
    /// A dispatch is queued and not acknowledged.
    pub queued: bool,
    /// The closure it was seen running while Pending.
    pub candidate: Option<ClosureHash>,
    /// The entry that last changed it.
    pub position: Position,
    /// The whole record while a decision or a reason depends on it: Soaking and Failed.
    pub record: Option<Arc<HostRecord>>,
    /// Which of its rollout's budget lists it is on; an index into the rollout's memberships.
    pub(crate) membership: u32,
    /// Where it stands in the indices of its rollout.
    pub(crate) indexed: Indexed,
}

/// What the indices of a rollout hold about a host, so that it can be taken out again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Indexed {
    pub slot: Slot,
    pub done: bool,
    pub failed: bool,
    pub reverted: bool,
    pub failures: usize,
    pub due_at: Option<Timestamp>,
}

/// Where a Pending host waits for a decision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Nothing to decide.
    #[default]
    None,
    /// Treated like every host with the same key.
    Group(GroupKey),
    /// Asked on its own: quarantined or behind a host edge.
    Single,
    /// Seen on its target.
    Candidate,
}

/// What makes hosts of one wave alike for every gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupKey {
    pub membership: u32,
    pub staged: bool,
    /// In flight for another rollout: such a host is not counted against itself.
    pub in_flight: bool,
}

impl HostView {
    /// Takes over the next record of the host.
    pub(crate) fn update(&mut self, record: &Arc<HostRecord>, position: Position) {
        self.state = record.state;
        self.position = position;
        self.record = is_kept(record.state).then(|| Arc::clone(record));
    }

    /// True when the host was seen on the closure it shall run.
    pub fn is_candidate(&self) -> bool {
        self.state == HostState::Pending && self.candidate.as_ref() == Some(&self.target_closure)
    }
}

/// True when decisions or reasons depend on more of a record than its state.
pub(crate) fn is_kept(state: HostState) -> bool {
    match state {
        HostState::Soaking | HostState::Failed => true,
        HostState::Pending
        | HostState::Activating
        | HostState::Deferred
        | HostState::Converged
        | HostState::Reverted => false,
    }
}

/// The time from which a claim can complete; absent while an invariant other than the soak is
/// missing.
///
/// Source: docs/semantics.md, convergence invariants.
pub(crate) fn completes_at(record: &HostRecord) -> Option<Timestamp> {
    if record.state != HostState::Soaking {
        return None;
    }
    let claim = record.convergence_claim.as_ref()?;
    let complete = claim.current_closure == record.target_closure
        && record.declared_probes.is_some()
        && unpassed_probes(record).next().is_none();
    if complete { record.soak_due_at } else { None }
}

impl HostView {
    /// What the host waits for, when no gate holds it.
    pub(crate) fn waiting(&self, is_dispatched: bool, now: Timestamp) -> Vec<WaitReason> {
        match self.state {
            HostState::Pending if is_dispatched => vec![WaitReason::Acknowledgement],
            HostState::Activating => vec![WaitReason::Activation],
            HostState::Deferred => vec![WaitReason::Reboot],
            HostState::Soaking | HostState::Failed => {
                let record = self.record.as_deref();
                record.map_or_else(Vec::new, |record| wait_reasons(record, Queued::No, now))
            }
            HostState::Pending | HostState::Converged | HostState::Reverted => Vec::new(),
        }
    }
}
