//! One plan: made from the view, appended to the logs, noted in the view.

use std::collections::BTreeMap;
use std::time::Instant;

use futures::future::try_join_all;
use nixfleet_bus::{AppendError, InputPublisher};
use nixfleet_plan::{FleetView, plan};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Entry, EntryBody, PlanAction, Timestamp};
use nixfleet_service::trace;
use tracing::Instrument as _;

use crate::measure;

/// Puts the actions of one leader into the logs.
pub struct Turns {
    input: InputPublisher,
    partitions: u16,
    epoch: u64,
}

/// When the next plan is due.
pub struct Done {
    /// Time that will change the plan by itself.
    pub next_deadline: Option<Timestamp>,
    /// There is more to plan right now.
    pub is_capped: bool,
}

impl Turns {
    /// The turns of the leader with this epoch.
    pub fn new(input: InputPublisher, partitions: u16, epoch: u64) -> Self {
        Self {
            input,
            partitions,
            epoch,
        }
    }

    /// Plans and publishes. The outcomes must not be absorbed while this runs, so that every action
    /// is noted before it comes back.
    ///
    /// # Errors
    /// When an action may or may not be in the log: the view then counts too little, and only a new
    /// barrier tells what is there.
    pub async fn take(&self, view: &mut FleetView, now: Timestamp) -> Result<Done, AppendError> {
        let started = Instant::now();
        let plan = plan(view, now);
        measure::plan(&plan, started.elapsed().as_secs_f64());
        measure::manifest_ages(view, now);
        let done = Done {
            next_deadline: plan.next_deadline,
            is_capped: plan.is_capped,
        };
        if plan.actions.is_empty() {
            return Ok(done);
        }
        let count = plan.actions.len();
        let span = tracing::info_span!("turn", epoch = self.epoch, actions = count);
        let appended = self.append(plan.actions, now).instrument(span).await?;
        for (partition, position, action) in appended {
            tracing::debug!(%partition, seq = position.seq, index = position.index,
                action = action.name(), rollout = action.rollout_id().map(tracing::field::display),
                host = action.hostname().map(tracing::field::display), "planned");
            view.published(partition, position, action);
        }
        measure::turn(count, started.elapsed().as_secs_f64());
        Ok(done)
    }

    async fn append(
        &self,
        actions: Vec<PlanAction>,
        now: Timestamp,
    ) -> Result<Vec<(Partition, nixfleet_proto::Position, PlanAction)>, AppendError> {
        let traceparent = trace::current_traceparent();
        let mut by_partition: BTreeMap<Partition, Vec<PlanAction>> = BTreeMap::new();
        for action in actions {
            let Some(rollout_id) = action.rollout_id() else {
                continue;
            };
            let partition = Partition::of(&rollout_id.channel(), self.partitions);
            by_partition.entry(partition).or_default().push(action);
        }
        let appends = by_partition.into_iter().map(|(partition, actions)| {
            let entries = actions.iter().map(|action| Entry {
                traceparent: traceparent.clone(),
                ..entry(self.epoch, action.clone(), now)
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

/// A decision as it goes into the log.
pub fn entry(epoch: u64, action: PlanAction, now: Timestamp) -> Entry {
    Entry::new(now, EntryBody::Plan { epoch, action })
}
