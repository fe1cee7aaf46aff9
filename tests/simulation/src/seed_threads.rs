//! Runs one thing for many seeds on several threads.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Runs `one` for each seed and passes the results to `keep`, one at a time and in any order, until there
/// are no more seeds or it returns false.
pub fn run_seeds<R>(
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
