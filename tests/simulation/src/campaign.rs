//! Runs many seeds on several threads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::trace::Output;
use crate::invariant_monitor::{LogCounts, Violation};
use crate::run::run;
use crate::scenario::Reduction;

/// How often progress is reported.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Which seeds to run and how.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// The first seed.
    pub first: u64,
    /// How many.
    pub seeds: u64,
    /// Threads.
    pub jobs: usize,
    /// The reduction of each scenario.
    pub reduction: Reduction,
    /// The campaign ends after so many failures.
    pub failures_max: usize,
}

/// A seed that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The violated invariant.
    pub violation: Violation,
}

/// The results of a campaign.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Seeds that were run.
    pub seeds: u64,
    /// Those that failed, by seed.
    pub failures: Vec<Failure>,
    /// Events of all runs.
    pub events: u64,
    /// Entries in all input logs.
    pub entries: u64,
    /// Host events that were acknowledged.
    pub acknowledged: u64,
    /// Sum of the log counts of all runs.
    pub counts: LogCounts,
    /// Runs in which a log was trimmed.
    pub trimmed_runs: u64,
    /// Runs in which a log refused a message, or a gateway a request for want of space.
    pub full_runs: u64,
    /// Virtual time of all runs.
    pub virtual_time: Duration,
    /// Real time.
    pub took: Duration,
    /// Time that threads spent in runs.
    pub worked: Duration,
}

impl Campaign {
    /// Runs the seeds and reports progress.
    pub fn run(&self, tell: impl Fn(&Summary) + Sync) -> Summary {
        let begun = Instant::now();
        let (next, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
        let summary = Mutex::new(Summary::default());
        let told = Mutex::new(begun);
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= self.seeds {
                            return;
                        }
                        let mut summary = self.one(self.first + number, &summary);
                        summary.took = begun.elapsed();
                        if summary.failures.len() >= self.failures_max {
                            is_over.store(true, Ordering::Relaxed);
                        }
                        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                        if told.elapsed() >= TELL_EVERY {
                            *told = Instant::now();
                            tell(&summary);
                        }
                    }
                });
            }
        });
        let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
        summary.took = begun.elapsed();
        summary.failures.sort_by_key(|failure| failure.seed);
        summary
    }

    /// Runs one seed, adds its result and returns the summary so far.
    fn one(&self, seed: u64, summary: &Mutex<Summary>) -> Summary {
        let begun = Instant::now();
        let outcome = run(seed, &self.reduction, Output::Nowhere);
        let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
        summary.worked += begun.elapsed();
        summary.seeds += 1;
        summary.events += outcome.events;
        summary.entries += outcome.entries;
        summary.acknowledged += outcome.acknowledged;
        summary.counts = summary.counts.and(outcome.counts);
        summary.trimmed_runs += u64::from(outcome.counts.trims > 0);
        summary.full_runs += u64::from(outcome.counts.refused + outcome.counts.held_back > 0);
        summary.virtual_time += outcome.ended_at.since_start();
        if let Some(violation) = outcome.violation {
            summary.failures.push(Failure { seed, violation });
        }
        summary.clone()
    }
}
