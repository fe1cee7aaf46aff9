//! Rolls releases out and lets the hosts report, as fast as the control plane takes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nixfleet_bus::{AppendError, InputPublisher};
use nixfleet_harness::say::Say;
use nixfleet_harness::wait_for;
use nixfleet_proto::{Entry, RolloutState};
use serde::Serialize;

use crate::args::Volume;
use crate::arrivals::{Arrivals, STALL, Targets};
use crate::follower::{Answered, Follower, News};
use crate::hosts::Hosts;
use crate::units::count;
use crate::world::World;

/// Entries appended before it is asked again how many are on their way.
const CHUNK: usize = 8_192;
/// Pause before entries are sent again that the log did not take, as agents do.
const RETRY: Duration = Duration::from_millis(500);

/// A part of the run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Phase {
    /// What was done.
    pub name: String,
    /// Seconds from the start of the run to its beginning.
    pub begins: f64,
    /// Seconds from the start of the run to its end.
    pub ends: f64,
    /// Agents' events that were accepted meanwhile.
    pub events: u64,
}

/// How a rollout ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Every host converges.
    Converges,
    /// This host goes back and the rollout halts.
    Halts(usize),
}

/// The driver.
pub struct Driver<'a> {
    world: &'a World,
    input: InputPublisher,
    follower: Follower,
    arrivals: Arrivals,
    hosts: Hosts,
    releases: Arc<AtomicU32>,
    phases: Vec<Phase>,
    start: Instant,
    say: Say,
}

impl<'a> Driver<'a> {
    /// A driver of a control plane that has no release yet.
    pub fn new(world: &'a World, volume: Volume, (start, say): (Instant, Say)) -> Self {
        let follower = Follower::start(&world.bus, world.partition);
        let arrivals = Arrivals::start(Targets {
            store: world.store.clone(),
            partition: world.partition,
            logs: world.logs(),
            counts: follower.counts(),
        });
        let none = nixfleet_proto::RolloutId::new(&"none".into(), &"0".into());
        Self {
            world,
            input: world.bus.input(),
            follower,
            arrivals,
            hosts: Hosts::new(volume.hosts, (0, none), None),
            releases: Arc::default(),
            phases: Vec::new(),
            start,
            say,
        }
    }

    /// What others need to look at.
    pub fn arrivals(&self) -> &Arrivals {
        &self.arrivals
    }

    /// What the output log answers.
    pub fn follower(&self) -> &Follower {
        &self.follower
    }

    /// The number of the last release.
    pub fn releases(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.releases)
    }

    /// What was answered so far.
    pub fn answered(&self) -> Answered {
        self.follower.counts().answered()
    }

    /// The hosts in the last rollout.
    pub fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// The parts of the run.
    pub fn into_phases(self) -> Vec<Phase> {
        self.phases
    }

    /// Notes a part that began at `begins` and ends now.
    pub fn note(&mut self, name: impl Into<String>, (begins, before): (Instant, u64)) {
        let events = self.answered().accepted.saturating_sub(before);
        let phase = Phase {
            name: name.into(),
            begins: (begins - self.start).as_secs_f64(),
            ends: self.start.elapsed().as_secs_f64(),
            events,
        };
        let seconds = phase.ends - phase.begins;
        self.say.now(&format!(
            "{}: {seconds:.1} s, {} events",
            phase.name,
            count(events)
        ));
        self.phases.push(phase);
    }

    /// When a part begins, for [`Driver::note`].
    pub fn mark(&self) -> (Instant, u64) {
        (Instant::now(), self.answered().accepted)
    }

    /// Publishes the next release and lets the hosts report until its rollout has ended.
    ///
    /// # Errors
    /// When the control plane stands still or ends it otherwise.
    pub async fn release(&mut self, ending: Ending) -> Result<()> {
        let mark = self.mark();
        let number = self.releases.load(Ordering::Relaxed) + 1;
        let rollout_id = tokio::task::block_in_place(|| self.world.publish(number))?;
        self.releases.store(number, Ordering::Relaxed);
        if number == 1 {
            self.note("release 1 built and published", mark);
        }
        let failing = match ending {
            Ending::Converges => None,
            Ending::Halts(host) => Some(host),
        };
        self.hosts = Hosts::new(self.hosts.count(), (number, rollout_id), failing);
        let mark = self.mark();
        self.follow(ending).await?;
        let ended = match ending {
            Ending::Converges => "converged",
            Ending::Halts(_) => "halted",
        };
        self.note(format!("release {number} {ended}"), mark);
        Ok(())
    }

    /// Lets dispatched hosts of the last rollout report until it has ended.
    ///
    /// # Errors
    /// As [`Driver::release`].
    pub async fn follow(&mut self, ending: Ending) -> Result<()> {
        let wanted = match ending {
            Ending::Converges => RolloutState::Terminal,
            Ending::Halts(_) => RolloutState::Reverted,
        };
        let mark = self.mark();
        let mut is_dispatched = false;
        loop {
            let news = tokio::time::timeout(STALL, self.follower.next()).await;
            let news = news.with_context(|| {
                let rollout_id = self.hosts.rollout_id();
                format!("{rollout_id} does not move, {:?}", self.answered())
            })?;
            match news? {
                News::Dispatched(rollout_id, numbers) if rollout_id == *self.hosts.rollout_id() => {
                    if !is_dispatched && self.phases.len() == 1 {
                        self.note("release 1 opened and dispatched", mark);
                    }
                    is_dispatched = true;
                    self.activate(numbers).await?;
                }
                News::State(rollout_id, state) if rollout_id == *self.hosts.rollout_id() => {
                    if state == wanted {
                        return Ok(());
                    }
                    // A host that is meant to fail has said so before an operator cleared it.
                    let is_halted = matches!(state, RolloutState::Failed | RolloutState::Reverted)
                        && self.hosts.failing().is_none();
                    let is_over = is_halted || state == RolloutState::Terminal;
                    ensure!(!is_over, "{rollout_id} is {state:?}");
                }
                News::Dispatched(..) | News::State(..) => {}
            }
        }
    }

    async fn activate(&mut self, numbers: Vec<usize>) -> Result<()> {
        let mut entries = Vec::new();
        for number in numbers {
            entries.extend(self.hosts.activate(number));
            if entries.len() >= CHUNK {
                self.send(std::mem::take(&mut entries)).await?;
            }
        }
        self.send(entries).await
    }

    /// Lets hosts report probes until so many events were accepted in all.
    ///
    /// # Errors
    /// When the control plane stands still.
    pub async fn events(&mut self, total: u64) -> Result<()> {
        let mark = self.mark();
        let mut hosts = (0..self.hosts.count()).cycle();
        let mut missing = total.saturating_sub(mark.1);
        if missing == 0 {
            return Ok(());
        }
        while missing > 0 {
            let mut entries = Vec::new();
            while (entries.len() as u64) < missing && entries.len() < CHUNK {
                let host = hosts.next().context("there are no hosts")?;
                entries.extend(self.hosts.probe(host));
            }
            missing = missing.saturating_sub(entries.len() as u64);
            self.send(entries).await?;
        }
        self.note("results of probes", mark);
        Ok(())
    }

    /// Lets all hosts report so many rounds of probes.
    ///
    /// # Errors
    /// When the control plane stands still.
    pub async fn probe_rounds(&mut self, rounds: u32) -> Result<()> {
        if rounds == 0 {
            return Ok(());
        }
        let mark = self.mark();
        for _ in 0..rounds {
            let mut entries = Vec::new();
            for host in 0..self.hosts.count() {
                entries.extend(self.hosts.probe(host));
                if entries.len() >= CHUNK {
                    self.send(std::mem::take(&mut entries)).await?;
                }
            }
            self.send(entries).await?;
        }
        self.note(format!("{rounds} rounds of probes"), mark);
        Ok(())
    }

    /// Appends entries, and again as long as the log does not take them: what was stored the first
    /// time is rejected as stale, as with agents that lost an answer.
    async fn send(&mut self, entries: Vec<Entry>) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        self.arrivals.room().await?;
        let start = Instant::now();
        loop {
            let appended = self.input.append_all(self.world.partition, entries.clone());
            match appended.await {
                Ok(positions) => {
                    self.arrivals.sent(positions.len());
                    return Ok(());
                }
                Err(error @ (AppendError::Full(_) | AppendError::Unavailable(_)))
                    if start.elapsed() < STALL =>
                {
                    self.say.now(&format!("the input log refuses: {error}"));
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return Err(error).context("appending events"),
            }
        }
    }

    /// Waits until tables and archive are at the ends of both logs, and nothing more comes.
    ///
    /// # Errors
    /// When they do not move for minutes.
    pub async fn arrive(&mut self) -> Result<()> {
        let mark = self.mark();
        let reached = self.arrivals.reached();
        let logs = self.world.logs();
        let mut last = (0, Instant::now());
        let patience = Duration::MAX;
        wait_for(
            "tables and archive at the ends of the logs",
            patience,
            async || {
                let mut ends = [0; 2];
                for (end, log) in ends.iter_mut().zip(&logs) {
                    *end = self.world.bus.stream_identity(log).await?.last_seq;
                }
                let at = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
                let there = [
                    at(&reached.applied_input) >= ends[0],
                    at(&reached.archived_input) >= ends[0],
                    at(&reached.applied_output) >= ends[1],
                    at(&reached.archived_output) >= ends[1],
                ];
                if there == [true; 4] {
                    return Ok(Some(Ok(())));
                }
                let sum = at(&reached.applied_output) + at(&reached.archived_output);
                if sum != last.0 {
                    last = (sum, Instant::now());
                }
                let error = || anyhow::anyhow!("logs end at {ends:?}, reached is {reached:?}");
                Ok((last.1.elapsed() > STALL).then(|| Err(error())))
            },
        )
        .await??;
        self.note("applied and archived", mark);
        Ok(())
    }
}
