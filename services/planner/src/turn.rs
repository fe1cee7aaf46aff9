//! One plan: made by the leader, appended to the logs, noted in its view.

use std::time::{Duration, Instant};

use chrono::Utc;
use futures::future::try_join_all;
use nixfleet_bus::{AppendError, InputPublisher};
use nixfleet_planner::{Appends, Leader, Now};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Entry, PlanAction, Position};
use nixfleet_service::trace;
use tracing::Instrument as _;

use crate::measure;

/// An action and where it is.
type Appended = (Partition, Position, PlanAction);

/// The clocks of this process.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    origin: Instant,
}

impl Clocks {
    /// Counts from now on.
    pub fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    /// The time.
    pub fn now(self) -> Now {
        Now {
            monotonic: self.origin.elapsed(),
            wall: Utc::now(),
        }
    }

    /// Waits until a moment on the monotonic clock.
    pub async fn wait_until(self, due: Duration) {
        let until = self.origin + due;
        tokio::time::sleep_until(until.into()).await;
    }
}

/// Puts the actions of one leader into the logs.
pub struct Turns {
    input: InputPublisher,
}

/// When the next plan is due.
pub struct Done {
    /// Time that will change the plan by itself.
    pub next_deadline: Option<nixfleet_proto::Timestamp>,
    /// There is more to plan right now.
    pub is_capped: bool,
}

impl Turns {
    /// The turns of one leader.
    pub fn new(input: InputPublisher) -> Self {
        Self { input }
    }

    /// Announces the leader's next epoch in every partition. Outcomes must not be absorbed meanwhile.
    ///
    /// # Errors
    /// When a barrier may or may not be in the log.
    pub async fn fence(&self, leader: &mut Leader) -> Result<(), AppendError> {
        let barriers = leader.fence(Utc::now());
        for (partition, position, _) in self.append(leader, barriers).await? {
            leader.barrier_appended(partition, position);
        }
        Ok(())
    }

    /// Plans and publishes. The outcomes must not be absorbed while this runs, so that every action
    /// is noted before it comes back.
    ///
    /// # Errors
    /// When an action may or may not be in the log: the view then counts too little, and only a new
    /// barrier tells what is there.
    pub async fn take(&self, leader: &mut Leader) -> Result<Done, AppendError> {
        let started = Instant::now();
        let now = Utc::now();
        let planned = leader.plan(now);
        let plan = planned.plan;
        measure::plan(&plan, started.elapsed().as_secs_f64());
        measure::manifest_ages(leader.view(), now);
        let done = Done {
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
        for (partition, position, action) in appended {
            tracing::debug!(%partition, seq = position.seq, index = position.index,
                action = action.name(), rollout = action.rollout_id().map(tracing::field::display),
                host = action.hostname().map(tracing::field::display), "planned");
            leader.appended(partition, position, action);
        }
        measure::turn(count, started.elapsed().as_secs_f64());
        Ok(done)
    }

    async fn append(
        &self,
        leader: &Leader,
        appends: Appends,
    ) -> Result<Vec<Appended>, AppendError> {
        let traceparent = trace::current_traceparent();
        let now = Utc::now();
        let appends = appends.into_iter().map(|(partition, actions)| {
            let entries = actions.iter().map(|action| Entry {
                traceparent: traceparent.clone(),
                ..leader.entry(action.clone(), now)
            });
            let entries: Vec<_> = entries.collect();
            async move {
                let positions = self.input.append_all(partition, entries).await?;
                let noted = positions.into_iter().zip(actions);
                Ok(noted
                    .map(|(position, action)| (partition, position, action))
                    .collect())
            }
        });
        let appended: Vec<Vec<_>> = try_join_all(appends).await?;
        Ok(appended.into_iter().flatten().collect())
    }
}
