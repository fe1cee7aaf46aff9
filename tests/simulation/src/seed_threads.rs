//! Runs one thing for many seeds on several threads.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often progress is reported.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Which seeds to run.
#[derive(Debug, Clone, Copy)]
pub struct SeedRange {
    /// The first seed.
    pub first: u64,
    /// How many.
    pub seeds: u64,
    /// Threads.
    pub jobs: usize,
    /// No more seeds are begun after so many failures.
    pub failures_max: usize,
}

/// What many seeds gave.
pub trait SeedSummary<R> {
    /// Adds the result of a seed.
    fn add(&mut self, seed: u64, result: R);
    /// Sets the real time since the start.
    fn set_took(&mut self, took: Duration);
    /// How many seeds failed.
    fn failures(&self) -> usize;
}

impl SeedRange {
    /// Runs `one` for each seed and reports progress.
    pub fn run<R, S: SeedSummary<R> + Default + Send>(
        &self,
        one: impl Fn(u64) -> R + Sync,
        tell: impl Fn(&S) + Sync,
    ) -> S {
        let begun = Instant::now();
        let mut summary = S::default();
        let mut told = begun;
        let seeds = self.first..self.first + self.seeds;
        run_seeds(seeds, self.jobs, one, |seed, result| {
            summary.add(seed, result);
            summary.set_took(begun.elapsed());
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                tell(&summary);
            }
            summary.failures() < self.failures_max
        });
        summary.set_took(begun.elapsed());
        summary
    }
}

/// Runs `one` for each seed and passes the results to `keep`, one at a time and in any order, until there
/// are no more seeds or it returns false.
fn run_seeds<R>(
    seeds: Range<u64>,
    jobs: usize,
    one: impl Fn(u64) -> R + Sync,
    keep: impl FnMut(u64, R) -> bool + Send,
) {
    let (next, is_over) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let keep = Mutex::new(keep);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let result = one(seed);
                    let mut keep = keep.lock().unwrap_or_else(PoisonError::into_inner);
                    if !keep(seed, result) {
                        is_over.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}
