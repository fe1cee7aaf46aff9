//! The leader: fences older leaders, follows every partition, plans, and ends its leadership as
//! soon as it sees a newer leader.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nixfleet_plan::view::ApplyOutcomeError;
use nixfleet_plan::{FleetView, PinnedSet, Plan, Release, plan};
use nixfleet_proto::snapshot::{Origin, OriginConflict};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{
    Decision, Entry, EntryBody, Outcome, OutputFrame, PlanAction, Position, Reason, RolloutId,
    RolloutState, Timestamp, mutation_testing,
};

/// Longest wait for the outcome of an action or a barrier. Owners that are away for longer end the
/// leadership each time; the outcome of an entry lost with the end of its log never arrives.
pub const OUTCOME_TIMEOUT: Duration = Duration::from_secs(300);

/// Actions to append, in order, by partition.
pub type Appends = BTreeMap<Partition, Vec<PlanAction>>;

/// Stage of a leadership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// [`LeadershipCore::fence`] must be called next.
    Unfenced,
    /// Barriers are being appended; their outcomes are awaited.
    Fencing,
    /// The view has every action of earlier leaders: plans may be made.
    Leading,
}

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
    stage: Stage,
    /// Epoch of this leader; 0 before the first barrier.
    epoch: u64,
    /// Appended barriers without outcome.
    barriers: BTreeMap<Partition, Position>,
    /// Partitions that accepted a barrier of this leader. The epoch of a partition alone is not
    /// enough: an older leader may have chosen the same number.
    fenced: BTreeSet<Partition>,
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
            stage: Stage::Unfenced,
            epoch: 0,
            barriers: BTreeMap::new(),
            fenced: BTreeSet::new(),
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
        self.stage
    }

    /// Epoch of the leader; 0 before the first fence.
    pub fn epoch(&self) -> u64 {
        self.epoch
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
    /// appended and recorded with [`LeadershipCore::barrier_appended`] before the next outcome is applied.
    /// When the result of one append is unknown, the leadership is over.
    ///
    /// After a loss of logs or rows the highest epoch is unknown, and entries of an earlier leader
    /// may still arrive. An epoch is therefore the millisecond in which it is chosen, and one more
    /// than the highest known one where a clock was set back.
    pub fn fence(&mut self, now: Timestamp) -> Appends {
        let highest = self.epoch.max(self.view.highest_leader_epoch());
        let millisecond = u64::try_from(now.timestamp_millis()).unwrap_or(0);
        self.epoch = highest + 1;
        if !mutation_testing::is_active("planner-skip-barrier") {
            self.epoch = self.epoch.max(millisecond);
        }
        self.fenced.clear();
        self.barriers.clear();
        self.stage = if mutation_testing::is_active("planner-skip-barrier") {
            Stage::Leading
        } else {
            Stage::Fencing
        };
        let barrier = |partition| (partition, vec![PlanAction::Barrier {}]);
        Partition::all(self.partitions).map(barrier).collect()
    }

    /// Records the position of an appended barrier.
    pub fn barrier_appended(&mut self, partition: Partition, position: Position) {
        self.barriers.insert(partition, position);
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
        self.note_barrier_outcome(partition, outcome);
        let is_ours = self.view.is_in_log(partition, outcome.position);
        let origin = self.origins.get(&partition).copied().unwrap_or_default();
        let absorbed = if origin.is_partial() {
            self.view
                .apply_outcome_skipping_unknown(partition, outcome, pinned)
        } else {
            self.view.apply_outcome(partition, outcome, pinned)
        };
        absorbed.map_err(|source| LeadershipEnd::View { partition, source })?;
        if is_ours {
            check_not_fenced(partition, outcome)?;
        } else {
            self.check_not_outranked(partition)?;
        }
        let opens = opens(outcome);
        Ok(AppliedOutcome { is_ours, opens })
    }

    /// Plans, if this leader leads. The actions must be appended and recorded with
    /// [`LeadershipCore::appended`] before the next outcome is applied. When the result of one append is
    /// unknown, the leadership is over: only a new barrier tells what the log holds.
    pub fn plan(&self, now: Timestamp) -> Planned {
        if self.stage != Stage::Leading {
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

    /// Checks that outcomes arrive, at a reading of the monotonic clock.
    ///
    /// # Errors
    /// [`LeadershipEnd::OutcomeTimeout`] when an outcome is overdue by [`OUTCOME_TIMEOUT`].
    pub fn check_outcome_timeout(&mut self, now: Duration) -> Result<(), LeadershipEnd> {
        let mut oldest = self.view.oldest_in_log();
        for (partition, barrier) in &self.barriers {
            let first = oldest.entry(*partition).or_insert(*barrier);
            *first = (*first).min(*barrier);
        }
        self.awaited
            .retain(|partition, (position, _)| oldest.get(partition) == Some(position));
        for (partition, position) in oldest {
            let (_, since) = *self.awaited.entry(partition).or_insert((position, now));
            if now.saturating_sub(since) > OUTCOME_TIMEOUT {
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

    /// An action of this leader as an entry.
    pub fn entry(&self, action: PlanAction, now: Timestamp) -> Entry {
        let epoch = self.epoch;
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

    /// Records the outcome of a barrier of this leader.
    fn note_barrier_outcome(&mut self, partition: Partition, outcome: &Outcome) {
        if self.barriers.get(&partition) != Some(&outcome.position) {
            return;
        }
        self.barriers.remove(&partition);
        // Another entry has its position if the log lost its end and grew again.
        if barrier_epoch(outcome) == Some(self.epoch) {
            self.fenced.insert(partition);
        }
        if self.barriers.is_empty() {
            let is_fenced = self.fenced.len() == usize::from(self.partitions);
            // A barrier was rejected or lost: an earlier leader that the rows did not show had this
            // epoch or a higher one, or the log lost its end.
            self.stage = if is_fenced {
                Stage::Leading
            } else {
                Stage::Unfenced
            };
        }
    }

    fn check_not_outranked(&self, partition: Partition) -> Result<(), LeadershipEnd> {
        let highest = self.view.leader_epoch(partition);
        if self.stage == Stage::Leading && highest > self.epoch {
            return Err(LeadershipEnd::Outranked {
                partition,
                highest,
                epoch: self.epoch,
            });
        }
        Ok(())
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
