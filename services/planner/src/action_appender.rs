//! One turn: plan, append the actions, and record their positions in the view.

use std::time::{Duration, Instant};

use chrono::Utc;
use futures::future::try_join_all;
use nixfleet_bus::{AppendError, InputPublisher};
use nixfleet_planner::{Appends, ClockReading, LeadershipCore};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Entry, PlanAction, Position};
use nixfleet_service::trace_context;
use tracing::Instrument as _;

use crate::telemetry;

/// What became of the actions of a turn.
#[derive(Default)]
struct Appended {
    /// Actions with their positions.
    stored: Vec<(Partition, Position, PlanAction)>,
    /// Partitions whose log is full.
    full: Vec<Partition>,
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

    /// Appends the barriers of the next epoch. No outcome may be applied meanwhile. A partition whose log is full
    /// is held.
    ///
    /// # Errors
    /// When it is unknown whether a barrier is in the log.
    pub async fn fence(&self, leader: &mut LeadershipCore) -> Result<(), AppendError> {
        let barriers = leader.fence(self.input.now());
        self.append_barriers(leader, barriers).await
    }

    /// Tries the held partitions again. No outcome may be applied meanwhile.
    ///
    /// # Errors
    /// As [`ActionAppender::fence`].
    pub async fn fence_held(&self, leader: &mut LeadershipCore) -> Result<(), AppendError> {
        let barriers = leader.fence_held(self.input.now());
        self.append_barriers(leader, barriers).await
    }

    async fn append_barriers(
        &self,
        leader: &mut LeadershipCore,
        barriers: Appends,
    ) -> Result<(), AppendError> {
        let appended = self.append(leader, barriers).await?;
        for (partition, position, _) in appended.stored {
            leader.barrier_appended(partition, position);
        }
        hold(leader, appended.full);
        Ok(())
    }

    /// Plans and appends the actions. No outcome may be applied meanwhile, so that every action is
    /// recorded before its outcome.
    ///
    /// # Errors
    /// When it is unknown whether an action is in the log: the view may miss it, and only a new
    /// barrier tells what the log holds.
    pub async fn plan_and_append(
        &self,
        leader: &mut LeadershipCore,
    ) -> Result<TurnResult, AppendError> {
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
        let appended = self
            .append(leader, planned.appends)
            .instrument(span)
            .await?;
        for (partition, position, action) in appended.stored {
            tracing::debug!(%partition, seq = position.seq, index = position.index,
                action = action.name(), rollout = action.rollout_id().map(tracing::field::display),
                host = action.hostname().map(tracing::field::display), "planned");
            leader.appended(partition, position, action);
        }
        hold(leader, appended.full);
        telemetry::report_turn(count, started.elapsed().as_secs_f64());
        Ok(done)
    }

    async fn append(
        &self,
        leader: &LeadershipCore,
        appends: Appends,
    ) -> Result<Appended, AppendError> {
        let traceparent = trace_context::current_traceparent();
        let now = self.input.now();
        let appends = appends.into_iter().map(|(partition, actions)| {
            let entries = actions.iter().map(|action| Entry {
                traceparent: traceparent.clone(),
                ..leader.entry(partition, action.clone(), now)
            });
            let entries: Vec<_> = entries.collect();
            async move {
                let stored = match self.input.append_all(partition, entries).await {
                    Ok(positions) => Some(positions.into_iter().zip(actions)),
                    // Some actions may be stored: only a new barrier tells, and the partition waits for it.
                    Err(AppendError::Full(_)) => None,
                    Err(error) => return Err(error),
                };
                Ok((partition, stored))
            }
        });
        let mut appended = Appended::default();
        for (partition, stored) in try_join_all(appends).await? {
            match stored {
                Some(stored) => appended
                    .stored
                    .extend(stored.map(|(position, action)| (partition, position, action))),
                None => appended.full.push(partition),
            }
        }
        Ok(appended)
    }
}

fn hold(leader: &mut LeadershipCore, full: Vec<Partition>) {
    for partition in full {
        tracing::warn!(%partition, "the input log is full: nothing is planned for its channels");
        leader.hold(partition);
    }
}
