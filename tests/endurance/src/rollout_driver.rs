//! Rolls out releases and sends the hosts' reports as fast as the control plane accepts them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nixfleet_bus::{AppendError, InputPublisher};
use nixfleet_harness::progress_printer::Printer;
use nixfleet_proto::{Entry, RolloutState};

use crate::args::Volume;
use crate::output_follower::{Follower, OutcomeCounts, OutputEvent};
use crate::phases::{Phase, PhaseStart, Phases};
use crate::progress_tracker::{ProgressTracker, STALL_TIMEOUT, Targets};
use crate::simulated_hosts::Hosts;
use crate::testbed::Testbed;

/// Entries appended between two checks of the limit of outstanding events.
const CHUNK: usize = 8_192;
/// Pause before refused entries are sent again, as agents do.
const RETRY: Duration = Duration::from_millis(500);

/// Expected end of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedEnd {
    /// Every host converges.
    Converges,
    /// This host rolls back and the rollout halts.
    Halts(usize),
}

/// The driver.
pub struct Driver<'a> {
    testbed: &'a Testbed,
    input: InputPublisher,
    follower: Follower,
    progress_tracker: ProgressTracker,
    hosts: Hosts,
    releases: Arc<AtomicU32>,
    phases: Phases,
    printer: Printer,
}

impl<'a> Driver<'a> {
    /// A driver of a control plane that has no release yet.
    pub fn new(testbed: &'a Testbed, volume: Volume, (start, printer): (Instant, Printer)) -> Self {
        let follower = Follower::start(&testbed.bus, testbed.partition);
        let progress_tracker = ProgressTracker::start(Targets {
            store: testbed.store.clone(),
            partition: testbed.partition,
            logs: testbed.logs(),
            counts: follower.counts(),
        });
        let none = nixfleet_proto::RolloutId::new(&"none".into(), &"0".into());
        Self {
            testbed,
            input: testbed.bus.input(),
            follower,
            progress_tracker,
            hosts: Hosts::new(volume.hosts, (0, none), None),
            releases: Arc::default(),
            phases: Phases::new(start, printer),
            printer,
        }
    }

    /// The progress of tables and archive.
    pub fn progress_tracker(&self) -> &ProgressTracker {
        &self.progress_tracker
    }

    /// The follower of the output log.
    pub fn follower(&self) -> &Follower {
        &self.follower
    }

    /// The number of the last release.
    pub fn releases(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.releases)
    }

    /// Current counts of outcomes.
    pub fn outcome_counts(&self) -> OutcomeCounts {
        self.follower.counts().outcome_counts()
    }

    /// The hosts in the last rollout.
    pub fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// The phases of the run.
    pub fn into_phases(self) -> Vec<Phase> {
        self.phases.into_list()
    }

    /// Starts a phase, for [`Driver::note`].
    pub fn phase_start(&self) -> PhaseStart {
        PhaseStart::new(self.outcome_counts().accepted)
    }

    /// Records a phase that ends now.
    pub fn note(&mut self, name: impl Into<String>, phase_start: PhaseStart) {
        let accepted = self.outcome_counts().accepted;
        self.phases.note(name.into(), phase_start, accepted);
    }

    /// Publishes the next release and reports for the hosts until its rollout has ended.
    ///
    /// # Errors
    /// When the control plane stalls, or the rollout ends otherwise.
    pub async fn release(&mut self, expected: ExpectedEnd) -> Result<()> {
        let phase_start = self.phase_start();
        let number = self.releases.load(Ordering::Relaxed) + 1;
        let rollout_id = tokio::task::block_in_place(|| self.testbed.publish(number))?;
        self.releases.store(number, Ordering::Relaxed);
        if number == 1 {
            self.note("release 1 built and published", phase_start);
        }
        let failing = match expected {
            ExpectedEnd::Converges => None,
            ExpectedEnd::Halts(host) => Some(host),
        };
        self.hosts = Hosts::new(self.hosts.count(), (number, rollout_id), failing);
        let phase_start = self.phase_start();
        self.follow(expected).await?;
        let ended = match expected {
            ExpectedEnd::Converges => "converged",
            ExpectedEnd::Halts(_) => "halted",
        };
        self.note(format!("release {number} {ended}"), phase_start);
        Ok(())
    }

    /// Sends the reports of dispatched hosts until the rollout has ended as expected.
    ///
    /// # Errors
    /// As [`Driver::release`].
    pub async fn follow(&mut self, expected: ExpectedEnd) -> Result<()> {
        let wanted = match expected {
            ExpectedEnd::Converges => RolloutState::Terminal,
            ExpectedEnd::Halts(_) => RolloutState::Reverted,
        };
        let phase_start = self.phase_start();
        let mut is_dispatched = false;
        loop {
            let output_event = tokio::time::timeout(STALL_TIMEOUT, self.follower.next()).await;
            let output_event = output_event.with_context(|| {
                let rollout_id = self.hosts.rollout_id();
                format!("{rollout_id} does not move, {:?}", self.outcome_counts())
            })?;
            match output_event? {
                OutputEvent::Dispatched(rollout_id, numbers)
                    if rollout_id == *self.hosts.rollout_id() =>
                {
                    if !is_dispatched && self.releases.load(Ordering::Relaxed) == 1 {
                        self.note("release 1 opened and dispatched", phase_start);
                    }
                    is_dispatched = true;
                    self.activate(numbers).await?;
                }
                OutputEvent::State(rollout_id, state) if rollout_id == *self.hosts.rollout_id() => {
                    if state == wanted {
                        return Ok(());
                    }
                    // The failure of the chosen host is older than the clearance of an operator.
                    let is_halted = matches!(state, RolloutState::Failed | RolloutState::Reverted)
                        && self.hosts.failing().is_none();
                    let is_over = is_halted || state == RolloutState::Terminal;
                    ensure!(!is_over, "{rollout_id} is {state:?}");
                }
                OutputEvent::Dispatched(..) | OutputEvent::State(..) => {}
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

    /// Sends probe results until this number of events of the whole run was accepted.
    ///
    /// # Errors
    /// When the control plane stalls.
    pub async fn events(&mut self, total: u64) -> Result<()> {
        let phase_start = self.phase_start();
        let mut hosts = (0..self.hosts.count()).cycle();
        let mut missing = total.saturating_sub(phase_start.accepted());
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
        self.note("results of probes", phase_start);
        Ok(())
    }

    /// Sends this number of rounds of probe results of all hosts.
    ///
    /// # Errors
    /// When the control plane stalls.
    pub async fn probe_rounds(&mut self, rounds: u32) -> Result<()> {
        if rounds == 0 {
            return Ok(());
        }
        let phase_start = self.phase_start();
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
        self.note(format!("{rounds} rounds of probes"), phase_start);
        Ok(())
    }

    /// Appends entries, with retries: an entry that a failed attempt had stored is rejected as stale, as
    /// for agents that lost a response.
    async fn send(&mut self, entries: Vec<Entry>) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        self.progress_tracker.wait_for_capacity().await?;
        let start = Instant::now();
        loop {
            let appended = self
                .input
                .append_all(self.testbed.partition, entries.clone());
            match appended.await {
                Ok(positions) => {
                    self.progress_tracker.sent(positions.len());
                    return Ok(());
                }
                Err(error @ (AppendError::Full(_) | AppendError::Unavailable(_)))
                    if start.elapsed() < STALL_TIMEOUT =>
                {
                    self.printer
                        .timed_line(&format!("the input log refuses: {error}"));
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return Err(error).context("appending events"),
            }
        }
    }

    /// Waits until tables and archive are at the ends of both logs.
    ///
    /// # Errors
    /// When they do not move for minutes.
    pub async fn wait_until_applied(&mut self) -> Result<()> {
        let phase_start = self.phase_start();
        self.progress_tracker
            .wait_until_caught_up(&self.testbed.bus)
            .await?;
        self.note("applied and archived", phase_start);
        Ok(())
    }
}
