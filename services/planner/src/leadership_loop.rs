//! One leadership: load and follow the view as a standby, so that a hand-over does not wait for it,
//! then fence older leaders and plan until the leadership ends. [`LeadershipCore`] decides what an outcome
//! means and when the leadership ends.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use nixfleet_bus::{Bus, Lease};
use nixfleet_planner::{
    HoldReason, LeadershipCore, LeadershipEnd, PlanIntervals, PlanSchedule, Stage,
};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Decision, Outcome};
use nixfleet_service::{CancellationToken, Readiness};
use nixfleet_store::Store;
use nixfleet_trust::ReleaseFloor;

use crate::action_appender::{ActionAppender, ProcessClocks};
use crate::config::Config;
use crate::held_partitions::HeldPartitions;
use crate::releases::{Releases, restore_release};
use crate::telemetry;
use crate::view::load;
use crate::view::output_followers::{FollowedFrames, OutputFollowers};
use crate::view::pinned_manifests::PinnedManifests;

pub struct Dependencies<'a> {
    pub bus: &'a Bus,
    pub store: &'a Store,
    pub config: &'a Config,
    pub readiness: &'a Readiness,
    /// The newest release that this process accepted, in any leadership.
    pub floor: Arc<Mutex<ReleaseFloor>>,
}

/// A followed view and the leader that plans with it.
pub struct LeadershipLoop<'a> {
    deps: &'a Dependencies<'a>,
    pinned: PinnedManifests,
    leader: LeadershipCore,
    appender: ActionAppender,
    followers: OutputFollowers,
}

impl<'a> LeadershipLoop<'a> {
    /// Loads the view and starts to follow the logs behind it.
    ///
    /// # Errors
    /// When the view cannot be loaded.
    pub async fn load(deps: &'a Dependencies<'a>) -> anyhow::Result<Self> {
        let mut pinned = PinnedManifests::new(deps.bus.manifests());
        let loaded = load::load(deps.bus, deps.store, &mut pinned).await?;
        let rollouts = loaded.view.rollouts().len();
        tracing::info!(rollouts, "view loaded");
        let batch = deps.config.planning.batch_messages;
        let mut leader = LeadershipCore::new(loaded.view, deps.bus.partitions());
        for (partition, origin) in loaded.origins {
            leader.set_origin(partition, origin);
        }
        Ok(Self {
            deps,
            pinned,
            leader,
            appender: ActionAppender::new(deps.bus.input()),
            followers: OutputFollowers::start(deps.bus, &loaded.next_output, batch),
        })
    }

    /// Keeps the view up to date until `until` completes.
    ///
    /// # Errors
    /// When the logs cannot be followed any further.
    pub async fn stand_by<T>(&mut self, until: impl Future<Output = T>) -> anyhow::Result<T> {
        let mut until = std::pin::pin!(until);
        loop {
            let frames = tokio::select! {
                done = &mut until => return Ok(done),
                frames = self.followers.next() => frames?,
            };
            self.apply_frames(frames).await?;
        }
    }

    /// Leads until `stop` is cancelled or an error ends the leadership.
    ///
    /// # Errors
    /// The reason for the end; a new leadership may start.
    pub async fn lead(&mut self, lease: &Lease, stop: &CancellationToken) -> anyhow::Result<()> {
        restore_release(self.deps.bus, self.deps.store).await?;
        let ended = self.fence_and_plan(lease, stop).await;
        telemetry::set_leading(None);
        for partition in Partition::all(self.deps.bus.partitions()) {
            telemetry::set_held(partition, false);
        }
        ended
    }

    /// Joins the tasks of the leadership.
    pub async fn join(self) {
        self.followers.join().await;
    }

    async fn fence_and_plan(
        &mut self,
        lease: &Lease,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let clocks = ProcessClocks::start();
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            fenced = self.fence(clocks) => fenced?,
        }
        let epoch = self.leader.epoch();
        telemetry::set_leading(Some(epoch));
        self.deps.readiness.set_ready("planner", Ok(()));
        tracing::info!(epoch, "leading");
        // Superseded refs are known only after the fence.
        let (floor, superseded) = (Arc::clone(&self.deps.floor), self.leader.superseded());
        let mut releases = Releases::start(self.deps.bus, self.deps.config, floor, superseded)?;
        let ended = self
            .plan_until_stopped(&mut releases, lease, (clocks, stop))
            .await;
        releases.join().await;
        ended
    }

    /// Announces a new epoch in every partition and waits until all that are not held have accepted it.
    async fn fence(&mut self, clocks: ProcessClocks) -> anyhow::Result<()> {
        let recheck_after = Duration::from_secs(self.deps.config.planning.safety_tick_seconds);
        loop {
            match self.leader.stage() {
                Stage::Leading => return Ok(()),
                Stage::Unfenced => {
                    let fenced = self.appender.fence(&mut self.leader).await;
                    fenced.context("fencing older leaders")?;
                    tracing::info!(epoch = self.leader.epoch(), "barriers appended");
                }
                Stage::Fencing => {
                    self.leader.check_outcome_timeout(clocks.now().monotonic)?;
                    let frames = tokio::time::timeout(recheck_after, self.followers.next()).await;
                    if let Ok(frames) = frames {
                        self.apply_frames(frames?).await?;
                    }
                }
            }
        }
    }

    /// Plans after changes, at deadlines and after the longest interval, until stopped. A plan that
    /// is being appended is finished first.
    async fn plan_until_stopped(
        &mut self,
        releases: &mut Releases,
        lease: &Lease,
        (clocks, stop): (ProcessClocks, &CancellationToken),
    ) -> anyhow::Result<()> {
        let mut held = HeldPartitions::default();
        let mut schedule = PlanSchedule::new(PlanIntervals {
            debounce: Duration::from_millis(self.deps.config.planning.debounce_ms),
            longest: Duration::from_secs(self.deps.config.planning.safety_tick_seconds),
        });
        loop {
            if stop.is_cancelled() {
                return Ok(());
            }
            // Checked before the select, so that frequent changes cannot delay a plan forever.
            if clocks.now().monotonic >= schedule.due() {
                self.leader.check_outcome_timeout(clocks.now().monotonic)?;
                // With a wrong clock soaks would end early or never.
                self.deps.bus.check_clock().map_err(anyhow::Error::msg)?;
                let done = self.appender.plan_and_append(&mut self.leader).await;
                let done = done.context("publishing a plan")?;
                schedule.plan_made(clocks.now(), done.next_deadline, done.is_capped);
            }
            held.retry(clocks.now().monotonic, &self.appender, &mut self.leader);
            held.report(&self.leader, lease, self.deps.bus.partitions());
            let due = schedule.due().min(held.due());
            tokio::select! {
                Some(append) = held.next() => append.record(&mut self.leader)?,
                frames = self.followers.next() => {
                    // The outcome of a barrier counts once its position is known.
                    held.record_ready(&mut self.leader)?;
                    if self.apply_frames(frames?).await? {
                        releases.set_superseded(self.leader.superseded());
                    }
                    schedule.view_changed(clocks.now());
                }
                release = releases.changed() => {
                    if let Some(current) = release? {
                        self.leader.set_release(current.release.clone());
                        self.pinned.prepare(&current.release, self.leader.view());
                        schedule.release_changed(clocks.now());
                    }
                }
                () = clocks.wait_until(due) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Applies frames; true when rollouts may have been superseded. A partition whose log cannot be read is held.
    async fn apply_frames(&mut self, frames: FollowedFrames) -> anyhow::Result<bool> {
        let partition = frames.partition;
        let mut opens = false;
        telemetry::set_lag(partition, frames.lag);
        for frame in &frames.frames {
            self.leader.begin_frame(partition, frame)?;
            let release = self.leader.view().release();
            self.pinned.fetch_opened(&frame.outcomes, release).await?;
            for outcome in &frame.outcomes {
                opens |= self.apply_outcome(partition, outcome)?;
            }
        }
        if let Some(error) = frames.unreadable {
            tracing::error!(%partition, error = format!("{error:#}"),
                "the output log holds a message that is no frame: nothing is planned for the channels of the \
                 partition until its logs are replaced: docs/operations/recovery-output-log-damaged.md");
            self.leader
                .hold(partition, HoldReason::Unreadable)
                .with_context(|| format!("partition {partition}: {error:#}"))?;
        }
        Ok(opens)
    }

    fn apply_outcome(
        &mut self,
        partition: Partition,
        outcome: &Outcome,
    ) -> Result<bool, LeadershipEnd> {
        let applied = self
            .leader
            .apply_outcome(partition, outcome, self.pinned.set());
        let applied = applied.inspect_err(|why| match why {
            LeadershipEnd::Fenced(_) | LeadershipEnd::Outranked { .. } => telemetry::count_fenced(),
            LeadershipEnd::View { .. }
            | LeadershipEnd::Origin { .. }
            | LeadershipEnd::Clock { .. }
            | LeadershipEnd::CutOff
            | LeadershipEnd::OutcomeTimeout { .. } => {}
        })?;
        if applied.is_ours {
            telemetry::count_outcome(outcome);
            if let Decision::Rejected(rejection) = &outcome.decision {
                tracing::info!(%partition, seq = outcome.position.seq, index = outcome.position.index,
                    entry = &*outcome.subject.entry, reason = rejection.reason.name(),
                    message = rejection.message, "action rejected");
            }
        }
        Ok(applied.opens)
    }
}
