//! The planner's view of one host in one rollout.

use std::sync::Arc;

use nixfleet_proto::{ClosureHash, HostRecord, HostState, Minutes, Position, Timestamp};

use crate::awaited_step::{AwaitedStep, Queued, awaited_steps, unpassed_probes};

/// Wave of a host outside of the pinned set of its rollout; no cursor reaches it.
pub const UNKNOWN_WAVE: u32 = u32::MAX;

/// One host in one rollout, reduced to the fields that decisions need: a fleet of a million hosts stays
/// in memory.
#[derive(Debug, Clone)]
pub struct HostView {
    /// State.
    pub state: HostState,
    /// Pinned wave.
    pub wave: u32,
    /// False: in no wave of a channel that declares waves.
    pub staged: bool,
    /// Target closure.
    pub target_closure: ClosureHash,
    /// Soak of its wave.
    pub soak_minutes: Minutes,
    /// Creation time of the record.
    pub created_at: Timestamp,
    /// A dispatch is queued and not acknowledged.
    pub queued: bool,
    /// The running closure of a Pending host.
    pub candidate: Option<ClosureHash>,
    /// The entry that last changed it.
    pub position: Position,
    /// The record, in the states whose decisions or wait reasons need it: Soaking and Failed.
    pub record: Option<Arc<HostRecord>>,
    /// Index into the budget memberships of its rollout.
    pub(crate) membership: u32,
    pub(crate) indexed: Indexed,
}

/// Entries of a host in the indices of its rollout, for their removal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Indexed {
    pub slot: Slot,
    pub done: bool,
    pub failed: bool,
    pub reverted: bool,
    pub failures: usize,
    pub due_at: Option<Timestamp>,
}

/// Index slot of a Pending host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Slot {
    /// No decision pending.
    #[default]
    None,
    /// Checked as one of the hosts with the same key.
    Group(GroupKey),
    /// Checked alone: quarantined or behind a host edge.
    Single,
    /// Runs its target already.
    Candidate,
}

/// Key of hosts of one wave that are equal for every gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupKey {
    pub membership: u32,
    pub staged: bool,
    /// In flight for another rollout: does not count against itself.
    pub in_flight: bool,
}

impl HostView {
    pub(crate) fn update(&mut self, record: &Arc<HostRecord>, position: Position) {
        self.state = record.state;
        self.position = position;
        self.record = is_kept(record.state).then(|| Arc::clone(record));
    }

    /// True for a Pending host that runs its target.
    pub fn is_candidate(&self) -> bool {
        self.state == HostState::Pending && self.candidate.as_ref() == Some(&self.target_closure)
    }
}

/// True for states whose decisions or wait reasons need the record.
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

/// The time at which a claim can complete; absent while another invariant than the soak is violated.
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
    pub(crate) fn waiting(&self, is_dispatched: bool, now: Timestamp) -> Vec<AwaitedStep> {
        match self.state {
            HostState::Pending if is_dispatched => vec![AwaitedStep::Acknowledgement],
            HostState::Activating => vec![AwaitedStep::Activation],
            HostState::Deferred => vec![AwaitedStep::Reboot],
            HostState::Soaking | HostState::Failed => {
                let record = self.record.as_deref();
                record.map_or_else(Vec::new, |record| awaited_steps(record, Queued::No, now))
            }
            HostState::Pending | HostState::Converged | HostState::Reverted => Vec::new(),
        }
    }
}
