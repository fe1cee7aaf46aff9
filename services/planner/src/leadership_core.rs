//! The leader: fences older leaders, follows every partition, plans, and ends its leadership as
//! soon as it sees a newer leader.

mod fences;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nixfleet_plan::view::ApplyOutcomeError;
use nixfleet_plan::{FleetView, PinnedSet, Plan, Release, plan};
use nixfleet_proto::snapshot::{Origin, OriginConflict};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{
    Decision, Entry, EntryBody, Outcome, OutputFrame, PlanAction, Position, Reason, RolloutId,
    RolloutState, Timestamp,
};

use fences::Fences;

pub use fences::{HoldReason, Stage};

/// Longest wait for the outcome of an action or a barrier. Owners that are away for longer end the
/// leadership each time; the outcome of an entry lost with the end of its log never arrives.
pub const OUTCOME_TIMEOUT: Duration = Duration::from_secs(300);

/// Longest wait for the outcomes of the first barriers. A partition without one is held from then on, and the
/// others are led: its owner cannot fold, or there is none.
pub const FENCE_TIMEOUT: Duration = Duration::from_secs(30);

/// Actions to append, in order, by partition.
pub type Appends = BTreeMap<Partition, Vec<PlanAction>>;

/// Effect of an outcome on the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppliedOutcome {
    /// True for the outcome of an action of this leader.
    pub is_ours: bool,
    /// True when a rollout opened, which may have superseded others.
    pub opens: bool,
}

/// Why a leadership ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "most fields say what they are")]
pub enum LeadershipEnd {
    /// The fold rejected an action because of a newer leader's barrier.
    #[error("a newer leader took over partition {0}")]
    Fenced(Partition),
    /// The barrier of a newer leader was applied.
    #[error("leader {highest} took over partition {partition} from leader {epoch}")]
    Outranked {
        partition: Partition,
        /// Epoch of the newer leader.
        highest: u64,
        /// Epoch of this leader.
        epoch: u64,
    },
    /// The fold rejected an entry because the clock of this planner is wrong.
    #[error("partition {partition} refused an entry of this planner: {message}")]
    Clock {
        partition: Partition,
        /// How far the clock is off.
        message: String,
    },
    /// No partition is left. Another instance may reach what this one cannot.
    #[error("no partition can be led: each input log is unavailable or each output log unreadable")]
    CutOff,
    /// The outcome of an action or a barrier is overdue: no owner folds, or the log lost its end.
    #[error("partition {partition} has no outcome of what was appended at {} for {} s", position.seq, OUTCOME_TIMEOUT.as_secs())]
    OutcomeTimeout {
        partition: Partition,
        /// Position of the first entry without outcome.
        position: Position,
    },
    /// The log continues from less state than the view has: the view must be loaded again.
    #[error("applying the log of partition {partition}")]
    Origin {
        partition: Partition,
        #[source]
        source: OriginConflict,
    },
    /// An outcome does not fit the view, which must be loaded again.
    #[error("applying the log of partition {partition}")]
    View {
        partition: Partition,
        #[source]
        source: ApplyOutcomeError,
    },
}

/// A plan whose actions are not appended yet.
#[derive(Debug)]
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// Actions of the plan by partition.
    pub appends: Appends,
}

/// One leadership, from the loaded view to its end.
#[derive(Debug)]
pub struct LeadershipCore {
    view: FleetView,
    partitions: u16,
    fences: Fences,
    /// Origin of the view of each partition; a complete log by default.
    origins: BTreeMap<Partition, Origin>,
    /// The first entry of each partition without outcome, and the time since which it is the first.
    awaited: BTreeMap<Partition, (Position, Duration)>,
}

impl LeadershipCore {
    /// Creates a leader with the view of the rows. Outcomes after the cursors of the rows follow
    /// through [`LeadershipCore::apply_outcome`], from the first fence on.
    pub fn new(view: FleetView, partitions: u16) -> Self {
        Self {
            view,
            partitions,
            fences: Fences::new(partitions),
            origins: BTreeMap::new(),
            awaited: BTreeMap::new(),
        }
    }

    /// Sets the origin of the rows of a partition, before its first frame.
    pub fn set_origin(&mut self, partition: Partition, origin: Origin) {
        self.origins.insert(partition, origin);
    }

    /// Starts the next frame of a log, before its outcomes are applied.
    ///
    /// # Errors
    /// [`LeadershipEnd::Origin`] when the frame does not continue the view.
    pub fn begin_frame(
        &mut self,
        partition: Partition,
        frame: &OutputFrame,
    ) -> Result<(), LeadershipEnd> {
        let origin = self.origins.entry(partition).or_default();
        origin
            .follow(frame)
            .map_err(|source| LeadershipEnd::Origin { partition, source })
    }

    /// Stage of the leadership.
    pub fn stage(&self) -> Stage {
        self.fences.stage()
    }

    /// Highest epoch of the leader; 0 before the first fence.
    pub fn epoch(&self) -> u64 {
        self.fences.epoch()
    }

    /// Partitions in which nothing is planned, and why.
    pub fn held(&self) -> BTreeMap<Partition, HoldReason> {
        self.fences.held()
    }

    /// View of the fleet.
    pub fn view(&self) -> &FleetView {
        &self.view
    }

    /// Sets the release of the following plans.
    pub fn set_release(&mut self, release: Release) {
        self.view.set_release(release);
    }

    /// Chooses a higher epoch and returns the barriers that announce it. All of them must be
    /// appended and recorded with [`LeadershipCore::barrier_appended`], or [`LeadershipCore::hold`] where the log
    /// takes none or the result is unknown, before the next outcome is applied.
    ///
    /// After a loss of logs or rows the highest epoch is unknown, and entries of an earlier leader
    /// may still arrive. An epoch is therefore the millisecond in which it is chosen, and one more
    /// than the highest known one where a clock was set back.
    pub fn fence(&mut self, now: Timestamp) -> Appends {
        let partitions = self.fences.begin(now, self.view.highest_leader_epoch());
        self.set_held();
        barriers(partitions)
    }

    /// Returns barriers for the held partitions, in a higher epoch. Each is recorded like those of
    /// [`LeadershipCore::fence`]; the other partitions go on meanwhile. A barrier whose outcome is applied before it
    /// is recorded is appended again.
    pub fn fence_held(&mut self, now: Timestamp) -> Appends {
        let highest = self.view.highest_leader_epoch();
        barriers(self.fences.begin_held(now, highest))
    }

    /// Records the position of an appended barrier.
    pub fn barrier_appended(&mut self, partition: Partition, position: Position) {
        self.fences.appended(partition, position);
    }

    /// Holds a partition until it accepts another barrier. One that cannot be read is held until the view is
    /// loaded again.
    ///
    /// # Errors
    /// [`LeadershipEnd::CutOff`] when this leader can write or read no partition.
    pub fn hold(&mut self, partition: Partition, reason: HoldReason) -> Result<(), LeadershipEnd> {
        self.fences.hold(partition, reason);
        self.set_held();
        match self.fences.is_cut_off() {
            true => Err(LeadershipEnd::CutOff),
            false => Ok(()),
        }
    }

    fn set_held(&mut self) {
        let held = self.fences.held().into_keys().collect();
        self.view.set_held(held, self.partitions);
    }

    /// Applies an outcome, in the order of its log.
    ///
    /// # Errors
    /// [`LeadershipEnd`] ends the leadership.
    pub fn apply_outcome(
        &mut self,
        partition: Partition,
        outcome: &Outcome,
        pinned: &PinnedSet,
    ) -> Result<AppliedOutcome, LeadershipEnd> {
        let mut barriers = self.fences.awaited();
        let is_barrier = barriers.any(|barrier| barrier == (partition, outcome.position));
        drop(barriers);
        let was_held = self.fences.is_held(partition);
        let accepted = barrier_epoch(outcome);
        self.fences.answered(partition, outcome.position, accepted);
        if was_held && !self.fences.is_held(partition) {
            self.set_held();
        }
        let is_ours = self.view.is_in_log(partition, outcome.position);
        let origin = self.origins.get(&partition).copied().unwrap_or_default();
        let absorbed = if origin.is_partial() {
            self.view
                .apply_outcome_skipping_unknown(partition, outcome, pinned)
        } else {
            self.view.apply_outcome(partition, outcome, pinned)
        };
        absorbed.map_err(|source| LeadershipEnd::View { partition, source })?;
        if is_ours || is_barrier {
            check_clock(partition, outcome)?;
        }
        if is_ours {
            check_not_fenced(partition, outcome)?;
        } else {
            self.check_not_outranked(partition)?;
        }
        let opens = opens(outcome);
        Ok(AppliedOutcome { is_ours, opens })
    }

    /// Plans, if this leader leads. The actions must be appended and recorded with
    /// [`LeadershipCore::appended`] before the next outcome is applied. A partition in which the result of one
    /// append is unknown is held: only a new barrier tells what its log holds.
    pub fn plan(&self, now: Timestamp) -> Planned {
        if self.stage() != Stage::Leading {
            let (plan, appends) = (Plan::default(), Appends::new());
            return Planned { plan, appends };
        }
        let plan = plan(&self.view, now);
        let mut appends = Appends::new();
        for action in &plan.actions {
            if let Some(rollout_id) = action.rollout_id() {
                let partition = Partition::of(&rollout_id.channel(), self.partitions);
                appends.entry(partition).or_default().push(action.clone());
            }
        }
        Planned { plan, appends }
    }

    /// Checks that outcomes arrive, at a reading of the monotonic clock: a partition whose first barrier is
    /// overdue by [`FENCE_TIMEOUT`] is held, and a held one is not waited for.
    ///
    /// # Errors
    /// [`LeadershipEnd::OutcomeTimeout`] when an outcome is overdue by [`OUTCOME_TIMEOUT`].
    pub fn check_outcome_timeout(&mut self, now: Duration) -> Result<(), LeadershipEnd> {
        let mut oldest = self.view.oldest_in_log();
        for (partition, barrier) in self.fences.awaited() {
            let first = oldest.entry(partition).or_insert(barrier);
            *first = (*first).min(barrier);
        }
        oldest.retain(|partition, _| !self.fences.is_held(*partition));
        self.awaited
            .retain(|partition, (position, _)| oldest.get(partition) == Some(position));
        for (partition, position) in oldest {
            let (_, since) = *self.awaited.entry(partition).or_insert((position, now));
            let waited = now.saturating_sub(since);
            if waited > FENCE_TIMEOUT && self.stage() == Stage::Fencing {
                self.fences.hold_awaited(partition);
                self.set_held();
            } else if waited > OUTCOME_TIMEOUT {
                return Err(LeadershipEnd::OutcomeTimeout {
                    partition,
                    position,
                });
            }
        }
        Ok(())
    }

    /// Records an appended action, which counts until its outcome is applied.
    pub fn appended(&mut self, partition: Partition, position: Position, action: PlanAction) {
        self.view.action_appended(partition, position, action);
    }

    /// An action of this leader in a partition as an entry.
    pub fn entry(&self, partition: Partition, action: PlanAction, now: Timestamp) -> Entry {
        let epoch = self.fences.epoch_of(partition);
        Entry::new(now, EntryBody::Plan { epoch, action })
    }

    /// Rollouts whose refs must not be released again.
    pub fn superseded(&self) -> BTreeSet<RolloutId> {
        let rollouts = self.view.rollouts().iter();
        rollouts
            .filter(|(_, rollout)| {
                matches!(
                    rollout.record.state,
                    RolloutState::Superseded | RolloutState::Pruned
                )
            })
            .map(|(rollout_id, _)| rollout_id.clone())
            .collect()
    }

    fn check_not_outranked(&self, partition: Partition) -> Result<(), LeadershipEnd> {
        let highest = self.view.leader_epoch(partition);
        let epoch = self.fences.epoch_of(partition);
        if self.stage() == Stage::Leading && highest > epoch {
            return Err(LeadershipEnd::Outranked {
                partition,
                highest,
                epoch,
            });
        }
        Ok(())
    }
}

fn barriers(partitions: Vec<Partition>) -> Appends {
    let barrier = |partition| (partition, vec![PlanAction::Barrier {}]);
    partitions.into_iter().map(barrier).collect()
}

/// A planner whose clock is wrong ends its leadership, so that another one leads.
fn check_clock(partition: Partition, outcome: &Outcome) -> Result<(), LeadershipEnd> {
    match &outcome.decision {
        Decision::Rejected(rejection) if rejection.reason == Reason::Clock => {
            let message = rejection.message.clone();
            Err(LeadershipEnd::Clock { partition, message })
        }
        Decision::Accepted(_) | Decision::Rejected(_) => Ok(()),
    }
}

fn check_not_fenced(partition: Partition, outcome: &Outcome) -> Result<(), LeadershipEnd> {
    match &outcome.decision {
        Decision::Rejected(rejection) if rejection.reason == Reason::Fenced => {
            Err(LeadershipEnd::Fenced(partition))
        }
        Decision::Accepted(_) | Decision::Rejected(_) => Ok(()),
    }
}

/// The epoch of an accepted barrier.
fn barrier_epoch(outcome: &Outcome) -> Option<u64> {
    match &outcome.decision {
        Decision::Accepted(accepted) => accepted.leader_epoch,
        Decision::Rejected(_) => None,
    }
}

/// Opening a rollout supersedes the ones before it.
fn opens(outcome: &Outcome) -> bool {
    match &outcome.decision {
        Decision::Accepted(accepted) => accepted.opened.is_some(),
        Decision::Rejected(_) => false,
    }
}
