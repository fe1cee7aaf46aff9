//! Reduces a failing run while it violates the same invariant.

use std::time::{Duration, Instant};

use crate::engine::trace::Output;
use crate::run::run;
use crate::scenario::{Reduction, Scenario};

/// Looks for a smaller scenario of the seed that fails in the same way, for at most this time.
pub fn shrink(seed: u64, reduction: Reduction, invariant: &str, timeout: Duration) -> Reduction {
    let mut shrinking = Shrinking {
        seed,
        invariant,
        until: Instant::now() + timeout,
        best: reduction,
    };
    loop {
        let before = shrinking.best.clone();
        shrinking.disable_fault_rates();
        shrinking.drop_faults();
        shrinking.lower_caps();
        if shrinking.best == before || Instant::now() >= shrinking.until {
            return shrinking.best;
        }
    }
}

struct Shrinking<'a> {
    seed: u64,
    invariant: &'a str,
    until: Instant,
    best: Reduction,
}

impl Shrinking<'_> {
    /// Takes the candidate when it still fails.
    fn attempt(&mut self, candidate: Reduction) -> bool {
        if candidate == self.best || Instant::now() >= self.until {
            return false;
        }
        let outcome = run(self.seed, &candidate, Output::Nowhere);
        let violation = outcome.violation.as_ref();
        let fails = violation.is_some_and(|violation| violation.invariant == self.invariant);
        if fails {
            self.best = candidate;
        }
        fails
    }

    fn disable_fault_rates(&mut self) {
        self.attempt(Reduction {
            quiet: true,
            ..self.best.clone()
        });
    }

    /// Leaves out faults, half of them at a time, then quarters, down to single ones.
    fn drop_faults(&mut self) {
        let all = Scenario::of(self.seed, &Reduction::default()).faults.len();
        let kept = |reduction: &Reduction| {
            reduction
                .faults
                .clone()
                .unwrap_or_else(|| (0..all).collect())
        };
        let mut size = kept(&self.best).len().div_ceil(2);
        while size > 0 {
            let mut start = 0;
            while start < kept(&self.best).len() {
                let mut faults = kept(&self.best);
                let end = (start + size).min(faults.len());
                faults.drain(start..end);
                let candidate = Reduction {
                    faults: Some(faults),
                    ..self.best.clone()
                };
                if !self.attempt(candidate) {
                    start += size;
                }
            }
            size /= 2;
        }
    }

    fn lower_caps(&mut self) {
        let shape = Scenario::of(self.seed, &self.best).shape;
        let hosts = shape.hosts.len();
        let halves = std::iter::successors(Some(hosts / 2), |count| Some(count.div_ceil(2)));
        let mut smaller: Vec<usize> = halves.take_while(|count| *count > 1).collect();
        smaller.extend([1, hosts.saturating_sub(1)]);
        for hosts in smaller.into_iter().filter(|hosts| *hosts > 0) {
            let mut candidate = self.best.clone();
            candidate.caps.hosts = hosts;
            self.attempt(candidate);
        }
        for instances in [1, 2] {
            let mut candidate = self.best.clone();
            candidate.caps.instances = instances.min(candidate.caps.instances);
            self.attempt(candidate);
        }
        for releases in 1..shape.releases.len() {
            let mut candidate = self.best.clone();
            candidate.caps.releases = releases;
            if self.attempt(candidate) {
                break;
            }
        }
    }
}
