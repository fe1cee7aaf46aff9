//! One leadership: load, follow, fence older leaders out, then plan until something ends it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use chrono::Utc;
use nixfleet_bus::Bus;
use nixfleet_plan::FleetView;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Outcome, PlanAction, Position, Reason, RolloutId, RolloutState, Verdict};
use nixfleet_service::{CancellationToken, Health};
use nixfleet_store::Store;
use tokio::time::Instant;

use crate::config::Config;
use crate::follow::{Followers, News};
use crate::load;
use crate::measure;
use crate::pins::Pins;
use crate::releases::Releases;
use crate::turn::{self, Turns};

/// What a term works with.
pub struct Parts<'a> {
    pub bus: &'a Bus,
    pub store: &'a Store,
    pub config: &'a Config,
    pub health: &'a Health,
}

/// A leader at work.
struct Term<'a> {
    parts: &'a Parts<'a>,
    pins: Pins,
    view: FleetView,
    followers: Followers,
    /// The epoch of this leader; 0 before its barrier is appended.
    epoch: u64,
    /// Barriers that have not come back.
    barriers: BTreeMap<Partition, Position>,
    /// Partitions that accepted this leader's own barrier. That a partition is at this epoch is not
    /// enough: an older leader may have chosen the same number.
    fenced: BTreeSet<Partition>,
}

/// Leads until `stop` is cancelled or something goes wrong; whatever runs beside it has ended when it
/// returns.
///
/// # Errors
/// The reason, after which a new term may start.
pub async fn lead(parts: &Parts<'_>, stop: &CancellationToken) -> anyhow::Result<()> {
    let mut pins = Pins::new(parts.bus.manifests());
    let loaded = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        loaded = load::load(parts.bus, parts.store, &mut pins) => loaded?,
    };
    let batch = parts.config.planning.batch_messages;
    let mut term = Term {
        parts,
        pins,
        view: loaded.view,
        followers: Followers::start(parts.bus, &loaded.next_output, batch),
        epoch: 0,
        barriers: BTreeMap::new(),
        fenced: BTreeSet::new(),
    };
    let ended = term.work(stop).await;
    measure::leading(None);
    term.followers.join().await;
    ended
}

impl Term<'_> {
    async fn work(&mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            fenced = self.fence() => fenced?,
        }
        measure::leading(Some(self.epoch));
        self.parts.health.set_ready("planner", Ok(()));
        tracing::info!(epoch = self.epoch, "leading");
        // Only now is it known which refs were superseded.
        let mut releases = Releases::start(self.parts.bus, self.parts.config)?;
        releases.set_superseded(self.superseded());
        let ended = tokio::select! {
            () = stop.cancelled() => Ok(()),
            ended = self.plan_on(&mut releases) => ended,
        };
        releases.join().await;
        ended
    }

    /// Announces a new epoch in every partition and waits until each has accepted it: from then on
    /// the view holds everything that any earlier leader published.
    async fn fence(&mut self) -> anyhow::Result<()> {
        loop {
            self.epoch = self.epoch.max(self.view.highest_leader_epoch()) + 1;
            self.append_barriers().await?;
            while !self.barriers.is_empty() {
                let news = self.followers.next().await?;
                self.absorb(news).await?;
            }
            if self.fenced.len() == usize::from(self.parts.bus.partitions()) {
                return Ok(());
            }
            // An earlier leader that the rows did not show was at this epoch or above.
            tracing::info!(epoch = self.epoch, "barrier refused, trying a higher epoch");
        }
    }

    async fn append_barriers(&mut self) -> anyhow::Result<()> {
        let input = self.parts.bus.input();
        self.fenced.clear();
        for partition in Partition::all(self.parts.bus.partitions()) {
            let barrier = turn::entry(self.epoch, PlanAction::Barrier {}, Utc::now());
            let position = input.append(partition, barrier).await;
            let position = position.with_context(|| format!("fencing partition {partition}"))?;
            self.barriers.insert(partition, position);
        }
        Ok(())
    }

    /// Plans after every change, at every deadline, and from time to time.
    async fn plan_on(&mut self, releases: &mut Releases) -> anyhow::Result<()> {
        let input = self.parts.bus.input();
        let turns = Turns::new(input, self.parts.bus.partitions(), self.epoch);
        let debounce = Duration::from_millis(self.parts.config.planning.debounce_ms);
        let mut wake = Instant::now();
        loop {
            // Asked here and not in the select, so that steady news cannot put a plan off for ever.
            if Instant::now() >= wake {
                let done = turns.take(&mut self.view, Utc::now()).await;
                wake = self.next_wake(&done.context("publishing a plan")?);
            }
            tokio::select! {
                news = self.followers.next() => {
                    if self.absorb(news?).await? == Superseded::Changed {
                        releases.set_superseded(self.superseded());
                    }
                    wake = wake.min(Instant::now() + debounce);
                }
                release = releases.changed() => {
                    if let Some(current) = release? {
                        self.view.set_release(current.release.clone());
                        wake = Instant::now();
                    }
                }
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    fn next_wake(&self, done: &turn::Done) -> Instant {
        if done.is_capped {
            return Instant::now();
        }
        let safety = Duration::from_secs(self.parts.config.planning.safety_tick_seconds);
        let pause = done.next_deadline.map_or(safety, |deadline| {
            let until = (deadline - Utc::now()).to_std().unwrap_or_default();
            // A deadline that has passed and changed nothing must not spin.
            until.max(Duration::from_millis(1)).min(safety)
        });
        Instant::now() + pause
    }

    async fn absorb(&mut self, news: News) -> anyhow::Result<Superseded> {
        let partition = news.partition;
        let mut superseded = Superseded::Same;
        measure::lag(partition, news.lag);
        for frame in &news.frames {
            self.pins.fetch_opened(&frame.outcomes).await?;
            for outcome in &frame.outcomes {
                self.take(partition, outcome)
                    .with_context(|| format!("following partition {partition}"))?;
                if opens(outcome) {
                    superseded = Superseded::Changed;
                }
            }
        }
        Ok(superseded)
    }

    fn take(&mut self, partition: Partition, outcome: &Outcome) -> anyhow::Result<()> {
        let is_barrier = self.barriers.get(&partition) == Some(&outcome.position);
        if is_barrier {
            self.barriers.remove(&partition);
            if matches!(outcome.verdict, Verdict::Accepted(_)) {
                self.fenced.insert(partition);
            }
        }
        let is_ours = self.view.is_in_log(partition, outcome.position);
        self.view.absorb(partition, outcome, self.pins.set())?;
        if !is_ours {
            return self.check_epoch(partition);
        }
        measure::outcome(outcome);
        if let Verdict::Rejected(rejection) = &outcome.verdict {
            if rejection.reason == Reason::Fenced {
                measure::fenced();
                anyhow::bail!("a newer leader took over partition {partition}");
            }
            tracing::info!(%partition, seq = outcome.position.seq, index = outcome.position.index,
                entry = outcome.subject.entry, reason = rejection.reason.name(),
                message = rejection.message, "action rejected");
        }
        Ok(())
    }

    fn check_epoch(&self, partition: Partition) -> anyhow::Result<()> {
        let highest = self.view.leader_epoch(partition);
        let is_fenced = self.barriers.is_empty() && self.epoch > 0 && highest > self.epoch;
        if is_fenced {
            measure::fenced();
        }
        ensure!(
            !is_fenced,
            "leader {highest} took over partition {partition} from leader {}",
            self.epoch
        );
        Ok(())
    }

    fn superseded(&self) -> BTreeSet<RolloutId> {
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
}

/// Opening a rollout supersedes the ones before it.
fn opens(outcome: &Outcome) -> bool {
    match &outcome.verdict {
        Verdict::Accepted(accepted) => accepted.opened.is_some(),
        Verdict::Rejected(_) => false,
    }
}

/// Whether the set of superseded rollouts may have grown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Superseded {
    Same,
    Changed,
}
