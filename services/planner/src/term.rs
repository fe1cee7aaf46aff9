//! One term: load and follow while somebody else leads, so that a hand-over does not wait for the
//! view; then fence older leaders out and plan until something ends it. What ends it, and what an
//! outcome means, is for [`Leader`] to say.

use std::time::Duration;

use anyhow::Context as _;
use nixfleet_bus::{Bus, Lease};
use nixfleet_planner::{Agenda, Leader, Pace, Stage, StandDown};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Decision, Outcome};
use nixfleet_service::{CancellationToken, Readiness};
use nixfleet_store::Store;

use crate::config::Config;
use crate::follow::{Followers, News};
use crate::load;
use crate::measure;
use crate::pins::Pins;
use crate::releases::{Releases, restore};
use crate::turn::{Clocks, Turns};

/// What a term works with.
pub struct Parts<'a> {
    pub bus: &'a Bus,
    pub store: &'a Store,
    pub config: &'a Config,
    pub readiness: &'a Readiness,
}

/// A view that is kept up to date, and who plans with it.
pub struct Term<'a> {
    parts: &'a Parts<'a>,
    pins: Pins,
    leader: Leader,
    turns: Turns,
    followers: Followers,
}

impl<'a> Term<'a> {
    /// Loads the view and starts to follow the logs from there.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub async fn load(parts: &'a Parts<'a>) -> anyhow::Result<Self> {
        let mut pins = Pins::new(parts.bus.manifests());
        let loaded = load::load(parts.bus, parts.store, &mut pins).await?;
        let rollouts = loaded.view.rollouts().len();
        tracing::info!(rollouts, "view loaded");
        let batch = parts.config.planning.batch_messages;
        let mut leader = Leader::new(loaded.view, parts.bus.partitions());
        for (partition, origin) in loaded.origins {
            leader.set_origin(partition, origin);
        }
        Ok(Self {
            parts,
            pins,
            leader,
            turns: Turns::new(parts.bus.input()),
            followers: Followers::start(parts.bus, &loaded.next_output, batch),
        })
    }

    /// Keeps the view up to date until `until` is there.
    ///
    /// # Errors
    /// When the logs cannot be followed any further.
    pub async fn stand_by<T>(&mut self, until: impl Future<Output = T>) -> anyhow::Result<T> {
        let mut until = std::pin::pin!(until);
        loop {
            let news = tokio::select! {
                done = &mut until => return Ok(done),
                news = self.followers.next() => news?,
            };
            self.absorb(news).await?;
        }
    }

    /// Leads until `stop` is cancelled or something goes wrong.
    ///
    /// # Errors
    /// The reason, after which a new term may start.
    pub async fn lead(&mut self, lease: &Lease, stop: &CancellationToken) -> anyhow::Result<()> {
        restore(self.parts.bus, self.parts.store).await?;
        let ended = self.work(lease, stop).await;
        measure::leading(None);
        ended
    }

    /// Ends whatever runs beside it.
    pub async fn end(self) {
        self.followers.join().await;
    }

    async fn work(&mut self, lease: &Lease, stop: &CancellationToken) -> anyhow::Result<()> {
        let clocks = Clocks::start();
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            fenced = self.fence(clocks) => fenced?,
        }
        let epoch = self.leader.epoch();
        lease.set_epoch(epoch);
        measure::leading(Some(epoch));
        self.parts.readiness.set_ready("planner", Ok(()));
        tracing::info!(epoch, "leading");
        // Only now is it known which refs were superseded.
        let mut releases = Releases::start(self.parts.bus, self.parts.config)?;
        releases.set_superseded(self.leader.superseded());
        let ended = self.plan_on(&mut releases, clocks, stop).await;
        releases.join().await;
        ended
    }

    /// Announces a new epoch in every partition and waits until each has accepted it.
    async fn fence(&mut self, clocks: Clocks) -> anyhow::Result<()> {
        let look_again = Duration::from_secs(self.parts.config.planning.safety_tick_seconds);
        loop {
            match self.leader.stage() {
                Stage::Leading => return Ok(()),
                Stage::Unfenced => {
                    let fenced = self.turns.fence(&mut self.leader).await;
                    fenced.context("fencing older leaders out")?;
                    tracing::info!(epoch = self.leader.epoch(), "barriers appended");
                }
                Stage::Fencing => {
                    self.leader.check_answers(clocks.now().monotonic)?;
                    let news = tokio::time::timeout(look_again, self.followers.next()).await;
                    if let Ok(news) = news {
                        self.absorb(news?).await?;
                    }
                }
            }
        }
    }

    /// Plans after every change, at every deadline, and from time to time, until it shall stop. A
    /// plan that is being appended then lands first.
    async fn plan_on(
        &mut self,
        releases: &mut Releases,
        clocks: Clocks,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let mut agenda = Agenda::new(Pace {
            debounce: Duration::from_millis(self.parts.config.planning.debounce_ms),
            safety: Duration::from_secs(self.parts.config.planning.safety_tick_seconds),
        });
        loop {
            if stop.is_cancelled() {
                return Ok(());
            }
            // Asked here and not in the select, so that steady news cannot put a plan off for ever.
            if clocks.now().monotonic >= agenda.due() {
                self.leader.check_answers(clocks.now().monotonic)?;
                let done = self.turns.take(&mut self.leader).await;
                let done = done.context("publishing a plan")?;
                agenda.planned(clocks.now(), done.next_deadline, done.is_capped);
            }
            tokio::select! {
                news = self.followers.next() => {
                    if self.absorb(news?).await? {
                        releases.set_superseded(self.leader.superseded());
                    }
                    agenda.changed(clocks.now());
                }
                release = releases.changed() => {
                    if let Some(current) = release? {
                        self.leader.set_release(current.release.clone());
                        self.pins.prepare(&current.release, self.leader.view());
                        agenda.released(clocks.now());
                    }
                }
                () = clocks.wait_until(agenda.due()) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Takes news over; true when rollouts may have been superseded.
    async fn absorb(&mut self, news: News) -> anyhow::Result<bool> {
        let partition = news.partition;
        let mut opens = false;
        measure::lag(partition, news.lag);
        for frame in &news.frames {
            self.leader.follow(partition, frame)?;
            let release = self.leader.view().release();
            self.pins.fetch_opened(&frame.outcomes, release).await?;
            for outcome in &frame.outcomes {
                opens |= self.take(partition, outcome)?;
            }
        }
        Ok(opens)
    }

    fn take(&mut self, partition: Partition, outcome: &Outcome) -> Result<bool, StandDown> {
        let heard = self.leader.absorb(partition, outcome, self.pins.set());
        let heard = heard.inspect_err(|why| match why {
            StandDown::Fenced(_) | StandDown::Outranked { .. } => measure::fenced(),
            StandDown::View { .. } | StandDown::Origin { .. } | StandDown::Unanswered { .. } => {}
        })?;
        if heard.is_ours {
            measure::outcome(outcome);
            if let Decision::Rejected(rejection) = &outcome.decision {
                tracing::info!(%partition, seq = outcome.position.seq, index = outcome.position.index,
                    entry = &*outcome.subject.entry, reason = rejection.reason.name(),
                    message = rejection.message, "action rejected");
            }
        }
        Ok(heard.opens)
    }
}
