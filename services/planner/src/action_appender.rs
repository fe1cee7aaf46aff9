//! One turn: plan, append the actions, and record their positions in the view.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::Utc;
use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use nixfleet_bus::{AppendError, InputPublisher};
use nixfleet_planner::{Appends, ClockReading, HoldReason, LeadershipCore};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Entry, PlanAction, Position};
use nixfleet_service::trace_context;
use tracing::Instrument as _;

use crate::telemetry;

/// What became of the actions that were appended to one partition.
pub struct PartitionAppend {
    partition: Partition,
    actions: Vec<PlanAction>,
    result: Result<Vec<Position>, AppendError>,
}

impl PartitionAppend {
    /// Records the positions, or holds the partition: some actions may be stored, and only a new barrier tells.
    ///
    /// # Errors
    /// When no partition is left, or the clock of the process is wrong.
    pub fn record(self, leader: &mut LeadershipCore) -> anyhow::Result<()> {
        let partition = self.partition;
        let (error, reason) = match self.result {
            Ok(positions) => {
                for (position, action) in positions.into_iter().zip(self.actions) {
                    record_stored(leader, (partition, position), action);
                }
                return Ok(());
            }
            Err(error @ AppendError::Clock(_)) => return Err(error.into()),
            Err(error @ (AppendError::Full(_) | AppendError::TooLarge { .. })) => {
                (error, HoldReason::Refused)
            }
            Err(error @ AppendError::Unavailable(_)) => (error, HoldReason::Unavailable),
        };
        if !leader.held().contains_key(&partition) {
            tracing::warn!(%partition, %error, "the input log took no entry: nothing is planned for its channels");
        }
        leader
            .hold(partition, reason)
            .with_context(|| format!("appending to partition {partition}: {error}"))
    }
}

fn record_stored(
    leader: &mut LeadershipCore,
    (partition, position): (Partition, Position),
    action: PlanAction,
) {
    if matches!(action, PlanAction::Barrier {}) {
        return leader.barrier_appended(partition, position);
    }
    tracing::debug!(%partition, seq = position.seq, index = position.index,
        action = action.name(), rollout = action.rollout_id().map(tracing::field::display),
        host = action.hostname().map(tracing::field::display), "planned");
    leader.appended(partition, position, action);
}

/// Clocks of the process.
#[derive(Debug, Clone, Copy)]
pub struct ProcessClocks {
    origin: Instant,
}

impl ProcessClocks {
    /// Starts the monotonic clock.
    pub fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    /// Reads both clocks.
    pub fn now(self) -> ClockReading {
        ClockReading {
            monotonic: self.origin.elapsed(),
            wall: Utc::now(),
        }
    }

    /// Waits until a time on the monotonic clock.
    pub async fn wait_until(self, due: Duration) {
        let until = self.origin + due;
        tokio::time::sleep_until(until.into()).await;
    }
}

/// Appends the actions of one leader to the input logs.
pub struct ActionAppender {
    input: InputPublisher,
}

/// Inputs for the schedule of the next plan.
pub struct TurnResult {
    /// Time at which the plan changes without an event.
    pub next_deadline: Option<nixfleet_proto::Timestamp>,
    /// True when actions are left to plan now.
    pub is_capped: bool,
}

impl ActionAppender {
    pub fn new(input: InputPublisher) -> Self {
        Self { input }
    }

    /// Appends the barriers of the next epoch. No outcome may be applied meanwhile. A partition whose log takes none
    /// is held.
    ///
    /// # Errors
    /// As [`PartitionAppend::record`].
    pub async fn fence(&self, leader: &mut LeadershipCore) -> anyhow::Result<()> {
        let barriers = leader.fence(self.input.now());
        self.append(leader, barriers).await
    }

    /// Starts to append barriers to the held partitions. A log that does not answer delays none of the others.
    pub fn start_fencing_held(
        &self,
        leader: &mut LeadershipCore,
    ) -> Vec<BoxFuture<'static, PartitionAppend>> {
        let barriers = leader.fence_held(self.input.now());
        self.start(leader, barriers)
    }

    /// Plans and appends the actions. No outcome may be applied meanwhile, so that every action is
    /// recorded before its outcome.
    ///
    /// # Errors
    /// As [`PartitionAppend::record`].
    pub async fn plan_and_append(&self, leader: &mut LeadershipCore) -> anyhow::Result<TurnResult> {
        let started = Instant::now();
        let now = self.input.now();
        let planned = leader.plan(now);
        let plan = planned.plan;
        telemetry::report_plan(&plan, started.elapsed().as_secs_f64());
        telemetry::set_manifest_ages(leader.view(), now);
        let done = TurnResult {
            next_deadline: plan.next_deadline,
            is_capped: plan.is_capped,
        };
        let count = plan.actions.len();
        if count == 0 {
            return Ok(done);
        }
        let span = tracing::info_span!("turn", epoch = leader.epoch(), actions = count);
        let appended = self.append(leader, planned.appends);
        appended.instrument(span).await?;
        telemetry::report_turn(count, started.elapsed().as_secs_f64());
        Ok(done)
    }

    async fn append(&self, leader: &mut LeadershipCore, appends: Appends) -> anyhow::Result<()> {
        let appended = join_all(self.start(leader, appends)).await;
        appended
            .into_iter()
            .try_for_each(|append| append.record(leader))
    }

    /// Starts to append, each partition on its own.
    fn start(
        &self,
        leader: &LeadershipCore,
        appends: Appends,
    ) -> Vec<BoxFuture<'static, PartitionAppend>> {
        let traceparent = trace_context::current_traceparent();
        let now = self.input.now();
        let appends = appends.into_iter().map(|(partition, actions)| {
            let entries = actions.iter().map(|action| Entry {
                traceparent: traceparent.clone(),
                ..leader.entry(partition, action.clone(), now)
            });
            let entries: Vec<_> = entries.collect();
            let input = self.input.clone();
            async move {
                let result = input.append_all(partition, entries).await;
                PartitionAppend {
                    partition,
                    actions,
                    result,
                }
            }
            .boxed()
        });
        appends.collect()
    }
}
