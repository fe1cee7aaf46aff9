//! The teeth of the simulation: each fault that can be put into the code must be found.
//!
//! Built with feature `mutants` only. A fault is chosen for the whole process, so faults come one after
//! the other.

use nixfleet_proto::mutant;

use crate::campaign::{Campaign, Failure, Summary};
use crate::scenario::Cut;

/// What became of one fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Its name.
    pub mutant: &'static str,
    /// Seeds that were run.
    pub seeds: u64,
    /// The seed that found it; nothing when it survived.
    pub found: Option<Failure>,
}

/// Runs seeds under each fault until one breaks an invariant, at most so many.
pub fn hunt(only: Option<&str>, seeds: u64, jobs: usize, tell: impl Fn(&Verdict)) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    let chosen = mutant::NAMES.into_iter();
    for name in chosen.filter(|name| only.is_none_or(|only| only == *name)) {
        mutant::set(Some(name));
        let campaign = Campaign {
            first: 1,
            seeds,
            jobs,
            cut: Cut::default(),
            failures_max: 1,
        };
        let summary: Summary = campaign.run(|_| ());
        mutant::set(None);
        let verdict = Verdict {
            mutant: name,
            seeds: summary.seeds,
            found: summary.failures.into_iter().next(),
        };
        tell(&verdict);
        verdicts.push(verdict);
    }
    verdicts
}
