//! The leader: fences older leaders out, follows every partition, plans, and stands down as soon as
//! somebody newer is seen.

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

/// Longest wait for the outcome of an action or a barrier. Owners that are away for longer cost a
/// leadership each time; one that was lost with the end of its log would be waited for without end.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// What goes into the logs: by partition, in this order.
pub type Appends = BTreeMap<Partition, Vec<PlanAction>>;

/// How far a leadership is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// [`Leader::fence`] comes next.
    Unfenced,
    /// Barriers are on their way; outcomes are absorbed until all are back.
    Fencing,
    /// The view holds everything that any earlier leader published: plans may be made.
    Leading,
}

/// What an outcome meant to the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// It is what became of an action of this leader.
    pub is_ours: bool,
    /// A rollout opened, so others may have been superseded.
    pub opens: bool,
}

/// Why a leadership ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StandDown {
    /// The fold refused an action, because a newer leader's barrier came before it.
    #[error("a newer leader took over partition {0}")]
    Fenced(Partition),
    /// A newer leader's barrier came by.
    #[error("leader {highest} took over partition {partition} from leader {epoch}")]
    Outranked {
        /// Where.
        partition: Partition,
        /// The newer leader.
        highest: u64,
        /// This one.
        epoch: u64,
    },
    /// The outcome of an action or a barrier does not come: nobody folds, or the log lost its end.
    #[error("partition {partition} has no outcome of what was appended at {} for {} s", position.seq, PATIENCE.as_secs())]
    Unanswered {
        /// Where.
        partition: Partition,
        /// Of the first without outcome.
        position: Position,
    },
    /// The log goes on from less than the view knows: it has to be loaded again.
    #[error("following partition {partition}")]
    Origin {
        /// Where.
        partition: Partition,
        /// Why.
        #[source]
        source: OriginConflict,
    },
    /// An outcome does not fit the view: it has to be loaded again.
    #[error("following partition {partition}")]
    View {
        /// Where.
        partition: Partition,
        /// Why.
        #[source]
        source: ApplyOutcomeError,
    },
}

/// A plan that was made and is not in the logs yet.
#[derive(Debug)]
pub struct Planned {
    /// The plan without its actions.
    pub plan: Plan,
    /// The actions of the plan, by partition.
    pub appends: Appends,
}

/// One leadership, from its loaded view to its end.
#[derive(Debug)]
pub struct Leader {
    view: FleetView,
    partitions: u16,
    stage: Stage,
    /// 0 before the first barrier.
    epoch: u64,
    /// Barriers that have not come back.
    barriers: BTreeMap<Partition, Position>,
    /// Partitions that accepted this leader's own barrier. That a partition is at this epoch is not
    /// enough: an older leader may have chosen the same number.
    fenced: BTreeSet<Partition>,
    /// What the view of each partition was built from; whole where nothing is said.
    origins: BTreeMap<Partition, Origin>,
    /// The first action or barrier of each partition without outcome, and since when it is the first.
    awaited: BTreeMap<Partition, (Position, Duration)>,
}

impl Leader {
    /// A leader with the view as of the rows. The outcomes after the rows' cursors come through
    /// [`Leader::absorb`], from the first fence on.
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

    /// Says what the rows of a partition were built from, before its first frame.
    pub fn set_origin(&mut self, partition: Partition, origin: Origin) {
        self.origins.insert(partition, origin);
    }

    /// Takes the next frame of a log in, before the outcomes it holds are absorbed.
    ///
    /// # Errors
    /// [`StandDown::Origin`] when the frame does not go on from the view.
    pub fn follow(&mut self, partition: Partition, frame: &OutputFrame) -> Result<(), StandDown> {
        let origin = self.origins.entry(partition).or_default();
        origin
            .follow(frame)
            .map_err(|source| StandDown::Origin { partition, source })
    }

    /// How far it is.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The epoch; 0 before the first fence.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What is known of the fleet.
    pub fn view(&self) -> &FleetView {
        &self.view
    }

    /// Plans for another release from now on.
    pub fn set_release(&mut self, release: Release) {
        self.view.set_release(release);
    }

    /// Chooses a higher epoch and says which barriers announce it. All of them must be appended and
    /// told with [`Leader::barrier_appended`] before the next outcome is absorbed; when the fate of
    /// one is unknown, the leadership is over.
    ///
    /// Where logs or rows were lost nobody knows the highest epoch any more, and what an earlier
    /// leader has on its way may still arrive. So an epoch is the millisecond in which it is chosen,
    /// and counts only where a clock was set back.
    pub fn fence(&mut self, now: Timestamp) -> Appends {
        let highest = self.epoch.max(self.view.highest_leader_epoch());
        let moment = u64::try_from(now.timestamp_millis()).unwrap_or(0);
        self.epoch = highest + 1;
        if !mutation_testing::is_active("planner-skip-barrier") {
            self.epoch = self.epoch.max(moment);
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

    /// Notes where a barrier is.
    pub fn barrier_appended(&mut self, partition: Partition, position: Position) {
        self.barriers.insert(partition, position);
    }

    /// Takes an outcome over, in the order of its log.
    ///
    /// # Errors
    /// [`StandDown`] ends the leadership.
    pub fn absorb(
        &mut self,
        partition: Partition,
        outcome: &Outcome,
        pinned: &PinnedSet,
    ) -> Result<Heard, StandDown> {
        self.see_barrier(partition, outcome);
        let is_ours = self.view.is_in_log(partition, outcome.position);
        let origin = self.origins.get(&partition).copied().unwrap_or_default();
        let absorbed = if origin.is_partial() {
            self.view
                .apply_outcome_skipping_unknown(partition, outcome, pinned)
        } else {
            self.view.apply_outcome(partition, outcome, pinned)
        };
        absorbed.map_err(|source| StandDown::View { partition, source })?;
        if is_ours {
            is_not_fenced(partition, outcome)?;
        } else {
            self.is_not_outranked(partition)?;
        }
        let opens = opens(outcome);
        Ok(Heard { is_ours, opens })
    }

    /// Plans, once it leads. The actions must be appended and told with [`Leader::appended`] before
    /// the next outcome is absorbed; when the fate of one is unknown, the leadership is over: the
    /// view would count too little, and only a new barrier tells what is in the log.
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

    /// Looks whether outcomes come, at a moment of a clock that is never set.
    ///
    /// # Errors
    /// [`StandDown::Unanswered`] after [`PATIENCE`] without the same one.
    pub fn check_answers(&mut self, now: Duration) -> Result<(), StandDown> {
        let mut oldest = self.view.oldest_in_log();
        for (partition, barrier) in &self.barriers {
            let first = oldest.entry(*partition).or_insert(*barrier);
            *first = (*first).min(*barrier);
        }
        self.awaited
            .retain(|partition, (position, _)| oldest.get(partition) == Some(position));
        for (partition, position) in oldest {
            let (_, since) = *self.awaited.entry(partition).or_insert((position, now));
            if now.saturating_sub(since) > PATIENCE {
                return Err(StandDown::Unanswered {
                    partition,
                    position,
                });
            }
        }
        Ok(())
    }

    /// Notes an action that is in the log, so that it counts until its outcome is back.
    pub fn appended(&mut self, partition: Partition, position: Position, action: PlanAction) {
        self.view.action_appended(partition, position, action);
    }

    /// A decision of this leader as it goes into the log.
    pub fn entry(&self, action: PlanAction, now: Timestamp) -> Entry {
        let epoch = self.epoch;
        Entry::new(now, EntryBody::Plan { epoch, action })
    }

    /// Rollouts whose refs must not come back.
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

    /// Notes a barrier of this leader that came back.
    fn see_barrier(&mut self, partition: Partition, outcome: &Outcome) {
        if self.barriers.get(&partition) != Some(&outcome.position) {
            return;
        }
        self.barriers.remove(&partition);
        // Another entry is in its place where the log lost its end and went on.
        if announced_by(outcome) == Some(self.epoch) {
            self.fenced.insert(partition);
        }
        if self.barriers.is_empty() {
            let is_fenced = self.fenced.len() == usize::from(self.partitions);
            // Refused or lost somewhere: an earlier leader that the rows did not show had this epoch
            // or more, or the log ended before it.
            self.stage = if is_fenced {
                Stage::Leading
            } else {
                Stage::Unfenced
            };
        }
    }

    fn is_not_outranked(&self, partition: Partition) -> Result<(), StandDown> {
        let highest = self.view.leader_epoch(partition);
        if self.stage == Stage::Leading && highest > self.epoch {
            return Err(StandDown::Outranked {
                partition,
                highest,
                epoch: self.epoch,
            });
        }
        Ok(())
    }
}

fn is_not_fenced(partition: Partition, outcome: &Outcome) -> Result<(), StandDown> {
    match &outcome.decision {
        Decision::Rejected(rejection) if rejection.reason == Reason::Fenced => {
            Err(StandDown::Fenced(partition))
        }
        Decision::Accepted(_) | Decision::Rejected(_) => Ok(()),
    }
}

/// The epoch that an accepted barrier announced.
fn announced_by(outcome: &Outcome) -> Option<u64> {
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
