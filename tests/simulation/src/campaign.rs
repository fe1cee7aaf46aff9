//! Runs many seeds on several threads.

use std::time::{Duration, Instant};

use crate::engine::trace::Output;
use crate::invariant_monitor::{LogCounts, Violation};
use crate::run::run;
use crate::scenario::Reduction;
use crate::seed_threads::{SeedRange, SeedSummary};
use crate::simulation::RunResult;

/// Which seeds to run and how.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// The seeds.
    pub range: SeedRange,
    /// The reduction of each scenario.
    pub reduction: Reduction,
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
        let one = |seed| {
            let begun = Instant::now();
            let outcome = run(seed, &self.reduction, Output::Nowhere);
            (outcome, begun.elapsed())
        };
        let mut summary: Summary = self.range.run(one, tell);
        summary.failures.sort_by_key(|failure| failure.seed);
        summary
    }
}

impl SeedSummary<(RunResult, Duration)> for Summary {
    fn add(&mut self, seed: u64, (outcome, worked): (RunResult, Duration)) {
        self.worked += worked;
        self.seeds += 1;
        self.events += outcome.events;
        self.entries += outcome.entries;
        self.acknowledged += outcome.acknowledged;
        self.counts = self.counts.and(outcome.counts);
        self.trimmed_runs += u64::from(outcome.counts.trims > 0);
        self.full_runs += u64::from(outcome.counts.refused + outcome.counts.held_back > 0);
        self.virtual_time += outcome.ended_at.since_start();
        if let Some(violation) = outcome.violation {
            self.failures.push(Failure { seed, violation });
        }
    }

    fn set_took(&mut self, took: Duration) {
        self.took = took;
    }

    fn failures(&self) -> usize {
        self.failures.len()
    }
}
