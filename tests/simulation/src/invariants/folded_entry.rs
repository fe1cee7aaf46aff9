//! An entry of the input log with its outcome in the reference, as the invariants check it.

use std::rc::Rc;

use nixfleet_core::partition::{Rollout, RolloutHost};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{
    Accepted, Decision, Entry, EntryBody, HostState, Hostname, Outcome, PlanAction, RolloutId,
    RolloutState,
};

use crate::reference_fold::ReferenceFold;
use crate::signed_release::Release;

/// The result of an invariant; the error says what is wrong.
pub type CheckResult = Result<(), String>;

/// A folded entry; the reference has the state after it.
#[derive(Debug, Clone, Copy)]
pub struct FoldedEntry<'a> {
    /// Its partition.
    pub partition: Partition,
    /// The entry.
    pub entry: &'a Entry,
    /// Its outcome in the reference.
    pub outcome: &'a Outcome,
    /// All partitions, after the entry.
    pub reference: &'a ReferenceFold,
    /// Published releases, oldest first.
    pub releases: &'a [Rc<Release>],
}

impl<'a> FoldedEntry<'a> {
    /// Its changes, when it was accepted.
    pub fn accepted(&self) -> Option<&'a Accepted> {
        match &self.outcome.decision {
            Decision::Accepted(accepted) => Some(accepted),
            Decision::Rejected(_) => None,
        }
    }

    /// The action, when it is an accepted one of a planner.
    pub fn action(&self) -> Option<&'a PlanAction> {
        self.accepted()?;
        match &self.entry.body {
            EntryBody::Plan { action, .. } => Some(action),
            EntryBody::HostEvent { .. }
            | EntryBody::RecoveryCandidate { .. }
            | EntryBody::Operator { .. } => None,
        }
    }

    /// The host that an accepted action starts, and whether it counts against budgets.
    pub fn started_host(&self) -> Option<StartedHost<'a>> {
        let (rollout_id, hostname, is_dispatch) = match self.action()? {
            PlanAction::QueueDispatch {
                rollout_id,
                hostname,
                ..
            } => (rollout_id, hostname, true),
            PlanAction::ConvergeUnchanged {
                rollout_id,
                hostname,
                ..
            } => (rollout_id, hostname, false),
            PlanAction::AdvanceWave { .. }
            | PlanAction::SoakElapsed { .. }
            | PlanAction::OpenRollout { .. }
            | PlanAction::RetentionExpired { .. }
            | PlanAction::BlocksChanged { .. }
            | PlanAction::Barrier {} => return None,
        };
        let rollout = self.rollout(rollout_id)?;
        Some(StartedHost {
            rollout,
            host: rollout.hosts.get(hostname)?,
            is_dispatch,
        })
    }

    /// A rollout as it is now.
    pub fn rollout(&self, rollout_id: &RolloutId) -> Option<&'a Rollout> {
        let state = self.reference.state(self.partition)?;
        state.rollout(rollout_id)
    }

    /// The release of a rollout.
    pub fn release_of(&self, rollout_id: &RolloutId) -> Option<&'a Release> {
        let commit = rollout_id.target_ref();
        let mut releases = self.releases.iter();
        releases
            .find(|release| release.commit == commit.as_str())
            .map(Rc::as_ref)
    }
}

/// A host that starts in a rollout.
#[derive(Debug, Clone, Copy)]
pub struct StartedHost<'a> {
    /// Its rollout.
    pub rollout: &'a Rollout,
    /// The host.
    pub host: &'a RolloutHost,
    /// True for a dispatch, false for an unchanged host.
    pub is_dispatch: bool,
}

/// Converged, Deferred or waived.
pub fn is_done(rollout: &Rollout, hostname: &Hostname) -> bool {
    if rollout.record.waived_hosts.contains(hostname) {
        return true;
    }
    let state = rollout.hosts.get(hostname).map(|host| host.record.state);
    matches!(state, Some(HostState::Converged | HostState::Deferred))
}

/// Neither finished nor stopped.
pub fn is_running(rollout: &Rollout) -> bool {
    matches!(
        rollout.record.state,
        RolloutState::Active | RolloutState::Converging
    )
}
