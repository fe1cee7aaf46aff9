//! Cursors of tables and archive, and the limit of events in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nixfleet_bus::Bus;
use nixfleet_proto::subject::Partition;
use nixfleet_store::Store;
use tokio::task::JoinHandle;

use crate::output_follower::SharedCounts;

/// Interval between two reads of the cursors.
const INTERVAL: Duration = Duration::from_millis(100);
/// Largest number of events that were sent and are not in tables and archive.
const OUTSTANDING_MAX: u64 = 100_000;
/// Time without progress after which the control plane counts as stalled.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(120);

/// Sequences and counts of the last read.
#[derive(Debug, Default)]
pub struct Progress {
    /// Input sequence that the tables cover.
    pub applied_input: AtomicU64,
    /// Output sequence that the tables cover.
    pub applied_output: AtomicU64,
    /// Last archived input sequence.
    pub archived_input: AtomicU64,
    /// Last archived output sequence.
    pub archived_output: AtomicU64,
    /// Agents' events in the tables.
    pub applied_events: AtomicU64,
    /// Agents' events in the archive.
    pub archived_events: AtomicU64,
}

/// Sources of the progress.
pub struct Targets {
    /// The tables.
    pub store: Store,
    /// The partition of the channel.
    pub partition: Partition,
    /// Input and output log of the partition.
    pub logs: [String; 2],
    /// Counts of outcomes in the output log.
    pub counts: SharedCounts,
}

/// A running tracker.
pub struct ProgressTracker {
    progress: Arc<Progress>,
    counts: SharedCounts,
    logs: [String; 2],
    sent: u64,
    task: JoinHandle<()>,
}

impl ProgressTracker {
    /// Starts reading cursors.
    pub fn start(targets: Targets) -> Self {
        let progress = Arc::new(Progress::default());
        let (counts, logs) = (targets.counts.clone(), targets.logs.clone());
        let task = tokio::spawn(poll(targets, Arc::clone(&progress)));
        Self {
            progress,
            counts,
            logs,
            sent: 0,
            task,
        }
    }

    /// The current progress.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Counts events that were stored in the input log.
    pub fn sent(&mut self, events: usize) {
        self.sent += events as u64;
    }

    /// Waits until the number of outstanding events is below the limit.
    ///
    /// # Errors
    /// When there is no progress for minutes.
    pub async fn wait_for_capacity(&self) -> Result<()> {
        let mut last = (0, Instant::now());
        loop {
            let done = self.done();
            if self.sent.saturating_sub(done) <= OUTSTANDING_MAX {
                return Ok(());
            }
            if done != last.0 {
                last = (done, Instant::now());
            }
            ensure!(
                last.1.elapsed() < STALL_TIMEOUT,
                "{} events were sent and the control plane made no progress for two minutes: {:?}, {:?}",
                self.sent,
                self.counts.outcome_counts(),
                self.progress
            );
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Waits until tables and archive are at the ends of both logs.
    ///
    /// # Errors
    /// When there is no progress for minutes.
    pub async fn wait_until_caught_up(&self, bus: &Bus) -> Result<()> {
        let mut last = (0, Instant::now());
        loop {
            let mut ends = [0; 2];
            for (end, log) in ends.iter_mut().zip(&self.logs) {
                *end = bus.stream_identity(log).await?.last_seq;
            }
            if self.progress.is_at(ends) {
                return Ok(());
            }
            let done = self.progress.sum();
            if done != last.0 {
                last = (done, Instant::now());
            }
            ensure!(
                last.1.elapsed() < STALL_TIMEOUT,
                "tables or archive made no progress for two minutes: the logs end at {ends:?}, the cursors are at {:?}",
                self.progress
            );
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Events that are folded, applied and archived.
    fn done(&self) -> u64 {
        let events = [
            &self.progress.applied_events,
            &self.progress.archived_events,
        ];
        let progress = events.map(|count| count.load(Ordering::Relaxed));
        self.counts
            .outcome_counts()
            .events
            .min(progress[0].min(progress[1]))
    }
}

impl Drop for ProgressTracker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn poll(targets: Targets, progress: Arc<Progress>) {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        // While the database is unreachable the last progress remains.
        if let Err(error) = targets.poll(&progress).await
            && !progress.is_known()
        {
            eprintln!("endurance: reading cursors: {error:#}");
        }
    }
}

impl Progress {
    /// True when tables and archive have the ends of input and output log.
    fn is_at(&self, [input, output]: [u64; 2]) -> bool {
        let has = |progress: &AtomicU64, end| progress.load(Ordering::Relaxed) >= end;
        has(&self.applied_input, input)
            && has(&self.archived_input, input)
            && has(&self.applied_output, output)
            && has(&self.archived_output, output)
    }

    /// A number that grows with any progress.
    fn sum(&self) -> u64 {
        let sequences = [
            &self.applied_output,
            &self.archived_input,
            &self.archived_output,
        ];
        let sequences = sequences.into_iter();
        sequences
            .map(|progress| progress.load(Ordering::Relaxed))
            .sum()
    }

    fn is_known(&self) -> bool {
        self.applied_output.load(Ordering::Relaxed) > 0
    }
}

impl Targets {
    async fn poll(&self, progress: &Progress) -> Result<()> {
        if let Some(cursor) = self.store.cursor(self.partition).await? {
            let input = cursor.input.map_or(0, |phase_start| phase_start.seq);
            progress.applied_input.store(input, Ordering::Relaxed);
            let output = cursor.out_seq;
            progress.applied_output.store(output, Ordering::Relaxed);
            let events = self.counts.events_up_to(output);
            progress.applied_events.fetch_max(events, Ordering::Relaxed);
        }
        let marks = self.store.archive_cursors().await?;
        let [input, output] = self.logs.each_ref();
        let at = |stream: &String| {
            marks
                .get(stream)
                .map_or(0, |phase_start| phase_start.sequence)
        };
        progress.archived_input.store(at(input), Ordering::Relaxed);
        progress
            .archived_output
            .store(at(output), Ordering::Relaxed);
        let events = self.counts.events_up_to(at(output));
        progress
            .archived_events
            .fetch_max(events, Ordering::Relaxed);
        let applied = progress.applied_output.load(Ordering::Relaxed);
        self.counts.discard_before(applied.min(at(output)));
        Ok(())
    }
}
